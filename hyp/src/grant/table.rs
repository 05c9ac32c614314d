//! The grants that one domain gives: the frames it shares with EL2, and which entries are in use by others.
//!
//! An entry is the guest's; EL2 sets `GTF_reading` and `GTF_writing` in it while somebody uses it, by compare-and-exchange
//! on type, flags and domain together, so that the guest cannot revoke what is in use. Those marks are for the guest:
//! EL2 itself goes by [`Active`], which the guest cannot change, and which holds the page.
//! ```text
//!   entry: permit_access ── acquire ──▶ + reading (+ writing) ── last release ──▶ permit_access
//!   active:      none    ───────────▶ {page, readers, writers} ───────────────▶ none
//! ```
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::mem::offset_of;

use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use pv_abi::grant_table::{
    EntryV1, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TYPE_MASK, GTF_WRITING,
    GrantRef, Status,
};
use stage2::{Gfn, PAGE_SIZE};

use crate::mm::heap;
use crate::mm::page::PageRef;
use crate::p2m::P2m;

/// Entries in a frame.
const ENTRIES: u32 = (PAGE_SIZE / size_of::<EntryV1>() as u64) as u32;

/// Updates of an entry that the guest keeps changing are given up after this many.
const ATTEMPTS: usize = 5;

/// What a grant is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// An entry in use.
struct Active {
    /// By whom. All uses at a time are one domain's.
    user: DomId,
    page: PageRef,
    /// Whether the granter may write the page itself.
    is_writable: bool,
    readers: u32,
    writers: u32,
}

/// A domain's grant table.
#[derive(Default)]
pub(super) struct Table {
    frames: Vec<PageRef>,
    /// Per frame its entries in use; nothing for a frame of which none ever was.
    active: Vec<Vec<Option<Active>>>,
    /// No frames any more: the domain goes away.
    is_closed: bool,
}

impl Table {
    pub(super) const fn new() -> Self {
        Self { frames: Vec::new(), active: Vec::new(), is_closed: false }
    }

    /// Frames it has.
    pub(super) fn frames(&self) -> &[PageRef] {
        &self.frames
    }

    /// Gives it `count` frames at least. `EINVAL` for a domain that goes away.
    pub(super) fn grow(&mut self, owner: DomId, count: usize) -> Result<(), Errno> {
        let more = count.saturating_sub(self.frames.len());
        if more != 0 && self.is_closed {
            return Err(Errno::EINVAL);
        }
        heap::reserve(&mut self.frames, more)?;
        for _ in 0..more {
            self.frames.push(PageRef::allocate_shared(owner)?);
        }
        Ok(())
    }

    fn active(&self, gref: GrantRef) -> Option<&Active> {
        self.active.get((gref / ENTRIES) as usize)?.get((gref % ENTRIES) as usize)?.as_ref()
    }

    /// Where an entry's use is noted. A user makes that grow, so that must not fail but by a status.
    fn place(active: &mut Vec<Vec<Option<Active>>>, gref: GrantRef) -> Result<&mut Option<Active>, Status> {
        let (frame, index) = ((gref / ENTRIES) as usize, (gref % ENTRIES) as usize);
        let missing = (frame + 1).saturating_sub(active.len());
        heap::reserve(active, missing).map_err(|_| Status::NoSpace)?;
        active.resize_with(active.len() + missing, Vec::new);
        let of_frame = active.get_mut(frame).ok_or(Status::BadGntref)?;
        if of_frame.is_empty() {
            heap::reserve(of_frame, ENTRIES as usize).map_err(|_| Status::NoSpace)?;
            of_frame.resize_with(ENTRIES as usize, || None);
        }
        of_frame.get_mut(index).ok_or(Status::BadGntref)
    }

