//! AArch32 code at EL0: which of its instructions count, and how it moves past one.
//!
//! EL1 is AArch64 always (HCR_EL2.RW), so AArch32 is seen only when a process of a guest traps.

/// SPSR_EL2.M[4]: the exception came from AArch32.
pub const AARCH32: u64 = 1 << 4;

/// IT[7:0] of an AArch32 SPSR: bits 15:10 hold IT[7:2], 26:25 IT[1:0] (DDI 0487 C5.2.19).
const fn it_state(spsr: u64) -> u64 {
    (spsr >> 10 & 0x3f) << 2 | spsr >> 25 & 3
}

/// The SPSR for the instruction after this one, within an IT block or not (DDI 0487 F1.2.1).
pub const fn advance_it(spsr: u64) -> u64 {
    let it = it_state(spsr);
    let next = if it & 7 == 0 { 0 } else { it & 0xe0 | it << 1 & 0x1f };
    spsr & !(0x3f << 10 | 3 << 25) | (next >> 2) << 10 | (next & 3) << 25
}

/// Whether a trapped A32 or T32 instruction would have been executed: some CPUs trap those too whose condition fails
/// (DDI 0487 G1.20). ESR_EL2.CV tells whether ESR_EL2.COND is valid; if not, IT has the condition.
pub const fn condition_holds(esr: u64, spsr: u64) -> bool {
    let condition = if esr & 1 << 24 != 0 {
        esr >> 20 & 0xf
    } else {
        let it = it_state(spsr);
        if it == 0 { 0xe } else { it >> 4 }
    };
    let (n, z, c, v) = (spsr >> 31 & 1 != 0, spsr >> 30 & 1 != 0, spsr >> 29 & 1 != 0, spsr >> 28 & 1 != 0);
    let holds = match condition >> 1 {
        0 => z,
        1 => c,
        2 => n,
        3 => v,
        4 => c && !z,
        5 => n == v,
        6 => n == v && !z,
        _ => return true,
    };
    holds != (condition & 1 != 0)
}
