//! `hvm_op`: a domain's parameters, which tell it where its console and its store are.

use pv_abi::Errno;
use pv_abi::hvm::{HVM_NR_PARAMS, Index, Op, Param};

use crate::mm::guest;
use crate::privilege::{self, Action};

use super::{Caller, Outcome};

/// `HYPERVISOR_hvm_op(op, address)`.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    match Op::try_from(args[0] as u32) {
        Ok(Op::SetParam) => set(caller, args[1]).into(),
        Ok(Op::GetParam) => get(caller, args[1]).into(),
        // A request for a monitor that nobody runs.
        Ok(Op::GuestRequestVmEvent) => Outcome::Done(if args[1] == 0 { 0 } else { Errno::EINVAL.into() }),
        // Everything else is x86's.
        Ok(_) | Err(_) => Outcome::Done(Errno::ENOSYS.into()),
    }
}

/// The parameters that exist on Arm: the toolstack sets them, the domain reads them.
fn is_known(index: u32) -> bool {
    matches!(
        Index::try_from(index),
        Ok(Index::CallbackIrq
            | Index::StorePfn
            | Index::StoreEvtchn
            | Index::ConsolePfn
            | Index::ConsoleEvtchn
            | Index::MonitorRingPfn)
    )
}

fn read(caller: &Caller<'_>, address: u64) -> Result<Param, Errno> {
    let param: Param = guest::read(caller, address)?;
    if param.index >= HVM_NR_PARAMS { Err(Errno::EINVAL) } else { Ok(param) }
}

fn set(caller: &Caller<'_>, address: u64) -> Result<(), Errno> {
    let param = read(caller, address)?;
    let domain = privilege::subject(caller, Action::SetParameter, param.domid)?;
    if !is_known(param.index) {
        return Err(Errno::EINVAL);
    }
    if domain.id == caller.domain.id {
        return Err(Errno::EPERM);
    }
    domain.hvm_params.lock()[param.index as usize] = param.value;
    Ok(())
}

fn get(caller: &Caller<'_>, address: u64) -> Result<(), Errno> {
    let param = read(caller, address)?;
    let domain = privilege::subject(caller, Action::ReadParameter, param.domid)?;
    if !is_known(param.index) {
        return Err(Errno::EINVAL);
    }
    let value = domain.hvm_params.lock()[param.index as usize];
    guest::write(caller, address, &Param { value, ..param })
}
