//! How many pages a domain has, may have, and was promised.
//!
//! A page counts from its allocation until the last reference to it is gone, even after the domain gave it back
//! (another domain may still use it): so what a domain keeps occupied never exceeds its maximum.

use core::sync::atomic::{AtomicU64, Ordering};

use pv_abi::errno::Errno;
use stage2::Pages;

use super::{Memory, memory};

/// A domain's page counts.
#[derive(Debug)]
pub struct PageAccount {
    current: AtomicU64,
    maximum: AtomicU64,
    claimed: AtomicU64,
}

impl Default for PageAccount {
    fn default() -> Self {
        Self::new()
    }
}

impl PageAccount {
    /// No pages, and none allowed.
    pub const fn new() -> Self {
        Self { current: AtomicU64::new(0), maximum: AtomicU64::new(0), claimed: AtomicU64::new(0) }
    }

    /// Pages it has (`XENMEM_current_reservation`).
    pub fn current(&self) -> Pages {
        Pages::new(self.current.load(Ordering::Relaxed))
    }

    /// Pages it may have (`XENMEM_maximum_reservation`).
    pub fn maximum(&self) -> Pages {
        Pages::new(self.maximum.load(Ordering::Relaxed))
    }

    /// Changes what it may have; less than it has means that it gets none until it gave enough back.
    pub fn set_maximum(&self, pages: Pages) {
        self.maximum.store(pages.get(), Ordering::Relaxed);
    }

    /// Free frames that are set aside for it (`XENMEM_claim_pages`).
    pub fn claimed(&self) -> Pages {
        Pages::new(self.claimed.load(Ordering::Relaxed))
    }

    /// Counts `pages` as its own. `ENOMEM` beyond the maximum, or where they are promised to others.
    #[inline]
    pub fn charge(&self, pages: Pages) -> Result<(), Errno> {
        let maximum = self.maximum.load(Ordering::Relaxed);
        let charged = self.current.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |current| {
            current.checked_add(pages.get()).filter(|&sum| sum <= maximum)
        });
        if charged.is_err() {
            return Err(Errno::ENOMEM);
        }
        let memory = memory();
        if memory.claimed.load(Ordering::Relaxed) != 0 && !self.use_claim(memory, pages) {
            self.refund(pages);
            return Err(Errno::ENOMEM);
        }
        Ok(())
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
        self.current.fetch_sub(pages.get(), Ordering::Relaxed);
    }

    /// Takes `pages` from the claim, and what that lacks from memory that is promised to nobody.
    #[inline(never)]
    fn use_claim(&self, memory: &Memory, pages: Pages) -> bool {
        let claimed = self.claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |claimed| {
            Some(claimed.saturating_sub(pages.get()))
        });
        let used = claimed.unwrap_or(0).min(pages.get());
        let promised = memory.claimed.fetch_sub(used, Ordering::Relaxed) - used;
        used == pages.get() || memory.free_count().get().saturating_sub(promised) >= pages.get()
    }

    /// Sets free frames aside until the domain has `pages` in all; 0 gives up what was set aside. `EINVAL` when it
    /// has a claim or that many pages already or may not have them, `ENOMEM` when there are not enough.
    pub fn claim(&self, pages: Pages) -> Result<(), Errno> {
        let memory = memory();
        // The lock orders claims, so that two never count the same frames.
        let lists = memory.lists.lock();
        if pages.is_zero() {
            let given_up = self.claimed.swap(0, Ordering::Relaxed);
            memory.claimed.fetch_sub(given_up, Ordering::Relaxed);
            return Ok(());
        }
        let wanted =
            pages.checked_sub(self.current()).filter(|wanted| !wanted.is_zero()).ok_or(Errno::EINVAL)?;
        if !self.claimed().is_zero() || pages > self.maximum() {
            return Err(Errno::EINVAL);
        }
        if lists.free_count().saturating_sub(memory.claimed()) < wanted {
            return Err(Errno::ENOMEM);
        }
        self.claimed.store(wanted.get(), Ordering::Relaxed);
        memory.claimed.fetch_add(wanted.get(), Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for PageAccount {
    fn drop(&mut self) {
        let claimed = self.claimed();
        if !claimed.is_zero() {
            memory().claimed.fetch_sub(claimed.get(), Ordering::Relaxed);
        }
    }
}
