//! A domain of one page: a program, a number of its own, and a sum that it works out while others run.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::toolstack::{self, Failed};

/// Where the page is in the domain.
const HOME: u64 = 0x4000_0000;
/// Where in the page the sum is.
const SUM: u64 = 2048;
/// Turns of the CPU that the program takes.
const TURNS: u64 = 8;

// x19: the page, x20: the domain's number. Adds the number to the sum, gives way, and so on; then powers off, the reason (0)
// taken from the page.
global_asm!(
    r#"
    .section .rodata.tenant, "a"
    .balign 8
tenant_start:
    mov     x21, #{turns}
1:  ldr     x22, [x19, #{sum}]
    add     x22, x22, x20
    str     x22, [x19, #{sum}]
    mov     x16, #29                // sched_op
    mov     x0, #0                  // yield
    hvc     #0xea1
    subs    x21, x21, #1
    b.ne    1b
    mov     x16, #29
    mov     x0, #2                  // shutdown
    add     x1, x19, #{sum} + 8
    hvc     #0xea1
    b       .
tenant_end:
"#,
    turns = const TURNS,
    sum = const SUM,
);

unsafe extern "C" {
    static tenant_start: u8;
    static tenant_end: u8;
}

/// Makes a domain, paused. Its page is written through `window`.
pub fn make(number: u16, window: u64) -> Result<u16, Failed> {
    let id = toolstack::create()?;
    toolstack::populate(id, HOME >> 12)?;
    toolstack::open_window(window, id, HOME >> 12)?;
    let (start, end) = (&raw const tenant_start, &raw const tenant_end);
    let length = end as usize - start as usize;
    // SAFETY: the program between the labels; the window is a page that nothing else uses.
    unsafe { core::ptr::copy_nonoverlapping(start, window as *mut u8, length) };
    sum(window).store(0, Ordering::Relaxed);
    for line in (window..window + 4096).step_by(16) {
        // SAFETY: cache maintenance: the domain starts with its caches off.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack)) };
    toolstack::start_at(id, HOME, [HOME, u64::from(number)])?;
    Ok(id)
}

/// The sum that the domain has worked out.
pub fn result(id: u16, window: u64) -> u64 {
    match toolstack::open_window(window, id, HOME >> 12) {
        Ok(()) => sum(window).load(Ordering::Relaxed),
        Err(_) => u64::MAX,
    }
}

/// What it must be.
pub fn expected(number: u64) -> u64 {
    number * TURNS
}

fn sum(window: u64) -> &'static AtomicU64 {
    // SAFETY: an aligned word of the window, which is only accessed atomically or while no domain runs.
    unsafe { &*((window + SUM) as *const AtomicU64) }
}
