//! The numbers of Xen's public headers that payloads use.
//!
//! Payloads are the second opinion on the ABI: they carry their own numbers, so that a wrong number in the shared crate
//! cannot hide behind itself.
#![forbid(unsafe_code)]

/// Hypercall numbers (`xen.h`).
pub mod op {
    #![allow(missing_docs)]
    pub const PLATFORM_OP: u64 = 7;
    pub const MEMORY_OP: u64 = 12;
    pub const MULTICALL: u64 = 13;
    pub const XEN_VERSION: u64 = 17;
    pub const CONSOLE_IO: u64 = 18;
    pub const GRANT_TABLE_OP: u64 = 20;
    pub const VM_ASSIST: u64 = 21;
    pub const VCPU_OP: u64 = 24;
    pub const XSM_OP: u64 = 27;
    pub const SCHED_OP: u64 = 29;
    pub const EVENT_CHANNEL_OP: u64 = 32;
    pub const PHYSDEV_OP: u64 = 33;
    pub const HVM_OP: u64 = 34;
    pub const SYSCTL: u64 = 35;
    pub const DOMCTL: u64 = 36;
}

/// Errors (`errno.h`), negated as a hypercall returns them.
pub mod errno {
    #![allow(missing_docs)]
    pub const EPERM: i64 = -1;
    pub const ENOENT: i64 = -2;
    pub const ESRCH: i64 = -3;
    pub const ENXIO: i64 = -6;
    pub const E2BIG: i64 = -7;
    pub const ENOMEM: i64 = -12;
    pub const EACCES: i64 = -13;
    pub const EFAULT: i64 = -14;
    pub const EBUSY: i64 = -16;
    pub const EEXIST: i64 = -17;
    pub const ENODEV: i64 = -19;
    pub const EINVAL: i64 = -22;
    pub const ENOSPC: i64 = -28;
    pub const ENOSYS: i64 = -38;
    pub const EOPNOTSUPP: i64 = -95;
}

/// The domain that makes the call (`xen.h`, `DOMID_SELF`).
pub const DOMID_SELF: u16 = 0x7ff0;

/// Sub-operations of `memory_op` (`memory.h`).
pub mod memory {
    #![allow(missing_docs)]
    pub const INCREASE_RESERVATION: u64 = 0;
    pub const DECREASE_RESERVATION: u64 = 1;
    pub const MAXIMUM_RAM_PAGE: u64 = 2;
    pub const CURRENT_RESERVATION: u64 = 3;
    pub const MAXIMUM_RESERVATION: u64 = 4;
    pub const POPULATE_PHYSMAP: u64 = 6;
    pub const ADD_TO_PHYSMAP: u64 = 7;
    pub const MAXIMUM_GPFN: u64 = 14;
    pub const REMOVE_FROM_PHYSMAP: u64 = 15;

    /// `xen_memory_reservation`.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Reservation {
        pub extent_start: u64,
        pub nr_extents: u64,
        pub extent_order: u32,
        pub mem_flags: u32,
        pub domid: u16,
    }

    /// `xen_add_to_physmap`.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct AddToPhysmap {
        pub domid: u16,
        pub size: u16,
        pub space: u32,
        pub idx: u64,
        pub gpfn: u64,
    }

    /// `XENMAPSPACE_shared_info`.
    pub const MAPSPACE_SHARED_INFO: u32 = 0;
}

/// Sub-operations of `sched_op` (`sched.h`).
pub mod sched {
    #![allow(missing_docs)]
    pub const YIELD: u64 = 0;
    pub const BLOCK: u64 = 1;
    pub const SHUTDOWN: u64 = 2;
    pub const POLL: u64 = 3;
    pub const REMOTE_SHUTDOWN: u64 = 4;
    pub const WATCHDOG: u64 = 6;
    pub const SHUTDOWN_POWEROFF: u32 = 0;
}

/// Sub-operations of `event_channel_op` (`event_channel.h`).
pub mod event_channel {
    #![allow(missing_docs)]
    pub const BIND_INTERDOMAIN: u64 = 0;
    pub const BIND_VIRQ: u64 = 1;
    pub const CLOSE: u64 = 3;
    pub const SEND: u64 = 4;
    pub const STATUS: u64 = 5;
    pub const ALLOC_UNBOUND: u64 = 6;
    pub const BIND_IPI: u64 = 7;
    pub const BIND_VCPU: u64 = 8;
    pub const UNMASK: u64 = 9;
    pub const RESET: u64 = 10;

    /// `evtchn_alloc_unbound`.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct AllocUnbound {
        pub dom: u16,
        pub remote_dom: u16,
        pub port: u32,
    }

    /// `evtchn_bind_interdomain`.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct BindInterdomain {
        pub remote_dom: u16,
        pub remote_port: u32,
        pub local_port: u32,
    }
}

/// `hvm_op` (`hvm/hvm_op.h`, `hvm/params.h`).
pub mod hvm {
    #![allow(missing_docs)]
    pub const GET_PARAM: u64 = 1;
    pub const STORE_PFN: u32 = 1;
    pub const STORE_EVTCHN: u32 = 2;
    pub const CONSOLE_PFN: u32 = 17;
    pub const CONSOLE_EVTCHN: u32 = 18;

    /// `xen_hvm_param`.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Param {
        pub domid: u16,
        pub index: u32,
        pub value: u64,
    }
}

/// `console_io` (`xen.h`).
pub mod console {
    #![allow(missing_docs)]
    pub const WRITE: u64 = 0;
}

/// `sysctl` (`sysctl.h`), the toolstack's view of the machine.
pub mod sysctl {
    #![allow(missing_docs)]
    pub const INTERFACE_VERSION: u32 = 0x15;
    pub const PHYSINFO: u32 = 3;

    /// `xen_sysctl` with its `physinfo` member, the union padded to its 128 bytes.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Sysctl {
        pub command: u32,
        pub interface_version: u32,
        pub physinfo: PhysInfo,
    }

    /// `xen_sysctl_physinfo`.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    pub struct PhysInfo {
        pub threads_per_core: u32,
        pub cores_per_socket: u32,
        pub nr_cpus: u32,
        pub max_cpu_id: u32,
        pub nr_nodes: u32,
        pub max_node_id: u32,
        pub cpu_khz: u32,
        pub capabilities: u32,
        pub arch_capabilities: u32,
        pub pad: u32,
        pub total_pages: u64,
        pub free_pages: u64,
        pub scrub_pages: u64,
        pub outstanding_pages: u64,
        pub max_mfn: u64,
        pub hw_cap: [u32; 8],
        pub union_padding: [u32; 4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_public_headers() {
        assert_eq!(size_of::<sysctl::PhysInfo>(), 128);
        assert_eq!(size_of::<sysctl::Sysctl>(), 136);
        assert_eq!(size_of::<memory::Reservation>(), 32);
        assert_eq!(size_of::<memory::AddToPhysmap>(), 24);
        assert_eq!(size_of::<hvm::Param>(), 16);
        assert_eq!(size_of::<event_channel::AllocUnbound>(), 8);
        assert_eq!(size_of::<event_channel::BindInterdomain>(), 12);
    }
}
