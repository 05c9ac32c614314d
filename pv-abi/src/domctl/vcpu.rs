//! Operations on the vCPUs of a domain: registers, affinity, scheduling.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::GuestHandle;
use crate::xen::Bitmap;

/// `XEN_DOMCTL_setvcpucontext` and `XEN_DOMCTL_getvcpucontext`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VcpuContext {
    /// Which vCPU.
    pub vcpu: u32,
    /// Padding.
    pub _pad: u32,
    /// A [`crate::arch_arm::VcpuGuestContext`]; null to set resets the vCPU.
    pub ctxt: GuestHandle,
}

/// `XEN_DOMCTL_getvcpuinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GetVcpuInfo {
    /// In: which vCPU.
    pub vcpu: u32,
    /// Out: it is on.
    pub online: u8,
    /// Out: it waits for an event.
    pub blocked: u8,
    /// Out: it runs right now.
    pub running: u8,
    /// Padding.
    pub _pad: u8,
    /// Out: nanoseconds of CPU time.
    pub cpu_time: u64,
    /// Out: the physical CPU it runs on, or ran on.
    pub cpu: u32,
    /// Padding.
    pub _pad2: u32,
}

/// [`VcpuAffinity::flags`]: the hard map is meant.
pub const XEN_VCPUAFFINITY_HARD: u32 = 1 << 0;
/// [`VcpuAffinity::flags`]: the soft map is meant.
pub const XEN_VCPUAFFINITY_SOFT: u32 = 1 << 1;
/// [`VcpuAffinity::flags`]: end a temporary pin.
pub const XEN_VCPUAFFINITY_FORCE: u32 = 1 << 2;

/// `XEN_DOMCTL_setvcpuaffinity` and `XEN_DOMCTL_getvcpuaffinity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VcpuAffinity {
    /// Which vCPU.
    pub vcpu: u32,
    /// `XEN_VCPUAFFINITY_*`.
    pub flags: u32,
    /// The physical CPUs it may run on; out: those in effect.
    pub cpumap_hard: Bitmap,
    /// The physical CPUs it should run on; out: those in effect.
    pub cpumap_soft: Bitmap,
}

/// `XEN_DOMCTL_max_vcpus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MaxVcpus {
    /// How many.
    pub max: u32,
}

number_enum! {
    /// A scheduler, by its number.
    pub enum SchedulerId {
        /// Credit.
        Credit = 5,
        /// Credit2, Xen's default.
        Credit2 = 6,
        /// ARINC 653.
        Arinc653 = 7,
        /// Real-time deferrable server.
        Rtds = 8,
        /// One vCPU per physical CPU.
        Null = 9,
    }
}

/// Parameters of a domain under credit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SchedCredit {
    /// Its share, 256 being usual.
    pub weight: u16,
    /// Percent of one CPU at most; 0: no limit.
    pub cap: u16,
}

/// Parameters of a domain under credit2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SchedCredit2 {
    /// Its share, 256 being usual.
    pub weight: u16,
    /// Percent of one CPU at most; 0: no limit.
    pub cap: u16,
}

/// Parameters of a vCPU under RTDS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SchedRtds {
    /// Microseconds.
    pub period: u32,
    /// Microseconds of each period.
    pub budget: u32,
    /// [`XEN_DOMCTL_SCHEDRT_EXTRA`].
    pub flags: u32,
}

/// [`SchedRtds::flags`]: it may use time that is left over.
pub const XEN_DOMCTL_SCHEDRT_EXTRA: u32 = 1 << 0;

abi_union! {
    /// The first part of [`SchedParamVcpu`]: [`SchedCredit`], [`SchedCredit2`] or [`SchedRtds`].
    pub struct SchedParamUnion([u32; 3]);
}

/// Parameters of one vCPU (`xen_domctl_schedparam_vcpu`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SchedParamVcpu {
    /// Them.
    pub u: SchedParamUnion,
    /// Which vCPU.
    pub vcpuid: u32,
}

number_enum! {
    /// What [`SchedulerOp::cmd`] asks.
    pub enum SchedulerCmd {
        /// Set a domain's parameters.
        Putinfo = 0,
        /// Read a domain's parameters.
        Getinfo = 1,
        /// Set vCPUs' parameters: [`SchedulerVcpus`].
        Putvcpuinfo = 2,
        /// Read vCPUs' parameters: [`SchedulerVcpus`].
        Getvcpuinfo = 3,
    }
}

/// `XEN_DOMCTL_scheduler_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SchedulerOp {
    /// A [`SchedulerId`].
    pub sched_id: u32,
    /// A [`SchedulerCmd`].
    pub cmd: u32,
    /// What it needs.
    pub u: SchedulerOpUnion,
}

abi_union! {
    /// The last part of [`SchedulerOp`]: [`SchedCredit`], [`SchedCredit2`], [`SchedRtds`] or [`SchedulerVcpus`].
    pub struct SchedulerOpUnion([u64; 2]);
}

/// A list of vCPUs' parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SchedulerVcpus {
    /// [`SchedParamVcpu`] each.
    pub vcpus: GuestHandle,
    /// How many; out: how many were done.
    pub nr_vcpus: u32,
    /// Padding.
    pub padding: u32,
}

/// `XEN_DOMCTL_set_ext_vcpucontext` and `XEN_DOMCTL_get_ext_vcpucontext`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ExtVcpuContext {
    /// Which vCPU.
    pub vcpu: u32,
    /// Bytes of this structure.
    pub size: u32,
}
