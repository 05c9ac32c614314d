//! What the toolstack does to a domain (public header `domctl.h`): x0 is the address of a [`Domctl`].
//!
//! The interface is not stable: every call carries [`XEN_DOMCTL_INTERFACE_VERSION`], and Xen refuses another with
//! `EACCES`. Structures that only x86 uses are left out; their numbers are here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::arch_arm::ArchDomainConfig;
use crate::event_channel::Port;
use crate::xen::{Bitmap, DomainHandle};
use crate::{DomId, GuestHandle};

/// The version of Xen 4.17.
pub const XEN_DOMCTL_INTERFACE_VERSION: u32 = 0x15;

number_enum! {
    /// An operation of `domctl`.
    pub enum Op {
        /// Make a domain, paused and empty: [`CreateDomain`].
        Createdomain = 1,
        /// Take a domain and all it has away. No structure.
        Destroydomain = 2,
        /// Stop its vCPUs, counted. No structure.
        Pausedomain = 3,
        /// Undo one pause. No structure.
        Unpausedomain = 4,
        /// Describe it: [`GetDomainInfo`].
        Getdomaininfo = 5,
        /// Choose physical CPUs for a vCPU: [`VcpuAffinity`].
        Setvcpuaffinity = 9,
        /// x86: shadow and log-dirty control: [`ShadowOp`].
        ShadowOp = 10,
        /// Set the ceiling of its memory: [`MaxMem`].
        MaxMem = 11,
        /// Set a vCPU's registers: [`VcpuContext`].
        Setvcpucontext = 12,
        /// Read a vCPU's registers: [`VcpuContext`].
        Getvcpucontext = 13,
        /// Describe a vCPU: [`GetVcpuInfo`].
        Getvcpuinfo = 14,
        /// Set how many vCPUs it has, once: [`MaxVcpus`].
        MaxVcpus = 15,
        /// Read or set scheduling parameters: [`SchedulerOp`].
        SchedulerOp = 16,
        /// Set its UUID: [`SetDomainHandle`].
        Setdomainhandle = 17,
        /// A debugger is attached, or not: [`SetDebugging`].
        Setdebugging = 18,
        /// Allow an interrupt: [`IrqPermission`].
        IrqPermission = 19,
        /// Allow device memory: [`IomemPermission`].
        IomemPermission = 20,
        /// x86 only.
        IoportPermission = 21,
        /// x86 only: [`HypercallInit`].
        HypercallInit = 22,
        /// Shift its wall clock: [`SetTimeOffset`].
        Settimeoffset = 24,
        /// Which physical CPUs a vCPU may use: [`VcpuAffinity`].
        Getvcpuaffinity = 25,
        /// Removed (PowerPC).
        RealModeArea = 26,
        /// Go on after a suspend. No structure.
        Resumedomain = 27,
        /// Press a button: [`SendTrigger`].
        Sendtrigger = 28,
        /// Notify a port when a vCPU is ready: [`Subscribe`].
        Subscribe = 29,
        /// Save devices' state: [`HvmContext`].
        Gethvmcontext = 33,
        /// Restore devices' state: [`HvmContext`].
        Sethvmcontext = 34,
        /// 32 or 64 bits: [`AddressSize`].
        SetAddressSize = 35,
        /// 32 or 64 bits: [`AddressSize`].
        GetAddressSize = 36,
        /// Hand a device over: [`AssignDevice`].
        AssignDevice = 37,
        /// Hand an interrupt over: [`BindPtIrq`].
        BindPtIrq = 38,
        /// Map device memory: [`MemoryMapping`].
        MemoryMapping = 39,
        /// x86 only.
        IoportMapping = 40,
        /// x86 only: [`ExtVcpuContext`].
        SetExtVcpucontext = 42,
        /// x86 only: [`ExtVcpuContext`].
        GetExtVcpucontext = 43,
        /// Removed (IA-64).
        SetOptFeature = 44,
        /// Whether a device could be handed over: [`AssignDevice`].
        TestAssignDevice = 45,
        /// Make it a device model for another domain: [`SetTarget`].
        SetTarget = 46,
        /// Take a device back: [`AssignDevice`].
        DeassignDevice = 47,
        /// Take an interrupt back: [`BindPtIrq`].
        UnbindPtIrq = 48,
        /// x86 only: [`GetDeviceGroup`].
        GetDeviceGroup = 50,
        /// Single step: [`DebugOp`].
        DebugOp = 54,
        /// x86 only: [`HvmContextPartial`].
        GethvmcontextPartial = 55,
        /// Introspection rings: [`VmEventOp`].
        VmEventOp = 56,
        /// x86 only: [`MemSharingOp`].
        MemSharingOp = 57,
        /// x86 only: [`TscInfo`].
        Gettscinfo = 59,
        /// x86 only: [`TscInfo`].
        Settscinfo = 60,
        /// x86 only: [`GetPageFrameInfo3`].
        Getpageframeinfo3 = 61,
        /// x86 only.
        Setvcpuextstate = 62,
        /// x86 only.
        Getvcpuextstate = 63,
        /// Introspection: is a listener required: [`SetAccessRequired`].
        SetAccessRequired = 64,
        /// x86 only: [`AuditP2m`].
        AuditP2m = 65,
        /// Give a global VIRQ to this domain: [`SetVirqHandler`].
        SetVirqHandler = 66,
        /// x86 only: [`SetBrokenPageP2m`].
        SetBrokenPageP2m = 67,
        /// Choose NUMA nodes: [`NodeAffinity`].
        Setnodeaffinity = 68,
        /// Which NUMA nodes: [`NodeAffinity`].
        Getnodeaffinity = 69,
        /// Clean its memory out of the data caches: [`Cacheflush`].
        Cacheflush = 71,
        /// x86 only.
        GetVcpuMsrs = 72,
        /// x86 only.
        SetVcpuMsrs = 73,
        /// Set the virtual NUMA layout: [`Vnuma`].
        Setvnumainfo = 74,
        /// x86 only: [`PsrCmtOp`].
        PsrCmtOp = 75,
        /// Introspection events: [`MonitorOp`].
        MonitorOp = 77,
        /// x86 only: [`PsrAlloc`].
        PsrAlloc = 78,
        /// Back to a clean device state. No structure.
        SoftReset = 79,
        /// The emulated UART: [`VuartOp`].
        VuartOp = 81,
        /// x86 only.
        GetCpuPolicy = 82,
        /// x86 only.
        SetCpuPolicy = 83,
        /// x86 only: [`VmtraceOp`].
        VmtraceOp = 84,
        /// Size of the pool for its stage-2 tables: [`PagingMempool`].
        GetPagingMempoolSize = 85,
        /// Resize that pool: [`PagingMempool`].
        SetPagingMempoolSize = 86,
        /// x86 only: [`GdbsxMemio`].
        GdbsxGuestmemio = 1000,
        /// x86 only: [`GdbsxPauseunpVcpu`].
        GdbsxPausevcpu = 1001,
        /// x86 only: [`GdbsxPauseunpVcpu`].
        GdbsxUnpausevcpu = 1002,
        /// x86 only: [`GdbsxDomstatus`].
        GdbsxDomstatus = 1003,
    }
}

