//! `XENMEM_acquire_resource`: the control domain maps pages that EL2 keeps for another domain.

use arrayvec::ArrayVec;
use core::mem::offset_of;
use pv_abi::errno::Errno;
use pv_abi::memory::{AcquireResource, ResourceType, XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED};
use stage2::Gfn;
use zerocopy::IntoBytes;

use super::super::Caller;
use super::{MAX_EXTENTS, Progress};
use crate::arch;
use crate::domain::Domain;
use crate::grant;
use crate::mm::guest;
use crate::mm::page::PageRef;
use crate::privilege::{self, Action};

/// Frames handled in one batch.
const CHUNK: usize = 32;

/// Frames that a resource has at most; 0 for what does not exist.
fn max_frames(target: &Domain, request: &AcquireResource) -> u32 {
    match ResourceType::try_from(u32::from(request.r#type)).ok() {
        Some(ResourceType::GrantTable) => match request.id {
            XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED => target.grants.max_frames(),
            // Version 1 tables have no status frames.
            _ => 0,
        },
        // arm64 has neither device-model servers nor trace buffers.
        Some(ResourceType::IoreqServer | ResourceType::VmtraceBuf) | None => 0,
    }
}

/// Frame `index` of a resource that [`max_frames`] knows.
fn frame(target: &Domain, id: u32, index: u64) -> Result<PageRef, Errno> {
    match id {
        XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED => grant_frame(target, index),
        _ => Err(Errno::EINVAL),
    }
}

/// Maps the frames at the guest frames that the caller lists, or says how many there are.
#[inline(never)]
pub(super) fn acquire(caller: &Caller<'_>, argument: u64, start: u64) -> Result<Progress, Errno> {
    let request: AcquireResource = guest::read(caller, argument)?;
    let frames = u64::from(request.nr_frames);
    if request.pad != 0 || request.frame.checked_add(frames).is_none_or(|end| end > u64::from(u32::MAX)) {
        return Err(Errno::EINVAL);
    }
    let target = privilege::other_subject(caller, Action::AcquireResource, request.domid)?;
    let max_frames = max_frames(&target, &request);
    if max_frames == 0 {
        return Err(Errno::EINVAL);
    }
    if request.frame_list.is_null() {
        if request.nr_frames != 0 || start != 0 {
            return Err(Errno::EINVAL);
        }
        let place = argument.wrapping_add(offset_of!(AcquireResource, nr_frames) as u64);
        guest::write(caller, place, &max_frames)?;
        return Ok(Progress::Done(0));
    }
    if start >= frames || frames > MAX_EXTENTS {
        return Err(Errno::EINVAL);
    }
    let mut done = start;
    while done < frames {
        if done != start && arch::interrupt_pending() {
            return Ok(Progress::Interrupted(done));
        }
        let count = usize::try_from(frames - done).map_or(CHUNK, |left| left.min(CHUNK));
        let mut gfns = [0u64; CHUNK];
        let gfns = &mut gfns[..count];
        guest::read_slice(caller, request.frame_list.raw().wrapping_add(done * 8), gfns.as_mut_bytes())?;
        let indexes = (0..count as u64).map(|index| request.frame + done + index);
        let pages: Result<ArrayVec<PageRef, CHUNK>, Errno> =
            indexes.map(|index| frame(&target, request.id, index)).collect();
        let pages = pages?;
        caller.domain.p2m.edit(|batch| {
            pages
                .into_iter()
                .zip(gfns.iter())
                .try_for_each(|(page, &gfn)| batch.map_foreign(Gfn::new(gfn), page, true))
        })?;
        done += count as u64;
    }
    Ok(Progress::Done(0))
}

/// A frame of a domain's grant table, which grows to have it. `EINVAL` for an index past its maximum, as one with
/// `XENMAPIDX_grant_table_status` always is.
pub(super) fn grant_frame(target: &Domain, index: u64) -> Result<PageRef, Errno> {
    grant::frame(target, u32::try_from(index).map_err(|_| Errno::EINVAL)?)
}
