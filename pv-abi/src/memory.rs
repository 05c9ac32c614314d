//! Memory of domains (public header `memory.h`): x0 is the [`Op`], x1 the address of its structure.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{DomId, GuestHandle};

number_enum! {
    /// An operation of `memory_op`.
    pub enum Op {
        /// Add pages: [`Reservation`]. Returns the extents done.
        IncreaseReservation = 0,
        /// Give pages back: [`Reservation`]. Returns the extents done.
        DecreaseReservation = 1,
        /// Returns the highest frame number of the host; no structure.
        MaximumRamPage = 2,
        /// Returns the pages that a domain has: [`Domain`].
        CurrentReservation = 3,
        /// Returns the pages that a domain may have: [`Domain`].
        MaximumReservation = 4,
        /// x86 only: [`MachphysMfnList`].
        MachphysMfnList = 5,
        /// Add pages at given guest frames: [`Reservation`]. Returns the extents done.
        PopulatePhysmap = 6,
        /// Map one page of some kind at a guest frame: [`AddToPhysmap`].
        AddToPhysmap = 7,
        /// x86 only: the firmware's map, as the domain builder set it: [`MemoryMap`].
        MemoryMap = 9,
        /// x86 only: the host's map: [`MemoryMap`].
        MachineMemoryMap = 10,
        /// Swap pages for others: [`MemoryExchange`].
        Exchange = 11,
        /// x86 only.
        MachphysMapping = 12,
        /// x86 only: set what [`Op::MemoryMap`] returns: [`ForeignMemoryMap`].
        SetMemoryMap = 13,
        /// Returns the highest guest frame of a domain: [`Domain`].
        MaximumGpfn = 14,
        /// Unmap a guest frame: [`RemoveFromPhysmap`].
        RemoveFromPhysmap = 15,
        /// What a domain is to have (on Xen, x86 only): [`PodTarget`].
        SetPodTarget = 16,
        /// What it is to have and has (on Xen, x86 only): [`PodTarget`].
        GetPodTarget = 17,
        /// x86 only: sharing statistics.
        GetSharingFreedPages = 18,
        /// x86 only: sharing statistics.
        GetSharingSharedPages = 19,
        /// x86 only: paging.
        PagingOp = 20,
        /// Access permissions for introspection: [`MemAccessOp`].
        AccessOp = 21,
        /// x86 only: sharing.
        SharingOp = 22,
        /// Map many pages of some kind at guest frames: [`AddToPhysmapBatch`].
        AddToPhysmapBatch = 23,
        /// Set pages of the host aside for a domain: [`Reservation`].
        ClaimPages = 24,
        /// x86 only.
        MachphysCompatMfnList = 25,
        /// The virtual NUMA layout: [`VnumaTopologyInfo`].
        GetVnumainfo = 26,
        /// x86 only: [`ReservedDeviceMemory`].
        ReservedDeviceMemoryMap = 27,
        /// The frames of a resource that the hypervisor owns: [`AcquireResource`].
        AcquireResource = 28,
    }
}

/// The pages are wanted below 2^n ([`Reservation::mem_flags`], low byte; 0: anywhere).
pub const XENMEMF_ADDRESS_BITS_MASK: u32 = 0xff;
/// x86: promise pages without giving them.
pub const XENMEMF_POPULATE_ON_DEMAND: u32 = 1 << 16;
/// The node of `mem_flags`, and no other.
pub const XENMEMF_EXACT_NODE_REQUEST: u32 = 1 << 17;
/// The node is a virtual one.
pub const XENMEMF_VNODE: u32 = 1 << 18;

/// A number of extents of equal size (`xen_memory_reservation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Reservation {
    /// The guest frame (or for `increase_reservation` out: the machine frame) of each extent, as `u64`.
    pub extent_start: GuestHandle,
    /// How many extents.
    pub nr_extents: u64,
    /// Pages in each, as a power of two.
    pub extent_order: u32,
    /// `XENMEMF_*`.
    pub mem_flags: u32,
    /// Whose memory.
    pub domid: DomId,
    /// Padding.
    pub _pad: [u16; 3],
}

/// `XENMEM_exchange`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemoryExchange {
    /// What the domain gives.
    pub r#in: Reservation,
    /// What it gets: as many bytes, in extents of its choice.
    pub out: Reservation,
    /// In: 0. Out: how many input extents were exchanged.
    pub nr_exchanged: u64,
}

/// The argument of `XENMEM_current_reservation`, `XENMEM_maximum_reservation` and `XENMEM_maximum_gpfn`
/// (`xen_memory_domain`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Domain {
    /// Which domain.
    pub domid: DomId,
}

/// `XENMEM_machphys_mfn_list`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MachphysMfnList {
    /// Room in the list.
    pub max_extents: u32,
    /// Padding.
    pub _pad: u32,
    /// The list, of `u64`.
    pub extent_start: GuestHandle,
    /// Out: how many were written.
    pub nr_extents: u32,
    /// Padding.
    pub _pad2: u32,
}

/// `XENMEM_machphys_mapping`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MachphysMapping {
    /// First address.
    pub v_start: u64,
    /// Last address.
    pub v_end: u64,
    /// Largest frame.
    pub max_mfn: u64,
}

