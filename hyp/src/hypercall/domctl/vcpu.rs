//! One vCPU: what it does, and on which CPUs.

use alloc::sync::Arc;

use pv_abi::Errno;
use pv_abi::domctl::{GetVcpuInfo, VcpuAffinity, XEN_VCPUAFFINITY_HARD, XEN_VCPUAFFINITY_SOFT};

use crate::domain::Domain;
use crate::hypercall::{Caller, bitmap};
use crate::sched::{self, CpuMask, Phase, State};
use crate::vcpu::{Vcpu, VcpuId};

/// `XEN_DOMCTL_getvcpuinfo`. `EINVAL` beyond the domain's vCPUs.
pub(super) fn info(domain: &Domain, mut op: GetVcpuInfo) -> Result<GetVcpuInfo, Errno> {
    let vcpu = domain.vcpu(VcpuId::new(op.vcpu)).ok_or(Errno::EINVAL)?;
    let run = sched::runstate(vcpu);
    let state = vcpu.sched.state();
    op.online = u8::from(state != State::Down);
    op.blocked = u8::from(state == State::Blocked);
    op.running = u8::from(state == State::Running);
    op.cpu_time = run.spent[Phase::Running as usize].get();
    op.cpu = vcpu.sched.home().index() as u32;
    Ok(op)
}

/// The vCPU of an affinity operation. `EINVAL` beyond the domain's vCPUs, or without any flag.
fn subject<'d>(domain: &'d Domain, op: &VcpuAffinity) -> Result<&'d Arc<Vcpu>, Errno> {
    let vcpu = domain.vcpu(VcpuId::new(op.vcpu)).ok_or(Errno::EINVAL)?;
    if op.flags == 0 { Err(Errno::EINVAL) } else { Ok(vcpu) }
}

/// `XEN_DOMCTL_getvcpuaffinity`: the maps as they were set, as far as there are CPUs.
pub(super) fn affinity(
    caller: &Caller<'_>,
    domain: &Domain,
    op: VcpuAffinity,
) -> Result<VcpuAffinity, Errno> {
    let vcpu = subject(domain, &op)?;
    if op.flags & XEN_VCPUAFFINITY_HARD != 0 {
        bitmap::write(caller, &op.cpumap_hard, vcpu.sched.affinity().and(sched::online()).bits())?;
    }
    if op.flags & XEN_VCPUAFFINITY_SOFT != 0 {
        bitmap::write(caller, &op.cpumap_soft, vcpu.sched.soft_affinity().and(sched::online()).bits())?;
    }
    Ok(op)
}

/// `XEN_DOMCTL_setvcpuaffinity`, which answers with the maps in effect: CPUs that there are, soft ones only if allowed.
pub(super) fn set_affinity(
    caller: &Caller<'_>,
    domain: &Domain,
    op: VcpuAffinity,
) -> Result<VcpuAffinity, Errno> {
    let vcpu = subject(domain, &op)?;
    if op.flags & XEN_VCPUAFFINITY_HARD != 0 {
        let wanted = CpuMask::from_bits(bitmap::read(caller, &op.cpumap_hard)?);
        if !sched::set_affinity(vcpu, wanted) {
            return Err(Errno::EINVAL);
        }
    }
    if op.flags & XEN_VCPUAFFINITY_SOFT != 0 {
        vcpu.sched.set_soft_affinity(CpuMask::from_bits(bitmap::read(caller, &op.cpumap_soft)?));
    }
    let effective = vcpu.sched.affinity().and(sched::online());
    if op.flags & XEN_VCPUAFFINITY_HARD != 0 {
        bitmap::write(caller, &op.cpumap_hard, effective.bits())?;
    }
    if op.flags & XEN_VCPUAFFINITY_SOFT != 0 {
        bitmap::write(caller, &op.cpumap_soft, effective.and(vcpu.sched.soft_affinity()).bits())?;
    }
    Ok(op)
}
