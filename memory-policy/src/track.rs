//! What a domain needs, made of what is said about it: filtered against noise, quick to rise, slow to fall.
//!
//! A Linux guest cannot show a demand beyond what it has: what it uses saturates there. So a guest whose buffer is more than
//! half gone *may* need what it has promised its processes, up to twice what it uses, and gets that if memory is free. If it
//! also waits for memory (PSI) it *does* need that, or if it promised nothing, a little more than it has; and that remains
//! what it needs for a while, so that it is not squeezed until it stalls again.

use crate::known::{Demand, Domain, Estimate, Report};
use crate::{Kib, Millis, Settings, Source, Tuning};

/// The past of a domain's demand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    /// When what was taken in last was taken, and when the first was.
    last: Option<Millis>,
    first: Option<Millis>,
    /// What the domain has beyond what its kernel manages, learned whenever it is settled.
    overhead: Option<Kib>,
    raw: Kib,
    active: Kib,
    average: Kib,
    /// Highest demands of the last moments, each with the start of its slot.
    peaks: Vec<(Millis, Kib)>,
    /// The guest's count of µs stalled, in its last report.
    some: Option<u64>,
    stalled_at: Option<Millis>,
    /// When it stalled last while it had little left, or was to have nothing left soon.
    pressed_at: Option<Millis>,
    /// What stalls taught that it needs on top, though its figures do not show it: a cache that is used.
    cushion: Kib,
    /// What it may need on top of what it is known to, and what it will until the next report, at the rate of the last.
    hope: Kib,
    surge: Kib,
    /// What it needs more each second, of late, little as it may be.
    rate: Kib,
    /// How many reports on end told of a stall that nothing explains.
    puzzled: u32,
    /// What stalls taught that it does not get on with less than.
    floor: Option<Floor>,
    /// What it was to need by its reports of the last second, or by the one before.
    levels: Vec<(Millis, Kib)>,
    trend: Trend,
}

/// What was too little.
#[derive(Clone, Copy, Debug)]
struct Floor {
    at: Millis,
    /// What the guest used then.
    used: Kib,
    /// What it needs since.
    least: Kib,
}

/// What a domain needs, as the law takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub source: Source,
    /// How old what is known is.
    pub age: Millis,
    /// What it was said to need last.
    pub raw: Kib,
    pub average: Kib,
    /// Whether the average is over long enough to move memory for.
    pub settled: bool,
    /// The most that it was said to need of late, and in a longer time.
    pub peak: Kib,
    pub crest: Kib,
    pub active: Kib,
    /// What it may need on top of that, if there is memory: a matter of the buffer.
    pub hope: Kib,
    pub stalled: bool,
    /// Whether it cannot wait for more, and what it will need more before it can be asked again.
    pub pressed: bool,
    pub ahead: Kib,
    pub rising: bool,
}

/// A guest whose demand rises is given what it will need in this time at the same rate, if memory is free.
const AHEAD: Millis = Millis::seconds(1);
/// Less than one part in so many is no rise to go by; if memory runs out, less than this a second.
const SURGE: u64 = 12;
const DRIFT: u64 = 16;
/// The rate of a rise is over this time, or since the report before if that is longer; over the lesser at least: reports that
/// follow each other say little about it.
const WINDOW: Millis = Millis::new(900);
const LEAST_TIME: Millis = Millis::new(250);
/// A demand that falls by less than one part in so many did not fall.
const NOISE: u64 = 8;
/// So many times longer noise is remembered than what keeps a donor from giving.
const CREST: u64 = 4;
/// Time of one slot of the peaks.
const SLOT: u64 = 2500;
/// A guest that waited for memory is taken to do so for this long.
const STALL: Millis = Millis::seconds(2);
/// A guest stalls if some task waits for memory for more than this part of the time.
const STALL_PART: u64 = 20;
/// A guest that stalls is taken to need more than it has by one part in so many, and so much at least.
const STALL_STEP: u64 = 64;
const LEAST_STEP: Kib = Kib::mib(8);
/// If memory is free it gets so much on top: another report takes time, and it may have to kill by then.
const STALL_HOPE: u64 = 8;
const LEAST_HOPE: Kib = Kib::mib(16);
/// What a stall taught is held for so long.
const FLOOR: Millis = Millis::seconds(300);
/// The cushion that stalls taught is forgotten at this rate.
const CUSHION_OVER: Millis = Millis::seconds(600);
/// Estimates come seldom.
const ESTIMATE_STALE: Millis = Millis::seconds(150);

impl Need {
    /// What it needs for sure: the most of late, unless it fell by more than noise does.
    pub fn pressing(&self) -> Kib {
        if self.raw >= self.crest - self.crest.part(1, NOISE) { self.crest } else { self.raw }
    }
}

