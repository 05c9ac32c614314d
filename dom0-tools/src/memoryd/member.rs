//! One domain as the daemon knows it: what the hypervisor says, what was set, what it reports, and what was decided.

use std::collections::VecDeque;
use std::error::Error;

use memory_policy::{
    Demand, Domain, Estimate, Explanation, Kib, Millis, Report as Known, Settings, Source, Speed,
};
use pv_abi::domid::DomId;
use pv_abi::nacelle::WorkingSet;

use super::report::Report;
use super::speeds::Speeds;
use super::view::{DomainCounters, DomainView, GuestView, Moved, Told};

/// Decisions that are kept of each domain.
const KEPT: usize = 64;
/// A guest that writes more often in a second is not listened to for the rest of it. An agent writes once, and twice at a stall.
const WRITES: u32 = 20;
const SECOND: Millis = Millis::seconds(1);
/// It stays marked for so long: while it goes on it is caught once a second.
const MARKED: Millis = Millis::seconds(3);
/// What was reached: Linux and the hypervisor differ by up to a MiB in what they count.
const NEAR: Kib = Kib::mib(2);
/// Pressures of so many seconds make the mean, the least and the most.
const PRESSURES: usize = 60;
/// How often the hypervisor is asked which pages a domain without an agent uses.
pub const ESTIMATE: Millis = Millis::seconds(5);
/// What was seen in less says nothing: the hypervisor may have to end a sample early, and few pages are used in a moment.
const LEAST_PERIOD: Millis = Millis::new(2500);
/// Estimates that make the slow window: a minute.
const ESTIMATES: usize = 12;

/// What the hypervisor says of a domain now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which.
    pub id: DomId,
    /// Its UUID.
    pub handle: [u8; 16],
    /// What it has.
    pub assigned: Kib,
    /// Of what it sees, what has no page behind it yet, beyond what is set aside for that.
    pub untouched: Kib,
    /// What it may have.
    pub ceiling: Kib,
    /// What it is to have, where the hypervisor keeps that.
    pub target: Option<Kib>,
}

/// What XenStore says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// Its settings.
    pub settings: Settings,
    /// `memory/target`, if it is there.
    pub target: Option<Kib>,
    /// How long ago it was made, if that is known.
    pub age: Option<Millis>,
    /// How fast it was in the daemon's former life.
    pub speeds: Speeds,
}

/// What becomes of the news that a guest has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is to be read.
    Read,
    /// It writes too often: not listened to until then.
    MutedUntil(Millis),
}

/// How urgent what a guest wrote is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is nothing new.
    Nothing,
    /// A report much as the one before.
    Same,
    /// It uses more or less than before, or makes sense again, or no longer.
    Change,
    /// Its tasks wait.
    Stall,
}

/// A use that changes by less than this part of its memory is much the same.
const NOTABLE: u64 = 64;

/// A decision that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    at: Millis,
    is_change: bool,
    why: Explanation,
}

/// A domain.
#[derive(Clone, Debug)]
pub struct Member {
    pub(super) facts: Facts,
    pub(super) stored: Stored,
    born: Millis,
    demand: Demand,
    /// The last report that was taken, or found when the daemon started.
    last: Option<Report>,
    complaint: Option<String>,
    /// When it was last found to write too often.
    flooded: Option<Millis>,
    source: (Source, Millis),
    writes: (Millis, u32),
    estimates: VecDeque<Kib>,
    decided: Option<Kept>,
    kept: VecDeque<Kept>,
    pressures: VecDeque<(Millis, u64)>,
    /// A target that is not reached yet, and since when.
    aim: Option<(Millis, Kib)>,
    moved: Moved,
    pub(super) counters: DomainCounters,
    pub(super) speeds: Speeds,
}

impl Member {
    /// A domain that was just seen.
    pub fn new(facts: Facts, stored: Stored, now: Millis) -> Self {
        let born = Millis::new(now.get().saturating_sub(stored.age.map_or(0, Millis::get)));
        Self {
            facts,
            stored,
            born,
            demand: Demand::None,
            last: None,
            complaint: None,
            flooded: None,
            source: (Source::None, now),
            writes: (now, 0),
            estimates: VecDeque::new(),
            decided: None,
            kept: VecDeque::new(),
            pressures: VecDeque::new(),
            aim: None,
            moved: Moved::default(),
            counters: DomainCounters::default(),
            speeds: Speeds::default(),
        }
    }

    /// What it is to have: as the hypervisor says, or XenStore where that keeps no targets.
    pub fn target(&self) -> Kib {
        self.facts.target.or(self.stored.target).unwrap_or(self.facts.assigned)
    }

