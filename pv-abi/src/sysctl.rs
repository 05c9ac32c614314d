//! What the toolstack asks of the host (public header `sysctl.h`): x0 is the address of a [`Sysctl`].
//!
//! The interface is not stable: every call carries [`XEN_SYSCTL_INTERFACE_VERSION`], and Xen refuses another with
//! `EACCES`. Structures that only x86 uses, or only power management, are left out; their numbers are here.

mod scheduling;
mod topology;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::xen::Bitmap;
use crate::{DomId, GuestHandle};

pub use self::scheduling::*;
pub use self::topology::*;

/// The version of Xen 4.17.
pub const XEN_SYSCTL_INTERFACE_VERSION: u32 = 0x15;

number_enum! {
    /// An operation of `sysctl`.
    pub enum Op {
        /// The hypervisor's console ring: [`ReadConsole`].
        Readconsole = 1,
        /// Trace buffers: [`TbufOp`].
        TbufOp = 2,
        /// CPUs and memory: [`PhysInfo`].
        Physinfo = 3,
        /// Which scheduler: [`SchedId`].
        SchedId = 4,
        /// Counters of the hypervisor: [`PerfcOp`].
        PerfcOp = 5,
        /// Describe many domains: [`GetDomainInfoList`].
        Getdomaininfolist = 6,
        /// As if typed on the hypervisor's console: [`DebugKeys`].
        DebugKeys = 7,
        /// Idle time of each CPU: [`GetCpuInfo`].
        Getcpuinfo = 8,
        /// Free memory in an address range: [`Availheap`].
        Availheap = 9,
        /// Power statistics.
        GetPmstat = 10,
        /// Take a CPU off or on: [`CpuHotplug`].
        CpuHotplug = 11,
        /// Power management.
        PmOp = 12,
        /// Take a page off or on: [`PageOfflineOp`].
        PageOfflineOp = 14,
        /// Lock statistics: [`LockprofOp`].
        LockprofOp = 15,
        /// Core, socket and node of each CPU: [`CpuTopoInfo`].
        Cputopoinfo = 16,
        /// Memory of each node: [`NumaInfo`].
        Numainfo = 17,
        /// CPU pools: [`CpupoolOp`].
        CpupoolOp = 18,
        /// Parameters of the scheduler: [`SchedulerOp`].
        SchedulerOp = 19,
        /// Coverage: [`CoverageOp`].
        CoverageOp = 20,
        /// x86 only.
        PsrCmtOp = 21,
        /// Node of each PCI device: [`PciTopoInfo`].
        Pcitopoinfo = 22,
        /// x86 only.
        PsrAlloc = 23,
        /// x86 only.
        GetCpuLevellingCaps = 25,
        /// x86 only.
        GetCpuFeatureset = 26,
        /// Live patches.
        LivepatchOp = 27,
        /// x86 only.
        GetCpuPolicy = 29,
    }
}

/// The argument of `sysctl` (`xen_sysctl`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Sysctl {
    /// An [`Op`].
    pub cmd: u32,
    /// [`XEN_SYSCTL_INTERFACE_VERSION`].
    pub interface_version: u32,
    /// The operation's structure.
    pub u: SysctlUnion,
}

abi_union! {
    /// The last part of [`Sysctl`].
    pub struct SysctlUnion([u64; 16]);
}

/// `XEN_SYSCTL_readconsole`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReadConsole {
    /// Nonzero: empty the ring afterwards.
    pub clear: u8,
    /// Nonzero: start at `index`, and set it.
    pub incremental: u8,
    /// Padding.
    pub pad0: u8,
    /// Padding.
    pub pad1: u8,
    /// In: the first byte wanted. Out: the first byte not given.
    pub index: u32,
    /// Where.
    pub buffer: GuestHandle,
    /// In: room. Out: bytes given.
    pub count: u32,
    /// Padding.
    pub _pad: u32,
}

/// `XEN_SYSCTL_tbuf_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TbufOp {
    /// Which operation.
    pub cmd: u32,
    /// Padding.
    pub _pad: u32,
    /// The CPUs to trace.
    pub cpu_mask: Bitmap,
    /// The events to trace.
    pub evt_mask: u32,
    /// Padding.
    pub _pad2: u32,
    /// Out: the buffer's frame.
    pub buffer_mfn: u64,
    /// Bytes.
    pub size: u32,
    /// Padding.
    pub _pad3: u32,
}

