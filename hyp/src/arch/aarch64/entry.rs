//! The first instructions: Image header, checks, relocation, MMU on; and the same for secondary CPUs.
//!
//! ```text
//!  firmware ─▶ _head ─▶ EL2? ─▶ clear .bss, relocate ─▶ early_tables() ─▶ MMU on ─▶ boot_cpu(dtb)
//!                         └ no ─▶ wrong_exception_level(dtb): a message, then stop
//!  PSCI / spin table ─▶ secondary_start ─▶ MMU on (tables of SecondaryBoot) ─▶ secondary_cpu()
//! ```
//! Until the MMU is on, data accesses are Device-nGnRnE (DDI 0487 D8.2.12): aligned only, no exclusives, and
//! past the caches. What was written that way is then invalidated from the caches, to the point of coherency,
//! in case the firmware left clean stale lines (Linux's Documentation/arch/arm64/booting.rst promises that the
//! loaded image itself is clean to that point).

use core::arch::global_asm;

use super::el2_map::{MAIR_EL2_VALUE, TCR_EL2_STATIC};

/// SCTLR_EL2 with MMU and caches on: RES1 bits, M, C, SA, I.
pub const SCTLR_EL2_ON: u64 = SCTLR_EL2_OFF | 1 | 1 << 2 | 1 << 3 | 1 << 12;
/// SCTLR_EL2 with MMU off: RES1 bits only (DDI 0487 D19.2.136, without FEAT_VHE).
pub const SCTLR_EL2_OFF: u64 = 0x30c5_0830;
/// Bytes of stack that the boot CPU uses until it has its own.
const BOOT_STACK: usize = 32 * 1024;

