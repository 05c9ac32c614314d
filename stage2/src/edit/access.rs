//! Access flags: which of some chosen pages the guest uses.
//!
//! ```text
//!  watch ──▶ flag clear ──▶ the guest uses the page: hardware sets the flag (VTCR_EL2.HA), or it faults and `accessed` does
//!                └─────────▶ later, `accessed` says whether the flag is set, and sets it; `rejoin` makes blocks again
//! ```
//! A page is watched by itself: a block around it is split, since one access anywhere in 2 MiB says little.
//!
//! The flag may be cleared in place, and counts for a TLB that has the entry once that is invalidated; an entry whose flag is clear
//! is in no TLB, so setting it needs no invalidation (DDI 0487 D8.5.1). Hardware changes nothing
//! but the flag, from 0 to 1, atomically and in a valid entry only (D8.5): no write here can undo another's.

use super::{Edit, Gfn};
use crate::addr::{BlockSize, Pa};
use crate::descriptor::{Descriptor, ENTRIES};
use crate::memory::{TableMemory, Tlb};
use crate::tables::level_size;

/// Entries that were broken together and are made together, after one invalidation.
pub(super) struct Broken {
    entries: [(Pa, usize, Descriptor); Self::MOST],
    count: usize,
}

impl Broken {
    /// Pages, and blocks around them, in one call.
    pub(super) const MOST: usize = 32;

    pub(super) fn none() -> Self {
        Self { entries: [(Pa::ZERO, 0, Descriptor::INVALID); Self::MOST], count: 0 }
    }

    /// Notes what the entry shall be. Room is the caller's business.
    pub(super) fn push(&mut self, (table, index): (Pa, usize), descriptor: Descriptor) {
        if let Some(entry) = self.entries.get_mut(self.count) {
            *entry = (table, index, descriptor);
            self.count += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<M: TableMemory, T: Tlb> Edit<'_, M, T> {
    /// Pages that [`watch`](Self::watch) and [`rejoin`](Self::rejoin) look at; those beyond are left alone.
    pub const PAGES: usize = Broken::MOST;

    /// Clears the access flags of those of `gfns` that are the domain's own memory, and whose flags are set; `each` gets them.
    /// All blocks around them are broken, then invalidated once, then made as tables. Those that follow one in the same block,
    /// and those for whose table there is no memory, are passed over.
    pub fn watch(&mut self, gfns: &[Gfn], mut each: impl FnMut(Gfn)) {
        self.leave();
        let mut broken = Broken::none();
        for &gfn in gfns.iter().take(Self::PAGES) {
            let Some((table, index, size, entry)) = self.own_page(gfn).filter(|page| page.3.is_accessed())
            else {
                continue;
            };
            match size {
                BlockSize::Page4K => {
                    self.memory.write(table, index, entry.with_accessed(false).raw());
                    self.pending.leaf(gfn, size);
                }
                BlockSize::Block2M => {
                    let Ok(link) = self.break_block(gfn, (table, index), size, entry) else { continue };
                    let place = gfn.raw() as usize % ENTRIES;
                    let page = Descriptor::from_raw(self.memory.read(link.output(), place));
                    self.memory.write(link.output(), place, page.with_accessed(false).raw());
                    broken.push((table, index), link);
                }
                // Once in the life of such a block: it comes back as blocks of 2 MiB.
                BlockSize::Block1G => {
                    let _ = self.split(gfn, BlockSize::Block2M);
                    continue;
                }
            }
            each(gfn);
        }
        self.make(&broken);
    }

    /// Whether the access flag of the page of the domain's own at `gfn` is set, and sets it. `None` where there is none.
    pub fn accessed(&mut self, gfn: Gfn) -> Option<bool> {
        let (table, index, _, entry) = self.own_page(gfn)?;
        if !entry.is_accessed() {
            self.memory.write(table, index, entry.with_accessed(true).raw());
            self.unpublished = true;
        }
        Some(entry.is_accessed())
    }

    /// Makes the 2 MiB around each of `gfns` a block, where its pages allow it, with one invalidation for all.
    pub fn rejoin(&mut self, gfns: &[Gfn]) {
        self.leave();
        self.join(gfns, 3);
    }

    /// Where the leaf for `gfn` is, if it is the domain's own memory.
    fn own_page(&self, gfn: Gfn) -> Option<(Pa, usize, BlockSize, Descriptor)> {
        if gfn >= self.tables.geometry().gfn_limit() {
            return None;
        }
        let slot = self.tables.walk(self.memory, gfn);
        slot.entry.is_own_memory().then(|| (slot.table, slot.index, level_size(slot.level), slot.entry))
    }

    /// Invalidates, and writes the entries that were broken.
    pub(super) fn make(&mut self, broken: &Broken) {
        self.flush();
        for &(table, index, descriptor) in broken.entries.iter().take(broken.count) {
            self.memory.write(table, index, descriptor.raw());
            self.unpublished = true;
        }
    }
}
