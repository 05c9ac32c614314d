//! Interrupts and power on several processors: none lost, none twice, none out of order.
//!
//! ```text
//! first processor: runs the tests, tells the others what to do        the others: sleep in WFI
//!     command.store(..), SGI CALL  ------------------------------------->  run it, done += 1
//! ```
//!
//! Works with 1 to 8 processors; what needs two is skipped on one.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod cpus;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod sgi;
#[cfg(target_os = "none")]
mod timers;

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
fn payload_main(machine: &payloads::machine::Machine<'static>) {
    use payloads::{expect, println, report};

    if !cpus::set_up(machine) {
        expect!(false, "no interrupt controller that works");
        return;
    }
    println!("smp: {} processors", machine.cpus.len());
    report::run(&power::START, machine);
    report::run(&sgi::TESTS, machine);
    report::run(&timers::TESTS, machine);
    report::run(&power::STOP, machine);
    cpus::expect_nothing_strange();
}

#[cfg(not(target_os = "none"))]
fn main() {}