    /// What it was not promised yet of its minimum.
    pub fn lacks_minimum(&self, is_movable: bool) -> Kib {
        let settings = &self.stored.settings;
        if settings.balanced && is_movable { settings.minimum - self.target() } else { Kib::ZERO }
    }

    /// For the policy.
    pub fn known(&self, now: Millis, is_movable: bool) -> Domain {
        let settings =
            Settings { balanced: self.stored.settings.balanced && is_movable, ..self.stored.settings };
        Domain {
            id: self.facts.id,
            settings,
            assigned: self.facts.assigned,
            target: self.target(),
            age: now.since(self.born),
            demand: self.demand,
        }
    }

    /// The hypervisor looked again.
    pub fn see(&mut self, facts: Facts, now: Millis) {
        let (before, after) = (self.facts.assigned, facts.assigned);
        self.moved.added_kib += (after - before).get();
        self.moved.removed_kib += (before - after).get();
        self.facts = facts;
        if let Some((since, target)) = self.aim
            && after.distance(target) <= NEAR
        {
            let took = now.since(since).get();
            self.counters.reached += 1;
            self.counters.reached_ms = self.counters.reached_ms.saturating_add(took);
            self.counters.slowest_ms = self.counters.slowest_ms.max(took);
            self.aim = None;
        }
    }

    /// Whether all that it was to give is given, in its own view, too: then it need not be allowed more than its target.
    pub fn has_settled(&self) -> bool {
        let holds = self.facts.assigned + self.facts.untouched;
        holds.distance(self.target()) <= NEAR
    }

    /// The guest has written.
    pub fn hear(&mut self, now: Millis) -> Heard {
        let (start, count) = self.writes;
        if now.since(start) >= SECOND {
            self.writes = (now, 1);
            return Heard::Read;
        }
        self.writes.1 = count + 1;
        match self.writes.1 > WRITES {
            false => Heard::Read,
            true => {
                self.counters.floods += 1;
                self.flooded = Some(now);
                Heard::MutedUntil(start + SECOND)
            }
        }
    }

    /// Takes what it wrote. `is_old`: that was there before the daemon looked, so nobody knows when it was written.
    pub fn report(&mut self, text: Option<&str>, is_old: bool, now: Millis) -> News {
        match text.map_or(Ok(None), Report::parse) {
            // It says nothing: its agent never started, or has taken its leave.
            Ok(None) => {
                let is_change = self.last.take().is_some() || self.complaint.take().is_some();
                if is_change {
                    self.demand = Demand::None;
                }
                if is_change { News::Change } else { News::Nothing }
            }
            Ok(Some(report)) => {
                let known = known(&report, now);
                if let Err(implausible) = known.check(&self.stored.settings) {
                    return self.refuse(&implausible);
                }
                let before = self.last.replace(report);
                if is_old || before.is_some_and(|before| before.seq == report.seq) {
                    return News::Nothing;
                }
                let is_same = before.is_some_and(|before| {
                    let moved = before.used_kib().abs_diff(report.used_kib());
                    self.complaint.is_none() && moved < report.total_kib / NOTABLE
                });
                self.take(&report, known);
                match (report.is_stall, is_same) {
                    (true, _) => News::Stall,
                    (false, true) => News::Same,
                    (false, false) => News::Change,
                }
            }
            Err(nonsense) => self.refuse(&nonsense),
        }
    }

    fn take(&mut self, report: &Report, known: Known) {
        self.counters.reports += 1;
        self.counters.stalls += u64::from(report.is_stall);
        self.complaint = None;
        self.demand = Demand::Reported(known);
    }

    fn refuse(&mut self, nonsense: &dyn Error) -> News {
        self.counters.bad_reports += 1;
        self.complaint = Some(format!("its report makes no sense: {nonsense}"));
        self.demand = Demand::Nonsense;
        News::Change
    }