/// [`PhysInfo::capabilities`]: guests with stage 2.
pub const XEN_SYSCTL_PHYSCAP_HVM: u32 = 1 << 0;
/// [`PhysInfo::capabilities`]: PV guests. x86 only.
pub const XEN_SYSCTL_PHYSCAP_PV: u32 = 1 << 1;
/// [`PhysInfo::capabilities`]: devices behind an I/O MMU.
pub const XEN_SYSCTL_PHYSCAP_DIRECTIO: u32 = 1 << 2;
/// [`PhysInfo::capabilities`]: stage 2 in hardware.
pub const XEN_SYSCTL_PHYSCAP_HAP: u32 = 1 << 3;
/// [`PhysInfo::capabilities`]: shadow page tables. x86 only.
pub const XEN_SYSCTL_PHYSCAP_SHADOW: u32 = 1 << 4;
/// [`PhysInfo::capabilities`]: the I/O MMU uses the stage-2 tables.
pub const XEN_SYSCTL_PHYSCAP_IOMMU_HAP_PT_SHARE: u32 = 1 << 5;
/// [`PhysInfo::capabilities`]: instruction traces. x86 only.
pub const XEN_SYSCTL_PHYSCAP_VMTRACE: u32 = 1 << 6;
/// [`PhysInfo::capabilities`]: performance counters for guests.
pub const XEN_SYSCTL_PHYSCAP_VPMU: u32 = 1 << 7;
/// [`PhysInfo::capabilities`]: grant tables of version 1.
pub const XEN_SYSCTL_PHYSCAP_GNTTAB_V1: u32 = 1 << 8;
/// [`PhysInfo::capabilities`]: grant tables of version 2.
pub const XEN_SYSCTL_PHYSCAP_GNTTAB_V2: u32 = 1 << 9;
/// The last of the capabilities.
pub const XEN_SYSCTL_PHYSCAP_MAX: u32 = XEN_SYSCTL_PHYSCAP_GNTTAB_V2;

/// `XEN_SYSCTL_physinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PhysInfo {
    /// Threads in a core.
    pub threads_per_core: u32,
    /// Cores in a socket.
    pub cores_per_socket: u32,
    /// CPUs that are on.
    pub nr_cpus: u32,
    /// The highest CPU.
    pub max_cpu_id: u32,
    /// NUMA nodes.
    pub nr_nodes: u32,
    /// The highest node.
    pub max_node_id: u32,
    /// Frequency of the timer on Arm, of the CPU elsewhere.
    pub cpu_khz: u32,
    /// `XEN_SYSCTL_PHYSCAP_*`.
    pub capabilities: u32,
    /// None on Arm in 4.17.
    pub arch_capabilities: u32,
    /// Padding.
    pub pad: u32,
    /// Pages of the host.
    pub total_pages: u64,
    /// Pages that are free.
    pub free_pages: u64,
    /// Pages to be cleared before they are free.
    pub scrub_pages: u64,
    /// Pages claimed and not yet taken.
    pub outstanding_pages: u64,
    /// The highest machine frame.
    pub max_mfn: u64,
    /// Features of the CPU; zero on Arm.
    pub hw_cap: [u32; 8],
}

/// `XEN_SYSCTL_sched_id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SchedId {
    /// Out: a [`crate::domctl::SchedulerId`].
    pub sched_id: u32,
}

/// What a counter is called (`xen_sysctl_perfc_desc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PerfcDesc {
    /// Text, with a final zero.
    pub name: [u8; 80],
    /// How many values it has.
    pub nr_vals: u32,
}

zero_default!(PerfcDesc);

/// [`PerfcOp::cmd`]: set all counters to zero.
pub const XEN_SYSCTL_PERFCOP_RESET: u32 = 1;
/// [`PerfcOp::cmd`]: read them.
pub const XEN_SYSCTL_PERFCOP_QUERY: u32 = 2;

