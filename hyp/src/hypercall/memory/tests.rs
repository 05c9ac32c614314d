//! What `memory_op` answers and does, as a guest sees it. Domains that must be found by number have numbers of their
//! own here, since all threads share the list.

use pv_abi::GuestHandle;
use pv_abi::domid::{DOMID_SELF, DomId};
use pv_abi::errno::Errno;
use pv_abi::memory::*;
use pv_abi::nacelle::XENMEM_NACELLE_COUNTERS;
use stage2::{Gfn, PageType, Pages};
use zerocopy::{Immutable, IntoBytes};

mod moving;

use super::call;
use crate::arch;
use crate::arch::tlb::take_invalidations;
use crate::domain;
use crate::hypercall::Outcome;
use crate::mm::memory;
use crate::mm::testing::{Guest, guest, machine};

/// A guest and where it keeps arguments: structures from `structs` on, lists from `lists` on (four pages).
struct Fixture {
    guest: Guest,
    structs: u64,
    lists: u64,
}

impl Fixture {
    fn new(id: u16, maximum: u64) -> Self {
        let guest = guest(id, maximum + 5);
        let structs = guest.page(0xf000);
        let lists = guest.populate(0xf100, 2).pa().raw();
        Self { guest, structs, lists }
    }

    fn make(&self, op: Op, argument: u64) -> Outcome {
        call(&self.guest.caller(), &[u64::from(op as u32), argument, 0, 0, 0])
    }

    fn with<T: IntoBytes + Immutable>(&self, op: Op, argument: &T) -> Outcome {
        self.guest.put(self.structs, argument);
        self.make(op, self.structs)
    }

    /// A list in the guest's memory, `slot` KiB into the place for lists.
    fn list(&self, slot: u64, values: &[u64]) -> GuestHandle {
        let address = self.lists + slot * 1024;
        self.guest.put(address, values);
        GuestHandle::new(address)
    }

    fn reservation(&self, op: Op, gfns: &[u64], order: u32) -> Outcome {
        self.with(
            op,
            &Reservation {
                extent_start: self.list(0, gfns),
                nr_extents: gfns.len() as u64,
                extent_order: order,
                domid: DOMID_SELF,
                ..Reservation::default()
            },
        )
    }

    fn pages(&self) -> u64 {
        self.guest.domain.pages.current().get() - 5
    }
}

fn failed(errno: Errno) -> Outcome {
    Outcome::Done(errno.into())
}

#[test]
fn a_list_is_taken_and_given_back_with_one_invalidation_a_batch() {
    machine(32);
    let fixture = Fixture::new(1, 600);
    let free = memory().free_count();
    let gfns: Vec<u64> = (0..512).map(|page| 0x1000 + page * 3).collect();
    assert_eq!(fixture.reservation(Op::PopulatePhysmap, &gfns, 0), Outcome::Done(512));
    assert_eq!(fixture.pages(), 512);
    assert!(gfns.iter().all(|&gfn| fixture.guest.can(gfn, arch::Access::Write)));
    take_invalidations();
    assert_eq!(fixture.reservation(Op::DecreaseReservation, &gfns, 0), Outcome::Done(512));
    assert_eq!(take_invalidations().len(), 1);
    assert_eq!((fixture.pages(), memory().free_count()), (0, free));
}

#[test]
fn what_is_taken_is_clear() {
    machine(16);
    let fixture = Fixture::new(1, 600);
    assert_eq!(fixture.reservation(Op::PopulatePhysmap, &[0x400], 9), Outcome::Done(1));
    let page = |gfn| fixture.guest.domain.p2m.get_page(Gfn::new(gfn), arch::Access::Write).unwrap();
    (0x400..0x600).for_each(|gfn| page(gfn).copy_in(0, &[0xee; 4096]).unwrap());
    assert_eq!(fixture.reservation(Op::DecreaseReservation, &[0x400], 9), Outcome::Done(1));
    assert_eq!(fixture.reservation(Op::PopulatePhysmap, &[0x400], 9), Outcome::Done(1));
    for gfn in 0x400..0x600 {
        let mut bytes = [1; 4096];
        page(gfn).copy_out(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4096], "{gfn:#x}");
    }
}

