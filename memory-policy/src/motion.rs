//! How fast a guest moves memory, and whether it does at all.

use crate::{Kib, Millis, Speed, Tuning};

/// Which way memory moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Give,
    Take,
}

/// The past of a guest's balloon.
#[derive(Clone, Debug, Default)]
pub(crate) struct Motion {
    /// At the last look: when, what it had, what it was to have.
    seen: Option<(Millis, Kib, Kib)>,
    /// Since when it made no progress worth the name, and what it had then.
    still_since: Option<(Millis, Kib)>,
    /// Since when its speed is measured, and what it had then. Goes on while its target stays on the same side.
    stretch: Option<(Millis, Kib)>,
    /// Since when it has what it is to have.
    settled_since: Option<Millis>,
    give: Option<Speed>,
    take: Option<Speed>,
    gave_up: Option<GaveUp>,
}

/// A guest that did not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GaveUp {
    pub way: Way,
    pub retry_at: Millis,
    failures: u32,
    /// What it had: when it moves from there, all is well again.
    had: Kib,
}

/// What is assumed of a guest that was never seen to move: what Qubes demands of one as the least.
const UNKNOWN: Speed = Speed::per_second(Kib::mib(100));
/// A guest this near to its target is there: Linux and Xen differ by up to 1 MiB in what they count.
const NEAR: Kib = Kib::mib(4);
/// The least progress that counts: a page now and then is none.
const PROGRESS: Kib = Kib::mib(1);
/// A speed is measured until there was progress, however slow, but no longer than this.
const STRETCH: Millis = Millis::seconds(1);
/// A report older than the balloon's last move says what was. So long after that it says what is.
const SETTLED: Millis = Millis::new(1500);

impl Motion {
    /// Takes in what it has and is to have now.
    pub fn note(&mut self, now: Millis, assigned: Kib, target: Kib, tuning: &Tuning) {
        match self.seen {
            Some((then, had, was_to_have)) if was_to_have == target => {
                let (since, from) = *self.stretch.get_or_insert((then, had));
                self.learn(now, now.since(since), from, assigned, target);
            }
            _ => self.stretch = None,
        }
        let same_target = self.seen.is_some_and(|(_, _, was_to_have)| was_to_have == target);
        let near = assigned.distance(target) <= NEAR;
        self.settled_since = if near && same_target { self.settled_since.or(Some(now)) } else { None };
        if near {
            self.still_since = None;
        } else {
            let moved = |had: Kib| if assigned > target { had - assigned } else { assigned - had };
            match self.still_since {
                Some((_, had)) if same_target && moved(had) < PROGRESS => {}
                _ => self.still_since = Some((now, assigned)),
            }
        }
        if let Some(gave_up) = self.gave_up {
            let moved = match gave_up.way {
                Way::Give => gave_up.had - assigned,
                Way::Take => assigned - gave_up.had,
            };
            if moved > NEAR {
                self.gave_up = None;
            }
        }
        let stuck = self.still_since.filter(|(since, _)| now.since(*since) >= tuning.stuck_after);
        if stuck.is_some() {
            let failures = self.gave_up.map_or(0, |gave_up| gave_up.failures);
            let wait = tuning.retry_after.get().saturating_mul(1 << failures.min(4));
            self.gave_up = Some(GaveUp {
                way: if assigned > target { Way::Give } else { Way::Take },
                retry_at: now + Millis::new(wait),
                failures: failures.saturating_add(1),
                had: assigned,
            });
            self.still_since = None;
        }
        self.seen = Some((now, assigned, target));
    }

    /// Forgets what it was to have: it is to have something else from now on, as of the decision just made.
    pub fn aim(&mut self, target: Kib) {
        if let Some((_, assigned, aim)) = &mut self.seen
            && *aim != target
        {
            let (way, before) = (target > *assigned, *aim > *assigned);
            *aim = target;
            self.settled_since = None;
            // A target that moves on in the same direction is no excuse for not moving.
            if way != before {
                (self.still_since, self.stretch) = (None, None);
            }
        }
    }

    /// What it has is what it is to have, for so long that reports are about that.
    pub fn settled(&self, now: Millis) -> bool {
        self.settled_since.is_some_and(|since| now.since(since) >= SETTLED)
    }

    /// Whether it does not move, and which way.
    pub fn gave_up(&self) -> Option<GaveUp> {
        self.gave_up
    }

    /// How fast it is, as far as is known.
    pub fn speed(&self, way: Way) -> Speed {
        match way {
            Way::Give => self.give,
            Way::Take => self.take,
        }
        .unwrap_or(UNKNOWN)
    }

    /// What was learned: giving, taking.
    pub fn learned(&self) -> (Option<Speed>, Option<Speed>) {
        (self.give, self.take)
    }

    /// Takes up what was learned in another life.
    pub fn teach(&mut self, give: Option<Speed>, take: Option<Speed>) {
        (self.give, self.take) = (self.give.or(give), self.take.or(take));
    }

    fn learn(&mut self, now: Millis, passed: Millis, had: Kib, assigned: Kib, target: Kib) {
        let (way, moved) = match (had > target, had < target) {
            (true, _) => (Way::Give, had - assigned),
            (_, true) => (Way::Take, assigned - had),
            _ => {
                self.stretch = None;
                return;
            }
        };
        let arrived = assigned.distance(target) <= NEAR;
        if !arrived && moved < PROGRESS && passed < STRETCH {
            return;
        }
        self.stretch = if arrived { None } else { Some((now, assigned)) };
        let Some(speed) = Speed::of(moved, passed) else { return };
        let known = match way {
            Way::Give => &mut self.give,
            Way::Take => &mut self.take,
        };
        // One that arrived was at least so fast. One on its way was so fast.
        *known = match *known {
            None if moved >= PROGRESS || (moved != Kib::ZERO && !arrived) => Some(speed),
            Some(before) if arrived => Some(before.max(speed)),
            Some(before) => {
                let (before, speed) = (Kib::new(before.get()), Kib::new(speed.get()));
                Some(Speed::per_second(before.part(3, 4) + speed.part(1, 4)))
            }
            None => None,
        };
    }
}
