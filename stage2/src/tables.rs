//! One domain's stage 2: its root, how it is read, and what is counted about it. Changes go through [`Edit`].
//!
//! The entries live in [`TableMemory`]; here are only the root's address, the shape and the counters. The owner is
//! the domain, under its p2m lock: read for [`Tables::lookup`] and [`Tables::next_leaf`], write for an [`Edit`].

use crate::addr::{BlockSize, Gfn, Ipa, Pa, Pages, Vmid};
use crate::descriptor::{Descriptor, ENTRIES, Leaf};
use crate::edit::Edit;
use crate::geometry::{Geometry, vttbr};
use crate::memory::{TableMemory, Tlb};

/// Why an operation was refused. The map is what it was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The range leaves the domain's IPA space or the 48-bit physical space.
    OutOfRange,
    /// A block's guest or machine frame is not a multiple of its size.
    Misaligned,
    /// Something is mapped at this frame already; it must be unmapped first.
    Mapped(Gfn),
    /// There is no memory for a table.
    NoMemory,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("beyond the address space"),
            Self::Misaligned => f.write_str("not aligned to the block size"),
            Self::Mapped(gfn) => write!(f, "gfn {gfn} is mapped already"),
            Self::NoMemory => f.write_str("no memory for a translation table"),
        }
    }
}

impl core::error::Error for Error {}

/// Counters of one domain's stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Statistics {
    /// 4 KiB pages mapped.
    pub pages_4k: u64,
    /// 2 MiB blocks mapped.
    pub blocks_2m: u64,
    /// 1 GiB blocks mapped.
    pub blocks_1g: u64,
    /// Pages that get their backing on first touch.
    pub on_demand: u64,
    /// Tables below the root, one page each.
    pub tables: u64,
    /// Blocks split into the next smaller size, since creation.
    pub splits: u64,
    /// Tables replaced by a block, since creation.
    pub merges: u64,
    /// TLB invalidations (one for a whole batch), since creation.
    pub invalidations: u64,
}

impl Statistics {
    /// Everything mapped, in pages.
    #[inline]
    pub const fn mapped(&self) -> Pages {
        Pages::new(self.pages_4k + (self.blocks_2m << 9) + (self.blocks_1g << 18))
    }

    #[inline]
    pub(crate) fn of_size(&mut self, size: BlockSize) -> &mut u64 {
        match size {
            BlockSize::Page4K => &mut self.pages_4k,
            BlockSize::Block2M => &mut self.blocks_2m,
            BlockSize::Block1G => &mut self.blocks_1g,
        }
    }
}

/// What [`Tables::next_leaf`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// This leaf; go on from its [`Leaf::end`].
    Leaf(Leaf),
    /// Nothing more is mapped before the end.
    End,
    /// The budget is used up; go on from this frame.
    Preempted(Gfn),
}

/// Whether a preemptible operation came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Progress {
    /// It did.
    Done,
    /// The budget was used up first; call again.
    Preempted,
}

/// Log2 of the pages an entry at `level` covers.
#[inline]
pub(crate) const fn level_order(level: u8) -> u32 {
    27 - 9 * level as u32
}

/// The size of a leaf at `level`; level 0 has none and is never asked.
#[inline]
pub(crate) const fn level_size(level: u8) -> BlockSize {
    match level {
        3 => BlockSize::Page4K,
        2 => BlockSize::Block2M,
        _ => BlockSize::Block1G,
    }
}

/// The level at which a leaf of `size` is found.
#[inline]
pub(crate) const fn size_level(size: BlockSize) -> u8 {
    match size {
        BlockSize::Page4K => 3,
        BlockSize::Block2M => 2,
        BlockSize::Block1G => 1,
    }
}

/// Where a walk stopped: at a leaf, or at an invalid entry.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) table: Pa,
    pub(crate) index: usize,
    pub(crate) level: u8,
    pub(crate) entry: Descriptor,
}

/// One domain's stage-2 translation tables.
#[derive(Debug)]
pub struct Tables {
    pub(crate) root: Pa,
    pub(crate) geometry: Geometry,
    pub(crate) statistics: Statistics,
    teardown_from: Gfn,
}

