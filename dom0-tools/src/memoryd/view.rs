//! What the daemon tells of itself: one structure for `xl memory`, `xl list --memory`, `xl top`, JSON, Prometheus and recordings.

use pv_abi::domid::DomId;
use serde::{Deserialize, Serialize};

const PAGE_KIB: u64 = 4;

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Seconds since 1970.
    pub time: f64,
    /// The host.
    pub host: HostView,
    /// The domains, by number.
    pub domains: Vec<DomainView>,
}

impl Status {
    /// One of the domains.
    pub fn domain(&self, id: DomId) -> Option<&DomainView> {
        self.domains.iter().find(|domain| domain.domid == id.raw())
    }
}

/// The host, as Hyper-V's group "Dynamic Memory Balancer" has it, and what else there is to know. Amounts are in KiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostView {
    /// All memory.
    pub total_kib: u64,
    /// Memory that no domain has.
    pub free_kib: u64,
    /// Of that, what is promised to nobody: "Available Memory".
    pub available_kib: u64,
    /// Of that, what may be handed out, without reserve and claims: "Available Memory For Balancing".
    pub available_for_balancing_kib: u64,
    /// What stays free, always.
    pub reserve_kib: u64,
    /// What is set aside for domains that are being made.
    pub claimed_kib: u64,
    /// What is kept for the restart of a domain.
    pub restart_reserve_kib: u64,
    /// What all balanced domains want together.
    pub wanted_kib: u64,
    /// What takers wait for.
    pub waiting_kib: u64,
    /// "Average Pressure", percent.
    pub average_pressure: u64,
    /// "System Current Pressure", percent.
    pub system_pressure: u64,
    /// Whether somebody is short.
    pub is_short: bool,
    /// "Added Memory", "Removed Memory" and how often.
    pub moved: Moved,
    /// Guaranteed budgets beyond the memory there is, ever seen: a fault.
    pub budget_violations: u64,
    /// Domains seen below their minimum by a decision of the daemon: a fault.
    pub minimum_violations: u64,
    /// How often the policy was asked.
    pub decisions: u64,
    /// Microseconds that it took altogether.
    pub decisions_us: u64,
    /// Requests of memory for domains to be made: granted and refused.
    pub grants: u64,
    /// See [`Self::grants`].
    pub refusals: u64,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// What this hypervisor cannot do of all this.
    pub missing: Vec<String>,
}

/// Memory that was moved, as the hypervisor saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moved {
    /// KiB that came to domains.
    pub added_kib: u64,
    /// KiB that they gave.
    pub removed_kib: u64,
    /// Targets that were raised.
    pub add_operations: u64,
    /// Targets that were lowered.
    pub remove_operations: u64,
}

impl Moved {
    /// Both ways, in pages.
    pub fn pages(&self) -> u64 {
        self.added_kib.saturating_add(self.removed_kib) / PAGE_KIB
    }
}

/// One domain, as Hyper-V's group "Dynamic Memory VM" has it, and what else there is to know. Amounts are in KiB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DomainView {
    /// Its number.
    pub domid: u16,
    /// Its name.
    pub name: String,
    /// Whether the daemon may change what it has.
    pub is_balanced: bool,
    /// What it has: "Physical Memory".
    pub assigned_kib: u64,
    /// What it is to have.
    pub target_kib: u64,
    /// What it started with.
    pub startup_kib: u64,
    /// What it always has.
    pub minimum_kib: u64,
    /// What it can have.
    pub maximum_kib: u64,
    /// Percent above its demand.
    pub buffer: u64,
    /// Its share.
    pub weight: u64,
    /// What it needs, if anybody says so.
    pub demand_kib: Option<u64>,
    /// What it needs and its buffer, within its limits.
    pub want_kib: u64,
    /// "Current Pressure", percent.
    pub pressure: Option<u64>,
    /// "Minimum Pressure" and "Maximum Pressure" of the last minute.
    pub pressure_range: Option<(u64, u64)>,
    /// "Average Pressure" of the last minute.
    pub average_pressure: Option<u64>,
    /// Who says what it needs: agent, estimate, stale, nonsense, none.
    pub source: String,
    /// Why nothing is believed, where that is so.
    pub complaint: Option<String>,
    /// Seconds for which that has been so.
    pub source_s: f64,
    /// The rule of the last decision, and what kept it from more.
    pub rule: String,
    /// See [`Self::rule`].
    pub limit: Option<String>,
    /// Tasks in it wait for memory.
    pub is_stalled: bool,
    /// It does not move.
    pub is_stuck: bool,
    /// Its demand has risen for minutes.
    pub is_rising: bool,
    /// KiB per second that its balloon gave, and took, if that is known.
    pub speed_kib: (Option<u64>, Option<u64>),
    /// What its agent said last.
    pub guest: Option<GuestView>,
    /// What was moved.
    pub moved: Moved,
    /// Counters of ours.
    pub counters: DomainCounters,
    /// How its memory is mapped, where the hypervisor tells.
    pub mapping: Option<MappingView>,
}

/// What a guest's agent said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestView {
    /// "Guest Visible Physical Memory".
    pub total_kib: u64,
    /// "Guest Available Memory".
    pub available_kib: u64,
    /// Promised to its processes.
    pub committed_kib: u64,
    /// Microseconds of stall, some and full, since it started.
    pub stall_us: (Option<u64>, Option<u64>),
}

/// What is counted of a domain beyond Hyper-V's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DomainCounters {
    /// Reports that were read.
    pub reports: u64,
    /// Of these, sent because of a stall.
    pub stalls: u64,
    /// Such as made no sense.
    pub bad_reports: u64,
    /// Times that it wrote so often that it was not listened to for a while.
    pub floods: u64,
    /// Targets that the hypervisor refused.
    pub refused: u64,
    /// Times that XenStore or the hypervisor had another target than the daemon had set, and was put right.
    pub reconciled: u64,
    /// Targets that were reached, and milliseconds that took altogether, and at most.
    pub reached: u64,
    /// See [`Self::reached`].
    pub reached_ms: u64,
    /// See [`Self::reached`].
    pub slowest_ms: u64,
}

/// How a domain's memory is mapped: Nacelle's counters (docs/abi.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MappingView {
    /// Blocks split.
    pub splits: u64,
    /// Blocks merged.
    pub merges: u64,
    /// TLB invalidations.
    pub tlb_invalidations: u64,
    /// Blocks of 2 MiB.
    pub blocks_2m: u64,
    /// Single pages.
    pub pages_4k: u64,
}

/// A decision, as it is kept for `xl memory explain`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Milliseconds ago.
    pub ago_ms: u64,
    /// Whether the target changed.
    pub is_change: bool,
    /// The rule.
    pub rule: String,
    /// The whole explanation.
    pub text: String,
}
