//! The console: what Nacelle and dom0 print, the ring that `xl dmesg` reads, and who gets what is typed.
//!
//! ```text
//!   log macros ── level ──▶ "(XEN) " line ─┬─▶ ring ──▶ XEN_SYSCTL_readconsole; take_news(): VIRQ_CON_RING
//!                                          └─▶ UART
//!   dom0, CONSOLEIO_write ────────────────────▶ UART
//!   UART ──▶ input() ── Ctrl-A ×3 switches ──▶ dom0's receive buffer, or Nacelle's keys
//! ```
//! All state is in one lock, a leaf of the lock order: nothing is called while it is held but the UART's registers.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::sync::TicketMutex;
use log::{Level, LevelFilter, Metadata, Record};

use crate::arch;

/// Bytes of log kept. A power of two.
pub const RING_SIZE: usize = 32 * 1024;
/// Bytes typed for dom0 that it has not read.
const INPUT_SIZE: usize = 256;
/// The key that, three times in a row, moves the input.
const SWITCH_KEY: u8 = 0x01;
/// Lines that guests may cause at once …
const GUEST_BURST: u64 = 20;
/// … and per second in the long run; the rest is counted and dropped. The ring then holds minutes of what matters, and
/// the UART, which is slow and polled, is busy with them for a few milliseconds a second.
const GUEST_LINES_PER_SECOND: u64 = 2;
/// Targets of the interrupt controller's driver crate.
const DRIVER: &str = "arm_gic_driver";

static LEVEL: AtomicU8 = AtomicU8::new(LevelFilter::Info as u8);
static GUEST_LEVEL: AtomicU8 = AtomicU8::new(LevelFilter::Warn as u8);
static LOGGER: Logger = Logger;

arch::machine_static! {
    /// All state of the console.
    console: TicketMutex<Console> = TicketMutex::new(Console::new())
}

arch::machine_static! {
    /// Whether the ring has got a line since that was last asked: what logs may hold any lock, so it raises no event itself.
    news: AtomicBool = AtomicBool::new(false)
}

struct Console {
    ring: [u8; RING_SIZE],
    // Bytes ever written and ever cleared; positions are taken modulo the size.
    produced: u32,
    cleared: u32,
    input: [u8; INPUT_SIZE],
    input_head: usize,
    input_len: usize,
    input_to_nacelle: bool,
    switch_count: u8,
    /// Lines that guests may still cause, since when there are more, and how many were dropped.
    guest_lines: u64,
    guest_refilled: u64,
    guest_dropped: u32,
}

/// What a typed byte led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing to do.
    Consumed,
    /// dom0 has something to read: raise `VIRQ_CONSOLE`.
    ForDom0,
    /// A key for Nacelle.
    Key(u8),
    /// The input now goes to Nacelle (true) or to dom0.
    Switched(bool),
}

impl Console {
    const fn new() -> Self {
        Self {
            ring: [0; RING_SIZE],
            produced: 0,
            cleared: 0,
            input: [0; INPUT_SIZE],
            input_head: 0,
            input_len: 0,
            input_to_nacelle: false,
            switch_count: 0,
            guest_lines: GUEST_BURST,
            guest_refilled: 0,
            guest_dropped: 0,
        }
    }

