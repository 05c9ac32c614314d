//! Who owns what is mapped, unmapped, replaced and given back.

use proptest::prelude::*;
use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use stage2::{Attributes, Gfn, Mfn, PageType, Pages, Progress};
use std::collections::BTreeMap;

use crate::arch::Access;
use crate::arch::phys::instruction_invalidations;
use crate::arch::tlb::take_invalidations;
use crate::domain;
use crate::mm::memory;
use crate::mm::page::PageRef;
use crate::mm::testing::{RAM, guest, machine};

fn gfn(raw: u64) -> Gfn {
    Gfn::new(raw)
}

#[test]
fn memory_given_back_is_free_again_and_flushed_before() {
    machine(16);
    let guest = guest(1, 1000);
    let tables = memory().free_count();
    for page in 0..10 {
        guest.populate(0x1000 + page, 0);
    }
    take_invalidations();
    let instructions = instruction_invalidations();
    let p2m = &guest.domain.p2m;
    let given = p2m.edit(|batch| {
        let given = (0..10).try_for_each(|page| batch.give_page(gfn(0x1000 + page)));
        assert!(memory().free_count() < tables.saturating_sub(Pages::new(9)), "freed before the flush");
        given
    });
    assert_eq!(given, Ok(()));
    assert_eq!(take_invalidations().len(), 1, "one invalidation for the batch");
    assert_eq!(instruction_invalidations(), instructions + 1, "and one of instructions");
    assert_eq!(memory().free_count(), tables, "pages and the tables they needed");
    assert_eq!(guest.domain.pages.current(), Pages::ZERO);
    assert_eq!(p2m.highest(), gfn(0x1009));
    assert_eq!(p2m.edit(|batch| batch.give_page(gfn(0x1000))), Err(Errno::EINVAL), "nothing there");
    assert_eq!(instruction_invalidations(), instructions + 1, "nothing was given");
}

#[test]
fn a_block_is_mapped_given_and_freed_whole() {
    machine(16);
    let guest = guest(1, 2000);
    let free = memory().free_count();
    guest.populate(0x400, 9);
    assert_eq!(guest.domain.p2m.statistics().blocks_2m, 1);
    assert_eq!(guest.domain.p2m.edit(|batch| batch.give(gfn(0x400), 9)), Ok(()));
    assert_eq!(memory().free_count(), free);
    // Given by pages in between, the rest goes too, and the block is whole again in the allocator.
    guest.populate(0x400, 9);
    let largest = memory().largest_free_order();
    assert_eq!(guest.domain.p2m.edit(|batch| batch.give_page(gfn(0x4ff))), Ok(()));
    assert_eq!(guest.domain.p2m.statistics().pages_4k, 511);
    assert_eq!(guest.domain.pages.current(), Pages::new(511));
    assert_eq!(
        guest.domain.p2m.edit(|batch| batch.give(gfn(0x400), 9)),
        Err(Errno::EINVAL),
        "there is a hole"
    );
    assert_eq!(guest.domain.pages.current(), Pages::new(256), "those before the hole went, as on Xen");
    assert_eq!(guest.domain.p2m.edit(|batch| batch.give(gfn(0x500), 8)), Ok(()));
    assert_eq!(memory().free_count(), free);
    assert!(memory().largest_free_order() >= largest);
}

#[test]
fn an_extent_of_a_larger_block_is_given_by_blocks() {
    machine(64);
    let guest = guest(1, 20_000);
    let free = memory().free_count();
    for block in 0..16 {
        guest.populate(block << 9, 9);
    }
    let p2m = &guest.domain.p2m;
    assert_eq!(p2m.edit(|batch| batch.give(gfn(0x400), 11)), Ok(()), "four blocks at once");
    assert_eq!((p2m.statistics().blocks_2m, p2m.statistics().splits), (12, 0));
    assert_eq!(p2m.edit(|batch| batch.give(gfn(0x1008), 3)), Ok(()), "a part of one");
    assert_eq!((p2m.statistics().blocks_2m, p2m.statistics().pages_4k), (11, 504));
    assert_eq!(guest.domain.pages.current(), Pages::new(12 * 512 - 8));
    assert_eq!(p2m.edit(|batch| batch.give(gfn(0x1000), 3)), Ok(()));
    assert_eq!(p2m.edit(|batch| batch.give(gfn(0), 10)), Ok(()));
    drop(guest);
    assert!(memory().free_count() > free);
}