/// The argument of `domctl` (`xen_domctl`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Domctl {
    /// An [`Op`].
    pub cmd: u32,
    /// [`XEN_DOMCTL_INTERFACE_VERSION`].
    pub interface_version: u32,
    /// Which domain; for [`Op::Createdomain`] in: the number wanted, [`crate::domid::DOMID_INVALID`] or 0 for any, out:
    /// the number given.
    pub domain: DomId,
    /// Padding.
    pub _pad: [u16; 3],
    /// The operation's structure.
    pub u: DomctlUnion,
}

abi_union! {
    /// The last part of [`Domctl`].
    pub struct DomctlUnion([u64; 16]);
}

/// [`CreateDomain::flags`]: it has stage 2. Always on Arm.
pub const XEN_DOMCTL_CDF_HVM: u32 = 1 << 0;
/// [`CreateDomain::flags`]: stage 2 in hardware. Always on Arm.
pub const XEN_DOMCTL_CDF_HAP: u32 = 1 << 1;
/// [`CreateDomain::flags`]: memory must be unchanged after S3. x86 only.
pub const XEN_DOMCTL_CDF_S3_INTEGRITY: u32 = 1 << 2;
/// [`CreateDomain::flags`]: shadow page tables in step. x86 only.
pub const XEN_DOMCTL_CDF_OOS_OFF: u32 = 1 << 3;
/// [`CreateDomain::flags`]: it runs XenStore.
pub const XEN_DOMCTL_CDF_XS_DOMAIN: u32 = 1 << 4;
/// [`CreateDomain::flags`]: it can have devices behind an I/O MMU.
pub const XEN_DOMCTL_CDF_IOMMU: u32 = 1 << 5;
/// [`CreateDomain::flags`]: it may run guests of its own.
pub const XEN_DOMCTL_CDF_NESTED_VIRT: u32 = 1 << 6;
/// [`CreateDomain::flags`]: it sees performance counters.
pub const XEN_DOMCTL_CDF_VPMU: u32 = 1 << 7;
/// The last of the flags.
pub const XEN_DOMCTL_CDF_MAX: u32 = XEN_DOMCTL_CDF_VPMU;

