//! The scheduler against a simulated machine, and against real threads.

extern crate std;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

#[derive(Debug)]
struct Fake {
    name: usize,
    entity: Entity,
}

impl Schedulable for Fake {
    fn entity(&self) -> &Entity {
        &self.entity
    }
}

/// Ticks per second of the simulated counter.
const FREQUENCY: u64 = 1_000_000;
const MS: u64 = FREQUENCY / 1000;

/// A machine whose CPUs follow the run loop's contract. Registers are "loaded" as the real run loop loads them.
struct Machine {
    scheduler: Scheduler<Fake>,
    now: u64,
    vcpus: Vec<Arc<Fake>>,
    loaded: Vec<Option<Arc<Fake>>>,
    running: Vec<Option<Arc<Fake>>>,
    slice_end: Vec<u64>,
    kicked: Vec<bool>,
}

fn share(weight: u32, cap: u32) -> Arc<Share> {
    let share = Share::new();
    share.set_weight(weight);
    share.set_cap(cap);
    Arc::new(share)
}

fn cpu(index: usize) -> CpuId {
    CpuId::new(index).unwrap()
}

impl Machine {
    fn new(cpus: usize) -> Self {
        let scheduler = Scheduler::new();
        scheduler.init(CpuMask::first_n(cpus), FREQUENCY);
        let mut machine = Self {
            scheduler,
            now: 1000,
            vcpus: Vec::new(),
            loaded: vec![None; cpus],
            running: vec![None; cpus],
            slice_end: vec![0; cpus],
            kicked: vec![true; cpus],
        };
        machine.settle();
        machine
    }

    fn now(&self) -> Ticks {
        Ticks::new(self.now)
    }

    fn add(&mut self, weight: u32, affinity: CpuMask) -> Arc<Fake> {
        self.add_to(&share(weight, 0), affinity)
    }

    fn add_to(&mut self, share: &Arc<Share>, affinity: CpuMask) -> Arc<Fake> {
        let v = Arc::new(Fake { name: self.vcpus.len(), entity: Entity::new() });
        self.scheduler.add(&v, share, affinity, self.now());
        self.vcpus.push(v.clone());
        v
    }

    /// One of a domain with that share, running.
    fn start_in(&mut self, share: &Arc<Share>) -> Arc<Fake> {
        let v = self.add_to(share, CpuMask::ALL);
        let kick = self.scheduler.start(&v, self.now());
        self.deliver(kick);
        self.settle();
        v
    }

    fn start(&mut self, weight: u32, affinity: CpuMask) -> Arc<Fake> {
        let v = self.add(weight, affinity);
        let kick = self.scheduler.start(&v, self.now());
        self.deliver(kick);
        self.settle();
        v
    }

    fn deliver(&mut self, kick: Kick) {
        if let Kick(Some(cpu)) = kick {
            self.kicked[cpu.index()] = true;
        }
    }