#[test]
fn a_page_that_another_uses_stays_until_he_is_done() {
    machine(16);
    let (owner, user) = (guest(101, 10), guest(102, 10));
    domain::insert(owner.domain.clone());
    owner.populate(5, 0);
    let (page, writable) = owner.domain.p2m.get_ram(gfn(5)).unwrap();
    assert!(writable);
    page.write_u32(0, 77);
    user.domain.p2m.map_foreign(gfn(9), page, true).unwrap();
    let free = memory().free_count();
    owner.domain.p2m.edit(|batch| batch.give_page(gfn(5))).unwrap();
    // The table went, the page did not: it still counts.
    assert_eq!(owner.domain.pages.current(), Pages::ONE);
    assert_eq!(user.domain.p2m.get_page(gfn(9), Access::Read).unwrap().read_u32(0), 77);
    assert!(owner.domain.p2m.get_ram(gfn(5)).is_err());
    assert_eq!(user.domain.p2m.edit(|batch| batch.give_page(gfn(9))), Err(Errno::ENXIO), "not his to give");
    user.domain.p2m.unmap(gfn(9)).unwrap();
    assert_eq!(owner.domain.pages.current(), Pages::ZERO);
    assert!(memory().free_count() > free);
    domain::remove(owner.domain.id);
}

#[test]
fn a_block_of_which_one_page_is_used_frees_the_others() {
    machine(16);
    let owner = guest(103, 1000);
    domain::insert(owner.domain.clone());
    owner.populate(0x200, 9);
    let (page, _) = owner.domain.p2m.get_ram(gfn(0x2aa)).unwrap();
    let free = memory().free_count();
    owner.domain.p2m.edit(|batch| batch.give(gfn(0x200), 9)).unwrap();
    assert_eq!(owner.domain.pages.current(), Pages::ONE);
    assert_eq!(memory().free_count(), free.saturating_add(Pages::new(511 + 1)), "the others, and a table");
    drop(page);
    assert_eq!(owner.domain.pages.current(), Pages::ZERO);
    domain::remove(owner.domain.id);
}

#[test]
fn a_direct_mapped_domain_keeps_its_frames() {
    machine(16);
    let dom0 = guest(0, 1000);
    let mfn = dom0.populate(0, 4);
    let p2m = &dom0.domain.p2m;
    assert_eq!(p2m.edit(|batch| batch.give_page(gfn(mfn.raw()))), Ok(()));
    assert_eq!((dom0.mfn(mfn.raw()), dom0.domain.pages.current()), (None, Pages::new(16)));
    assert_eq!(p2m.edit(|batch| batch.map_own(gfn(mfn.raw()), mfn, Pages::ONE)), Ok(()));
    assert_eq!(dom0.mfn(mfn.raw()), Some(mfn));
    // Again where it is: nothing is lost.
    assert_eq!(p2m.edit(|batch| batch.map_own(gfn(mfn.raw()), mfn, Pages::new(16))), Ok(()));
    assert_eq!(dom0.domain.pages.current(), Pages::new(16));
    let free = memory().allocate(0).unwrap();
    assert_eq!(
        p2m.edit(|batch| batch.map_own(gfn(1), free.mfn(), Pages::ONE)),
        Err(Errno::EINVAL),
        "not its own"
    );
}

#[test]
fn what_is_replaced_goes_its_way() {
    machine(16);
    let (guest, other) = (guest(1, 100), guest(2, 100));
    let first = guest.populate(7, 0);
    let second = guest.populate(7, 0);
    assert_ne!(first, second);
    assert_eq!((guest.mfn(7), guest.domain.pages.current()), (Some(second), Pages::ONE));
    let lent = other.populate(3, 0);
    let (page, _) = other.domain.p2m.get_ram(gfn(3)).unwrap();
    guest.domain.p2m.map_grant(gfn(7), page, false).unwrap();
    assert_eq!((guest.mfn(7), guest.domain.pages.current()), (Some(lent), Pages::ZERO));
    assert!(guest.can(7, Access::Read) && !guest.can(7, Access::Write));
    assert!(guest.domain.p2m.get_ram(gfn(7)).is_err(), "what is lent cannot be lent on");
    assert!(!guest.domain.p2m.allows_execution(gfn(7)));
    assert_eq!(guest.domain.p2m.unmap_grant(gfn(7), second, true), Err(Errno::EINVAL), "another page");
    assert_eq!(guest.domain.p2m.unmap_grant(gfn(7), lent, false), Ok(()));
    other.domain.p2m.edit(|batch| batch.give_page(gfn(3))).unwrap();
    assert_eq!(other.domain.pages.current(), Pages::ZERO, "the grant's reference is gone");
}

