//! How many pages a domain has, may have, and was promised.
//!
//! ```text
//!                      ┌── has: tot_pages ────┐
//!   backed by frames   │  reserved for pages  │  claimed for what it     what it may have
//!                      │  on demand           │  will ask for
//!   0 ─────────────────┼──────────────────────┼───────────────── target ─────── maximum
//!                      └──── promised: free frames, set aside ────┘
//! ```
//! A page counts from its allocation until the last reference to it is gone, even after the domain gave it back
//! (another domain may still use it): so what a domain keeps occupied never exceeds its maximum.
//!
//! A domain with a target is promised it: what it lacks is set aside from free memory, first for its pages on demand,
//! which count as its own then. The promises of all domains never exceed what is free, as they change only under the
//! allocator's lock. A target below what it has takes nothing away: its balloon must give that back.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pv_abi::errno::Errno;
use stage2::Pages;

use super::memory;

/// A domain's page counts.
#[derive(Debug, Default)]
pub struct PageAccount {
    /// Backed or reserved.
    current: AtomicU64,
    maximum: AtomicU64,
    /// 0: none.
    target: AtomicU64,
    // Changed under the allocator's lock only.
    pub(super) reserved: AtomicU64,
    pub(super) claimed: AtomicU64,
}

impl PageAccount {
    /// No pages, and none allowed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pages it has (`XENMEM_current_reservation`): with backing, or promised for memory on demand.
    pub fn current(&self) -> Pages {
        Pages::new(self.current.load(Relaxed))
    }

    /// Pages it may have (`XENMEM_maximum_reservation`).
    pub fn maximum(&self) -> Pages {
        Pages::new(self.maximum.load(Relaxed))
    }

    /// Changes what it may have; less than it has means that it gets none until it gave enough back. A target above it
    /// becomes as low, at once; what was set aside for that is free when the p2m [settles](Self::settle) next.
    pub fn set_maximum(&self, pages: Pages) {
        self.maximum.store(pages.get(), Relaxed);
        self.target.fetch_min(pages.get(), Relaxed);
    }

    /// Pages it is to have; what it may have, while nobody said otherwise.
    pub fn target(&self) -> Pages {
        match self.target.load(Relaxed) {
            0 => self.maximum(),
            target => Pages::new(target),
        }
    }

    /// Whether it was given a target, so that pages given up may have to stay promised.
    #[inline]
    pub fn has_target(&self) -> bool {
        self.target.load(Relaxed) != 0
    }

    /// Free frames that are set aside for its memory on demand.
    pub fn reserved(&self) -> Pages {
        Pages::new(self.reserved.load(Relaxed))
    }

    /// Free frames that are set aside for what it will ask for (`XENMEM_claim_pages`, or up to its target).
    pub fn claimed(&self) -> Pages {
        Pages::new(self.claimed.load(Relaxed))
    }

    /// Counts `pages` as its own. `ENOMEM` beyond the maximum.
    #[inline]
    pub fn charge(&self, pages: Pages) -> Result<(), Errno> {
        let maximum = self.maximum.load(Relaxed);
        let charged = self.current.fetch_update(Relaxed, Relaxed, |current| {
            current.checked_add(pages.get()).filter(|&sum| sum <= maximum)
        });
        charged.map(drop).map_err(|_| Errno::ENOMEM)
    }

    /// Counts as many of `pages` as its own as it may have; how many.
    #[inline]
    pub fn charge_up_to(&self, pages: Pages) -> Pages {
        if self.charge(pages).is_ok() {
            return pages;
        }
        let room = self.maximum().saturating_sub(self.current()).min(pages);
        if self.charge(room).is_ok() { room } else { Pages::ZERO }
    }

    /// No longer counts `pages` as its own.
    #[inline]
    pub fn refund(&self, pages: Pages) {
        self.current.fetch_sub(pages.get(), Relaxed);
    }

