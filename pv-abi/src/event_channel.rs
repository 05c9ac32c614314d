//! Event channels (public header `event_channel.h`): x0 is the [`Op`], x1 the address of its structure.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::DomId;

/// A port: a domain's own number for its end of a channel. Port 0 is never valid.
pub type Port = u32;

number_enum! {
    /// An operation of `event_channel_op`.
    pub enum Op {
        /// Connect to another domain's unbound port: [`BindInterdomain`].
        BindInterdomain = 0,
        /// Receive a virtual interrupt: [`BindVirq`].
        BindVirq = 1,
        /// Receive a physical interrupt: [`BindPirq`].
        BindPirq = 2,
        /// Give up a port: [`Close`].
        Close = 3,
        /// Signal the other end: [`Send`].
        Send = 4,
        /// Describe a port: [`Status`].
        Status = 5,
        /// Make a port that another domain may connect to: [`AllocUnbound`].
        AllocUnbound = 6,
        /// Make a port that signals a vCPU of one's own: [`BindIpi`].
        BindIpi = 7,
        /// Choose the vCPU that a port signals: [`BindVcpu`].
        BindVcpu = 8,
        /// Unmask a port and deliver what is pending: [`Unmask`].
        Unmask = 9,
        /// Close all ports of a domain and go back to 2-level: [`Reset`].
        Reset = 10,
        /// Go over to FIFO delivery, or register a vCPU's control block: [`InitControl`].
        InitControl = 11,
        /// Add a page to the FIFO event array: [`ExpandArray`].
        ExpandArray = 12,
        /// Choose a FIFO priority: [`SetPriority`].
        SetPriority = 13,
    }
}

/// `EVTCHNOP_alloc_unbound`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AllocUnbound {
    /// The domain that shall own the port.
    pub dom: DomId,
    /// The domain that may connect to it.
    pub remote_dom: DomId,
    /// Out: the new port.
    pub port: Port,
}

/// `EVTCHNOP_bind_interdomain`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BindInterdomain {
    /// The domain to connect to.
    pub remote_dom: DomId,
    /// Padding.
    pub _pad: u16,
    /// Its port, unbound and meant for the caller.
    pub remote_port: Port,
    /// Out: the caller's new port.
    pub local_port: Port,
}

/// `EVTCHNOP_bind_virq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BindVirq {
    /// A [`crate::xen::Virq`].
    pub virq: u32,
    /// The vCPU to signal; 0 for a global VIRQ.
    pub vcpu: u32,
    /// Out: the new port.
    pub port: Port,
}

/// The interrupt may be shared ([`BindPirq::flags`]).
pub const BIND_PIRQ__WILL_SHARE: u32 = 1;

/// `EVTCHNOP_bind_pirq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BindPirq {
    /// The physical interrupt.
    pub pirq: u32,
    /// [`BIND_PIRQ__WILL_SHARE`].
    pub flags: u32,
    /// Out: the new port.
    pub port: Port,
}

/// `EVTCHNOP_bind_ipi`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BindIpi {
    /// The vCPU to signal.
    pub vcpu: u32,
    /// Out: the new port.
    pub port: Port,
}

/// `EVTCHNOP_close`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Close {
    /// The port.
    pub port: Port,
}

/// `EVTCHNOP_send`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Send {
    /// The port.
    pub port: Port,
}

/// `EVTCHNOP_status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Status {
    /// Whose port.
    pub dom: DomId,
    /// Padding.
    pub _pad: u16,
    /// The port.
    pub port: Port,
    /// Out: an [`StatusKind`].
    pub status: u32,
    /// Out: the vCPU that the port signals.
    pub vcpu: u32,
    /// Out: what it is bound to, by `status`: [`StatusUnbound`], [`StatusInterdomain`], or the number of the PIRQ or
    /// VIRQ as a `u32`.
    pub u: StatusUnion,
}

