//! The end of the line: what is printed when EL2's own invariants break, and what happens then.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::console::Emergency;

use super::{el2_map, irq, percpu, power, symbols, sysreg::read_sysreg};

static PANICKING: AtomicBool = AtomicBool::new(false);
static REBOOT: AtomicBool = AtomicBool::new(true);

/// Frames of a backtrace at most.
const DEPTH: usize = 32;

/// Sets whether the machine reboots after a panic (`noreboot` absent) or stops.
pub fn set_reboot(reboot: bool) {
    REBOOT.store(reboot, Ordering::Relaxed);
}

/// Whether the machine reboots where it has a choice.
pub fn reboots() -> bool {
    REBOOT.load(Ordering::Relaxed)
}

/// Registers at an exception from EL2, as `broken` in vectors.rs stores them.
#[repr(C)]
pub struct Frame {
    x: [u64; 31],
    vector: u64,
    sp: u64,
    _align: u64,
}

/// Whether some CPU has panicked: no other runs a guest any more.
pub fn is_panicking() -> bool {
    PANICKING.load(Ordering::Relaxed)
}

fn backtrace(out: &mut Emergency, mut frame: u64) {
    let _ = writeln!(out, "(XEN) Call trace:");
    for _ in 0..DEPTH {
        if frame == 0 || frame & 7 != 0 || !is_stack(frame) {
            break;
        }
        // SAFETY: the address is aligned and within a mapped stack of this image; frame records are two words
        // (AAPCS64 6.4.6). A damaged chain yields wrong numbers, not a wild access.
        let (next, ret) = unsafe { ((frame as *const u64).read(), (frame as *const u64).add(1).read()) };
        if ret == 0 {
            break;
        }
        print_address(out, ret);
        if next <= frame {
            break;
        }
        frame = next;
    }
}

fn is_stack(address: u64) -> bool {
    let image = el2_map::image();
    let in_window = address >= el2_map::STACKS
        && (address - el2_map::STACKS) % el2_map::STACK_STRIDE >= el2_map::STACK_STRIDE - el2_map::STACK_SIZE
        && (address - el2_map::STACKS) / el2_map::STACK_STRIDE < crate::cpu::MAX_CPUS as u64;
    let in_bss = address >= image.file_end && address < image.end;
    (in_window || in_bss) && address % 4096 <= 4080
}

fn print_address(out: &mut Emergency, address: u64) {
    let offset = address.wrapping_sub(el2_map::image().start);
    let _ = match symbols::find(offset) {
        Some((name, within)) => writeln!(out, "(XEN)    [<{address:016x}>] {name}+{within:#x}"),
        None => writeln!(out, "(XEN)    [<{address:016x}>] image+{offset:#x}"),
    };
}

fn begin() -> Emergency {
    if PANICKING.swap(true, Ordering::AcqRel) {
        // A second CPU, or a panic within this: one report is enough.
        power::stop_this_cpu();
    }
    if percpu::is_initialised() {
        irq::kick_others();
    }
    let mut out = Emergency;
    let _ = writeln!(out, "(XEN)\n(XEN) ****************************************");
    out
}

fn end(out: &mut Emergency) -> ! {
    let _ = writeln!(out, "(XEN) ****************************************\n(XEN)");
    if REBOOT.load(Ordering::Relaxed) {
        let _ = writeln!(out, "(XEN) Rebooting the machine.");
        power::reset()
    } else {
        let _ = writeln!(out, "(XEN) Manual reset required ('noreboot' specified)");
        power::stop_this_cpu()
    }
}

fn cpu_number() -> usize {
    if percpu::is_initialised() { percpu::this().id().index() } else { 0 }
}

/// Prints what happened and where, then reboots or stops.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut out = begin();
    let _ = writeln!(out, "(XEN) Panic on CPU {}:", cpu_number());
    let _ = writeln!(out, "(XEN) {}", info.message());
    if let Some(location) = info.location() {
        let _ = writeln!(out, "(XEN) at {location}");
    }
    let frame: u64;
    // SAFETY: reads the frame pointer.
    unsafe { core::arch::asm!("mov {}, x29", out(reg) frame, options(nomem, nostack)) };
    backtrace(&mut out, frame);
    end(&mut out)
}

/// An exception taken from EL2: `frame` is what `broken` in vectors.rs saved.
#[unsafe(no_mangle)]
extern "C" fn on_el2_exception(frame: &Frame) -> ! {
    const VECTORS: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];
    let mut out = begin();
    let (esr, elr, far) = (read_sysreg!("esr_el2"), read_sysreg!("elr_el2"), read_sysreg!("far_el2"));
    let kind = VECTORS[(frame.vector & 3) as usize];
    let _ = writeln!(out, "(XEN) Unexpected {kind} at EL2 on CPU {}", cpu_number());
    let _ = writeln!(out, "(XEN) ESR {esr:#010x} (EC {:#04x})  FAR {far:#018x}", esr >> 26 & 0x3f);
    print_address(&mut out, elr);
    let _ = writeln!(
        out,
        "(XEN) SP  {:016x}  SPSR {:08x}  HCR {:016x}",
        frame.sp,
        read_sysreg!("spsr_el2"),
        read_sysreg!("hcr_el2")
    );
    for (row, chunk) in frame.x.chunks(4).enumerate() {
        let _ = write!(out, "(XEN)");
        for (column, value) in chunk.iter().enumerate() {
            let _ = write!(out, "  x{:<2} {value:016x}", row * 4 + column);
        }
        let _ = writeln!(out);
    }
    if far >= el2_map::STACKS && far < el2_map::STACKS + el2_map::STACK_STRIDE * crate::cpu::MAX_CPUS as u64 {
        let _ = writeln!(out, "(XEN) The address is in a guard page: the stack overflowed.");
    }
    backtrace(&mut out, frame.x[29]);
    end(&mut out)
}
