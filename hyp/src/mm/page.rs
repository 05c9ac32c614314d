//! A counted reference to a page that a guest may reach: how EL2 reads and writes such memory, always by copy.
//!
//! The count keeps the frame from being used for anything else; its kind (`Ram`, `Shared`) keeps Rust objects out of
//! it. So reading and writing need no lock, and whatever the guest does at the same time changes values, not safety.

use core::mem::ManuallyDrop;

use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use stage2::{Mfn, PAGE_SHIFT, PAGE_SIZE, Pa, Pages};

use super::dirt::Dirt;
use super::frame_table::{Frame, Kind, State};
use super::memory;
use crate::p2m::CopyGuard;
use crate::{arch, domain};

/// A reference to one page. Dropping it gives the reference up; the last one frees the page.
pub struct PageRef {
    mfn: Mfn,
    frame: &'static Frame,
}

impl Clone for PageRef {
    #[inline]
    fn clone(&self) -> Self {
        self.frame.get_again();
        Self { mfn: self.mfn, frame: self.frame }
    }
}

impl Drop for PageRef {
    #[inline]
    fn drop(&mut self) {
        let before = self.frame.put();
        if before.count() == 1 {
            last_put(self.mfn, self.frame, before);
        }
    }
}

/// Frees a page to which nobody refers any more.
#[inline(never)]
fn last_put(mfn: Mfn, frame: &Frame, before: State) {
    frame.set_state(State::new(Kind::Hypervisor, DomId::DOM0, 0));
    memory().release(mfn, 0, Dirt::all(0));
    if before.kind() == Kind::Ram
        && let Some(owner) = domain::find(before.owner())
    {
        domain::life::refund(&owner, Pages::ONE);
    }
}

impl core::fmt::Debug for PageRef {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PageRef({}: {:?})", self.mfn, self.frame.state())
    }
}

/// A reference to a page of `owner`, its memory or one shown to it. `EINVAL` if the frame is not that. `_lock` is on
/// the owner's p2m: it keeps the domain from giving the page up at this moment.
#[inline]
pub(crate) fn get(mfn: Mfn, owner: DomId, _lock: &CopyGuard<'_>) -> Result<PageRef, Errno> {
    get_if(mfn, |state| state.is_guest_accessible() && state.owner() == owner)
}

/// The same for a page that a guest has mapped, whoever owns it. `_lock` is on the p2m that maps it.
#[inline]
pub(crate) fn get_mapped(mfn: Mfn, _lock: &CopyGuard<'_>) -> Result<PageRef, Errno> {
    get_if(mfn, State::is_guest_accessible)
}

#[inline]
fn get_if(mfn: Mfn, accept: impl Fn(State) -> bool) -> Result<PageRef, Errno> {
    let frame = memory().frame(mfn).ok_or(Errno::EINVAL)?;
    frame.try_get(accept).ok_or(Errno::EINVAL)?;
    Ok(PageRef { mfn, frame })
}

macro_rules! scalar {
    ($($ty:ty: $read:ident $load:ident, $write:ident $store:ident, $or:ident, $and:ident, $cas:ident;)*) => { $(
        /// Reads (acquire) the value at `offset`, a multiple of its size within the page.
        #[inline]
        pub fn $read(&self, offset: usize) -> $ty {
            let pa = self.at(offset, size_of::<$ty>());
            // SAFETY: `at` yields an aligned place in this page, which holds no Rust object (module documentation).
            unsafe { arch::phys::$load(pa) }
        }
        /// Writes (release) the value at `offset`, a multiple of its size within the page.
        #[inline]
        pub fn $write(&self, offset: usize, value: $ty) {
            let pa = self.at(offset, size_of::<$ty>());
            // SAFETY: `at` yields an aligned place in this page, which holds no Rust object (module documentation).
            unsafe { arch::phys::$store(pa, value) }
        }
        /// Sets `bits` at `offset` atomically; returns the old value.
        #[inline]
        pub fn $or(&self, offset: usize, bits: $ty) -> $ty {
            let pa = self.at(offset, size_of::<$ty>());
            // SAFETY: `at` yields an aligned place in this page, which holds no Rust object (module documentation).
            unsafe { arch::phys::$or(pa, bits) }
        }
        /// Keeps only `bits` at `offset` atomically; returns the old value.
        #[inline]
        pub fn $and(&self, offset: usize, bits: $ty) -> $ty {
            let pa = self.at(offset, size_of::<$ty>());
            // SAFETY: `at` yields an aligned place in this page, which holds no Rust object (module documentation).
            unsafe { arch::phys::$and(pa, bits) }
        }
        /// Replaces `old` by `new` at `offset` atomically; otherwise the value found.
        #[inline]
        pub fn $cas(&self, offset: usize, old: $ty, new: $ty) -> Result<$ty, $ty> {
            let pa = self.at(offset, size_of::<$ty>());
            // SAFETY: `at` yields an aligned place in this page, which holds no Rust object (module documentation).
            unsafe { arch::phys::$cas(pa, old, new) }
        }
    )* };
}

