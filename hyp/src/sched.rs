//! The scheduler: weighted fair share of the physical CPUs.
//!
//! State lives in one run queue per CPU and in the [`Entity`] inside each vCPU, which changes only under the lock of the
//! queue it belongs to. A CPU runs whoever of its queue has had least time for its weight, for a slice; an idle CPU takes
//! work from others, and busy ones even out their loads now and then.
//!
//! ```text
//!   wake, start, unpause ──▶ queue of an idle CPU, or the last one, or the least loaded ──▶ kick
//!   run loop on each CPU ──▶ pick ──▶ load, run, …, block/yield/slice end ──▶ pick
//! ```
//! A vCPU's registers stay in the CPU after it blocks, until the CPU runs another one ([`set_loaded`]). While they do, it
//! can run only there, so its wake-up goes there and nobody steals it.
#![forbid(unsafe_code)]

mod entity;
mod mask;
mod queue;
mod scheduler;
mod share;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;

pub use entity::{DEFAULT_WEIGHT, Entity, MAX_WEIGHT, Phase, Runstate, State};
pub use mask::CpuMask;
pub use scheduler::{Decision, Kick, Schedulable, Scheduler};
pub use share::Share;

use crate::arch;
use crate::cpu::CpuId;
use crate::domain::Domain;
use crate::time::{Nanoseconds, Ticks};
use crate::vcpu::Vcpu;

arch::machine_static! {
    /// The scheduler of the machine's CPUs.
    scheduler: Scheduler<Vcpu> = Scheduler::new()
}

impl Schedulable for Vcpu {
    fn entity(&self) -> &Entity {
        &self.sched
    }
}

/// Passes a kick on. This CPU needs none: it looks at [`must_reschedule`] before it leaves EL2 or sleeps.
#[inline]
fn deliver(kick: Kick) {
    if let Kick(Some(cpu)) = kick
        && cpu != arch::cpu_id()
    {
        arch::kick(cpu);
    }
}

/// Says which CPUs there are. Before this nothing can run.
pub fn init(cpus: CpuMask) {
    scheduler().init(cpus, arch::counter_frequency());
}

/// Gives a CPU to those vCPUs alone whose affinity names no other, or takes it back.
pub fn set_exclusive(cpu: CpuId, exclusive: bool) {
    scheduler().set_exclusive(cpu, exclusive);
}

/// Enters a new vCPU in its domain's share; it is down until [`start`].
pub fn add(vcpu: &Arc<Vcpu>, share: &Arc<Share>, affinity: CpuMask) {
    scheduler().add(vcpu, share, affinity, arch::now());
}

/// Takes a vCPU out for good; its CPU stops running it soon ([`Entity::running_on`]).
pub fn remove(vcpu: &Arc<Vcpu>) {
    deliver(scheduler().remove(vcpu, arch::now()));
}

/// Switches a vCPU on: PSCI CPU_ON, or the first one of a domain.
pub fn start(vcpu: &Arc<Vcpu>) {
    deliver(scheduler().start(vcpu, arch::now()));
}

/// Switches a vCPU off: PSCI CPU_OFF, on its own CPU, which picks next.
pub fn stop(vcpu: &Arc<Vcpu>) {
    deliver(scheduler().stop(vcpu, arch::now()));
}

/// Puts the running vCPU of this CPU to sleep; see [`Scheduler::block`] for the second look that must follow.
pub fn block(vcpu: &Arc<Vcpu>) {
    scheduler().block(vcpu, arch::now());
}

/// Makes a blocked vCPU runnable and its CPU look. Does nothing, fast, to any other.
#[inline]
pub fn wake(vcpu: &Arc<Vcpu>) {
    deliver(scheduler().wake(vcpu, arch::now()));
}

/// Adds a reason not to run it.
pub fn pause(vcpu: &Arc<Vcpu>) {
    deliver(scheduler().pause(vcpu, arch::now()));
}

/// Takes a reason not to run it away.
pub fn unpause(vcpu: &Arc<Vcpu>) {
    deliver(scheduler().unpause(vcpu, arch::now()));
}

/// Allows a vCPU those CPUs only; `false` if none of them is there.
pub fn set_affinity(vcpu: &Arc<Vcpu>, mask: CpuMask) -> bool {
    scheduler().set_affinity(vcpu, mask).map(deliver).is_some()
}

/// Changes a domain's weight, for the vCPUs it has and those it will have.
pub fn set_weight(domain: &Domain, weight: u32) {
    domain.share.set_weight(weight);
    for vcpu in domain.vcpus() {
        scheduler().set_weight(vcpu, weight, arch::now());
    }
}

/// Changes what a domain's vCPUs may run together, in percent of one CPU; 0: anything.
pub fn set_cap(domain: &Domain, percent: u32) {
    domain.share.set_cap(percent);
    scheduler().look_again().iter().for_each(|cpu| deliver(Kick(Some(cpu))));
}

/// Says where a vCPU's registers are: in those of a CPU, or saved.
#[inline]
pub fn set_loaded(vcpu: &Arc<Vcpu>, cpu: Option<CpuId>) {
    match cpu {
        Some(cpu) => scheduler().loaded(vcpu, cpu),
        None => deliver(scheduler().unloaded(vcpu)),
    }
}

/// Lets the next vCPU in order go first; the caller then picks. Not worth calling without [`has_other_runnable`].
pub fn yield_now(cpu: CpuId) {
    scheduler().yield_now(cpu, arch::now());
}

/// Whether a vCPU waits for `cpu` besides the one that runs there. One relaxed load.
#[inline]
pub fn has_other_runnable(cpu: CpuId) -> bool {
    scheduler().has_other_runnable(cpu)
}

/// Whether `cpu` must [`pick`] before it enters a guest or sleeps.
#[inline]
pub fn must_reschedule(cpu: CpuId) -> bool {
    scheduler().must_reschedule(cpu)
}

/// The CPUs that sleep or are about to.
pub fn idle() -> CpuMask {
    scheduler().idle()
}

/// The CPUs there are.
pub fn online() -> CpuMask {
    scheduler().online()
}

/// How long a CPU had nobody to run, since it first looked.
pub fn idle_time(cpu: CpuId) -> Nanoseconds {
    scheduler().idle_time(cpu, arch::now())
}

/// What `cpu`, which calls this, runs next.
pub fn pick(cpu: CpuId, now: Ticks) -> Decision<Vcpu> {
    let decision = scheduler().pick(cpu, now);
    deliver(decision.kick);
    decision
}

/// Where the time of a vCPU went.
pub fn runstate(vcpu: &Arc<Vcpu>) -> Runstate {
    scheduler().runstate(vcpu, arch::now())
}
