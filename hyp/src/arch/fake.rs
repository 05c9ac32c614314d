//! A machine made of ordinary memory, for host tests: physical pages appear, zeroed, when first touched.
//!
//! State is per thread, so tests run side by side. Guest virtual addresses translate to themselves unless
//! [`guest::map`] or [`guest::unmap`] says otherwise.

use crate::arch::{Access, TranslationFault};
use crate::cpu::CpuId;
use crate::devicetree::PaRange;
use crate::time::Ticks;
use pv_abi::arch_arm::VcpuGuestContext;

extern crate std;
use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::thread_local;
use std::vec::Vec;

thread_local! {
    static CLOCK: Cell<u64> = const { Cell::new(0) };
    static CPU: Cell<usize> = const { Cell::new(0) };
    static GIC: Cell<gic::Version> = const { Cell::new(gic::Version::V2) };
    static CONTEXTS: RefCell<BTreeMap<usize, VcpuGuestContext>> = const { RefCell::new(BTreeMap::new()) };
    static SHUTDOWN: Cell<Option<pv_abi::sched::ShutdownReason>> = const { Cell::new(None) };
    static PREEMPT: Cell<bool> = const { Cell::new(false) };
    static KICKS: RefCell<Vec<CpuId>> = const { RefCell::new(Vec::new()) };
    static PAGES: RefCell<BTreeMap<u64, std::boxed::Box<[u8; 4096]>>> = const { RefCell::new(BTreeMap::new()) };
    static STORAGE: RefCell<BTreeMap<usize, stage2::Mfn>> = const { RefCell::new(BTreeMap::new()) };
    static CLEANED: Cell<u64> = const { Cell::new(0) };
    static INSTRUCTIONS: Cell<usize> = const { Cell::new(0) };
    static GUEST: RefCell<BTreeMap<u64, Option<u64>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The CPU this code runs on.
pub fn cpu_id() -> CpuId {
    CpuId::new(CPU.get()).unwrap_or(CpuId::BOOT)
}

/// Pretends to run on another CPU.
pub fn set_cpu(cpu: CpuId) {
    CPU.set(cpu.index());
}

/// The counter.
pub fn now() -> Ticks {
    Ticks::new(CLOCK.get())
}

/// Moves the counter on.
pub fn advance(ticks: u64) {
    CLOCK.set(CLOCK.get() + ticks);
}

/// Counter ticks per second.
pub fn counter_frequency() -> u64 {
    62_500_000
}

/// Makes `cpu` leave its guest or its sleep soon.
pub fn kick(cpu: CpuId) {
    KICKS.with_borrow_mut(|k| k.push(cpu));
}

/// The CPUs kicked since the last call.
pub fn take_kicks() -> Vec<CpuId> {
    KICKS.take()
}

/// Whether a long operation should stop here and be continued later.
pub fn interrupt_pending() -> bool {
    PREEMPT.get()
}

/// Sets what [`interrupt_pending`] answers.
pub fn set_interrupt_pending(pending: bool) {
    PREEMPT.set(pending);
}

/// Access to physical memory that holds no Rust object: guest pages, page tables, free frames.
///
/// Every function is `unsafe` for one reason: the caller promises that `[pa, pa + len)` is RAM which no Rust
/// reference covers.
pub mod phys {
    use super::{CLEANED, INSTRUCTIONS, PAGES, STORAGE};
    use stage2::{Mfn, Pa, Pages};
    extern crate std;
    use core::ptr::NonNull;
    use std::boxed::Box;

    fn with<R>(pa: u64, f: impl FnOnce(&mut [u8]) -> R) -> R {
        PAGES.with_borrow_mut(|pages| {
            let page = pages.entry(pa >> 12).or_insert_with(|| Box::new([0; 4096]));
            f(&mut page[(pa & 0xfff) as usize..])
        })
    }

    macro_rules! scalar {
        ($($ty:ty: $load:ident $store:ident $or:ident $and:ident $cas:ident;)*) => { $(
            /// Loads (acquire) a naturally aligned value.
            ///
            /// # Safety
            /// See the module.
            pub unsafe fn $load(pa: Pa) -> $ty {
                with(pa.raw(), |b| <$ty>::from_le_bytes(b[..size_of::<$ty>()].try_into().unwrap()))
            }
            /// Stores (release) a naturally aligned value.
            ///
            /// # Safety
            /// See the module.
            pub unsafe fn $store(pa: Pa, value: $ty) {
                with(pa.raw(), |b| b[..size_of::<$ty>()].copy_from_slice(&value.to_le_bytes()))
            }
            /// Sets `bits` atomically; returns the old value.
            ///
            /// # Safety
            /// See the module.
            pub unsafe fn $or(pa: Pa, bits: $ty) -> $ty {
                // SAFETY: the caller's promise, passed on.
                unsafe { let old = $load(pa); $store(pa, old | bits); old }
            }
            /// Keeps only `bits` atomically; returns the old value.
            ///
            /// # Safety
            /// See the module.
            pub unsafe fn $and(pa: Pa, bits: $ty) -> $ty {
                // SAFETY: the caller's promise, passed on.
                unsafe { let old = $load(pa); $store(pa, old & bits); old }
            }
            /// Replaces `old` by `new` atomically; the value found otherwise.
            ///
            /// # Safety
            /// See the module.
            pub unsafe fn $cas(pa: Pa, old: $ty, new: $ty) -> Result<$ty, $ty> {
                // SAFETY: the caller's promise, passed on.
                unsafe { let found = $load(pa); if found == old { $store(pa, new); Ok(found) } else { Err(found) } }
            }
        )* };
    }
    scalar! {
        u8: load_u8 store_u8 fetch_or_u8 fetch_and_u8 compare_exchange_u8;
        u16: load_u16 store_u16 fetch_or_u16 fetch_and_u16 compare_exchange_u16;
        u32: load_u32 store_u32 fetch_or_u32 fetch_and_u32 compare_exchange_u32;
        u64: load_u64 store_u64 fetch_or_u64 fetch_and_u64 compare_exchange_u64;
    }

    /// Copies out of physical memory; the range must not cross a page.
    ///
    /// # Safety
    /// See the module.
    pub unsafe fn copy_from(pa: Pa, to: &mut [u8]) {
        with(pa.raw(), |b| to.copy_from_slice(&b[..to.len()]))
    }

    /// Copies into physical memory; the range must not cross a page.
    ///
    /// # Safety
    /// See the module.
    pub unsafe fn copy_to(pa: Pa, from: &[u8]) {
        with(pa.raw(), |b| b[..from.len()].copy_from_slice(from))
    }

    /// Copies `len` bytes between two places of physical memory, neither crossing a page.
    ///
    /// # Safety
    /// See the module; for both ranges.
    pub unsafe fn copy(to: Pa, from: Pa, len: usize) {
        let mut buffer = [0; 4096];
        // SAFETY: the caller's promise, passed on.
        unsafe { copy_from(from, &mut buffer[..len]) };
        // SAFETY: the caller's promise, passed on.
        unsafe { copy_to(to, &buffer[..len]) };
    }

    /// Makes pages EL2's own for Rust objects, zeroed, for good; where they are in EL2's address space. Here they come
    /// from the host's heap, as aligned as a block of that size is.
    ///
    /// # Safety
    /// See the module; and the pages are never used through another function of it.
    pub unsafe fn zeroed_storage(first: Mfn, count: Pages) -> NonNull<u8> {
        let bytes = (count.get() as usize * 4096).max(4096);
        let layout = std::alloc::Layout::from_size_align(bytes, bytes.next_power_of_two()).unwrap();
        // SAFETY: the size is not zero.
        let storage = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap();
        STORAGE.with_borrow_mut(|all| all.insert(storage.as_ptr().addr(), first));
        storage
    }

    /// The first of the pages that are there in EL2's address space.
    pub fn frame_of_storage(storage: NonNull<u8>) -> Option<Mfn> {
        STORAGE.with_borrow(|all| all.get(&storage.as_ptr().addr()).copied())
    }

    /// What the boot loader put in memory, as bytes.
    ///
    /// # Safety
    /// The range is RAM that nobody writes as long as the slice is used.
    pub unsafe fn boot_module(start: Pa, size: usize) -> &'static [u8] {
        let mut bytes = std::vec![0; size];
        for (chunk, page) in bytes.chunks_mut(4096).zip(0..) {
            // SAFETY: the caller's promise; modules are page-aligned here.
            unsafe { copy_from(start.wrapping_add(page * 4096), chunk) };
        }
        bytes.leak()
    }

    /// Clears whole pages.
    ///
    /// # Safety
    /// See the module.
    pub unsafe fn clear_pages(first: Mfn, count: Pages) {
        PAGES.with_borrow_mut(|pages| {
            for page in first.raw()..first.raw() + count.get() {
                pages.remove(&page);
            }
        })
    }

    /// Clears whole pages, down to RAM.
    ///
    /// # Safety
    /// See the module.
    pub unsafe fn clear_pages_to_ram(first: Mfn, count: Pages) {
        // SAFETY: the caller's promise, passed on.
        unsafe { clear_pages(first, count) };
    }

    /// Cleans and invalidates the data cache over a range, to the point of coherency. Here it is counted.
    pub fn clean_invalidate(_pa: Pa, len: usize) {
        CLEANED.set(CLEANED.get() + len as u64);
    }

    /// Bytes given to [`clean_invalidate`] since the last call.
    pub fn take_cleaned() -> u64 {
        CLEANED.take()
    }

    /// Forgets all instructions that any CPU has fetched ahead. Here it is counted.
    pub fn invalidate_instructions() {
        INSTRUCTIONS.set(INSTRUCTIONS.get() + 1);
    }

    /// How often [`invalidate_instructions`] was called.
    pub fn instruction_invalidations() -> usize {
        INSTRUCTIONS.get()
    }
}

