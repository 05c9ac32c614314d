//! What holds for any input, sensible or not.

use proptest::prelude::*;

use crate::admission::{Request, plan};
use crate::{
    Demand, DomId, Domain, Estimate, Host, Kib, Millis, Outcome, Report, Rule, Settings, Speed, State, decide,
};

const NOW: Millis = Millis::seconds(50);

/// A multiple of 4 KiB up to 8 GiB.
fn memory() -> impl Strategy<Value = Kib> {
    (0_u64..1 << 21).prop_map(|pages| Kib::new(4 * pages))
}

fn demand() -> impl Strategy<Value = Demand> {
    let report =
        (0_u64..8000, [memory(), memory(), memory()], any::<bool>()).prop_map(|(ago, sizes, stall)| {
            let [total, available, committed] = sizes;
            let available = available.min(total);
            let taken = Millis::new(NOW.get() - ago);
            Demand::Reported(Report {
                taken,
                total,
                free: available,
                available,
                committed,
                some: None,
                full: None,
                stall,
            })
        });
    let estimate = (memory(), memory())
        .prop_map(|(used, active)| Demand::Estimated(Estimate { taken: NOW, used, active }));
    prop_oneof![8 => report, 2 => estimate, 1 => Just(Demand::None), 1 => Just(Demand::Nonsense)]
}

/// A domain, below its minimum now and then.
fn domain() -> impl Strategy<Value = Domain> {
    let settings = ([memory(), memory(), memory()], 5_u32..300, 0_u32..=10_000, any::<bool>());
    (settings, [memory(), memory()], 0_u64..100, demand()).prop_map(|(settings, has, age, demand)| {
        let (sizes, buffer, weight, balanced) = settings;
        let [minimum, startup, maximum] = {
            let mut sizes = sizes;
            sizes.sort();
            sizes
        };
        let [assigned, target] = if age.is_multiple_of(8) { has } else { has.map(|has| has.max(minimum)) };
        let settings = Settings { startup, minimum, maximum, buffer, weight, balanced };
        Domain { id: DomId::new(0), settings, assigned, target, age: Millis::seconds(age), demand }
    })
}

fn domains() -> impl Strategy<Value = Vec<Domain>> {
    proptest::collection::vec(domain(), 0..12).prop_map(numbered)
}

fn numbered(domains: Vec<Domain>) -> Vec<Domain> {
    domains.into_iter().zip(1..).map(|(domain, id)| Domain { id: DomId::new(id), ..domain }).collect()
}

fn host() -> impl Strategy<Value = Host> {
    (memory(), memory(), memory()).prop_map(|(unpromised, reserve, claims)| Host {
        unpromised,
        reserve: reserve.part(1, 8),
        claims: claims.part(1, 4),
    })
}

