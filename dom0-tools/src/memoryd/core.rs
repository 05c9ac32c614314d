//! The daemon without its hands: what it knows, and from each event what is to be done. No I/O, and time is an argument.
//!
//! ```text
//!   hypervisor: facts ───┐                      ┌─▶ Action: a target for a domain, its ceiling, what XenStore says of it
//!   XenStore: settings ──┼─▶ Core ── policy ────┤
//!   guests: reports ─────┤   (memory-policy)    └─▶ when to look again
//!   creators: claims ────┘
//! ```
//! What a domain has and is to have is what the hypervisor says each time, never what was said to it before. So nothing here
//! is missed when the daemon is killed and starts anew, but averages, speeds and counters.

use std::collections::BTreeMap;

use memory_policy::admission::{Request, plan};
use memory_policy::{Balance, Domain, Host, Kib, Millis, State, decide};
use pv_abi::domid::DomId;
use pv_abi::nacelle::WorkingSet;

use super::claims::Claims;
use super::member::{Facts, Heard, Member, News, Stored};
use super::speeds::Speeds;
use super::view::{HostView, Moved, Status, Told};

/// A target in XenStore that is off by less is meant to be the same: libxl counts a MiB more than a domain is to have.
const ROOM: Kib = Kib::mib(1);

/// What the hypervisor says of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// All memory.
    pub total: Kib,
    /// Memory that no domain has.
    pub free: Kib,
    /// Of that, what is promised.
    pub promised: Kib,
}

/// What this hypervisor can do, and how careful the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// It keeps targets, and promises them.
    pub keeps_targets: bool,
    /// It tells which pages a domain uses.
    pub estimates: bool,
    /// dom0 is not mapped 1:1, so that what it gives is others'.
    pub moves_dom0: bool,
    /// What stays free, always.
    pub reserve: Kib,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set what a domain is to have: the hypervisor first, then the guest.
    Target {
        /// Which.
        id: DomId,
        /// What it was to have.
        from: Kib,
        /// What it is to have.
        to: Kib,
    },
    /// Lower what it may have to what it is to have, which it has: it cannot take back what it gave.
    Ceiling {
        /// Which.
        id: DomId,
        /// What it may have.
        to: Kib,
    },
    /// Tell the guest what the hypervisor has been told.
    Tell {
        /// Which.
        id: DomId,
        /// What it is to have.
        target: Kib,
    },
    /// Write down how fast it was seen to move, for the daemon's next life.
    Remember {
        /// Which.
        id: DomId,
        /// How fast.
        speeds: Speeds,
    },
}

impl Action {
    /// Whom it is about.
    pub fn id(self) -> DomId {
        let (Self::Target { id, .. }
        | Self::Ceiling { id, .. }
        | Self::Tell { id, .. }
        | Self::Remember { id, .. }) = self;
        id
    }
}

/// Everything that is known.
#[derive(Debug)]
pub struct Core {
    setup: Setup,
    policy: State,
    started: Millis,
    host: HostFacts,
    members: BTreeMap<DomId, Member>,
    balance: Balance,
    /// Who asked for memory for a domain to be made.
    pub claims: Claims,
    /// What domains moved that are gone.
    moved_before: Moved,
    counts: HostView,
    was_over_budget: bool,
}

impl Core {
    /// Nothing is known.
    pub fn new(setup: Setup, now: Millis) -> Self {
        Self {
            setup,
            policy: State::new(),
            started: now,
            host: HostFacts::default(),
            members: BTreeMap::new(),
            balance: Balance::default(),
            claims: Claims::default(),
            moved_before: Moved::default(),
            counts: HostView::default(),
            was_over_budget: false,
        }
    }

    /// The numbers of the domains, to compare with the hypervisor's.
    pub fn ids(&self) -> impl Iterator<Item = DomId> {
        self.members.keys().copied()
    }

    /// Whether it is known, as the same domain.
    pub fn knows(&self, id: DomId, handle: [u8; 16]) -> bool {
        self.members.get(&id).is_some_and(|member| member.facts.handle == handle)
    }

    /// A domain has come.
    pub fn add(&mut self, facts: Facts, stored: Stored, now: Millis) {
        self.policy.teach(facts.id, stored.speeds.give, stored.speeds.take);
        self.members.insert(facts.id, Member::new(facts, stored, now));
    }

    /// A domain is gone.
    pub fn remove(&mut self, id: DomId) {
        if let Some(member) = self.members.remove(&id) {
            self.moved_before = sum(self.moved_before, member.moved());
        }
    }

    /// XenStore has other settings, another name, another target.
    pub fn store(&mut self, id: DomId, stored: Stored) {
        if let Some(member) = self.members.get_mut(&id) {
            member.stored = stored;
        }
    }

