//! Samples of a guest whose accesses the test makes: the estimate, what is left alone, and what is as before afterwards.

use stage2::{Attributes, BlockSize, Gfn, Pages};

use super::*;
use crate::arch;
use crate::mm::testing::{Guest, guest, machine};

/// 16 blocks of 2 MiB from this guest frame on.
const FIRST: u64 = 0x1_0000;
const PAGES: u64 = 16 * 512;

fn fixture() -> Guest {
    machine(128);
    let guest = guest(1, 1 << 20);
    for block in 0..16 {
        guest.populate(FIRST + block * 512, 9);
    }
    guest
}

/// A call: all steps, then the answer.
fn sample(guest: &Guest, wanted: usize) -> Sample {
    guest.domain.p2m.begin_sample(wanted).unwrap();
    while guest.domain.p2m.sample_step() {}
    guest.domain.p2m.sample()
}

/// The guest uses its pages of which `uses` says so.
fn run(guest: &Guest, uses: impl Fn(u64) -> bool) {
    for gfn in (FIRST..FIRST + PAGES).filter(|gfn| uses(*gfn)) {
        if guest.domain.p2m.leaf(Gfn::new(gfn)).is_some_and(|leaf| !leaf.is_accessed()) {
            assert!(guest.domain.p2m.touch(Gfn::new(gfn)));
        }
    }
}

#[test]
fn the_share_that_is_used_is_estimated_and_the_blocks_are_whole_again() {
    let guest = fixture();
    let first = sample(&guest, 1024);
    assert_eq!((first.sampled, first.watched), (0, 1024));
    for (share, uses) in [(4, 0), (2, 1), (1, 1)] {
        run(&guest, |gfn| gfn % share == uses % share);
        let seen = sample(&guest, 1024);
        assert_eq!((seen.sampled, seen.watched), (1024, 1024));
        // Four standard errors.
        let expected = 1024 / share;
        assert!(seen.touched.abs_diff(expected) <= 64, "{} of {expected} used", seen.touched);
    }
    let last = sample(&guest, 0);
    assert_eq!((last.sampled, last.touched, last.watched), (1024, 0, 0));
    let statistics = guest.domain.p2m.statistics();
    assert_eq!((statistics.blocks_2m, statistics.pages_4k), (16, 0));
    assert_eq!(sample(&guest, 0), Sample::default(), "nothing was watched");
}

#[test]
fn a_step_costs_one_invalidation_and_a_batch_of_pages() {
    let guest = fixture();
    let p2m = &guest.domain.p2m;
    p2m.begin_sample(STEP).unwrap();
    arch::tlb::take_invalidations();
    let mut steps = 0;
    while p2m.sample_step() {
        steps += 1;
        assert!(arch::tlb::take_invalidations().len() <= 1);
    }
    assert!(steps <= 8, "{steps} steps for {STEP} pages of a 32nd of the extent");
}

#[test]
fn only_the_domains_own_memory_is_watched_and_what_it_gives_is_not_counted() {
    let guest = fixture();
    let p2m = &guest.domain.p2m;
    let device = Gfn::new(FIRST + PAGES);
    p2m.edit(|batch| batch.map_device(device, stage2::Mfn::new(0x10), Pages::new(512), Attributes::MMIO))
        .unwrap();
    sample(&guest, 1024);
    for page in 0..512 {
        assert!(p2m.leaf(device.wrapping_add(Pages::new(page))).unwrap().is_accessed());
    }
    assert!(!p2m.touch(device), "there is no page of its own");
    p2m.edit(|batch| (0..8).try_for_each(|block| batch.give(Gfn::new(FIRST + block * 512), 9))).unwrap();
    let seen = sample(&guest, 64);
    assert!(seen.sampled > 384 && seen.sampled < 640, "half of them are left: {}", seen.sampled);
    assert_eq!((seen.touched, seen.watched), (0, 64));
    assert_eq!(p2m.backed(), Pages::new(PAGES / 2));
}

#[test]
fn a_sample_that_must_end_early_says_what_it_saw() {
    let guest = fixture();
    let p2m = &guest.domain.p2m;
    assert!(!p2m.end_sample(), "there is none");
    sample(&guest, 256);
    run(&guest, |gfn| gfn < FIRST + PAGES / 2);
    arch::advance(1000);
    assert!(p2m.end_sample());
    assert!(!p2m.end_sample(), "no flag is clear now");
    arch::advance(1_000_000);
    let seen = sample(&guest, 0);
    assert_eq!((seen.sampled, seen.period), (256, Nanoseconds::from_ticks(1000)));
    assert!(seen.touched.abs_diff(128) <= 32, "{} of 128", seen.touched);
    assert_eq!(p2m.leaf(Gfn::new(FIRST)).unwrap().size(), BlockSize::Block2M);
}
