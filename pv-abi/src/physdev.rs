//! Physical devices (public header `physdev.h`): x0 is the [`Op`], x1 the address of its structure.
//!
//! dom0's kernel reports PCI devices by it. Interrupts on Arm are routed by the GIC, not here.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::DomId;

number_enum! {
    /// An operation of `physdev_op`.
    pub enum Op {
        /// x86: interrupts must be unmasked by hypercall (before Xen 3.2).
        IrqUnmaskNotify = 4,
        /// x86 only: [`IrqStatusQuery`].
        IrqStatusQuery = 5,
        /// x86 only.
        SetIopl = 6,
        /// x86 only.
        SetIobitmap = 7,
        /// x86 only.
        ApicRead = 8,
        /// x86 only.
        ApicWrite = 9,
        /// x86 only.
        AllocIrqVector = 10,
        /// x86 only.
        FreeIrqVector = 11,
        /// End of interrupt: [`Eoi`].
        Eoi = 12,
        /// Make an interrupt available to a domain: [`MapPirq`].
        MapPirq = 13,
        /// Take it away: [`UnmapPirq`].
        UnmapPirq = 14,
        /// A PCI device appeared, old form: [`ManagePci`].
        ManagePciAdd = 15,
        /// A PCI device went, old form: [`ManagePci`].
        ManagePciRemove = 16,
        /// x86 only.
        PirqEoiGmfnV1 = 17,
        /// x86 only.
        RestoreMsi = 19,
        /// A PCI device appeared, second form: [`ManagePciExt`].
        ManagePciAddExt = 20,
        /// x86 only.
        SetupGsi = 21,
        /// x86 only.
        GetFreePirq = 23,
        /// Where PCI configuration space lies: [`PciMmcfgReserved`].
        PciMmcfgReserved = 24,
        /// A PCI device appeared: [`PciDeviceAdd`].
        PciDeviceAdd = 25,
        /// A PCI device went: [`PciDevice`].
        PciDeviceRemove = 26,
        /// [`PciDevice`].
        RestoreMsiExt = 27,
        /// x86 only.
        PirqEoiGmfnV2 = 28,
        /// A debug port will be, or was, reset: [`DbgpOp`].
        DbgpOp = 29,
        /// [`PciDevice`].
        PrepareMsix = 30,
        /// [`PciDevice`].
        ReleaseMsix = 31,
    }
}

/// `PHYSDEVOP_eoi`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Eoi {
    /// The interrupt.
    pub irq: u32,
}

/// `PHYSDEVOP_irq_status_query`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IrqStatusQuery {
    /// The interrupt.
    pub irq: u32,
    /// Out: bit 0 needs an end of interrupt, bit 1 is shared.
    pub flags: u32,
}

/// `PHYSDEVOP_map_pirq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MapPirq {
    /// For whom.
    pub domid: DomId,
    /// Padding.
    pub _pad: u16,
    /// `MAP_PIRQ_TYPE_*`.
    pub r#type: i32,
    /// Which interrupt of that type.
    pub index: i32,
    /// In: the number wanted, negative for any. Out: the number.
    pub pirq: i32,
    /// PCI bus.
    pub bus: i32,
    /// PCI device and function.
    pub devfn: i32,
    /// MSI entry.
    pub entry_nr: i32,
    /// Padding.
    pub _pad2: u32,
    /// MSI-X table.
    pub table_base: u64,
}

/// `PHYSDEVOP_unmap_pirq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct UnmapPirq {
    /// From whom.
    pub domid: DomId,
    /// Padding.
    pub _pad: u16,
    /// The number.
    pub pirq: i32,
}

/// `PHYSDEVOP_manage_pci_add` and `PHYSDEVOP_manage_pci_remove`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ManagePci {
    /// Bus.
    pub bus: u8,
    /// Device and function.
    pub devfn: u8,
}

/// `PHYSDEVOP_manage_pci_add_ext`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ManagePciExt {
    /// Bus.
    pub bus: u8,
    /// Device and function.
    pub devfn: u8,
    /// Padding.
    pub _pad: u16,
    /// Nonzero: an extended function.
    pub is_extfn: u32,
    /// Nonzero: a virtual function.
    pub is_virtfn: u32,
    /// The physical function.
    pub physfn: ManagePci,
    /// Padding.
    pub _pad2: u16,
}

/// `PHYSDEVOP_pci_mmcfg_reserved`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PciMmcfgReserved {
    /// First address.
    pub address: u64,
    /// Segment.
    pub segment: u16,
    /// First bus.
    pub start_bus: u8,
    /// Last bus.
    pub end_bus: u8,
    /// [`XEN_PCI_MMCFG_RESERVED`].
    pub flags: u32,
}

/// The area is reserved in the firmware's map.
pub const XEN_PCI_MMCFG_RESERVED: u32 = 1;

/// [`PciDeviceAdd::flags`]: an extended function.
pub const XEN_PCI_DEV_EXTFN: u32 = 1;
/// [`PciDeviceAdd::flags`]: a virtual function.
pub const XEN_PCI_DEV_VIRTFN: u32 = 2;
/// [`PciDeviceAdd::flags`]: the proximity domain follows the structure.
pub const XEN_PCI_DEV_PXM: u32 = 4;

/// `PHYSDEVOP_pci_device_add`: the head; with [`XEN_PCI_DEV_PXM`] a `u32` follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PciDeviceAdd {
    /// Segment.
    pub seg: u16,
    /// Bus.
    pub bus: u8,
    /// Device and function.
    pub devfn: u8,
    /// `XEN_PCI_DEV_*`.
    pub flags: u32,
    /// The physical function.
    pub physfn: ManagePci,
    /// Padding.
    pub _pad: u16,
}

/// A PCI device by its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PciDevice {
    /// Segment.
    pub seg: u16,
    /// Bus.
    pub bus: u8,
    /// Device and function.
    pub devfn: u8,
}

/// `PHYSDEVOP_dbgp_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DbgpOp {
    /// 1: a reset will come; 2: it is done.
    pub op: u8,
    /// 0: unknown; 1: PCI.
    pub bus: u8,
    /// The device.
    pub pci: PciDevice,
}