/// [`CreateDomain::iommu_opts`]: the I/O MMU has tables of its own.
pub const XEN_DOMCTL_IOMMU_NO_SHAREPT: u32 = 1 << 0;
/// The last of the I/O MMU options.
pub const XEN_DOMCTL_IOMMU_MAX: u32 = XEN_DOMCTL_IOMMU_NO_SHAREPT;

/// [`CreateDomain::grant_opts`]: the bits that hold the highest grant table version.
pub const XEN_DOMCTL_GRANT_VERSION_MASK: u32 = 0xf;

/// `XEN_DOMCTL_createdomain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CreateDomain {
    /// Security label.
    pub ssidref: u32,
    /// UUID.
    pub handle: DomainHandle,
    /// `XEN_DOMCTL_CDF_*`.
    pub flags: u32,
    /// `XEN_DOMCTL_IOMMU_*`.
    pub iommu_opts: u32,
    /// vCPUs at most.
    pub max_vcpus: u32,
    /// The highest event channel port it may have.
    pub max_evtchn_port: u32,
    /// Frames of its grant table at most; negative: the hypervisor's default.
    pub max_grant_frames: i32,
    /// Frames for what it maps of others' grants, at most; negative: the hypervisor's default.
    pub max_maptrack_frames: i32,
    /// Grant table version at most, under [`XEN_DOMCTL_GRANT_VERSION_MASK`].
    pub grant_opts: u32,
    /// Trace buffer per vCPU, bytes.
    pub vmtrace_size: u32,
    /// CPU pool.
    pub cpupool_id: u32,
    /// What is particular to Arm.
    pub arch: ArchDomainConfig,
}

/// [`GetDomainInfo::flags`]: it is being destroyed.
pub const XEN_DOMINF_DYING: u32 = 1 << 0;
/// [`GetDomainInfo::flags`]: it has stage 2. Always on Arm.
pub const XEN_DOMINF_HVM_GUEST: u32 = 1 << 1;
/// [`GetDomainInfo::flags`]: it has shut down; the reason is in the flags.
pub const XEN_DOMINF_SHUTDOWN: u32 = 1 << 2;
/// [`GetDomainInfo::flags`]: the toolstack paused it.
pub const XEN_DOMINF_PAUSED: u32 = 1 << 3;
/// [`GetDomainInfo::flags`]: all its vCPUs wait for an event.
pub const XEN_DOMINF_BLOCKED: u32 = 1 << 4;
/// [`GetDomainInfo::flags`]: a vCPU runs right now.
pub const XEN_DOMINF_RUNNING: u32 = 1 << 5;
/// [`GetDomainInfo::flags`]: a debugger is attached.
pub const XEN_DOMINF_DEBUGGED: u32 = 1 << 6;
/// [`GetDomainInfo::flags`]: it runs XenStore.
pub const XEN_DOMINF_XS_DOMAIN: u32 = 1 << 7;
/// [`GetDomainInfo::flags`]: stage 2 in hardware. Always on Arm.
pub const XEN_DOMINF_HAP: u32 = 1 << 8;
/// The shutdown reason, after the shift.
pub const XEN_DOMINF_SHUTDOWNMASK: u32 = 255;
/// Where the shutdown reason starts in the flags.
pub const XEN_DOMINF_SHUTDOWNSHIFT: u32 = 16;

