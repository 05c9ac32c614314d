//! `XENMEM_{increase,decrease}_reservation` and `XENMEM_populate_physmap`: memory given back and taken.
//!
//! ```text
//! ┌ one batch: the p2m locked, one invalidation at the end ─────────────┐
//! │ 32 numbers of the list ─▶ stack ─▶ map or unmap ─▶ interrupt? ─ no ─┐│ ─▶ frames freed
//! │          ▲──────────────────────────────── up to 512 extents ───────┘│
//! └───────────────────────────────────────────────────────────────────────┘
//! ```
//! These calls have no error numbers: the result is how many extents were done, even 0. They are kept out of line, so
//! that only who needs their buffers has them on its stack.

use alloc::sync::Arc;

use arrayvec::ArrayVec;
use pv_abi::errno::Errno;
use pv_abi::memory::{Reservation, XENMEMF_ADDRESS_BITS_MASK, XENMEMF_POPULATE_ON_DEMAND, XENMEMF_VNODE};
use stage2::{BlockSize, Gfn, Mfn, PAGE_SHIFT, Pa, Pages};

use super::super::Caller;
use super::{MAX_EXTENTS, Progress, max_order, result};
use crate::arch;
use crate::domain::{Domain, life};
use crate::mm::block::Block;
use crate::mm::{guest, memory};
use crate::p2m::Batch;
use crate::privilege::{self, Action};

/// Extents read at once, and handled between two looks for interrupts.
const CHUNK: usize = 32;
/// Extents handled in one batch, while other CPUs wait for the domain's p2m: what Linux's balloon gives in one call.
const BATCH: u64 = 512;

/// Why a batch ended before the list did.
enum Stop {
    /// It has its share.
    Share,
    /// It can note no more; the next can.
    Full,
    /// An interrupt is pending.
    Interrupt,
    /// Its number could not be read.
    Unread,
    /// An extent was refused.
    Refused,
}

/// A checked request.
struct Request {
    target: Arc<Domain>,
    list: u64,
    extents: u64,
    order: u32,
    /// The memory is wanted below this address.
    limit: Option<Pa>,
    populate_on_demand: bool,
}

impl Request {
    /// Reads the structure; `None` where Xen answers that nothing was done.
    fn read(caller: &Caller<'_>, argument: u64, start: u64) -> Option<Self> {
        let reservation: Reservation = guest::read(caller, argument).ok()?;
        if reservation.nr_extents > MAX_EXTENTS || start >= reservation.nr_extents {
            return None;
        }
        let target = privilege::subject(caller, Action::SizeMemory, reservation.domid).ok()?;
        let limit = address_limit(reservation.mem_flags)?;
        if reservation.extent_order > max_order(caller.domain) {
            return None;
        }
        Some(Self {
            target,
            list: reservation.extent_start.raw(),
            extents: reservation.nr_extents,
            order: reservation.extent_order,
            limit,
            populate_on_demand: reservation.mem_flags & XENMEMF_POPULATE_ON_DEMAND != 0,
        })
    }

    fn pages_per_extent(&self) -> Pages {
        Pages::new(1 << self.order)
    }

    /// Counts no longer what was counted for extents that were not done.
    fn refund(&self, pages: Pages) {
        life::refund(&self.target, pages);
    }

    fn allocate(&self) -> Option<Block> {
        memory().allocate_for(&self.target.pages, self.order, self.limit)
    }

