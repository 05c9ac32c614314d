//! Operations that look into a domain: debugging, introspection, saving. Arm has few of them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::GuestHandle;

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

/// `XEN_DOMCTL_setdebugging`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetDebugging {
    /// Nonzero: a debugger is attached.
    pub enable: u8,
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
