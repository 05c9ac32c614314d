//! Water-filling: how a pool is divided by weight between those who cannot take more than so much.
//!
//! ```text
//!        want ┄┄┐                       each vessel stands on its minimum and is as wide as its weight;
//!   need ┌──┐   ├┄┄┐  ┌────┐            water rises in all of them at once, and stops in one that is full.
//!        │  │   │  │  │    │            First to what is needed and not idle, then to what is needed, then the buffers.
//!   λ ┄┄┄│▒▒│┄┄┄│▒▒│┄┄│▒▒▒▒│┄┄
//!        │▒▒│   │▒▒│  │▒▒▒▒│
//!        └──┘   └──┘  └────┘
//! ```

use crate::Kib;

/// A vessel: it gets `base + λ·weight`, but no less than `low` and no more than `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vessel {
    pub base: Kib,
    pub low: Kib,
    pub high: Kib,
    pub weight: u32,
}

/// λ is counted in 2^-20 KiB per unit of weight, so that the heaviest weight rises by less than a KiB at a time.
const SCALE: u32 = 20;

impl Vessel {
    fn at(&self, level: u128, weight: u32) -> Kib {
        let rise = (level.saturating_mul(u128::from(weight))) >> SCALE;
        let rise = Kib::new(u64::try_from(rise).unwrap_or(u64::MAX));
        (self.base + rise).min(self.high).max(self.low)
    }
}

/// Fills `vessels` from `pool`: the highest λ at which all together are within it. Every one has its `low` whatever the
/// pool is. Vessels without weight get what remains when all others are full. Less than a KiB a vessel may be left over.
///
/// Each amount is monotone in the pool: more memory never means less for somebody.
pub(crate) fn fill(vessels: &[Vessel], pool: Kib) -> Vec<Kib> {
    if vessels.iter().map(|vessel| vessel.high.max(vessel.low)).sum::<Kib>() <= pool {
        return vessels.iter().map(|vessel| vessel.high.max(vessel.low)).collect();
    }
    let with_weight = vessels.iter().any(|vessel| vessel.weight != 0);
    let heavy_full: Kib = vessels
        .iter()
        .map(|vessel| if vessel.weight == 0 { vessel.low } else { vessel.high.max(vessel.low) })
        .sum();
    if with_weight && heavy_full > pool {
        return rise(vessels, pool, |vessel| vessel.weight);
    }
    // All that have a weight are full: the rest is for the others, evenly. Their level starts from nothing.
    let full: Vec<Vessel> = vessels
        .iter()
        .map(|vessel| match vessel.weight {
            0 => *vessel,
            _ => Vessel { low: vessel.high.max(vessel.low), ..*vessel },
        })
        .collect();
    rise(&full, pool, |vessel| u32::from(vessel.weight == 0))
}

/// The amounts at the highest level at which they are within `pool`, found by bisection: their sum is monotone in it.
fn rise(vessels: &[Vessel], pool: Kib, weight: impl Fn(&Vessel) -> u32) -> Vec<Kib> {
    let total = |level: u128| vessels.iter().map(|vessel| vessel.at(level, weight(vessel))).sum::<Kib>();
    let highest = vessels.iter().filter(|vessel| weight(vessel) != 0).map(|vessel| {
        let room = u128::from((vessel.high - vessel.base).get().min(pool.get())) + 1;
        (room << SCALE).div_ceil(u128::from(weight(vessel)))
    });
    // `low` is a level that fits (or the lowest there is), `high` one that does not.
    let (mut low, mut high) = (0, highest.max().unwrap_or(0) + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match total(middle) <= pool {
            true => low = middle,
            false => high = middle,
        }
    }
    vessels.iter().map(|vessel| vessel.at(low, weight(vessel))).collect()
}

/// What a domain asks of the pool: `minimum ≤ taxed ≤ need ≤ want`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub minimum: Kib,
    /// What is needed and not idle.
    pub taxed: Kib,
    pub need: Kib,
    pub want: Kib,
    pub weight: u32,
}

impl Ask {
    /// What it needs and half of its buffer: who has less may be out of memory before anybody hears of it.
    pub fn guarded(&self) -> Kib {
        self.need + (self.want - self.need).part(1, 2)
    }
}

/// Divides `pool`: everybody's minimum, then up to `taxed`, to `need`, to `want`, each stage only when all have what the one
/// before says. Of the last `kept_from_buffers` of the pool nobody gets more than it needs and half of its buffer.
pub(crate) fn divide(asks: &[Ask], pool: Kib, kept_from_buffers: Kib) -> Vec<Kib> {
    let stages: [fn(&Ask) -> Vessel; 2] = [
        |ask| Vessel { base: ask.minimum, low: ask.minimum, high: ask.taxed, weight: ask.weight },
        |ask| Vessel { base: ask.minimum, low: ask.taxed, high: ask.need, weight: ask.weight },
    ];
    for stage in stages {
        let vessels: Vec<Vessel> = asks.iter().map(stage).collect();
        if vessels.iter().map(|vessel| vessel.high).sum::<Kib>() > pool {
            return fill(&vessels, pool);
        }
    }
    let buffers: Vec<Vessel> = asks
        .iter()
        .map(|ask| Vessel { base: ask.need, low: ask.need, high: ask.want, weight: ask.weight })
        .collect();
    let all = fill(&buffers, pool);
    let less = fill(&buffers, pool - kept_from_buffers);
    asks.iter().zip(all).zip(less).map(|((ask, all), less)| less.max(all.min(ask.guarded()))).collect()
}

#[cfg(test)]
mod tests;