#[test]
fn the_result_is_where_it_stopped() {
    machine(16);
    let fixture = Fixture::new(1, 10);
    assert_eq!(
        fixture.reservation(Op::PopulatePhysmap, &(0..20).collect::<Vec<_>>(), 0),
        Outcome::Done(10),
        "maximum"
    );
    assert_eq!(fixture.pages(), 10);
    assert_eq!(fixture.reservation(Op::DecreaseReservation, &[0, 1, 99, 2], 0), Outcome::Done(2), "a hole");
    assert_eq!(fixture.reservation(Op::DecreaseReservation, &[2, u64::MAX, 3], 0), Outcome::Done(1));
    assert_eq!(fixture.reservation(Op::PopulatePhysmap, &[0, 1 << 40, 1], 0), Outcome::Done(1));
    assert_eq!(fixture.pages(), 8);
    assert_eq!(fixture.reservation(Op::PopulatePhysmap, &[u64::MAX >> 12], 0), Outcome::Done(0));
    assert_eq!(fixture.pages(), 8, "what failed is not counted");
    for order in [10, 18, 19, 40, 63, 64, u32::MAX] {
        for op in [Op::PopulatePhysmap, Op::DecreaseReservation, Op::IncreaseReservation] {
            assert_eq!(fixture.reservation(op, &[0], order), Outcome::Done(0), "{op:?} of order {order}");
        }
    }
    assert_eq!(fixture.pages(), 8);
}

#[test]
fn structures_that_cannot_be_read_do_nothing() {
    machine(16);
    let fixture = Fixture::new(1, 10);
    arch::guest::unmap(0xdead_0000);
    for op in [Op::PopulatePhysmap, Op::DecreaseReservation, Op::IncreaseReservation] {
        assert_eq!(fixture.make(op, 0xdead_0000), Outcome::Done(0));
    }
    // A list of which the end cannot be read is served to there.
    let place = fixture.lists + 4096 * 4 - 16;
    arch::guest::unmap(place + 16);
    fixture.guest.put(place, &[1u64, 2]);
    let reservation = Reservation {
        extent_start: GuestHandle::new(place),
        nr_extents: 5,
        domid: DOMID_SELF,
        ..Reservation::default()
    };
    assert_eq!(fixture.with(Op::PopulatePhysmap, &reservation), Outcome::Done(2));
    let huge = Reservation { nr_extents: u64::MAX, ..reservation };
    assert_eq!(fixture.with(Op::PopulatePhysmap, &huge), Outcome::Done(0));
    for mem_flags in [5, 12, 2 << 8, XENMEMF_VNODE, XENMEMF_POPULATE_ON_DEMAND] {
        let odd = Reservation { mem_flags, ..reservation };
        assert_eq!(fixture.with(Op::PopulatePhysmap, &odd), Outcome::Done(0), "{mem_flags:#x}");
    }
}

#[test]
fn a_low_page_can_be_asked_for() {
    machine(16);
    let fixture = Fixture::new(1, 10);
    // RAM begins at 1 GiB: 30 bits reach none of it, 31 all.
    for (bits, done) in [(30, 0), (31, 1), (64, 1)] {
        let reservation = Reservation {
            extent_start: fixture.list(0, &[7]),
            nr_extents: 1,
            mem_flags: bits,
            domid: DOMID_SELF,
            ..Reservation::default()
        };
        assert_eq!(fixture.with(Op::PopulatePhysmap, &reservation), Outcome::Done(done), "{bits} bits");
    }
}

#[test]
fn an_interrupted_call_says_how_far_it_came_and_goes_on_there() {
    machine(16);
    let fixture = Fixture::new(1, 300);
    let gfns: Vec<u64> = (0x100..0x200).collect();
    arch::set_interrupt_pending(true);
    let mut outcome = fixture.reservation(Op::PopulatePhysmap, &gfns, 0);
    let mut turns = 0;
    while let Outcome::Again(args) = outcome {
        turns += 1;
        assert_eq!(args[0] & 0x3f, Op::PopulatePhysmap as u64);
        assert_eq!(args[0] >> 6, fixture.pages(), "progress");
        outcome = call(&fixture.guest.caller(), &args);
    }
    assert_eq!((outcome, fixture.pages()), (Outcome::Done(256), 256));
    assert!(turns > 3);
    let mut outcome = fixture.reservation(Op::DecreaseReservation, &gfns, 0);
    while let Outcome::Again(args) = outcome {
        assert_eq!(args[0] >> 6, 256 - fixture.pages());
        outcome = call(&fixture.guest.caller(), &args);
    }
    arch::set_interrupt_pending(false);
    assert_eq!((outcome, fixture.pages()), (Outcome::Done(256), 0));
    // Progress beyond the list is no way to anything.
    let args = [Op::PopulatePhysmap as u64 | 1000 << 6, fixture.structs, 0, 0, 0];
    assert_eq!(call(&fixture.guest.caller(), &args), Outcome::Done(1000));
    assert_eq!(fixture.pages(), 0);
}

