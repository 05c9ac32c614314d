//! Writing to the memory of a domain that has not run yet: by grants that we enter into its table ourselves, or where that
//! is not possible, by mapping its pages.
//!
//! Its grant table is one page of 512 entries here. Entries 0 and 1 are for the console and XenStore, as every guest expects; those
//! after the reserved ones are a window over the pages that are being copied, and are empty again when this is dropped.

use std::sync::atomic::Ordering;

use pv_abi::domid::DomId;
use pv_abi::grant_table::{GNTTAB_NR_RESERVED_ENTRIES, GTF_PERMIT_ACCESS};
use rustix::io::Errno;

use super::hypervisor::WriteMemory;
use super::layout::PAGE;
use crate::privcmd::{Error, FilePages, GrantCopy, Privcmd, Resource, Result};
use crate::shared_memory::SharedMemory;

/// Bytes of an entry (`struct grant_entry_v1`).
const ENTRY: usize = 8;
const FIRST: u32 = GNTTAB_NR_RESERVED_ENTRIES;
const ENTRIES: u32 = 512;
/// Bytes that one window covers.
pub const WINDOW: usize = (ENTRIES - FIRST) as usize * PAGE as usize;

/// The memory of one domain.
#[derive(Debug)]
pub struct GuestMemory {
    domain: DomId,
    table: SharedMemory,
    way: Way,
    /// Entries from [`FIRST`] on that were used.
    used: u32,
}

#[derive(Debug)]
enum Way {
    Copy(GrantCopy),
    Map(Privcmd),
}

impl GuestMemory {
    /// Opens it. Its table gets its first page.
    ///
    /// # Errors
    /// [`crate::privcmd::Error`].
    pub fn open(xen: &Privcmd, domain: DomId) -> Result<Self> {
        let table = xen.map_resource(domain, Resource::GrantTable, 0, 1)?;
        let way = match GrantCopy::open() {
            Ok(copy) => Way::Copy(copy),
            Err(_) => Way::Map(Privcmd::open()?),
        };
        Ok(Self { domain, table, way, used: 0 })
    }

    /// Opens the window over a range, if memory is copied.
    fn window(&mut self, address: u64, length: usize) -> Option<&GrantCopy> {
        let Way::Copy(_) = &self.way else { return None };
        let first = address / PAGE;
        let pages = ((address % PAGE) as usize + length).div_ceil(PAGE as usize) as u32;
        for page in 0..pages {
            self.enter(FIRST + page, (first + u64::from(page)) * PAGE);
        }
        self.used = self.used.max(pages);
        match &self.way {
            Way::Copy(copy) => Some(copy),
            Way::Map(_) => None,
        }
    }

    /// Maps the pages of a range, if memory is mapped.
    fn map(&self, address: u64, length: usize) -> Result<SharedMemory> {
        let frames: Vec<u64> = (address / PAGE..(address + length as u64).div_ceil(PAGE)).collect();
        match &self.way {
            Way::Map(xen) => xen.map_foreign(self.domain, &frames),
            Way::Copy(_) => Privcmd::open()?.map_foreign(self.domain, &frames),
        }
    }

    /// Makes an entry: first whom and what it is for, then that it is valid.
    fn enter(&self, reference: u32, address: u64) {
        let at = reference as usize * ENTRY;
        // Guest frames of a domain's memory fit: it ends below 2^40.
        self.table.store(at + 4, (address / PAGE) as u32, Ordering::Relaxed);
        let head = u32::from(GTF_PERMIT_ACCESS) | u32::from(DomId::DOM0.raw()) << 16;
        self.table.store(at, head, Ordering::Release);
    }
}

/// The parts of a range that fit into one window each.
fn windows(address: u64, length: usize) -> impl Iterator<Item = (u64, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = address + done as u64;
        let part = (length - done).min(WINDOW - (at % PAGE) as usize);
        done += part;
        (part > 0).then_some((at, part))
    })
}

impl WriteMemory for GuestMemory {
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        for (at, length) in windows(address, bytes.len()) {
            let (part, after) = rest.split_at(length);
            let (offset, domain) = ((at % PAGE) as usize, self.domain);
            match self.window(at, length) {
                Some(copy) => copy.write(domain, FIRST, offset, part)?,
                None => self.map(at, length)?.copy_in(offset, part),
            }
            rest = after;
        }
        Ok(())
    }

    fn write_file(&mut self, address: u64, file: &FilePages, offset: u64, length: usize) -> Result<()> {
        for (at, length) in windows(address, length) {
            let from = offset + (at - address);
            let (within, domain) = ((at % PAGE) as usize, self.domain);
            if let Some(copy) = self.window(at, length) {
                copy.write_file(domain, FIRST, within, file, from, length)?;
            } else {
                let mut part = vec![0; length];
                let failed = |_| Error::Map { domain, what: "bytes of a file".into(), errno: Errno::IO };
                file.read_at(from, &mut part).map_err(failed)?;
                self.map(at, length)?.copy_in(within, &part);
            }
        }
        Ok(())
    }

    fn grant(&mut self, reference: u32, address: u64) -> Result<()> {
        self.enter(reference, address);
        Ok(())
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        for reference in FIRST..FIRST + self.used {
            let at = reference as usize * ENTRY;
            self.table.store(at, 0, Ordering::Relaxed);
            self.table.store(at + 4, 0, Ordering::Relaxed);
        }
    }
}
