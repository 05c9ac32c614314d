//! Device registers and the few system registers payloads need, one instruction per access.
//!
//! Loads and stores are single instructions without write-back, so that a hypervisor finds a valid syndrome
//! (ESR_EL2.ISV, Arm ARM DDI 0487, D24.2.40) and can emulate them.

use core::arch::asm;

/// Reads a system register by name.
#[macro_export]
macro_rules! read_sysreg {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading this register changes no memory that Rust knows of; the caller names a readable one.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack)) };
        value
    }};
}

/// Writes a system register by name, then synchronizes the context (`isb`).
#[macro_export]
macro_rules! write_sysreg {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: payloads write only timer and interrupt registers through this macro, which alter no memory.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) value, options(nostack)) };
    }};
}

/// Reads a 32-bit device register.
pub fn read32(address: u64) -> u32 {
    let value: u32;
    // SAFETY: the address is a device register's (the device tree's), which holds nothing that Rust owns.
    unsafe { asm!("ldr {:w}, [{}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a 32-bit device register.
pub fn write32(address: u64, value: u32) {
    // SAFETY: the address is a device register's (the device tree's), which holds nothing that Rust owns.
    unsafe { asm!("str {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Reads a 64-bit device register.
pub fn read64(address: u64) -> u64 {
    let value: u64;
    // SAFETY: the address is a device register's (the device tree's), which holds nothing that Rust owns.
    unsafe { asm!("ldr {}, [{}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes one byte of a device register.
pub fn write8(address: u64, value: u8) {
    // SAFETY: the address is a device register's (the device tree's), which holds nothing that Rust owns.
    unsafe { asm!("strb {:w}, [{}]", in(reg) u32::from(value), in(reg) address, options(nostack)) };
}

/// Lets interrupts in (DAIF.I clear).
pub fn interrupts_on() {
    // SAFETY: handlers are installed before anything enables an interrupt; they touch only atomics.
    unsafe { asm!("msr daifclr, #2", "isb", options(nostack)) };
}

/// Keeps interrupts out (DAIF.I set).
pub fn interrupts_off() {
    // SAFETY: masking interrupts takes nothing away from running code.
    unsafe { asm!("msr daifset, #2", "isb", options(nostack)) };
}

/// Says that this processor only waits for another: QEMU, where one thread runs all processors, lets the next one run.
pub fn pause() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack)) };
}

/// Waits for an interrupt; returns at once if one is pending, masked or not.
pub fn wait_for_interrupt() {
    // SAFETY: the instruction only waits.
    unsafe { asm!("dsb sy", "wfi", options(nostack)) };
}
