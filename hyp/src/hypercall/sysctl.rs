//! `sysctl` (public header `sysctl.h`): what the toolstack asks of the host, in the version of Xen 4.17.
//!
//! Only the control domain may. An operation works on a copy of the caller's structure and the copy goes back when it
//! succeeds; lists are written to the caller as they are made. No list is longer than what exists: CPUs, domains, bytes
//! of the console ring.

mod cpupool;
mod host;
#[cfg(test)]
mod tests;

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

use pv_abi::domctl::{GetDomainInfo, SchedulerId};
use pv_abi::domid::DomId;
use pv_abi::sysctl::{
    Credit2Schedule, DebugKeys, GetDomainInfoList, Op, ReadConsole, SchedId, SchedulerOp, Sysctl,
    XEN_SYSCTL_INTERFACE_VERSION, XEN_SYSCTL_SCHED_RATELIMIT_MAX, XEN_SYSCTL_SCHED_RATELIMIT_MIN,
    XEN_SYSCTL_SCHEDOP_GETINFO, XEN_SYSCTL_SCHEDOP_PUTINFO,
};
use pv_abi::{Errno, GuestHandle};

use super::{Caller, Outcome, domctl, toolstack};
use crate::mm::guest;
use crate::privilege::Action;
use crate::{arch, console, domain, keys};

/// Bytes of the console ring copied at once.
const CHUNK: usize = 512;
/// The most keys that are pressed in one call.
const MAX_KEYS: u32 = 32;
/// The only CPU pool.
const POOL: u32 = 0;
/// What `xl sched-credit2` shows as the shortest run: that of credit2's default, in microseconds.
const RATELIMIT_US: u32 = 1000;

arch::machine_static! {
    /// That of now.
    ratelimit: AtomicU32 = AtomicU32::new(RATELIMIT_US)
}

/// `HYPERVISOR_sysctl(address)`.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    serve(caller, args[0]).into()
}

fn serve(caller: &Caller<'_>, address: u64) -> Result<(), Errno> {
    let mut call: Sysctl = toolstack::read(caller, Action::Sysctl, address)?;
    toolstack::check_version(caller, "sysctl", call.interface_version, XEN_SYSCTL_INTERFACE_VERSION)?;
    let Ok(op) = Op::try_from(call.cmd) else { return Err(Errno::ENOSYS) };
    let u = &mut call.u;
    match op {
        Op::Readconsole => u.set(&read_console(caller, u.get())?),
        Op::Physinfo => u.set(&host::physinfo()),
        Op::SchedId => u.set(&SchedId { sched_id: SchedulerId::Credit2.raw() }),
        Op::Getdomaininfolist => u.set(&list_domains(caller, u.get())?),
        Op::DebugKeys => return press_keys(caller, &u.get()),
        Op::Getcpuinfo => u.set(&host::cpu_info(caller, u.get())?),
        Op::Availheap => u.set(&host::available(u.get())?),
        Op::Cputopoinfo => u.set(&host::cpu_topology(caller, u.get())?),
        Op::Numainfo => u.set(&host::numa(caller, u.get())?),
        Op::CpupoolOp => u.set(&cpupool::serve(caller, u.get())?),
        Op::SchedulerOp => u.set(&scheduler_op(u.get())?),
        // Trace buffers, counters, statistics of locks and of power, coverage, live patches: not offered. CPUs and pages
        // stay on. The rest is x86's.
        Op::TbufOp
        | Op::PerfcOp
        | Op::GetPmstat
        | Op::CpuHotplug
        | Op::PmOp
        | Op::PageOfflineOp
        | Op::LockprofOp
        | Op::CoverageOp
        | Op::PsrCmtOp
        | Op::Pcitopoinfo
        | Op::PsrAlloc
        | Op::GetCpuLevellingCaps
        | Op::GetCpuFeatureset
        | Op::LivepatchOp
        | Op::GetCpuPolicy => return Err(Errno::ENOSYS),
    }
    guest::write(caller, address.wrapping_add(offset_of!(Sysctl, u) as u64), &call.u)
}

