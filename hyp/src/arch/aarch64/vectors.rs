//! EL2's vectors, and entering a guest as a function call.
//!
//! ```text
//!   enter_guest(ctx) ── saves EL2's callee-saved registers on the stack, SP_EL2 := ctx ──▶ ERET
//!        ▲                                                                                 guest
//!        │ x0 = exit code          hvc #0xEA1: on_hypercall(ctx) ─▶ 0: back to the guest ◀───┤
//!        └──────────── other ◀──── other traps: on_trap(ctx)     ─▶ 0: back to the guest ◀───┤
//!                                  IRQ, FIQ, SError: at once                             ◀───┘
//! ```
//! While a guest runs SP_EL2 points at its [`Context`], so a trap stores registers without needing any. The two
//! Rust functions run on the stack of `enter_guest`'s caller and see the guest's registers in `ctx`; the
//! hypercall's sees only those that a C function may clobber, which is what makes it cheap.

use core::arch::global_asm;
use core::mem::offset_of;

/// A guest's general-purpose registers and where it continues. SP_EL2 points here while it runs.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Context {
    /// X0 to X30.
    pub x: [u64; 31],
    host_sp: u64,
    /// Where it continues (ELR_EL2); valid while the vCPU is not loaded or [`enter_guest`] is not active.
    pub elr: u64,
    /// Its PSTATE (SPSR_EL2); validity as for `elr`.
    pub spsr: u64,
}

