//! Shared memory between domains (public header `grant_table.h`): x0 is the [`Op`], x1 the address of a list of its
//! structures, x2 how many. A failure of one entry is its `status`, a [`Status`]; x0 returns 0 then.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{DomId, GuestHandle};

/// An index into the granting domain's table.
pub type GrantRef = u32;
/// What identifies a mapping to the domain that made it.
pub type GrantHandle = u32;

number_enum! {
    /// An operation of `grant_table_op`.
    pub enum Op {
        /// Map pages that another domain granted: [`MapGrantRef`].
        MapGrantRef = 0,
        /// Unmap them: [`UnmapGrantRef`].
        UnmapGrantRef = 1,
        /// Grow the table and list its frames: [`SetupTable`].
        SetupTable = 2,
        /// Print the table on the hypervisor's console: [`DumpTable`].
        DumpTable = 3,
        /// Give a page to another domain: [`Transfer`].
        Transfer = 4,
        /// Copy between pages: [`struct@Copy`].
        Copy = 5,
        /// The table's size: [`QuerySize`].
        QuerySize = 6,
        /// Unmap a page and put another in its place: [`UnmapAndReplace`].
        UnmapAndReplace = 7,
        /// Choose version 1 or 2: [`SetVersion`].
        SetVersion = 8,
        /// List the status frames of version 2: [`GetStatusFrames`].
        GetStatusFrames = 9,
        /// Which version a domain uses: [`GetVersion`].
        GetVersion = 10,
        /// Swap two entries: [`SwapGrantRef`].
        SwapGrantRef = 11,
        /// Clean or invalidate caches for a page: [`CacheFlush`].
        CacheFlush = 12,
    }
}

/// An entry of a version 1 table.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct EntryV1 {
    /// `GTF_*`.
    pub flags: u16,
    /// Who may use it.
    pub domid: DomId,
    /// The guest frame.
    pub frame: u32,
}

/// What every entry of a version 2 table begins with.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct EntryHeader {
    /// `GTF_*`.
    pub flags: u16,
    /// Who may use it.
    pub domid: DomId,
}

abi_union! {
    /// An entry of a version 2 table: [`EntryHeader`], [`EntryV2FullPage`], [`EntryV2SubPage`] or
    /// [`EntryV2Transitive`].
    pub struct EntryV2([u64; 2]);
}

/// A version 2 entry for a whole page.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct EntryV2FullPage {
    /// Flags and domain.
    pub hdr: EntryHeader,
    /// Padding.
    pub pad0: u32,
    /// The guest frame.
    pub frame: u64,
}

/// A version 2 entry for a part of a page, for copies only.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct EntryV2SubPage {
    /// Flags and domain.
    pub hdr: EntryHeader,
    /// First byte.
    pub page_off: u16,
    /// Bytes.
    pub length: u16,
    /// The guest frame.
    pub frame: u64,
}

/// A version 2 entry that passes another domain's grant on.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct EntryV2Transitive {
    /// Flags and domain.
    pub hdr: EntryHeader,
    /// The domain that granted it.
    pub trans_domid: DomId,
    /// Padding.
    pub pad0: u16,
    /// Its entry.
    pub gref: GrantRef,
}

/// Entries that a domain keeps for use by its builder.
pub const GNTTAB_NR_RESERVED_ENTRIES: u32 = 8;
/// The entry of the console page.
pub const GNTTAB_RESERVED_CONSOLE: GrantRef = 0;
/// The entry of the XenStore page.
pub const GNTTAB_RESERVED_XENSTORE: GrantRef = 1;

/// Nothing is granted.
pub const GTF_INVALID: u16 = 0;
/// The frame may be mapped and copied.
pub const GTF_PERMIT_ACCESS: u16 = 1;
/// The domain may give a page through this entry.
pub const GTF_ACCEPT_TRANSFER: u16 = 2;
/// The entry refers to another domain's.
pub const GTF_TRANSITIVE: u16 = 3;
/// The bits that hold one of these.
pub const GTF_TYPE_MASK: u16 = 3;
/// The frame may be read only.
pub const GTF_READONLY: u16 = 1 << 2;
/// Set by the hypervisor: somebody reads.
pub const GTF_READING: u16 = 1 << 3;
/// Set by the hypervisor: somebody writes.
pub const GTF_WRITING: u16 = 1 << 4;
/// x86: write through.
pub const GTF_PWT: u16 = 1 << 5;
/// x86: cache disable.
pub const GTF_PCD: u16 = 1 << 6;
/// x86: page attribute table.
pub const GTF_PAT: u16 = 1 << 7;
/// Version 2: only part of the page is granted.
pub const GTF_SUB_PAGE: u16 = 1 << 8;
/// Transfer: a page was chosen.
pub const GTF_TRANSFER_COMMITTED: u16 = 1 << 2;
/// Transfer: the page is there.
pub const GTF_TRANSFER_COMPLETED: u16 = 1 << 3;

