//! The device tree that a domain starts with, as Xen 4.17's tools make it.
//!
//! Beyond theirs: in a domain whose memory may grow, a page is claimed in each 128 MiB section below RAM. Linux looks for room
//! for new memory from address 0 up, in whole sections, and would find it there, below its linear map, where it fails. The claims
//! are memory for the driver `mmio-sram`, which takes the region and then waits to be asked; `no-memory-wc` keeps it from mapping
//! the region cacheable.

use std::ops::Range;

use super::layout::SECTION;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use pv_abi::arch_arm::{
    GUEST_EVTCHN_PPI, GUEST_GICC_BASE, GUEST_GICC_SIZE, GUEST_GICD_BASE, GUEST_GICD_SIZE,
    GUEST_GICV3_GICD_BASE, GUEST_GICV3_GICD_SIZE, GUEST_GICV3_GICR0_BASE, GUEST_GICV3_GICR0_SIZE,
    GUEST_GNTTAB_BASE, GUEST_GNTTAB_SIZE, GUEST_RAM_BASE, GUEST_TIMER_PHYS_NS_PPI, GUEST_TIMER_PHYS_S_PPI,
    GUEST_TIMER_VIRT_PPI,
};

/// The interrupt controller's handle, as Xen numbers it.
const GIC_PHANDLE: u32 = 0xfde8;
/// Flags of private interrupts: all CPUs, level, active low.
const LEVEL_LOW: u32 = 0xf08;
const PAGE: u64 = 4096;

/// Which interrupt controller a domain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gic {
    /// GICv2.
    V2,
    /// GICv3.
    V3,
}

/// What the tree tells.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// How many vCPUs.
    pub cpus: u32,
    /// Its interrupt controller.
    pub gic: Gic,
    /// The timer's frequency, where CNTFRQ_EL0 is wrong; else 0.
    pub clock_frequency: u32,
    /// Its memory.
    pub banks: &'a [Range<u64>],
    /// What is free for pages of others.
    pub gaps: &'a [Range<u64>],
    /// Its kernel's command line.
    pub command_line: &'a str,
    /// Its initramfs.
    pub ramdisk: Option<Range<u64>>,
    /// Whether memory may be added.
    pub grows: bool,
}

fn set(node: &mut DeviceTreeNode, name: &str, value: &[u8]) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

fn set_texts(node: &mut DeviceTreeNode, name: &str, texts: &[&str]) {
    let value: Vec<u8> = texts.iter().flat_map(|text| text.bytes().chain([0])).collect();
    set(node, name, &value);
}

fn set_cells(node: &mut DeviceTreeNode, name: &str, cells: &[u32]) {
    let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
    set(node, name, &value);
}

/// Two cells each for address and size.
fn set_ranges(node: &mut DeviceTreeNode, name: &str, ranges: &[Range<u64>]) {
    let numbers = ranges.iter().flat_map(|range| [range.start, range.end - range.start]);
    let value: Vec<u8> = numbers.flat_map(u64::to_be_bytes).collect();
    set(node, name, &value);
}

fn set_interrupts(node: &mut DeviceTreeNode, interrupts: &[u32]) {
    // 1: private; these are numbered from 16.
    let cells: Vec<u32> = interrupts.iter().flat_map(|number| [1, number - 16, LEVEL_LOW]).collect();
    set_cells(node, "interrupts", &cells);
    set_cells(node, "interrupt-parent", &[GIC_PHANDLE]);
}

fn node(name: &str) -> DeviceTreeNode {
    DeviceTreeNode::new_unchecked(name)
}

