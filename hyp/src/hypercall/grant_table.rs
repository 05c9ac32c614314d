//! `grant_table_op`: x0 is the operation, x1 the address of a list of its structures, x2 how many (public header
//! `grant_table.h`).
#![forbid(unsafe_code)]

use core::mem::offset_of;

use alloc::sync::Arc;

use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use pv_abi::grant_table::{
    CacheFlush, Copy, GNTTAB_CACHE_CLEAN, GNTTAB_CACHE_INVAL, GetStatusFrames, GetVersion, MapGrantRef, Op,
    QuerySize, SetVersion, SetupTable, Status, SwapGrantRef, Transfer, UnmapAndReplace, UnmapGrantRef,
};
use stage2::{PAGE_SIZE, Pa};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Caller, Outcome};
use crate::arch;
use crate::domain::Domain;
use crate::grant;
use crate::mm::guest;
use crate::privilege::{self, Action};

/// Entries read, handled and written back together, at most.
const BATCH: usize = 32;

/// The gfn that stands for none (`INVALID_GFN`).
const NO_GFN: u64 = u64::MAX;

/// Serves the call.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    // Xen's `unsigned int cmd` and `unsigned int count`: the low halves. A count that is negative as an `int` is none.
    let (Ok(op), Ok(count)) = (Op::try_from(args[0] as u32), i32::try_from(args[2] as u32)) else {
        let errno = if (args[2] as u32).cast_signed() < 0 { Errno::EINVAL } else { Errno::ENOSYS };
        return Err::<(), _>(errno).into();
    };
    let count = u64::from(count.unsigned_abs());
    let at = args[1];
    let own = caller.domain;
    match op {
        Op::MapGrantRef => batches(caller, args, count, BATCH, |entries: &mut [MapGrantRef]| {
            grant::map(own, entries);
            Ok(())
        }),
        Op::UnmapGrantRef => batches(caller, args, count, BATCH, |entries: &mut [UnmapGrantRef]| {
            grant::unmap(own, entries);
            Ok(())
        }),
        Op::Copy => each(caller, args, count, |entry: &mut Copy| {
            entry.status = grant::copy(own, entry).raw();
            Ok(())
        }),
        Op::UnmapAndReplace => each(caller, args, count, |entry: &mut UnmapAndReplace| {
            entry.status = grant::replace(own, entry).raw();
            Ok(())
        }),
        // For PV guests only. This status says that the page is still the caller's.
        Op::Transfer => each(caller, args, count, |entry: &mut Transfer| {
            entry.status = Status::BadPage.raw();
            Ok(())
        }),
        Op::SwapGrantRef => each(caller, args, count, |entry: &mut SwapGrantRef| {
            entry.status = status_of(own.grants.swap(entry.ref_a, entry.ref_b));
            Ok(())
        }),
        // One by one: each may look through all that the caller has mapped.
        Op::CacheFlush => batches(caller, args, count, 1, |entries: &mut [CacheFlush]| {
            entries.iter_mut().try_for_each(|entry| cache_flush(own, entry))
        }),
        Op::SetupTable if count == 1 => setup_table(caller, at).into(),
        Op::QuerySize if count == 1 => query_size(caller, at).into(),
        Op::GetStatusFrames if count == 1 => get_status_frames(caller, at).into(),
        Op::SetupTable | Op::QuerySize | Op::GetStatusFrames => Err::<(), _>(Errno::EINVAL).into(),
        Op::SetVersion => set_version(caller, at).into(),
        Op::GetVersion => get_version(caller, at).into(),
        // Not in Xen either.
        Op::DumpTable => Err::<(), _>(Errno::ENOSYS).into(),
    }
}

fn status_of(result: Result<(), Status>) -> i16 {
    match result {
        Ok(()) => Status::Okay.raw(),
        Err(status) => status.raw(),
    }
}

/// Handles a list in batches of at most `most`, each read and written back whole. An error, or an address that cannot be
/// accessed, ends it.
fn batches<T: FromBytes + IntoBytes + Immutable + Clone>(
    caller: &Caller<'_>,
    args: &[u64; 5],
    count: u64,
    most: usize,
    mut handle: impl FnMut(&mut [T]) -> Result<(), Errno>,
) -> Outcome {
    let size = size_of::<T>() as u64;
    let (mut at, mut left) = (args[1], count);
    while left > 0 {
        let mut entries: [T; BATCH] = core::array::from_fn(|_| T::new_zeroed());
        let now = left.min(most.min(BATCH) as u64) as usize;
        let Some(entries) = entries.get_mut(..now) else { return Err::<(), _>(Errno::EINVAL).into() };
        let result = guest::read_slice(caller, at, entries.as_mut_bytes())
            .and_then(|()| handle(entries))
            .and_then(|()| guest::write_slice(caller, at, entries.as_bytes()));
        if let Err(errno) = result {
            return Err::<(), _>(errno).into();
        }
        at = at.wrapping_add(size * now as u64);
        left -= now as u64;
        if left > 0 && arch::interrupt_pending() {
            return Outcome::Again([args[0], at, left, 0, 0]);
        }
    }
    Outcome::Done(0)
}