impl Tables {
    /// Empty tables with a root of the shape `geometry` asks for.
    pub fn new<M: TableMemory>(geometry: Geometry, memory: &mut M) -> Result<Self, Error> {
        let root = memory.allocate(geometry.root_pages_log2()).ok_or(Error::NoMemory)?;
        memory.publish();
        Ok(Self { root, geometry, statistics: Statistics::default(), teardown_from: Gfn::ZERO })
    }

    /// The root's address.
    #[inline]
    pub fn root(&self) -> Pa {
        self.root
    }

    /// The shape.
    #[inline]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// `VTTBR_EL2` for these tables and `vmid`.
    #[inline]
    pub fn vttbr(&self, vmid: Vmid) -> u64 {
        vttbr(self.root, vmid)
    }

    /// The counters.
    #[inline]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Whether `pages` from `gfn` on lie within the IPA space.
    #[inline]
    pub fn contains(&self, gfn: Gfn, pages: Pages) -> bool {
        let limit = self.geometry.gfn_limit().raw();
        gfn.raw() <= limit && pages.get() <= limit - gfn.raw()
    }

    /// Where the walk for `gfn`, which lies within the IPA space, stops.
    #[inline]
    pub(crate) fn walk<M: TableMemory>(&self, memory: &M, gfn: Gfn) -> Slot {
        let mut level = self.geometry.root_level();
        let mut table = self.root;
        let mut index = (gfn.raw() >> level_order(level)) as usize;
        loop {
            let entry = Descriptor::from_raw(memory.read(table, index));
            if level == 3 || !entry.is_table() {
                return Slot { table, index, level, entry };
            }
            table = entry.output();
            level += 1;
            index = (gfn.raw() >> level_order(level)) as usize % ENTRIES;
        }
    }

    /// The leaf that maps `gfn`.
    #[inline]
    pub fn lookup_gfn<M: TableMemory>(&self, memory: &M, gfn: Gfn) -> Option<Leaf> {
        if gfn >= self.geometry.gfn_limit() {
            return None;
        }
        let slot = self.walk(memory, gfn);
        if !slot.entry.is_valid() {
            return None;
        }
        let base = Gfn::new(gfn.raw() >> level_order(slot.level) << level_order(slot.level));
        Some(Leaf::new(base, level_size(slot.level), slot.entry))
    }

    /// The leaf that maps `ipa`.
    #[inline]
    pub fn lookup<M: TableMemory>(&self, memory: &M, ipa: Ipa) -> Option<Leaf> {
        self.lookup_gfn(memory, ipa.gfn())
    }

    /// The size of the entry by which `gfn` is memory on demand; `None` if it is not.
    pub fn on_demand<M: TableMemory>(&self, memory: &M, gfn: Gfn) -> Option<BlockSize> {
        if gfn >= self.geometry.gfn_limit() {
            return None;
        }
        let slot = self.walk(memory, gfn);
        slot.entry.is_on_demand().then(|| level_size(slot.level))
    }

    /// Whether nothing is mapped in the naturally aligned extent of `size` around `gfn`: whether it could be mapped
    /// by one block. False beyond the IPA space.
    pub fn is_vacant<M: TableMemory>(&self, memory: &M, gfn: Gfn, size: BlockSize) -> bool {
        if gfn >= self.geometry.gfn_limit() {
            return false;
        }
        let slot = self.walk(memory, gfn);
        !slot.entry.is_valid() && slot.level <= size_level(size)
    }

    /// The first leaf that reaches into `from..end`. Each entry inspected costs one of `budget`, so that a caller
    /// can stop, and go on later from where the answer says. A leaf may begin before `from`.
    pub fn next_leaf<M: TableMemory>(&self, memory: &M, from: Gfn, end: Gfn, budget: &mut u64) -> Next {
        let end = end.min(self.geometry.gfn_limit());
        let mut gfn = from;
        while gfn < end {
            let mut slot = self.walk(memory, gfn);
            let order = level_order(slot.level);
            let entries =
                if slot.level == self.geometry.root_level() { self.geometry.root_entries() } else { ENTRIES };
            while slot.index < entries && gfn < end {
                if *budget == 0 {
                    return Next::Preempted(gfn);
                }
                *budget -= 1;
                slot.entry = Descriptor::from_raw(memory.read(slot.table, slot.index));
                let base = gfn.raw() >> order;
                if slot.entry.is_valid() {
                    if slot.level != 3 && slot.entry.is_table() {
                        break;
                    }
                    return Next::Leaf(Leaf::new(
                        Gfn::new(base << order),
                        level_size(slot.level),
                        slot.entry,
                    ));
                }
                gfn = Gfn::new((base + 1) << order);
                slot.index += 1;
            }
        }
        Next::End
    }