    /// Why it is not believed, or not listened to all the time.
    fn complaint(&self, now: Millis) -> Option<String> {
        let is_flooding = self.flooded.is_some_and(|at| now.since(at) < MARKED);
        let flood =
            is_flooding.then(|| format!("it reports more than {WRITES} times a second: heard once a second"));
        let all: Vec<String> = self.complaint.clone().into_iter().chain(flood).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Whether nobody in it says what it needs, so that the hypervisor is to be asked.
    pub fn needs_estimate(&self) -> bool {
        self.last.is_none() && self.complaint.is_none() && self.stored.settings.balanced
    }

    /// The hypervisor has looked which of its pages it uses.
    pub fn estimate(&mut self, seen: &WorkingSet, now: Millis) {
        let period = Millis::new(seen.period / 1_000_000);
        if seen.sampled == 0 || period < LEAST_PERIOD {
            return;
        }
        let active = Kib::new(seen.mapped.saturating_mul(4)).part(seen.touched, seen.sampled);
        self.estimates.push_back(active);
        if self.estimates.len() > ESTIMATES {
            self.estimates.pop_front();
        }
        let used = self.estimates.iter().copied().max().unwrap_or(active);
        self.demand = Demand::Estimated(Estimate { taken: now, used, active });
    }

    /// A decision was made.
    pub fn decide(&mut self, why: Explanation, is_change: bool, now: Millis) {
        if why.source != self.source.0 {
            self.source = (why.source, now);
        }
        let kept = Kept { at: now, is_change, why };
        let is_new = is_change
            || self.decided.is_none_or(|last| {
                (last.why.rule, last.why.limit, last.why.source) != (why.rule, why.limit, why.source)
            });
        self.decided = Some(kept);
        if is_new {
            self.kept.push_back(kept);
            if self.kept.len() > KEPT {
                self.kept.pop_front();
            }
        }
        if self.pressures.back().is_none_or(|(at, _)| now.since(*at) >= SECOND) {
            self.pressures.push_back((now, why.pressure));
            if self.pressures.len() > PRESSURES {
                self.pressures.pop_front();
            }
        }
    }

    /// A target was set, from `from` on.
    pub fn aim_at(&mut self, from: Kib, target: Kib, now: Millis) {
        self.aim = Some((now, target));
        self.facts.target = self.facts.target.map(|_| target);
        self.stored.target = Some(target);
        match target > from {
            true => self.moved.add_operations += 1,
            false => self.moved.remove_operations += 1,
        }
    }

    /// Its decisions, the oldest first.
    pub fn explain(&self, now: Millis) -> Vec<Told> {
        let last = self.decided.filter(|last| self.kept.back() != Some(last));
        let told = |kept: &Kept| Told {
            ago_ms: now.since(kept.at).get(),
            is_change: kept.is_change,
            rule: kept.why.rule.name().to_owned(),
            text: kept.why.to_string(),
        };
        self.kept.iter().chain(last.as_ref()).map(told).collect()
    }

    /// What was moved.
    pub fn moved(&self) -> Moved {
        self.moved
    }

    /// For who looks.
    pub fn view(&self, now: Millis) -> DomainView {
        let settings = &self.stored.settings;
        let why = self.decided.map(|kept| kept.why);
        let is_known = why.filter(|why| why.source != Source::None);
        let pressures = || self.pressures.iter().map(|(_, pressure)| *pressure);
        let count = self.pressures.len() as u64;
        let source = why.map_or(Source::None, |why| why.source);
        DomainView {
            domid: self.facts.id.raw(),
            name: self.stored.name.clone(),
            is_balanced: settings.balanced,
            assigned_kib: self.facts.assigned.get(),
            target_kib: self.target().get(),
            startup_kib: settings.startup.get(),
            minimum_kib: settings.minimum.get(),
            maximum_kib: settings.maximum.get(),
            buffer: settings.buffer.into(),
            weight: settings.weight.into(),
            demand_kib: is_known.map(|why| why.demand.get()),
            want_kib: why.map_or(0, |why| why.want.get()),
            pressure: is_known.map(|why| why.pressure),
            pressure_range: is_known.and_then(|_| Some((pressures().min()?, pressures().max()?))),
            average_pressure: is_known.and_then(|_| pressures().sum::<u64>().checked_div(count)),
            source: source.to_string(),
            complaint: self.complaint(now),
            source_s: now.since(self.source.1).get() as f64 / 1000.0,
            rule: why.map_or_else(|| "off".to_owned(), |why| why.rule.name().to_owned()),
            limit: why.and_then(|why| why.limit).map(|limit| limit.name().to_owned()),
            is_stalled: why.is_some_and(|why| why.stalled),
            is_stuck: why.is_some_and(|why| why.stuck),
            is_rising: why.is_some_and(|why| why.rising),
            speed_kib: (self.speeds.give.map(Speed::get), self.speeds.take.map(Speed::get)),
            guest: self.last.map(|last| GuestView {
                total_kib: last.total_kib,
                available_kib: last.available_kib,
                committed_kib: last.committed_kib,
                stall_us: (last.some_us, last.full_us),
            }),
            moved: self.moved,
            counters: self.counters,
            // The hypervisor is asked when somebody looks.
            mapping: None,
        }
    }
}

/// What a report says, for the policy.
fn known(report: &Report, now: Millis) -> Known {
    Known {
        taken: now,
        total: Kib::new(report.total_kib),
        free: Kib::new(report.free_kib),
        available: Kib::new(report.available_kib),
        committed: Kib::new(report.committed_kib),
        some: report.some_us,
        full: report.full_us,
        stall: report.is_stall,
    }
}
