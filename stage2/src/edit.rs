//! A batch of changes to one domain's stage 2: it remembers the last table and invalidates once, at its end.

use crate::addr::{BlockSize, Gfn, Mfn, Pa, Pages};
use crate::descriptor::{Attributes, Descriptor, ENTRIES, Leaf, MFN_LIMIT, retired_link, retired_next};
use crate::memory::{TableMemory, Tlb};
use crate::pending::Pending;
use crate::tables::{Error, Tables, level_order, level_size, size_level};

/// Something a TLB may still translate to. It may be looked at, counted and queued, but not be used for anything
/// else before [`Edit::finish`] gave the token that opens it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what was unmapped must be released after the batch is finished"]
pub struct Unflushed<T>(T);

impl<T> Unflushed<T> {
    /// What it is, for accounting.
    #[inline]
    pub const fn peek(&self) -> &T {
        &self.0
    }

    /// What it is, to be used again. The token is that of the batch which handed this out.
    #[inline]
    pub fn open(self, _flushed: &Flushed) -> T {
        self.0
    }

    /// What it is, of a domain that never runs again and was invalidated before.
    #[inline]
    pub(crate) fn open_dead(self) -> T {
        self.0
    }
}

/// The proof that a batch is finished and no TLB holds what it unmapped.
#[derive(Debug)]
pub struct Flushed(());

/// The level-3 table the last page operation used. Its count of valid entries is newer than the one in memory.
struct LeafTable {
    /// `gfn >> 9` of the pages it covers; [`LeafTable::NONE`] when there is no table.
    region: u64,
    table: Pa,
    valid: u64,
    valid_in_memory: u64,
    parent: Pa,
    parent_index: usize,
}

impl LeafTable {
    const NO_REGION: u64 = u64::MAX;
    const NONE: Self = Self {
        region: Self::NO_REGION,
        table: Pa::ZERO,
        valid: 0,
        valid_in_memory: 0,
        parent: Pa::ZERO,
        parent_index: 0,
    };
}

/// The tables a walk went through; `levels[l]` is set from the root's level to `level`.
struct Path {
    levels: [(Pa, usize); 4],
    level: u8,
    entry: Descriptor,
}

impl Path {
    #[inline]
    fn at(&self, level: u8) -> (Pa, usize) {
        self.levels[usize::from(level) & 3]
    }
}

/// A batch of changes. See the [crate's documentation](crate) for its life.
pub struct Edit<'a, M: TableMemory, T: Tlb> {
    tables: &'a mut Tables,
    memory: &'a mut M,
    tlb: &'a mut T,
    leaf_table: LeafTable,
    pending: Pending,
    /// Entries were made valid that walkers need not see yet.
    unpublished: bool,
}

