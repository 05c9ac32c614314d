//! Memory for a hypercall's arguments: whole pages that stay resident and where they are while the hypervisor uses them.
//!
//! They come from `/dev/xen/hypercall`, whose pages the kernel never moves. Where it is missing (Linux before 4.18) they
//! are anonymous, locked pages; the kernel could still migrate such a page for a moment, which is what libxencall accepts too.

use std::fs::File;

use pv_abi::GuestHandle;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::mapping::Mapping;

/// Pages, and nothing but bytes in them. They are only ever copied in and out: no reference to them exists that a write
/// of the hypervisor could contradict.
#[derive(Debug)]
pub(super) struct Buffer(Mapping);

impl Buffer {
    /// At least `length` bytes of zeros, at the start of a page.
    pub(super) fn new(device: Option<&File>, length: usize) -> Result<Self, Errno> {
        let page = rustix::param::page_size();
        let length = length.max(1).checked_next_multiple_of(page).ok_or(Errno::NOMEM)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let mapping = match device {
            Some(device) => Mapping::of(device, length, 0, access, MapFlags::SHARED),
            None => Mapping::anonymous(length, MapFlags::PRIVATE | MapFlags::LOCKED),
        };
        let mut buffer = Self(mapping?);
        // The pages exist once they were written; the hypervisor finds no page that does not.
        for at in (0..length).step_by(page) {
            buffer.put(at, &0u8);
        }
        Ok(buffer)
    }

    /// Copies `value` to `offset`.
    pub(super) fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, offset: usize, value: &T) {
        let bytes = value.as_bytes();
        let to = self.0.place(offset, bytes.len());
        // SAFETY: `place` checked the range, which is mapped for writing; `bytes` are elsewhere, as no reference into
        // the mapping exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
    }

    /// Copies the value at `offset`.
    pub(super) fn get<T: FromBytes + IntoBytes>(&self, offset: usize) -> T {
        let mut value = T::new_zeroed();
        self.copy_out(offset, value.as_mut_bytes());
        value
    }

    /// Copies `count` values from `offset` on.
    pub(super) fn list<T: FromBytes + IntoBytes>(&self, offset: usize, count: usize) -> Vec<T> {
        (0..count).map(|index| self.get(offset + index * size_of::<T>())).collect()
    }

    /// Copies bytes from `offset` on.
    pub(super) fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let from = self.0.place(offset, bytes.len());
        // SAFETY: `place` checked the range, which is mapped for reading; `bytes` are elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
    }

    /// The address of `offset`, for a hypercall.
    pub(super) fn address(&self, offset: usize) -> u64 {
        self.0.place(offset, 0).as_ptr() as u64
    }

    /// The address of `offset`, for a structure.
    pub(super) fn handle(&self, offset: usize) -> GuestHandle {
        GuestHandle::new(self.address(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back() {
        let mut buffer = Buffer::new(None, 5000).unwrap();
        assert_eq!(buffer.get::<[u8; 16]>(4990), [0; 16]);
        buffer.put(4094, &0x1234_5678u32);
        assert_eq!(buffer.get::<u32>(4094), 0x1234_5678);
        assert_eq!(buffer.list::<u16>(4094, 2), [0x5678, 0x1234]);
        assert_eq!(buffer.address(0) % 4096, 0);
        assert_eq!(buffer.handle(8).raw(), buffer.address(0) + 8);
    }

    #[test]
    #[should_panic(expected = "past the end of the mapping")]
    fn a_buffer_has_an_end() {
        let buffer = Buffer::new(None, 1).unwrap();
        let length = buffer.0.length();
        buffer.get::<u64>(length - 4);
    }
}