    fn record(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.ring[self.produced as usize % RING_SIZE] = byte;
            self.produced = self.produced.wrapping_add(1);
        }
        if self.produced.wrapping_sub(self.cleared) as usize > RING_SIZE {
            self.cleared = self.produced.wrapping_sub(RING_SIZE as u32);
        }
    }

    fn read(&self, index: u32, out: &mut [u8]) -> (usize, u32) {
        let held = self.produced.wrapping_sub(self.cleared);
        let wanted = index.wrapping_sub(self.cleared);
        let start = if wanted > held { self.cleared } else { index };
        let count = (self.produced.wrapping_sub(start) as usize).min(out.len());
        for (offset, byte) in out[..count].iter_mut().enumerate() {
            *byte = self.ring[start.wrapping_add(offset as u32) as usize % RING_SIZE];
        }
        (count, start.wrapping_add(count as u32))
    }

    fn clear(&mut self, index: u32) {
        if index.wrapping_sub(self.cleared) <= self.produced.wrapping_sub(self.cleared) {
            self.cleared = index;
        }
    }

    fn type_byte(&mut self, byte: u8) -> Input {
        if byte == SWITCH_KEY {
            self.switch_count += 1;
            if self.switch_count == 3 {
                self.switch_count = 0;
                self.input_to_nacelle = !self.input_to_nacelle;
                return Input::Switched(self.input_to_nacelle);
            }
        } else {
            self.switch_count = 0;
        }
        if self.input_to_nacelle {
            return if byte == SWITCH_KEY { Input::Consumed } else { Input::Key(byte) };
        }
        if self.input_len == INPUT_SIZE {
            return Input::Consumed;
        }
        self.input[(self.input_head + self.input_len) % INPUT_SIZE] = byte;
        self.input_len += 1;
        Input::ForDom0
    }

    fn take_input(&mut self, out: &mut [u8]) -> usize {
        let count = self.input_len.min(out.len());
        for byte in &mut out[..count] {
            *byte = self.input[self.input_head];
            self.input_head = (self.input_head + 1) % INPUT_SIZE;
        }
        self.input_len -= count;
        count
    }

    /// Whether a line caused by a guest may be printed now: how many were dropped before it.
    fn admit_guest_line(&mut self, now: u64, frequency: u64) -> Option<u32> {
        let interval = (frequency / GUEST_LINES_PER_SECOND).max(1);
        let more = now.saturating_sub(self.guest_refilled) / interval;
        self.guest_refilled += more * interval;
        self.guest_lines = self.guest_lines.saturating_add(more).min(GUEST_BURST);
        match self.guest_lines.checked_sub(1) {
            Some(left) => {
                self.guest_lines = left;
                Some(core::mem::take(&mut self.guest_dropped))
            }
            None => {
                self.guest_dropped = self.guest_dropped.saturating_add(1);
                None
            }
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.record(text.as_bytes());
        arch::uart::write(text.as_bytes());
        Ok(())
    }
}

/// Whether Nacelle's own messages of that level are.
fn is_shown(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match metadata.target() {
            GUEST => (metadata.level() as u8) <= GUEST_LEVEL.load(Ordering::Relaxed),
            // What drivers tell of their progress is for `loglvl=debug`.
            target if target.starts_with(DRIVER) && metadata.level() == Level::Info => is_shown(Level::Debug),
            _ => is_shown(metadata.level()),
        }
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut console = console().lock();
        if record.target() == GUEST {
            match console.admit_guest_line(arch::now().get(), arch::counter_frequency()) {
                None => return,
                Some(0) => {}
                Some(dropped) => {
                    // Writing to the console cannot fail.
                    let _ = writeln!(console, "(XEN) {dropped} lines about guests were dropped");
                }
            }
        }
        let mark = match record.level() {
            Level::Error => "ERROR: ",
            Level::Warn => "WARNING: ",
            Level::Info | Level::Debug | Level::Trace => "",
        };
        // Writing to the console cannot fail.
        let _ = writeln!(console, "(XEN) {mark}{}", record.args());
        news().store(true, Ordering::Release);
    }

    fn flush(&self) {}
}

/// Log target of lines that a guest's behaviour causes: their level is `guest_loglvl=`, their rate is limited.
pub const GUEST: &str = "guest";

/// Makes the console the sink of `log`, at these levels.
pub fn init(level: LevelFilter, guest_level: LevelFilter) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    GUEST_LEVEL.store(guest_level as u8, Ordering::Relaxed);
    // Only a second call can fail, and it changes nothing.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level.max(guest_level));
}

/// Prints what a guest with the right to the console wrote, as it is. It is no part of the log, so the ring does not get
/// it: as in Xen without `console_to_ring`.
pub fn write_raw(bytes: &[u8]) {
    // Under the lock, so that lines of the log stay whole.
    let _console = console().lock();
    arch::uart::write(bytes);
}

/// Copies log from byte number `index` on (older bytes are gone: then from the oldest); returns how many, and the
/// number after the last.
pub fn read_ring(index: u32, out: &mut [u8]) -> (usize, u32) {
    console().lock().read(index, out)
}

/// Whether there are lines in the ring that nobody was told of; they count as told from now on. Whoever is told reads the
/// ring to its end, so that no line stays behind.
#[inline]
pub fn take_news() -> bool {
    news().load(Ordering::Relaxed) && news().swap(false, Ordering::Acquire)
}

/// The number of the oldest byte kept.
pub fn ring_start() -> u32 {
    console().lock().cleared
}

