//! dom0's device tree: the host's, edited.
//!
//! | node | in dom0's tree | because |
//! | --- | --- | --- |
//! | `/chosen` | `bootargs` and initrd are dom0's; no modules, no console path to a device that is gone | they were Nacelle's |
//! | `/memory@…` | dom0's banks; one more with what firmware reserved | dom0 has less than the machine |
//! | `/cpus` | one node per vCPU, started by PSCI; no topology, idle states, operating points | vCPUs are not tied to CPUs |
//! | `/psci` | `method = "hvc"` | Nacelle is dom0's firmware |
//! | the GIC | same node; distributor, and one CPU interface or region of redistributors; no ITS, no MSI frames | that is what the virtual GIC has |
//! | timer | as it is, `always-on` | a vCPU that waits is woken by its virtual timer |
//! | `/hypervisor` | added | Linux looks for it (Documentation/devicetree/bindings/arm/xen.yaml) |
//! | others | as they are, or not at all | [`super::devices`] |

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::ControlFlow;

use dtoolkit::model::{DeviceTree as Model, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _};
use stage2::Pa;

use super::Dom0Gic;
use super::devices::{Devices, is_described_anew};
use crate::devicetree::{DeviceTree, Node, PaRange};
use crate::discovery::{Mpidr, TIMER};

/// What dom0's tree says that the host's does not.
#[derive(Clone, Copy, Debug)]
pub struct Parameters<'a> {
    /// Which nodes stay.
    pub devices: &'a Devices,
    /// dom0's memory.
    pub banks: &'a [PaRange],
    /// dom0's initramfs.
    pub initrd: Option<PaRange>,
    /// dom0's command line.
    pub bootargs: &'a str,
    /// Affinities of the vCPUs.
    pub vcpus: &'a [Mpidr],
    /// The CPU whose `compatible` the vCPUs show.
    pub boot_cpu: Mpidr,
    /// The virtual GIC.
    pub gic: &'a Dom0Gic,
    /// Where grant frames may be mapped, and after it the ranges for foreign memory.
    pub hypervisor: &'a [PaRange],
}

/// Flags of the event-channel interrupt: level, active low, all CPUs, as Xen has it.
const EVENT_FLAGS: u32 = 0xf08;

/// The tree as a blob. `host` has passed the structural check.
pub fn build(host: &DeviceTree<'_>, parameters: &Parameters<'_>) -> Vec<u8> {
    let mut builder =
        Builder { parameters, stack: Vec::new(), cpu_compatible: Vec::new(), root_cells: (2, 1) };
    // Depth of the node whose children are left out.
    let mut below: Option<usize> = None;
    host.walk(|node| {
        if below.is_some_and(|depth| node.depth() > depth) {
            builder.note_cpu(node);
            return ControlFlow::<()>::Continue(());
        }
        below = None;
        let path = node.to_string();
        if is_described_anew(node) || parameters.devices.dropped.contains(&path) {
            below = Some(node.depth());
            return ControlFlow::Continue(());
        }
        if path == parameters.devices.gic_path {
            below = Some(node.depth());
        }
        builder.copy(node, &path);
        ControlFlow::Continue(())
    });
    let mut tree = Model::new();
    tree.root = builder.finish();
    tree.to_dtb()
}

struct Builder<'a> {
    parameters: &'a Parameters<'a>,
    /// The nodes from the root to the one copied last.
    stack: Vec<DeviceTreeNode>,
    cpu_compatible: Vec<u8>,
    root_cells: (usize, usize),
}

fn set(node: &mut DeviceTreeNode, name: &str, value: &[u8]) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

fn set_text(node: &mut DeviceTreeNode, name: &str, strings: &[&str]) {
    let mut value = Vec::new();
    for string in strings {
        value.extend_from_slice(string.as_bytes());
        value.push(0);
    }
    set(node, name, &value);
}

fn set_cells(node: &mut DeviceTreeNode, name: &str, cells: &[u32]) {
    let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
    set(node, name, &value);
}

/// Appends `value` in as many cells.
fn push_cells(to: &mut Vec<u8>, value: u64, cells: usize) {
    let bytes = value.to_be_bytes();
    for _ in 2..cells {
        to.extend([0; 4]);
    }
    to.extend_from_slice(bytes.get(8 - cells.min(2) * 4..).unwrap_or_default());
}

/// A `reg` with these cells. A size that does not fit its cell is split into pieces of 2 GiB.
fn reg(ranges: &[PaRange], (address, size): (usize, usize)) -> Vec<u8> {
    let largest = if size > 1 { u64::MAX } else { 2 << 30 };
    let mut value = Vec::new();
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let end = at.checked_add(largest).unwrap_or(range.end).min(range.end);
            push_cells(&mut value, at.raw(), address);
            push_cells(&mut value, end.raw() - at.raw(), size);
            at = end;
        }
    }
    value
}

