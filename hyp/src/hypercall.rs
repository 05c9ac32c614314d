//! Hypercalls: who calls, what a call can answer, and the table of calls.
//!
//! A handler is `fn(&Caller, &[u64; 5]) -> Outcome`, one file per call under `hypercall/`.

use alloc::sync::Arc;

use pv_abi::errno::Errno;

use crate::domain::Domain;
use crate::vcpu::Vcpu;

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
