//! What the device tree says about the machine: memory, interrupt controller, timer, processors, hypervisor.
//!
//! Read once at start, never changed afterwards.
#![forbid(unsafe_code)]

use arrayvec::ArrayVec;
use fdt::Fdt;
use fdt::node::FdtNode;

/// A half-open range of addresses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// First address after the range.
    pub end: u64,
}

impl Range {
    /// The range of `size` bytes at `start`; empty when it would wrap.
    pub fn sized(start: u64, size: u64) -> Self {
        Self { start, end: start.checked_add(size).unwrap_or(start) }
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// Where the interrupt controller's registers are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GicRegisters {
    /// GICv2: distributor and CPU interface.
    V2 {
        /// GICD.
        distributor: u64,
        /// GICC.
        cpu_interface: u64,
    },
    /// GICv3: distributor and the first region of redistributors.
    V3 {
        /// GICD.
        distributor: u64,
        /// GICR frames, one after the other.
        redistributors: Range,
    },
}

/// The machine as its device tree describes it.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// Banks of memory.
    pub memory: ArrayVec<Range, 16>,
    /// Parts of memory that hold something already: image, device tree, initrd, reservations.
    pub reserved: ArrayVec<Range, 16>,
    /// The interrupt controller.
    pub gic: Option<GicRegisters>,
    /// Interrupt of the virtual timer.
    pub virtual_timer: u32,
    /// Interrupt of the physical timer.
    pub physical_timer: u32,
    /// The hypervisor's event interrupt, from the `xen,xen` node.
    pub event_interrupt: Option<u32>,
    /// MPIDR affinity of each processor.
    pub cpus: ArrayVec<u64, 64>,
    /// `/chosen/bootargs`.
    pub bootargs: &'a str,
}

impl<'a> Machine<'a> {
    /// Reads the tree. `in_use` lists what the caller already occupies (image, tree).
    pub fn from_tree(tree: &Fdt<'a>, in_use: &[Range]) -> Self {
        let mut reserved: ArrayVec<Range, 16> = in_use.iter().copied().collect();
        for entry in tree.memory_reservations() {
            let _ = reserved.try_push(Range::sized(entry.address() as u64, entry.size() as u64));
        }
        if let Some(chosen) = tree.find_node("/chosen") {
            let address = |name| chosen.property(name).and_then(|p| p.as_usize()).map(|v| v as u64);
            if let (Some(start), Some(end)) = (address("linux,initrd-start"), address("linux,initrd-end")) {
                let _ = reserved.try_push(Range { start, end });
            }
        }
        if let Some(parent) = tree.find_node("/reserved-memory") {
            for node in parent.children() {
                reserved.extend(regions(node).take(reserved.remaining_capacity()));
            }
        }
        let mut memory = ArrayVec::new();
        let mut cpus = ArrayVec::new();
        for node in tree.all_nodes() {
            let kind = node.property("device_type").and_then(|p| p.as_str());
            match kind {
                Some("memory") => memory.extend(regions(node).take(memory.remaining_capacity())),
                Some("cpu") => {
                    if let Some(id) = node.property("reg").and_then(|p| p.as_usize()) {
                        let _ = cpus.try_push(id as u64);
                    }
                }
                Some(_) | None => {}
            }
        }
        let timer = tree.find_compatible(&["arm,armv8-timer"]);
        let hypervisor = tree.find_compatible(&["xen,xen"]);
        Self {
            memory,
            reserved,
            gic: gic(tree),
            physical_timer: timer.and_then(|n| interrupt(n, 1)).unwrap_or(30),
            virtual_timer: timer.and_then(|n| interrupt(n, 2)).unwrap_or(27),
            event_interrupt: hypervisor.and_then(|n| interrupt(n, 0)),
            cpus,
            bootargs: tree.chosen().bootargs().unwrap_or(""),
        }
    }

    /// A free, aligned range of memory of `size` bytes, if there is one; the lowest one from the end of each bank, which
    /// is where loaders put nothing.
    pub fn free(&self, size: u64, align: u64) -> Option<Range> {
        let mask = align.checked_sub(1)?;
        self.memory.iter().find_map(|bank| {
            let mut end = bank.end;
            loop {
                let start = end.checked_sub(size)? & !mask;
                let candidate = Range::sized(start, size);
                if start < bank.start {
                    return None;
                }
                match self.reserved.iter().find(|used| used.overlaps(&candidate)) {
                    None => return Some(candidate),
                    Some(used) => end = used.start.min(end.checked_sub(1)?),
                }
            }
        })
    }

