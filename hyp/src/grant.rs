//! Grant tables: pages that a domain lends to another, to map or to copy from and to. Version 1, as Xen on Arm.
//!
//! ```text
//!   granter                              user
//!   grant frame: entry ── acquire ──▶ page reference ──▶ p2m mapping   (map.rs; ended by handle)
//!        ▲                               └─────────────▶ copy          (copy.rs; ended at once)
//!        └────────────── release ◀──────────────────────────┘
//! ```
//! State: in the granter, the frames and the entries in use ([`table`], one lock); in the user, the mappings
//! ([`maptrack`], one lock that is a leaf). A mapping in p2m and an entry in use each hold a reference to the page, so
//! a page that its owner gives up, even by dying, is not used for anything else before the last user is done.
#![forbid(unsafe_code)]

mod copy;
mod map;
mod maptrack;
mod table;
#[cfg(test)]
mod tests;

use alloc::sync::Arc;

use crate::sync::TicketMutex;
use pv_abi::errno::Errno;
use pv_abi::grant_table::{GrantRef, Status};
use stage2::{Gfn, Mfn};

use maptrack::Maptrack;
use table::Table;

pub use copy::copy;
pub use map::{map, replace, unmap};

use crate::arch;
use crate::domain::Domain;
use crate::mm::page::{self, PageRef};

/// Grants of one domain, given and used.
pub struct GrantTable {
    max_frames: u32,
    table: TicketMutex<Table>,
    maptrack: TicketMutex<Maptrack>,
}

impl GrantTable {
    /// No grants, and `max_frames` frames for them at most.
    pub const fn new(max_frames: u32) -> Self {
        Self {
            max_frames,
            table: TicketMutex::new(Table::new()),
            maptrack: TicketMutex::new(Maptrack::new()),
        }
    }

    /// Allows so many mappings of others' grants at once, if that is fewer than EL2 does.
    pub fn limit_mappings(&mut self, mappings: usize) {
        self.maptrack.get_mut().limit = mappings;
    }

    /// Frames it may have.
    pub fn max_frames(&self) -> u32 {
        self.max_frames
    }

    /// Frames it has.
    pub fn frames(&self) -> u32 {
        u32::try_from(self.table.lock().frames().len()).unwrap_or(u32::MAX)
    }

    /// Exchanges two entries that are not in use.
    pub fn swap(&self, a: GrantRef, b: GrantRef) -> Result<(), Status> {
        self.table.lock().swap(a, b)
    }
}

/// Frame `index` of a domain's table, which grows to have it. `EINVAL` past the maximum.
pub fn frame(domain: &Domain, index: u32) -> Result<PageRef, Errno> {
    if index >= domain.grants.max_frames {
        return Err(Errno::EINVAL);
    }
    let mut table = domain.grants.table.lock();
    table.grow(domain.id, index as usize + 1)?;
    table.frames().get(index as usize).cloned().ok_or(Errno::EINVAL)
}

/// Gives the table `count` frames at least; where the guest has frame `index` mapped is what [`mapped_at`] says.
pub fn grow(domain: &Domain, count: u32) -> Result<(), Status> {
    if count > domain.grants.max_frames {
        return Err(Status::GeneralError);
    }
    domain.grants.table.lock().grow(domain.id, count as usize).map_err(|_| Status::GeneralError)
}

/// The guest frame at which a domain has a frame of its table mapped.
pub fn mapped_at(domain: &Domain, index: u32) -> Option<Gfn> {
    domain.grants.table.lock().frames().get(index as usize)?.frame().mapped_at()
}

/// A reference to a page by its machine frame, if a domain owns it or has it mapped by a grant. For cache maintenance.
pub fn reachable(domain: &Domain, mfn: Mfn) -> Result<PageRef, Errno> {
    if let Ok(page) = domain.p2m.get_own(mfn) {
        return Ok(page);
    }
    let maptrack = domain.grants.maptrack.lock();
    // The mapping keeps the page; with the lock held it cannot end before there is a reference of our own.
    if maptrack.maps(mfn) { page::get_mapped(mfn, &domain.p2m.lock_for_copy()) } else { Err(Errno::EPERM) }
}

/// Ends everything for a domain that goes away and whose vCPUs run no more: its uses of others' grants, and its frames,
/// after which it grants nothing. What others use of its grants stays theirs until they end it, and is counted as the
/// domain's until then. Its own mappings go with its p2m. False: call again, there is more.
pub fn destroy(domain: &Arc<Domain>) -> bool {
    while let Some(mapping) = { domain.grants.maptrack.lock().pop() } {
        let page = mapping.granter.grants.table.lock().release(mapping.gref, mapping.used);
        drop(page);
        if arch::interrupt_pending() {
            return false;
        }
    }
    let frames = domain.grants.table.lock().close();
    drop(frames);
    true
}
