//! The frame table: sixteen bytes for each 4 KiB frame of RAM, saying whose it is and who still uses it.
//!
//! ```text
//! state   63      32 31     16 15    8 7     0        links, each the number of a frame
//!        [  count   |  owner  | kind  | order ]       [ next : 32 | previous : 32 ]
//! free    63    40 39       16 15    8 7     0
//!        [ dirt to | dirt from | Free  | order ]       see `dirt`
//!
//!            allocate                     assign to a domain
//!   Free ───────────────▶ Hypervisor ───────────────────────────▶ Ram     count = 1: the domain's possession
//!     ▲                       │      ├─ stage-2 table ──────────▶ Table         + 1 for each PageRef, grant
//!     └────── last put ───────┴──────┴─ shown to a guest ───────▶ Shared          and foreign mapping
//! ```
//! A word changes atomically as a whole, so nobody ever sees the kind of one moment with the owner of another. Links
//! belong to the free lists (under the allocator's lock) while a frame is free; to the batch that unmapped it while
//! it waits for the TLBs; and hold the guest frame at which a `Shared` frame is mapped.
//!
//! The count of a `Ram` frame rises from 1 only under its owner's p2m lock: `page::get` wants to see that lock. So once
//! a frame was unmapped under it (for writing) and its count is 1, nobody else has it or can get it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use arrayvec::ArrayVec;
use pv_abi::domid::DomId;
use stage2::{Gfn, Mfn, Pages};

use super::dirt::Dirt;

/// Banks of RAM at most; firmware tables in the field have up to a dozen.
pub const MAX_BANKS: usize = 32;

/// What a frame is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// In a block that another frame stands for: of nobody.
    None = 0,
    /// The first frame of a free block.
    Free = 1,
    /// EL2's own: heap, buffers, blocks not yet assigned.
    Hypervisor = 2,
    /// A stage-2 table.
    Table = 3,
    /// A domain's memory.
    Ram = 4,
    /// EL2's, shown to a domain: `shared_info`, grant-table frames.
    Shared = 5,
    /// Set aside at boot: the firmware's, this image, boot modules until they are released.
    Reserved = 6,
}

/// A frame's word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State(u64);

impl State {
    const ONE: u64 = 1 << 32;
    /// References beyond this are refused, so that the count cannot overflow.
    const MAX_COUNT: u32 = 1 << 30;

    /// Of nobody.
    pub const NONE: Self = Self(0);
    /// Set aside.
    pub const RESERVED: Self = Self((Kind::Reserved as u64) << 8);

    /// The word of a frame with one reference.
    #[inline]
    pub const fn new(kind: Kind, owner: DomId, order: u32) -> Self {
        Self(Self::ONE | (owner.raw() as u64) << 16 | (kind as u64) << 8 | order as u64 & 0xff)
    }

    /// The word of a free block's first frame.
    #[inline]
    pub const fn free(order: u32, dirt: Dirt) -> Self {
        let dirt = (dirt.to() as u64) << 40 | (dirt.from() as u64) << 16;
        Self(dirt | (Kind::Free as u64) << 8 | order as u64 & 0xff)
    }

    /// Whether a free block of this order begins here.
    #[inline]
    pub const fn is_free_block(self, order: u32) -> bool {
        self.0 & 0xffff == Self::free(order, Dirt::NONE).0
    }

    /// Which part of a free block may hold something.
    #[inline]
    pub const fn dirt(self) -> Dirt {
        Dirt::new((self.0 >> 16) as u32 & 0xff_ffff, (self.0 >> 40) as u32)
    }

    /// References; of no meaning for `Free`.
    #[inline]
    pub const fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whose it is: of meaning for `Ram` and `Shared`.
    #[inline]
    pub const fn owner(self) -> DomId {
        DomId::new((self.0 >> 16) as u16)
    }

    /// What it is.
    #[inline]
    pub const fn kind(self) -> Kind {
        match (self.0 >> 8) as u8 {
            1 => Kind::Free,
            2 => Kind::Hypervisor,
            3 => Kind::Table,
            4 => Kind::Ram,
            5 => Kind::Shared,
            6 => Kind::Reserved,
            // Only the values above are ever stored.
            _ => Kind::None,
        }
    }

    /// Log2 of the frames that this one stands for.
    #[inline]
    pub const fn order(self) -> u32 {
        (self.0 & 0xff) as u32
    }

    /// Whether a guest may reach it: the page then holds no Rust object.
    #[inline]
    pub const fn is_guest_accessible(self) -> bool {
        matches!(self.kind(), Kind::Ram | Kind::Shared)
    }
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{:?} of {}, order {}, {} references",
            self.kind(),
            self.owner(),
            self.order(),
            self.count()
        )
    }
}

