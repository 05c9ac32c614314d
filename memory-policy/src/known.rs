//! What is known when targets are decided: of the host, of each domain, of its demand.

use pv_abi::domid::DomId;
use thiserror::Error;

use crate::{Kib, Millis, Settings};

/// What is known of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Memory that is free and promised to nobody: what targets may grow into now. On Nacelle the hypervisor's free memory
    /// less its outstanding promises; on Xen free memory less what each domain lacks of its target.
    pub unpromised: Kib,
    /// What of it stays free always: for the hypervisor, dom0's tools, a domain's page tables.
    pub reserve: Kib,
    /// What of it is set aside for domains that are being made and do not exist yet. Donors are asked
    /// for what is missing.
    pub claims: Kib,
}

/// What is known of a domain.
///
/// Domains that are not among those given to [`crate::decide`] are taken to keep what they have: they need not be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Which.
    pub id: DomId,
    /// What the user set.
    pub settings: Settings,
    /// What it has, as the hypervisor counts (`tot_pages`).
    pub assigned: Kib,
    /// What it is to have, as the hypervisor or XenStore says now; not what anybody remembers.
    pub target: Kib,
    /// Since it was made. When this falls, it is another domain of the same number.
    pub age: Millis,
    /// What it needs.
    pub demand: Demand,
}

impl Domain {
    /// What of the host's memory stands behind it: what it has, or was promised.
    pub fn committed(&self) -> Kib {
        self.assigned.max(self.target)
    }
}

/// What is known of what a domain needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: no agent ever reported, no estimate is there.
    #[default]
    None,
    /// Its agent wrote what is no report. It is frozen until there is one.
    Nonsense,
    /// What its agent said last, however long ago.
    Reported(Report),
    /// What the hypervisor saw it use.
    Estimated(Estimate),
}

/// What a guest's agent said. Nothing of it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// When it arrived, on the clock of [`crate::decide`]'s `now`.
    pub taken: Millis,
    /// Memory that the guest's kernel manages (`MemTotal`).
    pub total: Kib,
    /// Memory that nobody uses (`MemFree`).
    pub free: Kib,
    /// Memory that can be had without swapping (`MemAvailable`).
    pub available: Kib,
    /// Memory that is promised to processes (`Committed_AS`), which may exceed everything.
    pub committed: Kib,
    /// Time that some task waited for memory since boot, in µs (PSI); `None` if the kernel does not say.
    pub some: Option<u64>,
    /// Time that all tasks did.
    pub full: Option<u64>,
    /// Whether a stall made the agent report.
    pub stall: bool,
}

/// Why a report is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Implausible {
    /// No guest runs without memory.
    #[error("total is 0")]
    NoTotal,
    /// More than the guest was ever allowed, and what its kernel may count beyond that.
    #[error("total is {total}, more than the {maximum} that it can have")]
    AboveMaximum {
        /// What it claims to have.
        total: Kib,
        /// What it may have.
        maximum: Kib,
    },
    /// A part that is more than the whole.
    #[error("{name} is {part}, more than its total of {total}")]
    AboveTotal {
        /// Which.
        name: &'static str,
        /// What it claims.
        part: Kib,
        /// Of how much.
        total: Kib,
    },
}

impl Report {
    /// Whether a guest with `settings` can be as this says.
    ///
    /// # Errors
    /// Which figure cannot be, and what it exceeds.
    pub fn check(&self, settings: &Settings) -> Result<(), Implausible> {
        let (total, maximum) = (self.total, settings.sane().maximum);
        if total == Kib::ZERO {
            return Err(Implausible::NoTotal);
        }
        if total > maximum + maximum.part(1, 64).max(Kib::mib(16)) {
            return Err(Implausible::AboveMaximum { total, maximum });
        }
        let parts = [("available", self.available), ("free", self.free)];
        match parts.into_iter().find(|(_, part)| *part > total) {
            Some((name, part)) => Err(Implausible::AboveTotal { name, part, total }),
            None => Ok(()),
        }
    }
}

/// What the hypervisor saw a domain use, by the access flags of its stage-2 tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// When the last scan ended, on the clock of [`crate::decide`]'s `now`.
    pub taken: Millis,
    /// Memory touched within the slow window (a minute or so): what the domain needs.
    pub used: Kib,
    /// Memory touched within the fast window (some seconds).
    pub active: Kib,
}
