//! How an edit changes the tree: tables made, unlinked, split from a block, merged into one.
//!
//! No level-3 table is remembered while these run, so that the counts in memory are true.

use super::access::Broken;
use super::{Edit, Unflushed};
use crate::addr::{BlockSize, Gfn, Pa, Pages};
use crate::descriptor::{Descriptor, ENTRIES, Leaf, retired_link};
use crate::memory::{TableMemory, Tlb};
use crate::tables::{Error, level_order, level_size, size_level};

/// The tables a walk went through; `levels[l]` is set from the root's level to `level`.
pub(super) struct Path {
    pub(super) levels: [(Pa, usize); 4],
    pub(super) level: u8,
    pub(super) entry: Descriptor,
}

impl Path {
    #[inline]
    pub(super) fn at(&self, level: u8) -> (Pa, usize) {
        self.levels[usize::from(level) & 3]
    }
}

impl<M: TableMemory, T: Tlb> Edit<'_, M, T> {
    /// Walks for `gfn`, which lies within the IPA space, and notes the way.
    pub(super) fn path(&self, gfn: Gfn) -> Path {
        let mut level = self.tables.geometry().root_level();
        let mut table = self.tables.root();
        let mut index = (gfn.raw() >> level_order(level)) as usize;
        let mut levels = [(Pa::ZERO, 0); 4];
        loop {
            levels[usize::from(level) & 3] = (table, index);
            let entry = Descriptor::from_raw(self.memory.read(table, index));
            if level == 3 || !entry.is_table() {
                return Path { levels, level, entry };
            }
            table = entry.output();
            level += 1;
            index = (gfn.raw() >> level_order(level)) as usize % ENTRIES;
        }
    }

    /// Adds to the count of entries in use of the table at `level` on `path` and returns it; a root has none.
    #[inline]
    pub(super) fn add_to_count(&mut self, path: &Path, level: u8, change: i64) -> Option<u64> {
        if level == self.tables.geometry().root_level() {
            return None;
        }
        let (parent, index) = path.at(level - 1);
        let entry = Descriptor::from_raw(self.memory.read(parent, index));
        let count = entry.count().wrapping_add_signed(change);
        self.memory.write(parent, index, entry.with_count(count).raw());
        Some(count)
    }

    /// The path to the table at `level` that covers `gfn`, made if missing: of empty entries, or of entries on demand
    /// in place of a larger one. `Mapped` if a larger block is there.
    pub(super) fn table_for(&mut self, gfn: Gfn, level: u8) -> Result<Path, Error> {
        let mut path = self.path(gfn);
        if path.level >= level {
            // A path that goes on below `level` holds a table there, which is never empty.
            return Ok(path);
        }
        if path.entry.is_valid() {
            return Err(Error::Mapped(gfn));
        }
        let missing = usize::from(level - path.level);
        let mut new = [Pa::ZERO; 3];
        for made in 0..missing {
            match self.memory.allocate(0) {
                Some(table) => new[made] = table,
                None => {
                    for &table in &new[..made] {
                        self.memory.free(table, 0);
                    }
                    return Err(Error::NoMemory);
                }
            }
        }
        // The entry about to be written may have been valid a moment ago.
        let order = level_order(path.level);
        if self.pending.meets(Gfn::new(gfn.raw() >> order << order), Pages::new(1 << order)) {
            self.flush();
        }
        let first = path.level;
        let on_demand = path.entry.is_on_demand();
        let in_use = |links: bool| if on_demand { ENTRIES as u64 } else { u64::from(links) };
        for (position, &table) in new[..missing].iter().enumerate() {
            let level = first + 1 + position as u8;
            let index = (gfn.raw() >> level_order(level)) as usize % ENTRIES;
            if on_demand {
                for index in 0..ENTRIES {
                    self.memory.write(table, index, Descriptor::ON_DEMAND.raw());
                }
            }
            if let Some(&next) = new[..missing].get(position + 1) {
                let entry = Descriptor::table(next, in_use(position + 2 < missing));
                self.memory.write(table, index, entry.raw());
            }
            path.levels[usize::from(level) & 3] = (table, index);
        }
        self.memory.publish();
        let (table, index) = path.at(first);
        self.memory.write(table, index, Descriptor::table(new[0], in_use(missing > 1)).raw());
        if !on_demand {
            self.add_to_count(&path, first, 1);
        }
        self.tables.statistics.tables += missing as u64;
        self.unpublished = true;
        path.level = level;
        Ok(path)
    }

    /// Unlinks the empty table at `level` on the way to `gfn`, and the tables above that become empty by it.
    pub(super) fn retire_table(&mut self, gfn: Gfn, level: u8) {
        let path = self.path(gfn);
        let root_level = self.tables.geometry().root_level();
        let mut level = level;
        while level > root_level {
            let (table, _) = path.at(level);
            let (parent, index) = path.at(level - 1);
            self.memory.write(parent, index, Descriptor::INVALID.raw());
            self.memory.write(table, 0, retired_link(self.pending.retired_tables));
            self.pending.retired_tables = Some(table);
            self.pending.table(gfn, level);
            self.tables.statistics.tables -= 1;
            level -= 1;
            if self.add_to_count(&path, level, -1) != Some(0) {
                break;
            }
        }
    }

    /// Unlinks the tables on the way to `gfn` that are empty.
    pub(super) fn prune(&mut self, gfn: Gfn) {
        let path = self.path(gfn);
        if path.level > self.tables.geometry().root_level() {
            let (parent, index) = path.at(path.level - 1);
            if Descriptor::from_raw(self.memory.read(parent, index)).count() == 0 {
                self.retire_table(gfn, path.level);
            }
        }
    }

    /// Makes sure that `count` entries of `size` from `gfn` on, in one table, can be written.
    pub(super) fn prepare(&mut self, gfn: Gfn, size: BlockSize, count: u64) -> Result<(), Error> {
        let level = size_level(size);
        let path = self.table_for(gfn, level)?;
        if path.level > level {
            return Err(Error::Mapped(gfn));
        }
        let (table, index) = path.at(level);
        let entries = count >> size.order();
        for entry in 0..entries {
            if Descriptor::from_raw(self.memory.read(table, index + entry as usize)).is_valid() {
                return Err(Error::Mapped(gfn.wrapping_add(Pages::new(entry << size.order()))));
            }
        }
        Ok(())
    }

    /// Splits the blocks that straddle either end of the range, so that leaves lie inside or outside.
    pub(super) fn split_ends(&mut self, gfn: Gfn, pages: Pages) -> Result<(), Error> {
        self.leave();
        if pages.is_zero() {
            return Ok(());
        }
        let end = gfn.wrapping_add(pages);
        let result = self.split_at(gfn).and_then(|()| self.split_at(end));
        if result.is_err() {
            self.merge(gfn);
            self.merge(end);
        }
        result
    }

    pub(super) fn split_at(&mut self, gfn: Gfn) -> Result<(), Error> {
        while gfn < self.tables.geometry().gfn_limit() {
            let path = self.path(gfn);
            if gfn.is_aligned(level_size(path.level)) {
                break;
            }
            if path.entry.is_valid() {
                self.split_block(gfn, &path)?;
            } else if path.entry.is_on_demand() {
                self.table_for(gfn, path.level + 1)?;
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Replaces the block at the end of `path` by a table: break, invalidate, make (DDI 0487 D8.16.1). A vCPU that
    /// faults in between waits for the p2m lock, finds the page mapped, and tries again.
    pub(super) fn split_block(&mut self, gfn: Gfn, path: &Path) -> Result<(), Error> {
        let (table, index) = path.at(path.level);
        let link = self.break_block(gfn, (table, index), level_size(path.level), path.entry)?;
        self.flush();
        self.memory.write(table, index, link.raw());
        self.unpublished = true;
        Ok(())
    }

    /// The first half of that: the block is broken; what is to be written there after the invalidation is the answer.
    pub(super) fn break_block(
        &mut self,
        gfn: Gfn,
        (table, index): (Pa, usize),
        size: BlockSize,
        block: Descriptor,
    ) -> Result<Descriptor, Error> {
        let Some(smaller) = size.smaller() else { return Ok(block) };
        let new = self.memory.allocate(0).ok_or(Error::NoMemory)?;
        let mut entry = Descriptor::leaf(block.output().mfn(), smaller, block.attributes());
        for index in 0..ENTRIES {
            self.memory.write(new, index, entry.raw());
            entry = entry.advanced(smaller.pages().get());
        }
        self.memory.write(table, index, Descriptor::INVALID.raw());
        self.pending.leaf(Gfn::new(gfn.raw() >> size.order() << size.order()), size);
        let statistics = &mut self.tables.statistics;
        *statistics.of_size(size) -= 1;
        *statistics.of_size(smaller) += ENTRIES as u64;
        statistics.splits += 1;
        statistics.tables += 1;
        Ok(Descriptor::table(new, ENTRIES as u64))
    }

    /// Replaces the table at `level` (2 or 3) on the way to `gfn` by a block if its entries allow it, then the table
    /// above likewise, up to blocks of size `limit`.
    pub(super) fn merge_table(&mut self, gfn: Gfn, level: u8, limit: BlockSize) {
        let mut level = level;
        while level >= 2 && level_size(level - 1) <= limit && self.join(&[gfn], level) {
            level -= 1;
        }
    }

    /// Replaces the tables at `level` on the ways to `gfns` by blocks where their entries allow it: all are broken, invalidated
    /// once, and made. Whether there was one.
    pub(super) fn join(&mut self, gfns: &[Gfn], level: u8) -> bool {
        let mut broken = Broken::none();
        for &gfn in gfns.iter().take(Broken::MOST) {
            let Some((place, table, block)) = self.block_of(gfn, level) else { continue };
            let (small, large) = (level_size(level), level_size(level - 1));
            self.memory.write(place.0, place.1, Descriptor::INVALID.raw());
            self.pending.range(Gfn::new(gfn.raw() >> large.order() << large.order()), large.pages(), small);
            self.memory.write(table, 0, retired_link(self.pending.retired_tables));
            self.pending.retired_tables = Some(table);
            broken.push(place, block);
            let statistics = &mut self.tables.statistics;
            *statistics.of_size(small) -= ENTRIES as u64;
            *statistics.of_size(large) += 1;
            statistics.merges += 1;
            statistics.tables -= 1;
        }
        if broken.is_empty() {
            return false;
        }
        self.make(&broken);
        true
    }

    /// The block that the table at `level` (2 or 3) on the way to `gfn` could be: where its link is, the table, the block.
    fn block_of(&self, gfn: Gfn, level: u8) -> Option<((Pa, usize), Pa, Descriptor)> {
        let root_level = self.tables.geometry().root_level();
        if level <= root_level || gfn >= self.tables.geometry().gfn_limit() {
            return None;
        }
        let path = self.path(gfn);
        if path.level < level {
            return None;
        }
        let place = path.at(level - 1);
        let link = Descriptor::from_raw(self.memory.read(place.0, place.1));
        let (table, large) = (link.output(), level_size(level - 1));
        if !link.is_table() || link.count() != ENTRIES as u64 {
            return None;
        }
        let first = Descriptor::from_raw(self.memory.read(table, 0));
        if !first.is_valid() || level < 3 && first.is_table() || !first.output().mfn().is_aligned(large) {
            return None;
        }
        // The last entry first: scattered pages are told at once.
        let step = level_size(level).pages().get();
        let alike =
            |index: usize| self.memory.read(table, index) == first.advanced(step * index as u64).raw();
        let is_block = alike(ENTRIES - 1) && (1..ENTRIES - 1).all(alike);
        is_block.then(|| (place, table, Descriptor::leaf(first.output().mfn(), large, first.attributes())))
    }

    /// Unmaps the leaves that reach into `from..end`, as a whole, and what is on demand there. Returns where the budget
    /// was used up.
    pub(super) fn unmap_leaves(
        &mut self,
        from: Gfn,
        end: Gfn,
        budget: &mut u64,
        mut sink: impl FnMut(Unflushed<Leaf>),
    ) -> Option<Gfn> {
        let mut gfn = from;
        while gfn < end {
            if *budget == 0 {
                return Some(gfn);
            }
            self.leave();
            let path = self.path(gfn);
            let order = level_order(path.level);
            if path.level == 3 {
                self.remember(gfn, &path);
                let stop = Gfn::new(((gfn.raw() >> 9) + 1) << 9).min(end);
                while gfn < stop {
                    // An empty table has no more to give.
                    if self.leaf_table.valid == 0 {
                        gfn = stop;
                        break;
                    }
                    if *budget == 0 {
                        return Some(gfn);
                    }
                    *budget -= 1;
                    if let Some(leaf) = self.unmap_in_leaf_table(gfn) {
                        sink(leaf);
                    }
                    gfn = gfn.wrapping_add(Pages::ONE);
                }
                continue;
            }
            *budget -= 1;
            if path.entry.is_valid() {
                let size = level_size(path.level);
                let base = Gfn::new(gfn.raw() >> order << order);
                let (table, index) = path.at(path.level);
                self.memory.write(table, index, Descriptor::INVALID.raw());
                *self.tables.statistics.of_size(size) -= 1;
                self.pending.leaf(base, size);
                if self.add_to_count(&path, path.level, -1) == Some(0) {
                    self.retire_table(gfn, path.level);
                }
                sink(Unflushed(Leaf::new(base, size, path.entry)));
            } else if path.entry.is_on_demand() {
                let (table, index) = path.at(path.level);
                self.memory.write(table, index, Descriptor::INVALID.raw());
                self.tables.statistics.on_demand -= level_size(path.level).pages().get();
                self.unpublished = true;
                if self.add_to_count(&path, path.level, -1) == Some(0) {
                    self.retire_table(gfn, path.level);
                }
            }
            gfn = Gfn::new(((gfn.raw() >> order) + 1) << order);
        }
        None
    }

    /// Calls `visit` for each entry in `from..end` that is a leaf, maybe broken. No table is made or freed meanwhile.
    pub(super) fn each_entry(
        &mut self,
        from: Gfn,
        end: Gfn,
        mut visit: impl FnMut(&mut Self, Gfn, (Pa, usize), BlockSize, Descriptor),
    ) {
        let mut gfn = from;
        while gfn < end {
            let slot = self.tables.walk(self.memory, gfn);
            if slot.entry != Descriptor::INVALID && !slot.entry.is_on_demand() {
                visit(self, gfn, (slot.table, slot.index), level_size(slot.level), slot.entry);
            }
            let order = level_order(slot.level);
            gfn = Gfn::new(((gfn.raw() >> order) + 1) << order);
        }
    }
}