/// [`GetDomainInfo::max_vcpu_id`] of a domain without vCPUs.
pub const XEN_INVALID_MAX_VCPU_ID: u32 = u32::MAX;

/// `XEN_DOMCTL_getdomaininfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GetDomainInfo {
    /// Which domain it is.
    pub domain: DomId,
    /// Padding.
    pub pad1: u16,
    /// `XEN_DOMINF_*`, and the shutdown reason.
    pub flags: u32,
    /// Pages it has.
    pub tot_pages: u64,
    /// Pages it may have.
    pub max_pages: u64,
    /// Pages claimed for it and not yet taken.
    pub outstanding_pages: u64,
    /// Pages it shares.
    pub shr_pages: u64,
    /// Pages paged out.
    pub paged_pages: u64,
    /// Guest frame of its shared page, all ones where it has not mapped it.
    pub shared_info_frame: u64,
    /// Nanoseconds of CPU time of all vCPUs.
    pub cpu_time: u64,
    /// vCPUs that are on.
    pub nr_online_vcpus: u32,
    /// The highest vCPU, or [`XEN_INVALID_MAX_VCPU_ID`].
    pub max_vcpu_id: u32,
    /// Security label.
    pub ssidref: u32,
    /// UUID.
    pub handle: DomainHandle,
    /// CPU pool.
    pub cpupool: u32,
    /// Bits of its physical addresses.
    pub gpaddr_bits: u8,
    /// Padding.
    pub pad2: [u8; 7],
    /// What is particular to Arm.
    pub arch_config: ArchDomainConfig,
    /// Padding.
    pub _pad: u32,
}

/// `XEN_DOMCTL_getpageframeinfo3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GetPageFrameInfo3 {
    /// How many frames.
    pub num: u64,
    /// The frames, as `u64`; out: their types.
    pub array: GuestHandle,
}

/// Statistics of a log-dirty operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ShadowOpStats {
    /// Faults.
    pub fault_count: u32,
    /// Dirty pages.
    pub dirty_count: u32,
}

/// `XEN_DOMCTL_shadow_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ShadowOp {
    /// Which operation.
    pub op: u32,
    /// How.
    pub mode: u32,
    /// MiB of the pool.
    pub mb: u32,
    /// Padding.
    pub _pad: u32,
    /// One bit per page.
    pub dirty_bitmap: GuestHandle,
    /// How many pages.
    pub pages: u64,
    /// Statistics.
    pub stats: ShadowOpStats,
}

/// `XEN_DOMCTL_max_mem`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MaxMem {
    /// Ceiling in KiB.
    pub max_memkb: u64,
}

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

/// `XEN_DOMCTL_setnodeaffinity` and `XEN_DOMCTL_getnodeaffinity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct NodeAffinity {
    /// The nodes.
    pub nodemap: Bitmap,
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

/// `XEN_DOMCTL_setdomainhandle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetDomainHandle {
    /// UUID.
    pub handle: DomainHandle,
}

/// `XEN_DOMCTL_setdebugging`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetDebugging {
    /// Nonzero: a debugger is attached.
    pub enable: u8,
}

/// `XEN_DOMCTL_irq_permission`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IrqPermission {
    /// The interrupt.
    pub pirq: u32,
    /// Nonzero: allow.
    pub allow_access: u8,
    /// Padding.
    pub pad: [u8; 3],
}

