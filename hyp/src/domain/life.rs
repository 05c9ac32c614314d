//! A domain's life as the toolstack moves it on: held still and let go, resumed, taken apart, forgotten.
//!
//! ```text
//!            destroy               nothing left of its own         its last page came back
//!   Alive ────────────▶ Dying ────────────────────────────▶ Dead ────────────────────────▶ out of the list
//!     new ones are        in pieces: vCPUs off the CPUs,     others still have pages of its,
//!     paused once         ports, grants, memory              so its number stays taken
//! ```
//! The toolstack's operations on one domain take turns ([`Life::lock`]). What the domain itself does needs no turn: its vCPUs
//! are first paused for good and off all CPUs, and what others do to it meets its parts closed, one by one: no port opens,
//! no page is charged, nothing is mapped.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};

use pv_abi::errno::Errno;
use pv_abi::xen::Virq;
use stage2::{Pages, Progress};

use super::{Domain, NO_REASON, remove};
use crate::sync::{TicketMutex, TicketMutexGuard};
use crate::{arch, event, grant, runstate, sched, timer};

/// How often a domain can be paused by the toolstack at once, as in Xen.
const MAX_PAUSES: u32 = 255;
/// Entries of stage-2 tables taken apart between two looks for interrupts.
const TEARDOWN: u64 = 256;

arch::machine_static! {
    /// The dead of whom somebody still has a page.
    dead: TicketMutex<Vec<Arc<Domain>>> = TicketMutex::new(Vec::new())
}

arch::machine_static! {
    /// Whether one of them may have got its last page back.
    due: AtomicBool = AtomicBool::new(false)
}

/// How far a domain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// It runs, or could.
    Alive,
    /// It is being taken apart.
    Dying,
    /// It has nothing any more.
    Dead,
}

/// A domain's stage, and the lock of who moves it on.
pub struct Life {
    stage: AtomicU8,
    turn: TicketMutex<()>,
}

impl Life {
    /// Alive.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { stage: AtomicU8::new(Stage::Alive as u8), turn: TicketMutex::new(()) }
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Alive,
            1 => Stage::Dying,
            // 2; no other value is ever stored.
            _ => Stage::Dead,
        }
    }

    /// The toolstack's turn. Before all other locks.
    pub(super) fn lock(&self) -> TicketMutexGuard<'_, ()> {
        self.turn.lock()
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::SeqCst);
    }
}

// ---- stopping and going on ----

/// Pauses a domain: when it returns, none of its vCPUs is in a CPU's registers. `EOVERFLOW` after 255 times.
pub fn pause(domain: &Domain) -> Result<(), Errno> {
    let _turn = domain.life.lock();
    hold(domain)
}

/// Undoes one [`pause`]. `EINVAL` where there is nothing to undo.
pub fn unpause(domain: &Domain) -> Result<(), Errno> {
    let _turn = domain.life.lock();
    let_go(domain)
}

/// Does something to a domain, of this stage, that holds still meanwhile: its vCPUs' registers are saved. `ESRCH` for a
/// domain that is not alive.
pub fn while_paused<R>(domain: &Domain, f: impl FnOnce() -> Result<R, Errno>) -> Result<R, Errno> {
    let _turn = domain.life.lock();
    if domain.life.stage() != Stage::Alive {
        return Err(Errno::ESRCH);
    }
    hold(domain)?;
    let result = f();
    let_go(domain)?;
    result
}

fn hold(domain: &Domain) -> Result<(), Errno> {
    let pauses = domain.pause_count.load(Ordering::Relaxed);
    if pauses == MAX_PAUSES {
        return Err(Errno::EOVERFLOW);
    }
    domain.pause_count.store(pauses + 1, Ordering::Release);
    if pauses == 0 {
        domain.vcpus().iter().for_each(sched::pause);
    }
    // The CPUs that have one were kicked and leave it without waiting for anything of ours.
    for vcpu in domain.vcpus() {
        while vcpu.sched.running_on().is_some() || vcpu.sched.loaded_on().is_some() {
            arch::relax();
        }
    }
    Ok(())
}

fn let_go(domain: &Domain) -> Result<(), Errno> {
    let left = domain.pause_count.load(Ordering::Relaxed).checked_sub(1).ok_or(Errno::EINVAL)?;
    domain.pause_count.store(left, Ordering::Release);
    if left == 0 {
        domain.vcpus().iter().for_each(sched::unpause);
    }
    Ok(())
}

/// Lets a domain that shut down, to be saved, go on. `EINVAL` for one that did not.
pub fn resume(domain: &Domain) -> Result<(), Errno> {
    let _turn = domain.life.lock();
    if !domain.is_shut_down.swap(false, Ordering::AcqRel) {
        return Err(Errno::EINVAL);
    }
    domain.shutdown_code.store(NO_REASON, Ordering::Relaxed);
    domain.vcpus().iter().for_each(sched::unpause);
    Ok(())
}

// ---- the end ----

/// Takes a domain apart. False: call again, there is more.
pub fn destroy(domain: &Arc<Domain>) -> bool {
    let _turn = domain.life.lock();
    match domain.life.stage() {
        Stage::Alive => {
            domain.life.enter(Stage::Dying);
            domain.pages.set_maximum(Pages::ZERO);
            domain.vcpus().iter().for_each(sched::pause);
        }
        Stage::Dying => {}
        Stage::Dead => return true,
    }
    // A vCPU in the middle of a long hypercall leaves its CPU when that is done.
    if domain.vcpus().iter().any(|vcpu| vcpu.sched.running_on().or(vcpu.sched.loaded_on()).is_some()) {
        return false;
    }
    for vcpu in domain.vcpus() {
        sched::remove(vcpu);
        timer::cancel_all(vcpu);
        runstate::forget(vcpu);
    }
    if !event::destroy(domain) || !grant::destroy(domain) {
        return false;
    }
    while domain.p2m.teardown(&mut { TEARDOWN }) == Progress::Preempted {
        if arch::interrupt_pending() {
            return false;
        }
    }
    domain.life.enter(Stage::Dead);
    tell_control();
    dead().lock().push(domain.clone());
    bury();
    true
}

/// No longer counts `pages` as a domain's, for who does not hold the lock of its p2m: its end may have waited for that.
pub fn refund(owner: &Domain, pages: Pages) {
    owner.pages.refund(pages);
    // Orders the count before the look at the stage; pairs with the stage and the count in `destroy`.
    fence(Ordering::SeqCst);
    if owner.life.stage() == Stage::Dead && owner.pages.current().is_zero() {
        due().store(true, Ordering::Release);
    }
}

/// Takes the dead out of the list who got their last page back. No lock is held.
#[inline]
pub fn bury_if_due() {
    if due().load(Ordering::Relaxed) {
        bury();
    }
}

#[inline(never)]
fn bury() {
    due().store(false, Ordering::SeqCst);
    loop {
        let gone = {
            let mut dead = dead().lock();
            let index = dead.iter().position(|domain| domain.pages.current().is_zero());
            index.map(|index| dead.swap_remove(index))
        };
        let Some(gone) = gone else { return };
        drop(remove(gone.id));
        tell_control();
    }
}

/// The tools look which domain ended.
fn tell_control() {
    event::send_machine_virq(Virq::DomExc);
}
