//! Amounts that must not be mixed up: memory, time, speed.

use core::fmt;
use core::iter::Sum;
use core::ops::{Add, AddAssign, Sub, SubAssign};

/// Memory in KiB, the unit of XenStore. Arithmetic saturates: no report of a guest can make it wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kib(u64);

impl Kib {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// A page of 4 KiB: what every target is a multiple of.
    pub const PAGE: Self = Self(4);
    /// A block of 2 MiB: what targets that the law chooses freely are multiples of.
    pub const BLOCK: Self = Self(2048);

    /// `kib` KiB.
    pub const fn new(kib: u64) -> Self {
        Self(kib)
    }

    /// `mib` MiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1024))
    }

    /// `gib` GiB.
    pub const fn gib(gib: u64) -> Self {
        Self::mib(gib.saturating_mul(1024))
    }

    /// In KiB.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The part `numerator / denominator` of it, rounded down; of nothing if the denominator is 0.
    pub fn part(self, numerator: u64, denominator: u64) -> Self {
        let part = (u128::from(self.0) * u128::from(numerator)).checked_div(u128::from(denominator));
        Self(u64::try_from(part.unwrap_or(0)).unwrap_or(u64::MAX))
    }

    /// The multiple of `unit` at or below it.
    pub const fn down_to(self, unit: Self) -> Self {
        Self(self.0 - self.0 % unit.0)
    }

    /// The multiple of `unit` at or above it; the last one there is, if there is none.
    pub const fn up_to(self, unit: Self) -> Self {
        match self.0.checked_next_multiple_of(unit.0) {
            Some(kib) => Self(kib),
            None => Self(u64::MAX - u64::MAX % unit.0),
        }
    }

    /// How far the two are apart.
    pub const fn distance(self, other: Self) -> Self {
        Self(self.0.abs_diff(other.0))
    }

    /// This much of `whole` in percent, rounded; 0 of nothing.
    pub fn percent_of(self, whole: Self) -> u64 {
        let doubled = u128::from(self.0) * 200;
        let percent = doubled.checked_div(u128::from(whole.0)).unwrap_or(0).div_ceil(2);
        u64::try_from(percent).unwrap_or(u64::MAX)
    }
}

impl Add for Kib {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Kib {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Never below nothing.
impl Sub for Kib {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl SubAssign for Kib {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Kib {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

/// In MiB where that is exact enough to read, else in KiB.
impl fmt::Display for Kib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("0"),
            kib @ 1..2048 => write!(f, "{kib} KiB"),
            kib => write!(f, "{} MiB", kib / 1024 + kib % 1024 / 512),
        }
    }
}

/// A time in milliseconds, since whatever moment the caller counts from (a monotonic clock), or a span of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(u64);

impl Millis {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// `millis` ms.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// `seconds` s.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// In ms.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this one; none if that was later.
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Millis {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// In seconds, to a tenth.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} s", self.0 / 1000, self.0 % 1000 / 100)
    }
}

/// How fast memory moves, in KiB per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Speed(u64);

impl Speed {
    /// `kib` KiB per second.
    pub const fn per_second(kib: Kib) -> Self {
        Self(kib.0)
    }

    /// What `moved` in `time` comes to; `None` if no time passed.
    pub fn of(moved: Kib, time: Millis) -> Option<Self> {
        (time != Millis::ZERO).then(|| Self(moved.part(1000, time.0).0))
    }

    /// KiB per second.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What moves in `time`.
    pub fn during(self, time: Millis) -> Kib {
        Kib(self.0).part(time.0, 1000)
    }

    /// How long `amount` takes; `None`: forever.
    pub fn time_for(self, amount: Kib) -> Option<Millis> {
        if amount == Kib::ZERO {
            return Some(Millis::ZERO);
        }
        (self.0 != 0).then(|| Millis(amount.part(1000, self.0).0.saturating_add(1)))
    }
}

/// In MiB per second.
impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB/s", self.0 / 1024)
    }
}
