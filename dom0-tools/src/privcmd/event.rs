//! `event_channel_op`: ports that a domain shall find when it starts.

use pv_abi::domid::DomId;
use pv_abi::event_channel::{AllocUnbound, Op, Port};
use pv_abi::hypercall::Hypercall;

use super::{Privcmd, Result};

impl Privcmd {
    /// Makes a port of `owner` that `remote` may connect to.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn alloc_unbound(&self, owner: DomId, remote: DomId) -> Result<Port> {
        let buffer = self.buffer_with(&AllocUnbound { dom: owner, remote_dom: remote, port: 0 }, 0)?;
        let arg = [u64::from(Op::AllocUnbound.raw()), buffer.address(0), 0, 0, 0];
        // SAFETY: the structure is in the buffer and holds no address.
        unsafe { self.call("event_channel_op alloc_unbound", Hypercall::EventChannelOp, arg) }?;
        Ok(buffer.get::<AllocUnbound>(0).port)
    }
}
