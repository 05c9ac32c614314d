//! Hypercalls: who calls, what a call can answer, and the table of calls.
//!
//! A handler is `fn(&Caller, &[u64; 5]) -> Outcome`, one file per call under `hypercall/`.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use pv_abi::errno::Errno;
use pv_abi::hypercall::Hypercall;

use crate::console::GUEST;
use crate::domain::Domain;
use crate::vcpu::Vcpu;

mod bitmap;
mod console_io;
mod domctl;
mod event_channel;
mod grant_table;
mod hvm_op;
mod memory;
mod multicall;
mod physdev;
mod platform_op;
mod sched_op;
mod sysctl;
mod toolstack;
mod vcpu_op;
pub mod version;
mod vm_assist;

/// The vCPU that made the call, and its domain.
pub struct Caller<'a> {
    /// The calling domain.
    pub domain: &'a Arc<Domain>,
    /// The calling vCPU; it is loaded on this CPU, so its addresses can be translated.
    pub vcpu: &'a Arc<Vcpu>,
}

/// How a hypercall ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value goes to x0.
    Done(i64),
    /// Not finished: the arguments are replaced by these and the `hvc` is executed again, after interrupts.
    Again([u64; 5]),
    /// x0 = 0, then the vCPU sleeps until an event or interrupt.
    Block,
    /// As `Block`, or until the poll that was begun ends ([`crate::event::start_poll`]).
    Poll,
    /// x0 = 0, then another vCPU may run.
    Yield,
}

impl From<Result<i64, Errno>> for Outcome {
    fn from(result: Result<i64, Errno>) -> Self {
        match result {
            Ok(value) => Self::Done(value),
            Err(errno) => Self::Done(errno.into()),
        }
    }
}

impl From<Result<(), Errno>> for Outcome {
    fn from(result: Result<(), Errno>) -> Self {
        result.map(|()| 0).into()
    }
}

/// Calls by number that were refused once already: each is logged the first time only.
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Makes the hypercall `number`. Inlined where a guest's `hvc` arrives, so that the shortest calls stay short.
#[inline(always)]
pub fn dispatch(caller: &Caller<'_>, number: u64, args: &[u64; 5]) -> Outcome {
    // The most frequent ones without a detour over the table.
    const EVENT_CHANNEL_OP: u64 = Hypercall::EventChannelOp as u64;
    const XEN_VERSION: u64 = Hypercall::XenVersion as u64;
    const SCHED_OP: u64 = Hypercall::SchedOp as u64;
    if number == EVENT_CHANNEL_OP {
        event_channel::call(caller, args)
    } else if number == XEN_VERSION {
        version::call(caller, args)
    } else if number == SCHED_OP {
        sched_op::call(caller, args)
    } else {
        dispatch_other(caller, number, args)
    }
}

#[inline(never)]
fn dispatch_other(caller: &Caller<'_>, number: u64, args: &[u64; 5]) -> Outcome {
    let Ok(call) = Hypercall::try_from(number) else { return refuse(caller, number) };
    let outcome = match call {
        Hypercall::MemoryOp => memory::call(caller, args),
        Hypercall::GrantTableOp => grant_table::call(caller, args),
        Hypercall::ConsoleIo => console_io::call(caller, args),
        Hypercall::VcpuOp => vcpu_op::call(caller, args),
        Hypercall::HvmOp => hvm_op::call(caller, args),
        Hypercall::PhysdevOp => physdev::call(caller, args),
        Hypercall::Multicall => multicall::call(caller, args),
        Hypercall::Sysctl => sysctl::call(caller, args),
        Hypercall::Domctl => domctl::call(caller, args),
        Hypercall::PlatformOp => platform_op::call(caller, args),
        Hypercall::VmAssist => vm_assist::call(caller, args),
        // x86's, obsolete ones, and what Nacelle does not offer (docs/support.md); three were served above.
        _ => refuse(caller, number),
    };
    // With no lock held: what the call let go may have been the last of a dead domain.
    crate::domain::life::bury_if_due();
    outcome
}

#[cold]
#[inline(never)]
fn refuse(caller: &Caller<'_>, number: u64) -> Outcome {
    let bit = 1u64 << (number & 63);
    if REFUSED.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        log::info!(target: GUEST, "{} v{}: hypercall {number} is not offered", caller.domain.id, caller.vcpu.id.get());
    }
    Outcome::Done(Errno::ENOSYS.into())
}
