//! When to look at memory, and whether to tell what was seen.
//!
//! A guest at rest tells once a second. One whose programs take memory, or that has little left, is looked at ten times a
//! second, and what it took is told as soon as it is a 32nd of what it has: programs without swap may find no
//! memory left before the kernel sees anybody wait, and then it is too late. Memory that becomes free can wait for its
//! second. A stall, which the kernel announces, is told at once.

use core::time::Duration;

use crate::report::Usage;

/// Between two reports of a guest at rest.
pub const SECOND: Duration = Duration::from_secs(1);
/// Between two looks at a guest in motion.
pub const QUICK: Duration = Duration::from_millis(100);

/// What was told last, and what was seen last. Times are since any moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    told: Option<(Duration, Usage)>,
    seen: Option<(Duration, Usage)>,
    is_in_motion: bool,
}

impl Pace {
    /// Takes note of what is seen at `now`; whether to tell it.
    pub fn look(&mut self, now: Duration, usage: Usage, is_stall: bool) -> bool {
        self.is_in_motion =
            self.seen.is_some_and(|(_, before)| needs_more(before, usage) > usage.total / 256)
                || usage.available < usage.total / 8;
        self.seen = Some((now, usage));
        let tell = self.told.is_none_or(|(at, before)| {
            is_stall || now >= at + SECOND || needs_more(before, usage) > usage.total / 32
        });
        if tell {
            self.told = Some((now, usage));
        }
        tell
    }

    /// When to look next; the past and the presence mean now.
    pub fn next_look(&self) -> Duration {
        let regular = self.told.map_or(Duration::ZERO, |(at, _)| at + SECOND);
        match self.seen {
            Some((at, _)) if self.is_in_motion => regular.min(at + QUICK),
            Some(_) | None => regular,
        }
    }
}

/// By how much memory is needed more than `before`, in KiB: what was promised, or what is used without having been.
fn needs_more(before: Usage, now: Usage) -> u64 {
    let used = |usage: Usage| usage.total.saturating_sub(usage.available);
    let promised = now.committed.saturating_sub(before.committed);
    promised.max(used(now).saturating_sub(used(before)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usage(used: u64) -> Usage {
        Usage { total: 65536, free: 65536 - used, available: 65536 - used, committed: 0 }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn at_rest_once_a_second() {
        let mut pace = Pace::default();
        assert_eq!(pace.next_look(), ms(0));
        assert!(pace.look(ms(5), usage(100), false));
        assert_eq!(pace.next_look(), ms(1005));
        assert!(pace.look(ms(1005), usage(90), false));
        assert_eq!(pace.next_look(), ms(2005), "what becomes free can wait");
    }

    #[test]
    fn in_motion_ten_times_a_second_and_early() {
        let mut pace = Pace::default();
        assert!(pace.look(ms(0), usage(100), false));
        assert!(pace.look(ms(1000), usage(400), false));
        assert_eq!(pace.next_look(), ms(1100));
        assert!(!pace.look(ms(1100), usage(2000), false), "not yet a 32nd");
        assert!(pace.look(ms(1200), usage(2500), false));
        assert_eq!(pace.next_look(), ms(1300));
        assert!(!pace.look(ms(1300), usage(2500), false));
        assert_eq!(pace.next_look(), ms(2200), "at rest again");
    }

    #[test]
    fn a_promise_counts_like_a_use() {
        let mut pace = Pace::default();
        assert!(pace.look(ms(0), usage(0), false));
        assert!(pace.look(ms(10), Usage { committed: 4000, ..usage(0) }, false));
    }

    #[test]
    fn memory_that_the_balloon_takes_is_no_need() {
        let mut pace = Pace::default();
        let before = Usage { total: 65536, free: 40000, available: 40000, committed: 0 };
        let after = Usage { total: 45536, free: 20000, available: 20000, committed: 0 };
        assert!(pace.look(ms(0), before, false));
        assert!(!pace.look(ms(500), after, false));
        assert_eq!(pace.next_look(), ms(1000));
    }

    #[test]
    fn a_stall_is_told_at_once() {
        let mut pace = Pace::default();
        assert!(pace.look(ms(0), usage(0), false));
        assert!(pace.look(ms(1), usage(0), true));
    }

    proptest! {
        /// Whoever looks when it is time to: never silent for longer than a second and a look, never more than ten
        /// reports a second without stalls, and what a guest needs more than it told is never more than a 32nd.
        #[test]
        fn the_bounds_hold(steps in prop::collection::vec((0u64..65536, 0u64..80), 2..200)) {
            let mut pace = Pace::default();
            let (mut now, mut last_told, mut last_usage) = (ms(0), None, usage(0));
            for (used, late) in steps {
                let due = pace.next_look();
                now = due.max(now) + ms(late);
                let tells = pace.look(now, usage(used), false);
                if let Some(last) = last_told {
                    prop_assert!(!tells || now - last >= QUICK);
                    prop_assert!(tells || now - last < SECOND);
                    prop_assert!(tells || needs_more(last_usage, usage(used)) <= 65536 / 32);
                }
                prop_assert!(pace.next_look() <= now + SECOND);
                if tells {
                    (last_told, last_usage) = (Some(now), usage(used));
                }
            }
        }
    }
}
