//! What the toolstack's calls, `sysctl` and `domctl`, have in common: who may make them, and in which version.

use pv_abi::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::Caller;
use crate::console::GUEST;
use crate::mm::guest;
use crate::privilege::{self, Action};

/// Reads the call's structure.
///
/// # Errors
/// `EPERM`: the caller may not make such calls. `EFAULT`.
pub fn read<T: FromBytes + IntoBytes>(caller: &Caller<'_>, action: Action, address: u64) -> Result<T, Errno> {
    privilege::may(caller.domain, action)?;
    guest::read(caller, address)
}

/// Refuses a caller that was built for another version of an interface, and says so: its own message seldom does.
///
/// # Errors
/// `EACCES`, as Xen.
pub fn check_version(caller: &Caller<'_>, interface: &str, given: u32, ours: u32) -> Result<(), Errno> {
    if given == ours {
        return Ok(());
    }
    log::warn!(
        target: GUEST,
        "{}: {interface} of interface version {given:#x} refused, Nacelle speaks {ours:#x} (Xen 4.17)",
        caller.domain.id
    );
    Err(Errno::EACCES)
}