    /// One pass of the run loop of a CPU.
    fn pick(&mut self, c: usize) {
        self.kicked[c] = false;
        let decision = self.scheduler.pick(cpu(c), self.now());
        self.deliver(decision.kick);
        // An idle CPU is not asked again without a reason.
        let again = if decision.next.is_some() { Some(decision.slice) } else { decision.refill };
        self.slice_end[c] = again.map_or(u64::MAX, |ticks| self.now + ticks);
        let other = match (&self.loaded[c], &decision.next) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            (Some(_), None) => decision.unload,
            (None, _) => false,
        };
        if other && let Some(old) = self.loaded[c].take() {
            let kick = self.scheduler.unloaded(&old);
            self.deliver(kick);
        }
        if let Some(new) = &decision.next {
            assert!(new.entity.loaded_on().is_none_or(|at| at == cpu(c)), "stolen while loaded elsewhere");
            assert!(new.entity.affinity().contains(cpu(c)), "affinity violated");
            assert!(!new.entity.is_paused());
            self.scheduler.loaded(new, cpu(c));
            self.loaded[c] = Some(new.clone());
        }
        self.running[c] = decision.next;
        for a in 0..self.running.len() {
            for b in 0..a {
                if let (Some(a), Some(b)) = (&self.running[a], &self.running[b]) {
                    assert!(!Arc::ptr_eq(a, b), "one vCPU on two CPUs");
                }
            }
        }
    }

    /// Lets every CPU that has reason to pick do so, until none has.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "the CPUs kick each other for ever");
            let Some(c) = (0..self.kicked.len()).find(|c| {
                self.kicked[*c] || self.scheduler.must_reschedule(cpu(*c)) || self.slice_end[*c] <= self.now
            }) else {
                return;
            };
            self.pick(c);
        }
    }

    fn advance(&mut self, ticks: u64) {
        let end = self.now + ticks;
        while self.now < end {
            let next = self.slice_end.iter().copied().min().unwrap_or(end);
            self.now = next.clamp(self.now + 1, end);
            self.settle();
        }
    }

    fn block(&mut self, v: &Arc<Fake>) -> bool {
        let Some(at) = v.entity.running_on() else { return false };
        self.scheduler.block(v, self.now());
        self.kicked[at.index()] = true;
        self.settle();
        true
    }

    fn wake(&mut self, v: &Arc<Fake>) {
        let kick = self.scheduler.wake(v, self.now());
        self.deliver(kick);
        self.settle();
    }

    fn run_time(&self, v: &Arc<Fake>) -> f64 {
        ran(&self.scheduler, v, self.now())
    }

    /// Nobody waits while a CPU that may run it idles.
    fn assert_work_conserving(&self) {
        for v in &self.vcpus {
            // Who is capped may have to wait for the end of a slice after a refill.
            let is_free = v.entity.allowance(self.now(), 10 * MS) == share::Allowance::Free;
            if v.entity.state() == State::Runnable && !v.entity.is_paused() && is_free {
                let idle: Vec<_> =
                    (0..self.running.len()).filter(|c| self.running[*c].is_none()).map(cpu).collect();
                assert!(
                    !idle.iter().any(|c| v.entity.affinity().contains(*c)),
                    "vCPU {} waits on {} while {idle:?} idle",
                    v.name,
                    v.entity.home()
                );
            }
        }
    }
}

/// A span of the machine's clock as [`Machine::run_time`] counts.
fn nanoseconds(ticks: u64) -> f64 {
    crate::time::Nanoseconds::from_ticks(ticks).get() as f64
}

fn ran(scheduler: &Scheduler<Fake>, v: &Arc<Fake>, now: Ticks) -> f64 {
    // The fake counter of `time` runs at another rate; only ratios are used.
    scheduler.runstate(v, now).spent[Phase::Running as usize].get() as f64
}

#[test]
fn an_idle_machine_runs_what_wakes() {
    let mut m = Machine::new(2);
    assert_eq!(m.scheduler.idle(), CpuMask::first_n(2));
    let v = m.start(256, CpuMask::ALL);
    assert_eq!(v.entity.state(), State::Running);
    assert!(m.block(&v));
    assert_eq!(v.entity.state(), State::Blocked);
    assert_eq!(m.scheduler.idle(), CpuMask::first_n(2));
    let at = v.entity.loaded_on();
    m.wake(&v);
    assert_eq!(v.entity.running_on(), at, "a wake-up goes where the registers are");
}

#[test]
fn weights_divide_one_cpu() {
    let mut m = Machine::new(1);
    let a = m.start(512, CpuMask::ALL);
    let b = m.start(256, CpuMask::ALL);
    m.advance(10_000 * MS);
    let ratio = m.run_time(&a) / m.run_time(&b);
    assert!((1.95..2.05).contains(&ratio), "{ratio}");
}

#[test]
fn three_busy_vcpus_share_two_cpus_evenly() {
    let mut m = Machine::new(2);
    let vcpus: Vec<_> = (0..3).map(|_| m.start(256, CpuMask::ALL)).collect();
    m.advance(20_000 * MS);
    let times: Vec<_> = vcpus.iter().map(|v| m.run_time(v)).collect();
    let (low, high) = times.iter().fold((f64::MAX, 0.0f64), |(l, h), t| (l.min(*t), h.max(*t)));
    assert!(high / low < 1.1, "{times:?}");
}

#[test]
fn a_long_sleeper_gets_no_more_than_its_bonus() {
    let mut m = Machine::new(1);
    let busy = m.start(256, CpuMask::ALL);
    let sleeper = m.start(256, CpuMask::ALL);
    while !m.block(&sleeper) {
        m.advance(MS);
    }
    m.advance(60_000 * MS);
    let before = m.run_time(&busy);
    m.wake(&sleeper);
    m.advance(100 * MS);
    let got = m.run_time(&busy) - before;
    let expected = 100.0 * before / 60_000.0;
    assert!(got > 0.35 * expected, "the busy one ran {got} of {expected}");
}

