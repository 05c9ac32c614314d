//! A guest whose demand for memory is written down: it takes and frees memory by a curve, has a balloon, and reports as the
//! Linux agent does. What is short is what it wants and does not have, to the page.
//!
//! Boot arguments:
//! - `demand.curve=0:40,5:200,20~60`: the demand in MiB over the seconds since the start (`payloads::curve`). Without it
//!   the demand is what dom0 writes to `data/demand` below the guest's directory, in KiB.
//! - `demand.end=SECONDS`: powers off then. Else it runs until it is destroyed.
//! - `demand.stuck`: no balloon; the target is as if nobody had said it.
//! - `demand.as=mute|dying|liar|babbler|flood`: an agent that is not there (the guest then touches what it holds every second), that says
//!   nothing after the third report, that says 2^63 everywhere, that writes what is no report, that reports at every turn.
//!
//! What its target does not leave it, it gives up and is short of, as a guest that swaps. It prints a line for each change:
//! `demand: wants … KiB, holds …: short|satisfied after … ms`, `demand: target … KiB after … ms`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod holder;
#[cfg(target_os = "none")]
mod reporter;
#[cfg(target_os = "none")]
mod sleep;
#[cfg(target_os = "none")]
mod work;

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
fn payload_main(machine: &payloads::machine::Machine<'static>) {
    work::run(machine);
}

#[cfg(not(target_os = "none"))]
fn main() {}
