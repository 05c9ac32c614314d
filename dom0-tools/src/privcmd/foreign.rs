//! Memory of another domain in this process: guest frames, and what the hypervisor keeps for the domain.
//!
//! The driver makes an empty mapping first, which one of its ioctls then fills.

use std::ffi::c_void;

use pv_abi::domid::DomId;
use pv_abi::memory::{ResourceType, XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED};
use rustix::io::Errno;
use rustix::ioctl::{self, Direction, Ioctl, IoctlOutput, Opcode};

use super::{Error, Privcmd, Result};
use crate::shared_memory::SharedMemory;

const PAGE: usize = 4096;

/// What [`Privcmd::map_resource`] maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The shared frames of a domain's grant table.
    GrantTable,
}

/// `struct privcmd_mmapbatch_v2` (Linux, `include/uapi/xen/privcmd.h`).
#[repr(C)]
struct MapBatch {
    num: u32,
    domain: u16,
    address: u64,
    frames: *const u64,
    errors: *mut i32,
}

/// `struct privcmd_mmap_resource`.
#[repr(C)]
struct MapResource {
    domain: u16,
    r#type: u32,
    id: u32,
    index: u32,
    number: u64,
    address: u64,
}

/// An ioctl without direction or size in its number, as all of privcmd's.
macro_rules! privcmd_ioctl {
    ($type:ty, $number:literal) => {
        // SAFETY: the kernel reads a structure of this layout at the pointer. That what the structure points to is
        // there, is what the function promises that issues it.
        unsafe impl Ioctl for $type {
            type Output = i32;

            const IS_MUTATING: bool = true;

            fn opcode(&self) -> Opcode {
                ioctl::opcode::from_components(Direction::None, b'P', $number, size_of::<Self>())
            }

            fn as_ptr(&mut self) -> *mut c_void {
                std::ptr::from_mut(self).cast()
            }

            unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
                Ok(out)
            }
        }
    };
}

privcmd_ioctl!(MapBatch, 4);
privcmd_ioctl!(MapResource, 7);

impl Privcmd {
    /// Address space for `pages` pages, which the driver then fills.
    fn reserve(&self, domain: DomId, pages: usize) -> Result<SharedMemory> {
        let failed = |errno| Error::Map { domain, what: format!("{pages} pages"), errno };
        let length = pages.checked_mul(PAGE).filter(|&length| length > 0).ok_or(failed(Errno::INVAL))?;
        SharedMemory::map(&self.privcmd, length, 0).map_err(failed)
    }

    /// Maps guest frames of another domain one after the other, writable. They go with the domain, but only when they are
    /// mapped no more.
    ///
    /// # Errors
    /// [`Error::Map`]: it names the first frame that could not be mapped.
    pub fn map_foreign(&self, domain: DomId, frames: &[u64]) -> Result<SharedMemory> {
        let mapping = self.reserve(domain, frames.len())?;
        let mut errors = vec![0i32; frames.len()];
        let batch = MapBatch {
            num: u32::try_from(frames.len()).map_err(|_| Error::Memory(Errno::TOOBIG))?,
            domain: domain.raw(),
            address: mapping.address(),
            frames: frames.as_ptr(),
            errors: errors.as_mut_ptr(),
        };
        // SAFETY: both lists are as long as `num` says, and the address is that of our fresh mapping of that many pages.
        let answer = unsafe { ioctl::ioctl(&self.privcmd, batch) };
        if let Some((frame, error)) = frames.iter().zip(&errors).find(|(_, error)| **error != 0) {
            let errno = Errno::from_raw_os_error(-error);
            return Err(Error::Map { domain, what: format!("guest frame {frame:#x}"), errno });
        }
        match answer {
            Ok(_) => Ok(mapping),
            Err(errno) => Err(Error::Map { domain, what: format!("{} pages", frames.len()), errno }),
        }
    }

    /// Maps `pages` pages of a resource from its page `first` on, writable.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn map_resource(
        &self,
        domain: DomId,
        resource: Resource,
        first: u32,
        pages: usize,
    ) -> Result<SharedMemory> {
        let mapping = self.reserve(domain, pages)?;
        let Resource::GrantTable = resource;
        let map = MapResource {
            domain: domain.raw(),
            r#type: ResourceType::GrantTable.raw(),
            id: XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED,
            index: first,
            number: pages as u64,
            address: mapping.address(),
        };
        // SAFETY: the address is that of our fresh mapping of that many pages.
        match unsafe { ioctl::ioctl(&self.privcmd, map) } {
            Ok(_) => Ok(mapping),
            Err(errno) => Err(Error::Map { domain, what: "its grant table".into(), errno }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_are_those_of_the_header() {
        let batch = MapBatch {
            num: 0,
            domain: 0,
            address: 0,
            frames: std::ptr::null(),
            errors: std::ptr::null_mut(),
        };
        // _IOC(0, 'P', 4, 32) and _IOC(0, 'P', 7, 32)
        assert_eq!(batch.opcode() as u64, 0x0020_5004);
        let resource = MapResource { domain: 0, r#type: 0, id: 0, index: 0, number: 0, address: 0 };
        assert_eq!(resource.opcode() as u64, 0x0020_5007);
        assert_eq!(std::mem::offset_of!(MapBatch, address), 8);
        assert_eq!(std::mem::offset_of!(MapResource, r#type), 4);
        assert_eq!(std::mem::offset_of!(MapResource, number), 16);
    }
}
