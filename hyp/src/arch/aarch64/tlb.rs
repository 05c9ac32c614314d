//! Invalidating guests' translations, and the VMIDs that tag them.
//!
//! A domain's [`AddressSpace`] holds its VMID; [`activate`] renews it when one of its vCPUs is about to be loaded.
//!
//! ```text
//!   VTTBR_EL2:   VMID 0, empty root ──activate──▶ VMID, root ──deactivate──▶ VMID 0, empty root
//!                              └── TLB operation for another domain: its VMID, empty root, and back
//! ```
//! TLB operations on stage 2 act on the VMID in VTTBR_EL2. Where that must be another's for a moment, and while nobody is
//! loaded, the root is one whose entries are all invalid: EL1's other registers belong to somebody else then, and a CPU
//! that translates speculatively out of context (Cortex-A55 1530923, A57 1319537, A72 1319367, A76 1165522) must find
//! nothing to cache. For the same reason EL1's registers are loaded before [`activate`].

use alloc::sync::Arc;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::sync::TicketMutex;
use spin::Once;
use stage2::{BlockSize, Ipa, Pa, Pages, Tlb, VersionedVmid, Vmid, VmidAllocator, VmidBits};

use crate::cpu::{CpuId, MAX_CPUS};
use crate::vcpu::VcpuId;

use super::errata;
use super::sysreg::{isb, read_sysreg, write_sysreg};

static VMIDS: Once<TicketMutex<VmidAllocator<MAX_CPUS>>> = Once::new();

/// By-address operations up to this many; beyond, the whole VMID goes at less cost.
const MOST_BY_ADDRESS: u64 = 64;

/// A root table of any geometry (at most 16 concatenated pages) that translates nothing.
#[repr(C, align(65536))]
struct EmptyRoot(UnsafeCell<[u64; 16 * 512]>);

// SAFETY: nobody ever writes it. (The cell puts it in .bss rather than in the image.)
unsafe impl Sync for EmptyRoot {}

static EMPTY_ROOT: EmptyRoot = EmptyRoot(UnsafeCell::new([0; 16 * 512]));

/// VTTBR_EL2 with that VMID and no translations.
fn empty(vmid: Vmid) -> u64 {
    stage2::vttbr(Pa::new(EMPTY_ROOT.0.get() as u64), vmid)
}

/// Issues TLB maintenance and waits for it; again where the CPU needs it ([`errata::repeats_tlbi`]).
macro_rules! tlbi {
    ($operation:literal, $barrier:literal) => {{
        // SAFETY: drops translations, which the walkers find again in the tables.
        unsafe { asm!(concat!("tlbi ", $operation), concat!("dsb ", $barrier), options(nostack)) };
        if errata::repeats_tlbi() {
            // SAFETY: as above.
            unsafe { asm!(concat!("tlbi ", $operation), concat!("dsb ", $barrier), options(nostack)) };
        }
    }};
}

/// No vCPU that ran: in `AddressSpace::last`.
const NOBODY: u32 = u32::MAX;

/// What all references to an address space share.
struct Tags {
    /// The domain's VMID with its generation ([`VersionedVmid::raw`]), or 0. Written under the lock of the allocator.
    vmid: AtomicU64,
    /// Which of its vCPUs each CPU ran last: two vCPUs may use one ASID for different tables.
    last: [AtomicU32; MAX_CPUS],
}

/// A domain's VMID, of this generation or an earlier one.
pub struct AddressSpace(Arc<Tags>);

impl AddressSpace {
    /// None yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Arc::new(Tags { vmid: AtomicU64::new(0), last: [const { AtomicU32::new(NOBODY) }; MAX_CPUS] }))
    }
}

fn allocator() -> &'static TicketMutex<VmidAllocator<MAX_CPUS>> {
    VMIDS.call_once(|| {
        TicketMutex::new(VmidAllocator::new(VmidBits::from_id_aa64mmfr1(read_sysreg!("id_aa64mmfr1_el1"))))
    })
}

/// This CPU starts with no translations of guests, and nobody loaded. Before HCR_EL2.VM is first set: what the firmware,
/// or the reset, left in the TLBs may carry any VMID (DDI 0487 D8.17.1).
pub fn init_cpu() {
    errata::init_cpu();
    // SAFETY: no guest runs here yet.
    unsafe { write_sysreg!("vttbr_el2", empty(Vmid::new(0))) };
    isb();
    tlbi!("alle1", "nsh");
    isb();
}

