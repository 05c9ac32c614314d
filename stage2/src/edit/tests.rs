//! What single batches cost and do, and that the strict machine sees what it is for.

use std::vec::Vec;

use crate::fake::Machine;
use crate::{
    Access, Attributes, BlockSize, Error, Geometry, Gfn, Ipa, Leaf, MemoryType, Mfn, Next, PageType, Pages,
    Progress, Statistics, TableMemory, Tables, Tlb,
};

const RAM: Attributes = Attributes::RAM;
const BLOCK: u64 = 512;

struct Fixture {
    memory: Machine,
    tlb: Machine,
    tables: Tables,
}

impl Fixture {
    fn new() -> Self {
        let geometry = Geometry::new(40).unwrap();
        let mut memory = Machine::new(geometry);
        let tables = Tables::new(geometry, &mut memory).unwrap();
        Self { tlb: memory.clone(), memory, tables }
    }

    /// One batch; returns what `change` returned and the invalidations it cost.
    fn batch<R>(&mut self, change: impl FnOnce(&mut crate::Edit<'_, Machine, Machine>) -> R) -> (R, u64) {
        let before = self.memory.invalidations();
        let mut edit = self.tables.edit(&mut self.memory, &mut self.tlb);
        let result = change(&mut edit);
        let _ = edit.finish();
        self.memory.assert_settled();
        (result, self.memory.invalidations() - before)
    }

    fn with_ram(pages: u64) -> Self {
        let mut fixture = Self::new();
        let (result, invalidations) =
            fixture.batch(|edit| edit.map(Gfn::ZERO, Mfn::new(0x80000), Pages::new(pages), RAM));
        assert_eq!((result, invalidations), (Ok(()), 0), "mapping what was empty owes the TLBs nothing");
        fixture
    }

    fn statistics(&self) -> Statistics {
        self.tables.statistics()
    }

    fn lookup(&self, gfn: u64) -> Option<Leaf> {
        self.tables.lookup_gfn(&self.memory, Gfn::new(gfn))
    }
}

fn unmap_pages(edit: &mut crate::Edit<'_, Machine, Machine>, gfns: impl IntoIterator<Item = u64>) -> u64 {
    gfns.into_iter().filter(|&gfn| edit.unmap_page(Gfn::new(gfn)).unwrap().is_some()).count() as u64
}

#[test]
fn a_range_is_mapped_with_the_largest_blocks() {
    let mut fixture = Fixture::new();
    let (gfn, pages) = (BLOCK * BLOCK - BLOCK - 3, BLOCK * BLOCK + 2 * BLOCK + 5);
    fixture
        .batch(|edit| edit.map(Gfn::new(gfn), Mfn::new(gfn + (1 << 20)), Pages::new(pages), RAM))
        .0
        .unwrap();
    let statistics = fixture.statistics();
    assert_eq!((statistics.blocks_1g, statistics.blocks_2m, statistics.pages_4k), (1, 2, 5));
    // Two tables of pages and the two of blocks above them.
    assert_eq!(statistics.tables, 4);
    let leaf = fixture.lookup(BLOCK * BLOCK + 70).unwrap();
    assert_eq!(leaf.size(), BlockSize::Block1G);
    assert_eq!(leaf.mfn_of(Gfn::new(BLOCK * BLOCK + 70)), Mfn::new(BLOCK * BLOCK + 70 + (1 << 20)));
    assert_eq!(leaf.pa_of(Ipa::new((BLOCK * BLOCK + 70) << 12 | 0x123)).page_offset(), 0x123);
}

#[test]
fn a_batch_of_pages_costs_one_invalidation() {
    let mut fixture = Fixture::new();
    // Pages that cannot be merged, so that giving them back splits nothing.
    let (_, invalidations) = fixture.batch(|edit| {
        (0..4 * BLOCK).for_each(|gfn| edit.map_page(Gfn::new(gfn), Mfn::new(0x90000 - gfn), RAM).unwrap());
    });
    assert_eq!(invalidations, 0);
    let operations = fixture.memory.operations();
    let (given, invalidations) = fixture.batch(|edit| unmap_pages(edit, 0..4 * BLOCK));
    assert_eq!((given, invalidations), (4 * BLOCK, 1));
    assert_eq!(fixture.memory.operations() - operations, 1, "many pages go by the whole VMID");
    assert_eq!(fixture.memory.tables(), 1, "only the root is left");
}

#[test]
fn few_pages_are_invalidated_by_ipa() {
    let mut fixture = Fixture::new();
    fixture
        .batch(|edit| (0..64).for_each(|gfn| edit.map_page(Gfn::new(gfn), Mfn::new(gfn * 3), RAM).unwrap()));
    let operations = fixture.memory.operations();
    fixture.batch(|edit| unmap_pages(edit, 10..15));
    assert_eq!(fixture.memory.operations() - operations, 5);
    fixture.batch(|edit| unmap_pages(edit, [20, 50]));
    assert_eq!(fixture.memory.operations() - operations, 6, "an envelope that is too wide goes by the VMID");
}

#[test]
fn a_block_is_given_back_by_one_entry_and_one_operation() {
    let mut fixture = Fixture::with_ram(4 * BLOCK);
    let operations = fixture.memory.operations();
    let (leaves, invalidations) = fixture.batch(|edit| {
        let mut leaves = Vec::new();
        edit.unmap(Gfn::new(BLOCK), BlockSize::Block2M.pages(), |leaf| leaves.push(*leaf.peek())).unwrap();
        leaves
    });
    assert_eq!(leaves.len(), 1);
    assert_eq!((leaves[0].size(), leaves[0].mfn()), (BlockSize::Block2M, Mfn::new(0x80000 + BLOCK)));
    assert_eq!((invalidations, fixture.memory.operations() - operations), (1, 1));
    assert_eq!(fixture.statistics().splits, 0);
}

#[test]
fn a_balloon_splits_and_merges_again() {
    let mut fixture = Fixture::with_ram(4 * BLOCK);
    let (given, invalidations) = fixture.batch(|edit| unmap_pages(edit, BLOCK + 5..3 * BLOCK));
    // Two blocks are split, each break paid for; the rest at the end.
    assert_eq!((given, invalidations), (2 * BLOCK - 5, 3));
    let statistics = fixture.statistics();
    assert_eq!((statistics.blocks_2m, statistics.pages_4k, statistics.splits), (2, 5, 2));
    fixture.batch(|edit| {
        for gfn in BLOCK + 5..3 * BLOCK {
            edit.map_page(Gfn::new(gfn), Mfn::new(0x80000 + gfn), RAM).unwrap();
        }
    });
    let statistics = fixture.statistics();
    assert_eq!((statistics.blocks_2m, statistics.pages_4k, statistics.merges), (4, 0, 2));
}

#[test]
fn blocks_merge_to_a_gigabyte_when_asked() {
    let mut fixture = Fixture::new();
    fixture.batch(|edit| {
        for block in 0..BLOCK {
            let (gfn, mfn) = (Gfn::new(block * BLOCK), Mfn::new((1 << 20) + block * BLOCK));
            edit.map_block(gfn, mfn, BlockSize::Block2M, RAM).unwrap();
        }
    });
    assert_eq!(fixture.statistics().blocks_2m, 512, "not by itself");
    assert!(fixture.batch(|edit| edit.merge(Gfn::new(12345))).0);
    assert_eq!(fixture.statistics().blocks_1g, 1);
    assert_eq!(fixture.memory.tables(), 1);
    // And one page out of it and back in.
    fixture.batch(|edit| unmap_pages(edit, [12345]));
    let statistics = fixture.statistics();
    assert_eq!((statistics.blocks_1g, statistics.blocks_2m, statistics.pages_4k), (0, 511, 511));
    fixture.batch(|edit| edit.map_page(Gfn::new(12345), Mfn::new((1 << 20) + 12345), RAM)).0.unwrap();
    assert_eq!(fixture.statistics().blocks_2m, 512);
    assert!(fixture.batch(|edit| edit.merge(Gfn::new(12345))).0);
    assert_eq!(fixture.statistics().blocks_1g, 1);
}

#[test]
fn a_frame_mapped_again_in_its_batch_is_invalidated_first() {
    let mut fixture = Fixture::with_ram(3);
    let (_, invalidations) = fixture.batch(|edit| {
        for gfn in 0..3 {
            let _ = edit.unmap_page(Gfn::new(gfn)).unwrap();
        }
        edit.map_page(Gfn::new(1), Mfn::new(0x1234), RAM).unwrap();
        edit.map_page(Gfn::new(2), Mfn::new(0x1235), RAM).unwrap();
    });
    assert_eq!(invalidations, 1, "the first mapping paid for both");
}

/// Regression: the walk for the block's frame ended in a hole of the table below, and the hole was taken for the
/// block's entry.
#[test]
fn a_block_does_not_replace_a_table() {
    let mut fixture = Fixture::new();
    fixture.batch(|edit| edit.map_page(Gfn::new(1), Mfn::new(7), RAM)).0.unwrap();
    let (result, _) = fixture.batch(|edit| edit.map_block(Gfn::ZERO, Mfn::ZERO, BlockSize::Block2M, RAM));
    assert_eq!(result, Err(Error::Mapped(Gfn::ZERO)));
    assert!(!fixture.tables.is_vacant(&fixture.memory, Gfn::ZERO, BlockSize::Block2M));
    assert!(fixture.tables.is_vacant(&fixture.memory, Gfn::new(BLOCK), BlockSize::Block2M));
    assert!(!fixture.tables.is_vacant(&fixture.memory, Gfn::new(BLOCK), BlockSize::Block1G));
    assert_eq!(fixture.lookup(1).unwrap().mfn(), Mfn::new(7));
}

#[test]
fn a_refused_map_changes_nothing() {
    let mut fixture = Fixture::with_ram(BLOCK);
    let before = (fixture.statistics().mapped(), fixture.memory.tables());
    let far = Gfn::new(5 * BLOCK * BLOCK - 7);
    for allocations in 0..4 {
        fixture.memory.limit_allocations(Some(allocations));
        let (result, _) = fixture.batch(|edit| edit.map(far, Mfn::new(3), Pages::new(3 * BLOCK), RAM));
        assert_eq!(result, Err(Error::NoMemory), "{allocations} allocations");
        assert_eq!((fixture.statistics().mapped(), fixture.memory.tables()), before);
    }
    fixture.memory.limit_allocations(Some(0));
    let (result, _) = fixture.batch(|edit| edit.unmap_page(Gfn::new(9)).map(|leaf| leaf.is_some()));
    assert_eq!(result, Err(Error::NoMemory), "a split needs a table");
    assert_eq!(fixture.statistics().blocks_2m, 1);
    fixture.memory.limit_allocations(None);
    fixture
        .batch(|edit| edit.map(Gfn::new(BLOCK), Mfn::new(0x80000 + BLOCK), Pages::new(BLOCK), RAM))
        .0
        .unwrap();
    fixture.memory.limit_allocations(Some(1));
    let mut unmapped = 0;
    let (result, _) = fixture.batch(|edit| edit.unmap(Gfn::new(3), Pages::new(BLOCK), |_| unmapped += 1));
    assert_eq!((result, unmapped), (Err(Error::NoMemory), 0), "the second of two splits failed");
    assert_eq!(fixture.statistics().blocks_2m, 2, "the first was undone");
    fixture.memory.limit_allocations(None);
    let limit = fixture.tables.geometry().gfn_limit();
    for (gfn, mfn, pages) in [
        (limit, Mfn::ZERO, 1),
        (Gfn::ZERO, Mfn::new(1 << 36), 1),
        (Gfn::new(u64::MAX), Mfn::ZERO, 2),
        (Gfn::ZERO, Mfn::new(u64::MAX), u64::MAX),
        (Gfn::new(BLOCK), Mfn::new((1 << 36) - 1), 2),
        (Gfn::new(limit.raw() - 1), Mfn::ZERO, 2),
    ] {
        let (result, _) = fixture.batch(|edit| edit.map(gfn, mfn, Pages::new(pages), RAM));
        assert_eq!(result, Err(Error::OutOfRange), "{gfn} {mfn} {pages}");
    }
    let (result, _) = fixture.batch(|edit| edit.map_page(Gfn::new(u64::MAX), Mfn::ZERO, RAM));
    assert_eq!(result, Err(Error::OutOfRange));
    let (result, _) = fixture.batch(|edit| edit.unmap_page(Gfn::new(u64::MAX)).map(|leaf| leaf.is_some()));
    assert_eq!(result, Ok(false));
    assert_eq!(fixture.lookup(u64::MAX), None);
}

#[test]
fn access_changes_in_place_and_memory_type_through_a_break() {
    let mut fixture = Fixture::with_ram(2 * BLOCK);
    let read_only = RAM.with_access(Access::R);
    let (changed, invalidations) = fixture.batch(|edit| edit.protect(Gfn::new(3), Pages::new(2), read_only));
    // The split, and the change.
    assert_eq!((changed, invalidations), (Ok(Pages::new(2)), 2));
    assert_eq!(fixture.lookup(4).unwrap().attributes(), read_only);
    assert!(fixture.lookup(5).unwrap().attributes().is_writable());
    // The type alone is nothing the TLBs hold.
    let foreign = read_only.with_page_type(PageType::Foreign);
    let (_, invalidations) = fixture.batch(|edit| edit.protect(Gfn::new(3), Pages::new(2), foreign).unwrap());
    assert_eq!(invalidations, 0);
    assert_eq!(fixture.lookup(3).unwrap().page_type(), PageType::Foreign);
    // Another memory type: all broken, one invalidation, all made.
    let uncached = Attributes::new(Access::RW, MemoryType::NormalNc, PageType::Ram);
    let (_, invalidations) =
        fixture.batch(|edit| edit.protect(Gfn::ZERO, Pages::new(BLOCK), uncached).unwrap());
    // And the page table, all alike again, became a block: a second break.
    assert_eq!(invalidations, 2);
    assert_eq!(fixture.lookup(BLOCK - 1).unwrap().attributes(), uncached);
    assert_eq!(fixture.statistics().blocks_2m, 2);
}

#[test]
fn iteration_stops_at_its_budget_and_goes_on() {
    let mut fixture = Fixture::with_ram(2 * BLOCK + 3);
    fixture.batch(|edit| edit.map_page(Gfn::new(70 * BLOCK * BLOCK + 9), Mfn::new(1), RAM)).0.unwrap();
    let all: Vec<Leaf> = fixture.tables.leaves(&fixture.memory, Gfn::ZERO, Gfn::new(u64::MAX)).collect();
    assert_eq!(all.len(), 6);
    for budget in [1, 2, 7, 600] {
        let (mut from, mut found, mut preempted) = (Gfn::ZERO, Vec::new(), 0);
        loop {
            let mut left = budget;
            match fixture.tables.next_leaf(&fixture.memory, from, Gfn::new(u64::MAX), &mut left) {
                Next::Leaf(leaf) => {
                    found.push(leaf);
                    from = leaf.end();
                }
                Next::Preempted(gfn) => {
                    assert!(gfn > from && left == 0);
                    from = gfn;
                    preempted += 1;
                }
                Next::End => break,
            }
        }
        assert_eq!(found, all);
        assert!(preempted > 0);
    }
}

#[test]
fn teardown_is_preemptible_and_leaves_nothing() {
    let mut fixture = Fixture::with_ram(3 * BLOCK + 100);
    fixture.memory.stop();
    let (mut released, mut rounds) = (Pages::ZERO, 0);
    loop {
        let (memory, tlb) = (&mut fixture.memory, &mut fixture.tlb);
        let progress = fixture.tables.teardown(memory, tlb, &mut { 10 }, |leaf| {
            released = released.saturating_add(leaf.size().pages());
        });
        rounds += 1;
        if progress == Progress::Done {
            break;
        }
    }
    assert_eq!(released, Pages::new(3 * BLOCK + 100));
    assert!((10..200).contains(&rounds), "{rounds} rounds");
    assert_eq!(fixture.memory.invalidations(), 1);
    assert!(fixture.tables.free(&mut fixture.memory).is_ok());
    assert_eq!(fixture.memory.tables(), 0);
}

#[test]
fn draining_from_within_a_block_takes_the_block() {
    let mut fixture = Fixture::with_ram(2 * BLOCK);
    let (taken, _) = fixture.batch(|edit| {
        let mut taken = Vec::new();
        assert_eq!(
            edit.drain(Gfn::new(7), &mut { 1 }, |leaf| taken.push(*leaf.peek())),
            Some(Gfn::new(BLOCK))
        );
        taken
    });
    assert_eq!((taken.len(), taken[0].gfn(), taken[0].size()), (1, Gfn::ZERO, BlockSize::Block2M));
    assert_eq!(fixture.statistics().mapped(), Pages::new(BLOCK));
}

#[test]
fn tables_in_use_are_not_freed() {
    let mut fixture = Fixture::with_ram(1);
    assert!(fixture.tables.free(&mut fixture.memory).is_err());
}

/// A machine with a root that maps one block, for breaking rules by hand.
fn raw_machine() -> (Machine, crate::Pa) {
    let mut machine = Machine::new(Geometry::new(39).unwrap());
    let root = machine.allocate(0).unwrap();
    machine.write(root, 0, block(0x4000_0000));
    machine.publish();
    (machine, root)
}

fn block(pa: u64) -> u64 {
    crate::descriptor::Descriptor::leaf(crate::Pa::new(pa).mfn(), BlockSize::Block1G, RAM).raw()
}

#[test]
#[should_panic(expected = "break-before-make")]
fn the_machine_sees_a_leaf_replaced() {
    let (mut machine, root) = raw_machine();
    machine.write(root, 0, block(0x8000_0000));
}

#[test]
#[should_panic(expected = "break-before-make")]
fn the_machine_sees_a_make_without_invalidation() {
    let (mut machine, root) = raw_machine();
    machine.write(root, 0, 0);
    machine.publish();
    machine.write(root, 0, block(0x8000_0000));
}

#[test]
#[should_panic(expected = "an invalidation before")]
fn the_machine_sees_an_invalidation_before_publication() {
    let (mut machine, root) = raw_machine();
    machine.write(root, 0, 0);
    machine.invalidate_all();
}

#[test]
#[should_panic(expected = "the TLB holds a leaf")]
fn the_machine_sees_a_stale_leaf() {
    let (mut machine, root) = raw_machine();
    machine.write(root, 0, 0);
    machine.publish();
    machine.invalidate_range(Ipa::new(1 << 30), Pages::ONE, BlockSize::Page4K);
    machine.assert_settled();
}

#[test]
#[should_panic(expected = "before its content was published")]
fn the_machine_sees_a_link_too_early() {
    let (mut machine, root) = raw_machine();
    let table = machine.allocate(0).unwrap();
    machine.write(root, 1, crate::descriptor::Descriptor::table(table, 0).raw());
}

#[test]
#[should_panic(expected = "freed while cached")]
fn the_machine_sees_a_table_freed_too_early() {
    let (mut machine, root) = raw_machine();
    let table = machine.allocate(0).unwrap();
    machine.publish();
    machine.write(root, 1, crate::descriptor::Descriptor::table(table, 0).raw());
    machine.write(root, 1, 0);
    machine.free(table, 0);
}

#[test]
fn merging_here_does_not_count_what_leaving_elsewhere_merged() {
    let mut fixture = Fixture::new();
    let base = 3 * BLOCK;
    let (merged, _) = fixture.batch(|edit| {
        // All of a block but its first page, then that page: the batch merges when it leaves the table.
        edit.map(Gfn::new(base + 1), Mfn::new(0x80001), Pages::new(BLOCK - 1), RAM).unwrap();
        edit.map_page(Gfn::new(base), Mfn::new(0x80000), RAM).unwrap();
        edit.merge(Gfn::ZERO)
    });
    assert!(!merged, "nothing is mapped at 0");
    assert_eq!(fixture.lookup(base).map(|leaf| leaf.size()), Some(BlockSize::Block2M));
}

#[test]
fn a_gigabyte_on_demand_is_one_entry_and_owes_the_tlbs_nothing() {
    let mut fixture = Fixture::new();
    let giga = BLOCK * BLOCK;
    let (marked, invalidations) =
        fixture.batch(|edit| edit.mark_on_demand(Gfn::new(giga), Pages::new(3 * giga + BLOCK + 1)));
    assert_eq!((marked, invalidations), (Ok(()), 0));
    assert_eq!(fixture.statistics().on_demand, 3 * giga + BLOCK + 1);
    assert_eq!(fixture.memory.tables(), 3, "tables only for what is less than a gigabyte");
    assert!(fixture.lookup(giga).is_none(), "hardware has nothing there");

    // The first touch: a block in the first gigabyte, a page in the second.
    let (touched, invalidations) = fixture.batch(|edit| {
        assert_eq!(edit.on_demand(Gfn::new(giga + 7)), Some(BlockSize::Block1G));
        edit.map_block(Gfn::new(giga), Mfn::new(0x80000), BlockSize::Block2M, RAM)?;
        edit.map_page(Gfn::new(2 * giga + 5), Mfn::new(0x91111), RAM)
    });
    assert_eq!((touched, invalidations), (Ok(()), 0));
    assert_eq!(fixture.statistics().on_demand, 3 * giga);
    assert_eq!(fixture.tables.on_demand(&fixture.memory, Gfn::new(2 * giga + 6)), Some(BlockSize::Page4K));
    assert_eq!(fixture.tables.on_demand(&fixture.memory, Gfn::new(giga + BLOCK)), Some(BlockSize::Block2M));

    // What is given up untouched leaves a hole and frees tables.
    let (_, invalidations) = fixture.batch(|edit| {
        assert_eq!(unmap_pages(edit, [2 * giga + 6, 3 * giga]), 0);
        edit.unmap(Gfn::new(giga), Pages::new(4 * giga), |_| {}).unwrap();
    });
    assert_eq!(invalidations, 1, "of what was touched");
    assert_eq!((fixture.statistics().on_demand, fixture.memory.tables()), (0, 1));
}

#[test]
fn pages_on_demand_between_others_keep_a_table_from_a_merge() {
    let mut fixture = Fixture::new();
    fixture.batch(|edit| edit.mark_on_demand(Gfn::ZERO, Pages::new(BLOCK))).0.unwrap();
    for gfn in 0..BLOCK {
        assert_eq!(fixture.statistics().merges, 0);
        fixture.batch(|edit| edit.map_page(Gfn::new(gfn), Mfn::new(0x80000 + gfn), RAM)).0.unwrap();
    }
    let statistics = fixture.statistics();
    assert_eq!((statistics.merges, statistics.blocks_2m, statistics.on_demand), (1, 1, 0));
    assert_eq!(
        fixture.batch(|edit| edit.mark_on_demand(Gfn::ZERO, Pages::new(BLOCK))).0,
        Err(Error::Mapped(Gfn::ZERO))
    );
}
