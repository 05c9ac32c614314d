//! Physical memory: who owns each frame of RAM, and how frames are found, given and taken back.
//!
//! | module | idea |
//! | --- | --- |
//! | [`frame_table`] | sixteen bytes a frame: owner, kind, references |
//! | [`buddy`] | free blocks by size and zone |
//! | [`dirt`] | which part of a free block is not known to be zeros |
//! | [`block`] | frames that only the holder has: fresh, or cleared |
//! | [`page`] | a counted reference to a page that guests may reach |
//! | [`guest`] | copies from and to the calling guest's virtual memory |
//! | [`account`] | how many pages a domain has and may have |
//! | [`heap`] | EL2's own heap |
//!
//! State: one [`Memory`], made by [`init`] and never replaced; its lists change under their lock, its frames as
//! [`frame_table`] says.

pub mod account;
pub mod block;
pub mod buddy;
pub mod dirt;
pub mod frame_table;
pub mod guest;
pub mod heap;
pub mod page;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use core::ops::Range;
use core::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use pv_abi::domid::DomId;
use spin::Once;

use crate::sync::TicketMutex;
use stage2::{Mfn, PAGE_SIZE, Pa, Pages, Place};

use crate::arch;
use account::PageAccount;
use block::Block;
use buddy::FreeLists;
use dirt::Dirt;
use frame_table::{Frame, FrameTable, Kind, NO_LINK, State};

arch::machine_static! {
    /// The machine's memory.
    cell: Once<Memory> = Once::new()
}

/// A range of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// Its first byte; rounded up to a page in a bank, down in a reservation.
    pub start: Pa,
    /// Its length.
    pub pages: Pages,
}

impl MemoryRange {
    fn start_frame(&self) -> u64 {
        self.start.mfn().raw()
    }

    fn end_frame(&self) -> u64 {
        self.start.mfn().raw().saturating_add(self.pages.get())
    }
}

/// Why [`init`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// More banks than [`frame_table::MAX_BANKS`].
    TooManyBanks,
    /// No free range is large enough for the frame table, which needs this many pages.
    NoRoom(Pages),
}

impl core::fmt::Display for InitError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooManyBanks => f.write_str("more memory banks than the frame table can hold"),
            Self::NoRoom(pages) => write!(f, "no free memory for the frame table ({pages} pages)"),
        }
    }
}

/// All RAM of the machine.
pub struct Memory {
    table: FrameTable,
    lists: TicketMutex<FreeLists>,
}

/// Takes charge of the machine's RAM: everything in `banks` but what `reserved` covers. The frame table is carved
/// from the highest free range that holds it. Allocates nothing. A second call changes nothing.
///
/// Banks and reservations may come in any order; reservations may overlap and lie outside the banks.
///
/// # Safety
/// The banks are RAM, mapped at EL2 at their physical addresses, and do not overlap. Nothing uses the part of them
/// that is not reserved, and nothing ever refers to it again but through this module.
pub unsafe fn init(banks: &[MemoryRange], reserved: &[MemoryRange]) -> Result<(), InitError> {
    let total: u64 = banks.iter().map(|bank| usable(bank).1).sum();
    let table_pages = Pages::covering_bytes(total.saturating_mul(size_of::<Frame>() as u64));
    let mut place = None;
    for bank in banks {
        each_gap(bank, reserved, |start, pages| {
            if pages >= table_pages.get() {
                place = place.max(Some(start + pages - table_pages.get()));
            }
        });
    }
    let place = place.ok_or(InitError::NoRoom(table_pages))?;
    // SAFETY: a part of a free range of a bank, so by our contract nobody else uses it; it is excluded below from
    // what becomes free.
    let storage = unsafe { arch::phys::zeroed_storage(Mfn::new(place), table_pages) };
    // SAFETY: zeroed, page-aligned, large enough for `total` entries, used by nobody else and never given back. A
    // `Frame` of zeros is valid.
    let mut frames = unsafe { core::slice::from_raw_parts(storage.cast::<Frame>().as_ptr(), total as usize) };

    let mut table = FrameTable::new();
    for bank in banks {
        let (start, pages) = usable(bank);
        if pages == 0 {
            continue;
        }
        let (of_bank, rest) = frames.split_at(pages as usize);
        frames = rest;
        if !table.add(Mfn::new(start), of_bank) {
            return Err(InitError::TooManyBanks);
        }
    }
    for bank in banks {
        let (start, pages) = usable(bank);
        for reservation in reserved {
            let first = reservation.start_frame().max(start);
            for page in first..end_of(reservation).min(start + pages) {
                if let Some(frame) = table.get(Mfn::new(page)) {
                    frame.set_state(State::RESERVED);
                }
            }
        }
    }
    let own = MemoryRange { start: Mfn::new(place).pa(), pages: table_pages };
    for page in place..place + table_pages.get() {
        if let Some(frame) = table.get(Mfn::new(page)) {
            frame.set_state(State::new(Kind::Hypervisor, DomId::DOM0, 0));
        }
    }
    let mut lists = FreeLists::new();
    for bank in banks {
        each_gap(bank, reserved, |start, pages| {
            let gap = MemoryRange { start: Mfn::new(start).pa(), pages: Pages::new(pages) };
            each_gap(&gap, &[own], |start, pages| {
                lists.free_range(&table, Mfn::new(start), Pages::new(pages))
            });
        });
    }
    // Tables of pages that map all RAM once take this much.
    lists.kept = total / 512;
    cell().call_once(|| Memory { table, lists: TicketMutex::new(lists) });
    Ok(())
}

