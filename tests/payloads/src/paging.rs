//! The identity map: 1 GiB blocks, memory normal and cacheable, all else device and never executable.
//!
//! One table of 512 entries covers 512 GiB (39 bits, 4 KiB granule, translation starts at level 1: Arm ARM DDI 0487,
//! D8.2). It is filled with the MMU off for the image and the tree, completed once memory and the console's ring are known,
//! and then left alone.
//! Only the boot processor writes it.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::machine::Range;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

#[unsafe(no_mangle)]
static IDENTITY_MAP: Table = Table([const { AtomicU64::new(0) }; 512]);

/// For the one gibibyte that is both: see [`map_shared`].
static MIXED: Table = Table([const { AtomicU64::new(0) }; 512]);

/// MAIR_EL1: attribute 0 is normal write-back memory, attribute 1 is Device-nGnRE.
const BLOCK: u64 = 1;
const NORMAL: u64 = BLOCK | 1 << 10 | 3 << 8;
const DEVICE: u64 = BLOCK | 1 << 10 | 1 << 2 | 1 << 53 | 1 << 54;
const GIB: u64 = 30;
const MIB2: u64 = 21;
const TABLE: u64 = 3;

/// The gibibyte that is never mapped, the last one: any address whose bits 38 to 30 are these faults at stage 1.
pub const UNMAPPED_GIB: u64 = 511;

/// Fills the table with the MMU off: memory around `image` and `tree`, devices everywhere else. Called by the entry code.
#[unsafe(no_mangle)]
extern "C" fn fill_identity_map(image: u64, tree: u64) {
    for (index, entry) in IDENTITY_MAP.0.iter().take(UNMAPPED_GIB as usize).enumerate() {
        let address = (index as u64) << GIB;
        let kind = if index as u64 == image >> GIB || index as u64 == tree >> GIB { NORMAL } else { DEVICE };
        entry.store(address | kind, Ordering::Relaxed);
    }
}

/// Makes the gibibytes that `banks` touch normal memory. Break-before-make (Arm ARM DDI 0487, D8.16.1): the entry is
/// removed and its translations invalidated before the new one appears; nothing uses these addresses yet.
pub fn map_memory(banks: &[Range]) {
    for bank in banks {
        for index in (bank.start >> GIB)..=(bank.end.saturating_sub(1) >> GIB).min(UNMAPPED_GIB - 1) {
            let Some(entry) = IDENTITY_MAP.0.get(index as usize) else { continue };
            replace(entry, index << GIB | NORMAL);
        }
    }
}

/// Makes the 2 MiB around `address`, where a toolstack put pages that it shares, normal memory among devices. Before anything
/// there is used. False where that is memory, or other such pages are elsewhere.
pub fn map_shared(address: u64) -> bool {
    let index = address >> GIB;
    let Some(entry) = IDENTITY_MAP.0.get(index as usize) else { return false };
    if MIXED.0[0].load(Ordering::Relaxed) != 0 {
        let mapped = MIXED.0[(address >> MIB2) as usize % 512].load(Ordering::Relaxed);
        return mapped == address >> MIB2 << MIB2 | NORMAL;
    }
    if entry.load(Ordering::Relaxed) != index << GIB | DEVICE {
        return false;
    }
    for (part, entry) in (index << (GIB - MIB2)..).zip(&MIXED.0) {
        let kind = if part == address >> MIB2 { NORMAL } else { DEVICE };
        entry.store(part << MIB2 | kind, Ordering::Relaxed);
    }
    replace(entry, &raw const MIXED as u64 | TABLE);
    true
}

fn replace(entry: &AtomicU64, wanted: u64) {
    if entry.load(Ordering::Relaxed) == wanted {
        return;
    }
    entry.store(0, Ordering::Relaxed);
    // SAFETY: only removes cached translations of addresses that nothing uses.
    unsafe { core::arch::asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb", options(nostack)) };
    entry.store(wanted, Ordering::Relaxed);
    // SAFETY: orders the stores before any later walk.
    unsafe { core::arch::asm!("dsb ishst", "isb", options(nostack)) };
}