/// Handles a list entry by entry.
fn each<T: FromBytes + IntoBytes + Immutable + Clone>(
    caller: &Caller<'_>,
    args: &[u64; 5],
    count: u64,
    mut handle: impl FnMut(&mut T) -> Result<(), Errno>,
) -> Outcome {
    batches(caller, args, count, BATCH, |entries: &mut [T]| entries.iter_mut().try_for_each(&mut handle))
}

/// [`privilege::subject`], with the statuses of calls that have one.
fn find(caller: &Caller<'_>, id: DomId) -> Result<Arc<Domain>, Status> {
    privilege::subject(caller, Action::AskGrants, id).map_err(|errno| match errno {
        Errno::EPERM => Status::PermissionDenied,
        _ => Status::BadDomain,
    })
}

fn setup_table(caller: &Caller<'_>, at: u64) -> Result<(), Errno> {
    let mut arg: SetupTable = guest::read(caller, at)?;
    let status = find(caller, arg.dom).and_then(|domain| {
        grant::grow(&domain, arg.nr_frames)?;
        for index in 0..arg.nr_frames {
            let gfn = grant::mapped_at(&domain, index).map_or(NO_GFN, |gfn| gfn.raw());
            let place = arg.frame_list.raw().wrapping_add(u64::from(index) * 8);
            guest::write(caller, place, &gfn).map_err(|_| Status::BadVirtAddr)?;
        }
        Ok(())
    });
    arg.status = status_of(status);
    guest::write(caller, at, &arg)
}

fn query_size(caller: &Caller<'_>, at: u64) -> Result<(), Errno> {
    let mut arg: QuerySize = guest::read(caller, at)?;
    let status = find(caller, arg.dom).map(|domain| {
        // Xen gives a table its first frame at birth; here it comes when first asked for, if there is memory then.
        let _ = grant::grow(&domain, 1);
        arg.nr_frames = domain.grants.frames();
        arg.max_nr_frames = domain.grants.max_frames();
    });
    arg.status = status_of(status);
    guest::write(caller, at, &arg)
}

/// Version 1 has no status frames.
fn get_status_frames(caller: &Caller<'_>, at: u64) -> Result<(), Errno> {
    let arg: GetStatusFrames = guest::read(caller, at)?;
    let status = match (find(caller, arg.dom), arg.nr_frames) {
        (Ok(_), 0) => Ok(()),
        (Ok(_), _) => Err(Status::GeneralError),
        (Err(status), _) => Err(status),
    };
    guest::write(caller, at.wrapping_add(offset_of!(GetStatusFrames, status) as u64), &status_of(status))
}

/// Version 2 is not offered on Arm: `ENOSYS`, and `version` says what is in use.
fn set_version(caller: &Caller<'_>, at: u64) -> Result<(), Errno> {
    let arg: SetVersion = guest::read(caller, at)?;
    let result = match arg.version {
        1 => Ok(()),
        2 => Err(Errno::ENOSYS),
        _ => return Err(Errno::EINVAL),
    };
    guest::write(caller, at, &SetVersion { version: 1 })?;
    result
}

fn get_version(caller: &Caller<'_>, at: u64) -> Result<(), Errno> {
    let mut arg: GetVersion = guest::read(caller, at)?;
    privilege::subject(caller, Action::AskGrants, arg.dom)?;
    arg.version = 1;
    guest::write(caller, at, &arg)
}

/// Cache maintenance on a part of a page, named by its machine address: one of the caller's own, or mapped by a grant.
fn cache_flush(own: &Arc<Domain>, entry: &CacheFlush) -> Result<(), Errno> {
    let end = u64::from(entry.offset) + u64::from(entry.length);
    if u64::from(entry.offset) >= PAGE_SIZE || end > PAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    if entry.length == 0 || entry.op == 0 {
        return Ok(());
    }
    if entry.op & !(GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL) != 0 {
        // Naming it by a grant reference is among these, as in Xen.
        return Err(Errno::EOPNOTSUPP);
    }
    // Clean and invalidate whatever is asked for, the whole page: more than asked is harmless, and invalidating alone
    // could show the guest what lay in memory before.
    grant::reachable(own, Pa::new(entry.a).mfn())?.clean_invalidate();
    Ok(())
}
