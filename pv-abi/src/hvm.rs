//! Parameters of a domain (public headers `hvm/hvm_op.h` and `hvm/params.h`): x0 is the [`Op`], x1 the address.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::DomId;

number_enum! {
    /// An operation of `hvm_op`. Arm has the first two.
    pub enum Op {
        /// [`Param`]: set.
        SetParam = 0,
        /// [`Param`]: get.
        GetParam = 1,
        /// x86 only.
        FlushTlbs = 5,
        /// x86 only.
        PagetableDying = 9,
        /// x86 only.
        GetTime = 10,
        /// x86 only.
        Xentrace = 11,
        /// Removed.
        SetMemAccess = 12,
        /// Removed.
        GetMemAccess = 13,
        /// x86 only.
        GetMemType = 15,
        /// Ask the introspection agent for attention.
        GuestRequestVmEvent = 24,
        /// x86 only.
        Altp2m = 25,
    }
}

/// `HVMOP_set_param` and `HVMOP_get_param`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Param {
    /// Whose parameter.
    pub domid: DomId,
    /// Padding.
    pub pad: u16,
    /// An [`Index`].
    pub index: u32,
    /// The value.
    pub value: u64,
}

number_enum! {
    /// A parameter, by its number. Numbers below [`HVM_NR_PARAMS`] without a name are holes, or defined on x86 only.
    pub enum Index {
        /// How the guest wants to hear of events.
        CallbackIrq = 0,
        /// Guest frame of the XenStore ring.
        StorePfn = 1,
        /// Event channel of the XenStore ring.
        StoreEvtchn = 2,
        /// x86 only.
        PaeEnabled = 4,
        /// Guest frame of the device model's requests.
        IoreqPfn = 5,
        /// Guest frame of the device model's buffered requests.
        BufioreqPfn = 6,
        /// How missed timer ticks are made up for.
        TimerMode = 10,
        /// x86 only.
        HpetEnabled = 11,
        /// x86 only.
        IdentPt = 12,
        /// The device model's domain.
        DmDomain = 13,
        /// x86 only.
        AcpiSState = 14,
        /// x86 only.
        Vm86Tss = 15,
        /// x86 only.
        VptAlign = 16,
        /// Guest frame of the console ring.
        ConsolePfn = 17,
        /// Event channel of the console ring.
        ConsoleEvtchn = 18,
        /// x86 only.
        AcpiIoportsLocation = 19,
        /// x86 only.
        MemoryEventCr0 = 20,
        /// x86 only.
        MemoryEventCr3 = 21,
        /// x86 only.
        MemoryEventCr4 = 22,
        /// x86 only.
        MemoryEventInt3 = 23,
        /// x86 only.
        Nestedhvm = 24,
        /// x86 only.
        MemoryEventSingleStep = 25,
        /// Event channel of buffered requests.
        BufioreqEvtchn = 26,
        /// Guest frame of the paging ring.
        PagingRingPfn = 27,
        /// Guest frame of the monitor ring. Debian's tools set it for every domain on Arm.
        MonitorRingPfn = 28,
        /// Guest frame of the sharing ring.
        SharingRingPfn = 29,
        /// x86 only.
        MemoryEventMsr = 30,
        /// x86 only.
        TripleFaultReason = 31,
        /// Guest frame of request servers.
        IoreqServerPfn = 32,
        /// How many such frames.
        NrIoreqServerPages = 33,
        /// Guest address of the generation identifier.
        VmGenerationIdAddr = 34,
        /// Alternative stage-2 tables.
        Altp2m = 35,
        /// x86 only.
        X87FipWidth = 36,
        /// x86 only.
        Vm86TssSized = 37,
        /// x86 only.
        McaCap = 38,
    }
}

/// How many parameters a domain has, named or not.
pub const HVM_NR_PARAMS: u32 = 39;

/// The bits of [`Index::CallbackIrq`] that say what kind it is.
pub const HVM_PARAM_CALLBACK_IRQ_TYPE_MASK: u64 = 0xFF00_0000_0000_0000;
/// Kind: a global system interrupt. x86 only.
pub const HVM_PARAM_CALLBACK_TYPE_GSI: u64 = 0;
/// Kind: a PCI interrupt line. x86 only.
pub const HVM_PARAM_CALLBACK_TYPE_PCI_INTX: u64 = 1;
/// Kind: a private peripheral interrupt, number in the low byte.
pub const HVM_PARAM_CALLBACK_TYPE_PPI: u64 = 2;
/// The bits of the value that are flags for it.
pub const HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_MASK: u64 = 0xFF00;
/// Flag (bits 8 and up): active low, level. Without it: edge.
pub const HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_LOW_LEVEL: u64 = 2;
