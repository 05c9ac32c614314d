//! Mutation tests of the claim that `check` puts every panic of `fdt` out of reach.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use std::vec::Vec;

use dtoolkit::model::{DeviceTree as Model, DeviceTreeNode, DeviceTreeProperty};

use super::*;

/// A small, fast generator (xorshift64*), so that a failure repeats.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound.max(1)
    }
}

fn property(node: &mut DeviceTreeNode, name: &str, value: &[u8]) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

fn cells(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A tree with one of everything that readers look at, small so that mutations hit something.
fn seed() -> Vec<u8> {
    let mut tree = Model::new();
    let root = &mut tree.root;
    property(root, "#address-cells", &cells(&[2]));
    property(root, "#size-cells", &cells(&[2]));
    property(root, "interrupt-parent", &cells(&[1]));
    property(root, "compatible", b"linux,dummy-virt\0");
    let mut soc = DeviceTreeNode::new_unchecked("soc@0");
    property(&mut soc, "#address-cells", &cells(&[1]));
    property(&mut soc, "#size-cells", &cells(&[1]));
    property(&mut soc, "ranges", &cells(&[0x7e00_0000, 0, 0xfe00_0000, 0x180_0000]));
    let mut uart = DeviceTreeNode::new_unchecked("serial@7e201000");
    property(&mut uart, "compatible", b"arm,pl011\0arm,primecell\0");
    property(&mut uart, "reg", &cells(&[0x7e20_1000, 0x200]));
    property(&mut uart, "interrupts", &cells(&[0, 121, 4]));
    soc.add_child(uart);
    root.add_child(soc);
    let mut gic = DeviceTreeNode::new_unchecked("intc@8000000");
    property(&mut gic, "phandle", &cells(&[1]));
    property(&mut gic, "#interrupt-cells", &cells(&[3]));
    property(&mut gic, "compatible", b"arm,gic-400\0");
    property(&mut gic, "reg", &cells(&[0, 0x800_0000, 0, 0x1_0000, 0, 0x801_0000, 0, 0x1_0000]));
    root.add_child(gic);
    let mut memory = DeviceTreeNode::new_unchecked("memory@40000000");
    property(&mut memory, "device_type", b"memory\0");
    property(&mut memory, "reg", &cells(&[0, 0x4000_0000, 0, 0x4000_0000]));
    root.add_child(memory);
    let mut aliases = DeviceTreeNode::new_unchecked("aliases");
    property(&mut aliases, "serial0", b"/soc@0/serial@7e201000\0");
    root.add_child(aliases);
    let mut chosen = DeviceTreeNode::new_unchecked("chosen");
    property(&mut chosen, "stdout-path", b"serial0:115200\0");
    property(&mut chosen, "empty", b"");
    root.add_child(chosen);
    tree.memory_reservations.push(dtoolkit::memreserve::MemoryReservation::new(0, 0x1000));
    tree.to_dtb()
}

/// Everything `fdt` offers that does not demand a particular node or property.
fn read_all(blob: &[u8]) -> usize {
    let fdt = Fdt::new(blob).expect("the check has accepted the header");
    let mut seen = 0;
    for node in fdt.all_nodes() {
        seen += node.name.len() + node.properties().map(|p| p.value.len() + p.name.len()).sum::<usize>();
        seen += node.children().count();
        seen += node.reg().map_or(0, |reg| reg.take(1 << 20).count());
        seen += node.raw_reg().map_or(0, |reg| {
            let count = reg.take((1 << 20) + 1).count();
            assert!(count <= 1 << 20, "a reg without end");
            count
        });
        seen += node.compatible().map_or(0, |list| list.all().count());
        seen += node.interrupts().map_or(0, |list| list.count());
        seen += node.interrupt_parent().is_some() as usize + node.interrupt_cells().unwrap_or(0);
        let _ = node.cell_sizes();
        let _ = node.property("status");
    }
    seen += fdt.memory_reservations().map(|r| r.size()).fold(0, usize::wrapping_add);
    seen += fdt.strings().count();
    for path in
        ["/", "/aliases", "/soc/serial", "/soc@0/serial@7e201000", "serial0", "/none", "none", "/chosen", ""]
    {
        seen += fdt.find_node(path).is_some() as usize;
        seen += fdt.find_all_nodes(path).take(1000).count();
    }
    if let Some(aliases) = fdt.aliases() {
        for (name, _) in aliases.all() {
            seen += fdt.find_node(name).is_some() as usize;
        }
    }
    seen += fdt.find_compatible(&["arm,gic-400"]).is_some() as usize + fdt.find_phandle(1).is_some() as usize;
    seen
}

/// The same through our own reader.
fn read_ours(blob: &[u8]) -> usize {
    let tree = DeviceTree::new(blob).expect("checked");
    let mut seen = tree.memory_reservations().count();
    tree.walk(|node| {
        seen += node.reg().len() + node.raw_reg().count() + node.compatible().count() + node.depth();
        seen += node.is_enabled() as usize + node.interrupt_parent().is_some() as usize;
        ControlFlow::<()>::Continue(())
    });
    for path in ["/", "serial0", "serial0:115200", "/soc/serial", "none", "/chosen"] {
        seen += tree.at_path(path, |node| node.name().len()).unwrap_or(0);
    }
    seen
}

/// One random edit, chosen so that a good part gets past the header.
pub(crate) fn mutate(blob: &mut [u8], random: &mut Random) {
    let at = random.below(blob.len());
    // The strings at the end need not be whole words.
    let word = at.min(blob.len() - 4) & !3;
    match random.below(8) {
        0 => blob[at] = random.next() as u8,
        1 => blob[at] ^= 1 << random.below(8),
        2 => {
            let token = [1, 2, 3, 4, 9, 0, 5, u32::MAX][random.below(8)];
            blob[word..][..4].copy_from_slice(&u32::to_be_bytes(token));
        }
        3 => {
            let size = random.below(64) as u32;
            blob[word..][..4].copy_from_slice(&size.to_be_bytes());
        }
        4 => {
            let value = [0x7fff_ffff, 0x8000_0000, 0xffff_fffc, 0xffff_fff8][random.below(4)];
            blob[word..][..4].copy_from_slice(&u32::to_be_bytes(value));
        }
        5 => {
            let header = random.below(10) * 4;
            let value = random.below(blob.len() + 8) as u32;
            blob[header..][..4].copy_from_slice(&value.to_be_bytes());
        }
        6 => {
            let from = random.below(blob.len());
            let length = random.below(24).min(blob.len() - from).min(blob.len() - at);
            blob.copy_within(from..from + length, at);
        }
        _ => blob[at] = 0,
    }
}

/// Seconds to spend: ten at most by default, or what `NACELLE_FUZZ_SECONDS` says.
fn budget() -> Duration {
    let seconds = std::env::var("NACELLE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6))
}

#[test]
fn accepted_mutants_never_panic() {
    let seed = seed();
    check(&seed).expect("the seed is valid");
    let unmutated = read_all(&seed);
    assert!(unmutated > 0);
    let mut random = Random(0x5eed_0fd7);
    let (mut mutants, mut accepted) = (0u64, 0u64);
    let end = Instant::now() + budget();
    let mut blob = seed.clone();
    while Instant::now() < end {
        for _ in 0..100 {
            blob.copy_from_slice(&seed);
            for _ in 0..1 + random.below(6) {
                mutate(&mut blob, &mut random);
            }
            let cut = if random.below(16) == 0 { random.below(blob.len()) } else { blob.len() };
            mutants += 1;
            let result = catch_unwind(AssertUnwindSafe(|| {
                let mut prepared = blob[..cut].to_vec();
                let checked = check(&blob[..cut]).is_ok();
                if checked {
                    read_all(&blob[..cut]);
                }
                if prepare(&mut prepared).is_ok() {
                    read_all(&prepared);
                    read_ours(&prepared);
                    true
                } else {
                    assert!(!checked, "prepare refuses what check accepts");
                    assert_eq!(prepared, blob[..cut], "a refused blob was changed");
                    false
                }
            }));
            match result {
                Ok(passed) => accepted += u64::from(passed),
                Err(_) => panic!("mutant {mutants} panics: {:02x?}", &blob[..cut]),
            }
        }
    }
    std::println!("{mutants} mutants, {accepted} accepted");
    assert!(
        accepted * 20 > mutants,
        "too few mutants pass the check to prove anything: {accepted} of {mutants}"
    );
}

#[test]
fn every_truncation_is_refused() {
    let seed = seed();
    for length in 0..seed.len() {
        assert!(check(&seed[..length]).is_err(), "{length} of {} bytes are accepted", seed.len());
    }
}

#[test]
fn no_operations_are_removed() {
    let mut blob = seed();
    let before = read_ours(&blob);
    // As firmware deletes a node: QEMU overwrites it with no-operation tokens.
    let name = blob.windows(8).position(|w| w == b"chosen\0\0").expect("chosen is there");
    let end = name + blob[name..].chunks_exact(4).position(|w| w == [0, 0, 0, 2]).unwrap() * 4 + 4;
    for word in blob[name - 4..end].chunks_exact_mut(4) {
        word.copy_from_slice(&[0, 0, 0, 4]);
    }
    assert!(matches!(check(&blob), Err(DtbError::NoOperation(_))));
    prepare(&mut blob).expect("well-formed");
    let tree = DeviceTree::new(&blob).expect("prepared");
    assert!(tree.at_path("/chosen", |_| ()).is_none());
    assert!(tree.at_path("/aliases", |_| ()).is_some());
    assert!(read_ours(&blob) < before);
    assert_eq!(tree.memory_reservations().count(), 1);
}

#[test]
fn addresses_translate_through_ranges() {
    let blob = seed();
    let tree = DeviceTree::new(&blob).unwrap();
    let reg = tree.at_path("serial0:115200n8", |node| node.reg()).expect("by alias");
    assert_eq!(reg.as_slice(), &[PaRange::new(Pa::new(0xfe20_1000), 0x200).unwrap()]);
    let reg = tree.at_path("/intc", |node| node.reg()).expect("without unit address");
    assert_eq!(reg.len(), 2);
    assert_eq!(reg[1].start, Pa::new(0x801_0000));
    assert_eq!(tree.at_path("/soc/serial", |node| std::format!("{node}")).unwrap(), "/soc@0/serial@7e201000");
}

#[test]
fn circular_aliases_are_refused() {
    let mut tree = Model::new();
    let mut aliases = DeviceTreeNode::new_unchecked("aliases");
    property(&mut aliases, "/x", b"/x\0");
    tree.root.add_child(aliases);
    assert!(matches!(check(&tree.to_dtb()), Err(DtbError::Alias(_))));
    let mut tree = Model::new();
    let mut aliases = DeviceTreeNode::new_unchecked("aliases");
    property(&mut aliases, "x", b"x\0");
    tree.root.add_child(aliases);
    assert!(matches!(check(&tree.to_dtb()), Err(DtbError::Alias(_))));
}

#[test]
fn depth_is_bounded() {
    let nested = |depth| {
        let mut node = DeviceTreeNode::new_unchecked("leaf");
        for _ in 2..depth {
            let mut outer = DeviceTreeNode::new_unchecked("bus");
            outer.add_child(node);
            node = outer;
        }
        let mut tree = Model::new();
        tree.root.add_child(node);
        tree.to_dtb()
    };
    let deepest = nested(MAX_DEPTH);
    assert_eq!(check(&deepest), Ok(()));
    assert!(read_all(&deepest) > 0);
    assert!(matches!(check(&nested(MAX_DEPTH + 1)), Err(DtbError::TooDeep(_))));
}

#[test]
fn a_walk_costs_no_square() {
    let with_properties = |count, is_parent: bool| {
        let mut tree = Model::new();
        for index in 0..count {
            property(&mut tree.root, &std::format!("p{index}"), b"");
        }
        if is_parent {
            tree.root.add_child(DeviceTreeNode::new_unchecked("child"));
        }
        check(&tree.to_dtb())
    };
    assert_eq!(with_properties(128, true), Ok(()));
    assert!(matches!(with_properties(129, true), Err(DtbError::TooManyProperties(_))));
    assert_eq!(with_properties(2000, false), Ok(()));
}

#[test]
fn cells_are_said_once() {
    let mut blob = seed();
    // The second of the root's properties gets the first one's name.
    let name = |which: &[u8]| blob.windows(which.len()).position(|w| w == which).unwrap();
    let (address, size) = (name(b"#address-cells\0"), name(b"#size-cells\0"));
    let strings = u32::from_be_bytes(blob[12..16].try_into().unwrap()) as usize;
    let [address, size] = [address, size].map(|at| ((at - strings) as u32).to_be_bytes());
    let at = blob.windows(4).position(|w| w == size).unwrap();
    blob[at..at + 4].copy_from_slice(&address);
    assert!(matches!(check(&blob), Err(DtbError::Cells(_))));
}

/// What a mutation test finds only by luck: each of these is one hand-made offence.
#[test]
fn each_offence_has_its_message() {
    let seed = seed();
    let with = |offset: usize, value: u32| {
        let mut blob = seed.clone();
        blob[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
        check(&blob).expect_err("an offence")
    };
    assert_eq!(with(0, 0), DtbError::BadMagic(0));
    assert!(matches!(with(4, 0x10_0000), DtbError::TotalSize { claimed: 0x10_0000, .. }));
    assert!(matches!(with(8, 0xffff_fffc), DtbError::Block("structure")));
    assert!(matches!(with(12, 0), DtbError::Block("strings")));
    assert!(matches!(with(16, u32::MAX), DtbError::Block("reservation")));
    assert!(matches!(with(20, 16), DtbError::Version(16, _)));
    assert!(matches!(with(36, 8), DtbError::Truncated(_)));
    assert!(std::format!("{}", with(0, 0x1234_5678)).contains("0x12345678"));
}