/// Stage-2 TLBs: here a record of what was invalidated.
pub mod tlb {
    use super::{RefCell, Vec, thread_local};
    use stage2::{BlockSize, Ipa, Pa, Pages};

    /// One recorded operation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Invalidation {
        /// [`stage2::Tlb::invalidate_range`].
        Range(Ipa, Pages),
        /// [`stage2::Tlb::invalidate_all`].
        All,
    }

    thread_local! {
        static INVALIDATIONS: RefCell<Vec<(Pa, Invalidation)>> = const { RefCell::new(Vec::new()) };
    }

    /// The machine's part of an address space: which VMID its TLB entries carry. None here.
    #[derive(Debug, Default)]
    pub struct AddressSpace;

    impl AddressSpace {
        /// An address space without a VMID.
        pub const fn new() -> Self {
            Self
        }
    }

    /// The TLBs, for the address space with this root.
    #[derive(Debug)]
    pub struct Stage2Tlb {
        root: Pa,
    }

    impl Stage2Tlb {
        /// For the tables at `root`, used under the VMID of `space`.
        pub fn new(_space: &AddressSpace, root: Pa) -> Self {
            Self { root }
        }
    }

    impl stage2::Tlb for Stage2Tlb {
        fn invalidate_range(&mut self, start: Ipa, pages: Pages, _stride: BlockSize) {
            INVALIDATIONS.with_borrow_mut(|i| i.push((self.root, Invalidation::Range(start, pages))));
        }

        fn invalidate_all(&mut self) {
            INVALIDATIONS.with_borrow_mut(|i| i.push((self.root, Invalidation::All)));
        }
    }

    /// Makes table entries visible to the walkers of all CPUs. Nothing to do here.
    pub fn publish() {}

    /// What was invalidated since the last call, with the root of the tables.
    pub fn take_invalidations() -> Vec<(Pa, Invalidation)> {
        INVALIDATIONS.take()
    }
}

