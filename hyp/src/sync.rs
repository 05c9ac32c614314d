//! Locks: those of `spin`, fair or for many readers, whose waiters give way.
//!
//! EL2 runs with interrupts masked and to completion, so a lock is held for a short, bounded time and needs nothing more.

use spin::RelaxStrategy;

/// Between two looks at a lock: `yield`, which lets another hardware thread go first, and under an emulator that runs
/// the CPUs in turn the one that holds the lock. (`core::hint::spin_loop` is an ISB on AArch64.)
pub struct GiveWay;

impl RelaxStrategy for GiveWay {
    #[inline(always)]
    fn relax() {
        crate::arch::relax();
    }
}

/// Served in the order of arrival.
pub type TicketMutex<T> = spin::mutex::TicketMutex<T, GiveWay>;
/// What holds a [`TicketMutex`].
pub type TicketMutexGuard<'a, T> = spin::mutex::TicketMutexGuard<'a, T, GiveWay>;
/// One writer or many readers.
pub type RwLock<T> = spin::rwlock::RwLock<T, GiveWay>;
/// What holds a [`RwLock`] for reading.
pub type RwLockReadGuard<'a, T> = spin::rwlock::RwLockReadGuard<'a, T, GiveWay>;
