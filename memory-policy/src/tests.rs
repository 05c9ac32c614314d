//! The law, case by case.

mod admission;
mod properties;

use crate::{
    Decision, Demand, DomId, Domain, Estimate, Host, Kib, Limit, Millis, Outcome, Report, Rule, Settings,
    Source, State, decide,
};

/// A report of a guest with `size`, of which it uses `used`.
fn report(now: Millis, size: Kib, used: Kib) -> Report {
    Report {
        taken: now,
        total: size,
        free: size - used,
        available: size - used,
        committed: used,
        some: None,
        full: None,
        stall: false,
    }
}

/// A guest that has `has` MiB and uses `used`, on its feet for a while: minimum 512 MiB, startup 1 GiB, maximum 4 GiB.
fn domain(id: u16, has: u64, used: u64, now: Millis) -> Domain {
    let has = Kib::mib(has);
    Domain {
        id: DomId::new(id),
        settings: Settings::balanced(Kib::mib(512), Kib::gib(1), Kib::gib(4)),
        assigned: has,
        target: has,
        age: Millis::seconds(100) + now,
        demand: Demand::Reported(report(now, has, Kib::mib(used))),
    }
}

/// The same, whose processes were promised `committed` MiB, and which waits for memory.
fn stalled(domain: Domain, committed: u64) -> Domain {
    let Demand::Reported(report) = domain.demand else { unreachable!("it was made with a report") };
    let report = Report { committed: Kib::mib(committed), stall: true, ..report };
    Domain { demand: Demand::Reported(report), ..domain }
}

fn free(mib: u64) -> Host {
    Host { unpromised: Kib::mib(mib), ..Host::default() }
}

/// Decides every second for `seconds`, with targets reached at once. `domains` makes what is known from the time and targets.
fn run(
    state: &mut State,
    host: Host,
    seconds: std::ops::Range<u64>,
    mut known: impl FnMut(Millis, &[Kib]) -> Vec<Domain>,
    targets: &mut [Kib],
) -> Outcome {
    let mut outcome = Outcome::default();
    for second in seconds {
        let now = Millis::seconds(second);
        outcome = decide(state, now, &host, &known(now, targets));
        for (target, decision) in targets.iter_mut().zip(&outcome.decisions) {
            *target = decision.target;
        }
    }
    outcome
}

fn only(outcome: &Outcome) -> Decision {
    let [decision] = outcome.decisions[..] else { panic!("one was asked about: {outcome:?}") };
    decision
}

const NOW: Millis = Millis::seconds(1);

#[test]
fn a_guest_that_stalls_gets_what_it_promised_at_once_with_its_buffer() {
    let needy = stalled(domain(1, 1024, 1020, NOW), 1500);
    let decision = only(&decide(&mut State::new(), NOW, &free(4096), &[needy]));
    assert_eq!((decision.target, decision.why.rule), (Kib::mib(1800), Rule::Grow), "{}", decision.why);
    assert!(decision.change && decision.why.stalled);
}

#[test]
fn what_a_guest_promised_is_no_need_unless_it_stalls() {
    // Two full guests, one of which has promised a lot. Nobody stalls: neither takes from the other.
    let mut promised = domain(1, 1024, 1010, NOW);
    let Demand::Reported(report) = &mut promised.demand else { unreachable!() };
    report.committed = Kib::gib(3);
    let outcome = decide(&mut State::new(), NOW, &free(0), &[promised, domain(2, 1024, 1010, NOW)]);
    assert!(outcome.decisions.iter().all(|decision| !decision.change), "{outcome:?}");
    assert!(outcome.balance.short);
    // Nothing moves, so that there is no hurry, however short memory is.
    assert!(outcome.again >= Millis::seconds(1));
}

