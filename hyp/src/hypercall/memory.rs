//! `memory_op` (public header `memory.h`): what domains do about their memory, as Xen 4.17 answers on arm64.
//!
//! The command carries how far an interrupted call came: `op | extents done << 6`. Long calls look for interrupts
//! between extents and answer [`Outcome::Again`] with that number advanced. Numbers and lists come from the guest in
//! pieces, before the p2m is locked for the changes they ask for.

mod physmap;
mod reservation;
mod resource;
mod target;
#[cfg(test)]
mod tests;

use pv_abi::errno::Errno;
use pv_abi::memory::{
    Domain as DomainArgument, MemAccessOp, MemoryExchange, Op, Reservation, VnumaTopologyInfo,
};
use pv_abi::nacelle::{XENMEM_NACELLE_COUNTERS, XENMEM_NACELLE_WORKING_SET};

use super::{Caller, Outcome};
use crate::domain::{self, Domain};
use crate::mm::{guest, memory};
use crate::privilege::{self, Action};
use stage2::Pages;

/// Bits of the command that are the operation (`MEMOP_CMD_MASK`); the rest is the progress.
const COMMAND_BITS: u32 = 6;
/// The longest list whose progress a command can carry (Xen: `UINT_MAX >> MEMOP_EXTENT_SHIFT`).
const MAX_EXTENTS: u64 = (u32::MAX >> COMMAND_BITS) as u64;

/// How a long operation ended.
enum Progress {
    /// It did, with this result.
    Done(i64),
    /// It was interrupted after so many extents.
    Interrupted(u64),
}

/// Serves the call: x0 is the command, x1 the address of its structure.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    let [command, argument, ..] = *args;
    let start = command >> COMMAND_BITS;
    let raw = (command & ((1 << COMMAND_BITS) - 1)) as u32;
    let op = Op::try_from(raw).ok();
    let progress = match op {
        Some(Op::IncreaseReservation) => Ok(reservation::increase(caller, argument, start)),
        Some(Op::DecreaseReservation) => Ok(reservation::decrease(caller, argument, start)),
        Some(Op::PopulatePhysmap) => Ok(reservation::populate(caller, argument, start)),
        Some(Op::AddToPhysmap) => physmap::add(caller, argument, start),
        Some(Op::AddToPhysmapBatch) => physmap::add_batch(caller, argument, start),
        Some(Op::AcquireResource) => resource::acquire(caller, argument, start),
        Some(
            op @ (Op::MaximumRamPage
            | Op::CurrentReservation
            | Op::MaximumReservation
            | Op::MaximumGpfn
            | Op::Exchange
            | Op::RemoveFromPhysmap
            | Op::ClaimPages
            | Op::SetPodTarget
            | Op::GetPodTarget
            | Op::GetVnumainfo),
        ) => match start {
            0 => short(caller, op, argument).map(Progress::Done),
            _ => Err(Errno::EINVAL),
        },
        Some(Op::AccessOp) => access_op(caller, argument).map(Progress::Done),
        // No memory sharing: Xen's arm64 answers for its absence.
        Some(Op::GetSharingFreedPages | Op::GetSharingSharedPages) => Ok(Progress::Done(0)),
        None if raw == XENMEM_NACELLE_COUNTERS && start == 0 => {
            target::counters(caller, argument).map(Progress::Done)
        }
        None if raw == XENMEM_NACELLE_WORKING_SET => target::working_set(caller, argument, start),
        // What only x86 has, and numbers that nobody has.
        Some(
            Op::MachphysMfnList
            | Op::MemoryMap
            | Op::MachineMemoryMap
            | Op::MachphysMapping
            | Op::SetMemoryMap
            | Op::PagingOp
            | Op::SharingOp
            | Op::MachphysCompatMfnList
            | Op::ReservedDeviceMemoryMap,
        )
        | None => Err(Errno::ENOSYS),
    };
    match progress {
        Ok(Progress::Done(value)) => Outcome::Done(value),
        Ok(Progress::Interrupted(done)) => {
            let mut args = *args;
            args[0] = command & ((1 << COMMAND_BITS) - 1) | done << COMMAND_BITS;
            Outcome::Again(args)
        }
        Err(errno) => Outcome::Done(errno.into()),
    }
}

