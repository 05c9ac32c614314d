//! Where dom0's memory lies, and what lies where in it.
//!
//! dom0 is mapped 1:1, since its devices put what the kernel tells them, guest addresses, on the bus. So its banks
//! are pieces of the machine's free memory, in whole 2 MiB blocks. Two aims compete:
//! - Devices with short addresses (a Raspberry Pi's reach 1 GiB) must find memory that they can use. So where there is
//!   free memory that low, banks are taken from the lowest address up; pieces below [`SMALL`] only when nothing else
//!   is left.
//! - Elsewhere one bank is better than many: the lowest piece of free memory that has it all, below 4 GiB, from a
//!   multiple of 1 GiB on if it is that large, so that it is mapped in blocks of 1 GiB.
//!
//! One bank, the home, holds what the kernel starts with:
//! ```text
//! 2 MiB aligned   + text_offset                2 MiB aligned    2 MiB aligned
//! │               │ kernel, BSS │ free         │ initrd │ free  │ device tree │ free ...
//! ```

use alloc::vec::Vec;
use core::fmt;

use stage2::Pa;

use crate::devicetree::PaRange;

/// Banks are multiples of this.
pub const GRANULE: u64 = 2 << 20;
/// Pieces of free memory that are smaller are used last.
pub const SMALL: u64 = 32 << 20;
/// Where memory must lie for the devices with the shortest addresses in use.
const LOW: Pa = Pa::new(1 << 30);
/// Where memory must lie for devices with 32-bit addresses.
const BELOW_4G: Pa = Pa::new(4 << 30);
/// Free memory that stays with Nacelle at least: for stage-2 tables, its heap, shared pages.
pub const RESERVE: u64 = 32 << 20;
/// dom0's memory when the command line does not say, as on Xen for Arm; on small machines 3/4 of what is free.
pub const DEFAULT: u64 = 512 << 20;
/// Room for dom0's device tree: the boot protocol's limit, and its alignment too.
pub const DTB_ROOM: u64 = 2 << 20;
/// Banks at most, so that free memory in crumbs does not make a tree of unbounded size.
pub const MAX_BANKS: usize = 64;

/// What dom0 starts with, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The kernel's `text_offset`, below 2 MiB.
    pub text_offset: u64,
    /// From there, the kernel with its BSS.
    pub kernel: u64,
    /// The initramfs; 0 for none.
    pub initrd: u64,
}

/// dom0's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its banks, ascending, apart from one another.
    pub banks: Vec<PaRange>,
    /// Where the kernel goes, and is entered.
    pub kernel: Pa,
    /// Where the initramfs goes.
    pub initrd: Option<PaRange>,
    /// Where the device tree goes: [`DTB_ROOM`] bytes.
    pub dtb: Pa,
}

/// Why there is no layout. All figures in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// More is asked for than there is.
    TooMuch {
        /// Asked for.
        asked: u64,
        /// To be had.
        available: u64,
        /// RAM of the machine.
        total: u64,
    },
    /// The kernel and what belongs to it do not fit into what is asked for.
    TooSmall {
        /// Asked for.
        asked: u64,
        /// Needed.
        needed: u64,
    },
    /// No piece of free memory can hold the kernel and what belongs to it.
    NoHome {
        /// Needed in one piece.
        needed: u64,
        /// The largest free piece.
        largest: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        match *self {
            Self::TooMuch { asked, available, total } => write!(
                f,
                "dom0_mem: {} MiB are too much: {} MiB are to be had of {} MiB of RAM",
                mib(asked),
                mib(available),
                mib(total)
            ),
            Self::TooSmall { asked, needed } => write!(
                f,
                "dom0_mem: {} MiB are too little: dom0's kernel, initramfs and device tree alone take {} MiB",
                mib(asked),
                mib(needed)
            ),
            Self::NoHome { needed, largest } => write!(
                f,
                "no {} MiB of free memory in one piece for dom0's kernel and initramfs; the largest has {} MiB",
                mib(needed),
                mib(largest)
            ),
        }
    }
}

impl core::error::Error for LayoutError {}

/// How much of `free` bytes dom0 may have at most.
pub const fn available(free: u64) -> u64 {
    free.saturating_sub(RESERVE) & !(GRANULE - 1)
}

/// What dom0 gets of `free` bytes when nobody says.
pub fn default_amount(free: u64) -> u64 {
    DEFAULT.min((available(free) / 4 * 3) & !(GRANULE - 1))
}

