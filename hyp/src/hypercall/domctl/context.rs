//! `XEN_DOMCTL_setvcpucontext` and `getvcpucontext`: a vCPU's registers, while its domain holds still.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use pv_abi::Errno;
use pv_abi::arch_arm::{
    PSR_MODE_BIT, PSR_MODE_EL0T, PSR_MODE_EL1H, PSR_MODE_EL1T, VGCF_ONLINE, VcpuGuestContext,
};
use pv_abi::domctl::VcpuContext;

use crate::arch;
use crate::domain::{Domain, life};
use crate::hypercall::Caller;
use crate::mm::guest;
use crate::sched::{self, State};
use crate::vcpu::{Vcpu, VcpuId};

/// The mode field of PSTATE as SPSR_EL2 has it, AArch64's (DDI 0487 C5.2.19).
const MODE: u64 = 0xf;

/// The vCPU meant, of another domain than the caller's: that one cannot hold still.
fn subject<'d>(
    caller: &Caller<'_>,
    domain: &'d Domain,
    op: &VcpuContext,
    missing: Errno,
) -> Result<&'d Arc<Vcpu>, Errno> {
    if domain.id == caller.domain.id {
        return Err(Errno::EINVAL);
    }
    domain.vcpu(VcpuId::new(op.vcpu)).ok_or(missing)
}

/// Sets the registers and whether it runs; a null address resets it. `EINVAL` for a PSTATE that is not AArch64's at EL1 or
/// EL0.
pub(super) fn set(caller: &Caller<'_>, domain: &Domain, op: &VcpuContext) -> Result<(), Errno> {
    let vcpu = subject(caller, domain, op, Errno::EINVAL)?;
    if op.ctxt.is_null() {
        return life::while_paused(domain, || {
            switch(vcpu, false);
            arch::start_vcpu(vcpu, 0, 0);
            vcpu.is_initialised.store(false, Ordering::Release);
            Ok(())
        });
    }
    let context: VcpuGuestContext = guest::read(caller, op.ctxt.raw())?;
    let pstate = context.user_regs.cpsr;
    let is_ours = u32::try_from(pstate).is_ok()
        && pstate & PSR_MODE_BIT == 0
        && [PSR_MODE_EL1H, PSR_MODE_EL1T, PSR_MODE_EL0T].contains(&(pstate & MODE));
    if !is_ours {
        return Err(Errno::EINVAL);
    }
    life::while_paused(domain, || {
        arch::write_context(vcpu, &context);
        vcpu.is_initialised.store(true, Ordering::Release);
        switch(vcpu, context.flags & VGCF_ONLINE != 0);
        Ok(())
    })
}

fn switch(vcpu: &Arc<Vcpu>, on: bool) {
    vcpu.is_up.store(on, Ordering::Release);
    if on { sched::start(vcpu) } else { sched::stop(vcpu) }
}

/// Reads the registers. `ESRCH` for a vCPU that is not there, `ENODATA` for one whose registers were never set.
pub(super) fn get(caller: &Caller<'_>, domain: &Domain, op: &VcpuContext) -> Result<(), Errno> {
    let vcpu = subject(caller, domain, op, Errno::ESRCH)?;
    if !vcpu.is_initialised.load(Ordering::Acquire) {
        return Err(Errno::ENODATA);
    }
    let context = life::while_paused(domain, || {
        let flags = if vcpu.sched.state() == State::Down { 0 } else { VGCF_ONLINE };
        Ok(VcpuGuestContext { flags, ..arch::read_context(vcpu) })
    })?;
    guest::write(caller, op.ctxt.raw(), &context)
}
