//! A domain's memory as its builder sees it: the pool for its tables, and its caches.

use pv_abi::Errno;
use pv_abi::domctl::{Cacheflush, PagingMempool};
use stage2::{Gfn, PAGE_SIZE, Pages};

use crate::arch::{self, Access};
use crate::domain::Domain;
use crate::domain::create::uncounted_tables;

/// Guest frames cleaned between two looks for interrupts.
const CLEANED_AT_ONCE: u64 = 16;
/// Guest frames that one call may clean, as in Xen.
const MAX_CLEANED: u64 = 1 << 20;

/// `XEN_DOMCTL_get_paging_mempool_size`.
pub(super) fn pool(domain: &Domain) -> PagingMempool {
    let (_, limit) = domain.p2m.table_pages();
    let pages = limit.saturating_sub(uncounted_tables(domain.p2m.geometry()));
    PagingMempool { size: pages.get().saturating_mul(PAGE_SIZE) }
}

/// `XEN_DOMCTL_set_paging_mempool_size`: `EINVAL` for parts of pages, `ENOMEM` for less than is in use.
pub(super) fn set_pool(domain: &Domain, op: PagingMempool) -> Result<(), Errno> {
    if !op.size.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let limit = Pages::new(op.size / PAGE_SIZE).saturating_add(uncounted_tables(domain.p2m.geometry()));
    if limit < domain.p2m.table_pages().0 {
        return Err(Errno::ENOMEM);
    }
    domain.p2m.set_table_limit(limit);
    Ok(())
}

/// `XEN_DOMCTL_cacheflush`: cleans and invalidates the data caches over what is mapped in a range, to the point of coherency,
/// for a guest that starts with its caches off (DDI 0487 D7.5.9), and forgets fetched instructions. What is left to do.
pub(super) fn clean(domain: &Domain, mut op: Cacheflush) -> Result<Option<Cacheflush>, Errno> {
    if op.nr_pfns > MAX_CLEANED || op.start_pfn.checked_add(op.nr_pfns).is_none() {
        return Err(Errno::EINVAL);
    }
    while op.nr_pfns != 0 {
        let count = op.nr_pfns.min(CLEANED_AT_ONCE);
        for gfn in op.start_pfn..op.start_pfn + count {
            // Its own memory, and what it shares; devices have no lines.
            if let Ok(page) = domain.p2m.get_page(Gfn::new(gfn), Access::Read) {
                page.clean_invalidate();
            }
        }
        op.start_pfn += count;
        op.nr_pfns -= count;
        if op.nr_pfns != 0 && arch::interrupt_pending() {
            return Ok(Some(op));
        }
    }
    arch::phys::invalidate_instructions();
    Ok(None)
}
