//! Event channels of dom0, through Linux's `/dev/xen/evtchn`.
//!
//! What is bound belongs to the open device and ends with it. An event that arrives is masked until [`EventChannels::unmask`].

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use pv_abi::domid::DomId;
use rustix::fs::OFlags;
use rustix::ioctl::{self, Direction, Ioctl, IoctlOutput, Opcode};
use zerocopy::IntoBytes;

const DEVICE: &str = "/dev/xen/evtchn";

/// One end of an event channel: that of this dom0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u32);

impl Port {
    /// The port of that number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// The event channels of one user.
#[derive(Debug)]
pub struct EventChannels {
    device: File,
}

/// An operation: its number, and its structure of `N` words (Linux, `include/uapi/xen/evtchn.h`).
struct Operation<const NUMBER: u8, const N: usize>([u32; N]);

// SAFETY: each `IOCTL_EVTCHN_*` reads a structure of `N` words at the pointer, whose size is in the opcode, and returns a
// number. None of the structures holds an address.
unsafe impl<const NUMBER: u8, const N: usize> Ioctl for Operation<NUMBER, N> {
    type Output = u32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::from_components(Direction::None, b'E', NUMBER, size_of::<[u32; N]>())
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        Ok(out as u32)
    }
}

const BIND_VIRQ: u8 = 0;
const BIND_INTERDOMAIN: u8 = 1;
const BIND_UNBOUND_PORT: u8 = 2;
const UNBIND: u8 = 3;
const NOTIFY: u8 = 4;

impl EventChannels {
    /// Opens the device.
    ///
    /// # Errors
    /// Of opening; the message names the device.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::NONBLOCK.bits();
        let device = OpenOptions::new().read(true).write(true).custom_flags(flags.cast_signed()).open(DEVICE);
        let explain = |error: io::Error| {
            io::Error::new(error.kind(), format!("{DEVICE}: {error} (is the module xen-evtchn loaded?)"))
        };
        Ok(Self { device: device.map_err(explain)? })
    }

    fn ioctl<const NUMBER: u8, const N: usize>(&self, words: [u32; N]) -> io::Result<u32> {
        // SAFETY: the operations above are those of this device, and touch nothing but their structure.
        Ok(unsafe { ioctl::ioctl(&self.device, Operation::<NUMBER, N>(words)) }?)
    }

    /// Connects to another domain's unbound port.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn bind_interdomain(&self, domain: DomId, remote_port: u32) -> io::Result<Port> {
        self.ioctl::<BIND_INTERDOMAIN, 2>([u32::from(domain.raw()), remote_port]).map(Port)
    }

    /// Makes a port that `domain` may connect to.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn bind_unbound(&self, domain: DomId) -> io::Result<Port> {
        self.ioctl::<BIND_UNBOUND_PORT, 1>([u32::from(domain.raw())]).map(Port)
    }

    /// Makes a port of a virtual interrupt.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn bind_virq(&self, virq: u32) -> io::Result<Port> {
        self.ioctl::<BIND_VIRQ, 1>([virq]).map(Port)
    }

    /// Gives a port up.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn unbind(&self, port: Port) -> io::Result<()> {
        self.ioctl::<UNBIND, 1>([port.0]).map(drop)
    }

    /// Sends an event to the other end.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn notify(&self, port: Port) -> io::Result<()> {
        self.ioctl::<NOTIFY, 1>([port.0]).map(drop)
    }

    /// A port at which an event arrived, and which is masked now; `None` if there is none.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn pending(&self) -> io::Result<Option<Port>> {
        let mut port = [0];
        let count = self.read_pending(&mut port)?;
        Ok((count == 1).then_some(Port(port[0])))
    }

    /// As [`Self::pending`], several at once: their numbers, and how many they are.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn read_pending(&self, ports: &mut [u32]) -> io::Result<usize> {
        match (&self.device).read(ports.as_mut_bytes()) {
            Ok(bytes) => Ok(bytes / size_of::<u32>()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Lets events arrive at a port again.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn unmask(&self, port: Port) -> io::Result<()> {
        self.unmask_all(&[port.0])
    }

    /// As [`Self::unmask`], several at once, by their numbers.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn unmask_all(&self, ports: &[u32]) -> io::Result<()> {
        (&self.device).write_all(ports.as_bytes())
    }
}

impl AsFd for EventChannels {
    /// Readable when an event is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_are_those_of_the_header() {
        // _IOC(_IOC_NONE, 'E', number, size)
        assert_eq!(Operation::<BIND_VIRQ, 1>([0]).opcode() as u64, 0x0004_4500);
        assert_eq!(Operation::<BIND_INTERDOMAIN, 2>([0; 2]).opcode() as u64, 0x0008_4501);
        assert_eq!(Operation::<NOTIFY, 1>([0]).opcode() as u64, 0x0004_4504);
    }
}
