//! `vm_assist`: behaviours a guest turns on. On Arm, one: the update flag in the run-state area.

use core::sync::atomic::Ordering;

use pv_abi::Errno;
use pv_abi::vm_assist::{Cmd, Type};

use super::{Caller, Outcome};

/// `HYPERVISOR_vm_assist(cmd, type)`.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    let Ok(Type::RunstateUpdateFlag) = Type::try_from(args[1] as u32) else {
        return Outcome::Done(Errno::EINVAL.into());
    };
    let bit = 1 << Type::RunstateUpdateFlag as u32;
    match Cmd::try_from(args[0] as u32) {
        Ok(Cmd::Enable) => caller.domain.vm_assist.fetch_or(bit, Ordering::Relaxed),
        Ok(Cmd::Disable) => caller.domain.vm_assist.fetch_and(!bit, Ordering::Relaxed),
        Err(_) => return Outcome::Done(Errno::ENOSYS.into()),
    };
    Outcome::Done(0)
}