#[test]
fn a_waker_preempts_a_busy_vcpu() {
    let mut m = Machine::new(1);
    let busy = m.start(256, CpuMask::ALL);
    let io = m.start(256, CpuMask::ALL);
    while !m.block(&io) {
        m.advance(MS);
    }
    m.advance(50 * MS);
    m.wake(&io);
    assert_eq!(io.entity.state(), State::Running);
    assert_eq!(busy.entity.state(), State::Runnable);
}

#[test]
fn a_yield_lets_the_next_one_go_first() {
    let mut m = Machine::new(1);
    let a = m.start(256, CpuMask::ALL);
    assert!(!m.scheduler.has_other_runnable(cpu(0)));
    let b = m.start(256, CpuMask::ALL);
    assert!(m.scheduler.has_other_runnable(cpu(0)));
    for _ in 0..10 {
        let (running, waiting) = if a.entity.state() == State::Running { (&a, &b) } else { (&b, &a) };
        assert_eq!(waiting.entity.state(), State::Runnable);
        m.now += 1;
        m.scheduler.yield_now(cpu(0), m.now());
        m.pick(0);
        assert_eq!(waiting.entity.state(), State::Running);
        assert_eq!(running.entity.state(), State::Runnable);
    }
}

#[test]
fn a_wake_between_block_and_pick_is_kept() {
    let mut m = Machine::new(1);
    let v = m.start(256, CpuMask::ALL);
    m.scheduler.block(&v, m.now());
    assert_eq!(m.scheduler.wake(&v, m.now()), Kick(None));
    m.pick(0);
    assert_eq!(v.entity.state(), State::Running);
}

#[test]
fn an_exclusive_cpu_is_left_to_those_who_name_it_alone() {
    let mut m = Machine::new(2);
    m.scheduler.set_exclusive(cpu(1), true);
    let many: Vec<_> = (0..4).map(|_| m.start(256, CpuMask::ALL)).collect();
    let owner = m.start(256, CpuMask::only(cpu(1)));
    m.advance(500 * MS);
    assert_eq!(owner.entity.running_on(), Some(cpu(1)));
    assert!(many.iter().all(|v| v.entity.home() == cpu(0)));
}

#[test]
fn a_new_affinity_moves_a_running_a_waiting_and_a_sleeping_vcpu() {
    let mut m = Machine::new(2);
    let vcpus: Vec<_> = (0..3).map(|_| m.start(256, CpuMask::only(cpu(0)))).collect();
    let sleeper = vcpus.iter().find(|v| v.entity.running_on().is_some()).unwrap().clone();
    m.block(&sleeper);
    for v in &vcpus {
        let kick = m.scheduler.set_affinity(v, CpuMask::only(cpu(1))).unwrap();
        m.deliver(kick);
        m.settle();
    }
    m.wake(&sleeper);
    assert!(vcpus.iter().all(|v| v.entity.home() == cpu(1)));
    assert_eq!(vcpus.iter().filter(|v| v.entity.state() == State::Running).count(), 1);
    assert_eq!(m.scheduler.set_affinity(&sleeper, CpuMask::only(cpu(7))), None);
}

#[test]
fn of_idle_cpus_a_preferred_one_is_chosen_and_none_is_worse_than_waiting() {
    let mut machine = Machine::new(3);
    let v = machine.start(256, CpuMask::ALL);
    v.entity.set_soft_affinity(CpuMask::only(cpu(2)));
    machine.block(&v);
    let displacer = machine.start(256, CpuMask::only(v.entity.home()));
    assert_eq!(displacer.entity.state(), State::Running);
    machine.wake(&v);
    assert_eq!(v.entity.running_on(), Some(cpu(2)));
    // Its preferred CPU is taken, another is idle.
    machine.block(&v);
    machine.start(256, CpuMask::only(cpu(2)));
    machine.wake(&v);
    assert_eq!(v.entity.running_on(), Some(cpu(1)));
}

