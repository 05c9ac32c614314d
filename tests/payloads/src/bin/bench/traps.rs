//! Costs of a trap that comes straight back: hypercalls and emulated registers.

use core::arch::asm;

use payloads::gic::{GICD_IPRIORITYR, GICD_TYPER, Gic};
use payloads::xen::event_channel::{ALLOC_UNBOUND, AllocUnbound, BIND_INTERDOMAIN, BindInterdomain, SEND};
use payloads::xen::{DOMID_SELF, memory, op, sched};
use payloads::{expect, hypercall};

use super::result;

const ROUNDS: u64 = 1024;
/// The best of so many counts: another domain may have been awake for a moment in some.
const BATCHES: usize = 8;

/// Runs `$body` `ROUNDS` times, its operands bound by the caller, and gives the ticks it took at best.
macro_rules! ticks_of {
    ([$($body:literal),*], $($operands:tt)*) => {{
        let mut best = u64::MAX;
        for _ in 0..BATCHES {
          let (start, end): (u64, u64);
          // SAFETY: the bodies make hypercalls without pointers Rust owns mutably elsewhere, or access device registers.
          unsafe {
            asm!(
                "isb",
                "mrs {start}, cntvct_el0",
                "2:",
                $($body,)*
                "subs {rounds}, {rounds}, #1",
                "b.ne 2b",
                "isb",
                "mrs {end}, cntvct_el0",
                start = out(reg) start,
                end = out(reg) end,
                rounds = inout(reg) ROUNDS => _,
                $($operands)*
            )
          };
          best = best.min(end.wrapping_sub(start));
        }
        best
    }};
}

fn hypercall_cost(name: &str, number: u64, a0: u64, a1: u64) {
    let empty = ticks_of!(
        ["mov x16, {number}", "mov x0, {a0}", "mov x1, {a1}"],
        number = in(reg) number, a0 = in(reg) a0, a1 = in(reg) a1,
        out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x16") _,
    );
    let full = ticks_of!(
        ["mov x16, {number}", "mov x0, {a0}", "mov x1, {a1}", "hvc #0xea1"],
        number = in(reg) number, a0 = in(reg) a0, a1 = in(reg) a1,
        out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x16") _,
    );
    result(name, full.saturating_sub(empty), ROUNDS, 0);
}

pub fn measure(gic: &Gic) {
    hypercall_cost("hypercall", op::XEN_VERSION, 0, 0);
    hypercall_cost("hypercall-unknown", 62, 0, 0);

    let empty = ticks_of!([],);
    let typer = gic.distributor() + GICD_TYPER;
    let read = ticks_of!(["ldr {value:w}, [{typer}]"], typer = in(reg) typer, value = out(reg) _,);
    result("mmio-read", read.saturating_sub(empty), ROUNDS, 0);
    // The priority registers of the first SPIs: emulated by the distributor on GICv2 and GICv3 alike.
    let priority = gic.distributor() + GICD_IPRIORITYR + 32;
    let write = ticks_of!(["str {value:w}, [{priority}]"], priority = in(reg) priority, value = in(reg) 0xa0a0_a0a0_u64,);
    result("mmio-write", write.saturating_sub(empty), ROUNDS, 0);

    hypercall_cost("yield", op::SCHED_OP, sched::YIELD, 0);

    let mut domid = DOMID_SELF;
    hypercall_cost("current-reservation", op::MEMORY_OP, memory::CURRENT_RESERVATION, &raw mut domid as u64);
    event_channel();
}

/// A channel from this domain to itself. The first send marks the port pending, the others find it so: no upcall.
fn event_channel() {
    let mut unbound = AllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, port: 0 };
    // SAFETY: the hypervisor writes the port into the structure, nothing else.
    let allocated = unsafe { hypercall::with_struct(op::EVENT_CHANNEL_OP, ALLOC_UNBOUND, &mut unbound) };
    let mut bound = BindInterdomain { remote_dom: DOMID_SELF, remote_port: unbound.port, local_port: 0 };
    // SAFETY: as above.
    let connected = unsafe { hypercall::with_struct(op::EVENT_CHANNEL_OP, BIND_INTERDOMAIN, &mut bound) };
    expect!(allocated == 0 && connected == 0, "no channel to itself: {allocated}, {connected}");
    if connected == 0 {
        let port = bound.local_port;
        hypercall_cost("evtchn-send", op::EVENT_CHANNEL_OP, SEND, &raw const port as u64);
    }
}