/// Gives the domain a VMID that is good on this CPU and loads VTTBR_EL2 with it, for one of its vCPUs, whose EL1 registers
/// are loaded already.
pub fn activate(cpu: CpuId, space: &AddressSpace, root: Pa, vcpu: VcpuId) {
    let tags = &*space.0;
    // The EL1 registers written so far are in force before this root can be walked with them.
    isb();
    {
        // Held until VTTBR_EL2 is written: see stage2::vmid.
        let mut vmids = allocator().lock();
        let current = tags.vmid.load(Ordering::Relaxed);
        let verdict = vmids.check(cpu.index(), VersionedVmid::from_raw(current));
        if verdict.vmid.raw() != current {
            tags.vmid.store(verdict.vmid.raw(), Ordering::Release);
            // Visible before this CPU walks the tables under it: whoever changes the tables after a walk finds the VMID
            // under which to invalidate. The other half is in `Stage2Tlb::with_vmid`.
            // SAFETY: a barrier.
            unsafe { asm!("dsb ish", options(nostack)) };
        }
        if verdict.flush {
            // Translations of all VMIDs on all CPUs.
            tlbi!("alle1is", "ish");
            isb();
        }
        // SAFETY: the loaded guest's stage 2; takes effect before the guest runs, by the isb or the exception return.
        unsafe { write_sysreg!("vttbr_el2", stage2::vttbr(root, verdict.vmid.vmid())) };
    }
    isb();
    let last = &tags.last[cpu.index()];
    if last.load(Ordering::Relaxed) != vcpu.get() && last.swap(vcpu.get(), Ordering::Relaxed) != NOBODY {
        // Stage 1 of this VMID on this CPU: it is of another vCPU, whose ASIDs need not mean the same.
        tlbi!("vmalle1", "nsh");
        isb();
    }
}

/// No domain is loaded on this CPU any more.
pub fn deactivate(cpu: CpuId) {
    let mut vmids = allocator().lock();
    // SAFETY: no guest runs until the next `activate`.
    unsafe { write_sysreg!("vttbr_el2", empty(Vmid::new(0))) };
    isb();
    vmids.release(cpu.index());
}

/// The TLBs, for one domain's stage 2.
pub struct Stage2Tlb {
    tags: Arc<Tags>,
    root: Pa,
}

impl Stage2Tlb {
    /// For the domain with this address space and root.
    pub fn new(space: &AddressSpace, root: Pa) -> Self {
        Self { tags: space.0.clone(), root }
    }

    fn with_vmid(&self, operation: impl FnOnce()) {
        // The changed entries are visible to all walkers before the VMID is read: a CPU that gets a new one for the domain
        // later walks the changed tables. And before the TLB operation (DDI 0487 D8.17.1).
        // SAFETY: a barrier.
        unsafe { asm!("dsb ish", options(nostack)) };
        // Without a VMID the domain never ran: no TLB holds anything of it. If it is of an earlier generation, and
        // another domain has the number now, that one loses some translations.
        let Some(vmid) = VersionedVmid::from_raw(self.tags.vmid.load(Ordering::Acquire)) else { return };
        let vmid = vmid.vmid();
        let loaded = read_sysreg!("vttbr_el2");
        if loaded == stage2::vttbr(self.root, vmid) {
            operation();
            return;
        }
        // SAFETY: EL2 is not subject to stage 2, and no guest instruction runs until the register is put back.
        unsafe { write_sysreg!("vttbr_el2", empty(vmid)) };
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
            let by_address = || {
                for index in 0..count {
                    let page = (start.raw() + index * step) >> 12;
                    // SAFETY: drops translations, which the walker finds again.
                    unsafe { asm!("tlbi ipas2e1is, {}", in(reg) page, options(nostack)) };
                }
                // SAFETY: a barrier.
                unsafe { asm!("dsb ish", options(nostack)) };
            };
            by_address();
            if errata::repeats_tlbi() {
                by_address();
            }
            // Entries that combine both stages are tagged by VA, and are made from what was just dropped: hence the
            // order (DDI 0487 D8.14.5).
            tlbi!("vmalle1is", "ish");
            isb();
        });
    }

    fn invalidate_all(&mut self) {
        self.with_vmid(|| {
            tlbi!("vmalls12e1is", "ish");
            isb();
        });
    }
}

/// Makes table entries visible to the walkers of all CPUs (DDI 0487 D8.2.6).
#[inline]
pub fn publish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack)) };
}
