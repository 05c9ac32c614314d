//! What a guest trapped for: one match on the exception class.
//!
//! [`on_hypercall`] and [`on_trap`] are called by the vectors with the guest's registers in `ctx`, on the stack of
//! the run loop, and answer 0 (back into the guest) or [`EXIT_REQUESTED`], with the reason in [`Departure`].

use crate::hypercall::{self, Caller, Outcome};
use crate::{psci, sched};

use super::percpu::{self, Loaded};
use super::sysreg::{read_sysreg, write_sysreg};
use super::vectors::{Context, EXIT_REQUESTED};
use super::{aarch32, inject, irq, mmio, run, sysreg_trap};

/// Why the run loop must look at a vCPU that asked to leave the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Requests are pending; nothing else.
    Requests,
    /// The vCPU sleeps until something is pending for it.
    Block,
    /// As `Block`, or until its poll ends.
    Poll,
    /// Another vCPU may run.
    Yield,
    /// The vCPU switched itself off, or its domain ended.
    Off,
}

/// Exception classes of ESR_EL2 that a guest can cause here (DDI 0487 D19.2.37).
mod ec {
    pub const WFX: u64 = 0x01;
    /// MCR, MCRR, LDC and VMRS of AArch32 to coprocessors 10, 14 and 15.
    pub const AARCH32: [u64; 6] = [0x03, 0x04, 0x05, 0x06, 0x08, 0x0c];
    pub const FP: u64 = 0x07;
    pub const HVC64: u64 = 0x16;
    pub const SMC64: u64 = 0x17;
    pub const SYSREG: u64 = 0x18;
    pub const INSTRUCTION_ABORT: u64 = 0x20;
    pub const DATA_ABORT: u64 = 0x24;
}

/// Moves the guest past the instruction that trapped (4 bytes, or 2 by ESR_EL2.IL); an IT block of AArch32 advances with it.
#[inline]
pub fn skip_instruction(esr: u64) {
    let length = if esr & 1 << 25 != 0 { 4 } else { 2 };
    // SAFETY: ELR_EL2 is where the guest continues; it affects only the guest.
    unsafe { write_sysreg!("elr_el2", read_sysreg!("elr_el2").wrapping_add(length)) };
    let spsr = read_sysreg!("spsr_el2");
    if spsr & aarch32::AARCH32 != 0 {
        // SAFETY: the guest's PSTATE; it affects only the guest.
        unsafe { write_sysreg!("spsr_el2", aarch32::advance_it(spsr)) };
    }
}

/// [`skip_instruction`] for one of AArch64, which is 4 bytes and in no IT block.
#[inline(always)]
pub fn skip_a64_instruction() {
    // SAFETY: ELR_EL2 is where the guest continues; it affects only the guest.
    unsafe { write_sysreg!("elr_el2", read_sysreg!("elr_el2").wrapping_add(4)) };
}

/// Ends a trap: straight back to the guest unless somebody asked for more than interrupts.
#[inline]
fn finish(loaded: &Loaded) -> u64 {
    if !loaded.vcpu.has_requests() {
        return 0;
    }
    run::serve_requests(loaded)
}

fn leave(departure: Departure) -> u64 {
    run::depart(departure);
    EXIT_REQUESTED
}