#[test]
fn a_donor_gives_before_a_taker_takes() {
    let domains = [domain(1, 3072, 600, NOW), stalled(domain(2, 1024, 1020, NOW), 2000)];
    let outcome = decide(&mut State::new(), NOW, &free(0), &domains);
    let [gives, takes] = &outcome.decisions[..] else { panic!("two were asked about") };
    assert_eq!((gives.why.rule, takes.why.rule), (Rule::Donate, Rule::Wait), "{} {}", gives.why, takes.why);
    assert_eq!(takes.target, Kib::gib(1));
    // Asked for what is missing: 2000 MiB and 20 %, less the 1024 that it has.
    assert_eq!(gives.target, Kib::mib(3072 - 1376));
    assert_eq!(outcome.again, Millis::new(100));
}

#[test]
fn a_buffer_that_is_too_big_goes_slowly_and_noise_moves_nothing() {
    let mut state = State::new();
    let mut targets = [Kib::gib(2)];
    let guest = |now, targets: &[Kib]| {
        vec![Domain {
            assigned: targets[0],
            target: targets[0],
            demand: Demand::Reported(report(now, targets[0], Kib::mib(890 + now.get() / 1000 % 3 * 10))),
            ..domain(1, 0, 0, now)
        }]
    };
    let first = only(&run(&mut state, free(4096), 1..2, guest, &mut targets));
    assert_eq!((first.why.rule, first.why.limit), (Rule::Shrink, Some(Limit::Pace)));
    // An eighth of what it has too much, 2048 - 1.2 · 900.
    assert_eq!(first.target, Kib::mib(1928));
    assert!(!only(&run(&mut state, free(4096), 2..6, guest, &mut targets)).change, "not before five seconds");
    run(&mut state, free(4096), 6..400, guest, &mut targets);
    assert!(targets[0].distance(Kib::mib(1092)) <= targets[0].part(1, 32) + Kib::mib(16), "{}", targets[0]);
    let settled = targets[0];
    run(&mut state, free(4096), 400..1000, guest, &mut targets);
    assert_eq!(targets[0], settled);
}

#[test]
fn stale_and_senseless_reports_freeze() {
    let late = Millis::seconds(10);
    let mut host = free(4096);
    host.reserve = Kib::mib(64);
    let frozen = |demand, source| {
        let guest = Domain { demand, ..domain(1, 1024, 1020, NOW) };
        let decision = only(&decide(&mut State::new(), late, &host, &[guest]));
        assert_eq!((decision.why.rule, decision.why.source), (Rule::Frozen, source), "{}", decision.why);
        assert!(!decision.change);
    };
    let good = report(late, Kib::gib(1), Kib::mib(1020));
    frozen(Demand::None, Source::None);
    frozen(Demand::Nonsense, Source::Nonsense);
    frozen(Demand::Reported(Report { taken: Millis::seconds(4), ..good }), Source::Stale);
    frozen(Demand::Reported(Report { total: Kib::new(1 << 40), ..good }), Source::Nonsense);
    frozen(Demand::Reported(Report { total: Kib::ZERO, ..good }), Source::Nonsense);
    frozen(Demand::Reported(Report { available: Kib::gib(2), ..good }), Source::Nonsense);
    // A promise of 2^63 is no lie: processes may be promised anything. It doubles what is used at most.
    let boast = Report { committed: Kib::new(1 << 63), stall: true, ..good };
    let boasts = Domain { demand: Demand::Reported(boast), ..domain(1, 1024, 1020, NOW) };
    assert_eq!(only(&decide(&mut State::new(), late, &host, &[boasts])).target, Kib::mib(2448));
}

#[test]
fn a_raised_minimum_comes_first_even_for_a_frozen_guest() {
    let mut frozen = domain(1, 1024, 0, NOW);
    frozen.demand = Demand::None;
    frozen.settings.minimum = Kib::mib(1200);
    let rich = domain(2, 2048, 600, NOW);
    let decision = decide(&mut State::new(), NOW, &free(300), &[frozen, rich]).decisions[0];
    assert_eq!((decision.target, decision.why.rule), (Kib::mib(1200), Rule::Minimum));
    // Without free memory others are asked.
    let outcome = decide(&mut State::new(), NOW, &free(0), &[frozen, rich]);
    assert_eq!(outcome.decisions[0].target, Kib::gib(1));
    assert_eq!(outcome.decisions[1].why.rule, Rule::Donate, "{}", outcome.decisions[1].why);
}

