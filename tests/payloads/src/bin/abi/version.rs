//! `xen_version`, and numbers that are no hypercalls.

use core::arch::asm;

use payloads::machine::Machine;
use payloads::report::Test;
use payloads::xen::{errno, op};
use payloads::{expect, expect_eq, tests};

use crate::{NOWHERE, call, raw};

pub const TESTS: [Test; 5] = tests![numbers, strings, features, unknown_hypercalls, without_the_mmu];

fn numbers(_: &Machine<'static>) {
    expect_eq!(raw(op::XEN_VERSION, [0; 5]), 4 << 16 | 17);
    // XENVER_pagesize.
    expect_eq!(raw(op::XEN_VERSION, [7, 0, 0, 0, 0]), 4096);
    // XENVER_platform_parameters: where the hypervisor's part of a PV guest would start.
    let mut parameters = [u64::MAX];
    expect_eq!(call(op::XEN_VERSION, 5, &mut parameters), 0);
    expect_eq!(parameters[0], 0x20_0000);
    for command in [11, 12, 63, 0xffff_ffff] {
        expect_eq!(raw(op::XEN_VERSION, [command, 0, 0, 0, 0]), errno::ENOSYS);
    }
    // The command is an int: what is above it does not count.
    expect_eq!(raw(op::XEN_VERSION, [1 << 32, 0, 0, 0, 0]), 4 << 16 | 17);
}

fn strings(_: &Machine<'static>) {
    let mut text = [0xff_u8; 1024];
    // XENVER_extraversion.
    expect_eq!(call(op::XEN_VERSION, 1, &mut text), 0);
    expect!(text[..16].contains(&0), "extraversion does not end");
    expect_eq!(text[16], 0xff);
    // XENVER_compile_info: compiler 64, by 16, domain 32, date 32.
    text.fill(0xff);
    expect_eq!(call(op::XEN_VERSION, 2, &mut text), 0);
    expect!(
        [0..64, 64..80, 80..112, 112..144].iter().all(|r| text[r.clone()].contains(&0)),
        "a string does not end"
    );
    expect_eq!(text[144], 0xff);
    // XENVER_capabilities.
    text.fill(0xff);
    expect_eq!(call(op::XEN_VERSION, 3, &mut text), 0);
    expect!(text.starts_with(b"xen-3.0-aarch64 "), "capabilities do not name xen-3.0-aarch64");
    expect_eq!(text[1023], 0);
    // XENVER_changeset.
    text.fill(0xff);
    expect_eq!(call(op::XEN_VERSION, 4, &mut text), 0);
    expect!(text[..64].contains(&0), "changeset does not end");
    expect_eq!(text[64], 0xff);
    // XENVER_guest_handle: all zeros until the toolstack sets it.
    text.fill(0xff);
    expect_eq!(call(op::XEN_VERSION, 8, &mut text), 0);
    expect_eq!(text[..17], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]);
    // XENVER_commandline.
    text.fill(0xff);
    expect_eq!(call(op::XEN_VERSION, 9, &mut text), 0);
    expect!(text.contains(&0), "the command line does not end");
    for command in [1, 2, 3, 4, 5, 6, 8, 9] {
        expect_eq!(raw(op::XEN_VERSION, [command, NOWHERE, 0, 0, 0]), errno::EFAULT);
    }
}

fn features(_: &Machine<'static>) {
    // XENVER_get_features: writable_page_tables, auto_translated_physmap, dom0, memory_op_vnode_supported,
    // ARM_SMCCC_supported, direct_mapped.
    let mut info = [0_u32, 0];
    expect_eq!(call(op::XEN_VERSION, 6, &mut info), 0);
    expect_eq!(info[1], 1 << 0 | 1 << 2 | 1 << 11 | 1 << 13 | 1 << 14 | 1 << 17);
    let mut info = [1_u32, 0];
    expect_eq!(call(op::XEN_VERSION, 6, &mut info), errno::EINVAL);
}

fn unknown_hypercalls(_: &Machine<'static>) {
    for number in
        [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 14, 15, 22, 23, 25, 26, 28, 30, 31, 38, 48, 55, 62, 63, 64, 1000]
    {
        expect_eq!((number, raw(number, [0; 5])), (number, errno::ENOSYS));
    }
    expect_eq!(raw(op::XEN_VERSION | 1 << 32, [0; 5]), errno::ENOSYS);
    expect_eq!(raw(u64::MAX, [0; 5]), errno::ENOSYS);
}

/// With stage 1 off, pointers are physical addresses.
fn without_the_mmu(_: &Machine<'static>) {
    #[repr(align(64))]
    struct Line([u8; 64]);
    let mut line = Line([0xff; 64]);
    let answer: i64;
    // SAFETY: code, stack and the buffer have the same address with stage 1 off; nothing but the hypervisor touches memory
    // meanwhile. The buffer's line is clean before, and its stale copy gone after (Arm ARM DDI 0487, B2.8).
    unsafe {
        asm!(
            "dc civac, {line}",
            "dsb sy",
            "mrs x9, sctlr_el1",
            "bic x10, x9, #1",
            "msr sctlr_el1, x10",
            "isb",
            "hvc #0xea1",
            "msr sctlr_el1, x9",
            "isb",
            "dc civac, {line}",
            "dsb sy",
            line = in(reg) line.0.as_mut_ptr(),
            inlateout("x0") 1_u64 => answer,
            inlateout("x1") line.0.as_mut_ptr() => _,
            inlateout("x16") op::XEN_VERSION => _,
            out("x2") _, out("x3") _, out("x4") _, out("x9") _, out("x10") _,
            options(nostack),
        );
    }
    expect_eq!(answer, 0);
    expect!(line.0[..16].contains(&0), "extraversion was not written");
    expect_eq!(line.0[16], 0xff);
}
