//! A memory balloon for guests that are not Linux: unikernels, RTOSes, test programs.
//!
//! A guest sees a fixed range of memory and is to have a part of it, its *target*. The balloon gives free memory back to
//! the hypervisor until the guest has no more than that, and takes it again when the target rises.
//!
//! ```text
//!   who sets it              where it is read                                     what tells the guest
//!   xl mem-set ──┬─▶ hypervisor (Nacelle): memory_op get_pod_target ◀───┐   VIRQ_ARCH_0
//!                └─▶ XenStore (Xen, Nacelle): memory/target in KiB ◀────┤   a watch on memory/target
//!                                                              Balloon::step ─▶ decrease_reservation, populate_physmap
//! ```
//! The guest implements [`Guest`]: two hypercalls, its allocator, and XenStore if it has one ([`store`] helps). It makes a
//! [`Balloon`] when it starts, and calls [`Balloon::step`] until that says that there is nothing to do: at the start, and
//! whenever it is told that the target changed. Between two steps it may do anything else.
//!
//! # Starting with less than one sees
//! A guest whose configuration says `memory=64 maxmem=256` sees 256 MiB and was granted 64. On Nacelle memory gets its
//! backing when it is first touched, and a guest that touches more than it was granted is stopped. So the balloon is to
//! reach its target before the guest touches much; memory that [`Guest::take`] hands out untouched costs nothing to give
//! back, so an allocator should not write to what is free.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod ranges;
pub mod store;
#[cfg(test)]
mod tests;

use pv_abi::domid::DOMID_SELF;
use pv_abi::memory::Reservation;

pub use pv_abi::memory::{Op, PodTarget};
pub use ranges::Range;
use ranges::Ranges;

/// Log2 of the pages in the extents that are moved where memory allows it: 2 MiB.
pub const LARGE: u32 = 9;
/// Extents in one hypercall.
const BATCH: usize = 64;
/// Bytes of a page in KiB, XenStore's unit.
const PAGE_KIB: u64 = 4;

/// What a balloon needs of the guest that it is part of. Frames are numbers of guest-physical pages of 4 KiB.
pub trait Guest {
    /// Makes the call `memory_op(op, &reservation(frames, order))` and answers its result: how many extents were done.
    fn reserve(&mut self, op: Op, frames: &[u64], order: u32) -> i64;

    /// Makes the call `memory_op(op, target)` and answers its result. On Xen for Arm that is `ENOSYS`.
    fn memory_target(&mut self, op: Op, target: &mut PodTarget) -> i64;

    /// 2^`order` frames at a multiple of that, which nobody uses; the first one's number. `None`: there are none.
    fn take(&mut self, order: u32) -> Option<u64>;

    /// Gives frames to the allocator: those that [`take`](Self::take) answered, or memory that is back, full of zeros.
    fn put(&mut self, frame: u64, order: u32);

    /// Reads a number from XenStore, under the guest's own directory. `None`: there is none, or no XenStore.
    fn store_number(&mut self, _node: &str) -> Option<u64> {
        None
    }
}

/// The structure of a reservation call. The list must stay where it is during the call.
pub fn reservation(frames: &[u64], order: u32) -> Reservation {
    Reservation {
        extent_start: pv_abi::GuestHandle::new(frames.as_ptr() as u64),
        nr_extents: frames.len() as u64,
        extent_order: order,
        domid: DOMID_SELF,
        ..Reservation::default()
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many pages were moved. There may be more to do.
    Moved(u64),
    /// The guest has what it is to have.
    Reached,
    /// The guest has no free memory to give, the hypervisor has none, or there is no room to remember what was given. To be
    /// tried again later.
    Stuck,
    /// Nobody says what the guest is to have.
    NoTarget,
}

/// The memory that a guest gave back, and what it sees.
#[derive(Debug)]
pub struct Balloon<'a> {
    out: Ranges<'a>,
    seen: u64,
    /// What XenStore's target counts and the guest does not see, in pages; known after the first look.
    unseen: Option<u64>,
    asks_hypervisor: bool,
}