number_enum! {
    /// What a port is bound to ([`Status::status`]).
    pub enum StatusKind {
        /// Not in use.
        Closed = 0,
        /// Waits for a remote domain.
        Unbound = 1,
        /// Connected to a remote domain.
        Interdomain = 2,
        /// A physical interrupt.
        Pirq = 3,
        /// A virtual interrupt.
        Virq = 4,
        /// A vCPU of the same domain.
        Ipi = 5,
    }
}

abi_union! {
    /// The last part of [`Status`].
    pub struct StatusUnion([u32; 2]);
}

/// [`Status`] of an unbound port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct StatusUnbound {
    /// Who may connect.
    pub dom: DomId,
}

/// [`Status`] of a connected port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct StatusInterdomain {
    /// The other domain.
    pub dom: DomId,
    /// Padding.
    pub _pad: u16,
    /// Its port.
    pub port: Port,
}

/// `EVTCHNOP_bind_vcpu`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BindVcpu {
    /// The port.
    pub port: Port,
    /// The vCPU that it shall signal.
    pub vcpu: u32,
}

/// `EVTCHNOP_unmask`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Unmask {
    /// The port.
    pub port: Port,
}

/// `EVTCHNOP_reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Reset {
    /// Whose ports.
    pub dom: DomId,
}

/// `EVTCHNOP_init_control`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct InitControl {
    /// The guest frame that holds the control block.
    pub control_gfn: u64,
    /// Where in the frame, in bytes; a multiple of 8.
    pub offset: u32,
    /// Whose control block.
    pub vcpu: u32,
    /// Out: how many bits of an event word are a link.
    pub link_bits: u8,
    /// Padding.
    pub _pad: [u8; 7],
}

/// `EVTCHNOP_expand_array`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ExpandArray {
    /// The guest frame that holds the next event words.
    pub array_gfn: u64,
}

/// `EVTCHNOP_set_priority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SetPriority {
    /// The port.
    pub port: Port,
    /// [`EVTCHN_FIFO_PRIORITY_MAX`] to [`EVTCHN_FIFO_PRIORITY_MIN`].
    pub priority: u32,
}

/// Ports of the 2-level ABI.
pub const EVTCHN_2L_NR_CHANNELS: u32 = 4096;
/// The most urgent priority.
pub const EVTCHN_FIFO_PRIORITY_MAX: u32 = 0;
/// The priority of a port that nobody chose one for.
pub const EVTCHN_FIFO_PRIORITY_DEFAULT: u32 = 7;
/// The least urgent priority.
pub const EVTCHN_FIFO_PRIORITY_MIN: u32 = 15;
/// Queues per vCPU: one per priority.
pub const EVTCHN_FIFO_MAX_QUEUES: usize = 16;
/// Bit of an event word: the event is pending.
pub const EVTCHN_FIFO_PENDING: u32 = 31;
/// Bit of an event word: the event is masked.
pub const EVTCHN_FIFO_MASKED: u32 = 30;
/// Bit of an event word: the event is on a queue.
pub const EVTCHN_FIFO_LINKED: u32 = 29;
/// Bit of an event word: the hypervisor changes the link.
pub const EVTCHN_FIFO_BUSY: u32 = 28;
/// How many low bits of an event word are the link: the next port on the queue.
pub const EVTCHN_FIFO_LINK_BITS: u32 = 17;
/// Those bits.
pub const EVTCHN_FIFO_LINK_MASK: u32 = (1 << EVTCHN_FIFO_LINK_BITS) - 1;
/// Ports of the FIFO ABI.
pub const EVTCHN_FIFO_NR_CHANNELS: u32 = 1 << EVTCHN_FIFO_LINK_BITS;

/// A vCPU's queues, in its own memory (`evtchn_fifo_control_block`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FifoControlBlock {
    /// Bit n: queue n has events.
    pub ready: u32,
    /// Reserved.
    pub _rsvd: u32,
    /// The first port of each queue, 0 where it is empty.
    pub head: [u32; EVTCHN_FIFO_MAX_QUEUES],
}
