//! The kernel's files: what they say now, and the trigger that tells of stalls.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::report::{Pressure, Usage};

/// What the kernel says of its memory.
pub const MEMINFO: &str = "/proc/meminfo";
/// What it says of programs that wait for memory.
pub const PRESSURE: &str = "/proc/pressure/memory";

/// Programs stalled for 50 ms within 500 ms, in µs: the shortest window that the kernel knows
/// (`Documentation/accounting/psi.rst`). It looks ten times in a window, and tells once.
const TRIGGER: &[u8] = b"some 50000 500000\0";
/// The files are shorter.
const LONGEST: usize = 8192;

/// Reads a file of the kernel from its start; what is longer or no text is cut.
fn read<T>(file: &File, take: impl FnOnce(&str) -> T) -> io::Result<T> {
    let mut bytes = [0; LONGEST];
    let length = file.read_at(&mut bytes, 0)?;
    let text = bytes.get(..length).unwrap_or_default();
    Ok(take(match str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => str::from_utf8(&text[..error.valid_up_to()]).unwrap_or_default(),
    }))
}

/// `/proc/meminfo`, open.
#[derive(Debug)]
pub struct Meminfo(File);

impl Meminfo {
    /// Opens it.
    ///
    /// # Errors
    /// Of the system: there is no `/proc`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    /// What it says now.
    ///
    /// # Errors
    /// It cannot be read, or makes no sense.
    pub fn usage(&self) -> io::Result<Usage> {
        let nonsense =
            || io::Error::new(io::ErrorKind::InvalidData, "it does not say how much memory there is");
        read(&self.0, Usage::from_meminfo)?.ok_or_else(nonsense)
    }
}

impl AsFd for Meminfo {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `/proc/pressure/memory`, open.
#[derive(Debug)]
pub struct PressureFile {
    file: File,
    trigger: Option<File>,
}

impl PressureFile {
    /// Opens it and sets the trigger. That there is no trigger is said, and no error.
    ///
    /// # Errors
    /// Of the system: a kernel without pressure stall information, or with `psi=0`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::open(path.as_ref())?;
        // A kernel that was told not to count opens the file and then refuses to read it.
        read(&file, Pressure::from_proc)?;
        let trigger = set_trigger(path.as_ref()).map_err(|error| {
            eprintln!(
                "xen-memory-agent: the kernel will not tell of stalls ({error}); reports go once a second"
            );
        });
        Ok(Self { file, trigger: trigger.ok() })
    }

    /// The counts so far.
    pub fn totals(&self) -> Option<Pressure> {
        read(&self.file, Pressure::from_proc).ok().flatten()
    }

    /// What becomes ready when programs stall.
    pub fn trigger(&self) -> Option<BorrowedFd<'_>> {
        self.trigger.as_ref().map(File::as_fd)
    }

    /// Goes on without.
    pub fn drop_trigger(&mut self) {
        self.trigger = None;
    }
}

fn set_trigger(path: &Path) -> io::Result<File> {
    let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, TRIGGER)?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_says_something() {
        let meminfo = Meminfo::open(MEMINFO).unwrap();
        let usage = meminfo.usage().unwrap();
        assert!(usage.total > 0 && usage.available <= usage.total, "{usage:?}");
        assert!(meminfo.usage().unwrap().total > 0, "it is read from the start again");
    }

    #[test]
    fn a_file_that_is_something_else_is_an_error() {
        assert!(Meminfo::open("/nowhere").is_err());
        assert!(Meminfo::open("/dev/null").unwrap().usage().is_err());
        assert!(PressureFile::open("/nowhere").is_err());
    }
}
