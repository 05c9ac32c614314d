//! PSCI 1.1 and the SMCCC calls that a guest may make (DEN 0022F, DEN 0028F): its CPUs, its own power.

use core::sync::atomic::Ordering;

use pv_abi::sched::ShutdownReason;

use crate::arch;
use crate::console::GUEST;
use crate::discovery::Mpidr;
use crate::domain::{self, Domain};
use crate::hypercall::Caller;
use crate::sched;
use crate::speculation::{self, WORKAROUND_1, WORKAROUND_3};
use crate::vcpu::Vcpu;

/// What becomes of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The value goes to x0.
    Return(u64),
    /// x0 = 0 (success), once the vCPU wakes.
    Sleep,
    /// It does not come back.
    Gone,
}

const SMCCC_VERSION: u32 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
const VERSION: u32 = 0x8400_0000;
const CPU_SUSPEND: u32 = 0x8400_0001;
const CPU_OFF: u32 = 0x8400_0002;
const CPU_ON: u32 = 0x8400_0003;
const AFFINITY_INFO: u32 = 0x8400_0004;
const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
const SYSTEM_OFF: u32 = 0x8400_0008;
const SYSTEM_RESET: u32 = 0x8400_0009;
const FEATURES: u32 = 0x8400_000a;
/// The 64-bit forms differ in this bit.
const SMC64: u32 = 1 << 30;

const SUCCESS: i64 = 0;
const NOT_SUPPORTED: i64 = -1;
const INVALID_PARAMETERS: i64 = -2;
const ALREADY_ON: i64 = -4;
const INVALID_ADDRESS: i64 = -9;
/// No trusted OS that would have to move (DEN 0022F 5.9).
const MIGRATE_NOT_NEEDED: i64 = 2;
const PSCI_1_1: i64 = 1 << 16 | 1;
const SMCCC_1_1: i64 = 1 << 16 | 1;

/// The affinity of a domain's vCPU: 16 to a cluster, since a GICv3 SGI's target list names 16 (IHI 0069H 12.2.19).
pub const fn affinity_of(vcpu: u32) -> u64 {
    (vcpu % 16) as u64 | ((vcpu / 16) as u64) << 8
}

fn find(domain: &Domain, affinity: u64) -> Option<&alloc::sync::Arc<Vcpu>> {
    if affinity & !Mpidr::AFFINITY != 0 {
        return None;
    }
    domain.vcpus().iter().find(|v| affinity_of(v.id.get()) == affinity)
}

fn cpu_on(caller: &Caller<'_>, target: u64, entry: u64, context: u64) -> i64 {
    let Some(vcpu) = find(caller.domain, target) else { return INVALID_PARAMETERS };
    let (p2m, gfn) = (&caller.domain.p2m, stage2::Ipa::new(entry).gfn());
    if entry & 3 != 0 || !(p2m.allows_execution(gfn) || p2m.is_on_demand(gfn)) {
        return INVALID_ADDRESS;
    }
    if vcpu.is_up.swap(true, Ordering::AcqRel) {
        return ALREADY_ON;
    }
    // It is down and, since the flag falls last, unloaded; nobody else starts it while the flag is set.
    arch::start_vcpu(vcpu, entry, context);
    vcpu.is_initialised.store(true, Ordering::Release);
    sched::start(vcpu);
    SUCCESS
}

fn affinity_info(caller: &Caller<'_>, target: u64, lowest_level: u64) -> i64 {
    if lowest_level > 3 {
        return INVALID_PARAMETERS;
    }
    // Affinity fields below the level do not count (DEN 0022F 5.7.2).
    let ignored = match lowest_level {
        0 => 0,
        1 => 0xff,
        2 => 0xffff,
        _ => 0xff_ffff,
    };
    let mut matching = caller
        .domain
        .vcpus()
        .iter()
        .filter(|v| (affinity_of(v.id.get()) ^ target) & Mpidr::AFFINITY & !ignored == 0);
    let mut found = false;
    if matching.any(|v| {
        found = true;
        v.is_up.load(Ordering::Acquire)
    }) {
        return 0;
    }
    if found { 1 } else { INVALID_PARAMETERS }
}

fn is_supported(function: u32) -> bool {
    matches!(
        function,
        VERSION | CPU_OFF | MIGRATE_INFO_TYPE | SYSTEM_OFF | SYSTEM_RESET | FEATURES | SMCCC_VERSION
    ) || matches!(function & !SMC64, CPU_SUSPEND | CPU_ON | AFFINITY_INFO)
}

/// One call: `args[0]` is the function.
pub fn call(caller: &Caller<'_>, args: [u64; 4]) -> Answer {
    let function = args[0] as u32;
    // The 32-bit forms take 32-bit arguments (DEN 0028F 3.1).
    let wide = |value: u64| if function & SMC64 != 0 { value } else { value & 0xffff_ffff };
    let result = match function {
        SMCCC_VERSION => SMCCC_1_1,
        SMCCC_ARCH_FEATURES => match args[1] as u32 {
            SMCCC_VERSION | SMCCC_ARCH_FEATURES => SUCCESS,
            other => speculation::for_guests(other).unwrap_or(NOT_SUPPORTED),
        },
        // Entering EL2 was the work-around, where there is one.
        WORKAROUND_1 | WORKAROUND_3 => speculation::for_guests(function).map_or(NOT_SUPPORTED, |_| SUCCESS),
        VERSION => PSCI_1_1,
        FEATURES => {
            if is_supported(args[1] as u32) {
                SUCCESS
            } else {
                NOT_SUPPORTED
            }
        }
        MIGRATE_INFO_TYPE => MIGRATE_NOT_NEEDED,
        CPU_OFF => {
            // The run loop saves its registers, and only then is it down for CPU_ON and AFFINITY_INFO.
            sched::stop(caller.vcpu);
            return Answer::Gone;
        }
        SYSTEM_OFF => {
            domain::shut_down(caller.domain, ShutdownReason::Poweroff);
            return Answer::Gone;
        }
        SYSTEM_RESET => {
            domain::shut_down(caller.domain, ShutdownReason::Reboot);
            return Answer::Gone;
        }
        f if f & !SMC64 == CPU_SUSPEND => return Answer::Sleep,
        f if f & !SMC64 == CPU_ON => cpu_on(caller, wide(args[1]), wide(args[2]), wide(args[3])),
        f if f & !SMC64 == AFFINITY_INFO => affinity_info(caller, wide(args[1]), wide(args[2])),
        // Every other SMCCC function: the guest has no firmware (DEN 0028F 5.2).
        _ => {
            log::debug!(target: GUEST, "{} v{}: SMCCC call {function:#010x} is not offered",
                caller.domain.id, caller.vcpu.id.get());
            NOT_SUPPORTED
        }
    };
    Answer::Return(result as u64)
}
