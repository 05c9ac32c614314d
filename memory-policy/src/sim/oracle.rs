//! The oracle: perfect shares of the truth, reached as fast as the guests move memory.
//!
//! It hears of a guest when the law would, and not when a report is lost or while the daemon is gone. But it hears the truth:
//! what the guest needs beyond what it has, what is noise, who cannot move.

use super::daemon::Mail;
use std::collections::BTreeMap;

use super::guest::{Agent, Guest};
use super::scenarios::{Scenario, Variant};
use super::world::World;
use crate::fill::{Ask, Vessel, divide, fill};
use crate::{DomId, Kib};

/// What is perfect for a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub fair: Kib,
    pub want: Kib,
}

/// The perfect division of `pool` (research page, §11). What cannot move keeps what it has.
pub(crate) fn shares(guests: &[Guest], pool: Kib, demand: impl Fn(&Guest) -> (Kib, Kib)) -> Vec<Share> {
    let fixed: Kib = guests.iter().filter(|guest| !guest.is_movable()).map(Guest::committed).sum();
    let asks: Vec<Ask> =
        guests.iter().filter(|guest| guest.is_movable()).map(|guest| ask(guest, demand(guest))).collect();
    let mut divided = divide(&asks, pool - fixed, Kib::ZERO).into_iter().zip(asks);
    guests
        .iter()
        .map(|guest| match guest.is_movable().then(|| divided.next()).flatten() {
            Some((fair, ask)) => Share { fair, want: ask.want },
            None => Share { fair: guest.assigned, want: guest.assigned },
        })
        .collect()
}

/// What a guest asks for that needs `mean` on the average and `most` at times.
fn ask(guest: &Guest, (mean, most): (Kib, Kib)) -> Ask {
    let settings = guest.spec.settings;
    let within = |amount: Kib| amount.max(settings.minimum).min(settings.maximum);
    let need = within(most);
    let want = within(mean + mean.part(u64::from(settings.buffer), 100)).max(need);
    let active = match guest.spec.agent {
        Agent::Watched(percent) => most.part(percent, 100),
        _ => most,
    };
    let taxed = within(active + (most - active).part(1, 4));
    Ask { minimum: settings.minimum, taxed, need, want, weight: settings.weight }
}

/// Drives a world with the truth.
pub(crate) struct Oracle<'a> {
    scenario: &'a Scenario,
    mail: Mail,
    /// What each guest needed when it was last heard of: on the average, and at the most.
    known: BTreeMap<DomId, (Kib, Kib)>,
    made: usize,
}

impl<'a> Oracle<'a> {
    pub fn new(scenario: &'a Scenario, variant: Variant) -> Self {
        Self { scenario, mail: Mail::new(variant), known: BTreeMap::new(), made: 0 }
    }

    pub fn drive(&mut self, world: &mut World) {
        let now = world.now;
        let gone = self.mail.is_gone(self.scenario, now);
        for guest in &mut world.guests {
            let heard = guest.report(now).is_some() && self.mail.arrives() && !gone;
            if heard || !self.known.contains_key(&guest.id) {
                self.known.insert(guest.id, guest.plain(now));
            }
        }
        if gone {
            return;
        }
        let mut claims = Kib::ZERO;
        if let Some(creation) = self.scenario.creations.get(self.made).filter(|creation| creation.at <= now) {
            claims = creation.guest.settings.startup;
            // The oracle knows what is impossible.
            if !creation.possible || world.add(creation.guest.clone()) {
                (self.made, claims) = (self.made + 1, Kib::ZERO);
            }
        }
        let shares = shares(&world.guests, world.ram - world.reserve - claims, |guest| {
            self.known.get(&guest.id).copied().unwrap_or_else(|| guest.plain(now))
        });
        let movable: Vec<(usize, Kib)> = shares
            .iter()
            .enumerate()
            .filter(|(index, _)| world.guests[*index].is_movable())
            .map(|(index, share)| (index, share.fair))
            .collect();
        for &(index, fair) in &movable {
            let (id, target) = (world.guests[index].id, world.guests[index].target);
            if fair < target {
                world.set_target(id, fair.up_to(Kib::PAGE));
            }
        }
        let free = world.unpromised() - world.reserve - claims;
        let vessels: Vec<Vessel> = movable
            .iter()
            .map(|&(index, fair)| {
                let guest = &world.guests[index];
                let settings = guest.spec.settings;
                Vessel {
                    base: settings.minimum,
                    low: guest.target,
                    high: fair.max(guest.target),
                    weight: settings.weight,
                }
            })
            .collect();
        let had: Kib = vessels.iter().map(|vessel| vessel.low).sum();
        for (&(index, _), target) in movable.iter().zip(fill(&vessels, had + free)) {
            let guest = &world.guests[index];
            let (id, target) = (guest.id, target.down_to(Kib::PAGE));
            if target > guest.target {
                world.set_target(id, target);
            }
        }
    }
}
