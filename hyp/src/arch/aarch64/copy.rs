//! `memcpy` and `memset`, which the compiler calls for anything longer than a few words: sixteen bytes at a time.
//!
//! `copy_bytes` is `memcpy` under a name that means nothing to the compiler: what it copies from memory that guests
//! write is read once, and neither read again later nor left out.
//!
//! They take the place of the compiler's own, which go by eight bytes at most and by single bytes where source and
//! target are not aligned alike. With the MMU off all memory is Device memory, where an access that is not aligned
//! faults (DDI 0487 B2.9.2); so then, and only then, what is not aligned goes by bytes.

core::arch::global_asm!(
    r#"
    .pushsection .text.memcpy, "ax", %progbits
    .global memcpy
    .type   memcpy, %function
    .global copy_bytes
    .type   copy_bytes, %function
    .balign 16
memcpy:
copy_bytes:
    mov     x3, x0
    orr     x4, x0, x1
    tst     x4, #7
    b.ne    3f
0:  subs    x2, x2, #32
    b.lo    2f
1:  ldp     x4, x5, [x1], #32
    ldp     x6, x7, [x1, #-16]
    stp     x4, x5, [x3], #32
    stp     x6, x7, [x3, #-16]
    subs    x2, x2, #32
    b.hs    1b
    // What is left is the count modulo 32, which the subtractions have kept.
2:  tbz     x2, #4, 2f
    ldp     x4, x5, [x1], #16
    stp     x4, x5, [x3], #16
2:  tbz     x2, #3, 2f
    ldr     x4, [x1], #8
    str     x4, [x3], #8
2:  tbz     x2, #2, 2f
    ldr     w4, [x1], #4
    str     w4, [x3], #4
2:  tbz     x2, #1, 2f
    ldrh    w4, [x1], #2
    strh    w4, [x3], #2
2:  tbz     x2, #0, 2f
    ldrb    w4, [x1]
    strb    w4, [x3]
2:  ret
    // At EL1 or EL3, where only the message is printed that this is wrong, SCTLR_EL2 may not be there.
3:  mrs     x4, CurrentEL
    tbz     x4, #3, 4f
    tbnz    x4, #2, 4f
    mrs     x4, sctlr_el2
    tbnz    x4, #0, 0b
4:  cbz     x2, 2b
    ldrb    w4, [x1], #1
    strb    w4, [x3], #1
    sub     x2, x2, #1
    b       4b
    .size   memcpy, . - memcpy
    .popsection

    .pushsection .text.memset, "ax", %progbits
    .global memset
    .type   memset, %function
    .balign 16
memset:
    mov     x3, x0
    and     x1, x1, #0xff
    orr     x1, x1, x1, lsl #8
    orr     x1, x1, x1, lsl #16
    orr     x1, x1, x1, lsl #32
    tst     x0, #7
    b.ne    3f
0:  subs    x2, x2, #32
    b.lo    2f
1:  stp     x1, x1, [x3], #32
    stp     x1, x1, [x3, #-16]
    subs    x2, x2, #32
    b.hs    1b
2:  tbz     x2, #4, 2f
    stp     x1, x1, [x3], #16
2:  tbz     x2, #3, 2f
    str     x1, [x3], #8
2:  tbz     x2, #2, 2f
    str     w1, [x3], #4
2:  tbz     x2, #1, 2f
    strh    w1, [x3], #2
2:  tbz     x2, #0, 2f
    strb    w1, [x3]
2:  ret
3:  mrs     x4, CurrentEL
    tbz     x4, #3, 4f
    tbnz    x4, #2, 4f
    mrs     x4, sctlr_el2
    tbnz    x4, #0, 0b
4:  cbz     x2, 2b
    strb    w1, [x3], #1
    sub     x2, x2, #1
    b       4b
    .size   memset, . - memset
    .popsection
"#
);

unsafe extern "C" {
    /// Copies `count` bytes between ranges that do not overlap.
    pub fn copy_bytes(to: *mut u8, from: *const u8, count: usize);
}
