//! The generic timers: EL2's own for deadlines and slices, and a guest's emulated physical timer.

use core::cell::Cell;

use crate::time::Ticks;
use crate::timer;

use super::percpu::{self, Loaded};
use super::sysreg::{read_sysreg, write_sysreg};

const ENABLE: u64 = 1;
const IMASK: u64 = 2;
const ISTATUS: u64 = 4;

/// What a CPU's EL2 timer (CNTHP) is set for.
pub struct Programme {
    deadline: Cell<u64>,
    slice_end: Cell<u64>,
    /// See [`look_again`].
    second_look: Cell<u64>,
}

impl Programme {
    /// Nothing.
    pub const fn new() -> Self {
        Self {
            deadline: Cell::new(u64::MAX),
            slice_end: Cell::new(u64::MAX),
            second_look: Cell::new(u64::MAX),
        }
    }

    fn apply(&self) {
        let when = self.deadline.get().min(self.slice_end.get()).min(self.second_look.get());
        // SAFETY: EL2's own timer.
        unsafe {
            write_sysreg!("cnthp_cval_el2", when);
            write_sysreg!("cnthp_ctl_el2", if when == u64::MAX { 0 } else { ENABLE });
        }
        // The line follows before the GIC looks at it again: at a deactivation, or a WFI.
        super::sysreg::isb();
    }
}

/// The system counter. The isb keeps the read from being taken early (DDI 0487 D12.1.2).
#[inline]
pub fn now() -> Ticks {
    super::sysreg::isb();
    Ticks::new(read_sysreg!("cntpct_el0"))
}

/// Ticks per second, as the firmware set it.
#[inline]
pub fn counter_frequency() -> u64 {
    read_sysreg!("cntfrq_el0")
}

/// When [`crate::timer`] next wants to run on this CPU.
pub fn set_deadline(when: Option<Ticks>) {
    let programme = &percpu::this().timer;
    let when = when.map_or(u64::MAX, Ticks::get);
    if programme.deadline.replace(when) != when {
        programme.apply();
    }
}

/// When the running vCPU's slice ends, if others wait.
pub fn set_slice_end(when: Option<Ticks>) {
    let programme = &percpu::this().timer;
    let when = when.map_or(u64::MAX, Ticks::get);
    if programme.slice_end.replace(when) != when {
        programme.apply();
    }
}

/// Lets the EL2 timer fire two milliseconds from now, for as long as an interrupt that hardware backs is with a guest.
///
/// QEMU's GICv2 looks at its lines again when a line changes or a register is written, but not when a guest's end of
/// interrupt deactivates a physical one through a list register. A line that was raised again before that stays pending
/// and unsignalled; the change of EL2's own line makes it be looked at. A GICv2 in hardware needs none of this.
pub fn look_again() {
    let programme = &percpu::this().timer;
    programme.second_look.set(now().get().wrapping_add(counter_frequency() / 500));
    programme.apply();
}

/// The EL2 timer fired. Returns whether the slice ended.
pub fn fired() -> bool {
    let programme = &percpu::this().timer;
    let now = now();
    let slice_ended = programme.slice_end.get() <= now.get();
    if slice_ended {
        programme.slice_end.set(u64::MAX);
    }
    programme.deadline.set(u64::MAX);
    if programme.second_look.get() <= now.get() {
        programme.second_look.set(u64::MAX);
        super::irq::look_again_if_active();
    }
    timer::expire();
    programme.apply();
    slice_ended
}

/// A register of the emulated EL1 physical timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// CNTP_TVAL_EL0.
    Tval,
    /// CNTP_CTL_EL0.
    Ctl,
    /// CNTP_CVAL_EL0.
    Cval,
}

/// Reads one, as the guest would.
pub fn read_physical(loaded: &Loaded, register: Register) -> u64 {
    // SAFETY: loaded here, so only this CPU reaches it, and nothing else refers to the timer while traps are handled.
    let timer = unsafe { *loaded.vcpu.arch.physical_timer() };
    let now = now().get();
    match register {
        Register::Cval => timer.cval,
        // A signed 32-bit view of the distance (DDI 0487 D12.2.4).
        Register::Tval => timer.cval.wrapping_sub(now) & 0xffff_ffff,
        Register::Ctl => {
            let fired = timer.ctl & ENABLE != 0 && now >= timer.cval;
            timer.ctl | if fired { ISTATUS } else { 0 }
        }
    }
}

/// Writes one, as the guest would.
pub fn write_physical(loaded: &Loaded, register: Register, value: u64) {
    // SAFETY: as in `read_physical`.
    let timer = unsafe { &mut *loaded.vcpu.arch.physical_timer() };
    match register {
        Register::Cval => timer.cval = value,
        Register::Tval => timer.cval = now().get().wrapping_add(i64::from(value as i32) as u64),
        Register::Ctl => timer.ctl = value & (ENABLE | IMASK),
    }
    let fires_at = (timer.ctl & (ENABLE | IMASK) == ENABLE).then_some(Ticks::new(timer.cval));
    timer::set_physical(&loaded.vcpu, fires_at);
}
