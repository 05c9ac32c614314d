//! `platform_op`: dom0's kernel tells the time.

use pv_abi::Errno;
use pv_abi::platform::{Op, Platform, Settime32, Settime64, XENPF_INTERFACE_VERSION};

use crate::mm::guest;
use crate::privilege::{self, Action};
use crate::time::Nanoseconds;
use crate::wallclock;

use super::{Caller, Outcome};

/// `HYPERVISOR_platform_op(address)`.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    privilege::may(caller.domain, Action::UseMachine).and_then(|()| serve(caller, args[0])).into()
}

fn serve(caller: &Caller<'_>, address: u64) -> Result<(), Errno> {
    let request: Platform = guest::read(caller, address)?;
    if request.interface_version != XENPF_INTERFACE_VERSION {
        return Err(Errno::EACCES);
    }
    match Op::try_from(request.cmd) {
        Ok(Op::Settime64) => {
            let time: Settime64 = request.u.get();
            if time.mbz != 0 {
                return Err(Errno::EINVAL);
            }
            wallclock::set(time.secs, time.nsecs, Nanoseconds::new(time.system_time));
            Ok(())
        }
        Ok(Op::Settime32) => {
            let time: Settime32 = request.u.get();
            wallclock::set(time.secs.into(), time.nsecs, Nanoseconds::new(time.system_time));
            Ok(())
        }
        // ACPI, microcode, x86's memory types: not this machine's.
        Ok(_) | Err(_) => Err(Errno::ENOSYS),
    }
}
