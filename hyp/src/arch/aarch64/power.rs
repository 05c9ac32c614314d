//! Turning the machine off, resetting it, and starting CPUs, by the firmware's PSCI.

use core::sync::atomic::{AtomicU8, Ordering};

use smccc::{Hvc, Smc, psci};

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

/// Sets how the firmware is called, from the device tree.
pub fn init(conduit: Conduit) {
    CONDUIT.store(conduit as u8, Ordering::Relaxed);
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
    stop_this_cpu()
}

/// Resets the machine; stops this CPU where the firmware cannot.
pub fn reset() -> ! {
    let _ = match CONDUIT.load(Ordering::Relaxed) {
        1 => psci::system_reset::<Smc>(),
        2 => psci::system_reset::<Hvc>(),
        _ => Ok(()),
    };
    stop_this_cpu()
}

/// Sleeps for ever.
pub fn stop_this_cpu() -> ! {
    loop {
        // SAFETY: masks interrupts and waits; touches no memory.
        unsafe { core::arch::asm!("msr daifset, #0xf", "wfi", options(nomem, nostack)) };
    }
}
