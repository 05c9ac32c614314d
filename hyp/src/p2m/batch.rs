//! A batch of changes to one p2m, and where what it unmapped goes once the TLBs are clean.

use core::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use pv_abi::errno::Errno;
use stage2::{
    Access, Attributes, BlockSize, Edit, Error, Flushed, Gfn, Leaf, MemoryType, Mfn, PageType, Pages, Place,
    Unflushed,
};

use super::table_pool::TablePool;
use super::{P2m, errno};
use crate::arch;
use crate::arch::tlb::Stage2Tlb;
use crate::mm::block::ClearBlock;
use crate::mm::frame_table::{Kind, NO_LINK, State};
use crate::mm::memory;
use crate::mm::page::PageRef;

/// Mappings with a reference that one batch can unmap; the next one goes on after the flush.
const REFERENCES: usize = 64;

/// What becomes of a domain's own memory when it is unmapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ram {
    /// It stays the domain's.
    Keep,
    /// The domain gives it up.
    Give,
}

/// Changes under the p2m's write lock. See [`P2m::edit`].
pub struct Batch<'a> {
    pub(super) p2m: &'a P2m,
    pub(super) edit: Edit<'a, TablePool, Stage2Tlb>,
    highest: &'a mut Gfn,
    waiting: &'a mut Waiting,
}

/// What waits for the TLBs.
pub(super) struct Waiting {
    /// Memory to give up: a list through the frames' links, `previous` holding the order.
    given: u32,
    /// Mappings whose references end.
    references: ArrayVec<Leaf, REFERENCES>,
}

impl Waiting {
    #[inline]
    pub(super) const fn new() -> Self {
        Self { given: NO_LINK, references: ArrayVec::new_const() }
    }

    /// Lets everything go: the batch is finished.
    ///
    /// The pages on demand were `before` and are `after`.
    #[inline]
    pub(super) fn release(&self, p2m: &P2m, before: u64, after: u64, _flushed: &Flushed) {
        let account = &*p2m.account;
        if self.given != NO_LINK {
            forget_instructions();
        }
        if account.has_target() && (self.given != NO_LINK || before != after) {
            account.settle(after, memory().give_up_list(self.given, p2m.owner, true));
        } else if self.given != NO_LINK {
            account.refund(memory().give_up_list(self.given, p2m.owner, false));
        }
        for leaf in &self.references {
            end_references(leaf);
        }
    }

    /// Notes what the removal of `leaf` must undo. False, and nothing noted, when there is no room.
    #[inline]
    fn note(&mut self, leaf: &Leaf, ram: Ram) -> bool {
        match leaf.page_type() {
            PageType::Ram | PageType::RamRo if ram == Ram::Give => {
                let mfn = leaf.mfn();
                if let (Some(frame), Ok(link)) = (memory().frame(mfn), u32::try_from(mfn.raw())) {
                    frame.set_next(self.given);
                    frame.set_previous(leaf.size().order());
                    self.given = link;
                }
                true
            }
            PageType::Ram | PageType::RamRo | PageType::Mmio => true,
            PageType::GrantRw | PageType::GrantRo | PageType::Foreign | PageType::SharedXen => {
                self.references.try_push(*leaf).is_ok()
            }
        }
    }

    /// Whether the removal of `leaf` could be noted.
    #[inline]
    fn has_room(&self, leaf: &Leaf) -> bool {
        matches!(leaf.page_type(), PageType::Ram | PageType::RamRo | PageType::Mmio)
            || !self.references.is_full()
    }
}

/// For frames that leave a guest: no CPU may execute out of its instruction cache what the former owner had there, whatever
/// the next one finds in RAM (DDI 0487 B2.7.4.2, D7.5.9). Once, when the TLBs are clean and before the frames are free, is
/// enough: nobody can fetch from them again, not ahead either, since EL2's map of RAM and the mappings that another domain
/// may still have are execute-never. Cores with CTR_EL0.DIC need none, and lose some instructions.
#[inline]
pub(super) fn forget_instructions() {
    arch::phys::invalidate_instructions();
}