impl Builder<'_> {
    /// Remembers what kind of CPU the boot CPU is.
    fn note_cpu(&mut self, node: &Node<'_, '_>) {
        let is_boot_cpu = node.depth() == 2
            && node.parent_name() == "cpus"
            && node.number("reg").map(Mpidr::new) == Some(self.parameters.boot_cpu);
        if is_boot_cpu && let Some(compatible) = node.property("compatible") {
            self.cpu_compatible = compatible.to_vec();
        }
    }

    /// Hangs finished nodes into their parents until the stack is `depth` high.
    fn close(&mut self, depth: usize) {
        while self.stack.len() > depth.max(1) {
            if let Some(child) = self.stack.pop()
                && let Some(parent) = self.stack.last_mut()
            {
                parent.add_child(child);
            }
        }
    }

    fn copy(&mut self, node: &Node<'_, '_>, path: &str) {
        self.close(node.depth());
        if node.depth() == 0 {
            let cell = |name, default| node.cell(name).map_or(default, |cells| cells as usize);
            self.root_cells = (cell("#address-cells", 2), cell("#size-cells", 1));
        }
        let mut copy = DeviceTreeNode::new_unchecked(node.name());
        let is_chosen = path == "/chosen";
        for (name, value) in node.properties() {
            let is_left_out = self.refers_to_dropped(name, value) || (is_chosen && is_of_the_loader(name));
            if !is_left_out {
                set(&mut copy, name, value);
            }
        }
        if path == self.parameters.devices.gic_path {
            self.edit_gic(node, &mut copy);
        }
        if node.is_compatible(&TIMER) {
            set(&mut copy, "always-on", &[]);
        }
        self.stack.push(copy);
    }

    /// Whether a property hands the node's MSIs or DMA to a node that is not there any more.
    fn refers_to_dropped(&self, name: &str, value: &[u8]) -> bool {
        let dropped = &self.parameters.devices.dropped_handles;
        let cells = || value.chunks_exact(4).map(|cell| crate::devicetree::number(cell) as u32);
        match name {
            "msi-parent" | "iommus" => cells().next().is_some_and(|handle| dropped.contains(&handle)),
            "msi-map" | "iommu-map" => cells().skip(1).step_by(4).any(|handle| dropped.contains(&handle)),
            _ => false,
        }
    }

    /// Reduces the GIC's node to what its virtual counterpart has.
    fn edit_gic(&self, node: &Node<'_, '_>, copy: &mut DeviceTreeNode) {
        let own = [
            "interrupts",
            "interrupts-extended",
            "interrupt-names",
            "msi-controller",
            "#msi-cells",
            "mbi-ranges",
            "mbi-alias",
            "redistributor-stride",
            "#redistributor-regions",
        ];
        for name in own {
            copy.remove_property(name);
        }
        let (address, size) = node.parent_cells();
        let entry = (address + size) * 4;
        let host = node.property("reg").unwrap_or_default();
        let get =
            |index: usize| host.get(index * entry..).and_then(|rest| rest.get(..entry)).unwrap_or_default();
        let mut value = get(0).to_vec();
        match self.parameters.gic {
            Dom0Gic::V2 { .. } => value.extend_from_slice(get(1)),
            Dom0Gic::V3 { region, redistributors, .. } => {
                // The host's address, since that holds behind whatever bus; the size is ours.
                value.extend_from_slice(get(1 + region).get(..address * 4).unwrap_or_default());
                push_cells(&mut value, redistributors.size(), size);
                set_cells(copy, "#redistributor-regions", &[1]);
            }
        }
        set(copy, "reg", &value);
    }

    fn finish(mut self) -> DeviceTreeNode {
        self.close(1);
        let mut root = self.stack.pop().unwrap_or_default();
        self.add_memory(&mut root);
        root.add_child(self.cpus());
        root.add_child(psci());
        root.add_child(self.hypervisor());
        self.edit_chosen(&mut root);
        prune_aliases(&mut root);
        root
    }

    fn add_memory(&self, root: &mut DeviceTreeNode) {
        for ranges in [self.parameters.banks, self.parameters.devices.reserved.as_slice()] {
            let Some(first) = ranges.first() else { continue };
            let mut memory = DeviceTreeNode::new_unchecked(alloc::format!("memory@{:x}", first.start.raw()));
            set_text(&mut memory, "device_type", &["memory"]);
            set(&mut memory, "reg", &reg(ranges, self.root_cells));
            root.add_child(memory);
        }
    }

    fn cpus(&self) -> DeviceTreeNode {
        let mut cpus = DeviceTreeNode::new_unchecked("cpus");
        set_cells(&mut cpus, "#address-cells", &[1]);
        set_cells(&mut cpus, "#size-cells", &[0]);
        for mpidr in self.parameters.vcpus {
            let mut cpu = DeviceTreeNode::new_unchecked(alloc::format!("cpu@{:x}", mpidr.get()));
            set_text(&mut cpu, "device_type", &["cpu"]);
            match self.cpu_compatible.as_slice() {
                [] => set_text(&mut cpu, "compatible", &["arm,armv8"]),
                compatible => set(&mut cpu, "compatible", compatible),
            }
            // Affinities of vCPUs have no Aff3, so one cell holds them.
            set_cells(&mut cpu, "reg", &[mpidr.get() as u32]);
            set_text(&mut cpu, "enable-method", &["psci"]);
            cpus.add_child(cpu);
        }
        cpus
    }

    fn hypervisor(&self) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new_unchecked("hypervisor");
        set_text(&mut node, "compatible", &["xen,xen-4.17", "xen,xen"]);
        set(&mut node, "reg", &reg(self.parameters.hypervisor, self.root_cells));
        if let Some(gic) = self.parameters.devices.gic_handle {
            set_cells(&mut node, "interrupt-parent", &[gic]);
        }
        set_cells(&mut node, "interrupts", &[1, super::EVENT_PPI, EVENT_FLAGS]);
        node
    }

    fn edit_chosen(&self, root: &mut DeviceTreeNode) {
        let stdout_is_there = |root: &DeviceTreeNode, path: &str| {
            let path = path.split(':').next().unwrap_or(path);
            if path.starts_with('/') {
                return exists(root, path);
            }
            let alias = root.child("aliases").and_then(|aliases| text_of(aliases, path));
            alias.is_some_and(|path| exists(root, &path))
        };
        let mut chosen =
            root.remove_child("chosen").unwrap_or_else(|| DeviceTreeNode::new_unchecked("chosen"));
        for name in ["stdout-path", "linux,stdout-path", "stdin-path"] {
            let path = text_of(&chosen, name);
            if path.is_some_and(|path| !stdout_is_there(root, &path)) {
                chosen.remove_property(name);
            }
        }
        set_text(&mut chosen, "bootargs", &[self.parameters.bootargs]);
        if let Some(initrd) = self.parameters.initrd {
            let mut number = |name, address: Pa| set(&mut chosen, name, &address.raw().to_be_bytes());
            number("linux,initrd-start", initrd.start);
            number("linux,initrd-end", initrd.end);
        }
        root.add_child(chosen);
    }
}

