//! Free memory: blocks of 2^n frames on lists threaded through the frame table, by zone.
//!
//! A block freed finds its buddy by number, in constant time, and joins it if that is free at the same size. Memory
//! that only few can reach is kept for them: allocation begins in the highest zone.
//! ```text
//! zone 0: below 1 GiB (a Raspberry Pi 4's 30-bit DMA)   zone 1: below 4 GiB (32-bit DMA)   zone 2: the rest
//! ```
//! Each block remembers which part of it may hold something ([`Dirt`]). [`FreeLists::clear_some`] overwrites that while a
//! CPU has nothing else to do, and allocation looks for clear frames first.

use stage2::{BlockSize, Mfn, Pages, Place};

use super::dirt::Dirt;
use super::frame_table::{Frame, FrameTable, NO_LINK, State};

/// Log2 of the frames in the largest block: 1 GiB.
pub const MAX_ORDER: u32 = 18;

/// Lists of a zone: a power of two, so that an index needs no check.
const ORDERS: usize = (MAX_ORDER as usize + 1).next_power_of_two();
/// First frames beyond each zone. A block never straddles them, being at most 1 GiB and naturally aligned.
const ZONE_ENDS: [u64; 3] = [1 << 18, 1 << 20, u64::MAX];
const ZONES: usize = ZONE_ENDS.len();

/// Free blocks looked at for one that is low enough, per zone and order, before giving up: a bound on the time under
/// the lock that a guest's wish can cost.
const SCAN_LIMIT: usize = 256;

/// From this order on, blocks do not join while that would take clear frames for dirty: once they are cleared, they do.
const KEEP_CLEAR: u32 = BlockSize::Block2M.order();

#[derive(Clone, Copy)]
struct Lists {
    /// The first block of each order.
    heads: [u32; ORDERS],
    /// Bit n: there is a block of order n.
    present: u32,
}

impl Lists {
    const EMPTY: Self = Self { heads: [NO_LINK; ORDERS], present: 0 };
}

/// A zone's lists: of blocks that are all clear, and of the others.
#[derive(Clone, Copy)]
struct Zone {
    clear: Lists,
    dirty: Lists,
}

/// The lists and the number of free frames.
pub struct FreeLists {
    zones: [Zone; ZONES],
    free: u64,
    clear: u64,
    /// Free frames that are set aside for domains ([`super::account`]).
    pub(super) promised: u64,
    /// Free frames that are left to EL2's tables, which must not fail because domains have everything.
    pub(super) kept: u64,
    /// Where EL2's next single frame would lie beside the last.
    beside: u32,
}

#[inline]
fn zone_of(mfn: u64) -> usize {
    usize::from(mfn >= ZONE_ENDS[0]) + usize::from(mfn >= ZONE_ENDS[1])
}

impl Default for FreeLists {
    fn default() -> Self {
        Self::new()
    }
}

impl FreeLists {
    /// Nothing free.
    pub const fn new() -> Self {
        let zone = Zone { clear: Lists::EMPTY, dirty: Lists::EMPTY };
        Self { zones: [zone; ZONES], free: 0, clear: 0, promised: 0, kept: 0, beside: NO_LINK }
    }

    /// Free frames.
    #[inline]
    pub const fn free_count(&self) -> Pages {
        Pages::new(self.free)
    }

    /// Those of them that are known to be zeros.
    #[inline]
    pub const fn clear_count(&self) -> Pages {
        Pages::new(self.clear)
    }

    /// Free frames that are nobody's yet.
    #[inline]
    pub(super) const fn available(&self) -> u64 {
        self.free.saturating_sub(self.promised + self.kept)
    }

    /// The largest order of which a block is free.
    pub fn largest_order(&self) -> Option<u32> {
        let present = self.zones.iter().map(|zone| zone.clear.present | zone.dirty.present);
        present.fold(0, |a, b| a | b).checked_ilog2()
    }

    /// Takes a block that ends at or below frame `limit`. Its frames' words are `NONE`.
    #[inline]
    pub fn allocate(&mut self, table: &FrameTable, order: u32, limit: Mfn) -> Option<(Mfn, Dirt)> {
        if order > MAX_ORDER {
            return None;
        }
        for index in (0..ZONES).rev() {
            if limit.raw() < ZONE_ENDS[index] {
                if let Some(taken) = self.allocate_low(table, index, order, limit) {
                    return Some(taken);
                }
            } else if let Some((block, found)) = self.zones[index].choose(table, order) {
                return Some(self.take_clear(table, block, found, order));
            }
        }
        None
    }