    /// Handles the extents from `start` on: `serve` gets the batch, an extent's guest frame, and the numbers that are known
    /// from there on, this one the first.
    fn each_extent(
        &self,
        caller: &Caller<'_>,
        start: u64,
        mut serve: impl FnMut(&mut Batch<'_>, Gfn, &[u64]) -> Result<(), Errno>,
    ) -> Progress {
        let is_own = Arc::ptr_eq(&self.target, caller.domain);
        let mut gfns = [0u64; CHUNK];
        let mut done = start;
        while done < self.extents {
            let begun = done;
            let end = self.extents.min(begun.saturating_add(BATCH));
            let stop = self.target.p2m.edit(|batch| {
                while done < end {
                    if done != start && arch::interrupt_pending() {
                        return Stop::Interrupt;
                    }
                    let wanted = usize::try_from(end - done).map_or(CHUNK, |left| left.min(CHUNK));
                    let Some(gfns) = gfns.get_mut(..wanted) else { return Stop::Refused };
                    let list = self.list.wrapping_add(done * 8);
                    // Another's p2m is locked: the caller's own comes after it in the lock order.
                    let read = if is_own {
                        guest::read_array_in_batch(batch, list, gfns)
                    } else {
                        guest::read_array(caller, list, gfns)
                    };
                    for (index, &gfn) in gfns.iter().enumerate().take(read) {
                        match serve(batch, Gfn::new(gfn), &gfns[index..read]) {
                            Ok(()) => done += 1,
                            Err(Errno::EBUSY) if done != begun => return Stop::Full,
                            Err(Errno::EAGAIN) => return Stop::Interrupt,
                            Err(_) => return Stop::Refused,
                        }
                    }
                    if read < wanted {
                        return Stop::Unread;
                    }
                }
                Stop::Share
            });
            match stop {
                Stop::Share | Stop::Full => {}
                Stop::Interrupt => return Progress::Interrupted(done),
                // Outside the batch, memory on demand can be read, too.
                Stop::Unread
                    if done != begun
                        || guest::read_array(caller, self.list.wrapping_add(done * 8), &mut gfns[..1])
                            == 1 => {}
                Stop::Unread | Stop::Refused => break,
            }
        }
        Progress::Done(result(done))
    }
}

/// The limit that `mem_flags` sets, if it does; `None` for flags that are refused. Nodes are numbered from 0, and
/// there is one.
fn address_limit(mem_flags: u32) -> Option<Option<Pa>> {
    let node = mem_flags >> 8 & 0xff;
    if mem_flags & XENMEMF_VNODE != 0 || node > 1 {
        return None;
    }
    let bits = mem_flags & XENMEMF_ADDRESS_BITS_MASK;
    let all = memory().end().raw().next_power_of_two().ilog2() + PAGE_SHIFT;
    match bits {
        0 => Some(None),
        bits if bits >= all => Some(None),
        bits if bits <= PAGE_SHIFT => None,
        bits => Some(Some(Pa::new(1 << bits))),
    }
}

/// Gives memory back. A direct-mapped domain only loses the mapping: devices know its memory by machine address, so
/// it must find the same frames again.
#[inline(never)]
pub(super) fn decrease(caller: &Caller<'_>, argument: u64, start: u64) -> Progress {
    let Some(request) = Request::read(caller, argument, start) else { return Progress::Done(result(start)) };
    let order = request.order;
    request.each_extent(caller, start, |batch, gfn, _| match order {
        0 => batch.give_page(gfn),
        _ => batch.give(gfn, order),
    })
}

/// Gives a domain memory at the guest frames it names, cleared; a direct-mapped domain its own, as it left it.
#[inline(never)]
pub(super) fn populate(caller: &Caller<'_>, argument: u64, start: u64) -> Progress {
    let Some(request) = Request::read(caller, argument, start) else { return Progress::Done(result(start)) };
    let pages = request.pages_per_extent();
    if request.populate_on_demand {
        // Only for another, as in Xen: a guest that could mark its holes would get memory without asking for it.
        if Arc::ptr_eq(&request.target, caller.domain) {
            return Progress::Done(result(start));
        }
        return request.each_extent(caller, start, |batch, gfn, _| batch.mark_on_demand(gfn, pages));
    }
    if request.target.is_direct_mapped {
        return request
            .each_extent(caller, start, |batch, gfn, _| batch.map_own(gfn, Mfn::new(gfn.raw()), pages));
    }
    let account = &request.target.pages;
    if request.order != 0 || request.limit.is_some() {
        return request.each_extent(caller, start, |batch, gfn, _| {
            account.charge(pages)?;
            let populated = match request.allocate() {
                Some(block) => match block.clear_unless(arch::interrupt_pending) {
                    Ok(block) => batch.populate(gfn, block),
                    Err(_) => Err(Errno::EAGAIN),
                },
                None => Err(Errno::ENOMEM),
            };
            populated.inspect_err(|_| account.refund(pages))
        });
    }
    // Single pages: counted and allocated as they follow one another in the list, where they make up blocks of 2 MiB; what is
    // left over goes back.
    let mut fresh = ArrayVec::<Block, CHUNK>::new();
    let mut charged = Pages::ZERO;
    let progress = request.each_extent(caller, start, |batch, gfn, list| {
        if fresh.is_empty() {
            let to_block_end =
                BlockSize::Block2M.pages().get() - gfn.raw() % BlockSize::Block2M.pages().get();
            let follows = |pair: &(&u64, u64)| *pair.0 == pair.1;
            let run = list.iter().zip(gfn.raw()..).take_while(follows).count() as u64;
            let run = Pages::new(run.min(to_block_end));
            charged = charged.saturating_add(account.charge_up_to(run.saturating_sub(charged)));
            let count = usize::try_from(charged.min(run).get()).unwrap_or(CHUNK);
            memory().allocate_singles(account, batch.place(gfn), count, &mut fresh);
        }
        let block = fresh.pop().ok_or(Errno::ENOMEM)?;
        batch.populate(gfn, block.clear())?;
        charged = charged.saturating_sub(Pages::ONE);
        Ok(())
    });
    request.refund(charged);
    progress
}

/// Gives a domain memory that is mapped nowhere. On arm64 it has no way to use it; Xen does the same.
#[inline(never)]
pub(super) fn increase(caller: &Caller<'_>, argument: u64, start: u64) -> Progress {
    let Some(request) = Request::read(caller, argument, start) else { return Progress::Done(result(start)) };
    let mut done = start;
    while done < request.extents {
        if done != start && done.is_multiple_of(CHUNK as u64) && arch::interrupt_pending() {
            return Progress::Interrupted(done);
        }
        if request.target.pages.charge(request.pages_per_extent()).is_err() {
            break;
        }
        let Some(block) = request.allocate() else {
            request.refund(request.pages_per_extent());
            break;
        };
        let Ok(block) = block.clear_unless(arch::interrupt_pending) else {
            request.refund(request.pages_per_extent());
            return Progress::Interrupted(done);
        };
        if request.target.p2m.add_unmapped(block).is_err() {
            request.refund(request.pages_per_extent());
            break;
        }
        done += 1;
    }
    Progress::Done(result(done))
}
