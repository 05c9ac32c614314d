//! The console's UART, a PL011 or a Raspberry Pi's mini-UART: polled output, interrupt-driven input.
//!
//! One instance, set once at boot. Until then, output goes nowhere (the ring still records it).

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use arm_pl011_uart::{
    DataBits, Interrupts, LineConfig, PL011Registers, Parity, StopBits, Uart as Pl011, UniqueMmioPointer,
};
use spin::Once;

use crate::discovery::{Uart, UartKind};
use crate::sync::TicketMutex;
use stage2::Pa;

use super::panic;

static UART: Once<TicketMutex<Device>> = Once::new();
/// Where it is, for a panic.
static CONSOLE: Once<Uart> = Once::new();

/// How often a full FIFO is looked at before its byte is given up: far longer than a byte takes at 9600 baud. A UART whose
/// clock stands still costs its messages and this time, once.
const PATIENCE: usize = 100_000;
static STANDS_STILL: AtomicBool = AtomicBool::new(false);

enum Device {
    Pl011(Pl011<'static>),
    Mini(MiniUart),
}

/// The mini-UART (Broadcom, "BCM2711 ARM Peripherals", 2.2), at the address of its first register.
struct MiniUart(u64);

impl MiniUart {
    const DATA: u64 = 0x00;
    /// Bit 0 lets received bytes interrupt. Bits 2 and 3 are "don't care" in the document, but are needed (its errata; Linux
    /// sets bit 2).
    const INTERRUPTS: u64 = 0x04;
    /// Bit 0: a byte was received; bit 5: there is room for one.
    const STATUS: u64 = 0x14;

    fn read(&self, offset: u64) -> u32 {
        // SAFETY: a register of the device that `Device::at` was promised.
        unsafe { ((self.0 + offset) as *const u32).read_volatile() }
    }

    fn write(&self, offset: u64, value: u32) {
        // SAFETY: as above.
        unsafe { ((self.0 + offset) as *mut u32).write_volatile(value) };
    }
}

impl Device {
    /// # Safety
    /// The registers of a UART of that kind are at that address, mapped as device memory (or the MMU is off), and nobody else
    /// uses them.
    unsafe fn at(kind: UartKind, registers: Pa) -> Option<Self> {
        match kind {
            UartKind::Mini => Some(Self::Mini(MiniUart(registers.raw()))),
            UartKind::Pl011 => {
                let pointer = NonNull::new(registers.raw() as *mut PL011Registers)?;
                // SAFETY: by the contract these are a PL011's registers, and only this driver uses them.
                Some(Self::Pl011(Pl011::new(unsafe { UniqueMmioPointer::new(pointer) })))
            }
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Self::Pl011(uart) => uart.is_tx_fifo_full(),
            Self::Mini(uart) => uart.read(MiniUart::STATUS) & 1 << 5 == 0,
        }
    }

    fn put_one(&mut self, byte: u8) {
        let patience = if STANDS_STILL.load(Ordering::Relaxed) { 1 } else { PATIENCE };
        let waits = || {
            core::hint::spin_loop();
            self.is_full()
        };
        STANDS_STILL.store(core::iter::repeat_with(waits).take(patience).all(|full| full), Ordering::Relaxed);
        match self {
            Self::Pl011(uart) => uart.write_word(byte),
            Self::Mini(uart) => uart.write(MiniUart::DATA, byte.into()),
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.put_one(b'\r');
            }
            self.put_one(byte);
        }
    }

    /// The next received byte, `Err` for one that arrived damaged.
    fn get(&mut self) -> Result<Option<u8>, ()> {
        match self {
            Self::Pl011(uart) => {
                let word = uart.read_word().map_err(drop)?;
                if word.is_none() {
                    uart.clear_interrupts(Interrupts::RXI | Interrupts::RTI);
                }
                Ok(word)
            }
            Self::Mini(uart) => {
                Ok((uart.read(MiniUart::STATUS) & 1 != 0).then(|| uart.read(MiniUart::DATA) as u8))
            }
        }
    }
}

/// Makes that UART the console. Its line parameters are the firmware's, on QEMU it needs none; only a PL011 of a Raspberry
/// Pi, whose pins are at `gpio`, may never have been set up.
///
/// # Safety
/// As for [`Device::at`]; the same for the pins.
pub unsafe fn init(console: &Uart, gpio: Option<Pa>) {
    if let (UartKind::Pl011, Some(gpio)) = (console.kind, gpio) {
        // SAFETY: the caller's promise, passed on.
        unsafe { set_up_on_pins(console.registers.start, gpio) };
    }
    // SAFETY: the caller's promise, passed on.
    if let Some(uart) = unsafe { Device::at(console.kind, console.registers.start) } {
        CONSOLE.call_once(|| *console);
        UART.call_once(|| TicketMutex::new(uart));
    }
}

