// What a Raspberry Pi 4's ARM cores run before the kernel, for QEMU: the hand-over of the board's firmware without PSCI.
//
// The firmware puts its stub at address 0, where all four cores come out of reset at EL3, and tells it by two words where the
// device tree and the kernel are. Written from these facts, not from the firmware's own stub: `docs/raspberry-pi-4.md`.
//
//   0x00  entry             0xd8, 0xe0, 0xe8, 0xf0  spin table: 64-bit entry of cores 0 to 3, 0 = wait
//   0xf0  magic, version    that this is a stub; whoever fills in the words below clears it, it is core 3's slot
//   0xf8  device tree, 32-bit address           0xfc  kernel, 32-bit address

        .equ    LOCAL_CONTROL, 0xff800000       // the ARM-local block: the counter's source and prescaler
        .equ    LOCAL_PRESCALER, 0xff800008
        .equ    GICD, 0xff841000                // bcm2711.dtsi, interrupt-controller@40041000
        .equ    GICC, 0xff842000

        .section .head, "ax"
        .global _head
_head:  b       start

        .org    0xd8
spin_table:
        .quad   0, 0, 0
magic:  .word   0x5afe570b, 0
tree:   .word   0
kernel: .word   0

start:  mrs     x19, mpidr_el1
        and     x19, x19, #3

        // The system counter counts the crystal's 54 MHz, undivided.
        ldr     x0, =LOCAL_CONTROL
        str     wzr, [x0]
        mov     w1, #0x80000000
        ldr     x0, =LOCAL_PRESCALER
        str     w1, [x0]
        ldr     x0, =54000000
        msr     cntfrq_el0, x0
        msr     cntvoff_el2, xzr

        // L2CTLR_EL1: RAM latencies (Cortex-A72 TRM).
        mrs     x0, s3_1_c11_c0_2
        mov     x1, #0x22
        orr     x0, x0, x1
        msr     s3_1_c11_c0_2, x0
        // No trap of floating point to EL3.
        msr     cptr_el3, xzr
        // EL2 is Non-secure, AArch64, has HVC; SMC is UNDEFINED: RW, HCE, SMD, RES1, NS.
        mov     x0, #0x5b1
        msr     scr_el3, x0
        // EL2 and EL1 may write CPUACTLR, CPUECTLR, L2CTLR, L2ECTLR, L2ACTLR (TRM).
        mov     x0, #0x73
        msr     actlr_el3, x0
        // CPUECTLR_EL1.SMPEN: this core takes part in coherency.
        mov     x0, #0x40
        msr     s3_1_c15_c2_1, x0

        // All interrupts are group 1, the Non-secure world's; each core sees its own of the first 32.
        ldr     x0, =GICD
        ldr     w1, [x0, #4]                    // GICD_TYPER.ITLinesNumber
        and     w1, w1, #0x1f
        add     x2, x0, #0x80                   // GICD_IGROUPR0
        mov     w3, #-1
1:      str     w3, [x2], #4
        subs    w1, w1, #1
        b.pl    1b
        mov     w1, #3                          // both groups on
        str     w1, [x0]
        ldr     x0, =GICC
        mov     w1, #0xff                       // GICC_PMR: every priority
        str     w1, [x0, #4]
        mov     w1, #0x1e7                      // GICC_CTLR: both groups on, group 0 as FIQ, no bypass
        str     w1, [x0]
        dsb     sy

        ldr     x0, =0x30c50830                 // RES1, little-endian, MMU and caches off
        msr     sctlr_el2, x0
        mov     x0, #0x3c9                      // EL2h, all masked
        msr     spsr_el3, x0
        adr     x0, at_el2
        msr     elr_el3, x0
        isb
        eret

at_el2: adr     x4, spin_table
        add     x4, x4, x19, lsl #3
        ldr     w5, kernel
        ldr     w0, tree
        cbz     x19, 3f
        mov     x0, #0
2:      wfe
        ldr     x5, [x4]
        cbz     x5, 2b
3:      mov     x1, #0
        mov     x2, #0
        mov     x3, #0
        br      x5

        .ltorg