/// `XEN_SYSCTL_perfc_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PerfcOp {
    /// `XEN_SYSCTL_PERFCOP_*`.
    pub cmd: u32,
    /// Out: how many counters.
    pub nr_counters: u32,
    /// Out: how many values.
    pub nr_vals: u32,
    /// Padding.
    pub _pad: u32,
    /// [`PerfcDesc`] each; null asks for the numbers.
    pub desc: GuestHandle,
    /// The values, as `u32`.
    pub val: GuestHandle,
}

/// `XEN_SYSCTL_getdomaininfolist`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GetDomainInfoList {
    /// The first domain wanted.
    pub first_domain: DomId,
    /// Padding.
    pub _pad: u16,
    /// Room in the list.
    pub max_domains: u32,
    /// The list, of [`crate::domctl::GetDomainInfo`].
    pub buffer: GuestHandle,
    /// Out: how many were written.
    pub num_domains: u32,
    /// Padding.
    pub _pad2: u32,
}

/// `XEN_SYSCTL_debug_keys`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DebugKeys {
    /// Characters.
    pub keys: GuestHandle,
    /// How many.
    pub nr_keys: u32,
    /// Padding.
    pub _pad: u32,
}

/// One CPU's idle time (`xen_sysctl_cpuinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CpuInfo {
    /// Nanoseconds.
    pub idletime: u64,
}

/// `XEN_SYSCTL_getcpuinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GetCpuInfo {
    /// Room in the list.
    pub max_cpus: u32,
    /// Padding.
    pub _pad: u32,
    /// The list, of [`CpuInfo`].
    pub info: GuestHandle,
    /// Out: how many were written.
    pub nr_cpus: u32,
    /// Padding.
    pub _pad2: u32,
}

/// `XEN_SYSCTL_availheap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Availheap {
    /// Addresses of at least 2^n; 0: any.
    pub min_bitwidth: u32,
    /// Addresses below 2^n; 0: any.
    pub max_bitwidth: u32,
    /// Node; -1: any.
    pub node: i32,
    /// Padding.
    pub _pad: u32,
    /// Out: bytes.
    pub avail_bytes: u64,
}

number_enum! {
    /// What [`CpuHotplug::op`] asks.
    pub enum CpuHotplugOp {
        /// On.
        Online = 0,
        /// Off.
        Offline = 1,
        /// x86 only.
        SmtEnable = 2,
        /// x86 only.
        SmtDisable = 3,
    }
}

/// `XEN_SYSCTL_cpu_hotplug`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CpuHotplug {
    /// Which CPU.
    pub cpu: u32,
    /// A [`CpuHotplugOp`].
    pub op: u32,
}

/// `XEN_SYSCTL_page_offline_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PageOfflineOp {
    /// 1: off; 2: on; 3: ask.
    pub cmd: u32,
    /// First frame.
    pub start: u32,
    /// Last frame.
    pub end: u32,
    /// Padding.
    pub _pad: u32,
    /// Out: each frame's state, as `u32`.
    pub status: GuestHandle,
}

/// One lock's statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LockprofData {
    /// Text, with a final zero.
    pub name: [u8; 40],
    /// 0: global; 1: a domain's.
    pub r#type: i32,
    /// Which domain.
    pub idx: i32,
    /// Times taken.
    pub lock_cnt: u64,
    /// Times waited for.
    pub block_cnt: u64,
    /// Nanoseconds held.
    pub lock_time: u64,
    /// Nanoseconds waited.
    pub block_time: u64,
}

zero_default!(LockprofData);

/// `XEN_SYSCTL_lockprof_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LockprofOp {
    /// 1: reset; 2: read.
    pub cmd: u32,
    /// Room in the list.
    pub max_elem: u32,
    /// Out: how many locks.
    pub nr_elem: u32,
    /// Padding.
    pub _pad: u32,
    /// Out: nanoseconds measured.
    pub time: u64,
    /// The list, of [`LockprofData`].
    pub data: GuestHandle,
}

/// `XEN_SYSCTL_coverage_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CoverageOp {
    /// 0: size; 1: read; 2: reset.
    pub cmd: u32,
    /// Bytes.
    pub size: u32,
    /// Where.
    pub buffer: GuestHandle,
}
