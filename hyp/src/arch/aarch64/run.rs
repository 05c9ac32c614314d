//! Each CPU's loop: choose a vCPU, load it, run it, serve what it left for.
//!
//! ```text
//!   ┌─▶ pick ─▶ nobody: sleep until an interrupt ───────────────┐
//!   │     └──▶ load if another is loaded ─▶ enter ─▶ exit ─▶ IRQ: serve, enter again
//!   └──────────────── block, yield, slice end, unload ◀─────────┘
//! ```
//! A vCPU that sleeps stays loaded, so that waking it costs nothing, until this CPU runs another or the scheduler says
//! otherwise.

use alloc::sync::Arc;

use pv_abi::xen::Virq;

use crate::console;
use crate::domain::Domain;
use crate::event;
use crate::mm::memory;
use crate::sched;
use crate::timer as deadlines;
use crate::vcpu::{Vcpu, request};

use super::percpu::{self, Loaded};
use super::sysreg::isb;
use super::trap::Departure;
use super::vectors::{self, EXIT_IRQ, EXIT_REQUESTED, EXIT_SERROR};
use super::{inject, irq, serror, timer, tlb};

/// Remembers why the vCPU leaves the guest, for the loop.
#[inline]
pub fn depart(departure: Departure) {
    percpu::this().departure.set(departure);
}

/// Serves a vCPU's requests from within a trap; 0: back to the guest.
pub fn serve_requests(loaded: &Loaded) -> u64 {
    let requests = loaded.vcpu.take_requests();
    if requests & request::FLUSH_INTERRUPTS != 0 {
        irq::flush(loaded);
    }
    let rest = requests & !request::FLUSH_INTERRUPTS;
    if rest == 0 && !sched::must_reschedule(percpu::this().id()) {
        return 0;
    }
    loaded.vcpu.request(rest);
    depart(Departure::Requests);
    EXIT_REQUESTED
}

/// Runs this CPU's vCPUs, for ever.
pub fn run_loop() -> ! {
    let cpu = percpu::this();
    loop {
        if console::take_news() {
            event::send_machine_virq(Virq::ConRing);
        }
        let now = timer::now();
        let decision = sched::pick(cpu.id(), now);
        if decision.unload {
            unload();
        }
        let Some(next) = decision.next else {
            timer::set_slice_end(decision.refill.map(|ticks| now.after(ticks)));
            // Who is switched off or paused does not stay loaded: its stage 2 may be about to go, or somebody wants to
            // see its registers.
            let leaves = |l: &Loaded| l.vcpu.sched.state() == sched::State::Down || l.vcpu.sched.is_paused();
            if cpu.loaded().is_some_and(leaves) {
                unload();
            }
            idle();
            continue;
        };
        timer::set_slice_end(Some(now.after(decision.slice)));
        if !cpu.loaded().is_some_and(|l| Arc::ptr_eq(&l.vcpu, &next)) {
            unload();
            let Some(domain) = next.domain() else {
                // Its domain is gone: it can never run again.
                sched::stop(&next);
                continue;
            };
            load(next, domain);
        }
        if let Some(loaded) = cpu.loaded()
            && let Ended::Off = run(loaded)
        {
            unload_and_mark_down();
        }
    }
}

/// Why [`run`] returned.
enum Ended {
    /// The scheduler must choose.
    Pick,
    /// The vCPU switched itself off.
    Off,
}

