//! Grants between real domains on a fake machine.

extern crate std;
use core::mem::offset_of;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use pv_abi::domid::{DOMID_SELF, DomId};
use pv_abi::grant_table::{
    Copy, CopyPtr, EntryV1, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTMAP_DEVICE_MAP, GNTMAP_HOST_MAP,
    GNTMAP_READONLY, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_WRITING, MapGrantRef,
    UnmapAndReplace, UnmapGrantRef,
};

use super::*;
use crate::arch::Access;
use crate::arch::tlb::take_invalidations;
use crate::domain;
use crate::mm::memory;
use crate::mm::testing::{Guest, guest, machine};

/// The list of domains is one for all tests, which run side by side: each takes numbers of its own.
fn numbers<const N: usize>() -> [u16; N] {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    core::array::from_fn(|_| NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A guest in the list of domains, with memory at gfn 0 to 7.
struct Listed(Guest);

impl core::ops::Deref for Listed {
    type Target = Guest;
    fn deref(&self) -> &Guest {
        &self.0
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        domain::remove(self.0.domain.id);
        destroy(&self.0.domain);
    }
}

fn listed(id: u16) -> Listed {
    let guest = guest(id, 64);
    for gfn in 0..8 {
        guest.populate(gfn, 0);
    }
    domain::insert(guest.domain.clone());
    Listed(guest)
}

fn two() -> (Listed, Listed) {
    machine(8);
    let [a, b] = numbers();
    (listed(a), listed(b))
}

/// Writes an entry as a guest does.
fn grant(granter: &Guest, gref: u32, to: DomId, gfn: u32, flags: u16) {
    let frame = frame(&granter.domain, gref / 512).unwrap();
    let at = (gref % 512) as usize * size_of::<EntryV1>();
    frame.write_u32(at + offset_of!(EntryV1, frame), gfn);
    frame.write_u16(at + offset_of!(EntryV1, domid), to.raw());
    frame.write_u16(at + offset_of!(EntryV1, flags), flags);
}

fn flags(granter: &Guest, gref: u32) -> u16 {
    frame(&granter.domain, gref / 512).unwrap().read_u16((gref % 512) as usize * size_of::<EntryV1>())
}

fn map_one(user: &Guest, granter: &Guest, gref: u32, gfn: u64, flags: u32) -> Result<u32, Status> {
    let mut entries = [MapGrantRef {
        host_addr: gfn << 12,
        flags,
        r#ref: gref,
        dom: granter.domain.id,
        status: 99,
        ..MapGrantRef::default()
    }];
    map(&user.domain, &mut entries);
    match Status::from_raw(entries[0].status).unwrap() {
        Status::Okay => Ok(entries[0].handle),
        status => Err(status),
    }
}

fn unmap_one(user: &Guest, handle: u32, gfn: u64) -> Status {
    let mut entries =
        [UnmapGrantRef { host_addr: gfn << 12, handle, status: 99, ..UnmapGrantRef::default() }];
    unmap(&user.domain, &mut entries);
    Status::from_raw(entries[0].status).unwrap()
}

const RW: u32 = GNTMAP_HOST_MAP;
const RO: u32 = GNTMAP_HOST_MAP | GNTMAP_READONLY;

#[test]
fn a_mapped_grant_is_the_granters_page() {
    let (a, b) = two();
    grant(&a, 8, b.domain.id, 3, GTF_PERMIT_ACCESS);
    let handle = map_one(&b, &a, 8, 0x100, RW).unwrap();
    assert_eq!(b.mfn(0x100), a.mfn(3));
    assert!(b.can(0x100, Access::Write));
    assert_eq!(flags(&a, 8), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
    assert_eq!(b.mfn(0x100), None);
    assert_eq!(flags(&a, 8), GTF_PERMIT_ACCESS);
    assert_eq!(unmap_one(&b, handle, 0x100), Status::BadHandle);
    assert_eq!(map_one(&b, &a, 8, 0x100, RW), Ok(handle), "handles are used again");
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
}

#[test]
fn a_read_only_grant_is_mapped_read_only() {
    let (a, b) = two();
    grant(&a, 0, b.domain.id, 3, GTF_PERMIT_ACCESS | GTF_READONLY);
    assert_eq!(map_one(&b, &a, 0, 0x100, RW), Err(Status::GeneralError));
    let handle = map_one(&b, &a, 0, 0x100, RO).unwrap();
    assert!(b.can(0x100, Access::Read) && !b.can(0x100, Access::Write));
    assert_eq!(flags(&a, 0), GTF_PERMIT_ACCESS | GTF_READONLY | GTF_READING);
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
}

#[test]
fn what_is_not_granted_is_refused() {
    let (a, b) = two();
    grant(&a, 1, DomId::new(1), 3, GTF_PERMIT_ACCESS);
    grant(&a, 2, b.domain.id, 3, 0);
    grant(&a, 3, b.domain.id, 99, GTF_PERMIT_ACCESS);
    grant(&a, 4, b.domain.id, 3, GTF_PERMIT_ACCESS | GTF_SUB_PAGE);
    grant(&a, 5, b.domain.id, 3, GTF_PERMIT_ACCESS);
    let free = memory().free_count();
    assert_eq!(map_one(&b, &a, 1, 0x100, RW), Err(Status::GeneralError), "another domain's");
    assert_eq!(map_one(&b, &a, 2, 0x100, RW), Err(Status::GeneralError), "invalid");
    assert_eq!(map_one(&b, &a, 3, 0x100, RW), Err(Status::BadPage), "nothing there");
    assert_eq!(flags(&a, 3), GTF_PERMIT_ACCESS, "and no mark left");
    assert_eq!(map_one(&b, &a, 4, 0x100, RW), Err(Status::GeneralError), "only to copy");
    assert_eq!(map_one(&b, &a, 512, 0x100, RW), Err(Status::BadGntref));
    assert_eq!(map_one(&b, &a, u32::MAX, 0x100, RW), Err(Status::BadGntref));
    assert_eq!(map_one(&b, &a, 5, 0x100, 0), Err(Status::BadGntref));
    assert_eq!(map_one(&b, &a, 5, 0x100, RW | GNTMAP_DEVICE_MAP), Err(Status::GeneralError));
    assert_eq!(map_one(&b, &a, 5, 1 << 50, RW), Err(Status::GeneralError), "no such address");
    assert_eq!(flags(&a, 5), GTF_PERMIT_ACCESS);
    let nobody = Listed(guest(numbers::<1>()[0], 1));
    assert_eq!(map_one(&b, &nobody, 5, 0x100, RW), Err(Status::BadDomain));
    drop(nobody);
    assert_eq!(memory().free_count(), free);
    // What b has of a's it cannot grant on.
    let handle = map_one(&b, &a, 5, 0x100, RW).unwrap();
    grant(&b, 9, a.domain.id, 0x100, GTF_PERMIT_ACCESS);
    assert_eq!(map_one(&a, &b, 9, 0x200, RW), Err(Status::BadPage));
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
}

#[test]
fn marks_go_with_the_last_use() {
    let (a, b) = two();
    grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS);
    let reader = map_one(&b, &a, 7, 0x100, RO).unwrap();
    let writer = map_one(&b, &a, 7, 0x101, RW).unwrap();
    // The granter's change of mind comes too late: EL2 goes by what it knows.
    grant(&a, 7, DomId::new(1), 5, GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    let second = map_one(&b, &a, 7, 0x102, RW).unwrap();
    assert_eq!(b.mfn(0x102), a.mfn(3));
    grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    assert_eq!(unmap_one(&b, writer, 0x101), Status::Okay);
    assert_eq!(flags(&a, 7), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    assert_eq!(unmap_one(&b, second, 0x102), Status::Okay);
    assert_eq!(flags(&a, 7), GTF_PERMIT_ACCESS | GTF_READING);
    assert_eq!(a.domain.grants.swap(7, 6), Err(Status::Eagain));
    assert_eq!(unmap_one(&b, reader, 0x100), Status::Okay);
    assert_eq!(flags(&a, 7), GTF_PERMIT_ACCESS);
    assert_eq!(a.domain.grants.swap(7, 6), Ok(()));
    assert_eq!((flags(&a, 6), flags(&a, 7)), (GTF_PERMIT_ACCESS, 0));
    assert_eq!(a.domain.grants.swap(6, 5000), Err(Status::BadGntref));
}

#[test]
fn an_unmap_must_say_where() {
    let (a, b) = two();
    grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS);
    let handle = map_one(&b, &a, 7, 0x100, RW).unwrap();
    assert_eq!(unmap_one(&b, handle, 0x101), Status::GeneralError);
    assert_eq!(unmap_one(&b, handle, 2), Status::GeneralError, "its own page");
    assert_eq!(unmap_one(&b, handle, 0), Status::Okay, "no address: nothing ends");
    assert_eq!(b.mfn(0x100), a.mfn(3));
    assert_eq!(unmap_one(&b, handle + 1, 0x100), Status::BadHandle);
    let entry = UnmapAndReplace { handle, ..UnmapAndReplace::default() };
    assert_eq!(replace(&b.domain, &entry), Status::GeneralError);
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
    assert_eq!(replace(&b.domain, &entry), Status::BadHandle);
}

#[test]
fn a_handle_ends_mappings_of_its_own_kind_only() {
    let (a, b) = two();
    grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS);
    let reader = map_one(&b, &a, 7, 0x100, RO).unwrap();
    let writer = map_one(&b, &a, 7, 0x101, RW).unwrap();
    // Otherwise the granter would be told that nobody writes any more.
    assert_eq!(unmap_one(&b, writer, 0x100), Status::GeneralError);
    assert_eq!(unmap_one(&b, reader, 0x101), Status::GeneralError);
    assert_eq!(flags(&a, 7), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    assert_eq!(unmap_one(&b, writer, 0x101), Status::Okay);
    assert_eq!(unmap_one(&b, reader, 0x100), Status::Okay);
}

#[test]
fn el2_writes_to_no_page_that_was_lent() {
    let (a, b) = two();
    grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS);
    let handle = map_one(&b, &a, 7, 0x100, RW).unwrap();
    let info = crate::event::register_vcpu_info(&b.domain, b.vcpu.id, Gfn::new(0x100), 0);
    assert_eq!(info, Err(Errno::EINVAL));
    let address = b.mfn(0x100).unwrap().pa().raw();
    b.put(address, &1u64);
    assert_eq!(crate::runstate::register(&b.caller(), &b.vcpu, address), Err(Errno::EFAULT));
    assert_eq!(crate::runstate::register(&b.caller(), &b.vcpu, b.mfn(1).unwrap().pa().raw()), Ok(()));
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
    crate::runstate::register(&b.caller(), &b.vcpu, 0).unwrap();
}

#[test]
fn a_use_that_finds_no_memory_is_an_error() {
    use crate::mm::heap::machine_is_full;
    let (a, b) = two();
    grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS);
    machine_is_full().store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(map_one(&b, &a, 7, 0x100, RW), Err(Status::NoSpace));
    let copied = copy(&b.domain, &copy_of(granted(&a, 7, 0), own(1, 0), 64, GNTCOPY_SOURCE_GREF));
    assert_eq!((copied, flags(&a, 7)), (Status::NoSpace, GTF_PERMIT_ACCESS));
    assert_eq!(grow(&a.domain, 4), Ok(()), "there was room");
    machine_is_full().store(false, std::sync::atomic::Ordering::Relaxed);
    let handle = map_one(&b, &a, 7, 0x100, RW).unwrap();
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
}

#[test]
fn a_batch_flushes_once_at_most() {
    let (a, b) = two();
    let mut maps: Vec<_> = (0..map::BATCH as u32)
        .map(|index| {
            grant(&a, index, b.domain.id, index % 8, GTF_PERMIT_ACCESS);
            MapGrantRef {
                host_addr: (0x100 + u64::from(index)) << 12,
                flags: RW,
                r#ref: index,
                dom: a.domain.id,
                ..MapGrantRef::default()
            }
        })
        .collect();
    take_invalidations();
    map(&b.domain, &mut maps);
    assert_eq!(take_invalidations().len(), 0);
    let mut unmaps: Vec<_> = maps
        .iter()
        .map(|map| {
            assert_eq!(map.status, Status::Okay.raw());
            UnmapGrantRef { host_addr: map.host_addr, handle: map.handle, ..UnmapGrantRef::default() }
        })
        .collect();
    unmap(&b.domain, &mut unmaps);
    assert!(unmaps.iter().all(|unmap| unmap.status == Status::Okay.raw()));
    assert_eq!(take_invalidations().len(), 1);
}

#[test]
fn a_granted_page_outlives_its_owners_interest() {
    let (a, b) = two();
    grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS);
    let handle = map_one(&b, &a, 7, 0x100, RW).unwrap();
    let page = b.domain.p2m.get_page(Gfn::new(0x100), Access::Write).unwrap();
    a.domain.p2m.edit(|batch| batch.give_page(Gfn::new(3))).unwrap();
    assert_eq!(a.mfn(3), None);
    assert_eq!(b.mfn(0x100), Some(page.mfn()), "b still has it");
    drop(page);
    let free = memory().free_count();
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
    assert!(memory().free_count() > free, "freed by the last use");
}

