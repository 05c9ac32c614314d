//! The daemon's core against a host that is not there: its domains follow their targets at once, or not at all.

use memory_policy::Settings;

use super::*;

const GUEST: DomId = DomId::new(1);
const OTHER: DomId = DomId::new(2);

/// A host of 2 GiB, and a clock.
struct Fake {
    core: Core,
    now: Millis,
    total: Kib,
    domains: Vec<Facts>,
    /// Domains that do not move.
    stuck: Vec<DomId>,
    seq: u64,
}

impl Fake {
    fn new() -> Self {
        let now = Millis::seconds(1000);
        let domains = vec![facts(GUEST, 256), facts(OTHER, 256)];
        let mut fake = Self { core: core(now), now, total: Kib::mib(2048), domains, stuck: vec![], seq: 0 };
        fake.adopt();
        fake
    }

    fn adopt(&mut self) {
        for facts in &self.domains {
            self.core.add(*facts, stored(128, 256, 1024, facts.assigned), self.now);
        }
    }

    fn host(&self) -> HostFacts {
        let has: Kib = self.domains.iter().map(|facts| facts.assigned).sum();
        let lacks: Kib = self.domains.iter().map(|facts| facts.target.unwrap() - facts.assigned).sum();
        HostFacts { total: self.total, free: self.total - has, promised: lacks }
    }

    fn step(&mut self) -> Vec<Action> {
        let (actions, again) = self.core.step(self.host(), &self.domains.clone(), self.now);
        assert!(again > Millis::ZERO);
        for action in &actions {
            self.act(*action);
        }
        self.check();
        actions
    }

    fn act(&mut self, action: Action) {
        let host = self.host();
        let at = self.domains.iter_mut().find(|facts| facts.id == action.id()).expect("it is there");
        let mut is_done = true;
        match action {
            Action::Target { to, .. } => {
                // As the hypervisor: what it lacks has to be free.
                is_done = to - at.assigned.max(at.target.unwrap()) <= host.free - host.promised;
                if is_done {
                    at.target = Some(to);
                    at.ceiling = at.ceiling.max(to + ROOM);
                }
            }
            Action::Ceiling { to, .. } => at.ceiling = to,
            Action::Tell { .. } | Action::Remember { .. } => {}
        }
        self.core.done(action, is_done, self.now);
    }

    /// Time passes: guests follow.
    fn pass(&mut self, time: Millis) {
        self.now = self.now + time;
        for facts in &mut self.domains {
            if !self.stuck.contains(&facts.id) {
                facts.assigned = facts.target.unwrap().min(facts.ceiling);
            }
        }
    }

    /// A guest that uses so many MiB of what it has says so.
    fn say(&mut self, id: DomId, used: u64) -> News {
        self.seq += 1;
        let total = self.domains.iter().find(|facts| facts.id == id).unwrap().assigned.get();
        let available = total.saturating_sub(used << 10);
        let text = format!(
            "version=1 seq={} total={total} free=0 available={available} committed={}",
            self.seq,
            used << 10
        );
        self.core.report(id, Some(&text), false, self.now)
    }

    /// What always holds.
    fn check(&self) {
        let budgets: Kib = self.domains.iter().map(|facts| facts.target.unwrap().max(facts.assigned)).sum();
        assert!(budgets <= self.total, "budgets {budgets}");
        for facts in &self.domains {
            assert!(facts.target.unwrap() >= Kib::mib(128), "{facts:?}");
        }
        let status = self.core.status(self.now, 0.0);
        assert_eq!((status.host.budget_violations, status.host.minimum_violations), (0, 0));
    }

    fn target(&self, id: DomId) -> Kib {
        self.domains.iter().find(|facts| facts.id == id).unwrap().target.unwrap()
    }
}

fn core(now: Millis) -> Core {
    Core::new(Setup { keeps_targets: true, estimates: false, moves_dom0: false, reserve: Kib::mib(32) }, now)
}

fn facts(id: DomId, mib: u64) -> Facts {
    let assigned = Kib::mib(mib);
    Facts {
        id,
        handle: [u8::try_from(id.raw()).unwrap(); 16],
        assigned,
        untouched: Kib::ZERO,
        ceiling: assigned + ROOM,
        target: Some(assigned),
    }
}

fn stored(minimum: u64, startup: u64, maximum: u64, target: Kib) -> Stored {
    let settings = Settings::balanced(Kib::mib(minimum), Kib::mib(startup), Kib::mib(maximum));
    Stored {
        name: "guest".into(),
        settings,
        target: Some(target),
        age: Some(Millis::seconds(600)),
        speeds: Speeds::default(),
    }
}

