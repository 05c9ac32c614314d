//! Spectre v2 and branch history injection (BHB): which CPUs are open to them, and how EL2 is entered so that it is not. And
//! what guests are told of speculative store bypass (Spectre v4).
//!
//! A guest can train a CPU's branch predictor so that EL2 speculates where the guest likes. What helps must happen before
//! EL2's first indirect branch, so it is in the vectors: `arch/aarch64/vectors.rs` has a table for each [`Entry`], and each
//! CPU uses the one that [`decide`] gives it. CPUs and order of preference are Linux's (`arch/arm64/kernel/
//! proton-pack.c`), from Arm's "Cache Speculation Side-channels" and "Spectre-BHB" papers; Xen's `cpuerrata.c` does the same.
#![forbid(unsafe_code)]

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};

/// The firmware clears the branch predictors (DEN 0028F, 7.5).
pub const WORKAROUND_1: u32 = 0x8000_8000;
/// The firmware clears them and the branch history (DEN 0028F, 7.7).
pub const WORKAROUND_3: u32 = 0x8000_3fff;

/// The firmware lets a CPU do without speculative store bypass (DEN 0028F, 7.6).
pub const WORKAROUND_2: u32 = 0x8000_7fff;
/// What it says of [`WORKAROUND_2`] where no CPU needs the call, because it is not open to that or never does it.
const NOT_REQUIRED: i32 = -2;

/// What comes first when a guest traps to EL2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: it is not needed, or nothing would help.
    Plain,
    /// As many taken branches, which push the guest's out of the history.
    Loop(u32),
    /// The instruction CLRBHB.
    ClearHistory,
    /// An SMC to the firmware, of this function.
    Firmware(u32),
}

/// As in "mitigated by".
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => write!(f, "nothing"),
            Self::Loop(branches) => write!(f, "{branches} branches"),
            Self::ClearHistory => write!(f, "CLRBHB"),
            Self::Firmware(WORKAROUND_3) => write!(f, "the firmware's SMCCC_ARCH_WORKAROUND_3"),
            Self::Firmware(_) => write!(f, "the firmware's SMCCC_ARCH_WORKAROUND_1"),
        }
    }
}

/// How a CPU stands to one of the attacks. The worst CPU counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not open to it.
    Unaffected = 0,
    /// Every entry to EL2 prevents it.
    Mitigated = 1,
    /// Open to it.
    Vulnerable = 2,
}

/// What a CPU says of itself: MIDR_EL1, ID_AA64PFR0_EL1, ID_AA64PFR1_EL1, ID_AA64ISAR2_EL1, ID_AA64MMFR1_EL1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// MIDR_EL1.
    pub midr: u64,
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64PFR1_EL1.
    pub pfr1: u64,
    /// ID_AA64ISAR2_EL1.
    pub isar2: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
}

/// What is to be done, and how the CPU then stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How EL2 is entered.
    pub entry: Entry,
    /// To Spectre v2.
    pub v2: State,
    /// To branch history injection.
    pub history: State,
}

/// Whether a part of Arm's speculates too little for either attack: Cortex-A35, A53, A55, A510, A520.
const fn is_in_order(part: u64) -> bool {
    matches!(part, 0xd04 | 0xd03 | 0xd05 | 0xd46 | 0xd80)
}

/// Taken branches that fill a part's history. `None`: only the firmware can clear it, as on Cortex-A73 and A75.
const fn history_length(part: u64) -> Option<u32> {
    match part {
        // Cortex-A57, A72.
        0xd07 | 0xd08 => Some(8),
        // Cortex-A76, A76AE, A77, Neoverse N1.
        0xd0b..=0xd0e => Some(24),
        // Cortex-A78, A78AE, A78C, X1, X1C, A710, X2, Neoverse N2, V1.
        0xd41 | 0xd42 | 0xd4b | 0xd44 | 0xd4c | 0xd47 | 0xd48 | 0xd49 | 0xd40 => Some(32),
        // Cortex-A715, A720.
        0xd4d | 0xd81 => Some(38),
        // Cortex-X3, X4, Neoverse V2.
        0xd4e | 0xd82 | 0xd4f => Some(132),
        _ => None,
    }
}

/// How a CPU stands to Spectre v4 by what the firmware says, in the terms of [`decide`]. Where it can be switched (by the
/// workaround, by PSTATE.SSBS) that is the guest's to do, so only what needs no switch is `Unaffected`; with SSBS, the
/// firmware's 1 says no more than that SSBS is there.
pub fn store_bypass(cpu: &Identity, firmware: impl Fn(u32) -> Option<i32>) -> State {
    // ID_AA64PFR1_EL1.SSBS (DDI 0487, D19.2).
    let has_ssbs = cpu.pfr1 >> 4 & 0xf != 0;
    match firmware(WORKAROUND_2) {
        Some(NOT_REQUIRED) => State::Unaffected,
        Some(1) if !has_ssbs => State::Unaffected,
        _ => State::Vulnerable,
    }
}

