//! Memory that comes back, and memory that is watched.

use pv_abi::nacelle::{WorkingSet, XENMEM_NACELLE_WORKING_SET};

use super::*;

#[test]
fn a_balloon_that_comes_back_page_by_page_leaves_blocks_again() {
    machine(64);
    let fixture = Fixture::new(1, 8 << 9);
    let first = 0x1_0000;
    let blocks: Vec<u64> = (0..8).map(|block| first + block * 512).collect();
    assert_eq!(fixture.reservation(Op::PopulatePhysmap, &blocks, 9), Outcome::Done(8));
    let mapped = || fixture.guest.domain.p2m.statistics();
    let before = mapped();
    assert_eq!(before.blocks_2m, 8);
    // As Linux does it, in lists of 512: runs that begin anywhere, single pages, backwards; a whole block among them.
    let runs = (first + 77..first + 6 * 512).filter(|gfn| gfn % 512 % 9 != 0 || gfn / 512 % 4 == 0);
    let singles = (first + 6 * 512..first + 8 * 512).filter(|gfn| gfn % 512 * 7 % 512 < 300).rev();
    let list: Vec<u64> = runs.chain(singles).collect();
    for part in list.chunks(512) {
        assert_eq!(fixture.reservation(Op::DecreaseReservation, part, 0), Outcome::Done(part.len() as i64));
    }
    assert_eq!(mapped().blocks_2m, 0);
    for part in list.chunks(512).rev() {
        assert_eq!(fixture.reservation(Op::PopulatePhysmap, part, 0), Outcome::Done(part.len() as i64));
    }
    assert_eq!((mapped().blocks_2m, mapped().pages_4k), (before.blocks_2m, before.pages_4k));
}

#[test]
fn a_working_set_is_for_the_control_domain_and_takes_as_many_pieces_as_there_are_interrupts() {
    machine(64);
    let (dom0, other) = (Fixture::new(0, 100), Fixture::new(210, 2048));
    domain::insert(other.guest.domain.clone());
    let ask = |by: &Fixture, domid, watch| {
        by.guest.put(by.structs, &WorkingSet { domid, watch, ..WorkingSet::default() });
        let mut args = [XENMEM_NACELLE_WORKING_SET.into(), by.structs, 0, 0, 0];
        for pieces in 0.. {
            match call(&by.guest.caller(), &args) {
                Outcome::Again(rest) => args = rest,
                end => return (end, pieces),
            }
        }
        unreachable!()
    };
    let id = DomId::new(210);
    assert_eq!(ask(&other, DOMID_SELF, 0).0, failed(Errno::EPERM));
    assert_eq!(ask(&dom0, id, 1025).0, failed(Errno::EINVAL));
    assert_eq!(ask(&dom0, DomId::new(211), 0).0, failed(Errno::ESRCH));
    assert_eq!(other.reservation(Op::PopulatePhysmap, &[512], 9), Outcome::Done(1));
    arch::set_interrupt_pending(true);
    let (end, pieces) = ask(&dom0, id, 100);
    arch::set_interrupt_pending(false);
    assert!(end == Outcome::Done(0) && pieces > 100 / 32, "{end:?} after {pieces} pieces");
    let answer: WorkingSet = dom0.guest.take(dom0.structs);
    assert_eq!((answer.watch, answer.sampled, answer.mapped), (100, 0, 512 + 5));
    domain::remove(id);
}
