//! What a simulated guest needs over time: a line through points, with noise.

use crate::{Kib, Millis};

/// A demand over time.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Times and demands; straight lines between, level before the first and after the last.
    points: Vec<(Millis, Kib)>,
    /// Noise, in percent of the demand to either side, new every second.
    noise: u64,
    seed: u64,
}

impl Curve {
    /// The same always.
    pub fn level(demand: Kib) -> Self {
        Self { points: vec![(Millis::ZERO, demand)], noise: 0, seed: 0 }
    }

    /// Lines through points: seconds and MiB.
    pub fn through(points: &[(u64, u64)]) -> Self {
        let points = points.iter().map(|&(s, mib)| (Millis::seconds(s), Kib::mib(mib))).collect();
        Self { points, noise: 0, seed: 0 }
    }

    /// With noise of `percent` to either side.
    pub fn with_noise(self, percent: u64, seed: u64) -> Self {
        Self { noise: percent, seed, ..self }
    }

    /// The demand without noise.
    pub fn plain(&self, now: Millis) -> Kib {
        let after = self.points.partition_point(|(time, _)| *time <= now);
        match (after.checked_sub(1).map(|before| self.points[before]), self.points.get(after)) {
            (Some((t0, from)), Some(&(t1, to))) => {
                let (passed, span) = (now.since(t0).get(), t1.since(t0).get());
                let way = from.distance(to).part(passed, span);
                if to > from { from + way } else { from - way }
            }
            (Some((_, last)), None) => last,
            (None, Some(&(_, first))) => first,
            (None, None) => Kib::ZERO,
        }
    }

    /// The most that noise makes of it.
    pub fn most(&self, now: Millis) -> Kib {
        self.plain(now).part(100 + self.noise, 100)
    }

    /// The demand.
    pub fn at(&self, now: Millis) -> Kib {
        let plain = self.plain(now);
        if self.noise == 0 {
            return plain;
        }
        let thousandths = mix(self.seed ^ (now.get() / 1000)) % (20 * self.noise + 1);
        plain.part(1000 - 10 * self.noise + thousandths, 1000)
    }
}

/// A number that looks random, the same for the same `seed` (the finalizer of splitmix64, Steele et al., OOPSLA 2014).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
