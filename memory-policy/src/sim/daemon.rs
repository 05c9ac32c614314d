//! The daemon of the simulator: hears reports (not all), calls the law, sets targets, makes domains, is killed.

use super::curve::mix;
use super::scenarios::{Scenario, Variant};
use super::world::World;
use crate::admission::{Refusal, Request, claims_are_free, plan};
use crate::{Domain, Explanation, Host, Kib, Millis, State, decide};

/// How long a report takes to the daemon.
const LATENCY: Millis = Millis::new(20);

/// What becomes of reports.
pub(crate) struct Mail {
    variant: Variant,
    reports: u64,
}

impl Mail {
    pub fn new(variant: Variant) -> Self {
        Self { variant, reports: 0 }
    }

    /// Whether the next report arrives.
    pub fn arrives(&mut self) -> bool {
        self.reports += 1;
        self.variant != Variant::Lossy || !mix(self.reports ^ 0x1055).is_multiple_of(10)
    }

    /// Whether nobody hears anything.
    pub fn is_gone(&self, scenario: &Scenario, now: Millis) -> bool {
        self.variant == Variant::Restart && scenario.is_gone(now)
    }
}

/// The law at work.
pub(crate) struct Daemon<'a> {
    scenario: &'a Scenario,
    mail: Mail,
    state: State,
    /// When to decide next.
    next: Millis,
    /// Which creation is next, and whether it waits for its memory.
    creation: usize,
    claimed: bool,
    restarted: bool,
    pub log: Vec<(&'static str, Explanation)>,
    pub refusals: Vec<Refusal>,
}

impl<'a> Daemon<'a> {
    pub fn new(scenario: &'a Scenario, variant: Variant) -> Self {
        Self {
            scenario,
            mail: Mail::new(variant),
            state: State::new(),
            next: Millis::ZERO,
            creation: 0,
            claimed: false,
            restarted: false,
            log: Vec::new(),
            refusals: Vec::new(),
        }
    }

    pub fn drive(&mut self, world: &mut World) {
        let now = world.now;
        let gone = self.mail.is_gone(self.scenario, now);
        if gone {
            // Whoever asked for memory asks again.
            (self.restarted, self.claimed) = (true, false);
        } else if self.restarted {
            self.restarted = false;
            self.state = State::new();
            self.next = now;
            for guest in &mut world.guests {
                guest.demand = crate::Demand::None;
            }
        }
        for index in 0..world.guests.len() {
            let Some(demand) = world.guests[index].report(now) else { continue };
            if self.mail.arrives() && !gone {
                world.guests[index].demand = demand;
                self.next = self.next.min(now + LATENCY);
            }
        }
        if !gone {
            self.make(world);
        }
        if gone || now < self.next {
            return;
        }
        let domains: Vec<Domain> = world.guests.iter().map(|guest| guest.domain(now)).collect();
        let host = self.host(world);
        let outcome = decide(&mut self.state, now, &host, &domains);
        self.next = now + outcome.again;
        let changed = || outcome.decisions.iter().filter(|decision| decision.change);
        let falls = |target: Kib, from: Kib| target < from;
        for fall in [true, false] {
            for decision in changed().filter(|it| falls(it.target, it.why.from) == fall) {
                world.set_target(decision.id, decision.target);
            }
        }
        for decision in changed() {
            if let Some(guest) = world.guests.iter().find(|guest| guest.id == decision.id) {
                self.log.push((guest.spec.name, decision.why));
            }
        }
    }

    fn host(&self, world: &World) -> Host {
        let claims = match self.scenario.creations.get(self.creation) {
            Some(creation) if self.claimed => creation.guest.settings.startup,
            _ => Kib::ZERO,
        };
        Host { unpromised: world.unpromised(), reserve: world.reserve, claims }
    }

    /// Makes the domains that the scenario asks for.
    fn make(&mut self, world: &mut World) {
        let now = world.now;
        let Some(creation) = self.scenario.creations.get(self.creation).filter(|creation| creation.at <= now)
        else {
            return;
        };
        let over = now > creation.at + creation.within;
        let host = self.host(world);
        if self.claimed && claims_are_free(&host) {
            if world.add(creation.guest.clone()) {
                let score = &mut world.scorer.score;
                *(if over { &mut score.late } else { &mut score.made }) += 1;
            }
            (self.creation, self.claimed) = (self.creation + 1, false);
        } else if self.claimed {
            if over {
                world.scorer.score.late += 1;
                (self.creation, self.claimed) = (self.creation + 1, false);
            }
        } else {
            let domains: Vec<Domain> = world.guests.iter().map(|guest| guest.domain(now)).collect();
            let within = (creation.at + creation.within).since(now);
            let request = Request { amount: creation.guest.settings.startup, within };
            match plan(&mut self.state, now, &host, &domains, &request) {
                Ok(_) => (self.claimed, self.next) = (true, now),
                Err(refusal) => {
                    self.refusals.push(refusal);
                    self.creation += 1;
                }
            }
        }
    }
}
