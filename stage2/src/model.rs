//! Property tests: random batches against a flat map, on the machine with the strict TLB.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use proptest::prelude::*;

use crate::fake::Machine;
use crate::{
    Access, Attributes, BlockSize, Error, Geometry, Gfn, Leaf, MFN_LIMIT, MemoryType, Mfn, PageType, Pages,
    Progress, Tables, Unflushed,
};

const BLOCK: u64 = 512;
const GIGA: u64 = BLOCK * BLOCK;

/// What each frame maps to.
type Model = BTreeMap<u64, (Mfn, Attributes)>;
/// The frames on demand.
type Demand = BTreeSet<u64>;

#[derive(Clone, Debug)]
enum Operation {
    MapPage(u64, u64, Attributes),
    MapRun(u64, u64, u64, Attributes),
    MapBlock(u64, u64, BlockSize, Attributes),
    UnmapPage(u64),
    UnmapRun(u64, u64),
    Protect(u64, u64, Attributes),
    Split(u64, BlockSize),
    Merge(u64),
    Watch([u64; 4]),
    Rejoin([u64; 4]),
    Finish,
    Mark(u64, u64),
    LimitTables(Option<u64>),
}

/// Frames near table borders in a few places, so that operations meet.
fn gfn(limit: u64) -> impl Strategy<Value = u64> {
    let bases = [0, 3 * BLOCK, GIGA - BLOCK, 2 * GIGA, limit - 3 * BLOCK];
    let offsets = prop_oneof![4 => 0..4u64, 2 => BLOCK - 2..BLOCK + 2, 2 => 0..3 * BLOCK, 2 => Just(0), 1 => Just(BLOCK)];
    (prop::sample::select(bases.to_vec()), offsets).prop_map(|(base, offset)| base + offset)
}

fn attributes() -> impl Strategy<Value = Attributes> {
    prop::sample::select(std::vec![
        Attributes::RAM,
        Attributes::RAM,
        Attributes::RAM.with_access(Access::R),
        Attributes::RAM.with_page_type(PageType::Foreign),
        Attributes::new(Access::RW, MemoryType::NormalNc, PageType::Ram),
        Attributes::MMIO,
    ])
}

fn run() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1..6u64, 4 => Just(BLOCK), 2 => 1..2 * BLOCK, 1 => Just(2 * BLOCK), 1 => Just(0)]
}

/// Distance from a guest frame to its machine frame: few, so that neighbours are often contiguous.
fn shift() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(4 * GIGA), 2 => Just(8 * GIGA + BLOCK), 1 => Just(8 * GIGA + 3)]
}

fn operation(limit: u64) -> impl Strategy<Value = Operation> {
    let size = prop_oneof![
        20 => Just(BlockSize::Block2M),
        4 => Just(BlockSize::Page4K),
        1 => Just(BlockSize::Block1G)
    ];
    prop_oneof![
        6 => (gfn(limit), shift(), attributes()).prop_map(|(g, s, a)| Operation::MapPage(g, s, a)),
        4 => (gfn(limit), shift(), run(), attributes()).prop_map(|(g, s, n, a)| Operation::MapRun(g, s, n, a)),
        3 => (gfn(limit), shift(), size.clone(), attributes()).prop_map(|(g, s, z, a)| {
            Operation::MapBlock(g & !(z.pages().get() - 1), s, z, a)
        }),
        6 => gfn(limit).prop_map(Operation::UnmapPage),
        4 => (gfn(limit), run()).prop_map(|(g, n)| Operation::UnmapRun(g, n)),
        2 => (gfn(limit), run(), attributes()).prop_map(|(g, n, a)| Operation::Protect(g, n, a)),
        6 => (gfn(limit), run()).prop_map(|(g, n)| Operation::Mark(g, n)),
        1 => (gfn(limit), size).prop_map(|(g, z)| Operation::Split(g, z)),
        1 => gfn(limit).prop_map(Operation::Merge),
        3 => prop::array::uniform4(gfn(limit)).prop_map(Operation::Watch),
        1 => prop::array::uniform4(gfn(limit)).prop_map(Operation::Rejoin),
        6 => Just(Operation::Finish),
        1 => prop_oneof![3 => Just(None), 2 => (0..4u64).prop_map(Some)].prop_map(Operation::LimitTables),
    ]
}

