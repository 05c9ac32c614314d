//! Which devices dom0 gets: the registers to map, the interrupts to route, the nodes to leave out.
//!
//! Everything that the tree enables is dom0's, except:
//! - what Nacelle keeps for itself (the console UART, say), *and every node that shares a page or an interrupt with
//!   it*, enabled or not: such a device cannot be given away, and a kernel that tries it takes ours down;
//! - a device that takes its power or reset from such a node (`power-domains`, `resets`): dom0 could not switch it on, and
//!   a register of a device without power hangs the bus;
//! - the GIC's MSI frames and ITS, IOMMUs, PMUs, memory-mapped generic timers, and firmware reached by SMC, none of
//!   which Nacelle virtualizes;
//! - memory, CPUs, PSCI and boot modules, which dom0's tree describes anew.
//!
//! A node that is disabled stays in the tree, and nothing of it is mapped.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use gic::IntId;
use stage2::Pa;

use crate::devicetree::{DeviceTree, Node, PaRange, number};
use crate::discovery::{GIC_V2, GIC_V3, Interrupt, decode, interrupts_with};

/// What Nacelle keeps for itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept<'a> {
    /// Registers.
    pub ranges: &'a [PaRange],
    /// Interrupts.
    pub interrupts: &'a [IntId],
}

/// What dom0 gets and does not get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Registers and PCI windows to map 1:1: whole pages, ascending, apart from one another, outside RAM.
    pub mmio: Vec<PaRange>,
    /// SPIs to route, ascending.
    pub interrupts: Vec<Interrupt>,
    /// Memory that firmware reserved in the tree, to be mapped 1:1 for the drivers that know of it: whole pages.
    pub reserved: Vec<PaRange>,
    /// Paths of the nodes to leave out, with everything below them.
    pub dropped: BTreeSet<String>,
    /// phandles of all those nodes, to which nothing may refer any more.
    pub dropped_handles: BTreeSet<u32>,
    /// Path of the GIC's node.
    pub gic_path: String,
    /// phandle of the GIC's node.
    pub gic_handle: Option<u32>,
    /// All of the address space that the tree puts to use, RAM apart; for finding holes in it.
    pub claimed: Vec<PaRange>,
    /// The bus whose devices reach least far into memory by DMA, if one has a limit: where, and its path.
    pub dma_limit: Option<(Pa, String)>,
}

/// Devices that Nacelle does not virtualize and that must not reach around it.
const NOT_FOR_GUESTS: [&str; 11] = [
    "arm,smmu-v1",
    "arm,smmu-v2",
    "arm,smmu-v3",
    "arm,mmu-400",
    "arm,mmu-401",
    "arm,mmu-500",
    "qcom,smmu-v2",
    "arm,armv7-timer-mem",
    "linaro,optee-tz",
    "arm,scmi-smc",
    "arm,psci",
];
const PSCI: [&str; 2] = ["arm,psci-0.2", "arm,psci-1.0"];
const MODULES: [&str; 5] =
    ["multiboot,module", "multiboot,kernel", "multiboot,ramdisk", "xen,linux-zimage", "xen,linux-initrd"];

/// What other nodes need to know of an interrupt controller to refer to it.
struct Controller {
    interrupt_cells: u32,
    address_cells: u32,
}

