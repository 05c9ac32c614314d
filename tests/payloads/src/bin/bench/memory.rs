//! Costs of giving memory back and taking it again, per page and per 2 MiB extent.

use core::cell::UnsafeCell;

use payloads::machine::{Machine, Range};
use payloads::xen::memory::{DECREASE_RESERVATION, POPULATE_PHYSMAP, Reservation};
use payloads::xen::{DOMID_SELF, op};
use payloads::{expect, hypercall, println, timer};

use super::result;

/// Pages in one call, as a balloon driver's largest one.
const PAGES: usize = 2048;
const PAGE: u64 = 4096;
const SUPERPAGE: u64 = 2 << 20;
const ROUNDS: u64 = 3;

/// Frame numbers for the calls. Only this module's functions, on the first processor, touch it.
struct Frames(UnsafeCell<[u64; PAGES]>);
// SAFETY: used by the first processor alone.
unsafe impl Sync for Frames {}
static FRAMES: Frames = Frames(UnsafeCell::new([0; PAGES]));

fn fill(first: u64, step: u64, count: usize) {
    // SAFETY: the only reference, gone before the hypervisor uses the list.
    let frames = unsafe { &mut *FRAMES.0.get() };
    for (i, frame) in frames.iter_mut().take(count).enumerate() {
        *frame = first + i as u64 * step;
    }
}

/// One call; gives its result and its ticks. Continuations count.
fn call(command: u64, count: usize, order: u32) -> (i64, u64) {
    let mut reservation = Reservation {
        extent_start: FRAMES.0.get() as u64,
        nr_extents: count as u64,
        extent_order: order,
        mem_flags: 0,
        domid: DOMID_SELF,
    };
    let start = timer::ticks();
    // SAFETY: the list names only pages of the range that `free` found, which nothing uses.
    let done = unsafe { hypercall::with_struct(op::MEMORY_OP, command, &mut reservation) };
    (done, timer::ticks() - start)
}

fn round_trips(name: &str, range: Range, order: u32, count: usize, rounds: u64) {
    let step = 1 << order;
    let (mut give, mut take) = (0, 0);
    for _ in 0..rounds {
        for (command, what, ticks) in
            [(DECREASE_RESERVATION, "give", &mut give), (POPULATE_PHYSMAP, "take", &mut take)]
        {
            fill(range.start / PAGE, step, count);
            let (done, spent) = call(command, count, order);
            if done != count as i64 {
                println!("bench {what}-{name} none ({done} of {count})");
                expect!(false, "{what}-{name}: {done} of {count} extents");
                return;
            }
            *ticks += spent;
        }
    }
    let operations = rounds * count as u64;
    println!("note {name}: per extent of order {order}, {count} in a call");
    for (what, ticks) in [("give", give), ("take", take)] {
        print_pair(what, name, ticks, operations);
    }
}

fn print_pair(what: &str, name: &str, ticks: u64, operations: u64) {
    let mut full = arrayvec::ArrayString::<32>::new();
    let _ = full.try_push_str(what);
    let _ = full.try_push_str("-");
    let _ = full.try_push_str(name);
    result(&full, ticks, operations, 0);
}

fn pages(range: Range) -> impl Iterator<Item = u64> {
    (range.start..range.end).step_by(PAGE as usize)
}

pub fn measure(machine: &Machine<'_>) {
    let Some(range) = machine.free(PAGES as u64 * PAGE, SUPERPAGE) else {
        expect!(false, "no free 8 MiB");
        return;
    };
    // Superpages first: the other order would measure what is left of split mappings.
    round_trips("2m", range, 9, 1, ROUNDS);
    round_trips("4k", range, 0, PAGES, ROUNDS);
    // What a domain gives away must not come back to somebody with its contents; to dom0 itself it may, mapped 1:1 on Xen.
    for address in pages(range) {
        // SAFETY: the page belongs to nobody in this payload.
        unsafe { (address as *mut u64).write_volatile(!0) };
    }
    round_trips("4k-dirty", range, 0, PAGES, 1);
    let dirty = pages(range)
        // SAFETY: as above, and mapped again by now.
        .filter(|&address| unsafe { (address as *const u64).read_volatile() } != 0)
        .count();
    println!("note memory: {dirty} of {PAGES} pages came back with contents");
}
