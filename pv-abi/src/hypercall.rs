//! Hypercall numbers and the calling convention (public headers `xen.h` and `arch-arm.h`).
//!
//! ```text
//! hvc #0xEA1     x16 number    x0–x4 arguments    x0 result: negative is an errno
//! ```
//! A hypercall may overwrite its argument registers and x16; every other register comes back as it was.

use crate::UnknownValue;

/// The immediate of the `hvc` instruction that makes it a hypercall, as the syndrome shows it (`XEN_HYPERCALL_TAG`).
pub const HYPERVISOR_ISS: u16 = 0xEA1;

/// How many arguments a hypercall can have, in x0 and up.
pub const MAX_ARGUMENTS: usize = 5;

number_enum! {
    /// A hypercall, by the number in x16.
    ///
    /// Those that manage x86 page tables, segments and traps keep their names, for the log; Arm answers them with
    /// `ENOSYS`.
    pub enum Hypercall {
        /// x86 only.
        SetTrapTable = 0,
        /// x86 only.
        MmuUpdate = 1,
        /// x86 only.
        SetGdt = 2,
        /// x86 only.
        StackSwitch = 3,
        /// x86 only.
        SetCallbacks = 4,
        /// x86 only.
        FpuTaskswitch = 5,
        /// `sched_op` as it was before Xen 3.1.1.
        SchedOpCompat = 6,
        /// What dom0's kernel asks of the machine: [`crate::platform`].
        PlatformOp = 7,
        /// x86 only.
        SetDebugreg = 8,
        /// x86 only.
        GetDebugreg = 9,
        /// x86 only.
        UpdateDescriptor = 10,
        /// Memory of domains: [`crate::memory`].
        MemoryOp = 12,
        /// A list of hypercalls: [`crate::xen::MulticallEntry`].
        Multicall = 13,
        /// x86 only.
        UpdateVaMapping = 14,
        /// One-shot timer, x86 only.
        SetTimerOp = 15,
        /// `event_channel_op` as it was before Xen 3.2.2.
        EventChannelOpCompat = 16,
        /// Who the hypervisor is: [`crate::version`].
        XenVersion = 17,
        /// The hypervisor's console: [`crate::xen::ConsoleIo`].
        ConsoleIo = 18,
        /// `physdev_op` as it was before Xen 3.2.2.
        PhysdevOpCompat = 19,
        /// Shared memory between domains: [`crate::grant_table`].
        GrantTableOp = 20,
        /// Behaviours that a guest turns on: [`crate::vm_assist`].
        VmAssist = 21,
        /// x86 only.
        UpdateVaMappingOtherdomain = 22,
        /// x86 only.
        Iret = 23,
        /// Virtual CPUs: [`crate::vcpu`].
        VcpuOp = 24,
        /// x86 only.
        SetSegmentBase = 25,
        /// x86 only.
        MmuextOp = 26,
        /// Security modules (FLASK).
        XsmOp = 27,
        /// x86 only.
        NmiOp = 28,
        /// Yield, block, poll, shut down: [`crate::sched`].
        SchedOp = 29,
        /// x86 only.
        CallbackOp = 30,
        /// Profiler.
        XenoprofOp = 31,
        /// Event channels: [`crate::event_channel`].
        EventChannelOp = 32,
        /// Physical devices: [`crate::physdev`].
        PhysdevOp = 33,
        /// Parameters of a domain: [`crate::hvm`].
        HvmOp = 34,
        /// What the toolstack asks of the host: [`crate::sysctl`].
        Sysctl = 35,
        /// What the toolstack does to a domain: [`crate::domctl`].
        Domctl = 36,
        /// Crash kernels.
        KexecOp = 37,
        /// Transcendent memory, removed from Xen.
        TmemOp = 38,
        /// Argo message rings.
        ArgoOp = 39,
        /// Performance counters.
        XenpmuOp = 40,
        /// Device models.
        DmOp = 41,
        /// The hypervisor's file system of settings.
        HypfsOp = 42,
        /// Left to the architecture.
        Arch0 = 48,
        /// Left to the architecture.
        Arch1 = 49,
        /// Left to the architecture.
        Arch2 = 50,
        /// Left to the architecture.
        Arch3 = 51,
        /// Left to the architecture.
        Arch4 = 52,
        /// Left to the architecture.
        Arch5 = 53,
        /// Left to the architecture.
        Arch6 = 54,
        /// Left to the architecture.
        Arch7 = 55,
    }
}

/// From the whole of x16, so that a number is not mistaken for another by its low half.
impl TryFrom<u64> for Hypercall {
    type Error = UnknownValue;

    fn try_from(x16: u64) -> Result<Self, Self::Error> {
        u32::try_from(x16).map_err(|_| UnknownValue(u32::MAX)).and_then(Self::try_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_and_its_name_round_trip(x16 in prop_oneof![0u64..64, any::<u64>()]) {
            match Hypercall::try_from(x16) {
                Ok(call) => prop_assert_eq!(u64::from(call.raw()), x16),
                Err(_) => prop_assert!(!Hypercall::ALL.iter().any(|call| u64::from(call.raw()) == x16)),
            }
        }
    }

    #[test]
    fn the_high_half_of_x16_counts() {
        assert_eq!(Hypercall::try_from(17u64), Ok(Hypercall::XenVersion));
        assert!(Hypercall::try_from((1u64 << 32) | 17).is_err());
    }
}
