//! Volatile access to a GIC register frame, and the banks of per-interrupt registers that GICD and GICR share.

use core::ptr::NonNull;

use crate::{IntId, Trigger};

/// A mapped frame of GIC registers.
#[derive(Clone, Copy)]
pub(super) struct Registers(NonNull<u8>);

// SAFETY: the frame is Device memory that every CPU reaches at the same address; each access is a single volatile
// load or store, and `phys.rs` says which functions need a lock.
unsafe impl Send for Registers {}
// SAFETY: as for `Send`.
unsafe impl Sync for Registers {}

impl Registers {
    /// The frame at `address`; `None` for address 0.
    ///
    /// # Safety
    /// `address` is a frame of GIC registers, mapped as Device memory as long as the result is used, and large enough
    /// for the offsets it is used with.
    pub unsafe fn new(address: usize) -> Option<Self> {
        NonNull::new(core::ptr::with_exposed_provenance_mut(address)).map(Self)
    }

    /// The frame `offset` bytes on.
    ///
    /// # Safety
    /// As for [`Registers::new`], for the address `offset` bytes on.
    pub unsafe fn at(self, offset: usize) -> Self {
        // SAFETY: the caller promises that the address lies in the same mapping.
        Self(unsafe { self.0.add(offset) })
    }

    /// Where it is.
    pub fn address(self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    #[inline]
    pub fn read(self, offset: usize) -> u32 {
        let value: u32;
        // SAFETY: `new` was promised a mapped frame that holds this register; reading device registers touches no
        // memory of Rust's. A plain `ldr` with a base register keeps the access decodable and single.
        unsafe {
            core::arch::asm!("ldr {0:w}, [{1}]", out(reg) value, in(reg) self.0.as_ptr().wrapping_add(offset),
                options(nostack, preserves_flags))
        };
        value
    }

    #[inline]
    pub fn write(self, offset: usize, value: u32) {
        // SAFETY: as in `read`; what the GIC does in response is the caller's, and safe: it never writes memory.
        unsafe {
            core::arch::asm!("str {0:w}, [{1}]", in(reg) value, in(reg) self.0.as_ptr().wrapping_add(offset),
                options(nostack, preserves_flags))
        };
    }

    #[inline]
    pub fn write_byte(self, offset: usize, value: u8) {
        // SAFETY: as in `write`; used on the byte-accessible registers IPRIORITYR and ITARGETSR only.
        unsafe {
            core::arch::asm!("strb {0:w}, [{1}]", in(reg) value, in(reg) self.0.as_ptr().wrapping_add(offset),
                options(nostack, preserves_flags))
        };
    }

    pub fn read_u64(self, offset: usize) -> u64 {
        u64::from(self.read(offset)) | u64::from(self.read(offset + 4)) << 32
    }

    pub fn write_u64(self, offset: usize, value: u64) {
        // SAFETY: as in `write`; used on the 64-bit register IROUTER only.
        unsafe {
            core::arch::asm!("str {0}, [{1}]", in(reg) value, in(reg) self.0.as_ptr().wrapping_add(offset),
                options(nostack, preserves_flags))
        };
    }

    /// GICD_TYPER: the first INTID that is not implemented.
    pub fn limit(self) -> u32 {
        ((self.read(4) & 0x1f) * 32 + 32).min(IntId::LIMIT)
    }

    #[inline]
    fn write_bit(self, bank: usize, intid: IntId) {
        self.write(bank + intid.get() as usize / 32 * 4, 1 << (intid.get() % 32));
    }

    pub fn set_enable(self, intid: IntId) {
        self.write_bit(0x100, intid);
    }

    pub fn clear_enable(self, intid: IntId) {
        self.write_bit(0x180, intid);
    }

    pub fn set_pending(self, intid: IntId) {
        self.write_bit(0x200, intid);
    }

    pub fn clear_pending(self, intid: IntId) {
        self.write_bit(0x280, intid);
    }

    pub fn active(self, intid: IntId) -> u32 {
        self.read(0x300 + intid.get() as usize / 32 * 4)
    }

    pub fn set_active(self, intid: IntId) {
        self.write_bit(0x300, intid);
    }

    pub fn clear_active(self, intid: IntId) {
        self.write_bit(0x380, intid);
    }

    pub fn set_priority(self, intid: IntId, priority: u8) {
        self.write_byte(0x400 + intid.get() as usize, priority);
    }

    pub fn set_trigger(self, intid: IntId, trigger: Trigger) {
        let offset = 0xc00 + intid.get() as usize / 16 * 4;
        let edge = 2 << (intid.get() % 16 * 2);
        let others = self.read(offset) & !edge;
        self.write(offset, if trigger == Trigger::Edge { others | edge } else { others });
    }
}

/// Orders device writes before what follows, for other observers too (DDI 0487, B2.3.11).
#[inline]
pub(super) fn dsb_sy() {
    // SAFETY: a barrier changes no state.
    unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Makes normal memory writes visible to the CPUs of the inner shareable domain before what follows.
#[inline]
pub(super) fn dsb_ishst() {
    // SAFETY: a barrier changes no state.
    unsafe { core::arch::asm!("dsb ishst", options(nostack, preserves_flags)) };
}

/// Orders loads, of devices too, before the loads and stores that follow, for the inner shareable domain (DDI 0487, B2.3.11).
#[inline]
pub(super) fn dmb_ishld() {
    // SAFETY: a barrier changes no state.
    unsafe { core::arch::asm!("dmb ishld", options(nostack, preserves_flags)) };
}

/// Makes system-register writes take effect for the instructions that follow (DDI 0487, D19.1.2).
#[inline]
pub(super) fn isb() {
    // SAFETY: a barrier changes no state.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) };
}
