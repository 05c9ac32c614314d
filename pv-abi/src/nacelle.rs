//! What only Nacelle has, under numbers that Xen answers with `ENOSYS`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::DomId;

/// `memory_op`: how a domain's memory is mapped: [`MemoryCounters`]. Xen's numbers end at 28; there is room for 63.
pub const XENMEM_NACELLE_COUNTERS: u32 = 62;

/// [`XENMEM_NACELLE_COUNTERS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct MemoryCounters {
    /// In: whose memory.
    pub domid: DomId,
    /// Zero.
    pub _pad: [u16; 3],
    /// 4 KiB pages mapped.
    pub pages_4k: u64,
    /// 2 MiB blocks mapped.
    pub blocks_2m: u64,
    /// 1 GiB blocks mapped.
    pub blocks_1g: u64,
    /// Pages that get their backing on first touch.
    pub on_demand: u64,
    /// Free frames set aside for these.
    pub reserved: u64,
    /// Free frames set aside for what the domain will ask for.
    pub claimed: u64,
    /// First touches served, since creation.
    pub faults: u64,
    /// Blocks split into the next smaller size, since creation.
    pub splits: u64,
    /// Tables replaced by a block, since creation.
    pub merges: u64,
    /// TLB invalidations, since creation.
    pub invalidations: u64,
    /// Pages that tables take below the root.
    pub tables: u64,
}

/// `memory_op`: how many of a domain's pages are in use, by sample: [`WorkingSet`].
pub const XENMEM_NACELLE_WORKING_SET: u32 = 61;

/// Pages that [`XENMEM_NACELLE_WORKING_SET`] watches at most.
pub const WORKING_SET_MOST: u64 = 1024;

/// [`XENMEM_NACELLE_WORKING_SET`]: what became of the pages that the last call chose, and how many to choose now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct WorkingSet {
    /// In: whose memory.
    pub domid: DomId,
    /// Zero.
    pub _pad: [u16; 3],
    /// In: pages to choose at random and to watch until the next call, up to [`WORKING_SET_MOST`]; 0 ends it. Out: as many
    /// as were found.
    pub watch: u64,
    /// Out: pages that were watched, and that the domain still has.
    pub sampled: u64,
    /// Out: of these, how many it used meanwhile.
    pub touched: u64,
    /// Out: for how long, in nanoseconds.
    pub period: u64,
    /// Out: 4 KiB pages of its own memory that are mapped: the whole of which this was a sample.
    pub mapped: u64,
    /// Out: access-flag faults that this cost the domain, since creation; few where the CPU sets the flags itself.
    pub faults: u64,
}
