//! Which CPUs have which defects, by MIDR_EL1: those that EL2 works around at run time.
//!
//! The decisions on all defects considered, with the documents they come from, are in docs/hardware.md.

use core::sync::atomic::{AtomicBool, Ordering};

use super::sysreg::read_sysreg;

/// Implementer, part number, and variant and revision, of MIDR_EL1 (DDI 0487 D19.2.96).
const fn model(midr: u64) -> (u64, u64, u64) {
    (midr >> 24 & 0xff, midr >> 4 & 0xfff, (midr >> 20 & 0xf) << 4 | midr & 0xf)
}

const ARM: u64 = 0x41;
const CORTEX_A55: u64 = 0xd05;
const CORTEX_A57: u64 = 0xd07;
const CORTEX_A76: u64 = 0xd0b;
const CORTEX_A510: u64 = 0xd46;

static REPEATS_TLBI: AtomicBool = AtomicBool::new(false);
static HIDES_STAGE1_FAULTS: AtomicBool = AtomicBool::new(false);

/// Looks at this CPU. A defect of one is worked around on all, since any may see the others'.
pub fn init_cpu() {
    let midr = read_sysreg!("midr_el1");
    if has_incomplete_tlbi(midr) {
        REPEATS_TLBI.store(true, Ordering::Relaxed);
    }
    if may_hide_stage1_fault(midr) {
        HIDES_STAGE1_FAULTS.store(true, Ordering::Relaxed);
    }
}

/// Whether each TLB maintenance sequence must be done twice.
#[inline(always)]
pub fn repeats_tlbi() -> bool {
    REPEATS_TLBI.load(Ordering::Relaxed)
}

/// Whether stage 1 must be asked before a stage 2 fault is believed.
#[inline(always)]
pub fn hides_stage1_faults() -> bool {
    HIDES_STAGE1_FAULTS.load(Ordering::Relaxed)
}

/// Whether a TLBI and its DSB may complete before another CPU's accesses by the old translation have: Cortex-A55 2441007,
/// A510 2441009 (to r1p1), A76 1286807; and 4118414 with its kin (CVE-2025-10263), of which no revision is free.
const fn has_incomplete_tlbi(midr: u64) -> bool {
    let (implementer, part, revision) = model(midr);
    implementer == ARM
        && match part {
            CORTEX_A55 | CORTEX_A76 => true,
            CORTEX_A510 => revision <= 0x11,
            // Neoverse N1, Cortex-A77, A76AE; Neoverse V1, Cortex-A78, A78AE, X1, A710, X2; Neoverse N2; Cortex-A78C, X1C, X3;
            // Neoverse V2; Cortex-X4; Neoverse V3AE, V3; Cortex-X925; C1-Ultra, C1-Premium.
            0xd0c | 0xd0d | 0xd0e | 0xd40 | 0xd41 | 0xd42 | 0xd44 | 0xd47 | 0xd48 | 0xd49 | 0xd4b | 0xd4c
            | 0xd4e | 0xd4f | 0xd82 | 0xd83 | 0xd84 | 0xd85 | 0xd8c | 0xd90 => true,
            _ => false,
        }
}

/// Whether a stage 2 translation fault may be reported where stage 1 has a fault of higher priority. Cortex-A57
/// 834220 (to r1p2).
const fn may_hide_stage1_fault(midr: u64) -> bool {
    let (implementer, part, revision) = model(midr);
    implementer == ARM && part == CORTEX_A57 && revision <= 0x12
}
