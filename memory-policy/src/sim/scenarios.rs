//! The scenarios of the research page's §12, and some more.

use super::curve::{Curve, mix};
use super::guest::{Agent, Balloon, GuestSpec};
use crate::{Demand, DomId, Domain, Kib, Millis, Report, Settings};

/// A scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its number on the research page; from 10 on ours.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// The host's memory for guests.
    pub host: Kib,
    /// What of it stays free.
    pub reserve: Kib,
    /// Who is there.
    pub guests: Vec<GuestSpec>,
    /// Who is to come.
    pub creations: Vec<Creation>,
    /// How long it takes.
    pub length: Millis,
    /// When the daemon is killed, in the variant in which it is.
    pub killed: Millis,
    /// A guest's step in demand of which the time is taken.
    pub step: Option<(usize, Millis)>,
    /// From when on nothing is to move.
    pub quiet: Option<Millis>,
}

/// How long the daemon is gone when it was killed.
const RESTART: Millis = Millis::seconds(2);

/// A domain that is to be made.
#[derive(Clone, Debug)]
pub struct Creation {
    /// When it is asked for.
    pub at: Millis,
    /// Within which time it is to be there.
    pub within: Millis,
    /// What it is like.
    pub guest: GuestSpec,
    /// Whether it can be, as the oracle knows. The law has to find out.
    pub possible: bool,
}

/// How a scenario is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As it is.
    Plain,
    /// A tenth of the reports is lost.
    Lossy,
    /// The daemon is killed in the middle, with all it remembers, and is back two seconds later.
    Restart,
}

impl Variant {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Lossy, Self::Restart];

    /// Its name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Lossy => "lossy",
            Self::Restart => "restart",
        }
    }
}

impl Scenario {
    /// Whether the daemon is gone, in the variant in which it is killed.
    pub(crate) fn is_gone(&self, now: Millis) -> bool {
        now >= self.killed && now < self.killed + RESTART
    }

    pub(super) fn new(number: u32, name: &'static str, seconds: u64, guests: Vec<GuestSpec>) -> Self {
        let length = Millis::seconds(seconds);
        Self {
            number,
            name,
            host: Kib::gib(8),
            reserve: Kib::ZERO,
            guests,
            creations: Vec::new(),
            length,
            killed: Millis::new(length.get() / 2),
            step: None,
            quiet: None,
        }
    }
}

fn level(name: &'static str, mib: u64) -> GuestSpec {
    let seed = u64::from(name.as_bytes()[0]);
    GuestSpec::linux(name, Curve::level(Kib::mib(mib)).with_noise(3, mix(seed)))
}

fn with(guest: GuestSpec, settings: Settings) -> GuestSpec {
    GuestSpec { settings, ..guest }
}

/// All scenarios.
pub fn all() -> Vec<Scenario> {
    vec![
        steady(),
        burst(),
        phase_shift(),
        weights(),
        thrash(),
        leak(),
        broken(),
        start_under_pressure(),
        liars(),
        idle(),
        deaths(),
        donor(),
        moving_load(),
    ]
}

fn steady() -> Scenario {
    let guests = vec![level("A", 900), level("B", 900), level("C", 900), level("D", 900)];
    Scenario { quiet: Some(Millis::seconds(30)), ..Scenario::new(1, "steady", 1800, guests) }
}

fn burst() -> Scenario {
    let curve = Curve::through(&[(60, 900), (61, 2436), (81, 2436), (82, 900)]);
    let guests = vec![GuestSpec::linux("A", curve), level("B", 900), level("C", 900), level("D", 900)];
    let killed = Millis::seconds(70);
    Scenario { step: Some((0, Millis::seconds(60))), killed, ..Scenario::new(2, "burst", 240, guests) }
}

fn phase_shift() -> Scenario {
    let day = |first: u64, second: u64| {
        let mut points = Vec::new();
        for period in 0..5 {
            let (from, to) = if period % 2 == 0 { (first, second) } else { (second, first) };
            let end = 60 * (period + 1);
            points.extend([(end, from), (end + 2, to)]);
        }
        Curve::through(&points)
    };
    let has = |mib, guest| GuestSpec { has: Some(Kib::mib(mib)), swap: true, ..guest };
    let guests = vec![
        has(3686, GuestSpec::linux("A", day(3072, 600))),
        has(720, GuestSpec::linux("B", day(600, 3072))),
        level("C", 900),
        level("D", 900),
    ];
    Scenario { step: Some((1, Millis::seconds(60))), ..Scenario::new(3, "phase shift", 360, guests) }
}

