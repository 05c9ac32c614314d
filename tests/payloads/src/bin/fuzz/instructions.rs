//! Random system instructions, written to memory and run: registers of every encoding, firmware calls, hypervisor calls.
//!
//! Left out are those with which the program would stop or break itself without any help from the hypervisor: writes to
//! its translation, vectors and exception state, and PSCI functions that switch off or suspend.

use core::arch::asm;

use payloads::exceptions::try_run;
use payloads::println;
use payloads::psci;

use super::values::Values;

const RET: u32 = 0xd65f_03c0;
const MRS: u32 = 0xd530_0000;
const MSR: u32 = 0xd510_0000;
const SYS: u32 = 0xd508_0000;
const HVC: u32 = 0xd400_0002;
const SMC: u32 = 0xd400_0003;
const WFE: u32 = 0xd503_205f;

/// Counts of what ran, and where the instruction to run is written.
pub struct Instructions {
    code: u64,
    done: u64,
    undefined: u64,
}

impl Instructions {
    pub fn new(values: &Values) -> Self {
        Self { code: values.scratch().end - 4096, done: 0, undefined: 0 }
    }

    /// Runs one instruction.
    pub fn one(&mut self, values: &mut Values) {
        if values.random().one_in(8) {
            self.firmware_call(values);
            return;
        }
        let random = values.random().next_u64() as u32;
        let instruction = match values.random().below(16) {
            0..8 => MRS | random & 0x1f_ffe0,
            8..12 => match MSR | random & 0x0f_ffe0 | 1 << 20 {
                word if is_writable(word) => word,
                word => word | 1 << 21,
            },
            12..14 => SYS | random & 0x7_ffe0,
            14 => match random & 0xffff {
                0 | 0xea1 => HVC | 0x1234 << 5,
                immediate => HVC | immediate << 5,
            },
            _ => WFE,
        };
        let operand = if values.random().one_in(2) { values.pointer() & !63 } else { values.bad_pointer() };
        self.run(instruction, operand);
    }

    /// Writes the instruction, makes it visible to instruction fetch (Arm ARM DDI 0487, B2.7.4.2), and calls it.
    fn run(&mut self, instruction: u32, operand: u64) {
        let word = u64::from(RET) << 32 | u64::from(instruction);
        // A refused hypervisor call may be reported at itself or after itself: there are two ways to return.
        let returns = u64::from(RET) << 32 | u64::from(RET);
        // SAFETY: the last page of scratch memory is executable and only this module's; x0 and x16 are the only
        // registers a lone system instruction or call may change, and hypervisor calls may change x0 to x17.
        let outcome = try_run(|| unsafe {
            asm!(
                "stp {word}, {returns}, [{code}]",
                "dc cvau, {code}",
                "dsb ish",
                "ic ivau, {code}",
                "dsb ish",
                "isb",
                "blr {code}",
                word = in(reg) word,
                returns = in(reg) returns,
                code = in(reg) self.code,
                inout("x0") operand => _,
                clobber_abi("C"),
            )
        });
        match outcome {
            Ok(()) => self.done += 1,
            Err(_) => self.undefined += 1,
        }
    }

    /// A call by `hvc #0` or `smc #0` with a random function of the standard, hypervisor or another service.
    fn firmware_call(&mut self, values: &mut Values) {
        let service =
            values.random().pick(&[0x8400_0000, 0xc400_0000, 0x8000_0000, 0x8600_0000, 0x9000_0000_u64]);
        let function = service + values.random().below(64);
        // CPU_SUSPEND, CPU_OFF, SYSTEM_OFF, SYSTEM_RESET, CPU_FREEZE to SYSTEM_SUSPEND, SYSTEM_RESET2.
        let ends = matches!(function & 0x3f, 1 | 2 | 8 | 9 | 0xb..=0xe | 0x12)
            && service & 0x3f00_0000 == 0x0400_0000;
        let function = if ends { psci::function::VERSION } else { function };
        // No processor that exists, so that CPU_ON starts none.
        let target = values.any() | 1 << 40;
        if values.random().one_in(4) {
            self.run_smc(function, target);
        } else {
            // SAFETY: no function that starts or stops a processor or the machine remains.
            unsafe { psci::call(function, target, 0, 0) };
            self.done += 1;
        }
    }

    fn run_smc(&mut self, function: u64, target: u64) {
        let outcome = try_run(|| {
            // SAFETY: as for the call by `hvc`; where SMC is undefined, the exception is caught.
            unsafe {
                asm!(".inst {smc}", smc = const SMC, inout("x0") function => _, inout("x1") target => _,
                    clobber_abi("C"), options(nostack))
            }
        });
        match outcome {
            Ok(()) => self.done += 1,
            Err(_) => self.undefined += 1,
        }
    }

    /// Prints the counts.
    pub fn report(&self) {
        println!("fuzz: {} instructions ran, {} were undefined", self.done, self.undefined);
    }
}

/// Whether writing the register leaves this program alone: performance monitors, interrupt controller, timers, implementation
/// defined, debug registers but MDSCR_EL1 and those that lock or arm debugging, and identification.
fn is_writable(word: u32) -> bool {
    let (op0, crn, crm) = (word >> 19 & 3, word >> 12 & 15, word >> 8 & 15);
    match (op0, crn) {
        (2, 0) => crm > 2,
        (2, _) => false,
        (_, 12) => crm >= 8,
        (_, 0 | 9 | 11 | 14 | 15) => true,
        (_, _) => false,
    }
}