#[test]
fn a_guest_that_needs_memory_gets_it_and_one_that_says_nothing_keeps_what_it_has() {
    let mut fake = Fake::new();
    assert_eq!(fake.step(), []);
    assert_eq!(fake.say(GUEST, 250), News::Change);
    let actions = fake.step();
    assert!(matches!(actions[..], [Action::Target { id: GUEST, .. }]), "{actions:?}");
    assert!(fake.target(GUEST) >= Kib::mib(300));
    assert_eq!(fake.target(OTHER), Kib::mib(256));
    let told = fake.core.explain(GUEST, fake.now).unwrap();
    assert!(told.iter().any(|told| told.is_change && told.rule == "grow"), "{told:?}");
    assert_eq!(fake.core.explain(DomId::new(9), fake.now), None);
}

#[test]
fn a_target_that_is_reached_is_counted_and_the_ceiling_follows() {
    let mut fake = Fake::new();
    fake.say(GUEST, 250);
    fake.step();
    fake.domains[0].ceiling = Kib::mib(1024);
    fake.pass(Millis::new(400));
    fake.say(GUEST, 250);
    let actions = fake.step();
    let ceiling = fake.target(GUEST) + ROOM;
    assert!(actions.contains(&Action::Ceiling { id: GUEST, to: ceiling }), "{actions:?}");
    let view = fake.core.status(fake.now, 0.0);
    let view = view.domain(GUEST).unwrap();
    assert_eq!((view.counters.reached, view.counters.reached_ms, view.counters.slowest_ms), (1, 400, 400));
    assert_eq!((view.moved.added_kib, view.moved.add_operations), (view.assigned_kib - (256 << 10), 1));
}

#[test]
fn nonsense_and_silence_freeze_a_guest_and_are_marked() {
    let mut fake = Fake::new();
    fake.say(GUEST, 100);
    fake.step();
    let nonsense = "version=1 seq=99 total=9223372036854775808 free=1 available=1 committed=1";
    assert_eq!(fake.core.report(GUEST, Some(nonsense), false, fake.now), News::Change);
    for _ in 0..100 {
        fake.pass(Millis::seconds(1));
        let actions = fake.step();
        assert!(!actions.iter().any(|action| matches!(action, Action::Target { .. })), "{actions:?}");
    }
    let view = fake.core.status(fake.now, 0.0).domain(GUEST).unwrap().clone();
    assert_eq!(
        (view.source.as_str(), view.counters.bad_reports, view.rule.as_str()),
        ("nonsense", 1, "frozen")
    );
    assert!(view.complaint.unwrap().contains("total is 9223372036854775808"));
    for (text, reason) in [
        (
            "version=1 seq=7 total=2097152 free=1 available=1 committed=1",
            "total is 2048 MiB, more than the 1024 MiB that it can have",
        ),
        ("\u{fffd} give me all", "a word that is no key=value"),
    ] {
        assert_eq!(fake.core.report(GUEST, Some(text), false, fake.now), News::Change);
        fake.step();
        let view = fake.core.status(fake.now, 0.0).domain(GUEST).unwrap().clone();
        assert_eq!((view.source.as_str(), view.rule.as_str()), ("nonsense", "frozen"));
        assert!(view.complaint.as_ref().is_some_and(|complaint| complaint.contains(reason)), "{view:?}");
    }
    let view = fake.core.status(fake.now, 0.0).domain(GUEST).unwrap().clone();
    assert_eq!(view.counters.bad_reports, 3);
    // It comes to its senses.
    fake.say(GUEST, 250);
    assert_ne!(fake.step(), []);
    // And falls silent.
    fake.pass(Millis::seconds(10));
    fake.step();
    let view = fake.core.status(fake.now, 0.0).domain(GUEST).unwrap().clone();
    assert_eq!((view.source.as_str(), view.complaint), ("stale", None));
}

#[test]
fn who_writes_too_often_is_heard_once_a_second_and_loses_nothing() {
    let mut fake = Fake::new();
    let mut muted = None;
    for _ in 0..1000 {
        match fake.core.hear(GUEST, fake.now).unwrap() {
            Heard::Read => assert_eq!(muted, None),
            Heard::MutedUntil(until) => muted = Some(until),
        }
    }
    assert_eq!(muted, Some(fake.now + Millis::seconds(1)));
    fake.say(GUEST, 250);
    assert_ne!(fake.step(), []);
    let view = fake.core.status(fake.now, 0.0).domain(GUEST).unwrap().clone();
    assert!(view.complaint.unwrap().contains("times a second") && view.counters.floods > 0);
    // It goes on: what is heard of it now and then does not hide that.
    for _ in 0..10 {
        fake.pass(Millis::seconds(1));
        for write in 0..25 {
            let _ = fake.core.hear(GUEST, fake.now);
            fake.say(GUEST, 250);
            let view = fake.core.status(fake.now, 0.0).domain(GUEST).unwrap().clone();
            assert!(view.complaint.is_some(), "{write}");
            fake.pass(Millis::new(30));
        }
    }
    fake.pass(Millis::seconds(3));
    assert_eq!(fake.core.hear(GUEST, fake.now), Some(Heard::Read));
    fake.say(GUEST, 250);
    assert_eq!(fake.core.status(fake.now, 0.0).domain(GUEST).unwrap().complaint, None);
}

