//! Which CPU a vCPU goes to: where it waits when it wakes, and who takes it over from there.
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use core::sync::atomic::{Ordering::*, fence};

use super::{Decision, Kick, Locked, Schedulable, Scheduler};
use crate::cpu::{CpuId, MAX_CPUS};
use crate::sched::entity::{Entity, State};
use crate::sched::mask::CpuMask;
use crate::sched::queue::RunQueue;
use crate::time::Ticks;

impl<V: Schedulable> Scheduler<V> {
    /// Finds work for an idle CPU where somebody waits behind another.
    pub(super) fn steal(&self, cpu: CpuId, now: Ticks, refill: &mut Option<u64>) -> Option<Decision<V>> {
        let mut victims = self.online().without(CpuMask::only(cpu));
        loop {
            // The longest queue first.
            let victim = victims
                .iter()
                .map(|c| (self.slots[c.index()].waiting.load(Relaxed), c))
                .filter(|(waiting, _)| *waiting != 0)
                .max_by_key(|(waiting, _)| *waiting)?
                .1;
            victims = victims.without(CpuMask::only(victim));
            let (mut home, other) = self.lock_two(cpu, victim);
            let mut other = other?;
            let has_work = home.position(|v| self.may_run(v.entity(), cpu, now)).is_some();
            if home.current.is_none() && !has_work && other.current.is_some() {
                let index = other.position(|v| {
                    self.may_move(v.entity(), cpu) && !self.is_throttled(v.entity(), now, refill)
                });
                if let Some(v) = index.and_then(|i| other.take(i)) {
                    self.transfer(v, &mut home, cpu);
                }
            }
            drop(other);
            // Also when somebody was put here in the meantime.
            if home.current.is_none() && home.len() != 0 {
                let decision = self.commit(&mut home, cpu, now, None);
                if decision.next.is_some() {
                    return Some(decision);
                }
            }
        }
    }

    /// Takes a waiting vCPU over from a busier CPU if that makes the loads no less equal.
    pub(super) fn pull(&self, cpu: CpuId, last: CpuId, now: Ticks) {
        let load = |c: CpuId| self.slots[c.index()].load.load(Relaxed);
        let own = load(cpu);
        let Some(victim) = self
            .online()
            .without(CpuMask::only(cpu))
            .iter()
            .filter(|c| load(*c) > own && self.has_other_runnable(*c))
            // Of equally loaded ones the next after the last.
            .max_by_key(|c| (load(*c), (last.index() + MAX_CPUS - c.index()) % MAX_CPUS))
        else {
            return;
        };
        let (mut home, other) = self.lock_two(cpu, victim);
        let Some(mut other) = other else { return };
        home.last_victim = victim;
        if other.current.is_none() {
            return;
        }
        for queue in [&home, &other] {
            if let Some(current) = &queue.current {
                current.entity().charge(now);
            }
        }
        let gap = i64::from(other.load()) - i64::from(home.load());
        let index = {
            // The gap after moving weight w is |gap - 2w|; it may not grow. Of equals the first in order.
            let after = |v: &Arc<V>| (gap - 2 * i64::from(v.entity().weight())).abs();
            let movable = |v: &&Arc<V>| self.may_move(v.entity(), cpu) && self.may_run(v.entity(), cpu, now);
            let best = other.iter().filter(movable).min_by_key(|v| after(v));
            // Where the unevenness only changes sides, it should: from who had more time to who had less.
            let had = home.current.as_ref().map(|v| v.entity().vruntime());
            let helps =
                |v: &Arc<V>| after(v) < gap || had.is_some_and(|had| v.entity().vruntime().is_before(had));
            best.filter(|v| after(v) <= gap && helps(v))
                .and_then(|best| other.position(|v| core::ptr::eq(v, &**best)))
        };
        if let Some(v) = index.and_then(|i| other.take(i)) {
            self.transfer(v, &mut home, cpu);
            // What is uneven now is uneven the other way round; leave it so for a while.
            other.next_balance = home.next_balance;
        }
    }

