//! PSCI and the SMC Calling Convention, by `hvc #0`.

use payloads::boot;
use payloads::machine::Machine;
use payloads::psci::{call as smccc, function};
use payloads::report::Test;
use payloads::{expect, expect_eq, tests};

pub const TESTS: [Test; 4] = tests![versions, features, workarounds, processors];

const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;

/// A call that starts and stops nothing.
fn ask(function: u64, a1: u64, a2: u64) -> i64 {
    // SAFETY: used with functions that only answer, or with targets that exist not or are on.
    unsafe { smccc(function, a1, a2, 0) }
}

fn versions(_: &Machine<'static>) {
    expect_eq!(ask(function::VERSION, 0, 0), 1 << 16 | 1);
    expect_eq!(ask(function::SMCCC_VERSION, 0, 0), 1 << 16 | 1);
    // Not there: a Trusted OS that would have to migrate.
    expect_eq!(ask(function::MIGRATE_INFO_TYPE, 0, 0), 2);
    // An owner nobody answers for.
    expect_eq!(ask(0x8700_0000, 0, 0), NOT_SUPPORTED);
    expect_eq!(ask(0x8400_00ee, 0, 0) as i32, NOT_SUPPORTED as i32);
}

fn features(_: &Machine<'static>) {
    for supported in
        [0x8400_0000_u64, 0x8400_0002, 0xc400_0003, 0xc400_0004, 0x8400_0008, 0x8400_0009, 0x8400_000a]
    {
        expect_eq!((supported, ask(function::FEATURES, supported, 0)), (supported, 0));
    }
    expect_eq!(ask(function::FEATURES, 0x8000_0000, 0), 0);
    expect_eq!(ask(function::FEATURES, 0x8400_00ee, 0) as i32, NOT_SUPPORTED as i32);
}

/// A workaround that is there, needed or not, can be called; what it does is not to be seen.
fn workarounds(_: &Machine<'static>) {
    for workaround in [0x8000_8000_u64, 0x8000_3fff] {
        let answer = ask(0x8000_0001, workaround, 0) as i32;
        expect!((-1..=1).contains(&answer), "SMCCC_ARCH_FEATURES of {workaround:#x}: {answer}");
        if answer >= 0 {
            expect_eq!(ask(workaround, 0, 0) as i32, 0);
        }
    }
    // Spectre v4: not there, to be called (on Xen), or not required.
    let answer = ask(0x8000_0001, 0x8000_7fff, 0) as i32;
    expect!((-2..=0).contains(&answer), "SMCCC_ARCH_FEATURES of the second: {answer}");
}

fn processors(_: &Machine<'static>) {
    expect_eq!(ask(function::AFFINITY_INFO, 0, 0), 0);
    // A processor that does not exist is off for Xen, an invalid parameter for the specification (DEN 0022, 5.7).
    let absent = ask(function::AFFINITY_INFO, 0x7f, 0) as i32;
    expect!(absent == 1 || absent == INVALID_PARAMETERS as i32, "AFFINITY_INFO of nobody: {absent}");
    // With an entry that would be good: which of two wrong arguments is named is nobody's promise.
    let entry = boot::secondary_entry_address();
    expect_eq!(ask(function::CPU_ON, 0, entry) as i32, ALREADY_ON as i32);
    expect_eq!(ask(function::CPU_ON, 0x7f, entry) as i32, INVALID_PARAMETERS as i32);
}
