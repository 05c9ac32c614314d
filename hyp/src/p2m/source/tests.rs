//! Memory on demand: what is promised, what a touch gets, and what giving back costs.

use proptest::prelude::*;
use pv_abi::errno::Errno;
use stage2::{BlockSize, Gfn, Pages, Progress};

use super::out_of_budget;
use crate::mm::memory;
use crate::mm::testing::{Guest, guest, machine};

const BLOCK: u64 = 512;

fn gfn(raw: u64) -> Gfn {
    Gfn::new(raw)
}

/// A guest that may have `maximum` pages, is promised `target`, and sees `seen` from frame 0 on.
fn promised(maximum: u64, target: u64, seen: u64) -> Guest {
    let guest = guest(1, maximum);
    guest.domain.p2m.edit(|batch| batch.mark_on_demand(gfn(0), Pages::new(seen))).unwrap();
    guest.domain.p2m.set_target(Pages::new(target)).unwrap();
    guest
}

fn give(guest: &Guest, at: u64, order: u32) -> Result<(), Errno> {
    guest.domain.p2m.edit(|batch| batch.give(gfn(at), order))
}

fn outstanding(guest: &Guest) -> u64 {
    guest.domain.p2m.statistics().on_demand
}

#[test]
fn a_target_is_promised_before_it_is_backed() {
    machine(64);
    let (free, available) = (memory().free_count(), memory().available());
    let guest = promised(4096, 2048, 8192);
    let account = &guest.domain.pages;
    assert_eq!((account.current(), account.reserved()), (Pages::new(2048), Pages::new(2048)));
    let tables = guest.domain.p2m.table_pages().0.get();
    assert_eq!(memory().available(), available.saturating_sub(Pages::new(2048 + tables)));
    assert_eq!(guest.domain.p2m.set_target(Pages::new(4097)), Err(Errno::EINVAL), "beyond the maximum");
    guest.domain.p2m.set_maximum(Pages::new(1 << 20));
    assert_eq!(
        guest.domain.p2m.set_target(Pages::new(1 << 20)),
        Err(Errno::ENOMEM),
        "beyond the host's memory"
    );
    assert_eq!(account.target(), Pages::new(2048));
    let (other, left) = (crate::mm::testing::guest(2, 1 << 20), memory().available());
    let all = left.saturating_add(Pages::ONE);
    assert_eq!(other.domain.pages.claim(all), Err(Errno::ENOMEM), "what is promised is nobody else's");
    drop(guest);
    drop(other);
    assert_eq!((memory().free_count(), memory().available()), (free, available));
}

#[test]
fn the_first_touch_gets_a_block_while_there_is_plenty_and_a_page_when_there_is_not() {
    machine(64);
    let guest = promised(2048, 2048, 8192);
    let p2m = &guest.domain.p2m;
    assert!(p2m.lookup(gfn(700)).is_none());
    assert_eq!(p2m.back(gfn(700)), Ok(true));
    assert_eq!(p2m.leaf(gfn(513)).unwrap().size(), BlockSize::Block2M);
    assert_eq!(p2m.back(gfn(700)), Ok(false), "it is there now");
    assert_eq!(p2m.back(gfn(8192)), Ok(false), "it was never the guest's");
    // An eighth is kept for single pages.
    let touched = (2..8).map(|block| p2m.back(gfn(block * BLOCK)).unwrap()).filter(|&backed| backed).count();
    let statistics = p2m.statistics();
    assert_eq!((touched, statistics.blocks_2m, statistics.pages_4k), (6, 3, 4));
    assert_eq!(guest.domain.pages.current(), Pages::new(2048), "what is touched was its own before");
    assert_eq!(guest.domain.pages.reserved(), Pages::new(512 - 4));
}