#[test]
fn dom0_finds_the_same_frames_again() {
    machine(16);
    let dom0 = guest(0, 100);
    let mfn = dom0.populate(0, 4).raw();
    let structs = dom0.page(0);
    let list = structs + 1024;
    let reservation = |op: Op, gfns: &[u64]| {
        dom0.put(list, gfns);
        let argument = Reservation {
            extent_start: GuestHandle::new(list),
            nr_extents: gfns.len() as u64,
            domid: DOMID_SELF,
            ..Reservation::default()
        };
        dom0.put(structs, &argument);
        call(&dom0.caller(), &[op as u64, structs, 0, 0, 0])
    };
    let gfns: Vec<u64> = (mfn..mfn + 16).collect();
    let free = memory().free_count();
    assert_eq!(reservation(Op::DecreaseReservation, &gfns), Outcome::Done(16));
    assert_eq!((dom0.mfn(mfn), dom0.domain.pages.current()), (None, Pages::new(17)));
    assert!(memory().allocate_at(stage2::Mfn::new(mfn), 0).is_none(), "still dom0's");
    assert_eq!(reservation(Op::PopulatePhysmap, &gfns), Outcome::Done(16));
    assert_eq!(dom0.mfn(mfn + 3).map(stage2::Mfn::raw), Some(mfn + 3));
    assert_eq!(reservation(Op::PopulatePhysmap, &[mfn, mfn - 1]), Outcome::Done(1), "not its own frame");
    assert_eq!(memory().free_count(), free);
}

#[test]
fn figures() {
    machine(16);
    let fixture = Fixture::new(201, 100);
    domain::insert(fixture.guest.domain.clone());
    let argument = Domain { domid: DOMID_SELF };
    assert_eq!(fixture.with(Op::CurrentReservation, &argument), Outcome::Done(5));
    assert_eq!(fixture.with(Op::MaximumReservation, &argument), Outcome::Done(105));
    assert_eq!(fixture.with(Op::MaximumGpfn, &argument), Outcome::Done(0xf103));
    assert_eq!(fixture.make(Op::MaximumRamPage, 0), Outcome::Done(0x4_1000));
    let other = Fixture::new(202, 10);
    for (domid, errno) in [(DomId::new(201), Errno::EPERM), (DomId::new(0x7ef), Errno::ESRCH)] {
        assert_eq!(other.with(Op::CurrentReservation, &Domain { domid }), failed(errno));
    }
    let dom0 = Fixture::new(0, 10);
    assert_eq!(dom0.with(Op::CurrentReservation, &Domain { domid: DomId::new(201) }), Outcome::Done(5));
    assert_eq!(other.make(Op::MaximumGpfn, 0x10), failed(Errno::EFAULT));
    let progress = [Op::MaximumRamPage as u64 | 1 << 6, 0, 0, 0, 0];
    assert_eq!(call(&other.guest.caller(), &progress), failed(Errno::EINVAL));
    domain::remove(DomId::new(201));
}

