//! What machine this is, as the firmware's device tree tells it.
//!
//! Nothing here allocates or touches hardware: the boot code needs the answers before it has a heap. What is found
//! is plain data; [`Machine`] does not change after boot.
//!
//! ```text
//! blob ── check ──▶ DeviceTree ──▶ chosen()   command line, boot modules   } wanted first, so that
//!                              ├──▶ uart()     console                      } errors have a way out
//!                              └──▶ Machine::discover()   memory, CPUs, PSCI, GIC, timer
//! ```

use core::fmt::{self, Write};
use core::ops::ControlFlow;

use arrayvec::{ArrayString, ArrayVec};
use gic::IntId;
use stage2::addr::Pa;

use crate::cpu::MAX_CPUS;
use crate::devicetree::{DeviceTree, Node, PaRange};

mod chosen;
mod interrupt;
mod raspberry_pi;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
mod uart;

pub use chosen::{Chosen, Module, ModuleKind, chosen};
pub use interrupt::{Interrupt, decode, interrupts, interrupts_with};
pub use raspberry_pi::{RaspberryPi4, wrong_raspberry_pi};
pub use uart::{UART, Uart, UartKind, uart};

/// Banks of memory at most. The Raspberry Pi's firmware makes up to 4, servers up to about 16.
pub const MAX_BANKS: usize = 32;
/// Reservations at most.
pub const MAX_RESERVED: usize = 64;
/// Regions of GICv3 redistributors at most: one per socket, or one per CPU.
pub const MAX_REDISTRIBUTORS: usize = MAX_CPUS;

/// `compatible` of the GICv2 kinds with virtualization extensions.
pub const GIC_V2: [&str; 4] = ["arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a7-gic", "qcom,msm-qgic2"];
/// `compatible` of GICv3 and GICv4.
pub const GIC_V3: [&str; 1] = ["arm,gic-v3"];
/// `compatible` of the generic timer.
pub const TIMER: [&str; 2] = ["arm,armv8-timer", "arm,armv7-timer"];

/// Text in an error: a path or a list, cut where it gets too long.
pub type Text = ArrayString<100>;

/// `value` as text, cut at the capacity.
pub(crate) fn text(value: impl fmt::Display) -> Text {
    /// Writes what fits and drops the rest.
    struct Cut(Text);
    impl Write for Cut {
        fn write_str(&mut self, s: &str) -> fmt::Result {
            s.chars().try_for_each(|c| self.0.try_push(c)).map_err(|_| fmt::Error)
        }
    }
    let mut cut = Cut(Text::new());
    // An error means that the end is missing, which is what cutting is.
    let _ = write!(cut, "{value}");
    cut.0
}

/// What the tree lacks or gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoveryError {
    /// No enabled memory node with a bank in it.
    NoMemory,
    /// No `/cpus`, or no usable CPU in it.
    NoCpus,
    /// The CPU that runs this is not in `/cpus`.
    BootCpu(Mpidr),
    /// No interrupt controller of a known kind; holds those that were found.
    NoGic(Text),
    /// A GIC without virtualization extensions, or whose registers are not all listed.
    GicRegisters(Text),
    /// No generic timer.
    NoTimer,
    /// The node has a property that is missing or malformed.
    Property {
        /// Path of the node.
        node: Text,
        /// Name of the property.
        property: &'static str,
    },
    /// More of something than there is room for.
    TooMany(&'static str),
    /// The path or alias chosen for the console leads nowhere.
    NoSuchUart(Text),
    /// What is at that path is no UART with a driver; holds both.
    UnknownUart(Text),
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMemory => write!(f, "the device tree describes no memory"),
            Self::NoCpus => write!(f, "the device tree describes no CPU"),
            Self::BootCpu(mpidr) => write!(f, "the boot CPU (MPIDR {mpidr}) is not in the device tree"),
            Self::NoGic(found) => {
                write!(f, "no interrupt controller that Nacelle knows (")?;
                list(f, GIC_V2.iter().chain(&GIC_V3))?;
                write!(f, "): found {}", if found.is_empty() { "none" } else { found })
            }
            Self::GicRegisters(node) => {
                write!(f, "the interrupt controller {node} lacks registers that virtualization needs")
            }
            Self::NoTimer => write!(f, "no generic timer ({}) in the device tree", TIMER[0]),
            Self::Property { node, property } => {
                write!(f, "device tree node {node}: property {property} is missing or malformed")
            }
            Self::TooMany(what) => write!(f, "the device tree has too many {what}"),
            Self::NoSuchUart(path) => write!(f, "console: no device tree node or alias '{path}'"),
            Self::UnknownUart(what) => {
                write!(f, "console: {what}; known are ")?;
                list(f, UART.iter())
            }
        }
    }
}