fn weights() -> Scenario {
    let big = |weight| Settings { weight, ..Settings::balanced(Kib::mib(512), Kib::gib(1), Kib::gib(6)) };
    let swaps = |guest| GuestSpec { swap: true, ..guest };
    let a = Curve::through(&[(10, 900), (16, 6144), (120, 6144), (122, 2048)]);
    let b = Curve::through(&[(10, 900), (16, 6144)]);
    let guests = vec![
        with(swaps(GuestSpec::linux("A", a)), big(6666)),
        with(swaps(GuestSpec::linux("B", b)), big(3333)),
    ];
    Scenario { killed: Millis::seconds(100), ..Scenario::new(4, "weights 2:1", 240, guests) }
}

fn thrash() -> Scenario {
    let names = ["A", "B", "C", "D", "E", "F"];
    let guests = names
        .iter()
        .zip(0..)
        .map(|(name, start)| {
            let curve = Curve::through(&[(10 + start, 900), (20 + start, 2560)]);
            GuestSpec { swap: true, ..GuestSpec::linux(name, curve.with_noise(3, start)) }
        })
        .collect();
    Scenario { quiet: Some(Millis::seconds(60)), ..Scenario::new(5, "everybody short", 300, guests) }
}

fn leak() -> Scenario {
    let settings = Settings::balanced(Kib::mib(512), Kib::gib(1), Kib::gib(6));
    let leaks = Curve::through(&[(30, 900), (1830, 900 + 1800 * 5)]);
    let guests = vec![
        GuestSpec { swap: true, ..with(GuestSpec::linux("A", leaks), settings) },
        level("B", 900),
        level("C", 900),
        level("D", 900),
        level("E", 900),
    ];
    Scenario::new(6, "leak", 1500, guests)
}

fn broken() -> Scenario {
    let rises = Curve::through(&[(90, 900), (95, 2800)]);
    let no_driver = GuestSpec { agent: Agent::None, balloon: Balloon::Ignores, ..level("B", 900) };
    let dead_agent = GuestSpec { agent: Agent::Until(Millis::seconds(60)), ..level("C", 900) };
    let stuck = GuestSpec { balloon: Balloon::Ignores, has: Some(Kib::gib(2)), ..level("D", 600) };
    let guests = vec![
        GuestSpec::linux("A", rises),
        no_driver,
        dead_agent,
        stuck,
        GuestSpec { balloon: Balloon::Half, ..level("E", 700) },
    ];
    Scenario::new(8, "no balloon, dead agent", 300, guests)
}

fn start_under_pressure() -> Scenario {
    let full = |name, has, needs| GuestSpec { has: Some(Kib::mib(has)), ..level(name, needs) };
    let guests = vec![full("A", 2700, 1000), full("B", 2700, 1600), full("C", 2692, 1400)];
    let startup = Kib::gib(2);
    let new = with(level("N", 1500), Settings::balanced(Kib::gib(1), startup, Kib::gib(4)));
    let huge = with(level("H", 1500), Settings::balanced(Kib::gib(1), Kib::gib(7), Kib::gib(8)));
    let creation = |at, guest, possible| Creation {
        at: Millis::seconds(at),
        within: Millis::seconds(10),
        guest,
        possible,
    };
    Scenario {
        creations: vec![creation(5, new, true), creation(30, huge, false)],
        killed: Millis::new(6000),
        ..Scenario::new(9, "start under pressure", 90, guests)
    }
}

fn liars() -> Scenario {
    let lies = |name, agent| GuestSpec { agent, ..level(name, 900) };
    let rises = Curve::through(&[(60, 900), (64, 2400)]);
    let guests = vec![
        GuestSpec::linux("A", rises),
        lies("B", Agent::Nothing),
        lies("C", Agent::Huge),
        lies("D", Agent::Greedy),
        lies("E", Agent::Flood),
    ];
    Scenario::new(10, "liars", 180, guests)
}

fn idle() -> Scenario {
    let swaps = |guest| GuestSpec { swap: true, ..guest };
    let a = GuestSpec {
        agent: Agent::Watched(20),
        has: Some(Kib::mib(3600)),
        ..swaps(GuestSpec::linux("A", Curve::level(Kib::gib(3))))
    };
    let b = Curve::through(&[(30, 1000), (40, 3400)]);
    let b = swaps(GuestSpec::linux("B", b));
    let guests = vec![a, b];
    Scenario { host: Kib::gib(5), ..Scenario::new(11, "idle memory", 240, guests) }
}

