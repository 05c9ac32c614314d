//! The physical GIC: one object, shared by all CPUs.
//!
//! State lives in the hardware. The CPU interface and the virtual one (GICC, GICH; ICC_*, ICH_*) are banked per CPU,
//! so their functions act on the CPU that calls and need no lock; CPUs call them with interrupts masked. Of the
//! distributor, the functions that write set- or clear-registers or whole bytes need no lock either; only
//! [`PhysGic::set_trigger`] changes a shared word: its caller holds a lock over all its uses.
//!
//! Set-up of the distributor, and on GICv2 of the CPU interface, is `arm-gic-driver`'s. What it lacks or has wrong is
//! here: redistributors found by their own stride, list registers, set-up without unlimited waits.

use crate::{CpuInterfaceState, IntId, ListRegisters, Lr, Trigger, Version};

mod registers;
mod v2;
mod v3;

/// The priority Nacelle gives every physical interrupt.
const PRIORITY: u8 = 0xa0;

/// Why the GIC cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicError {
    /// A register the specification says is there reads as if it were not: the addresses are wrong.
    NotAGic,
    /// No redistributor has this CPU's affinity.
    NoRedistributor,
    /// The GIC did not answer a handshake (RWP, ChildrenAsleep).
    Timeout,
    /// This CPU has no GIC system registers, or higher firmware keeps them (ICC_SRE_EL2.SRE stays 0).
    NoSystemRegisters,
    /// The CPU's interface number is not one of eight.
    NoCpuInterface,
    /// No memory.
    Memory,
}

impl core::fmt::Display for GicError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotAGic => "no GIC at the addresses in the device tree",
            Self::NoRedistributor => "no GIC redistributor for this CPU",
            Self::Timeout => "the GIC does not answer",
            Self::NoSystemRegisters => "the GIC system registers are not available at EL2",
            Self::NoCpuInterface => "this CPU has no GIC CPU interface",
            Self::Memory => "no memory for the list of GIC redistributors",
        })
    }
}

/// Where a CPU is for SGIs and routing: its interface bit (GICv2) or affinity (GICv3, as in GICD_IROUTER). From
/// [`PhysGic::init_cpu`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTarget(u64);

/// An acknowledged interrupt: what the acknowledge register said, with a GICv2 SGI's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an acknowledged interrupt must be ended"]
pub struct Acknowledged {
    raw: u32,
    intid: IntId,
}

impl Acknowledged {
    /// Which interrupt it is.
    #[inline]
    pub const fn intid(self) -> IntId {
        self.intid
    }
}

/// The machine's GIC.
pub enum PhysGic {
    /// GICv2.
    V2(v2::GicV2),
    /// GICv3 or later.
    V3(v3::GicV3),
}

macro_rules! each {
    ($this:expr, $gic:ident => $call:expr) => {
        match $this {
            PhysGic::V2($gic) => $call,
            PhysGic::V3($gic) => $call,
        }
    };
}

impl PhysGic {
    /// Takes over a GICv2: everything disabled, SPIs on this CPU.
    ///
    /// # Errors
    /// When there is no such GIC there.
    ///
    /// # Safety
    /// The four addresses are those of a GICv2's frames (GICC 8 KiB), mapped as Device memory for as long as the
    /// object lives, and nothing else drives them.
    pub unsafe fn v2(gicd: usize, gicc: usize, gich: usize, gicv: usize) -> Result<Self, GicError> {
        // SAFETY: the caller's promise is the callee's condition.
        unsafe { v2::GicV2::new(gicd, gicc, gich, gicv) }.map(Self::V2)
    }

    /// Takes over a GICv3: everything disabled, SPIs on this CPU. `regions`: address and size of each redistributor
    /// region.
    ///
    /// # Errors
    /// When there is no such GIC there, or memory is short.
    ///
    /// # Safety
    /// The addresses are those of a GICv3's distributor and redistributor regions, mapped as Device memory for as long
    /// as the object lives, and nothing else drives them.
    pub unsafe fn v3(gicd: usize, regions: &[(usize, usize)]) -> Result<Self, GicError> {
        // SAFETY: the caller's promise is the callee's condition.
        unsafe { v3::GicV3::new(gicd, regions) }.map(Self::V3)
    }

    /// Sets up the calling CPU's interfaces: priority drop and deactivation apart, all priorities let through, SGIs
    /// enabled, PPIs disabled, list registers empty, virtual interface off. Every CPU calls it once.
    ///
    /// # Errors
    /// When this CPU has no part in the GIC.
    pub fn init_cpu(&self) -> Result<CpuTarget, GicError> {
        each!(self, gic => gic.init_cpu())
    }

    /// Its architecture version: what its virtual interface can present.
    pub const fn version(&self) -> Version {
        match self {
            Self::V2(_) => Version::V2,
            Self::V3(_) => Version::V3,
        }
    }

    /// The first INTID that does not exist: GICD_TYPER.ITLinesNumber.
    pub fn limit(&self) -> u32 {
        each!(self, gic => gic.distributor.limit())
    }

    /// How many list registers this CPU has.
    pub fn list_register_count(&self) -> usize {
        each!(self, gic => gic.list_register_count())
    }

    /// Takes the most urgent pending interrupt; `None` when there is none any more (a spurious acknowledge).
    #[inline]
    pub fn acknowledge(&self) -> Option<Acknowledged> {
        let raw = each!(self, gic => gic.acknowledge());
        // INTID 23:0 (GICv3) or 9:0 with an SGI's sender in 12:10 (GICv2); 1020-1023 mean there was none.
        let intid = IntId::new(raw & 0x3ff).filter(|_| raw >> 13 == 0)?;
        Some(Acknowledged { raw, intid })
    }