/// Puts a Raspberry Pi's PL011 on pins 8 and 10 of its header, at 115200 baud. The firmware leaves it to Bluetooth, and the
/// pins to the mini-UART (`enable_uart=1`) or unused.
///
/// # Safety
/// As for [`init`].
unsafe fn set_up_on_pins(registers: Pa, gpio: Pa) {
    /// GPFSEL1: 14 and 15 to function ALT0 (TXD0, RXD0), 0b100 each in bits 17 to 12.
    const SELECT: (u64, u32, u32) = (0x04, 0o77 << 12, 0o44 << 12);
    /// GPFSEL3: 32 and 33, where Bluetooth is (ALT3 of the same UART), to input, 0 each in bits 11 to 6: a UART that comes
    /// out twice would listen to the wrong pin.
    const NO_BLUETOOTH: (u64, u32, u32) = (0x0c, 0o77 << 6, 0);
    /// GPIO_PUP_PDN_CNTRL_REG0: no pull on 14, up on 15, so that an open line is idle.
    const PULL: (u64, u32, u32) = (0xe4, 0xf << 28, 1 << 30);
    /// `init_uart_clock` of the firmware, unless its config.txt says otherwise.
    const CLOCK: u32 = 48_000_000;
    const BAUD: u32 = 115_200;
    // SAFETY: the caller's promise, passed on.
    let Some(Device::Pl011(mut uart)) = (unsafe { Device::at(UartKind::Pl011, registers) }) else { return };
    let line = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
    // The divisor of these two numbers exists.
    let _ = uart.enable(line, BAUD, CLOCK);
    for (offset, mask, bits) in [NO_BLUETOOTH, PULL, SELECT] {
        let register = (gpio.raw() + offset) as *mut u32;
        // SAFETY: registers of the pins by the caller's promise; only the four pins named above change.
        unsafe { register.write_volatile(register.read_volatile() & !mask | bits) };
    }
}

/// Writes bytes, with a carriage return before each line feed.
pub fn write(bytes: &[u8]) {
    let Some(uart) = UART.get() else { return };
    if panic::is_panicking() {
        return write_emergency(uart, bytes);
    }
    uart.lock().put(bytes);
}

/// Writes even if the lock is held by code that will never give it back: this CPU's own, which panicked there.
#[cold]
fn write_emergency(uart: &TicketMutex<Device>, bytes: &[u8]) {
    /// Long enough for another CPU to finish its line.
    const PATIENCE: u32 = 1_000_000;
    for _ in 0..PATIENCE {
        if let Some(mut uart) = uart.try_lock() {
            return uart.put(bytes);
        }
        core::hint::spin_loop();
    }
    let Some(console) = CONSOLE.get() else { return };
    // SAFETY: what `init` was promised. Whoever holds the lock is stopped, or at worst mixes its bytes in.
    if let Some(mut uart) = unsafe { Device::at(console.kind, console.registers.start) } {
        uart.put(bytes);
    }
}

/// Writes with no lock and no state, for code that runs with the MMU off.
///
/// # Safety
/// As for [`init`]; this CPU is the only one that runs.
pub unsafe fn early(console: &Uart, text: &str) {
    // SAFETY: the caller's promise, passed on.
    if let Some(mut uart) = unsafe { Device::at(console.kind, console.registers.start) } {
        uart.put(text.as_bytes());
    }
}

/// Lets received bytes interrupt.
pub fn enable_receive_interrupt() {
    let Some(uart) = UART.get() else { return };
    match &mut *uart.lock() {
        Device::Pl011(uart) => uart.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI),
        Device::Mini(uart) => uart.write(MiniUart::INTERRUPTS, 1 | 1 << 2),
    }
}

/// The next received byte. Bytes that arrived damaged are skipped.
pub fn read() -> Option<u8> {
    let mut uart = UART.get()?.lock();
    loop {
        if let Ok(byte) = uart.get() {
            return byte;
        }
    }
}

/// Writes to a PL011 without waiting for room, where it is not known that one is there: slowly, so that one keeps up. With
/// `gpio`, as on a Raspberry Pi, it is set up first.
///
/// # Safety
/// Nothing that matters is at these addresses but a PL011 and the pins; nothing runs afterwards.
pub unsafe fn last_resort(registers: Pa, gpio: Option<Pa>, text: &str) {
    if let Some(gpio) = gpio {
        // SAFETY: the caller's promise, passed on.
        unsafe { set_up_on_pins(registers, gpio) };
    }
    for byte in text.bytes().flat_map(|b| if b == b'\n' { [Some(b'\r'), Some(b)] } else { [Some(b), None] }) {
        let Some(byte) = byte else { continue };
        // SAFETY: UARTDR is the first register; by the contract a write does no harm otherwise.
        unsafe { (registers.raw() as *mut u32).write_volatile(u32::from(byte)) };
        for _ in 0..100_000 {
            core::hint::spin_loop();
        }
    }
}