/// A bank's first whole page and the pages from there that a link of the frame table can name.
fn usable(bank: &MemoryRange) -> (u64, u64) {
    let unaligned = u64::from(!bank.start.is_page_aligned());
    let start = bank.start_frame() + unaligned;
    let end = (bank.start_frame() + bank.pages.get().saturating_sub(unaligned)).max(start);
    let end = if unaligned == 0 { bank.end_frame() } else { end }.min(u64::from(NO_LINK));
    (start, end.saturating_sub(start))
}

/// The first frame that a reservation does not touch. One that begins or ends within a page covers that page.
fn end_of(reservation: &MemoryRange) -> u64 {
    let partial = !reservation.start.is_page_aligned() && !reservation.pages.is_zero();
    reservation.end_frame().saturating_add(u64::from(partial))
}

/// Calls `f` with each part of `bank`, as first frame and length, that no reservation touches.
fn each_gap(bank: &MemoryRange, reserved: &[MemoryRange], mut f: impl FnMut(u64, u64)) {
    let (mut at, pages) = usable(bank);
    let end = at + pages;
    while at < end {
        let covering = reserved.iter().find(|r| r.start_frame() <= at && at < end_of(r));
        if let Some(reservation) = covering {
            at = end_of(reservation);
            continue;
        }
        let next = reserved.iter().filter(|r| !r.pages.is_zero()).map(MemoryRange::start_frame);
        let gap_end = next.filter(|&start| start > at).fold(end, u64::min);
        f(at, gap_end - at);
        at = gap_end;
    }
}

/// The machine's memory.
///
/// # Panics
/// Before [`init`].
#[inline]
pub fn memory() -> &'static Memory {
    match cell().get() {
        Some(memory) => memory,
        None => uninitialised(),
    }
}

#[cold]
#[inline(never)]
fn uninitialised() -> ! {
    panic!("memory is used before mm::init")
}

#[cold]
#[inline(never)]
fn freed_twice(mfn: Mfn, state: State) -> ! {
    panic!("frame {mfn} is freed, but is {state:?}")
}

impl Memory {
    /// Free frames, exactly.
    pub fn free_count(&self) -> Pages {
        self.lists.lock().free_count()
    }

    /// Those of them that are known to be zeros.
    pub fn clear_count(&self) -> Pages {
        self.lists.lock().clear_count()
    }

    /// Frames of RAM in all banks, whatever they are used for.
    pub fn total(&self) -> Pages {
        self.table.total()
    }

    /// The first frame number beyond all RAM.
    pub fn end(&self) -> Mfn {
        self.table.end()
    }