number_enum! {
    /// What kind of page `XENMEM_add_to_physmap` maps.
    pub enum Space {
        /// The domain's shared page.
        SharedInfo = 0,
        /// A page of its grant table.
        GrantTable = 1,
        /// Another guest frame of its own.
        Gmfn = 2,
        /// A range of those; only by `add_to_physmap`.
        GmfnRange = 3,
        /// A guest frame of another domain; only by `add_to_physmap_batch`.
        GmfnForeign = 4,
        /// A page of a device; only by `add_to_physmap_batch`.
        DevMmio = 5,
    }
}

/// In [`AddToPhysmap::idx`] of [`Space::GrantTable`]: a status page, not a shared one.
pub const XENMAPIDX_GRANT_TABLE_STATUS: u64 = 0x8000_0000;

/// `XENMEM_add_to_physmap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AddToPhysmap {
    /// Whose memory.
    pub domid: DomId,
    /// Pages, for [`Space::GmfnRange`].
    pub size: u16,
    /// A [`Space`].
    pub space: u32,
    /// Which page of the space.
    pub idx: u64,
    /// The guest frame at which it shall appear.
    pub gpfn: u64,
}

/// `XENMEM_add_to_physmap_batch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AddToPhysmapBatch {
    /// Whose memory.
    pub domid: DomId,
    /// A [`Space`].
    pub space: u16,
    /// How many pages.
    pub size: u16,
    /// For [`Space::GmfnForeign`] the domain that owns the pages; else 0 (`u.foreign_domid`).
    pub foreign_domid: DomId,
    /// Which pages of the space, as `u64`.
    pub idxs: GuestHandle,
    /// The guest frames at which they shall appear, as `u64`.
    pub gpfns: GuestHandle,
    /// Out: for each page 0 or a negative errno, as `i32`.
    pub errs: GuestHandle,
}

/// `XENMEM_remove_from_physmap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RemoveFromPhysmap {
    /// Whose memory.
    pub domid: DomId,
    /// Padding.
    pub _pad: [u16; 3],
    /// The guest frame.
    pub gpfn: u64,
}

/// `XENMEM_memory_map` and `XENMEM_machine_memory_map`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemoryMap {
    /// In: room for entries. Out: how many were written.
    pub nr_entries: u32,
    /// Padding.
    pub _pad: u32,
    /// The entries, as firmware defines them.
    pub buffer: GuestHandle,
}

/// `XENMEM_set_memory_map`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ForeignMemoryMap {
    /// Whose map.
    pub domid: DomId,
    /// Padding.
    pub _pad: [u16; 3],
    /// The map.
    pub map: MemoryMap,
}

/// `XENMEM_set_pod_target` and `XENMEM_get_pod_target`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PodTarget {
    /// In: pages wanted.
    pub target_pages: u64,
    /// Out: pages of the domain.
    pub tot_pages: u64,
    /// Out: pages kept in reserve.
    pub pod_cache_pages: u64,
    /// Out: frames not yet backed.
    pub pod_entries: u64,
    /// In: whose memory.
    pub domid: DomId,
    /// Padding.
    pub _pad: [u16; 3],
}

/// `XENMEM_access_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemAccessOp {
    /// Which operation.
    pub op: u8,
    /// Which access.
    pub access: u8,
    /// Whose memory.
    pub domid: DomId,
    /// How many frames.
    pub nr: u32,
    /// The first frame.
    pub pfn: u64,
    /// A list of frames, as `u64`.
    pub pfn_list: GuestHandle,
    /// A list of accesses, as `u8`.
    pub access_list: GuestHandle,
}

/// A range that a device needs mapped one to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReservedDeviceMemory {
    /// First frame.
    pub start_pfn: u64,
    /// How many.
    pub nr_pages: u64,
}

number_enum! {
    /// What `XENMEM_acquire_resource` gives access to.
    pub enum ResourceType {
        /// Pages of a device model's request server.
        IoreqServer = 0,
        /// Frames of a grant table.
        GrantTable = 1,
        /// A trace buffer.
        VmtraceBuf = 2,
    }
}

/// [`AcquireResource::id`] of a grant table's shared frames.
pub const XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED: u32 = 0;
/// [`AcquireResource::id`] of a grant table's status frames.
pub const XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS: u32 = 1;

/// `XENMEM_acquire_resource`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct AcquireResource {
    /// Whose resource.
    pub domid: DomId,
    /// A [`ResourceType`].
    pub r#type: u16,
    /// Which one of that type.
    pub id: u32,
    /// In: how many frames. Out, where `frame_list` is null: how many there are.
    pub nr_frames: u32,
    /// Zero.
    pub pad: u32,
    /// The first frame of the resource.
    pub frame: u64,
    /// The caller's guest frames at which they shall appear, as `u64`; null asks for the size.
    pub frame_list: GuestHandle,
}

/// A range of memory on a virtual node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Vmemrange {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Zero.
    pub flags: u32,
    /// The node.
    pub nid: u32,
}

/// `XENMEM_get_vnumainfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VnumaTopologyInfo {
    /// Which domain.
    pub domid: DomId,
    /// Padding.
    pub pad: u16,
    /// In and out: nodes.
    pub nr_vnodes: u32,
    /// In and out: vCPUs.
    pub nr_vcpus: u32,
    /// In and out: ranges.
    pub nr_vmemranges: u32,
    /// Distances between nodes, as `u32`.
    pub vdistance: GuestHandle,
    /// Each vCPU's node, as `u32`.
    pub vcpu_to_vnode: GuestHandle,
    /// The ranges: [`Vmemrange`].
    pub vmemrange: GuestHandle,
}