/// Looks at every node. `ram` is the machine's memory, `gic` the ranges of the GIC's registers.
pub fn scan(tree: &DeviceTree<'_>, ram: &[PaRange], gic: &[PaRange], kept: &Kept<'_>) -> Devices {
    let mut devices = Devices::default();
    let mut controllers = BTreeMap::new();
    let kept_pages: Vec<PaRange> = kept.ranges.iter().map(PaRange::page_cover).collect();
    let shares_page = |registers: &[PaRange]| {
        registers.iter().any(|range| kept_pages.iter().any(|kept| kept.overlaps(&range.page_cover())))
    };
    let mut keepers = BTreeSet::new();
    tree.walk(|node| {
        if shares_page(&node.reg()) {
            keepers.extend(node.phandle());
        }
        if let (Some(handle), Some(interrupt_cells)) = (node.phandle(), node.cell("#interrupt-cells")) {
            let address_cells = node.cell("#address-cells").unwrap_or(0);
            controllers.insert(handle, Controller { interrupt_cells, address_cells });
        }
        if devices.gic_path.is_empty()
            && node.is_enabled()
            && (node.is_compatible(&GIC_V2) || node.is_compatible(&GIC_V3))
        {
            devices.gic_path = node.to_string();
            devices.gic_handle = node.phandle();
        }
        ControlFlow::<()>::Continue(())
    });

    let depends_on_kept = |node: &Node<'_, '_>| {
        let provider = |name| Some(u32::from_be_bytes(*node.property(name)?.first_chunk()?));
        ["power-domains", "resets"].into_iter().filter_map(provider).any(|handle| keepers.contains(&handle))
    };
    // Depth of the node whose children are not looked at but for their handles and claims.
    let mut below: Option<usize> = None;
    let mut mmio = Vec::new();
    tree.walk(|node| {
        let registers = node.reg();
        let windows = pci_windows(node);
        devices.claimed.extend(registers.iter().chain(&windows).map(PaRange::page_cover));
        if below.is_some_and(|depth| node.depth() > depth) {
            devices.dropped_handles.extend(node.phandle());
            return ControlFlow::<()>::Continue(());
        }
        below = None;
        let path = node.to_string();
        if is_described_anew(node) || path == devices.gic_path {
            // The GIC's children go with their handles; the node itself keeps its own.
            below = Some(node.depth());
            return ControlFlow::Continue(());
        }
        let mut interrupts: Vec<Interrupt> = interrupts_with(node, devices.gic_handle, |handle| {
            controllers.get(&handle).map(|controller: &Controller| controller.interrupt_cells)
        })
        .into_iter()
        .collect();
        interrupts.extend(mapped_interrupts(node, devices.gic_handle, &controllers));
        let shares_interrupt =
            || interrupts.iter().any(|interrupt| kept.interrupts.contains(&interrupt.intid));
        if is_not_for_guests(node) || shares_page(&registers) || shares_interrupt() || depends_on_kept(node) {
            devices.dropped_handles.extend(node.phandle());
            devices.dropped.insert(path);
            below = Some(node.depth());
            return ControlFlow::Continue(());
        }
        if !node.is_enabled() {
            return ControlFlow::Continue(());
        }
        if node.depth() == 2 && node.parent_name() == "reserved-memory" {
            devices.reserved.extend(registers.iter().map(PaRange::page_cover));
            return ControlFlow::Continue(());
        }
        if let Some(end) = dma_end(node)
            && devices.dma_limit.as_ref().is_none_or(|(least, _)| end < *least)
        {
            devices.dma_limit = Some((end, path));
        }
        mmio.extend(registers.iter().chain(&windows).map(PaRange::page_cover));
        devices.interrupts.extend(interrupts.iter().filter(|interrupt| interrupt.intid.is_spi()));
        ControlFlow::Continue(())
    });

    let without: Vec<PaRange> =
        ram.iter().copied().chain(kept_pages).chain(gic.iter().map(PaRange::page_cover)).collect();
    devices.mmio = merge(subtract(mmio, &without));
    devices.reserved = merge(core::mem::take(&mut devices.reserved));
    devices.claimed = merge(core::mem::take(&mut devices.claimed));
    devices.interrupts.sort_unstable_by_key(|interrupt| interrupt.intid);
    devices.interrupts.dedup_by_key(|interrupt| interrupt.intid);
    devices
}

/// Nodes whose content dom0's tree does not take over.
pub(super) fn is_described_anew(node: &Node<'_, '_>) -> bool {
    let is_memory = node.string("device_type") == Some("memory");
    node.depth() == 1 && (is_memory || matches!(node.name(), "cpus" | "hypervisor" | "psci"))
        || node.depth() == 2 && node.parent_name() == "chosen" && node.is_compatible(&MODULES)
}

fn is_not_for_guests(node: &Node<'_, '_>) -> bool {
    node.is_compatible(&NOT_FOR_GUESTS)
        || node.is_compatible(&PSCI)
        || node.compatible().any(|name| {
            name.starts_with("arm,") && (name.ends_with("-pmu") || name.starts_with("arm,armv8-pmuv3"))
        })
}

/// The windows that a PCI host bridge opens into its bus, in CPU addresses.
fn pci_windows(node: &Node<'_, '_>) -> Vec<PaRange> {
    let is_bridge = node.string("device_type") == Some("pci") && node.parent_cells().0 <= 2;
    let (Some(ranges), true) = (node.property("ranges"), is_bridge) else { return Vec::new() };
    let (parent, _) = node.parent_cells();
    let child = node.cell("#address-cells").unwrap_or(3) as usize;
    let size = node.cell("#size-cells").unwrap_or(2) as usize;
    ranges
        .chunks_exact((child + parent + size).max(1) * 4)
        .filter_map(|window| {
            let (_, rest) = window.split_at_checked(child * 4)?;
            let (start, size) = rest.split_at_checked(parent * 4)?;
            let start = node.translate(number(start), number(size))?;
            PaRange::new(Pa::new(start), number(size)).filter(|range| !range.is_empty())
        })
        .collect()
}

