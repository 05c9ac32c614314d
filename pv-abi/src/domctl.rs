//! What the toolstack does to a domain (public header `domctl.h`): x0 is the address of a [`Domctl`].
//!
//! The interface is not stable: every call carries [`XEN_DOMCTL_INTERFACE_VERSION`], and Xen refuses another with
//! `EACCES`. Structures that only x86 uses are left out; their numbers are here.

mod device;
mod domain;
mod inspect;
mod vcpu;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::DomId;

pub use self::device::*;
pub use self::domain::*;
pub use self::inspect::*;
pub use self::vcpu::*;

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