#[test]
fn a_dying_granter_leaves_its_pages_to_their_users() {
    machine(8);
    let before = memory().free_count();
    let [a, b] = numbers();
    {
        let b = listed(b);
        let a = listed(a);
        grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS);
        let handle = map_one(&b, &a, 7, 0x100, RW).unwrap();
        let mfn = a.mfn(3);
        drop(a);
        assert_eq!(b.mfn(0x100), mfn);
        assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
    }
    assert_eq!(memory().free_count(), before);
}

#[test]
fn a_dying_granter_grants_no_more_and_answers_for_what_is_used() {
    let (a, b) = two();
    for gref in 7..9 {
        grant(&a, gref, b.domain.id, gref - 4, GTF_PERMIT_ACCESS);
    }
    let handle = map_one(&b, &a, 7, 0x100, RW).unwrap();
    let frame = frame(&a.domain, 0).unwrap();
    assert!(destroy(&a.domain));
    assert_eq!(map_one(&b, &a, 8, 0x101, RW), Err(Status::BadGntref));
    assert_eq!(super::frame(&a.domain, 0).unwrap_err(), Errno::EINVAL);
    assert_eq!((a.domain.grants.frames(), grow(&a.domain, 1)), (0, Err(Status::GeneralError)));
    drop(frame);
    while a.domain.p2m.teardown(&mut { u64::MAX }) != stage2::Progress::Done {}
    assert_eq!(a.domain.pages.current().get(), 1, "the page that is mapped");
    b.domain.p2m.get_page(Gfn::new(0x100), Access::Write).unwrap().write_u64(0, 5);
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
    assert_eq!(a.domain.pages.current().get(), 0);
}

