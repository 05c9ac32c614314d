//! Free memory: blocks of 2^n frames on lists threaded through the frame table, by zone.
//!
//! A block freed finds its buddy by number, in constant time, and joins it if that is free at the same size. Memory
//! that only few can reach is kept for them: allocation begins in the highest zone.
//! ```text
//! zone 0: below 1 GiB (a Raspberry Pi 4's 30-bit DMA)   zone 1: below 4 GiB (32-bit DMA)   zone 2: the rest
//! ```

use stage2::{Mfn, Pages};

use super::frame_table::{FrameTable, NO_LINK, State};

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

#[derive(Clone, Copy)]
struct Zone {
    /// The first block of each order.
    heads: [u32; ORDERS],
    /// Bit n: there is a block of order n.
    present: u32,
}

/// The lists and the number of free frames.
pub struct FreeLists {
    zones: [Zone; ZONES],
    free: u64,
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
        Self { zones: [Zone { heads: [NO_LINK; ORDERS], present: 0 }; ZONES], free: 0 }
    }

    /// Free frames.
    #[inline]
    pub const fn free_count(&self) -> Pages {
        Pages::new(self.free)
    }

    /// The largest order of which a block is free.
    pub fn largest_order(&self) -> Option<u32> {
        self.zones.iter().map(|zone| zone.present).fold(0, |a, b| a | b).checked_ilog2()
    }

    /// Takes a block that ends at or below frame `limit`. Its frames' words are `NONE`.
    #[inline]
    pub fn allocate(&mut self, table: &FrameTable, order: u32, limit: Mfn) -> Option<Mfn> {
        if order > MAX_ORDER {
            return None;
        }
        for index in (0..ZONES).rev() {
            let zone = &self.zones[index];
            let suitable = zone.present >> order << order;
            if suitable == 0 {
                continue;
            }
            if limit.raw() >= ZONE_ENDS[index] {
                let found = suitable.trailing_zeros();
                let block = zone.heads[found as usize % ORDERS];
                return Some(self.take(table, block, found, block, order));
            }
            if let Some(mfn) = self.allocate_low(table, index, order, limit) {
                return Some(mfn);
            }
        }
        None
    }

    /// Takes up to `count` single frames, small blocks first and each as a whole if it is not too large; so frames that
    /// are taken one after the other lie side by side where they can. `each` gets them with their numbers falling
    /// within a block. Fewer when there are no more.
    pub fn allocate_singles(&mut self, table: &FrameTable, count: u64, mut each: impl FnMut(Mfn)) {
        let mut left = count;
        while left > 0 {
            let Some(zone) = self.zones.iter().rev().find(|zone| zone.present != 0) else { return };
            let found = zone.present.trailing_zeros();
            let order = found.min(left.ilog2());
            let block = zone.heads[found as usize % ORDERS];
            let first = self.take(table, block, found, block, order);
            for page in (0..1 << order).rev() {
                each(first.wrapping_add(Pages::new(page)));
            }
            left -= 1 << order;
        }
    }

    /// Looks in a zone that `limit` cuts through.
    #[inline(never)]
    fn allocate_low(&mut self, table: &FrameTable, zone: usize, order: u32, limit: Mfn) -> Option<Mfn> {
        for found in order..=MAX_ORDER {
            let mut link = self.zones[zone].heads[found as usize];
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
        None
    }

    /// Takes the block of `order` at `mfn`, if all of it is free.
    pub fn allocate_at(&mut self, table: &FrameTable, mfn: Mfn, order: u32) -> Option<Mfn> {
        let wanted = u32::try_from(mfn.raw()).ok()?;
        if order > MAX_ORDER || wanted & ((1 << order) - 1) != 0 {
            return None;
        }
        (order..=MAX_ORDER).find_map(|found| {
            let block = wanted & !((1u32 << found) - 1);
            let frame = table.get(Mfn::new(u64::from(block)))?;
            (frame.state() == State::free(found)).then(|| self.take(table, block, found, wanted, order))
        })
    }

    /// Removes `block` of order `found` from its list, keeps the part of `order` at `wanted`, and frees the rest.
    #[inline]
    fn take(&mut self, table: &FrameTable, block: u32, found: u32, wanted: u32, order: u32) -> Mfn {
        self.remove(table, block, found);
        let mut block = block;
        let mut size = found;
        while size > order {
            size -= 1;
            let upper = block + (1 << size);
            if wanted < upper {
                self.insert(table, upper, size);
            } else {
                self.insert(table, block, size);
                block = upper;
            }
        }
        self.free -= 1 << order;
        Mfn::new(u64::from(wanted))
    }

    /// Gives a block back. Its frames' words are `NONE`.
    #[inline]
    pub fn free(&mut self, table: &FrameTable, mfn: Mfn, order: u32) {
        self.free += 1 << order;
        let mut block = mfn.raw() as u32;
        let mut order = order;
        while order < MAX_ORDER {
            let buddy = block ^ (1 << order);
            match table.get(Mfn::new(u64::from(buddy))) {
                Some(frame) if frame.state() == State::free(order) => self.remove(table, buddy, order),
                _ => break,
            }
            block &= !(1 << order);
            order += 1;
        }
        self.insert(table, block, order);
    }

    /// Gives a range back, in the largest blocks it holds.
    pub fn free_range(&mut self, table: &FrameTable, start: Mfn, pages: Pages) {
        let mut at = start.raw();
        let end = at + pages.get();
        while at < end {
            let order = MAX_ORDER.min(at.trailing_zeros()).min((end - at).ilog2());
            self.free(table, Mfn::new(at), order);
            at += 1 << order;
        }
    }

    #[inline]
    fn insert(&mut self, table: &FrameTable, block: u32, order: u32) {
        let zone = &mut self.zones[zone_of(u64::from(block)) % ZONES];
        let head = &mut zone.heads[order as usize % ORDERS];
        let frame = table.linked(block);
        frame.set_state(State::free(order));
        frame.set_next(*head);
        frame.set_previous(NO_LINK);
        if *head != NO_LINK {
            table.linked(*head).set_previous(block);
        }
        *head = block;
        zone.present |= 1 << order;
    }

    #[inline]
    fn remove(&mut self, table: &FrameTable, block: u32, order: u32) {
        let frame = table.linked(block);
        let (next, previous) = (frame.next(), frame.previous());
        frame.set_state(State::NONE);
        if next != NO_LINK {
            table.linked(next).set_previous(previous);
        }
        if previous != NO_LINK {
            table.linked(previous).set_next(next);
            return;
        }
        let zone = &mut self.zones[zone_of(u64::from(block)) % ZONES];
        zone.heads[order as usize % ORDERS] = next;
        if next == NO_LINK {
            zone.present &= !(1 << order);
        }
    }
}
