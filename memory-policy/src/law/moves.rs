//! What moves now. Takers get no more than what is free; donors are asked for what takers lack.

use super::judge::{Case, Standing};
use super::{Kib, Limit, Millis, Rule};
use crate::State;
use crate::fill::{Vessel, fill};

/// The least that is asked of a donor while nobody is short: smaller pieces are more work than they are worth.
const LEAST_PIECE: Kib = Kib::mib(16);
/// A donor is asked first for what it can give in this time.
const SOON: Millis = Millis::new(1000);

/// Whether not everybody can have what it wants, or not now: takers lack more than is free.
pub(super) fn is_short(cases: &[Case<'_>], available: Kib, kept: Kib) -> bool {
    let needs: Kib = cases.iter().map(|case| case.fair.min(case.ask.need) - case.domain.target).sum();
    let takers = || cases.iter().filter(|case| takes(case));
    let guards: Kib = takers().map(|case| case.guarded() - case.domain.target).sum();
    let all: Kib = takers().map(|case| case.fair - case.domain.target).sum();
    let wants = cases.iter().any(|case| case.moves() && case.fair < case.ask.want);
    wants || needs > available || guards > available || all > guards.max(available - kept)
}

/// Whether its target is to rise: at once if it needs it, beyond the dead band if it is about its buffer.
fn takes(case: &Case<'_>) -> bool {
    case.moves() && case.fair > case.domain.target && {
        let band = case.fair > case.domain.target + case.dead_band();
        case.domain.target < case.ask.minimum || case.urgent || (band && case.need.settled)
    }
}

/// Sets targets, rules and limits. Answers what takers still wait for.
pub(super) fn give(
    cases: &mut [Case<'_>],
    state: &mut State,
    now: Millis,
    available: Kib,
    deficit: Kib,
    kept: Kib,
    short: bool,
) -> Kib {
    for case in cases.iter_mut() {
        stay(case);
    }
    hand_out(cases, available, kept);
    let waiting: Kib =
        cases.iter().filter(|case| takes(case)).map(|case| case.fair - case.to).sum::<Kib>() + deficit;
    // What was asked for before and is there soon need not be asked for again. What trickles in is asked of others as well.
    let coming: Kib =
        cases.iter().filter(|case| case.gives()).map(|case| coming(case).min(soon(case, state))).sum();
    if short {
        collect(cases, state, waiting - coming);
    }
    for case in cases.iter_mut().filter(|case| case.to == case.domain.target) {
        settle(case, now, short, state.tuning.shrink_period, state.tuning.shrink_divisor);
    }
    for case in cases.iter_mut() {
        round(case);
    }
    waiting
}

/// What a donor was asked for before and still has.
fn coming(case: &Case<'_>) -> Kib {
    case.domain.assigned - case.domain.target
}

/// What it can give soon.
fn soon(case: &Case<'_>, state: &State) -> Kib {
    state.giving_speed(case.domain.id).during(SOON)
}

/// What becomes of it if nothing moves.
fn stay(case: &mut Case<'_>) {
    let domain = case.domain;
    let Settled { to, rule, limit } = match case.standing {
        Standing::Off => Settled { to: domain.target, rule: Rule::Off, limit: None },
        Standing::Frozen => Settled { to: domain.target, rule: Rule::Frozen, limit: None },
        // What it is to have follows what it has, so that what was promised to it in vain is others', and so that the
        // next target is a new one to it, without which Linux's balloon would not try again.
        Standing::StuckGiving if domain.assigned > domain.target => {
            Settled { to: domain.assigned, rule: Rule::GiveUp, limit: Some(Limit::Stuck) }
        }
        Standing::StuckTaking if domain.assigned < domain.target => Settled {
            to: domain.assigned.max(case.settings.minimum).min(domain.target),
            rule: Rule::GiveUp,
            limit: Some(Limit::Stuck),
        },
        Standing::StuckGiving | Standing::StuckTaking | Standing::Boots | Standing::Free => {
            Settled { to: domain.target, rule: Rule::Steady, limit: None }
        }
    };
    (case.to, case.rule, case.limit) = (to, rule, limit);
    if case.standing != Standing::Off && case.to > case.settings.maximum {
        (case.to, case.rule, case.limit) = (case.settings.maximum, Rule::Maximum, Some(Limit::Maximum));
    }
}

struct Settled {
    to: Kib,
    rule: Rule,
    limit: Option<Limit>,
}

/// The order in which what is free is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Minimum,
    Need,
    /// Half of the buffers, and what those will need who cannot wait for it.
    Guard,
    Buffer,
}

/// Gives what is free to those who are to have more: minimums first, then needs, then buffers, the second half of which leave
/// `kept` alone; by weight where it is not enough.
fn hand_out(cases: &mut [Case<'_>], available: Kib, kept: Kib) {
    let mut left = available;
    let goal = |case: &Case<'_>, stage| match stage {
        Stage::Minimum => case.settings.minimum,
        Stage::Need => case.fair.min(case.ask.need),
        Stage::Guard => case.soon().max(case.guarded()),
        Stage::Buffer => case.fair,
    };
    for stage in [Stage::Minimum, Stage::Need, Stage::Guard, Stage::Buffer] {
        let takers: Vec<usize> = (0..cases.len())
            .filter(|&index| {
                let case = &cases[index];
                let may = if stage == Stage::Minimum { case.standing != Standing::Off } else { takes(case) };
                may && case.to < goal(case, stage)
            })
            .collect();
        let vessels: Vec<Vessel> = takers
            .iter()
            .map(|&index| {
                let case = &cases[index];
                let base = if stage == Stage::Need { case.settings.minimum.min(case.to) } else { case.to };
                Vessel { base, low: case.to, high: goal(case, stage), weight: case.settings.weight }
            })
            .collect();
        let had: Kib = vessels.iter().map(|vessel| vessel.low).sum();
        let usable = if stage == Stage::Buffer { left - kept } else { left };
        let filled = fill(&vessels, had + usable);
        for (&index, to) in takers.iter().zip(filled) {
            let case = &mut cases[index];
            // Small pieces wait until there is more, or it is all.
            let small = to - case.to < LEAST_PIECE && to < goal(case, stage);
            let small = small && stage != Stage::Minimum && !case.need.stalled;
            if to > case.to && !small {
                left -= to - case.to;
                case.to = to;
                case.rule = match stage {
                    Stage::Minimum => Rule::Minimum,
                    Stage::Need => Rule::Grow,
                    Stage::Guard | Stage::Buffer if case.urgent || case.rule == Rule::Grow => Rule::Grow,
                    Stage::Guard | Stage::Buffer => Rule::Buffer,
                };
            }
        }
    }
}

/// Asks donors for `wanted` in all, as far as they have more than they should. First each for what it can give soon.
fn collect(cases: &mut [Case<'_>], state: &State, wanted: Kib) {
    let mut wanted = wanted;
    // For a need every bit counts; for a buffer what is worth the work.
    let needy = cases.iter().any(|case| takes(case) && case.to < case.soon());
    let spare = |case: &Case<'_>| {
        let spare = if case.gives() { case.to - case.fair } else { Kib::ZERO };
        if needy || spare > case.narrow_band() { spare } else { Kib::ZERO }
    };
    for at_once in [true, false] {
        let spares: Vec<Kib> = cases
            .iter()
            .map(|case| match at_once {
                true => spare(case).min(soon(case, state) - coming(case)),
                false => spare(case),
            })
            .collect();
        let all: Kib = spares.iter().copied().sum();
        let asked = wanted.min(all);
        for (case, spare) in cases.iter_mut().zip(spares) {
            let part = spare.part(asked.get(), all.get()).up_to(Kib::BLOCK).min(spare);
            if part != Kib::ZERO {
                (case.to, case.rule, case.limit) = (case.to - part, Rule::Donate, None);
                wanted -= part;
            }
        }
    }
}

/// What a domain does that neither takes nor is asked: it gives slowly what it has too much, or stays and says why.
fn settle(case: &mut Case<'_>, now: Millis, short: bool, period: Millis, divisor: u64) {
    if matches!(case.rule, Rule::Off | Rule::Frozen | Rule::GiveUp | Rule::Maximum) {
        return;
    }
    if takes(case) {
        (case.rule, case.limit) = (Rule::Wait, Some(Limit::Free));
        return;
    }
    // What it wanted of late counts, and what it wants.
    let peak = case.need.peak.max(case.need.average);
    let wanted = peak + peak.part(u64::from(case.settings.buffer), 100) + case.need.hope;
    let keep = if short { case.fair } else { wanted.max(case.ask.minimum).min(case.ask.want.max(wanted)) };
    let keep = keep.max(case.fair.min(case.to)).max(case.settings.minimum);
    if case.standing == Standing::Boots && case.to > wanted + case.dead_band() {
        (case.rule, case.limit) = (Rule::Boot, Some(Limit::Startup));
        return;
    }
    let spare = case.to - keep;
    if spare <= case.dead_band() {
        let off = case.fair != case.to;
        case.limit = off.then_some(Limit::DeadBand);
        return;
    }
    match case.standing {
        // What it was asked for before is on its way.
        Standing::Free if case.domain.assigned > case.to + case.dead_band() => case.limit = Some(Limit::Pace),
        Standing::Free if case.changed.is_none_or(|changed| now.since(changed) >= period) => {
            let piece = spare.part(1, divisor.max(1)).max(LEAST_PIECE).min(spare);
            (case.to, case.rule, case.limit) = (case.to - piece, Rule::Shrink, Some(Limit::Pace));
        }
        Standing::Free => case.limit = Some(Limit::Pace),
        _ => case.limit = Some(Limit::Stuck),
    }
}

/// Makes the target a multiple of 2 MiB, towards the one before; of 4 KiB where minimum or maximum say so. Names the limit.
fn round(case: &mut Case<'_>) {
    let (from, to) = (case.domain.target, case.to);
    if to == from {
        return;
    }
    let bound =
        |to: Kib| to == case.settings.minimum || to == case.settings.maximum || case.rule == Rule::GiveUp;
    let rounded = match to > from {
        _ if bound(to) => to.up_to(Kib::PAGE),
        true => to.down_to(Kib::BLOCK).max(from),
        false => to.up_to(Kib::BLOCK).min(from),
    };
    case.to = rounded;
    if rounded == from {
        case.rule = if takes(case) { Rule::Wait } else { Rule::Steady };
        case.limit = Some(if takes(case) { Limit::Free } else { Limit::DeadBand });
        return;
    }
    if case.retried && matches!(case.rule, Rule::Donate | Rule::Shrink | Rule::Grow | Rule::Buffer) {
        case.rule = Rule::Retry;
    }
    case.limit = case.limit.or(match () {
        () if rounded == case.settings.minimum => Some(Limit::Minimum),
        () if rounded == case.settings.maximum => Some(Limit::Maximum),
        () if rounded > from && rounded + Kib::BLOCK < case.fair => Some(Limit::Free),
        () if case.fair < case.ask.want => Some(Limit::Share),
        () => None,
    });
}
