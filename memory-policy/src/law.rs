//! The law: who is to have how much now, and why.
//!
//! 1. What each domain needs and wants, from its filtered demand ([`crate::track`]).
//! 2. What each should have: the pool divided by weight ([`crate::fill`]).
//! 3. What moves now: takers get what is free at once; donors are asked at once if that is not enough, else slowly.

mod judge;
mod moves;

use crate::fill::{Ask, divide};
use crate::known::{Domain, Host};
use crate::motion::Way;
use crate::{Balance, Decision, Explanation, Kib, Limit, Millis, Outcome, Rule, State};
pub(crate) use judge::Case;
use judge::Standing;

/// When nothing moves, how soon [`decide`] wants to be called: for what happens by the passing of time alone.
const IDLE: Millis = Millis::seconds(5);
/// The same while somebody waits for memory that nobody has to give.
const WAITING: Millis = Millis::seconds(1);

/// Decides what each of `domains` is to have from `now` on. `now` never goes back.
///
/// To be called whenever a report arrives, a domain comes or goes, or settings change, and after [`Outcome::again`]. The
/// caller then sets the targets that changed, those that fall first.
pub fn decide(state: &mut State, now: Millis, host: &Host, domains: &[Domain]) -> Outcome {
    let tuning = state.tuning;
    let mut cases = cases(state, now, domains);
    let available = host.unpromised - host.reserve - host.claims;
    // What comes first: claims, and minimums of those who are not divided among.
    let first = host.reserve + host.claims + cases.iter().map(Case::lacks_minimum).sum();
    let deficit = first - host.unpromised;
    let movable: Kib = cases.iter().filter(|case| case.moves()).map(|case| case.domain.committed()).sum();
    let pool = movable + (host.unpromised - first) - deficit;
    let restart_reserve = cases.iter().filter_map(Case::missing_for_restart).max().unwrap_or_default();

    // In calm times memory is divided by what is wanted on the average. If that leaves somebody short, by what is needed
    // this moment, so that who has too much gives at once.
    let restart = restart_reserve.min(available);
    // Who cannot wait may have what is kept for a restart, too.
    let presses = cases.iter().any(|case| case.moves() && case.presses);
    let kept = if presses { Kib::ZERO } else { restart };
    share(&mut cases, pool, kept, |case| case.calm);
    let short = deficit != Kib::ZERO || moves::is_short(&cases, available, restart);
    if short {
        share(&mut cases, pool, kept, |case| case.pressing);
    }

    let waiting = moves::give(&mut cases, state, now, available, deficit, restart, short);
    let balance = balance(&cases, pool, available, restart_reserve, short, waiting);
    let mut decisions = Vec::with_capacity(cases.len());
    let mut moving = false;
    for case in &cases {
        let to = case.to;
        let memory = state.of(case.domain);
        memory.motion.aim(to);
        if to != case.domain.target {
            memory.changed = Some(now);
        }
        moving |=
            to != case.domain.target || (case.moves() && case.domain.assigned.distance(to) > Kib::mib(4));
        let why = case.explain(now, available, short);
        decisions.push(Decision { id: case.domain.id, target: to, change: to != case.domain.target, why });
    }
    // Who waits while nothing is on its way waits for a report.
    let again = match () {
        () if moving => tuning.moving_period,
        () if waiting != Kib::ZERO => WAITING,
        () => IDLE,
    };
    Outcome { decisions, balance, again }
}

/// Takes in what is known, and judges each domain by itself.
pub(crate) fn cases<'a>(state: &mut State, now: Millis, domains: &'a [Domain]) -> Vec<Case<'a>> {
    state.keep(domains);
    let tuning = state.tuning;
    domains.iter().map(|domain| Case::new(domain, state.of(domain), now, &tuning)).collect()
}

/// Sets what each case should have.
fn share(cases: &mut [Case<'_>], pool: Kib, kept: Kib, ask: fn(&Case<'_>) -> Ask) {
    let asks: Vec<Ask> = cases.iter().filter(|case| case.moves()).map(ask).collect();
    let shares = divide(&asks, pool, kept);
    for (case, (share, ask)) in cases.iter_mut().filter(|case| case.moves()).zip(shares.into_iter().zip(asks))
    {
        (case.fair, case.ask) = (share, ask);
    }
}

fn balance(
    cases: &[Case<'_>],
    pool: Kib,
    available: Kib,
    restart_reserve: Kib,
    short: bool,
    waiting: Kib,
) -> Balance {
    let balanced = || cases.iter().filter(|case| case.standing != Standing::Off);
    let needed: Kib = balanced().map(|case| case.ask.need).sum();
    let count = u64::try_from(balanced().count()).unwrap_or(u64::MAX);
    let pressures = balanced().fold(0_u64, |sum, case| sum.saturating_add(case.pressure()));
    let fixed: Kib = balanced().filter(|case| !case.moves()).map(|case| case.domain.committed()).sum();
    Balance {
        available,
        pool: pool + fixed,
        wanted: balanced().map(|case| case.ask.want).sum(),
        needed,
        restart_reserve,
        short,
        system_pressure: needed.percent_of(pool + fixed),
        average_pressure: pressures.checked_div(count).unwrap_or_default(),
        waiting,
    }
}
