//! `domctl` (public header `domctl.h`): what the toolstack does to domains, in the version of Xen 4.17.
//!
//! Who may, [`crate::privilege`] says. An operation works on a copy of the caller's structure, and what it answers goes back
//! to the caller when it succeeds.

mod context;
mod create;
mod info;
mod memory;
#[cfg(test)]
mod tests;
mod vcpu;

use alloc::sync::Arc;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use pv_abi::Errno;
use pv_abi::domctl::{
    AddressSize, Domctl, MaxMem, NodeAffinity, Op, SchedCredit2, SchedulerCmd, SchedulerId, SchedulerOp,
    SetDomainHandle, SetTarget, SetTimeOffset, SetVirqHandler, XEN_DOMCTL_INTERFACE_VERSION,
};
use pv_abi::domid::{DOMID_FIRST_RESERVED, DomId};
use stage2::Pages;

pub use info::describe;

use super::{Caller, Outcome, bitmap, toolstack};
use crate::domain::life::{self, Stage};
use crate::domain::{self, Domain};
use crate::mm::guest;
use crate::privilege::{self, Action};
use crate::{event, sched, wallclock};

/// The only NUMA node, as a set of nodes.
const NODES: u32 = 1;

/// `HYPERVISOR_domctl(address)`.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    match serve(caller, args[0]) {
        Ok(true) => Outcome::Done(0),
        Ok(false) => Outcome::Again(*args),
        Err(errno) => Outcome::Done(errno.into()),
    }
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

