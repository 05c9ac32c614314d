//! `event_channel_op`: x0 is the operation, x1 the address of its structure (public header `event_channel.h`).
#![forbid(unsafe_code)]

use alloc::sync::Arc;

use pv_abi::domid::{DOMID_SELF, DomId};
use pv_abi::errno::Errno;
use pv_abi::event_channel::{
    AllocUnbound, BindInterdomain, BindIpi, BindVcpu, BindVirq, Close, EVTCHN_FIFO_LINK_BITS, ExpandArray,
    InitControl, Op, Reset, Send, SetPriority, Status, Unmask,
};
use stage2::Gfn;

use super::{Caller, Outcome};
use crate::domain::{self, Domain};
use crate::event;
use crate::mm::guest;
use crate::privilege::{self, Action};

/// Serves the call.
#[inline]
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    if args[0] == u64::from(Op::Send.raw()) { send(caller, args[1]).into() } else { call_other(caller, args) }
}

/// The one that must be fast: a function of its own, with everything it does inlined into it.
#[inline(never)]
fn send(caller: &Caller<'_>, at: u64) -> Result<(), Errno> {
    event::send(caller.domain, guest::read::<Send>(caller, at)?.port)
}

#[inline(never)]
fn call_other(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    // Xen's `int cmd`: the low half.
    let Ok(op) = Op::try_from(args[0] as u32) else { return Err::<(), _>(Errno::ENOSYS).into() };
    match op {
        Op::Reset => reset(caller, args),
        op => serve(caller, op, args[1]).into(),
    }
}

fn serve(caller: &Caller<'_>, op: Op, at: u64) -> Result<(), Errno> {
    let own = caller.domain;
    match op {
        Op::AllocUnbound => {
            let mut arg: AllocUnbound = guest::read(caller, at)?;
            let domain = privilege::subject(caller, Action::ChangePorts, arg.dom)?;
            let remote = existing(caller, arg.remote_dom)?.id;
            arg.port = event::alloc_unbound(&domain, remote)?;
            guest::write(caller, at, &arg)
        }
        Op::BindInterdomain => {
            let mut arg: BindInterdomain = guest::read(caller, at)?;
            let remote = existing(caller, arg.remote_dom)?;
            arg.local_port = event::bind_interdomain(own, &remote, arg.remote_port)?;
            guest::write(caller, at, &arg)
        }
        Op::BindVirq => {
            let mut arg: BindVirq = guest::read(caller, at)?;
            arg.port = event::bind_virq(own, arg.virq, arg.vcpu)?;
            guest::write(caller, at, &arg)
        }
        Op::BindIpi => {
            let mut arg: BindIpi = guest::read(caller, at)?;
            arg.port = event::bind_ipi(own, arg.vcpu)?;
            guest::write(caller, at, &arg)
        }
        // On Arm a guest gets physical interrupts from its GIC; there is no PIRQ to bind.
        Op::BindPirq => Err(Errno::EINVAL),
        Op::Close => event::close(own, guest::read::<Close>(caller, at)?.port),
        Op::Send => event::send(own, guest::read::<Send>(caller, at)?.port),
        Op::Status => {
            let arg: Status = guest::read(caller, at)?;
            let domain = privilege::subject(caller, Action::AskPorts, arg.dom)?;
            let status = event::status(&domain, arg.port)?;
            guest::write(caller, at, &Status { dom: arg.dom, _pad: arg._pad, ..status })
        }
        Op::BindVcpu => {
            let arg: BindVcpu = guest::read(caller, at)?;
            event::bind_vcpu(own, arg.port, arg.vcpu)
        }
        Op::Unmask => event::unmask(own, guest::read::<Unmask>(caller, at)?.port),
        Op::InitControl => {
            let mut arg: InitControl = guest::read(caller, at)?;
            event::init_control(own, arg.vcpu, Gfn::new(arg.control_gfn), arg.offset)?;
            arg.link_bits = EVTCHN_FIFO_LINK_BITS as u8;
            guest::write(caller, at, &arg)
        }
        Op::ExpandArray => {
            let arg: ExpandArray = guest::read(caller, at)?;
            event::expand_array(own, Gfn::new(arg.array_gfn))
        }
        Op::SetPriority => {
            let arg: SetPriority = guest::read(caller, at)?;
            event::set_priority(own, arg.port, arg.priority)
        }
        // `call_other` serves it: it may need to be continued.
        Op::Reset => Err(Errno::ENOSYS),
    }
}

fn reset(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    let domain = guest::read::<Reset>(caller, args[1])
        .and_then(|arg| privilege::subject(caller, Action::ChangePorts, arg.dom));
    match domain {
        Ok(domain) if event::reset(&domain) => Outcome::Done(0),
        Ok(_) => Outcome::Again(*args),
        Err(errno) => Err::<(), _>(errno).into(),
    }
}

/// The domain at the other end: the caller itself or any, `ESRCH` if there is none.
fn existing(caller: &Caller<'_>, id: DomId) -> Result<Arc<Domain>, Errno> {
    if id == DOMID_SELF || id == caller.domain.id {
        return Ok(caller.domain.clone());
    }
    domain::find(id).ok_or(Errno::ESRCH)
}
