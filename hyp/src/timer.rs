//! Deadlines of vCPUs: when a sleeper must wake, when an emulated timer fires.
//!
//! Each CPU has a queue, filled by that CPU, drained by it when its EL2 timer fires, and cancelled from anywhere. A
//! vCPU has at most one deadline of each [`Kind`].
//!
//! ```text
//!   arm(vcpu, kind, when) ─▶ this CPU's queue ─▶ EL2 timer ─▶ expire() ─▶ wake, or raise the line
//!          ▲        cancel(vcpu, kind) ──┘
//! ```

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use crate::sync::TicketMutex;
use gic::IntId;
use pv_abi::errno::Errno;
use pv_abi::sched::ShutdownReason;

use crate::console::GUEST;
use crate::cpu::{CpuId, MAX_CPUS};
use crate::domain::{self, Domain};
use crate::time::Ticks;
use crate::vcpu::Vcpu;
use crate::{arch, event, sched, vgic};

/// INTID of the EL1 physical timer, as guests see it (`GUEST_TIMER_PHYS_NS_PPI`).
const PHYSICAL_TIMER: Option<IntId> = IntId::new(pv_abi::arch_arm::GUEST_TIMER_PHYS_NS_PPI);

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The virtual timer of a vCPU that is not loaded: it wakes, and the hardware's timer does the rest.
    Virtual,
    /// The emulated physical timer.
    Physical,
    /// The time-out of `SCHEDOP_poll`.
    Poll,
    /// The domain's first watchdog, at its first vCPU.
    Watchdog1,
    /// Its second one.
    Watchdog2,
}

const KINDS: usize = 5;
/// A domain's watchdogs, by their numbers from 1 on.
const WATCHDOGS: [Kind; 2] = [Kind::Watchdog1, Kind::Watchdog2];

type Key = (Ticks, usize, Kind);

static QUEUES: [TicketMutex<BTreeMap<Key, Arc<Vcpu>>>; MAX_CPUS] =
    [const { TicketMutex::new(BTreeMap::new()) }; MAX_CPUS];

/// Which deadlines of a vCPU are armed, and where.
pub struct Deadlines(TicketMutex<[Option<(CpuId, Ticks)>; KINDS]>);

impl Deadlines {
    /// None.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(TicketMutex::new([None; KINDS]))
    }
}

fn key(vcpu: &Arc<Vcpu>, kind: Kind, when: Ticks) -> Key {
    (when, Arc::as_ptr(vcpu).addr(), kind)
}

/// Sets a deadline, in place of the one of that kind, on this CPU.
pub fn arm(vcpu: &Arc<Vcpu>, kind: Kind, when: Ticks) {
    cancel(vcpu, kind);
    let cpu = arch::cpu_id();
    vcpu.deadlines.0.lock()[kind as usize] = Some((cpu, when));
    let first = {
        let mut queue = QUEUES[cpu.index()].lock();
        queue.insert(key(vcpu, kind, when), vcpu.clone());
        queue.first_key_value().map(|(key, _)| key.0)
    };
    arch::set_deadline(first);
}

/// Forgets a deadline. The timer may still fire for it, to no effect.
pub fn cancel(vcpu: &Arc<Vcpu>, kind: Kind) {
    let armed = vcpu.deadlines.0.lock()[kind as usize].take();
    if let Some((cpu, when)) = armed {
        let removed = QUEUES[cpu.index()].lock().remove(&key(vcpu, kind, when));
        // Possibly the last reference: not under the lock.
        drop(removed);
    }
}

/// Forgets the deadlines of a vCPU that is switched off; those of its domain stay.
pub fn cancel_own(vcpu: &Arc<Vcpu>) {
    for kind in [Kind::Virtual, Kind::Physical, Kind::Poll] {
        cancel(vcpu, kind);
    }
}

/// Forgets all deadlines of a vCPU that goes away.
pub fn cancel_all(vcpu: &Arc<Vcpu>) {
    cancel_own(vcpu);
    for kind in WATCHDOGS {
        cancel(vcpu, kind);
    }
}

/// Sets when watchdog `id` of a domain ends it, or stops it; 0 means one that is not running, which is then started. Its
/// number. `EINVAL`: no such number. `ENOSPC`: all are running. `EEXIST`: it is not running.
pub fn set_watchdog(domain: &Domain, id: u32, fires_at: Option<Ticks>) -> Result<u32, Errno> {
    let vcpu = domain.vcpus().first().ok_or(Errno::EINVAL)?;
    let is_running = |kind: &Kind| vcpu.deadlines.0.lock()[*kind as usize].is_some();
    if id == 0 {
        let fires_at = fires_at.ok_or(Errno::EINVAL)?;
        let (kind, number) =
            WATCHDOGS.into_iter().zip(1..).find(|(kind, _)| !is_running(kind)).ok_or(Errno::ENOSPC)?;
        arm(vcpu, kind, fires_at);
        return Ok(number);
    }
    let kind = WATCHDOGS.get(id as usize - 1).ok_or(Errno::EINVAL)?;
    if !is_running(kind) {
        return Err(Errno::EEXIST);
    }
    match fires_at {
        Some(when) => arm(vcpu, *kind, when),
        None => cancel(vcpu, *kind),
    }
    Ok(0)
}

/// Acts on every deadline of this CPU that has passed, and sets the timer for the next.
pub fn expire() {
    let cpu = arch::cpu_id();
    loop {
        let due = {
            let mut queue = QUEUES[cpu.index()].lock();
            match queue.first_key_value().map(|(key, _)| key.0) {
                Some(when) if when <= arch::now() => queue.pop_first(),
                next => {
                    drop(queue);
                    arch::set_deadline(next);
                    return;
                }
            }
        };
        let Some(((_, _, kind), vcpu)) = due else { return };
        vcpu.deadlines.0.lock()[kind as usize] = None;
        fire(&vcpu, kind);
    }
}

fn fire(vcpu: &Arc<Vcpu>, kind: Kind) {
    match kind {
        Kind::Virtual => sched::wake(vcpu),
        Kind::Poll => event::poll_timeout(vcpu),
        Kind::Watchdog1 | Kind::Watchdog2 => {
            if let Some(domain) = vcpu.domain() {
                log::warn!(target: GUEST, "{}: its watchdog was not served in time", domain.id);
                domain::shut_down(&domain, ShutdownReason::Watchdog);
            }
        }
        Kind::Physical => {
            if let (Some(domain), Some(intid)) = (vcpu.domain(), PHYSICAL_TIMER) {
                vgic::set_level(&domain, vcpu.id, intid, true);
            }
        }
    }
}

/// The level of a vCPU's emulated physical timer line, after its registers changed.
pub fn set_physical(vcpu: &Arc<Vcpu>, fires_at: Option<Ticks>) {
    let high = fires_at.is_some_and(|when| when <= arch::now());
    match fires_at {
        Some(when) if !high => arm(vcpu, Kind::Physical, when),
        _ => cancel(vcpu, Kind::Physical),
    }
    if let (Some(domain), Some(intid)) = (vcpu.domain(), PHYSICAL_TIMER) {
        vgic::set_level(&domain, vcpu.id, intid, high);
    }
}
