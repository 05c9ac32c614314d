//! The scores of the research page's §11, as integrals over a run.

use core::fmt;
use std::collections::BTreeMap;

use super::STEP;
use super::guest::Guest;
use super::oracle;
use super::scenarios::Scenario;
use crate::{DomId, Kib, Millis};

/// Memory over time: shortage and waste.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemoryTime {
    kib_ms: u64,
}

/// Shortages below this, in a whole scenario, are alike: 64 MiB short for one second.
pub const GRACE: MemoryTime = MemoryTime::of(Kib::mib(64), Millis::seconds(1));

/// A guest that is short by less than one part in so many of what it is due is not: the ±2 % of scenario 4.
const TOLERANCE: u64 = 50;

impl MemoryTime {
    /// `memory` for `time`.
    pub const fn of(memory: Kib, time: Millis) -> Self {
        Self { kib_ms: memory.get().saturating_mul(time.get()) }
    }

    fn add(&mut self, memory: Kib, time: Millis) {
        self.kib_ms = self.kib_ms.saturating_add(Self::of(memory, time).kib_ms);
    }

    /// In MiB·s.
    pub const fn mib_seconds(self) -> u64 {
        self.kib_ms / 1024 / 1000
    }

    /// Against what the oracle cannot avoid, in percent, with [`GRACE`] on both sides.
    pub fn regret(self, oracle: Self) -> u64 {
        let [mine, its] = [self, oracle].map(|it| it.kib_ms.saturating_add(GRACE.kib_ms));
        Kib::new(mine).percent_of(Kib::new(its))
    }
}

/// In GiB·s, to a hundredth.
impl fmt::Display for MemoryTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths = self.kib_ms / 1024 / 1024 / 10;
        f.pad(&format!("{}.{:02}", hundredths / 100, hundredths % 100))
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// S: what guests lacked of their need or their fair share, whichever is less.
    pub shortage: MemoryTime,
    /// W: what guests had beyond what they want, while another was short.
    pub waste: MemoryTime,
    /// G: steps in which a guest had, or was to have, less than its minimum.
    pub guarantee: u64,
    /// O: processes killed for lack of memory.
    pub kills: u64,
    /// H: steps in which budgets went beyond RAM, or into the reserve; targets that the hypervisor refused.
    pub beyond: u64,
    /// C: memory moved.
    pub moved: Kib,
    /// Targets set, and those set after the scenario says that all should be quiet.
    pub writes: u64,
    /// See `writes`.
    pub late_writes: u64,
    /// T90: from a step in demand until the guest has nine tenths of it.
    pub t90: Option<Millis>,
    /// F: the most that a guest was off its perfect share at the end, in thousandths of the host.
    pub off: u64,
    /// X: targets that changed direction within ten seconds.
    pub reversals: u64,
    /// PSI: time that guests stalled.
    pub stalled: Millis,
    /// Domains made in time, and late or never.
    pub made: u64,
    /// See `made`.
    pub late: u64,
}

/// Adds up a score.
#[derive(Clone, Debug)]
pub(crate) struct Scorer {
    pub score: Score,
    quiet: Option<Millis>,
    step90: Option<(usize, Millis, Kib)>,
    directions: BTreeMap<DomId, (Millis, bool)>,
}

impl Scorer {
    pub fn new(scenario: &Scenario) -> Self {
        let step90 = scenario.step.map(|(guest, at)| {
            let curve = &scenario.guests[guest].curve;
            let (from, to) = (curve.plain(at), curve.plain(at + Millis::seconds(5)));
            (guest, at, from + (to - from).part(9, 10))
        });
        Self { score: Score::default(), quiet: scenario.quiet, step90, directions: BTreeMap::new() }
    }

    pub fn refused(&mut self) {
        self.score.beyond += 1;
    }

    pub fn targeted(&mut self, now: Millis, guest: &Guest, target: Kib) {
        if target == guest.target {
            return;
        }
        self.score.writes += 1;
        if self.quiet.is_some_and(|quiet| now >= quiet) {
            self.score.late_writes += 1;
        }
        if target < guest.spec.settings.minimum {
            self.score.guarantee += 1;
        }
        let up = target > guest.target;
        if let Some((then, was_up)) = self.directions.insert(guest.id, (now, up))
            && was_up != up
            && now.since(then) < Millis::seconds(10)
        {
            self.score.reversals += 1;
        }
    }

    pub fn step(
        &mut self,
        now: Millis,
        ram: Kib,
        reserve: Kib,
        unpromised: Kib,
        moved: Kib,
        guests: &[Guest],
    ) {
        let score = &mut self.score;
        score.moved += moved;
        let committed: Kib = guests.iter().map(Guest::committed).sum();
        if committed > ram || unpromised < reserve {
            score.beyond += 1;
        }
        let shares = oracle::shares(guests, ram - reserve, |guest| guest.plain(now));
        let mut short = false;
        for (guest, share) in guests.iter().zip(&shares) {
            if guest.assigned < guest.spec.settings.minimum {
                score.guarantee += 1;
            }
            if guest.counts() {
                let due = guest.wish(now).min(share.fair);
                let lacking = due - due.part(1, TOLERANCE) - guest.assigned;
                short |= lacking != Kib::ZERO;
                score.shortage.add(lacking, STEP);
            }
        }
        if short {
            for (guest, share) in guests.iter().zip(&shares) {
                score.waste.add(guest.assigned - share.want, STEP);
            }
        }
        if let Some((index, at, level)) = self.step90
            && score.t90.is_none()
            && now >= at
            && guests[index].assigned >= level
        {
            score.t90 = Some(now.since(at));
        }
        score.off = 0;
        for (guest, share) in guests.iter().zip(&shares).filter(|(guest, _)| guest.counts()) {
            let off = guest.assigned.distance(share.fair).part(1000, ram.get().max(1)).get();
            score.off = score.off.max(off);
        }
    }

    pub fn finish(mut self, guests: &[Guest]) -> Score {
        for guest in guests {
            self.score.kills += guest.kills;
            self.score.stalled = self.score.stalled + guest.stalled;
        }
        self.score
    }
}
