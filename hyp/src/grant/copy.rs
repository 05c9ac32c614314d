//! Copying between pages, of which either may be another domain's, granted (`GNTTABOP_copy`).
#![forbid(unsafe_code)]

use alloc::sync::Arc;

use pv_abi::domid::DOMID_SELF;
use pv_abi::grant_table::{Copy, CopyPtr, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GrantRef, Status};
use stage2::{Gfn, PAGE_SIZE};

use super::table::Use;
use crate::domain::{self, Domain};
use crate::mm::page::PageRef;

/// One end of a copy, held while it lasts.
struct End {
    page: Option<PageRef>,
    granted: Option<(Arc<Domain>, GrantRef, Use)>,
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some((granter, gref, used)) = self.granted.take() {
            self.page = None;
            let last = granter.grants.table.lock().release(gref, used);
            drop(last);
        }
    }
}

impl End {
    fn open(user: &Arc<Domain>, end: &CopyPtr, is_gref: bool, wanted: Use) -> Result<Self, Status> {
        let domain = match end.domid {
            DOMID_SELF => user.clone(),
            id => domain::find(id).ok_or(Status::BadDomain)?,
        };
        if is_gref {
            let gref = end.grant_ref();
            let page = domain.grants.table.lock().acquire(&domain.p2m, gref, user.id, wanted, false)?;
            return Ok(Self { page: Some(page), granted: Some((domain, gref, wanted)) });
        }
        // A page by number must be the caller's own, and be named so.
        if end.domid != DOMID_SELF {
            return Err(Status::PermissionDenied);
        }
        match domain.p2m.get_ram(Gfn::new(end.gmfn())) {
            Ok((page, is_writable)) if is_writable || wanted == Use::Read => {
                Ok(Self { page: Some(page), granted: None })
            }
            Ok(_) => Err(Status::GeneralError),
            Err(_) => Err(Status::BadPage),
        }
    }
}

/// Does one copy for a domain.
pub fn copy(user: &Arc<Domain>, request: &Copy) -> Status {
    match try_copy(user, request) {
        Ok(()) => Status::Okay,
        Err(status) => status,
    }
}

fn try_copy(user: &Arc<Domain>, request: &Copy) -> Result<(), Status> {
    let len = usize::from(request.len);
    let leaves_page = |end: &CopyPtr| usize::from(end.offset) + len > PAGE_SIZE as usize;
    let source = End::open(user, &request.source, request.flags & GNTCOPY_SOURCE_GREF != 0, Use::Read)?;
    let dest = End::open(user, &request.dest, request.flags & GNTCOPY_DEST_GREF != 0, Use::Write)?;
    if leaves_page(&request.source) || leaves_page(&request.dest) {
        return Err(Status::BadCopyArg);
    }
    match (&source.page, &dest.page) {
        (Some(from), Some(to)) => from
            .copy_to(usize::from(request.source.offset), to, usize::from(request.dest.offset), len)
            .map_err(|_| Status::BadCopyArg),
        _ => Err(Status::GeneralError),
    }
}