/// The tree as a blob.
pub fn build(machine: &Machine<'_>) -> Vec<u8> {
    let mut root = node("");
    set_texts(&mut root, "model", &["XENVM-4.17"]);
    set_texts(&mut root, "compatible", &["xen,xenvm-4.17", "xen,xenvm"]);
    set_cells(&mut root, "interrupt-parent", &[GIC_PHANDLE]);
    set_cells(&mut root, "#address-cells", &[2]);
    set_cells(&mut root, "#size-cells", &[2]);
    root.add_child(chosen(machine));
    root.add_child(cpus(machine.cpus));
    root.add_child(psci());
    for bank in machine.banks {
        let mut memory = node(&format!("memory@{:x}", bank.start));
        set_texts(&mut memory, "device_type", &["memory"]);
        set_ranges(&mut memory, "reg", std::slice::from_ref(bank));
        root.add_child(memory);
    }
    root.add_child(gic(machine.gic));
    root.add_child(timer(machine.clock_frequency));
    root.add_child(hypervisor(machine.gaps));
    if machine.grows {
        root.add_child(claims());
    }
    let mut tree = DeviceTree::new();
    tree.root = root;
    tree.to_dtb()
}

fn chosen(machine: &Machine<'_>) -> DeviceTreeNode {
    let mut chosen = node("chosen");
    set_texts(&mut chosen, "bootargs", &[machine.command_line]);
    if let Some(ramdisk) = &machine.ramdisk {
        set(&mut chosen, "linux,initrd-start", &ramdisk.start.to_be_bytes());
        set(&mut chosen, "linux,initrd-end", &ramdisk.end.to_be_bytes());
    }
    chosen
}

fn cpus(count: u32) -> DeviceTreeNode {
    let mut cpus = node("cpus");
    set_cells(&mut cpus, "#address-cells", &[1]);
    set_cells(&mut cpus, "#size-cells", &[0]);
    for index in 0..count {
        // As the hypervisor numbers them: sixteen to a cluster, the most that a GICv3 SGI names at once.
        let affinity = index & 0xf | (index >> 4) << 8;
        let mut cpu = node(&format!("cpu@{affinity:x}"));
        set_texts(&mut cpu, "device_type", &["cpu"]);
        set_texts(&mut cpu, "compatible", &["arm,armv8"]);
        set_texts(&mut cpu, "enable-method", &["psci"]);
        set_cells(&mut cpu, "reg", &[affinity]);
        cpus.add_child(cpu);
    }
    cpus
}

fn psci() -> DeviceTreeNode {
    let mut psci = node("psci");
    set_texts(&mut psci, "compatible", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]);
    set_texts(&mut psci, "method", &["hvc"]);
    // Of PSCI 0.1, for who knows no other.
    set_cells(&mut psci, "cpu_off", &[1]);
    set_cells(&mut psci, "cpu_on", &[2]);
    psci
}

fn gic(version: Gic) -> DeviceTreeNode {
    let (base, compatible, ranges): (u64, &[&str], _) = match version {
        Gic::V2 => (
            GUEST_GICD_BASE,
            &["arm,cortex-a15-gic", "arm,cortex-a9-gic"],
            [(GUEST_GICD_BASE, GUEST_GICD_SIZE), (GUEST_GICC_BASE, GUEST_GICC_SIZE)],
        ),
        Gic::V3 => (
            GUEST_GICV3_GICD_BASE,
            &["arm,gic-v3"],
            [
                (GUEST_GICV3_GICD_BASE, GUEST_GICV3_GICD_SIZE),
                (GUEST_GICV3_GICR0_BASE, GUEST_GICV3_GICR0_SIZE),
            ],
        ),
    };
    let mut gic = node(&format!("interrupt-controller@{base:x}"));
    set_texts(&mut gic, "compatible", compatible);
    set_cells(&mut gic, "#interrupt-cells", &[3]);
    set_cells(&mut gic, "#address-cells", &[0]);
    set(&mut gic, "interrupt-controller", &[]);
    set_ranges(&mut gic, "reg", &ranges.map(|(start, bytes)| start..start + bytes));
    set_cells(&mut gic, "linux,phandle", &[GIC_PHANDLE]);
    set_cells(&mut gic, "phandle", &[GIC_PHANDLE]);
    gic
}

fn timer(frequency: u32) -> DeviceTreeNode {
    let mut timer = node("timer");
    set_texts(&mut timer, "compatible", &["arm,armv8-timer"]);
    set_interrupts(&mut timer, &[GUEST_TIMER_PHYS_S_PPI, GUEST_TIMER_PHYS_NS_PPI, GUEST_TIMER_VIRT_PPI]);
    if frequency != 0 {
        set_cells(&mut timer, "clock-frequency", &[frequency]);
    }
    timer
}

