//! Exceptions that Nacelle raises in a guest: undefined instruction, external abort.
//!
//! As hardware would at EL1 (DDI 0487 D1.3): state to ELR_EL1, SPSR_EL1, ESR_EL1, FAR_EL1; then the vector, with the PSTATE
//! that an exception starts with.

use super::sysreg::{read_sysreg, write_sysreg};

/// D, A, I, F set; EL1 with its own stack pointer.
const PSTATE_EL1H_MASKED: u64 = 0x3c5;
const IL: u64 = 1 << 25;

/// PSTATE after an exception to EL1 from a state with `spsr` (DDI 0487 D1.3.1): condition flags and DIT stay; UAO, BTYPE, SS,
/// IL are 0; PAN is set, or stays where SCTLR_EL1.SPAN says so; SSBS is SCTLR_EL1.DSSBS.
fn pstate_at_entry(spsr: u64, sctlr: u64) -> u64 {
    const FLAGS: u64 = 0xf << 28;
    const DIT: u64 = 1 << 24;
    const AARCH32: u64 = 1 << 4;
    const AARCH32_DIT: u64 = 1 << 21;
    const PAN: u64 = 1 << 22;
    const SSBS: u64 = 1 << 12;
    const SPAN: u64 = 1 << 23;
    const DSSBS: u64 = 1 << 44;
    let mut pstate = PSTATE_EL1H_MASKED | spsr & (FLAGS | PAN);
    let dit = if spsr & AARCH32 != 0 { AARCH32_DIT } else { DIT };
    if spsr & dit != 0 {
        pstate |= DIT;
    }
    // FEAT_PAN: ID_AA64MMFR1_EL1 23:20. Without it SPAN is RES1, but a guest may have written 0.
    if sctlr & SPAN == 0 && read_sysreg!("id_aa64mmfr1_el1") >> 20 & 0xf != 0 {
        pstate |= PAN;
    }
    if sctlr & DSSBS != 0 {
        pstate |= SSBS;
    }
    pstate
}

fn enter_el1(syndrome: u64) {
    let spsr = read_sysreg!("spsr_el2");
    let vector = match spsr & 0x1f {
        // From EL1 with SP_EL1, from EL1 with SP_EL0, from EL0 in AArch64, from EL0 in AArch32 (M[4]).
        0b00101 => 0x200,
        0b00100 => 0x000,
        0b00000 => 0x400,
        _ => 0x600,
    };
    // SAFETY: EL1 state of the loaded guest, and where it continues.
    unsafe {
        write_sysreg!("elr_el1", read_sysreg!("elr_el2"));
        write_sysreg!("spsr_el1", spsr);
        write_sysreg!("esr_el1", syndrome);
        write_sysreg!("elr_el2", read_sysreg!("vbar_el1").wrapping_add(vector));
        write_sysreg!("spsr_el2", pstate_at_entry(spsr, read_sysreg!("sctlr_el1")));
    }
}

fn is_from_el0() -> bool {
    matches!(read_sysreg!("spsr_el2") & 0x1f, 0b00000 | 0b10000..)
}

/// Undefined instruction (EC 0): the one at ELR_EL2 does not exist for the guest. ESR_EL1.IL is 1 with that class, whatever
/// the instruction's length (DDI 0487 D19.2.37).
pub fn undefined() {
    enter_el1(IL);
}

/// Synchronous external abort at `far`: nothing is there. `data` tells a data access from an instruction fetch.
pub fn external_abort(far: u64, data: bool, is_write: bool) {
    const SYNCHRONOUS_EXTERNAL: u64 = 0x10;
    // EC 0x20/0x21 instruction, 0x24/0x25 data; the odd ones are without a change of exception level.
    let class = 0x20 + if data { 4 } else { 0 } + u64::from(!is_from_el0());
    let wnr = if data && is_write { 1 << 6 } else { 0 };
    // SAFETY: EL1 state of the loaded guest.
    unsafe { write_sysreg!("far_el1", far) };
    enter_el1(class << 26 | IL | wnr | SYNCHRONOUS_EXTERNAL);
}

/// A virtual SError for the loaded guest, which takes it when it has them unmasked (DDI 0487 D1.3.6).
pub fn serror() {
    use super::sysreg::hcr;
    // SAFETY: HCR_EL2.VSE acts on the guest only; hardware clears it when the guest takes it.
    unsafe { write_sysreg!("hcr_el2", read_sysreg!("hcr_el2") | hcr::VSE) };
}
