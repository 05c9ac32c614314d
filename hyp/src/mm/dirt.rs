//! Which part of a block may hold what somebody left there; the rest is zeros in RAM, which a guest may have at once.
//!
//! One range for a block of any size: joining blocks may take clear frames for dirty, never the other way.
//! ```text
//!  lower half        upper half              joined
//! [....ddd.]    +   [.dd.....]    =    [....ddddd......]     split again: [....dddd]  [dd......]
//! ```

/// The frames `from..to` of a block; none as `0..0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dirt {
    from: u32,
    to: u32,
}

impl Dirt {
    /// All is clear.
    pub const NONE: Self = Self { from: 0, to: 0 };

    /// Nothing is known of a block of this order.
    #[inline]
    pub const fn all(order: u32) -> Self {
        Self { from: 0, to: 1 << order }
    }

    /// The frames `from..to`, numbered from the block's first.
    #[inline]
    pub const fn new(from: u32, to: u32) -> Self {
        if from < to { Self { from, to } } else { Self::NONE }
    }

    /// The first frame of it.
    #[inline]
    pub const fn from(self) -> u32 {
        self.from
    }

    /// The first frame beyond it.
    #[inline]
    pub const fn to(self) -> u32 {
        self.to
    }

    /// Frames.
    #[inline]
    pub const fn len(self) -> u32 {
        self.to - self.from
    }

    /// Whether it reaches that frame.
    #[inline]
    pub const fn holds(self, frame: u32) -> bool {
        self.from <= frame && frame < self.to
    }

    /// Whether all is clear.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.to == 0
    }

    /// That of the block which two of this order make.
    #[inline]
    pub fn join(lower: Self, upper: Self, order: u32) -> Self {
        let half = 1 << order;
        match (lower.is_empty(), upper.is_empty()) {
            (_, true) => lower,
            (true, false) => Self { from: upper.from + half, to: upper.to + half },
            (false, false) => Self { from: lower.from, to: upper.to + half },
        }
    }

    /// Those of the two blocks of this order which one is split into.
    #[inline]
    pub fn split(self, order: u32) -> (Self, Self) {
        let half = 1 << order;
        (
            Self::new(self.from, self.to.min(half)),
            Self::new(self.from.saturating_sub(half), self.to.saturating_sub(half)),
        )
    }

    /// What is left after the first `count` frames of it were cleared.
    #[inline]
    pub fn without_first(self, count: u32) -> Self {
        Self::new(self.from.saturating_add(count), self.to)
    }

    /// Where a block of order `found` has a clear one of `order`, if it has.
    #[inline]
    pub fn clear_part(self, found: u32, order: u32) -> Option<u32> {
        let size = 1 << order;
        if self.from >= size || self.is_empty() {
            return Some(0);
        }
        let after = self.to.next_multiple_of(size);
        (after < 1 << found).then_some(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ORDER: u32 = 4;

    fn dirt() -> impl Strategy<Value = Dirt> {
        (0u32..=16, 0u32..=16).prop_map(|(from, to)| Dirt::new(from, to))
    }

    proptest! {
        #[test]
        fn no_frame_becomes_clear_by_joining_or_splitting(lower in dirt(), upper in dirt()) {
            let joined = Dirt::join(lower, upper, ORDER);
            let (low, high) = joined.split(ORDER);
            for frame in 0..16 {
                prop_assert!(!lower.holds(frame) || low.holds(frame));
                prop_assert!(!upper.holds(frame) || high.holds(frame));
                prop_assert_eq!(joined.holds(frame), low.holds(frame));
                prop_assert_eq!(joined.holds(frame + 16), high.holds(frame));
            }
            prop_assert_eq!(joined.len(), low.len() + high.len());
            if lower.is_empty() || upper.is_empty() {
                prop_assert_eq!((low, high), (lower, upper), "exact while one half is clear");
            }
        }

        #[test]
        fn a_clear_part_is_clear_and_lies_in_the_block(dirt in dirt(), order in 0..=ORDER) {
            let part = dirt.clear_part(ORDER, order);
            if let Some(at) = part {
                prop_assert!(at % (1 << order) == 0 && at + (1 << order) <= 16);
                prop_assert!((at..at + (1 << order)).all(|frame| !dirt.holds(frame)));
            }
            let exists = (0..16u32 >> order)
                .any(|n| (n << order..(n + 1) << order).all(|frame| !dirt.holds(frame)));
            prop_assert_eq!(part.is_some(), exists);
        }

        #[test]
        fn clearing_goes_on_from_the_front(dirt in dirt(), count in 0u32..20) {
            let left = dirt.without_first(count);
            prop_assert_eq!(left.len(), dirt.len().saturating_sub(count));
            prop_assert!((0..16).all(|frame| !left.holds(frame) || dirt.holds(frame)));
        }
    }
}
