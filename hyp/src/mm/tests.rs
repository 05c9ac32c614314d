//! The allocator against a model, banks with holes, and copies from and to guests.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use stage2::{Mfn, PAGE_SIZE, Pa, Pages};

use super::block::Block;
use super::frame_table::Kind;
use super::page::PageRef;
use super::testing::{RAM, guest, machine, machine_with};
use super::*;

fn range(start: u64, pages: u64) -> MemoryRange {
    MemoryRange { start: Pa::new(start), pages: Pages::new(pages) }
}

fn table_pages(frames: u64) -> u64 {
    (frames * 16).div_ceil(PAGE_SIZE)
}

#[test]
fn everything_but_the_table_is_free() {
    machine(64);
    let frames = 64 << 8;
    assert_eq!(memory().total().get(), frames);
    assert_eq!(memory().free_count().get(), frames - table_pages(frames));
}

#[test]
fn a_host_of_three_gib_spends_twelve_mib_on_the_table() {
    machine_with(&[range(0x4000_0000, 3 << 18)], &[]);
    assert_eq!(memory().overhead(), 12 << 20);
}

#[test]
fn banks_may_have_holes_lie_high_and_hold_reservations() {
    let banks = [range(0x0, 0x3b400), range(0x4000_0000, 0xbc000), range(0x1_0000_0000, 0x40000)];
    let reserved = [
        range(0x0, 1),
        range(0x8_0000, 0x400),
        // Overlaps the former, begins within a page, and reaches out of its bank.
        range(0x8_0800, 0x400),
        range(0x3b00_0000, 0x1_0000),
        range(0x1_3fff_f000, 1),
        range(0x2_0000_0000, 5),
    ];
    machine_with(&banks, &reserved);
    let total: u64 = banks.iter().map(|b| b.pages.get()).sum();
    // The fourth reaches from the end of the first bank into the second.
    let lost = 1 + 0x401 + 0x400 + 0xb000 + 1;
    assert_eq!(memory().free_count().get(), total - lost - table_pages(total));
    assert_eq!(memory().frame(Mfn::new(0x3b400)).map(|_| ()), None, "no entry for a hole");
    for (mfn, kind) in
        [(0, Kind::Reserved), (0x80, Kind::Reserved), (0x480, Kind::Reserved), (0x13fffe, Kind::Hypervisor)]
    {
        assert_eq!(memory().frame(Mfn::new(mfn)).map(|f| f.state().kind()), Some(kind), "{mfn:#x}");
    }
    // The highest memory goes first; what is low stays for those who need it.
    assert!(memory().allocate(0).unwrap().mfn() >= Mfn::new(0x10_0000));
    assert!(memory().allocate_below(9, Pa::new(1 << 30)).unwrap().mfn() < Mfn::new(0x4_0000));
    assert!(memory().allocate_below(0, Pa::new(0x1000)).is_none(), "frame 0 is reserved");
}

#[test]
fn a_limit_within_a_zone_is_kept() {
    machine(64);
    let limit = Pa::new(RAM.raw() + (1 << 20));
    let mut blocks = Vec::new();
    while let Some(block) = memory().allocate_below(0, limit) {
        assert!(block.mfn() < limit.mfn());
        blocks.push(block);
    }
    assert_eq!(blocks.len(), 256);
}

#[test]
fn no_room_for_the_table_is_an_error() {
    // SAFETY: the fake machine's memory is used by nobody.
    let result = unsafe { init(&[range(0x4000_0000, 1 << 18)], &[range(0x4000_0000, (1 << 18) - 100)]) };
    assert_eq!(result, Err(InitError::NoRoom(Pages::new(1024))));
}

#[test]
fn reserved_memory_can_be_released_once() {
    machine_with(&[range(0x4000_0000, 0x4000)], &[range(0x4000_0000, 0x200)]);
    let free = memory().free_count().get();
    // SAFETY: nobody uses the fake machine's memory.
    unsafe { memory().release_reserved(range(0x4000_0000, 0x200)) };
    assert_eq!(memory().free_count().get(), free + 0x200);
    let again = std::panic::catch_unwind(|| {
        // SAFETY: as above.
        unsafe { memory().release_reserved(range(0x4000_0000, 1)) }
    });
    assert!(again.is_err(), "freeing a frame twice went unnoticed");
}

#[test]
fn a_frame_freed_twice_is_found_out() {
    machine(8);
    let block = memory().allocate(0).unwrap();
    let twice = Block::new(block.mfn(), 0, dirt::Dirt::NONE);
    drop(block);
    assert!(std::panic::catch_unwind(move || drop(twice)).is_err());
}

