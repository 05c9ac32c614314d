//! What dom0's kernel asks of the machine (public header `platform.h`): x0 is the address of a [`Platform`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version that every call carries.
pub const XENPF_INTERFACE_VERSION: u32 = 0x0300_0001;

number_enum! {
    /// An operation of `platform_op`. Arm has the two that set the time.
    pub enum Op {
        /// Set the wall clock, seconds in 32 bits: [`Settime32`].
        Settime32 = 17,
        /// x86 only.
        AddMemtype = 31,
        /// x86 only.
        DelMemtype = 32,
        /// x86 only.
        ReadMemtype = 33,
        /// x86 only.
        MicrocodeUpdate = 35,
        /// x86 only.
        PlatformQuirk = 39,
        /// x86 only.
        EfiRuntimeCall = 49,
        /// x86 only.
        FirmwareInfo = 50,
        /// x86 only.
        EnterAcpiSleep = 51,
        /// x86 only.
        ChangeFreq = 52,
        /// x86 only.
        Getidletime = 53,
        /// x86 only.
        SetProcessorPminfo = 54,
        /// x86 only.
        GetCpuinfo = 55,
        /// x86 only.
        CpuOnline = 56,
        /// x86 only.
        CpuOffline = 57,
        /// x86 only.
        CpuHotadd = 58,
        /// x86 only.
        MemHotadd = 59,
        /// x86 only.
        CoreParking = 60,
        /// x86 only.
        GetCpuVersion = 48,
        /// x86 only.
        ResourceOp = 61,
        /// Set the wall clock: [`Settime64`].
        Settime64 = 62,
        /// x86 only.
        GetSymbol = 63,
    }
}

/// The argument of `platform_op` (`xen_platform_op`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Platform {
    /// An [`Op`].
    pub cmd: u32,
    /// [`XENPF_INTERFACE_VERSION`].
    pub interface_version: u32,
    /// The operation's structure.
    pub u: PlatformUnion,
}

abi_union! {
    /// The last part of [`Platform`].
    pub struct PlatformUnion([u64; 16]);
}

/// `XENPF_settime32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Settime32 {
    /// Seconds since 1970.
    pub secs: u32,
    /// Nanoseconds.
    pub nsecs: u32,
    /// System time at that moment, in nanoseconds.
    pub system_time: u64,
}

/// `XENPF_settime64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Settime64 {
    /// Seconds since 1970.
    pub secs: u64,
    /// Nanoseconds.
    pub nsecs: u32,
    /// Must be zero.
    pub mbz: u32,
    /// System time at that moment, in nanoseconds.
    pub system_time: u64,
}