/// Operations that never take long.
fn short(caller: &Caller<'_>, op: Op, argument: u64) -> Result<i64, Errno> {
    match op {
        Op::MaximumRamPage => Ok(result(memory().end().raw())),
        Op::Exchange => exchange(caller, argument),
        Op::RemoveFromPhysmap => physmap::remove(caller, argument),
        Op::ClaimPages => claim(caller, argument),
        Op::SetPodTarget => target::set(caller, argument),
        Op::GetPodTarget => target::get(caller, argument),
        Op::GetVnumainfo => vnuma(caller, argument),
        _ => {
            let DomainArgument { domid } = guest::read(caller, argument)?;
            let target = privilege::subject(caller, Action::AskMemory, domid)?;
            Ok(match op {
                Op::CurrentReservation => result(target.pages.current().get()),
                Op::MaximumReservation => result(target.pages.maximum().get()),
                _ => result(target.p2m.highest().raw()),
            })
        }
    }
}

/// A count as a hypercall's result. No count here comes near the sign.
fn result(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The largest extent order that a domain may ask for (Xen's `memop-max-order` defaults).
fn max_order(domain: &Domain) -> u32 {
    if domain.is_control { 18 } else { 9 }
}

/// `XENMEM_exchange`: on arm64, Xen takes no page away from a domain this way, so after the checks it is `EINVAL`.
fn exchange(caller: &Caller<'_>, argument: u64) -> Result<i64, Errno> {
    let exchange: MemoryExchange = guest::read(caller, argument)?;
    let (give, take) = (&exchange.r#in, &exchange.out);
    if give.extent_order.max(take.extent_order) > max_order(caller.domain) {
        return Err(Errno::EPERM);
    }
    let fits =
        |r: &Reservation| u64::MAX.checked_shr(r.extent_order).is_some_and(|most| r.nr_extents <= most);
    if exchange.nr_exchanged > give.nr_extents
        || give.domid != take.domid
        || !fits(give)
        || !fits(take)
        || give.nr_extents << give.extent_order != take.nr_extents << take.extent_order
    {
        return Err(Errno::EINVAL);
    }
    privilege::subject(caller, Action::SizeMemory, give.domid)?;
    if exchange.nr_exchanged == give.nr_extents { Ok(0) } else { Err(Errno::EINVAL) }
}

/// `XENMEM_claim_pages`.
fn claim(caller: &Caller<'_>, argument: u64) -> Result<i64, Errno> {
    let reservation: Reservation = guest::read(caller, argument)?;
    if !reservation.extent_start.is_null() || reservation.extent_order != 0 || reservation.mem_flags != 0 {
        return Err(Errno::EINVAL);
    }
    let target = domain::find(reservation.domid).ok_or(Errno::EINVAL)?;
    privilege::may_to(caller.domain, Action::Claim, &target)?;
    target.pages.claim(Pages::new(reservation.nr_extents)).map(|()| 0)
}

/// `XENMEM_get_vnumainfo`: no domain has virtual nodes.
fn vnuma(caller: &Caller<'_>, argument: u64) -> Result<i64, Errno> {
    let topology: VnumaTopologyInfo = guest::read(caller, argument)?;
    if topology.pad != 0 {
        return Err(Errno::EINVAL);
    }
    privilege::subject(caller, Action::AskMemory, topology.domid)?;
    Err(Errno::EOPNOTSUPP)
}

/// `XENMEM_access_op`: as on a Xen where no one has set up the ring of memory events.
fn access_op(caller: &Caller<'_>, argument: u64) -> Result<i64, Errno> {
    let access: MemAccessOp = guest::read(caller, argument)?;
    privilege::other_subject(caller, Action::WatchMemory, access.domid)?;
    Err(Errno::ENODEV)
}