/// `XEN_DOMCTL_iomem_permission`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IomemPermission {
    /// First machine frame.
    pub first_mfn: u64,
    /// How many.
    pub nr_mfns: u64,
    /// Nonzero: allow.
    pub allow_access: u8,
    /// Padding.
    pub _pad: [u8; 7],
}

/// `XEN_DOMCTL_hypercall_init`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct HypercallInit {
    /// The guest frame to fill.
    pub gmfn: u64,
}

/// `XEN_DOMCTL_settimeoffset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetTimeOffset {
    /// Seconds.
    pub time_offset_seconds: i64,
}

/// `XEN_DOMCTL_gethvmcontext` and `XEN_DOMCTL_sethvmcontext`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct HvmContext {
    /// Bytes.
    pub size: u32,
    /// Padding.
    pub _pad: u32,
    /// Where.
    pub buffer: GuestHandle,
}

/// `XEN_DOMCTL_set_address_size` and `XEN_DOMCTL_get_address_size`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AddressSize {
    /// 32 or 64.
    pub size: u32,
}

number_enum! {
    /// A button of [`SendTrigger`].
    pub enum Trigger {
        /// Non-maskable interrupt.
        Nmi = 0,
        /// Reset.
        Reset = 1,
        /// x86's INIT.
        Init = 2,
        /// Power.
        Power = 3,
        /// Sleep.
        Sleep = 4,
    }
}

/// `XEN_DOMCTL_sendtrigger`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SendTrigger {
    /// A [`Trigger`].
    pub trigger: u32,
    /// For which vCPU.
    pub vcpu: u32,
}

/// [`AssignDevice::dev`]: a PCI device.
pub const XEN_DOMCTL_DEV_PCI: u32 = 0;
/// [`AssignDevice::dev`]: a device of the device tree.
pub const XEN_DOMCTL_DEV_DT: u32 = 1;
/// [`AssignDevice::flags`]: reserved memory of the device may be missing.
pub const XEN_DOMCTL_DEV_RDM_RELAXED: u32 = 1;

/// `XEN_DOMCTL_assign_device`, `XEN_DOMCTL_test_assign_device` and `XEN_DOMCTL_deassign_device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AssignDevice {
    /// `XEN_DOMCTL_DEV_*`.
    pub dev: u32,
    /// [`XEN_DOMCTL_DEV_RDM_RELAXED`].
    pub flags: u32,
    /// The PCI address as a `u32`, or an [`AssignDeviceDt`].
    pub u: AssignDeviceUnion,
}

abi_union! {
    /// The last part of [`AssignDevice`].
    pub struct AssignDeviceUnion([u64; 2]);
}

/// A device by its path in the device tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AssignDeviceDt {
    /// Bytes of the path.
    pub size: u32,
    /// Padding.
    pub _pad: u32,
    /// The path.
    pub path: GuestHandle,
}

/// `XEN_DOMCTL_get_device_group`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GetDeviceGroup {
    /// PCI address.
    pub machine_sbdf: u32,
    /// Room in the list.
    pub max_sdevs: u32,
    /// Out: how many there are.
    pub num_sdevs: u32,
    /// Padding.
    pub _pad: u32,
    /// The list, of `u32`.
    pub sdev_array: GuestHandle,
}

number_enum! {
    /// A kind of interrupt ([`BindPtIrq::irq_type`]).
    pub enum PtIrqType {
        /// PCI line.
        Pci = 0,
        /// x86 only.
        Isa = 1,
        /// Message-signalled.
        Msi = 2,
        /// Message-signalled, to a line.
        MsiTranslate = 3,
        /// Shared peripheral interrupt.
        Spi = 4,
    }
}

/// `XEN_DOMCTL_bind_pt_irq` and `XEN_DOMCTL_unbind_pt_irq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BindPtIrq {
    /// The physical interrupt.
    pub machine_irq: u32,
    /// A [`PtIrqType`].
    pub irq_type: u32,
    /// For [`PtIrqType::Spi`] the virtual interrupt, as a `u16`.
    pub u: BindPtIrqUnion,
}