/// Gives up what a mapping held that is gone from tables and TLBs.
pub(super) fn release(p2m: &P2m, leaf: &Leaf) {
    match leaf.page_type() {
        PageType::Ram | PageType::RamRo => {
            p2m.account.refund(memory().give_up(leaf.mfn(), leaf.size().order(), p2m.owner));
        }
        PageType::GrantRw | PageType::GrantRo | PageType::Foreign | PageType::SharedXen => {
            end_references(leaf);
        }
        PageType::Mmio => {}
    }
}

fn end_references(leaf: &Leaf) {
    for page in 0..leaf.size().pages().get() {
        if let Some(page) = PageRef::from_mapping(leaf.mfn().wrapping_add(Pages::new(page)))
            && leaf.page_type() == PageType::SharedXen
        {
            page.frame().set_mapped_at(None);
        }
    }
}

impl<'a> Batch<'a> {
    #[inline]
    pub(super) fn new(
        p2m: &'a P2m,
        edit: Edit<'a, TablePool, Stage2Tlb>,
        highest: &'a mut Gfn,
        waiting: &'a mut Waiting,
    ) -> Self {
        Self { p2m, edit, highest, waiting }
    }

    /// Invalidates if need be.
    #[inline]
    pub(super) fn finish(self) -> Flushed {
        self.edit.finish()
    }

    /// What is mapped at a guest frame.
    #[inline]
    pub fn lookup(&self, gfn: Gfn) -> Option<Leaf> {
        self.edit.lookup(gfn)
    }

    /// Where the frame of a page for `gfn` should lie. See [`Edit::place`].
    pub fn place(&mut self, gfn: Gfn) -> Place {
        self.edit.place(gfn)
    }

    // ---- the domain's own memory ----

    /// Gives the domain cleared memory at `gfn`, in place of what was there. The account was charged; when this
    /// fails the memory is freed and the caller takes the charge back.
    #[inline]
    pub fn populate(&mut self, gfn: Gfn, block: ClearBlock) -> Result<(), Errno> {
        self.map(gfn, block.mfn(), block.pages(), Attributes::RAM)?;
        block.give_to(self.p2m.owner);
        Ok(())
    }

    /// Maps memory that is the domain's already. `EINVAL` if some of it is not.
    pub fn map_own(&mut self, gfn: Gfn, mfn: Mfn, pages: Pages) -> Result<(), Errno> {
        let frames = memory().frames(mfn, pages).ok_or(Errno::EINVAL)?;
        let owner = self.p2m.owner;
        let is_own = |state: State| state.kind() == Kind::Ram && state.owner() == owner;
        if !frames.iter().all(|frame| is_own(frame.state())) {
            return Err(Errno::EINVAL);
        }
        self.map(gfn, mfn, pages, Attributes::RAM)
    }

    /// The domain gives up its memory at one guest frame; a direct-mapped domain only unmaps it. `EINVAL` where
    /// nothing is, or a device; `ENXIO` where another's page is. What is on demand costs nothing to give.
    #[inline]
    pub fn give_page(&mut self, gfn: Gfn) -> Result<(), Errno> {
        let Some(leaf) = self.edit.lookup(gfn) else { return self.give_on_demand(gfn, Pages::ONE) };
        match leaf.page_type() {
            PageType::Ram | PageType::RamRo | PageType::SharedXen => {
                self.unmap_page(gfn, &leaf, self.ram_given())
            }
            PageType::GrantRw | PageType::GrantRo | PageType::Foreign => Err(Errno::ENXIO),
            PageType::Mmio => Err(Errno::EINVAL),
        }
    }

