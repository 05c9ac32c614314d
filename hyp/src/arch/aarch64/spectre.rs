//! Chooses this CPU's vectors by what its branch predictors need ([`crate::speculation`]).

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use log::{info, warn};

use crate::cpu::CpuId;
use crate::speculation::{self, Entry, Identity, State, decide};

use super::sysreg::{isb, read_sysreg, write_sysreg};
use super::{percpu, power, vectors};

static WANTED: AtomicBool = AtomicBool::new(true);

/// Read by the vectors: the function for the firmware, which is the same for all CPUs that need one.
#[unsafe(no_mangle)]
static predictor_function: AtomicU32 = AtomicU32::new(0);
/// Read by the vectors: branches that fill the longest history of the CPUs that need that.
#[unsafe(no_mangle)]
static predictor_branches: AtomicU32 = AtomicU32::new(1);

/// `spec-ctrl=`, before the first [`init_cpu`].
pub fn init(wanted: bool) {
    WANTED.store(wanted, Ordering::Relaxed);
}

/// Sets VBAR_EL2 on this CPU.
pub fn init_cpu() {
    let identity = Identity {
        midr: read_sysreg!("midr_el1"),
        pfr0: read_sysreg!("id_aa64pfr0_el1"),
        pfr1: read_sysreg!("id_aa64pfr1_el1"),
        isar2: read_sysreg!("s3_0_c0_c6_2"),
        mmfr1: read_sysreg!("id_aa64mmfr1_el1"),
    };
    let decision = decide(&identity, WANTED.load(Ordering::Relaxed), power::workaround);
    speculation::record(&decision, speculation::store_bypass(&identity, power::workaround));
    let table = match decision.entry {
        Entry::Plain => vectors::vectors as *const (),
        Entry::Loop(branches) => {
            predictor_branches.fetch_max(branches, Ordering::Relaxed);
            vectors::vectors_loop as *const ()
        }
        Entry::ClearHistory => vectors::vectors_clear_history as *const (),
        Entry::Firmware(function) => {
            predictor_function.store(function, Ordering::Relaxed);
            vectors::vectors_firmware as *const ()
        }
    };
    // SAFETY: the address of a vector table. What it reads was stored before, by this CPU.
    unsafe { write_sysreg!("vbar_el2", table as u64) };
    isb();
    if percpu::this().id() != CpuId::BOOT {
        return;
    }
    match (decision.entry, decision.v2.max(decision.history)) {
        (Entry::Plain, State::Vulnerable) if !WANTED.load(Ordering::Relaxed) => {
            warn!("Spectre v2, BHB: not mitigated, as spec-ctrl=no asks")
        }
        (Entry::Plain, State::Vulnerable) => {
            warn!("Spectre v2, BHB: no support for SMCCC_ARCH_WORKAROUND_1 or 3: please update your firmware")
        }
        (Entry::Plain, _) => {}
        (entry, _) => info!("Spectre v2, BHB: mitigated at each entry, by {entry}"),
    }
}
