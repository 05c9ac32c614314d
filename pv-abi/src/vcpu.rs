//! Virtual CPUs (public header `vcpu.h`): x0 is the [`Op`], x1 the vCPU, x2 the address of the structure.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::GuestHandle;

number_enum! {
    /// An operation of `vcpu_op`. Arm starts and stops vCPUs by PSCI, so guests use few of these.
    pub enum Op {
        /// Set the first register state. Not on Arm.
        Initialise = 0,
        /// Start. Not on Arm.
        Up = 1,
        /// Stop. Not on Arm.
        Down = 2,
        /// Is it started? Not on Arm.
        IsUp = 3,
        /// Copy the run state: [`RunstateInfo`].
        GetRunstateInfo = 4,
        /// Keep the run state up to date in guest memory: [`RegisterRunstateMemoryArea`].
        RegisterRunstateMemoryArea = 5,
        /// Periodic timer. Not on Arm.
        SetPeriodicTimer = 6,
        /// Periodic timer. Not on Arm.
        StopPeriodicTimer = 7,
        /// One-shot timer. Not on Arm.
        SetSingleshotTimer = 8,
        /// One-shot timer. Not on Arm.
        StopSingleshotTimer = 9,
        /// Move `vcpu_info` to a page of the guest: [`RegisterVcpuInfo`].
        RegisterVcpuInfo = 10,
        /// Non-maskable interrupt. Not on Arm.
        SendNmi = 11,
        /// The physical CPU below. Not on Arm.
        GetPhysid = 12,
        /// Keep time information in guest memory. Not on Arm.
        RegisterVcpuTimeMemoryArea = 13,
    }
}

/// How a vCPU has spent its time (`vcpu_runstate_info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RunstateInfo {
    /// A [`Runstate`].
    pub state: i32,
    /// Padding.
    pub _pad: u32,
    /// System time at which it entered the state, in nanoseconds; with [`XEN_RUNSTATE_UPDATE`] while being written.
    pub state_entry_time: u64,
    /// Nanoseconds in each [`Runstate`].
    pub time: [u64; 4],
}

/// Set in [`RunstateInfo::state_entry_time`] while the hypervisor writes, for guests that asked by `vm_assist`.
pub const XEN_RUNSTATE_UPDATE: u64 = 1 << 63;

number_enum! {
    /// What a vCPU does.
    pub enum Runstate {
        /// It runs on a physical CPU.
        Running = 0,
        /// It could run, and waits for a physical CPU.
        Runnable = 1,
        /// It waits for an event.
        Blocked = 2,
        /// It is stopped, or paused.
        Offline = 3,
    }
}

/// `VCPUOP_register_runstate_memory_area`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisterRunstateMemoryArea {
    /// Guest virtual address of a [`RunstateInfo`]; null ends it.
    pub addr: GuestHandle,
}

/// `VCPUOP_set_periodic_timer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetPeriodicTimer {
    /// Nanoseconds.
    pub period_ns: u64,
}

/// The time must lie in the future ([`SetSingleshotTimer::flags`]).
pub const VCPU_SSHOTTMR_FUTURE: u32 = 1 << 0;

/// `VCPUOP_set_singleshot_timer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetSingleshotTimer {
    /// System time in nanoseconds.
    pub timeout_abs_ns: u64,
    /// [`VCPU_SSHOTTMR_FUTURE`].
    pub flags: u32,
    /// Padding.
    pub _pad: u32,
}

/// `VCPUOP_register_vcpu_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisterVcpuInfo {
    /// The guest frame.
    pub mfn: u64,
    /// Where in it, in bytes; [`crate::xen::VcpuInfo`] must not cross the page.
    pub offset: u32,
    /// Reserved.
    pub rsvd: u32,
}

/// `VCPUOP_get_physid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GetPhysid {
    /// Out: the physical CPU.
    pub phys_id: u64,
}

/// `VCPUOP_register_vcpu_time_memory_area`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisterTimeMemoryArea {
    /// Guest virtual address of a [`crate::xen::VcpuTimeInfo`].
    pub addr: GuestHandle,
}