#[test]
fn who_touches_too_much_is_stopped_alone() {
    machine(64);
    let guest = promised(BLOCK + 8, BLOCK, 8192);
    let p2m = &guest.domain.p2m;
    for page in 0..BLOCK + 8 {
        assert_eq!(p2m.back(gfn(page)), Ok(true), "{page}");
    }
    assert_eq!(p2m.back(gfn(4000)), Err(Errno::ENOMEM));
    assert_eq!(p2m.get_ram(gfn(4000)).err(), Some(Errno::ENOMEM), "nor do others get more out of it");
    assert!(!guest.domain.is_shut_down.load(core::sync::atomic::Ordering::Relaxed));
    out_of_budget(&guest.domain, gfn(4000));
    assert!(guest.domain.is_shut_down.load(core::sync::atomic::Ordering::Relaxed));
}

#[test]
fn a_balloon_that_scrubs_what_it_gives_never_runs_dry() {
    machine(64);
    let guest = promised(1024, 1024, 8192);
    let (free, account) = (memory().available(), &guest.domain.pages);
    // As Linux does it: a page from the top is cleared, then given.
    for page in (1024..8192).rev() {
        assert!(guest.domain.p2m.get_ram(gfn(page)).is_ok(), "{page}");
        assert_eq!(give(&guest, page, 0), Ok(()));
        assert_eq!(account.current(), Pages::new(1024), "{page}");
    }
    assert_eq!((outstanding(&guest), account.reserved()), (1024, Pages::new(1024)));
    // It goes below its target: what it lacks stays promised.
    assert_eq!(give(&guest, 0, 9), Ok(()));
    assert_eq!((account.current(), account.claimed()), (Pages::new(512), Pages::new(512)));
    assert!(memory().available() >= free.saturating_sub(Pages::new(2)));
}

#[test]
fn untouched_memory_is_given_back_for_nothing() {
    machine(64);
    let guest = promised(1024, 1024, 1 << 18);
    let account = &guest.domain.pages;
    assert_eq!(give(&guest, 0, 9), Ok(()));
    assert_eq!(give(&guest, 0, 9), Err(Errno::EINVAL), "a hole is nothing to give");
    assert_eq!(give(&guest, 0x4000, 4), Ok(()));
    assert_eq!(give(&guest, 0x4000, 0), Err(Errno::EINVAL));
    assert_eq!(outstanding(&guest), (1 << 18) - 512 - 16);
    assert_eq!(give(&guest, 0x8000, 15), Ok(()));
    assert_eq!(give(&guest, 0x10000, 16), Ok(()));
    assert_eq!(give(&guest, 0x20000, 17), Ok(()));
    assert_eq!((account.current(), guest.domain.p2m.faults()), (Pages::new(1024), 0));
    // What it may see becomes less than its target.
    (1..63).filter(|&block| block != 32).for_each(|block| give(&guest, block * BLOCK, 9).unwrap());
    assert_eq!((outstanding(&guest), account.current().get(), account.claimed().get()), (1008, 1008, 16));
}

#[test]
fn a_lower_target_takes_nothing_away_and_a_lower_maximum_frees_the_promise() {
    machine(64);
    let guest = promised(2048, 2048, 2048);
    let (account, p2m) = (&guest.domain.pages, &guest.domain.p2m);
    p2m.back(gfn(0)).unwrap();
    p2m.set_target(Pages::new(512)).unwrap();
    assert_eq!((account.current().get(), account.reserved().get()), (2048, 1536));
    assert_eq!(give(&guest, 512, 9), Ok(()));
    assert_eq!(account.current().get(), 1536);
    assert_eq!(give(&guest, 0, 9), Ok(()), "memory that was backed goes, too");
    assert_eq!((account.current().get(), account.claimed().get()), (1024, 0));
    // Up again, beyond what it sees: its balloon will ask for it.
    p2m.set_target(Pages::new(2048)).unwrap();
    assert_eq!((account.current().get(), account.claimed().get()), (1024, 1024));
    p2m.set_maximum(Pages::new(1100));
    assert_eq!((account.target().get(), account.claimed().get()), (1100, 76));
    p2m.set_target(Pages::ZERO).unwrap();
    assert_eq!((account.target().get(), memory().claimed()), (1100, Pages::ZERO), "the promise is withdrawn");
}

