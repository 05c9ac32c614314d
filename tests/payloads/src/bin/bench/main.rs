//! Measures what a guest pays for the hypervisor's services.
//!
//! Prints `bench NAME COST` lines; COST is in nanoseconds of the virtual counter, which under QEMU's
//! `-icount shift=0` is the number of instructions. The instruction that traps counts, the loop around it does not.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod footprint;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod store;
#[cfg(target_os = "none")]
mod traps;

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
fn payload_main(machine: &payloads::machine::Machine<'static>) {
    use payloads::gic::Gic;
    use payloads::{console, expect, println};

    let is_dom0 = machine.flag("dom0");
    if is_dom0 {
        footprint::measure();
    }
    println!("counter {} Hz", payloads::timer::frequency());
    let gic = machine.gic.and_then(Gic::for_this_cpu);
    expect!(gic.is_some(), "the device tree names no interrupt controller that works");
    if let Some(gic) = gic {
        gic.enable_distributor();
        gic.enable_cpu();
        interrupts::prepare(&gic, machine);
        // Whoever shows what is printed sleeps until the end.
        console::keep_quiet(true);
        interrupts::rest(10);
        traps::measure(&gic);
        interrupts::measure(&gic, machine);
    }
    if !is_dom0 {
        store::measure();
    }
    memory::measure(machine);
    console::keep_quiet(false);
}

/// Prints one result: `ticks` of the counter for `count` operations, and `correction` instructions that are not the
/// operation's.
#[cfg(target_os = "none")]
fn result(name: &str, ticks: u64, count: u64, correction: u64) {
    let tenths = payloads::timer::nanoseconds(ticks.saturating_mul(10)) / count.max(1);
    let tenths = tenths.saturating_sub(correction * 10);
    payloads::println!("bench {name} {}.{}", tenths / 10, tenths % 10);
    payloads::report::pass();
}

#[cfg(not(target_os = "none"))]
fn main() {}