#[test]
fn a_lowered_maximum_holds_at_once() {
    let mut guest = domain(1, 2048, 1900, NOW);
    guest.settings.maximum = Kib::mib(1500);
    let decision = only(&decide(&mut State::new(), NOW, &free(0), &[guest]));
    assert_eq!((decision.target, decision.why.rule), (Kib::mib(1500), Rule::Maximum));
}

#[test]
fn a_guest_that_boots_gives_what_it_got_since_and_keeps_what_it_boots_with() {
    let young = |has| Domain { age: Millis::seconds(20), ..domain(1, has, 300, NOW) };
    let needy = stalled(domain(2, 1024, 1020, NOW), 2000);
    let first = |young| decide(&mut State::new(), NOW, &free(0), &[young, needy]).decisions[0];
    let kept = first(young(1024));
    assert_eq!((kept.why.rule, kept.change), (Rule::Boot, false), "{}", kept.why);
    let gives = first(young(1536));
    assert_eq!((gives.why.rule, gives.target), (Rule::Donate, Kib::mib(1024)), "{}", gives.why);
    // Nothing, as long as nobody is short.
    let rests = only(&decide(&mut State::new(), NOW, &free(0), &[young(1536)]));
    assert_eq!((rests.why.rule, rests.change), (Rule::Boot, false), "{}", rests.why);
}

#[test]
fn left_alone_is_left_alone() {
    let mut off = domain(1, 1024, 1020, NOW);
    off.settings.balanced = false;
    let decision = only(&decide(&mut State::new(), NOW, &free(4096), &[off]));
    assert_eq!((decision.why.rule, decision.change), (Rule::Off, false));
    // Nor is a domain whose maximum XenStore lost.
    let lost = Domain {
        settings: Settings { maximum: Kib::ZERO, ..domain(1, 0, 0, NOW).settings },
        ..domain(1, 1024, 1020, NOW)
    };
    assert!(!only(&decide(&mut State::new(), NOW, &free(4096), &[lost])).change);
}

#[test]
fn a_stuck_guest_is_given_up_after_five_seconds_and_tried_again_later() {
    let mut state = State::new();
    let mut targets = [Kib::gib(1), Kib::gib(2)];
    let mut rules = Vec::new();
    let known = |now: Millis, targets: &[Kib]| {
        let mut stuck = domain(2, 2048, 500, now);
        stuck.target = targets[1];
        // A page now and then is no progress.
        stuck.assigned = Kib::gib(2) - Kib::new(4 * (now.get() / 1000));
        vec![
            Domain { assigned: targets[0], target: targets[0], ..stalled(domain(1, 1024, 1020, now), 2000) },
            stuck,
        ]
    };
    for second in 1..60 {
        let outcome = run(&mut state, free(0), second..second + 1, known, &mut targets);
        let why = outcome.decisions[1].why;
        if outcome.decisions[1].change {
            rules.push((second, why.rule));
        }
    }
    assert_eq!(rules[0], (1, Rule::Donate));
    let gave_up = rules.iter().find(|(_, rule)| *rule == Rule::GiveUp);
    assert_eq!(gave_up, Some(&(7, Rule::GiveUp)), "{rules:?}");
    let retry = rules.iter().find(|(_, rule)| *rule == Rule::Retry).expect("it is tried again");
    assert!(retry.0 >= 36, "{rules:?}");
    assert!(targets[1] <= Kib::gib(2) && targets[1] >= Kib::mib(512));
}

