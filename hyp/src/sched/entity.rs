//! What the scheduler knows about one vCPU.
//!
//! ```text
//!           start              pick                block
//!   Down ─────────▶ Runnable ─────────▶ Running ───────────▶ Blocked
//!    ▲                 ▲ ▲                │ │                   │
//!    │                 │ └──── pick ──────┘ │                   │
//!    │                 └────────────── wake ────────────────────┘
//!    └──────────── stop, remove (from any state) ────────────────
//! ```
//! Everything here changes only under the lock of the run queue of [`Entity::home`], except `loaded_on`, which belongs
//! to the CPU that loads and unloads. The fields are atomics so that others may look without the lock; under the lock
//! relaxed accesses suffice.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::*};

use alloc::sync::Arc;

use spin::Once;

use super::mask::CpuMask;
use super::share::{Allowance, Share};
use crate::cpu::CpuId;
use crate::time::{Nanoseconds, Ticks};

/// Weight of a domain that asks for none, as in Xen's credit schedulers.
pub const DEFAULT_WEIGHT: u32 = 256;
/// The largest weight (`XEN_DOMCTL_SCHEDOP_putinfo` carries 16 bits).
pub const MAX_WEIGHT: u32 = 65535;

/// Virtual time per tick for a weight of 1: fine enough that a weight of [`MAX_WEIGHT`] still pays for each tick.
const VIRTUAL_SCALE: u64 = 1 << 16;
/// Longest span charged at once, so that the product with [`VIRTUAL_SCALE`] cannot overflow.
const MAX_CHARGE: u64 = u64::MAX / VIRTUAL_SCALE;

const NOWHERE: u8 = u8::MAX;

/// Where a vCPU stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Switched off (PSCI).
    Down,
    /// Waits for an event or interrupt.
    Blocked,
    /// Would run: is in a run queue, or would be but for being paused.
    Runnable,
    /// Is the current vCPU of its home CPU.
    Running,
}

impl State {
    fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Blocked,
            2 => Self::Runnable,
            3 => Self::Running,
            // 0; no other value is ever stored.
            _ => Self::Down,
        }
    }
}

/// `RUNSTATE_*` (public/vcpu.h): how the guest is told about its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Runs on a physical CPU.
    Running = 0,
    /// Would run, but a physical CPU is missing.
    Runnable = 1,
    /// Waits for an event or interrupt.
    Blocked = 2,
    /// Neither: switched off or paused.
    Offline = 3,
}

/// Times a vCPU spent, for `VCPUOP_get_runstate_info` and `getdomaininfo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runstate {
    /// What it does now.
    pub phase: Phase,
    /// Since when.
    pub entered: Ticks,
    /// Time in each phase, in the order of [`Phase`].
    pub spent: [Nanoseconds; 4],
}

/// A point of virtual time: real time divided by weight. It wraps; only differences mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Virtual(u64);

impl Virtual {
    pub(super) const ZERO: Self = Self(0);