/// Decides for one CPU. `firmware` tells what SMCCC_ARCH_FEATURES says of a workaround: `None` that it is not there, 0 that this
/// CPU needs it, 1 that it does not. Without `wanted` (`spec-ctrl=no`) nothing is done.
pub fn decide(cpu: &Identity, wanted: bool, firmware: impl Fn(u32) -> Option<i32>) -> Decision {
    const ARM: u64 = 0x41;
    let field = |register: u64, shift: u32| register >> shift & 0xf;
    let part = if field(cpu.midr, 24) | field(cpu.midr, 28) << 4 == ARM { cpu.midr >> 4 & 0xfff } else { 0 };
    // FEAT_CSV2, FEAT_CSV2_3, FEAT_ECBHB, FEAT_CLRBHB (DDI 0487, D19.2).
    let (csv2, ecbhb, clrbhb) = (field(cpu.pfr0, 56), field(cpu.mmfr1, 60), field(cpu.isar2, 28));
    let by_firmware = |function| match firmware(function) {
        Some(0) => State::Mitigated,
        Some(1..) => State::Unaffected,
        None | Some(_) => State::Vulnerable,
    };
    let v2 = if csv2 != 0 || is_in_order(part) { State::Unaffected } else { by_firmware(WORKAROUND_1) };
    let is_history_safe = is_in_order(part) || csv2 >= 3 || ecbhb != 0;
    let plain = |v2, history| Decision { entry: Entry::Plain, v2, history };
    let open = |state| if state == State::Unaffected { state } else { State::Vulnerable };
    if !wanted {
        let history = if is_history_safe { State::Unaffected } else { State::Vulnerable };
        return plain(open(v2), history);
    }
    match v2 {
        // With v2 open, nobody needs the history.
        State::Vulnerable => plain(v2, if is_history_safe { State::Unaffected } else { v2 }),
        // WORKAROUND_3 does what WORKAROUND_1 does; and to clear all predictions leaves the history nothing to choose from.
        State::Mitigated => {
            let function = if firmware(WORKAROUND_3) == Some(0) { WORKAROUND_3 } else { WORKAROUND_1 };
            Decision { entry: Entry::Firmware(function), v2, history: State::Mitigated }
        }
        State::Unaffected if is_history_safe => plain(v2, State::Unaffected),
        State::Unaffected => {
            let entry = match (clrbhb, history_length(part), by_firmware(WORKAROUND_3)) {
                (1.., ..) => Entry::ClearHistory,
                (0, Some(length), _) => Entry::Loop(length),
                (0, None, State::Mitigated) => Entry::Firmware(WORKAROUND_3),
                (0, None, state) => return plain(v2, state),
            };
            Decision { entry, v2, history: State::Mitigated }
        }
    }
}

static WORST: [AtomicU8; 3] = [const { AtomicU8::new(0) }; 3];

/// Counts a CPU's state, and that to store bypass, in what guests are told.
pub fn record(decision: &Decision, store_bypass: State) {
    for (worst, state) in WORST.iter().zip([decision.v2, decision.history, store_bypass]) {
        worst.fetch_max(state as u8, Ordering::Relaxed);
    }
}

/// What a guest is told of a workaround, as SMCCC_ARCH_FEATURES has it: 0 for one that it should call, 1 for one that it need
/// not, `None` for one that is not there. What it does, entering EL2 has done already. [`WORKAROUND_2`] is there for nobody to
/// call: `NOT_REQUIRED` (-2), or `None`.
pub fn for_guests(function: u32) -> Option<i64> {
    let worst = match function {
        WORKAROUND_1 => &WORST[0],
        WORKAROUND_3 => &WORST[1],
        WORKAROUND_2 => &WORST[2],
        _ => return None,
    };
    answer(function, worst.load(Ordering::Relaxed))
}

