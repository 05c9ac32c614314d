//! Whether a domain can be made.

use super::{NOW, domain, free};
use crate::admission::{Plan, Refusal, Request, claims_are_free, plan};
use crate::{DomId, Host, Kib, Millis, Rule, Speed, State, decide};

fn request(mib: u64, seconds: u64) -> Request {
    Request { amount: Kib::mib(mib), within: Millis::seconds(seconds) }
}

#[test]
fn what_is_free_is_there_at_once() {
    let host = Host { reserve: Kib::mib(100), ..free(1100) };
    let plan = plan(&mut State::new(), NOW, &host, &[], &request(1000, 10)).expect("it is free");
    assert_eq!(plan, Plan { free: Kib::mib(1000), donors: Vec::new(), ready_in: Millis::ZERO });
}

#[test]
fn donors_are_asked_by_what_they_have_to_spare_and_how_fast_they_are() {
    let mut state = State::new();
    let mib = |mib| Some(Speed::per_second(Kib::mib(mib)));
    state.teach(DomId::new(1), mib(400), None);
    state.teach(DomId::new(2), mib(100), None);
    let domains = [domain(1, 3072, 1024, NOW), domain(2, 3072, 1024, NOW)];
    let plan =
        plan(&mut state, NOW, &free(48), &domains, &request(1048, 10)).expect("they have 4 GiB to spare");
    // 1000 MiB at 500 MiB/s, after a fifth of a second.
    assert!(plan.ready_in >= Millis::new(2200) && plan.ready_in < Millis::new(2210), "{plan:?}");
    let [(_, fast), (_, slow)] = plan.donors[..] else { panic!("both give") };
    assert!(
        fast.distance(Kib::mib(800)) < Kib::mib(4) && slow.distance(Kib::mib(200)) < Kib::mib(4),
        "{plan:?}"
    );
    // The law then asks for it, although nobody wants anything.
    let host = Host { claims: Kib::mib(1048), ..free(48) };
    assert!(!claims_are_free(&host));
    let outcome = decide(&mut state, NOW, &host, &domains);
    let asked: Kib = outcome.decisions.iter().map(|decision| decision.why.from - decision.target).sum();
    assert!(asked >= Kib::mib(1000) && asked <= Kib::mib(1008), "{asked}");
    assert!(outcome.decisions.iter().all(|decision| decision.why.rule == Rule::Donate));
    assert!(claims_are_free(&Host { unpromised: Kib::mib(1048), ..host }));
}

#[test]
fn refusals_say_why_with_figures() {
    let domains = [domain(1, 3072, 1024, NOW), domain(2, 3072, 2048, NOW)];
    let ask =
        |request| plan(&mut State::new(), NOW, &free(100), &domains, &request).expect_err("it cannot be");
    let impossible = ask(request(6000, 10));
    assert!(matches!(impossible, Refusal::Impossible { .. }));
    // What they need, with the 64th of room to breathe, is not to spare.
    assert_eq!(
        impossible.to_string(),
        "6000 MiB asked for, 100 MiB free, 3024 MiB to spare in domains: not there, even if every domain had no more than \
         must be left to it (1024 MiB); ask for at most 5220 MiB"
    );
    let needed = ask(request(4000, 10));
    assert_eq!(
        needed.to_string(),
        "4000 MiB asked for, 100 MiB free, 3024 MiB to spare in domains: the domains need the rest; ask for at most \
         3124 MiB, or shut one down"
    );
    // Nobody knows how fast they are: 100 MiB/s each are assumed.
    let slow = ask(request(2100, 5));
    assert_eq!(
        slow.to_string(),
        "2100 MiB asked for, 100 MiB free, 3024 MiB to spare in domains: 1060 MiB can be there within 5.0 s, all of it in \
         10.2 s; allow more time"
    );
}

#[test]
fn who_is_frozen_is_no_donor_nor_what_another_boots_with() {
    let mut frozen = domain(1, 3072, 100, NOW);
    frozen.demand = crate::Demand::Nonsense;
    let mut boots = domain(2, 1024, 100, NOW);
    boots.age = Millis::seconds(3);
    let refused = plan(&mut State::new(), NOW, &free(0), &[frozen, boots], &request(10, 600));
    assert!(matches!(refused, Err(Refusal::Impossible { most: Kib::ZERO, .. })), "{refused:?}");
}

#[test]
fn who_has_not_reported_yet_may_still_give() {
    let mut silent = domain(1, 3072, 100, NOW);
    silent.demand = crate::Demand::None;
    let ask = |state: &mut State, now, mib| plan(state, now, &free(0), &[silent], &request(mib, 10));
    let mut state = State::new();
    // A daemon that just started knows nothing of it: the 2560 MiB above its minimum may be there.
    let waits = Plan { free: Kib::ZERO, donors: Vec::new(), ready_in: Millis::seconds(10) };
    assert_eq!(ask(&mut state, NOW, 2560).expect("it may give"), waits);
    assert!(matches!(ask(&mut state, NOW, 2561), Err(Refusal::Impossible { .. })));
    // One that stays silent has no agent.
    let later = NOW + Millis::seconds(5);
    let refused = ask(&mut state, later, 10);
    assert!(matches!(refused, Err(Refusal::Impossible { most: Kib::ZERO, .. })), "{refused:?}");
    // One that boots has time to start its agent.
    silent.age = Millis::seconds(10);
    assert!(plan(&mut state, later, &free(0), &[silent], &request(10, 10)).is_ok());
}