/// Addresses of the vCPU that is loaded on this CPU.
pub mod guest {
    use super::{Access, GUEST, TranslationFault};
    use stage2::{Ipa, Pa};

    /// Translates a virtual address of the running guest, as the guest at EL1 would access it, through both stages.
    pub fn translate(va: u64, _access: Access) -> Result<Pa, TranslationFault> {
        match GUEST.with_borrow(|g| g.get(&(va >> 12)).copied()) {
            None => Ok(Pa::new(va)),
            Some(Some(page)) => Ok(Pa::new(page << 12 | va & 0xfff)),
            Some(None) => Err(TranslationFault),
        }
    }

    /// Translates a virtual address through stage 1 alone: to itself, where [`translate`] finds nothing.
    pub fn stage1(va: u64, access: Access) -> Option<Ipa> {
        translate(va, access).is_err().then(|| Ipa::new(va))
    }

    /// Maps the page of `va` to that of `pa` for [`translate`].
    pub fn map(va: u64, pa: Pa) {
        GUEST.with_borrow_mut(|g| g.insert(va >> 12, Some(pa.raw() >> 12)));
    }

    /// Makes [`translate`] fail for the page of `va`.
    pub fn unmap(va: u64) {
        GUEST.with_borrow_mut(|g| g.insert(va >> 12, None));
    }
}

