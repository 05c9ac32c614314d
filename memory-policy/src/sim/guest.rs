//! A simulated guest: what it uses, how its balloon moves, when it stalls, when it kills.

use super::curve::Curve;
use crate::{Demand, DomId, Domain, Estimate, Kib, Millis, Report, Settings, Speed};

/// What a guest is like.
#[derive(Clone, Debug)]
pub struct GuestSpec {
    /// Its name in the table.
    pub name: &'static str,
    /// What its user set.
    pub settings: Settings,
    /// What its processes and kernel need.
    pub curve: Curve,
    /// How fast it gives.
    pub give: Speed,
    /// How fast it takes.
    pub take: Speed,
    /// Whether it can do with less than it needs, slowly. One that cannot kills a process.
    pub swap: bool,
    /// Who tells the daemon.
    pub agent: Agent,
    /// How it follows its target.
    pub balloon: Balloon,
    /// How long it has run when the scenario begins.
    pub age: Millis,
    /// What it has when the scenario begins; its startup memory when none is said.
    pub has: Option<Kib>,
    /// When it ends.
    pub dies: Option<Millis>,
}

/// How a guest reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// Once a second, and when it stalls.
    Honest,
    /// Never.
    None,
    /// Never, but the hypervisor looks which of its memory it touches: so many percent within some seconds.
    Watched(u64),
    /// Until then.
    Until(Millis),
    /// That it has no memory at all.
    Nothing,
    /// That it has 2^40 KiB.
    Huge,
    /// That all it has is used, always.
    Greedy,
    /// Every step.
    Flood,
}

/// How a guest follows its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balloon {
    /// At its speed.
    Works,
    /// Not at all.
    Ignores,
    /// Half the way.
    Half,
}

impl GuestSpec {
    /// A Linux guest as in the research page: minimum 512 MiB, startup 1 GiB, maximum 4 GiB; it has run for a while.
    pub fn linux(name: &'static str, curve: Curve) -> Self {
        Self {
            name,
            settings: Settings::balanced(Kib::mib(512), Kib::gib(1), Kib::gib(4)),
            curve,
            give: Speed::per_second(Kib::mib(800)),
            take: Speed::per_second(Kib::mib(2000)),
            swap: false,
            agent: Agent::Honest,
            balloon: Balloon::Works,
            age: Millis::seconds(100),
            has: None,
            dies: None,
        }
    }
}

/// A guest in a world.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub id: DomId,
    pub spec: GuestSpec,
    pub born: Millis,
    pub assigned: Kib,
    pub target: Kib,
    /// What stands in XenStore.
    pub demand: Demand,
    /// Processes killed for lack of memory.
    pub kills: u64,
    /// Time that its processes waited for memory.
    pub stalled: Millis,
    /// Since when it waits without getting anything.
    starved: Option<(Millis, Kib)>,
    /// Stall within the window of its PSI trigger.
    window: (Millis, Millis),
    last_report: Option<Millis>,
    /// Where a balloon that goes half the way stops.
    half: Option<(Kib, Kib)>,
}

/// What a Linux kernel keeps to itself.
const OVERHEAD: Kib = Kib::mib(36);
/// How fast a guest with a swap device does with less than it needs.
const SWAP: Speed = Speed::per_second(Kib::mib(50));
/// A guest without swap that waits for so long, and gets nothing, kills a process.
const PATIENCE: Millis = Millis::seconds(1);
/// How often the hypervisor says what it saw a guest touch.
const LOOKS: Millis = Millis::seconds(5);
/// The PSI trigger of the agent: so much stall within such a window.
const TRIGGER: (Millis, Millis) = (Millis::new(50), Millis::new(500));

impl Guest {
    pub fn new(id: u16, spec: GuestSpec, now: Millis) -> Self {
        let has = spec.has.unwrap_or(spec.settings.startup);
        Self {
            id: DomId::new(id),
            born: now,
            assigned: has,
            target: has,
            demand: Demand::None,
            kills: 0,
            stalled: Millis::ZERO,
            starved: None,
            window: (Millis::ZERO, Millis::ZERO),
            last_report: None,
            half: None,
            spec,
        }
    }

    /// What it needs; nothing to speak of once its process was killed.
    pub fn wish(&self, now: Millis) -> Kib {
        match self.kills {
            0 => self.spec.curve.at(now).max(OVERHEAD),
            _ => OVERHEAD + Kib::mib(100),
        }
    }

    /// The same without what comes and goes every second: as it is on the average, and at the most. What a guest claims
    /// that nobody can check is what it needs.
    pub fn plain(&self, now: Millis) -> (Kib, Kib) {
        match self.kills {
            _ if self.spec.agent == Agent::Greedy => (self.spec.settings.maximum, self.spec.settings.maximum),
            0 => (self.spec.curve.plain(now).max(OVERHEAD), self.spec.curve.most(now).max(OVERHEAD)),
            _ => (self.wish(now), self.wish(now)),
        }
    }