fn answer(function: u32, worst: u8) -> Option<i64> {
    match (function, worst) {
        (WORKAROUND_2, 0) => Some(NOT_REQUIRED.into()),
        (WORKAROUND_2, _) => None,
        (_, 0) => Some(1),
        (_, 1) => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Mitigated, Unaffected, Vulnerable};

    const CSV2: u64 = 1 << 56;

    fn cpu(part: u64, pfr0: u64) -> Identity {
        Identity { midr: 0x410f_0000 | part << 4, pfr0, ..Identity::default() }
    }

    fn decided(cpu: Identity, first: Option<i32>, third: Option<i32>) -> (Entry, State, State) {
        let firmware = |function| if function == WORKAROUND_1 { first } else { third };
        let Decision { entry, v2, history } = decide(&cpu, true, firmware);
        (entry, v2, history)
    }

    #[test]
    fn the_cpus_in_scope() {
        let (a53, a72, a73, a76) = (cpu(0xd03, 0), cpu(0xd08, 0), cpu(0xd09, 0), cpu(0xd0b, CSV2));
        assert_eq!(decided(a53, Some(0), Some(0)), (Entry::Plain, Unaffected, Unaffected));
        // A Raspberry Pi 4 without and with TF-A, old and new.
        assert_eq!(decided(a72, None, None), (Entry::Plain, Vulnerable, Vulnerable));
        assert_eq!(decided(a72, Some(0), None), (Entry::Firmware(WORKAROUND_1), Mitigated, Mitigated));
        assert_eq!(decided(a72, Some(0), Some(0)), (Entry::Firmware(WORKAROUND_3), Mitigated, Mitigated));
        assert_eq!(decided(cpu(0xd08, CSV2), None, None), (Entry::Loop(8), Unaffected, Mitigated));
        assert_eq!(decided(a73, Some(0), Some(0)), (Entry::Firmware(WORKAROUND_3), Mitigated, Mitigated));
        assert_eq!(decided(a76, None, None), (Entry::Loop(24), Unaffected, Mitigated));
        assert_eq!(decided(a76, None, Some(0)), (Entry::Loop(24), Unaffected, Mitigated));
        // Firmware that says "not on this CPU".
        assert_eq!(decided(a72, Some(1), Some(1)), (Entry::Loop(8), Unaffected, Mitigated));
    }

    #[test]
    fn store_bypass_is_no_matter_where_the_firmware_says_so_of_every_cpu() {
        let a72 = cpu(0xd08, 0);
        let a76 = Identity { pfr1: 2 << 4, ..cpu(0xd0b, CSV2) };
        let state =
            |cpu, says: Option<i32>| store_bypass(&cpu, |function| says.filter(|_| function == WORKAROUND_2));
        // TF-A that never lets an A72 do it, or does by call; firmware without it.
        assert_eq!(state(a72, Some(-2)), Unaffected);
        assert_eq!(state(a72, Some(1)), Unaffected);
        assert_eq!(state(a72, Some(0)), Vulnerable);
        assert_eq!(state(a72, None), Vulnerable);
        // What is not in the specification is not taken for good news.
        assert_eq!((state(a72, Some(2)), state(a72, Some(-3))), (Vulnerable, Vulnerable));
        // 1, for there is SSBS; -2 is of all CPUs whatever they have.
        assert_eq!(state(a76, Some(1)), Vulnerable);
        assert_eq!(state(a76, Some(-2)), Unaffected);
        let all =
            |cpus: [State; 2]| answer(WORKAROUND_2, cpus.into_iter().max().map_or(0, |worst| worst as u8));
        assert_eq!(all([Unaffected, Unaffected]), Some(-2));
        assert_eq!(all([Unaffected, Vulnerable]), None);
    }

    #[test]
    fn negative_answers_promise_nothing_of_the_others() {
        assert_eq!(decided(cpu(0xd08, 0), Some(-2), Some(-2)), (Entry::Plain, Vulnerable, Vulnerable));
    }

    #[test]
    fn what_the_architecture_offers() {
        let with = |isar2, mmfr1| Identity { isar2, mmfr1, ..cpu(0xd47, CSV2) };
        assert_eq!(decided(with(1 << 28, 0), None, None).0, Entry::ClearHistory);
        assert_eq!(decided(with(0, 1 << 60), None, None), (Entry::Plain, Unaffected, Unaffected));
        assert_eq!(decided(cpu(0xd47, 3 * CSV2), None, None), (Entry::Plain, Unaffected, Unaffected));
        // Somebody else's core, of which nothing is known but that the firmware helps, or does not.
        let other = Identity { midr: 0x610f_d080, pfr0: CSV2, ..Identity::default() };
        assert_eq!(decided(other, None, Some(0)).0, Entry::Firmware(WORKAROUND_3));
        assert_eq!(decided(other, None, None), (Entry::Plain, Unaffected, Vulnerable));
    }

    #[test]
    fn what_is_switched_off_is_open() {
        let decide = |cpu| decide(&cpu, false, |_| Some(0));
        let open = Decision { entry: Entry::Plain, v2: Vulnerable, history: Vulnerable };
        assert_eq!(decide(cpu(0xd08, 0)), open);
        assert_eq!(decide(cpu(0xd0b, CSV2)), Decision { v2: Unaffected, ..open });
        assert_eq!(
            decide(cpu(0xd03, 0)),
            Decision { entry: Entry::Plain, v2: Unaffected, history: Unaffected }
        );
    }
}