    /// The value of `name=value` in the boot arguments.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.bootargs.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The same as a decimal number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Whether the word `name` is among the boot arguments.
    pub fn flag(&self, name: &str) -> bool {
        self.bootargs.split_ascii_whitespace().any(|word| word == name)
    }
}

fn regions<'a>(node: FdtNode<'_, 'a>) -> impl Iterator<Item = Range> + 'a {
    let list = node.reg();
    list.into_iter()
        .flatten()
        .map(|r| Range::sized(r.starting_address as usize as u64, r.size.unwrap_or(0) as u64))
}

fn gic(tree: &Fdt<'_>) -> Option<GicRegisters> {
    if let Some(node) = tree.find_compatible(&["arm,gic-v3"]) {
        let mut list = regions(node);
        let (distributor, redistributors) = (list.next()?.start, list.next()?);
        return Some(GicRegisters::V3 { distributor, redistributors });
    }
    let node = tree.find_compatible(&["arm,cortex-a15-gic", "arm,gic-400", "arm,cortex-a7-gic"])?;
    let mut list = regions(node).map(|registers| from_soc(tree, node.name, registers.start));
    Some(GicRegisters::V2 { distributor: list.next()?, cpu_interface: list.next()? })
}

/// What address `at` of a node of that name is, if it stands on a Raspberry Pi's bus: `/soc` has addresses of its own.
fn from_soc(tree: &Fdt<'_>, name: &str, at: u64) -> u64 {
    let Some(soc) = tree.find_node("/soc").filter(|soc| soc.children().any(|child| child.name == name))
    else {
        return at;
    };
    // Child, parent (two cells), length.
    let ranges = soc.property("ranges").map_or([].as_slice(), |ranges| ranges.value);
    let translated = ranges.chunks_exact(16).find_map(|range| {
        let cell = |index: usize| {
            let bytes = range.get(index * 4..)?.first_chunk()?;
            Some(u64::from(u32::from_be_bytes(*bytes)))
        };
        let offset = at.checked_sub(cell(0)?).filter(|&offset| Some(offset) < cell(3))?;
        Some((cell(1)? << 32 | cell(2)?) + offset)
    });
    translated.unwrap_or(at)
}