#[test]
fn an_idle_machine_has_a_quarter_of_its_memory_clear_and_takes_from_that_first() {
    machine(64);
    let quarter = memory().total().get() / 4;
    while memory().clear_ahead() {}
    assert!((quarter..quarter + 4).contains(&memory().clear_count().get()));
    // A superpage, pages one by one, pages together: all from what is clear.
    let superpage = memory().allocate(9).unwrap();
    let page = memory().allocate(0).unwrap();
    let mut singles = ArrayVec::<Block, 32>::new();
    memory().allocate_singles(&account::PageAccount::new(), Place::Any, 32, &mut singles);
    assert!(memory().clear_count().get() <= quarter + 4 - 512 - 33);
    drop((superpage, page, singles));
    assert!(memory().clear_count().get() >= quarter, "nobody wrote to them");
    // A page given back does not make the memory around it count as used.
    let owner = DomId::new(7);
    let mfn = memory().allocate(0).unwrap().clear().give_to(owner);
    memory().give_up(mfn, 0, owner);
    assert!(memory().clear_count().get() > quarter - 512);
}

#[test]
fn clearing_that_was_interrupted_goes_on_where_it_stopped() {
    machine(64);
    let mut calls = 0;
    let block = loop {
        calls += 1;
        // An interrupt is pending at each look.
        match memory().allocate(13).unwrap().clear_unless(|| true) {
            Ok(block) => break block,
            Err(unfinished) => drop(unfinished),
        }
    };
    assert_eq!((block.pages().get(), calls), (1 << 13, 16));
}

#[test]
fn cleared_means_cleared() {
    machine(8);
    let page = PageRef::allocate_shared(DomId::new(1)).unwrap();
    page.copy_in(0, &[0xaa; 4096]).unwrap();
    let mfn = page.mfn();
    drop(page);
    let mut blocks = Vec::new();
    loop {
        let page = PageRef::allocate_shared(DomId::new(2)).unwrap();
        let mut bytes = [1; 4096];
        page.copy_out(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4096]);
        blocks.push(page.clone());
        if page.mfn() == mfn {
            break;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A domain gets a block and writes to it.
    Allocate(u32),
    AllocateBelow(u32, u64),
    AllocateAt(u64, u32),
    Singles(usize, Place),
    /// A block that nobody got, after all; cleared or as it came.
    Return(u32, bool),
    Free(usize),
    /// A CPU is idle for so many steps.
    Idle(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u32..=10).prop_map(Step::Allocate),
        1 => ((0u32..=6), 0u64..2048).prop_map(|(order, limit)| Step::AllocateBelow(order, limit)),
        1 => ((0u64..2048), 0u32..=6).prop_map(|(frame, order)| Step::AllocateAt(frame >> order << order, order)),
        1 => (1usize..=32, any::<bool>(), 0u64..2048).prop_map(|(count, at, frame)| {
            let place = if at { Place::At(RAM.mfn().wrapping_add(Pages::new(frame))) } else { Place::InBlock(frame as usize % 512) };
            Step::Singles(count, place)
        }),
        1 => (1usize..=32).prop_map(|count| Step::Singles(count, Place::Any)),
        1 => (0u32..=10, any::<bool>()).prop_map(|(order, clear)| Step::Return(order, clear)),
        5 => any::<usize>().prop_map(Step::Free),
        2 => (0usize..200).prop_map(Step::Idle),
    ]
}

/// What a domain leaves in its pages.
const SECRET: u64 = 0x5ec7_e75e_c7e7_5ec7;

fn word(mfn: u64) -> u64 {
    // SAFETY: the fake machine's memory is used by nobody.
    unsafe { arch::phys::load_u64(Mfn::new(mfn).pa()) }
}

/// Frames of free blocks that are clear by their words.
fn clear_frames() -> u64 {
    let mut clear = 0;
    for (start, pages) in memory().banks() {
        let mut mfn = start.raw();
        while mfn < start.raw() + pages.get() {
            let state = memory().frame(Mfn::new(mfn)).unwrap().state();
            let size = if state.kind() == Kind::Free { 1 << state.order() } else { 1 };
            if state.kind() == Kind::Free {
                clear += size - u64::from(state.dirt().len());
            }
            mfn += size;
        }
    }
    clear
}

