//! The scheduler proper: which CPU a vCPU goes to, and whom a CPU runs next.
//!
//! Each operation takes the time and answers which CPU must look again; it kicks nobody itself, so a test can be a
//! machine. Locks: one run queue, or two in the order of their CPUs.
//!
//! Three rules keep every CPU busy that could be:
//! - a wake-up goes to an idle CPU where one is allowed;
//! - a CPU marks itself idle *before* it looks for work elsewhere, and who adds work to a busy CPU looks for idle ones
//!   *after* that: one of the two sees the other;
//! - who becomes free to move (its registers were saved) while it waits is offered to an idle CPU.
//!
//! Virtual time belongs to a queue: each has a floor, and a vCPU that sleeps long or changes queues comes near it.
#![forbid(unsafe_code)]

mod balance;

use alloc::sync::Arc;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*, fence};

use crate::sync::{TicketMutex, TicketMutexGuard};

use super::entity::{Entity, Runstate, State};
use super::mask::CpuMask;
use super::queue::RunQueue;
use super::share::{Allowance, Share};
use crate::cpu::{CpuId, MAX_CPUS};
use crate::time::{Nanoseconds, Ticks};

/// Something that can be scheduled: a vCPU, or a test's stand-in.
pub trait Schedulable: Send + Sync {
    /// The scheduler's part of it.
    fn entity(&self) -> &Entity;
}

/// What a CPU does next.
#[derive(Debug)]
pub struct Decision<V> {
    /// The vCPU to run; the CPU idles without one.
    pub next: Option<Arc<V>>,
    /// Ticks after which to ask again.
    pub slice: u64,
    /// The same for a CPU that idles: then somebody who waits has used up what his domain may run.
    pub refill: Option<u64>,
    /// The CPU that must look, too.
    pub kick: Kick,
    /// What is loaded here must be saved even if nobody else runs: it waits to run on another CPU.
    pub unload: bool,
}

/// The CPU that must look at its run queue again because of a call, if any.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kick(pub Option<CpuId>);

impl Kick {
    const NOBODY: Self = Self(None);
}

/// Spans of time that shape the decisions, in ticks.
#[derive(Debug)]
struct Tuning {
    /// Everyone who waits on a CPU should run once in this time …
    latency: AtomicU64,
    /// … in slices not shorter than this …
    min_slice: AtomicU64,
    /// … nor longer than this. Also: what a sleeper is credited at most.
    max_slice: AtomicU64,
    /// How often a busy CPU compares loads: its slice when it is alone.
    balance: AtomicU64,
    /// By how much a waker must be behind to preempt.
    granularity: AtomicU64,
    /// The period of caps.
    period: AtomicU64,
}

/// A CPU's run queue and what others may know of it without its lock.
#[repr(align(128))]
struct Slot<V> {
    queue: TicketMutex<RunQueue<V>>,
    waiting: AtomicUsize,
    load: AtomicU32,
    must_reschedule: AtomicBool,
}

/// A locked run queue; letting go publishes what others may know of it.
struct Locked<'a, V: Schedulable> {
    slot: &'a Slot<V>,
    queue: TicketMutexGuard<'a, RunQueue<V>>,
}

impl<V: Schedulable> Deref for Locked<'_, V> {
    type Target = RunQueue<V>;
    fn deref(&self) -> &RunQueue<V> {
        &self.queue
    }
}

impl<V: Schedulable> DerefMut for Locked<'_, V> {
    fn deref_mut(&mut self) -> &mut RunQueue<V> {
        &mut self.queue
    }
}

impl<V: Schedulable> Drop for Locked<'_, V> {
    fn drop(&mut self) {
        self.slot.waiting.store(self.queue.len(), Relaxed);
        self.slot.load.store(self.queue.load(), Relaxed);
    }
}

/// The run queues of all CPUs.
pub struct Scheduler<V> {
    slots: [Slot<V>; MAX_CPUS],
    online: AtomicU32,
    idle: AtomicU32,
    exclusive: AtomicU32,
    tuning: Tuning,
}

