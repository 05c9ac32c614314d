//! What the law remembers between decisions. It is of use, never needed: a daemon that lost it decides soundly.

use std::collections::BTreeMap;

use pv_abi::domid::DomId;

use crate::known::Domain;
use crate::motion::{Motion, Way};
use crate::track::Track;
use crate::{Millis, Speed, Tuning};

/// What is remembered of all domains.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) tuning: Tuning,
    domains: BTreeMap<DomId, Memory>,
}

/// What is remembered of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub track: Track,
    pub motion: Motion,
    /// When its target changed last.
    pub changed: Option<Millis>,
    /// When it was seen first.
    since: Option<Millis>,
    age: Millis,
}

impl Memory {
    /// Whether it was first seen less than `time` ago.
    pub fn is_new(&mut self, now: Millis, time: Millis) -> bool {
        now.since(*self.since.get_or_insert(now)) < time
    }
}

impl State {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is known yet, and the law has other constants.
    pub fn with_tuning(tuning: Tuning) -> Self {
        Self { tuning, ..Self::default() }
    }

    /// How fast a domain was seen to give and to take memory, where it was: to be kept over a restart of the daemon.
    pub fn speeds(&self, id: DomId) -> (Option<Speed>, Option<Speed>) {
        self.domains.get(&id).map_or((None, None), |memory| memory.motion.learned())
    }

    /// Teaches what was learned before a restart of the daemon, until better is known.
    pub fn teach(&mut self, id: DomId, give: Option<Speed>, take: Option<Speed>) {
        self.domains.entry(id).or_default().motion.teach(give, take);
    }

    /// How fast it is taken to give.
    pub(crate) fn giving_speed(&self, id: DomId) -> Speed {
        self.domains
            .get(&id)
            .map_or_else(|| Motion::default().speed(Way::Give), |memory| memory.motion.speed(Way::Give))
    }

    /// Forgets who is not among `domains`, and who is another one of the same number.
    pub(crate) fn keep(&mut self, domains: &[Domain]) {
        let ages: BTreeMap<DomId, Millis> = domains.iter().map(|domain| (domain.id, domain.age)).collect();
        self.domains.retain(|id, memory| ages.get(id).is_some_and(|age| *age >= memory.age));
    }

    /// What is remembered of `domain`.
    pub(crate) fn of(&mut self, domain: &Domain) -> &mut Memory {
        let memory = self.domains.entry(domain.id).or_default();
        memory.age = domain.age;
        memory
    }
}