    /// XenStore has another target.
    pub fn store_target(&mut self, id: DomId, target: Option<Kib>) {
        if let Some(member) = self.members.get_mut(&id) {
            member.stored.target = target;
        }
    }

    /// A guest has written; whether it is to be read.
    pub fn hear(&mut self, id: DomId, now: Millis) -> Option<Heard> {
        Some(self.members.get_mut(&id)?.hear(now))
    }

    /// What it wrote, and how urgent that is. `is_old`: it was there before the daemon looked.
    pub fn report(&mut self, id: DomId, text: Option<&str>, is_old: bool, now: Millis) -> News {
        self.members.get_mut(&id).map_or(News::Nothing, |member| member.report(text, is_old, now))
    }

    /// Whether the hypervisor can tell which pages a domain uses.
    pub fn can_estimate(&self) -> bool {
        self.setup.estimates
    }

    /// The domains whose demand only the hypervisor can tell.
    pub fn to_estimate(&self) -> Vec<DomId> {
        let wanted = |(id, member): (&DomId, &Member)| member.needs_estimate().then_some(*id);
        if self.setup.estimates { self.members.iter().filter_map(wanted).collect() } else { Vec::new() }
    }

    /// What it told.
    pub fn estimate(&mut self, id: DomId, seen: &WorkingSet, now: Millis) {
        if let Some(member) = self.members.get_mut(&id) {
            member.estimate(seen, now);
        }
    }

    /// Whether there is anything to balance, so that looking again makes sense.
    pub fn is_busy(&self) -> bool {
        !self.claims.is_empty() || self.members.values().any(|member| member.stored.settings.balanced)
    }

    /// When to look again, where that was to be at `planned`: a claim that runs out of time is answered then, by a look.
    pub fn look_at(&self, planned: Option<Millis>) -> Option<Millis> {
        planned.into_iter().chain(self.claims.next_deadline()).min()
    }

    /// The balanced domains, whose targets are to be asked for.
    pub fn is_balanced(&self, id: DomId) -> bool {
        self.members.get(&id).is_some_and(|member| member.stored.settings.balanced)
    }

    /// The hypervisor looked: what is to be done, those that give before those that take, and when to look again.
    pub fn step(&mut self, host: HostFacts, facts: &[Facts], now: Millis) -> (Vec<Action>, Millis) {
        self.see(host, facts, now);
        let known = self.host();
        let domains: Vec<_> =
            self.members.values().map(|member| member.known(now, self.is_movable(member.facts.id))).collect();
        let outcome = decide(&mut self.policy, now, &known, &domains);
        self.balance = outcome.balance;
        self.counts.decisions += 1;
        let mut actions = Vec::new();
        for decision in &outcome.decisions {
            let Some(member) = self.members.get_mut(&decision.id) else { continue };
            let is_balanced =
                member.stored.settings.balanced && (decision.id != DomId::DOM0 || self.setup.moves_dom0);
            member.decide(decision.why, decision.change && is_balanced, now);
            let (give, take) = self.policy.speeds(decision.id);
            member.speeds = Speeds { give, take };
            if !is_balanced {
                continue;
            }
            let (id, from) = (decision.id, member.target());
            if decision.change {
                // The policy never does this; should it, the domain keeps what it was promised.
                let to = decision.target.max(member.stored.settings.minimum.min(from));
                self.counts.minimum_violations += u64::from(to != decision.target);
                actions.push(Action::Target { id, from, to });
            } else if member.stored.target.is_none_or(|stored| stored.distance(from) > ROOM) {
                member.counters.reconciled += 1;
                actions.push(Action::Tell { id, target: from });
            } else if member.has_settled() && member.facts.ceiling > from + ROOM + ROOM {
                actions.push(Action::Ceiling { id, to: from + ROOM });
            } else if member.has_settled() && member.speeds.is_news_after(&member.stored.speeds) {
                actions.push(Action::Remember { id, speeds: member.speeds });
            }
        }
        actions.sort_by_key(|action| match action {
            Action::Tell { .. } | Action::Ceiling { .. } | Action::Remember { .. } => 0,
            Action::Target { from, to, .. } if to < from => 1,
            Action::Target { .. } => 2,
        });
        (actions, outcome.again)
    }

    fn known(&self, now: Millis) -> Vec<Domain> {
        self.members.values().map(|member| member.known(now, self.is_movable(member.facts.id))).collect()
    }

    fn is_movable(&self, id: DomId) -> bool {
        id != DomId::DOM0 || self.setup.moves_dom0
    }

    fn see(&mut self, host: HostFacts, facts: &[Facts], now: Millis) {
        self.host = host;
        for facts in facts {
            if let Some(member) = self.members.get_mut(&facts.id)
                && member.facts.handle == facts.handle
            {
                member.see(*facts, now);
            }
        }
        let is_over_budget = host.promised > host.free;
        self.counts.budget_violations += u64::from(is_over_budget && !self.was_over_budget);
        self.was_over_budget = is_over_budget;
        let made: Vec<_> = self
            .members
            .values()
            .map(|member| (member.facts.handle, member.facts.assigned.max(member.target())))
            .collect();
        self.claims.look(&made);
    }

