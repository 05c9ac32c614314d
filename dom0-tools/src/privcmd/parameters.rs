//! `hvm_op`: parameters of a domain, by which it finds its console and XenStore.

use pv_abi::domid::DomId;
use pv_abi::hvm::{Index, Op, Param};
use pv_abi::hypercall::Hypercall;

use super::{Privcmd, Result};

impl Privcmd {
    fn parameter_call(&self, what: &'static str, op: Op, param: Param) -> Result<u64> {
        let buffer = self.buffer_with(&param, 0)?;
        let arg = [u64::from(op.raw()), buffer.address(0), 0, 0, 0];
        // SAFETY: the structure is in the buffer and holds no address.
        unsafe { self.call(what, Hypercall::HvmOp, arg) }?;
        Ok(buffer.get::<Param>(0).value)
    }

    /// Reads a parameter.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn parameter(&self, id: DomId, index: Index) -> Result<u64> {
        let param = Param { domid: id, index: index.raw(), ..Param::default() };
        self.parameter_call("hvm_op get_param", Op::GetParam, param)
    }

    /// Sets a parameter.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn set_parameter(&self, id: DomId, index: Index, value: u64) -> Result<()> {
        let param = Param { domid: id, index: index.raw(), value, ..Param::default() };
        self.parameter_call("hvm_op set_param", Op::SetParam, param).map(|_| ())
    }
}
