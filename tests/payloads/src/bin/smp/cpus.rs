//! What each processor counts, the handler that counts it, and how the first processor commands the others.
//!
//! All state is here, in atomics: each processor writes its own entry of [`CPUS`], except for `command`, which the first
//! processor writes and the owner takes.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use payloads::boot::{MAX_CPUS, cpu_index};
use payloads::exceptions::{Frame, set_interrupt_handler};
use payloads::gic::{Gic, SPURIOUS};
use payloads::machine::{GicRegisters, Machine};
use payloads::xen::op;
use payloads::{expect_eq, hypercall, io, psci, timer};

/// Wakes a processor to look at its command.
pub const CALL: u32 = 0;
/// Answered with [`PONG`] to the first processor, from the handler.
pub const PING: u32 = 1;
/// The answer.
pub const PONG: u32 = 2;
/// Passed on to the next processor.
pub const TOKEN_UP: u32 = 3;
/// Passed on to the previous processor.
pub const TOKEN_DOWN: u32 = 4;
/// Sent again to itself, once, by the handler that takes it the first time.
pub const AGAIN: u32 = 5;
/// Only counted, as are those above it.
pub const COUNTED: u32 = 6;

/// How often a token goes round.
pub const LAPS: u32 = 100;

/// What a processor can be told to do.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq)]
pub enum Command {
    None = 0,
    /// Take a series of timer interrupts.
    Timer = 1,
    /// Send [`COUNTED`] to the first processor.
    Send = 2,
    /// Switch itself off.
    Off = 3,
}

/// One processor's state.
pub struct Cpu {
    gic: [AtomicU64; 3],
    mpidr: AtomicU64,
    pub online: AtomicBool,
    command: AtomicU32,
    pub done: AtomicU32,
    /// Interrupts taken, by identifier.
    pub taken: [AtomicU32; 16],
    pub timer_taken: AtomicU32,
    pub physical_taken: AtomicU32,
    /// How many times the handler leaves the timer as it is: asserted.
    pub leave_timer: AtomicU32,
    strange: AtomicU32,
}

static CPUS: [Cpu; MAX_CPUS] = [const {
    Cpu {
        gic: [const { AtomicU64::new(0) }; 3],
        mpidr: AtomicU64::new(0),
        online: AtomicBool::new(false),
        command: AtomicU32::new(0),
        done: AtomicU32::new(0),
        taken: [const { AtomicU32::new(0) }; 16],
        timer_taken: AtomicU32::new(0),
        physical_taken: AtomicU32::new(0),
        leave_timer: AtomicU32::new(0),
        strange: AtomicU32::new(0),
    }
}; MAX_CPUS];
static COUNT: AtomicU32 = AtomicU32::new(0);
static VIRTUAL_TIMER: AtomicU32 = AtomicU32::new(0);
static PHYSICAL_TIMER: AtomicU32 = AtomicU32::new(0);
static REGISTERS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// The whole of IAR for each interrupt the first processor took, in order; a short history.
pub static HISTORY: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];
static HISTORY_LENGTH: AtomicU32 = AtomicU32::new(0);

/// Processors in the machine, at most eight.
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed) as usize
}

/// The state of processor `index`.
pub fn cpu(index: usize) -> &'static Cpu {
    &CPUS[index]
}

/// The state of the processor that asks.
pub fn me() -> &'static Cpu {
    cpu(cpu_index())
}

impl Cpu {
    /// The interrupt controller as this processor sees it.
    pub fn gic(&self) -> Gic {
        let [version, distributor, other] = [0, 1, 2].map(|i: usize| self.gic[i].load(Ordering::Relaxed));
        if version == 2 {
            Gic::V2 { distributor, cpu_interface: other }
        } else {
            Gic::V3 { distributor, redistributor: other }
        }
    }

    /// The affinity of this processor.
    pub fn mpidr(&self) -> u64 {
        self.mpidr.load(Ordering::Relaxed)
    }

    /// Takes the number of interrupts `id` counted so far, and starts again from zero.
    pub fn take(&self, id: u32) -> u32 {
        self.taken[id as usize].swap(0, Ordering::Relaxed)
    }

    /// The number of interrupts `id` counted so far.
    pub fn seen(&self, id: u32) -> u32 {
        self.taken[id as usize].load(Ordering::Relaxed)
    }
}

/// Prepares the first processor. False if the interrupt controller cannot be used.
pub fn set_up(machine: &Machine<'_>) -> bool {
    let Some(registers) = machine.gic else { return false };
    let words = match registers {
        GicRegisters::V2 { distributor, cpu_interface } => [2, distributor, cpu_interface, 0],
        GicRegisters::V3 { distributor, redistributors } => {
            [3, distributor, redistributors.start, redistributors.end]
        }
    };
    for (slot, word) in REGISTERS.iter().zip(words) {
        slot.store(word, Ordering::Relaxed);
    }
    VIRTUAL_TIMER.store(machine.virtual_timer, Ordering::Relaxed);
    PHYSICAL_TIMER.store(machine.physical_timer, Ordering::Relaxed);
    let count = machine.cpus.len().min(MAX_CPUS);
    COUNT.store(count as u32, Ordering::Relaxed);
    for (cpu, mpidr) in CPUS.iter().zip(&machine.cpus) {
        cpu.mpidr.store(*mpidr, Ordering::Relaxed);
    }
    let Some(gic) = Gic::for_this_cpu(registers) else { return false };
    gic.enable_distributor();
    set_interrupt_handler(handler);
    set_up_this(&gic);
    true
}

