//! Pages that the kernel has mapped into this program.

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Mapped pages, which are only told where they are; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; who reads or writes in it answers for that.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `length` bytes of a file or device, from `offset` on.
    pub(crate) fn of(
        file: impl AsFd,
        length: usize,
        offset: u64,
        access: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { rustix::mm::mmap(null_mut(), length, access, flags, file, offset) }?;
        Self::at(start, length)
    }

    /// Maps `length` bytes of zeros, to be read and written.
    pub(crate) fn anonymous(length: usize, flags: MapFlags) -> Result<Self, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { rustix::mm::mmap_anonymous(null_mut(), length, access, flags) }?;
        Self::at(start, length)
    }

    fn at(start: *mut c_void, length: usize) -> Result<Self, Errno> {
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, length })
    }

    /// Bytes of it.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Where `bytes` bytes from `offset` on are: mapped as long as `self` is. It begins at a page.
    ///
    /// # Panics
    /// If the mapping does not hold that range: the caller's mistake.
    pub(crate) fn place(&self, offset: usize, bytes: usize) -> NonNull<u8> {
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.length), "past the end of the mapping");
        // SAFETY: within the mapping, as just checked.
        unsafe { self.start.add(offset) }
    }

    /// Where it begins, for the kernel or the hypervisor.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our mapping, and nothing refers to it any more. Unmapping all of it cannot fail.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast::<c_void>(), self.length) };
    }
}
