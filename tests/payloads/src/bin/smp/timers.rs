//! The virtual timer on every processor at once, and the level of its interrupt.

use core::sync::atomic::Ordering;

use payloads::machine::Machine;
use payloads::report::Test;
use payloads::{expect, expect_eq, io, read_sysreg, tests, timer, write_sysreg};

use crate::cpus::{self, Command, cpu, me, settle, wait_until};

pub const TESTS: [Test; 6] = tests![everywhere, in_the_past, masked_at_the_timer, level, late, physical];

const SHOTS: u32 = 100;

/// Takes a series of timer interrupts a millisecond apart, asleep in between. Runs on any processor.
pub fn series() {
    me().timer_taken.store(0, Ordering::Relaxed);
    for shot in 1..=SHOTS {
        let deadline = timer::ticks() + timer::frequency() / 1000;
        timer::fire_at(deadline);
        loop {
            io::interrupts_off();
            let taken = me().timer_taken.load(Ordering::Relaxed);
            if taken < shot {
                io::wait_for_interrupt();
            }
            io::interrupts_on();
            if taken >= shot {
                break;
            }
        }
        expect!(timer::ticks() >= deadline, "shot {shot} came early");
    }
}

fn everywhere(_: &Machine<'static>) {
    let before: u32 = (1..cpus::count()).map(|index| cpu(index).done.load(Ordering::Acquire)).sum();
    for index in 1..cpus::count() {
        cpus::command(index, Command::Timer);
    }
    series();
    let others = cpus::count() as u32 - 1;
    let done = || (1..cpus::count()).map(|index| cpu(index).done.load(Ordering::Acquire)).sum::<u32>();
    expect!(wait_until(|| done() - before == others), "a processor is stuck");
    for index in 0..cpus::count() {
        expect_eq!((index, cpu(index).timer_taken.load(Ordering::Relaxed)), (index, SHOTS));
    }
}

fn in_the_past(_: &Machine<'static>) {
    me().timer_taken.store(0, Ordering::Relaxed);
    timer::fire_at(0);
    expect!(
        wait_until(|| me().timer_taken.load(Ordering::Relaxed) == 1),
        "a deadline in the past does not fire"
    );
    settle();
    expect_eq!(me().timer_taken.load(Ordering::Relaxed), 1);
}

/// CNTV_CTL_EL0.IMASK holds the interrupt back; ISTATUS tells nevertheless (Arm ARM DDI 0487, D24.10.27).
fn masked_at_the_timer(_: &Machine<'static>) {
    me().timer_taken.store(0, Ordering::Relaxed);
    write_sysreg!("cntv_cval_el0", 0);
    write_sysreg!("cntv_ctl_el0", 3);
    settle();
    expect_eq!(me().timer_taken.load(Ordering::Relaxed), 0);
    expect_eq!(read_sysreg!("cntv_ctl_el0"), 7);
    write_sysreg!("cntv_ctl_el0", 1);
    expect!(wait_until(|| me().timer_taken.load(Ordering::Relaxed) == 1), "it did not come when unmasked");
    timer::stop();
}

/// The interrupt is a level: ended while the timer still asserts it, it comes again. Xen masks the timer when it delivers
/// the interrupt, so this is asked of Nacelle alone.
fn level(_: &Machine<'static>) {
    if !cpus::on_nacelle() {
        return;
    }
    me().timer_taken.store(0, Ordering::Relaxed);
    me().leave_timer.store(2, Ordering::Relaxed);
    timer::fire_at(0);
    expect!(wait_until(|| me().timer_taken.load(Ordering::Relaxed) >= 3), "it did not come again");
    settle();
    expect_eq!(me().timer_taken.load(Ordering::Relaxed), 3);
}

/// Turned off between firing and being taken, the interrupt may come once, as it was already on its way in a list register, and
/// not again.
fn late(_: &Machine<'static>) {
    me().timer_taken.store(0, Ordering::Relaxed);
    io::interrupts_off();
    timer::fire_at(0);
    settle();
    timer::stop();
    settle();
    io::interrupts_on();
    settle();
    expect!(me().timer_taken.load(Ordering::Relaxed) <= 1, "it came again");
}

/// The physical timer, which a hypervisor emulates: its interrupt comes, and not before its time.
fn physical(_: &Machine<'static>) {
    for shot in 1..=20 {
        let deadline = read_sysreg!("cntpct_el0") + timer::frequency() / 1000;
        write_sysreg!("cntp_cval_el0", deadline);
        write_sysreg!("cntp_ctl_el0", 1);
        expect!(
            wait_until(|| me().physical_taken.load(Ordering::Relaxed) == shot),
            "shot {shot} did not come"
        );
        expect!(read_sysreg!("cntpct_el0") >= deadline, "shot {shot} came early");
    }
    // Turned off before its time, it stays silent. Half a second, lest a busy host lets the time come first.
    write_sysreg!("cntp_cval_el0", read_sysreg!("cntpct_el0") + timer::frequency() / 2);
    write_sysreg!("cntp_ctl_el0", 1);
    write_sysreg!("cntp_ctl_el0", 0);
    timer::spin(timer::frequency() / 2 + timer::frequency() / 100);
    expect_eq!(me().physical_taken.load(Ordering::Relaxed), 20);
}