#[test]
fn a_report_from_before_the_daemon_is_not_believed() {
    let mut fake = Fake::new();
    let old = "version=1 seq=5 total=262144 free=0 available=1000 committed=300000";
    assert_eq!(fake.core.report(GUEST, Some(old), true, fake.now), News::Nothing);
    assert_eq!(fake.step(), []);
    // Read again, as after a reconnection: it is still that one.
    assert_eq!(fake.core.report(GUEST, Some(old), false, fake.now), News::Nothing);
    assert_eq!(fake.core.report(GUEST, Some(&old.replace("seq=5", "seq=6")), false, fake.now), News::Same);
    assert_ne!(fake.step(), []);
}

#[test]
fn a_daemon_that_was_killed_between_two_steps_puts_xenstore_right() {
    let mut fake = Fake::new();
    fake.say(GUEST, 250);
    let (actions, _) = fake.core.step(fake.host(), &fake.domains.clone(), fake.now);
    let Action::Target { to, .. } = actions[0] else { panic!("{actions:?}") };
    // The hypervisor was told, the guest was not; and nothing is remembered.
    fake.domains[0].target = Some(to);
    fake.core = core(fake.now);
    for facts in fake.domains.clone() {
        fake.core.add(facts, stored(128, 256, 1024, Kib::mib(256)), fake.now);
    }
    assert_eq!(fake.step(), [Action::Tell { id: GUEST, target: to }]);
    assert_eq!(fake.step(), []);
}

#[test]
fn a_guest_without_an_agent_is_estimated_and_a_sample_that_ended_early_says_nothing() {
    let mut fake = Fake::new();
    let pages = Kib::mib(256).get() / 4;
    let seen = |touched, seconds: f64| WorkingSet {
        sampled: 256,
        touched,
        period: (seconds * 1e9) as u64,
        mapped: pages,
        ..WorkingSet::default()
    };
    let demand = |fake: &Fake| {
        let view = fake.core.status(fake.now, 0.0).domain(GUEST).unwrap().clone();
        (view.source, view.demand_kib)
    };
    // The first call only begins: nothing was watched before.
    fake.core.estimate(GUEST, &WorkingSet { mapped: pages, ..WorkingSet::default() }, fake.now);
    fake.step();
    assert_eq!(demand(&fake), ("none".to_owned(), None));
    fake.pass(Millis::seconds(1));
    fake.core.estimate(GUEST, &seen(1, 0.002), fake.now);
    fake.step();
    assert_eq!(demand(&fake), ("none".to_owned(), None));
    fake.pass(Millis::seconds(5));
    fake.core.estimate(GUEST, &seen(64, 5.0), fake.now);
    fake.step();
    assert_eq!(demand(&fake), ("estimate".to_owned(), Some(64 << 10)));
    // One that used all of it, and then was not looked at for long enough, is not taken for idle.
    fake.pass(Millis::seconds(5));
    fake.core.estimate(GUEST, &seen(256, 5.0), fake.now);
    fake.step();
    fake.pass(Millis::seconds(5));
    fake.core.estimate(GUEST, &seen(0, 0.1), fake.now);
    fake.step();
    assert_eq!(demand(&fake).1, Some(256 << 10));
    assert!(fake.target(GUEST) >= Kib::mib(300), "{}", fake.target(GUEST));
}

#[test]
fn a_stuck_guest_holds_nobody_up() {
    let mut fake = Fake::new();
    fake.total = Kib::mib(600);
    fake.stuck.push(OTHER);
    for _ in 0..60 {
        fake.say(GUEST, 250);
        fake.say(OTHER, 20);
        fake.step();
        fake.pass(Millis::new(500));
    }
    let status = fake.core.status(fake.now, 0.0);
    assert!(status.domain(OTHER).unwrap().is_stuck, "{:?}", status.domain(OTHER));
    // What is free beyond the reserve went to who needs it.
    assert!(fake.target(GUEST) >= Kib::mib(300), "{}", fake.target(GUEST));
}

