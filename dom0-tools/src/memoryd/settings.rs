//! What a user sets for a domain's memory, where it is kept in XenStore, and what may be said.
//!
//! | setting | `xl.cfg` | XenStore, `/local/domain/N/memory/…` |
//! | --- | --- | --- |
//! | startup | `memory`, MiB | `startup`, KiB |
//! | minimum | `memory_min`, MiB | `minimum`, KiB |
//! | maximum | `maxmem`, MiB | `hotplug-max`, KiB |
//! | buffer | `memory_buffer`, percent | `buffer` |
//! | weight | `memory_weight` | `weight` |
//! | policy | `memory_policy`, 0 or 1 | `policy` |

use std::ops::RangeInclusive;

use memory_policy::{Kib, SettingsError};
use serde::{Deserialize, Serialize};

/// Percent of its demand that a domain gets on top, where there is enough.
pub const BUFFER: RangeInclusive<u64> = 5..=2000;
/// Its share where there is not.
pub const WEIGHT: RangeInclusive<u64> = 0..=10_000;
const DEFAULT_BUFFER: u16 = 20;
const DEFAULT_WEIGHT: u16 = 5000;

/// The settings that are dynamic memory's own; startup and maximum every domain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// Whether the daemon may change what the domain has.
    pub is_on: bool,
    /// KiB that it always has; `None`: what it starts with.
    pub minimum_kib: Option<u64>,
    /// Percent.
    pub buffer: u16,
    /// 0 to 10000.
    pub weight: u16,
}

impl Default for Balance {
    fn default() -> Self {
        Self { is_on: false, minimum_kib: None, buffer: DEFAULT_BUFFER, weight: DEFAULT_WEIGHT }
    }
}

/// All settings of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// KiB that it starts with.
    pub startup_kib: u64,
    /// KiB that it can have at most.
    pub maximum_kib: u64,
    /// The rest.
    pub balance: Balance,
}

/// A setting by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// What it starts with.
    Startup,
    /// What it always has.
    Minimum,
    /// What it can have.
    Maximum,
    /// Percent on top of its demand.
    Buffer,
    /// Its share.
    Weight,
    /// Whether it is balanced.
    Policy,
}

impl Key {
    /// All of them: the name in XenStore, which the command line takes, too, and the name in `xl.cfg`.
    pub const NAMES: [(&'static str, &'static str, Self); 6] = [
        ("startup", "memory", Self::Startup),
        ("minimum", "memory_min", Self::Minimum),
        ("maximum", "maxmem", Self::Maximum),
        ("buffer", "memory_buffer", Self::Buffer),
        ("weight", "memory_weight", Self::Weight),
        ("policy", "memory_policy", Self::Policy),
    ];

    /// The key of either name.
    pub fn of(name: &str) -> Option<Self> {
        let is = |(store, config, _): &&(&str, &str, Self)| *store == name || *config == name;
        Self::NAMES.iter().find(is).map(|(.., key)| *key)
    }

    /// Its name in XenStore.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(.., key)| *key == self).map_or("", |(name, ..)| name)
    }

    /// The node that holds it, below the domain's `memory`.
    pub fn node(self) -> &'static str {
        match self {
            Self::Maximum => "hotplug-max",
            other => other.name(),
        }
    }
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Settings that do not go together, or not on this host; or a buffer or weight out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Neither on nor off.
    #[error("memory_policy={0}: must be 0 or 1")]
    Policy(u64),
    /// No memory at all.
    #[error("no domain can do without any memory")]
    Nothing,
}

fn within(range: &RangeInclusive<u64>, value: u64) -> Option<u16> {
    if range.contains(&value) { u16::try_from(value).ok() } else { None }
}

impl Settings {
    /// What the domain always has, in KiB.
    pub fn minimum_kib(&self) -> u64 {
        self.balance.minimum_kib.unwrap_or(self.startup_kib)
    }

    /// What the domain always has, where it has `holds`: its minimum, or all of that while it is left alone.
    pub fn always(&self, holds: Kib) -> Kib {
        if self.balance.is_on { Kib::new(self.minimum_kib()) } else { holds }
    }

    /// The same with one setting changed; amounts are in KiB.
    ///
    /// # Errors
    /// [`Invalid`] where the value alone is out of range.
    pub fn with(mut self, key: Key, value: u64) -> Result<Self, Invalid> {
        match key {
            Key::Startup => {
                // A minimum that was never said goes with it no longer: the domain keeps what it is promised now.
                self.balance.minimum_kib = Some(self.minimum_kib());
                self.startup_kib = value;
            }
            Key::Minimum => self.balance.minimum_kib = Some(value),
            Key::Maximum => self.maximum_kib = value,
            Key::Buffer => {
                self.balance.buffer = within(&BUFFER, value).ok_or(SettingsError::Buffer(value))?;
            }
            Key::Weight => {
                self.balance.weight = within(&WEIGHT, value).ok_or(SettingsError::Weight(value))?;
            }
            Key::Policy => {
                self.balance.is_on = within(&(0..=1), value).ok_or(Invalid::Policy(value))? == 1;
            }
        }
        Ok(self)
    }