#[unsafe(no_mangle)]
extern "C" fn on_hypercall(ctx: &mut Context) -> u64 {
    let Some(loaded) = percpu::this().loaded() else { return leave(Departure::Yield) };
    let caller = Caller { domain: &loaded.domain, vcpu: &loaded.vcpu };
    let Some(args) = ctx.x.first_chunk() else { return leave(Departure::Yield) };
    match hypercall::dispatch(&caller, ctx.x[16], args) {
        Outcome::Done(value) => {
            ctx.x[0] = value as u64;
            finish(loaded)
        }
        Outcome::Again(args) => {
            ctx.x[..5].copy_from_slice(&args);
            // SAFETY: back to the hvc; ELR_EL2 affects only the guest. Interrupts are taken before it runs again.
            unsafe { write_sysreg!("elr_el2", read_sysreg!("elr_el2").wrapping_sub(4)) };
            finish(loaded)
        }
        Outcome::Block => {
            ctx.x[0] = 0;
            leave(Departure::Block)
        }
        Outcome::Poll => {
            ctx.x[0] = 0;
            leave(Departure::Poll)
        }
        Outcome::Yield => {
            ctx.x[0] = 0;
            if sched::has_other_runnable(percpu::this().id()) {
                leave(Departure::Yield)
            } else {
                finish(loaded)
            }
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn on_trap(ctx: &mut Context, esr: u64) -> u64 {
    let Some(loaded) = percpu::this().loaded() else { return leave(Departure::Yield) };
    // The most frequent trap, before there is a stack frame for the others.
    if esr >> 26 & 0x3f == ec::DATA_ABORT && mmio::is_emulated(loaded, ctx, esr) {
        return finish(loaded);
    }
    other_trap(loaded, ctx, esr)
}

/// A trap from AArch32, which only EL0 can be in.
#[unsafe(no_mangle)]
extern "C" fn on_trap_aarch32(ctx: &mut Context, esr: u64) -> u64 {
    let Some(loaded) = percpu::this().loaded() else { return leave(Departure::Yield) };
    other_trap(loaded, ctx, esr)
}

#[inline(never)]
fn other_trap(loaded: &Loaded, ctx: &mut Context, esr: u64) -> u64 {
    match esr >> 26 & 0x3f {
        ec::DATA_ABORT => mmio::data_abort(loaded, ctx, esr),
        ec::SYSREG => sysreg_trap::trap(loaded, ctx, esr),
        ec::WFX => {
            skip_instruction(esr);
            // TI, ISS[1:0]: WFE yields the CPU, WFI (and the timed forms) sleeps.
            return if esr & 1 != 0 {
                if sched::has_other_runnable(percpu::this().id()) {
                    leave(Departure::Yield)
                } else {
                    finish(loaded)
                }
            } else if irq::is_pending(loaded) {
                finish(loaded)
            } else {
                leave(Departure::Block)
            };
        }
        ec::FP => {
            // SAFETY: the vCPU is loaded here, and while it runs only `ctx` refers to its registers.
            unsafe { loaded.vcpu.arch.enable_fp() };
        }
        class @ (ec::HVC64 | ec::SMC64) => {
            // SMCCC wants `#0`; Xen's tag took the short way in vectors.rs. The return address of an HVC is behind it, that
            // of a trapped SMC is its own.
            if esr & 0xffff == 0 {
                if class == ec::SMC64 {
                    skip_instruction(esr);
                }
                let args = [ctx.x[0], ctx.x[1], ctx.x[2], ctx.x[3]];
                match psci::call(&Caller { domain: &loaded.domain, vcpu: &loaded.vcpu }, args) {
                    psci::Answer::Return(value) => ctx.x[0] = value,
                    psci::Answer::Sleep => {
                        ctx.x[0] = 0;
                        return leave(Departure::Block);
                    }
                    psci::Answer::Gone => return leave(Departure::Off),
                }
            } else {
                if class == ec::HVC64 {
                    // SAFETY: back to the hvc, which is what is undefined; affects only the guest.
                    unsafe { write_sysreg!("elr_el2", read_sysreg!("elr_el2").wrapping_sub(4)) };
                }
                inject::undefined();
            }
        }
        class if ec::AARCH32.contains(&class) && !aarch32::condition_holds(esr, read_sysreg!("spsr_el2")) => {
            skip_instruction(esr);
        }
        ec::INSTRUCTION_ABORT => mmio::instruction_abort(loaded, esr),
        // Everything else (AArch32 traps, SVE, SME, pointer authentication, …) is a feature that the ID registers do
        // not offer.
        class => {
            log::debug!(target: crate::console::GUEST, "{} v{}: trap of class {class:#04x} at {:#x}",
                loaded.domain.id, loaded.vcpu.id.get(), read_sysreg!("elr_el2"));
            inject::undefined();
        }
    }
    finish(loaded)
}