fn hypervisor(gaps: &[Range<u64>]) -> DeviceTreeNode {
    let mut hypervisor = node("hypervisor");
    set_texts(&mut hypervisor, "compatible", &["xen,xen-4.17", "xen,xen"]);
    let grants = GUEST_GNTTAB_BASE..GUEST_GNTTAB_BASE + GUEST_GNTTAB_SIZE;
    let ranges: Vec<_> = std::iter::once(grants).chain(gaps.iter().cloned()).collect();
    set_ranges(&mut hypervisor, "reg", &ranges);
    set_interrupts(&mut hypervisor, &[GUEST_EVTCHN_PPI]);
    hypervisor
}

/// The claimed pages, the last in each section below RAM: no device of ours is there.
fn claims() -> DeviceTreeNode {
    let mut bus = node("hot-add-claims");
    set_texts(&mut bus, "compatible", &["simple-bus"]);
    set_cells(&mut bus, "#address-cells", &[2]);
    set_cells(&mut bus, "#size-cells", &[2]);
    set(&mut bus, "ranges", &[]);
    for end in (SECTION..=GUEST_RAM_BASE).step_by(SECTION as usize) {
        let page = end - PAGE..end;
        let mut claim = node(&format!("sram@{:x}", page.start));
        set_texts(&mut claim, "compatible", &["mmio-sram"]);
        set(&mut claim, "no-memory-wc", &[]);
        set_cells(&mut claim, "#address-cells", &[1]);
        set_cells(&mut claim, "#size-cells", &[1]);
        // Child address, parent address (two cells), size.
        let [high, low] = [(page.start >> 32) as u32, page.start as u32];
        set_cells(&mut claim, "ranges", &[0, high, low, PAGE as u32]);
        set_ranges(&mut claim, "reg", &[page]);
        bus.add_child(claim);
    }
    bus
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// The guest that `layout` takes as its example.
    fn machine(grows: bool, gic: Gic) -> Vec<u8> {
        build(&Machine {
            cpus: 4,
            gic,
            clock_frequency: 0,
            banks: std::slice::from_ref(&(0x4000_0000..0x5000_0000)),
            gaps: &[0x5000_0000..0x1_0000_0000, 0x2_0000_0000..0x100_0000_0000],
            command_line: "console=hvc0",
            ramdisk: Some(0x4800_0000..0x480f_e000),
            grows,
        })
    }

    /// What `dtc` makes of it, or `None` where there is no `dtc`.
    fn source(blob: &[u8]) -> Option<String> {
        let mut dtc = Command::new("dtc")
            .args(["-I", "dtb", "-O", "dts", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .ok()?;
        dtc.stdin.take().expect("it is a pipe").write_all(blob).expect("dtc reads");
        let output = dtc.wait_with_output().expect("dtc ends");
        let complaints = String::from_utf8_lossy(&output.stderr);
        // Xen's GIC has no unit for its interrupt map; everything else that dtc checks holds.
        assert!(!complaints.contains("ERROR") && output.status.success(), "{complaints}");
        Some(String::from_utf8(output.stdout).expect("dtc writes text"))
    }

    #[test]
    fn the_tree_is_the_one_that_xens_tools_make() {
        let Some(found) = source(&machine(false, Gic::V2)) else {
            eprintln!("no dtc here: the tree is only read back");
            return;
        };
        assert_eq!(found.trim(), include_str!("tree/debian.dts").trim());
    }

    #[test]
    fn gicv3_and_claims_are_told() {
        let blob = machine(true, Gic::V3);
        let tree = DeviceTree::from_fdt(&dtoolkit::fdt::Fdt::new(&blob).expect("what was written is read"));
        let gic = tree.find_node("/interrupt-controller@3001000").expect("it is there");
        use dtoolkit::{Node as _, Property as _};
        let reg = gic.property("reg").expect("it has one");
        assert_eq!(reg.value()[16..], [0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        for section in 1..=8u64 {
            let path = format!("/hot-add-claims/sram@{:x}", section * SECTION - PAGE);
            assert!(tree.find_node(&path).is_some(), "{path}");
        }
    }
}
