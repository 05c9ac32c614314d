//! Water-filling against its definition, and against the closed form by sorting.

use proptest::prelude::*;

use super::{Ask, Vessel, divide, fill};
use crate::Kib;

fn vessel() -> impl Strategy<Value = Vessel> {
    (0_u64..1 << 22, 0_u64..1 << 22, 0_u64..1 << 22, prop_oneof![Just(0), 1_u32..=10_000]).prop_map(
        |(base, low, more, weight)| Vessel {
            base: Kib::new(base),
            low: Kib::new(base + low),
            high: Kib::new(base + low + more),
            weight,
        },
    )
}

fn ask() -> impl Strategy<Value = Ask> {
    (0_u64..1 << 21, 0_u64..1 << 21, 0_u64..1 << 21, 0_u64..1 << 21, 0_u32..=10_000).prop_map(
        |(minimum, taxed, need, want, weight)| Ask {
            minimum: Kib::new(minimum),
            taxed: Kib::new(minimum + taxed),
            need: Kib::new(minimum + taxed + need),
            want: Kib::new(minimum + taxed + need + want),
            weight,
        },
    )
}

/// The level by the closed form: between two neighbours of the sorted levels at which a vessel starts or stops to fill, the
/// sum is a straight line.
fn sorted(vessels: &[Vessel], pool: u64) -> Vec<f64> {
    let float = |kib: Kib| f64::from(u32::try_from(kib.get()).expect("small figures are tested"));
    let at = |level: f64, v: &Vessel| {
        (float(v.base) + level * f64::from(v.weight)).min(float(v.high)).max(float(v.low))
    };
    let mut levels: Vec<f64> = vessels
        .iter()
        .filter(|v| v.weight != 0)
        .flat_map(|v| [v.low, v.high].map(|kib| (float(kib) - float(v.base)) / f64::from(v.weight)))
        .collect();
    levels.push(0.0);
    levels.sort_by(f64::total_cmp);
    let total = |level: f64| vessels.iter().map(|v| at(level, v)).sum::<f64>();
    let pool = float(Kib::new(pool));
    let above = levels.iter().position(|&level| total(level) > pool).unwrap_or(levels.len());
    let level = match (above.checked_sub(1).map(|below| levels[below]), levels.get(above)) {
        (Some(low), Some(&high)) => low + (high - low) * (pool - total(low)) / (total(high) - total(low)),
        (Some(last), None) => last,
        _ => 0.0,
    };
    vessels.iter().map(|v| at(level, v)).collect()
}

#[test]
fn two_to_one_above_the_minimum() {
    let ask = |weight| Ask {
        minimum: Kib::mib(512),
        taxed: Kib::gib(6),
        need: Kib::gib(6),
        want: Kib::gib(6),
        weight,
    };
    let shares = divide(&[ask(6666), ask(3333)], Kib::gib(8), Kib::ZERO);
    // 0.5 + 7·⅔ and 0.5 + 7·⅓ GiB.
    assert!(shares[0].distance(Kib::new(5_417_643)) < Kib::mib(1), "{shares:?}");
    assert!(shares[1].distance(Kib::new(2_970_965)) < Kib::mib(1), "{shares:?}");
}

#[test]
fn no_weight_gets_what_the_others_leave() {
    let vessel =
        |weight, high| Vessel { base: Kib::mib(100), low: Kib::mib(100), high: Kib::mib(high), weight };
    let vessels = [vessel(0, 400), vessel(0, 400), vessel(5000, 300)];
    assert_eq!(fill(&vessels, Kib::mib(450)), [100, 100, 250].map(Kib::mib));
    assert_eq!(fill(&vessels, Kib::mib(600)), [150, 150, 300].map(Kib::mib));
    assert_eq!(fill(&vessels, Kib::mib(50)), [100, 100, 100].map(Kib::mib));
    assert_eq!(fill(&vessels, Kib::gib(9)), [400, 400, 300].map(Kib::mib));
}

