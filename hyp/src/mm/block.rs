//! Frames that only the holder has: cleared, if they are not already, before a guest gets them.
//!
//! ```text
//! allocate ──▶ Block ── clear ──▶ ClearBlock ── give_to ──▶ Ram of a domain
//!                ├── give_as_found    └── PageRef::shared ▶ page shown to a guest
//!                ├── into_table ───────────────────────────▶ stage-2 table
//!                └── into_hypervisor
//! ```
//! Dropping either gives the frames back.

use core::mem::ManuallyDrop;

use pv_abi::domid::DomId;
use stage2::{Mfn, Pages};

use super::dirt::Dirt;
use super::frame_table::{Frame, Kind, State};
use super::memory;
use crate::arch;

/// 2^order frames in a row, naturally aligned, that nobody else refers to. Outside `dirt` they are zeros in RAM: whoever
/// writes to them consumes the block.
#[derive(Debug)]
#[must_use = "dropping a block frees it"]
pub struct Block {
    mfn: Mfn,
    order: u32,
    dirt: Dirt,
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        memory().release(self.mfn, self.order, self.dirt);
    }
}

impl Block {
    /// Only for the allocator: the frames are off the free lists and the first one's word says `Hypervisor`.
    #[inline]
    pub(super) fn new(mfn: Mfn, order: u32, dirt: Dirt) -> Self {
        Self { mfn, order, dirt }
    }

    /// The first frame.
    #[inline]
    pub fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// How many frames.
    #[inline]
    pub fn pages(&self) -> Pages {
        Pages::new(1 << self.order)
    }

    /// Overwrites what is not clear with zeros, in RAM and not only in caches: a guest decides for itself whether it looks
    /// through the caches, and starts with them off. What RAM still holds is of whoever had the frames before, and a
    /// dirty line, written back later, would undo what the guest wrote past the caches (DDI 0487 B2.8, D7.5.9).
    #[inline]
    pub fn clear(mut self) -> ClearBlock {
        if !self.dirt.is_empty() {
            self.clear_first(self.dirt.len());
        }
        ClearBlock(self)
    }

    /// The same, 2 MiB at a time, asking in between whether to stop. Then the block comes back: given back and taken anew,
    /// it is as clear as this call has left it.
    pub fn clear_unless(mut self, stop: impl Fn() -> bool) -> Result<ClearBlock, Block> {
        const PIECE: u32 = 512;
        while self.dirt.len() > PIECE {
            self.clear_first(PIECE);
            if stop() {
                return Err(self);
            }
        }
        Ok(self.clear())
    }

    fn clear_first(&mut self, count: u32) {
        let first = self.mfn.wrapping_add(Pages::new(self.dirt.from().into()));
        // SAFETY: the frames are RAM, and as `Block` is their only holder no Rust reference covers them.
        unsafe { arch::phys::clear_pages_to_ram(first, Pages::new(count.into())) };
        self.dirt = self.dirt.without_first(count);
    }

    /// Makes the frames stage-2 tables, full of zeros: the walker looks through the caches.
    #[inline]
    pub(crate) fn into_table(self) -> Mfn {
        // SAFETY: the frames are RAM, and as `Block` is their only holder no Rust reference covers them.
        unsafe { arch::phys::clear_pages(self.mfn, self.pages()) };
        ClearBlock(self).become_each(State::new(Kind::Table, DomId::DOM0, 0))
    }

    /// The frames of a table that no walker reaches any more, to be freed.
    pub(crate) fn from_table(mfn: Mfn, order: u32) -> Block {
        let frames = memory().frames(mfn, Pages::new(1 << order));
        if let Some(interior) = frames.and_then(|frames| frames.get(1..)) {
            Frame::set_all(interior, State::NONE);
        }
        Block::new(mfn, order, Dirt::all(order))
    }

    /// Makes the frames the memory of `owner`, whose account was charged, as they are. Only for the domain that is made
    /// at boot, before any other: what they hold is what firmware and boot loader left, or zeros. No cache has a dirty
    /// line of them on our account: of what EL2 has written, clearing ahead and the heap clean and invalidate what becomes
    /// free.
    pub fn give_as_found(self, owner: DomId) -> Mfn {
        ClearBlock(self).become_each(State::new(Kind::Ram, owner, 0))
    }

    /// Frames that [`into_hypervisor`](Self::into_hypervisor) kept, or a part of them, to be freed.
    ///
    /// # Safety
    /// They are that, naturally aligned, and nobody uses them any more.
    pub unsafe fn from_hypervisor(mfn: Mfn, order: u32) -> Self {
        for (frame, page) in memory().frames(mfn, Pages::new(1 << order)).into_iter().flatten().zip(0u64..) {
            frame.set_state(if page == 0 {
                State::new(Kind::Hypervisor, DomId::DOM0, order)
            } else {
                State::NONE
            });
        }
        Self::new(mfn, order, Dirt::all(order))
    }

    /// Keeps the frames for EL2. Their content is unknown.
    pub fn into_hypervisor(self) -> Mfn {
        ManuallyDrop::new(self).mfn
    }
}

/// A [`Block`] full of zeros.
#[derive(Debug)]
#[must_use = "dropping a block frees it"]
pub struct ClearBlock(Block);

impl ClearBlock {
    /// The first frame.
    #[inline]
    pub fn mfn(&self) -> Mfn {
        self.0.mfn
    }

    /// How many frames.
    #[inline]
    pub fn pages(&self) -> Pages {
        self.0.pages()
    }

    /// Makes the frames the memory of `owner`, whose account was charged. From now on each is on its own: the domain
    /// may give them back one by one.
    #[inline]
    pub fn give_to(self, owner: DomId) -> Mfn {
        self.become_each(State::new(Kind::Ram, owner, 0))
    }

    /// Makes the frames pages that EL2 shows to `owner`, mapped nowhere yet.
    pub(super) fn into_shared(self, owner: DomId) -> Mfn {
        let frames = memory().frames(self.mfn(), self.pages());
        for frame in frames.into_iter().flatten() {
            frame.set_mapped_at(None);
        }
        self.become_each(State::new(Kind::Shared, owner, 0))
    }

    #[inline]
    fn become_each(self, state: State) -> Mfn {
        let block = ManuallyDrop::new(self.0);
        if block.order == 0 {
            if let Some(frame) = memory().frame(block.mfn) {
                frame.set_state(state);
            }
        } else if let Some(frames) = memory().frames(block.mfn, block.pages()) {
            Frame::set_all(frames, state);
        }
        block.mfn
    }
}