/// Whether it is finished. If not, what is left stands where the call was read: in the structure, or in the domain.
fn serve(caller: &Caller<'_>, address: u64) -> Result<bool, Errno> {
    let mut call: Domctl = toolstack::read(caller, Action::Describe, address)?;
    toolstack::check_version(caller, "domctl", call.interface_version, XEN_DOMCTL_INTERFACE_VERSION)?;
    let op = Op::try_from(call.cmd).ok();
    let action = if op == Some(Op::Getdomaininfo) { Action::Describe } else { Action::Domctl };
    privilege::may(caller.domain, action)?;
    let from = offset_of!(Domctl, domain) as u64;
    let answer = |call: &Domctl| {
        let bytes = zerocopy::IntoBytes::as_bytes(call);
        guest::write_slice(caller, address.wrapping_add(from), bytes.get(from as usize..).unwrap_or(&[]))
    };
    if op == Some(Op::Createdomain) {
        let mut request = call.u.get();
        call.domain = create::create(caller, call.domain, &mut request)?.id;
        call.u.set(&request);
        return answer(&call).map(|()| true);
    }
    let domain = subject(op, call.domain)?;
    let op = op.ok_or(Errno::ENOSYS)?;
    let u = &mut call.u;
    // What is dead or dies is looked at and done with, nothing more.
    let is_for_any = matches!(
        op,
        Op::Destroydomain | Op::Getdomaininfo | Op::Getvcpuinfo | Op::Pausedomain | Op::Unpausedomain
    );
    if !is_for_any && domain.life.stage() != Stage::Alive {
        return Err(Errno::ESRCH);
    }
    match op {
        Op::Destroydomain if domain.id == caller.domain.id => return Err(Errno::EINVAL),
        Op::Destroydomain => return Ok(life::destroy(&domain)),
        Op::Pausedomain if domain.id == caller.domain.id => return Err(Errno::EINVAL),
        Op::Pausedomain => return life::pause(&domain).map(|()| true),
        Op::Unpausedomain => return life::unpause(&domain).map(|()| true),
        Op::Resumedomain => return life::resume(&domain).map(|()| true),
        Op::MaxVcpus => return create::max_vcpus(caller, &domain, u.get()).map(|()| true),
        Op::Setvcpucontext => return context::set(caller, &domain, &u.get()).map(|()| true),
        Op::Getvcpucontext => return context::get(caller, &domain, &u.get()).map(|()| true),
        Op::MaxMem => {
            let MaxMem { max_memkb } = u.get();
            domain.p2m.set_maximum(Pages::new(max_memkb / 4));
            return Ok(true);
        }
        Op::Setdomainhandle => {
            let SetDomainHandle { handle } = u.get();
            *domain.handle.lock() = handle;
            return Ok(true);
        }
        Op::SetTarget => {
            let SetTarget { target } = u.get();
            let target = domain::find(target).ok_or(Errno::ESRCH)?;
            let is_set = !Arc::ptr_eq(&target, &domain) && domain.set_target(&target);
            return if is_set { Ok(true) } else { Err(Errno::EINVAL) };
        }
        Op::SetVirqHandler => {
            let SetVirqHandler { virq } = u.get();
            return event::set_virq_handler(&domain, virq).map(|()| true);
        }
        Op::Settimeoffset => {
            let SetTimeOffset { time_offset_seconds } = u.get();
            domain.time_offset.store(time_offset_seconds, Ordering::Relaxed);
            wallclock::show(&domain);
            return Ok(true);
        }
        // Guests are 64-bit, as long as they have no memory.
        Op::SetAddressSize => {
            let AddressSize { size } = u.get();
            return match size {
                _ if !domain.pages.current().is_zero() => Err(Errno::EBUSY),
                64 => Ok(true),
                _ => Err(Errno::EINVAL),
            };
        }
        Op::GetPagingMempoolSize => u.set(&memory::pool(&domain)),
        Op::SetPagingMempoolSize => return memory::set_pool(&domain, u.get()).map(|()| true),
        Op::Cacheflush => match memory::clean(&domain, u.get())? {
            None => return Ok(true),
            Some(rest) => {
                u.set(&rest);
                return answer(&call).map(|()| false);
            }
        },
        // No emulated UART: better refused by name.
        Op::VuartOp => return Err(Errno::EOPNOTSUPP),
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
            return if bitmap::read(caller, &nodemap)? & NODES != 0 { Ok(true) } else { Err(Errno::EINVAL) };
        }
        // What saves, debugs and watches domains, and hands them devices: not offered. The rest is x86's, but for the first,
        // which was served above.
        Op::Createdomain
        | Op::ShadowOp
        | Op::Setdebugging
        | Op::IrqPermission
        | Op::IomemPermission
        | Op::IoportPermission
        | Op::HypercallInit
        | Op::RealModeArea
        | Op::Sendtrigger
        | Op::Subscribe
        | Op::Gethvmcontext
        | Op::Sethvmcontext
        | Op::GetAddressSize
        | Op::AssignDevice
        | Op::BindPtIrq
        | Op::MemoryMapping
        | Op::IoportMapping
        | Op::SetExtVcpucontext
        | Op::GetExtVcpucontext
        | Op::SetOptFeature
        | Op::TestAssignDevice
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
        | Op::SetBrokenPageP2m
        | Op::GetVcpuMsrs
        | Op::SetVcpuMsrs
        | Op::Setvnumainfo
        | Op::PsrCmtOp
        | Op::MonitorOp
        | Op::PsrAlloc
        | Op::SoftReset
        | Op::GetCpuPolicy
        | Op::SetCpuPolicy
        | Op::VmtraceOp
        | Op::GdbsxGuestmemio
        | Op::GdbsxPausevcpu
        | Op::GdbsxUnpausevcpu
        | Op::GdbsxDomstatus => return Err(Errno::ENOSYS),
    }
    answer(&call).map(|()| true)
}

/// `XEN_DOMCTL_scheduler_op`: the domain's weight and cap, in the terms of credit2.
fn scheduler_op(domain: &Domain, mut op: SchedulerOp) -> Result<SchedulerOp, Errno> {
    if op.sched_id != SchedulerId::Credit2.raw() {
        return Err(Errno::EINVAL);
    }
    match SchedulerCmd::try_from(op.cmd) {
        Ok(SchedulerCmd::Getinfo) => {
            let (weight, cap) = (domain.share.weight(), domain.share.cap());
            op.u.set(&SchedCredit2 {
                weight: u16::try_from(weight).unwrap_or(u16::MAX),
                cap: u16::try_from(cap).unwrap_or(u16::MAX),
            });
        }
        Ok(SchedulerCmd::Putinfo) => {
            let SchedCredit2 { weight, cap } = op.u.get();
            // 0 leaves the weight as it is, and takes the cap away.
            if weight != 0 {
                sched::set_weight(domain, u32::from(weight));
            }
            sched::set_cap(domain, u32::from(cap));
        }
        // credit2 has no parameters of single vCPUs.
        Ok(SchedulerCmd::Putvcpuinfo | SchedulerCmd::Getvcpuinfo) | Err(_) => return Err(Errno::EINVAL),
    }
    Ok(op)
}
