//! Building dom0: first a plan, which is plain data and can be tested anywhere, then its execution.
//!
//! ```text
//!  tree, machine, options ──▶ layout ──▶ devices ──▶ tree ──▶ Dom0Plan ──▶ execution: frames, stage 2, copies
//!                             banks      MMIO, SPIs   blob
//! ```
//! Everything is decided in the plan, so that a refusal comes before anything is changed.

use alloc::vec::Vec;
use core::fmt;

use arrayvec::ArrayString;
use stage2::Pa;

use crate::cmdline::Options;
use crate::devicetree::{DeviceTree, PaRange};
use crate::discovery::{Gic, Interrupt, Machine, Mpidr};
use crate::psci;

mod build;
pub mod devices;
pub mod layout;
#[cfg(test)]
mod tests;
mod tree;

pub use build::{BuildError, start};
use devices::{Devices, Kept};
use layout::{Layout, LayoutError, Sizes};

/// The PPI (as a device tree counts them) that tells a guest of an event: INTID 31, as on Xen.
pub const EVENT_PPI: u32 = 15;
/// Address space for grant frames: 4096 frames, far more than a guest gets.
pub const GRANT_REGION: u64 = 16 << 20;
/// Address space for others' memory that is worth offering.
const MIN_EXTENDED: u64 = 64 << 20;
/// Memory that dom0 needs where all its devices reach: 64 MiB each for the buffers that Linux bounces through and for its
/// contiguous allocations.
const MIN_WITHIN_REACH: u64 = 128 << 20;
/// The most vCPUs that a virtual GICv2 has.
const MAX_VCPUS_V2: u32 = 8;
/// The most vCPUs that a virtual GICv3 has.
const MAX_VCPUS_V3: u32 = 128;
/// Bytes of one vCPU's redistributor: two frames of 64 KiB.
const REDISTRIBUTOR: u64 = 0x2_0000;

/// dom0's virtual GIC, at the addresses of the physical one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dom0Gic {
    /// GICv2.
    V2 {
        /// Distributor, emulated.
        gicd: PaRange,
        /// Where dom0 sees its CPU interface.
        gicc: PaRange,
        /// What to map there: the hardware's virtual CPU interface, as long.
        gicv: PaRange,
    },
    /// GICv3.
    V3 {
        /// Distributor, emulated.
        gicd: PaRange,
        /// Redistributors, emulated: one for each vCPU.
        redistributors: PaRange,
        /// Which of the host's regions of redistributors that address comes from.
        region: usize,
    },
}

/// Everything about dom0 before it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dom0Plan {
    /// Its memory, 1:1: multiples of 2 MiB.
    pub banks: Vec<PaRange>,
    /// Where the kernel is loaded and entered, with the device tree's address in x0.
    pub kernel_entry: Pa,
    /// Where the initramfs is copied.
    pub initrd: Option<PaRange>,
    /// Where the device tree is copied.
    pub dtb_address: Pa,
    /// The device tree.
    pub dtb: Vec<u8>,
    /// Affinities of its vCPUs.
    pub vcpus: Vec<Mpidr>,
    /// Device registers to map 1:1. Map them cacheable: dom0's own tables say what each is (the stricter wins,
    /// DDI 0487, D8.6.6).
    pub mmio: Vec<PaRange>,
    /// Memory that firmware reserved, to map 1:1.
    pub reserved: Vec<PaRange>,
    /// SPIs to route to it.
    pub interrupts: Vec<Interrupt>,
    /// Its GIC.
    pub gic: Dom0Gic,
    /// Where its grant frames may be mapped: nothing else is there.
    pub grant_region: PaRange,
    /// How much of its memory some device cannot reach by DMA, if any.
    pub out_of_reach: Option<OutOfReach>,
}

/// Memory that a bus's devices cannot reach by DMA. All figures in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfReach {
    /// Path of the bus, cut where it gets too long.
    pub bus: ArrayString<40>,
    /// How far its devices reach.
    pub limit: Pa,
    /// dom0's memory within that.
    pub within: u64,
    /// dom0's memory beyond it.
    pub beyond: u64,
}

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bus, limit, within, beyond } = self;
        write!(
            f,
            "{} MiB of its memory lie above {limit:#x}, as far as devices on {bus} reach by DMA, {} MiB below",
            beyond >> 20,
            within >> 20
        )
    }
}

