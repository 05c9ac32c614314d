//! A batch of changes to one domain's stage 2: it remembers the last table and invalidates once, at its end.

mod access;
mod leaf_table;
mod structure;
#[cfg(test)]
mod tests;

use crate::addr::{BlockSize, Gfn, Mfn, Pages};
use crate::descriptor::{Attributes, Descriptor, ENTRIES, Leaf, MFN_LIMIT, retired_next};
use crate::memory::{TableMemory, Tlb};
use crate::pending::Pending;
use crate::tables::{Error, Next, Tables, level_order, level_size, size_level};
use leaf_table::LeafTable;
pub use leaf_table::Place;

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

    /// What it is, to be used again. The token is that of the batch which handed this out, or of a later one of the
    /// same tables; which of two domains' batches gave it is not in its type.
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
        Self {
            tables,
            memory,
            tlb,
            leaf_table: LeafTable::none(),
            pending: Pending::none(),
            unpublished: false,
        }
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
        if gfn.raw() >> 9 == self.leaf_table.region {
            let entry =
                Descriptor::from_raw(self.memory.read(self.leaf_table.table, gfn.raw() as usize % ENTRIES));
            return entry.is_valid().then(|| Leaf::new(gfn, BlockSize::Page4K, entry));
        }
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
        let entry = Descriptor::from_raw(self.memory.read(self.leaf_table.table, index));
        if entry != Descriptor::INVALID {
            if entry.is_valid() {
                return Err(Error::Mapped(gfn));
            }
            self.forget_on_demand();
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

    /// Counts one page of the remembered table less as on demand.
    #[inline]
    fn forget_on_demand(&mut self) {
        self.leaf_table.valid -= 1;
        // Not as it was, even if the entry stays in use: the table may be ready for a merge.
        self.leaf_table.valid_in_memory = u64::MAX;
        self.tables.statistics.on_demand -= 1;
        self.unpublished = true;
    }

    /// Unmaps one page, splitting the block it is part of. `None` if nothing is mapped there; a page on demand is so
    /// no longer. Fails only when a split needs a table and there is no memory for it.
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
            if entry.is_on_demand() {
                self.memory.write(self.leaf_table.table, index, Descriptor::INVALID.raw());
                self.forget_on_demand();
            }
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

    /// Makes `pages` frames from `gfn` on memory that gets its backing on first touch, with the largest entries that
    /// fit. Those that are so already stay so. `Mapped`, and nothing is changed, if something is mapped there; after
    /// `NoMemory` a part is marked.
    pub fn mark_on_demand(&mut self, gfn: Gfn, pages: Pages) -> Result<(), Error> {
        if !self.tables.contains(gfn, pages) {
            return Err(Error::OutOfRange);
        }
        self.leave();
        let end = gfn.wrapping_add(pages);
        if let Next::Leaf(leaf) = self.tables.next_leaf(self.memory, gfn, end, &mut { u64::MAX }) {
            return Err(Error::Mapped(leaf.gfn().max(gfn)));
        }
        let mut at = gfn;
        while at < end {
            let path = self.path(at);
            if path.entry.is_on_demand() {
                let order = level_order(path.level);
                at = Gfn::new(((at.raw() >> order) + 1) << order);
                continue;
            }
            let fits = |size: &BlockSize| {
                at.is_aligned(*size)
                    && end.raw() - at.raw() >= size.pages().get()
                    && size_level(*size) >= path.level
            };
            let size = [BlockSize::Block1G, BlockSize::Block2M].into_iter().find(fits);
            let size = size.unwrap_or(BlockSize::Page4K);
            let path = self.table_for(at, size_level(size))?;
            let (table, index) = path.at(path.level);
            self.memory.write(table, index, Descriptor::ON_DEMAND.raw());
            self.add_to_count(&path, path.level, 1);
            self.tables.statistics.on_demand += size.pages().get();
            self.unpublished = true;
            at = at.wrapping_add(size.pages());
        }
        Ok(())
    }

    /// The size of the entry by which `gfn` is on demand; `None` if it is not.
    pub fn on_demand(&self, gfn: Gfn) -> Option<BlockSize> {
        self.tables.on_demand(self.memory, gfn)
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
        if path.entry.is_on_demand() {
            self.tables.statistics.on_demand -= size.pages().get();
        } else {
            self.add_to_count(&path, level, 1);
        }
        Ok(())
    }

    /// Unmaps what is mapped in `pages` frames from `gfn` on, splitting the blocks at both ends, and hands each leaf
    /// to `sink`; what is on demand there is so no longer. Fails only when a split needs a table and there is no memory for it; then nothing is unmapped.
    /// The work is proportional to the leaves: a caller that must be preemptible passes 2 MiB at a time.
    pub fn unmap(&mut self, gfn: Gfn, pages: Pages, sink: impl FnMut(Unflushed<Leaf>)) -> Result<(), Error> {
        if !self.tables.contains(gfn, pages) {
            return Err(Error::OutOfRange);
        }
        self.split_ends(gfn, pages)?;
        self.unmap_leaves(gfn, gfn.wrapping_add(pages), &mut { u64::MAX }, sink);
        Ok(())
    }

    /// Unmaps a leaf that [`lookup`](Self::lookup) found since the last change: whole, so that nothing is split.
    pub fn unmap_leaf(&mut self, leaf: &Leaf, sink: impl FnMut(Unflushed<Leaf>)) {
        self.unmap_leaves(leaf.gfn(), leaf.end(), &mut { u64::MAX }, sink);
    }

    /// Unmaps everything from `from` on until `budget`, which each inspected entry costs one of, is used up; then
    /// returns where to go on. `from` is zero or what the last call returned; a leaf it lies in goes as a whole.
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
    /// Only full tables are looked into. Returns whether `gfn` is in a larger block now. By itself a batch only makes blocks of 2 MiB:
    /// for one of 1 GiB all of it is unmapped for a moment, and a balloon that moves would pay that each time.
    pub fn merge(&mut self, gfn: Gfn) -> bool {
        if gfn >= self.tables.geometry().gfn_limit() {
            return false;
        }
        let before = self.lookup(gfn).map(|leaf| leaf.size());
        self.leave();
        let path = self.path(gfn);
        if path.level > self.tables.geometry().root_level() && path.level >= 2 {
            self.merge_table(gfn, path.level, BlockSize::Block1G);
        }
        self.lookup(gfn).map(|leaf| leaf.size()) > before
    }

    // ---- checks, and the end ----

    fn check_range(&self, gfn: Gfn, mfn: Mfn, pages: Pages) -> Result<(), Error> {
        let fits = mfn <= MFN_LIMIT && pages.get() <= MFN_LIMIT.raw() - mfn.raw();
        if fits && self.tables.contains(gfn, pages) { Ok(()) } else { Err(Error::OutOfRange) }
    }

    /// Pays what is owed to the TLBs, then frees the tables that were unlinked.
    #[inline]
    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.pay();
        }
    }

    #[inline(never)]
    fn pay(&mut self) {
        self.memory.publish();
        self.unpublished = false;
        self.pending.invalidate(self.tlb);
        self.tables.statistics.invalidations += 1;
        let mut retired = self.pending.retired_tables;
        while let Some(table) = retired {
            retired = retired_next(self.memory.read(table, 0));
            self.memory.free(table, 0);
        }
        self.pending = Pending::none();
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
