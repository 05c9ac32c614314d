//! `domctl` (public header `domctl.h`): what the toolstack does to domains, in the version of Xen 4.17.
//!
//! Only the control domain may. An operation works on a copy of the caller's structure, and what it answers goes back
//! to the caller when it succeeds.

mod info;
#[cfg(test)]
mod tests;
mod vcpu;

use alloc::sync::Arc;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use pv_abi::Errno;
use pv_abi::domctl::{
    Domctl, MaxMem, NodeAffinity, Op, SchedCredit2, SchedulerCmd, SchedulerId, SchedulerOp,
    XEN_DOMCTL_INTERFACE_VERSION,
};
use pv_abi::domid::{DOMID_FIRST_RESERVED, DomId};
use stage2::Pages;

pub use info::describe;

use super::{Caller, Outcome, bitmap, toolstack};
use crate::domain::{self, Domain};
use crate::mm::guest;
use crate::sched;

/// How often a domain can be paused by the toolstack at once, as in Xen.
const MAX_PAUSES: u32 = 255;
/// The only NUMA node, as a set of nodes.
const NODES: u32 = 1;

/// `HYPERVISOR_domctl(address)`.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    serve(caller, args[0]).into()
}

/// The domain that an operation, known or not, is about. `ESRCH`: there is none of that number.
///
/// Describing takes the next one there is, which is how libxenctrl walks through all.
fn subject(op: Option<Op>, id: DomId) -> Result<Arc<Domain>, Errno> {
    if op != Some(Op::Getdomaininfo) {
        return domain::find(id).ok_or(Errno::ESRCH);
    }
    if id >= DOMID_FIRST_RESERVED {
        return Err(Errno::EINVAL);
    }
    domain::first_from(id).ok_or(Errno::ESRCH)
}

fn serve(caller: &Caller<'_>, address: u64) -> Result<(), Errno> {
    let mut call: Domctl = toolstack::read(caller, address)?;
    toolstack::check_version(caller, "domctl", call.interface_version, XEN_DOMCTL_INTERFACE_VERSION)?;
    let op = Op::try_from(call.cmd).ok();
    if op == Some(Op::Createdomain) {
        return Err(Errno::ENOSYS);
    }
    let domain = subject(op, call.domain)?;
    let op = op.ok_or(Errno::ENOSYS)?;
    let u = &mut call.u;
    match op {
        Op::Pausedomain => return pause(caller, &domain),
        Op::Unpausedomain => return unpause(&domain),
        Op::MaxMem => {
            let MaxMem { max_memkb } = u.get();
            domain.pages.set_maximum(Pages::new(max_memkb / 4));
            return Ok(());
        }
        Op::Getdomaininfo => {
            u.set(&describe(&domain));
            call.domain = domain.id;
        }
        Op::Getvcpuinfo => u.set(&vcpu::info(&domain, u.get())?),
        Op::Getvcpuaffinity => u.set(&vcpu::affinity(caller, &domain, u.get())?),
        Op::Setvcpuaffinity => u.set(&vcpu::set_affinity(caller, &domain, u.get())?),
        Op::SchedulerOp => u.set(&scheduler_op(&domain, u.get())?),
        Op::Getnodeaffinity => {
            let NodeAffinity { nodemap } = u.get();
            bitmap::write(caller, &nodemap, NODES)?;
        }
        Op::Setnodeaffinity => {
            let NodeAffinity { nodemap } = u.get();
            return if bitmap::read(caller, &nodemap)? & NODES != 0 { Ok(()) } else { Err(Errno::EINVAL) };
        }
        // What builds, saves, debugs and watches domains, and hands them devices: not offered. The rest is x86's.
        Op::Createdomain
        | Op::Destroydomain
        | Op::ShadowOp
        | Op::Setvcpucontext
        | Op::Getvcpucontext
        | Op::MaxVcpus
        | Op::Setdomainhandle
        | Op::Setdebugging
        | Op::IrqPermission
        | Op::IomemPermission
        | Op::IoportPermission
        | Op::HypercallInit
        | Op::Settimeoffset
        | Op::RealModeArea
        | Op::Resumedomain
        | Op::Sendtrigger
        | Op::Subscribe
        | Op::Gethvmcontext
        | Op::Sethvmcontext
        | Op::SetAddressSize
        | Op::GetAddressSize
        | Op::AssignDevice
        | Op::BindPtIrq
        | Op::MemoryMapping
        | Op::IoportMapping
        | Op::SetExtVcpucontext
        | Op::GetExtVcpucontext
        | Op::SetOptFeature
        | Op::TestAssignDevice
        | Op::SetTarget
        | Op::DeassignDevice
        | Op::UnbindPtIrq
        | Op::GetDeviceGroup
        | Op::DebugOp
        | Op::GethvmcontextPartial
        | Op::VmEventOp
        | Op::MemSharingOp
        | Op::Gettscinfo
        | Op::Settscinfo
        | Op::Getpageframeinfo3
        | Op::Setvcpuextstate
        | Op::Getvcpuextstate
        | Op::SetAccessRequired
        | Op::AuditP2m
        | Op::SetVirqHandler
        | Op::SetBrokenPageP2m
        | Op::Cacheflush
        | Op::GetVcpuMsrs
        | Op::SetVcpuMsrs
        | Op::Setvnumainfo
        | Op::PsrCmtOp
        | Op::MonitorOp
        | Op::PsrAlloc
        | Op::SoftReset
        | Op::VuartOp
        | Op::GetCpuPolicy
        | Op::SetCpuPolicy
        | Op::VmtraceOp
        | Op::GetPagingMempoolSize
        | Op::SetPagingMempoolSize
        | Op::GdbsxGuestmemio
        | Op::GdbsxPausevcpu
        | Op::GdbsxUnpausevcpu
        | Op::GdbsxDomstatus => return Err(Errno::ENOSYS),
    }
    let from = offset_of!(Domctl, domain) as u64;
    let answer = zerocopy::IntoBytes::as_bytes(&call);
    guest::write_slice(caller, address.wrapping_add(from), answer.get(from as usize..).unwrap_or(&[]))
}

