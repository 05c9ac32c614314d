//! `memory_op`: figures, giving pages back and taking them, mapping, and what is refused.

use payloads::exceptions::{Width, try_read};
use payloads::machine::{Machine, Range};
use payloads::report::Test;
use payloads::xen::memory::{self, AddToPhysmap, Reservation};
use payloads::xen::{DOMID_SELF, errno, op};
use payloads::{expect, expect_eq, tests};

use crate::{NOBODY, NOWHERE, call, raw};

pub const TESTS: [Test; 5] = tests![figures, give_and_take, buffers_at_a_hole, mapping, refused];

fn ask(command: u64, domid: u16) -> i64 {
    let mut domid = domid;
    call(op::MEMORY_OP, command, &mut domid)
}

fn figures(machine: &Machine<'static>) {
    // What firmware reserved is described as memory, too, but is not the domain's.
    let is_own = |bank: &&Range| !machine.reserved.iter().any(|r| r.start <= bank.start && bank.end <= r.end);
    let pages: u64 = machine.memory.iter().filter(is_own).map(|bank| (bank.end - bank.start) / 4096).sum();
    let current = ask(memory::CURRENT_RESERVATION, DOMID_SELF);
    expect!(current >= pages as i64, "{current} pages, but memory has {pages}");
    expect!(ask(memory::MAXIMUM_RESERVATION, DOMID_SELF) >= current, "more than the maximum");
    let highest = machine.memory.iter().map(|bank| bank.end / 4096 - 1).max().unwrap_or(0) as i64;
    expect!(ask(memory::MAXIMUM_GPFN, DOMID_SELF) >= highest, "maximum_gpfn is below memory's end");
    expect!(raw(op::MEMORY_OP, [memory::MAXIMUM_RAM_PAGE, 0, 0, 0, 0]) >= highest, "maximum_ram_page");
    for command in [memory::CURRENT_RESERVATION, memory::MAXIMUM_RESERVATION, memory::MAXIMUM_GPFN] {
        expect_eq!((command, ask(command, NOBODY)), (command, errno::ESRCH));
        expect_eq!((command, raw(op::MEMORY_OP, [command, NOWHERE, 0, 0, 0])), (command, errno::EFAULT));
    }
}

fn reservation(command: u64, frames: &mut [u64], order: u32) -> i64 {
    let mut argument = Reservation {
        extent_start: frames.as_mut_ptr() as u64,
        nr_extents: frames.len() as u64,
        extent_order: order,
        mem_flags: 0,
        domid: DOMID_SELF,
    };
    call(op::MEMORY_OP, command, &mut argument)
}

fn give_and_take(machine: &Machine<'static>) {
    let Some(range) = machine.free(4 << 20, 2 << 20) else { return expect!(false, "no free 4 MiB") };
    let frame = range.start / 4096;
    let mut frames = [frame, frame + 1, frame + 7];
    // Translations that the processor remembers must go with the page.
    for page in frames {
        expect!(try_read(page * 4096, Width::Word).is_ok(), "page {page:#x} is not there");
    }
    expect_eq!(reservation(memory::DECREASE_RESERVATION, &mut frames, 0), 3);
    for page in frames {
        expect!(try_read(page * 4096, Width::Word).is_err(), "page {page:#x} is still there");
    }
    expect!(try_read((frame + 2) * 4096, Width::Word).is_ok(), "a page between is gone");
    // What is gone cannot be given back again: the call stops there.
    expect_eq!(reservation(memory::DECREASE_RESERVATION, &mut [frame + 2, frame, frame + 3], 0), 1);
    expect_eq!(reservation(memory::POPULATE_PHYSMAP, &mut [frame, frame + 1, frame + 2, frame + 7], 0), 4);
    for page in frame..frame + 8 {
        expect!(try_read(page * 4096, Width::Word).is_ok(), "page {page:#x} did not come back");
    }
    // A superpage, whole.
    expect!(try_read((frame + 511) * 4096, Width::Word).is_ok(), "the superpage is not there");
    expect_eq!(reservation(memory::DECREASE_RESERVATION, &mut [frame], 9), 1);
    expect!(try_read((frame + 511) * 4096, Width::Word).is_err(), "the superpage is still there");
    expect!(try_read((frame + 512) * 4096, Width::Word).is_ok(), "too much is gone");
    expect_eq!(reservation(memory::POPULATE_PHYSMAP, &mut [frame], 9), 1);
    expect!(try_read((frame + 511) * 4096, Width::Word).is_ok(), "the superpage did not come back");
}