    /// Puts a vCPU that was taken out of another queue in the queue `to` of `cpu`; both locks are held. Who comes from
    /// a queue where time passed more slowly, because more share that CPU, is owed some; within bounds, for
    /// the queues of CPUs that nothing links drift apart.
    pub(super) fn transfer(&self, v: Arc<V>, to: &mut RunQueue<V>, cpu: CpuId) {
        let entity = v.entity();
        let bound = entity.virtual_span(4 * self.tuning.balance.load(Relaxed));
        let distance = entity.vruntime().since(to.floor()).clamp(-bound, bound);
        entity.set_vruntime(to.floor().offset(distance));
        entity.set_home(cpu);
        to.insert(v);
    }

    pub(super) fn may_move(&self, entity: &Entity, to: CpuId) -> bool {
        self.allowed(entity).contains(to) && entity.loaded_on().is_none_or(|c| c == to)
    }

    /// Moves a waiting vCPU whose registers are nowhere to a CPU it may run on.
    pub(super) fn relocate(&self, v: &Arc<V>) -> Kick {
        let entity = v.entity();
        loop {
            let (from, to) = (entity.home(), self.choose(entity));
            let (mut home, other) = self.lock_two(from, to);
            if entity.home() != from {
                continue;
            }
            let (Some(mut other), true) = (other, entity.loaded_on().is_none()) else { return Kick::NOBODY };
            let Some(v) = home.take_out(v) else { return Kick::NOBODY };
            self.transfer(v, &mut other, to);
            self.idle.fetch_and(!CpuMask::only(to).bits(), SeqCst);
            return self.ask(&other, to);
        }
    }

    /// The CPU a vCPU should wait for.
    pub(super) fn choose(&self, entity: &Entity) -> CpuId {
        if let Some(cpu) = entity.loaded_on() {
            return cpu;
        }
        let home = entity.home();
        let allowed = self.allowed(entity);
        let preferred = allowed.and(entity.soft_affinity());
        let idle = self.idle().and(allowed);
        for idle in [idle.and(preferred), idle] {
            if idle.contains(home) {
                return home;
            }
            if let Some(cpu) = idle.first() {
                return cpu;
            }
        }
        let load = |c: CpuId| self.slots[c.index()].load.load(Relaxed);
        allowed.iter().min_by_key(|c| (load(*c), !preferred.contains(*c), *c != home)).unwrap_or(home)
    }

    pub(super) fn make_runnable(&self, v: &Arc<V>, from: State, now: Ticks) -> Kick {
        let entity = v.entity();
        loop {
            let (home_cpu, to) = (entity.home(), self.choose(entity));
            let (home, other) = self.lock_two(home_cpu, to);
            if entity.home() != home_cpu {
                continue;
            }
            if entity.state() != from {
                return Kick::NOBODY;
            }
            if home.is_current(v) {
                // It blocked or went down, and its CPU has not picked another yet.
                entity.enter(State::Running, now);
                return Kick::NOBODY;
            }
            entity.enter(State::Runnable, now);
            if entity.is_paused() {
                return Kick::NOBODY;
            }
            return self.enqueue(v.clone(), home, other, to, now);
        }
    }

    /// Queues a vCPU that did not wait anywhere on `to`, whose lock is `other`'s, or `home`'s if there is no other.
    pub(super) fn enqueue(
        &self,
        v: Arc<V>,
        home: Locked<'_, V>,
        other: Option<Locked<'_, V>>,
        to: CpuId,
        now: Ticks,
    ) -> Kick {
        let entity = v.entity();
        let distance = entity.vruntime().since(home.floor());
        let mut target = other.unwrap_or(home);
        if let Some(current) = &target.current {
            current.entity().charge(now);
        }
        self.raise_floor(&mut target, to, now);
        let credit = entity.virtual_span(self.tuning.max_slice.load(Relaxed));
        entity.set_vruntime(target.floor().offset(distance.max(-credit)));
        entity.set_home(to);
        let preempts = target.current.as_ref().is_none_or(|current| {
            let margin = entity.virtual_span(self.tuning.granularity.load(Relaxed));
            entity.vruntime().offset(margin).is_before(current.entity().vruntime())
        });
        let allowed = self.allowed(entity);
        target.insert(v);
        let was_idle = target.current.is_none();
        let slice_shrinks = target.slice_end > now.after(self.slice(target.len()));
        if was_idle {
            self.idle.fetch_and(!CpuMask::only(to).bits(), SeqCst);
        }
        if preempts || slice_shrinks {
            return self.ask(&target, to);
        }
        // It waits behind another: a CPU that went idle meanwhile may come for it.
        drop(target);
        fence(SeqCst);
        self.summon(allowed)
    }
}
