//! Operations on a domain as a whole: its making, its memory, its identity.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::arch_arm::ArchDomainConfig;
use crate::event_channel::Port;
use crate::xen::{Bitmap, DomainHandle};
use crate::{DomId, GuestHandle};

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

/// `XEN_DOMCTL_max_mem`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MaxMem {
    /// Ceiling in KiB.
    pub max_memkb: u64,
}

/// `XEN_DOMCTL_setnodeaffinity` and `XEN_DOMCTL_getnodeaffinity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct NodeAffinity {
    /// The nodes.
    pub nodemap: Bitmap,
}

/// `XEN_DOMCTL_setdomainhandle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetDomainHandle {
    /// UUID.
    pub handle: DomainHandle,
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

/// `XEN_DOMCTL_set_virq_handler`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetVirqHandler {
    /// A [`crate::xen::Virq`], global.
    pub virq: u32,
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