abi_union! {
    /// The last part of [`BindPtIrq`].
    pub struct BindPtIrqUnion([u64; 2]);
}

/// [`MemoryMapping::add_mapping`]: map.
pub const DPCI_ADD_MAPPING: u32 = 1;
/// [`MemoryMapping::add_mapping`]: unmap.
pub const DPCI_REMOVE_MAPPING: u32 = 0;

/// `XEN_DOMCTL_memory_mapping`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemoryMapping {
    /// First guest frame.
    pub first_gfn: u64,
    /// First machine frame.
    pub first_mfn: u64,
    /// How many.
    pub nr_mfns: u64,
    /// [`DPCI_ADD_MAPPING`] or [`DPCI_REMOVE_MAPPING`].
    pub add_mapping: u32,
    /// Zero.
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

/// `XEN_DOMCTL_set_target`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetTarget {
    /// The domain it serves.
    pub target: DomId,
}

/// `XEN_DOMCTL_subscribe`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Subscribe {
    /// The caller's port.
    pub port: Port,
}

/// `XEN_DOMCTL_debug_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DebugOp {
    /// 0: single step off; 1: on.
    pub op: u32,
    /// Which vCPU.
    pub vcpu: u32,
}

/// `XEN_DOMCTL_gethvmcontext_partial`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct HvmContextPartial {
    /// Which record.
    pub r#type: u32,
    /// Of which instance.
    pub instance: u32,
    /// Room in bytes; out: bytes written.
    pub bufsz: u64,
    /// Where.
    pub buffer: GuestHandle,
}

/// `XEN_DOMCTL_gettscinfo` and `XEN_DOMCTL_settscinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TscInfo {
    /// Mode.
    pub tsc_mode: u32,
    /// Frequency.
    pub gtsc_khz: u32,
    /// How often it was restored.
    pub incarnation: u32,
    /// Padding.
    pub pad: u32,
    /// Nanoseconds.
    pub elapsed_nsec: u64,
}

/// `XEN_DOMCTL_gdbsx_guestmemio`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GdbsxMemio {
    /// Top of the page table.
    pub pgd3val: u64,
    /// Guest address.
    pub gva: u64,
    /// Caller's address.
    pub uva: u64,
    /// Bytes.
    pub len: u32,
    /// Nonzero: write.
    pub gwr: u8,
    /// Padding.
    pub _pad: [u8; 3],
    /// Out: bytes left.
    pub remain: u32,
    /// Padding.
    pub _pad2: u32,
}

/// `XEN_DOMCTL_gdbsx_pausevcpu` and `XEN_DOMCTL_gdbsx_unpausevcpu`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GdbsxPauseunpVcpu {
    /// Which vCPU.
    pub vcpu: u32,
}

/// `XEN_DOMCTL_gdbsx_domstatus`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GdbsxDomstatus {
    /// Out: the domain is paused.
    pub paused: u8,
    /// Padding.
    pub _pad: [u8; 3],
    /// Out: the vCPU with an event.
    pub vcpu_id: u32,
    /// Out: the event.
    pub vcpu_ev: u32,
}

/// `XEN_DOMCTL_vm_event_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VmEventOp {
    /// Which operation.
    pub op: u32,
    /// On which ring.
    pub mode: u32,
    /// Out: the port, or the version.
    pub u: u32,
}

/// `XEN_DOMCTL_mem_sharing_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemSharingOp {
    /// Which operation.
    pub op: u8,
    /// Nonzero: on.
    pub enable: u8,
}

/// `XEN_DOMCTL_audit_p2m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AuditP2m {
    /// Pages without an owner.
    pub orphans: u64,
    /// Wrong one way.
    pub m2p_bad: u64,
    /// Wrong the other way.
    pub p2m_bad: u64,
}

/// `XEN_DOMCTL_set_virq_handler`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetVirqHandler {
    /// A [`crate::xen::Virq`], global.
    pub virq: u32,
}

