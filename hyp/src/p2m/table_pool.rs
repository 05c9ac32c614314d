//! Memory for stage-2 tables: frames of kind `Table`, as many as the domain's limit allows.
//!
//! dom0's keeps some for itself, so that its tools' coming and going mappings do not show in the machine's free memory.

use alloc::vec::Vec;

use pv_abi::errno::Errno;
use stage2::{Pa, Pages, TableMemory};

use crate::arch;
use crate::mm::{block::Block, memory};

/// Counts one domain's tables.
#[derive(Debug)]
pub(super) struct TablePool {
    used: Pages,
    limit: Pages,
    /// Single pages that wait here for their next use, up to the capacity.
    kept: Vec<Block>,
}

impl TablePool {
    pub(super) const fn new(limit: Pages) -> Self {
        Self { used: Pages::ZERO, limit, kept: Vec::new() }
    }

    /// Keeps so many single pages for this domain alone. `ENOMEM` where there are not as many.
    pub(super) fn keep(&mut self, pages: usize) -> Result<(), Errno> {
        self.kept.try_reserve_exact(pages).map_err(|_| Errno::ENOMEM)?;
        for _ in 0..pages {
            self.kept.push(memory().allocate(0).ok_or(Errno::ENOMEM)?);
        }
        Ok(())
    }

    pub(super) const fn used(&self) -> Pages {
        self.used
    }

    pub(super) const fn limit(&self) -> Pages {
        self.limit
    }

    pub(super) fn set_limit(&mut self, limit: Pages) {
        self.limit = limit;
    }
}

impl TableMemory for TablePool {
    fn allocate(&mut self, pages_log2: u8) -> Option<Pa> {
        let used = self.used.checked_add(Pages::from_order(pages_log2.into())?)?;
        if used > self.limit {
            return None;
        }
        let kept = if pages_log2 == 0 { self.kept.pop() } else { None };
        let table = kept.or_else(|| memory().allocate(pages_log2.into()))?.into_table();
        self.used = used;
        Some(table.pa())
    }

    fn free(&mut self, table: Pa, pages_log2: u8) {
        self.used = self.used.saturating_sub(Pages::new(1 << pages_log2));
        let block = Block::from_table(table.mfn(), pages_log2.into());
        if pages_log2 == 0 && self.kept.len() < self.kept.capacity() {
            self.kept.push(block);
        }
    }

    #[inline]
    fn read(&self, table: Pa, index: usize) -> u64 {
        // SAFETY: `table` came from `allocate`, so it is a frame of kind `Table`, in which there are only descriptors;
        // the index is within it by the trait's contract.
        unsafe { arch::phys::load_u64(entry(table, index)) }
    }

    #[inline]
    fn write(&mut self, table: Pa, index: usize, value: u64) {
        // SAFETY: as for `read`.
        unsafe { arch::phys::store_u64(entry(table, index), value) }
    }

    #[inline]
    fn publish(&self) {
        arch::tlb::publish();
    }
}

#[inline]
fn entry(table: Pa, index: usize) -> Pa {
    table.wrapping_add(index as u64 * 8)
}