#[test]
fn a_sleeper_whose_registers_are_loaded_moves_when_it_wakes() {
    let mut m = Machine::new(2);
    let v = m.start(256, CpuMask::only(cpu(0)));
    m.block(&v);
    assert_eq!(v.entity.loaded_on(), Some(cpu(0)));
    let kick = m.scheduler.set_affinity(&v, CpuMask::only(cpu(1))).unwrap();
    m.deliver(kick);
    m.settle();
    m.wake(&v);
    assert_eq!(v.entity.running_on(), Some(cpu(1)));
}

#[test]
fn pause_counts() {
    let mut m = Machine::new(1);
    let v = m.start(256, CpuMask::ALL);
    for _ in 0..2 {
        let kick = m.scheduler.pause(&v, m.now());
        m.deliver(kick);
        m.settle();
        assert_eq!(v.entity.state(), State::Runnable);
        assert_eq!(m.scheduler.runstate(&v, m.now()).phase, Phase::Offline);
    }
    let _ = m.scheduler.unpause(&v, m.now());
    m.settle();
    assert_eq!(v.entity.state(), State::Runnable);
    let _ = m.scheduler.unpause(&v, m.now());
    m.settle();
    assert_eq!(v.entity.state(), State::Running);
}

#[test]
fn events_do_not_start_a_vcpu_that_is_down() {
    let mut m = Machine::new(1);
    let v = m.add(256, CpuMask::ALL);
    m.wake(&v);
    assert_eq!(v.entity.state(), State::Down);
    let v = m.start(256, CpuMask::ALL);
    let kick = m.scheduler.stop(&v, m.now());
    m.deliver(kick);
    m.settle();
    m.wake(&v);
    assert_eq!(v.entity.state(), State::Down);
    assert_eq!(m.scheduler.idle(), CpuMask::only(cpu(0)));
}

#[test]
fn runstate_adds_up() {
    let mut m = Machine::new(1);
    let start = m.now;
    let a = m.start(256, CpuMask::ALL);
    let b = m.start(256, CpuMask::ALL);
    m.advance(333 * MS);
    m.block(&a);
    m.advance(100 * MS);
    for v in [&a, &b] {
        let total: u64 = m.scheduler.runstate(v, m.now()).spent.iter().map(|n| n.get()).sum();
        let expected = crate::time::Nanoseconds::from_ticks(m.now - start).get();
        assert!(total.abs_diff(expected) <= 4, "{total} {expected}");
    }
}

#[test]
fn a_capped_domain_leaves_the_cpu_idle() {
    let mut m = Machine::new(1);
    let v = m.start_in(&share(256, 25));
    m.advance(10_000 * MS);
    let share = m.run_time(&v) / nanoseconds(10_000 * MS);
    assert!((0.245..0.255).contains(&share), "{share}");
    // In no stretch much more than its budget for that.
    for _ in 0..50 {
        let before = m.run_time(&v);
        m.advance(20 * MS);
        let ran = (m.run_time(&v) - before) / nanoseconds(MS);
        assert!(ran <= 8.0, "{ran} ms of 20");
    }
}

#[test]
fn a_cap_counts_all_vcpus_and_more_than_one_cpu_can_be_had() {
    for (vcpus, cpus, cap, expected) in
        [(4, 4, 50, 0.5), (4, 4, 150, 1.5), (3, 2, 100, 1.0), (1, 4, 300, 1.0)]
    {
        let mut m = Machine::new(cpus);
        let capped = share(256, cap);
        let all: Vec<_> = (0..vcpus).map(|_| m.start_in(&capped)).collect();
        m.advance(10_000 * MS);
        let ran: f64 = all.iter().map(|v| m.run_time(v)).sum::<f64>() / nanoseconds(10_000 * MS);
        assert!((ran / expected - 1.0).abs() < 0.03, "{vcpus} on {cpus} at {cap}: {ran}");
    }
}

#[test]
fn who_is_capped_neither_starves_nor_is_favoured() {
    let mut m = Machine::new(1);
    let capped = m.start_in(&share(256, 10));
    let busy = m.start(256, CpuMask::ALL);
    let sleeper = m.start(256, CpuMask::ALL);
    while !m.block(&sleeper) {
        m.advance(MS);
    }
    m.advance(60_000 * MS);
    let shares = [&capped, &busy].map(|v| m.run_time(v) / nanoseconds(60_000 * MS));
    assert!((0.095..0.105).contains(&shares[0]) && shares[1] > 0.89, "{shares:?}");
    // The time that the capped one did not get is nobody's credit.
    let before = m.run_time(&busy);
    m.wake(&sleeper);
    m.advance(200 * MS);
    let got = (m.run_time(&busy) - before) / nanoseconds(200 * MS);
    assert!(got > 0.35, "{got}");
}

