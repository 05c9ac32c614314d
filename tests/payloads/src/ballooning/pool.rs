//! The free memory of the payload: a bank, a bit a page.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::machine::{Machine, Range};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
const LARGE: u64 = 2 << 20;
/// Pages that the map can hold: 4 GiB.
const MOST: u64 = 1 << 20;

/// Set: free.
static MAP: [AtomicU64; (MOST / 64) as usize] = [const { AtomicU64::new(0) }; (MOST / 64) as usize];

/// What nobody uses of the largest bank of memory.
pub struct Pool {
    range: Range,
    free: u64,
    /// All words of the map from here on are empty.
    end: usize,
}

impl Pool {
    /// All of it free. `None`: there is none.
    pub fn new(machine: &Machine<'_>) -> Option<Self> {
        let bank = machine.memory.iter().max_by_key(|bank| bank.end - bank.start)?;
        let start = bank.start.next_multiple_of(LARGE);
        let end = bank.end.min(start + MOST * PAGE) / LARGE * LARGE;
        let pages = end.checked_sub(start).filter(|&size| size != 0)? / PAGE;
        MAP.iter().take((pages / 64) as usize).for_each(|word| word.store(u64::MAX, Relaxed));
        let mut pool = Self { range: Range { start, end }, free: pages, end: (pages / 64) as usize };
        for used in &machine.reserved {
            let first = used.start.clamp(start, end) / PAGE;
            for frame in first..used.end.clamp(start, end).div_ceil(PAGE) {
                // Reservations may overlap.
                if pool.is_free(frame - start / PAGE) {
                    pool.set(frame - start / PAGE, 0, false);
                }
            }
        }
        Some(pool)
    }

    /// Free pages.
    pub fn free(&self) -> u64 {
        self.free
    }

    fn is_free(&self, page: u64) -> bool {
        MAP[(page / 64) as usize].load(Relaxed) & 1 << (page % 64) != 0
    }

    /// Takes 2^`order` free pages: from the end, where loaders put nothing. The first one's frame.
    pub fn take(&mut self, order: u32) -> Option<u64> {
        let first = if order == 0 {
            let word = (0..self.end).rev().find(|&word| MAP[word].load(Relaxed) != 0);
            self.end = word.map_or(0, |word| word + 1);
            let word = word?;
            word as u64 * 64 + u64::from(MAP[word].load(Relaxed).ilog2())
        } else {
            let step = (1 << order) / 64;
            let full =
                |word: &usize| MAP[*word..*word + step].iter().all(|word| word.load(Relaxed) == u64::MAX);
            (0..self.end).step_by(step).rev().find(full)? as u64 * 64
        };
        self.set(first, order, false);
        Some(self.range.start / PAGE + first)
    }

    /// Gives them back.
    pub fn put(&mut self, frame: u64, order: u32) {
        let page = frame - self.range.start / PAGE;
        self.set(page, order, true);
        self.end = self.end.max(((page + (1 << order)).div_ceil(64)) as usize);
    }

    fn set(&mut self, first: u64, order: u32, free: bool) {
        for page in first..first + (1 << order) {
            let word = &MAP[(page / 64) as usize];
            let bit = 1 << (page % 64);
            let before = if free { word.fetch_or(bit, Relaxed) } else { word.fetch_and(!bit, Relaxed) };
            crate::expect!((before & bit != 0) != free, "page {page} of the pool");
        }
        let pages = 1 << order;
        self.free = if free { self.free + pages } else { self.free - pages };
    }

    /// Writes to each free page; how many there are.
    pub fn touch_all(&self) -> u64 {
        let mut touched = 0;
        for page in 0..(self.range.end - self.range.start) / PAGE {
            if self.is_free(page) {
                let address = (self.range.start + page * PAGE) as *mut u64;
                // SAFETY: a page of the pool, mapped, which nothing else uses while it is free.
                unsafe { address.write_volatile(page) };
                touched += 1;
            }
        }
        touched
    }
}
