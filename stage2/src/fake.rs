//! A machine for tests: table memory, and a TLB that keeps whatever the architecture lets it keep.
//!
//! The TLB here is the worst there can be. It caches every leaf and every table entry the moment it becomes valid,
//! drops only what an invalidation names, and refills at once. So a rule broken for an instant is found:
//! break-before-make, a table freed or a link made visible too early, an invalidation before its publication.
//! A broken rule panics with its name.

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use crate::addr::{BlockSize, Ipa, Pa, Pages};
use crate::descriptor::{Attributes, Descriptor, ENTRIES};
use crate::geometry::Geometry;
use crate::memory::{TableMemory, Tlb};
use crate::tables::{level_order, level_size};

/// Where tables are allocated from: far from the frames tests map.
const TABLES_AT: u64 = 0xc0_0000_0000;

struct Table {
    entries: Vec<u64>,
    /// Level and first guest frame, if walkers reach it.
    place: Option<(u8, u64)>,
    unpublished: bool,
}

/// Leaves: first frame to (log2 of pages, descriptor).
type Leaves = BTreeMap<u64, (u32, Descriptor)>;
/// Table entries: (level of the entry, first frame) to table.
type Links = BTreeMap<(u8, u64), u64>;

#[derive(Default)]
struct State {
    tables: BTreeMap<u64, Table>,
    root_level: u8,
    next: u64,
    /// Allocations that will still succeed.
    allocations_left: Option<u64>,
    unpublished: bool,
    /// No vCPU runs any more, so nothing fills the TLB.
    stopped: bool,
    /// What the TLB caches.
    leaves: Leaves,
    links: Links,
    invalidations: u64,
    operations: u64,
}

/// The machine; clones are handles to the same one, so that one serves as memory and one as TLB.
#[derive(Clone)]
pub struct Machine(Rc<RefCell<State>>);

impl Machine {
    /// A machine whose first allocation will be the root of tables of this shape.
    pub fn new(geometry: Geometry) -> Self {
        Self(Rc::new(RefCell::new(State {
            root_level: geometry.root_level(),
            next: TABLES_AT,
            ..State::default()
        })))
    }

    /// Lets only `count` more allocations succeed; `None` lifts the limit.
    pub fn limit_allocations(&self, count: Option<u64>) {
        self.0.borrow_mut().allocations_left = count;
    }

    /// No vCPU will run any more: what is invalidated stays so.
    pub fn stop(&self) {
        self.0.borrow_mut().stopped = true;
    }

    /// Tables allocated and not freed, the root included as one.
    pub fn tables(&self) -> usize {
        self.0.borrow().tables.len()
    }

    /// Calls of [`Tlb`]'s methods so far.
    pub fn invalidations(&self) -> u64 {
        self.0.borrow().invalidations
    }

    /// By-IPA operations and whole-VMID operations so far.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Panics unless the TLB holds exactly what the tables say and everything is published.
    ///
    /// # Panics
    /// As said.
    pub fn assert_settled(&self) {
        let state = &mut *self.0.borrow_mut();
        assert!(!state.unpublished, "writes were left unpublished");
        let (leaves, links) = state.reachable();
        let seen = |leaves: &Leaves| {
            leaves.iter().map(|(&gfn, &(order, leaf))| (gfn, order, hardware(leaf))).collect::<Vec<_>>()
        };
        assert_eq!(seen(&state.leaves), seen(&leaves), "the TLB holds a leaf the tables do not");
        assert_eq!(state.links, links, "the TLB holds a table entry the tables do not");
    }
}

/// A leaf as hardware sees it: without its type.
fn hardware(leaf: Descriptor) -> (Pa, Attributes) {
    (leaf.output(), leaf.attributes().with_page_type(crate::PageType::Ram))
}

impl State {
    fn reachable(&self) -> (Leaves, Links) {
        let mut leaves = BTreeMap::new();
        let mut links = BTreeMap::new();
        for table in self.tables.values() {
            let Some((level, base)) = table.place else { continue };
            for (index, &raw) in table.entries.iter().enumerate() {
                let entry = Descriptor::from_raw(raw);
                let gfn = base + ((index as u64) << level_order(level));
                if level < 3 && entry.is_table() {
                    links.insert((level, gfn), entry.output().raw());
                } else if entry.is_valid() && entry.is_accessed() {
                    leaves.insert(gfn, (level_order(level), entry));
                }
            }
        }
        (leaves, links)
    }

    /// The cached leaf that overlaps `gfn..end`.
    fn cached_leaf(&self, gfn: u64, end: u64) -> Option<(u64, u32, Descriptor)> {
        let (&base, &(order, leaf)) = self.leaves.range(..end).next_back()?;
        (base + (1 << order) > gfn).then_some((base, order, leaf))
    }

