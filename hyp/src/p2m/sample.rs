//! How much of a domain's memory is in use: a sample of its pages is watched by their access flags ([`stage2::Edit::watch`]).
//!
//! ```text
//!   begin(n) ──▶ step: count what was watched, 32 pages at a time, and make blocks again
//!                step: choose n others at random, 32 at a time        ──▶ answer
//!   meanwhile:   an access to a page whose flag is clear: hardware sets the flag, or `touch` does
//! ```
//! Where software sets the flag, EL2's own copies for the guest stop at a clear one, too. If that is in a page of the guest's
//! stage 1 tables, nothing says which: then the sample ends there, with what it has seen ([`P2m::end_sample`]).

use core::sync::atomic::Ordering;

use alloc::vec::Vec;
use arrayvec::ArrayVec;
use pv_abi::errno::Errno;
use stage2::{BlockSize, Gfn, PageType, Pages};

use super::{Inner, P2m};
use crate::arch;
use crate::time::{Nanoseconds, Ticks};

/// Pages of a step.
const STEP: usize = 32;
/// Guest frames looked at in a step for pages to watch, and in all for each page that is wanted: a bound where a domain sees
/// much and has little of it.
const TRIES: u64 = 1024;
const TRIES_EACH: u64 = 1024;
/// Extents of 1 GiB that pages are chosen from, and entries looked at to find them. Of more, as many are chosen at random.
const EXTENTS: usize = 64;
const ENTRIES: u64 = 4096;

/// What became of the sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Pages that were watched and are still there.
    pub sampled: u64,
    /// Of these, used meanwhile.
    pub touched: u64,
    /// For how long.
    pub period: Nanoseconds,
    /// Pages that are watched now.
    pub watched: u64,
}

/// A domain's sample.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    pages: Vec<Gfn>,
    /// `pages` are those of the last period: to be counted, unless that is done already, and given up.
    is_ending: bool,
    is_counted: bool,
    wanted: usize,
    tries: u64,
    extents: ArrayVec<Gfn, EXTENTS>,
    since: Ticks,
    seen: Sample,
    random: u64,
}

impl Sampler {
    /// The next of a sequence that no guest knows (SplitMix64: Steele, Lea, Flood 2014), below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ mixed >> 31) * u128::from(limit)) >> 64) as u64
    }

    fn count(&mut self, accessed: Option<bool>) {
        self.seen.sampled += u64::from(accessed.is_some());
        self.seen.touched += u64::from(accessed == Some(true));
    }

    fn end_period(&mut self) {
        let elapsed = arch::now().get().saturating_sub(self.since.get());
        self.seen = Sample { period: Nanoseconds::from_ticks(elapsed), ..Sample::default() };
    }
}

impl P2m {
    /// Ends the sample that is under way; the [steps](Self::sample_step) count it and begin one of `wanted` pages. `ENOMEM`,
    /// and nothing is changed, if there is no memory to note them.
    pub fn begin_sample(&self, wanted: usize) -> Result<(), Errno> {
        let Inner { tables, pool, sampler, highest, .. } = &mut *self.inner.write();
        let more = wanted.saturating_sub(sampler.pages.len());
        sampler.pages.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
        if sampler.pages.is_empty() {
            sampler.seen = Sample::default();
        } else if !sampler.is_counted {
            sampler.end_period();
        }
        sampler.is_ending = true;
        sampler.wanted = wanted;
        sampler.tries = wanted as u64 * TRIES_EACH;
        sampler.random ^= arch::now().get();
        sampler.extents.clear();
        let (mut from, mut budget, mut found) = (Gfn::ZERO, ENTRIES, 0);
        let end = highest.wrapping_add(Pages::ONE);
        while let Some(extent) = tables.next_extent(pool, from, end, &mut budget) {
            found += 1;
            if sampler.extents.try_push(extent).is_err() {
                let other = sampler.below(found) as usize;
                if let Some(place) = sampler.extents.get_mut(other) {
                    *place = extent;
                }
            }
            from = extent.wrapping_add(BlockSize::Block1G.pages());
        }
        Ok(())
    }

