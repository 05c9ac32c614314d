//! `XENMEM_{increase,decrease}_reservation` and `XENMEM_populate_physmap`: memory given back and taken.
//!
//! ```text
//! list of extents ─ up to 256 at a time ─▶ stack ─▶ one batch: one lock, one invalidation ─▶ frames freed
//!                                                     └─ ends early when an interrupt is pending
//! ```
//! These calls have no error numbers: the result is how many extents were done, even 0.

use alloc::sync::Arc;

use pv_abi::errno::Errno;
use pv_abi::memory::{Reservation, XENMEMF_ADDRESS_BITS_MASK, XENMEMF_POPULATE_ON_DEMAND, XENMEMF_VNODE};
use stage2::{Gfn, Mfn, PAGE_SHIFT, Pa, Pages};

use super::super::{Caller, target};
use super::{MAX_EXTENTS, Progress, max_order, result};
use crate::arch;
use crate::domain::Domain;
use crate::mm::block::Block;
use crate::mm::{guest, memory};
use crate::p2m::Batch;

/// Extents handled in one batch: 2 KiB of EL2's stack.
const CHUNK: usize = 256;
/// Extents between two looks for interrupts.
const EXTENTS_PER_LOOK: usize = 32;

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
        let target = target(caller, reservation.domid).ok()?;
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

    fn allocate(&self) -> Option<Block> {
        match self.limit {
            None => memory().allocate(self.order),
            Some(limit) => memory().allocate_below(self.order, limit),
        }
    }

    /// Handles the extents from `start` on: `serve` gets the batch and an extent's guest frame.
    fn each_extent(
        &self,
        caller: &Caller<'_>,
        start: u64,
        mut serve: impl FnMut(&mut Batch<'_>, Gfn) -> Result<(), Errno>,
    ) -> Progress {
        let mut gfns = [0u64; CHUNK];
        let mut done = start;
        while done < self.extents {
            let wanted = usize::try_from(self.extents - done).map_or(CHUNK, |left| left.min(CHUNK));
            let Some(gfns) = gfns.get_mut(..wanted) else { break };
            let read = guest::read_array(caller, self.list.wrapping_add(done * 8), gfns);
            let mut refusal = None;
            let mut interrupted = false;
            let served = self.target.p2m.edit(|batch| {
                for (index, &gfn) in gfns.iter().take(read).enumerate() {
                    let first = index == 0 && done == start;
                    if index % EXTENTS_PER_LOOK == 0 && !first && arch::interrupt_pending() {
                        interrupted = true;
                        return index;
                    }
                    if let Err(errno) = serve(batch, Gfn::new(gfn)) {
                        refusal = Some(errno);
                        return index;
                    }
                }
                read
            });
            done += served as u64;
            if interrupted {
                return Progress::Interrupted(done);
            }
            // A batch that is full goes on as a new one.
            let full = refusal == Some(Errno::EBUSY) && served > 0;
            if served < wanted && !full {
                break;
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
pub(super) fn decrease(caller: &Caller<'_>, argument: u64, start: u64) -> Progress {
    let Some(request) = Request::read(caller, argument, start) else { return Progress::Done(result(start)) };
    let order = request.order;
    request.each_extent(caller, start, |batch, gfn| match order {
        0 => batch.give_page(gfn),
        _ => batch.give(gfn, order),
    })
}

/// Gives a domain memory at the guest frames it names, cleared; a direct-mapped domain its own, as it left it.
pub(super) fn populate(caller: &Caller<'_>, argument: u64, start: u64) -> Progress {
    let Some(request) = Request::read(caller, argument, start) else { return Progress::Done(result(start)) };
    if request.populate_on_demand {
        return Progress::Done(result(start));
    }
    let pages = request.pages_per_extent();
    if request.target.is_direct_mapped {
        return request
            .each_extent(caller, start, |batch, gfn| batch.map_own(gfn, Mfn::new(gfn.raw()), pages));
    }
    let account = &request.target.pages;
    // Charged ahead, some extents at a time; what is left over goes back.
    let mut charged = Pages::ZERO;
    let progress = request.each_extent(caller, start, |batch, gfn| {
        if charged < pages {
            let ahead = Pages::new((pages.get() * EXTENTS_PER_LOOK as u64).min(MOST_AHEAD.max(pages.get())));
            charged = charged.saturating_add(account.charge_up_to(ahead.saturating_sub(charged)));
        }
        let left = charged.checked_sub(pages).ok_or(Errno::ENOMEM)?;
        let block = request.allocate().ok_or(Errno::ENOMEM)?;
        batch.populate(gfn, block.clear())?;
        charged = left;
        Ok(())
    });
    account.refund(charged);
    progress
}

/// Pages that a call counts in advance at most.
const MOST_AHEAD: u64 = 512;

/// Gives a domain memory that is mapped nowhere. On arm64 it has no way to use it; Xen does the same.
pub(super) fn increase(caller: &Caller<'_>, argument: u64, start: u64) -> Progress {
    let Some(request) = Request::read(caller, argument, start) else { return Progress::Done(result(start)) };
    let mut done = start;
    while done < request.extents {
        if done != start && done % EXTENTS_PER_LOOK as u64 == 0 && arch::interrupt_pending() {
            return Progress::Interrupted(done);
        }
        if request.target.pages.charge(request.pages_per_extent()).is_err() {
            break;
        }
        let Some(block) = request.allocate() else {
            request.target.pages.refund(request.pages_per_extent());
            break;
        };
        block.clear().give_to(request.target.id);
        done += 1;
    }
    Progress::Done(result(done))
}