impl<M: TableMemory, T: Tlb> Drop for Edit<'_, M, T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<'a, M: TableMemory, T: Tlb> Edit<'a, M, T> {
    #[inline]
    pub(crate) fn new(tables: &'a mut Tables, memory: &'a mut M, tlb: &'a mut T) -> Self {
        Self { tables, memory, tlb, leaf_table: LeafTable::NONE, pending: Pending::NONE, unpublished: false }
    }

    /// Ends the batch: at most one invalidation, and what was unmapped may be used again. Dropping the batch does
    /// the same without giving the token.
    #[inline]
    pub fn finish(mut self) -> Flushed {
        self.close();
        core::mem::forget(self);
        Flushed(())
    }

    /// The leaf that maps `gfn` now.
    #[inline]
    pub fn lookup(&self, gfn: Gfn) -> Option<Leaf> {
        self.tables.lookup_gfn(self.memory, gfn)
    }

    /// The counters.
    #[inline]
    pub fn tables(&self) -> &Tables {
        self.tables
    }

    // ---- single pages: the fast path ----

    /// Maps one page. A table that thereby becomes full is merged into a block when the batch leaves it and its
    /// pages allow it.
    #[inline]
    pub fn map_page(&mut self, gfn: Gfn, mfn: Mfn, attributes: Attributes) -> Result<(), Error> {
        if mfn >= MFN_LIMIT {
            return Err(Error::OutOfRange);
        }
        if gfn.raw() >> 9 != self.leaf_table.region {
            self.enter_to_map(gfn)?;
        }
        let index = gfn.raw() as usize % ENTRIES;
        if Descriptor::from_raw(self.memory.read(self.leaf_table.table, index)).is_valid() {
            return Err(Error::Mapped(gfn));
        }
        if self.pending.meets(gfn, Pages::ONE) {
            self.flush();
        }
        self.memory.write(self.leaf_table.table, index, Descriptor::page(mfn, attributes).raw());
        self.leaf_table.valid += 1;
        self.tables.statistics.pages_4k += 1;
        self.unpublished = true;
        Ok(())
    }

    /// Unmaps one page, splitting the block it is part of. `None` if nothing is mapped there. Fails only when a
    /// split needs a table and there is no memory for it.
    #[inline]
    pub fn unmap_page(&mut self, gfn: Gfn) -> Result<Option<Unflushed<Leaf>>, Error> {
        if gfn.raw() >> 9 != self.leaf_table.region && !self.enter_to_unmap(gfn)? {
            return Ok(None);
        }
        Ok(self.unmap_in_leaf_table(gfn))
    }

    /// Unmaps `gfn`, which the remembered table covers.
    #[inline]
    fn unmap_in_leaf_table(&mut self, gfn: Gfn) -> Option<Unflushed<Leaf>> {
        let index = gfn.raw() as usize % ENTRIES;
        let entry = Descriptor::from_raw(self.memory.read(self.leaf_table.table, index));
        if !entry.is_valid() {
            return None;
        }
        self.memory.write(self.leaf_table.table, index, Descriptor::INVALID.raw());
        self.leaf_table.valid -= 1;
        self.tables.statistics.pages_4k -= 1;
        self.pending.leaf(gfn, BlockSize::Page4K);
        Some(Unflushed(Leaf::new(gfn, BlockSize::Page4K, entry)))
    }

    // ---- ranges ----

    /// Maps `pages` frames from `gfn` on to those from `mfn` on, with the largest blocks that fit. All or nothing.
    pub fn map(&mut self, gfn: Gfn, mfn: Mfn, pages: Pages, attributes: Attributes) -> Result<(), Error> {
        self.check_range(gfn, mfn, pages)?;
        self.leave();
        let mut done = 0;
        while let Some((at, _, size, count)) = chunk(gfn, mfn, pages, done) {
            if let Err(error) = self.prepare(at, size, count) {
                let mut prepared = 0;
                while prepared <= done
                    && let Some((at, _, _, count)) = chunk(gfn, mfn, pages, prepared)
                {
                    self.prune(at);
                    prepared += count;
                }
                return Err(error);
            }
            done += count;
        }
        let mut done = 0;
        while let Some((at, to, size, count)) = chunk(gfn, mfn, pages, done) {
            if size == BlockSize::Page4K {
                for page in 0..count {
                    let page = Pages::new(page);
                    self.map_page(at.wrapping_add(page), to.wrapping_add(page), attributes)?;
                }
            } else {
                self.map_block(at, to, size, attributes)?;
            }
            done += count;
        }
        Ok(())
    }

    /// Maps one extent by one entry.
    pub fn map_block(
        &mut self,
        gfn: Gfn,
        mfn: Mfn,
        size: BlockSize,
        attributes: Attributes,
    ) -> Result<(), Error> {
        if size == BlockSize::Page4K {
            return self.map_page(gfn, mfn, attributes);
        }
        if !gfn.is_aligned(size) || !mfn.is_aligned(size) {
            return Err(Error::Misaligned);
        }
        self.check_range(gfn, mfn, size.pages())?;
        self.leave();
        let level = size_level(size);
        let path = self.table_for(gfn, level)?;
        if path.level > level || path.entry.is_valid() {
            return Err(Error::Mapped(gfn));
        }
        if self.pending.meets(gfn, size.pages()) {
            self.flush();
        }
        let (table, index) = path.at(level);
        self.memory.write(table, index, Descriptor::leaf(mfn, size, attributes).raw());
        self.unpublished = true;
        *self.tables.statistics.of_size(size) += 1;
        if self.add_to_count(&path, level, 1) == Some(ENTRIES as u64) {
            self.merge_table(gfn, level);
        }
        Ok(())
    }

    /// Unmaps what is mapped in `pages` frames from `gfn` on, splitting the blocks at both ends, and hands each leaf
    /// to `sink`. Fails only when a split needs a table and there is no memory for it; then nothing is unmapped.
    /// The work is proportional to the leaves: a caller that must be preemptible passes 2 MiB at a time.
    pub fn unmap(&mut self, gfn: Gfn, pages: Pages, sink: impl FnMut(Unflushed<Leaf>)) -> Result<(), Error> {
        if !self.tables.contains(gfn, pages) {
            return Err(Error::OutOfRange);
        }
        self.split_ends(gfn, pages)?;
        self.unmap_leaves(gfn, gfn.wrapping_add(pages), &mut { u64::MAX }, sink);
        Ok(())
    }

    /// Unmaps everything from `from` on until `budget`, which each inspected entry costs one of, is used up; then
    /// returns where to go on. `from` is zero or what the last call returned.
    pub fn drain(&mut self, from: Gfn, budget: &mut u64, sink: impl FnMut(Unflushed<Leaf>)) -> Option<Gfn> {
        self.leave();
        self.unmap_leaves(from, self.tables.geometry().gfn_limit(), budget, sink)
    }

    /// Gives what is mapped in `pages` frames from `gfn` on other attributes, splitting the blocks at both ends.
    /// A change of access or type is made in place and invalidated with the batch; one of memory type or
    /// shareability breaks all entries, invalidates, and makes them again. Returns the pages that changed.
    pub fn protect(&mut self, gfn: Gfn, pages: Pages, attributes: Attributes) -> Result<Pages, Error> {
        if !self.tables.contains(gfn, pages) {
            return Err(Error::OutOfRange);
        }
        self.split_ends(gfn, pages)?;
        let end = gfn.wrapping_add(pages);
        let mut changed = 0;
        let mut broken = false;
        self.each_entry(gfn, end, |edit, gfn, (table, index), size, entry| {
            let old = entry.attributes();
            if old == attributes {
                return;
            }
            changed += size.pages().get();
            let new = Descriptor::leaf(entry.output().mfn(), size, attributes);
            if old.may_become(attributes) {
                edit.memory.write(table, index, new.raw());
                edit.unpublished = true;
            } else {
                edit.memory.write(table, index, new.broken().raw());
                broken = true;
            }
            if old.differs_to_hardware(attributes) {
                edit.pending.leaf(gfn, size);
            }
        });
        if broken {
            self.flush();
            self.each_entry(gfn, end, |edit, _, (table, index), _, entry| {
                if !entry.is_valid() {
                    edit.memory.write(table, index, entry.made().raw());
                    edit.unpublished = true;
                }
            });
        }
        if !pages.is_zero() {
            self.merge(gfn);
            self.merge(gfn.wrapping_add(Pages::new(pages.get() - 1)));
        }
        Ok(Pages::new(changed))
    }

    /// Makes the leaf that maps `gfn` no larger than `size`. Each block split costs an invalidation at once.
    pub fn split(&mut self, gfn: Gfn, size: BlockSize) -> Result<(), Error> {
        if gfn >= self.tables.geometry().gfn_limit() {
            return Err(Error::OutOfRange);
        }
        self.leave();
        loop {
            let path = self.path(gfn);
            if !path.entry.is_valid() || level_size(path.level) <= size {
                return Ok(());
            }
            self.split_block(gfn, &path)?;
        }
    }

    /// Replaces the tables around `gfn` by blocks where all 512 entries are valid, contiguous, aligned and alike.
    /// Only full tables are looked into. Returns whether one was replaced.
    pub fn merge(&mut self, gfn: Gfn) -> bool {
        if gfn >= self.tables.geometry().gfn_limit() {
            return false;
        }
        let merges = self.tables.statistics.merges;
        self.leave();
        let path = self.path(gfn);
        if path.level > self.tables.geometry().root_level() && path.level >= 2 {
            self.merge_table(gfn, path.level);
        }
        self.tables.statistics.merges != merges
    }

    // ---- the remembered table ----

    /// Stops remembering the level-3 table: its count goes to memory; empty, it is unlinked; full, it is merged.
    #[inline]
    fn leave(&mut self) {
        if self.leaf_table.region != LeafTable::NO_REGION {
            self.leave_table();
        }
    }

    fn leave_table(&mut self) {
        let leaf_table = core::mem::replace(&mut self.leaf_table, LeafTable::NONE);
        let gfn = Gfn::new(leaf_table.region << 9);
        if leaf_table.valid == 0 {
            self.retire_table(gfn, 3);
        } else if leaf_table.valid != leaf_table.valid_in_memory {
            let entry = Descriptor::table(leaf_table.table, leaf_table.valid);
            self.memory.write(leaf_table.parent, leaf_table.parent_index, entry.raw());
            if leaf_table.valid == ENTRIES as u64 {
                self.merge_table(gfn, 3);
            }
        }
    }

    /// Remembers the level-3 table at the end of `path`.
    fn remember(&mut self, gfn: Gfn, path: &Path) {
        let (parent, parent_index) = path.at(2);
        let valid = Descriptor::from_raw(self.memory.read(parent, parent_index)).count();
        let (table, _) = path.at(3);
        self.leaf_table =
            LeafTable { region: gfn.raw() >> 9, table, valid, valid_in_memory: valid, parent, parent_index };
    }

    #[inline(never)]
    fn enter_to_map(&mut self, gfn: Gfn) -> Result<(), Error> {
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
    fn enter_to_unmap(&mut self, gfn: Gfn) -> Result<bool, Error> {
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

    // ---- the structure ----

    fn check_range(&self, gfn: Gfn, mfn: Mfn, pages: Pages) -> Result<(), Error> {
        let fits = mfn <= MFN_LIMIT && pages.get() <= MFN_LIMIT.raw() - mfn.raw();
        if fits && self.tables.contains(gfn, pages) { Ok(()) } else { Err(Error::OutOfRange) }
    }

    /// Walks for `gfn`, which lies within the IPA space, and notes the way.
    fn path(&self, gfn: Gfn) -> Path {
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

    /// Adds to the count of valid entries of the table at `level` on `path` and returns it; a root has none.
    #[inline]
    fn add_to_count(&mut self, path: &Path, level: u8, change: i64) -> Option<u64> {
        if level == self.tables.geometry().root_level() {
            return None;
        }
        let (parent, index) = path.at(level - 1);
        let entry = Descriptor::from_raw(self.memory.read(parent, index));
        let count = entry.count().wrapping_add_signed(change);
        self.memory.write(parent, index, entry.with_count(count).raw());
        Some(count)
    }

    /// The path to the table at `level` that covers `gfn`, made if missing. `Mapped` if a larger block is there.
    fn table_for(&mut self, gfn: Gfn, level: u8) -> Result<Path, Error> {
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
        for (position, &table) in new[..missing].iter().enumerate() {
            let level = first + 1 + position as u8;
            let index = (gfn.raw() >> level_order(level)) as usize % ENTRIES;
            if let Some(&next) = new[..missing].get(position + 1) {
                let count = u64::from(position + 2 < missing);
                self.memory.write(table, index, Descriptor::table(next, count).raw());
            }
            path.levels[usize::from(level) & 3] = (table, index);
        }
        self.memory.publish();
        let (table, index) = path.at(first);
        self.memory.write(table, index, Descriptor::table(new[0], u64::from(missing > 1)).raw());
        self.add_to_count(&path, first, 1);
        self.tables.statistics.tables += missing as u64;
        self.unpublished = true;
        path.level = level;
        path.entry = Descriptor::INVALID;
        Ok(path)
    }

    /// Unlinks the empty table at `level` on the way to `gfn`, and the tables above that become empty by it.
    fn retire_table(&mut self, gfn: Gfn, level: u8) {
        let path = self.path(gfn);
        let root_level = self.tables.geometry().root_level();
        let mut level = level;
        while level > root_level {
            let (table, _) = path.at(level);
            let (parent, index) = path.at(level - 1);
            self.memory.write(parent, index, Descriptor::INVALID.raw());
            self.memory.write(table, 0, retired_link(self.pending.retired_tables));
            self.pending.retired_tables = Some(table);
            let order = level_order(level - 1);
            self.pending.table(Gfn::new(gfn.raw() >> order << order), Pages::new(1 << order));
            self.tables.statistics.tables -= 1;
            level -= 1;
            if self.add_to_count(&path, level, -1) != Some(0) {
                break;
            }
        }
    }

    /// Unlinks the tables on the way to `gfn` that are empty.
    fn prune(&mut self, gfn: Gfn) {
        let path = self.path(gfn);
        if path.level > self.tables.geometry().root_level() {
            let (parent, index) = path.at(path.level - 1);
            if Descriptor::from_raw(self.memory.read(parent, index)).count() == 0 {
                self.retire_table(gfn, path.level);
            }
        }
    }

    /// Makes sure that `count` entries of `size` from `gfn` on, in one table, can be written.
    fn prepare(&mut self, gfn: Gfn, size: BlockSize, count: u64) -> Result<(), Error> {
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
    fn split_ends(&mut self, gfn: Gfn, pages: Pages) -> Result<(), Error> {
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

    fn split_at(&mut self, gfn: Gfn) -> Result<(), Error> {
        while gfn < self.tables.geometry().gfn_limit() {
            let path = self.path(gfn);
            if !path.entry.is_valid() || gfn.is_aligned(level_size(path.level)) {
                break;
            }
            self.split_block(gfn, &path)?;
        }
        Ok(())
    }

    /// Replaces the block at the end of `path` by a table: break, invalidate, make (DDI 0487 D8.16.1). A vCPU that
    /// faults in between waits for the p2m lock, finds the page mapped, and tries again.
    fn split_block(&mut self, gfn: Gfn, path: &Path) -> Result<(), Error> {
        let size = level_size(path.level);
        let Some(smaller) = size.smaller() else { return Ok(()) };
        let new = self.memory.allocate(0).ok_or(Error::NoMemory)?;
        let mut entry = Descriptor::leaf(path.entry.output().mfn(), smaller, path.entry.attributes());
        for index in 0..ENTRIES {
            self.memory.write(new, index, entry.raw());
            entry = entry.advanced(smaller.pages().get());
        }
        let (table, index) = path.at(path.level);
        self.memory.write(table, index, Descriptor::INVALID.raw());
        self.pending.leaf(Gfn::new(gfn.raw() >> size.order() << size.order()), size);
        self.flush();
        self.memory.write(table, index, Descriptor::table(new, ENTRIES as u64).raw());
        self.unpublished = true;
        let statistics = &mut self.tables.statistics;
        *statistics.of_size(size) -= 1;
        *statistics.of_size(smaller) += ENTRIES as u64;
        statistics.splits += 1;
        statistics.tables += 1;
        Ok(())
    }

    /// Replaces the table at `level` (2 or 3) on the way to `gfn` by a block if its entries allow it, then the table
    /// above likewise.
    fn merge_table(&mut self, gfn: Gfn, level: u8) {
        let mut level = level;
        while level >= 2 && level > self.tables.geometry().root_level() {
            let path = self.path(gfn);
            let (parent, parent_index) = path.at(level - 1);
            let link = Descriptor::from_raw(self.memory.read(parent, parent_index));
            if path.level < level || !link.is_table() || link.count() != ENTRIES as u64 {
                return;
            }
            let table = link.output();
            let small = level_size(level);
            let large = level_size(level - 1);
            let first = Descriptor::from_raw(self.memory.read(table, 0));
            if level < 3 && first.is_table() || !first.output().mfn().is_aligned(large) {
                return;
            }
            // The last entry first: scattered pages are told at once.
            let step = small.pages().get();
            let alike =
                |index: usize| self.memory.read(table, index) == first.advanced(step * index as u64).raw();
            if !alike(ENTRIES - 1) || !(1..ENTRIES - 1).all(alike) {
                return;
            }
            self.memory.write(parent, parent_index, Descriptor::INVALID.raw());
            let base = Gfn::new(gfn.raw() >> large.order() << large.order());
            self.pending.range(base, large.pages(), small);
            self.flush();
            let block = Descriptor::leaf(first.output().mfn(), large, first.attributes());
            self.memory.write(parent, parent_index, block.raw());
            self.unpublished = true;
            self.memory.free(table, 0);
            let statistics = &mut self.tables.statistics;
            *statistics.of_size(small) -= ENTRIES as u64;
            *statistics.of_size(large) += 1;
            statistics.merges += 1;
            statistics.tables -= 1;
            level -= 1;
        }
    }

    /// Unmaps the leaves in `from..end`, none of which straddles an end. Returns where the budget was used up.
    fn unmap_leaves(
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
                let (table, index) = path.at(path.level);
                self.memory.write(table, index, Descriptor::INVALID.raw());
                *self.tables.statistics.of_size(size) -= 1;
                self.pending.leaf(gfn, size);
                if self.add_to_count(&path, path.level, -1) == Some(0) {
                    self.retire_table(gfn, path.level);
                }
                sink(Unflushed(Leaf::new(gfn, size, path.entry)));
            }
            gfn = Gfn::new(((gfn.raw() >> order) + 1) << order);
        }
        None
    }

    /// Calls `visit` for each entry in `from..end` that is or was a leaf. No table is made or freed meanwhile.
    fn each_entry(
        &mut self,
        from: Gfn,
        end: Gfn,
        mut visit: impl FnMut(&mut Self, Gfn, (Pa, usize), BlockSize, Descriptor),
    ) {
        let mut gfn = from;
        while gfn < end {
            let slot = self.tables.walk(self.memory, gfn);
            if slot.entry != Descriptor::INVALID {
                visit(self, gfn, (slot.table, slot.index), level_size(slot.level), slot.entry);
            }
            let order = level_order(slot.level);
            gfn = Gfn::new(((gfn.raw() >> order) + 1) << order);
        }
    }

    // ---- the end ----

    /// Pays what is owed to the TLBs, then frees the tables that were unlinked.
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        self.memory.publish();
        self.unpublished = false;
        self.pending.invalidate(self.tlb);
        self.tables.statistics.invalidations += 1;
        let mut retired = self.pending.retired_tables;
        while let Some(table) = retired {
            retired = retired_next(self.memory.read(table, 0));
            self.memory.free(table, 0);
        }
        self.pending = Pending::NONE;
    }

    #[inline]
    fn close(&mut self) {
        self.leave();
        self.flush();
        if self.unpublished {
            self.memory.publish();
            self.unpublished = false;
        }
    }
}

/// The part of a range that starts `done` pages in and is one block, or a run of pages in one level-3 table: guest
/// frame, machine frame, entry size, pages. `None` at the end.
fn chunk(gfn: Gfn, mfn: Mfn, pages: Pages, done: u64) -> Option<(Gfn, Mfn, BlockSize, u64)> {
    let left = pages.get().checked_sub(done).filter(|&left| left != 0)?;
    let (gfn, mfn) = (gfn.wrapping_add(Pages::new(done)), mfn.wrapping_add(Pages::new(done)));
    for size in [BlockSize::Block1G, BlockSize::Block2M] {
        let count = size.pages().get();
        if left >= count && gfn.is_aligned(size) && mfn.is_aligned(size) {
            return Some((gfn, mfn, size, count));
        }
    }
    let to_table_end = ENTRIES as u64 - gfn.raw() % ENTRIES as u64;
    Some((gfn, mfn, BlockSize::Page4K, left.min(to_table_end)))
}
