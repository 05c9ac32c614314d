//! A simulated host: its memory, its guests, and what the hypervisor lets targets be.

use super::STEP;
use super::guest::Guest;
use super::scenarios::Scenario;
use super::score::{Score, Scorer};
use crate::{DomId, Kib, Millis};

/// A host in the middle of a scenario.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub now: Millis,
    pub ram: Kib,
    pub reserve: Kib,
    pub guests: Vec<Guest>,
    next_id: u16,
    pub scorer: Scorer,
}

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        let mut world = Self {
            now: Millis::ZERO,
            ram: scenario.host,
            reserve: scenario.reserve,
            guests: Vec::new(),
            next_id: 1,
            scorer: Scorer::new(scenario),
        };
        for spec in &scenario.guests {
            world.add(spec.clone());
        }
        world
    }

    /// What is free and promised to nobody.
    pub fn unpromised(&self) -> Kib {
        self.ram - self.guests.iter().map(Guest::committed).sum()
    }

    /// Makes a guest, if there is memory for it.
    pub fn add(&mut self, spec: super::GuestSpec) -> bool {
        let has = spec.has.unwrap_or(spec.settings.startup);
        if has > self.unpromised() {
            return false;
        }
        self.guests.push(Guest::new(self.next_id, spec, self.now));
        self.next_id += 1;
        true
    }

    /// The hypercall: what the guest is to have. Refused beyond what is unpromised.
    pub fn set_target(&mut self, id: DomId, target: Kib) {
        let unpromised = self.unpromised();
        let Some(guest) = self.guests.iter_mut().find(|guest| guest.id == id) else { return };
        if target.max(guest.assigned) > guest.committed() + unpromised {
            self.scorer.refused();
            return;
        }
        self.scorer.targeted(self.now, guest, target);
        guest.target = target;
    }

    pub fn step(&mut self) {
        self.now = self.now + STEP;
        let now = self.now;
        self.guests.retain(|guest| guest.spec.dies.is_none_or(|dies| now < dies));
        let mut moved = Kib::ZERO;
        for guest in &mut self.guests {
            moved += guest.step(now, STEP);
        }
        let unpromised = self.unpromised();
        self.scorer.step(now, self.ram, self.reserve, unpromised, moved, &self.guests);
    }

    pub fn finish(self) -> Score {
        self.scorer.finish(&self.guests)
    }
}