/// The machine frame `shift` above a guest frame, within 48 bits of address.
fn machine_frame(gfn: u64, shift: u64) -> u64 {
    (gfn + shift) % MFN_LIMIT.raw()
}

fn in_range(limit: u64, gfn: u64, pages: u64) -> bool {
    gfn <= limit && pages <= limit - gfn
}

/// The flat map's answer to mapping a run.
fn model_map(model: &mut Model, gfn: u64, mfn: u64, pages: u64, attributes: Attributes) -> bool {
    if model.range(gfn..gfn + pages).next().is_some() {
        return false;
    }
    model.extend((0..pages).map(|page| (gfn + page, (Mfn::new(mfn + page), attributes))));
    true
}

/// Takes the frames of `leaf` out of the model, where they must be.
fn model_unmap(model: &mut Model, leaf: &Leaf) {
    for page in 0..leaf.size().pages().get() {
        let gfn = leaf.gfn().wrapping_add(Pages::new(page));
        assert_eq!(model.remove(&gfn.raw()), Some((leaf.mfn_of(gfn), leaf.attributes())), "unmapped {gfn}");
    }
}

/// Compares everything: leaves, counters, tables in use, the TLB.
fn compare(tables: &Tables, machine: &Machine, model: &Model, demand: &Demand) {
    assert_eq!(tables.statistics().on_demand, demand.len() as u64);
    for &gfn in demand {
        assert!(tables.on_demand(machine, Gfn::new(gfn)).is_some(), "{gfn:#x} is not on demand");
        assert!(!model.contains_key(&gfn));
    }
    let mut expected = model.iter();
    let mut sizes = [0; 3];
    for leaf in tables.leaves(machine, Gfn::ZERO, Gfn::new(u64::MAX)) {
        sizes[leaf.size() as usize] += 1;
        for page in 0..leaf.size().pages().get() {
            let gfn = leaf.gfn().wrapping_add(Pages::new(page));
            let mapping = (&gfn.raw(), &(leaf.mfn_of(gfn), leaf.attributes()));
            assert_eq!(expected.next(), Some(mapping));
        }
    }
    assert_eq!(expected.next(), None, "a mapping is missing");
    let statistics = tables.statistics();
    assert_eq!([statistics.pages_4k, statistics.blocks_2m, statistics.blocks_1g], sizes);
    assert_eq!(statistics.mapped(), Pages::new(model.len() as u64));
    assert_eq!(
        statistics.tables as usize + 1,
        machine.tables(),
        "the root and the counted tables are all there are"
    );
    machine.assert_settled();
}

/// There are exactly the tables that lead to a leaf.
fn check_tables_are_needed(tables: &Tables, machine: &Machine, demand: &Demand) {
    let mut needed = BTreeSet::new();
    let leaves =
        tables.leaves(machine, Gfn::ZERO, Gfn::new(u64::MAX)).map(|leaf| (leaf.gfn().raw(), leaf.size()));
    let marks = demand.iter().map(|&gfn| (gfn, tables.on_demand(machine, Gfn::new(gfn)).unwrap()));
    for (gfn, size) in leaves.chain(marks) {
        let levels: &[u32] = match size {
            BlockSize::Page4K => &[9, 18, 27],
            BlockSize::Block2M => &[18, 27],
            BlockSize::Block1G => &[27],
        };
        let root_shift = if tables.geometry().root_level() == 0 { 36 } else { 27 };
        needed.extend(levels.iter().filter(|&&s| s < root_shift).map(|&shift| (shift, gfn >> shift)));
    }
    assert_eq!(tables.statistics().tables, needed.len() as u64, "a table that leads nowhere");
}