/// Runs the loaded vCPU until the scheduler must choose again.
fn run(loaded: &Loaded) -> Ended {
    let cpu = percpu::this();
    let context = loaded.vcpu.arch.context();
    if loaded.vcpu.events.is_polling() {
        event::end_poll(&loaded.domain, &loaded.vcpu);
        deadlines::cancel(&loaded.vcpu, deadlines::Kind::Poll);
    }
    loop {
        if loaded.vcpu.has_requests() || sched::must_reschedule(cpu.id()) {
            let requests = loaded.vcpu.take_requests();
            if requests & request::FLUSH_INTERRUPTS != 0 {
                irq::flush(loaded);
            }
            if requests & request::RESCHEDULE != 0 || sched::must_reschedule(cpu.id()) {
                return Ended::Pick;
            }
        }
        // SAFETY: the vCPU is loaded here, no reference to its registers is alive, and its SPSR names EL1 or EL0:
        // it was set by `start_at`, or came from a trap of the guest itself.
        match unsafe { vectors::enter_guest(context) } {
            EXIT_IRQ => {
                irq::serve();
            }
            EXIT_REQUESTED => match cpu.departure.get() {
                Departure::Requests => {}
                Departure::Yield => {
                    sched::yield_now(cpu.id());
                    return Ended::Pick;
                }
                departure @ (Departure::Block | Departure::Poll) => {
                    sched::block(&loaded.vcpu);
                    // What came between the guest's last look and now would otherwise be slept through.
                    let poll_ended = departure == Departure::Poll && !loaded.vcpu.events.is_polling();
                    if poll_ended || irq::is_pending(loaded) || loaded.vcpu.has_requests() {
                        sched::wake(&loaded.vcpu);
                    }
                    return Ended::Pick;
                }
                Departure::Off => return Ended::Off,
            },
            // An SError that a guest caused is the guest's: it gets a virtual one. There is nobody else it could be for,
            // as EL2 takes its own with them unmasked only at its own accesses.
            EXIT_SERROR => inject::serror(),
            code => panic!("enter_guest returned {code}"),
        }
    }
}

fn unload_and_mark_down() {
    let Some(vcpu) = percpu::this().loaded().map(|l| l.vcpu.clone()) else { return };
    unload();
    deadlines::cancel_own(&vcpu);
    vcpu.is_up.store(false, core::sync::atomic::Ordering::Release);
}

fn load(vcpu: Arc<Vcpu>, domain: Arc<Domain>) {
    let cpu = percpu::this();
    // SAFETY: the scheduler gave the vCPU to this CPU, so it is loaded nowhere and nobody else touches its registers.
    let machine = unsafe { vcpu.arch.machine() };
    deadlines::cancel(&vcpu, deadlines::Kind::Virtual);
    // SAFETY: `unload` left no vCPU here, and VTTBR_EL2 with an empty root.
    unsafe { machine.load() };
    tlb::activate(cpu.id(), domain.p2m.space(), domain.p2m.root(), vcpu.id);
    irq::load(&domain, vcpu.id, &machine.gic);
    sched::set_loaded(&vcpu, Some(cpu.id()));
    // SAFETY: no borrow from `loaded()` is alive here: `run_loop` takes it anew.
    unsafe { cpu.set_loaded(Some(Loaded { vcpu, domain })) };
}

fn unload() {
    let cpu = percpu::this();
    // SAFETY: callers hold no borrow from `loaded()`.
    let Some(Loaded { vcpu, domain }) = (unsafe { cpu.set_loaded(None) }) else { return };
    // SAFETY: it was loaded here, and is given up only below.
    let machine = unsafe { vcpu.arch.machine() };
    irq::unload(&domain, vcpu.id, &mut machine.gic);
    machine.unload();
    // SAFETY: its registers were just saved.
    if unsafe { serror::take() } {
        log::warn!(target: crate::console::GUEST, "{} v{}: SError", domain.id, vcpu.id.get());
        machine.pend_serror();
    }
    tlb::deactivate(cpu.id());
    if let Some(when) = machine.virtual_deadline() {
        deadlines::arm(&vcpu, deadlines::Kind::Virtual, when);
    }
    sched::set_loaded(&vcpu, None);
}

/// Clears free memory, then sleeps, until an interrupt is pending, and serves all that are.
fn idle() {
    let cpu = percpu::this();
    loop {
        // Interrupts are masked, so one that comes between this check and the WFI is still pending there and ends it
        // (DDI 0487 D1.6.2). The isb lets ISR_EL1 show what is pending now.
        isb();
        if sched::must_reschedule(cpu.id()) || irq::interrupt_pending() {
            break;
        }
        if !memory().clear_ahead() {
            // SAFETY: waits; the dsb lets earlier stores complete first, as the architecture asks before WFI.
            unsafe { core::arch::asm!("dsb sy", "wfi", options(nostack)) };
            break;
        }
    }
    while irq::serve() {}
}