#[test]
fn the_shared_page_is_mapped_and_unmapped() {
    machine(16);
    let fixture = Fixture::new(1, 10);
    let add = |space: u32, idx: u64, gpfn: u64| {
        fixture.with(Op::AddToPhysmap, &AddToPhysmap { domid: DOMID_SELF, size: 0, space, idx, gpfn })
    };
    assert_eq!(add(Space::SharedInfo as u32, 0, 0x38000), Outcome::Done(0));
    assert_eq!(add(Space::SharedInfo as u32, 0, 0x38001), failed(Errno::EBUSY));
    assert_eq!(add(Space::SharedInfo as u32, 1, 0x38001), failed(Errno::EINVAL));
    assert_eq!(add(Space::GrantTable as u32, 0, 0x38002), Outcome::Done(0));
    assert_eq!(
        add(Space::GrantTable as u32, 4, 0x38003),
        failed(Errno::EINVAL),
        "more than the table may have"
    );
    for space in [2, 4, 6, 99] {
        assert_eq!(add(space, 0, 0x38001), failed(Errno::ENOSYS), "space {space}");
    }
    let lookup = |gfn| fixture.guest.domain.p2m.lookup(Gfn::new(gfn)).map(|(_, page_type)| page_type);
    assert_eq!((lookup(0x38000), lookup(0x38002)), (Some(PageType::SharedXen), Some(PageType::SharedXen)));
    let remove = |gpfn| {
        fixture.with(Op::RemoveFromPhysmap, &RemoveFromPhysmap { domid: DOMID_SELF, _pad: [0; 3], gpfn })
    };
    assert_eq!(remove(0x38000), Outcome::Done(0));
    assert_eq!(remove(0x38000), failed(Errno::ENOENT));
    assert_eq!(add(Space::SharedInfo as u32, 0, 0x38001), Outcome::Done(0));
    assert_eq!(add(Space::SharedInfo as u32, 0, 1 << 40), failed(Errno::EBUSY));
}

fn batch(fixture: &Fixture, space: Space, from: DomId, idxs: &[u64], gpfns: &[u64]) -> (Outcome, Vec<i32>) {
    let argument = AddToPhysmapBatch {
        domid: DOMID_SELF,
        space: space as u16,
        size: idxs.len() as u16,
        foreign_domid: from,
        idxs: fixture.list(0, idxs),
        gpfns: fixture.list(4, gpfns),
        errs: GuestHandle::new(fixture.lists + 8 * 1024),
    };
    let mut outcome = fixture.with(Op::AddToPhysmapBatch, &argument);
    while let Outcome::Again(args) = outcome {
        outcome = call(&fixture.guest.caller(), &args);
    }
    let errs =
        (0..idxs.len() as u64).map(|index| fixture.guest.take::<i32>(fixture.lists + 8 * 1024 + index * 4));
    (outcome, errs.collect())
}

#[test]
fn the_control_domain_maps_others_pages_and_lets_them_go() {
    machine(32);
    let owner = Fixture::new(203, 100);
    domain::insert(owner.guest.domain.clone());
    let theirs: Vec<u64> = (0..80).collect();
    assert_eq!(owner.reservation(Op::PopulatePhysmap, &theirs, 0), Outcome::Done(80));
    let dom0 = Fixture::new(0, 200);
    let gfns: Vec<u64> = (0x10_0000..0x10_0050).collect();
    let id = owner.guest.domain.id;
    arch::set_interrupt_pending(true);
    let (outcome, errs) = batch(&dom0, Space::GmfnForeign, id, &theirs, &gfns);
    arch::set_interrupt_pending(false);
    assert_eq!((outcome, errs), (Outcome::Done(0), vec![0; 80]));
    for (&theirs, &ours) in theirs.iter().zip(&gfns) {
        assert_eq!(dom0.guest.mfn(ours), owner.guest.mfn(theirs));
    }
    // Each page has its own answer.
    let (outcome, errs) =
        batch(&dom0, Space::GmfnForeign, id, &[0, 5000, 1], &[0x20_0000, 0x20_0001, 1 << 40]);
    assert_eq!((outcome, errs), (Outcome::Done(0), vec![0, -22, -22]));
    // The owner gives all back; the pages stay, and count, until they are unmapped.
    assert_eq!(owner.reservation(Op::DecreaseReservation, &theirs, 0), Outcome::Done(80));
    assert_eq!(owner.pages(), 80);
    for gpfn in gfns.into_iter().chain([0x20_0000]) {
        let argument = RemoveFromPhysmap { domid: DOMID_SELF, _pad: [0; 3], gpfn };
        assert_eq!(dom0.with(Op::RemoveFromPhysmap, &argument), Outcome::Done(0));
    }
    assert_eq!(owner.pages(), 0);
    // Who else: nobody may, not from himself, and not from one who is not there.
    let stranger = Fixture::new(204, 100);
    assert_eq!(batch(&stranger, Space::GmfnForeign, id, &[0xf000], &[1]).1, vec![-1]);
    assert_eq!(batch(&dom0, Space::GmfnForeign, DOMID_SELF, &[0], &[1]).1, vec![-22]);
    assert_eq!(batch(&dom0, Space::GmfnForeign, DomId::new(0x7ee), &[0], &[1]).1, vec![-3]);
    assert_eq!(batch(&dom0, Space::GmfnRange, id, &[0], &[1]).0, failed(Errno::EOPNOTSUPP));
    assert_eq!(batch(&dom0, Space::DevMmio, id, &[0], &[1]).0, failed(Errno::EOPNOTSUPP));
    assert_eq!(batch(&dom0, Space::Gmfn, id, &[0], &[1]).1, vec![-38]);
    domain::remove(id);
}