#[test]
fn a_cap_that_is_lifted_ends_the_wait() {
    let mut m = Machine::new(1);
    let capped = share(256, 1);
    let v = m.start_in(&capped);
    m.advance(5 * MS);
    assert_eq!(v.entity.state(), State::Runnable);
    capped.set_cap(0);
    assert_eq!(m.scheduler.look_again(), CpuMask::first_n(1));
    m.settle();
    assert_eq!(v.entity.state(), State::Running);
}

#[derive(Clone, Debug)]
enum Step {
    Start { weight: u32, affinity: u32, capped: bool },
    Cap(u32),
    Block(usize),
    Wake(usize),
    Yield(usize),
    Pause(usize),
    Unpause(usize),
    SetAffinity(usize, u32),
    SetWeight(usize, u32),
    Stop(usize),
    Restart(usize),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let v = 0usize..8;
    prop_oneof![
        2 => (16u32..2000, 1u32..16, any::<bool>())
            .prop_map(|(weight, affinity, capped)| Step::Start { weight, affinity, capped }),
        1 => prop_oneof![Just(0u32), 5u32..250].prop_map(Step::Cap),
        4 => v.clone().prop_map(Step::Block),
        4 => v.clone().prop_map(Step::Wake),
        2 => (0usize..4).prop_map(Step::Yield),
        1 => v.clone().prop_map(Step::Pause),
        2 => v.clone().prop_map(Step::Unpause),
        2 => (v.clone(), 1u32..16).prop_map(|(v, m)| Step::SetAffinity(v, m)),
        1 => (v.clone(), 16u32..2000).prop_map(|(v, w)| Step::SetWeight(v, w)),
        1 => v.clone().prop_map(Step::Stop),
        1 => v.prop_map(Step::Restart),
        6 => (0u64..30 * MS).prop_map(Step::Advance),
    ]
}