/// One entry.
#[derive(Default)]
#[repr(C, align(16))]
pub struct Frame {
    state: AtomicU64,
    next: AtomicU32,
    previous: AtomicU32,
}

/// A link that leads nowhere. No bank reaches this frame number.
pub const NO_LINK: u32 = u32::MAX;

impl Frame {
    /// The word.
    #[inline]
    pub fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// Replaces the word. Only for who owns the frame alone: the allocator, or the holder of its only reference.
    #[inline]
    pub(super) fn set_state(&self, state: State) {
        self.state.store(state.0, Ordering::Release);
    }

    /// Whether the domain is the only one with a reference to each frame of a block of its memory, whose word is then `state`:
    /// a count is never 0 there, so it is 1 if it has no other bit. Two instructions a frame.
    #[inline]
    pub(super) fn all_are_held_once(frames: &[Self], state: State) -> bool {
        let either = |bits, frame: &Self| bits | frame.state.load(Ordering::Relaxed);
        let (eights, rest) = frames.as_chunks::<8>();
        let bits =
            eights.iter().fold(rest.iter().fold(0, either), |bits, eight| eight.iter().fold(bits, either));
        fence(Ordering::Acquire);
        bits == state.0
    }

    /// [`set_state`](Self::set_state) of many.
    #[inline]
    pub(super) fn set_all(frames: &[Self], state: State) {
        fence(Ordering::Release);
        let set = |frame: &Self| frame.state.store(state.0, Ordering::Relaxed);
        let (eights, rest) = frames.as_chunks::<8>();
        eights.iter().for_each(|eight| eight.iter().for_each(set));
        rest.iter().for_each(set);
    }

    /// Adds a reference if `accept` likes the frame; its word then.
    #[inline]
    pub(super) fn try_get(&self, accept: impl Fn(State) -> bool) -> Option<State> {
        let mut seen = self.state.load(Ordering::Relaxed);
        loop {
            let state = State(seen);
            if state.count() == 0 || state.count() >= State::MAX_COUNT || !accept(state) {
                return None;
            }
            let more = seen + State::ONE;
            match self.state.compare_exchange_weak(seen, more, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(State(more)),
                Err(found) => seen = found,
            }
        }
    }

    /// Adds a reference for one who has one.
    #[inline]
    pub(super) fn get_again(&self) {
        self.state.fetch_add(State::ONE, Ordering::Relaxed);
    }

    /// Gives a reference up; returns the word as it was before. With a count of 1 there, the frame is the caller's
    /// to free.
    #[inline]
    pub(super) fn put(&self) -> State {
        State(self.state.fetch_sub(State::ONE, Ordering::AcqRel))
    }

    #[inline]
    pub(crate) fn next(&self) -> u32 {
        self.next.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_next(&self, link: u32) {
        self.next.store(link, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn previous(&self) -> u32 {
        self.previous.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_previous(&self, link: u32) {
        self.previous.store(link, Ordering::Relaxed);
    }

    /// The guest frame at which a `Shared` frame is mapped. Under the owner's p2m lock.
    pub fn mapped_at(&self) -> Option<Gfn> {
        let raw = u64::from(self.previous()) << 32 | u64::from(self.next());
        if raw == u64::MAX { None } else { Some(Gfn::new(raw)) }
    }

    /// Notes where a `Shared` frame is mapped. Under the owner's p2m lock.
    pub fn set_mapped_at(&self, gfn: Option<Gfn>) {
        let raw = gfn.map_or(u64::MAX, Gfn::raw);
        self.set_next(raw as u32);
        self.set_previous((raw >> 32) as u32);
    }
}

/// RAM without holes and the entries for it.
#[derive(Clone, Copy)]
struct Bank {
    start: u64,
    frames: &'static [Frame],
}

impl Bank {
    const EMPTY: Self = Self { start: 0, frames: &[] };

    #[inline]
    fn get(&self, mfn: Mfn) -> Option<&'static Frame> {
        usize::try_from(mfn.raw().wrapping_sub(self.start)).ok().and_then(|offset| self.frames.get(offset))
    }
}

/// All entries, by machine frame number. The largest bank is looked at first, so that one comparison finds most.
pub struct FrameTable {
    largest: Bank,
    others: ArrayVec<Bank, MAX_BANKS>,
}

impl Default for FrameTable {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameTable {
    /// A table without banks.
    pub const fn new() -> Self {
        Self { largest: Bank::EMPTY, others: ArrayVec::new_const() }
    }

    /// Adds entries for as many frames from `start` on. False when there is no room for another bank or the frames
    /// lie beyond what a link can hold.
    pub(super) fn add(&mut self, start: Mfn, frames: &'static [Frame]) -> bool {
        let fits = start.raw().checked_add(frames.len() as u64).is_some_and(|end| end <= u64::from(NO_LINK));
        let mut bank = Bank { start: start.raw(), frames };
        if bank.frames.len() > self.largest.frames.len() {
            core::mem::swap(&mut bank, &mut self.largest);
        }
        fits && (bank.frames.is_empty() || self.others.try_push(bank).is_ok())
    }

    /// The entry of a frame; `None` if it is not RAM that we manage.
    #[inline]
    pub fn get(&self, mfn: Mfn) -> Option<&'static Frame> {
        match self.largest.get(mfn) {
            Some(frame) => Some(frame),
            None => self.get_elsewhere(mfn),
        }
    }

    #[inline(never)]
    fn get_elsewhere(&self, mfn: Mfn) -> Option<&'static Frame> {
        self.others.iter().find_map(|bank| bank.get(mfn))
    }

    /// The entries of `pages` frames from `mfn` on, if all are in one bank.
    #[inline]
    pub fn slice(&self, mfn: Mfn, pages: Pages) -> Option<&'static [Frame]> {
        let find = |bank: &Bank| {
            let first = usize::try_from(mfn.raw().checked_sub(bank.start)?).ok()?;
            bank.frames.get(first..first.checked_add(usize::try_from(pages.get()).ok()?)?)
        };
        find(&self.largest).or_else(|| self.others.iter().find_map(find))
    }

    /// The entry of a frame that one of our own lists names.
    #[inline]
    pub(super) fn linked(&self, link: u32) -> &'static Frame {
        match self.get(Mfn::new(u64::from(link))) {
            Some(frame) => frame,
            None => broken_link(link),
        }
    }