global_asm!(
    r#"
    .section .head, "ax"
    .global _head
_head:
    b       primary_start
    .long   0
    .quad   0                               // text_offset
    .quad   __image_size                    // image_size
    .quad   0xa                             // little-endian, 4 KiB pages, anywhere in RAM
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

primary_start:
    msr     daifset, #0xf
    msr     spsel, #1
    mov     x19, x0
    mrs     x20, CurrentEL
    lsr     x20, x20, #2
    and     x20, x20, #3
    adrp    x0, boot_stack_top
    add     x0, x0, :lo12:boot_stack_top
    mov     sp, x0
    cmp     x20, #2
    b.ne    1f
    bl      reset_el2
1:  adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __image_end
    add     x1, x1, :lo12:__image_end
2:  cmp     x0, x1
    b.hs    3f
    stp     xzr, xzr, [x0], #16
    b       2b
3:  adrp    x0, __image_start
    add     x0, x0, :lo12:__image_start
    adrp    x1, __rela_start
    add     x1, x1, :lo12:__rela_start
    adrp    x2, __rela_end
    add     x2, x2, :lo12:__rela_end
4:  cmp     x1, x2
    b.hs    5f
    ldp     x3, x4, [x1], #16               // r_offset, r_info
    ldr     x5, [x1], #8                    // r_addend
    cmp     x4, #1027                       // R_AARCH64_RELATIVE; the link makes no other kind
    b.ne    4b
    add     x5, x5, x0
    str     x5, [x0, x3]
    b       4b
5:  cmp     x20, #2
    b.eq    6f
    mov     x0, x19
    mov     x1, x20
    bl      wrong_exception_level
6:  mov     x0, x19
    bl      early_tables
    mov     x21, x0
    // Everything written above went past the caches: drop what they may hold of it (DDI 0487 D7.5.9).
    adrp    x0, __image_start
    add     x0, x0, :lo12:__image_start
    adrp    x1, __image_end
    add     x1, x1, :lo12:__image_end
    dsb     sy
7:  dc      ivac, x0
    add     x0, x0, #16                     // the smallest line that CTR_EL0 can name
    cmp     x0, x1
    b.lo    7b
    dsb     sy
    mov     x0, x21
    bl      enable_mmu
    mov     x0, x19
    bl      boot_cpu
8:  wfe
    b       8b

// What EL2 must not inherit, before anything depends on it. HCR_EL2 first: its E2H, UNKNOWN after a reset, changes what
// other registers mean (DDI 0487 D19.2.48). The firmware may have left EL2's MMU or caches on; the Image protocol says
// off, so only make it certain. TPIDR_EL2 = 0 tells the vectors that there is no stack to report a crash on yet.
// Clobbers x0.
reset_el2:
    mov     x0, #{hcr_rw}
    msr     hcr_el2, x0
    isb
    mov     x0, #{sctlr_off_lo}
    movk    x0, #{sctlr_off_hi}, lsl #16
    msr     sctlr_el2, x0
    msr     tpidr_el2, xzr
    adrp    x0, vectors
    add     x0, x0, :lo12:vectors
    msr     vbar_el2, x0
    isb
    ret

// enable_mmu(x0 = TTBR0_EL2): the page of this code is mapped to itself. Clobbers x1, x2.
    .global enable_mmu
enable_mmu:
    mov     x1, #{mair_lo}
    movk    x1, #{mair_hi}, lsl #16
    msr     mair_el2, x1
    mov     x1, #{tcr_lo}
    movk    x1, #{tcr_hi}, lsl #16
    mrs     x2, id_aa64mmfr0_el1
    and     x2, x2, #7                      // PARange; 0b110 and 0b111 ask for larger granules or LPA2
    cmp     x2, #5
    b.ls    1f
    mov     x2, #5
1:  bfi     x1, x2, #16, #3                 // TCR_EL2.PS
    msr     tcr_el2, x1
    msr     ttbr0_el2, x0
    // No stale EL2 translation may be used once M is set (DDI 0487 D8.17.5).
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    mov     x1, #{sctlr_on_lo}
    movk    x1, #{sctlr_on_hi}, lsl #16
    msr     sctlr_el2, x1
    isb
    ret

// switch_tables(x0 = new TTBR0_EL2): goes through MMU-off, so that blocks of one size can be replaced by
// another without break-before-make on the code being run (DDI 0487 D8.17.1). No data access in between.
    .global switch_tables
switch_tables:
    mov     x3, x30
    dsb     ish
    mov     x1, #{sctlr_off_lo}
    movk    x1, #{sctlr_off_hi}, lsl #16
    msr     sctlr_el2, x1
    isb
    bl      enable_mmu
    ret     x3

// Secondary CPUs enter here, at EL2 with the MMU off; which one, MPIDR_EL1 tells.
    .global secondary_start
secondary_start:
    msr     daifset, #0xf
    msr     spsel, #1
    mrs     x20, CurrentEL
    cmp     x20, #8
    b.ne    9f
    bl      reset_el2
    adrp    x19, secondary_boot
    add     x19, x19, :lo12:secondary_boot
    ldr     x0, [x19]                       // TTBR0_EL2
    bl      enable_mmu
    // Find this CPU's entry: pairs of MPIDR affinity and stack top follow.
    mrs     x0, mpidr_el1
    mov     x1, #0xffffff
    movk    x1, #0xff, lsl #32
    and     x0, x0, x1
    ldr     x1, [x19, #8]                   // count
    add     x2, x19, #16
    mov     x5, #0
1:  cmp     x5, x1
    b.hs    9f
    ldp     x3, x4, [x2], #16
    cmp     x3, x0
    b.eq    2f
    add     x5, x5, #1
    b       1b
2:  mov     sp, x4
    mov     x0, x5
    bl      secondary_cpu
9:  wfe
    b       9b

    .section .bss.boot_stack, "aw", %nobits
    .balign 4096
    .space  {boot_stack}
boot_stack_top:
"#,
    hcr_rw = const super::sysreg::hcr::RW,
    sctlr_off_lo = const SCTLR_EL2_OFF & 0xffff,
    sctlr_off_hi = const SCTLR_EL2_OFF >> 16,
    sctlr_on_lo = const SCTLR_EL2_ON & 0xffff,
    sctlr_on_hi = const SCTLR_EL2_ON >> 16,
    mair_lo = const MAIR_EL2_VALUE & 0xffff,
    mair_hi = const MAIR_EL2_VALUE >> 16,
    tcr_lo = const TCR_EL2_STATIC & 0xffff,
    tcr_hi = const TCR_EL2_STATIC >> 16,
    boot_stack = const BOOT_STACK,
);

unsafe extern "C" {
    /// Replaces EL2's translation tables.
    ///
    /// # Safety
    /// `ttbr0` is the root of a complete table that maps this image, the stack in use and everything that Rust
    /// holds references to, to the same physical addresses as the table in use.
    pub fn switch_tables(ttbr0: u64);

    /// Where secondary CPUs start; only its address is used.
    pub fn secondary_start();
}
