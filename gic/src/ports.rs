//! What the virtual GIC needs from the machine: two small traits, so that it runs on a laptop.
#![forbid(unsafe_code)]

use crate::{IntId, Lr, VcpuIndex};

/// How a line signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Pending while the line is asserted.
    Level,
    /// Pending from an edge until acknowledged.
    Edge,
}

/// The virtual CPU interface of the CPU that executes the call: GICH_* or ICH_*_EL2, and the physical deactivate.
pub trait ListRegisters {
    /// How many list registers there are (1–16).
    fn count(&self) -> usize;
    /// Contents of list register `index` (below [`ListRegisters::count`]).
    fn read(&mut self, index: usize) -> Lr;
    /// Fills list register `index`; [`Lr::EMPTY`] frees it.
    fn write(&mut self, index: usize, lr: Lr);
    /// Bit `n`: list register `n` holds nothing (GICH_ELRSR; a list register with an unserved EOI maintenance
    /// request may be missing from it).
    fn empty(&mut self) -> u32;
    /// Raise a maintenance interrupt while no list register is pending (HCR.NPIE).
    fn set_no_pending_maintenance(&mut self, on: bool);
    /// Deactivates a physical interrupt that was acknowledged, when the guest will not do it through its list register.
    fn deactivate(&mut self, pintid: IntId);
}

/// The physical distributor, for interrupts that hardware backs. Only SPIs are passed here: the private ones that
/// back virtual interrupts (the virtual timer's) stay enabled on every CPU.
pub trait Host {
    /// Lets the physical interrupt come.
    fn enable(&mut self, pintid: IntId);
    /// Keeps it from coming.
    fn disable(&mut self, pintid: IntId);
    /// The guest chose how the line signals. Called while the guest has the interrupt disabled.
    fn set_trigger(&mut self, pintid: IntId, trigger: Trigger);
    /// The guest wants it on `vcpu`: worth delivering on the physical CPU where that vCPU runs.
    fn route(&mut self, pintid: IntId, vcpu: VcpuIndex);
}

/// A domain without hardware-backed interrupts.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn enable(&mut self, _: IntId) {}
    fn disable(&mut self, _: IntId) {}
    fn set_trigger(&mut self, _: IntId, _: Trigger) {}
    fn route(&mut self, _: IntId, _: VcpuIndex) {}
}

/// A vCPU's virtual CPU interface apart from the list registers, while the vCPU is on no CPU: VMCR (what the guest
/// wrote to its CPU interface) and the active priorities. All zero at reset. Saved, restored and read by [`crate::phys`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuInterfaceState {
    /// GICH_VMCR or ICH_VMCR_EL2.
    pub vmcr: u32,
    /// GICH_APR in the first word; or ICH_AP0R<0–3>_EL2, then ICH_AP1R<0–3>_EL2.
    pub active_priorities: [u32; 8],
}

impl CpuInterfaceState {
    /// The priority mask the guest set (0: everything masked), for [`crate::VGic::set_interface`].
    /// GICH_VMCR: VMPriMask 31:27 (IHI 0048B, 5.3.3).
    #[inline]
    pub const fn mask_v2(&self) -> u8 {
        (self.vmcr >> 27) as u8 * 8
    }

    /// As [`CpuInterfaceState::mask_v2`]; ICH_VMCR_EL2: VPMR 31:24 (IHI 0069H, 12.4.8).
    #[inline]
    pub const fn mask_v3(&self) -> u8 {
        (self.vmcr >> 24) as u8
    }

    /// Whether the guest lets its interrupts' group through (GICH_VMCR.VMG0En, bit 0).
    #[inline]
    pub const fn enabled_v2(&self) -> bool {
        self.vmcr & 1 != 0
    }

    /// As [`CpuInterfaceState::enabled_v2`]; ICH_VMCR_EL2.VENG1, bit 1.
    #[inline]
    pub const fn enabled_v3(&self) -> bool {
        self.vmcr & 2 != 0
    }
}