impl Context {
    /// All registers zero.
    pub const fn new() -> Self {
        Self { x: [0; 31], host_sp: 0, elr: 0, spsr: 0 }
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// [`enter_guest`] returned because of a synchronous exception that Rust code asked to leave for.
pub const EXIT_REQUESTED: u64 = 1;
/// [`enter_guest`] returned because of an interrupt.
pub const EXIT_IRQ: u64 = 2;
/// [`enter_guest`] returned because of an SError.
pub const EXIT_SERROR: u64 = 3;

unsafe extern "C" {
    /// Runs the guest whose EL1 state is loaded, until something needs EL2's run loop; returns an `EXIT_*`.
    ///
    /// # Safety
    /// `ctx` belongs to the loaded vCPU, nobody else accesses it meanwhile, and its `spsr` names EL0 or EL1.
    pub fn enter_guest(ctx: *mut Context) -> u64;

    /// The vector table; only its address is used.
    pub fn vectors();
    /// The same, where a guest's branch history is pushed out first.
    pub fn vectors_loop();
    /// The same, with CLRBHB.
    pub fn vectors_clear_history();
    /// The same, where the firmware clears the branch predictors.
    pub fn vectors_firmware();
}

global_asm!(
    r#"
    .macro SAVE_CALLER
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x29, x30, [sp, #232]
    .endm
    .macro SAVE_CALLEE base
    stp     x20, x21, [\base, #160]
    stp     x22, x23, [\base, #176]
    stp     x24, x25, [\base, #192]
    stp     x26, x27, [\base, #208]
    str     x28, [\base, #224]
    .endm
    .macro LOAD_CALLEE
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldr     x28, [sp, #224]
    .endm
    .macro LOAD_CALLER_AND_ERET
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x29, x30, [sp, #232]
    ldp     x0, x1, [sp, #0]
    eret
    // Nothing beyond an ERET may be speculated into (straight-line speculation).
    dsb     nsh
    isb
    .endm

    .section .text.vectors_body, "ax"
    .global enter_guest
enter_guest:
    stp     x29, x30, [sp, #-112]!
    stp     x27, x28, [sp, #16]
    stp     x25, x26, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x21, x22, [sp, #64]
    stp     x19, x20, [sp, #80]
    str     x0, [sp, #96]
    mov     x1, sp
    str     x1, [x0, #{host_sp}]
    ldp     x2, x3, [x0, #{elr}]
    msr     elr_el2, x2
    msr     spsr_el2, x3
    mov     sp, x0
resume_all:
    LOAD_CALLEE
    LOAD_CALLER_AND_ERET

// Return from enter_guest with x0. x1 = context, whose x20..x28 are saved; sp = the frame of enter_guest.
leave_guest:
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [x1, #{elr}]
    ldp     x19, x20, [sp, #80]
    ldp     x21, x22, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #32]
    ldp     x27, x28, [sp, #16]
    ldp     x29, x30, [sp], #112
    ret

hypercall:
    bl      on_hypercall
    ldr     x1, [sp, #96]
    cbnz    x0, 1f
    mov     sp, x1
    LOAD_CALLER_AND_ERET
1:  SAVE_CALLEE x1
    b       leave_guest

trap:
    SAVE_CALLEE sp
    mov     x0, sp
    ldr     x2, [x0, #{host_sp}]
    mov     sp, x2
    bl      on_trap                         // (context, ESR_EL2)
trap_served:
    ldr     x1, [sp, #96]
    cbnz    x0, leave_guest
    mov     sp, x1
    b       resume_all

trap_aarch32:
    SAVE_CALLEE sp
    mov     x0, sp
    ldr     x2, [x0, #{host_sp}]
    mov     sp, x2
    bl      on_trap_aarch32                 // (context, ESR_EL2)
    b       trap_served

asynchronous:
    SAVE_CALLEE sp
    mov     x1, sp
    ldr     x2, [x1, #{host_sp}]
    mov     sp, x2
    b       leave_guest

// An exception from EL2 itself: only ever a bug here. x0 = which vector. All registers go to the emergency stack,
// since the ordinary one may be what faulted; SP_EL0 (the guest's) is the scratch register.
    .globl  broken
broken:
    msr     sp_el0, x1
    mrs     x1, tpidr_el2
    cbz     x1, 9f
    ldr     x1, [x1]                        // PerCpu::emergency_stack
    sub     x1, x1, #272
    str     x0, [x1, #248]
    mov     x0, sp
    str     x0, [x1, #256]
    mrs     x0, sp_el0
    str     x0, [x1, #8]
    mov     sp, x1
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
    str     x30, [sp, #240]
    mrs     x0, tpidr_el1
    str     x0, [sp, #0]
    mov     x0, sp
    bl      on_el2_exception
9:  wfe
    b       9b

    .macro BROKEN which
    .balign 128
    msr     tpidr_el1, x0                   // terminal: the guest's registers no longer matter
    mov     x0, #\which
    b       broken
    .endm

    .section .vectors, "ax"
    .balign 2048
    .global vectors
vectors:
    BROKEN  0
    BROKEN  1
    BROKEN  2
    BROKEN  3
    BROKEN  4
    BROKEN  5
    BROKEN  6
    .balign 128
    b       el2_serror                      // serror.rs

    .balign 128                             // synchronous, from AArch64
    SAVE_CALLER
    mrs     x1, esr_el2
    mov     w2, #{iss}
    movk    w2, #{hvc64}, lsl #16
    mov     x0, sp
    cmp     w1, w2
    b.ne    trap
    ldr     x2, [x0, #{host_sp}]
    mov     sp, x2
    b       hypercall

    .balign 128                             // IRQ
    SAVE_CALLER
    mov     x0, #{exit_irq}
    b       asynchronous

    .balign 128                             // FIQ: none is routed to EL2 as such
    SAVE_CALLER
    mov     x0, #{exit_irq}
    b       asynchronous

    .balign 128                             // SError
    SAVE_CALLER
    mov     x0, #{exit_serror}
    b       asynchronous

    // From AArch32: HCR_EL2.RW is 1, so only EL0 can be; what it does reaches EL2 as the same traps.
    .balign 128
    SAVE_CALLER
    mrs     x1, esr_el2
    mov     x0, sp
    b       trap_aarch32
    .balign 128
    SAVE_CALLER
    mov     x0, #{exit_irq}
    b       asynchronous
    .balign 128
    SAVE_CALLER
    mov     x0, #{exit_irq}
    b       asynchronous
    .balign 128
    SAVE_CALLER
    mov     x0, #{exit_serror}
    b       asynchronous

    // Tables that do something against the guest's training of the branch predictors before they go on as above; what they
    // use is the guest's when they do. SP_EL2 is its context.
    .macro BY_LOOP
    str     x0, [sp, #0]
    adrp    x0, predictor_branches
    ldr     w0, [x0, :lo12:predictor_branches]
1:  b       2f
2:  subs    w0, w0, #1
    b.ne    1b
    dsb     nsh                             // nothing is speculated past these until the branches are done
    isb
    ldr     x0, [sp, #0]
    .endm
    .macro BY_CLRBHB
    hint    #22
    isb
    .endm
    .macro BY_FIRMWARE
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    adrp    x0, predictor_function
    ldr     w0, [x0, :lo12:predictor_function]
    smc     #0                              // keeps x4 to x30 (DEN 0028F 2.6)
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp, #0]
    .endm
    .macro MORE name, prepare
    .balign 2048
    .global \name
\name:
    .set    at, 0
    .rept   16
    .balign 128
    .if     at >= 0x400                     // below, from EL2 itself
    \prepare
    .endif
    b       vectors + at
    .set    at, at + 128
    .endr
    .endm
    MORE    vectors_loop, BY_LOOP
    MORE    vectors_clear_history, BY_CLRBHB
    MORE    vectors_firmware, BY_FIRMWARE
"#,
    host_sp = const offset_of!(Context, host_sp),
    elr = const offset_of!(Context, elr),
    iss = const pv_abi::hypercall::HYPERVISOR_ISS,
    // ESR_EL2 of `hvc` from AArch64: EC 0x16, IL (DDI 0487 D19.2.37).
    hvc64 = const (0x16 << 10) | (1 << 9),
    exit_irq = const EXIT_IRQ,
    exit_serror = const EXIT_SERROR,
);
