//! From the first instruction to the payload's `payload_main`: header, relocation, MMU, stacks.
//!
//! ```text
//! primary (x0 = tree)                    secondary (PSCI CPU_ON, x0 = index)
//!   relocate, clear .bss, fill map         |
//!   mmu_on  <------------------------------+
//!   start_primary -> payload_main          start_secondary -> the function given to CPU_ON
//! ```
//!
//! The Image protocol is Linux's (`Documentation/arch/arm64/booting.rst`): entered at EL1 with the MMU off, the image
//! clean to the point of coherency, loaded at any multiple of 2 MiB.

use core::arch::global_asm;
use core::slice;

use fdt::Fdt;

use crate::machine::{Machine, Range};
use crate::{console, paging, println, report};

/// Processors a payload can use.
pub const MAX_CPUS: usize = 8;

/// log2 of the size of one processor's stack.
const STACK_SHIFT: usize = 16;

global_asm!(
    r#"
    .section .bss.stacks, "aw", %nobits
    .balign 4096
stacks:
    .skip   {max_cpus} << {stack_shift}

    .section .head, "ax"
    .global _head
_head:
    b       _start
    .long   0
    .quad   0                       // text_offset
    .quad   _image_size
    .quad   0xa                     // little-endian, 4 KiB pages, anywhere in memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

_start:
    msr     daifset, #15
    mov     x19, x0
    bl      clean_and_invalidate_image
    adrp    x1, _head               // the image is 4 KiB aligned: its address is its page
    adrp    x2, _rela_start
    add     x2, x2, :lo12:_rela_start
    adrp    x3, _rela_end
    add     x3, x3, :lo12:_rela_end
1:  cmp     x2, x3
    b.hs    2f
    ldp     x4, x5, [x2], #16
    ldr     x6, [x2], #8
    cmp     w5, #1027               // R_AARCH64_RELATIVE, the only kind a static image has
    b.ne    1b
    add     x6, x6, x1
    str     x6, [x1, x4]
    b       1b
2:  adrp    x2, _bss_start
    adrp    x3, _bss_end
3:  cmp     x2, x3
    b.hs    4f
    stp     xzr, xzr, [x2], #16
    b       3b
4:  mov     x20, #0
    bl      take_stack
    adrp    x0, _head
    mov     x1, x19
    bl      fill_identity_map
    bl      clean_and_invalidate_image
    bl      mmu_on
    mov     x0, x19
    bl      start_primary
    b       .

    .global secondary_entry
secondary_entry:
    msr     daifset, #15
    mov     x20, x0
    bl      take_stack
    bl      mmu_on
    mov     x0, x20
    bl      start_secondary
    b       .

// x20: index of this processor. Sets SP to the top of its stack and TPIDR_EL1 to the index.
take_stack:
    adrp    x9, stacks
    add     x10, x20, #1
    add     x9, x9, x10, lsl #{stack_shift}
    mov     sp, x9
    msr     tpidr_el1, x20
    ret

// What was written with the MMU off must not be hidden by lines cached before, and the other way round. With a stage 2,
// DC IVAC cleans too (Arm ARM DDI 0487, D7.5.9.4), so this runs both before the writes and after them.
clean_and_invalidate_image:
    adrp    x9, _head
    adrp    x10, _image_end
    mrs     x11, ctr_el0
    ubfx    x11, x11, #16, #4       // DminLine: log2 of words
    mov     x12, #4
    lsl     x12, x12, x11
1:  dc      civac, x9
    add     x9, x9, x12
    cmp     x9, x10
    b.lo    1b
    dsb     sy
    ic      iallu
    dsb     sy
    isb
    ret

mmu_on:
    adrp    x9, exception_vectors
    add     x9, x9, :lo12:exception_vectors
    msr     vbar_el1, x9
    mov     x9, #0x04ff             // MAIR: 0 normal write-back, 1 Device-nGnRE
    msr     mair_el1, x9
    mrs     x10, id_aa64mmfr0_el1
    and     x10, x10, #7            // PARange, the IPS encoding for all sizes up to 52 bits
    mov     x9, #0x3519             // T0SZ 25, inner and outer write-back, inner shareable
    movk    x9, #0x80, lsl #16      // EPD1: no walks by TTBR1
    bfi     x9, x10, #32, #3
    msr     tcr_el1, x9
    adrp    x9, IDENTITY_MAP
    msr     ttbr0_el1, x9
    tlbi    vmalle1
    dsb     nsh
    isb
    mov     x9, #0x1805             // M, C, I and the RES1 bits
    movk    x9, #0x30d0, lsl #16
    msr     sctlr_el1, x9
    isb
    ret
"#,
    stack_shift = const STACK_SHIFT,
    max_cpus = const MAX_CPUS,
);

unsafe extern "C" {
    static _image_start: u8;
    static _image_end: u8;
    static _data_start: u8;
    fn secondary_entry();
}

unsafe extern "Rust" {
    /// The payload's own program, given by its binary with `#[unsafe(no_mangle)]`.
    safe fn payload_main(machine: &Machine<'static>);
}

/// Where a processor started by PSCI must enter; x0 is its index.
pub fn secondary_entry_address() -> u64 {
    secondary_entry as *const () as u64
}

/// The memory the image occupies, `.bss` and stacks included.
pub fn image() -> Range {
    Range { start: &raw const _image_start as u64, end: &raw const _image_end as u64 }
}

/// A checksum of the program's code and constants, which nothing may change.
pub fn checksum_of_constants() -> u64 {
    let length = &raw const _data_start as usize - image().start as usize;
    // SAFETY: code and constants are initialized and, once relocated, written by nobody.
    let bytes = unsafe { slice::from_raw_parts(&raw const _image_start, length) };
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[unsafe(no_mangle)]
extern "C" fn start_primary(tree_address: u64) -> ! {
    let pointer = tree_address as *const u8;
    // SAFETY: the Image protocol puts a device tree at this 8-byte aligned address; the header is within its first 8 bytes.
    let header = unsafe { slice::from_raw_parts(pointer, 8) };
    let size = header.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    // SAFETY: the header says that so many bytes belong to the tree, and nothing writes them.
    let bytes: &'static [u8] = unsafe { slice::from_raw_parts(pointer, size as usize) };
    match Fdt::new(bytes) {
        Ok(tree) => {
            let used = [image(), Range::sized(tree_address, u64::from(size))];
            let machine = Machine::from_tree(&tree, &used);
            paging::map_memory(&machine.memory);
            console::init();
            payload_main(&machine);
        }
        Err(error) => println!("payload: the device tree is unusable: {error:?}"),
    }
    report::finish()
}

/// What a secondary processor runs: its index, as given to `psci::start_cpu`.
#[unsafe(no_mangle)]
extern "C" fn start_secondary(index: u64) -> ! {
    crate::psci::run_secondary(index)
}

/// The index of the processor that runs this: 0 for the first, else as given to `psci::start_cpu`.
pub fn cpu_index() -> usize {
    crate::read_sysreg!("tpidr_el1") as usize
}