fn mapping(machine: &Machine<'static>) {
    let Some(range) = machine.free(2 << 20, 2 << 20) else { return expect!(false, "no free 2 MiB") };
    let frame = range.start / 4096;
    let add = |space: u32, idx: u64, gpfn: u64| {
        let mut argument = AddToPhysmap { domid: DOMID_SELF, size: 0, space, idx, gpfn };
        call(op::MEMORY_OP, memory::ADD_TO_PHYSMAP, &mut argument)
    };
    expect_eq!(reservation(memory::DECREASE_RESERVATION, &mut [frame], 0), 1);
    expect_eq!(add(memory::MAPSPACE_SHARED_INFO, 0, frame), 0);
    expect!(try_read(range.start, Width::Word).is_ok(), "shared_info is not there");
    expect_eq!(add(memory::MAPSPACE_SHARED_INFO, 1, frame), errno::EINVAL);
    // gmfn does not exist on Arm, gmfn_foreign only in batches, and there are six spaces.
    for space in [2, 4, 6, 99] {
        expect_eq!((space, add(space, 0, frame)), (space, errno::ENOSYS));
    }
    // remove_from_physmap: domain, frame.
    let remove = |domid: u16, gpfn: u64| {
        let mut argument = [u64::from(domid), gpfn];
        call(op::MEMORY_OP, memory::REMOVE_FROM_PHYSMAP, &mut argument)
    };
    expect_eq!(remove(DOMID_SELF, frame), 0);
    expect!(try_read(range.start, Width::Word).is_err(), "shared_info is still there");
    expect_eq!(remove(DOMID_SELF, frame), errno::ENOENT);
    expect_eq!(remove(NOBODY, frame), errno::ESRCH);
    expect_eq!(reservation(memory::POPULATE_PHYSMAP, &mut [frame], 0), 1);
}

fn refused(_: &Machine<'static>) {
    // Reservations whose structure cannot be read, or whose domain does not exist, do nothing: zero extents.
    for command in [memory::INCREASE_RESERVATION, memory::DECREASE_RESERVATION, memory::POPULATE_PHYSMAP] {
        expect_eq!((command, raw(op::MEMORY_OP, [command, NOWHERE, 0, 0, 0])), (command, 0));
        let mut argument =
            Reservation { nr_extents: 1, extent_start: NOWHERE, domid: NOBODY, ..Default::default() };
        expect_eq!((command, call(op::MEMORY_OP, command, &mut argument)), (command, 0));
        let mut argument =
            Reservation { nr_extents: 1, extent_start: NOWHERE, domid: DOMID_SELF, ..Default::default() };
        expect_eq!((command, call(op::MEMORY_OP, command, &mut argument)), (command, 0));
    }
    expect_eq!(reservation(memory::POPULATE_PHYSMAP, &mut [0], 40), 0);
    expect_eq!(reservation(memory::DECREASE_RESERVATION, &mut [1 << 40], 0), 0);
    for (command, answer) in [
        (memory::ADD_TO_PHYSMAP, errno::EFAULT),
        (memory::REMOVE_FROM_PHYSMAP, errno::EFAULT),
        (23, errno::EFAULT),
        (11, errno::EFAULT),
        (5, errno::ENOSYS),
        (9, errno::ENOSYS),
        (10, errno::ENOSYS),
        (12, errno::ENOSYS),
        (28, errno::EFAULT),
        (40, errno::ENOSYS),
        (63, errno::ENOSYS),
    ] {
        expect_eq!((command, raw(op::MEMORY_OP, [command, NOWHERE, 0, 0, 0])), (command, answer));
    }
}

/// A buffer that ends in a page without backing is refused, one that ends just before it is not, one may lie across pages.
fn buffers_at_a_hole(machine: &Machine<'static>) {
    let Some(range) = machine.free(2 << 20, 2 << 20) else { return expect!(false, "no free 2 MiB") };
    let hole = range.start + 4 * 4096;
    expect_eq!(reservation(memory::DECREASE_RESERVATION, &mut [hole / 4096], 0), 1);
    // XENVER_capabilities writes 1024 bytes, XENVER_extraversion 16.
    expect_eq!(raw(op::XEN_VERSION, [3, hole - 512, 0, 0, 0]), errno::EFAULT);
    expect_eq!(raw(op::XEN_VERSION, [3, hole - 1024, 0, 0, 0]), 0);
    expect_eq!(raw(op::XEN_VERSION, [3, hole - 1023, 0, 0, 0]), errno::EFAULT);
    expect_eq!(raw(op::XEN_VERSION, [3, hole - 4096 - 512, 0, 0, 0]), 0);
    expect_eq!(raw(op::XEN_VERSION, [3, hole - 4096 - 333, 0, 0, 0]), 0);
    expect_eq!(raw(op::XEN_VERSION, [1, hole + 4095, 0, 0, 0]), errno::EFAULT);
    expect_eq!(raw(op::XEN_VERSION, [1, hole + 4096, 0, 0, 0]), 0);
    expect_eq!(raw(op::XEN_VERSION, [1, u64::MAX - 7, 0, 0, 0]), errno::EFAULT);
    expect_eq!(reservation(memory::POPULATE_PHYSMAP, &mut [hole / 4096], 0), 1);
}
