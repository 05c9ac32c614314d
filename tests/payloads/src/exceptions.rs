//! Vectors, the frame they save, and who handles what.
//!
//! An interrupt goes to the function set by [`set_interrupt_handler`]. A synchronous exception goes to the guarded access in
//! progress ([`try_read`], [`try_write`], [`try_run`]), which skips the instruction and reports; without one it is the
//! end of the payload.
//!
//! ```text
//! vector (reads CNTVCT at once) -> exception(frame) -> interrupt handler | guard: skip, remember ESR | fatal
//! ```

use core::arch::{asm, global_asm};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use crate::{println, report};

/// Registers at the time of the exception, as the vector saved them.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Where the exception returns to.
    pub elr: u64,
    /// The state it returns with.
    pub spsr: u64,
    /// Why it was taken; meaningless for an interrupt.
    pub esr: u64,
    /// The address that faulted, if one did.
    pub far: u64,
    /// CNTVCT_EL0 three instructions after the exception was taken.
    pub ticks: u64,
    kind: u64,
    padding: u64,
}

/// Instructions from the vector's first one up to and including the one that reads the counter.
pub const INSTRUCTIONS_BEFORE_TICKS: u64 = 3;

global_asm!(
    r#"
    .macro vector kind
    .balign 0x80
    sub     sp, sp, #{frame}
    stp     x0, x1, [sp]
    mrs     x0, cntvct_el0
    str     x0, [sp, #280]
    mov     x1, #\kind
    b       exception_common
    .endm

    .section .vectors, "ax"
    .balign 2048
    .global exception_vectors
exception_vectors:
    vector 8
    vector 9
    vector 10
    vector 11
    vector 0
    vector 1
    vector 2
    vector 3
    vector 12
    vector 13
    vector 14
    vector 15
    vector 16
    vector 17
    vector 18
    vector 19

exception_common:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, elr_el1
    stp     x30, x2, [sp, #240]
    mrs     x2, spsr_el1
    mrs     x3, esr_el1
    stp     x2, x3, [sp, #256]
    mrs     x2, far_el1
    str     x2, [sp, #272]
    str     x1, [sp, #288]
    mov     x0, sp
    bl      exception
    ldp     x30, x2, [sp, #240]
    msr     elr_el1, x2
    ldr     x2, [sp, #256]
    msr     spsr_el1, x2
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldp     x0, x1, [sp]
    add     sp, sp, #{frame}
    eret
"#,
    frame = const mem::size_of::<Frame>(),
);

const SYNCHRONOUS: u64 = 0;
const IRQ: u64 = 1;
const SERROR: u64 = 3;

/// What an interrupt handler is: it acknowledges, does its work, and ends the interrupt.
pub type InterruptHandler = fn(&mut Frame);

static INTERRUPT_HANDLER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// Armed by a guarded access of the first processor, the only one that makes any.
static GUARDED: AtomicBool = AtomicBool::new(false);
/// ESR of the exception that ended the guarded access; 0 is no exception.
static CAUGHT: AtomicU64 = AtomicU64::new(0);

/// Sets the function that all interrupts of all processors go to.
pub fn set_interrupt_handler(handler: InterruptHandler) {
    INTERRUPT_HANDLER.store(handler as *mut (), Ordering::Release);
}

#[unsafe(no_mangle)]
extern "C" fn exception(frame: &mut Frame) {
    let handler = INTERRUPT_HANDLER.load(Ordering::Acquire);
    match frame.kind {
        IRQ if !handler.is_null() => {
            // SAFETY: only `set_interrupt_handler` stores here, and only functions of this type.
            let handler = unsafe { mem::transmute::<*mut (), InterruptHandler>(handler) };
            handler(frame);
        }
        SYNCHRONOUS | SERROR if GUARDED.load(Ordering::Relaxed) => {
            CAUGHT.store(frame.esr | 1 << 63, Ordering::Relaxed);
            // One exception per access: a second one is a surprise.
            GUARDED.store(false, Ordering::Relaxed);
            if frame.kind == SYNCHRONOUS {
                frame.elr = frame.elr.wrapping_add(4);
            }
        }
        kind => {
            println!(
                "payload: exception {kind} esr {:#x} far {:#x} elr {:#x} (image + {:#x}) spsr {:#x}",
                frame.esr,
                frame.far,
                frame.elr,
                frame.elr.wrapping_sub(crate::boot::image().start),
                frame.spsr,
            );
            println!("payload: x0-x7 {:x?}", &frame.x[..8]);
            report::abandon()
        }
    }
}

/// Why a guarded access failed: the exception's syndrome.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Syndrome(u64);

impl Syndrome {
    /// The exception class (ESR_EL1.EC).
    pub fn class(self) -> u64 {
        self.0 >> 26 & 0x3f
    }

    /// The fault status of an abort (ESR_EL1.ISS.DFSC).
    pub fn fault_status(self) -> u64 {
        self.0 & 0x3f
    }
}

/// Runs `access`, which executes one instruction that may fault; that instruction is then skipped.
///
/// Only for the first processor, and not from an interrupt handler.
pub fn try_run<T>(access: impl FnOnce() -> T) -> Result<T, Syndrome> {
    CAUGHT.store(0, Ordering::Relaxed);
    GUARDED.store(true, Ordering::Relaxed);
    let value = access();
    // SAFETY: a barrier only; an asynchronous abort of the access arrives before the guard goes.
    unsafe { asm!("dsb sy", "isb", options(nostack)) };
    GUARDED.store(false, Ordering::Relaxed);
    match CAUGHT.load(Ordering::Relaxed) {
        0 => Ok(value),
        esr => Err(Syndrome(esr & !(1 << 63))),
    }
}

/// How wide an access is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    #[default]
    Word,
    /// 64 bits.
    Double,
}

/// Reads device memory at `address`; it must not be memory that Rust uses.
pub fn try_read(address: u64, width: Width) -> Result<u64, Syndrome> {
    try_run(|| {
        let mut value: u64 = 0;
        // SAFETY: a load from device memory; a fault is caught and leaves the register as it was.
        unsafe {
            match width {
                Width::Byte => asm!("ldrb {:w}, [{}]", inout(reg) value, in(reg) address, options(nostack)),
                Width::Half => asm!("ldrh {:w}, [{}]", inout(reg) value, in(reg) address, options(nostack)),
                Width::Word => asm!("ldr {:w}, [{}]", inout(reg) value, in(reg) address, options(nostack)),
                Width::Double => asm!("ldr {}, [{}]", inout(reg) value, in(reg) address, options(nostack)),
            }
        }
        value
    })
}

/// Writes device memory at `address`.
///
/// # Safety
/// `address` must not be memory that Rust uses, nor a device that writes such memory on this command.
pub unsafe fn try_write(address: u64, width: Width, value: u64) -> Result<(), Syndrome> {
    try_run(|| {
        // SAFETY: the caller promises that nothing of Rust's is behind the address; a fault is caught.
        unsafe {
            match width {
                Width::Byte => asm!("strb {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)),
                Width::Half => asm!("strh {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)),
                Width::Word => asm!("str {:w}, [{}]", in(reg) value, in(reg) address, options(nostack)),
                Width::Double => asm!("str {}, [{}]", in(reg) value, in(reg) address, options(nostack)),
            }
        }
    })
}
