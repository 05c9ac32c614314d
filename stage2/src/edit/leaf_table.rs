//! The level-3 table an edit remembers, so that neighbouring pages need no walk.
//!
//! Its count of entries in use is kept here and written to its parent's descriptor when the edit leaves it.

use super::Edit;
use super::structure::Path;
use crate::addr::{BlockSize, Gfn, Mfn, Pa};
use crate::descriptor::{Descriptor, ENTRIES, PageType};
use crate::memory::{TableMemory, Tlb};
use crate::tables::Error;

/// Where a page's frame should lie, so that the 2 MiB around the page can become one block again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// There, beside the frames of the pages around it.
    At(Mfn),
    /// That far into any block of 2 MiB: the page is the first one.
    InBlock(usize),
    /// Anywhere.
    Any,
}

/// The level-3 table the last page operation used. Its count of entries in use is newer than the one in memory.
pub(super) struct LeafTable {
    /// `gfn >> 9` of the pages it covers; [`Self::NO_REGION`] when there is no table.
    pub(super) region: u64,
    pub(super) table: Pa,
    pub(super) valid: u64,
    pub(super) valid_in_memory: u64,
    pub(super) parent: Pa,
    pub(super) parent_index: usize,
}

impl LeafTable {
    pub(super) const NO_REGION: u64 = u64::MAX;

    /// No table.
    #[inline]
    pub(super) fn none() -> Self {
        Self {
            region: Self::NO_REGION,
            table: Pa::ZERO,
            valid: 0,
            valid_in_memory: 0,
            parent: Pa::ZERO,
            parent_index: 0,
        }
    }
}

impl<M: TableMemory, T: Tlb> Edit<'_, M, T> {
    /// Stops remembering the level-3 table: its count goes to memory; empty, it is unlinked; full, it is merged.
    #[inline]
    pub(super) fn leave(&mut self) {
        if self.leaf_table.region != LeafTable::NO_REGION {
            self.leave_table();
        }
    }

    pub(super) fn leave_table(&mut self) {
        let gfn = Gfn::new(self.leaf_table.region << 9);
        self.leaf_table.region = LeafTable::NO_REGION;
        let leaf_table = &self.leaf_table;
        if leaf_table.valid == 0 {
            self.retire_table(gfn, 3);
        } else if leaf_table.valid != leaf_table.valid_in_memory {
            let entry = Descriptor::table(leaf_table.table, leaf_table.valid);
            self.memory.write(leaf_table.parent, leaf_table.parent_index, entry.raw());
            if self.leaf_table.valid == ENTRIES as u64 {
                self.merge_table(gfn, 3, BlockSize::Block2M);
            }
        }
    }

    /// Where the frame for `gfn` should lie. Makes the table for it.
    pub fn place(&mut self, gfn: Gfn) -> Place {
        /// Pages seen out of place before giving up.
        const STRANGERS: u32 = 8;
        if gfn.raw() >> 9 != self.leaf_table.region && self.enter_to_map(gfn).is_err() {
            return Place::Any;
        }
        let index = gfn.raw() as usize % ENTRIES;
        let mut strangers = 0;
        // The page before it first: that is the one that was mapped last, most often.
        for back in 1..ENTRIES {
            let at = index.wrapping_sub(back) % ENTRIES;
            let entry = Descriptor::from_raw(self.memory.read(self.leaf_table.table, at));
            if !entry.is_valid() || entry.attributes().page_type() != PageType::Ram {
                continue;
            }
            let block = entry.output().mfn().raw().wrapping_sub(at as u64);
            if block.is_multiple_of(ENTRIES as u64) {
                return Place::At(Mfn::new(block + index as u64));
            }
            strangers += 1;
            if strangers == STRANGERS {
                break;
            }
        }
        if strangers == 0 { Place::InBlock(index) } else { Place::Any }
    }

    /// Remembers the level-3 table at the end of `path`.
    pub(super) fn remember(&mut self, gfn: Gfn, path: &Path) {
        let (parent, parent_index) = path.at(2);
        let valid = Descriptor::from_raw(self.memory.read(parent, parent_index)).count();
        let (table, _) = path.at(3);
        self.leaf_table =
            LeafTable { region: gfn.raw() >> 9, table, valid, valid_in_memory: valid, parent, parent_index };
    }

    #[inline(never)]
    pub(super) fn enter_to_map(&mut self, gfn: Gfn) -> Result<(), Error> {
        if gfn >= self.tables.geometry().gfn_limit() {
            return Err(Error::OutOfRange);
        }
        self.leave();
        let path = self.table_for(gfn, 3)?;
        self.remember(gfn, &path);
        Ok(())
    }

    /// Whether there is now a remembered table that covers `gfn`.
    #[inline(never)]
    pub(super) fn enter_to_unmap(&mut self, gfn: Gfn) -> Result<bool, Error> {
        if gfn >= self.tables.geometry().gfn_limit() {
            return Ok(false);
        }
        self.leave();
        loop {
            let path = self.path(gfn);
            if path.level == 3 {
                self.remember(gfn, &path);
                return Ok(true);
            }
            if path.entry.is_on_demand() {
                self.table_for(gfn, 3)?;
            } else if path.entry.is_valid() {
                self.split_block(gfn, &path)?;
            } else {
                return Ok(false);
            }
        }
    }
}
