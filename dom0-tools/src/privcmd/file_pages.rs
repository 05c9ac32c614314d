//! A file in this process's memory, for a hypercall to read; the process itself reads the file the usual way.
//!
//! So nobody here depends on mapped bytes that another process changes, nor gets a signal where the file became shorter: the
//! kernel, which looks the pages up for the hypervisor, answers with an error then.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::mm::{MapFlags, ProtFlags};

use crate::mapping::Mapping;

/// A file that is mapped, if it can be.
#[derive(Debug)]
pub struct FilePages {
    file: File,
    length: u64,
    mapping: Option<Mapping>,
}

impl FilePages {
    /// Maps a file as long as it is now.
    ///
    /// # Errors
    /// Its length cannot be read.
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let size = usize::try_from(length).unwrap_or(0);
        let mapping = Mapping::of(&file, size, 0, ProtFlags::READ, MapFlags::PRIVATE);
        // An empty file, for one, cannot be mapped.
        Ok(Self { file, length, mapping: mapping.ok() })
    }

    /// Bytes in the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether it is mapped.
    pub fn is_mapped(&self) -> bool {
        self.mapping.is_some()
    }

    /// Reads bytes from `offset` on.
    ///
    /// # Errors
    /// Of the file, also where it ends before.
    pub fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(to, offset)
    }

    /// Where `length` bytes from `offset` on are, if they are mapped.
    pub(super) fn place(&self, offset: u64, length: usize) -> Option<*const u8> {
        let is_inside = offset.checked_add(length as u64).is_some_and(|end| end <= self.length);
        let offset = usize::try_from(offset).ok().filter(|_| is_inside)?;
        Some(self.mapping.as_ref()?.place(offset, length).as_ptr().cast_const())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_file_has_a_place() {
        let pages = FilePages::new(File::open("/proc/self/exe").unwrap()).unwrap();
        let length = pages.length();
        assert!(pages.is_mapped() && length > 100);
        assert!(pages.place(length - 10, 10).is_some());
        assert!(pages.place(length - 10, 11).is_none());
        assert!(pages.place(u64::MAX, 1).is_none());
        let mut magic = [0; 4];
        pages.read_at(0, &mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        let empty = FilePages::new(File::open("/dev/null").unwrap()).unwrap();
        assert!(!empty.is_mapped() && empty.place(0, 0).is_none());
    }
}