    /// What of the host's memory stands behind it.
    pub fn committed(&self) -> Kib {
        self.assigned.max(self.target)
    }

    /// Whether memory can be moved for it, by who knows everything.
    pub fn is_movable(&self) -> bool {
        let agent =
            matches!(self.spec.agent, Agent::Honest | Agent::Flood | Agent::Greedy | Agent::Watched(_));
        agent && self.spec.balloon == Balloon::Works && self.spec.settings.balanced
    }

    /// Whether its shortage counts: it told the truth, and all of it. What a guest swapped out nobody sees from outside.
    pub fn counts(&self) -> bool {
        self.is_movable() && !matches!(self.spec.agent, Agent::Greedy | Agent::Watched(_))
    }

    /// How the daemon sees it.
    pub fn domain(&self, now: Millis) -> Domain {
        Domain {
            id: self.id,
            settings: self.spec.settings,
            assigned: self.assigned,
            target: self.target,
            age: self.spec.age + now.since(self.born),
            demand: self.demand,
        }
    }

    /// Lives for `step`. Answers what memory it moved.
    pub fn step(&mut self, now: Millis, step: Millis) -> Kib {
        let before = self.assigned;
        self.move_balloon(now, step);
        let wish = self.wish(now);
        if wish > self.assigned {
            self.stalled = self.stalled + step;
            self.window.1 = self.window.1 + step;
            match self.starved {
                Some((since, had)) if self.assigned <= had => {
                    if now.since(since) >= PATIENCE && !self.spec.swap {
                        self.kills += 1;
                        self.starved = None;
                    }
                }
                _ => self.starved = Some((now, self.assigned)),
            }
        } else {
            self.starved = None;
        }
        before.distance(self.assigned)
    }

    fn move_balloon(&mut self, now: Millis, step: Millis) {
        let goal = match self.spec.balloon {
            Balloon::Works => self.target,
            Balloon::Ignores => self.assigned,
            Balloon::Half => {
                let (target, goal) = *self.half.get_or_insert((self.target, self.assigned));
                if target == self.target {
                    goal
                } else {
                    let way = self.assigned.distance(self.target).part(1, 2).down_to(Kib::PAGE);
                    let goal =
                        if self.target > self.assigned { self.assigned + way } else { self.assigned - way };
                    self.half = Some((self.target, goal));
                    goal
                }
            }
        };
        if goal > self.assigned {
            self.assigned = (self.assigned + self.spec.take.during(step)).min(goal);
        } else {
            // What is used it does not give, but by swapping.
            let free = self.assigned - self.wish(now);
            let quick = self.spec.give.during(step).min(free);
            let swapped = if self.spec.swap && free == Kib::ZERO { SWAP.during(step) } else { Kib::ZERO };
            self.assigned = (self.assigned - quick - swapped).max(goal);
        }
    }

    /// The report that it makes now, if it makes one.
    pub fn report(&mut self, now: Millis) -> Option<Demand> {
        let (started, stall) = self.window;
        let triggered = stall >= TRIGGER.0;
        if now.since(started) >= TRIGGER.1 || (triggered && now == started) {
            self.window = (now, Millis::ZERO);
        }
        // A trigger fires once in a window.
        let fired = triggered && self.last_report.is_none_or(|last| now.since(last) >= TRIGGER.1);
        let offset = Millis::new(u64::from(self.id.raw()) * 140 % 1000);
        let due = (now + offset).get().is_multiple_of(1000);
        let makes = match self.spec.agent {
            Agent::None => false,
            Agent::Until(end) if now >= end => false,
            Agent::Watched(_) => now.get().is_multiple_of(LOOKS.get()),
            Agent::Flood => true,
            _ => due || fired,
        };
        if !makes {
            return None;
        }
        self.last_report = Some(now);
        if let Agent::Watched(percent) = self.spec.agent {
            // What it swapped out it does not touch.
            let (wish, has) = (self.wish(now), self.assigned);
            let (used, active) = (wish.min(has), wish.part(percent, 100).min(has));
            return Some(Demand::Estimated(Estimate { taken: now, used, active }));
        }
        let total = self.assigned - OVERHEAD;
        let wish = self.wish(now);
        let used = (wish - OVERHEAD).min(total);
        let available = if self.spec.agent == Agent::Greedy { Kib::ZERO } else { total - used };
        let honest = Report {
            taken: now,
            total,
            free: available,
            available,
            committed: wish - OVERHEAD,
            some: Some(self.stalled.get() * 1000),
            full: Some(self.stalled.get() * 1000),
            stall: fired,
        };
        Some(Demand::Reported(match self.spec.agent {
            Agent::Nothing => Report { total: Kib::ZERO, free: Kib::ZERO, available: Kib::ZERO, ..honest },
            Agent::Huge => Report { total: Kib::new(1 << 40), committed: Kib::new(1 << 63), ..honest },
            _ => honest,
        }))
    }
}