    /// Takes up to `count` single frames, small blocks first and each as a whole if it is not too large; so frames that
    /// are taken one after the other lie side by side where they can. `each` gets the blocks; fewer when there are no
    /// more.
    pub fn allocate_singles(&mut self, table: &FrameTable, count: u64, mut each: impl FnMut(Mfn, u32, Dirt)) {
        let mut left = count;
        while left > 0 {
            let found = self.zones.iter().rev().find_map(|zone| zone.choose(table, 0));
            let Some((block, found)) = found else { return };
            let order = found.min(left.ilog2());
            let (first, dirt) = self.take_clear(table, block, found, order);
            each(first, order, dirt);
            left -= 1 << order;
        }
    }

    /// Takes a single frame for EL2, beside the one before: among those that a domain gave back one by one it would keep a
    /// block of 2 MiB from being one again.
    pub fn allocate_own(&mut self, table: &FrameTable) -> Option<(Mfn, Dirt)> {
        let taken = self
            .allocate_at(table, Mfn::new(self.beside.into()), 0)
            .or_else(|| self.allocate_placed(table, Place::InBlock(0)))
            .or_else(|| self.allocate(table, 0, Mfn::new(u64::MAX)))?;
        self.beside = u32::try_from(taken.0.raw() + 1).unwrap_or(NO_LINK);
        Some(taken)
    }

    /// The frame that `place` means, if there is one; free or not.
    pub fn find(&self, table: &FrameTable, place: Place) -> Option<Mfn> {
        let index = match place {
            Place::At(mfn) => return Some(mfn),
            Place::InBlock(index) => index as u64,
            Place::Any => return None,
        };
        let order = BlockSize::Block2M.order();
        let (block, found) = self.zones.iter().rev().find_map(|zone| zone.choose(table, order))?;
        let clear = table.linked(block).state().dirt().clear_part(found, order).unwrap_or(0);
        Some(Mfn::new(u64::from(block + clear) + index))
    }

    /// Takes the frame that `place` means, if it is free.
    pub fn allocate_placed(&mut self, table: &FrameTable, place: Place) -> Option<(Mfn, Dirt)> {
        let mfn = self.find(table, place)?;
        self.allocate_at(table, mfn, 0)
    }

    /// Takes a part of `block`, a clear one if it has one of that size.
    #[inline]
    fn take_clear(&mut self, table: &FrameTable, block: u32, found: u32, order: u32) -> (Mfn, Dirt) {
        let dirt = table.linked(block).state().dirt();
        self.take(table, block, found, block + dirt.clear_part(found, order).unwrap_or(0), order)
    }

    /// Looks in a zone that `limit` cuts through.
    #[inline(never)]
    fn allocate_low(
        &mut self,
        table: &FrameTable,
        zone: usize,
        order: u32,
        limit: Mfn,
    ) -> Option<(Mfn, Dirt)> {
        let Zone { clear, dirty } = self.zones[zone];
        for lists in [clear, dirty] {
            for found in order..=MAX_ORDER {
                let mut link = lists.heads[found as usize];
                for _ in 0..SCAN_LIMIT {
                    if link == NO_LINK {
                        break;
                    }
                    if u64::from(link) + (1 << order) <= limit.raw() {
                        return Some(self.take(table, link, found, link, order));
                    }
                    link = table.linked(link).next();
                }
            }
        }
        None
    }

    /// Takes the block of `order` at `mfn`, if all of it is free.
    pub fn allocate_at(&mut self, table: &FrameTable, mfn: Mfn, order: u32) -> Option<(Mfn, Dirt)> {
        let wanted = u32::try_from(mfn.raw()).ok()?;
        if order > MAX_ORDER || wanted & ((1 << order) - 1) != 0 {
            return None;
        }
        (order..=MAX_ORDER).find_map(|found| {
            let block = wanted & !((1u32 << found) - 1);
            let frame = table.get(Mfn::new(u64::from(block)))?;
            frame.state().is_free_block(found).then(|| self.take(table, block, found, wanted, order))
        })
    }

    /// Removes `block` of order `found` from its list, keeps the part of `order` at `wanted`, and frees the rest.
    #[inline]
    fn take(&mut self, table: &FrameTable, block: u32, found: u32, wanted: u32, order: u32) -> (Mfn, Dirt) {
        let mut dirt = self.remove(table, block, found);
        let mut block = block;
        let mut size = found;
        while size > order {
            size -= 1;
            let upper = block + (1 << size);
            let (low, high) = dirt.split(size);
            if wanted < upper {
                self.insert(table, upper, size, high);
                dirt = low;
            } else {
                self.insert(table, block, size, low);
                (block, dirt) = (upper, high);
            }
        }
        self.free -= 1 << order;
        (Mfn::new(u64::from(wanted)), dirt)
    }

    /// Gives a block back. Its frames' words are `NONE`; those outside `dirt` are zeros in RAM.
    #[inline]
    pub fn free(&mut self, table: &FrameTable, mfn: Mfn, order: u32, dirt: Dirt) {
        self.free += 1 << order;
        self.join(table, mfn.raw() as u32, order, dirt);
    }

