//! What every guest shares with the hypervisor (public header `xen.h`): the shared page, time, VIRQs, console, multicall.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::GuestHandle;
use crate::arch_arm::XEN_LEGACY_MAX_VCPUS;

/// A domain's UUID, in the order of its text form (`xen_domain_handle_t`).
pub type DomainHandle = [u8; 16];

number_enum! {
    /// The operation of `console_io`: x0 is this, x1 the byte count, x2 the buffer.
    pub enum ConsoleIo {
        /// Print bytes; returns 0.
        Write = 0,
        /// Take what was typed; returns the byte count.
        Read = 1,
    }
}

number_enum! {
    /// Interrupts that the hypervisor raises itself, bound by `EVTCHNOP_bind_virq`.
    pub enum Virq {
        /// A vCPU's one-shot timer. Per vCPU.
        Timer = 0,
        /// Somebody asks the guest to dump its state. Per vCPU.
        Debug = 1,
        /// Console input is there. Global, dom0's.
        Console = 2,
        /// Some domain stopped or went away. Global, dom0's.
        DomExc = 3,
        /// The trace buffer fills. Global, dom0's.
        Tbuf = 4,
        /// A domain stopped for its debugger. Global, dom0's.
        Debugger = 6,
        /// A profiler sample. Per vCPU.
        Xenoprof = 7,
        /// The hypervisor's console ring received text. Global, dom0's.
        ConRing = 8,
        /// A physical CPU changed its state. Global, dom0's.
        PcpuState = 9,
        /// A memory event. Global, dom0's.
        MemEvent = 10,
        /// An Argo message. Global, any domain.
        Argo = 11,
        /// The host runs out of memory. Global, dom0's.
        Enomem = 12,
        /// A performance counter overflow. Per vCPU.
        Xenpmu = 13,
        /// Left to the architecture.
        Arch0 = 16,
        /// Left to the architecture.
        Arch1 = 17,
        /// Left to the architecture.
        Arch2 = 18,
        /// Left to the architecture.
        Arch3 = 19,
        /// Left to the architecture.
        Arch4 = 20,
        /// Left to the architecture.
        Arch5 = 21,
        /// Left to the architecture.
        Arch6 = 22,
        /// Left to the architecture.
        Arch7 = 23,
    }
}

/// How many VIRQ numbers there are, named or not.
pub const NR_VIRQS: u32 = 24;

impl Virq {
    /// Whether each vCPU binds this VIRQ for itself; the others are bound once per domain.
    pub const fn is_per_vcpu(self) -> bool {
        matches!(self, Self::Timer | Self::Debug | Self::Xenoprof | Self::Xenpmu)
    }
}

/// One call of a `multicall`: x0 is the address of a list of these, x1 how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MulticallEntry {
    /// The hypercall's number, as in x16.
    pub op: u64,
    /// Out: what the call returned.
    pub result: u64,
    /// The arguments, as in x0 and up; the sixth is unused on Arm.
    pub args: [u64; 6],
}

/// Time as PV clocks see it. On Arm the generic timer is used instead, and the fields stay zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VcpuTimeInfo {
    /// Odd while the hypervisor writes.
    pub version: u32,
    /// Padding.
    pub pad0: u32,
    /// Counter value at `system_time`.
    pub tsc_timestamp: u64,
    /// Nanoseconds since boot.
    pub system_time: u64,
    /// Multiplier from counter ticks to nanoseconds.
    pub tsc_to_system_mul: u32,
    /// Shift before the multiplication.
    pub tsc_shift: i8,
    /// `XEN_PVCLOCK_*`.
    pub flags: u8,
    /// Padding.
    pub pad1: [u8; 2],
}

/// The counter is the same on all vCPUs.
pub const XEN_PVCLOCK_TSC_STABLE_BIT: u8 = 1 << 0;
/// The guest was stopped by its host.
pub const XEN_PVCLOCK_GUEST_STOPPED: u8 = 1 << 1;

/// The page area that a vCPU and the hypervisor share: pending events above all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VcpuInfo {
    /// Nonzero: an event is pending, the upcall interrupt is raised.
    pub evtchn_upcall_pending: u8,
    /// Nonzero would mask the upcall; Arm uses the interrupt mask instead.
    pub evtchn_upcall_mask: u8,
    /// Padding.
    pub _pad: [u8; 6],
    /// Bit n: word n of `SharedInfo::evtchn_pending` has news.
    pub evtchn_pending_sel: u64,
    /// Time.
    pub time: VcpuTimeInfo,
}

/// The page that a domain and the hypervisor share, mapped by `XENMAPSPACE_shared_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SharedInfo {
    /// Areas of the first vCPUs, until they register their own.
    pub vcpu_info: [VcpuInfo; XEN_LEGACY_MAX_VCPUS],
    /// 2-level events: bit n is port n, set when pending.
    pub evtchn_pending: [u64; 64],
    /// 2-level events: bit n is port n, set when masked.
    pub evtchn_mask: [u64; 64],
    /// Wall clock: odd while the hypervisor writes.
    pub wc_version: u32,
    /// Wall clock at boot: seconds since 1970, low half.
    pub wc_sec: u32,
    /// Wall clock at boot: nanoseconds.
    pub wc_nsec: u32,
    /// Wall clock at boot: seconds, high half.
    pub wc_sec_hi: u32,
}

zero_default!(SharedInfo);

/// A bitmap in guest memory (`xenctl_bitmap`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Bitmap {
    /// The bytes; bit 0 of byte 0 is the first.
    pub bitmap: GuestHandle,
    /// How many bits they hold.
    pub nr_bits: u32,
    /// Padding.
    pub _pad: u32,
}
