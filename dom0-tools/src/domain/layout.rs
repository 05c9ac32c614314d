//! Where everything is in a domain's memory (public header `arch-arm.h`, "Physical Address Space"; boot modules as Xen's
//! `xg_dom_arm.c` puts them).
//!
//! ```text
//!   0x40000000  kernel                       RAM, up to 3 GiB
//!      +128 MiB initramfs, then device tree  (or as high as possible, in a domain with less memory)
//!   0x200000000                              the rest of RAM
//! ```
//! What is free after each bank, as far as the domain's addresses reach, is for pages of others and for memory that is added
//! while it runs.

use std::ops::Range;

use pv_abi::arch_arm::{GUEST_RAM_BANK_BASES, GUEST_RAM_BANK_SIZES, GUEST_RAM_BASE, GUEST_RAM_MAX};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes of a block of stage 2.
pub const BLOCK: u64 = 2 << 20;
/// Where boot modules go in a domain that is large enough.
const MODULES: u64 = GUEST_RAM_BASE + (128 << 20);
/// A gap that is smaller is not told to the guest.
const SMALLEST_GAP: u64 = 64 << 20;

/// A domain whose memory does not hold what it starts with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too little.
    #[error(
        "{memory} MiB do not hold the kernel ({kernel} MiB) and the initramfs ({ramdisk} MiB): raise memory="
    )]
    TooSmall {
        /// MiB it has.
        memory: u64,
        /// MiB of the kernel.
        kernel: u64,
        /// MiB of the initramfs.
        ramdisk: u64,
    },
    /// More than the address map has room for.
    #[error("{memory} MiB are more than a domain can have, {} MiB", GUEST_RAM_MAX >> 20)]
    TooLarge {
        /// MiB asked for.
        memory: u64,
    },
}

/// Where everything is; byte addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// RAM that the guest is told of.
    pub banks: Vec<Range<u64>>,
    /// The initramfs.
    pub ramdisk: Option<Range<u64>>,
    /// The device tree.
    pub tree: Range<u64>,
}

/// The banks of so much memory.
///
/// # Errors
/// [`Error::TooLarge`].
pub fn banks(memory: u64) -> Result<Vec<Range<u64>>, Error> {
    let mut left = memory;
    let mut banks = Vec::new();
    for (base, room) in GUEST_RAM_BANK_BASES.into_iter().zip(GUEST_RAM_BANK_SIZES) {
        let bytes = left.min(room);
        if bytes > 0 {
            banks.push(base..base + bytes);
        }
        left -= bytes;
    }
    if left > 0 { Err(Error::TooLarge { memory: memory >> 20 }) } else { Ok(banks) }
}

/// Linux's unit of memory hot-add on arm64 with pages of 4 KiB (`SECTION_SIZE_BITS` 27).
pub const SECTION: u64 = 128 << 20;

/// How much a Linux granted `memory` bytes sees from the start, where memory comes on demand: `maximum`, but no more than
/// it can give back from until it is at `memory`. The rest comes by hot-add.
///
/// What it keeps, by measurements of Debian's 6.1 with 512 to 4096 MiB in sight: the area for contiguous memory (64 MiB; `cma=0`
/// forgoes it); image, initramfs and tables (34 MiB, and 1/51 of what it sees); what its watermarks and its own work keep free (1/25,
/// up to 40 MiB); and if it sees memory above 4 GiB, the SWIOTLB (64 MiB) and a second zone's watermarks. If its balloon does not
/// come closer to the target for three minutes, Linux panics at boot.
pub fn visible_to_linux(memory: u64, maximum: u64) -> u64 {
    let one_zone = GUEST_RAM_BANK_SIZES[0];
    let keeps = |visible: u64| {
        let beyond = if visible > one_zone { (64 + 44) << 20 } else { 0 };
        ((64 + 34) << 20) + visible / 51 + (visible / 25).min(40 << 20) + beyond
    };
    if keeps(maximum) <= memory {
        return maximum;
    }
    let sections = (1..=maximum / SECTION).take_while(|sections| keeps(sections * SECTION) <= memory).last();
    memory.max(sections.unwrap_or(0) * SECTION)
}

/// Places the modules: in the first `memory` bytes, of which the kernel has those up to `kernel_end`. The guest is told of
/// `visible` bytes, as many or more.
///
/// # Errors
/// [`Error`].
pub fn place(memory: u64, visible: u64, kernel_end: u64, ramdisk: u64, tree: u64) -> Result<Layout, Error> {
    let pages = |bytes: u64| bytes.next_multiple_of(PAGE);
    let too_small = || Error::TooSmall {
        memory: memory >> 20,
        kernel: kernel_end.saturating_sub(GUEST_RAM_BASE).div_ceil(1 << 20),
        ramdisk: ramdisk.div_ceil(1 << 20),
    };
    let first = banks(memory)?.into_iter().next().ok_or_else(too_small)?;
    let needed = pages(ramdisk) + pages(tree);
    let start = if kernel_end <= MODULES && MODULES + needed <= first.end {
        MODULES
    } else {
        first.end.checked_sub(needed).map(|start| start & !(PAGE - 1)).ok_or_else(too_small)?
    };
    if start < kernel_end || start < first.start {
        return Err(too_small());
    }
    let tree_start = start + pages(ramdisk);
    Ok(Layout {
        banks: banks(visible)?,
        ramdisk: (ramdisk > 0).then_some(start..start + ramdisk),
        tree: tree_start..tree_start + tree,
    })
}

