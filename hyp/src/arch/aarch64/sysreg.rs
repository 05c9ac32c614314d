//! System registers by name: two macros over MRS and MSR, for every register this crate touches.
//!
//! `aarch64-cpu` types the common ones but lacks a third of what a hypervisor needs (CNTHP_CVAL_EL2, HSTR_EL2,
//! VPIDR_EL2, the ICC_* family, …), and marks writes `nomem`, so that the compiler may move stores across them.
//! These do not: a write is a compiler barrier.

/// Reads a system register: `read_sysreg!("esr_el2")`.
macro_rules! read_sysreg {
    ($name:literal) => {{
        let value: u64;
        #[allow(unused_unsafe)] // also used within other unsafe blocks
        // SAFETY: reading this register has no side effect that Rust code could observe.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack))
        };
        value
    }};
}

/// Writes a system register; `unsafe` where it stands, since what a write does depends on the register.
macro_rules! write_sysreg {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack))
    }};
}

/// Instruction barrier: what was written to system registers is in force for what follows.
#[inline(always)]
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("isb", options(nostack)) };
}

pub(crate) use {read_sysreg, write_sysreg};

/// HCR_EL2 bits (DDI 0487 D19.2.48).
pub mod hcr {
    /// Stage 2 translation on.
    pub const VM: u64 = 1 << 0;
    /// Set/way invalidation does clean and invalidate.
    pub const SWIO: u64 = 1 << 1;
    /// A walk of stage 1 tables in device memory faults.
    pub const PTW: u64 = 1 << 2;
    /// FIQs come to EL2.
    pub const FMO: u64 = 1 << 3;
    /// IRQs come to EL2, and virtual ones exist.
    pub const IMO: u64 = 1 << 4;
    /// SErrors come to EL2.
    pub const AMO: u64 = 1 << 5;
    /// A virtual SError is pending.
    pub const VSE: u64 = 1 << 8;
    /// EL1's TLB and cache maintenance is broadcast.
    pub const FB: u64 = 1 << 9;
    /// Barriers reach at least the inner shareable domain.
    pub const BSU_INNER: u64 = 1 << 10;
    /// WFI traps.
    pub const TWI: u64 = 1 << 13;
    /// Identification registers, group 3, trap.
    pub const TID3: u64 = 1 << 18;
    /// SMC traps.
    pub const TSC: u64 = 1 << 19;
    /// IMPLEMENTATION DEFINED functionality traps.
    pub const TIDCP: u64 = 1 << 20;
    /// Auxiliary control registers trap.
    pub const TACR: u64 = 1 << 21;
    /// EL1 is AArch64.
    pub const RW: u64 = 1 << 31;
    /// LORegion registers trap (FEAT_LOR).
    pub const TLOR: u64 = 1 << 35;
    /// Error record registers trap (FEAT_RAS).
    pub const TERR: u64 = 1 << 36;

    /// For every guest. Not TSW: a set/way operation really does what it says, on the CPU it runs on (SWIO makes an
    /// invalidation clean, too), which is what a guest that turns its caches off needs; see docs/hardware.md. Bits of
    /// features that must stay off are 0: API and APK (pointer authentication traps), ATA (tags), EnSCXT, FIEN, NV.
    pub const GUEST: u64 = VM
        | SWIO
        | PTW
        | FMO
        | IMO
        | AMO
        | FB
        | BSU_INNER
        | TWI
        | TID3
        | TSC
        | TIDCP
        | TACR
        | RW
        | TLOR
        | TERR;
}
