//! Pages that this program shares with another domain or the kernel, which may change them at any time.
//!
//! So no reference to them exists, ever: bytes are copied, indices are atomic words, and what was read once is judged, not
//! read again.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::mapping::Mapping;

/// Mapped pages; unmapped when dropped.
#[derive(Debug)]
pub struct SharedMemory(Mapping);

impl SharedMemory {
    /// Maps `length` bytes of a device, from `offset` on.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn map(device: impl AsFd, length: usize, offset: u64) -> Result<Self, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        Mapping::of(device, length, offset, access, MapFlags::SHARED).map(Self)
    }

    /// Pages of zeros that are shared with nobody: to test with.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn private(length: usize) -> Result<Self, Errno> {
        Mapping::anonymous(length, MapFlags::PRIVATE).map(Self)
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.0.length()
    }

    /// Whether it has no bytes: never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it begins, for a driver that fills the mapping.
    pub(crate) fn address(&self) -> u64 {
        self.0.address()
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(align_of::<AtomicU32>()), "a word that is not aligned");
        let place = self.0.place(offset, size_of::<u32>()).cast();
        // SAFETY: `place` checked the range, which is mapped as long as `self` is, and aligned: mappings begin at a page. All
        // accesses of this program to shared words are atomic.
        unsafe { AtomicU32::from_ptr(place.as_ptr()) }
    }

    /// Reads the word at `offset`.
    ///
    /// # Panics
    /// If `offset` is not aligned or not in the mapping.
    pub fn load(&self, offset: usize, order: Ordering) -> u32 {
        self.word(offset).load(order)
    }

    /// Sets the word at `offset`.
    ///
    /// # Panics
    /// If `offset` is not aligned or not in the mapping.
    pub fn store(&self, offset: usize, value: u32, order: Ordering) {
        self.word(offset).store(value, order);
    }

    /// Copies bytes from `offset` on.
    ///
    /// # Panics
    /// If they are not all in the mapping.
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.0.place(offset, bytes.len());
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: `place` checked the range. Volatile: the other side may write at this moment, and then the byte has
            // either value.
            *byte = unsafe { from.add(index).read_volatile() };
        }
    }

    /// Copies bytes to `offset`.
    ///
    /// # Panics
    /// If there is no room for them in the mapping.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let to = self.0.place(offset, bytes.len());
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: as in `copy_out`; the mapping allows writing, and no reference into it exists.
            unsafe { to.add(index).write_volatile(*byte) };
        }
    }
}

/// Orders all accesses before it against all after it, as the other side sees them.
pub fn barrier() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back() {
        let memory = SharedMemory::private(4096).unwrap();
        memory.copy_in(4090, b"abcdef");
        let mut found = [0; 4];
        memory.copy_out(4091, &mut found);
        assert_eq!(&found, b"bcde");
        memory.store(8, 0x0403_0201, Ordering::Release);
        assert_eq!(memory.load(8, Ordering::Acquire), 0x0403_0201);
        memory.copy_out(8, &mut found);
        assert_eq!(u32::from_ne_bytes(found), 0x0403_0201);
    }

    #[test]
    #[should_panic(expected = "past the end of the mapping")]
    fn a_mapping_has_an_end() {
        SharedMemory::private(4096).unwrap().copy_in(4090, &[0; 7]);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn words_are_aligned() {
        SharedMemory::private(4096).unwrap().load(2, Ordering::Relaxed);
    }
}