/// Writes one element of a list. `EFAULT` also where the list would leave the address space.
fn write_element<T: zerocopy::IntoBytes + zerocopy::Immutable>(
    caller: &Caller<'_>,
    list: GuestHandle,
    index: u64,
    value: &T,
) -> Result<(), Errno> {
    let offset = index.checked_mul(size_of::<T>() as u64).ok_or(Errno::EFAULT)?;
    let address = list.checked_add(offset).ok_or(Errno::EFAULT)?;
    guest::write(caller, address.raw(), value)
}

/// `XEN_SYSCTL_readconsole`: at most what the ring held when the call began. Clearing forgets what was read.
fn read_console(caller: &Caller<'_>, mut op: ReadConsole) -> Result<ReadConsole, Errno> {
    let mut bytes = [0; CHUNK];
    let mut index = if op.incremental != 0 { op.index } else { console::ring_start() };
    let mut given = 0u32;
    while given < op.count && given < console::RING_SIZE as u32 {
        let room = (op.count - given).min(CHUNK as u32) as usize;
        let (count, next) = console::read_ring(index, &mut bytes[..room]);
        index = next;
        if count == 0 {
            break;
        }
        let address = op.buffer.checked_add(u64::from(given)).ok_or(Errno::EFAULT)?;
        guest::write_slice(caller, address.raw(), &bytes[..count])?;
        given += count as u32;
    }
    if op.clear != 0 {
        console::clear_ring(index);
    }
    op.count = given;
    op.index = index;
    Ok(op)
}

/// `XEN_SYSCTL_getdomaininfolist`: from `first_domain` on, as many as there is room for.
fn list_domains(caller: &Caller<'_>, mut op: GetDomainInfoList) -> Result<GetDomainInfoList, Errno> {
    let mut next = Some(op.first_domain);
    op.num_domains = 0;
    while op.num_domains < op.max_domains
        && let Some(domain) = next.and_then(domain::first_from)
    {
        let info: GetDomainInfo = domctl::describe(&domain);
        write_element(caller, op.buffer, u64::from(op.num_domains), &info)?;
        op.num_domains += 1;
        next = domain.id.raw().checked_add(1).map(DomId::new);
    }
    Ok(op)
}

/// `XEN_SYSCTL_debug_keys`.
fn press_keys(caller: &Caller<'_>, op: &DebugKeys) -> Result<(), Errno> {
    let mut pressed = [0; MAX_KEYS as usize];
    let pressed = pressed.get_mut(..op.nr_keys as usize).ok_or(Errno::E2BIG)?;
    guest::read_slice(caller, op.keys.raw(), pressed)?;
    for &key in pressed.iter() {
        keys::press(key);
    }
    Ok(())
}

/// `XEN_SYSCTL_scheduler_op`: what there is to tell about the scheduler, in the terms of credit2. The shortest run is kept
/// for who asks: how long a vCPU runs before another preempts it follows from their weights.
fn scheduler_op(mut op: SchedulerOp) -> Result<SchedulerOp, Errno> {
    if op.cpupool_id != POOL {
        return Err(Errno::ESRCH);
    }
    if op.sched_id != SchedulerId::Credit2.raw() {
        return Err(Errno::EINVAL);
    }
    match op.cmd {
        XEN_SYSCTL_SCHEDOP_GETINFO => {
            op.u.set(&Credit2Schedule { ratelimit_us: ratelimit().load(Ordering::Relaxed) });
            Ok(op)
        }
        XEN_SYSCTL_SCHEDOP_PUTINFO => {
            let Credit2Schedule { ratelimit_us } = op.u.get();
            let allowed = XEN_SYSCTL_SCHED_RATELIMIT_MIN..=XEN_SYSCTL_SCHED_RATELIMIT_MAX;
            if ratelimit_us != 0 && !allowed.contains(&ratelimit_us) {
                return Err(Errno::EINVAL);
            }
            ratelimit().store(ratelimit_us, Ordering::Relaxed);
            Ok(op)
        }
        _ => Err(Errno::EINVAL),
    }
}