/// What a vCPU should be, whatever the scheduler does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    Down,
    Blocked,
    Run,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any sequence of calls: nobody on two CPUs, affinity holds, no CPU idles with work, states are those of a model,
    /// and in the end everyone who may run does.
    #[test]
    fn any_sequence_keeps_the_rules(cpus in 1usize..5, steps in prop::collection::vec(step(), 1..120)) {
        let mut m = Machine::new(cpus);
        let mut want = Vec::new();
        let mut pauses = Vec::new();
        let together = share(256, 0);
        let online = CpuMask::first_n(cpus);
        let usable = |mask: u32| {
            let mask = CpuMask::from_bits(mask);
            if mask.and(online).is_empty() { CpuMask::ALL } else { mask }
        };
        for step in steps {
            let of = |v: usize| m.vcpus.get(v).cloned();
            match step {
                Step::Cap(percent) => {
                    together.set_cap(percent);
                    let _ = m.scheduler.look_again();
                    m.settle();
                }
                Step::Start { weight, affinity, capped } => {
                    if m.vcpus.len() < 8 {
                        if capped {
                            let v = m.add_to(&together, usable(affinity));
                            let kick = m.scheduler.start(&v, m.now());
                            m.deliver(kick);
                            m.settle();
                        } else {
                            m.start(weight, usable(affinity));
                        }
                        want.push(Want::Run);
                        pauses.push(0);
                    }
                }
                Step::Block(v) => if let Some(f) = of(v) && m.block(&f) {
                    want[v] = Want::Blocked;
                },
                Step::Wake(v) => if let Some(f) = of(v) {
                    m.wake(&f);
                    if want[v] == Want::Blocked { want[v] = Want::Run; }
                },
                Step::Yield(c) => if c < cpus {
                    m.scheduler.yield_now(cpu(c), m.now());
                    m.pick(c);
                    m.settle();
                },
                Step::Pause(v) => if let Some(f) = of(v) {
                    let kick = m.scheduler.pause(&f, m.now());
                    m.deliver(kick);
                    m.settle();
                    pauses[v] += 1;
                },
                Step::Unpause(v) => if let Some(f) = of(v) && pauses[v] > 0 {
                    let kick = m.scheduler.unpause(&f, m.now());
                    m.deliver(kick);
                    m.settle();
                    pauses[v] -= 1;
                },
                Step::SetAffinity(v, mask) => if let Some(f) = of(v) {
                    let kick = m.scheduler.set_affinity(&f, usable(mask)).unwrap();
                    m.deliver(kick);
                    m.settle();
                },
                Step::SetWeight(v, weight) => if let Some(f) = of(v) {
                    m.scheduler.set_weight(&f, weight, m.now());
                },
                Step::Stop(v) => if let Some(f) = of(v) {
                    let kick = m.scheduler.stop(&f, m.now());
                    m.deliver(kick);
                    m.settle();
                    want[v] = Want::Down;
                },
                Step::Restart(v) => if let Some(f) = of(v) {
                    let kick = m.scheduler.start(&f, m.now());
                    m.deliver(kick);
                    m.settle();
                    if want[v] == Want::Down { want[v] = Want::Run; }
                },
                Step::Advance(ticks) => m.advance(ticks),
            }
            m.assert_work_conserving();
            for (v, fake) in m.vcpus.iter().enumerate() {
                let state = fake.entity.state();
                let expected = match want[v] {
                    Want::Down => state == State::Down,
                    Want::Blocked => state == State::Blocked,
                    Want::Run if pauses[v] > 0 => state == State::Runnable,
                    Want::Run => matches!(state, State::Runnable | State::Running),
                };
                prop_assert!(expected, "vCPU {v} is {state:?}, wanted {:?}, paused {}", want[v], pauses[v]);
            }
        }
        // No starvation: with at most eight of weights up to 125:1 everyone runs within a bounded time.
        let before: BTreeMap<_, _> = m.vcpus.iter().map(|v| (v.name, m.run_time(v))).collect();
        m.advance(20_000 * MS);
        for (v, fake) in m.vcpus.iter().enumerate() {
            if want[v] == Want::Run && pauses[v] == 0 {
                prop_assert!(m.run_time(fake) > before[&v], "vCPU {v} starves");
            }
        }
    }

    /// On one CPU, long-run shares follow the weights whatever they are.
    #[test]
    fn shares_follow_weights(weights in prop::collection::vec(64u32..1024, 2..6)) {
        let mut m = Machine::new(1);
        let vcpus: Vec<_> = weights.iter().map(|w| m.start(*w, CpuMask::ALL)).collect();
        m.advance(20_000 * MS);
        let total: f64 = vcpus.iter().map(|v| m.run_time(v)).sum();
        let weight: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        for (v, w) in vcpus.iter().zip(&weights) {
            let share = m.run_time(v) / total;
            let fair = f64::from(*w) / weight;
            prop_assert!((share / fair - 1.0).abs() < 0.05, "weight {w} of {weights:?}: {share} instead of {fair}");
        }
    }

    /// Whatever else runs, no domain runs more than its cap, and gets it where there is room.
    #[test]
    fn caps_hold(cpus in 1usize..5, domains in prop::collection::vec((1usize..4, 5u32..150), 1..4), busy in 0usize..3) {
        let mut m = Machine::new(cpus);
        let capped: Vec<Vec<_>> = domains
            .iter()
            .map(|&(vcpus, cap)| {
                let share = share(256, cap);
                (0..vcpus).map(|_| m.start_in(&share)).collect()
            })
            .collect();
        for _ in 0..busy {
            m.start(256, CpuMask::ALL);
        }
        m.advance(5_000 * MS);
        let total = nanoseconds(5_000 * MS);
        for (vcpus, (count, cap)) in capped.iter().zip(&domains) {
            let ran: f64 = vcpus.iter().map(|v| m.run_time(v)).sum::<f64>() / total;
            let cap = f64::from(*cap) / 100.0;
            prop_assert!(ran <= cap * 1.03 + 0.002, "{ran} of {cap}");
            if busy == 0 && domains.len() == 1 {
                let possible = cap.min(*count as f64).min(cpus as f64);
                prop_assert!(ran >= possible * 0.95, "{ran} of {possible}");
            }
        }
    }

    /// Equal busy vCPUs get equal time on any number of CPUs.
    #[test]
    fn equal_vcpus_are_equal(cpus in 1usize..6, vcpus in 1usize..12) {
        let mut m = Machine::new(cpus);
        let vcpus: Vec<_> = (0..vcpus).map(|_| m.start(256, CpuMask::ALL)).collect();
        m.advance(20_000 * MS);
        let times: Vec<_> = vcpus.iter().map(|v| m.run_time(v)).collect();
        let low = times.iter().copied().fold(f64::MAX, f64::min);
        let high = times.iter().copied().fold(0.0, f64::max);
        prop_assert!(high / low < 1.15, "{times:?}");
    }
}