#[test]
fn who_goes_away_gives_its_promises_back() {
    machine(64);
    let guest = promised(2048, 2048, 1024);
    let (account, p2m) = (&guest.domain.pages, &guest.domain.p2m);
    p2m.back(gfn(0)).unwrap();
    assert_eq!((account.reserved().get(), account.claimed().get()), (512, 1024));
    // As `domain::life` does it.
    account.set_maximum(Pages::ZERO);
    while p2m.teardown(&mut 10) == Progress::Preempted {}
    assert_eq!((account.current(), memory().claimed()), (Pages::ZERO, Pages::ZERO));
    assert_eq!(p2m.set_target(Pages::ZERO), Err(Errno::ESRCH));
}

#[derive(Clone, Debug)]
enum Step {
    Mark(u64, u32),
    Touch(u64),
    Give(u64, u32),
    Ask(u64),
    Target(u64),
    Maximum(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![3 => Just(0u32), 2 => Just(9), 1 => 1u32..6, 1 => Just(11)];
    let extent = (0u64..8192, order).prop_map(|(gfn, order)| (gfn >> order << order, order));
    prop_oneof![
        3 => extent.clone().prop_map(|(gfn, order)| Step::Mark(gfn, order)),
        6 => (0u64..8192).prop_map(Step::Touch),
        4 => extent.prop_map(|(gfn, order)| Step::Give(gfn, order)),
        2 => (0u64..8192).prop_map(Step::Ask),
        2 => prop_oneof![2 => 0u64..5000, 1 => Just(0)].prop_map(Step::Target),
        1 => (1000u64..9000).prop_map(Step::Maximum),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two domains do: what is promised is free, a promise is kept, counts are exact, all comes back.
    #[test]
    fn promises_are_kept(steps in proptest::collection::vec((0usize..2, step()), 1..80)) {
        machine(48);
        let free = memory().free_count();
        let guests = [guest(1, 4096), guest(2, 4096)];
        for (who, step) in steps {
            let guest = &guests[who];
            let (p2m, account) = (&guest.domain.p2m, &guest.domain.pages);
            match step {
                Step::Mark(at, order) => {
                    let _ = p2m.edit(|batch| batch.mark_on_demand(gfn(at), Pages::new(1 << order)));
                }
                Step::Touch(at) => {
                    let promised = account.reserved();
                    let backed = p2m.back(gfn(at));
                    prop_assert!(backed.is_ok() || promised.is_zero(), "{:?} of {}", backed, promised);
                }
                Step::Give(at, order) => {
                    let _ = give(guest, at, order);
                }
                Step::Ask(at) => {
                    let claimed = account.claimed();
                    let asked = account.charge(Pages::ONE).is_ok();
                    let block = if asked { memory().allocate_for(account, 0, None) } else { None };
                    prop_assert!(!asked || block.is_some() || claimed.is_zero());
                    match block {
                        Some(block) => p2m.edit(|batch| batch.populate(gfn(at), block.clear())).unwrap(),
                        None if asked => account.refund(Pages::ONE),
                        None => {}
                    }
                }
                Step::Target(target) => {
                    let _ = p2m.set_target(Pages::new(target));
                }
                Step::Maximum(maximum) => p2m.set_maximum(Pages::new(maximum)),
            }
            let of = |guest: &Guest| guest.domain.pages.reserved().get() + guest.domain.pages.claimed().get();
            prop_assert_eq!(memory().claimed().get(), guests.iter().map(of).sum::<u64>());
            prop_assert!(memory().claimed() <= memory().free_count());
            for guest in &guests {
                let (statistics, account) = (guest.domain.p2m.statistics(), &guest.domain.pages);
                prop_assert!(account.reserved().get() <= statistics.on_demand);
                prop_assert_eq!(account.current().get(), statistics.mapped().get() + account.reserved().get());
                if account.has_target() {
                    prop_assert!(account.current().get() + account.claimed().get() >= account.target().get());
                }
            }
        }
        for guest in &guests {
            while guest.domain.p2m.teardown(&mut 100) == Progress::Preempted {}
            prop_assert_eq!((guest.domain.pages.current(), outstanding(guest)), (Pages::ZERO, 0));
        }
        prop_assert_eq!(memory().claimed(), Pages::ZERO);
        drop(guests);
        prop_assert_eq!(memory().free_count(), free);
    }
}
