//! `grant_table_op`: sizes, versions, and references that do not exist.

use payloads::machine::Machine;
use payloads::report::Test;
use payloads::xen::{DOMID_SELF, errno, op};
use payloads::{expect, expect_eq, tests};

use crate::{NOBODY, NOWHERE, raw};

pub const TESTS: [Test; 4] = tests![sizes, versions, references, refused];

const BAD_DOMAIN: i16 = -2;
const BAD_REFERENCE: i16 = -3;
const BAD_HANDLE: i16 = -4;

fn one<T>(command: u64, argument: &mut T) -> i64 {
    raw(op::GRANT_TABLE_OP, [command, &raw mut *argument as u64, 1, 0, 0])
}

/// `gnttab_query_size`.
#[repr(C)]
#[derive(Default)]
struct QuerySize {
    dom: u16,
    nr_frames: u32,
    max_nr_frames: u32,
    status: i16,
}

fn sizes(_: &Machine<'static>) {
    let mut query = QuerySize { dom: DOMID_SELF, ..Default::default() };
    expect_eq!(one(6, &mut query), 0);
    expect_eq!(query.status, 0);
    expect!(query.nr_frames >= 1, "no frames");
    expect_eq!(query.max_nr_frames, 64);
    let mut query = QuerySize { dom: NOBODY, ..Default::default() };
    expect_eq!(one(6, &mut query), 0);
    expect_eq!(query.status, BAD_DOMAIN);
}

fn versions(_: &Machine<'static>) {
    // gnttab_get_version: dom, pad, version. gnttab_set_version: version.
    let mut version = [u32::from(DOMID_SELF), 0];
    expect_eq!(one(10, &mut version), 0);
    expect_eq!(version[1], 1);
    for (wanted, answer) in [(1, 0), (3, errno::EINVAL), (0, errno::EINVAL), (2, errno::ENOSYS)] {
        let mut version = wanted;
        expect_eq!((wanted, one(8, &mut version)), (wanted, answer));
    }
}

/// `gnttab_map_grant_ref`.
#[repr(C)]
#[derive(Default)]
struct Map {
    host_addr: u64,
    flags: u32,
    reference: u32,
    dom: u16,
    status: i16,
    handle: u32,
    dev_bus_addr: u64,
}

/// `gnttab_unmap_grant_ref`.
#[repr(C)]
#[derive(Default)]
struct Unmap {
    host_addr: u64,
    dev_bus_addr: u64,
    handle: u32,
    status: i16,
}

fn references(machine: &Machine<'static>) {
    let address = machine.free(4096, 4096).map_or(0, |page| page.start);
    // GNTMAP_host_map.
    let mut map = Map { host_addr: address, flags: 2, reference: 1 << 30, dom: 0, ..Default::default() };
    expect_eq!(one(0, &mut map), 0);
    expect_eq!(map.status, BAD_REFERENCE);
    let mut map = Map { host_addr: address, flags: 2, reference: 8, dom: NOBODY, ..Default::default() };
    expect_eq!(one(0, &mut map), 0);
    expect_eq!(map.status, BAD_DOMAIN);
    // Neither for the processor nor for a device.
    let mut map = Map { host_addr: address, flags: 0, reference: 8, dom: 0, ..Default::default() };
    expect_eq!(one(0, &mut map), 0);
    expect_eq!(map.status, BAD_REFERENCE);
    let mut unmap = Unmap { host_addr: address, handle: 77, ..Default::default() };
    expect_eq!(one(1, &mut unmap), 0);
    expect_eq!(unmap.status, BAD_HANDLE);
}

fn refused(_: &Machine<'static>) {
    for command in [0, 1, 2, 5, 6, 8, 10, 12] {
        expect_eq!((command, raw(op::GRANT_TABLE_OP, [command, NOWHERE, 1, 0, 0])), (command, errno::EFAULT));
    }
    // Nothing to do is done.
    for command in [0, 1, 5] {
        expect_eq!((command, raw(op::GRANT_TABLE_OP, [command, NOWHERE, 0, 0, 0])), (command, 0));
    }
    for command in [14, 99] {
        expect_eq!((command, raw(op::GRANT_TABLE_OP, [command, NOWHERE, 1, 0, 0])), (command, errno::ENOSYS));
    }
    // setup_table, query_size: one at a time. Counts are ints.
    for command in [2, 6] {
        expect_eq!((command, raw(op::GRANT_TABLE_OP, [command, NOWHERE, 2, 0, 0])), (command, errno::EINVAL));
    }
    expect_eq!(raw(op::GRANT_TABLE_OP, [0, NOWHERE, 1 << 31, 0, 0]), errno::EINVAL);
}
