//! Turning the machine off, resetting it, and starting CPUs: by the firmware's PSCI, or a Raspberry Pi's watchdog.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use smccc::{Call, Hvc, Smc, psci};
use stage2::Pa;

/// How the firmware is called, if at all: an SMC where no firmware answers hangs or is undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// No PSCI.
    None = 0,
    /// By SMC.
    Smc = 1,
    /// By HVC. A hypervisor below this one.
    Hvc = 2,
}

static CONDUIT: AtomicU8 = AtomicU8::new(0);
/// Address of a Raspberry Pi's power management block, or 0.
static WATCHDOG: AtomicU64 = AtomicU64::new(0);

/// Registers of that block (Linux, `drivers/watchdog/bcm2835_wdt.c`; Broadcom documents none of it). A write counts only with
/// the password in its top byte.
mod watchdog {
    pub const PASSWORD: u32 = 0x5a00_0000;
    /// What happens when the time is over: bits 5 and 4, 2 for a full reset. Writing 0x102 stops the watchdog.
    pub const RSTC: u64 = 0x1c;
    pub const RSTC_MODE: u32 = 0x30;
    pub const RSTC_FULL_RESET: u32 = 0x20;
    pub const RSTC_STOP: u32 = 0x102;
    /// From which partition the firmware boots next, in every other bit; 63 tells it to halt.
    pub const RSTS: u64 = 0x20;
    pub const RSTS_HALT: u32 = 0x555;
    /// The time left, in units of 15 microseconds.
    pub const WDOG: u64 = 0x24;
    pub const SOON: u32 = 10;
}

fn watchdog_register(offset: u64) -> Option<*mut u32> {
    match WATCHDOG.load(Ordering::Relaxed) {
        0 => None,
        base => Some((base + offset) as *mut u32),
    }
}

/// Lets the watchdog reset the machine, with other bits in its status register; does nothing where there is none.
fn reset_by_watchdog(status: u32) {
    use watchdog::{PASSWORD, RSTC, RSTC_FULL_RESET, RSTC_MODE, RSTS, SOON, WDOG};
    let registers = (watchdog_register(RSTS), watchdog_register(WDOG), watchdog_register(RSTC));
    let (Some(rsts), Some(wdog), Some(rstc)) = registers else { return };
    // SAFETY: the registers that `init` was promised. Other CPUs may do the same at most, which ends in the same way.
    unsafe {
        rsts.write_volatile(PASSWORD | rsts.read_volatile() | status);
        wdog.write_volatile(PASSWORD | SOON);
        rstc.write_volatile(PASSWORD | rstc.read_volatile() & !RSTC_MODE | RSTC_FULL_RESET);
    }
}

/// Sets how the firmware is called and where a Raspberry Pi's power management is, from the device tree.
///
/// # Safety
/// That block's registers are at that address, mapped as device memory, and nobody else uses them.
pub unsafe fn init(conduit: Conduit, raspberry_pi: Option<Pa>) {
    CONDUIT.store(conduit as u8, Ordering::Relaxed);
    WATCHDOG.store(raspberry_pi.map_or(0, Pa::raw), Ordering::Relaxed);
    if let Some(rstc) = watchdog_register(watchdog::RSTC) {
        // A boot loader may have started it, and nobody will serve it.
        // SAFETY: the caller's promise.
        unsafe { rstc.write_volatile(watchdog::PASSWORD | watchdog::RSTC_STOP) };
    }
}

/// What the firmware's SMCCC_ARCH_FEATURES says of a workaround, on this CPU; `None` for "not supported", and where it cannot be
/// asked: PSCI 1.0 tells of SMCCC, SMCCC 1.1 has the function (DEN 0028F, 7.3; DEN 0022F, 5.16). Only by SMC, as the vectors
/// will call it.
pub fn workaround(function: u32) -> Option<i32> {
    const PSCI_VERSION: u32 = 0x8400_0000;
    const PSCI_FEATURES: u32 = 0x8400_000a;
    const NOT_SUPPORTED: i32 = -1;
    if CONDUIT.load(Ordering::Relaxed) != Conduit::Smc as u8 {
        return None;
    }
    let ask = |function, argument| {
        let [result, ..] = Smc::call32(function, [argument, 0, 0, 0, 0, 0, 0]);
        result.cast_signed()
    };
    let call = |function, argument| Some(ask(function, argument)).filter(|&result| result >= 0);
    call(PSCI_VERSION, 0).filter(|&version| version >= 1 << 16)?;
    call(PSCI_FEATURES, smccc::arch::SMCCC_VERSION)?;
    call(smccc::arch::SMCCC_VERSION, 0).filter(|&version| version >= 1 << 16 | 1)?;
    Some(ask(smccc::arch::SMCCC_ARCH_FEATURES, function)).filter(|&result| result != NOT_SUPPORTED)
}

/// Starts a CPU at `entry`, a physical address.
pub fn cpu_on(mpidr: u64, entry: u64) -> Result<(), psci::error::Error> {
    match CONDUIT.load(Ordering::Relaxed) {
        1 => psci::cpu_on::<Smc>(mpidr, entry, 0),
        2 => psci::cpu_on::<Hvc>(mpidr, entry, 0),
        _ => Err(psci::error::Error::NotSupported),
    }
}

/// Turns the machine off; stops this CPU where the firmware cannot.
pub fn off() -> ! {
    let _ = match CONDUIT.load(Ordering::Relaxed) {
        1 => psci::system_off::<Smc>(),
        2 => psci::system_off::<Hvc>(),
        _ => Ok(()),
    };
    reset_by_watchdog(watchdog::RSTS_HALT);
    stop_this_cpu()
}

/// Resets the machine; stops this CPU where the firmware cannot.
pub fn reset() -> ! {
    let _ = match CONDUIT.load(Ordering::Relaxed) {
        1 => psci::system_reset::<Smc>(),
        2 => psci::system_reset::<Hvc>(),
        _ => Ok(()),
    };
    reset_by_watchdog(0);
    stop_this_cpu()
}

/// Sleeps for ever.
pub fn stop_this_cpu() -> ! {
    loop {
        // SAFETY: masks interrupts and waits; touches no memory.
        unsafe { core::arch::asm!("msr daifset, #0xf", "wfi", options(nomem, nostack)) };
    }
}