#[test]
fn a_domain_is_built_by_the_control_domain() {
    machine(32);
    let built = guest(205, 300);
    domain::insert(built.domain.clone());
    let dom0 = Fixture::new(0, 10);
    let claim = |nr_extents| {
        dom0.with(
            Op::ClaimPages,
            &Reservation { nr_extents, domid: DomId::new(205), ..Reservation::default() },
        )
    };
    assert_eq!(claim(256), Outcome::Done(0));
    assert_eq!(claim(256), failed(Errno::EINVAL));
    let populate = Reservation {
        extent_start: dom0.list(0, &[0x4_0000, 0x4_0040, 0x4_0080, 0x4_00c0]),
        nr_extents: 4,
        extent_order: 6,
        domid: DomId::new(205),
        ..Reservation::default()
    };
    assert_eq!(dom0.with(Op::PopulatePhysmap, &populate), Outcome::Done(4));
    assert_eq!((built.domain.pages.current(), memory().claimed()), (Pages::new(256), Pages::ZERO));
    assert_eq!(claim(0), Outcome::Done(0));
    let stranger = Fixture::new(206, 10);
    let theirs = Reservation { extent_start: stranger.list(0, &[0x4_0000]), ..populate };
    assert_eq!(stranger.with(Op::DecreaseReservation, &theirs), Outcome::Done(0));
    let claim = Reservation { nr_extents: 1, domid: DomId::new(205), ..Reservation::default() };
    assert_eq!(stranger.with(Op::ClaimPages, &claim), failed(Errno::EPERM));
    domain::remove(DomId::new(205));
}

#[test]
fn the_grant_table_is_acquired_as_a_resource() {
    machine(32);
    let owner = guest(207, 300);
    domain::insert(owner.domain.clone());
    let dom0 = Fixture::new(0, 10);
    let mut request = AcquireResource {
        domid: DomId::new(207),
        r#type: ResourceType::GrantTable as u16,
        id: XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED,
        ..AcquireResource::default()
    };
    assert_eq!(dom0.with(Op::AcquireResource, &request), Outcome::Done(0));
    assert_eq!(dom0.guest.take::<AcquireResource>(dom0.structs).nr_frames, 4);
    request.nr_frames = 2;
    assert_eq!(dom0.with(Op::AcquireResource, &request), failed(Errno::EINVAL), "a size, but no list");
    request.frame_list = dom0.list(0, &[0x30_0000, 0x30_0001]);
    assert_eq!(dom0.with(Op::AcquireResource, &request), Outcome::Done(0));
    let at = |gfn| dom0.guest.domain.p2m.lookup(Gfn::new(gfn)).map(|(_, page_type)| page_type);
    assert_eq!((at(0x30_0000), at(0x30_0001)), (Some(PageType::Foreign), Some(PageType::Foreign)));
    request.frame = 3;
    assert_eq!(dom0.with(Op::AcquireResource, &request), failed(Errno::EINVAL), "beyond its end");
    request.frame = u64::MAX;
    assert_eq!(dom0.with(Op::AcquireResource, &request), failed(Errno::EINVAL));
    request.domid = DomId::new(0x7ed);
    request.frame = 0;
    assert_eq!(dom0.with(Op::AcquireResource, &request), failed(Errno::ESRCH));
    domain::remove(DomId::new(207));
}

