//! A domain's guest-physical memory: which machine page, if any, is behind each guest frame, and why.
//!
//! The map is [`stage2::Tables`] behind a lock: read to look up and to copy, write for a [`Batch`] of changes. What a
//! batch unmaps waits until no TLB translates to it any more, and goes its way before the lock is given back:
//! ```text
//!               Ram ─────────────── given back: the domain's possession ends, freed unless somebody refers to it
//! unmapped ──┬─ Ram, kept ───────── nothing: it stays the domain's (dom0's memory is 1:1 and returns to its place)
//!            ├─ Grant*, Foreign ─┬─ the reference that the mapping held
//!            ├─ SharedXen ───────┘
//!            └─ Mmio ────────────── nothing
//! ```
//! A guest frame can also be *on demand*: the domain's memory, mapped when it is first needed ([`source`]).

mod batch;
mod sample;
mod source;
mod table_pool;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::sync::{RwLock, RwLockReadGuard};
use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use stage2::{Geometry, Gfn, Leaf, Mfn, Pa, PageType, Pages, Progress, Statistics, TableMemory, Tables};

use crate::arch::Access;
use crate::arch::tlb::{AddressSpace, Stage2Tlb};
use crate::mm::account::PageAccount;
use crate::mm::block::ClearBlock;
use crate::mm::frame_table::NO_LINK;
use crate::mm::memory;
use crate::mm::page::{self, PageRef};

use batch::Waiting;

pub use batch::Batch;
pub use sample::Sample;
use sample::Sampler;
use source::PageSource;
pub use source::out_of_budget;
use table_pool::TablePool;

/// What an address space is to be.
#[derive(Clone, Copy, Debug)]
pub struct P2mConfig {
    /// Whose.
    pub owner: DomId,
    /// RAM is mapped 1:1 and, when unmapped, stays the domain's.
    pub is_direct_mapped: bool,
    /// The shape of the tables.
    pub geometry: Geometry,
    /// Pages that tables may take at most, the root included.
    pub table_limit: Pages,
}

/// A domain's guest-physical memory.
pub struct P2m {
    owner: DomId,
    is_direct_mapped: bool,
    root: Pa,
    space: AddressSpace,
    account: Arc<PageAccount>,
    /// Being taken apart: nothing is mapped any more. Set under the lock.
    is_closed: AtomicBool,
    source: PageSource,
    /// First touches served.
    faults: AtomicU64,
    /// Access flags that were found clear and set.
    flag_faults: AtomicU64,
    inner: RwLock<Inner>,
}

struct Inner {
    tables: Tables,
    pool: TablePool,
    tlb: Stage2Tlb,
    sampler: Sampler,
    /// The highest guest frame ever mapped (`XENMEM_maximum_gpfn`).
    highest: Gfn,
    /// The domain's memory that is mapped nowhere: a list of blocks as [`Waiting`] has it.
    unmapped: u32,
}

/// Keeps a domain's pages where they are while EL2 copies.
pub(crate) struct CopyGuard<'a>(RwLockReadGuard<'a, Inner>);

impl CopyGuard<'_> {
    #[inline]
    fn lookup(&self, gfn: Gfn) -> Option<Leaf> {
        self.0.tables.lookup_gfn(&self.0.pool, gfn)
    }
}

pub(crate) fn errno(error: stage2::Error) -> Errno {
    match error {
        stage2::Error::OutOfRange | stage2::Error::Misaligned => Errno::EINVAL,
        stage2::Error::Mapped(_) => Errno::EBUSY,
        stage2::Error::NoMemory => Errno::ENOMEM,
    }
}

impl P2m {
    /// An empty address space. `ENOMEM` when there is no memory for its root.
    pub fn new(config: &P2mConfig) -> Result<Self, Errno> {
        let mut pool = TablePool::new(config.table_limit);
        let tables = Tables::new(config.geometry, &mut pool).map_err(errno)?;
        let root = tables.root();
        let space = AddressSpace::new();
        let tlb = Stage2Tlb::new(&space, root);
        Ok(Self {
            owner: config.owner,
            is_direct_mapped: config.is_direct_mapped,
            root,
            space,
            account: Arc::new(PageAccount::new()),
            is_closed: AtomicBool::new(false),
            source: PageSource::Zeros,
            faults: AtomicU64::new(0),
            flag_faults: AtomicU64::new(0),
            inner: RwLock::new(Inner {
                tables,
                pool,
                tlb,
                sampler: Sampler::default(),
                highest: Gfn::ZERO,
                unmapped: NO_LINK,
            }),
        })
    }

    /// The address of the root table, for VTTBR_EL2.
    #[inline]
    pub fn root(&self) -> Pa {
        self.root
    }

    /// The machine's part: the VMID.
    #[inline]
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// The account that pages given back here are taken off.
    pub fn account(&self) -> &Arc<PageAccount> {
        &self.account
    }

    /// The shape of the tables.
    pub fn geometry(&self) -> Geometry {
        self.inner.read().tables.geometry()
    }

