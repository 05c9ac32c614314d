//! Pages that other domains grant to dom0, mapped through Linux's `/dev/xen/gntdev`.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use pv_abi::domid::DomId;
use rustix::ioctl::{self, Direction, Ioctl, IoctlOutput, Opcode};

use crate::shared_memory::SharedMemory;

const DEVICE: &str = "/dev/xen/gntdev";
const PAGE: usize = 4096;

/// The grant of a domain's console page, which the domain builder makes (`GNTTAB_RESERVED_CONSOLE`).
pub const RESERVED_CONSOLE: u32 = 0;
/// The grant of a domain's XenStore page (`GNTTAB_RESERVED_XENSTORE`).
pub const RESERVED_XENSTORE: u32 = 1;

/// The way to granted pages.
#[derive(Clone, Debug)]
pub struct Grants {
    device: Arc<File>,
}

/// `struct ioctl_gntdev_map_grant_ref` with one reference (Linux, `include/uapi/xen/gntdev.h`).
#[repr(C)]
struct MapGrantRef {
    count: u32,
    padding: u32,
    index: u64,
    domid: u32,
    reference: u32,
}

/// `struct ioctl_gntdev_unmap_grant_ref`.
#[repr(C)]
struct UnmapGrantRef {
    index: u64,
    count: u32,
    padding: u32,
}

// SAFETY: `IOCTL_GNTDEV_MAP_GRANT_REF` reads this structure with `count` references behind it, one here, and writes `index`.
unsafe impl Ioctl for MapGrantRef {
    type Output = u64;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::from_components(Direction::None, b'G', 0, size_of::<Self>())
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, from: *mut c_void) -> rustix::io::Result<u64> {
        // SAFETY: `from` is what `as_ptr` gave, a live structure.
        Ok(unsafe { (*from.cast::<Self>()).index })
    }
}

// SAFETY: `IOCTL_GNTDEV_UNMAP_GRANT_REF` reads this structure.
unsafe impl Ioctl for UnmapGrantRef {
    type Output = ();

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::from_components(Direction::None, b'G', 1, size_of::<Self>())
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// A granted page, mapped; given back when dropped.
#[derive(Debug)]
pub struct GrantedPage {
    // Unmapped before the kernel is told, as fields go in order: hence `Option`, taken in `drop`.
    memory: Option<SharedMemory>,
    device: Arc<File>,
    index: u64,
}

impl Grants {
    /// Opens the device.
    ///
    /// # Errors
    /// Of opening; the message names the device.
    pub fn open() -> io::Result<Self> {
        let explain = |error: io::Error| {
            io::Error::new(error.kind(), format!("{DEVICE}: {error} (is the module xen-gntdev loaded?)"))
        };
        let device = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(explain)?;
        Ok(Self { device: Arc::new(device) })
    }

    /// Maps the page that `domain` grants to dom0 under `reference`, to read and write.
    ///
    /// # Errors
    /// Of the kernel: no such grant, or not to dom0.
    pub fn map(&self, domain: DomId, reference: u32) -> io::Result<GrantedPage> {
        let ask = MapGrantRef { count: 1, padding: 0, index: 0, domid: u32::from(domain.raw()), reference };
        // SAFETY: the operation is one of this device, and touches nothing but its structure.
        let index = unsafe { ioctl::ioctl(&*self.device, ask) }?;
        let mut page = GrantedPage { memory: None, device: Arc::clone(&self.device), index };
        page.memory = Some(SharedMemory::map(&*self.device, PAGE, index)?);
        Ok(page)
    }
}

impl Deref for GrantedPage {
    type Target = SharedMemory;

    fn deref(&self) -> &SharedMemory {
        self.memory.as_ref().expect("there until the page is dropped")
    }
}

impl Drop for GrantedPage {
    fn drop(&mut self) {
        drop(self.memory.take());
        let ask = UnmapGrantRef { index: self.index, count: 1, padding: 0 };
        // SAFETY: the operation is one of this device, and touches nothing but its structure. The page is not mapped any
        // more; were it, the kernel would refuse.
        let _ = unsafe { ioctl::ioctl(&*self.device, ask) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operations_are_those_of_the_header() {
        // _IOC(_IOC_NONE, 'G', number, size)
        let map = MapGrantRef { count: 1, padding: 0, index: 0, domid: 0, reference: 0 };
        assert_eq!(map.opcode() as u64, 0x0018_4700);
        let unmap = UnmapGrantRef { index: 0, count: 1, padding: 0 };
        assert_eq!(unmap.opcode() as u64, 0x0010_4701);
    }
}