proptest! {
    /// No frame is handed out twice or with what another left there, the counts of free and of clear frames are exact,
    /// and freed blocks join to what they were.
    #[test]
    fn the_allocator_is_exact(steps in proptest::collection::vec(step(), 1..200)) {
        // A thread runs many cases; the machine stays, as all blocks are back at the end of each.
        machine(8);
        let start = RAM.mfn();
        let owner = DomId::new(7);
        let whole = memory().free_count().get();
        let largest = memory().largest_free_order();
        // By first frame, the order; and where secrets were left, ever.
        let mut owned: BTreeMap<u64, u32> = BTreeMap::new();
        let mut secrets: BTreeSet<u64> = BTreeSet::new();
        for step in steps {
            let mut blocks = Vec::new();
            match step {
                Step::Allocate(order) => blocks.extend(memory().allocate(order)),
                Step::AllocateBelow(order, limit) => {
                    let limit = start.wrapping_add(Pages::new(limit));
                    let block = memory().allocate_below(order, limit.pa());
                    if let Some(block) = &block {
                        prop_assert!(block.mfn().raw() + block.pages().get() <= limit.raw());
                    }
                    blocks.extend(block);
                }
                Step::AllocateAt(frame, order) => {
                    let wanted = start.wrapping_add(Pages::new(frame));
                    let block = memory().allocate_at(wanted, order);
                    prop_assert!(block.as_ref().is_none_or(|block| block.mfn() == wanted));
                    blocks.extend(block);
                }
                Step::Singles(count, place) => {
                    let mut singles = ArrayVec::<Block, 32>::new();
                    let free = memory().available().get();
                    memory().allocate_singles(&account::PageAccount::new(), place, count, &mut singles);
                    if let Place::Any = place {
                        prop_assert_eq!(singles.len() as u64, free.min(count as u64));
                    }
                    // At its place or anywhere: some, if there are any.
                    prop_assert_eq!(singles.is_empty(), free == 0);
                    blocks.extend(singles);
                }
                Step::Return(order, clear) => match memory().allocate(order) {
                    Some(block) if clear => drop(block.clear()),
                    block => drop(block),
                },
                Step::Free(index) => {
                    if let Some(&mfn) = owned.keys().nth(index % owned.len().max(1)) {
                        let order = owned.remove(&mfn).unwrap();
                        let freed = memory().give_up(Mfn::new(mfn), order, owner);
                        prop_assert_eq!(freed, Pages::new(1 << order));
                    }
                }
                Step::Idle(steps) => {
                    let before = memory().clear_count();
                    let worked = (0..steps).filter(|_| memory().clear_ahead()).count();
                    prop_assert_eq!(worked > 0, memory().clear_count() > before);
                }
            }
            for block in blocks {
                let order = block.pages().get().ilog2();
                let (first, count) = (block.mfn().raw(), block.pages().get());
                prop_assert_eq!(first % count, 0, "not naturally aligned");
                let before = owned.range(..first + count).next_back();
                prop_assert!(before.is_none_or(|(start, order)| start + (1 << order) <= first), "handed out twice");
                owned.insert(first, order);
                block.clear().give_to(owner);
                for &mfn in secrets.range(first..first + count) {
                    prop_assert_eq!(word(mfn), 0, "frame {} has its former content", mfn);
                }
                for mfn in [first, first + count / 2, first + count - 1] {
                    // SAFETY: the fake machine's memory is used by nobody.
                    unsafe { arch::phys::store_u64(Mfn::new(mfn).pa(), SECRET) };
                    secrets.insert(mfn);
                }
            }
            let used: u64 = owned.values().map(|order| 1 << order).sum();
            prop_assert_eq!(memory().free_count().get(), whole - used);
            prop_assert_eq!(memory().clear_count().get(), clear_frames());
        }
        for (mfn, order) in owned {
            memory().give_up(Mfn::new(mfn), order, owner);
        }
        prop_assert_eq!(memory().free_count().get(), whole);
        // Once all is clear, all joins.
        let all: Vec<_> = (0..=11).rev().flat_map(|order| core::iter::from_fn(move || memory().allocate(order))).collect();
        let all: Vec<_> = all.into_iter().map(Block::clear).collect();
        drop(all);
        prop_assert_eq!(memory().clear_count().get(), whole);
        prop_assert_eq!(memory().largest_free_order(), largest, "freed blocks did not join");
    }

    /// Whatever the banks and reservations, exactly the frames that no reservation touches can be allocated.
    #[test]
    fn reservations_are_left_alone(
        banks in proptest::collection::vec(1u64..600, 1..4),
        holes in proptest::collection::vec((0u64..3000, 0u64..100, 0u64..4096), 0..6),
    ) {
        let mut at = 16u64;
        let banks: Vec<_> = banks.iter().map(|&pages| {
            let bank = range(at << 12, pages);
            at += pages + 7;
            bank
        }).collect();
        let reserved: Vec<_> = holes.iter().map(|&(start, pages, offset)| range((start << 12) + offset, pages)).collect();
        // A thread of its own: a machine is made once per thread.
        let check = std::thread::spawn(move || {
            // SAFETY: the fake machine's memory is used by nobody.
            if unsafe { init(&banks, &reserved) }.is_err() {
                return Ok(());
            }
            let is_reserved = |mfn: u64| reserved.iter().any(|r| {
                let (first, end) = (r.start.raw(), r.start.raw() + (r.pages.get() << 12));
                first < end && mfn << 12 < end && first < (mfn + 1) << 12
            });
            let frames = banks.iter().flat_map(|b| (b.start.mfn().raw()..).take(b.pages.get() as usize));
            let expected: Vec<_> = frames.filter(|&mfn| !is_reserved(mfn)).collect();
            let mut blocks = Vec::new();
            let mut got: Vec<_> = std::iter::from_fn(|| {
                let block = memory().allocate(0)?;
                let mfn = block.mfn().raw();
                blocks.push(block);
                Some(mfn)
            }).collect();
            got.sort_unstable();
            let total: u64 = banks.iter().map(|b| b.pages.get()).sum();
            let own: Vec<_> = expected.iter().filter(|mfn| got.binary_search(mfn).is_err()).collect();
            if own.len() as u64 != table_pages(total) || !got.iter().all(|mfn| expected.binary_search(mfn).is_ok()) {
                return Err(format!("expected {expected:?}, got {got:?}"));
            }
            Ok(())
        }).join();
        prop_assert_eq!(check.unwrap(), Ok(()));
    }
}