#[test]
fn a_dying_user_ends_its_uses() {
    machine(8);
    let before = memory().free_count();
    let [a, b] = numbers();
    {
        let a = listed(a);
        let b = listed(b);
        for gref in 0..8 {
            grant(&a, gref, b.domain.id, gref, GTF_PERMIT_ACCESS);
            map_one(&b, &a, gref, 0x100 + u64::from(gref), RW).unwrap();
        }
        crate::arch::set_interrupt_pending(true);
        assert!(!destroy(&b.domain), "it gives way to interrupts");
        crate::arch::set_interrupt_pending(false);
        assert!(destroy(&b.domain));
        assert_eq!(flags(&a, 4), GTF_PERMIT_ACCESS);
    }
    assert_eq!(memory().free_count(), before);
}

#[test]
fn a_handle_is_one_mappings_at_a_time() {
    let (a, _b) = two();
    let mut maptrack = Maptrack::new();
    let handles: Vec<_> = (0..3).map(|_| maptrack.reserve(false).unwrap()).collect();
    assert_eq!(handles, [0, 1, 2]);
    let mapping =
        || maptrack::Mapping { granter: a.domain.clone(), gref: 1, used: table::Use::Read, mfn: Mfn::new(5) };
    maptrack.fill(1, mapping());
    assert!(maptrack.has(1) && !maptrack.has(0) && maptrack.maps(Mfn::new(5)));
    assert!(maptrack.take(0).is_none(), "reserved only");
    assert!(maptrack.take(1).is_some() && maptrack.take(1).is_none());
    maptrack.cancel(1);
    maptrack.cancel(1);
    assert!(maptrack.take(1).is_none(), "free, and stays so");
    assert_eq!(maptrack.reserve(false), Some(1));
    assert_eq!(maptrack.reserve(false), Some(3));
    maptrack.cancel(2);
    maptrack.cancel(0);
    maptrack.fill(2, mapping());
    assert!(!maptrack.has(2), "not reserved");
    assert_eq!(
        [maptrack.reserve(false), maptrack.reserve(false), maptrack.reserve(false)],
        [Some(0), Some(2), Some(4)]
    );
}