/// A property that is a string.
fn text_of(node: &DeviceTreeNode, name: &str) -> Option<String> {
    let property = node.property(name)?;
    crate::devicetree::text(property.value()).map(str::to_string)
}

/// What the boot loader told Nacelle in `/chosen`, and what only a kernel on bare metal may believe.
fn is_of_the_loader(name: &str) -> bool {
    name == "bootargs"
        || name.starts_with("linux,initrd-")
        || name.starts_with("linux,uefi-")
        || name.starts_with("linux,usable-memory")
        || name.starts_with("linux,elfcorehdr")
        || name.starts_with("xen,")
}

fn psci() -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked("psci");
    set_text(&mut node, "compatible", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]);
    set_text(&mut node, "method", &["hvc"]);
    // For kernels that know only PSCI 0.1: the numbers of 0.2, as Xen gives them.
    set_cells(&mut node, "cpu_off", &[0x8400_0002]);
    set_cells(&mut node, "cpu_on", &[0xc400_0003]);
    node
}

/// Whether a full path leads somewhere.
fn exists(root: &DeviceTreeNode, path: &str) -> bool {
    let mut node = Some(root);
    for part in path.split('/').filter(|part| !part.is_empty()) {
        node = node.and_then(|node| node.child(part));
    }
    node.is_some()
}

fn prune_aliases(root: &mut DeviceTreeNode) {
    let Some(mut aliases) = root.remove_child("aliases") else { return };
    let stale: Vec<String> = aliases
        .properties()
        .filter(|alias| {
            crate::devicetree::text(alias.value())
                .is_some_and(|path| path.starts_with('/') && !exists(root, path))
        })
        .map(|alias| alias.name().to_string())
        .collect();
    for name in stale {
        aliases.remove_property(&name);
    }
    root.add_child(aliases);
}