#[test]
fn a_shared_page_is_shown_at_one_place() {
    machine(16);
    let guest = guest(1, 100);
    let free = memory().free_count();
    let page = PageRef::allocate_shared(DomId::new(1)).unwrap();
    let p2m = &guest.domain.p2m;
    p2m.map_shared(gfn(0x38000), &page).unwrap();
    assert_eq!(p2m.map_shared(gfn(0x38001), &page), Err(Errno::EBUSY));
    // A privileged domain's mapping is another matter, and its end does not make the page homeless.
    let dom0 = guest_zero();
    let (again, _) = p2m.get_ram_or_shared(gfn(0x38000)).unwrap();
    dom0.domain.p2m.map_foreign(gfn(0x77), again, true).unwrap();
    dom0.domain.p2m.unmap(gfn(0x77)).unwrap();
    assert_eq!(p2m.map_shared(gfn(0x38001), &page), Err(Errno::EBUSY));
    assert_eq!(p2m.edit(|batch| batch.give_page(gfn(0x38000))), Ok(()), "only unmaps it");
    p2m.map_shared(gfn(0x38001), &page).unwrap();
    p2m.unmap(gfn(0x38001)).unwrap();
    assert_eq!(p2m.unmap(gfn(0x38001)), Err(Errno::ENOENT));
    drop(page);
    drop(dom0);
    assert_eq!(memory().free_count(), free);
}

fn guest_zero() -> crate::mm::testing::Guest {
    guest(0, 100)
}

#[test]
fn a_device_is_nobodys_memory() {
    machine(16);
    let guest = guest(1, 100);
    let p2m = &guest.domain.p2m;
    let uart = Mfn::new(0x9000);
    assert_eq!(p2m.edit(|batch| batch.map_device(gfn(0x9000), uart, Pages::ONE, Attributes::MMIO)), Ok(()));
    let pages = [RAM.mfn(), p2m.root().mfn(), guest.populate(1, 0), Mfn::new(memory().end().raw() - 1)];
    for mfn in pages {
        let refused = p2m.edit(|batch| batch.map_device(gfn(0x9001), mfn, Pages::ONE, Attributes::MMIO));
        assert_eq!(refused, Err(Errno::EPERM), "{mfn}");
    }
    let across = Mfn::new(RAM.mfn().raw() - 1);
    let refused = p2m.edit(|batch| batch.map_device(gfn(0x9001), across, Pages::new(2), Attributes::MMIO));
    assert_eq!(refused, Err(Errno::EPERM));
    assert_eq!(p2m.get_page(gfn(0x9000), Access::Read).err(), Some(Errno::EINVAL));
    assert_eq!(p2m.edit(|batch| batch.give_page(gfn(0x9000))), Err(Errno::EINVAL));
    assert_eq!(p2m.lookup(gfn(0x9000)), Some((uart, PageType::Mmio)));
}

#[test]
fn tables_have_a_limit() {
    machine(16);
    let guest = guest(1, 1000);
    let p2m = &guest.domain.p2m;
    let (used, _) = p2m.table_pages();
    p2m.set_table_limit(used.saturating_add(Pages::new(2)));
    let free = memory().free_count();
    let block = |order| memory().allocate(order).unwrap().clear();
    assert_eq!(p2m.edit(|batch| batch.populate(gfn(0), block(0))), Ok(()));
    assert_eq!(p2m.edit(|batch| batch.populate(gfn(1 << 18), block(0))), Err(Errno::ENOMEM));
    assert_eq!(
        memory().free_count().get(),
        free.get() - 3,
        "a page and two tables, and nothing of what failed"
    );
    assert_eq!(p2m.edit(|batch| batch.populate(gfn(1 << 40), block(0))), Err(Errno::EINVAL));
}

#[test]
fn a_batch_takes_more_references_than_it_can_note_in_turns() {
    machine(16);
    let (owner, user) = (guest(1, 200), guest(2, 200));
    for page in 0..100 {
        owner.populate(page, 0);
        let (page_ref, _) = owner.domain.p2m.get_ram(gfn(page)).unwrap();
        user.domain.p2m.map_foreign(gfn(page), page_ref, true).unwrap();
    }
    let unmapped =
        user.domain.p2m.edit(|batch| (0..100).take_while(|&page| batch.unmap(gfn(page)).is_ok()).count());
    assert_eq!(unmapped, 64);
    assert_eq!(user.domain.p2m.edit(|batch| batch.unmap(gfn(64))), Ok(()));
}