#[test]
fn a_domain_cannot_fill_memory_with_handles() {
    let mut maptrack = Maptrack::new();
    let count = (0..1 << 20).take_while(|_| maptrack.reserve(false).is_some()).count();
    assert_eq!(count, 1 << 16);
    assert!(maptrack.reserve(true).is_some(), "the control domain may have more");
    maptrack.limit = count;
    assert_eq!(maptrack.reserve(true), None, "but for what the toolstack says");
}

#[test]
fn frames_come_on_demand_up_to_the_maximum() {
    machine(8);
    let a = guest(1, 8);
    assert_eq!((a.domain.grants.frames(), a.domain.grants.max_frames()), (0, 4));
    let third = frame(&a.domain, 2).unwrap();
    assert_eq!(a.domain.grants.frames(), 3);
    assert_eq!(frame(&a.domain, 4).unwrap_err(), Errno::EINVAL);
    assert_eq!(grow(&a.domain, 5), Err(Status::GeneralError));
    assert_eq!(grow(&a.domain, 4), Ok(()));
    assert_eq!(mapped_at(&a.domain, 2), None);
    a.domain.p2m.map_shared(Gfn::new(0x80), &third).unwrap();
    assert_eq!(mapped_at(&a.domain, 2), Some(Gfn::new(0x80)));
}