/// Real threads as CPUs, vCPUs that sleep until a flag is set, and a thread that sets flags and wakes: every flag is
/// consumed. A lost wake-up would leave one set for ever.
#[test]
fn no_wake_is_lost_between_threads() {
    const CPUS: usize = 3;
    const VCPUS: usize = 5;
    const ROUNDS: u32 = 3000;
    struct World {
        scheduler: Scheduler<Fake>,
        vcpus: Vec<Arc<Fake>>,
        pending: Vec<AtomicBool>,
        consumed: Vec<AtomicU32>,
        active: Vec<AtomicBool>,
        /// Whose registers hold each vCPU: 0 for nobody, otherwise 1 + the CPU.
        holder: Vec<AtomicU32>,
        done: AtomicBool,
        clock: std::sync::atomic::AtomicU64,
    }
    let scheduler = Scheduler::new();
    scheduler.init(CpuMask::first_n(CPUS), FREQUENCY);
    let world = World {
        scheduler,
        vcpus: (0..VCPUS).map(|name| Arc::new(Fake { name, entity: Entity::new() })).collect(),
        pending: (0..VCPUS).map(|_| AtomicBool::new(false)).collect(),
        consumed: (0..VCPUS).map(|_| AtomicU32::new(0)).collect(),
        active: (0..VCPUS).map(|_| AtomicBool::new(false)).collect(),
        holder: (0..VCPUS).map(|_| AtomicU32::new(0)).collect(),
        done: AtomicBool::new(false),
        clock: std::sync::atomic::AtomicU64::new(1),
    };
    let now = |w: &World| Ticks::new(w.clock.fetch_add(1, Relaxed));
    for v in &world.vcpus {
        world.scheduler.add(v, &share(256, 0), CpuMask::ALL, now(&world));
        let _ = world.scheduler.start(v, now(&world));
    }
    std::thread::scope(|scope| {
        for c in 0..CPUS {
            let w = &world;
            scope.spawn(move || {
                let mut loaded: Option<Arc<Fake>> = None;
                while !w.done.load(Acquire) {
                    let decision = w.scheduler.pick(cpu(c), now(w));
                    let switches = match (&loaded, &decision.next) {
                        (Some(a), Some(b)) => !Arc::ptr_eq(a, b),
                        _ => false,
                    };
                    if switches && let Some(old) = loaded.take() {
                        std::thread::yield_now();
                        w.holder[old.name].store(0, Release);
                        let _ = w.scheduler.unloaded(&old);
                    }
                    let Some(v) = decision.next else {
                        std::thread::yield_now();
                        continue;
                    };
                    w.scheduler.loaded(&v, cpu(c));
                    loaded = Some(v.clone());
                    let me = c as u32 + 1;
                    let holder = w.holder[v.name].swap(me, AcqRel);
                    assert!(holder == 0 || holder == me, "its registers were elsewhere");
                    assert!(!w.active[v.name].swap(true, AcqRel), "on two CPUs");
                    if w.pending[v.name].swap(false, AcqRel) {
                        w.consumed[v.name].fetch_add(1, Release);
                    }
                    w.active[v.name].store(false, Release);
                    w.scheduler.block(&v, now(w));
                    if w.pending[v.name].load(Acquire) {
                        let _ = w.scheduler.wake(&v, now(w));
                    }
                }
            });
        }
        for round in 1..=ROUNDS {
            for (i, v) in world.vcpus.iter().enumerate() {
                world.pending[i].store(true, Release);
                let _ = world.scheduler.wake(v, now(&world));
            }
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
            for consumed in &world.consumed {
                while consumed.load(Acquire) < round {
                    if std::time::Instant::now() > deadline {
                        world.done.store(true, Release);
                        panic!("a wake-up was lost in round {round}");
                    }
                    std::thread::yield_now();
                }
            }
        }
        world.done.store(true, Release);
    });
}
