//! The virtual timer and its counter.

use core::arch::asm;

use crate::{io, read_sysreg, write_sysreg};

/// The virtual counter, read in program order (`isb` before it: Arm ARM DDI 0487, D12.1.2).
pub fn ticks() -> u64 {
    let value: u64;
    // SAFETY: reads a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) value, options(nostack)) };
    value
}

/// Ticks per second.
pub fn frequency() -> u64 {
    read_sysreg!("cntfrq_el0")
}

/// Nanoseconds in `ticks`.
pub fn nanoseconds(ticks: u64) -> u64 {
    (u128::from(ticks) * 1_000_000_000 / u128::from(frequency().max(1))) as u64
}

/// Makes the timer fire when the counter reaches `deadline`.
pub fn fire_at(deadline: u64) {
    write_sysreg!("cntv_cval_el0", deadline);
    write_sysreg!("cntv_ctl_el0", 1);
}

/// Turns the timer off.
pub fn stop() {
    write_sysreg!("cntv_ctl_el0", 0);
}

/// Waits until `count` ticks have passed, without sleeping.
pub fn spin(count: u64) {
    let start = ticks();
    while ticks().wrapping_sub(start) < count {
        io::pause();
    }
}
