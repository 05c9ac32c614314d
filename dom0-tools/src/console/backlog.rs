//! What a guest has printed and no terminal has taken yet: bounded, and either the oldest goes or the guest waits.

use std::collections::VecDeque;

/// Bytes kept where XenStore's `console/limit` says nothing: what libxl writes there.
pub const DEFAULT_LIMIT: usize = 1 << 20;
/// More than this no `console/limit` may ask for.
const GREATEST_LIMIT: usize = 16 << 20;

/// What happens when nobody reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Overflow {
    /// The oldest bytes go.
    #[default]
    Discard,
    /// Nothing is lost: the guest waits until somebody reads.
    Keep,
}

/// Bytes for a terminal.
#[derive(Debug)]
pub struct Backlog {
    bytes: VecDeque<u8>,
    limit: usize,
    overflow: Overflow,
}

impl Backlog {
    /// An empty one.
    pub fn new(overflow: Overflow) -> Self {
        Self { bytes: VecDeque::new(), limit: DEFAULT_LIMIT, overflow }
    }

    /// Keeps at most `limit` bytes from now on; 0 is the default, as an absent `console/limit`.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = if limit == 0 { DEFAULT_LIMIT } else { limit.min(GREATEST_LIMIT) };
        self.trim();
    }

    /// How many bytes may be added now.
    pub fn room(&self) -> usize {
        match self.overflow {
            Overflow::Discard => usize::MAX,
            Overflow::Keep => self.limit.saturating_sub(self.bytes.len()),
        }
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        // What could not stay need not come.
        let from = bytes.len().saturating_sub(self.limit);
        self.bytes.extend(&bytes[from..]);
        self.trim();
    }

    fn trim(&mut self) {
        let excess = self.bytes.len().saturating_sub(self.limit);
        self.bytes.drain(..excess);
    }

    /// The oldest bytes, or some of them.
    pub fn oldest(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// The first `count` have been taken.
    pub fn taken(&mut self, count: usize) {
        self.bytes.drain(..count.min(self.bytes.len()));
        // A console that once was flooded does not hold its memory for ever.
        if self.bytes.is_empty() && self.bytes.capacity() > 64 << 10 {
            self.bytes = VecDeque::new();
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_are_limited() {
        let mut backlog = Backlog::new(Overflow::Keep);
        backlog.set_limit(usize::MAX);
        assert_eq!(backlog.room(), GREATEST_LIMIT);
        backlog.set_limit(0);
        assert_eq!(backlog.room(), DEFAULT_LIMIT);
    }

    #[test]
    fn who_keeps_has_room_until_the_limit() {
        let mut backlog = Backlog::new(Overflow::Keep);
        backlog.set_limit(10);
        backlog.push(b"1234567");
        assert_eq!(backlog.room(), 3);
        backlog.taken(2);
        assert_eq!(backlog.room(), 5);
    }

    proptest! {
        /// It is always the newest bytes that are left, never more than the limit, in order.
        #[test]
        fn the_newest_stay(limit in 1usize..100, pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..150), 0usize..100), 0..30)) {
            let mut backlog = Backlog::new(Overflow::Discard);
            backlog.set_limit(limit);
            let mut model: Vec<u8> = Vec::new();
            for (piece, take) in pieces {
                backlog.push(&piece);
                model.extend(&piece);
                model.drain(..model.len().saturating_sub(limit));
                let front = backlog.oldest().len().min(take);
                prop_assert_eq!(&backlog.oldest()[..front], &model[..front]);
                prop_assert_eq!(backlog.is_empty(), model.is_empty());
                backlog.taken(front);
                model.drain(..front);
            }
        }
    }
}
