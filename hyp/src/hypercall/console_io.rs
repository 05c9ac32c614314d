//! `console_io`: dom0's terminal is Nacelle's console.

use pv_abi::Errno;
use pv_abi::xen::ConsoleIo;

use crate::mm::guest;
use crate::privilege::{self, Action};
use crate::{arch, console};

use super::{Caller, Outcome};

/// Bytes copied at once.
const CHUNK: usize = 128;

/// `HYPERVISOR_console_io(cmd, count, buffer)`.
pub fn call(caller: &Caller<'_>, args: &[u64; 5]) -> Outcome {
    let &[cmd, count, buffer, ..] = args;
    // As Xen: only the domain that owns the console.
    if let Err(errno) = privilege::may(caller.domain, Action::UseConsole) {
        return Outcome::Done(errno.into());
    }
    match ConsoleIo::try_from(cmd as u32) {
        Ok(ConsoleIo::Write) => write(caller, cmd, count as u32, buffer),
        Ok(ConsoleIo::Read) => read(caller, count as u32, buffer).into(),
        Err(_) => Outcome::Done(Errno::ENOSYS.into()),
    }
}

fn write(caller: &Caller<'_>, cmd: u64, count: u32, buffer: u64) -> Outcome {
    // A count that is negative in C is refused as such.
    if count > i32::MAX as u32 {
        return Outcome::Done(Errno::EINVAL.into());
    }
    let mut left = u64::from(count);
    let mut at = buffer;
    while left != 0 {
        let mut bytes = [0; CHUNK];
        let size = left.min(CHUNK as u64) as usize;
        if let Err(errno) = guest::read_slice(caller, at, &mut bytes[..size]) {
            return Outcome::Done(errno.into());
        }
        console::write_raw(&bytes[..size]);
        left -= size as u64;
        at = at.wrapping_add(size as u64);
        if left != 0 && arch::interrupt_pending() {
            return Outcome::Again([cmd, left, at, 0, 0]);
        }
    }
    Outcome::Done(0)
}

fn read(caller: &Caller<'_>, count: u32, buffer: u64) -> Result<i64, Errno> {
    if count > i32::MAX as u32 {
        return Err(Errno::EINVAL);
    }
    let mut bytes = [0; CHUNK];
    let size = (count as usize).min(CHUNK);
    let taken = console::take_input(&mut bytes[..size]);
    guest::write_slice(caller, buffer, &bytes[..taken])?;
    Ok(taken as i64)
}