/// What every decision must keep.
fn check(host: &Host, domains: &[Domain], outcome: &Outcome) -> Result<(), TestCaseError> {
    prop_assert_eq!(outcome.decisions.len(), domains.len());
    let wide = |kib: Kib| u128::from(kib.get());
    let (mut before, mut after) = (0, 0);
    for (domain, decision) in domains.iter().zip(&outcome.decisions) {
        let (target, settings) = (decision.target, domain.settings);
        before += wide(domain.committed());
        after += wide(target.max(domain.assigned));
        prop_assert_eq!((decision.id, decision.change), (domain.id, target != domain.target));
        if !decision.change {
            continue;
        }
        prop_assert!(settings.balanced, "it was to be left alone");
        prop_assert!(
            target >= settings.minimum.min(domain.target).min(settings.maximum),
            "below the minimum: {}",
            decision.why
        );
        prop_assert!(
            target <= settings.maximum.max(domain.target).max(domain.assigned),
            "above the maximum: {}",
            decision.why
        );
        prop_assert!(target.get().is_multiple_of(4) || decision.why.rule == Rule::GiveUp);
        let bound =
            target == settings.minimum || target == settings.maximum || decision.why.rule == Rule::GiveUp;
        prop_assert!(bound || target.get().is_multiple_of(2048), "no multiple of 2 MiB: {}", decision.why);
    }
    let available = host.unpromised - host.reserve - host.claims;
    prop_assert!(after <= before + wide(available), "budgets grew beyond what is free");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Budgets within RAM, nobody below its minimum, round targets; also for a daemon that just started.
    #[test]
    fn one_decision_is_sound(host in host(), domains in domains()) {
        let outcome = decide(&mut State::new(), NOW, &host, &domains);
        check(&host, &domains, &outcome)?;
    }

    /// The same over time, whatever the guests do with their targets.
    #[test]
    fn decisions_in_a_row_are_sound(host in host(), domains in domains(), steps in proptest::collection::vec((0_u64..9000, 0_u64..=4), 1..20)) {
        let (mut state, mut domains, mut now) = (State::new(), domains, NOW);
        for (passed, way) in steps {
            let outcome = decide(&mut state, now, &host, &domains);
            check(&host, &domains, &outcome)?;
            now = now + Millis::new(passed);
            for (domain, decision) in domains.iter_mut().zip(&outcome.decisions) {
                domain.target = decision.target;
                domain.age = domain.age + Millis::new(passed);
                let moved = domain.assigned.distance(domain.target).part(way, 4).down_to(Kib::PAGE);
                domain.assigned = if domain.target > domain.assigned { domain.assigned + moved } else { domain.assigned - moved };
                match &mut domain.demand {
                    Demand::Reported(report) => report.taken = now,
                    Demand::Estimated(estimate) => estimate.taken = now,
                    Demand::None | Demand::Nonsense => {}
                }
            }
        }
    }

    /// Whatever speeds were kept from another life, targets are sound, also once they are measured against.
    #[test]
    fn taught_speeds_do_no_harm(host in host(), domains in domains(), speeds in [anything(), anything()]) {
        let mut state = State::new();
        let [give, take] = speeds.map(|speed| Some(Speed::per_second(Kib::new(speed))));
        for domain in &domains {
            state.teach(domain.id, give, take);
        }
        let mut domains = domains;
        for look in 0..3_u64 {
            let now = NOW + Millis::new(1500 * look);
            let outcome = decide(&mut state, now, &host, &domains);
            check(&host, &domains, &outcome)?;
            for (domain, decision) in domains.iter_mut().zip(&outcome.decisions) {
                domain.target = decision.target;
                let moved = domain.assigned.distance(domain.target).part(1, 4).down_to(Kib::PAGE);
                domain.assigned = if domain.target > domain.assigned { domain.assigned + moved } else { domain.assigned - moved };
            }
            let _ = plan(&mut state, now, &host, &domains, &Request { amount: Kib::gib(1), within: Millis::seconds(10) });
        }
    }

    /// More memory in the host never makes a share smaller, by more than the 64th that is added when memory is short.
    #[test]
    fn shares_are_monotone_in_the_hosts_memory(host in host(), more in memory(), domains in domains()) {
        let richer = Host { unpromised: host.unpromised + more, ..host };
        let poor = decide(&mut State::new(), NOW, &host, &domains);
        let rich = decide(&mut State::new(), NOW, &richer, &domains);
        for (poor, rich) in poor.decisions.iter().zip(&rich.decisions) {
            let tolerance = poor.why.fair.part(1, 32) + Kib::mib(1);
            prop_assert!(rich.why.fair + tolerance >= poor.why.fair, "poor: {}\nrich: {}", poor.why, rich.why);
        }
    }

    /// A decision that was carried out, asked for again at the same moment, moves nothing back: but for the 64th that everybody
    /// keeps to breathe once memory is short, and rounding.
    #[test]
    fn a_decision_is_not_taken_back(host in host(), domains in domains()) {
        let mut state = State::new();
        let first = decide(&mut state, NOW, &host, &domains);
        let mut after = domains.clone();
        let mut left = host;
        for (domain, decision) in after.iter_mut().zip(&first.decisions) {
            domain.target = decision.target;
            left.unpromised -= domain.committed() - domain.assigned.max(domain.target);
        }
        let committed = |domains: &[Domain]| domains.iter().map(Domain::committed).sum::<Kib>();
        left.unpromised = (host.unpromised + committed(&domains)) - committed(&after);
        let second = decide(&mut state, NOW, &left, &after);
        let tolerance = first.decisions.iter().map(|it| it.why.demand).sum::<Kib>().part(1, 32) + Kib::mib(8);
        for ((domain, first), second) in domains.iter().zip(&first.decisions).zip(&second.decisions) {
            if first.target > domain.target {
                prop_assert!(second.target + tolerance >= first.target, "grown, then: {}", second.why);
            }
        }
    }
}

/// Any figure: small, large, at the edges.
fn anything() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0_u64..1 << 24,
        Just(0),
        Just(u64::MAX),
        Just(1 << 63),
        (0_u32..64).prop_map(|bit| 1 << bit)
    ]
}

fn nonsense() -> impl Strategy<Value = Domain> {
    let numbers = proptest::collection::vec(anything(), 16);
    (numbers, any::<[u32; 2]>(), any::<[bool; 4]>(), 0_u16..8).prop_map(|(n, [buffer, weight], flags, id)| {
        let kib = |at: usize| Kib::new(n[at]);
        let [balanced, stall, estimated, psi] = flags;
        let report = Report {
            taken: Millis::new(n[0]),
            total: kib(1),
            free: kib(2),
            available: kib(3),
            committed: kib(4),
            some: psi.then_some(n[5]),
            full: psi.then_some(n[6]),
            stall,
        };
        let estimate = Estimate { taken: Millis::new(n[0]), used: kib(1), active: kib(2) };
        Domain {
            id: DomId::new(id),
            settings: Settings {
                startup: kib(8),
                minimum: kib(9),
                maximum: kib(10),
                buffer,
                weight,
                balanced,
            },
            assigned: kib(11),
            target: kib(12),
            age: Millis::new(n[13]),
            demand: if estimated { Demand::Estimated(estimate) } else { Demand::Reported(report) },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Nonsense in every field, two domains of one number, time that jumps: no panic, no overflow, and one decision each.
    #[test]
    fn nonsense_does_no_harm(
        ticks in proptest::collection::vec((anything(), [anything(), anything(), anything()], proptest::collection::vec(nonsense(), 0..6)), 1..6),
        request in [anything(), anything()],
    ) {
        let mut state = State::new();
        for (now, [unpromised, reserve, claims], domains) in ticks {
            let host = Host { unpromised: Kib::new(unpromised), reserve: Kib::new(reserve), claims: Kib::new(claims) };
            let outcome = decide(&mut state, Millis::new(now), &host, &domains);
            prop_assert_eq!(outcome.decisions.len(), domains.len());
            for (domain, decision) in domains.iter().zip(&outcome.decisions) {
                prop_assert!(!decision.change || domain.settings.balanced);
                prop_assert!(!decision.why.to_string().is_empty());
            }
            let request = Request { amount: Kib::new(request[0]), within: Millis::new(request[1]) };
            if let Err(refusal) = plan(&mut state, Millis::new(now), &host, &domains, &request) {
                prop_assert!(!refusal.to_string().is_empty());
            }
        }
    }
}