    /// Marks an entry as used by `user` and returns the page it grants, one of the domain's own memory.
    ///
    /// `for_map`: a grant of a part of a page does not allow it.
    pub(super) fn acquire(
        &mut self,
        p2m: &P2m,
        gref: GrantRef,
        user: DomId,
        wanted: Use,
        for_map: bool,
    ) -> Result<PageRef, Status> {
        let (frame, at) = entry(&self.frames, gref)?;
        let place = Self::place(&mut self.active, gref)?;
        let active = place.as_ref();
        if active.is_some_and(|a| a.user != user || a.readers == u32::MAX || a.writers == u32::MAX) {
            return Err(Status::GeneralError);
        }
        if active.is_some_and(|a| wanted == Use::Write && !a.is_writable) {
            return Err(Status::BadPage);
        }
        // Marked already for this use: the entry may say what it likes.
        let is_marked = active.is_some_and(|a| wanted == Use::Read || a.writers != 0);
        if !is_marked {
            mark(frame, at, user, wanted, for_map, active.is_some())?;
        }
        let active = match place {
            Some(active) => active,
            None => {
                let gfn = frame.read_u32(at + offset_of!(EntryV1, frame));
                match p2m.get_ram(Gfn::new(gfn.into())) {
                    Ok((page, is_writable)) if is_writable || wanted == Use::Read => {
                        place.insert(Active { user, page, is_writable, readers: 0, writers: 0 })
                    }
                    Ok(_) | Err(_) => {
                        unmark(frame, at, GTF_READING | GTF_WRITING);
                        return Err(Status::BadPage);
                    }
                }
            }
        };
        match wanted {
            Use::Read => active.readers += 1,
            Use::Write => active.writers += 1,
        }
        Ok(active.page.clone())
    }

    /// Ends a use. The page is returned when it was the last one, to be dropped without the lock.
    pub(super) fn release(&mut self, gref: GrantRef, used: Use) -> Option<PageRef> {
        let place = self.active.get_mut((gref / ENTRIES) as usize)?.get_mut((gref % ENTRIES) as usize)?;
        let active = place.as_mut()?;
        match used {
            Use::Read => active.readers = active.readers.saturating_sub(1),
            Use::Write => active.writers = active.writers.saturating_sub(1),
        }
        let mut done = 0;
        if active.writers == 0 && used == Use::Write {
            done |= GTF_WRITING;
        }
        let is_last = active.readers == 0 && active.writers == 0;
        if is_last {
            done |= GTF_READING;
        }
        if done != 0
            && let Ok((frame, at)) = entry(&self.frames, gref)
        {
            unmark(frame, at, done);
        }
        if is_last { place.take().map(|active| active.page) } else { None }
    }

    /// Exchanges two entries that are not in use.
    pub(super) fn swap(&self, a: GrantRef, b: GrantRef) -> Result<(), Status> {
        let (frame_a, at_a) = entry(&self.frames, a)?;
        let (frame_b, at_b) = entry(&self.frames, b)?;
        if a == b {
            return Ok(());
        }
        if self.active(a).is_some() || self.active(b).is_some() {
            return Err(Status::Eagain);
        }
        let old = frame_a.read_u64(at_a);
        frame_a.write_u64(at_a, frame_b.read_u64(at_b));
        frame_b.write_u64(at_b, old);
        Ok(())
    }

    /// Gives the frames up for good, so that nothing more is granted; entries in use stay known until they are released.
    pub(super) fn close(&mut self) -> Vec<PageRef> {
        self.is_closed = true;
        core::mem::take(&mut self.frames)
    }
}

/// The frame and the offset of an entry.
fn entry(frames: &[PageRef], gref: GrantRef) -> Result<(&PageRef, usize), Status> {
    let frame = frames.get((gref / ENTRIES) as usize).ok_or(Status::BadGntref)?;
    Ok((frame, (gref % ENTRIES) as usize * size_of::<EntryV1>()))
}

/// Sets the marks of a use in an entry that permits it. A pinned entry's type and domain were checked when it was.
fn mark(
    frame: &PageRef,
    at: usize,
    user: DomId,
    wanted: Use,
    for_map: bool,
    is_pinned: bool,
) -> Result<(), Status> {
    let type_mask = if for_map { GTF_TYPE_MASK | GTF_SUB_PAGE } else { GTF_TYPE_MASK };
    let mut found = frame.read_u32(at);
    for _ in 0..ATTEMPTS {
        // `flags` is the low half, `domid` the high one: struct grant_entry_v1, little-endian.
        let (flags, domid) = (found as u16, DomId::new((found >> 16) as u16));
        if !is_pinned && (flags & type_mask != GTF_PERMIT_ACCESS || domid != user) {
            return Err(Status::GeneralError);
        }
        if wanted == Use::Write && flags & GTF_READONLY != 0 {
            return Err(Status::GeneralError);
        }
        let marks = if wanted == Use::Write { GTF_READING | GTF_WRITING } else { GTF_READING };
        match frame.compare_exchange_u32(at, found, found | u32::from(marks)) {
            Ok(_) => return Ok(()),
            Err(other) => found = other,
        }
    }
    Err(Status::GeneralError)
}

fn unmark(frame: &PageRef, at: usize, marks: u16) {
    frame.fetch_and_u16(at + offset_of!(EntryV1, flags), !marks);
}
