//! Time: the generic timer's counter, and nanoseconds of system time since boot.

use crate::arch;

/// A value of the system counter (CNTPCT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(u64);

impl Ticks {
    /// A counter value.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The counter value.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// This moment plus a span, at most the last tick there is.
    pub const fn after(self, ticks: u64) -> Self {
        Self(self.0.saturating_add(ticks))
    }
}

/// Nanoseconds: Xen's system time, or a span of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanoseconds(u64);

impl Nanoseconds {
    /// That many nanoseconds.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number of nanoseconds.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As a span of the counter, rounded up.
    pub fn to_ticks(self) -> u64 {
        let ticks = (u128::from(self.0) * u128::from(arch::counter_frequency())).div_ceil(1_000_000_000);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// A span of the counter in nanoseconds.
    pub fn from_ticks(ticks: u64) -> Self {
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(arch::counter_frequency().max(1));
        Self(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}