/// What is free behind the banks, for a domain with so many bits of physical address.
pub fn gaps(banks: &[Range<u64>], address_bits: u32) -> Vec<Range<u64>> {
    let top = 1u64.checked_shl(address_bits).unwrap_or(u64::MAX);
    GUEST_RAM_BANK_BASES
        .into_iter()
        .zip(GUEST_RAM_BANK_SIZES)
        .map(|(base, room)| {
            let used = banks.iter().find(|bank| bank.start == base).map_or(base, |bank| bank.end);
            used.next_multiple_of(BLOCK)..(base + room).min(top)
        })
        .filter(|gap| gap.end.saturating_sub(gap.start) >= SMALLEST_GAP)
        .collect()
}

/// The extents that make up a range of pages, from the largest that addresses allow: a frame and an order, adjacent ones of
/// one order together.
pub fn extents(range: &Range<u64>) -> Vec<(u32, Vec<u64>)> {
    let (mut at, end) = (range.start / PAGE, range.end.div_ceil(PAGE));
    let mut extents: Vec<(u32, Vec<u64>)> = Vec::new();
    while at < end {
        let order = ORDERS
            .into_iter()
            .find(|&order| at.is_multiple_of(1 << order) && (1 << order) <= end - at)
            .unwrap_or(0);
        match extents.last_mut() {
            Some((last, frames)) if *last == order => frames.push(at),
            _ => extents.push((order, vec![at])),
        }
        at += 1 << order;
    }
    extents
}

/// Orders that stage 2 maps at once: 1 GiB, 2 MiB, a page.
const ORDERS: [u32; 3] = [18, 9, 0];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn linux_sees_what_its_balloon_can_give_back() {
        let visible = |memory, maximum| visible_to_linux(memory * MIB, maximum * MIB) / MIB;
        assert_eq!(visible(256, 256), 256);
        assert_eq!(visible(256, 1024), 1024);
        assert_eq!(visible(256, 4096), 3072, "the SWIOTLB would take what is left");
        assert_eq!(visible(512, 4096), 4096);
        assert_eq!(visible(128, 500), 500);
        assert_eq!(visible(128, 4000), 384, "whole sections, so that hot-add goes on behind them");
        assert_eq!(visible(64, 1024), 64, "by hot-add alone");
    }

    #[test]
    fn debians_guest_lies_where_xl_puts_it() {
        let kernel_end = 0x41f6_dfc0u64.next_multiple_of(PAGE);
        let layout = place(256 * MIB, 256 * MIB, kernel_end, 0xf_ddaf, 1791).unwrap();
        assert_eq!(layout.banks.as_slice(), std::slice::from_ref(&(0x4000_0000..0x5000_0000)));
        assert_eq!(layout.ramdisk, Some(0x4800_0000..0x480f_ddaf));
        assert_eq!(layout.tree, 0x480f_e000..0x480f_e6ff);
        assert_eq!(gaps(&layout.banks, 40), [0x5000_0000..0x1_0000_0000, 0x2_0000_0000..0x100_0000_0000]);
    }

    #[test]
    fn a_small_domain_has_its_modules_at_its_end() {
        let layout = place(64 * MIB, 64 * MIB, 0x4200_0000, MIB, 2000).unwrap();
        assert_eq!(layout.tree, 0x43ff_f000..0x43ff_f7d0);
        assert_eq!(layout.ramdisk, Some(0x43ef_f000..0x43ff_f000));
        let error = place(33 * MIB, 33 * MIB, 0x4200_0000, 2 * MIB, 2000).unwrap_err();
        assert_eq!(error, Error::TooSmall { memory: 33, kernel: 32, ramdisk: 2 });
        assert!(place(0, 0, 0x4000_0000, 0, 2000).is_err());
    }

    #[test]
    fn large_domains_have_two_banks() {
        assert_eq!(banks(4096 * MIB).unwrap(), [0x4000_0000..0x1_0000_0000, 0x2_0000_0000..0x2_4000_0000]);
        assert_eq!(banks(u64::MAX), Err(Error::TooLarge { memory: u64::MAX >> 20 }));
        // Memory that may be added later is shown from the start.
        let layout = place(256 * MIB, 4096 * MIB, 0x4200_0000, 0, 2000).unwrap();
        assert_eq!(layout.banks.len(), 2);
        let gap = 0x2_4000_0000..0x100_0000_0000;
        assert_eq!(gaps(&layout.banks, 40).as_slice(), std::slice::from_ref(&gap));
        assert_eq!(gaps(&layout.banks, 32), []);
    }

    proptest! {
        #[test]
        fn extents_are_the_range(first in 0u64..1 << 20, pages in 0u64..1 << 20) {
            let mut at = first;
            for (order, frames) in extents(&(first * PAGE..(first + pages) * PAGE)) {
                for frame in frames {
                    prop_assert_eq!(frame, at);
                    prop_assert_eq!(frame % (1 << order), 0);
                    at += 1 << order;
                }
            }
            prop_assert_eq!(at, first + pages);
        }

        #[test]
        fn modules_lie_in_memory_behind_the_kernel(
            memory in 1u64..8 << 30, kernel in 0u64..512 << 20, ramdisk in 0u64..512 << 20, tree in 1u64..1 << 20
        ) {
            let kernel_end = GUEST_RAM_BASE + kernel;
            let memory = memory & !(PAGE - 1);
            if let Ok(layout) = place(memory, memory, kernel_end, ramdisk, tree) {
                let ramdisk = layout.ramdisk.unwrap_or(layout.tree.start..layout.tree.start);
                prop_assert!(ramdisk.start >= kernel_end && ramdisk.start % PAGE == 0);
                prop_assert!(layout.tree.start >= ramdisk.end && layout.tree.start % PAGE == 0);
                prop_assert!(layout.tree.end <= layout.banks[0].end);
            }
        }
    }
}