    /// Priority drop: others may come, this one not before its deactivation.
    #[inline]
    pub fn end(&self, interrupt: Acknowledged) {
        each!(self, gic => gic.end(interrupt.raw));
    }

    /// Deactivates an interrupt that Nacelle handled itself, after [`PhysGic::end`].
    #[inline]
    pub fn deactivate_acknowledged(&self, interrupt: Acknowledged) {
        each!(self, gic => gic.deactivate(interrupt.raw));
    }

    /// Deactivates a PPI of this CPU or an SPI.
    #[inline]
    pub fn deactivate(&self, intid: IntId) {
        each!(self, gic => gic.deactivate(intid.get()));
    }

    /// Lets an interrupt come; a private one on this CPU.
    pub fn enable(&self, intid: IntId) {
        each!(self, gic => gic.bank(intid).set_enable(intid));
    }

    /// Keeps an interrupt from coming; returns when that is in force.
    pub fn disable(&self, intid: IntId) {
        each!(self, gic => { gic.bank(intid).clear_enable(intid); gic.wait(intid) });
    }

    /// Makes an interrupt pending.
    pub fn set_pending(&self, intid: IntId) {
        each!(self, gic => gic.bank(intid).set_pending(intid));
    }

    /// Takes an interrupt's latched pending state away.
    pub fn clear_pending(&self, intid: IntId) {
        each!(self, gic => gic.bank(intid).clear_pending(intid));
    }

    /// Which of the INTIDs of `first`'s group of 32 are active (of private ones: on this CPU); bit 0 is the lowest.
    pub fn active(&self, first: IntId) -> u32 {
        each!(self, gic => gic.bank(first).active(first))
    }

    /// Makes an interrupt active without an acknowledge.
    pub fn set_active(&self, intid: IntId) {
        each!(self, gic => gic.bank(intid).set_active(intid));
    }

    /// Makes an interrupt inactive, without a priority drop.
    pub fn clear_active(&self, intid: IntId) {
        each!(self, gic => gic.bank(intid).clear_active(intid));
    }

    /// Sets an interrupt's priority; 0 is the most urgent.
    pub fn set_priority(&self, intid: IntId, priority: u8) {
        each!(self, gic => gic.bank(intid).set_priority(intid, priority));
    }

    /// Sets how an interrupt's line signals; the interrupt is disabled. Needs the lock (see the module's text).
    pub fn set_trigger(&self, intid: IntId, trigger: Trigger) {
        each!(self, gic => gic.bank(intid).set_trigger(intid, trigger));
    }

    /// Sends an SPI to a CPU. Ignored for a private interrupt.
    pub fn route(&self, intid: IntId, target: CpuTarget) {
        if intid.is_spi() {
            each!(self, gic => gic.route(intid, target.0));
        }
    }

    /// Sends SGI `intid` to a CPU, after all memory writes before it are visible there. Ignored when not an SGI.
    #[inline]
    pub fn send_sgi(&self, target: CpuTarget, intid: IntId) {
        if intid.is_sgi() {
            each!(self, gic => gic.send_sgi(target.0, intid));
        }
    }

    /// Switches this CPU's virtual interface: off, the guest gets no virtual interrupt.
    #[inline]
    pub fn enable_virtual(&self, on: bool) {
        each!(self, gic => gic.enable_virtual(on));
    }

    /// Reads this CPU's virtual interface out, list registers excepted ([`crate::VGic::save`] does those).
    pub fn save_interface(&self, state: &mut CpuInterfaceState) {
        each!(self, gic => gic.save_interface(state));
    }

    /// The inverse of [`PhysGic::save_interface`].
    pub fn restore_interface(&self, state: &CpuInterfaceState) {
        each!(self, gic => gic.restore_interface(state));
    }

    /// Why the maintenance interrupt is raised: GICH_MISR or ICH_MISR_EL2. 0: not for the list registers.
    pub fn maintenance_status(&self) -> u32 {
        each!(self, gic => gic.maintenance_status())
    }

    /// This CPU's list registers.
    #[inline]
    pub const fn list_registers(&self) -> LocalListRegisters<'_> {
        LocalListRegisters { gic: self }
    }
}

/// The list registers of the CPU that uses it.
#[derive(Clone, Copy)]
pub struct LocalListRegisters<'a> {
    gic: &'a PhysGic,
}

impl ListRegisters for LocalListRegisters<'_> {
    #[inline(always)]
    fn count(&self) -> usize {
        self.gic.list_register_count()
    }

    #[inline(always)]
    fn read(&mut self, index: usize) -> Lr {
        match self.gic {
            PhysGic::V2(gic) => Lr::from_v2(gic.read_lr(index)),
            PhysGic::V3(gic) => Lr::from_v3(gic.read_lr(index)),
        }
    }

    #[inline(always)]
    fn write(&mut self, index: usize, lr: Lr) {
        match self.gic {
            PhysGic::V2(gic) => gic.write_lr(index, lr.to_v2()),
            PhysGic::V3(gic) => gic.write_lr(index, lr.to_v3()),
        }
    }

    #[inline(always)]
    fn empty(&mut self) -> u32 {
        each!(self.gic, gic => gic.empty_lrs())
    }

    fn set_no_pending_maintenance(&mut self, on: bool) {
        each!(self.gic, gic => gic.set_no_pending_maintenance(on));
    }

    fn deactivate(&mut self, pintid: IntId) {
        self.gic.deactivate(pintid);
    }
}
