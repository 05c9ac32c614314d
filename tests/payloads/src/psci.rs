//! PSCI by `hvc` (Arm DEN 0022): power of processors and of the machine.

use core::arch::asm;
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::boot;

/// Function identifiers, SMC64 where there is one.
pub mod function {
    #![allow(missing_docs)]
    pub const VERSION: u64 = 0x8400_0000;
    pub const CPU_OFF: u64 = 0x8400_0002;
    pub const CPU_ON: u64 = 0xc400_0003;
    pub const AFFINITY_INFO: u64 = 0xc400_0004;
    pub const MIGRATE_INFO_TYPE: u64 = 0x8400_0006;
    pub const SYSTEM_OFF: u64 = 0x8400_0008;
    pub const FEATURES: u64 = 0x8400_000a;
    pub const SMCCC_VERSION: u64 = 0x8000_0000;
}

/// What a started processor runs; it must not return.
pub type SecondaryMain = fn(index: usize) -> !;

static SECONDARY_MAIN: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Makes a call of the SMC Calling Convention by `hvc`.
///
/// # Safety
/// The call must not start code or take memory in a way that breaks Rust's assumptions.
pub unsafe fn call(function: u64, a1: u64, a2: u64, a3: u64) -> i64 {
    let result: i64;
    // SAFETY: SMCCC preserves x18 and up, and what is listed here covers version 1.0's x4 to x17.
    unsafe {
        asm!(
            "hvc #0",
            inlateout("x0") function => result,
            inlateout("x1") a1 => _, inlateout("x2") a2 => _, inlateout("x3") a3 => _,
            lateout("x4") _, lateout("x5") _, lateout("x6") _, lateout("x7") _, lateout("x8") _, lateout("x9") _,
            lateout("x10") _, lateout("x11") _, lateout("x12") _, lateout("x13") _, lateout("x14") _,
            lateout("x15") _, lateout("x16") _, lateout("x17") _,
            options(nostack),
        );
    }
    result
}

/// Starts the processor with affinity `mpidr` as number `index`, on its own stack, in `main`.
///
/// Returns PSCI's answer: 0 for success.
pub fn start_cpu(mpidr: u64, index: usize, main: SecondaryMain) -> i64 {
    if index == 0 || index >= boot::MAX_CPUS {
        return -2;
    }
    SECONDARY_MAIN.store(main as *mut (), Ordering::Release);
    // SAFETY: the entry point sets up the stack of `index`, which no other processor has, and runs `main`.
    unsafe { call(function::CPU_ON, mpidr, boot::secondary_entry_address(), index as u64) }
}

/// Turns the machine off; returns only if that is refused.
pub fn system_off() {
    // SAFETY: nothing runs after it.
    unsafe { call(function::SYSTEM_OFF, 0, 0, 0) };
}

/// Turns this processor off; returns only if that is refused.
pub fn cpu_off() {
    // SAFETY: this processor's stack is not used by anyone else.
    unsafe { call(function::CPU_OFF, 0, 0, 0) };
}

/// Where started processors arrive from the entry code.
pub(crate) fn run_secondary(index: u64) -> ! {
    let main = SECONDARY_MAIN.load(Ordering::Acquire);
    assert!(!main.is_null(), "a processor started by itself");
    // SAFETY: only `start_cpu` stores here, and only functions of this type.
    let main = unsafe { mem::transmute::<*mut (), SecondaryMain>(main) };
    main(index as usize)
}