    /// The banks, as first frame and number of frames.
    pub fn banks(&self) -> impl Iterator<Item = (Mfn, Pages)> + '_ {
        let banks = core::iter::once(&self.largest).chain(&self.others);
        banks.map(|bank| (Mfn::new(bank.start), Pages::new(bank.frames.len() as u64)))
    }

    /// Frames in all banks.
    pub fn total(&self) -> Pages {
        self.banks().map(|(_, pages)| pages).sum()
    }

    /// The first frame number that no bank reaches.
    pub fn end(&self) -> Mfn {
        self.banks().map(|(start, pages)| start.wrapping_add(pages)).max().unwrap_or(Mfn::ZERO)
    }
}

#[cold]
#[inline(never)]
fn broken_link(link: u32) -> ! {
    panic!("frame list leads to {link:#x}, which is no RAM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_sixteen_bytes() {
        assert_eq!(size_of::<Frame>(), 16);
    }

    #[test]
    fn a_word_keeps_its_parts_apart() {
        for kind in [Kind::Hypervisor, Kind::Table, Kind::Ram, Kind::Shared] {
            let state = State::new(kind, DomId::new(0x7fef), 18);
            assert_eq!(
                (state.kind(), state.owner(), state.order(), state.count()),
                (kind, DomId::new(0x7fef), 18, 1)
            );
        }
        for dirt in [Dirt::NONE, Dirt::all(18), Dirt::new((1 << 18) - 1, 1 << 18)] {
            let state = State::free(18, dirt);
            assert_eq!((state.kind(), state.order(), state.dirt()), (Kind::Free, 18, dirt));
            assert!(state.is_free_block(18) && !state.is_free_block(17));
        }
        assert!(!State::NONE.is_free_block(0));
        assert_eq!(State::NONE.kind(), Kind::None);
    }

    #[test]
    fn references_are_counted_and_refused_at_the_limit() {
        let frame = Frame::default();
        assert_eq!(frame.try_get(|_| true), None, "a frame of nobody has no references to share");
        frame.set_state(State::new(Kind::Ram, DomId::new(3), 0));
        assert_eq!(frame.try_get(|state| state.owner() == DomId::new(4)), None);
        assert_eq!(frame.try_get(|state| state.owner() == DomId::new(3)).map(State::count), Some(2));
        assert_eq!(frame.put().count(), 2);
        assert_eq!(frame.put().count(), 1);
        frame.set_state(State(State::new(Kind::Ram, DomId::new(3), 0).0 & 0xffff_ffff | 1 << 62));
        assert_eq!(frame.try_get(|_| true), None);
    }

    #[test]
    fn a_shared_frame_remembers_any_guest_frame() {
        let frame = Frame::default();
        for gfn in [None, Some(Gfn::ZERO), Some(Gfn::new((1 << 36) - 1))] {
            frame.set_mapped_at(gfn);
            assert_eq!(frame.mapped_at(), gfn);
        }
    }
}