#[test]
fn idle_memory_and_buffers_come_last_and_half_a_buffer_before_what_is_kept() {
    let ask = |taxed, need, want| Ask {
        minimum: Kib::mib(100),
        taxed: Kib::mib(taxed),
        need: Kib::mib(need),
        want: Kib::mib(want),
        weight: 5000,
    };
    let asks = [ask(200, 500, 600), ask(500, 500, 600)];
    assert_eq!(divide(&asks, Kib::mib(700), Kib::ZERO), [200, 500].map(Kib::mib));
    assert_eq!(divide(&asks, Kib::mib(900), Kib::ZERO), [400, 500].map(Kib::mib));
    assert_eq!(divide(&asks, Kib::mib(1100), Kib::ZERO), [550, 550].map(Kib::mib));
    assert_eq!(divide(&asks, Kib::mib(1100), Kib::mib(60)), [550, 550].map(Kib::mib));
    assert_eq!(divide(&asks, Kib::mib(1160), Kib::mib(20)), [570, 570].map(Kib::mib));
    assert_eq!(divide(&asks, Kib::mib(1160), Kib::mib(100)), [550, 550].map(Kib::mib));
}

proptest! {
    #[test]
    fn fill_keeps_its_bounds(vessels in proptest::collection::vec(vessel(), 0..12), pool in 0_u64..1 << 26, more in 0_u64..1 << 24) {
        let filled = fill(&vessels, Kib::new(pool));
        let lowest: Kib = vessels.iter().map(|vessel| vessel.low).sum();
        let highest: Kib = vessels.iter().map(|vessel| vessel.high).sum();
        let sum: Kib = filled.iter().copied().sum();
        for (vessel, amount) in vessels.iter().zip(&filled) {
            prop_assert!((vessel.low..=vessel.high).contains(amount));
        }
        prop_assert!(sum <= Kib::new(pool).max(lowest));
        // Nothing is kept back, but for what rounding leaves: less than a KiB each of a dozen.
        prop_assert!(sum + Kib::new(64) >= Kib::new(pool).min(highest));
        for (less, more) in filled.iter().zip(fill(&vessels, Kib::new(pool + more))) {
            prop_assert!(more >= *less, "more memory, and somebody has less");
        }
    }

    #[test]
    fn fill_agrees_with_the_closed_form(mut vessels in proptest::collection::vec(vessel(), 1..12), thousandths in 0_u64..1000) {
        for vessel in &mut vessels {
            vessel.weight = vessel.weight.max(1);
        }
        let (low, high): (Kib, Kib) = (vessels.iter().map(|v| v.low).sum(), vessels.iter().map(|v| v.high).sum());
        let pool = low + (high - low).part(thousandths, 1000);
        for (mine, exact) in fill(&vessels, pool).iter().zip(sorted(&vessels, pool.get())) {
            let mine = f64::from(u32::try_from(mine.get()).expect("small"));
            // A KiB of rounding each, which the others may get.
            prop_assert!((mine - exact).abs() <= 16.0, "{mine} instead of {exact}");
        }
    }

    #[test]
    fn division_is_monotone_and_in_order(asks in proptest::collection::vec(ask(), 1..12), pool in 0_u64..1 << 26, more in 0_u64..1 << 24, kept in 0_u64..1 << 20) {
        let kept = Kib::new(kept);
        let shares = divide(&asks, Kib::new(pool), kept);
        let lowest: Kib = asks.iter().map(|ask| ask.minimum).sum();
        prop_assert!(shares.iter().copied().sum::<Kib>() <= Kib::new(pool).max(lowest));
        for (ask, share) in asks.iter().zip(&shares) {
            prop_assert!((ask.minimum..=ask.want).contains(share));
        }
        // No buffer for one while another lacks what it needs.
        let lacks = asks.iter().zip(&shares).any(|(ask, share)| *share < ask.need);
        prop_assert!(!lacks || asks.iter().zip(&shares).all(|(ask, share)| *share <= ask.need));
        for (less, more) in shares.iter().zip(divide(&asks, Kib::new(pool + more), kept)) {
            prop_assert!(more >= *less);
        }
    }
}
