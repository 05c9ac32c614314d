//! SErrors that are still pending when EL2 has time for them: whose they are, and taking them.
//!
//! EL2 keeps SErrors masked; one that is pending would be taken on the next entry of a guest, and be that guest's. So when
//! a vCPU leaves the CPU, what is pending is taken here, and is its own.
//!
//! ```text
//!   take() ─▶ dsb sy ─▶ ISR_EL1.A? ─▶ unmask ─▶ vector ─▶ ELR_EL2 within the window: x0 = 1, ERET
//!                            └ no: 0                └ elsewhere: never unmasked, so a defect: `broken`
//! ```

use core::arch::global_asm;

unsafe extern "C" {
    fn take_serror() -> u64;
}

global_asm!(
    r#"
    .section .text.serror, "ax"
    .global take_serror
take_serror:
    mov     x0, #0
    // Accesses made so far have completed, or reported (DDI 0487 B2.6.9); the isb lets ISR_EL1 show it.
    dsb     sy
    isb
    mrs     x1, isr_el1
    tbz     x1, #8, 1f
    msr     daifclr, #4
    .global serror_window
serror_window:
    isb
    msr     daifset, #4
1:  ret

    // From the vector table: an SError from EL2. Scratch is the guest's TPIDR_EL1 and SP_EL0, which were saved.
    .global el2_serror
el2_serror:
    msr     tpidr_el1, x0
    msr     sp_el0, x1
    mrs     x0, elr_el2
    adrp    x1, serror_window
    add     x1, x1, :lo12:serror_window
    sub     x0, x0, x1
    cmp     x0, #4
    b.hi    2f
    mov     x0, #1
    eret
    dsb     nsh
    isb
2:  mrs     x1, sp_el0
    mov     x0, #7
    b       broken
"#
);

/// Takes a pending SError. Returns whether there was one.
///
/// # Safety
/// No vCPU is loaded whose ELR_EL2, SPSR_EL2, TPIDR_EL1 or SP_EL0 is not saved: they are overwritten.
pub unsafe fn take() -> bool {
    // SAFETY: the caller's promise; otherwise it changes what a C function may change.
    unsafe { take_serror() != 0 }
}
