//! Hypercalls from a program in dom0, through Linux's `/dev/xen/privcmd`.
//!
//! [`Privcmd`] has one safe method for each operation, in a file by hypercall below this one. Each makes a structure in a
//! [`Buffer`], which the hypervisor reads and writes where it is, and copies the answer out of it.
//!
//! All `unsafe` of the tools is here, for two reasons: mapped memory ([`buffer`]), and the promise of each call that every
//! address in its structure is that of a buffer with room for the answer ([`Privcmd::call`]).

mod buffer;
mod creation;
mod domctl;
mod event;
mod file_pages;
mod foreign;
mod grant_copy;
mod memory;
mod parameters;
mod sched;
mod sysctl;
mod version;

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;

use pv_abi::domid::DomId;
use pv_abi::hypercall::Hypercall;
use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use zerocopy::{Immutable, IntoBytes};

use buffer::Buffer;

pub use domctl::{Affinity, CreditParameters};
pub use file_pages::FilePages;
pub use foreign::Resource;
pub use grant_copy::GrantCopy;
pub use memory::MemoryTarget;
pub use sysctl::{NumaNode, Pool};
pub use version::Version;

const PRIVCMD: &str = "/dev/xen/privcmd";
const HYPERCALL: &str = "/dev/xen/hypercall";

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to the hypervisor.
    #[error("cannot open {PRIVCMD}: {0}{hint}", hint = open_hint(.0))]
    Open(io::Error),
    /// There is no way to grants.
    #[error("cannot open {path}: {error}", path = grant_copy::GNTDEV)]
    Grants {
        /// What the kernel said.
        error: io::Error,
    },
    /// Another domain's memory could not be mapped, or not all of it.
    #[error("cannot map memory of domain {domain}: {what}: {errno}", domain = .domain.raw())]
    Map {
        /// Whose.
        domain: DomId,
        /// Which part of it.
        what: String,
        /// The kernel's or the hypervisor's answer.
        errno: Errno,
    },
    /// No memory for the arguments.
    #[error("no memory that can be locked for a hypercall: {0}")]
    Memory(Errno),
    /// The hypervisor refused.
    #[error("{what}: {errno}{hint}", hint = refusal_hint(.what, *.errno))]
    Refused {
        /// The hypercall and its operation.
        what: &'static str,
        /// Its answer.
        errno: Errno,
    },
}

impl Error {
    /// Whether this is the hypervisor's answer `errno`.
    pub fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Refused { errno: found, .. } if *found == errno)
    }
}

fn open_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (is this dom0 on Xen or Nacelle, and the module xen-privcmd loaded?)",
        io::ErrorKind::PermissionDenied => " (only root may)",
        _ => "",
    }
}

fn refusal_hint(what: &str, errno: Errno) -> &'static str {
    match errno {
        Errno::ACCESS if what.starts_with("sysctl") || what.starts_with("domctl") => {
            " (the hypervisor speaks another version of this interface: these tools are for Xen 4.17 and Nacelle)"
        }
        Errno::PERM => " (only the control domain may)",
        _ => "",
    }
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;

/// The way to the hypervisor.
#[derive(Debug)]
pub struct Privcmd {
    privcmd: File,
    /// Linux 4.18 and later: gives memory that stays where it is during a hypercall.
    memory: Option<File>,
}

/// `struct privcmd_hypercall` (Linux, `include/uapi/xen/privcmd.h`).
#[repr(C)]
struct Request {
    op: u64,
    arg: [u64; 5],
}

// SAFETY: `IOCTL_PRIVCMD_HYPERCALL` reads a `struct privcmd_hypercall` at the pointer and returns the hypercall's result.
// What else it does is the hypercall's, which `Privcmd::call` answers for.
unsafe impl Ioctl for Request {
    type Output = i32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        // _IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall)): `none` has no size, so it is put together here.
        ioctl::opcode::from_components(ioctl::Direction::None, b'P', 0, size_of::<Self>())
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

impl Privcmd {
    /// Opens the devices.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self> {
        let open = |path| OpenOptions::new().read(true).write(true).open(path);
        Ok(Self { privcmd: open(PRIVCMD).map_err(Error::Open)?, memory: open(HYPERCALL).ok() })
    }

    /// Makes a hypercall; `what` names it in the error.
    ///
    /// # Safety
    /// Every address that the hypervisor follows, in `arg` or in what these point to, is that of a live [`Buffer`] with
    /// room for all that the call reads or writes there.
    unsafe fn call(&self, what: &'static str, call: Hypercall, arg: [u64; 5]) -> Result<i32> {
        let request = Request { op: u64::from(call.raw()), arg };
        // SAFETY: our contract. No reference into a buffer exists, ever, so its content may change.
        unsafe { ioctl::ioctl(&self.privcmd, request) }.map_err(|errno| Error::Refused { what, errno })
    }

    fn buffer(&self, length: usize) -> Result<Buffer> {
        Buffer::new(self.memory.as_ref(), length).map_err(Error::Memory)
    }

    /// A buffer of `length` bytes that begins with `value`.
    fn buffer_with<T: IntoBytes + Immutable>(&self, value: &T, length: usize) -> Result<Buffer> {
        let mut buffer = self.buffer(length.max(size_of::<T>()))?;
        buffer.put(0, value);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_the_one_of_the_header() {
        let mut request = Request { op: 0, arg: [0; 5] };
        // _IOC(0, 'P', 0, 48)
        assert_eq!(request.opcode() as u64, 0x0030_5000);
        assert!(!request.as_ptr().is_null());
    }

    #[test]
    fn errors_say_what_to_do() {
        let refused = Error::Refused { what: "sysctl physinfo", errno: Errno::ACCESS };
        assert!(refused.to_string().contains("Xen 4.17"));
        assert!(refused.is(Errno::ACCESS) && !refused.is(Errno::PERM));
        let missing = Error::Open(io::Error::from(io::ErrorKind::NotFound));
        assert!(missing.to_string().contains("xen-privcmd"));
    }
}