#[test]
fn speeds_are_learned_and_may_be_taught() {
    let mut state = State::new();
    let id = DomId::new(1);
    assert_eq!(state.speeds(id), (None, None));
    let moving = |has: u64, now| Domain {
        assigned: Kib::mib(has),
        target: Kib::mib(600),
        ..domain(1, 2048, 100, now)
    };
    for (second, has) in [(1, 2048), (2, 1848), (3, 1648)] {
        let now = Millis::seconds(second);
        decide(&mut state, now, &free(0), &[moving(has, now)]);
    }
    let (Some(give), None) = state.speeds(id) else { panic!("it gave and did not take") };
    assert_eq!(give.to_string(), "200 MiB/s");
    let mut other = State::new();
    other.teach(id, Some(give), None);
    assert_eq!(other.speeds(id), (Some(give), None));
    // Another domain of the same number knows nothing of that.
    let young = Domain { age: Millis::ZERO, ..moving(600, Millis::seconds(4)) };
    decide(&mut state, Millis::seconds(4), &free(0), &[young]);
    assert_eq!(state.speeds(id), (None, None));
}

#[test]
fn memory_for_a_restart_is_kept_from_the_second_half_of_buffers() {
    // It boots with 1 GiB and has 512 MiB: 512 MiB are kept.
    let small = domain(1, 512, 200, NOW);
    let wants = domain(2, 1024, 930, NOW);
    let outcome = decide(&mut State::new(), NOW, &free(400), &[small, wants]);
    assert_eq!(outcome.balance.restart_reserve, Kib::mib(512));
    assert!(!outcome.decisions[1].change, "{}", outcome.decisions[1].why);
    let needs = stalled(domain(2, 1024, 1020, NOW), 1400);
    let outcome = decide(&mut State::new(), NOW, &free(600), &[small, needs]);
    // 1400 MiB and a 64th of room, and half of what it wants more: 1680 MiB.
    assert_eq!(outcome.decisions[1].target, Kib::mib(1550), "{}", outcome.decisions[1].why);
}

#[test]
fn who_stalls_gets_a_step_at_once_of_what_is_kept_for_a_restart_too() {
    // It has 256 MiB, all in use, and its processes were promised no more. Another boots with 512 MiB more than it has.
    let small = domain(1, 512, 200, NOW);
    let full = Domain {
        settings: Settings::balanced(Kib::mib(128), Kib::mib(256), Kib::gib(1)),
        ..stalled(domain(2, 256, 250, NOW), 250)
    };
    let outcome = decide(&mut State::new(), NOW, &free(100), &[small, full]);
    assert_eq!(outcome.balance.restart_reserve, Kib::mib(512));
    // An eighth of what it has.
    let why = outcome.decisions[1].why;
    assert!(why.to >= Kib::mib(288) && why.rule == Rule::Grow, "{why}");
}

#[test]
fn a_guest_that_stalled_keeps_what_it_got_until_its_demand_falls() {
    let mut state = State::new();
    let guest = |has, used, at| Domain {
        settings: Settings::balanced(Kib::mib(64), Kib::mib(128), Kib::gib(1)),
        ..domain(1, has, used, Millis::seconds(at))
    };
    let rich = |at| domain(2, 1024, 900, Millis::seconds(at));
    decide(&mut state, NOW, &free(0), &[stalled(guest(128, 118, 1), 118), rich(1)]);
    // It got 8 MiB more and uses what it used: no reason to take them back, though others could use them.
    let then = Millis::seconds(4);
    let needy = stalled(domain(2, 1024, 1020, then), 1400);
    let keeps = decide(&mut state, then, &free(0), &[guest(136, 118, 4), needy]).decisions[0];
    assert!(keeps.target >= Kib::mib(136), "{}", keeps.why);
    let then = Millis::seconds(8);
    let needy = stalled(domain(2, 1024, 1020, then), 1400);
    let gives = decide(&mut state, then, &free(0), &[guest(136, 80, 8), needy]).decisions[0];
    assert_eq!(gives.why.rule, Rule::Donate, "{}", gives.why);
}

