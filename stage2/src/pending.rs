//! What a batch still owes the TLBs: the envelope of frames whose old translation may be cached.
//!
//! ```text
//!  unmapped:  gfn .. gfn      the frames whose entries were made invalid; stride: the smallest of them
//!  retired:   table ▶ table   the tables unlinked, in a list through their entry 0; each covered a frame above
//! ```
//! An envelope may hold frames that owe nothing; then an invalidation comes early or is larger than needed, never
//! too small.

use crate::addr::{BlockSize, Gfn, Pa, Pages};
use crate::memory::Tlb;
use crate::tables::{level_order, level_size};

/// By-IPA operations worth issuing before dropping the whole VMID is cheaper: each broadcasts, and the refill of a
/// working set costs a few hundred walks.
const BY_IPA_LIMIT: u64 = 16;

/// Frames from `start` up to `end`; empty when `start >= end`.
#[derive(Clone, Copy)]
struct Envelope {
    start: u64,
    end: u64,
}

impl Envelope {
    const EMPTY: Self = Self { start: u64::MAX, end: 0 };

    #[inline]
    fn is_empty(self) -> bool {
        self.start >= self.end
    }

    #[inline]
    fn include(&mut self, start: u64, end: u64) {
        self.start = self.start.min(start);
        self.end = self.end.max(end);
    }

    #[inline]
    fn meets(self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }
}

/// The debt of one batch.
pub(crate) struct Pending {
    unmapped: Envelope,
    stride: BlockSize,
    /// The head of the list of unlinked tables.
    pub(crate) retired_tables: Option<Pa>,
}

impl Pending {
    /// No debt. A function, not a constant: a constant of this size is copied from memory by a call.
    #[inline]
    pub(crate) fn none() -> Self {
        Self { unmapped: Envelope::EMPTY, stride: BlockSize::Block1G, retired_tables: None }
    }

    /// A leaf of `size` at `gfn` was made invalid or got another access.
    #[inline]
    pub(crate) fn leaf(&mut self, gfn: Gfn, size: BlockSize) {
        self.range(gfn, size.pages(), size);
    }

    /// Leaves from `gfn` on, none smaller than `stride`, were made invalid.
    #[inline]
    pub(crate) fn range(&mut self, gfn: Gfn, pages: Pages, stride: BlockSize) {
        self.unmapped.include(gfn.raw(), gfn.raw() + pages.get());
        self.stride = self.stride.min(stride);
    }

    /// The table at `level` that covered `gfn` was unlinked. If no frame of its extent owes an invalidation, one must
    /// from now on, so that the entry of the table itself leaves the walk caches, and is not written again before:
    /// whoever writes it asks whether anything below it [`meets`](Self::meets) the debt.
    #[inline]
    pub(crate) fn table(&mut self, gfn: Gfn, level: u8) {
        let order = level_order(level - 1);
        let start = gfn.raw() >> order << order;
        if !self.unmapped.meets(start, start + (1 << order)) {
            self.range(Gfn::new(start), Pages::ONE, BlockSize::Page4K);
        }
        // At least one operation per extent of such a table.
        self.stride = self.stride.min(level_size(level - 1));
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.unmapped.is_empty()
    }

    /// Whether the TLBs may hold a translation for one of `pages` from `gfn` on, or a table for just these.
    #[inline]
    pub(crate) fn meets(&self, gfn: Gfn, pages: Pages) -> bool {
        self.unmapped.meets(gfn.raw(), gfn.raw() + pages.get())
    }

    /// Pays: by IPA when few operations do, else the whole VMID.
    pub(crate) fn invalidate<T: Tlb>(&self, tlb: &mut T) {
        // Leaves are aligned to their size, so the envelope is to the smallest.
        let Envelope { start, end } = self.unmapped;
        let pages = end - start;
        if pages.div_ceil(self.stride.pages().get()) <= BY_IPA_LIMIT {
            tlb.invalidate_range(Gfn::new(start).ipa(), Pages::new(pages), self.stride);
        } else {
            tlb.invalidate_all();
        }
    }
}