impl Track {
    /// Takes in what is known now.
    pub fn note(
        &mut self,
        domain: &Domain,
        settings: &Settings,
        settled: bool,
        now: Millis,
        tuning: &Tuning,
    ) {
        match domain.demand {
            Demand::None | Demand::Nonsense => {}
            Demand::Reported(report) if report.check(settings).is_err() => {}
            Demand::Reported(report) => self.report(&report, domain, settings, settled, now, tuning),
            Demand::Estimated(estimate) => self.estimate(&estimate, now, tuning),
        }
    }

    /// Whether it uses up what it is to have within two seconds, if its demand goes on to rise as it did.
    pub fn press(&mut self, domain: &Domain, now: Millis) {
        if self.rate > self.raw.part(1, DRIFT) && self.raw + self.rate + self.rate > domain.target {
            self.pressed_at = Some(now);
        }
    }

    /// What it needs.
    pub fn need(&self, domain: &Domain, settings: &Settings, now: Millis, tuning: &Tuning) -> Need {
        let (source, taken) = match domain.demand {
            Demand::None => (Source::None, None),
            Demand::Nonsense => (Source::Nonsense, self.last),
            Demand::Reported(report) if report.check(settings).is_err() => {
                (Source::Nonsense, Some(report.taken))
            }
            Demand::Reported(report) if now.since(report.taken) > tuning.stale_after => {
                (Source::Stale, Some(report.taken))
            }
            Demand::Reported(report) => (Source::Agent, Some(report.taken)),
            Demand::Estimated(estimate) if now.since(estimate.taken) > ESTIMATE_STALE => {
                (Source::Stale, Some(estimate.taken))
            }
            Demand::Estimated(estimate) => (Source::Estimate, Some(estimate.taken)),
        };
        let oldest = Millis::new(now.get().saturating_sub(tuning.hold.get()));
        let peak = self.peaks.iter().filter(|(slot, _)| *slot >= oldest).map(|(_, peak)| *peak).max();
        let crest = self.peaks.iter().map(|(_, peak)| *peak).max();
        let is_recent = |at: Option<Millis>| at.is_some_and(|at| now.since(at) <= STALL);
        let pressed = is_recent(self.pressed_at);
        let ahead = if pressed { self.surge.max(self.rate + self.rate) } else { self.surge };
        Need {
            source,
            age: taken.map_or(Millis::ZERO, |taken| now.since(taken)),
            raw: self.raw,
            average: self.average,
            settled: self.first.is_some_and(|first| now.since(first) >= tuning.average_over),
            peak: peak.unwrap_or(self.raw).max(self.raw),
            crest: crest.unwrap_or(self.raw).max(self.raw),
            active: self.active,
            hope: self.hope + ahead + self.cushion,
            stalled: is_recent(self.stalled_at),
            pressed,
            ahead: if pressed { ahead } else { Kib::ZERO },
            rising: self.trend.rising(),
        }
    }

    fn report(
        &mut self,
        report: &Report,
        domain: &Domain,
        settings: &Settings,
        settled: bool,
        now: Millis,
        tuning: &Tuning,
    ) {
        if self.last == Some(report.taken) {
            return;
        }
        let total = report.total;
        let available = report.available.min(total);
        if settled || self.overhead.is_none() {
            // A kernel keeps its image, its page structures and bounce buffers to itself: in proportion to what it sees.
            let most = settings.maximum.part(1, 32) + Kib::mib(128);
            self.overhead = Some((domain.committed() - total).min(most));
        }
        let overhead = self.overhead.unwrap_or_default();
        let used = total - available + overhead;

        let passed = self.last.map_or(Millis::ZERO, |last| report.taken.since(last));
        let waited = match (report.some, self.some) {
            (Some(some), Some(before)) => some.saturating_sub(before) / 1000,
            _ => 0,
        };
        self.some = report.some;
        let stalled = report.stall || (passed != Millis::ZERO && waited > passed.get() / STALL_PART);
        let half_buffer = used.part(u64::from(settings.buffer), 200);
        let tight = available <= half_buffer.min(total.part(1, 2));
        let promised = (report.committed + overhead).max(used).min(used + used);
        let mut demand = used;
        self.hope = Kib::ZERO;
        if tight && stalled {
            // It does not get on with what it has: it needs what it has promised; if that is no more than it uses, a bit more.
            let size = total + overhead;
            let more = |parts| size + size.part(parts, STALL_STEP).max(LEAST_STEP);
            self.puzzled = if promised > used { 0 } else { self.puzzled + 1 };
            demand = match self.puzzled {
                0 => promised,
                // Nothing explains it: a little more, and more each time that this does not help.
                times => more(1 << (times - 1).min(3)),
            };
            // However that may be, it is not what it has.
            demand = demand.max(more(1));
            self.hope = (size + size.part(1, STALL_HOPE).max(LEAST_HOPE)) - demand;
            self.floor = Some(Floor { at: report.taken, used, least: more(1) });
            self.pressed_at = Some(now);
        } else if tight {
            self.puzzled = 0;
            // It may need that; nothing says that it does.
            self.hope = promised - used;
        } else if stalled {
            // It has memory to spare by its own account, and waits nevertheless: for its cache, or for something else. So
            // this is no need, but a larger buffer if there is memory.
            self.cushion = (self.cushion + used.part(1, 8)).min(used);
        }
        // What was too little a while ago is too little now, unless its demand fell.
        match self.floor {
            Some(floor)
                if report.taken.since(floor.at) <= FLOOR
                    && used >= floor.used - floor.used.part(1, NOISE) =>
            {
                demand = demand.max(floor.least);
            }
            _ => self.floor = None,
        }
        if stalled {
            self.stalled_at = Some(now);
        }
        self.surge = self.rise(report.taken, if tight { promised } else { used }, used);
        // No agent can tell what of that is idle.
        self.take(report.taken, demand, demand, tuning);
    }