/// Map for a device: `dev_bus_addr` is returned.
pub const GNTMAP_DEVICE_MAP: u32 = 1 << 0;
/// Map for the CPU, at `host_addr`.
pub const GNTMAP_HOST_MAP: u32 = 1 << 1;
/// Map for reading only.
pub const GNTMAP_READONLY: u32 = 1 << 2;
/// Map for the guest's applications.
pub const GNTMAP_APPLICATION_MAP: u32 = 1 << 3;
/// `host_addr` is that of a page table entry. x86 only.
pub const GNTMAP_CONTAINS_PTE: u32 = 1 << 4;
/// Bits for the guest's own use.
pub const GNTMAP_GUEST_AVAIL_MASK: u32 = u32::MAX << 16;

/// `GNTTABOP_map_grant_ref`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct MapGrantRef {
    /// The guest physical address at which the page shall appear.
    pub host_addr: u64,
    /// `GNTMAP_*`.
    pub flags: u32,
    /// The granting domain's entry.
    pub r#ref: GrantRef,
    /// The granting domain.
    pub dom: DomId,
    /// Out: a [`Status`].
    pub status: i16,
    /// Out: the mapping.
    pub handle: GrantHandle,
    /// Out: the machine address, for devices.
    pub dev_bus_addr: u64,
}

/// `GNTTABOP_unmap_grant_ref`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct UnmapGrantRef {
    /// Where it was mapped; 0: only the device mapping is meant.
    pub host_addr: u64,
    /// The machine address of the device mapping, or 0.
    pub dev_bus_addr: u64,
    /// The mapping.
    pub handle: GrantHandle,
    /// Out: a [`Status`].
    pub status: i16,
    /// Padding.
    pub _pad: u16,
}

/// `GNTTABOP_setup_table`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct SetupTable {
    /// Whose table.
    pub dom: DomId,
    /// Padding.
    pub _pad: u16,
    /// Frames wanted.
    pub nr_frames: u32,
    /// Out: a [`Status`].
    pub status: i16,
    /// Padding.
    pub _pad2: [u16; 3],
    /// Out: the frames, as `u64`.
    pub frame_list: GuestHandle,
}

/// `GNTTABOP_dump_table`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct DumpTable {
    /// Whose table.
    pub dom: DomId,
    /// Out: a [`Status`].
    pub status: i16,
}

/// `GNTTABOP_transfer`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Transfer {
    /// The caller's frame.
    pub mfn: u64,
    /// Who gets it.
    pub domid: DomId,
    /// Padding.
    pub _pad: u16,
    /// The entry that accepts it.
    pub r#ref: GrantRef,
    /// Out: a [`Status`].
    pub status: i16,
    /// Padding.
    pub _pad2: [u16; 3],
}

/// The source is a grant, not a frame ([`flags`](struct@Copy)).
pub const GNTCOPY_SOURCE_GREF: u16 = 1 << 0;
/// The destination is a grant, not a frame.
pub const GNTCOPY_DEST_GREF: u16 = 1 << 1;

/// One end of a copy (`gnttab_copy_ptr`).
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct CopyPtr {
    /// The guest frame, or in its low half the grant reference.
    pub u: u64,
    /// Whose.
    pub domid: DomId,
    /// First byte in the page.
    pub offset: u16,
    /// Padding.
    pub _pad: u32,
}

impl CopyPtr {
    /// The grant reference, where the flags say that this end is one.
    pub fn grant_ref(&self) -> GrantRef {
        let [a, b, c, d, ..] = self.u.to_le_bytes();
        GrantRef::from_le_bytes([a, b, c, d])
    }

    /// The guest frame, where the flags say that this end is one.
    pub fn gmfn(&self) -> u64 {
        self.u
    }
}

/// `GNTTABOP_copy`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Copy {
    /// From.
    pub source: CopyPtr,
    /// To.
    pub dest: CopyPtr,
    /// Bytes.
    pub len: u16,
    /// `GNTCOPY_*`.
    pub flags: u16,
    /// Out: a [`Status`].
    pub status: i16,
    /// Padding.
    pub _pad: u16,
}

/// `GNTTABOP_query_size`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct QuerySize {
    /// Whose table.
    pub dom: DomId,
    /// Padding.
    pub _pad: u16,
    /// Out: frames now.
    pub nr_frames: u32,
    /// Out: frames at most.
    pub max_nr_frames: u32,
    /// Out: a [`Status`].
    pub status: i16,
    /// Padding.
    pub _pad2: u16,
}

/// `GNTTABOP_unmap_and_replace`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct UnmapAndReplace {
    /// Where it was mapped.
    pub host_addr: u64,
    /// The page that takes its place.
    pub new_addr: u64,
    /// The mapping.
    pub handle: GrantHandle,
    /// Out: a [`Status`].
    pub status: i16,
    /// Padding.
    pub _pad: u16,
}

