//! CPU pools: there is one, of all CPUs and all domains.

use pv_abi::Errno;
use pv_abi::domctl::SchedulerId;
use pv_abi::domid::DomId;
use pv_abi::sysctl::{CpupoolCmd, CpupoolOp};

use super::POOL;
use crate::hypercall::{Caller, bitmap};
use crate::{domain, sched};

/// `XEN_SYSCTL_cpupool_op`.
pub(super) fn serve(caller: &Caller<'_>, mut op: CpupoolOp) -> Result<CpupoolOp, Errno> {
    let cmd = CpupoolCmd::try_from(op.op).map_err(|_| Errno::ENOSYS)?;
    match cmd {
        CpupoolCmd::Info => {
            // Wanted is the first pool with this number or a higher one.
            if op.cpupool_id != POOL {
                return Err(Errno::ENOENT);
            }
            op.cpupool_id = POOL;
            op.sched_id = SchedulerId::Credit2.raw();
            op.n_dom = u32::try_from(domain::count()).unwrap_or(u32::MAX);
            bitmap::write(caller, &op.cpumap, sched::online().bits())?;
        }
        CpupoolCmd::Freeinfo => bitmap::write(caller, &op.cpumap, 0)?,
        CpupoolCmd::Movedomain => {
            let id = u16::try_from(op.domid).map(DomId::new).map_err(|_| Errno::ESRCH)?;
            let domain = domain::find(id).ok_or(Errno::ESRCH)?;
            if domain.id == caller.domain.id {
                return Err(Errno::EPERM);
            }
            if op.cpupool_id != POOL {
                return Err(Errno::ENOENT);
            }
        }
        // No second pool, and the one stays whole.
        CpupoolCmd::Create | CpupoolCmd::Destroy | CpupoolCmd::Addcpu | CpupoolCmd::Rmcpu => {
            return Err(Errno::EOPNOTSUPP);
        }
    }
    Ok(op)
}