/// Blocks fit no place where there are single pages on demand, which are `Mapped` to them.
fn run_operations(geometry: Geometry, operations: Vec<Operation>) {
    let mut machine = Machine::new(geometry);
    let mut tlb = machine.clone();
    let handle = machine.clone();
    let mut tables = Tables::new(geometry, &mut machine).expect("the root");
    let mut model = Model::new();
    let mut demand = Demand::new();
    let limit = geometry.gfn_limit().raw();
    let mut operations = operations.into_iter().peekable();
    while operations.peek().is_some() {
        let mut sealed: Vec<Unflushed<Leaf>> = Vec::new();
        let mut edit = tables.edit(&mut machine, &mut tlb);
        for operation in operations.by_ref() {
            match operation {
                Operation::MapPage(gfn, shift, attributes) => {
                    let expected = in_range(limit, gfn, 1).then(|| model.contains_key(&gfn));
                    match edit.map_page(Gfn::new(gfn), Mfn::new(machine_frame(gfn, shift)), attributes) {
                        Ok(()) => {
                            demand.remove(&gfn);
                            assert!(model_map(&mut model, gfn, machine_frame(gfn, shift), 1, attributes))
                        }
                        Err(Error::Mapped(_)) => assert_eq!(expected, Some(true)),
                        Err(Error::OutOfRange) => assert_eq!(expected, None),
                        Err(error) => assert_eq!((error, expected), (Error::NoMemory, Some(false))),
                    }
                }
                Operation::MapRun(gfn, shift, pages, attributes) => {
                    let free =
                        in_range(limit, gfn, pages).then(|| model.range(gfn..gfn + pages).next().is_none());
                    match edit.map(
                        Gfn::new(gfn),
                        Mfn::new(machine_frame(gfn, shift)),
                        Pages::new(pages),
                        attributes,
                    ) {
                        Ok(()) => {
                            demand.retain(|page| !(gfn..gfn + pages).contains(page));
                            assert!(model_map(&mut model, gfn, machine_frame(gfn, shift), pages, attributes))
                        }
                        Err(Error::Mapped(_)) => {
                            assert!(free == Some(false) || demand.range(gfn..gfn + pages).next().is_some());
                        }
                        Err(Error::OutOfRange) => assert_eq!(free, None),
                        Err(error) => {
                            assert_eq!(error, Error::NoMemory);
                            assert!(free.is_some());
                        }
                    }
                }
                Operation::MapBlock(gfn, shift, size, attributes) => {
                    let pages = size.pages().get();
                    let free =
                        in_range(limit, gfn, pages).then(|| model.range(gfn..gfn + pages).next().is_none());
                    match edit.map_block(Gfn::new(gfn), Mfn::new(machine_frame(gfn, shift)), size, attributes)
                    {
                        Ok(()) => {
                            demand.retain(|page| !(gfn..gfn + pages).contains(page));
                            assert!(model_map(&mut model, gfn, machine_frame(gfn, shift), pages, attributes))
                        }
                        Err(Error::Mapped(_)) => {
                            assert!(free == Some(false) || demand.range(gfn..gfn + pages).next().is_some());
                        }
                        Err(Error::OutOfRange) => assert_eq!(free, None),
                        Err(Error::Misaligned) => assert!(!machine_frame(gfn, shift).is_multiple_of(pages)),
                        Err(Error::NoMemory) => assert_eq!(free, Some(true)),
                    }
                }
                Operation::UnmapPage(gfn) => match edit.unmap_page(Gfn::new(gfn)) {
                    Ok(Some(leaf)) => {
                        model_unmap(&mut model, leaf.peek());
                        sealed.push(leaf);
                    }
                    Ok(None) => {
                        demand.remove(&gfn);
                        assert!(!model.contains_key(&gfn));
                    }
                    Err(error) => assert_eq!(error, Error::NoMemory),
                },
                Operation::UnmapRun(gfn, pages) => {
                    let mut leaves = Vec::new();
                    let result = edit.unmap(Gfn::new(gfn), Pages::new(pages), |leaf| leaves.push(leaf));
                    for leaf in &leaves {
                        model_unmap(&mut model, leaf.peek());
                    }
                    match result {
                        Ok(()) => {
                            demand.retain(|page| !(gfn..gfn + pages).contains(page));
                            assert!(model.range(gfn..gfn + pages).next().is_none());
                        }
                        Err(Error::NoMemory) => assert!(leaves.is_empty()),
                        Err(error) => {
                            assert_eq!(error, Error::OutOfRange);
                            assert!(!in_range(limit, gfn, pages) && leaves.is_empty());
                        }
                    }
                    sealed.extend(leaves);
                }
                Operation::Protect(gfn, pages, attributes) => {
                    match edit.protect(Gfn::new(gfn), Pages::new(pages), attributes) {
                        Ok(changed) => {
                            let mut expected = 0;
                            for (_, mapping) in model.range_mut(gfn..gfn + pages) {
                                expected += u64::from(mapping.1 != attributes);
                                mapping.1 = attributes;
                            }
                            assert_eq!(changed, Pages::new(expected));
                        }
                        Err(Error::NoMemory) => {}
                        Err(error) => {
                            assert_eq!(error, Error::OutOfRange);
                            assert!(!in_range(limit, gfn, pages));
                        }
                    }
                }
                Operation::Mark(gfn, pages) => {
                    let free =
                        in_range(limit, gfn, pages).then(|| model.range(gfn..gfn + pages).next().is_none());
                    match edit.mark_on_demand(Gfn::new(gfn), Pages::new(pages)) {
                        Ok(()) => {
                            assert_eq!(free, Some(true));
                            demand.extend(gfn..gfn + pages);
                        }
                        Err(Error::Mapped(_)) => assert_eq!(free, Some(false)),
                        Err(Error::OutOfRange) => assert_eq!(free, None),
                        Err(error) => {
                            // Marked from the start on, as far as there were tables.
                            assert_eq!((error, free), (Error::NoMemory, Some(true)));
                            demand.extend(
                                (gfn..gfn + pages).filter(|&g| edit.on_demand(Gfn::new(g)).is_some()),
                            );
                        }
                    }
                }
                Operation::Split(gfn, size) => match edit.split(Gfn::new(gfn), size) {
                    Ok(()) => {
                        if let Some(leaf) = edit.lookup(Gfn::new(gfn)) {
                            assert!(leaf.size() <= size);
                        }
                    }
                    Err(Error::NoMemory) => {}
                    Err(error) => {
                        assert_eq!(error, Error::OutOfRange);
                        assert!(gfn >= limit);
                    }
                },
                Operation::Merge(gfn) => {
                    if edit.merge(Gfn::new(gfn)) {
                        assert!(
                            edit.lookup(Gfn::new(gfn)).is_some_and(|leaf| leaf.size() > BlockSize::Page4K)
                        );
                    }
                }
                Operation::Watch(gfns) => {
                    let mut watched = Vec::new();
                    edit.watch(&gfns.map(Gfn::new), |gfn| watched.push(gfn));
                    for gfn in watched {
                        let leaf = edit.lookup(gfn).expect("what is watched is mapped");
                        assert!(!leaf.is_accessed() && leaf.size() == BlockSize::Page4K);
                        assert_eq!(leaf.page_type(), PageType::Ram);
                    }
                }
                Operation::Rejoin(gfns) => {
                    let gfns = gfns.map(Gfn::new);
                    for gfn in gfns {
                        let was = edit.lookup(gfn).map(|leaf| (leaf.page_type(), leaf.is_accessed()));
                        let ours = was.filter(|was| was.0 == PageType::Ram).map(|was| was.1);
                        assert_eq!(edit.accessed(gfn), ours);
                        assert!(edit.lookup(gfn).is_none_or(|leaf| leaf.is_accessed()));
                    }
                    edit.rejoin(&gfns);
                }
                Operation::LimitTables(count) => handle.limit_allocations(count),
                Operation::Finish => break,
            }
        }
        let flushed = edit.finish();
        compare(&tables, &machine, &model, &demand);
        check_tables_are_needed(&tables, &machine, &demand);
        for leaf in sealed {
            let _ = leaf.open(&flushed);
        }
    }
    machine.limit_allocations(None);
    machine.stop();
    let mut rounds = 0;
    loop {
        let mut released = Vec::new();
        let progress = tables.teardown(&mut machine, &mut tlb, &mut { 600 }, |leaf| released.push(leaf));
        for leaf in &released {
            model_unmap(&mut model, leaf);
        }
        rounds += 1;
        assert!(rounds < 10_000, "teardown makes no progress");
        if progress == Progress::Done {
            break;
        }
    }
    assert!(model.is_empty());
    assert!(tables.free(&mut machine).is_ok());
    assert_eq!(machine.tables(), 0, "a table leaked");
}

fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 96 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn batches_agree_with_a_flat_map_at_32_bits(operations in prop::collection::vec(operation(1 << 20), 1..60)) {
        run_operations(Geometry::new(32).unwrap(), operations);
    }

    #[test]
    fn batches_agree_with_a_flat_map_at_40_bits(operations in prop::collection::vec(operation(1 << 28), 1..60)) {
        run_operations(Geometry::new(40).unwrap(), operations);
    }

    #[test]
    fn batches_agree_with_a_flat_map_at_48_bits(operations in prop::collection::vec(operation(1 << 36), 1..60)) {
        run_operations(Geometry::new(48).unwrap(), operations);
    }
}
