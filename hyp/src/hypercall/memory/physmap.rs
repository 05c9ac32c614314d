//! `XENMEM_add_to_physmap`, its batch, and `XENMEM_remove_from_physmap`: pages that are not a domain's memory.

use alloc::sync::Arc;

use arrayvec::ArrayVec;
use pv_abi::domid::{DOMID_SELF, DomId};
use pv_abi::errno::Errno;
use pv_abi::memory::{AddToPhysmap, AddToPhysmapBatch, RemoveFromPhysmap, Space};
use stage2::{Attributes, Gfn, Mfn, PageType, Pages};
use zerocopy::IntoBytes;

use super::super::Caller;
use super::Progress;
use crate::arch;
use crate::domain::{self, Domain};
use crate::mm::guest;
use crate::mm::page::PageRef;
use crate::p2m::Batch;
use crate::privilege::{self, Action};

/// Pages handled in one batch.
const CHUNK: usize = 32;

/// What is to appear at a guest frame.
enum Page {
    /// A page of EL2's.
    Shared(PageRef),
    /// Another domain's page, and whether it may be written.
    Foreign(PageRef, bool),
    /// A device's page that the domain has elsewhere already.
    Device(Mfn, Attributes),
    /// Nothing to do: Xen ignores a device's page that the domain has no right to.
    Nothing,
}

impl Page {
    fn map(self, batch: &mut Batch<'_>, gfn: Gfn) -> Result<(), Errno> {
        match self {
            Self::Shared(page) => batch.map_shared(gfn, &page),
            Self::Foreign(page, writable) => batch.map_foreign(gfn, page, writable),
            Self::Device(mfn, attributes) => batch.map_device(gfn, mfn, Pages::ONE, attributes),
            Self::Nothing => Ok(()),
        }
    }
}

/// Finds page `index` of a space of `target`'s. Takes no p2m lock that outlives it.
fn find(target: &Domain, space: Option<Space>, index: u64, foreign: Option<&Domain>) -> Result<Page, Errno> {
    match (space, foreign) {
        (Some(Space::SharedInfo), _) => match index {
            0 => Ok(Page::Shared(target.shared_info()?.clone())),
            _ => Err(Errno::EINVAL),
        },
        (Some(Space::GrantTable), _) => Ok(Page::Shared(super::resource::grant_frame(target, index)?)),
        (Some(Space::GmfnForeign), Some(foreign)) => {
            let (page, writable) = foreign.p2m.get_ram_or_shared(Gfn::new(index))?;
            Ok(Page::Foreign(page, writable))
        }
        (Some(Space::DevMmio), _) => Ok(device(target, Mfn::new(index))),
        // Arm has no other spaces.
        (Some(Space::Gmfn | Space::GmfnRange | Space::GmfnForeign) | None, _) => Err(Errno::ENOSYS),
    }
}

/// A device's page may be mapped by a domain that has it 1:1, as dom0 has those of the devices it was given.
fn device(target: &Domain, mfn: Mfn) -> Page {
    match target.p2m.leaf(Gfn::new(mfn.raw())) {
        Some(leaf) if leaf.page_type() == PageType::Mmio && leaf.mfn_of(Gfn::new(mfn.raw())) == mfn => {
            Page::Device(mfn, leaf.attributes())
        }
        _ => Page::Nothing,
    }
}

/// `XENMEM_add_to_physmap`: one page.
#[inline(never)]
pub(super) fn add(caller: &Caller<'_>, argument: u64, start: u64) -> Result<Progress, Errno> {
    if u16::try_from(start).is_err() {
        return Err(Errno::EDOM);
    }
    let request: AddToPhysmap = guest::read(caller, argument)?;
    let space = Space::try_from(request.space).ok();
    // Foreign pages only come by the batch, which names their owner.
    if space == Some(Space::GmfnForeign) {
        return Err(Errno::ENOSYS);
    }
    let target = privilege::subject(caller, Action::ChangePhysmap, request.domid)?;
    if space == Some(Space::GmfnRange) && u64::from(request.size) < start {
        return Err(Errno::EILSEQ);
    }
    if space == Some(Space::GmfnRange) && u64::from(request.size) == start {
        return Ok(Progress::Done(0));
    }
    let page = find(&target, space, request.idx, None)?;
    target.p2m.edit(|batch| page.map(batch, Gfn::new(request.gpfn)))?;
    Ok(Progress::Done(0))
}

