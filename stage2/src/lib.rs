//! Stage-2 translation: address types, tables, batched edits and VMIDs. No I/O and no `unsafe`.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod addr;

pub use addr::{BlockSize, Gfn, Ipa, Mfn, Mib, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, Pa, Pages, Vmid};
