//! `memory_op`: what the tools ask that no domain is named for.

use pv_abi::hypercall::Hypercall;
use pv_abi::memory::Op;

use super::{Privcmd, Result};

impl Privcmd {
    fn sharing(&self, what: &'static str, op: Op) -> Result<u64> {
        // SAFETY: the two operations below have no structure.
        let pages = unsafe { self.call(what, Hypercall::MemoryOp, [u64::from(op.raw()), 0, 0, 0, 0]) }?;
        Ok(u64::try_from(pages).unwrap_or(0))
    }

    /// Pages that sharing made free, and pages that are shared.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn shared_pages(&self) -> Result<(u64, u64)> {
        Ok((
            self.sharing("memory_op get_sharing_freed_pages", Op::GetSharingFreedPages)?,
            self.sharing("memory_op get_sharing_shared_pages", Op::GetSharingSharedPages)?,
        ))
    }
}