impl core::error::Error for DiscoveryError {}

fn list<'s>(f: &mut fmt::Formatter<'_>, names: impl Iterator<Item = &'s &'s str>) -> fmt::Result {
    names.enumerate().try_for_each(|(i, name)| write!(f, "{}{name}", if i == 0 { "" } else { ", " }))
}

fn malformed(node: &Node<'_, '_>, property: &'static str) -> DiscoveryError {
    DiscoveryError::Property { node: text(node), property }
}

/// A CPU's affinity: MPIDR_EL1 without its flags (DDI 0487, D19.2.103).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mpidr(u64);

impl Mpidr {
    /// Aff3 in bits 39:32, Aff2, Aff1 and Aff0 in 23:0.
    pub const AFFINITY: u64 = 0xff_00ff_ffff;

    /// The affinity in `raw`, a value of MPIDR_EL1 or of a CPU node's `reg`.
    pub const fn new(raw: u64) -> Self {
        Self(raw & Self::AFFINITY)
    }

    /// The affinity fields in place, as PSCI takes them.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Mpidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Mpidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mpidr({:#x})", self.0)
    }
}

/// How a secondary CPU is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableMethod {
    /// PSCI CPU_ON.
    Psci,
    /// It waits until a 64-bit entry address appears here (Devicetree Specification, 3.8.1).
    SpinTable {
        /// Where.
        release_address: Pa,
    },
    /// Not at all: the tree says nothing, or names a way that Nacelle does not know.
    None,
}

/// A physical CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuNode {
    /// Its affinity.
    pub mpidr: Mpidr,
    /// How to start it.
    pub enable: EnableMethod,
}

/// The instruction that calls the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `smc #0`.
    Smc,
    /// `hvc #0`: there is a hypervisor below.
    Hvc,
}

/// The firmware's PSCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Psci {
    /// How to call it.
    pub conduit: Conduit,
    /// `None`: 0.2 or later, function numbers as the standard has them. `Some`: 0.1 with this number for CPU_ON.
    pub cpu_on_0_1: Option<u32>,
}

/// The interrupt controller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one, and no heap to box it on")]
pub enum Gic {
    /// GICv2 with virtualization extensions (IHI 0048B).
    V2 {
        /// Distributor.
        gicd: PaRange,
        /// CPU interface. Some boards list only its first page though it has two.
        gicc: PaRange,
        /// Virtual interface control.
        gich: PaRange,
        /// Virtual CPU interface.
        gicv: PaRange,
        /// Maintenance interrupt.
        maintenance: Interrupt,
    },
    /// GICv3 or GICv4 (IHI 0069H).
    V3 {
        /// Distributor.
        gicd: PaRange,
        /// Regions of redistributors.
        redistributors: ArrayVec<PaRange, MAX_REDISTRIBUTORS>,
        /// Distance of one redistributor from the next where it is not what GICR_TYPER implies.
        stride: Option<u64>,
        /// Maintenance interrupt.
        maintenance: Interrupt,
    },
}

impl Gic {
    /// Its distributor.
    pub const fn gicd(&self) -> PaRange {
        match self {
            Self::V2 { gicd, .. } | Self::V3 { gicd, .. } => *gicd,
        }
    }

    /// Every range of its registers.
    pub fn ranges(&self) -> ArrayVec<PaRange, { MAX_REDISTRIBUTORS + 1 }> {
        match self {
            Self::V2 { gicd, gicc, gich, gicv, .. } => [*gicd, *gicc, *gich, *gicv].into_iter().collect(),
            Self::V3 { gicd, redistributors, .. } => core::iter::once(*gicd)
                .chain(redistributors.iter().copied())
                .take(MAX_REDISTRIBUTORS + 1)
                .collect(),
        }
    }
}

