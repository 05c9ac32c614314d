//! What the tables need from the machine: memory for tables, and the TLBs.

use crate::addr::{BlockSize, Ipa, Pa, Pages};

/// Memory that tables are made of. EL2 implements it over the direct map, tests over a map of vectors.
///
/// The walker of another CPU may read a table at any moment, so `read` and `write` are single-copy atomic 64-bit
/// accesses (a relaxed atomic or a volatile access). The memory is write-back cacheable and inner shareable, as
/// [`Geometry::vtcr`](crate::Geometry::vtcr) tells the walker, so no cache maintenance is needed.
pub trait TableMemory {
    /// A zeroed, naturally aligned table of `2^pages_log2` pages: 0, or up to 4 for a concatenated root.
    fn allocate(&mut self, pages_log2: u8) -> Option<Pa>;

    /// Takes a table back. Its content is arbitrary; no walker reaches it any more.
    fn free(&mut self, table: Pa, pages_log2: u8);

    /// Entry `index` of `table`; `index` is below 512, in a root of `n` concatenated tables below `512 * n`.
    fn read(&self, table: Pa, index: usize) -> u64;

    /// Writes entry `index` of `table`; it need not reach walkers before the next [`publish`](Self::publish).
    fn write(&mut self, table: Pa, index: usize, entry: u64);

    /// Makes all earlier writes visible to the walkers of all CPUs: `dsb ishst` (DDI 0487 D8.2.6, B2.3.12).
    ///
    /// Called at three places: before a new table is linked, so that no walker follows the link to what the table
    /// held before; before an invalidation, so that no walker refills the TLB from the old entry; and at the end of
    /// a batch that made entries valid, so that the guest's retried access finds them. The `eret` to the guest is
    /// the context synchronisation the last one needs.
    fn publish(&self);
}

/// The TLBs, as far as one domain's stage 2 is concerned: the implementer knows the domain's VMID.
///
/// On return the invalidation has completed on all CPUs of the inner shareable domain. All earlier writes have been
/// [published](TableMemory::publish).
///
/// Under nVHE these operations act on the VMID in `VTTBR_EL2`. A CPU that has another loaded writes the register,
/// `isb`, invalidates, writes it back, `isb`. For that moment the register need not name the domain's root: with an
/// all-invalid one nothing can be walked speculatively into the TLB, so it does no harm if the VMID meanwhile went to
/// another domain. A domain whose VMID is of an old generation has nothing cached under a VMID it will ever use,
/// unless it is still loaded on a CPU.
///
/// Cortex-A76 up to r3p0 (erratum 1286807) needs each operation and its `dsb` twice.
pub trait Tlb {
    /// Drops what the TLBs hold for `pages` from `start` on: final entries of stage 2, the entries of tables on the
    /// way (so `ipas2e1is`, not `ipas2le1is`), and everything combined with stage 1. One operation per `stride`
    /// is enough because no leaf there was smaller.
    ///
    /// ```text
    /// tlbi ipas2e1is, <ipa >> 12>     for each stride
    /// dsb  ish                        stage 2 gone before stage 1 entries made from it are dropped
    /// tlbi vmalle1is                  combined entries are tagged by VA, and no one knows which
    /// dsb  ish
    /// isb
    /// ```
    /// (DDI 0487 D8.14.5: by-IPA operations need not affect entries that combine both stages.)
    fn invalidate_range(&mut self, start: Ipa, pages: Pages, stride: BlockSize);

    /// Drops everything of the domain's VMID: `tlbi vmalls12e1is; dsb ish; isb`.
    fn invalidate_all(&mut self);
}
