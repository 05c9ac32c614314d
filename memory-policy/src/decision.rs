//! What was decided, and why.

use core::fmt;

use pv_abi::domid::DomId;

use crate::{Kib, Millis};

/// What [`crate::decide`] answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One for each domain, in the order given.
    pub decisions: Vec<Decision>,
    /// The balance of the host.
    pub balance: Balance,
    /// When to ask again at the latest, from now. A new report is a reason to ask at once.
    pub again: Millis,
}

/// The host's figures, as Hyper-V's balancer counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Memory that can be handed out now: unpromised, less reserve and claims.
    pub available: Kib,
    /// All memory that the balanced domains share: theirs and `available`.
    pub pool: Kib,
    /// What all of them want together, with buffers.
    pub wanted: Kib,
    /// What all of them need together, without.
    pub needed: Kib,
    /// What the pool is to keep for a restart of the domain that boots with most above what it has.
    pub restart_reserve: Kib,
    /// Whether somebody is short: wants more than is free, or claims wait for donors.
    pub short: bool,
    /// `needed` in percent of the pool; above 100 not everybody can have what it needs.
    pub system_pressure: u64,
    /// The mean pressure of the balanced domains.
    pub average_pressure: u64,
    /// What takers still wait for.
    pub waiting: Kib,
}

/// What a domain is to have from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which domain.
    pub id: DomId,
    /// Its target: a multiple of 4 KiB, of 2 MiB where no limit says otherwise.
    pub target: Kib,
    /// Whether that is another one than it has, so that it is to be written. Decisions that do not change are not, not even
    /// again.
    pub change: bool,
    /// Why.
    pub why: Explanation,
}

/// Why a domain is to have what it is to have: everything that went into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// When it was decided.
    pub at: Millis,
    /// The target before.
    pub from: Kib,
    /// The target now.
    pub to: Kib,
    /// What the domain has.
    pub assigned: Kib,
    /// What it was taken to demand.
    pub demand: Kib,
    /// What of that is not idle.
    pub active: Kib,
    /// Its demand and buffer, within minimum and maximum.
    pub want: Kib,
    /// What it gets when all are served by weight; `want` unless memory is short.
    pub fair: Kib,
    /// Its minimum.
    pub minimum: Kib,
    /// Its maximum.
    pub maximum: Kib,
    /// What it wants, with its buffer, in percent of what it has (Hyper-V's pressure).
    pub pressure: u64,
    /// Who says so.
    pub source: Source,
    /// How old that is.
    pub source_age: Millis,
    /// Whether the guest waited for memory.
    pub stalled: bool,
    /// Whether its demand rose all the time, for the last minutes: a leak, perhaps.
    pub rising: bool,
    /// Whether it does not move towards its target.
    pub stuck: bool,
    /// Whether memory is short on the host.
    pub short: bool,
    /// What could be handed out on the host.
    pub available: Kib,
    /// The rule that decided.
    pub rule: Rule,
    /// What kept it from more, or from less.
    pub limit: Option<Limit>,
}

/// Who says what a domain needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nobody.
    #[default]
    None,
    /// Its agent.
    Agent,
    /// The hypervisor, by access flags.
    Estimate,
    /// Its agent, too long ago.
    Stale,
    /// Its agent, but it makes no sense.
    Nonsense,
}

/// The rule that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// `memory_policy=0`: left alone.
    Off,
    /// Nobody says what it needs, or not reliably: it stays where it is.
    Frozen,
    /// What it has is right, or too little off to move memory for.
    Steady,
    /// It needs more than it has, its buffer is more than half used, or it stalled: it grows at once.
    Grow,
    /// Its buffer is to be restored.
    Buffer,
    /// It needs more and nothing is free: it gets that as soon as others gave.
    Wait,
    /// It has more than it wants and gives a part of that, now and then.
    Shrink,
    /// It has more than its share, and somebody is short: it gives at once.
    Donate,
    /// It was made a short while ago: what it boots with is not taken from it yet, and nothing as long as nobody is short.
    Boot,
    /// Its minimum was raised above its target.
    Minimum,
    /// Its maximum was lowered below its target.
    Maximum,
    /// It does not move towards its target: that is given up, and what it has is counted.
    GiveUp,
    /// It was given up and is tried again.
    Retry,
}

/// What kept a target from going further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Limit {
    /// Its minimum.
    Minimum,
    /// Its maximum.
    Maximum,
    /// Its share by weight: memory is short.
    Share,
    /// What is free now: the rest comes when donors gave.
    Free,
    /// The slow pace of shrinking while nobody is short.
    Pace,
    /// The dead band.
    DeadBand,
    /// Its startup memory, while it boots.
    Startup,
    /// It does not move.
    Stuck,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Agent => "agent",
            Self::Estimate => "estimate",
            Self::Stale => "stale",
            Self::Nonsense => "nonsense",
        })
    }
}

impl Rule {
    /// Its name, one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Frozen => "frozen",
            Self::Steady => "steady",
            Self::Grow => "grow",
            Self::Buffer => "buffer",
            Self::Wait => "wait",
            Self::Shrink => "shrink",
            Self::Donate => "donate",
            Self::Boot => "boot",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
            Self::GiveUp => "give-up",
            Self::Retry => "retry",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Limit {
    /// Its name, one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
            Self::Share => "share",
            Self::Free => "free",
            Self::Pace => "pace",
            Self::DeadBand => "dead-band",
            Self::Startup => "startup",
            Self::Stuck => "stuck",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A line that a person can read.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from == self.to {
            true => write!(f, "{}: stays at {}", self.rule, self.to)?,
            false => write!(f, "{}: {} -> {}", self.rule, self.from, self.to)?,
        }
        if let Some(limit) = self.limit {
            write!(f, " (limit: {limit})")?;
        }
        write!(f, "; has {}, ", self.assigned)?;
        match self.source {
            Source::None => f.write_str("nobody says what it needs")?,
            source => write!(f, "demand {} ({source}, {} ago)", self.demand, self.source_age)?,
        }
        write!(f, ", wants {}", self.want)?;
        if self.fair != self.want {
            write!(f, ", share {}", self.fair)?;
        }
        write!(f, ", pressure {} %, within {} to {}", self.pressure, self.minimum, self.maximum)?;
        for (set, word) in [(self.stalled, "stalled"), (self.rising, "rising"), (self.stuck, "stuck")] {
            if set {
                write!(f, ", {word}")?;
            }
        }
        write!(f, "; host: {} available{}", self.available, if self.short { ", short" } else { "" })
    }
}
