//! A domain as its configuration describes it: `xl.cfg` to [`DomainConfig`], and to libxl's JSON.
//!
//! ```text
//!   files, key=value ── syntax ──▶ settings ── keys: served? ──▶ read: types, ranges ──▶ DomainConfig ──▶ json: as libxl keeps it
//!                                       every step: Diagnostic with file, line, column, the line itself
//! ```
//! The meaning of each key is that of xl.cfg(5) of Xen 4.17, for guests of type `pvh` on Arm.

mod devices;
mod diagnostic;
#[cfg(test)]
mod fuzz;
mod json;
mod keys;
mod nearest;
mod read;
mod settings;
mod syntax;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cpu_set::CpuSet;
use crate::memoryd::settings::{Balance, Settings as MemorySettings};
use crate::uuid::Uuid;

pub use devices::{Disk, DiskFormat, InvalidDevice, Rate, Vif};
pub use diagnostic::{Diagnostic, Diagnostics, Place, Severity, Source};
pub use nearest::{nearest, suggestion};
pub use read::{read, read_on};
pub use syntax::as_line;

/// What a domain is to be. Serialized, it is for another process of the same program; for others there is [`Self::to_libxl`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainConfig {
    /// `name`: unique among the domains.
    pub name: String,
    /// `uuid`; `None`: the creator makes one up.
    pub uuid: Option<Uuid>,
    /// `kernel`: what boots.
    pub kernel: PathBuf,
    /// `ramdisk`: the initial file system.
    pub ramdisk: Option<PathBuf>,
    /// `device_tree`: a partial tree whose `/passthrough` and `/aliases` join the domain's.
    pub device_tree: Option<PathBuf>,
    /// `cmdline`, or `root` and `extra`: what the kernel is told.
    pub cmdline: Option<String>,
    /// `memory`, in KiB: what it has at first.
    pub memory_kib: u64,
    /// `maxmem`, in KiB: what it can have; at least [`Self::memory_kib`].
    pub maxmem_kib: u64,
    /// `memory_min`, `memory_buffer`, `memory_weight`, `memory_policy`: whether and how its memory is balanced.
    #[serde(default)]
    pub balance: Balance,
    /// `vcpus`: how many are online at first.
    pub vcpus: u32,
    /// `maxvcpus`: how many there are; at least [`Self::vcpus`].
    pub maxvcpus: u32,
    /// `cpus`: where they may run.
    pub cpus: Affinity,
    /// `cpus_soft`: where they should run.
    pub cpus_soft: Affinity,
    /// `cpu_weight`: its share in relation to others.
    pub cpu_weight: Option<u16>,
    /// `cap`: percent of one CPU at most; 0 is no limit.
    pub cap: Option<u16>,
    /// `pool`: the CPU pool, by name.
    pub pool: Option<String>,
    /// `on_poweroff`.
    pub on_poweroff: Action,
    /// `on_reboot`.
    pub on_reboot: Action,
    /// `on_watchdog`.
    pub on_watchdog: Action,
    /// `on_crash`.
    pub on_crash: Action,
    /// `on_soft_reset`.
    pub on_soft_reset: Action,
    /// `gic_version`: the interrupt controller it sees.
    pub gic_version: GicVersion,
    /// `vuart = "sbsa_uart"`: a second console that looks like an SBSA UART.
    pub has_vuart: bool,
    /// `acpi`, if it is said. No tables are made either way.
    pub acpi: Option<bool>,
    /// `max_grant_frames`.
    pub max_grant_frames: Option<u32>,
    /// `max_maptrack_frames`.
    pub max_maptrack_frames: Option<u32>,
    /// `max_grant_version`.
    pub max_grant_version: Option<u32>,
    /// `max_event_channels`: the highest port.
    pub max_event_channels: Option<u32>,
    /// `disk`.
    pub disks: Vec<Disk>,
    /// `vif`.
    pub vifs: Vec<Vif>,
}

impl DomainConfig {
    /// What is set for its memory.
    pub fn memory_settings(&self) -> MemorySettings {
        MemorySettings { startup_kib: self.memory_kib, maximum_kib: self.maxmem_kib, balance: self.balance }
    }
}

/// What happens when a domain has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It goes away.
    Destroy,
    /// It is made anew.
    Restart,
    /// It stays for a look, under another name, and is made anew.
    RenameRestart,
    /// It stays for a look.
    Preserve,
    /// Its memory is written to a file, then it goes away.
    CoredumpDestroy,
    /// Its memory is written to a file, then it is made anew.
    CoredumpRestart,
    /// It starts over with what it has.
    SoftReset,
}

impl Action {
    /// All of them, by the name that `xl.cfg` has.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("destroy", Self::Destroy),
        ("restart", Self::Restart),
        ("rename-restart", Self::RenameRestart),
        ("preserve", Self::Preserve),
        ("coredump-destroy", Self::CoredumpDestroy),
        ("coredump-restart", Self::CoredumpRestart),
        ("soft-reset", Self::SoftReset),
    ];

    /// As `xl.cfg` has it.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, action)| *action == self).map_or("destroy", |(name, _)| name)
    }
}

/// The interrupt controller that a domain sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GicVersion {
    /// The host's.
    #[default]
    Native,
    /// GICv2.
    V2,
    /// GICv3.
    V3,
}

/// The CPUs of a domain's vCPUs. Lists are resolved by [`Affinity::sets`], as `all` means the host's CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Affinity {
    /// All.
    #[default]
    Any,
    /// The same list for each.
    Same(String),
    /// A list for each in turn; those beyond the last have all.
    Each(Vec<String>),
}

impl Affinity {
    /// The set of each vCPU that has one, on a host of `cpus` CPUs; the first belongs to vCPU 0.
    pub fn sets(&self, vcpus: u32, cpus: u32) -> Vec<CpuSet> {
        // `read` has seen that each list can be parsed.
        let set = |list: &String| CpuSet::parse(list, cpus).unwrap_or_else(|_| CpuSet::first(cpus));
        match self {
            Self::Any => Vec::new(),
            Self::Same(list) => vec![set(list); vcpus as usize],
            Self::Each(lists) => lists.iter().take(vcpus as usize).map(set).collect(),
        }
    }
}

/// Reads one file's text; warnings are lost, [`read`] gives them.
///
/// # Errors
/// [`Diagnostics`]: everything that is wrong with it.
pub fn parse(text: &str, source_name: &str) -> Result<DomainConfig, Diagnostics> {
    read(&[Source::file(source_name, text)]).map(|(config, _)| config)
}