    fn unpromised(&self) -> Kib {
        if self.setup.keeps_targets {
            return self.host.free - self.host.promised;
        }
        // Xen promises nothing: what a domain lacks of its target will be taken from what is free.
        let lacking = |member: &Member| member.target() - member.facts.assigned;
        self.host.free - self.host.promised - self.members.values().map(lacking).sum()
    }

    fn host(&self) -> Host {
        Host { unpromised: self.unpromised(), reserve: self.setup.reserve, claims: self.claims.total() }
    }

    /// Free memory that claims can be granted from. Of the reserve, too: it is kept from guests that grow, not from such as are
    /// made, for whom it was all theirs without the daemon.
    pub fn free_for_claims(&self) -> Kib {
        self.unpromised()
    }

    /// Whether memory for a domain that is to be made can be there within that time.
    ///
    /// # Errors
    /// Why not, with figures.
    pub fn admit(&mut self, amount: Kib, within: Millis, now: Millis) -> Result<(), String> {
        // What is free and somebody lacks of its minimum is not there for a new domain.
        let lacking =
            self.members.values().map(|member| member.lacks_minimum(self.is_movable(member.facts.id)));
        let claims = self.claims.total() + lacking.sum();
        if amount <= self.free_for_claims() - claims {
            return Ok(());
        }
        let (host, domains) = (Host { claims, ..self.host() }, self.known(now));
        match plan(&mut self.policy, now, &host, &domains, &Request { amount, within }) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    /// An action was carried out, or refused.
    pub fn done(&mut self, action: Action, is_done: bool, now: Millis) {
        let Some(member) = self.members.get_mut(&action.id()) else { return };
        match action {
            Action::Target { from, to, .. } if is_done => member.aim_at(from, to, now),
            Action::Tell { target, .. } if is_done => member.stored.target = Some(target),
            Action::Remember { speeds, .. } if is_done => member.stored.speeds = speeds,
            Action::Target { .. } => member.counters.refused += 1,
            Action::Ceiling { .. } | Action::Tell { .. } | Action::Remember { .. } => {}
        }
    }

    /// How long the policy took, in microseconds.
    pub fn took(&mut self, micros: u64) {
        self.counts.decisions_us += micros;
    }

    /// A creator got what it asked for, or not.
    pub fn answered(&mut self, is_granted: bool) {
        match is_granted {
            true => self.counts.grants += 1,
            false => self.counts.refusals += 1,
        }
    }

    /// Why a domain has what it has.
    pub fn explain(&self, id: DomId, now: Millis) -> Option<Vec<Told>> {
        Some(self.members.get(&id)?.explain(now))
    }

    /// How everything is, at `time` seconds since 1970.
    pub fn status(&self, now: Millis, time: f64) -> Status {
        let moved = self.members.values().fold(self.moved_before, |all, member| sum(all, member.moved()));
        let known = self.host();
        let mut missing = Vec::new();
        if !self.setup.keeps_targets {
            missing.push(
                "targets that the hypervisor promises: a guest's ceiling is all that is enforced".to_owned(),
            );
        }
        if !self.setup.estimates {
            missing.push("which pages a guest uses: without an agent a domain stays as it is".to_owned());
        }
        if !self.setup.moves_dom0 {
            missing.push("memory from dom0: it is mapped 1:1, and what it gives is nobody's".to_owned());
        }
        let host = HostView {
            total_kib: self.host.total.get(),
            free_kib: self.host.free.get(),
            available_kib: known.unpromised.get(),
            available_for_balancing_kib: (known.unpromised - known.reserve - known.claims).get(),
            reserve_kib: known.reserve.get(),
            claimed_kib: known.claims.get(),
            restart_reserve_kib: self.balance.restart_reserve.get(),
            wanted_kib: self.balance.wanted.get(),
            waiting_kib: self.balance.waiting.get(),
            average_pressure: self.balance.average_pressure,
            system_pressure: self.balance.system_pressure,
            is_short: self.balance.short,
            moved,
            uptime_s: now.since(self.started).get() / 1000,
            missing,
            ..self.counts.clone()
        };
        Status { time, host, domains: self.members.values().map(|member| member.view(now)).collect() }
    }
}

fn sum(a: Moved, b: Moved) -> Moved {
    Moved {
        added_kib: a.added_kib + b.added_kib,
        removed_kib: a.removed_kib + b.removed_kib,
        add_operations: a.add_operations + b.add_operations,
        remove_operations: a.remove_operations + b.remove_operations,
    }
}

#[cfg(test)]
mod tests;