#[test]
fn a_creation_gets_what_others_can_spare_or_figures() {
    let mut fake = Fake::new();
    fake.total = Kib::mib(600);
    for _ in 0..40 {
        fake.say(GUEST, 30);
        fake.say(OTHER, 30);
        fake.step();
        fake.pass(Millis::new(500));
        // Nobody is short, but give back what was given slowly.
        for facts in &mut fake.domains {
            (facts.assigned, facts.target) = (Kib::mib(256), Some(Kib::mib(256)));
        }
    }
    let refused = fake.core.admit(Kib::mib(500), Millis::seconds(10), fake.now).unwrap_err();
    assert!(refused.contains("500 MiB asked for, "), "{refused}");
    let wanted = Kib::mib(200);
    assert_eq!(fake.core.admit(wanted, Millis::seconds(30), fake.now), Ok(()));
    fake.core.claims.add(7, [9; 16], wanted, fake.now, fake.now + Millis::seconds(30));
    assert_eq!(fake.core.claims.answers(fake.core.free_for_claims(), fake.now), []);
    let mut granted = None;
    for _ in 0..60 {
        fake.say(GUEST, 30);
        fake.say(OTHER, 30);
        fake.step();
        fake.pass(Millis::new(500));
        let answers = fake.core.claims.answers(fake.core.free_for_claims(), fake.now);
        granted = granted.or(answers.first().map(|claim| claim.is_granted));
    }
    assert_eq!(granted, Some(true));
    // Nobody else grows into it while its creator works.
    assert!(fake.host().free >= wanted);
}

#[test]
fn a_claim_that_is_out_of_time_is_answered_then_and_never_waited_for_again() {
    let mut fake = Fake::new();
    let (deadline, planned) = (fake.now + Millis::seconds(2), Some(fake.now + Millis::seconds(5)));
    assert_eq!(fake.core.look_at(planned), planned);
    assert_eq!(fake.core.look_at(None), None);
    fake.core.claims.add(7, [9; 16], Kib::mib(4000), fake.now, deadline);
    assert_eq!(fake.core.look_at(planned), Some(deadline));
    assert_eq!(fake.core.look_at(Some(fake.now)), Some(fake.now));
    assert_eq!(fake.core.claims.answers(fake.core.free_for_claims(), deadline).len(), 1);
    assert_eq!(fake.core.look_at(planned), planned);
}

#[test]
fn what_is_free_and_missing_for_a_minimum_is_not_there_for_a_creation() {
    let mut fake = Fake::new();
    let free = fake.core.free_for_claims();
    fake.step();
    assert_eq!(fake.core.admit(Kib::mib(1500), Millis::seconds(30), fake.now), Ok(()), "{free} free");
    // Its minimum is raised: 1000 MiB more are its own before anybody decides anything.
    fake.core.store(GUEST, stored(1256, 1256, 1536, Kib::mib(256)));
    let refused = fake.core.admit(Kib::mib(1500), Millis::seconds(30), fake.now).unwrap_err();
    assert!(refused.contains("1500 MiB asked for, 504 MiB free"), "{refused}");
    assert_eq!(fake.core.admit(Kib::mib(500), Millis::seconds(30), fake.now), Ok(()));
}

#[test]
fn dom0_that_is_mapped_one_to_one_stays_as_it_is() {
    let mut fake = Fake::new();
    fake.domains = vec![facts(DomId::DOM0, 256)];
    fake.core = core(fake.now);
    fake.adopt();
    fake.say(DomId::DOM0, 250);
    assert_eq!(fake.step(), []);
    assert!(fake.core.status(fake.now, 0.0).host.missing.iter().any(|missing| missing.contains("dom0")));
}

#[test]
fn how_fast_a_guest_is_outlives_the_daemon() {
    let mut fake = Fake::new();
    fake.say(GUEST, 250);
    fake.step();
    fake.pass(Millis::new(100));
    let mut written = Speeds::default();
    for _ in 0..3 {
        fake.say(GUEST, 250);
        for action in fake.step() {
            if let Action::Remember { id: GUEST, speeds } = action {
                written = speeds;
            }
        }
        fake.pass(Millis::seconds(1));
    }
    let take = written.take.expect("it took memory");
    assert!(take.get() > 300 << 10, "{take}");
    // Nothing is remembered but what was written.
    fake.core = core(fake.now);
    for facts in fake.domains.clone() {
        let speeds = if facts.id == GUEST { written } else { Speeds::default() };
        fake.core.add(facts, Stored { speeds, ..stored(128, 256, 1024, facts.assigned) }, fake.now);
    }
    let again = fake.step();
    assert!(!again.iter().any(|action| matches!(action, Action::Remember { .. })), "{again:?}");
    let view = fake.core.status(fake.now, 0.0).domain(GUEST).unwrap().clone();
    assert_eq!(view.speed_kib, (None, Some(take.get())));
}
