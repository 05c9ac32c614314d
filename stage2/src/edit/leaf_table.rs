//! The level-3 table an edit remembers, so that neighbouring pages need no walk.
//!
//! Its count of valid entries is kept here and written to its parent's descriptor when the edit leaves it.

use super::Edit;
use super::structure::Path;
use crate::addr::{BlockSize, Gfn, Pa};
use crate::descriptor::{Descriptor, ENTRIES};
use crate::memory::{TableMemory, Tlb};
use crate::tables::Error;

/// The level-3 table the last page operation used. Its count of valid entries is newer than the one in memory.
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
            if !path.entry.is_valid() {
                return Ok(false);
            }
            self.split_block(gfn, &path)?;
        }
    }
}
