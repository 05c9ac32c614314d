//! More domains at once than the processor has VMIDs, made, run and destroyed by dom0: each gets its own memory and time,
//! and all that it took comes back.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod tenant;
#[cfg(target_os = "none")]
mod toolstack;

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
fn payload_main(machine: &payloads::machine::Machine<'static>) {
    use payloads::{expect, expect_eq, println};
    use toolstack::{Figures, figures};

    const MOST: usize = 4096;
    let wanted = machine.number("domains").unwrap_or(1000).min(MOST as u64) as u16;
    let Some(window) = machine.free(4096, 4096) else { return expect!(false, "no page to look through") };
    let mut left = Figures::default();
    // Twice: what the hypervisor keeps for itself it uses again.
    for round in 1..=2 {
        let before = figures();
        let mut ids = arrayvec::ArrayVec::<u16, MOST>::new();
        for number in 1..=wanted {
            match tenant::make(number, window.start) {
                Ok(id) => ids.push(id),
                Err((step, error)) => {
                    expect!(false, "domain {number}: {step}: {error}");
                    break;
                }
            }
        }
        let peak = figures();
        println!(
            "note {} domains: {} pages each, their own included; {} ns to make one",
            ids.len(),
            (before.free - peak.free) / u64::from(wanted),
            (peak.time - before.time) / u64::from(wanted),
        );
        for &id in &ids {
            expect_eq!((id, toolstack::unpause(id)), (id, 0));
        }
        let started = figures().time;
        while ids.iter().any(|&id| !toolstack::is_shut_down(id)) && figures().time - started < 60_000_000_000
        {
            payloads::hypercall::scalar(payloads::xen::op::SCHED_OP, payloads::xen::sched::YIELD, 0);
        }
        println!("note all ran, in {} ns", figures().time - started);
        let listed = toolstack::listed();
        expect_eq!(listed, ids.len() + 1);
        for (&id, number) in ids.iter().zip(1..) {
            expect_eq!((id, tenant::result(id, window.start)), (id, tenant::expected(number)));
        }
        let start = figures().time;
        for &id in &ids {
            expect_eq!((id, toolstack::destroy(id)), (id, 0));
        }
        toolstack::close_window(window.start);
        let after = figures();
        println!(
            "note gone: {} ns to destroy one, {} pages kept",
            (after.time - start) / u64::from(wanted),
            before.free - after.free
        );
        expect_eq!(toolstack::listed(), 1);
        if round == 2 {
            expect_eq!(after.free, left.free);
        }
        left = after;
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