/// `XEN_DOMCTL_set_access_required`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetAccessRequired {
    /// Nonzero: stop the domain when nobody listens.
    pub access_required: u8,
}

/// `XEN_DOMCTL_set_broken_page_p2m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetBrokenPageP2m {
    /// The guest frame.
    pub pfn: u64,
}

/// `XEN_DOMCTL_cacheflush`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Cacheflush {
    /// First guest frame.
    pub start_pfn: u64,
    /// How many.
    pub nr_pfns: u64,
}

/// `XEN_DOMCTL_get_paging_mempool_size` and `XEN_DOMCTL_set_paging_mempool_size`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PagingMempool {
    /// Bytes, a multiple of the page size.
    pub size: u64,
}

/// `XEN_DOMCTL_setvnumainfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Vnuma {
    /// Nodes.
    pub nr_vnodes: u32,
    /// Ranges.
    pub nr_vmemranges: u32,
    /// vCPUs.
    pub nr_vcpus: u32,
    /// Padding.
    pub pad: u32,
    /// Distances, as `u32`.
    pub vdistance: GuestHandle,
    /// Each vCPU's node, as `u32`.
    pub vcpu_to_vnode: GuestHandle,
    /// Each node's physical node, as `u32`.
    pub vnode_to_pnode: GuestHandle,
    /// Ranges: [`crate::memory::Vmemrange`].
    pub vmemrange: GuestHandle,
}

/// `XEN_DOMCTL_psr_cmt_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PsrCmtOp {
    /// Which operation.
    pub cmd: u32,
    /// Its data.
    pub data: u32,
}

/// `XEN_DOMCTL_monitor_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MonitorOp {
    /// Which operation.
    pub op: u32,
    /// On which event.
    pub event: u32,
    /// Its data.
    pub u: MonitorOpUnion,
}

abi_union! {
    /// The last part of [`MonitorOp`].
    pub struct MonitorOpUnion([u64; 2]);
}

/// `XEN_DOMCTL_psr_alloc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PsrAlloc {
    /// Which operation.
    pub cmd: u32,
    /// On which cache.
    pub target: u32,
    /// Its data.
    pub data: u64,
}

/// [`VuartOp::cmd`]: give it a ring and a port.
pub const XEN_DOMCTL_VUART_OP_INIT: u32 = 0;
/// [`VuartOp::type`](VuartOp): a PL011.
pub const XEN_DOMCTL_VUART_TYPE_VPL011: u32 = 0;

/// `XEN_DOMCTL_vuart_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VuartOp {
    /// [`XEN_DOMCTL_VUART_OP_INIT`].
    pub cmd: u32,
    /// [`XEN_DOMCTL_VUART_TYPE_VPL011`].
    pub r#type: u32,
    /// Guest frame of the ring.
    pub gfn: u64,
    /// Who serves the ring.
    pub console_domid: DomId,
    /// Padding.
    pub pad: [u8; 2],
    /// Out: the port.
    pub evtchn: Port,
}

/// `XEN_DOMCTL_vmtrace_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VmtraceOp {
    /// Which operation.
    pub cmd: u32,
    /// On which vCPU.
    pub vcpu: u32,
    /// Which option.
    pub key: u64,
    /// Its value.
    pub value: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_keeps_what_was_put_into_its_union() {
        let mut call = Domctl {
            cmd: Op::MaxMem.raw(),
            interface_version: XEN_DOMCTL_INTERFACE_VERSION,
            domain: DomId::new(7),
            u: DomctlUnion::of(&MaxMem { max_memkb: 1 << 20 }),
            ..Domctl::default()
        };
        assert_eq!(call.u.get::<MaxMem>().max_memkb, 1 << 20);
        call.u.set(&MaxVcpus { max: 4 });
        assert_eq!(call.u.get::<MaxVcpus>().max, 4);
        let bytes = call.as_bytes().to_vec();
        assert_eq!(Domctl::read_from_bytes(&bytes).ok(), Some(call));
    }
}
