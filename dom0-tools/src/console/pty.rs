//! A guest's pseudo terminal: our end, and the other, which stays open here too, so that it lives on when nobody else has it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// One pseudo terminal.
#[derive(Debug)]
pub(super) struct Pty {
    ours: File,
    _theirs: File,
    /// Where the other end is, for XenStore's `tty`.
    pub(super) path: String,
}

impl Pty {
    /// A new one that passes every byte as it is.
    pub(super) fn new() -> io::Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let path = ptsname(&ours, Vec::new())?.into_string().map_err(io::Error::other)?;
        let theirs = open(&path)?;
        Ok(Self { ours: File::from(ours), _theirs: theirs, path })
    }

    /// Shows `bytes`; how many were taken now.
    pub(super) fn show(&self, bytes: &[u8]) -> io::Result<usize> {
        none_if_blocked((&self.ours).write(bytes))
    }

    /// What was typed; how many bytes.
    pub(super) fn typed(&self, bytes: &mut [u8]) -> io::Result<usize> {
        none_if_blocked((&self.ours).read(bytes))
    }
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}

/// Opens a guest's terminal, without waiting, and has it pass every byte as it is.
pub(super) fn open(path: &str) -> io::Result<File> {
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
    let terminal = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let mut settings = tcgetattr(&terminal)?;
    settings.make_raw();
    tcsetattr(&terminal, OptionalActions::Now, &settings)?;
    Ok(terminal)
}

/// That nothing goes now is a count of 0.
pub(super) fn none_if_blocked(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_as_they_are_however_often_the_other_end_is_opened() {
        let pty = Pty::new().unwrap();
        for _ in 0..3 {
            let mut other = open(&pty.path).unwrap();
            let text = b"\x03\x04\r\n\x1b[A\xff";
            assert_eq!(pty.show(text).unwrap(), text.len());
            let mut heard = [0; 100];
            assert_eq!(other.read(&mut heard).unwrap(), text.len());
            assert_eq!(&heard[..text.len()], text);
            other.write_all(text).unwrap();
            assert_eq!(pty.typed(&mut heard).unwrap(), text.len());
            assert_eq!(&heard[..text.len()], text);
        }
        assert_eq!(pty.typed(&mut [0; 10]).unwrap(), 0);
        // Nobody reads: it takes some, then no more, and does not wait.
        let mut taken = 0;
        while let count @ 1.. = pty.show(&[b'x'; 1000]).unwrap() {
            taken += count;
        }
        assert!(taken > 1000);
    }
}