    /// The same for 2^`order` frames from `gfn` on, a multiple of that. Stops at the first that fails, like Xen.
    pub fn give(&mut self, gfn: Gfn, order: u32) -> Result<(), Errno> {
        let Some(pages) = Pages::from_order(order) else { return Err(Errno::EINVAL) };
        let end = gfn.checked_add(pages).ok_or(Errno::EINVAL)?;
        let mut at = gfn;
        while at < end {
            if let Some(size) = self.edit.on_demand(at).filter(|&size| size != BlockSize::Page4K) {
                let entry_end = Gfn::new(((at.raw() >> size.order()) + 1) << size.order());
                let part_end = end.min(entry_end);
                self.give_on_demand(at, part_end.checked_offset_from(at).unwrap_or(Pages::ONE))?;
                at = part_end;
                continue;
            }
            match self.edit.lookup(at) {
                Some(leaf) if leaf.size() != BlockSize::Page4K => {
                    let part_end = end.min(leaf.end());
                    self.give_part(&leaf, at, part_end.checked_offset_from(at).unwrap_or(Pages::ONE))?;
                    at = part_end;
                }
                _ => {
                    self.give_page(at)?;
                    at = at.wrapping_add(Pages::ONE);
                }
            }
        }
        Ok(())
    }

    /// Makes a hole of memory on demand. `EINVAL` where there is none.
    #[inline(never)]
    fn give_on_demand(&mut self, gfn: Gfn, pages: Pages) -> Result<(), Errno> {
        match (self.edit.on_demand(gfn), pages) {
            (None, _) => Err(Errno::EINVAL),
            (Some(_), Pages::ONE) => self.edit.unmap_page(gfn).map(drop).map_err(errno),
            (Some(_), _) => self.edit.unmap(gfn, pages, |_| {}).map_err(errno),
        }
    }

    /// Gives up a part of a block, or all of it.
    fn give_part(&mut self, leaf: &Leaf, gfn: Gfn, pages: Pages) -> Result<(), Errno> {
        match leaf.page_type() {
            PageType::Ram | PageType::RamRo => {}
            PageType::SharedXen => return Err(Errno::EBUSY),
            PageType::GrantRw | PageType::GrantRo | PageType::Foreign => return Err(Errno::ENXIO),
            PageType::Mmio => return Err(Errno::EINVAL),
        }
        let ram = self.ram_given();
        let waiting = &mut *self.waiting;
        let note = |unmapped: Unflushed<Leaf>| {
            waiting.note(unmapped.peek(), ram);
        };
        if gfn == leaf.gfn() && pages == leaf.size().pages() {
            self.edit.unmap_leaf(leaf, note);
            return Ok(());
        }
        self.edit.unmap(gfn, pages, note).map_err(errno)
    }

    #[inline]
    fn ram_given(&self) -> Ram {
        if self.p2m.is_direct_mapped { Ram::Keep } else { Ram::Give }
    }

    // ---- others' pages and devices ----

    /// Maps a page of another domain, not executable, in place of what was at `gfn`. The mapping keeps the reference.
    pub fn map_foreign(&mut self, gfn: Gfn, page: PageRef, writable: bool) -> Result<(), Errno> {
        self.map_referenced(gfn, page, writable, PageType::Foreign)
    }

    /// Maps a page that another domain granted, not executable, in place of what was at `gfn`. The mapping keeps the
    /// reference.
    pub fn map_grant(&mut self, gfn: Gfn, page: PageRef, writable: bool) -> Result<(), Errno> {
        let page_type = if writable { PageType::GrantRw } else { PageType::GrantRo };
        self.map_referenced(gfn, page, writable, page_type)
    }

    /// Shows a page of EL2's to the guest, not executable, in place of what was at `gfn`. `EBUSY` while the page is
    /// shown at another place: the guest must unmap it there first.
    pub fn map_shared(&mut self, gfn: Gfn, page: &PageRef) -> Result<(), Errno> {
        if page.frame().mapped_at().is_some() {
            return Err(Errno::EBUSY);
        }
        self.map_referenced(gfn, page.clone(), true, PageType::SharedXen)?;
        page.frame().set_mapped_at(Some(gfn));
        Ok(())
    }

    fn map_referenced(
        &mut self,
        gfn: Gfn,
        page: PageRef,
        writable: bool,
        page_type: PageType,
    ) -> Result<(), Errno> {
        let access = if writable { Access::RW } else { Access::R };
        self.map(gfn, page.mfn(), Pages::ONE, Attributes::new(access, MemoryType::NormalWb, page_type))?;
        page.into_mapping();
        Ok(())
    }