impl<'a> Balloon<'a> {
    /// For a guest that sees `seen` pages and has given none of them back. `storage` is room for what is given: a range of
    /// frames an element. A guest that gives 2 MiB at a time needs one for each 2 MiB at the most.
    pub fn new(seen: u64, storage: &'a mut [Range]) -> Self {
        Self { out: Ranges::new(storage), seen, unseen: None, asks_hypervisor: true }
    }

    /// Pages that the guest has.
    pub fn has(&self) -> u64 {
        self.seen - self.out.pages()
    }

    /// Whether a frame was given back, so that it must not be touched.
    pub fn is_out(&self, frame: u64) -> bool {
        self.out.contains(frame)
    }

    /// Pages that the guest is to have of those it sees: what the hypervisor says, or XenStore on one that says nothing.
    pub fn target(&mut self, guest: &mut impl Guest) -> Option<u64> {
        if self.asks_hypervisor {
            let mut target = PodTarget { domid: DOMID_SELF, ..PodTarget::default() };
            if guest.memory_target(Op::GetPodTarget, &mut target) == 0 {
                return Some(target.target_pages.min(self.seen));
            }
            self.asks_hypervisor = false;
        }
        let target = guest.store_number("memory/target")? / PAGE_KIB;
        // As Linux has it: what the tools call the most, less what the guest sees, is not in what it sees.
        let unseen = match self.unseen {
            Some(unseen) => unseen,
            None => {
                let most = guest.store_number("memory/static-max").map_or(self.seen, |kib| kib / PAGE_KIB);
                *self.unseen.insert(most.saturating_sub(self.seen))
            }
        };
        Some(target.saturating_sub(unseen).min(self.seen))
    }

    /// Goes one hypercall towards the target.
    pub fn step(&mut self, guest: &mut impl Guest) -> Step {
        let Some(target) = self.target(guest) else { return Step::NoTarget };
        let has = self.has();
        let sizes: &[u32] = if has.abs_diff(target) >> LARGE == 0 { &[0] } else { &[LARGE, 0] };
        for &order in sizes {
            let moved = if has > target {
                self.give(guest, has - target, order)
            } else if has < target {
                self.grow(guest, target - has, order)
            } else {
                return Step::Reached;
            };
            if moved != 0 {
                return Step::Moved(moved);
            }
        }
        Step::Stuck
    }

    /// Gives up to `pages` back, in extents of one size; how many.
    fn give(&mut self, guest: &mut impl Guest, pages: u64, order: u32) -> u64 {
        let mut frames = [0; BATCH];
        // Each extent may need a place of its own.
        let most = frames.len().min(self.out.room()).min(usize::try_from(pages >> order).unwrap_or(BATCH));
        let mut count = 0;
        while count < most
            && let Some(frame) = guest.take(order)
        {
            frames[count] = frame;
            count += 1;
        }
        let done = extents_done(guest.reserve(Op::DecreaseReservation, &frames[..count], order), count);
        for (index, &frame) in frames[..count].iter().enumerate() {
            if index >= done || !self.out.insert(Range::of(frame, order)) {
                guest.put(frame, order);
            }
        }
        (done as u64) << order
    }

    /// Takes up to `pages` again, in extents of one size; how many.
    fn grow(&mut self, guest: &mut impl Guest, pages: u64, order: u32) -> u64 {
        let mut frames = [0; BATCH];
        let most = frames.len().min(usize::try_from(pages >> order).unwrap_or(BATCH));
        let mut count = 0;
        while count < most
            && let Some(frame) = self.out.remove_aligned(order)
        {
            frames[count] = frame;
            count += 1;
        }
        let done = extents_done(guest.reserve(Op::PopulatePhysmap, &frames[..count], order), count);
        // What was not done goes back where it came from, so there is room.
        for &frame in frames[done..count].iter().rev() {
            self.out.insert(Range::of(frame, order));
        }
        frames[..done].iter().for_each(|&frame| guest.put(frame, order));
        (done as u64) << order
    }
}

/// How many extents a call did: not more than it was asked for, and none if it says an error.
fn extents_done(result: i64, asked: usize) -> usize {
    usize::try_from(result).unwrap_or(0).min(asked)
}
