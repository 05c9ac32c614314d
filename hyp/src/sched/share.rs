//! A domain's share of the CPUs: the weight that its vCPUs have, and the cap on what they run together.
//!
//! A cap of 50 lets a domain run half a CPU's time: 5 ms in each period of 10, all its vCPUs counted together. What it runs
//! beyond that, because several CPUs ran it at once or a slice was cut late, it owes; what it does not use is gone.
//! ```text
//!            ┌ period ┐┌ period ┐┌ period ┐
//!   runs     ████······██········██████····    spent ≥ budget: throttled, waits in its queue for the next period
//! ```
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::entity::DEFAULT_WEIGHT;
use crate::sync::TicketMutex;
use crate::time::Ticks;

/// Weight and cap of one domain.
#[derive(Debug)]
pub struct Share {
    weight: AtomicU32,
    /// In percent of one CPU; 0: none.
    cap: AtomicU32,
    books: TicketMutex<Books>,
}

#[derive(Debug)]
struct Books {
    /// When the period began.
    start: u64,
    /// Ticks run in it, and owed from before.
    spent: u64,
}

impl Share {
    /// The usual weight, no cap.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            weight: AtomicU32::new(DEFAULT_WEIGHT),
            cap: AtomicU32::new(0),
            books: TicketMutex::new(Books { start: 0, spent: 0 }),
        }
    }

    /// What its vCPUs are given.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// The cap, in percent of one CPU; 0: none.
    pub fn cap(&self) -> u32 {
        self.cap.load(Relaxed)
    }

    pub(super) fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Relaxed);
    }

    pub(super) fn set_cap(&self, percent: u32) {
        let mut books = self.books.lock();
        books.spent = 0;
        self.cap.store(percent, Relaxed);
    }

    /// Notes that one of its vCPUs ran.
    #[inline]
    pub(super) fn spend(&self, ticks: u64) {
        if self.cap() != 0 {
            let mut books = self.books.lock();
            books.spent = books.spent.saturating_add(ticks);
        }
    }

    /// How long it may still run, and otherwise how long until it may again.
    #[inline]
    pub(super) fn allowance(&self, now: Ticks, period: u64) -> Allowance {
        match self.cap() {
            0 => Allowance::Free,
            cap => self.capped(now, period, u64::from(cap)),
        }
    }

    #[inline(never)]
    fn capped(&self, now: Ticks, period: u64, cap: u64) -> Allowance {
        let budget = (period.saturating_mul(cap) / 100).max(1);
        let mut books = self.books.lock();
        // Counters of two CPUs may be read in the opposite order of the lock.
        let periods = now.get().saturating_sub(books.start) / period.max(1);
        books.start += periods * period;
        books.spent = books.spent.saturating_sub(budget.saturating_mul(periods));
        if books.spent < budget {
            return Allowance::Ticks(budget - books.spent);
        }
        // Where it owes more than a period's budget, more than one must pass.
        let missing = (books.spent - budget) / budget + 1;
        let refill = books.start.saturating_add(missing.saturating_mul(period));
        Allowance::After(refill.saturating_sub(now.get()).max(1))
    }
}

/// What a domain may run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// As long as it likes.
    Free,
    /// So many ticks.
    Ticks(u64),
    /// Nothing for so many ticks.
    After(u64),
}