fn set_up_this(gic: &Gic) {
    let words = match *gic {
        Gic::V2 { distributor, cpu_interface } => [2, distributor, cpu_interface],
        Gic::V3 { distributor, redistributor } => [3, distributor, redistributor],
    };
    for (slot, word) in me().gic.iter().zip(words) {
        slot.store(word, Ordering::Relaxed);
    }
    gic.enable_cpu();
    for id in 0..16 {
        gic.enable(id);
    }
    gic.enable(VIRTUAL_TIMER.load(Ordering::Relaxed));
    gic.enable(PHYSICAL_TIMER.load(Ordering::Relaxed));
    io::interrupts_on();
    me().online.store(true, Ordering::Release);
}

/// What the other processors run.
pub fn secondary(_: usize) -> ! {
    let [version, distributor, start, end] =
        [0, 1, 2, 3].map(|i: usize| REGISTERS[i].load(Ordering::Relaxed));
    let registers = if version == 2 {
        GicRegisters::V2 { distributor, cpu_interface: start }
    } else {
        GicRegisters::V3 { distributor, redistributors: payloads::machine::Range { start, end } }
    };
    let gic = Gic::for_this_cpu(registers);
    assert!(gic.is_some(), "no redistributor");
    if let Some(gic) = gic {
        set_up_this(&gic);
    }
    loop {
        // Masked, so that a command cannot come in between the look and the wait.
        io::interrupts_off();
        if me().command.load(Ordering::Acquire) == Command::None as u32 {
            io::wait_for_interrupt();
        }
        io::interrupts_on();
        let command = me().command.swap(Command::None as u32, Ordering::Acquire);
        if command == Command::Timer as u32 {
            crate::timers::series();
        } else if command == Command::Send as u32 {
            send(0, COUNTED);
        } else if command == Command::Off as u32 {
            io::interrupts_off();
            me().online.store(false, Ordering::Release);
            psci::cpu_off();
            me().strange.fetch_add(1, Ordering::Relaxed);
        } else {
            continue;
        }
        me().done.fetch_add(1, Ordering::Release);
    }
}

/// Sends `id` to processor `target`.
pub fn send(target: usize, id: u32) {
    me().gic().sgi_to(target, cpu(target).mpidr(), id).send();
}

/// Tells processor `target` to do `command`.
pub fn command(target: usize, command: Command) {
    cpu(target).command.store(command as u32, Ordering::Release);
    send(target, CALL);
}

/// Waits until `done`, at most thirty seconds; says whether it came true.
pub fn wait_until(done: impl Fn() -> bool) -> bool {
    let start = timer::ticks();
    while !done() {
        if timer::ticks() - start > timer::frequency() * 30 {
            return false;
        }
        io::pause();
    }
    true
}

/// Lets interrupts arrive for a millisecond.
pub fn settle() {
    timer::spin(timer::frequency() / 1000);
}

/// Forgets the history of the first processor.
pub fn forget() {
    HISTORY_LENGTH.store(0, Ordering::Relaxed);
}

/// How many interrupts the first processor took since [`forget`].
pub fn history_length() -> u32 {
    HISTORY_LENGTH.load(Ordering::Relaxed)
}

fn handler(_: &mut Frame) {
    let cpu = me();
    let gic = cpu.gic();
    let acknowledged = gic.acknowledge();
    let id = acknowledged & 0x3ff;
    if id >= SPURIOUS {
        return;
    }
    if cpu_index() == 0 {
        let at = HISTORY_LENGTH.fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = HISTORY.get(at as usize) {
            slot.store(acknowledged, Ordering::Relaxed);
        }
    }
    if id == VIRTUAL_TIMER.load(Ordering::Relaxed) {
        match cpu.leave_timer.load(Ordering::Relaxed) {
            0 => timer::stop(),
            times => cpu.leave_timer.store(times - 1, Ordering::Relaxed),
        }
        cpu.timer_taken.fetch_add(1, Ordering::Relaxed);
    } else if id == PHYSICAL_TIMER.load(Ordering::Relaxed) {
        payloads::write_sysreg!("cntp_ctl_el0", 0);
        cpu.physical_taken.fetch_add(1, Ordering::Relaxed);
    } else if let Some(counter) = cpu.taken.get(id as usize) {
        let before = counter.fetch_add(1, Ordering::Relaxed);
        react(id, before);
    } else {
        cpu.strange.fetch_add(1, Ordering::Relaxed);
    }
    gic.end(acknowledged);
}

/// What the handler of an SGI does besides counting it.
fn react(id: u32, before: u32) {
    let (own, all) = (cpu_index(), count());
    match id {
        PING => send(0, PONG),
        TOKEN_UP if own != 0 || before + 1 < LAPS => send((own + 1) % all, TOKEN_UP),
        TOKEN_DOWN if own != 0 || before + 1 < LAPS => send((own + all - 1) % all, TOKEN_DOWN),
        AGAIN if before == 0 => send(own, AGAIN),
        _ => {}
    }
}

/// Whether the hypervisor is Nacelle, from which more is asked than Xen gives.
pub fn on_nacelle() -> bool {
    let mut extra = [0_u8; 16];
    // SAFETY: XENVER_extraversion writes at most 16 bytes.
    unsafe { hypercall::with_struct(op::XEN_VERSION, 1, &mut extra) };
    extra.windows(7).any(|word| word.eq_ignore_ascii_case(b"nacelle"))
}

/// Expects that no processor took an interrupt that nobody sent.
pub fn expect_nothing_strange() {
    for index in 0..count() {
        expect_eq!((index, cpu(index).strange.load(Ordering::Relaxed)), (index, 0));
    }
}