    /// What it will need more in a while, if it goes on as in the last second.
    fn rise(&mut self, at: Millis, level: Kib, used: Kib) -> Kib {
        let before = self.levels.iter().rposition(|(then, _)| at.since(*then) >= WINDOW).unwrap_or(0);
        self.levels.drain(..before);
        let first = self.levels.first().copied();
        self.levels.push((at, level));
        let Some((then, low)) = first else { return Kib::ZERO };
        let rise = level - low;
        self.rate = rise.part(1000, at.since(then).get().max(LEAST_TIME.get())).min(used);
        if rise > used.part(1, SURGE) { self.rate.part(AHEAD.get(), 1000) } else { Kib::ZERO }
    }

    fn estimate(&mut self, estimate: &Estimate, _now: Millis, tuning: &Tuning) {
        if self.last != Some(estimate.taken) {
            self.take(estimate.taken, estimate.used.max(estimate.active), estimate.active, tuning);
        }
    }

    fn take(&mut self, at: Millis, demand: Kib, active: Kib, tuning: &Tuning) {
        let first = *self.first.get_or_insert(at);
        let passed = self.last.map_or(Millis::ZERO, |last| at.since(last));
        self.last = Some(at);
        self.raw = demand;
        self.active = active.min(demand);
        // A plain mean at first, an exponential one once that is over long enough.
        let over = at.since(first).min(tuning.average_over + passed);
        self.average = match over {
            Millis::ZERO => demand,
            _ => towards(self.average, demand, passed, over),
        };
        self.cushion -= self.cushion.part(passed.get(), CUSHION_OVER.get());
        let slot = Millis::new(at.get() - at.get() % SLOT);
        match self.peaks.last_mut() {
            Some((last, peak)) if *last == slot => *peak = demand.max(*peak),
            _ => self.peaks.push((slot, demand)),
        }
        let oldest = at.get().saturating_sub(tuning.hold.get().saturating_mul(CREST));
        self.peaks.retain(|(slot, _)| slot.get() >= oldest);
        self.trend.note(at, demand);
    }
}

/// `from` moved towards `to` by the part `passed / over` of the way.
fn towards(from: Kib, to: Kib, passed: Millis, over: Millis) -> Kib {
    let way = from.distance(to).part(passed.get().min(over.get()), over.get());
    if to > from { from + way } else { from - way }
}

/// Whether a demand rises all the time: the least of each ten seconds is above the one before, for two minutes.
#[derive(Clone, Debug, Default)]
struct Trend {
    started: Option<Millis>,
    least: Kib,
    before: Kib,
    rises: u32,
}

impl Trend {
    const PERIOD: Millis = Millis::seconds(10);
    const ENOUGH: u32 = 12;

    fn note(&mut self, at: Millis, demand: Kib) {
        let Some(started) = self.started else {
            (self.started, self.least) = (Some(at), demand);
            return;
        };
        if at.since(started) < Self::PERIOD {
            self.least = self.least.min(demand);
            return;
        }
        let rose = self.least > self.before + self.before.part(1, 512);
        self.rises = if rose { self.rises.saturating_add(1) } else { 0 };
        self.before = self.least;
        (self.started, self.least) = (Some(at), demand);
    }

    fn rising(&self) -> bool {
        self.rises >= Self::ENOUGH
    }
}