    /// Sets free frames aside until the domain has `pages` in all; 0 gives up what was set aside. `EINVAL` when it
    /// has a claim or that many pages already or may not have them, `ENOMEM` when there are not enough. A domain with a
    /// target has its claim from that.
    pub fn claim(&self, pages: Pages) -> Result<(), Errno> {
        // The lock orders claims, so that two never count the same frames.
        let mut lists = memory().lists.lock();
        if pages.is_zero() {
            if !self.has_target() {
                lists.promised -= self.claimed.swap(0, Relaxed);
            }
            return Ok(());
        }
        let wanted =
            pages.checked_sub(self.current()).filter(|wanted| !wanted.is_zero()).ok_or(Errno::EINVAL)?;
        if !self.claimed().is_zero() || self.has_target() || pages > self.maximum() {
            return Err(Errno::EINVAL);
        }
        if lists.available() < wanted.get() {
            return Err(Errno::ENOMEM);
        }
        self.claimed.store(wanted.get(), Relaxed);
        lists.promised += wanted.get();
        Ok(())
    }

    /// Sets what it is to have, and promises it; 0 withdraws the promise. `on_demand` is how many pages have no backing
    /// yet; its p2m is locked. `EINVAL` beyond the maximum, `ENOMEM` when there is not enough free memory.
    pub(crate) fn set_target(&self, target: Pages, on_demand: u64) -> Result<(), Errno> {
        if target > self.maximum() {
            return Err(Errno::EINVAL);
        }
        let mut lists = memory().lists.lock();
        let (reserved, claimed) = (self.reserved.load(Relaxed), self.claimed.load(Relaxed));
        let (new_reserved, new_claimed) = match target {
            Pages::ZERO => (0, 0),
            _ => self.promises(target.get(), on_demand, 0),
        };
        let more = (new_reserved + new_claimed).saturating_sub(reserved + claimed);
        if more > lists.available() {
            return Err(Errno::ENOMEM);
        }
        self.target.store(target.get(), Relaxed);
        lists.promised = lists.promised - reserved - claimed + new_reserved + new_claimed;
        self.set_promises(new_reserved, new_claimed);
        Ok(())
    }

    /// Brings the promises in line with `on_demand` pages without backing, after the domain gave up `freed` frames, which
    /// are still counted as its own and were promised as they became free.
    pub(crate) fn settle(&self, on_demand: u64, freed: Pages) {
        let mut lists = memory().lists.lock();
        lists.promised -= freed.get();
        self.refund(freed);
        let (reserved, claimed) = (self.reserved.load(Relaxed), self.claimed.load(Relaxed));
        let (mut new_reserved, mut new_claimed) = match self.target.load(Relaxed) {
            0 => (0, claimed),
            target => self.promises(target, on_demand, freed.get()),
        };
        // Only a page that went astray, to one who still refers to it, can make a promise that nothing stands behind.
        let room = lists.available() + reserved + claimed;
        new_reserved = new_reserved.min(room);
        new_claimed = new_claimed.min(room - new_reserved);
        lists.promised = lists.promised - reserved - claimed + new_reserved + new_claimed;
        self.set_promises(new_reserved, new_claimed);
    }

    /// What is to be reserved and claimed. Memory on demand is served first, from the target and from what was just
    /// freed: so a guest that touches a page only to give it back does not run dry.
    fn promises(&self, target: u64, on_demand: u64, freed: u64) -> (u64, u64) {
        let reserved = self.reserved.load(Relaxed);
        let backed = self.current.load(Relaxed).saturating_sub(reserved);
        let lacking = target.saturating_sub(backed);
        let new_reserved = lacking.max(reserved + freed).min(on_demand);
        (new_reserved, lacking.saturating_sub(new_reserved))
    }

    fn set_promises(&self, reserved: u64, claimed: u64) {
        let before = self.reserved.swap(reserved, Relaxed);
        self.current.fetch_add(reserved.wrapping_sub(before), Relaxed);
        self.claimed.store(claimed, Relaxed);
    }
}

impl Drop for PageAccount {
    fn drop(&mut self) {
        let promised = self.claimed().saturating_add(self.reserved());
        if !promised.is_zero() {
            memory().lists.lock().promised -= promised.get();
        }
    }
}
