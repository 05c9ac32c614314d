//! Where CPUs, memory and PCI devices are: cores, sockets and nodes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::GuestHandle;

/// [`CpuTopo::core`] of a CPU that is off.
pub const XEN_INVALID_CORE_ID: u32 = u32::MAX;
/// [`CpuTopo::socket`] of a CPU that is off.
pub const XEN_INVALID_SOCKET_ID: u32 = u32::MAX;
/// [`CpuTopo::node`] of a CPU that is off.
pub const XEN_INVALID_NODE_ID: u32 = u32::MAX;

/// Where a CPU is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CpuTopo {
    /// Core.
    pub core: u32,
    /// Socket.
    pub socket: u32,
    /// NUMA node.
    pub node: u32,
}

/// `XEN_SYSCTL_cputopoinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CpuTopoInfo {
    /// In: room in the list. Out: how many there are, or were written.
    pub num_cpus: u32,
    /// Padding.
    pub _pad: u32,
    /// The list, of [`CpuTopo`]; null asks for the number.
    pub cputopo: GuestHandle,
}

/// Size of the memory of a node that has none. Thirty-two bits of ones in 64, as the header has it.
pub const XEN_INVALID_MEM_SZ: u64 = 0xffff_ffff;
/// Distance between nodes of which one has no memory.
pub const XEN_INVALID_NODE_DIST: u32 = u32::MAX;

/// Memory of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemInfo {
    /// Bytes.
    pub memsize: u64,
    /// Bytes free.
    pub memfree: u64,
}

/// `XEN_SYSCTL_numainfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct NumaInfo {
    /// In: room in the lists. Out: how many nodes there are, or were written.
    pub num_nodes: u32,
    /// Padding.
    pub _pad: u32,
    /// The list, of [`MemInfo`]; null, with `distance`, asks for the number.
    pub meminfo: GuestHandle,
    /// A matrix of distances, as `u32`, by rows.
    pub distance: GuestHandle,
}

/// [`PciTopoInfo::nodes`] of a device that does not exist.
pub const XEN_INVALID_DEV: u32 = XEN_INVALID_NODE_ID - 1;

/// `XEN_SYSCTL_pcitopoinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PciTopoInfo {
    /// In: how many. Out: how many were done.
    pub num_devs: u32,
    /// Padding.
    pub _pad: u32,
    /// The devices, [`crate::physdev::PciDevice`] each.
    pub devs: GuestHandle,
    /// Out: their nodes, as `u32`.
    pub nodes: GuestHandle,
}