/// Forgets what was logged before byte number `index`, as [`read_ring`] gave it.
pub fn clear_ring(index: u32) {
    console().lock().clear(index);
}

/// Takes up to `out.len()` bytes typed for dom0.
pub fn take_input(out: &mut [u8]) -> usize {
    console().lock().take_input(out)
}

/// Decides what a typed byte is for.
pub fn input(byte: u8) -> Input {
    console().lock().type_byte(byte)
}

/// Prints past every lock, for a CPU that is about to stop.
pub struct Emergency;

impl Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(mut console) = console().try_lock() {
            console.record(text.as_bytes());
        }
        arch::uart::write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_keeps_the_newest() {
        let mut console = Console::new();
        for i in 0..RING_SIZE + 10 {
            console.record(&[i as u8]);
        }
        let mut out = [0; 4];
        let (count, next) = console.read(0, &mut out);
        assert_eq!((count, next), (4, 14));
        assert_eq!(out, [10, 11, 12, 13]);
        let (count, _) = console.read(console.produced, &mut out);
        assert_eq!(count, 0);
    }

    #[test]
    fn a_reader_follows_the_ring_across_its_end() {
        let mut console = Console::new();
        console.produced = u32::MAX - 1;
        console.cleared = u32::MAX - 1;
        console.record(b"abcd");
        let mut out = [0; 8];
        let (count, next) = console.read(u32::MAX - 1, &mut out);
        assert_eq!((&out[..count], next), (&b"abcd"[..], 2));
    }

    #[test]
    fn clearing_forgets_what_was_read_and_no_more() {
        let mut console = Console::new();
        console.record(b"abcd");
        console.clear(2);
        console.clear(7);
        console.clear(1);
        let mut out = [0; 8];
        assert_eq!(console.read(console.cleared, &mut out), (2, 4));
        assert_eq!(&out[..2], b"cd");
    }

    #[test]
    fn three_switch_keys_move_the_input_and_back() {
        let mut console = Console::new();
        assert_eq!(console.type_byte(b'x'), Input::ForDom0);
        assert_eq!(console.type_byte(1), Input::ForDom0);
        assert_eq!(console.type_byte(1), Input::ForDom0);
        assert_eq!(console.type_byte(1), Input::Switched(true));
        assert_eq!(console.type_byte(b'h'), Input::Key(b'h'));
        assert_eq!(console.type_byte(1), Input::Consumed);
        assert_eq!(console.type_byte(1), Input::Consumed);
        assert_eq!(console.type_byte(1), Input::Switched(false));
        let mut out = [0; 8];
        assert_eq!(console.take_input(&mut out), 3);
        assert_eq!(&out[..3], b"x\x01\x01");
    }

    #[test]
    fn input_that_dom0_does_not_read_is_dropped_not_wrapped() {
        let mut console = Console::new();
        for _ in 0..INPUT_SIZE {
            assert_eq!(console.type_byte(b'a'), Input::ForDom0);
        }
        assert_eq!(console.type_byte(b'b'), Input::Consumed);
        let mut out = [0; INPUT_SIZE + 8];
        assert_eq!(console.take_input(&mut out), INPUT_SIZE);
        assert!(out[..INPUT_SIZE].iter().all(|&b| b == b'a'));
    }

    #[test]
    fn a_line_is_news_once_and_what_is_not_shown_is_none() {
        use log::Log;
        let line = |level| {
            LOGGER.log(&Record::builder().level(level).args(format_args!("line")).build());
            [take_news(), take_news()]
        };
        assert_eq!(line(Level::Warn), [true, false]);
        assert_eq!(line(Level::Trace), [false, false]);
    }

    #[test]
    fn a_guest_cannot_flood_the_log() {
        let mut console = Console::new();
        let admitted = (0..1000).filter(|_| console.admit_guest_line(5, 100).is_some()).count();
        assert_eq!(admitted as u64, GUEST_BURST);
        assert_eq!(console.admit_guest_line(54, 100), Some(980), "half a second later one more");
        assert_eq!((0..99).filter(|_| console.admit_guest_line(60, 100).is_some()).count(), 0);
        let admitted = (60..100_060).filter(|&now| console.admit_guest_line(now, 100).is_some()).count();
        assert_eq!(admitted as u64, 1000 * GUEST_LINES_PER_SECOND);
        console.admit_guest_line(1_000_000, 100);
        assert_eq!(console.guest_lines, GUEST_BURST - 1, "silence is not hoarded");
    }
}
