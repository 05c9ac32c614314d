//! What the user sets for a domain, and what is refused.

use thiserror::Error;

use crate::{Kib, Millis};

/// What the user sets for a domain: `memory=`, `memory_min=`, `maxmem=`, `memory_buffer=`, `memory_weight=`,
/// `memory_policy=`. Anything may be in the fields; the law works with [`Settings::sane`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the domain boots with.
    pub startup: Kib,
    /// What it always has.
    pub minimum: Kib,
    /// The most that it may have.
    pub maximum: Kib,
    /// What it is to have above its demand, in percent of that.
    pub buffer: u32,
    /// Its share above the minimum, against the others', while memory is short.
    pub weight: u32,
    /// Whether memory is moved for it at all.
    pub balanced: bool,
}

/// Why settings are refused. Each names the key of the configuration, and the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// The minimum is less than any guest runs with.
    #[error("memory_min={} MiB: less than {}; give at least that", .0.get() / 1024, Settings::LEAST)]
    MinimumTooLow(Kib),
    /// Minimum above startup.
    #[error(
        "memory_min={} MiB is more than memory={} MiB, which the domain boots with; lower the one or raise the other",
        minimum.get() / 1024, startup.get() / 1024
    )]
    MinimumAboveStartup {
        /// The minimum.
        minimum: Kib,
        /// What it boots with.
        startup: Kib,
    },
    /// Startup above maximum.
    #[error("maxmem={} MiB is less than memory={} MiB; raise it", maximum.get() / 1024, startup.get() / 1024)]
    MaximumBelowStartup {
        /// The maximum.
        maximum: Kib,
        /// What it boots with.
        startup: Kib,
    },
    /// Maximum beyond what the host has for guests.
    #[error("maxmem={} MiB is more than this host has for guests, {}", maximum.get() / 1024, host)]
    MaximumBeyondHost {
        /// The maximum.
        maximum: Kib,
        /// What the host has.
        host: Kib,
    },
    /// A buffer out of range.
    #[error("memory_buffer={0}: must be from 5 to 2000, percent of the demand")]
    Buffer(u64),
    /// A weight out of range.
    #[error("memory_weight={0}: must be from 0 to 10000")]
    Weight(u64),
}

impl Settings {
    /// The least minimum, as Hyper-V's.
    pub const LEAST: Kib = Kib::mib(32);
    /// The buffer when none is set.
    pub const BUFFER: u32 = 20;
    /// The weight when none is set.
    pub const WEIGHT: u32 = 5000;
    /// The heaviest weight.
    pub const HEAVIEST: u32 = 10_000;
    /// The buffers that may be set.
    pub const BUFFERS: core::ops::RangeInclusive<u32> = 5..=2000;

    /// A domain that always has `memory`, and is left alone.
    pub const fn fixed(memory: Kib) -> Self {
        Self {
            startup: memory,
            minimum: memory,
            maximum: memory,
            buffer: Self::BUFFER,
            weight: Self::WEIGHT,
            balanced: false,
        }
    }

    /// A balanced domain with the default buffer and weight.
    pub const fn balanced(minimum: Kib, startup: Kib, maximum: Kib) -> Self {
        Self { startup, minimum, maximum, buffer: Self::BUFFER, weight: Self::WEIGHT, balanced: true }
    }

    /// Whether a user may set this on a host that has `host` for guests. Settings that are not balanced only need their
    /// sizes in order.
    pub fn check(&self, host: Kib) -> Result<(), SettingsError> {
        let &Self { startup, minimum, maximum, buffer, weight, balanced } = self;
        if minimum > startup {
            return Err(SettingsError::MinimumAboveStartup { minimum, startup });
        }
        if maximum < startup {
            return Err(SettingsError::MaximumBelowStartup { maximum, startup });
        }
        if balanced && minimum < Self::LEAST {
            return Err(SettingsError::MinimumTooLow(minimum));
        }
        if balanced && maximum > host {
            return Err(SettingsError::MaximumBeyondHost { maximum, host });
        }
        if !Self::BUFFERS.contains(&buffer) {
            return Err(SettingsError::Buffer(u64::from(buffer)));
        }
        if weight > Self::HEAVIEST {
            return Err(SettingsError::Weight(u64::from(weight)));
        }
        Ok(())
    }

    /// The nearest settings that are in order: XenStore may say anything. A domain whose maximum is no guest's is left alone.
    pub(crate) fn sane(&self) -> Self {
        let maximum = self.maximum.down_to(Kib::PAGE);
        Self {
            startup: self.startup.min(maximum),
            minimum: self.minimum.min(maximum).up_to(Kib::PAGE),
            maximum,
            buffer: self.buffer.clamp(*Self::BUFFERS.start(), *Self::BUFFERS.end()),
            weight: self.weight.min(Self::HEAVIEST),
            balanced: self.balanced && maximum >= Self::LEAST,
        }
    }
}

/// The constants of the law. `docs/dynamic-memory.md` says why they are what they are; [`Tuning::DEFAULT`] are those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// A report that is older is stale, and the domain frozen where it is.
    pub stale_after: Millis,
    /// What a domain boots with is not taken from it until it is this old, and nothing before it has reported.
    pub boot_grace: Millis,
    /// A target that is not approached for this long is given up.
    pub stuck_after: Millis,
    /// A domain that was given up is tried again after this long, doubled each time up to sixteenfold.
    pub retry_after: Millis,
    /// While nobody is short a donor is asked once in this time...
    pub shrink_period: Millis,
    /// ...for what it has too much divided by this.
    pub shrink_divisor: u64,
    /// Targets that are off by less than their size divided by this stay as they are.
    pub dead_band: u64,
    /// Demand is averaged over this time.
    pub average_over: Millis,
    /// The highest demand of this time counts when memory is taken.
    pub hold: Millis,
    /// The part of idle memory, in percent, that does not count as needed while memory is short.
    pub idle_tax: u64,
    /// While something moves, [`crate::decide`] wants to be called this often.
    pub moving_period: Millis,
}

impl Tuning {
    /// What the daemon uses.
    pub const DEFAULT: Self = Self {
        stale_after: Millis::seconds(5),
        boot_grace: Millis::seconds(30),
        stuck_after: Millis::seconds(5),
        retry_after: Millis::seconds(30),
        shrink_period: Millis::seconds(5),
        shrink_divisor: 8,
        dead_band: 32,
        average_over: Millis::seconds(10),
        hold: Millis::seconds(30),
        idle_tax: 75,
        moving_period: Millis::new(100),
    };
}

impl Default for Tuning {
    fn default() -> Self {
        Self::DEFAULT
    }
}