/// The generic timer's interrupts, all PPIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Secure EL1 physical timer.
    pub secure_physical: Option<Interrupt>,
    /// Non-secure EL1 physical timer.
    pub physical: Interrupt,
    /// Virtual timer.
    pub virtual_: Interrupt,
    /// Non-secure EL2 physical timer: Nacelle's own.
    pub hypervisor: Interrupt,
    /// Counter frequency in Hz, where the tree overrides CNTFRQ_EL0 because firmware left that unset.
    pub frequency: Option<u32>,
}

/// A reservation by the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// What must be left alone.
    pub range: PaRange,
    /// It must not even be mapped, lest the CPU reads it ahead (`no-map`).
    pub no_map: bool,
}

/// Everything about the machine that Nacelle needs to know.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// Banks of RAM, ascending, apart from one another. Whole as the tree has them: reservations lie within.
    pub memory: ArrayVec<PaRange, MAX_BANKS>,
    /// What firmware keeps: `/memreserve/`, `/reserved-memory`, pages with spin tables. In no particular order.
    pub reserved: ArrayVec<Reserved, MAX_RESERVED>,
    /// CPUs, the boot CPU first, the others in the order of the tree.
    pub cpus: ArrayVec<CpuNode, MAX_CPUS>,
    /// CPUs in the tree beyond [`MAX_CPUS`].
    pub cpus_ignored: usize,
    /// PSCI, if the firmware has it.
    pub psci: Option<Psci>,
    /// Interrupt controller.
    pub gic: Gic,
    /// Timer.
    pub timer: Timer,
    /// What the boot loader passed.
    pub chosen: Chosen<'a>,
    /// What is special, if it is one.
    pub raspberry_pi: Option<RaspberryPi4>,
}

impl<'a> Machine<'a> {
    /// Reads the tree. `boot_cpu` is MPIDR_EL1 of the CPU that executes this.
    ///
    /// # Errors
    /// What is missing or wrong, so that it can be named to whoever wrote the tree.
    pub fn discover(tree: &DeviceTree<'a>, boot_cpu: Mpidr) -> Result<Self, DiscoveryError> {
        let (cpus, cpus_ignored) = cpus(tree, boot_cpu)?;
        let (gic, handle) = gic(tree)?;
        Ok(Self {
            memory: memory(tree)?,
            reserved: reserved(tree, &cpus)?,
            cpus,
            cpus_ignored,
            psci: psci(tree)?,
            gic,
            timer: timer(tree, handle)?,
            chosen: chosen(tree)?,
            raspberry_pi: raspberry_pi::read(tree, handle),
        })
    }

    /// Every range of RAM that is occupied when Nacelle starts, apart from Nacelle's own image and the tree: the
    /// reservations, the boot modules, the initrd.
    pub fn occupied(&self) -> impl Iterator<Item = PaRange> + '_ {
        let modules = self.chosen.modules.iter().map(|module| module.range);
        self.reserved.iter().map(|reserved| reserved.range).chain(modules).chain(self.chosen.initrd)
    }

    /// Registers and interrupts that stay with Nacelle while it has this console, the GIC's apart.
    pub fn kept(&self, console: Option<&Uart>) -> (ArrayVec<PaRange, 3>, ArrayVec<IntId, 2>) {
        let pi = self.raspberry_pi.as_ref();
        // dom0's driver for the other UART of the pins would take them away from the console.
        let aux = console.and(pi).and_then(|pi| pi.aux);
        let ranges = console.map(|uart| uart.registers).into_iter();
        let interrupts = [console.and_then(|uart| uart.interrupt), aux.and_then(|(_, interrupt)| interrupt)];
        (
            ranges.chain(aux.map(|(range, _)| range)).chain(pi.and_then(|pi| pi.power)).collect(),
            interrupts.into_iter().flatten().map(|interrupt| interrupt.intid).collect(),
        )
    }
}

/// Collects what `read` makes of the nodes that `matches`; the first error ends it.
fn each<'a>(
    tree: &DeviceTree<'a>,
    mut read: impl FnMut(&Node<'_, 'a>) -> Result<(), DiscoveryError>,
) -> Result<(), DiscoveryError> {
    tree.walk(|node| match read(node) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    })
    .map_or(Ok(()), Err)
}

