//! CPU pools, and parameters of their schedulers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::xen::{Bitmap, DomainHandle};

number_enum! {
    /// What [`CpupoolOp::op`] asks.
    pub enum CpupoolCmd {
        /// Make a pool.
        Create = 1,
        /// Take it away.
        Destroy = 2,
        /// Describe the first pool from `cpupool_id` on.
        Info = 3,
        /// Add a CPU.
        Addcpu = 4,
        /// Take a CPU out.
        Rmcpu = 5,
        /// Move a domain to it.
        Movedomain = 6,
        /// Which CPUs are in no pool.
        Freeinfo = 7,
    }
}

/// Any pool, any CPU.
pub const XEN_SYSCTL_CPUPOOL_PAR_ANY: u32 = u32::MAX;

/// `XEN_SYSCTL_cpupool_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CpupoolOp {
    /// A [`CpupoolCmd`].
    pub op: u32,
    /// Which pool; out of [`CpupoolCmd::Info`]: which pool was found.
    pub cpupool_id: u32,
    /// A [`crate::domctl::SchedulerId`].
    pub sched_id: u32,
    /// Which domain, in 32 bits.
    pub domid: u32,
    /// Which CPU.
    pub cpu: u32,
    /// Out: domains in the pool.
    pub n_dom: u32,
    /// Out: CPUs in the pool.
    pub cpumap: Bitmap,
}

/// Entries of an ARINC 653 schedule at most.
pub const ARINC653_MAX_DOMAINS_PER_SCHEDULE: usize = 64;

/// One entry of an ARINC 653 schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Arinc653Entry {
    /// UUID of the domain.
    pub dom_handle: DomainHandle,
    /// Its vCPU.
    pub vcpu_id: u32,
    /// Padding.
    pub _pad: u32,
    /// Nanoseconds.
    pub runtime: u64,
}

/// An ARINC 653 schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Arinc653Schedule {
    /// Nanoseconds of the whole.
    pub major_frame: u64,
    /// How many entries.
    pub num_sched_entries: u8,
    /// Padding.
    pub _pad: [u8; 7],
    /// The entries.
    pub sched_entries: [Arinc653Entry; ARINC653_MAX_DOMAINS_PER_SCHEDULE],
}

zero_default!(Arinc653Schedule);

/// Parameters of credit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CreditSchedule {
    /// Time slice in milliseconds.
    pub tslice_ms: u32,
    /// The shortest run in microseconds.
    pub ratelimit_us: u32,
    /// How long a vCPU stays where its caches are, in microseconds.
    pub vcpu_migr_delay_us: u32,
}

/// Parameters of credit2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Credit2Schedule {
    /// The shortest run in microseconds.
    pub ratelimit_us: u32,
}

/// The longest `ratelimit_us`.
pub const XEN_SYSCTL_SCHED_RATELIMIT_MAX: u32 = 500_000;
/// The shortest `ratelimit_us` but for 0, which is off.
pub const XEN_SYSCTL_SCHED_RATELIMIT_MIN: u32 = 100;

/// [`SchedulerOp::cmd`]: set.
pub const XEN_SYSCTL_SCHEDOP_PUTINFO: u32 = 0;
/// [`SchedulerOp::cmd`]: read.
pub const XEN_SYSCTL_SCHEDOP_GETINFO: u32 = 1;

/// `XEN_SYSCTL_scheduler_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SchedulerOp {
    /// Which pool.
    pub cpupool_id: u32,
    /// A [`crate::domctl::SchedulerId`].
    pub sched_id: u32,
    /// `XEN_SYSCTL_SCHEDOP_*`.
    pub cmd: u32,
    /// Padding.
    pub _pad: u32,
    /// A [`CreditSchedule`], a [`Credit2Schedule`], or the [`GuestHandle`] of an [`Arinc653Schedule`].
    pub u: SchedulerOpUnion,
}

abi_union! {
    /// The last part of [`SchedulerOp`].
    pub struct SchedulerOpUnion([u64; 2]);
}
