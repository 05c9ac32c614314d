//! Copies into another domain's memory by grant, through Linux's `/dev/xen/gntdev`.
//!
//! Mapping a domain's memory costs Linux two hypercalls per page, whatever the size of the batch (`xen_xlate_remap_gfn_array`);
//! a copy costs a sixteenth of one, and no page table anywhere changes.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};

use pv_abi::domid::DomId;
use pv_abi::grant_table::GrantRef;
use rustix::io::Errno;
use rustix::ioctl::{self, Direction, Ioctl, IoctlOutput, Opcode};

use super::file_pages::FilePages;
use super::{Error, Result};

pub(super) const GNTDEV: &str = "/dev/xen/gntdev";
const PAGE: usize = 4096;
/// The destination is a grant (`GNTCOPY_dest_gref`).
const DESTINATION_IS_GRANT: u16 = 1 << 1;

/// `struct gntdev_grant_copy_segment` (Linux, `include/uapi/xen/gntdev.h`), from here to there.
#[derive(Clone, Copy)]
#[repr(C)]
struct Segment {
    source: *const u8,
    reference: u32,
    offset: u16,
    domain: u16,
    length: u16,
    flags: u16,
    status: i16,
}

/// `struct ioctl_gntdev_grant_copy`.
#[repr(C)]
struct Copy {
    count: u32,
    segments: *mut Segment,
}

// SAFETY: the kernel reads a structure of this layout, and as many segments as it says, whose status it writes. That these
// are there is what `GrantCopy::write` promises.
unsafe impl Ioctl for Copy {
    type Output = i32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::from_components(Direction::None, b'G', 8, size_of::<Self>())
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

/// The way to grants.
#[derive(Debug)]
pub struct GrantCopy(File);

impl GrantCopy {
    /// Opens the device.
    ///
    /// # Errors
    /// [`Error::Grants`].
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(GNTDEV);
        Ok(Self(file.map_err(|error| Error::Grants { error })?))
    }

    /// Copies `bytes` into pages that `domain` granted to us: from `offset` in the first page on, then to the pages of the
    /// following references. Best where `bytes` lie in their pages as they shall lie there.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn write(&self, domain: DomId, first: GrantRef, offset: usize, bytes: &[u8]) -> Result<()> {
        // SAFETY: the bytes of a slice can be read.
        unsafe { self.copy(domain, first, offset, bytes.as_ptr(), bytes.len()) }
    }

    /// The same for `length` bytes of a file from `at` on, which nothing but the hypervisor reads.
    ///
    /// # Errors
    /// [`Error::Map`], also where the file has become shorter.
    pub fn write_file(
        &self,
        domain: DomId,
        first: GrantRef,
        offset: usize,
        file: &FilePages,
        at: u64,
        length: usize,
    ) -> Result<()> {
        let errno = Errno::FAULT;
        let source =
            file.place(at, length).ok_or(Error::Map { domain, what: "bytes of a file".into(), errno })?;
        // SAFETY: mapped for reading as long as `file` is.
        unsafe { self.copy(domain, first, offset, source, length) }
    }

    /// # Safety
    /// `length` bytes at `source` are mapped and nobody but the kernel writes there meanwhile.
    unsafe fn copy(
        &self,
        domain: DomId,
        first: GrantRef,
        offset: usize,
        source: *const u8,
        length: usize,
    ) -> Result<()> {
        let mut segments = Vec::with_capacity(length.div_ceil(PAGE) + 1);
        let (mut done, mut reference, mut offset) = (0, first, offset % PAGE);
        while done < length {
            let part = (length - done).min(PAGE - offset);
            segments.push(Segment {
                source: source.wrapping_add(done),
                reference,
                // Both within a page.
                offset: offset as u16,
                domain: domain.raw(),
                length: part as u16,
                flags: DESTINATION_IS_GRANT,
                status: 0,
            });
            (done, reference, offset) = (done + part, reference + 1, 0);
        }
        let failed = |what, errno| Error::Map { domain, what, errno };
        let count = u32::try_from(segments.len()).map_err(|_| failed("a copy".into(), Errno::TOOBIG))?;
        // SAFETY: as many segments as `count` says; each source is a part of the bytes at
        // `source`, which are only read.
        unsafe { ioctl::ioctl(&self.0, Copy { count, segments: segments.as_mut_ptr() }) }
            .map_err(|errno| failed(format!("copy to grant {first}"), errno))?;
        match segments.iter().find(|segment| segment.status != 0) {
            None => Ok(()),
            Some(Segment { reference, status, .. }) => {
                Err(failed(format!("copy to grant {reference} has status {status}"), Errno::FAULT))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_those_of_the_header() {
        assert_eq!(size_of::<Segment>(), 24);
        assert_eq!(std::mem::offset_of!(Segment, length), 16);
        assert_eq!(std::mem::offset_of!(Segment, status), 20);
        let copy = Copy { count: 0, segments: std::ptr::null_mut() };
        // _IOC(0, 'G', 8, 16)
        assert_eq!(copy.opcode() as u64, 0x0010_4708);
    }
}