impl Dom0Plan {
    /// Bytes of memory.
    pub fn memory_size(&self) -> u64 {
        self.banks.iter().map(PaRange::size).sum()
    }
}

/// Why there can be no dom0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// Its memory.
    Layout(LayoutError),
    /// No region of GICv3 redistributors has room for this many vCPUs.
    Redistributors(u32),
    /// The address space has no hole for grant frames.
    NoGrantRegion,
    /// Its device tree would have this many bytes.
    TreeTooLarge(usize),
    /// Too little of its memory is where all devices reach.
    NoDma(OutOfReach),
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(error) => error.fmt(f),
            Self::Redistributors(vcpus) => {
                write!(
                    f,
                    "dom0: no room for the GIC redistributors of {vcpus} vCPUs; dom0_max_vcpus= can lower that"
                )
            }
            Self::NoGrantRegion => write!(f, "dom0: no room in the address space for grant frames"),
            Self::TreeTooLarge(size) => write!(f, "dom0: its device tree is too large: {size} bytes"),
            Self::NoDma(memory) => write!(
                f,
                "dom0: {memory}: too little for their buffers, {} MiB; the firmware must leave more free there",
                MIN_WITHIN_REACH >> 20
            ),
        }
    }
}

impl core::error::Error for PlanError {}

impl From<LayoutError> for PlanError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

/// What the plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The host's device tree.
    pub tree: &'a DeviceTree<'a>,
    /// What was found in it.
    pub machine: &'a Machine<'a>,
    /// The command line.
    pub options: &'a Options<'a>,
    /// dom0's command line.
    pub bootargs: &'a str,
    /// What Nacelle keeps.
    pub kept: Kept<'a>,
    /// Bits of a guest-physical address.
    pub ipa_bits: u32,
}

/// Plans dom0 around the memory that [`layout`] chose for it.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(inputs: &Inputs<'_>, layout: Layout) -> Result<Dom0Plan, PlanError> {
    let Inputs { tree, machine, options, .. } = *inputs;
    let Layout { banks, kernel, initrd, dtb } = layout;
    let devices = devices::scan(tree, &machine.memory, &machine.gic.ranges(), &inputs.kept);
    let out_of_reach = out_of_reach(&banks, &devices);
    if let Some(memory) = out_of_reach.filter(|memory| memory.within < MIN_WITHIN_REACH) {
        return Err(PlanError::NoDma(memory));
    }
    let limit = Pa::new(1u64.checked_shl(inputs.ipa_bits).unwrap_or(u64::MAX));
    let (vcpus, gic) = gic(machine, options)?;
    let hypervisor = hypervisor_regions(tree, machine, &devices, limit)?;
    let parameters = tree::Parameters {
        devices: &devices,
        banks: &banks,
        initrd,
        bootargs: inputs.bootargs,
        vcpus: &vcpus,
        boot_cpu: machine.cpus.first().map_or(Mpidr::default(), |cpu| cpu.mpidr),
        gic: &gic,
        hypervisor: &hypervisor,
    };
    let blob = tree::build(tree, &parameters);
    if blob.len() as u64 > layout::DTB_ROOM {
        return Err(PlanError::TreeTooLarge(blob.len()));
    }
    let Devices { mmio, interrupts, reserved, .. } = devices;
    let within = |range: &PaRange| PaRange { start: range.start, end: range.end.min(limit) };
    Ok(Dom0Plan {
        banks,
        kernel_entry: kernel,
        initrd,
        dtb_address: dtb,
        dtb: blob,
        vcpus,
        mmio: mmio.iter().map(within).filter(|range| !range.is_empty()).collect(),
        reserved,
        interrupts,
        gic,
        grant_region: hypervisor.first().copied().ok_or(PlanError::NoGrantRegion)?,
        out_of_reach,
    })
}

/// Which part of dom0's banks some device cannot reach. QEMU has no such limits, a Raspberry Pi does.
fn out_of_reach(banks: &[PaRange], devices: &Devices) -> Option<OutOfReach> {
    let (limit, bus) = devices.dma_limit.as_ref()?;
    let below = |bank: &PaRange| PaRange { start: bank.start, end: bank.end.min(*limit) }.size();
    let within = banks.iter().map(below).sum();
    let beyond = banks.iter().map(PaRange::size).sum::<u64>() - within;
    let mut name = ArrayString::new();
    // What does not fit is cut.
    let _ = bus.chars().try_for_each(|c| name.try_push(c));
    (beyond != 0).then_some(OutOfReach { bus: name, limit: *limit, within, beyond })
}