/// The domain whose pages a batch maps.
fn foreign(caller: &Caller<'_>, mapper: &Domain, domid: DomId) -> Result<Arc<Domain>, Errno> {
    let owner = match domid {
        DOMID_SELF => caller.domain.clone(),
        _ => domain::find(domid).ok_or(Errno::ESRCH)?,
    };
    if owner.id == mapper.id {
        return Err(Errno::EINVAL);
    }
    privilege::may_to(mapper, Action::MapForeign, &owner)?;
    Ok(owner)
}

/// `XENMEM_add_to_physmap_batch`: many pages, each with an error number of its own.
#[inline(never)]
pub(super) fn add_batch(caller: &Caller<'_>, argument: u64, start: u64) -> Result<Progress, Errno> {
    if u16::try_from(start).is_err() {
        return Err(Errno::EDOM);
    }
    let request: AddToPhysmapBatch = guest::read(caller, argument)?;
    let space = Space::try_from(u32::from(request.space)).ok();
    if space == Some(Space::GmfnRange) {
        return Err(Errno::EOPNOTSUPP);
    }
    let target = privilege::subject(caller, Action::ChangePhysmap, request.domid)?;
    let size = u64::from(request.size);
    if start >= size {
        return if size == 0 && start == 0 { Ok(Progress::Done(0)) } else { Err(Errno::EILSEQ) };
    }
    if space == Some(Space::DevMmio) && request.foreign_domid != DomId::DOM0 {
        return Err(Errno::EOPNOTSUPP);
    }
    // Who owns the pages is the same for all, so why they cannot be mapped is too.
    let foreign = match space {
        Some(Space::GmfnForeign) => Some(foreign(caller, &target, request.foreign_domid)),
        _ => None,
    };
    let mut done = start;
    while done < size {
        if done != start && arch::interrupt_pending() {
            return Ok(Progress::Interrupted(done));
        }
        let count = usize::try_from(size - done).map_or(CHUNK, |left| left.min(CHUNK));
        let mut indexes = [0u64; CHUNK];
        let mut gfns = [0u64; CHUNK];
        let (indexes, gfns) = (&mut indexes[..count], &mut gfns[..count]);
        guest::read_slice(caller, request.idxs.raw().wrapping_add(done * 8), indexes.as_mut_bytes())?;
        guest::read_slice(caller, request.gpfns.raw().wrapping_add(done * 8), gfns.as_mut_bytes())?;

        // First all pages, by the owner's p2m, then all mappings, by the target's: never two p2m locks at once.
        let pages: ArrayVec<Result<Page, Errno>, CHUNK> = indexes
            .iter()
            .map(|&index| match &foreign {
                Some(Err(errno)) => Err(*errno),
                Some(Ok(owner)) => find(&target, space, index, Some(owner)),
                None => find(&target, space, index, None),
            })
            .collect();
        let errors: ArrayVec<i32, CHUNK> = target.p2m.edit(|batch| {
            let mapped = pages.into_iter().zip(gfns.iter());
            mapped
                .map(|(page, &gfn)| match page.and_then(|page| page.map(batch, Gfn::new(gfn))) {
                    Ok(()) => 0,
                    Err(errno) => errno.into(),
                })
                .collect()
        });
        guest::write_slice(caller, request.errs.raw().wrapping_add(done * 4), errors.as_bytes())?;
        done += count as u64;
    }
    Ok(Progress::Done(0))
}

/// `XENMEM_remove_from_physmap`: `ENOENT` for devices and for what a grant put there, which ends otherwise. Memory of
/// the domain's own is given back, for it could not be reached any more.
#[inline(never)]
pub(super) fn remove(caller: &Caller<'_>, argument: u64) -> Result<i64, Errno> {
    let request: RemoveFromPhysmap = guest::read(caller, argument)?;
    let target = privilege::subject(caller, Action::ChangePhysmap, request.domid)?;
    let gfn = Gfn::new(request.gpfn);
    target.p2m.edit(|batch| match batch.lookup(gfn).map(|leaf| leaf.page_type()) {
        None if batch.is_on_demand(gfn) => batch.unmap(gfn),
        Some(PageType::Ram | PageType::RamRo | PageType::Foreign | PageType::SharedXen) => batch.unmap(gfn),
        Some(PageType::GrantRw | PageType::GrantRo | PageType::Mmio) | None => Err(Errno::ENOENT),
    })?;
    Ok(0)
}