    /// The banks, as first frame and length.
    pub fn banks(&self) -> impl Iterator<Item = (Mfn, Pages)> + '_ {
        self.table.banks()
    }

    /// The largest order of which a block is free.
    pub fn largest_free_order(&self) -> Option<u32> {
        self.lists.lock().largest_order()
    }

    /// The entry of a frame; `None` if it is no RAM of ours.
    #[inline]
    pub fn frame(&self, mfn: Mfn) -> Option<&'static Frame> {
        self.table.get(mfn)
    }

    /// The entries of a range that lies in one bank.
    #[inline]
    pub fn frames(&self, mfn: Mfn, pages: Pages) -> Option<&'static [Frame]> {
        self.table.slice(mfn, pages)
    }

    /// Free frames that were promised to nobody and that domains may have.
    pub fn available(&self) -> Pages {
        Pages::new(self.lists.lock().available())
    }

    /// Takes 2^`order` frames, naturally aligned, from as high as there are: for EL2 itself.
    #[inline]
    pub fn allocate(&self, order: u32) -> Option<Block> {
        self.allocate_with(order, |lists, table| match order {
            0 => lists.allocate_own(table),
            _ => lists.allocate(table, order, Mfn::new(u64::MAX)),
        })
    }

    /// The same, from below the address `limit`.
    pub fn allocate_below(&self, order: u32, limit: Pa) -> Option<Block> {
        let limit = if limit.mfn() >= self.end() { Mfn::new(u64::MAX) } else { limit.mfn() };
        self.allocate_with(order, |lists, table| lists.allocate(table, order, limit))
    }

    /// Takes 2^`order` frames for a domain whose account was charged, from below `limit` if there is one: those that it
    /// claimed, and what is promised to nobody.
    pub fn allocate_for(&self, account: &PageAccount, order: u32, limit: Option<Pa>) -> Option<Block> {
        let limit = limit.map_or(Mfn::new(u64::MAX), Pa::mfn);
        let limit = if limit >= self.end() { Mfn::new(u64::MAX) } else { limit };
        self.allocate_with(order, |lists, table| {
            let own = lists.claim_of(account, 1 << order)?;
            lists.allocate(table, order, limit).inspect(|_| lists.use_claim(account, own))
        })
    }

    /// Takes 2^`order` frames of those that are reserved for a domain's memory on demand; a single one at its `place`, if that
    /// is free.
    pub(crate) fn allocate_reserved(&self, account: &PageAccount, order: u32, place: Place) -> Option<Block> {
        self.allocate_with(order, |lists, table| {
            let left = account.reserved().get().checked_sub(1 << order)?;
            let placed = if order == 0 { lists.allocate_placed(table, place) } else { None };
            let mfn = placed.or_else(|| lists.allocate(table, order, Mfn::new(u64::MAX)))?;
            account.reserved.store(left, Ordering::Relaxed);
            lists.promised -= 1 << order;
            Some(mfn)
        })
    }

    /// Takes up to `count` single frames for a domain into `blocks`, which is empty, under one lock, with
    /// [`Self::allocate_for`]'s right: those from `place` on as far as they are free; if the first is not, any. Popped from its
    /// end, they come in the order of their addresses where they lie side by side.
    pub fn allocate_singles<const N: usize>(
        &self,
        account: &PageAccount,
        place: Place,
        count: usize,
        blocks: &mut ArrayVec<Block, N>,
    ) {
        let count = count.min(blocks.remaining_capacity()) as u64;
        let mut lists = self.lists.lock();
        let count = count.min(lists.available() + account.claimed().get());
        let mut next = lists.find(&self.table, place);
        while let Some(mfn) = next
            && (blocks.len() as u64) < count
        {
            let most = mfn.raw().trailing_zeros().min((count - blocks.len() as u64).ilog2());
            let run = (0..=most)
                .rev()
                .find_map(|order| lists.allocate_at(&self.table, mfn, order).map(|(_, dirt)| (order, dirt)));
            next = run.and_then(|(order, dirt)| {
                self.separate(mfn, order, dirt, |block| blocks.push(block));
                mfn.checked_add(Pages::new(1 << order))
            });
        }
        blocks.reverse();
        if blocks.is_empty() {
            lists.allocate_singles(&self.table, count, |first, order, dirt| {
                let before = blocks.len();
                self.separate(first, order, dirt, |block| blocks.push(block));
                blocks[before..].reverse();
            });
        }
        if let Some(own) = lists.claim_of(account, blocks.len() as u64) {
            lists.use_claim(account, own);
        }
    }

    /// Makes single frames of a block that was just taken.
    #[inline]
    fn separate(&self, first: Mfn, order: u32, dirt: Dirt, mut each: impl FnMut(Block)) {
        for (page, frame) in
            (0..1u32 << order).zip(self.table.slice(first, Pages::new(1 << order)).into_iter().flatten())
        {
            frame.set_state(State::new(Kind::Hypervisor, DomId::DOM0, 0));
            let dirt = if dirt.holds(page) { Dirt::all(0) } else { Dirt::NONE };
            each(Block::new(first.wrapping_add(Pages::new(page.into())), 0, dirt));
        }
    }

    /// Takes the 2^`order` frames from `mfn` on, if they are free; `mfn` is naturally aligned.
    pub fn allocate_at(&self, mfn: Mfn, order: u32) -> Option<Block> {
        self.allocate_with(order, |lists, table| lists.allocate_at(table, mfn, order))
    }

    #[inline]
    fn allocate_with(
        &self,
        order: u32,
        take: impl FnOnce(&mut FreeLists, &FrameTable) -> Option<(Mfn, Dirt)>,
    ) -> Option<Block> {
        let (mfn, dirt) = take(&mut self.lists.lock(), &self.table)?;
        let frame = self.table.get(mfn)?;
        frame.set_state(State::new(Kind::Hypervisor, DomId::DOM0, order));
        Some(Block::new(mfn, order, dirt))
    }

    /// Overwrites some free memory with zeros, so that who takes it need not: for a CPU that has nothing to do, in a
    /// step of some microseconds. False when there is nothing to do, or another CPU is at it.
    pub fn clear_ahead(&self) -> bool {
        /// Frames of a step.
        const STEP: u32 = 4;
        // Enough for the next domain. To clear more would cost power, not save time.
        let enough = Pages::new(self.total().get() / 4);
        let Some(mut lists) = self.lists.try_lock() else { return false };
        lists.clear_some(&self.table, enough, STEP, |mfn, pages| {
            // SAFETY: free frames, so nobody refers to them, and nobody can take them: the lists are locked.
            unsafe { arch::phys::clear_pages_to_ram(mfn, pages) }
        })
    }

    /// Puts a block on the free lists whose only holder gives it up; all its frames but the first are `NONE`.
    #[inline]
    fn release(&self, mfn: Mfn, order: u32, dirt: Dirt) {
        let Some(frame) = self.table.get(mfn) else { freed_twice(mfn, State::NONE) };
        let state = frame.state();
        if state.count() > 1 || matches!(state.kind(), Kind::None | Kind::Free | Kind::Reserved) {
            freed_twice(mfn, state);
        }
        frame.set_state(State::NONE);
        self.lists.lock().free(&self.table, mfn, order, dirt);
    }

    /// Makes memory free that [`init`] was told to leave alone: boot modules and what else served until now.
    ///
    /// # Safety
    /// As for [`init`]: nothing refers to the range any more.
    pub unsafe fn release_reserved(&self, range: MemoryRange) {
        for page in 0..range.pages.get() {
            let mfn = range.start.mfn().wrapping_add(Pages::new(page));
            if let Some(frame) = self.table.get(mfn) {
                if frame.state() != State::RESERVED {
                    freed_twice(mfn, frame.state());
                }
                frame.set_state(State::new(Kind::Hypervisor, DomId::DOM0, 0));
                self.release(mfn, 0, Dirt::all(0));
            }
        }
    }

    /// Gives up `owner`'s possession of 2^`order` frames of its memory, which are in no stage-2 table and no TLB any
    /// more. Frees those to which nobody else refers, and says how many; the last reference frees the others.
    pub(crate) fn give_up(&self, mfn: Mfn, order: u32, owner: DomId) -> Pages {
        self.give_up_locked(&mut self.lists.lock(), mfn, order, owner)
    }

    /// The same for a list of blocks: from the frame number `link` by their `next`, with their orders in `previous`.
    /// Pages that follow one another, upwards or downwards, become free as the blocks they make up.
    /// With `promise`, what becomes free is promised at the same moment, to be [settled](PageAccount::settle) later.
    pub(crate) fn give_up_list(&self, link: u32, owner: DomId, promise: bool) -> Pages {
        /// Blocks for which others may have to wait for the lock.
        const AT_ONCE: usize = 64;
        let expected = State::new(Kind::Ram, owner, 0);
        let mut link = link;
        let mut freed = Pages::ZERO;
        while link != NO_LINK {
            let mut lists = self.lists.lock();
            let before = lists.free_count();
            let mut run = link..link;
            for _ in 0..AT_ONCE {
                if link == NO_LINK {
                    break;
                }
                let this = link;
                let frame = self.table.linked(this);
                let order = frame.previous();
                link = frame.next();
                // The usual page, which nobody else uses. See `frame_table` for why a plain look suffices.
                if order == 0 && frame.state() == expected {
                    frame.set_state(State::NONE);
                    if this == run.end {
                        run.end += 1;
                    } else if this.wrapping_add(1) == run.start {
                        run.start = this;
                    } else {
                        freed = freed.saturating_add(self.free_run(&mut lists, run));
                        run = this..this + 1;
                    }
                } else {
                    freed = freed.saturating_add(self.give_up_locked(
                        &mut lists,
                        Mfn::new(this.into()),
                        order,
                        owner,
                    ));
                }
            }
            freed = freed.saturating_add(self.free_run(&mut lists, run));
            if promise {
                lists.promised += lists.free_count().saturating_sub(before).get();
            }
        }
        freed
    }

    fn free_run(&self, lists: &mut FreeLists, run: Range<u32>) -> Pages {
        let pages = Pages::new(u64::from(run.end - run.start));
        if pages == Pages::ONE {
            lists.free(&self.table, Mfn::new(run.start.into()), 0, Dirt::all(0));
        } else {
            lists.free_range(&self.table, Mfn::new(run.start.into()), pages);
        }
        pages
    }

    #[inline(never)]
    fn give_up_locked(&self, lists: &mut FreeLists, mfn: Mfn, order: u32, owner: DomId) -> Pages {
        let pages = Pages::new(1 << order);
        let Some(frames) = self.table.slice(mfn, pages) else { return Pages::ZERO };
        if Frame::all_are_held_once(frames, State::new(Kind::Ram, owner, 0)) {
            Frame::set_all(frames, State::NONE);
            lists.free(&self.table, mfn, order, Dirt::all(order));
            return pages;
        }
        let mut freed = 0;
        for (frame, page) in frames.iter().zip(0..) {
            let before = frame.put();
            if before.count() == 1 {
                frame.set_state(State::NONE);
                lists.free(&self.table, mfn.wrapping_add(Pages::new(page)), 0, Dirt::all(0));
                freed += 1;
            }
        }
        Pages::new(freed)
    }

    /// Whether none of these frames is EL2's, free or a domain's: beyond all banks, or reserved at boot.
    pub fn is_unmanaged(&self, mfn: Mfn, pages: Pages) -> bool {
        let Some(end) = mfn.checked_add(pages) else { return false };
        let meets_bank = |(start, count): (Mfn, Pages)| start < end && mfn < start.wrapping_add(count);
        if !self.banks().any(meets_bank) {
            return true;
        }
        (0..pages.get()).all(|page| {
            let frame = self.table.get(mfn.wrapping_add(Pages::new(page)));
            frame.is_none_or(|frame| frame.state() == State::RESERVED)
        })
    }

    /// Free frames that are promised to domains.
    pub fn claimed(&self) -> Pages {
        Pages::new(self.lists.lock().promised)
    }

    /// Bytes of EL2's own tables here: the frame table.
    pub fn overhead(&self) -> u64 {
        (self.total().get() * size_of::<Frame>() as u64).next_multiple_of(PAGE_SIZE)
    }
}

impl FreeLists {
    /// How many of `frames` a domain takes from its claim; `None` if the rest is promised to others.
    #[inline]
    fn claim_of(&self, account: &PageAccount, frames: u64) -> Option<u64> {
        let own = account.claimed().get().min(frames);
        (frames - own <= self.available()).then_some(own)
    }

    #[inline]
    fn use_claim(&mut self, account: &PageAccount, own: u64) {
        if own != 0 {
            account.claimed.fetch_sub(own, Ordering::Relaxed);
            self.promised -= own;
        }
    }
}
