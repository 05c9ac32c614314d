//! Fires random hypercalls, device accesses and register accesses at the hypervisor, from a fixed seed.
//!
//! Boot arguments: `fuzz.count=N` accesses (10,000,000 by default), `fuzz.seed=N`, and in dom0's place `fuzz.domains=N` for as many
//! calls about other domains first. What must hold at the end: the hypervisor
//! answers, calls that do not exist were all refused with ENOSYS, calls with unusable pointers were all refused, and no
//! byte of this program changed.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
mod domains;
#[cfg(target_os = "none")]
mod hypercalls;
#[cfg(target_os = "none")]
mod instructions;
#[cfg(target_os = "none")]
mod values;

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
fn payload_main(machine: &payloads::machine::Machine<'static>) {
    use payloads::random::Random;
    use payloads::xen::{errno, op};
    use payloads::{boot, console, expect, expect_eq, hypercall, println, timer};

    let count = machine.number("fuzz.count").unwrap_or(10_000_000);
    let seed = machine.number("fuzz.seed").unwrap_or(1);
    let Some(mut values) = values::Values::new(machine, Random::new(seed)) else {
        expect!(false, "not enough free memory");
        return;
    };
    println!("fuzz: {count} accesses from seed {seed}, scratch {:#x}", values.scratch().start);
    // What follows may well overwrite the grant by which the console's daemon comes to the ring.
    expect!(console::flush(), "nobody reads the console");
    let program = boot::checksum_of_constants();
    if let Some(calls) = machine.number("fuzz.domains") {
        domains::Domains::new(&values).run(&mut values, calls);
    }
    let start = timer::ticks();
    let mut hypercalls = hypercalls::Hypercalls::new(&values);
    let mut device = device::Device::new(machine);
    let mut instructions = instructions::Instructions::new(&values);
    let report_every = (count / 10).max(1);
    for done in 1..=count {
        match values.random().below(100) {
            0 => instructions.one(&mut values),
            1..40 => device.one(&mut values),
            _ => hypercalls.one(&mut values),
        }
        if done % report_every == 0 {
            println!("fuzz: {done} after {} ms", timer::nanoseconds(timer::ticks() - start) / 1_000_000);
        }
    }
    hypercalls.report();
    device.report();
    instructions.report();
    expect_eq!(hypercall::scalar(op::XEN_VERSION, 0, 0), 4 << 16 | 17);
    expect_eq!(hypercall::scalar(63, 0, 0), errno::ENOSYS);
    expect_eq!(boot::checksum_of_constants(), program);
}

#[cfg(not(target_os = "none"))]
fn main() {}