#[test]
fn caches_can_be_maintained_where_a_domain_reaches() {
    let (a, b) = two();
    grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS);
    let own = b.mfn(1).unwrap();
    let others = a.mfn(3).unwrap();
    assert!(reachable(&b.domain, own).is_ok());
    assert_eq!(reachable(&b.domain, others).unwrap_err(), Errno::EPERM);
    let handle = map_one(&b, &a, 7, 0x100, RW).unwrap();
    assert!(reachable(&b.domain, others).is_ok());
    assert_eq!(unmap_one(&b, handle, 0x100), Status::Okay);
    assert_eq!(reachable(&b.domain, others).unwrap_err(), Errno::EPERM);
}

fn own(gfn: u64, offset: u16) -> CopyPtr {
    CopyPtr { u: gfn, domid: DOMID_SELF, offset, _pad: 0 }
}

fn granted(granter: &Guest, gref: u32, offset: u16) -> CopyPtr {
    CopyPtr { u: gref.into(), domid: granter.domain.id, offset, _pad: 0 }
}

fn copy_of(source: CopyPtr, dest: CopyPtr, len: u16, flags: u16) -> Copy {
    Copy { source, dest, len, flags, ..Copy::default() }
}

#[test]
fn copies_go_both_ways_and_leave_no_mark() {
    let (a, b) = two();
    grant(&a, 7, b.domain.id, 3, GTF_PERMIT_ACCESS);
    grant(&a, 8, b.domain.id, 4, GTF_PERMIT_ACCESS | GTF_READONLY);
    let at = |guest: &Guest, gfn| guest.domain.p2m.get_page(Gfn::new(gfn), Access::Write).unwrap();
    at(&b, 1).write_u64(0x10, 0x1122_3344_5566_7788);
    let out = copy_of(own(1, 0x10), granted(&a, 7, 0xff8), 8, GNTCOPY_DEST_GREF);
    assert_eq!(copy(&b.domain, &out), Status::Okay);
    assert_eq!(at(&a, 3).read_u64(0xff8), 0x1122_3344_5566_7788);
    assert_eq!(flags(&a, 7), GTF_PERMIT_ACCESS);

    at(&a, 4).write_u32(0, 0xabcd);
    let within = copy_of(granted(&a, 8, 0), granted(&a, 7, 4), 4, GNTCOPY_SOURCE_GREF | GNTCOPY_DEST_GREF);
    assert_eq!(copy(&b.domain, &within), Status::Okay);
    assert_eq!(at(&a, 3).read_u32(4), 0xabcd);
    let to_read_only = copy_of(own(1, 0), granted(&a, 8, 0), 4, GNTCOPY_DEST_GREF);
    assert_eq!(copy(&b.domain, &to_read_only), Status::GeneralError);

    let too_far = copy_of(own(1, 0xff9), own(2, 0), 8, 0);
    assert_eq!(copy(&b.domain, &too_far), Status::BadCopyArg);
    let too_far = copy_of(own(1, 0), granted(&a, 7, 0xffff), 0xffff, GNTCOPY_DEST_GREF);
    assert_eq!(copy(&b.domain, &too_far), Status::BadCopyArg);
    assert_eq!(copy(&b.domain, &copy_of(own(1, 0), own(99, 0), 8, 0)), Status::BadPage);
    let by_number = copy_of(CopyPtr { domid: a.domain.id, ..own(1, 0) }, own(1, 0), 8, 0);
    assert_eq!(copy(&b.domain, &by_number), Status::PermissionDenied);
    let ungranted = copy_of(granted(&a, 9, 0), own(1, 0), 8, GNTCOPY_SOURCE_GREF);
    assert_eq!(copy(&b.domain, &ungranted), Status::GeneralError);
    assert_eq!((flags(&a, 7), flags(&a, 8)), (GTF_PERMIT_ACCESS, GTF_PERMIT_ACCESS | GTF_READONLY));
}