fn memory(tree: &DeviceTree<'_>) -> Result<ArrayVec<PaRange, MAX_BANKS>, DiscoveryError> {
    let mut found: ArrayVec<PaRange, MAX_BANKS> = ArrayVec::new();
    each(tree, |node| {
        if node.depth() != 1 || node.string("device_type") != Some("memory") || !node.is_enabled() {
            return Ok(());
        }
        for bank in node.reg() {
            // Partial pages at the edges are of no use to anybody.
            let start = bank.start.align_up(stage2::addr::PAGE_SIZE).unwrap_or(bank.end);
            let bank = PaRange { start, end: bank.end.align_down(stage2::addr::PAGE_SIZE) };
            if !bank.is_empty() {
                found.try_push(bank).map_err(|_| DiscoveryError::TooMany("banks of memory"))?;
            }
        }
        Ok(())
    })?;
    found.sort_unstable();
    let mut banks: ArrayVec<PaRange, MAX_BANKS> = ArrayVec::new();
    for bank in found {
        match banks.last_mut() {
            Some(last) if bank.start <= last.end => last.end = last.end.max(bank.end),
            _ => banks.push(bank),
        }
    }
    if banks.is_empty() { Err(DiscoveryError::NoMemory) } else { Ok(banks) }
}

fn reserved(
    tree: &DeviceTree<'_>,
    cpus: &[CpuNode],
) -> Result<ArrayVec<Reserved, MAX_RESERVED>, DiscoveryError> {
    let mut reserved = ArrayVec::new();
    let mut add = |range: PaRange, no_map| {
        if range.is_empty() {
            return Ok(());
        }
        reserved.try_push(Reserved { range, no_map }).map_err(|_| DiscoveryError::TooMany("reservations"))
    };
    for range in tree.memory_reservations() {
        add(range, false)?;
    }
    each(tree, |node| {
        if node.depth() == 2 && node.parent_name() == "reserved-memory" && node.is_enabled() {
            for range in node.reg() {
                add(range, node.property("no-map").is_some())?;
            }
        }
        Ok(())
    })?;
    for (index, cpu) in cpus.iter().enumerate() {
        let EnableMethod::SpinTable { release_address } = cpu.enable else { continue };
        let page = |cpu: &CpuNode| match cpu.enable {
            EnableMethod::SpinTable { release_address } => Some(release_address.mfn()),
            _ => None,
        };
        // One entry for a page with many.
        if !cpus.iter().take(index).any(|earlier| page(earlier) == Some(release_address.mfn()))
            && let Some(range) = PaRange::new(release_address, 8)
        {
            add(range.page_cover(), false)?;
        }
    }
    Ok(reserved)
}

fn cpus(
    tree: &DeviceTree<'_>,
    boot_cpu: Mpidr,
) -> Result<(ArrayVec<CpuNode, MAX_CPUS>, usize), DiscoveryError> {
    let mut cpus: ArrayVec<CpuNode, MAX_CPUS> = ArrayVec::new();
    let mut ignored = 0;
    let mut boot = None;
    each(tree, |node| {
        let is_cpu = node.depth() == 2
            && node.parent_name() == "cpus"
            && node.string("device_type") == Some("cpu")
            && node.is_enabled();
        if !is_cpu {
            return Ok(());
        }
        let mpidr = node.number("reg").map(Mpidr::new).ok_or_else(|| malformed(node, "reg"))?;
        let enable = match node.string("enable-method") {
            Some("psci") => EnableMethod::Psci,
            Some("spin-table") => {
                let address = node.number("cpu-release-addr").filter(|address| address % 8 == 0);
                let address = address.ok_or_else(|| malformed(node, "cpu-release-addr"))?;
                EnableMethod::SpinTable { release_address: Pa::new(address) }
            }
            _ => EnableMethod::None,
        };
        let cpu = CpuNode { mpidr, enable };
        if mpidr == boot_cpu {
            if boot.replace(cpu).is_some() {
                return Err(malformed(node, "reg"));
            }
        } else if cpus.iter().any(|other| other.mpidr == mpidr) {
            return Err(malformed(node, "reg"));
        } else if cpus.len() + 1 < MAX_CPUS {
            cpus.push(cpu);
        } else {
            ignored += 1;
        }
        Ok(())
    })?;
    match boot {
        Some(boot) => cpus.insert(0, boot),
        None if cpus.is_empty() => return Err(DiscoveryError::NoCpus),
        None => return Err(DiscoveryError::BootCpu(boot_cpu)),
    }
    Ok((cpus, ignored))
}

