//! Stage-2 translation: address types, tables, batched edits and VMIDs. No I/O and no `unsafe`.

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
pub use edit::{Edit, Flushed, Unflushed};
pub use geometry::{Geometry, VmidBits, vttbr};
pub use memory::{TableMemory, Tlb};
pub use tables::{Error, Next, Progress, Statistics, Tables};
pub use vmid::{Verdict, VersionedVmid, VmidAllocator};