    /// What is mapped, by size, and how often that changed.
    pub fn statistics(&self) -> Statistics {
        self.inner.read().tables.statistics()
    }

    /// How often a page was backed because it was needed.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Sets what the domain may have, and frees what was promised beyond.
    pub fn set_maximum(&self, pages: Pages) {
        let inner = self.inner.write();
        self.account.set_maximum(pages);
        self.account.settle(inner.tables.statistics().on_demand, Pages::ZERO);
    }

    /// Sets what the domain is to have, and promises it. See [`PageAccount::set_target`]. `ESRCH` when it is being taken
    /// apart.
    pub fn set_target(&self, pages: Pages) -> Result<(), Errno> {
        let inner = self.inner.write();
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Errno::ESRCH);
        }
        self.account.set_target(pages, inner.tables.statistics().on_demand)
    }

    /// Pages in use for tables, and how many may be.
    pub fn table_pages(&self) -> (Pages, Pages) {
        let inner = self.inner.read();
        (inner.pool.used(), inner.pool.limit())
    }

    /// Changes how many pages tables may take. Those in use stay.
    pub fn set_table_limit(&self, limit: Pages) {
        self.inner.write().pool.set_limit(limit);
    }

    /// Keeps pages for tables of this domain alone. `ENOMEM` where there are not as many.
    pub fn keep_tables(&self, pages: usize) -> Result<(), Errno> {
        self.inner.write().pool.keep(pages)
    }

    /// The highest guest frame that was ever mapped.
    pub fn highest(&self) -> Gfn {
        self.inner.read().highest
    }

    /// What is mapped at a guest frame.
    #[inline]
    pub fn leaf(&self, gfn: Gfn) -> Option<Leaf> {
        self.lock_for_copy().lookup(gfn)
    }

    /// The machine frame at a guest frame, and why it is there.
    #[inline]
    pub fn lookup(&self, gfn: Gfn) -> Option<(Mfn, PageType)> {
        self.leaf(gfn).map(|leaf| (leaf.mfn_of(gfn), leaf.page_type()))
    }

    /// A reference to the page that the guest has at `gfn`, whoever owns it: `EINVAL` if there is none or it is a
    /// device's, `EACCES` if the guest may not do that to it, `ENOMEM` if there is no backing to be had.
    #[inline]
    pub fn get_page(&self, gfn: Gfn, access: Access) -> Result<PageRef, Errno> {
        self.get(gfn, |leaf, lock| {
            if access == Access::Write && !leaf.attributes().is_writable() {
                return Err(Errno::EACCES);
            }
            page::get_mapped(leaf.mfn_of(gfn), lock)
        })
    }

    /// Whether the guest can read, or write, at `gfn`.
    pub fn allows(&self, gfn: Gfn, access: Access) -> bool {
        self.leaf(gfn).is_some_and(|leaf| {
            let allowed = leaf.attributes().access();
            match access {
                Access::Read => allowed.read,
                Access::Write => allowed.write,
            }
        })
    }

    /// Whether the guest can execute code at `gfn`.
    pub fn allows_execution(&self, gfn: Gfn) -> bool {
        self.leaf(gfn).is_some_and(|leaf| leaf.attributes().access().execute)
    }

    /// A reference to the domain's own memory at `gfn`, and whether the domain may write it. `EINVAL` if there is
    /// something else or nothing: what is lent to a domain it cannot lend on. `ENOMEM` if there is no backing to be had.
    #[inline]
    pub fn get_ram(&self, gfn: Gfn) -> Result<(PageRef, bool), Errno> {
        self.get_if(gfn, |page_type| matches!(page_type, PageType::Ram | PageType::RamRo))
    }

    /// The same, or a page that EL2 shows to the domain: what a privileged domain may map.
    pub fn get_ram_or_shared(&self, gfn: Gfn) -> Result<(PageRef, bool), Errno> {
        self.get_if(gfn, |page_type| {
            matches!(page_type, PageType::Ram | PageType::RamRo | PageType::SharedXen)
        })
    }

    /// A reference to the domain's own page with this machine frame number, wherever it is mapped. `EINVAL` if the
    /// frame is not the domain's.
    pub fn get_own(&self, mfn: Mfn) -> Result<PageRef, Errno> {
        page::get(mfn, self.owner, &self.lock_for_copy())
    }

    #[inline]
    fn get_if(&self, gfn: Gfn, accept: impl Fn(PageType) -> bool) -> Result<(PageRef, bool), Errno> {
        self.get(gfn, |leaf, lock| {
            if !accept(leaf.page_type()) {
                return Err(Errno::EINVAL);
            }
            Ok((page::get(leaf.mfn_of(gfn), self.owner, lock)?, leaf.attributes().is_writable()))
        })
    }

    /// Looks at what is mapped at `gfn`, which memory on demand is from now on. `EINVAL` if there is nothing.
    #[inline]
    fn get<R>(&self, gfn: Gfn, look: impl Fn(&Leaf, &CopyGuard<'_>) -> Result<R, Errno>) -> Result<R, Errno> {
        loop {
            {
                let lock = self.lock_for_copy();
                if let Some(leaf) = lock.lookup(gfn) {
                    return look(&leaf, &lock);
                }
            }
            // Again, should the guest give the page up meanwhile; which makes it a hole.
            if !self.back(gfn)? {
                return Err(Errno::EINVAL);
            }
        }
    }

    /// Holds off whoever would take pages away, while EL2 copies from or to addresses that stage 2 translates.
    #[inline]
    pub(crate) fn lock_for_copy(&self) -> CopyGuard<'_> {
        CopyGuard(self.inner.read())
    }

    /// Makes changes together: the tables are locked once, and TLBs are invalidated once at the end if at all.
    ///
    /// `change` must not copy from or to the domain's memory, nor use this p2m in another way: the lock is held.
    #[inline]
    pub fn edit<R>(&self, change: impl FnOnce(&mut Batch<'_>) -> R) -> R {
        let mut inner = self.inner.write();
        let Inner { tables, pool, tlb, highest, .. } = &mut *inner;
        let mut waiting = Waiting::new();
        let on_demand = tables.statistics().on_demand;
        let mut batch = Batch::new(self, tables.edit(pool, tlb), highest, &mut waiting);
        let result = change(&mut batch);
        let flushed = batch.finish();
        waiting.release(self, on_demand, tables.statistics().on_demand, &flushed);
        result
    }

    /// Maps a page of another domain at `gfn`; the mapping keeps the reference. See [`Batch::map_foreign`].
    pub fn map_foreign(&self, gfn: Gfn, page: PageRef, writable: bool) -> Result<(), Errno> {
        self.edit(|batch| batch.map_foreign(gfn, page, writable))
    }

    /// Maps a page that another domain granted. See [`Batch::map_grant`].
    pub fn map_grant(&self, gfn: Gfn, page: PageRef, writable: bool) -> Result<(), Errno> {
        self.edit(|batch| batch.map_grant(gfn, page, writable))
    }

    /// Shows a page of EL2's at `gfn`. See [`Batch::map_shared`].
    pub fn map_shared(&self, gfn: Gfn, page: &PageRef) -> Result<(), Errno> {
        self.edit(|batch| batch.map_shared(gfn, page))
    }

    /// Unmaps one guest frame, whatever is there. See [`Batch::unmap`].
    pub fn unmap(&self, gfn: Gfn) -> Result<(), Errno> {
        self.edit(|batch| batch.unmap(gfn))
    }

    /// Unmaps the page that a grant put at `gfn`. See [`Batch::unmap_grant`].
    pub fn unmap_grant(&self, gfn: Gfn, mfn: Mfn, writable: bool) -> Result<(), Errno> {
        self.edit(|batch| batch.unmap_grant(gfn, mfn, writable))
    }

    /// Gives the domain memory that is mapped nowhere; its account was charged. `ESRCH` when it is being taken apart.
    pub fn add_unmapped(&self, block: ClearBlock) -> Result<(), Errno> {
        let mut inner = self.inner.write();
        let frame = memory().frame(block.mfn());
        let (Some(frame), Ok(link)) = (frame, u32::try_from(block.mfn().raw())) else {
            return Err(Errno::EINVAL);
        };
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(Errno::ESRCH);
        }
        frame.set_next(inner.unmapped);
        frame.set_previous(block.pages().get().ilog2());
        inner.unmapped = link;
        block.give_to(self.owner);
        Ok(())
    }

    /// Takes everything from a domain that will never run again, what it was promised first, and maps nothing any more;
    /// each table entry and each block mapped nowhere costs one of `budget`. Call until [`Progress::Done`].
    pub fn teardown(&self, budget: &mut u64) -> Progress {
        let mut inner = self.inner.write();
        if !self.is_closed.swap(true, Ordering::Relaxed) {
            let withdrawn = self.account.set_target(Pages::ZERO, 0);
            debug_assert!(withdrawn.is_ok());
            // Nobody fetches for a domain that does not run, so once serves all calls.
            batch::forget_instructions();
        }
        let Inner { tables, pool, tlb, unmapped, .. } = &mut *inner;
        while let Some(frame) = memory().frame(Mfn::new((*unmapped).into())) {
            if *budget == 0 {
                return Progress::Preempted;
            }
            *budget -= 1;
            let (mfn, order) = (Mfn::new((*unmapped).into()), frame.previous());
            *unmapped = frame.next();
            self.account.refund(memory().give_up(mfn, order, self.owner));
        }
        tables.teardown(pool, tlb, budget, |leaf| batch::release(self, &leaf))
    }
}

impl Drop for P2m {
    fn drop(&mut self) {
        while self.teardown(&mut { u64::MAX }) == Progress::Preempted {}
        let Inner { tables, pool, .. } = self.inner.get_mut();
        pool.free(tables.root(), tables.geometry().root_pages_log2());
    }
}

#[cfg(test)]
mod tests;