impl<V: Schedulable> Scheduler<V> {
    /// No CPU yet: [`Self::init`] brings them.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self {
            slots: [const {
                Slot {
                    queue: TicketMutex::new(RunQueue::new()),
                    waiting: AtomicUsize::new(0),
                    load: AtomicU32::new(0),
                    must_reschedule: AtomicBool::new(false),
                }
            }; MAX_CPUS],
            online: AtomicU32::new(0),
            idle: AtomicU32::new(0),
            exclusive: AtomicU32::new(0),
            tuning: Tuning {
                latency: AtomicU64::new(0),
                min_slice: AtomicU64::new(0),
                max_slice: AtomicU64::new(0),
                balance: AtomicU64::new(0),
                granularity: AtomicU64::new(0),
                period: AtomicU64::new(0),
            },
        }
    }

    /// Says which CPUs there are and how many ticks a second has. CPUs count as busy until they first [`Self::pick`].
    pub fn init(&self, cpus: CpuMask, frequency: u64) {
        let ms = (frequency / 1000).max(1);
        self.tuning.latency.store(20 * ms, Relaxed);
        self.tuning.min_slice.store(2 * ms, Relaxed);
        self.tuning.max_slice.store(10 * ms, Relaxed);
        self.tuning.balance.store(30 * ms, Relaxed);
        self.tuning.granularity.store(ms / 2, Relaxed);
        self.tuning.period.store(10 * ms, Relaxed);
        self.online.store(cpus.bits(), Release);
    }

    /// Gives a CPU to those vCPUs alone whose affinity names no other, or takes it back.
    pub fn set_exclusive(&self, cpu: CpuId, exclusive: bool) {
        let bit = CpuMask::only(cpu).bits();
        if exclusive {
            self.exclusive.fetch_or(bit, Release)
        } else {
            self.exclusive.fetch_and(!bit, Release)
        };
    }

    /// Enters a vCPU that is [`State::Down`], with its domain's weight (clamped to 1..=65535), on the least used CPU it may
    /// use.
    pub fn add(&self, v: &Arc<V>, share: &Arc<Share>, affinity: CpuMask, now: Ticks) {
        let entity = v.entity();
        entity.set_share(share);
        entity.set_weight(share.weight());
        entity.set_affinity(affinity);
        entity.set_home(self.allowed(entity).first().unwrap_or(CpuId::BOOT));
        let home = self.lock_home(entity);
        entity.open_books(now);
        entity.set_vruntime(home.floor());
    }

    /// Takes a vCPU out for good: it is down, in no queue, and its CPU is told if it runs.
    pub fn remove(&self, v: &Arc<V>, now: Ticks) -> Kick {
        self.stop(v, now)
    }

    /// [`State::Down`] to runnable: PSCI CPU_ON, or the first vCPU of a domain.
    pub fn start(&self, v: &Arc<V>, now: Ticks) -> Kick {
        self.make_runnable(v, State::Down, now)
    }

    /// Any state to [`State::Down`]: PSCI CPU_OFF (the caller then picks), or a domain's end.
    pub fn stop(&self, v: &Arc<V>, now: Ticks) -> Kick {
        let entity = v.entity();
        let taken;
        let kick;
        {
            let mut home = self.lock_home(entity);
            entity.enter(State::Down, now);
            taken = home.take_out(v);
            kick = self.dislodge(&home, v);
        }
        // Possibly the last reference: not under the lock.
        drop(taken);
        kick
    }

    /// [`State::Running`] to [`State::Blocked`], for the CPU that runs it.
    ///
    /// A wake-up may have come just before, to a vCPU that was not blocked yet, and have done nothing. So the caller
    /// blocks *first*, then looks once more for what the vCPU waits for, and calls [`Self::wake`] if it is there.
    pub fn block(&self, v: &Arc<V>, now: Ticks) {
        let entity = v.entity();
        {
            let _home = self.lock_home(entity);
            if entity.state() == State::Running {
                entity.enter(State::Blocked, now);
            }
        }
        // Orders the new state before the caller's second look; pairs with the fence in `wake`.
        fence(SeqCst);
    }

    /// [`State::Blocked`] to runnable, from any CPU; otherwise nothing. What it waits for was made visible before.
    #[inline]
    pub fn wake(&self, v: &Arc<V>, now: Ticks) -> Kick {
        // Orders the caller's news before the look at the state; pairs with the fence in `block`.
        fence(SeqCst);
        if v.entity().state() != State::Blocked {
            return Kick::NOBODY;
        }
        self.make_runnable(v, State::Blocked, now)
    }

    /// Adds a reason not to run. The CPU that runs it, if any, is told; [`Entity::running_on`] shows when it has stopped.
    pub fn pause(&self, v: &Arc<V>, now: Ticks) -> Kick {
        let entity = v.entity();
        let mut home = self.lock_home(entity);
        if !entity.set_paused(true, now) {
            return Kick::NOBODY;
        }
        let taken = home.take_out(v);
        let kick = self.dislodge(&home, v);
        drop(home);
        drop(taken);
        kick
    }

    /// Has the CPU that runs a vCPU, or still has its registers, look again: it puts it off and saves it.
    fn dislodge(&self, home: &Locked<'_, V>, v: &Arc<V>) -> Kick {
        let entity = v.entity();
        if home.is_current(v) || entity.loaded_on().is_some() {
            self.ask(home, entity.home())
        } else {
            Kick::NOBODY
        }
    }

    /// Takes a reason not to run away.
    pub fn unpause(&self, v: &Arc<V>, now: Ticks) -> Kick {
        let entity = v.entity();
        loop {
            let (from, to) = (entity.home(), self.choose(entity));
            let (home, other) = self.lock_two(from, to);
            if entity.home() != from {
                continue;
            }
            if !entity.set_paused(false, now) || entity.state() != State::Runnable {
                return Kick::NOBODY;
            }
            return self.enqueue(v.clone(), home, other, to, now);
        }
    }

    /// Allows a vCPU other CPUs; `false` (and nothing done) if none of them is online.
    pub fn set_affinity(&self, v: &Arc<V>, mask: CpuMask) -> Option<Kick> {
        if mask.and(self.online()).is_empty() {
            return None;
        }
        let entity = v.entity();
        let home = self.lock_home(entity);
        entity.set_affinity(mask);
        let allowed = self.allowed(entity);
        if allowed.contains(entity.home()) {
            let may_move = entity.state() == State::Runnable && entity.loaded_on().is_none();
            return Some(if may_move { self.summon(allowed) } else { Kick::NOBODY });
        }
        // Its CPU puts it off at the next `pick`, saves it, and `unloaded` sends it on. A waiting one whose registers
        // are nowhere has nothing to wait for.
        if home.is_current(v) || entity.loaded_on().is_some() {
            return Some(self.ask(&home, entity.home()));
        }
        drop(home);
        Some(self.relocate(v))
    }

    /// Changes a vCPU's share.
    pub fn set_weight(&self, v: &Arc<V>, weight: u32, now: Ticks) {
        let entity = v.entity();
        let mut home = self.lock_home(entity);
        entity.charge(now);
        let waiting = home.take_out(v);
        entity.set_weight(weight);
        if let Some(v) = waiting {
            home.insert(v);
        }
    }

    /// Has all CPUs choose again, because what a domain may run has changed. They are to be kicked.
    pub fn look_again(&self) -> CpuMask {
        for cpu in self.online().iter() {
            self.slots[cpu.index()].must_reschedule.store(true, Release);
        }
        self.online()
    }

    /// Says that the registers of `cpu` now hold this vCPU.
    #[inline]
    pub fn loaded(&self, v: &Arc<V>, cpu: CpuId) {
        v.entity().set_loaded_on(Some(cpu));
    }

    /// Says that this vCPU's registers were saved: from here on any CPU may run it.
    #[inline]
    pub fn unloaded(&self, v: &Arc<V>) -> Kick {
        let entity = v.entity();
        entity.set_loaded_on(None);
        // Either this sees that a wake-up has queued it, or the wake-up's search for an idle CPU sees it unloaded.
        fence(SeqCst);
        if entity.state() != State::Runnable {
            return Kick::NOBODY;
        }
        let allowed = self.allowed(entity);
        if allowed.contains(entity.home()) { self.summon(allowed) } else { self.relocate(v) }
    }

    /// Whether a vCPU waits for `cpu` besides the one that runs there. One relaxed load.
    #[inline]
    pub fn has_other_runnable(&self, cpu: CpuId) -> bool {
        self.slots[cpu.index()].waiting.load(Relaxed) != 0
    }

    /// Whether `cpu` must [`Self::pick`] before it enters a guest or sleeps.
    #[inline]
    pub fn must_reschedule(&self, cpu: CpuId) -> bool {
        self.slots[cpu.index()].must_reschedule.load(Acquire)
    }

    /// The CPUs that sleep or are about to.
    #[inline]
    pub fn idle(&self) -> CpuMask {
        CpuMask::from_bits(self.idle.load(SeqCst))
    }

    /// The CPUs there are.
    #[inline]
    pub fn online(&self) -> CpuMask {
        CpuMask::from_bits(self.online.load(Acquire))
    }

    /// How long a CPU had nobody to run, since it first looked.
    pub fn idle_time(&self, cpu: CpuId, now: Ticks) -> Nanoseconds {
        Nanoseconds::from_ticks(self.lock(cpu).idle_ticks(now))
    }

    /// Lets the next vCPU in order go first; the caller, on `cpu`, then picks.
    pub fn yield_now(&self, cpu: CpuId, now: Ticks) {
        let home = self.lock(cpu);
        let Some(current) = &home.current else { return };
        let entity = current.entity();
        entity.charge(now);
        let first = home.position(|v| self.may_run(v.entity(), cpu, now)).and_then(|i| home.get(i));
        if let Some(first) = first {
            entity.set_vruntime(entity.vruntime().max(first.entity().vruntime().offset(1)));
        }
    }

    /// Where the time of a vCPU went.
    pub fn runstate(&self, v: &Arc<V>, now: Ticks) -> Runstate {
        let _home = self.lock_home(v.entity());
        v.entity().runstate(now)
    }

    /// Decides what `cpu` runs next. Called by that CPU when its vCPU blocked, yielded or was stopped, when its slice
    /// ended, when [`Self::must_reschedule`] says so, and when it wakes from idling.
    pub fn pick(&self, cpu: CpuId, now: Ticks) -> Decision<V> {
        let left;
        let mut decision;
        let was_idle;
        {
            let mut home = self.lock(cpu);
            was_idle = home.idle_since.is_some();
            // Cleared under the lock: what is asked for later concerns a later state.
            home.slot.must_reschedule.swap(false, AcqRel);
            if now >= home.next_balance {
                home.next_balance = now.after(self.tuning.balance.load(Relaxed));
                if home.current.as_ref().is_some_and(|v| v.entity().state() == State::Running) {
                    let last = home.last_victim;
                    drop(home);
                    self.pull(cpu, last, now);
                    home = self.lock(cpu);
                }
            }
            let mut refill = None;
            left = self.retire(&mut home, cpu, now, &mut refill);
            decision = self.commit(&mut home, cpu, now, refill);
        }
        drop(left);
        if decision.next.is_none()
            && let Some(next) = self.steal(cpu, now, &mut decision.refill)
        {
            decision = next;
        }
        // One of many for whom the wait ended at once, by a refill: the next idle CPU sees to the next.
        if was_idle && decision.next.is_some() && self.online().iter().any(|c| self.has_other_runnable(c)) {
            decision.kick = self.summon(self.idle());
        }
        decision
    }

    /// Takes the current vCPU off `cpu` unless it is still the best choice there. Whoever must not be queued again
    /// (blocked, down, paused) is returned, to be dropped without the lock.
    /// `refill` becomes when somebody who waits before it may run again.
    fn retire(
        &self,
        home: &mut Locked<'_, V>,
        cpu: CpuId,
        now: Ticks,
        refill: &mut Option<u64>,
    ) -> Option<Arc<V>> {
        let entity = home.current.as_ref()?.entity();
        entity.charge(now);
        self.raise_floor(home, cpu, now);
        let current = home.current.take()?;
        let entity = current.entity();
        if entity.state() != State::Running {
            return Some(current);
        }
        if entity.is_paused() {
            entity.enter(State::Runnable, now);
            return Some(current);
        }
        if self.may_run(entity, cpu, now) {
            let vruntime = entity.vruntime();
            let can =
                |v: &V| self.allowed(v.entity()).contains(cpu) && !self.is_throttled(v.entity(), now, refill);
            let first = home.position(can).and_then(|i| home.get(i));
            if !first.is_some_and(|f| f.entity().vruntime().is_before(vruntime)) {
                home.current = Some(current);
                return None;
            }
        }
        entity.enter(State::Runnable, now);
        if self.is_throttled(entity, now, &mut None) {
            // It falls behind those who run meanwhile; not without bound.
            let credit = entity.virtual_span(self.tuning.max_slice.load(Relaxed));
            entity.set_vruntime(entity.vruntime().max(home.floor().offset(-credit)));
        }
        home.insert(current);
        None
    }

    /// Makes the first in order the current one if there is none, and says how long it may run.
    fn commit(
        &self,
        home: &mut Locked<'_, V>,
        cpu: CpuId,
        now: Ticks,
        mut refill: Option<u64>,
    ) -> Decision<V> {
        let mut unload = false;
        if home.current.is_none() {
            let first = home.position(|v| {
                let entity = v.entity();
                let allowed = self.allowed(entity).contains(cpu);
                unload |= !allowed && entity.loaded_on() == Some(cpu);
                allowed && !self.is_throttled(entity, now, &mut refill)
            });
            if let Some(next) = first.and_then(|i| home.take(i)) {
                next.entity().enter(State::Running, now);
                home.current = Some(next);
            }
        }
        let bit = CpuMask::only(cpu).bits();
        match &home.current {
            Some(_) => self.idle.fetch_and(!bit, SeqCst),
            None => self.idle.fetch_or(bit, SeqCst),
        };
        home.note_idle(now);
        self.raise_floor(home, cpu, now);
        let mut slice = self.slice(home.len()).min(refill.unwrap_or(u64::MAX));
        if let Some(current) = &home.current
            && let Allowance::Ticks(left) = current.entity().allowance(now, self.tuning.period.load(Relaxed))
        {
            // Not shorter than is worth a switch: it owes what it runs beyond.
            slice = slice.min(left.max(self.tuning.granularity.load(Relaxed) / 4));
        }
        home.slice_end = now.after(slice);
        Decision { next: home.current.clone(), slice, refill, kick: Kick::NOBODY, unload }
    }

    /// Whether a vCPU must wait because its domain's time is used up; then `refill` becomes when to look again, if that
    /// is sooner.
    #[inline]
    fn is_throttled(&self, entity: &Entity, now: Ticks, refill: &mut Option<u64>) -> bool {
        match entity.allowance(now, self.tuning.period.load(Relaxed)) {
            Allowance::Free | Allowance::Ticks(_) => false,
            Allowance::After(ticks) => {
                *refill = Some(refill.map_or(ticks, |sooner| sooner.min(ticks)));
                true
            }
        }
    }

    /// Whether a vCPU could be chosen on a CPU.
    #[inline]
    fn may_run(&self, entity: &Entity, cpu: CpuId, now: Ticks) -> bool {
        self.allowed(entity).contains(cpu) && !self.is_throttled(entity, now, &mut None)
    }

    /// Moves the floor up to the least virtual time of those who run or could: who is throttled holds nobody back.
    fn raise_floor(&self, home: &mut Locked<'_, V>, cpu: CpuId, now: Ticks) {
        let first = home.position(|v| self.may_run(v.entity(), cpu, now));
        home.raise_floor(first);
    }

    fn slice(&self, waiting: usize) -> u64 {
        if waiting == 0 {
            return self.tuning.balance.load(Relaxed);
        }
        let share = self.tuning.latency.load(Relaxed) / (waiting as u64 + 1);
        share.clamp(self.tuning.min_slice.load(Relaxed), self.tuning.max_slice.load(Relaxed))
    }

    /// Asks a CPU to pick again.
    fn ask(&self, queue: &Locked<'_, V>, cpu: CpuId) -> Kick {
        queue.slot.must_reschedule.store(true, Release);
        Kick(Some(cpu))
    }

    /// Has one of the idle CPUs look for work elsewhere that nobody asked yet.
    fn summon(&self, among: CpuMask) -> Kick {
        let idle = self.idle().and(among).iter().find(|&cpu| !self.must_reschedule(cpu));
        if let Some(cpu) = idle {
            self.slots[cpu.index()].must_reschedule.store(true, Release);
        }
        Kick(idle)
    }

    /// The CPUs an entity may use now: those given to somebody alone only if it names no others.
    fn allowed(&self, entity: &Entity) -> CpuMask {
        let named = entity.affinity().and(self.online());
        let shared = named.without(CpuMask::from_bits(self.exclusive.load(Relaxed)));
        if shared.is_empty() { named } else { shared }
    }

    fn lock(&self, cpu: CpuId) -> Locked<'_, V> {
        let slot = &self.slots[cpu.index()];
        Locked { slot, queue: slot.queue.lock() }
    }

    /// Locks both queues in order; only the first if they are the same.
    fn lock_two(&self, first: CpuId, second: CpuId) -> (Locked<'_, V>, Option<Locked<'_, V>>) {
        if first == second {
            (self.lock(first), None)
        } else if first < second {
            let a = self.lock(first);
            (a, Some(self.lock(second)))
        } else {
            let b = self.lock(second);
            (self.lock(first), Some(b))
        }
    }

    fn lock_home(&self, entity: &Entity) -> Locked<'_, V> {
        loop {
            let home = entity.home();
            let queue = self.lock(home);
            if entity.home() == home {
                return queue;
            }
        }
    }
}