#[test]
fn idle_memory_is_taxed_when_memory_is_short() {
    let estimated = |id, has, used, active| Domain {
        demand: Demand::Estimated(Estimate { taken: NOW, used: Kib::mib(used), active: Kib::mib(active) }),
        ..domain(id, has, 0, NOW)
    };
    // Both need 2 GiB of 3 between them; one uses its 2 GiB, the other a tenth of that.
    let outcome = decide(
        &mut State::new(),
        NOW,
        &free(0),
        &[estimated(1, 2000, 2000, 200), estimated(2, 1000, 2000, 2000)],
    );
    let [idle, busy] = &outcome.decisions[..] else { panic!("two were asked about") };
    assert_eq!((idle.why.rule, busy.why.rule), (Rule::Donate, Rule::Wait));
    // 200 MiB and a quarter of the 1800 idle ones are its own; the other gets the rest, and both their room to breathe.
    assert!(idle.why.fair.distance(Kib::mib(968)) < Kib::mib(40), "{}", idle.why);
    assert!(busy.why.fair > Kib::mib(1990), "{}", busy.why);
}

#[test]
fn an_explanation_reads_as_a_line() {
    let needy = stalled(domain(1, 1024, 1020, NOW), 1500);
    let decision = only(&decide(&mut State::new(), NOW, &free(100), &[needy]));
    assert_eq!(
        decision.why.to_string(),
        "grow: 1024 MiB -> 1124 MiB (limit: share); has 1024 MiB, demand 1500 MiB (agent, 0.0 s ago), wants 1800 MiB, \
         share 1124 MiB, pressure 176 %, within 512 MiB to 4096 MiB, stalled; host: 100 MiB available, short"
    );
}

#[test]
fn settings_are_refused_with_the_way_out() {
    let good = Settings::balanced(Kib::mib(512), Kib::gib(1), Kib::gib(4));
    let host = Kib::gib(8);
    assert_eq!(good.check(host), Ok(()));
    let refused = |settings: Settings| settings.check(host).expect_err("it is out of order").to_string();
    assert_eq!(
        refused(Settings { minimum: Kib::gib(2), ..good }),
        "memory_min=2048 MiB is more than memory=1024 MiB, which the domain boots with; lower the one or raise the other"
    );
    assert_eq!(
        refused(Settings { maximum: Kib::mib(900), ..good }),
        "maxmem=900 MiB is less than memory=1024 MiB; raise it"
    );
    assert_eq!(
        refused(Settings { maximum: Kib::gib(9), ..good }),
        "maxmem=9216 MiB is more than this host has for guests, 8192 MiB"
    );
    assert_eq!(refused(Settings { weight: 10_001, ..good }), "memory_weight=10001: must be from 0 to 10000");
    assert_eq!(
        refused(Settings { buffer: 4, ..good }),
        "memory_buffer=4: must be from 5 to 2000, percent of the demand"
    );
    assert!(
        refused(Settings { minimum: Kib::mib(8), ..good }).starts_with("memory_min=8 MiB: less than 32 MiB")
    );
}

#[test]
fn a_donor_that_trickles_is_not_waited_for_alone() {
    // Both have 1 GiB to spare; the one that is asked first gives 5 MiB a second, looked at ten times a second.
    let mut state = State::new();
    let mut slow = domain(1, 3072, 1024, NOW);
    slow.target = Kib::mib(2048);
    let look = |state: &mut State, now: Millis, slow: Domain, more: &[Domain]| {
        let now_slow =
            Domain { demand: Demand::Reported(report(now, slow.assigned, Kib::mib(1024))), ..slow };
        decide(state, now, &free(0), &[&[now_slow], more].concat())
    };
    let mut now = NOW;
    for _ in 0..30 {
        look(&mut state, now, slow, &[]);
        now = now + Millis::new(100);
        slow.assigned -= Kib::new(512);
    }
    let speed = state.speeds(DomId::new(1)).0.expect("it is learned");
    assert!((4 << 10..6 << 10).contains(&speed.get()), "{speed}");
    // Somebody lacks 500 MiB. What trickles in is not there soon, so the other one is asked for all but 5 MiB.
    let other = domain(2, 3072, 1024, now);
    let taker = stalled(domain(3, 1024, 1000, now), 1500);
    let outcome = look(&mut state, now, slow, &[other, taker]);
    let asked = outcome.decisions[1].why.from - outcome.decisions[1].target;
    assert!(asked >= Kib::mib(400), "{}", outcome.decisions[1].why);
}