/// `GNTTABOP_set_version`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct SetVersion {
    /// In: 1 or 2. Out: the version in use.
    pub version: u32,
}

/// `GNTTABOP_get_status_frames`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct GetStatusFrames {
    /// Frames wanted.
    pub nr_frames: u32,
    /// Whose table.
    pub dom: DomId,
    /// Out: a [`Status`].
    pub status: i16,
    /// Out: the frames, as `u64`.
    pub frame_list: GuestHandle,
}

/// `GNTTABOP_get_version`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct GetVersion {
    /// Whose table.
    pub dom: DomId,
    /// Padding.
    pub pad: u16,
    /// Out: the version.
    pub version: u32,
}

/// `GNTTABOP_swap_grant_ref`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct SwapGrantRef {
    /// One entry.
    pub ref_a: GrantRef,
    /// The other.
    pub ref_b: GrantRef,
    /// Out: a [`Status`].
    pub status: i16,
    /// Padding.
    pub _pad: u16,
}

/// Clean the caches.
pub const GNTTAB_CACHE_CLEAN: u32 = 1 << 0;
/// Invalidate the caches.
pub const GNTTAB_CACHE_INVAL: u32 = 1 << 1;
/// The page is named by a grant reference, not by a machine address.
pub const GNTTAB_CACHE_SOURCE_GREF: u32 = 1 << 31;

/// `GNTTABOP_cache_flush`. The call itself returns the error, not a `status`.
#[derive(
    Clone, core::marker::Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct CacheFlush {
    /// The machine address, or in its low half the grant reference.
    pub a: u64,
    /// First byte in the page.
    pub offset: u16,
    /// Bytes; 0 does nothing.
    pub length: u16,
    /// `GNTTAB_CACHE_*`.
    pub op: u32,
}

/// How one entry of a `grant_table_op` ended: `GNTST_*`, zero or negative, in its `status` field.
#[derive(Clone, core::marker::Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Status {
    /// Done.
    Okay = 0,
    /// Something else.
    GeneralError = -1,
    /// No such domain.
    BadDomain = -2,
    /// No such grant, or not for the caller.
    BadGntref = -3,
    /// No such mapping.
    BadHandle = -4,
    /// Bad address.
    BadVirtAddr = -5,
    /// Bad device address.
    BadDevAddr = -6,
    /// No room in the I/O MMU.
    NoDeviceSpace = -7,
    /// Not allowed.
    PermissionDenied = -8,
    /// The page cannot be used so.
    BadPage = -9,
    /// The copy crosses a page boundary.
    BadCopyArg = -10,
    /// The page's address is too large.
    AddressTooBig = -11,
    /// Try again.
    Eagain = -12,
    /// Out of space.
    NoSpace = -13,
}

impl Status {
    /// Every status, from 0 downwards.
    pub const ALL: &[Self] = &[
        Self::Okay,
        Self::GeneralError,
        Self::BadDomain,
        Self::BadGntref,
        Self::BadHandle,
        Self::BadVirtAddr,
        Self::BadDevAddr,
        Self::NoDeviceSpace,
        Self::PermissionDenied,
        Self::BadPage,
        Self::BadCopyArg,
        Self::AddressTooBig,
        Self::Eagain,
        Self::NoSpace,
    ];

    /// The value of the `status` field.
    pub const fn raw(self) -> i16 {
        self as i16
    }

    /// The status with this value; `None` where the header has none.
    pub fn from_raw(raw: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|status| status.raw() == raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_round_trips() {
        for raw in i16::MIN..=i16::MAX {
            match Status::from_raw(raw) {
                Some(status) => assert_eq!(status.raw(), raw),
                None => assert!(!(-13..=0).contains(&raw)),
            }
        }
    }

    #[test]
    fn a_copy_end_is_a_frame_or_a_reference() {
        let end = CopyPtr { u: 0xdead_beef_0000_0007, ..CopyPtr::default() };
        assert_eq!((end.grant_ref(), end.gmfn()), (7, 0xdead_beef_0000_0007));
    }

    #[test]
    fn a_version_2_entry_reads_as_each_of_its_forms() {
        let hdr = EntryHeader { flags: GTF_PERMIT_ACCESS, domid: DomId::new(3) };
        let mut entry = EntryV2::of(&EntryV2FullPage { hdr, pad0: 0, frame: 0x1234 });
        assert_eq!(entry.get::<EntryHeader>(), hdr);
        assert_eq!(entry.get::<EntryV2SubPage>().frame, 0x1234);
        entry.set(&EntryHeader::default());
        assert_eq!(entry.get::<EntryV2FullPage>(), EntryV2FullPage { frame: 0x1234, ..Default::default() });
    }
}
