//! Operations that hand devices and interrupts to a domain.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::event_channel::Port;
use crate::{DomId, GuestHandle};

/// `XEN_DOMCTL_irq_permission`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IrqPermission {
    /// The interrupt.
    pub pirq: u32,
    /// Nonzero: allow.
    pub allow_access: u8,
    /// Padding.
    pub pad: [u8; 3],
}

/// `XEN_DOMCTL_iomem_permission`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IomemPermission {
    /// First machine frame.
    pub first_mfn: u64,
    /// How many.
    pub nr_mfns: u64,
    /// Nonzero: allow.
    pub allow_access: u8,
    /// Padding.
    pub _pad: [u8; 7],
}

/// [`AssignDevice::dev`]: a PCI device.
pub const XEN_DOMCTL_DEV_PCI: u32 = 0;
/// [`AssignDevice::dev`]: a device of the device tree.
pub const XEN_DOMCTL_DEV_DT: u32 = 1;
/// [`AssignDevice::flags`]: reserved memory of the device may be missing.
pub const XEN_DOMCTL_DEV_RDM_RELAXED: u32 = 1;

/// `XEN_DOMCTL_assign_device`, `XEN_DOMCTL_test_assign_device` and `XEN_DOMCTL_deassign_device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AssignDevice {
    /// `XEN_DOMCTL_DEV_*`.
    pub dev: u32,
    /// [`XEN_DOMCTL_DEV_RDM_RELAXED`].
    pub flags: u32,
    /// The PCI address as a `u32`, or an [`AssignDeviceDt`].
    pub u: AssignDeviceUnion,
}

abi_union! {
    /// The last part of [`AssignDevice`].
    pub struct AssignDeviceUnion([u64; 2]);
}

/// A device by its path in the device tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AssignDeviceDt {
    /// Bytes of the path.
    pub size: u32,
    /// Padding.
    pub _pad: u32,
    /// The path.
    pub path: GuestHandle,
}

/// `XEN_DOMCTL_get_device_group`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct GetDeviceGroup {
    /// PCI address.
    pub machine_sbdf: u32,
    /// Room in the list.
    pub max_sdevs: u32,
    /// Out: how many there are.
    pub num_sdevs: u32,
    /// Padding.
    pub _pad: u32,
    /// The list, of `u32`.
    pub sdev_array: GuestHandle,
}

number_enum! {
    /// A kind of interrupt ([`BindPtIrq::irq_type`]).
    pub enum PtIrqType {
        /// PCI line.
        Pci = 0,
        /// x86 only.
        Isa = 1,
        /// Message-signalled.
        Msi = 2,
        /// Message-signalled, to a line.
        MsiTranslate = 3,
        /// Shared peripheral interrupt.
        Spi = 4,
    }
}

/// `XEN_DOMCTL_bind_pt_irq` and `XEN_DOMCTL_unbind_pt_irq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct BindPtIrq {
    /// The physical interrupt.
    pub machine_irq: u32,
    /// A [`PtIrqType`].
    pub irq_type: u32,
    /// For [`PtIrqType::Spi`] the virtual interrupt, as a `u16`.
    pub u: BindPtIrqUnion,
}

abi_union! {
    /// The last part of [`BindPtIrq`].
    pub struct BindPtIrqUnion([u64; 2]);
}

/// [`MemoryMapping::add_mapping`]: map.
pub const DPCI_ADD_MAPPING: u32 = 1;
/// [`MemoryMapping::add_mapping`]: unmap.
pub const DPCI_REMOVE_MAPPING: u32 = 0;

/// `XEN_DOMCTL_memory_mapping`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemoryMapping {
    /// First guest frame.
    pub first_gfn: u64,
    /// First machine frame.
    pub first_mfn: u64,
    /// How many.
    pub nr_mfns: u64,
    /// [`DPCI_ADD_MAPPING`] or [`DPCI_REMOVE_MAPPING`].
    pub add_mapping: u32,
    /// Zero.
    pub padding: u32,
}

/// [`VuartOp::cmd`]: give it a ring and a port.
pub const XEN_DOMCTL_VUART_OP_INIT: u32 = 0;
/// [`VuartOp::type`](VuartOp): a PL011.
pub const XEN_DOMCTL_VUART_TYPE_VPL011: u32 = 0;

/// `XEN_DOMCTL_vuart_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VuartOp {
    /// [`XEN_DOMCTL_VUART_OP_INIT`].
    pub cmd: u32,
    /// [`XEN_DOMCTL_VUART_TYPE_VPL011`].
    pub r#type: u32,
    /// Guest frame of the ring.
    pub gfn: u64,
    /// Who serves the ring.
    pub console_domid: DomId,
    /// Padding.
    pub pad: [u8; 2],
    /// Out: the port.
    pub evtchn: Port,
}