/// Chooses dom0's memory among the `free` ranges, which are ascending and apart from one another.
///
/// # Errors
/// See [`LayoutError`].
pub fn layout(
    machine: &Machine<'_>,
    options: &Options<'_>,
    free: &[PaRange],
    sizes: &Sizes,
) -> Result<Layout, LayoutError> {
    let available: u64 = free.iter().map(PaRange::size).sum();
    let total: u64 = machine.memory.iter().map(PaRange::size).sum();
    let amount = options.dom0_mem.choose(layout::default_amount(available));
    layout::choose(free, total, amount, sizes)
}

/// How many vCPUs, and the GIC that they get.
fn gic(machine: &Machine<'_>, options: &Options<'_>) -> Result<(Vec<Mpidr>, Dom0Gic), PlanError> {
    let wanted = options.dom0_max_vcpus.choose(machine.cpus.len() as u32);
    let affinities = |count: u32| (0..count).map(|vcpu| Mpidr::new(psci::affinity_of(vcpu))).collect();
    match &machine.gic {
        Gic::V2 { gicd, gicc, gicv, .. } => {
            // A tree that lists only the first page of a CPU interface has GICC_DIR in the second all the same.
            let size = gicc.size().min(gicv.size()).max(0x2000);
            let sized = |range: &PaRange| PaRange::new(range.start, size).unwrap_or(*range);
            let gic = Dom0Gic::V2 { gicd: *gicd, gicc: sized(gicc), gicv: sized(gicv) };
            Ok((affinities(wanted.min(MAX_VCPUS_V2)), gic))
        }
        Gic::V3 { gicd, redistributors, .. } => {
            let count = wanted.min(MAX_VCPUS_V3);
            let size = u64::from(count) * REDISTRIBUTOR;
            let (region, base) = redistributors
                .iter()
                .enumerate()
                .find(|(_, region)| region.size() >= size)
                .ok_or(PlanError::Redistributors(count))?;
            let redistributors = PaRange { start: base.start, end: base.start.wrapping_add(size) };
            Ok((affinities(count), Dom0Gic::V3 { gicd: *gicd, redistributors, region }))
        }
    }
}

/// The `reg` of `/hypervisor`: a hole in the address space for grant frames, and what follows in the same hole for
/// the memory of others, which saves dom0 from giving up its own for each page that it maps.
fn hypervisor_regions(
    tree: &DeviceTree<'_>,
    machine: &Machine<'_>,
    devices: &Devices,
    limit: Pa,
) -> Result<Vec<PaRange>, PlanError> {
    const GIB: u64 = 1 << 30;
    let root_cells = tree.at_path("/", |root| root.cell("#address-cells").unwrap_or(2)).unwrap_or(2);
    let limit = if root_cells == 1 { limit.min(Pa::new(4 * GIB)) } else { limit };
    let used = machine.memory.iter().chain(&devices.claimed).chain(&machine.gic.ranges()).copied().collect();
    let mut holes = devices::holes(used, limit, layout::GRANULE);
    holes.retain(|hole| hole.size() >= GRANT_REGION);
    // Above RAM there is room, and no device that the tree forgot.
    let top = machine.memory.iter().map(|bank| bank.end).max().unwrap_or(Pa::ZERO);
    let roomy = |hole: &&PaRange| hole.size() >= GRANT_REGION + MIN_EXTENDED;
    let hole = holes
        .iter()
        .filter(roomy)
        .find(|hole| hole.start >= top)
        .or_else(|| holes.iter().rfind(roomy))
        .or_else(|| holes.last())
        .ok_or(PlanError::NoGrantRegion)?;
    let end_of_grants = hole.start.wrapping_add(GRANT_REGION);
    let mut regions = alloc::vec![PaRange { start: hole.start, end: end_of_grants }];
    // Twice the machine's memory: every page of every domain could be mapped, and still some twice.
    let total: u64 = machine.memory.iter().map(PaRange::size).sum();
    let end = end_of_grants
        .checked_add(total.saturating_mul(2).max(4 * GIB))
        .map_or(hole.end, |end| end.min(hole.end));
    let extended = PaRange { start: end_of_grants, end: end.align_down(layout::GRANULE) };
    if extended.size() >= MIN_EXTENDED {
        regions.push(extended);
    }
    Ok(regions)
}