/// `XEN_DOMCTL_pausedomain`: when it returns, no vCPU of the domain runs.
fn pause(caller: &Caller<'_>, domain: &Domain) -> Result<(), Errno> {
    if domain.id == caller.domain.id {
        return Err(Errno::EINVAL);
    }
    domain
        .pause_count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < MAX_PAUSES).then_some(count + 1))
        .map_err(|_| Errno::EOVERFLOW)?;
    for vcpu in domain.vcpus() {
        sched::pause(vcpu);
    }
    // The CPUs that run one were kicked and leave it without waiting for anything of ours.
    for vcpu in domain.vcpus() {
        while vcpu.sched.running_on().is_some() {
            core::hint::spin_loop();
        }
    }
    Ok(())
}

/// `XEN_DOMCTL_unpausedomain`: `EINVAL` where nothing is to be undone.
fn unpause(domain: &Domain) -> Result<(), Errno> {
    domain
        .pause_count
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1))
        .map_err(|_| Errno::EINVAL)?;
    for vcpu in domain.vcpus() {
        sched::unpause(vcpu);
    }
    Ok(())
}

/// `XEN_DOMCTL_scheduler_op`: the domain's weight, in the terms of credit2.
fn scheduler_op(domain: &Domain, mut op: SchedulerOp) -> Result<SchedulerOp, Errno> {
    if op.sched_id != SchedulerId::Credit2.raw() {
        return Err(Errno::EINVAL);
    }
    match SchedulerCmd::try_from(op.cmd) {
        Ok(SchedulerCmd::Getinfo) => {
            let weight = domain.vcpus().first().map_or(sched::DEFAULT_WEIGHT, |vcpu| vcpu.sched.weight());
            op.u.set(&SchedCredit2 { weight: u16::try_from(weight).unwrap_or(u16::MAX), cap: 0 });
        }
        Ok(SchedulerCmd::Putinfo) => {
            let SchedCredit2 { weight, cap } = op.u.get();
            // No caps yet: better refused than forgotten.
            if cap != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            if weight != 0 {
                for vcpu in domain.vcpus() {
                    sched::set_weight(vcpu, u32::from(weight));
                }
            }
        }
        // credit2 has no parameters of single vCPUs.
        Ok(SchedulerCmd::Putvcpuinfo | SchedulerCmd::Getvcpuinfo) | Err(_) => return Err(Errno::EINVAL),
    }
    Ok(op)
}
