//! Trapped system registers: SGIs of GICv3, the physical timer, identification, debug and what does not exist.

use gic::SgiRegister;

use super::percpu::Loaded;
use super::sysreg::read_sysreg;
use super::vectors::Context;
use super::{id_registers, inject, irq, timer, trap};

/// A system register's name in an instruction: op0, op1, CRn, CRm, op2.
const fn name(op0: u64, op1: u64, crn: u64, crm: u64, op2: u64) -> u64 {
    op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1
}

/// The name bits of ESR_EL2.ISS for EC 0x18 (DDI 0487 D19.2.37).
const NAME: u64 = 0x3f_fc1e;

const ICC_SGI1R_EL1: u64 = name(3, 0, 12, 11, 5);
const ICC_ASGI1R_EL1: u64 = name(3, 0, 12, 11, 6);
const ICC_SGI0R_EL1: u64 = name(3, 0, 12, 11, 7);
const CNTP_TVAL_EL0: u64 = name(3, 3, 14, 2, 0);
const CNTP_CTL_EL0: u64 = name(3, 3, 14, 2, 1);
const CNTP_CVAL_EL0: u64 = name(3, 3, 14, 2, 2);
const ACTLR_EL1: u64 = name(3, 0, 1, 0, 1);
const OSDTRRX_EL1: u64 = name(2, 0, 0, 0, 2);
const MDCCINT_EL1: u64 = name(2, 0, 0, 2, 0);
const MDSCR_EL1: u64 = name(2, 0, 0, 2, 2);
const OSDTRTX_EL1: u64 = name(2, 0, 0, 3, 2);
const OSECCR_EL1: u64 = name(2, 0, 0, 6, 2);
const MDRAR_EL1: u64 = name(2, 0, 1, 0, 0);
const OSLAR_EL1: u64 = name(2, 0, 1, 0, 4);
const OSLSR_EL1: u64 = name(2, 0, 1, 1, 4);
const OSDLR_EL1: u64 = name(2, 0, 1, 3, 4);
const DBGPRCR_EL1: u64 = name(2, 0, 1, 4, 4);
const DBGCLAIMSET_EL1: u64 = name(2, 0, 7, 8, 6);
const DBGCLAIMCLR_EL1: u64 = name(2, 0, 7, 9, 6);
const DBGAUTHSTATUS_EL1: u64 = name(2, 0, 7, 14, 6);
const MDCCSR_EL0: u64 = name(2, 3, 0, 1, 0);
const DBGDTR_EL0: u64 = name(2, 3, 0, 4, 0);
const DBGDTRRX_EL0: u64 = name(2, 3, 0, 5, 0);

/// What an access amounts to.
enum Access {
    /// A read gives this; a write is ignored.
    Value(u64),
    /// Done; for a read, zero.
    Done,
    /// The register does not exist.
    Undefined,
}

/// Breakpoint and watchpoint registers: op0 2, op1 0, CRn 0, any CRm, op2 4 to 7.
fn is_debug_pair(register: u64) -> bool {
    let mask = name(3, 7, 15, 0, 0);
    register & mask == name(2, 0, 0, 0, 0) && register >> 17 & 7 >= 4
}

/// Handles one trapped MRS, MSR or cache maintenance instruction.
pub fn trap(loaded: &Loaded, ctx: &mut Context, esr: u64) {
    let register = esr & NAME;
    let rt = (esr >> 5 & 0x1f) as usize;
    let is_read = esr & 1 != 0;
    let value = if rt == 31 { 0 } else { ctx.x[rt] };
    let access = match register {
        ICC_SGI1R_EL1 if !is_read => {
            irq::send_sgi(loaded, SgiRegister::Sgi1r, value);
            Access::Done
        }
        ICC_SGI0R_EL1 if !is_read => {
            irq::send_sgi(loaded, SgiRegister::Sgi0r, value);
            Access::Done
        }
        ICC_ASGI1R_EL1 if !is_read => {
            irq::send_sgi(loaded, SgiRegister::Asgi1r, value);
            Access::Done
        }
        CNTP_TVAL_EL0 | CNTP_CTL_EL0 | CNTP_CVAL_EL0 => {
            let which = match register {
                CNTP_TVAL_EL0 => timer::Register::Tval,
                CNTP_CTL_EL0 => timer::Register::Ctl,
                _ => timer::Register::Cval,
            };
            if is_read {
                Access::Value(timer::read_physical(loaded, which))
            } else {
                timer::write_physical(loaded, which, value);
                Access::Done
            }
        }
        // No auxiliary controls are a guest's to change.
        ACTLR_EL1 => Access::Value(read_sysreg!("actlr_el1")),
        // Self-hosted debug is not virtualised: monitors off, OS lock implemented and open, no breakpoints that stop.
        OSLSR_EL1 => Access::Value(1 << 3),
        MDSCR_EL1 | OSLAR_EL1 | OSDLR_EL1 | DBGPRCR_EL1 | MDRAR_EL1 | DBGCLAIMSET_EL1 | DBGCLAIMCLR_EL1
        | DBGAUTHSTATUS_EL1 => Access::Value(0),
        // The debug communications channel: nobody is at the other end.
        MDCCINT_EL1 | MDCCSR_EL0 | DBGDTR_EL0 | DBGDTRRX_EL0 | OSDTRRX_EL1 | OSDTRTX_EL1 | OSECCR_EL1 => {
            Access::Value(0)
        }
        _ if is_debug_pair(register) => Access::Value(0),
        _ => match id_registers::read(register) {
            Some(value) if is_read => Access::Value(value),
            // PMU, RAS records, implementation-defined and whatever else the ID registers deny.
            _ => Access::Undefined,
        },
    };
    match access {
        Access::Undefined => {
            log::debug!(target: crate::console::GUEST, "{} v{}: {} of an absent system register, ISS {:#x} at {:#x}",
                loaded.domain.id, loaded.vcpu.id.get(), if is_read { "read" } else { "write" }, esr & 0x1ff_ffff,
                read_sysreg!("elr_el2"));
            inject::undefined();
        }
        Access::Value(result) if is_read => {
            if rt != 31 {
                ctx.x[rt] = result;
            }
            trap::skip_instruction(esr);
        }
        Access::Value(_) | Access::Done => {
            if is_read && rt != 31 {
                ctx.x[rt] = 0;
            }
            trap::skip_instruction(esr);
        }
    }
}
