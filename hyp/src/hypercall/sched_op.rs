//! `sched_op`: a vCPU gives the CPU away, or its domain ends.

use pv_abi::Errno;
use pv_abi::sched::{Op, Poll, RemoteShutdown, Shutdown, ShutdownReason, Watchdog};
use zerocopy::IntoBytes;

use crate::mm::guest;
use crate::privilege::{self, Action};
use crate::time::{Nanoseconds, Ticks};
use crate::{arch, domain, event, timer};

use super::{Caller, Outcome};

/// Ports that one call may name, as Xen has it.
const MAX_POLLED: usize = 128;

/// `HYPERVISOR_sched_op(op, address)`.
#[inline]
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    match Op::try_from(args[0] as u32) {
        Ok(Op::Yield) => Outcome::Yield,
        Ok(Op::Block) => Outcome::Block,
        Ok(Op::Poll) => poll(caller, args[1]).unwrap_or_else(|errno| Outcome::Done(errno.into())),
        Ok(Op::Shutdown) => shutdown(caller, args[1]),
        Ok(Op::RemoteShutdown) => remote_shutdown(caller, args[1]).into(),
        Ok(Op::ShutdownCode) => shutdown_code(caller, args[1]).into(),
        Ok(Op::Watchdog) => watchdog(caller, args[1]).into(),
        // Affinity is the toolstack's.
        Ok(Op::PinOverride) | Err(_) => Outcome::Done(Errno::ENOSYS.into()),
    }
}

/// Sleeps until one of some ports is pending, or a time.
fn poll(caller: &Caller<'_>, address: u64) -> Result<Outcome, Errno> {
    let request: Poll = guest::read(caller, address)?;
    let mut ports = [0u32; MAX_POLLED];
    let ports = ports.get_mut(..request.nr_ports as usize).ok_or(Errno::EINVAL)?;
    guest::read_slice(caller, request.ports.raw(), ports.as_mut_bytes())?;
    if event::start_poll(caller.domain, caller.vcpu, ports)? {
        return Ok(Outcome::Done(0));
    }
    if request.timeout != 0 {
        timer::arm(caller.vcpu, timer::Kind::Poll, Ticks::new(Nanoseconds::new(request.timeout).to_ticks()));
    }
    Ok(Outcome::Poll)
}

fn reason(raw: u32) -> Result<ShutdownReason, Errno> {
    ShutdownReason::try_from(raw).map_err(|_| Errno::EINVAL)
}

fn shutdown(caller: &Caller<'_>, address: u64) -> Outcome {
    match guest::read::<Shutdown>(caller, address).and_then(|s| reason(s.reason)) {
        Ok(reason) => {
            domain::shut_down(caller.domain, reason);
            Outcome::Yield
        }
        Err(errno) => Outcome::Done(errno.into()),
    }
}

/// Says why the domain will stop, for whoever stops it then.
fn shutdown_code(caller: &Caller<'_>, address: u64) -> Result<(), Errno> {
    let reason = reason(guest::read::<Shutdown>(caller, address)?.reason)?;
    domain::note_reason(caller.domain, reason);
    Ok(())
}

/// Starts (number 0: any that is free), keeps or stops one of the domain's two watchdogs. The result is its number.
fn watchdog(caller: &Caller<'_>, address: u64) -> Result<i64, Errno> {
    let Watchdog { id, timeout } = guest::read(caller, address)?;
    let place = u64::from(timeout).saturating_mul(1_000_000_000);
    let fires_at = Ticks::new(Nanoseconds::new(place).to_ticks().saturating_add(arch::now().get()));
    timer::set_watchdog(caller.domain, id, (timeout != 0).then_some(fires_at)).map(i64::from)
}

fn remote_shutdown(caller: &Caller<'_>, address: u64) -> Result<(), Errno> {
    let request: RemoteShutdown = guest::read(caller, address)?;
    let reason = reason(request.reason)?;
    let domain = privilege::subject(caller, Action::RemoteShutdown, request.domain_id)?;
    if domain.id == caller.domain.id {
        return Err(Errno::EINVAL);
    }
    domain::shut_down(&domain, reason);
    Ok(())
}
