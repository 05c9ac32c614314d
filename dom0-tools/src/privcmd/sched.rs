//! `sched_op`: letting other domains run.

use pv_abi::hypercall::Hypercall;
use pv_abi::sched::Op;

use super::{Privcmd, Result};

impl Privcmd {
    /// Lets other domains run that wait for this CPU; returns when it is this domain's turn again, at once if nobody waits.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn yield_cpu(&self) -> Result<()> {
        // SAFETY: the operation has no structure.
        unsafe { self.call("sched_op yield", Hypercall::SchedOp, [u64::from(Op::Yield.raw()), 0, 0, 0, 0]) }
            .map(drop)
    }
}