    /// Does a part of it, in some microseconds; false when all is done.
    pub fn sample_step(&self) -> bool {
        let Inner { tables, pool, tlb, sampler, .. } = &mut *self.inner.write();
        if self.is_closed.load(Ordering::Relaxed) {
            return false;
        }
        if sampler.is_ending {
            let mut edit = tables.edit(pool, tlb);
            let part = sampler.pages.len().saturating_sub(STEP);
            let mut index = part;
            while let Some(&gfn) = sampler.pages.get(index).filter(|_| !sampler.is_counted) {
                sampler.count(edit.accessed(gfn));
                index += 1;
            }
            edit.rejoin(&sampler.pages[part..]);
            sampler.pages.truncate(part);
            if part == 0 {
                (sampler.is_ending, sampler.is_counted, sampler.since) = (false, false, arch::now());
                if sampler.wanted == 0 {
                    sampler.pages = Vec::new();
                }
            }
            return true;
        }
        let missing = sampler.wanted.saturating_sub(sampler.pages.len());
        if missing == 0 || sampler.tries == 0 || sampler.extents.is_empty() {
            return false;
        }
        let mut chosen = [Gfn::ZERO; STEP];
        let mut count = 0;
        for _ in 0..sampler.tries.min(TRIES) {
            sampler.tries -= 1;
            let extent = sampler.below(sampler.extents.len() as u64) as usize;
            let Some(&extent) = sampler.extents.get(extent) else { break };
            let gfn = extent.wrapping_add(Pages::new(sampler.below(BlockSize::Block1G.pages().get())));
            let own = |leaf: &stage2::Leaf| matches!(leaf.page_type(), PageType::Ram | PageType::RamRo);
            if tables.lookup_gfn(pool, gfn).is_some_and(|leaf| own(&leaf) && leaf.is_accessed()) {
                chosen[count] = gfn;
                count += 1;
                if count == missing.min(STEP) {
                    break;
                }
            }
        }
        let pages = &mut sampler.pages;
        tables.edit(pool, tlb).watch(&chosen[..count], |gfn| pages.push(gfn));
        true
    }

    /// What the steps have found. `mapped` is the whole of which it was a sample.
    pub fn sample(&self) -> Sample {
        let sampler = &self.inner.read().sampler;
        Sample { watched: sampler.pages.len() as u64, ..sampler.seen }
    }

    /// Pages with backing.
    pub fn backed(&self) -> Pages {
        self.account.current().saturating_sub(self.account.reserved())
    }

    /// Access-flag faults so far.
    pub fn flag_faults(&self) -> u64 {
        self.flag_faults.load(Ordering::Relaxed)
    }

    /// The domain uses its page at `gfn`: whether there is one, whose access flag is set now.
    #[inline(never)]
    pub fn touch(&self, gfn: Gfn) -> bool {
        let Inner { tables, pool, tlb, .. } = &mut *self.inner.write();
        let accessed = tables.edit(pool, tlb).accessed(gfn);
        self.flag_faults.fetch_add(u64::from(accessed == Some(false)), Ordering::Relaxed);
        accessed.is_some()
    }

    /// Counts the sample now, and sets all its flags; false where none was clear, or there is none.
    #[cold]
    pub fn end_sample(&self) -> bool {
        let Inner { tables, pool, tlb, sampler, .. } = &mut *self.inner.write();
        if sampler.is_counted || sampler.pages.is_empty() {
            return false;
        }
        sampler.end_period();
        sampler.is_counted = true;
        let mut edit = tables.edit(pool, tlb);
        for index in 0..sampler.pages.len() {
            sampler.count(edit.accessed(sampler.pages[index]));
        }
        sampler.seen.touched != sampler.seen.sampled
    }
}

#[cfg(test)]
mod tests;