fn psci(tree: &DeviceTree<'_>) -> Result<Option<Psci>, DiscoveryError> {
    let read = |node: &Node<'_, '_>| {
        let conduit = match node.string("method") {
            Some("smc") => Conduit::Smc,
            Some("hvc") => Conduit::Hvc,
            _ => return Err(malformed(node, "method")),
        };
        let is_standard = node.is_compatible(&["arm,psci-1.0", "arm,psci-0.2"]);
        let cpu_on_0_1 = match (is_standard, node.cell("cpu_on")) {
            (true, _) => None,
            (false, Some(number)) => Some(number),
            (false, None) => return Err(malformed(node, "cpu_on")),
        };
        Ok(Psci { conduit, cpu_on_0_1 })
    };
    let known = ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"];
    tree.first(|node| node.depth() <= 2 && node.is_compatible(&known) && node.is_enabled(), read).transpose()
}

/// The controller, and the phandle by which others refer to it.
pub(crate) fn gic(tree: &DeviceTree<'_>) -> Result<(Gic, Option<u32>), DiscoveryError> {
    let known = |node: &Node<'_, '_>| {
        node.is_enabled() && (node.is_compatible(&GIC_V2) || node.is_compatible(&GIC_V3))
    };
    tree.first(known, |node| Ok((read_gic(node)?, node.phandle()))).unwrap_or_else(|| {
        let mut found = Text::new();
        tree.walk(|node| {
            if node.property("interrupt-controller").is_some()
                && let Some(kind) = node.compatible().next()
            {
                let separator = if found.is_empty() { "" } else { ", " };
                found = text(format_args!("{found}{separator}{kind}"));
            }
            ControlFlow::<()>::Continue(())
        });
        Err(DiscoveryError::NoGic(found))
    })
}

fn read_gic(node: &Node<'_, '_>) -> Result<Gic, DiscoveryError> {
    let reg = node.reg();
    let incomplete = || DiscoveryError::GicRegisters(text(node));
    if reg.iter().any(PaRange::is_empty) {
        return Err(malformed(node, "reg"));
    }
    let maintenance =
        interrupt::of_controller(node).filter(|interrupt| interrupt.intid.is_ppi()).ok_or_else(incomplete)?;
    if node.is_compatible(&GIC_V3) {
        let regions = match node.property("#redistributor-regions") {
            None => 1,
            Some(_) => node.cell("#redistributor-regions").unwrap_or(0) as usize,
        };
        let (gicd, rest) = reg.split_first().ok_or_else(incomplete)?;
        if regions == 0 || regions > rest.len() {
            return Err(incomplete());
        }
        if regions > MAX_REDISTRIBUTORS {
            return Err(DiscoveryError::TooMany("regions of GIC redistributors"));
        }
        let redistributors = rest.iter().take(regions).copied().collect();
        let stride = node.number("redistributor-stride").filter(|&stride| stride != 0);
        return Ok(Gic::V3 { gicd: *gicd, redistributors, stride, maintenance });
    }
    match reg.as_slice() {
        [gicd, gicc, gich, gicv, ..] => {
            Ok(Gic::V2 { gicd: *gicd, gicc: *gicc, gich: *gich, gicv: *gicv, maintenance })
        }
        _ => Err(incomplete()),
    }
}

fn timer(tree: &DeviceTree<'_>, gic: Option<u32>) -> Result<Timer, DiscoveryError> {
    let read = |node: &Node<'_, '_>| {
        let interrupts = interrupts(node, gic);
        // Positions by the binding; names, where there are any, decide (Linux, arm,arch_timer.yaml).
        let names = node.property("interrupt-names");
        let get = |position: usize, name: &str| {
            let position = match names {
                Some(names) => crate::devicetree::strings(names).position(|have| have == name)?,
                None => position,
            };
            interrupts.get(position).copied().filter(|interrupt| interrupt.intid.is_ppi())
        };
        let wrong = || malformed(node, "interrupts");
        Ok(Timer {
            secure_physical: get(0, "sec-phys"),
            physical: get(1, "phys").ok_or_else(wrong)?,
            virtual_: get(2, "virt").ok_or_else(wrong)?,
            hypervisor: get(3, "hyp-phys").ok_or_else(wrong)?,
            frequency: node.cell("clock-frequency"),
        })
    };
    tree.first(|node| node.is_compatible(&TIMER) && node.is_enabled(), read).ok_or(DiscoveryError::NoTimer)?
}
