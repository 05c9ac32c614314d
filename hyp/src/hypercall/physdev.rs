//! `physdev_op`: on Arm interrupts are routed by the GIC and PCI devices found by dom0 itself, so nothing is offered.

use pv_abi::Errno;

use super::{Caller, Outcome};

/// `HYPERVISOR_physdev_op(op, address)`: `ENOSYS`, as Xen on Arm without vPCI answers every operation.
pub fn call(_caller: &Caller<'_>, _args: &[u64; 5]) -> Outcome {
    Outcome::Done(Errno::ENOSYS.into())
}