/// Chooses `amount` bytes, rounded up to [`GRANULE`], from the `free` ranges, which are ascending and apart from one
/// another. `total` is all RAM, for the error message.
///
/// # Errors
/// See [`LayoutError`].
pub fn choose(free: &[PaRange], total: u64, amount: u64, sizes: &Sizes) -> Result<Layout, LayoutError> {
    let pieces: Vec<PaRange> = free.iter().filter_map(whole_blocks).collect();
    let sum: u64 = pieces.iter().map(PaRange::size).sum();
    let available = available(sum);
    // An amount near the top of the number range is too much in any case.
    let asked = amount.checked_next_multiple_of(GRANULE).unwrap_or(!(GRANULE - 1));
    if asked > available {
        return Err(LayoutError::TooMuch { asked, available, total });
    }
    let kernel = room(sizes.text_offset.saturating_add(sizes.kernel));
    let needed = kernel.saturating_add(room(sizes.initrd)).saturating_add(DTB_ROOM);
    if needed > asked {
        return Err(LayoutError::TooSmall { asked, needed });
    }
    if let Some(bank) = one_bank(&pieces, asked) {
        return Ok(place(alloc::vec![bank], bank.start, sizes));
    }
    let home = pieces.iter().find(|piece| piece.size() >= needed).ok_or(LayoutError::NoHome {
        needed,
        largest: pieces.iter().map(PaRange::size).max().unwrap_or(0),
    })?;

    // The home is sure of its share; the rest is taken in order.
    let mut left = asked - needed;
    let mut home_takes = needed;
    let mut banks = Vec::new();
    for is_small in [false, true] {
        for piece in &pieces {
            if piece == home {
                if !is_small {
                    let more = (piece.size() - needed).min(left);
                    home_takes += more;
                    left -= more;
                }
            } else if (piece.size() < SMALL) == is_small && left > 0 && banks.len() + 1 < MAX_BANKS {
                let size = piece.size().min(left);
                left -= size;
                banks.extend(PaRange::new(piece.start, size));
            }
        }
    }
    if left > 0 {
        return Err(LayoutError::TooMuch { asked, available: asked - left, total });
    }
    banks.extend(PaRange::new(home.start, home_takes));
    banks.sort_unstable();
    Ok(place(banks, home.start, sizes))
}

/// A bank of `asked` bytes in one piece, if that is wanted and there is one.
fn one_bank(pieces: &[PaRange], asked: u64) -> Option<PaRange> {
    const GIB: u64 = 1 << 30;
    if pieces.iter().any(|piece| piece.start < LOW) {
        return None;
    }
    let fits = |piece: &PaRange, start: Pa| PaRange::new(start, asked).filter(|bank| bank.end <= piece.end);
    let aligned = |piece: &PaRange| piece.start.align_up(GIB).and_then(|start| fits(piece, start));
    let of_piece = |piece: &PaRange| {
        let large = if asked >= GIB { aligned(piece).filter(|bank| bank.start < BELOW_4G) } else { None };
        large.or_else(|| fits(piece, piece.start))
    };
    pieces.iter().find_map(of_piece)
}

/// How much the kernel and what belongs to it take, in [`GRANULE`]s; saturates.
fn room(bytes: u64) -> u64 {
    bytes.saturating_add(GRANULE - 1) & !(GRANULE - 1)
}

/// Puts things into the bank that begins at, or holds, `start`; there is room.
fn place(banks: Vec<PaRange>, start: Pa, sizes: &Sizes) -> Layout {
    let kernel = room(sizes.text_offset.saturating_add(sizes.kernel));
    let initrd =
        if sizes.initrd == 0 { None } else { PaRange::new(start.wrapping_add(kernel), sizes.initrd) };
    Layout {
        banks,
        kernel: start.wrapping_add(sizes.text_offset),
        initrd,
        dtb: start.wrapping_add(kernel).wrapping_add(room(sizes.initrd)),
    }
}