    /// The first extent of 1 GiB in `from..end`, a multiple of that, in which there may be memory of the domain's own. Each entry
    /// inspected costs one of `budget`; `None` when that is used up, or there is none.
    pub fn next_extent<M: TableMemory>(
        &self,
        memory: &M,
        from: Gfn,
        end: Gfn,
        budget: &mut u64,
    ) -> Option<Gfn> {
        let end = end.min(self.geometry.gfn_limit());
        let mut gfn = from;
        while gfn < end && *budget > 0 {
            *budget -= 1;
            let slot = self.walk(memory, gfn);
            if slot.level > 1 || slot.entry.is_own_memory() {
                return Some(gfn);
            }
            let order = level_order(slot.level);
            gfn = Gfn::new(((gfn.raw() >> order) + 1) << order);
        }
        None
    }

    /// The leaves that reach into `from..end`, in order, without a budget.
    pub fn leaves<'a, M: TableMemory>(
        &'a self,
        memory: &'a M,
        from: Gfn,
        end: Gfn,
    ) -> impl Iterator<Item = Leaf> + 'a {
        let mut from = from;
        core::iter::from_fn(move || match self.next_leaf(memory, from, end, &mut { u64::MAX }) {
            Next::Leaf(leaf) => {
                from = leaf.end();
                Some(leaf)
            }
            Next::End | Next::Preempted(_) => None,
        })
    }

    /// Begins a batch of changes.
    #[inline]
    pub fn edit<'a, M: TableMemory, T: Tlb>(
        &'a mut self,
        memory: &'a mut M,
        tlb: &'a mut T,
    ) -> Edit<'a, M, T> {
        Edit::new(self, memory, tlb)
    }

    /// Takes a dead domain's mappings down, handing each to `release`, and frees the tables below the root. Entries
    /// cost one of `budget` each; call until [`Progress::Done`], then [`free`](Self::free).
    ///
    /// No vCPU of the domain runs or will run, and no CPU has its root in `VTTBR_EL2`, where even an idle CPU would
    /// walk it speculatively. So one invalidation at the start is enough: nothing refills the TLBs,
    /// and `release` may hand the memory to others at once.
    pub fn teardown<M: TableMemory, T: Tlb>(
        &mut self,
        memory: &mut M,
        tlb: &mut T,
        budget: &mut u64,
        mut release: impl FnMut(Leaf),
    ) -> Progress {
        if self.teardown_from == Gfn::ZERO {
            memory.publish();
            tlb.invalidate_all();
            self.statistics.invalidations += 1;
        }
        let from = self.teardown_from;
        let mut quiet = Quiet;
        let mut edit = Edit::new(self, memory, &mut quiet);
        let reached = edit.drain(from, budget, |leaf| release(leaf.open_dead()));
        drop(edit);
        match reached {
            None => {
                self.teardown_from = Gfn::ZERO;
                Progress::Done
            }
            Some(gfn) => {
                self.teardown_from = gfn;
                Progress::Preempted
            }
        }
    }

    /// Frees the root of empty tables. If something is mapped, gives the tables back.
    pub fn free<M: TableMemory>(self, memory: &mut M) -> Result<(), Self> {
        let Statistics { tables, on_demand, .. } = self.statistics;
        if tables != 0 || on_demand != 0 || !self.statistics.mapped().is_zero() {
            return Err(self);
        }
        memory.free(self.root, self.geometry.root_pages_log2());
        Ok(())
    }
}

/// The TLBs of a domain that never runs again and was invalidated: there is nothing left to do.
struct Quiet;

impl Tlb for Quiet {
    fn invalidate_range(&mut self, _start: Ipa, _pages: Pages, _stride: BlockSize) {}
    fn invalidate_all(&mut self) {}
}