/// How far into memory the devices of a bus reach by DMA, if it sets a limit (`dma-ranges`, Devicetree Specification 2.3.9).
fn dma_end(node: &Node<'_, '_>) -> Option<Pa> {
    let ranges = node.property("dma-ranges")?;
    let (parent, _) = node.parent_cells();
    let child = node.cell("#address-cells").unwrap_or(2) as usize;
    let size = node.cell("#size-cells").unwrap_or(1) as usize;
    let end = |range: &[u8]| {
        let (start, size) = range.get(child * 4..)?.split_at_checked(parent * 4)?;
        number(start).checked_add(number(size))
    };
    ranges.chunks_exact((child + parent + size).max(1) * 4).filter_map(end).max().map(Pa::new)
}

/// The interrupts at the GIC that an `interrupt-map` leads to (Devicetree Specification, 2.4.3).
fn mapped_interrupts(
    node: &Node<'_, '_>,
    gic: Option<u32>,
    controllers: &BTreeMap<u32, Controller>,
) -> Vec<Interrupt> {
    let mut found = Vec::new();
    let Some(map) = node.property("interrupt-map") else { return found };
    let cells: Vec<u32> = map.chunks_exact(4).map(|cell| number(cell) as u32).collect();
    let own = node.cell("#address-cells").unwrap_or(2) + node.cell("#interrupt-cells").unwrap_or(1);
    let mut rest = cells.as_slice();
    while let Some((&parent, after)) = rest.get(own as usize..).and_then(<[u32]>::split_first) {
        let Some(controller) = controllers.get(&parent) else { break };
        let address = controller.address_cells as usize;
        let end = address.saturating_add(controller.interrupt_cells as usize);
        let Some(specifier) = after.get(address..end) else { break };
        if gic.is_none_or(|gic| gic == parent) {
            found.extend(decode(specifier));
        }
        rest = after.get(end..).unwrap_or_default();
    }
    found
}

/// `ranges` without any part that lies in one of `holes`.
pub(super) fn subtract(ranges: Vec<PaRange>, holes: &[PaRange]) -> Vec<PaRange> {
    holes.iter().filter(|hole| !hole.is_empty()).fold(ranges, |ranges, hole| {
        let parts = ranges.into_iter().flat_map(|range| {
            let before = PaRange { start: range.start, end: range.end.min(hole.start) };
            let after = PaRange { start: range.start.max(hole.end), end: range.end };
            if range.overlaps(hole) { [before, after] } else { [range, PaRange::default()] }
        });
        parts.filter(|part| !part.is_empty()).collect()
    })
}

/// The same bytes in ascending ranges apart from one another.
pub(super) fn merge(mut ranges: Vec<PaRange>) -> Vec<PaRange> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_unstable();
    let mut merged: Vec<PaRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The holes between `used` ranges, below `limit`, ascending, cut to multiples of `granule` (a power of two).
pub(super) fn holes(used: Vec<PaRange>, limit: Pa, granule: u64) -> Vec<PaRange> {
    let mut at = Pa::ZERO;
    let mut holes = Vec::new();
    for range in merge(used).into_iter().chain([PaRange { start: limit, end: limit }]) {
        let end = range.start.min(limit).align_down(granule);
        if let Some(start) = at.align_up(granule)
            && start < end
        {
            holes.push(PaRange { start, end });
        }
        at = at.max(range.end);
    }
    holes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<PaRange>> {
        let range = (0u64..64, 0u64..16)
            .prop_map(|(start, size)| PaRange { start: Pa::new(start), end: Pa::new(start + size) });
        prop::collection::vec(range, 0..8)
    }

    fn covers(ranges: &[PaRange], at: u64) -> bool {
        ranges.iter().any(|range| range.contains(Pa::new(at)))
    }

    fn are_apart(ranges: &[PaRange]) -> bool {
        ranges.windows(2).all(|pair| pair[0].end < pair[1].start)
            && ranges.iter().all(|range| !range.is_empty())
    }

    proptest! {
        #[test]
        fn merged_ranges_cover_the_same(given in ranges()) {
            let merged = merge(given.clone());
            prop_assert!(are_apart(&merged));
            (0..96).for_each(|at| assert_eq!(covers(&merged, at), covers(&given, at), "{at}"));
        }

        #[test]
        fn subtracted_ranges_cover_the_rest(given in ranges(), without in ranges()) {
            let rest = subtract(given.clone(), &without);
            (0..96).for_each(|at| {
                assert_eq!(covers(&rest, at), covers(&given, at) && !covers(&without, at), "{at}")
            });
        }

        #[test]
        fn holes_are_what_nothing_covers(used in ranges(), limit in 0u64..96) {
            let found = holes(used.clone(), Pa::new(limit), 1);
            prop_assert!(are_apart(&found));
            (0..96).for_each(|at| assert_eq!(covers(&found, at), at < limit && !covers(&used, at), "{at}"));
            for hole in holes(used.clone(), Pa::new(limit), 8) {
                prop_assert!(hole.start.is_aligned(8) && hole.end.is_aligned(8));
                (hole.start.raw()..hole.end.raw()).for_each(|at| assert!(!covers(&used, at) && at < limit));
            }
        }
    }
}