impl PageRef {
    /// A zeroed page that EL2 keeps and shows to `owner`. `ENOMEM` when there is none.
    pub fn allocate_shared(owner: DomId) -> Result<Self, Errno> {
        let mfn = memory().allocate(0).ok_or(Errno::ENOMEM)?.clear().into_shared(owner);
        let frame = memory().frame(mfn).ok_or(Errno::ENOMEM)?;
        Ok(Self { mfn, frame })
    }

    /// Its frame.
    #[inline]
    pub fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// Whose memory it is, or to whom it is shown.
    #[inline]
    pub fn owner(&self) -> DomId {
        self.frame.state().owner()
    }

    /// Its entry in the frame table.
    #[inline]
    pub(crate) fn frame(&self) -> &'static Frame {
        self.frame
    }

    /// Turns the reference into one that a stage-2 mapping holds; [`PageRef::from_mapping`] turns it back.
    #[inline]
    pub(crate) fn into_mapping(self) -> Mfn {
        ManuallyDrop::new(self).mfn
    }

    /// The reference that a stage-2 mapping held, which is gone from tables and TLBs.
    #[inline]
    pub(crate) fn from_mapping(mfn: Mfn) -> Option<Self> {
        Some(Self { mfn, frame: memory().frame(mfn)? })
    }

    /// The address of a value of `size` bytes (a power of two) at `offset`. An offset that is out of the page or
    /// not a multiple of the size is an error of EL2's own; it is reduced into the page, so it stays harmless.
    #[inline]
    fn at(&self, offset: usize, size: usize) -> Pa {
        debug_assert!(offset & (size - 1) == 0 && offset < PAGE_SIZE as usize, "offset {offset:#x}");
        // A frame of the table is far below where `Mfn::pa` would have to saturate.
        Pa::new(self.mfn.raw() << PAGE_SHIFT | (offset & (PAGE_SIZE as usize - size)) as u64)
    }

    /// The address of `len` bytes from `offset` on; `EFAULT` if they leave the page.
    #[inline]
    fn range(&self, offset: usize, len: usize) -> Result<Pa, Errno> {
        match offset.checked_add(len) {
            Some(end) if end <= PAGE_SIZE as usize => Ok(self.mfn.pa().wrapping_add(offset as u64)),
            _ => Err(Errno::EFAULT),
        }
    }

    scalar! {
        u8: read_u8 load_u8, write_u8 store_u8, fetch_or_u8, fetch_and_u8, compare_exchange_u8;
        u16: read_u16 load_u16, write_u16 store_u16, fetch_or_u16, fetch_and_u16, compare_exchange_u16;
        u32: read_u32 load_u32, write_u32 store_u32, fetch_or_u32, fetch_and_u32, compare_exchange_u32;
        u64: read_u64 load_u64, write_u64 store_u64, fetch_or_u64, fetch_and_u64, compare_exchange_u64;
    }

    /// Copies from `offset` on. `EFAULT` if that leaves the page.
    #[inline]
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) -> Result<(), Errno> {
        let pa = self.range(offset, to.len())?;
        // SAFETY: within this page, which holds no Rust object (module documentation).
        unsafe { arch::phys::copy_from(pa, to) };
        Ok(())
    }

    /// Copies to `offset` on. `EFAULT` if that leaves the page.
    #[inline]
    pub fn copy_in(&self, offset: usize, from: &[u8]) -> Result<(), Errno> {
        let pa = self.range(offset, from.len())?;
        // SAFETY: within this page, which holds no Rust object (module documentation).
        unsafe { arch::phys::copy_to(pa, from) };
        Ok(())
    }

    /// Copies `len` bytes to `to_offset` of another page, or of this one. `EFAULT` if that leaves one of them.
    pub fn copy_to(&self, offset: usize, to: &Self, to_offset: usize, len: usize) -> Result<(), Errno> {
        let source = self.range(offset, len)?;
        let target = to.range(to_offset, len)?;
        // SAFETY: both within pages that hold no Rust object (module documentation).
        unsafe { arch::phys::copy(target, source, len) };
        Ok(())
    }

    /// Fills the page with zeros.
    pub fn clear(&self) {
        // SAFETY: this page, which holds no Rust object (module documentation).
        unsafe { arch::phys::clear_pages(self.mfn, Pages::ONE) };
    }

    /// Cleans and invalidates the page to the point of coherency, for a reader with caches off.
    pub fn clean_invalidate(&self) {
        arch::phys::clean_invalidate(self.mfn.pa(), PAGE_SIZE as usize);
    }
}
