//! Invalidating guests' translations, and the VMIDs that tag them.
//!
//! A domain's [`AddressSpace`] holds its VMID; [`activate`] renews it when one of its vCPUs is about to be loaded. TLB operations
//! on stage 2 act on the VMID in VTTBR_EL2, so for a domain that is not loaded here the register is switched meanwhile.

use core::arch::asm;

use spin::mutex::TicketMutex;
use spin::Once;
use stage2::{BlockSize, Ipa, Pa, Pages, Tlb, VersionedVmid, VmidAllocator, VmidBits};

use crate::cpu::{CpuId, MAX_CPUS};

use super::sysreg::{isb, read_sysreg, write_sysreg};

static VMIDS: Once<TicketMutex<VmidAllocator<MAX_CPUS>>> = Once::new();

/// By-address operations up to this many; beyond, the whole VMID goes at less cost.
const MOST_BY_ADDRESS: u64 = 64;

/// A domain's VMID, of this generation or an earlier one.
pub struct AddressSpace(TicketMutex<Option<VersionedVmid>>);

impl AddressSpace {
    /// None yet.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(TicketMutex::new(None))
    }
}

fn allocator() -> &'static TicketMutex<VmidAllocator<MAX_CPUS>> {
    VMIDS.call_once(|| TicketMutex::new(VmidAllocator::new(VmidBits::from_id_aa64mmfr1(read_sysreg!("id_aa64mmfr1_el1")))))
}

/// Gives the domain a VMID that is good on this CPU and loads VTTBR_EL2 with it.
pub fn activate(cpu: CpuId, space: &AddressSpace, root: Pa) {
    // Held until VTTBR_EL2 is written: see stage2::vmid.
    let mut vmids = allocator().lock();
    let mut current = space.0.lock();
    let verdict = vmids.check(cpu.index(), *current);
    *current = Some(verdict.vmid);
    if verdict.flush {
        // SAFETY: drops guests' translations of all VMIDs on all CPUs; they are found again in the tables.
        unsafe { asm!("dsb ishst", "tlbi alle1is", "dsb ish", "isb", options(nostack)) };
    }
    // SAFETY: the loaded guest's stage 2; takes effect before the guest runs, by the isb or the exception return.
    unsafe { write_sysreg!("vttbr_el2", stage2::vttbr(root, verdict.vmid.vmid())) };
    isb();
}

/// No domain is loaded on this CPU any more.
pub fn deactivate(cpu: CpuId) {
    let mut vmids = allocator().lock();
    vmids.release(cpu.index());
    // SAFETY: VMID 0 has no translations, and no guest runs until the next `activate`.
    unsafe { write_sysreg!("vttbr_el2", 0) };
    isb();
}

/// The TLBs, for one domain's stage 2.
pub struct Stage2Tlb {
    vttbr: Option<u64>,
}

impl Stage2Tlb {
    /// For the domain with this address space and root.
    pub fn new(space: &AddressSpace, root: Pa) -> Self {
        Self { vttbr: space.0.lock().map(|v| stage2::vttbr(root, v.vmid())) }
    }

    fn with_vmid(&self, operation: impl FnOnce()) {
        // Without a VMID the domain never ran: no TLB holds anything of it.
        let Some(vttbr) = self.vttbr else { return };
        let loaded = read_sysreg!("vttbr_el2");
        if loaded == vttbr {
            operation();
            return;
        }
        // SAFETY: EL2 is not subject to stage 2, and no guest instruction runs until the register is put back.
        unsafe { write_sysreg!("vttbr_el2", vttbr) };
        isb();
        operation();
        // SAFETY: as above.
        unsafe { write_sysreg!("vttbr_el2", loaded) };
        isb();
    }
}

impl Tlb for Stage2Tlb {
    fn invalidate_range(&mut self, start: Ipa, pages: Pages, stride: BlockSize) {
        let step = stride.bytes();
        let count = pages.get().div_ceil(step >> 12);
        if count > MOST_BY_ADDRESS {
            return self.invalidate_all();
        }
        self.with_vmid(|| {
            for index in 0..count {
                let page = (start.raw() + index * step) >> 12;
                // SAFETY: drops translations, which the walker finds again.
                unsafe { asm!("tlbi ipas2e1is, {}", in(reg) page, options(nostack)) };
            }
            // Entries that combine both stages are tagged by VA, and are made from what was just dropped: hence the
            // order (DDI 0487 D8.14.5).
            // SAFETY: as above.
            unsafe { asm!("dsb ish", "tlbi vmalle1is", "dsb ish", "isb", options(nostack)) };
        });
    }

    fn invalidate_all(&mut self) {
        self.with_vmid(|| {
            // SAFETY: drops translations, which the walker finds again.
            unsafe { asm!("tlbi vmalls12e1is", "dsb ish", "isb", options(nostack)) };
        });
    }
}

/// Makes table entries visible to the walkers of all CPUs (DDI 0487 D8.2.6).
#[inline]
pub fn publish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack)) };
}
