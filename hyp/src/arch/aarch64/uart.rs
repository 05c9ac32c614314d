//! The console's UART, a PL011: polled output, interrupt-driven input.
//!
//! One instance, set once at boot. Until then, output goes nowhere (the ring still records it).

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use arm_pl011_uart::{Interrupts, PL011Registers, Uart, UniqueMmioPointer};
use spin::Once;

use crate::sync::TicketMutex;
use stage2::Pa;

use super::panic;

static UART: Once<TicketMutex<Uart<'static>>> = Once::new();
/// Where it is, for a panic.
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// Makes the PL011 at `registers` the console. The firmware has set its line parameters; on QEMU it needs none.
///
/// # Safety
/// A PL011's registers are at that address, mapped as device memory (or the MMU is off), and nobody else uses them.
pub unsafe fn init(registers: Pa) {
    // SAFETY: the caller's promise, passed on.
    if let Some(uart) = unsafe { at(registers) } {
        REGISTERS.store(registers.raw(), Ordering::Relaxed);
        UART.call_once(|| TicketMutex::new(uart));
    }
}

/// # Safety
/// As for [`init`].
unsafe fn at(registers: Pa) -> Option<Uart<'static>> {
    let pointer = NonNull::new(registers.raw() as *mut PL011Registers)?;
    // SAFETY: by the contract these are a PL011's registers, and only this driver uses them.
    Some(Uart::new(unsafe { UniqueMmioPointer::new(pointer) }))
}

fn put(uart: &mut Uart<'_>, bytes: &[u8]) {
    for &byte in bytes {
        if byte == b'\n' {
            put_one(uart, b'\r');
        }
        put_one(uart, byte);
    }
}

fn put_one(uart: &mut Uart<'_>, byte: u8) {
    while uart.is_tx_fifo_full() {
        core::hint::spin_loop();
    }
    uart.write_word(byte);
}

/// Writes bytes, with a carriage return before each line feed.
pub fn write(bytes: &[u8]) {
    let Some(uart) = UART.get() else { return };
    if panic::is_panicking() {
        return write_emergency(uart, bytes);
    }
    put(&mut uart.lock(), bytes);
}

/// Writes even if the lock is held by code that will never give it back: this CPU's own, which panicked there.
#[cold]
fn write_emergency(uart: &TicketMutex<Uart<'static>>, bytes: &[u8]) {
    /// Long enough for another CPU to finish its line.
    const PATIENCE: u32 = 1_000_000;
    for _ in 0..PATIENCE {
        if let Some(mut uart) = uart.try_lock() {
            return put(&mut uart, bytes);
        }
        core::hint::spin_loop();
    }
    let registers = Pa::new(REGISTERS.load(Ordering::Relaxed));
    // SAFETY: the registers that `init` was promised. Whoever holds the lock is stopped, or at worst mixes its bytes in.
    if let Some(mut uart) = unsafe { at(registers) } {
        put(&mut uart, bytes);
    }
}

/// Writes with no lock and no state, for code that runs with the MMU off.
///
/// # Safety
/// As for [`init`]; this CPU is the only one that runs.
pub unsafe fn early(registers: Pa, text: &str) {
    // SAFETY: the caller's promise, passed on.
    if let Some(mut uart) = unsafe { at(registers) } {
        put(&mut uart, text.as_bytes());
    }
}

/// Lets received bytes interrupt.
pub fn enable_receive_interrupt() {
    if let Some(uart) = UART.get() {
        uart.lock().set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
    }
}

/// The next received byte. Bytes that arrived damaged are skipped.
pub fn read() -> Option<u8> {
    let mut uart = UART.get()?.lock();
    loop {
        match uart.read_word() {
            Ok(byte) => {
                if byte.is_none() {
                    uart.clear_interrupts(Interrupts::RXI | Interrupts::RTI);
                }
                return byte;
            }
            Err(_) => continue,
        }
    }
}

/// Writes without waiting for room, where it is not known that a PL011 is there. Slowly, so that one keeps up.
///
/// # Safety
/// Nothing that matters is at that address but a PL011; nothing runs afterwards.
pub unsafe fn last_resort(registers: Pa, text: &str) {
    for byte in text.bytes().flat_map(|b| if b == b'\n' { [Some(b'\r'), Some(b)] } else { [Some(b), None] }) {
        let Some(byte) = byte else { continue };
        // SAFETY: UARTDR is the first register; by the contract a write does no harm otherwise.
        unsafe { (registers.raw() as *mut u32).write_volatile(u32::from(byte)) };
        for _ in 0..100_000 {
            core::hint::spin_loop();
        }
    }
}
