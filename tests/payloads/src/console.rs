//! Printing, a line at a time: by the `console_io` hypercall, or in a domU into the ring that its creator gave it
//! (Xen's public `io/console.h`), from which xenconsoled takes it.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use arrayvec::ArrayString;

use crate::hypercall::{hypercall, scalar, with_struct};
use crate::paging;
use crate::timer;
use crate::xen::{DOMID_SELF, console, event_channel, hvm, op, sched};

/// Prints a line. What does not fit in 512 bytes is cut off.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => { $crate::console::print_line(format_args!($($arguments)*)) };
}

/// Prints one line; `println!` is the usual way to call it.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    let mut line = ArrayString::<512>::new();
    let _ = line.write_fmt(arguments);
    if line.is_full() {
        line.truncate(line.floor_char_boundary(510));
    }
    line.push('\n');
    match Ring::find() {
        Some(ring) => ring.write(line.as_bytes()),
        None => {
            // SAFETY: the hypervisor only reads the line.
            unsafe {
                hypercall(op::CONSOLE_IO, [console::WRITE, line.len() as u64, line.as_ptr() as u64, 0, 0]);
            }
        }
    }
}

/// Where the ring is, and its port; 0 while there is none.
static RING: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Looks for the ring. Once, when one processor runs.
pub fn init() {
    let parameter = |index| {
        let mut parameter = hvm::Param { domid: DOMID_SELF, index, value: 0 };
        // SAFETY: the hypervisor writes the value into the structure, nothing else.
        let result = unsafe { with_struct(op::HVM_OP, hvm::GET_PARAM, &mut parameter) };
        if result == 0 { parameter.value } else { 0 }
    };
    let (page, port) = (parameter(hvm::CONSOLE_PFN) << 12, parameter(hvm::CONSOLE_EVTCHN));
    // What is unset is 0 or, in old releases, all ones.
    if page != 0 && page >> 48 == 0 && port != 0 && paging::map_shared(page) {
        RING[1].store(port, Ordering::Relaxed);
        RING[0].store(page, Ordering::Release);
    }
}

/// The port of the ring; 0 where there is none.
pub fn port() -> u32 {
    RING[1].load(Ordering::Relaxed) as u32
}

/// Waits until everything that was printed has been read, for two seconds at most. Whether it has.
pub fn flush() -> bool {
    let Some(ring) = Ring::find() else { return true };
    let end = timer::ticks() + 2 * timer::frequency();
    while ring.index(Ring::OUT_CONS).load(Ordering::Acquire)
        != ring.index(Ring::OUT_PROD).load(Ordering::Relaxed)
    {
        if timer::ticks() > end {
            return false;
        }
        scalar(op::SCHED_OP, sched::YIELD, 0);
    }
    true
}

/// Whether lines wait in the ring, as long as it has room.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Whether to leave the reader asleep from now on: while one measures what it would disturb.
pub fn keep_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// The output side of `xencons_interface`: 2048 bytes after the 1024 of the input, then the four indices.
struct Ring {
    page: u64,
    port: u64,
}

impl Ring {
    const OUT: u64 = 1024;
    const SIZE: u32 = 2048;
    const OUT_CONS: u64 = 3080;
    const OUT_PROD: u64 = 3084;
    /// How often to give way to a reader that does not read before the rest is dropped.
    const PATIENCE: u32 = 100_000;

    fn find() -> Option<Self> {
        let page = RING[0].load(Ordering::Acquire);
        (page != 0).then(|| Self { page, port: RING[1].load(Ordering::Relaxed) })
    }

    fn index(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: an aligned word of the page that `init` found and mapped, which both sides only access atomically.
        unsafe { &*((self.page + offset) as *const AtomicU32) }
    }

    /// Writes a line. It is lost where nobody reads.
    fn write(&self, line: &[u8]) {
        let (consumed, produced) = (self.index(Self::OUT_CONS), self.index(Self::OUT_PROD));
        let mut patience = Self::PATIENCE;
        for &byte in line {
            let at = produced.load(Ordering::Relaxed);
            while at.wrapping_sub(consumed.load(Ordering::Acquire)) >= Self::SIZE {
                if patience == 0 {
                    return;
                }
                patience -= 1;
                self.notify();
                scalar(op::SCHED_OP, sched::YIELD, 0);
            }
            let place = (self.page + Self::OUT + u64::from(at % Self::SIZE)) as *const AtomicU8;
            // SAFETY: a byte of the ring, as for `index`.
            unsafe { &*place }.store(byte, Ordering::Relaxed);
            produced.store(at.wrapping_add(1), Ordering::Release);
        }
        if !QUIET.load(Ordering::Relaxed) {
            self.notify();
        }
    }

    fn notify(&self) {
        let port = self.port as u32;
        // SAFETY: the hypervisor only reads the port.
        unsafe { hypercall(op::EVENT_CHANNEL_OP, [event_channel::SEND, &raw const port as u64, 0, 0, 0]) };
    }
}
