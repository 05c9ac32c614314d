//! Mapping others' grants and unmapping them, in batches: one p2m edit, so at most one TLB flush, for each.
#![forbid(unsafe_code)]

use alloc::sync::Arc;

use arrayvec::ArrayVec;
use pv_abi::domid::DomId;
use pv_abi::grant_table::{
    GNTMAP_DEVICE_MAP, GNTMAP_HOST_MAP, GNTMAP_READONLY, GrantHandle, MapGrantRef, Status, UnmapAndReplace,
    UnmapGrantRef,
};
use stage2::Ipa;

use super::maptrack::Mapping;
use super::table::Use;
use crate::domain::{self, Domain};
use crate::mm::page::PageRef;

/// Entries handled together: those of one p2m edit.
pub const BATCH: usize = 32;

/// A mapping that is ready to be entered in p2m.
struct Prepared {
    index: usize,
    handle: GrantHandle,
    mapping: Mapping,
    page: Option<PageRef>,
}

/// Finds the domains that grants name, remembering the last: a batch is mostly about one.
struct Granters {
    last: Option<Arc<Domain>>,
}

impl Granters {
    fn find(&mut self, id: DomId) -> Option<Arc<Domain>> {
        if self.last.as_ref().is_none_or(|last| last.id != id) {
            self.last = Some(domain::find(id)?);
        }
        self.last.clone()
    }
}

/// Maps at most [`BATCH`] grants; each entry's outcome is in its `status`.
pub fn map(user: &Arc<Domain>, entries: &mut [MapGrantRef]) {
    let mut granters = Granters { last: None };
    let mut prepared = ArrayVec::<Prepared, BATCH>::new();
    for (index, entry) in entries.iter_mut().enumerate().take(BATCH) {
        match prepare(user, &mut granters, index, entry) {
            Ok(ready) => prepared.push(ready),
            Err(status) => entry.status = status.raw(),
        }
    }
    let mut failed = [false; BATCH];
    user.p2m.edit(|batch| {
        for Prepared { index, page, mapping, .. } in &mut prepared {
            let (Some(entry), Some(page)) = (entries.get(*index), page.take()) else { continue };
            let gfn = Ipa::new(entry.host_addr).gfn();
            if batch.map_grant(gfn, page, mapping.used == Use::Write).is_err()
                && let Some(failed) = failed.get_mut(*index)
            {
                *failed = true;
            }
        }
    });
    for Prepared { index, handle, mapping, .. } in prepared {
        let Some(entry) = entries.get_mut(index) else { continue };
        if failed.get(index).copied().unwrap_or(false) {
            end(mapping);
            user.grants.maptrack.lock().cancel(handle);
            entry.status = Status::GeneralError.raw();
            continue;
        }
        entry.handle = handle;
        entry.dev_bus_addr = mapping.mfn.pa().raw();
        entry.status = Status::Okay.raw();
        user.grants.maptrack.lock().fill(handle, mapping);
    }
}

/// Everything short of the p2m.
fn prepare(
    user: &Domain,
    granters: &mut Granters,
    index: usize,
    entry: &MapGrantRef,
) -> Result<Prepared, Status> {
    if entry.flags & (GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP) == 0 {
        return Err(Status::BadGntref);
    }
    // Arm has no other kind of mapping than at a guest-physical address.
    if entry.flags & !GNTMAP_READONLY != GNTMAP_HOST_MAP {
        return Err(Status::GeneralError);
    }
    let used = if entry.flags & GNTMAP_READONLY != 0 { Use::Read } else { Use::Write };
    let granter = granters.find(entry.dom).ok_or(Status::BadDomain)?;
    let handle = user.grants.maptrack.lock().reserve(user.is_control).ok_or(Status::NoSpace)?;
    let acquired = granter.grants.table.lock().acquire(&granter.p2m, entry.r#ref, user.id, used, true);
    match acquired {
        Ok(page) => {
            let mapping = Mapping { granter, gref: entry.r#ref, used, mfn: page.mfn() };
            Ok(Prepared { index, handle, mapping, page: Some(page) })
        }
        Err(status) => {
            user.grants.maptrack.lock().cancel(handle);
            Err(status)
        }
    }
}

/// Tells the granter that a mapping is over.
fn end(mapping: Mapping) {
    let page = mapping.granter.grants.table.lock().release(mapping.gref, mapping.used);
    drop(page);
}

/// Unmaps at most [`BATCH`] grants; each entry's outcome is in its `status`. An entry without `host_addr` ends nothing.
pub fn unmap(user: &Arc<Domain>, entries: &mut [UnmapGrantRef]) {
    let mut taken = ArrayVec::<(usize, GrantHandle, Mapping), BATCH>::new();
    {
        let mut maptrack = user.grants.maptrack.lock();
        for (index, entry) in entries.iter_mut().enumerate().take(BATCH) {
            entry.status = Status::Okay.raw();
            if !maptrack.has(entry.handle) {
                entry.status = Status::BadHandle.raw();
            } else if entry.host_addr != 0
                && let Some(mapping) = maptrack.take(entry.handle)
            {
                taken.push((index, entry.handle, mapping));
            }
        }
    }
    if taken.is_empty() {
        return;
    }
    user.p2m.edit(|batch| {
        for (index, _, mapping) in &taken {
            let Some(entry) = entries.get_mut(*index) else { continue };
            let gfn = Ipa::new(entry.host_addr).gfn();
            if batch.unmap_grant(gfn, mapping.mfn, mapping.used == Use::Write).is_err() {
                entry.status = Status::GeneralError.raw();
            }
        }
    });
    // No TLB translates to the pages any more: the granters may know.
    for (index, handle, mapping) in taken {
        if entries.get(index).is_some_and(|entry| entry.status == Status::Okay.raw()) {
            end(mapping);
            user.grants.maptrack.lock().cancel(handle);
        } else {
            // Not there: it stays mapped where it is.
            user.grants.maptrack.lock().fill(handle, mapping);
        }
    }
}

/// `GNTTABOP_unmap_and_replace` is about page-table entries, which EL2 does not write on Arm.
pub fn replace(user: &Domain, entry: &UnmapAndReplace) -> Status {
    if user.grants.maptrack.lock().has(entry.handle) { Status::GeneralError } else { Status::BadHandle }
}
