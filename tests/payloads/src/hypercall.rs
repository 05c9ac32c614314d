//! Hypercalls: `hvc #0xEA1`, number in x16, arguments in x0 to x4, result in x0 (Xen's public `arch-arm.h`).

use core::arch::asm;

/// Makes a hypercall. Argument registers and x16 come back with anything in them.
///
/// # Safety
/// The call must not make the hypervisor write or take away memory that Rust uses, other than what the arguments
/// point to exclusively.
pub unsafe fn hypercall(number: u64, arguments: [u64; 5]) -> i64 {
    let [a0, a1, a2, a3, a4] = arguments;
    let result: i64;
    // SAFETY: the caller answers for what the hypervisor does to memory; every other register is preserved.
    unsafe {
        asm!(
            "hvc #0xea1",
            inlateout("x16") number => _,
            inlateout("x0") a0 => result,
            inlateout("x1") a1 => _,
            inlateout("x2") a2 => _,
            inlateout("x3") a3 => _,
            inlateout("x4") a4 => _,
            options(nostack),
        );
    }
    result
}

/// A hypercall whose second argument is a structure that the hypervisor reads and may update.
///
/// # Safety
/// As for [`hypercall`]: addresses inside the structure must not lead to memory that Rust uses.
pub unsafe fn with_struct<T>(number: u64, command: u64, argument: &mut T) -> i64 {
    // SAFETY: the structure is borrowed exclusively; the caller answers for what it refers to.
    unsafe { hypercall(number, [command, &raw mut *argument as u64, 0, 0, 0]) }
}

/// A hypercall that reads or writes no memory at all, whatever its scalar arguments are.
///
/// Only for sub-operations that take no pointer: `xen_version(version)`, `sched_op(yield)`, `evtchn send` excluded.
pub fn scalar(number: u64, a0: u64, a1: u64) -> i64 {
    // SAFETY: the sub-operations this is used with take no pointer.
    unsafe { hypercall(number, [a0, a1, 0, 0, 0]) }
}