    /// Whether the settings go together, on a host of `host_kib`; where a domain is not balanced its maximum may be beyond that.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self, host_kib: u64) -> Result<(), Invalid> {
        if self.minimum_kib() == 0 || self.startup_kib == 0 {
            return Err(Invalid::Nothing);
        }
        Ok(self.for_policy().check(Kib::new(host_kib))?)
    }

    /// As the policy knows them.
    pub fn for_policy(&self) -> memory_policy::Settings {
        memory_policy::Settings {
            startup: Kib::new(self.startup_kib),
            minimum: Kib::new(self.minimum_kib()),
            maximum: Kib::new(self.maximum_kib),
            buffer: self.balance.buffer.into(),
            weight: self.balance.weight.into(),
            balanced: self.balance.is_on,
        }
    }

    /// The nodes below a domain's `memory`, but the maximum, which has nodes of its own rules.
    pub fn nodes(&self) -> [(&'static str, String); 5] {
        [
            ("startup", self.startup_kib.to_string()),
            ("minimum", self.minimum_kib().to_string()),
            ("buffer", self.balance.buffer.to_string()),
            ("weight", self.balance.weight.to_string()),
            ("policy", u8::from(self.balance.is_on).to_string()),
        ]
    }

    /// Reads them back; `node` gives a node's text. A node that is missing or makes no sense counts as not said: `target_kib` for
    /// what it starts with, and not balanced.
    pub fn read(target_kib: u64, maximum_kib: u64, node: impl Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| node(name).and_then(|text| text.trim().parse::<u64>().ok());
        let startup_kib = number("startup").filter(|kib| *kib > 0).unwrap_or(target_kib);
        let balance = Balance::default();
        let mut settings = Self { startup_kib, maximum_kib: maximum_kib.max(startup_kib), balance };
        for key in [Key::Buffer, Key::Weight, Key::Policy] {
            let changed = number(key.node()).and_then(|value| settings.with(key, value).ok());
            settings = changed.unwrap_or(settings);
        }
        let minimum = number("minimum").filter(|kib| (1..=startup_kib).contains(kib));
        settings.balance.minimum_kib = minimum;
        settings
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings() -> Settings {
        Settings { startup_kib: 256 << 10, maximum_kib: 1 << 20, balance: Balance::default() }
    }

    #[test]
    fn either_name_will_do() {
        assert_eq!((Key::of("memory_min"), Key::of("minimum")), (Some(Key::Minimum), Some(Key::Minimum)));
        assert_eq!((Key::of("maxmem"), Key::of("min")), (Some(Key::Maximum), None));
        assert_eq!((Key::Maximum.node(), Key::Weight.node()), ("hotplug-max", "weight"));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let host = 2 << 20;
        let check = |key, value| settings().with(key, value).and_then(|settings| settings.check(host));
        assert_eq!(check(Key::Minimum, 128 << 10), Ok(()));
        let refused = |key, value| check(key, value).unwrap_err().to_string();
        assert!(
            refused(Key::Minimum, 300 << 10).starts_with("memory_min=300 MiB is more than memory=256 MiB")
        );
        assert!(refused(Key::Startup, 2 << 20).starts_with("maxmem=1024 MiB is less than memory=2048 MiB"));
        assert!(
            refused(Key::Startup, 128 << 10).starts_with("memory_min=256 MiB is more than memory=128 MiB")
        );
        assert_eq!(check(Key::Minimum, 0), Err(Invalid::Nothing));
        for bad in [4, 2001, 1 << 40] {
            assert_eq!(check(Key::Buffer, bad), Err(SettingsError::Buffer(bad).into()));
        }
        assert_eq!(check(Key::Weight, 10_001), Err(SettingsError::Weight(10_001).into()));
        assert_eq!(check(Key::Policy, 2), Err(Invalid::Policy(2)));
        // Beyond the host is only wrong for a domain that is balanced.
        assert_eq!(check(Key::Maximum, 4 << 20), Ok(()));
        let on = settings().with(Key::Policy, 1).unwrap().with(Key::Maximum, 4 << 20).unwrap();
        let beyond = on.check(host).unwrap_err().to_string();
        assert!(beyond.starts_with("maxmem=4096 MiB is more than this host has"), "{beyond}");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut all = settings();
        for (key, value) in [(Key::Minimum, 100 << 10), (Key::Buffer, 50), (Key::Weight, 0), (Key::Policy, 1)]
        {
            all = all.with(key, value).unwrap();
        }
        let nodes: BTreeMap<_, _> = all.nodes().into_iter().collect();
        let read = Settings::read(1, all.maximum_kib, |name| nodes.get(name).cloned());
        assert_eq!(read, all);
    }

    #[test]
    fn nodes_that_make_no_sense_count_as_not_said() {
        let read = Settings::read(256 << 10, 1 << 20, |name| match name {
            "minimum" => Some("99999999999999999999".into()),
            "buffer" => Some("x".into()),
            "weight" => Some("70000".into()),
            "policy" => Some("7".into()),
            _ => None,
        });
        assert_eq!(read, settings());
        assert_eq!(read.minimum_kib(), 256 << 10);
    }
}