/// The whole [`GRANULE`]s in a range.
fn whole_blocks(range: &PaRange) -> Option<PaRange> {
    let start = range.start.align_up(GRANULE)?;
    let end = range.end.align_down(GRANULE);
    if start < end { Some(PaRange { start, end }) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec;

    use super::*;

    const M: u64 = 1 << 20;
    const SIZES: Sizes = Sizes { text_offset: 0x8_0000, kernel: 33 * M, initrd: 26 * M + 5 };

    fn mib(ranges: &[(u64, u64)]) -> Vec<PaRange> {
        ranges
            .iter()
            .map(|&(start, end)| PaRange { start: Pa::new(start * M), end: Pa::new(end * M) })
            .collect()
    }

    #[test]
    fn one_bank_on_a_machine_like_qemu() {
        let free = mib(&[(1030, 1168), (1201, 1264), (1291, 4096)]);
        let layout = choose(&free, 3072 * M, 1024 * M, &SIZES).unwrap();
        assert_eq!(layout.banks, mib(&[(2048, 3072)]));
        assert_eq!(layout.kernel, Pa::new(2048 * M + 0x8_0000));
        assert_eq!(layout.initrd.unwrap().start, Pa::new(2082 * M));
        assert_eq!(layout.initrd.unwrap().size(), SIZES.initrd);
        assert_eq!(layout.dtb, Pa::new(2110 * M));
        let banks = |amount| choose(&free, 3072 * M, amount * M, &SIZES).unwrap().banks;
        assert_eq!(banks(512), mib(&[(1292, 1804)]));
        assert_eq!(banks(128), mib(&[(1030, 1158)]));
        // Too large for a multiple of 1 GiB, and too large for one bank.
        assert_eq!(banks(2600), mib(&[(1292, 3892)]));
        assert_eq!(banks(2900), mib(&[(1030, 1168), (1202, 1264), (1292, 3992)]));
    }

    #[test]
    fn one_bank_stays_below_4_gib_where_it_can() {
        let free = mib(&[(1040, 3072), (4096, 20480)]);
        let banks = |amount| choose(&free, 18416 * M, amount * M, &SIZES).unwrap().banks;
        assert_eq!(banks(1024), mib(&[(2048, 3072)]));
        assert_eq!(banks(1536), mib(&[(1040, 2576)]));
        assert_eq!(banks(4096), mib(&[(4096, 8192)]));
    }

    #[test]
    fn low_memory_first_on_a_pi() {
        let free = mib(&[(4, 128), (156, 948), (1024, 4032)]);
        let layout = choose(&free, 3956 * M, 1024 * M, &SIZES).unwrap();
        assert_eq!(layout.banks, mib(&[(4, 128), (156, 948), (1024, 1132)]));
    }

    #[test]
    fn crumbs_are_used_last() {
        let free = mib(&[(0, 8), (16, 24), (1024, 1536)]);
        assert_eq!(choose(&free, 512 * M, 256 * M, &SIZES).unwrap().banks, mib(&[(1024, 1280)]));
        let all = available(528 * M);
        assert_eq!(choose(&free, 528 * M, all, &SIZES).unwrap().banks, mib(&[(1024, 1024 + all / M)]));
        let free = mib(&[(0, 20), (64, 84), (1024, 1536)]);
        let all = available(552 * M);
        assert_eq!(choose(&free, 552 * M, all, &SIZES).unwrap().banks, mib(&[(0, 8), (1024, 1536)]));
    }

    #[test]
    fn refusals_have_figures() {
        let free = mib(&[(1024, 2048)]);
        let error = choose(&free, 1100 * M, 8192 * M, &SIZES).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dom0_mem: 8192 MiB are too much: 992 MiB are to be had of 1100 MiB of RAM"
        );
        assert!(matches!(choose(&free, 0, u64::MAX, &SIZES), Err(LayoutError::TooMuch { .. })));
        let error = choose(&free, 1100 * M, 32 * M, &SIZES).unwrap_err();
        assert_eq!(error, LayoutError::TooSmall { asked: 32 * M, needed: 64 * M });
        let free = mib(&[(0, 60), (100, 160), (200, 260)]);
        let error = choose(&free, 180 * M, 128 * M, &SIZES).unwrap_err();
        assert_eq!(error, LayoutError::NoHome { needed: 64 * M, largest: 60 * M });
    }

    #[test]
    fn the_default_fits() {
        assert_eq!(default_amount(4096 * M), 512 * M);
        assert!(default_amount(256 * M) <= 168 * M);
        assert_eq!(default_amount(0), 0);
    }

    proptest! {
        #[test]
        fn layouts_hold_what_they_promise(
            gaps in prop::collection::vec((0u64..80, 1u64..400), 1..12),
            start in 0u64..2048,
            amount in 1u64..3000,
            kernel in 1u64..64 * M,
            initrd in 0u64..64 * M,
            text_offset in 0u64..2 * M,
        ) {
            let mut at = start * M + 4096;
            let mut free = vec![];
            for (gap, size) in gaps {
                let begin = at + gap * M + 4096;
                at = begin + size * M / 2;
                free.push(PaRange { start: Pa::new(begin), end: Pa::new(at) });
            }
            let sizes = Sizes { text_offset, kernel, initrd };
            let total = free.iter().map(PaRange::size).sum();
            let Ok(layout) = choose(&free, total, amount * M, &sizes) else { return Ok(()) };
            prop_assert_eq!(layout.banks.iter().map(PaRange::size).sum::<u64>(), (amount * M).next_multiple_of(GRANULE));
            prop_assert!(layout.banks.windows(2).all(|pair| pair[0].end <= pair[1].start));
            for bank in &layout.banks {
                prop_assert!(bank.start.is_aligned(GRANULE) && bank.size() % GRANULE == 0 && !bank.is_empty());
                prop_assert!(free.iter().any(|free| free.start <= bank.start && bank.end <= free.end));
            }
            let mut pieces = vec![
                PaRange::new(layout.kernel, kernel).unwrap(),
                PaRange::new(layout.dtb, DTB_ROOM).unwrap(),
            ];
            pieces.extend(layout.initrd);
            prop_assert_eq!(layout.initrd.is_some(), initrd > 0);
            for (index, piece) in pieces.iter().enumerate() {
                prop_assert!(layout.banks.iter().any(|bank| bank.start <= piece.start && piece.end <= bank.end));
                prop_assert!(pieces[..index].iter().all(|other| !other.overlaps(piece)));
            }
            prop_assert!(layout.dtb.is_aligned(DTB_ROOM));
            prop_assert_eq!(layout.kernel.raw() % GRANULE, text_offset);
        }
    }
}