#[derive(Clone, Debug)]
enum Step {
    Grant { gref: u32, gfn: u32, writable: bool, to_user: bool },
    Revoke { gref: u32 },
    Map { gref: u32, gfn: u64, writable: bool },
    Unmap { index: usize, gfn: u64 },
    Give { gfn: u64 },
    Copy { gref: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let gref = 0..4u32;
    prop_oneof![
        3 => (gref.clone(), 0..10u32, any::<bool>(), prop::bool::weighted(0.9))
            .prop_map(|(gref, gfn, writable, to_user)| Step::Grant { gref, gfn, writable, to_user }),
        2 => gref.clone().prop_map(|gref| Step::Revoke { gref }),
        6 => (gref.clone(), 0x100..0x104u64, any::<bool>())
            .prop_map(|(gref, gfn, writable)| Step::Map { gref, gfn, writable }),
        5 => (0..8usize, 0x100..0x104u64).prop_map(|(index, gfn)| Step::Unmap { index, gfn }),
        1 => (0..8u64).prop_map(|gfn| Step::Give { gfn }),
        2 => gref.prop_map(|gref| Step::Copy { gref }),
    ]
}

/// A mapping that the model knows.
#[derive(Clone, Debug)]
struct Held {
    handle: u32,
    gref: u32,
    gfn: u64,
    mfn: Mfn,
    writable: bool,
}

proptest! {
    /// The marks in the entries, what the user can reach, and what remains in the end are those of a model.
    #[test]
    fn uses_are_counted_right(steps in prop::collection::vec(step(), 1..60)) {
        machine(8);
        let before = memory().free_count();
        {
            let [a, b] = numbers();
            let (a, b) = (listed(a), listed(b));
            frame(&a.domain, 0).unwrap();
            let mut held: Vec<Held> = vec![];
            for step in steps {
                match step {
                    // A guest changes an entry only while it is not in use, by compare-and-exchange.
                    Step::Grant { gref, gfn, writable, to_user } => {
                        if flags(&a, gref) & (GTF_READING | GTF_WRITING) == 0 {
                            let to = if to_user { b.domain.id } else { DomId::new(1) };
                            grant(&a, gref, to, gfn, GTF_PERMIT_ACCESS | if writable { 0 } else { GTF_READONLY });
                        }
                    }
                    Step::Revoke { gref } => {
                        if flags(&a, gref) & (GTF_READING | GTF_WRITING) == 0 {
                            grant(&a, gref, DomId::new(0), 0, 0);
                        }
                    }
                    Step::Map { gref, gfn, writable } => {
                        // Over another mapping only if there is none: Linux maps at free addresses.
                        if held.iter().all(|h| h.gfn != gfn) {
                            let entry = frame(&a.domain, 0).unwrap().read_u64(gref as usize * 8);
                            let page = a.mfn(entry >> 32).or_else(|| held.iter().find(|h| h.gref == gref).map(|h| h.mfn));
                            let is_granted = entry as u16 & GTF_PERMIT_ACCESS != 0
                                && (entry >> 16) as u16 == b.domain.id.raw()
                                && !(writable && entry as u16 & GTF_READONLY != 0);
                            let expected = if !is_granted {
                                Some(Status::GeneralError)
                            } else if page.is_none() {
                                Some(Status::BadPage)
                            } else {
                                None
                            };
                            let result = map_one(&b, &a, gref, gfn, if writable { RW } else { RO });
                            prop_assert_eq!(result.err(), expected);
                            if let (Ok(handle), Some(mfn)) = (result, page) {
                                // A page in use stays the one that it was, whatever the granter puts at the gfn.
                                let mfn = held.iter().find(|h| h.gref == gref).map_or(mfn, |h| h.mfn);
                                prop_assert_eq!(b.mfn(gfn), Some(mfn));
                                held.push(Held { handle, gref, gfn, mfn, writable });
                            }
                        }
                    }
                    Step::Unmap { index, gfn } => {
                        if !held.is_empty() {
                            let index = index % held.len();
                            let wanted = held[index].clone();
                            let is_there = held
                                .iter()
                                .any(|h| h.gfn == gfn && h.mfn == wanted.mfn && h.writable == wanted.writable);
                            let expected = if is_there { Status::Okay } else { Status::GeneralError };
                            prop_assert_eq!(unmap_one(&b, held[index].handle, gfn), expected);
                            if is_there {
                                // Which of two mappings of one page went is for the guest to keep straight.
                                let ended = held.remove(index);
                                if let Some(other) = held.iter_mut().find(|h| h.gfn == gfn) {
                                    other.gfn = ended.gfn;
                                }
                            }
                        }
                    }
                    Step::Give { gfn } => {
                        let _ = a.domain.p2m.edit(|batch| batch.give_page(Gfn::new(gfn)));
                    }
                    Step::Copy { gref } => {
                        let _ = copy(&b.domain, &copy_of(granted(&a, gref, 0), own(1, 0), 64, GNTCOPY_SOURCE_GREF));
                    }
                }
                for gref in 0..4 {
                    let uses = || held.iter().filter(|h| h.gref == gref);
                    let mut marks = 0;
                    if uses().next().is_some() {
                        marks |= GTF_READING;
                    }
                    if uses().any(|h| h.writable) {
                        marks |= GTF_WRITING;
                    }
                    prop_assert_eq!(flags(&a, gref) & (GTF_READING | GTF_WRITING), marks, "entry {}", gref);
                }
                for h in &held {
                    prop_assert_eq!(b.mfn(h.gfn), Some(h.mfn));
                }
            }
        }
        prop_assert_eq!(memory().free_count(), before);
    }
}
