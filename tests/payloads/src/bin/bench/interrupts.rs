//! Latencies from a cause to the first instruction of the guest's vector.
//!
//! The counter is coarser than an instruction (16 ns on most processors QEMU models), so each measurement starts at
//! another phase of it and the mean is taken.

use core::sync::atomic::{AtomicU64, Ordering};

use payloads::exceptions::{Frame, INSTRUCTIONS_BEFORE_TICKS, set_interrupt_handler};
use payloads::gic::{Gic, SPURIOUS, Sgi};
use payloads::machine::{GicRegisters, Machine};
use payloads::random::Random;
use payloads::{expect, io, timer};

use super::result;

const ROUNDS: u64 = 64;
/// The best of so many means: another domain may have been awake for a moment in some.
const BATCHES: usize = 8;
const SGI: u32 = 5;

/// Counter at the last vector entry; zero while none has happened.
static ENTERED: AtomicU64 = AtomicU64::new(0);
/// The controller, for the handler: its addresses as [`encode`] packs them.
static GIC: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

fn encode(gic: &Gic) {
    let (version, distributor, other) = match *gic {
        Gic::V2 { distributor, cpu_interface } => (2, distributor, cpu_interface),
        Gic::V3 { distributor, redistributor } => (3, distributor, redistributor),
    };
    for (slot, value) in GIC.iter().zip([version, distributor, other]) {
        slot.store(value, Ordering::Relaxed);
    }
}

fn decode() -> Gic {
    let [version, distributor, other] = [0, 1, 2].map(|i: usize| GIC[i].load(Ordering::Relaxed));
    if version == 2 {
        Gic::V2 { distributor, cpu_interface: other }
    } else {
        Gic::V3 { distributor, redistributor: other }
    }
}

fn handler(frame: &mut Frame) {
    let gic = decode();
    let acknowledged = gic.acknowledge();
    if acknowledged & 0x3ff < SPURIOUS {
        timer::stop();
        gic.end(acknowledged);
        ENTERED.store(frame.ticks, Ordering::Relaxed);
    }
}

/// Sends the interrupt and gives the counter just before; then waits for the vector.
fn send_and_wait(sgi: &Sgi) -> (u64, u64) {
    ENTERED.store(0, Ordering::Relaxed);
    let start: u64;
    // SAFETY: a write to a register of the interrupt controller.
    unsafe {
        match *sgi {
            Sgi::Memory { address, value } => core::arch::asm!(
                "isb", "mrs {start}, cntvct_el0", "str {value:w}, [{address}]",
                start = out(reg) start, address = in(reg) address, value = in(reg) value, options(nostack)),
            Sgi::Register { value } => core::arch::asm!(
                "isb", "mrs {start}, cntvct_el0", "msr icc_sgi1r_el1, {value}", "isb",
                start = out(reg) start, value = in(reg) value, options(nostack)),
        }
    }
    (start, wait_for_vector(false))
}

fn wait_for_vector(asleep: bool) -> u64 {
    loop {
        let entered = ENTERED.load(Ordering::Relaxed);
        if entered != 0 {
            return entered;
        }
        if asleep {
            // Masked, so that the interrupt cannot slip in between the check and the wait.
            io::interrupts_off();
            if ENTERED.load(Ordering::Relaxed) == 0 {
                io::wait_for_interrupt();
            }
            io::interrupts_on();
        }
    }
}

fn best(measure: impl FnMut() -> u64) -> u64 {
    core::iter::repeat_with(measure).take(BATCHES).min().unwrap_or(0)
}

fn shift_phase(random: &mut Random) {
    for _ in 0..random.below(32) {
        core::hint::spin_loop();
    }
}

/// Gets ready to take interrupts.
pub fn prepare(gic: &Gic, machine: &Machine<'_>) {
    encode(gic);
    set_interrupt_handler(handler);
    gic.enable(SGI);
    gic.enable(machine.virtual_timer);
    io::interrupts_on();
}

pub fn measure(gic: &Gic, machine: &Machine<'_>) {
    let mut random = Random::new(1);
    let sgi = gic.sgi_to_self(SGI);
    let total = best(|| {
        let mut total = 0;
        for _ in 0..ROUNDS {
            shift_phase(&mut random);
            let (start, entered) = send_and_wait(&sgi);
            total += entered.wrapping_sub(start);
        }
        total
    });
    let name = match machine.gic {
        Some(GicRegisters::V3 { .. }) => "ipi-self-v3",
        Some(GicRegisters::V2 { .. }) | None => "ipi-self-v2",
    };
    result(name, total, ROUNDS, INSTRUCTIONS_BEFORE_TICKS - 1);

    timer_latency("timer", false);
    rest(1);
    timer_latency("wfi-wake", true);
    io::interrupts_off();
}

/// Sleeps some seconds: a hypervisor that clears memory while idle (Xen does, too) is done with it then, and the domain
/// that made this one has come to rest.
pub fn rest(seconds: u64) {
    ENTERED.store(0, Ordering::Relaxed);
    timer::fire_at(timer::ticks() + timer::frequency() * seconds);
    wait_for_vector(true);
}

/// From the timer's expiry to the vector, running or waiting. Expiry is at the edge of a tick, the reading is rounded
/// down to one, so half a tick is added.
fn timer_latency(name: &str, asleep: bool) {
    let tick = timer::nanoseconds(1);
    let mut early = 0;
    let total = best(|| {
        let mut total = 0;
        for round in 0..ROUNDS {
            ENTERED.store(0, Ordering::Relaxed);
            // A millisecond ahead: Xen lets a sleeping processor oversleep nearer deadlines by up to 50 us (timer slop).
            let deadline = timer::ticks() + timer::frequency() / 1000 + round % 7;
            timer::fire_at(deadline);
            let entered = wait_for_vector(asleep);
            early += u64::from(entered < deadline);
            total += entered.saturating_sub(deadline);
        }
        total
    });
    expect!(early == 0, "{name}: {early} interrupts before the deadline");
    let half_ticks = total * 2 + if tick > 1 { ROUNDS } else { 0 };
    result(name, half_ticks, ROUNDS * 2, INSTRUCTIONS_BEFORE_TICKS - 1);
}