#[test]
fn teardown_gives_everything_back_in_turns() {
    machine(16);
    let free = memory().free_count();
    let other = guest(2, 100);
    other.populate(1, 0);
    let with_other = memory().free_count();
    let guest = guest(1, 2000);
    guest.populate(0x400, 9);
    guest.populate(3, 0);
    let shared = PageRef::allocate_shared(DomId::new(1)).unwrap();
    guest.domain.p2m.map_shared(gfn(4), &shared).unwrap();
    let (lent, _) = other.domain.p2m.get_ram(gfn(1)).unwrap();
    guest.domain.p2m.map_foreign(gfn(5), lent, true).unwrap();
    drop(shared);
    // Memory that is in no p2m.
    guest.domain.pages.charge(Pages::new(4)).unwrap();
    guest.domain.p2m.add_unmapped(memory().allocate(2).unwrap().clear()).unwrap();
    let instructions = instruction_invalidations();
    let mut turns = 0;
    while guest.domain.p2m.teardown(&mut 100) == Progress::Preempted {
        turns += 1;
    }
    assert!(turns > 2);
    assert_eq!(instruction_invalidations(), instructions + 1, "one for all turns");
    assert_eq!(guest.domain.pages.current(), Pages::ZERO);
    drop(guest);
    assert_eq!(memory().free_count(), with_other);
    drop(other);
    assert_eq!(memory().free_count(), free);
}

#[derive(Clone, Debug)]
enum Step {
    Populate(u64, u32),
    Give(u64, u32),
    Unmap(u64),
    MapForeign(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![3 => Just(0u32), 1 => Just(9), 1 => 1u32..4];
    let extent = (0u64..2048, order).prop_map(|(gfn, order)| (gfn >> order << order, order));
    prop_oneof![
        extent.clone().prop_map(|(gfn, order)| Step::Populate(gfn, order)),
        extent.prop_map(|(gfn, order)| Step::Give(gfn, order)),
        (0u64..2048).prop_map(Step::Unmap),
        (0u64..2048, 0u64..8).prop_map(|(gfn, theirs)| Step::MapForeign(gfn, theirs)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any steps the p2m maps what a flat map says, no frame twice as the domain's own, the account counts
    /// every frame that is the domain's, and in the end all memory is back.
    #[test]
    fn ownership_is_exact(steps in proptest::collection::vec(step(), 1..60)) {
        machine(32);
        let free = memory().free_count();
        let (owner, user) = (guest(2, 100), guest(1, 4096));
        let theirs: Vec<Mfn> = (0..8).map(|page| owner.populate(page, 0)).collect();
        // What is mapped: the machine frame, and whether it is the domain's own.
        let mut model: BTreeMap<u64, (Mfn, bool)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Populate(at, order) => {
                    let pages = 1u64 << order;
                    let Some(block) = memory().allocate(order) else { continue };
                    let foreign = model.range(at..at + pages).filter(|(_, (_, own))| !own).count();
                    prop_assume!(foreign <= 64);
                    let block = block.clear();
                    let mfn = block.mfn();
                    if user.domain.pages.charge(Pages::new(pages)).is_err() {
                        continue;
                    }
                    prop_assert_eq!(user.domain.p2m.edit(|batch| batch.populate(gfn(at), block)), Ok(()));
                    for page in 0..pages {
                        model.insert(at + page, (mfn.wrapping_add(Pages::new(page)), true));
                    }
                }
                Step::Give(at, order) => {
                    let result = user.domain.p2m.edit(|batch| batch.give(gfn(at), order));
                    let mut all = true;
                    for page in at..at + (1 << order) {
                        match model.get(&page) {
                            Some((_, true)) => { model.remove(&page); }
                            _ => { all = false; break; }
                        }
                    }
                    prop_assert_eq!(result.is_ok(), all);
                }
                Step::Unmap(at) => {
                    let result = user.domain.p2m.unmap(gfn(at));
                    prop_assert_eq!(result.is_ok(), model.contains_key(&at));
                    model.remove(&at);
                }
                Step::MapForeign(at, index) => {
                    let (page, _) = owner.domain.p2m.get_ram(gfn(index)).unwrap();
                    prop_assert_eq!(user.domain.p2m.map_foreign(gfn(at), page, true), Ok(()));
                    model.insert(at, (theirs[index as usize], false));
                }
            }
            let mut own: Vec<_> = Vec::new();
            for at in 0..2048 + 512 {
                let expected = model.get(&at).copied();
                let page_type = |own| if own { PageType::Ram } else { PageType::Foreign };
                prop_assert_eq!(user.domain.p2m.lookup(gfn(at)), expected.map(|(mfn, own)| (mfn, page_type(own))));
                if let Some((mfn, true)) = expected {
                    own.push(mfn);
                }
            }
            let count = own.len();
            own.sort_unstable();
            own.dedup();
            prop_assert_eq!(own.len(), count, "a frame is mapped twice");
            prop_assert_eq!(user.domain.pages.current().get(), count as u64);
        }
        while user.domain.p2m.teardown(&mut 1000) == Progress::Preempted {}
        prop_assert_eq!(user.domain.pages.current(), Pages::ZERO);
        drop(user);
        drop(owner);
        prop_assert_eq!(memory().free_count(), free);
    }
}