/// The `index`th interrupt of a node whose controller is the GIC: three cells (type, number, flags), type 1 a PPI.
fn interrupt(node: FdtNode<'_, '_>, index: usize) -> Option<u32> {
    let value = node.property("interrupts")?.value;
    let cell = |n: usize| {
        let bytes = value.get(n.checked_mul(4)?..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let base = index.checked_mul(3)?;
    match cell(base)? {
        1 => cell(base + 1)?.checked_add(16),
        _ => cell(base + 1)?.checked_add(32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

    fn machine(memory: &[Range], reserved: &[Range]) -> Machine<'static> {
        Machine {
            memory: memory.iter().copied().collect(),
            reserved: reserved.iter().copied().collect(),
            gic: None,
            physical_timer: 30,
            virtual_timer: 27,
            event_interrupt: None,
            cpus: ArrayVec::new(),
            bootargs: "fuzz.count=100 quick x=y",
        }
    }

    #[test]
    fn free_memory_avoids_what_is_reserved() {
        let bank = Range { start: 0x8000_0000, end: 0x9000_0000 };
        let used = Range { start: 0x8f10_0000, end: 0x8ff0_0000 };
        let found = machine(&[bank], &[used]).free(0x40_0000, 0x20_0000);
        assert_eq!(found, Some(Range { start: 0x8ec0_0000, end: 0x8f00_0000 }));
    }

    #[test]
    fn free_memory_is_none_when_nothing_fits() {
        let bank = Range { start: 0x8000_0000, end: 0x8040_0000 };
        let used = Range { start: 0x8010_0000, end: 0x8020_0000 };
        assert_eq!(machine(&[bank], &[used]).free(0x40_0000, 0x20_0000), None);
        assert_eq!(machine(&[], &[]).free(1, 1), None);
    }

    fn node(name: &str, properties: &[(&str, &[u32])], texts: &[(&str, &str)]) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new(name).expect("a valid name");
        for (key, cells) in properties {
            let bytes: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
            node.add_property(DeviceTreeProperty::new(*key, bytes.as_slice()).expect("a valid name"));
        }
        for (key, text) in texts {
            node.add_property(DeviceTreeProperty::new(*key, *text).expect("a valid name"));
        }
        node
    }

    fn dom0_tree(gic: DeviceTreeNode) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        tree.root = node("", &[("#address-cells", &[2]), ("#size-cells", &[2])], &[]);
        let root = &mut tree.root;
        let memory = [0, 0x8000_0000, 0, 0x4000_0000, 1, 0, 0, 0x1000_0000];
        root.add_child(node("memory@80000000", &[("reg", &memory)], &[("device_type", "memory")]));
        let mut cpus = node("cpus", &[("#address-cells", &[1]), ("#size-cells", &[0])], &[]);
        cpus.add_child(node(
            "cpu@0",
            &[("reg", &[0])],
            &[("device_type", "cpu"), ("compatible", "arm,armv8")],
        ));
        cpus.add_child(node(
            "cpu@101",
            &[("reg", &[0x101])],
            &[("device_type", "cpu"), ("compatible", "arm,armv8")],
        ));
        root.add_child(cpus);
        let initrd: [(&str, &[u32]); 2] =
            [("linux,initrd-start", &[0, 0x8820_0000]), ("linux,initrd-end", &[0, 0x8900_0000])];
        root.add_child(node("chosen", &initrd, &[("bootargs", "fuzz.seed=7")]));
        let lines = [1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08];
        root.add_child(node("timer", &[("interrupts", &lines)], &[("compatible", "arm,armv8-timer")]));
        root.add_child(node("hypervisor", &[("interrupts", &[1, 0, 0xf08])], &[("compatible", "xen,xen")]));
        root.add_child(gic);
        tree.to_dtb()
    }

    #[test]
    fn a_tree_as_dom0_gets_it_is_understood() {
        let registers = [0, 0x0800_0000, 0, 0x1_0000, 0, 0x0801_0000, 0, 0x2000];
        let gic =
            node("interrupt-controller@8000000", &[("reg", &registers)], &[("compatible", "arm,gic-400")]);
        let bytes = dom0_tree(gic);
        let image = Range { start: 0x8000_0000, end: 0x8010_0000 };
        let machine = Machine::from_tree(&Fdt::new(&bytes).expect("a valid tree"), &[image]);
        let low = Range { start: 0x8000_0000, end: 0xc000_0000 };
        let high = Range { start: 0x1_0000_0000, end: 0x1_1000_0000 };
        assert_eq!(machine.memory.as_slice(), [low, high]);
        assert!(machine.reserved.contains(&Range { start: 0x8820_0000, end: 0x8900_0000 }));
        let expected = GicRegisters::V2 { distributor: 0x0800_0000, cpu_interface: 0x0801_0000 };
        assert_eq!(machine.gic, Some(expected));
        assert_eq!(
            (machine.physical_timer, machine.virtual_timer, machine.event_interrupt),
            (30, 27, Some(16))
        );
        assert_eq!(machine.cpus.as_slice(), [0, 0x101]);
        assert_eq!(machine.number("fuzz.seed"), Some(7));
    }

    #[test]
    fn redistributors_are_a_range() {
        let registers = [0, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0xf6_0000];
        let gic =
            node("interrupt-controller@8000000", &[("reg", &registers)], &[("compatible", "arm,gic-v3")]);
        let bytes = dom0_tree(gic);
        let machine = Machine::from_tree(&Fdt::new(&bytes).expect("a valid tree"), &[]);
        let redistributors = Range { start: 0x080a_0000, end: 0x0900_0000 };
        assert_eq!(machine.gic, Some(GicRegisters::V3 { distributor: 0x0800_0000, redistributors }));
    }

    #[test]
    fn boot_arguments_are_words() {
        let machine = machine(&[], &[]);
        assert_eq!(machine.number("fuzz.count"), Some(100));
        assert_eq!(machine.number("x"), None);
        assert!(machine.flag("quick"));
        assert!(!machine.flag("fuzz"));
    }
}