    /// Maps what is no memory of EL2's or a domain's: registers, or memory that was reserved at boot. `EPERM` for
    /// anything that the frame table calls otherwise.
    pub fn map_device(
        &mut self,
        gfn: Gfn,
        mfn: Mfn,
        pages: Pages,
        attributes: Attributes,
    ) -> Result<(), Errno> {
        if !memory().is_unmanaged(mfn, pages) {
            return Err(Errno::EPERM);
        }
        self.map(gfn, mfn, pages, attributes.with_page_type(PageType::Mmio))
    }

    // ---- removal ----

    /// Unmaps one guest frame, whatever is there; the domain gives its own memory up, as by [`give_page`](Self::give_page).
    /// `ENOENT` where nothing is, `EBUSY` when the batch can take no more references.
    pub fn unmap(&mut self, gfn: Gfn) -> Result<(), Errno> {
        match self.edit.lookup(gfn) {
            Some(leaf) => self.unmap_page(gfn, &leaf, self.ram_given()),
            None => self.give_on_demand(gfn, Pages::ONE).map_err(|_| Errno::ENOENT),
        }
    }

    /// Unmaps the page that a grant put at `gfn`. `EINVAL` unless it is `mfn`, mapped by grant and in that way: who could
    /// end a writable mapping in the name of one that is not would keep the former; `EBUSY` when the batch can take no
    /// more references.
    pub fn unmap_grant(&mut self, gfn: Gfn, mfn: Mfn, writable: bool) -> Result<(), Errno> {
        let page_type = if writable { PageType::GrantRw } else { PageType::GrantRo };
        match self.edit.lookup(gfn) {
            Some(leaf) if leaf.page_type() == page_type && leaf.mfn_of(gfn) == mfn => {
                self.unmap_page(gfn, &leaf, Ram::Keep)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    fn unmap_page(&mut self, gfn: Gfn, leaf: &Leaf, ram: Ram) -> Result<(), Errno> {
        if !self.waiting.has_room(leaf) {
            return Err(Errno::EBUSY);
        }
        if let Some(unmapped) = self.edit.unmap_page(gfn).map_err(errno)? {
            self.waiting.note(unmapped.peek(), ram);
        }
        Ok(())
    }

    // ---- mapping ----

    #[inline]
    fn map(&mut self, gfn: Gfn, mfn: Mfn, pages: Pages, attributes: Attributes) -> Result<(), Errno> {
        if self.p2m.is_closed.load(Ordering::Relaxed) {
            return Err(Errno::ESRCH);
        }
        let mapped = match pages {
            Pages::ONE => self.edit.map_page(gfn, mfn, attributes),
            _ => self.edit.map(gfn, mfn, pages, attributes),
        };
        match mapped {
            Ok(()) => {}
            Err(Error::Mapped(_)) => self.replace(gfn, mfn, pages, attributes)?,
            Err(error) => return Err(errno(error)),
        }
        self.raise_highest(gfn, pages);
        Ok(())
    }

    #[inline]
    pub(super) fn raise_highest(&mut self, gfn: Gfn, pages: Pages) {
        if let Some(last) = gfn.checked_add(pages.saturating_sub(Pages::ONE)) {
            *self.highest = last.max(*self.highest);
        }
    }

    /// Maps where something is mapped. Break-before-make is the edit's business: it invalidates in between.
    #[inline(never)]
    fn replace(&mut self, gfn: Gfn, mfn: Mfn, pages: Pages, attributes: Attributes) -> Result<(), Errno> {
        for page in 0..pages.get() {
            let at = gfn.wrapping_add(Pages::new(page));
            let Some(leaf) = self.edit.lookup(at) else {
                if self.is_on_demand(at) {
                    self.give_on_demand(at, Pages::ONE)?;
                }
                continue;
            };
            // A page mapped where it is already, as a direct-mapped domain's is, is no loss of the page.
            let same = leaf.mfn_of(at) == mfn.wrapping_add(Pages::new(page));
            let ram = if same { Ram::Keep } else { self.ram_given() };
            self.unmap_page(at, &leaf, ram)?;
        }
        self.edit.map(gfn, mfn, pages, attributes).map_err(errno)
    }
}
