//! `vcpu_op`: where a vCPU's shared structures are. On Arm, CPUs come and go by PSCI, so there is nothing else.

use pv_abi::Errno;
use pv_abi::vcpu::{Op, RegisterRunstateMemoryArea, RegisterVcpuInfo};
use stage2::Gfn;

use crate::event;
use crate::mm::guest;
use crate::runstate;
use crate::vcpu::VcpuId;

use super::{Caller, Outcome};

/// `HYPERVISOR_vcpu_op(op, vcpu, address)`.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    let &[op, id, address, ..] = args;
    let Some(vcpu) = u32::try_from(id).ok().and_then(|id| caller.domain.vcpu(VcpuId::new(id))) else {
        // As Xen: the operation is looked at first.
        return Outcome::Done(if is_known(op) { Errno::ENOENT } else { Errno::EINVAL }.into());
    };
    match Op::try_from(op as u32) {
        Ok(Op::RegisterVcpuInfo) => {
            let register = || {
                let info: RegisterVcpuInfo = guest::read(caller, address)?;
                event::register_vcpu_info(caller.domain, vcpu.id, Gfn::new(info.mfn), info.offset)
            };
            register().into()
        }
        Ok(Op::RegisterRunstateMemoryArea) => {
            let register = || {
                let area: RegisterRunstateMemoryArea = guest::read(caller, address)?;
                runstate::register(caller, vcpu, area.addr.raw())
            };
            register().into()
        }
        // On Arm the rest does not exist, known to other architectures or not.
        Ok(_) | Err(_) => Outcome::Done(Errno::EINVAL.into()),
    }
}

fn is_known(op: u64) -> bool {
    matches!(Op::try_from(op as u32), Ok(Op::RegisterVcpuInfo | Op::RegisterRunstateMemoryArea))
}
