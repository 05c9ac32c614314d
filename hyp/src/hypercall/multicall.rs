//! `multicall`: several hypercalls in one.

use pv_abi::Errno;
use pv_abi::hypercall::Hypercall;
use pv_abi::xen::MulticallEntry;
use zerocopy::IntoBytes;

use crate::arch;
use crate::event;
use crate::mm::guest;

use super::{Caller, Outcome, dispatch};

/// `HYPERVISOR_multicall(entries, count)`.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    let &[mut at, count, ..] = args;
    let mut left = count as u32;
    while left != 0 {
        let mut entry: MulticallEntry = match guest::read(caller, at) {
            Ok(entry) => entry,
            Err(errno) => return Outcome::Done(errno.into()),
        };
        let &[a, b, c, d, e, _] = &entry.args;
        let outcome = match entry.op {
            // A list within a list.
            op if op == Hypercall::Multicall as u64 => Outcome::Done(Errno::EINVAL.into()),
            op => dispatch(caller, op, &[a, b, c, d, e]),
        };
        match outcome {
            Outcome::Done(value) => entry.result = value as u64,
            // In a list there is no place to sleep: the guest makes the next call at once.
            Outcome::Block | Outcome::Yield => entry.result = 0,
            Outcome::Poll => {
                event::end_poll(caller.domain, caller.vcpu);
                entry.result = 0;
            }
            Outcome::Again(rest) => {
                // The entry goes on where it stopped, when the list is called again from it.
                entry.args[..5].copy_from_slice(&rest);
                return match guest::write_slice(caller, at, entry.as_bytes()) {
                    Ok(()) => Outcome::Again([at, left.into(), 0, 0, 0]),
                    Err(errno) => Outcome::Done(errno.into()),
                };
            }
        }
        if let Err(errno) = guest::write_slice(caller, at, entry.as_bytes()) {
            return Outcome::Done(errno.into());
        }
        left -= 1;
        at = at.wrapping_add(size_of::<MulticallEntry>() as u64);
        if left != 0 && arch::interrupt_pending() {
            return Outcome::Again([at, left.into(), 0, 0, 0]);
        }
    }
    Outcome::Done(0)
}