#[test]
fn what_arm_does_not_have() {
    machine(16);
    let fixture = Fixture::new(1, 10);
    for op in [
        Op::MachphysMfnList,
        Op::MemoryMap,
        Op::MachineMemoryMap,
        Op::MachphysMapping,
        Op::SetMemoryMap,
        Op::PagingOp,
        Op::SharingOp,
        Op::ReservedDeviceMemoryMap,
    ] {
        assert_eq!(fixture.make(op, fixture.structs), failed(Errno::ENOSYS), "{op:?}");
    }
    for op in [8, 29, 63] {
        assert_eq!(call(&fixture.guest.caller(), &[op, 0, 0, 0, 0]), failed(Errno::ENOSYS));
    }
    assert_eq!(fixture.make(Op::GetSharingSharedPages, 0), Outcome::Done(0));
    let topology = VnumaTopologyInfo { domid: DOMID_SELF, ..VnumaTopologyInfo::default() };
    assert_eq!(fixture.with(Op::GetVnumainfo, &topology), failed(Errno::EOPNOTSUPP));
    let half = Reservation { nr_extents: 1, extent_order: 0, domid: DOMID_SELF, ..Reservation::default() };
    let exchange = MemoryExchange { r#in: half, out: half, nr_exchanged: 0 };
    assert_eq!(fixture.with(Op::Exchange, &exchange), failed(Errno::EINVAL));
    let wide = Reservation { extent_order: 70, ..half };
    let exchange = MemoryExchange { r#in: wide, out: wide, nr_exchanged: 0 };
    assert_eq!(fixture.with(Op::Exchange, &exchange), failed(Errno::EPERM));
}

#[test]
fn pages_outside_the_map_count_and_come_back() {
    machine(16);
    let fixture = Fixture::new(1, 20);
    let reservation =
        Reservation { nr_extents: 3, extent_order: 2, domid: DOMID_SELF, ..Reservation::default() };
    assert_eq!(fixture.with(Op::IncreaseReservation, &reservation), Outcome::Done(3));
    assert_eq!(fixture.pages(), 12);
    assert_eq!(fixture.with(Op::IncreaseReservation, &reservation), Outcome::Done(2), "the maximum");
    let p2m = &fixture.guest.domain.p2m;
    let held = memory().free_count();
    while p2m.teardown(&mut 10) == stage2::Progress::Preempted {}
    assert_eq!(fixture.guest.domain.pages.current(), stage2::Pages::ZERO);
    assert!(memory().free_count() >= held.saturating_add(stage2::Pages::new(20)));
    let late = memory().allocate(0).unwrap().clear();
    assert_eq!(p2m.add_unmapped(late), Err(Errno::ESRCH), "nothing more for the dead");
}

#[test]
fn memory_on_demand_is_marked_for_another_and_backed_when_it_is_needed() {
    machine(64);
    let dom0 = Fixture::new(0, 100);
    let built = guest(207, 2048);
    domain::insert(built.domain.clone());
    let mark = |gfns: &[u64], order| {
        let reservation = Reservation {
            extent_start: dom0.list(0, gfns),
            nr_extents: gfns.len() as u64,
            extent_order: order,
            mem_flags: XENMEMF_POPULATE_ON_DEMAND,
            domid: DomId::new(207),
            ..Reservation::default()
        };
        dom0.with(Op::PopulatePhysmap, &reservation)
    };
    let free = memory().free_count();
    assert_eq!(mark(&[0x4_0000, 0x8_0000, 0xc_0000], 18), Outcome::Done(3));
    assert!(free.saturating_sub(memory().free_count()) <= Pages::new(1), "3 GiB in one table");
    assert_eq!(built.domain.p2m.highest(), Gfn::new(0xf_ffff));
    assert_eq!(mark(&[0x4_0000, 0x10_0000], 0), Outcome::Done(2), "what is marked stays marked");
    // dom0 writes the kernel: the page is there, and counted.
    let (page, writable) = built.domain.p2m.get_ram_or_shared(Gfn::new(0x4_0080)).unwrap();
    assert!(writable && page.read_u64(0) == 0);
    assert_eq!(built.domain.pages.current(), Pages::ONE);
    assert_eq!(mark(&[0x4_0080], 0), Outcome::Done(0), "there is memory");
    assert_eq!(mark(&[0x4_0000], 9), Outcome::Done(0));

    // The guest gives back what it never touched, takes it again, and unmaps what it never touched.
    let own = |op, gfn: u64, mem_flags| {
        let reservation = Reservation {
            extent_start: dom0.list(2, &[gfn]),
            nr_extents: 1,
            mem_flags,
            domid: DomId::new(207),
            ..Reservation::default()
        };
        dom0.with(op, &reservation)
    };
    assert_eq!(own(Op::DecreaseReservation, 0x8_0000, 0), Outcome::Done(1));
    assert_eq!(own(Op::DecreaseReservation, 0x8_0000, 0), Outcome::Done(0));
    assert_eq!(own(Op::PopulatePhysmap, 0x8_0000, 0), Outcome::Done(1));
    assert_eq!(own(Op::PopulatePhysmap, 0x8_0001, 0), Outcome::Done(1), "over memory on demand");
    assert_eq!(built.domain.pages.current(), Pages::new(3));
    let remove = RemoveFromPhysmap { domid: DomId::new(207), gpfn: 0xc_0000, ..RemoveFromPhysmap::default() };
    assert_eq!(dom0.with(Op::RemoveFromPhysmap, &remove), Outcome::Done(0));
    assert_eq!(dom0.with(Op::RemoveFromPhysmap, &remove), failed(Errno::ENOENT));
    drop(page);
    domain::remove(DomId::new(207));
}

#[test]
fn a_target_is_set_by_the_control_domain_and_read_by_the_domain_itself() {
    machine(64);
    let dom0 = Fixture::new(0, 100);
    let other = Fixture::new(208, 2048);
    let domain = &other.guest.domain;
    domain::insert(domain.clone());
    let port = crate::event::bind_virq(domain, pv_abi::xen::Virq::Arch0.raw(), 0).unwrap();
    let word = core::mem::offset_of!(pv_abi::xen::SharedInfo, evtchn_pending);
    let pending = || domain.shared_info().unwrap().read_u64(word) & 1 << port != 0;
    let request = |domid, target_pages| PodTarget { domid, target_pages, ..PodTarget::default() };
    let id = DomId::new(208);

    assert_eq!(other.with(Op::GetPodTarget, &request(DOMID_SELF, 0)), Outcome::Done(0));
    let answer: PodTarget = other.guest.take(other.structs);
    assert_eq!((answer.target_pages, answer.tot_pages, answer.pod_entries), (2048 + 5, 5, 0), "the maximum");

    assert_eq!(other.with(Op::SetPodTarget, &request(DOMID_SELF, 100)), failed(Errno::EPERM));
    assert_eq!(other.with(Op::GetPodTarget, &request(DomId::DOM0, 0)), failed(Errno::ESRCH));
    assert!(!pending());
    assert_eq!(dom0.with(Op::SetPodTarget, &request(id, 1000)), Outcome::Done(0));
    assert!(pending(), "the domain is told");
    let answer: PodTarget = dom0.guest.take(dom0.structs);
    assert_eq!((answer.target_pages, answer.tot_pages, answer.domid), (1000, 5, id));
    assert_eq!((domain.pages.claimed(), memory().claimed()), (Pages::new(995), Pages::new(995)));
    assert_eq!(
        dom0.with(Op::SetPodTarget, &request(id, 2048 + 6)),
        failed(Errno::EINVAL),
        "beyond the maximum"
    );
    assert_eq!(dom0.with(Op::SetPodTarget, &request(DomId::new(209), 1)), failed(Errno::ESRCH));

    assert_eq!(other.with(Op::GetPodTarget, &request(DOMID_SELF, 0)), Outcome::Done(0));
    assert_eq!(other.guest.take::<PodTarget>(other.structs).target_pages, 1000);
    // It takes what it was promised.
    let gfns: Vec<u64> = (0..64).collect();
    assert_eq!(other.reservation(Op::PopulatePhysmap, &gfns, 0), Outcome::Done(64));
    assert_eq!(memory().claimed(), Pages::new(995 - 64));
    let counters = pv_abi::nacelle::MemoryCounters { domid: id, ..Default::default() };
    dom0.guest.put(dom0.structs, &counters);
    let call =
        |by: &Fixture| call(&by.guest.caller(), &[XENMEM_NACELLE_COUNTERS.into(), by.structs, 0, 0, 0]);
    assert_eq!(call(&dom0), Outcome::Done(0));
    let counters: pv_abi::nacelle::MemoryCounters = dom0.guest.take(dom0.structs);
    assert_eq!((counters.pages_4k, counters.claimed, counters.blocks_2m), (64 + 5, 995 - 64, 0));
    other.guest.put(
        other.structs,
        &pv_abi::nacelle::MemoryCounters { domid: DomId::new(209), ..Default::default() },
    );
    assert_eq!(call(&other), failed(Errno::ESRCH));
    domain::remove(id);
}