// ---- references ----

#[test]
fn the_last_reference_frees_a_page() {
    machine(8);
    let free = memory().free_count();
    let page = PageRef::allocate_shared(DomId::new(3)).unwrap();
    let other = page.clone();
    drop(page);
    assert_eq!(memory().free_count().get(), free.get() - 1);
    assert_eq!(other.owner(), DomId::new(3));
    drop(other);
    assert_eq!(memory().free_count(), free);
}

#[test]
fn a_page_is_only_reached_under_its_owners_name() {
    machine(8);
    let guest = guest(5, 10);
    let mfn = guest.populate(0x10, 0);
    assert!(guest.domain.p2m.get_own(mfn).is_ok());
    let other = testing::guest(6, 10);
    assert_eq!(other.domain.p2m.get_own(mfn).err(), Some(Errno::EINVAL));
    let own = memory().allocate(0).unwrap();
    assert_eq!(
        testing::guest(0, 10).domain.p2m.get_own(own.mfn()).err(),
        Some(Errno::EINVAL),
        "EL2's own memory"
    );
    assert_eq!(guest.domain.p2m.get_own(Mfn::new(1)).err(), Some(Errno::EINVAL), "no RAM");
}

#[test]
fn values_and_bytes_of_a_page() {
    machine(8);
    let page = PageRef::allocate_shared(DomId::new(3)).unwrap();
    page.write_u32(4, 0x1234_5678);
    assert_eq!((page.read_u8(4), page.read_u16(6), page.read_u64(0)), (0x78, 0x1234, 0x1234_5678 << 32));
    assert_eq!(page.fetch_or_u8(4095, 0x80), 0);
    assert_eq!(page.fetch_and_u16(4, 0xff00), 0x5678);
    assert_eq!(page.compare_exchange_u64(0, 1, 2), Err(0x1234_5600 << 32));
    assert_eq!(page.copy_in(4090, &[1; 7]), Err(Errno::EFAULT));
    assert_eq!(page.copy_out(usize::MAX, &mut [0; 2]), Err(Errno::EFAULT));
    let other = PageRef::allocate_shared(DomId::new(4)).unwrap();
    page.copy_to(4, &other, 4092, 4).unwrap();
    assert_eq!(other.read_u32(4092), 0x1234_5600);
    assert_eq!(page.copy_to(0, &other, 4093, 4), Err(Errno::EFAULT));
}

// ---- copies ----

