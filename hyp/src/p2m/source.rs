//! Where a page comes from that a guest may have and has no backing yet: its domain's *page source*.
//!
//! ```text
//!   a guest's access faults ────────┐
//!   EL2 copies for the guest ───────┼─▶ P2m::back ─▶ PageSource::fetch ─▶ mapped; the access is made again
//!   another maps it: grant, foreign ┘      │
//!                                          └─ nothing left: ENOMEM. If the domain itself needed the page, it ends there
//! ```
//! There is one source today, memory full of zeros. A saved image, another host or a pager would be others: they fetch
//! into a block that the budget gave, as this one clears it.

use core::sync::atomic::Ordering;

use stage2::{BlockSize, Gfn, Pages, Place};

use super::{Batch, P2m};
use crate::domain::{self, Domain};
use crate::mm::account::PageAccount;
use crate::mm::block::ClearBlock;
use crate::mm::memory;
use pv_abi::errno::Errno;
use pv_abi::sched::ShutdownReason;

/// The part of its target that a domain keeps for single pages: while that is reserved, the first touch of 2 MiB gets all
/// of them. What a guest does not use of a block is a loss only until its balloon takes it.
const KEPT_FOR_PAGES: u64 = 8;

/// A domain's page source.
#[derive(Clone, Copy, Debug)]
pub(super) enum PageSource {
    /// Cleared frames from the budget.
    Zeros,
}

impl PageSource {
    /// The content of an extent of `size` at `gfn`, in frames that the account pays for; a page at `place`, if that is free.
    fn fetch(self, account: &PageAccount, _gfn: Gfn, size: BlockSize, place: Place) -> Option<ClearBlock> {
        let Self::Zeros = self;
        if let Some(block) = memory().allocate_reserved(account, size.order(), place) {
            return Some(block.clear());
        }
        // Beyond what was promised, a domain may have single pages up to its maximum.
        if size != BlockSize::Page4K || account.charge(Pages::ONE).is_err() {
            return None;
        }
        let block = memory().allocate_for(account, 0, None);
        if block.is_none() {
            account.refund(Pages::ONE);
        }
        block.map(|block| block.clear())
    }
}

impl P2m {
    /// Gives memory on demand its backing at `gfn`. `false` where there is no such memory; `ENOMEM` when the budget or
    /// the host's memory is used up.
    pub fn back(&self, gfn: Gfn) -> Result<bool, Errno> {
        if !self.is_on_demand(gfn) {
            return Ok(false);
        }
        self.edit(|batch| batch.back(gfn)).map(|()| true)
    }

    /// Whether the domain has memory at `gfn` that nobody touched yet.
    pub fn is_on_demand(&self, gfn: Gfn) -> bool {
        let inner = self.inner.read();
        inner.tables.on_demand(&inner.pool, gfn).is_some()
    }
}

impl Batch<'_> {
    /// Makes `pages` frames from `gfn` on memory on demand. `EBUSY` where something is mapped.
    pub fn mark_on_demand(&mut self, gfn: Gfn, pages: Pages) -> Result<(), Errno> {
        if self.p2m.is_direct_mapped || self.p2m.is_closed.load(Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        self.edit.mark_on_demand(gfn, pages).map_err(super::errno)?;
        self.raise_highest(gfn, pages);
        Ok(())
    }

    /// Whether `gfn` is memory on demand.
    pub fn is_on_demand(&self, gfn: Gfn) -> bool {
        self.edit.on_demand(gfn).is_some()
    }

    /// Backs what is on demand at `gfn`, if it still is.
    fn back(&mut self, gfn: Gfn) -> Result<(), Errno> {
        let Some(vacant) = self.edit.on_demand(gfn) else { return Ok(()) };
        let account = &*self.p2m.account;
        let block = BlockSize::Block2M;
        let kept = account.target().get() / KEPT_FOR_PAGES;
        if vacant >= block && account.reserved().get() >= block.pages().get() + kept {
            let start = Gfn::new(gfn.raw() >> block.order() << block.order());
            if let Some(content) = self.p2m.source.fetch(account, start, block, Place::Any) {
                return self.put(start, content);
            }
        }
        let place = self.edit.place(gfn);
        let content = self.p2m.source.fetch(account, gfn, BlockSize::Page4K, place).ok_or(Errno::ENOMEM)?;
        self.put(gfn, content)
    }

    fn put(&mut self, gfn: Gfn, content: ClearBlock) -> Result<(), Errno> {
        let pages = content.pages();
        self.populate(gfn, content).inspect_err(|_| self.p2m.account.refund(pages))?;
        self.p2m.faults.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Ends a domain that touched memory for which there is no backing.
#[cold]
pub fn out_of_budget(domain: &Domain, gfn: Gfn) {
    let account = &*domain.pages;
    let mib = |pages: Pages| pages.get() >> 8;
    log::error!(
        "{}: stopped: it touched {:#x}, which is memory without backing, and its budget is used up: it has {} of {} MiB \
         ({} KiB free on the host). Does its kernel have a balloon driver that gives back what is above the target before \
         it is used? If so, raise memory= in its configuration",
        domain.id,
        gfn.ipa().raw(),
        mib(account.current()),
        mib(account.maximum()),
        memory().available().get() << 2,
    );
    domain::shut_down(domain, ShutdownReason::Crash);
}

#[cfg(test)]
mod tests;
