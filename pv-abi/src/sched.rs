//! Scheduling and shutdown (public header `sched.h`): x0 is the [`Op`], x1 the address of its structure.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{DomId, GuestHandle};

number_enum! {
    /// An operation of `sched_op`.
    pub enum Op {
        /// Let others run.
        Yield = 0,
        /// Enable event delivery and wait for one.
        Block = 1,
        /// Stop the domain: [`Shutdown`].
        Shutdown = 2,
        /// Wait for one of some ports, or a time: [`Poll`].
        Poll = 3,
        /// Note why another domain stopped: [`RemoteShutdown`].
        RemoteShutdown = 4,
        /// Say why the domain will stop, without stopping it: [`Shutdown`].
        ShutdownCode = 5,
        /// Start, keep or stop a watchdog: [`Watchdog`].
        Watchdog = 6,
        /// Run on one physical CPU for a while: [`PinOverride`].
        PinOverride = 7,
    }
}

/// `SCHEDOP_shutdown` and `SCHEDOP_shutdown_code`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Shutdown {
    /// A [`ShutdownReason`].
    pub reason: u32,
}

number_enum! {
    /// Why a domain stops.
    pub enum ShutdownReason {
        /// It is done.
        Poweroff = 0,
        /// It wants to start again.
        Reboot = 1,
        /// It is ready to be saved.
        Suspend = 2,
        /// It failed.
        Crash = 3,
        /// Its watchdog was not served.
        Watchdog = 4,
        /// It wants a clean device state and goes on.
        SoftReset = 5,
    }
}

/// The largest reason that the ABI knows.
pub const SHUTDOWN_MAX: u32 = 5;

/// `SCHEDOP_poll`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Poll {
    /// The ports, as `u32`.
    pub ports: GuestHandle,
    /// How many.
    pub nr_ports: u32,
    /// Padding.
    pub _pad: u32,
    /// System time in nanoseconds at which to stop waiting; 0 means never.
    pub timeout: u64,
}

/// `SCHEDOP_remote_shutdown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RemoteShutdown {
    /// Which domain.
    pub domain_id: DomId,
    /// Padding.
    pub _pad: u16,
    /// A [`ShutdownReason`].
    pub reason: u32,
}

/// `SCHEDOP_watchdog`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Watchdog {
    /// Which watchdog; 0 asks for a new one.
    pub id: u32,
    /// Seconds; 0 stops it.
    pub timeout: u32,
}

/// `SCHEDOP_pin_override`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PinOverride {
    /// The physical CPU; negative ends the override.
    pub pcpu: i32,
}