    /// How far this is past `other`; negative when it is before.
    pub(super) fn since(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    pub(super) fn offset(self, by: i64) -> Self {
        Self(self.0.wrapping_add(by.cast_unsigned()))
    }

    pub(super) fn is_before(self, other: Self) -> bool {
        self.since(other) < 0
    }

    pub(super) fn max(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }

    pub(super) fn min(self, other: Self) -> Self {
        if self.is_before(other) { self } else { other }
    }
}

/// A vCPU as the scheduler sees it.
#[derive(Debug)]
pub struct Entity {
    home: AtomicU8,
    state: AtomicU8,
    loaded_on: AtomicU8,
    paused: AtomicU32,
    affinity: AtomicU32,
    soft_affinity: AtomicU32,
    weight: AtomicU32,
    vruntime: AtomicU64,
    charged_until: AtomicU64,
    entered: AtomicU64,
    spent: [AtomicU64; 4],
    share: Once<Arc<Share>>,
}

impl Entity {
    /// Down, on no CPU, with the default weight and every CPU allowed.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            home: AtomicU8::new(0),
            state: AtomicU8::new(State::Down as u8),
            loaded_on: AtomicU8::new(NOWHERE),
            paused: AtomicU32::new(0),
            affinity: AtomicU32::new(CpuMask::ALL.bits()),
            soft_affinity: AtomicU32::new(CpuMask::ALL.bits()),
            weight: AtomicU32::new(DEFAULT_WEIGHT),
            vruntime: AtomicU64::new(0),
            charged_until: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            spent: [const { AtomicU64::new(0) }; 4],
            share: Once::new(),
        }
    }

    /// The CPU whose run queue holds it, or held it last.
    #[inline]
    pub fn home(&self) -> CpuId {
        CpuId::new(usize::from(self.home.load(Acquire))).unwrap_or(CpuId::BOOT)
    }

    /// Where it stands; may be outdated by the time the caller looks.
    #[inline]
    pub fn state(&self) -> State {
        State::from_raw(self.state.load(Acquire))
    }

    /// The CPU whose registers hold its state.
    #[inline]
    pub fn loaded_on(&self) -> Option<CpuId> {
        CpuId::new(usize::from(self.loaded_on.load(Acquire)))
    }

    /// The CPU that runs it now.
    #[inline]
    pub fn running_on(&self) -> Option<CpuId> {
        if self.state() == State::Running { Some(self.home()) } else { None }
    }

    /// The CPUs it may run on.
    #[inline]
    pub fn affinity(&self) -> CpuMask {
        CpuMask::from_bits(self.affinity.load(Relaxed))
    }

    /// The CPUs it should run on where there is a choice. Only advice, so it may change at any time.
    #[inline]
    pub fn soft_affinity(&self) -> CpuMask {
        CpuMask::from_bits(self.soft_affinity.load(Relaxed))
    }

    /// Changes [`Self::soft_affinity`]; it counts from the next wake-up on.
    pub fn set_soft_affinity(&self, mask: CpuMask) {
        self.soft_affinity.store(mask.bits(), Relaxed);
    }

    /// Its share, in relation to others'.
    #[inline]
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Whether something keeps it from running whatever its state.
    #[inline]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Relaxed) != 0
    }

    pub(super) fn set_loaded_on(&self, cpu: Option<CpuId>) {
        self.loaded_on.store(cpu.map_or(NOWHERE, |c| c.index() as u8), Release);
    }

    pub(super) fn set_home(&self, cpu: CpuId) {
        self.home.store(cpu.index() as u8, Release);
    }

    pub(super) fn set_affinity(&self, mask: CpuMask) {
        self.affinity.store(mask.bits(), Relaxed);
    }

    pub(super) fn set_weight(&self, weight: u32) {
        self.weight.store(weight.clamp(1, MAX_WEIGHT), Relaxed);
    }

    /// Adds (`true`) or takes away a reason not to run; whether that was the first or the last one.
    pub(super) fn set_paused(&self, pause: bool, now: Ticks) -> bool {
        self.charge(now);
        let count = self.paused.load(Relaxed);
        let new = if pause { count.saturating_add(1) } else { count.saturating_sub(1) };
        self.paused.store(new, Relaxed);
        let changed = (count == 0) != (new == 0);
        if changed && self.state() != State::Running {
            self.entered.store(now.get(), Relaxed);
        }
        changed
    }

    /// Makes it one of those that run in a domain's share.
    pub(super) fn set_share(&self, share: &Arc<Share>) {
        self.share.call_once(|| share.clone());
    }

    /// What the cap of its domain lets it run.
    #[inline]
    pub(super) fn allowance(&self, now: Ticks, period: u64) -> Allowance {
        self.share.get().map_or(Allowance::Free, |share| share.allowance(now, period))
    }

    pub(super) fn vruntime(&self) -> Virtual {
        Virtual(self.vruntime.load(Relaxed))
    }

    pub(super) fn set_vruntime(&self, to: Virtual) {
        self.vruntime.store(to.0, Relaxed);
    }

    /// What a span of real time costs this entity in virtual time.
    pub(super) fn virtual_span(&self, ticks: u64) -> i64 {
        (ticks.min(MAX_CHARGE >> 1) * VIRTUAL_SCALE / u64::from(self.weight().max(1))).cast_signed()
    }

    pub(super) fn phase(&self) -> Phase {
        match self.state() {
            State::Running => Phase::Running,
            State::Blocked => Phase::Blocked,
            State::Runnable if !self.is_paused() => Phase::Runnable,
            State::Runnable | State::Down => Phase::Offline,
        }
    }

    /// Books the time since the last call under the present phase.
    pub(super) fn charge(&self, now: Ticks) {
        let until = self.charged_until.load(Relaxed);
        // Counters of two CPUs may be read in the opposite order of the lock.
        let Some(ticks) = now.get().checked_sub(until) else { return };
        self.charged_until.store(now.get(), Relaxed);
        let phase = self.phase();
        let spent = &self.spent[phase as usize];
        spent.store(spent.load(Relaxed).wrapping_add(ticks), Relaxed);
        if phase == Phase::Running {
            self.set_vruntime(self.vruntime().offset(self.virtual_span(ticks)));
            if let Some(share) = self.share.get() {
                share.spend(ticks);
            }
        }
    }

    /// Starts the books at `now`.
    pub(super) fn open_books(&self, now: Ticks) {
        self.charged_until.store(now.get(), Relaxed);
        self.entered.store(now.get(), Relaxed);
    }

    /// Enters another state; the time before is booked under the old one.
    pub(super) fn enter(&self, state: State, now: Ticks) {
        self.charge(now);
        self.entered.store(now.get(), Relaxed);
        self.state.store(state as u8, Release);
    }

    pub(super) fn runstate(&self, now: Ticks) -> Runstate {
        self.charge(now);
        Runstate {
            phase: self.phase(),
            entered: Ticks::new(self.entered.load(Relaxed)),
            spent: core::array::from_fn(|i| Nanoseconds::from_ticks(self.spent[i].load(Relaxed))),
        }
    }
}