    /// A walker reads the valid `entry` for `gfn` at `level`.
    fn fill(&mut self, level: u8, gfn: u64, entry: Descriptor) {
        let order = level_order(level);
        let end = gfn + (1 << order);
        if level < 3 && entry.is_table() {
            let child = entry.output().raw();
            assert!(
                self.cached_leaf(gfn, end).is_none(),
                "break-before-make: a leaf became a table at {gfn:#x}"
            );
            let old = self.links.insert((level, gfn), child);
            assert!(old.is_none_or(|old| old == child), "break-before-make: another table at {gfn:#x}");
            let table = self.tables.get_mut(&child).expect("a link to a table that was freed");
            assert!(!table.unpublished, "a table was linked before its content was published");
            table.place = Some((level + 1, gfn));
            let entries = table.entries.clone();
            for (index, raw) in entries.into_iter().enumerate() {
                let entry = Descriptor::from_raw(raw);
                if entry.is_valid() {
                    self.fill(level + 1, gfn + ((index as u64) << level_order(level + 1)), entry);
                }
            }
        } else {
            assert!(level > 0, "a block at level 0");
            assert!(
                entry.output().is_aligned(level_size(level).bytes()),
                "an output address that is not aligned"
            );
            let below = (level..3).any(|level| self.links.range((level, gfn)..(level, end)).next().is_some());
            assert!(!below, "break-before-make: a table became a leaf at {gfn:#x}");
            if let Some((base, old_order, old)) = self.cached_leaf(gfn, end) {
                let same = base == gfn
                    && old_order == order
                    && old.output() == entry.output()
                    && old.attributes().may_become(entry.attributes());
                assert!(same, "break-before-make: another leaf at {gfn:#x}");
            } else if entry.is_accessed() {
                self.leaves.insert(gfn, (order, entry));
            }
        }
    }

    fn unreach(&mut self, table: u64) {
        let Some(table) = self.tables.get_mut(&table) else { return };
        let Some((level, _)) = table.place.take() else { return };
        if level < 3 {
            for raw in table.entries.clone() {
                let entry = Descriptor::from_raw(raw);
                if entry.is_table() {
                    self.unreach(entry.output().raw());
                }
            }
        }
    }

    fn drop_cached(&mut self, gfn: u64) {
        if let Some((base, _, _)) = self.cached_leaf(gfn, gfn + 1) {
            self.leaves.remove(&base);
        }
        for level in 0..3 {
            let base = gfn >> level_order(level) << level_order(level);
            self.links.remove(&(level, base));
        }
    }

    fn refill(&mut self) {
        if self.stopped {
            return;
        }
        let (leaves, links) = self.reachable();
        for (gfn, leaf) in leaves {
            self.leaves.entry(gfn).or_insert(leaf);
        }
        for (place, table) in links {
            self.links.entry(place).or_insert(table);
        }
    }
}

impl TableMemory for Machine {
    fn allocate(&mut self, pages_log2: u8) -> Option<Pa> {
        let state = &mut *self.0.borrow_mut();
        if let Some(left) = &mut state.allocations_left {
            *left = left.checked_sub(1)?;
        }
        let size = 4096 << pages_log2;
        let at = (state.next + size - 1) & !(size - 1);
        state.next = at + size;
        let root = state.tables.is_empty();
        let place = root.then_some((state.root_level, 0));
        let entries = vec![0; ENTRIES << pages_log2];
        state.tables.insert(at, Table { entries, place, unpublished: true });
        state.unpublished |= root;
        Some(Pa::new(at))
    }

    fn free(&mut self, table: Pa, pages_log2: u8) {
        let state = &mut *self.0.borrow_mut();
        let freed = state.tables.remove(&table.raw()).expect("a table freed twice");
        assert_eq!(freed.entries.len(), ENTRIES << pages_log2, "a table freed with another size");
        let root = freed.place == Some((state.root_level, 0));
        assert!(freed.place.is_none() || root && state.tables.is_empty(), "a table freed while linked");
        assert!(!state.links.values().any(|&cached| cached == table.raw()), "a table freed while cached");
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.0.borrow().tables.get(&table.raw()).expect("a read of a table that was freed").entries[index]
    }

    fn write(&mut self, table: Pa, index: usize, entry: u64) {
        let state = &mut *self.0.borrow_mut();
        let written = state.tables.get_mut(&table.raw()).expect("a write to a table that was freed");
        let old = Descriptor::from_raw(core::mem::replace(&mut written.entries[index], entry));
        let new = Descriptor::from_raw(entry);
        let Some((level, base)) = written.place else {
            written.unpublished = true;
            return;
        };
        state.unpublished = true;
        let gfn = base + ((index as u64) << level_order(level));
        let was_table = level < 3 && old.is_table();
        if was_table && (!new.is_table() || new.output() != old.output()) {
            state.unreach(old.output().raw());
        }
        if new.is_valid() && !(was_table && new.is_table() && new.output() == old.output()) {
            state.fill(level, gfn, new);
        }
    }

    fn publish(&self) {
        let state = &mut *self.0.borrow_mut();
        state.unpublished = false;
        for table in state.tables.values_mut() {
            table.unpublished = false;
        }
    }
}

impl Tlb for Machine {
    fn invalidate_range(&mut self, start: Ipa, pages: Pages, stride: BlockSize) {
        let state = &mut *self.0.borrow_mut();
        assert!(!state.unpublished, "an invalidation before the entries were published");
        let mut gfn = start.gfn().raw();
        let end = gfn + pages.get();
        while gfn < end {
            state.drop_cached(gfn);
            state.operations += 1;
            gfn += stride.pages().get();
        }
        state.invalidations += 1;
        state.refill();
    }

    fn invalidate_all(&mut self) {
        let state = &mut *self.0.borrow_mut();
        assert!(!state.unpublished, "an invalidation before the entries were published");
        state.leaves.clear();
        state.links.clear();
        state.operations += 1;
        state.invalidations += 1;
        state.refill();
    }
}