    /// Puts a block on the lists, as one with the free blocks beside it.
    #[inline]
    fn join(&mut self, table: &FrameTable, block: u32, order: u32, dirt: Dirt) {
        let (mut block, mut order, mut dirt) = (block, order, dirt);
        while order < MAX_ORDER {
            let buddy = block ^ (1 << order);
            let Some(state) = table.get(Mfn::new(u64::from(buddy))).map(Frame::state) else { break };
            if !state.is_free_block(order) {
                break;
            }
            let other = state.dirt();
            let (low, high) = if buddy > block { (dirt, other) } else { (other, dirt) };
            let joined = Dirt::join(low, high, order);
            if order >= KEEP_CLEAR && joined.len() > low.len() + high.len() {
                break;
            }
            self.remove(table, buddy, order);
            block &= !(1 << order);
            order += 1;
            dirt = joined;
        }
        self.insert(table, block, order, dirt);
    }

    /// Gives a range of unknown content back, in the largest blocks it holds.
    pub fn free_range(&mut self, table: &FrameTable, start: Mfn, pages: Pages) {
        let mut at = start.raw();
        let end = at + pages.get();
        while at < end {
            let order = MAX_ORDER.min(at.trailing_zeros()).min((end - at).ilog2());
            self.free(table, Mfn::new(at), order, Dirt::all(order));
            at += 1 << order;
        }
    }

    /// Unless `enough` frames are clear, has `clear` overwrite up to `most` of those that may hold something, where the
    /// next allocation would look for them. Says whether there was anything to do. The frames stay free meanwhile: the
    /// caller's lock keeps them from being taken.
    pub fn clear_some(
        &mut self,
        table: &FrameTable,
        enough: Pages,
        most: u32,
        clear: impl FnOnce(Mfn, Pages),
    ) -> bool {
        if self.clear >= enough.get() {
            return false;
        }
        let Some(zone) = self.zones.iter().rev().find(|zone| zone.dirty.present != 0) else { return false };
        let order = zone.dirty.present.trailing_zeros();
        let block = zone.dirty.heads[order as usize % ORDERS];
        let dirt = self.remove(table, block, order);
        let count = dirt.len().min(most);
        clear(Mfn::new(u64::from(block + dirt.from())), Pages::new(count.into()));
        self.join(table, block, order, dirt.without_first(count));
        true
    }

    #[inline]
    fn lists(&mut self, block: u32, dirt: Dirt) -> &mut Lists {
        let zone = &mut self.zones[zone_of(u64::from(block)) % ZONES];
        if dirt.is_empty() { &mut zone.clear } else { &mut zone.dirty }
    }

    #[inline]
    fn insert(&mut self, table: &FrameTable, block: u32, order: u32, dirt: Dirt) {
        self.clear += (1 << order) - u64::from(dirt.len());
        let lists = self.lists(block, dirt);
        let head = &mut lists.heads[order as usize % ORDERS];
        let frame = table.linked(block);
        frame.set_state(State::free(order, dirt));
        frame.set_next(*head);
        frame.set_previous(NO_LINK);
        if *head != NO_LINK {
            table.linked(*head).set_previous(block);
        }
        *head = block;
        lists.present |= 1 << order;
    }

    #[inline]
    fn remove(&mut self, table: &FrameTable, block: u32, order: u32) -> Dirt {
        let frame = table.linked(block);
        let (next, previous) = (frame.next(), frame.previous());
        let dirt = frame.state().dirt();
        self.clear -= (1 << order) - u64::from(dirt.len());
        frame.set_state(State::NONE);
        if next != NO_LINK {
            table.linked(next).set_previous(previous);
        }
        if previous != NO_LINK {
            table.linked(previous).set_next(next);
            return dirt;
        }
        let lists = self.lists(block, dirt);
        lists.heads[order as usize % ORDERS] = next;
        if next == NO_LINK {
            lists.present &= !(1 << order);
        }
        dirt
    }
}

impl Zone {
    /// A block with room for one of `order`: the smallest clear one, or one of which a part is clear, or the smallest.
    #[inline]
    fn choose(&self, table: &FrameTable, order: u32) -> Option<(u32, u32)> {
        let suitable = |lists: &Lists| lists.present >> order << order;
        let head = |lists: &Lists, found: u32| (lists.heads[found as usize % ORDERS], found);
        let clear = suitable(&self.clear);
        if clear != 0 {
            return Some(head(&self.clear, clear.trailing_zeros()));
        }
        let dirty = suitable(&self.dirty);
        let mut left = dirty;
        while left != 0 {
            let (block, found) = head(&self.dirty, left.trailing_zeros());
            if table.linked(block).state().dirt().clear_part(found, order).is_some() {
                return Some((block, found));
            }
            left &= left - 1;
        }
        (dirty != 0).then(|| head(&self.dirty, dirty.trailing_zeros()))
    }
}
