//! Stage-2 translation (4 KiB granule): address types, tables, batched edits and VMIDs. No I/O and no `unsafe`.
//!
//! The crate decides what is written where and when the TLBs are told. How a table's memory is reached and how a TLB
//! is invalidated is behind two traits, [`TableMemory`] and [`Tlb`]: EL2 implements them with loads, stores, barriers
//! and TLB instructions; the tests with a machine that checks every rule.
//!
//! # The life of a batch
//!
//! All changes go through an [`Edit`]. It owes the TLBs what it made invalid, and pays once, at its end:
//!
//! ```text
//!  tables.edit(memory, tlb)
//!       │
//!       ▼
//!  ┌─ open ────────────────────────────────────────────────────────────────────────────┐
//!  │  map_page, map         entry written; seen by walkers from the end of the batch   │
//!  │  unmap_page, unmap     entry made invalid; the leaf is handed out Unflushed ──────┼──┐
//!  │                        a table that became empty is unlinked and queued           │  │
//!  │  protect               access or type changed in place                            │  │
//!  │                                                                                   │  │
//!  │  pays at once:  split, merge, another memory type     break ─ flush ─ make        │  │ peek():
//!  │                 a frame mapped again that is owed             flush ─ make        │  │ count it,
//!  └─────┬─────────────────────────────────────────────────────────────────────────────┘  │ queue it
//!        │ finish()                                                                       │
//!        ▼                                                                                │
//!   dsb ishst ─▶ one invalidation: by IPA if few, else the VMID ─▶ queued tables freed    │
//!        │                                                                                │
//!        ▼                                                                                ▼
//!     Flushed ────────────────────────────────────────────────────────────▶ leaf.open(&flushed)
//!                                                                            the page may be reused
//! ```
//!
//! A flush is [`TableMemory::publish`] and one call of [`Tlb`]. A batch that only maps what was not mapped never
//! flushes. The batch remembers the last level-3 table, so pages of one 2 MiB region cost one walk together.
//!
//! No live entry is ever replaced by another that differs in output address, size, memory type or shareability: it is
//! made invalid, invalidated, and then written (break-before-make, DDI 0487 D8.16.1). Between break and make a vCPU
//! may fault on a page that is mapped; its fault handler takes the lock, finds the page with [`Tables::lookup`], and
//! resumes the guest.
//!
//! # Tables
//!
//! ```text
//!  root (1 to 16 pages) ──▶ level 2 ──▶ level 3 ──▶ 4 KiB pages
//!   level 0 or 1              │
//!   1 GiB blocks (level 1)    └──▶ 2 MiB blocks
//! ```
//!
//! The link to a table carries the number of its entries in use, in descriptor bits that hardware ignores: at 0 the table
//! is freed, at 512 pages it is tried for a merge into a block of 2 MiB, so a balloon that comes back with contiguous
//! frames leaves superpages again. There is no other state than the tables and [`Tables`] itself.
//!
//! An entry of any size can say *on demand*: nothing to hardware, memory to its owner, who maps it when the guest touches
//! it. So memory that a domain may have and has not touched costs eight bytes for 1 GiB.
//!
//! # Locks
//!
//! The domain's p2m lock is the caller's: held for writing during the life of an [`Edit`] and during
//! [`Tables::teardown`], for reading during [`Tables::lookup`], [`Tables::next_leaf`] and what is done with the
//! answer. The types say the same: an edit borrows the tables exclusively. A batch takes no lock itself and calls
//! [`TableMemory::allocate`] and [`TableMemory::free`], whose lock therefore comes after the p2m lock. The
//! [`VmidAllocator`] has a lock of its own, the last of all.
//!
//! # Errors
//!
//! What cannot be done is an [`Error`], and the map is what it was. Nothing here panics on a frame number a guest
//! made up. Only making a table can run out of memory; unmapping part of a block needs one, so a caller that must be
//! able to take a page from a guest keeps some tables in reserve.
//!
//! # Example
//!
//! ```
//! # use stage2::{BlockSize, Ipa, Pa, Pages};
//! # struct Memory(std::collections::BTreeMap<u64, Vec<u64>>, u64);
//! # impl stage2::TableMemory for Memory {
//! #     fn allocate(&mut self, pages_log2: u8) -> Option<Pa> {
//! #         self.1 += 0x10000;
//! #         self.0.insert(self.1, vec![0; 512 << pages_log2]);
//! #         Some(Pa::new(self.1))
//! #     }
//! #     fn free(&mut self, table: Pa, _: u8) { self.0.remove(&table.raw()); }
//! #     fn read(&self, table: Pa, index: usize) -> u64 { self.0[&table.raw()][index] }
//! #     fn write(&mut self, table: Pa, index: usize, entry: u64) {
//! #         self.0.get_mut(&table.raw()).unwrap()[index] = entry;
//! #     }
//! #     fn publish(&self) {}
//! # }
//! # struct DomainTlb;
//! # impl stage2::Tlb for DomainTlb {
//! #     fn invalidate_range(&mut self, _: Ipa, _: Pages, _: BlockSize) {}
//! #     fn invalidate_all(&mut self) {}
//! # }
//! # let (mut memory, mut tlb) = (Memory(Default::default(), 0), DomainTlb);
//! use stage2::{Attributes, Error, Geometry, Gfn, Mfn, Tables};
//!
//! let mut tables = Tables::new(Geometry::from_id_aa64mmfr0(0b0010), &mut memory)?;
//!
//! let mut edit = tables.edit(&mut memory, &mut tlb);
//! edit.map(Gfn::new(0x40000), Mfn::new(0x88000), Pages::new(1024), Attributes::RAM)?;
//! let leaf = edit.unmap_page(Gfn::new(0x40007))?.expect("just mapped");
//! let flushed = edit.finish();
//! let page: Mfn = leaf.open(&flushed).mfn();
//!
//! assert_eq!(page, Mfn::new(0x88007));
//! assert_eq!(tables.statistics().mapped(), Pages::new(1023));
//! assert!(tables.lookup(&memory, Ipa::new(0x4000_7000)).is_none());
//! # Ok::<(), Error>(())
//! ```
//!
//! Before the batch is finished there is no token, and without one the leaf stays closed:
//!
//! ```compile_fail,E0061
//! # fn reuse(leaf: stage2::Unflushed<stage2::Leaf>) -> stage2::Mfn {
//! leaf.open().mfn()
//! # }
//! ```

#![cfg_attr(not(any(test, feature = "fake")), no_std)]
#![forbid(unsafe_code)]

pub mod addr;
mod descriptor;
mod edit;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod geometry;
mod memory;
#[cfg(test)]
mod model;
mod pending;
mod tables;
mod vmid;

pub use addr::{BlockSize, Gfn, Ipa, Mfn, Mib, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Pa, Pages, Vmid};
pub use descriptor::{Access, Attributes, ENTRIES, Leaf, MFN_LIMIT, MemoryType, PageType, Shareability};
pub use edit::{Edit, Flushed, Place, Unflushed};
pub use geometry::{Geometry, VmidBits, vttbr};
pub use memory::{TableMemory, Tlb};
pub use tables::{Error, Next, Progress, Statistics, Tables};
pub use vmid::{Verdict, VersionedVmid, VmidAllocator};
