//! A set of frames as a sorted list of ranges, in memory that the caller lends.

/// Frames from `start` up to `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    start: u64,
    end: u64,
}

impl Range {
    /// The 2^`order` frames from `start` on.
    pub(crate) const fn of(start: u64, order: u32) -> Self {
        Self { start, end: start + (1 << order) }
    }
}

/// Sorted, and no two of them touch.
#[derive(Debug)]
pub(crate) struct Ranges<'a> {
    storage: &'a mut [Range],
    used: usize,
    pages: u64,
}

impl<'a> Ranges<'a> {
    pub(crate) fn new(storage: &'a mut [Range]) -> Self {
        Self { storage, used: 0, pages: 0 }
    }

    /// Frames in the set.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Ranges that can be added for certain.
    pub(crate) fn room(&self) -> usize {
        self.storage.len() - self.used
    }

    pub(crate) fn contains(&self, frame: u64) -> bool {
        let at = self.place(frame);
        self.storage[..self.used].get(at).is_some_and(|range| range.start <= frame)
    }

    /// The first range that ends behind `frame`.
    fn place(&self, frame: u64) -> usize {
        self.storage[..self.used].partition_point(|range| range.end <= frame)
    }

    /// Adds frames, none of which is in the set. `false`: there is no room.
    pub(crate) fn insert(&mut self, new: Range) -> bool {
        let at = self.place(new.start);
        let joins_before = at > 0 && self.storage[at - 1].end == new.start;
        let joins_after = at < self.used && self.storage[at].start == new.end;
        match (joins_before, joins_after) {
            (true, true) => {
                self.storage[at - 1].end = self.storage[at].end;
                self.storage.copy_within(at + 1..self.used, at);
                self.used -= 1;
            }
            (true, false) => self.storage[at - 1].end = new.end,
            (false, true) => self.storage[at].start = new.start,
            (false, false) if self.room() == 0 => return false,
            (false, false) => {
                self.storage.copy_within(at..self.used, at + 1);
                self.storage[at] = new;
                self.used += 1;
            }
        }
        self.pages += new.end - new.start;
        true
    }

    /// Takes out 2^`order` frames at a multiple of that: from an end of a range, so that nothing more is needed to remember
    /// the rest. `None`: there is nothing like it, at no end.
    pub(crate) fn remove_aligned(&mut self, order: u32) -> Option<u64> {
        let size = 1 << order;
        let is_aligned = |frame: u64| frame.is_multiple_of(size);
        let fits = |range: &Range| {
            range.end - range.start >= size && (is_aligned(range.start) || is_aligned(range.end))
        };
        let at = self.storage[..self.used].iter().rposition(fits)?;
        let range = &mut self.storage[at];
        let first = if is_aligned(range.end) { range.end - size } else { range.start };
        if first == range.start {
            range.start += size;
        } else {
            range.end = first;
        }
        if range.start == range.end {
            self.storage.copy_within(at + 1..self.used, at);
            self.used -= 1;
        }
        self.pages -= size;
        Some(first)
    }
}