fn deaths() -> Scenario {
    let rises = Curve::through(&[(50, 900), (55, 3200)]);
    let dies = |name, mib, has, at| GuestSpec {
        dies: Some(Millis::seconds(at)),
        has: Some(Kib::mib(has)),
        ..level(name, mib)
    };
    let guests = vec![
        GuestSpec::linux("A", rises),
        dies("B", 2500, 3000, 54),
        GuestSpec { age: Millis::ZERO, ..level("C", 700) },
        dies("D", 1200, 1500, 120),
    ];
    let new = Creation {
        at: Millis::seconds(80),
        within: Millis::seconds(10),
        guest: GuestSpec { age: Millis::ZERO, ..level("N", 1200) },
        possible: true,
    };
    Scenario { creations: vec![new], ..Scenario::new(12, "births and deaths", 180, guests) }
}

/// The first steps of `tests/scenarios/memory.sh`: guests that were just made, and what one of them gives up another needs at
/// the same moment, five times what that has.
fn donor() -> Scenario {
    let small = |weight| Settings { weight, ..Settings::balanced(Kib::mib(32), Kib::mib(64), Kib::mib(512)) };
    let guest = |name, weight, points: &[(u64, u64)]| {
        let swaps =
            GuestSpec { swap: true, age: Millis::ZERO, ..GuestSpec::linux(name, Curve::through(points)) };
        with(swaps, small(weight))
    };
    let guests = vec![
        guest("A", 6666, &[(10, 40), (10, 240), (15, 240), (15, 40)]),
        guest("B", 3333, &[(15, 40), (15, 300)]),
        guest("C", 3333, &[(15, 40)]),
    ];
    let host = Kib::mib(500);
    let step = Some((1, Millis::seconds(15)));
    let killed = Millis::seconds(12);
    Scenario { host, reserve: Kib::mib(16), step, killed, ..Scenario::new(13, "donor", 60, guests) }
}

/// As `memory-demo`, with a load that takes memory three times as fast: what the one takes is given up by the one before a
/// while after it began, and buffers leave room for a restart.
fn moving_load() -> Scenario {
    const RATE: u64 = 40;
    const LEAST: u64 = 56;
    const MOST: u64 = 300;
    let guest = |name, weight, start: u64| {
        let up = start + (MOST - LEAST).div_ceil(RATE);
        let curve = Curve::through(&[(start, LEAST), (up, MOST), (start + 22, MOST), (start + 22, LEAST)]);
        let settings = Settings {
            weight,
            buffer: 40,
            ..Settings::balanced(Kib::mib(112), Kib::mib(176), Kib::mib(512))
        };
        with(GuestSpec { age: Millis::ZERO, ..GuestSpec::linux(name, curve) }, settings)
    };
    let guests = vec![guest("A", 8000, 70), guest("B", 4000, 90), guest("C", 1000, 110)];
    let (host, killed) = (Kib::mib(640), Millis::seconds(92));
    Scenario { host, killed, ..Scenario::new(14, "moving load", 150, guests) }
}

/// `count` domains of all kinds that report at `now`: what the cost of a decision is measured with.
pub fn synthetic(count: u16, now: Millis) -> Vec<Domain> {
    (0..count)
        .map(|number| {
            let random = mix(u64::from(number) ^ (now.get() << 20));
            let has = Kib::mib(256 + mix(u64::from(number)) % 2048);
            let total = has - Kib::mib(36);
            let available = total.part(random % 50, 100);
            let settings = Settings {
                weight: u32::from(number) % 10_000,
                ..Settings::balanced(Kib::mib(128), has.min(Kib::mib(512)), Kib::gib(4))
            };
            let report = Report {
                taken: now,
                total,
                free: available,
                available,
                committed: total,
                some: Some(0),
                full: Some(0),
                stall: random.is_multiple_of(16),
            };
            let demand = if number % 10 == 9 { Demand::None } else { Demand::Reported(report) };
            Domain {
                id: DomId::new(number),
                settings,
                assigned: has,
                target: has,
                age: Millis::seconds(600),
                demand,
            }
        })
        .collect()
}