/// The machine's part of a vCPU: none here.
#[derive(Debug, Default)]
pub struct VcpuState;

impl VcpuState {
    /// After reset.
    pub fn new(_vmpidr: u64, _counter_offset: u64) -> Self {
        Self
    }
}

/// The console's UART: discards what is written.
pub mod uart {
    /// Writes bytes.
    pub fn write(_bytes: &[u8]) {}
}

/// Sets where a vCPU that is down will start, and with what in X0.
pub fn start_vcpu(_vcpu: &crate::vcpu::Vcpu, _entry: u64, _context: u64) {}

/// Powers the machine off, or resets it. Here: remembers that it was asked to.
pub fn shut_down_machine(reason: pv_abi::sched::ShutdownReason) {
    SHUTDOWN.set(Some(reason));
}

/// What [`shut_down_machine`] was last called with.
pub fn machine_shutdown() -> Option<pv_abi::sched::ShutdownReason> {
    SHUTDOWN.get()
}

/// Sets when this CPU's EL2 timer fires for [`crate::timer`]; `None`: not at all.
pub fn set_deadline(_when: Option<Ticks>) {}

/// Declares a function that returns a static of the machine's: here each thread, and so each test, has one of its own.
macro_rules! machine_static {
    ($(#[$meta:meta])* $visibility:vis $name:ident: $type:ty = $initial:expr) => {
        $(#[$meta])*
        $visibility fn $name() -> &'static $type {
            extern crate std;
            std::thread_local! {
                static VALUE: &'static $type = std::boxed::Box::leak(std::boxed::Box::new($initial));
            }
            VALUE.with(|value| *value)
        }
    };
}
pub(crate) use machine_static;

/// How many SPIs the machine's GIC has.
pub fn spi_count() -> u32 {
    288
}

/// Gives an SPI of the machine to the control domain; whether that can be done.
pub fn route_to_control(_domain: &crate::domain::Domain, _intid: gic::IntId, _trigger: gic::Trigger) -> bool {
    true
}

/// Backs a vCPU's virtual timer interrupt by the machine's.
pub fn back_virtual_timer(_domain: &crate::domain::Domain, _vcpu: crate::vcpu::VcpuId) {}

/// A vCPU's registers, after reset.
pub fn new_vcpu_state(_affinity: u64, _counter_offset: u64) -> VcpuState {
    VcpuState
}

/// What the vCPU's registers were last set to.
pub fn read_context(vcpu: &crate::vcpu::Vcpu) -> VcpuGuestContext {
    CONTEXTS.with_borrow(|all| all.get(&core::ptr::from_ref(vcpu).addr()).copied().unwrap_or_default())
}

/// Sets a vCPU's registers.
pub fn write_context(vcpu: &crate::vcpu::Vcpu, context: &VcpuGuestContext) {
    CONTEXTS.with_borrow_mut(|all| all.insert(core::ptr::from_ref(vcpu).addr(), *context));
}

/// What a domain's virtual GIC is made of.
pub fn guest_gic() -> (gic::Version, Option<PaRange>) {
    let gicv = PaRange::new(stage2::Pa::new(0x0804_0000), 0x2000);
    (GIC.get(), gicv.filter(|_| GIC.get() == gic::Version::V2))
}

/// What domains are told of the counter's frequency.
pub fn told_counter_frequency() -> u32 {
    0
}

/// Gives this thread's machine another GIC.
pub fn set_gic(version: gic::Version) {
    GIC.set(version);
}

/// Gives way to whoever one waits for.
pub fn relax() {
    std::thread::yield_now();
}