#[test]
fn copies_cross_pages_that_lie_apart() {
    machine(8);
    let guest = guest(1, 10);
    let (first, second) = (guest.page(1), guest.page(9));
    let caller = guest.caller();
    arch::guest::map(0x10_0000, Pa::new(first));
    arch::guest::map(0x10_1000, Pa::new(second));
    let bytes: Vec<u8> = (0..=255).collect();
    guest::write_slice(&caller, 0x10_0f80, &bytes).unwrap();
    let mut back = vec![0; 256];
    guest::read_slice(&caller, 0x10_0f80, &mut back).unwrap();
    assert_eq!(back, bytes);
    assert_eq!(guest::read::<u64>(&caller, 0x10_0ffc), Ok(0x8382_8180_7f7e_7d7c));
    assert_eq!(guest.take::<u8>(second), 0x80);
}

#[test]
fn copies_stop_where_the_guest_could_not_go_on() {
    machine(8);
    let guest = guest(1, 10);
    let first = guest.page(1);
    let caller = guest.caller();
    arch::guest::map(0x10_0000, Pa::new(first));
    arch::guest::unmap(0x10_1000);
    guest::write(&caller, 0x10_0ff8, &7u64).unwrap();
    assert_eq!(guest::write(&caller, 0x10_0ffc, &0u64), Err(Errno::EFAULT));
    assert_eq!(guest::read::<u64>(&caller, 0x10_0ffc), Err(Errno::EFAULT));
    let mut values = [0u64; 4];
    assert_eq!(guest::read_array(&caller, 0x10_0ff0, &mut values), 2);
    assert_eq!(values[1], 7);
    // The end of the address space is no way to its beginning.
    arch::guest::unmap(u64::MAX);
    assert_eq!(guest::read::<u64>(&caller, u64::MAX - 3), Err(Errno::EFAULT));
    assert_eq!(guest::read_slice(&caller, 0x10_1000, &mut []), Ok(()));
}

#[test]
fn no_copy_reaches_what_is_not_a_guests() {
    machine(8);
    let guest = guest(1, 10);
    let caller = guest.caller();
    let own = memory().allocate(0).unwrap();
    for pa in [own.mfn().pa(), guest.domain.p2m.root(), Pa::new(0x900_0000), memory().end().pa()] {
        assert_eq!(guest::read::<u32>(&caller, pa.raw()), Err(Errno::EFAULT), "{pa}");
        assert_eq!(guest::write(&caller, pa.raw(), &0u32), Err(Errno::EFAULT), "{pa}");
    }
}

// ---- accounts ----

#[test]
fn an_account_keeps_its_maximum() {
    machine(8);
    let account = account::PageAccount::new();
    account.set_maximum(Pages::new(10));
    assert_eq!(account.charge(Pages::new(11)), Err(Errno::ENOMEM));
    assert_eq!(account.charge(Pages::new(u64::MAX)), Err(Errno::ENOMEM));
    assert_eq!(account.charge(Pages::new(8)), Ok(()));
    assert_eq!(account.charge_up_to(Pages::new(8)), Pages::new(2));
    account.set_maximum(Pages::new(4));
    assert_eq!(account.charge_up_to(Pages::new(1)), Pages::ZERO);
    account.refund(Pages::new(10));
    assert_eq!(account.current(), Pages::ZERO);
}

#[test]
fn a_claim_keeps_others_out_until_it_is_used_or_given_up() {
    machine(8);
    let free = memory().available();
    assert_eq!(
        free,
        memory().free_count().saturating_sub(Pages::new(8 << 8 >> 9)),
        "some is left to EL2's tables"
    );
    let [claimer, other] = [account::PageAccount::new(), account::PageAccount::new()];
    claimer.set_maximum(free);
    other.set_maximum(free);
    assert_eq!(claimer.claim(free.saturating_add(Pages::ONE)), Err(Errno::EINVAL), "more than it may have");
    claimer.claim(free).unwrap();
    assert_eq!(claimer.claim(Pages::ONE), Err(Errno::EINVAL), "it has a claim");
    assert!(memory().allocate_for(&other, 0, None).is_none());
    assert_eq!(other.claim(Pages::ONE), Err(Errno::ENOMEM));
    let own = [
        memory().allocate_for(&claimer, 6, None).unwrap(),
        memory().allocate_for(&claimer, 5, None).unwrap(),
    ];
    assert_eq!(claimer.claimed(), free.saturating_sub(Pages::new(96)));
    assert!(memory().allocate(0).is_some(), "EL2's own is not subject to claims");
    drop(own);
    claimer.claim(Pages::ZERO).unwrap();
    assert_eq!((claimer.claimed(), memory().claimed()), (Pages::ZERO, Pages::ZERO));
    assert!(memory().allocate_for(&other, 0, None).is_some());
}
