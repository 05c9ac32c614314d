//! Identification registers as guests see them: the CPU's, less what Nacelle does not virtualise.
//!
//! HCR_EL2.TID3 traps op0 3, op1 0, CRn 0, CRm 1 to 7. Every hidden field is cleared to its "not implemented" value,
//! and the feature itself traps or is off, so that what a guest reads is what it gets.

use super::irq;
use super::sysreg::read_sysreg;

const fn field(shift: u32) -> u64 {
    0xf << shift
}

const fn reg(crm: u64, op2: u64) -> u64 {
    3 << 20 | op2 << 17 | crm << 1
}

/// The value of a register of the ID space; unallocated ones read as zero (DDI 0487 D19.1.2). `None`: not of it.
pub fn read(register: u64) -> Option<u64> {
    // op0 3, op1 0, CRn 0, CRm 1..=7.
    if register & !(7 << 17 | 0xf << 1) != 3 << 20 || !(1..=7).contains(&(register >> 1 & 0xf)) {
        return None;
    }
    Some(match register {
        // AArch32 at EL0 is the guest's to use; its descriptions are the CPU's.
        r if r == reg(1, 0) => read_sysreg!("id_pfr0_el1") & !field(28),
        // No virtualisation, security extension or GIC system registers for AArch32 EL1, which does not exist.
        r if r == reg(1, 1) => read_sysreg!("id_pfr1_el1") & !(field(4) | field(12) | field(28)),
        // CopDbg, CopSDbg, MMapDbg, PerfMon and trace are not virtualised.
        r if r == reg(1, 2) => 0,
        r if r == reg(1, 3) => 0,
        r if r == reg(1, 4) => read_sysreg!("id_mmfr0_el1"),
        r if r == reg(1, 5) => read_sysreg!("id_mmfr1_el1"),
        r if r == reg(1, 6) => read_sysreg!("id_mmfr2_el1"),
        r if r == reg(1, 7) => read_sysreg!("id_mmfr3_el1"),
        r if r == reg(2, 0) => read_sysreg!("id_isar0_el1"),
        r if r == reg(2, 1) => read_sysreg!("id_isar1_el1"),
        r if r == reg(2, 2) => read_sysreg!("id_isar2_el1"),
        r if r == reg(2, 3) => read_sysreg!("id_isar3_el1"),
        r if r == reg(2, 4) => read_sysreg!("id_isar4_el1"),
        r if r == reg(2, 5) => read_sysreg!("id_isar5_el1"),
        r if r == reg(2, 6) => read_sysreg!("id_mmfr4_el1"),
        r if r == reg(2, 7) => read_sysreg!("s3_0_c0_c2_7"),
        r if r == reg(3, 0) => read_sysreg!("mvfr0_el1"),
        r if r == reg(3, 1) => read_sysreg!("mvfr1_el1"),
        r if r == reg(3, 2) => read_sysreg!("mvfr2_el1"),
        r if r == reg(3, 4) => read_sysreg!("s3_0_c0_c3_4") & !field(8),
        r if r == reg(4, 0) => pfr0(read_sysreg!("id_aa64pfr0_el1")),
        // CSV2_frac at most "1p1" (see `at_most`). BT and SSBS stay; MTE 11:8, RAS_frac 15:12, MPAM_frac 19:16, SME 27:24, NMI 39:36, MTE_frac 43:40,
        // GCS 47:44, THE 51:48, MTEX 55:52, DF2 59:56, PFAR 63:60 go, RNDR_trap 31:28 stays.
        r if r == reg(4, 1) => {
            let kept = read_sysreg!("id_aa64pfr1_el1") & (field(0) | field(4) | field(28) | field(32));
            at_most(kept, 32, 1)
        }
        // SVE and SME feature registers: neither exists here.
        r if r == reg(4, 4) || r == reg(4, 5) => 0,
        // Debug architecture and the least numbers of breakpoints and watchpoints that may be (2 each: the fields hold
        // one less); no PMU, SPE, trace, MTPMU, BRBE.
        r if r == reg(5, 0) => read_sysreg!("id_aa64dfr0_el1") & field(0) | 1 << 12 | 1 << 20,
        r if r == reg(5, 1) => 0,
        r if r == reg(5, 4) || r == reg(5, 5) => 0,
        // TME 27:24 goes (it needs EL2's consent), TLB range and the rest stay.
        r if r == reg(6, 0) => read_sysreg!("id_aa64isar0_el1") & !field(24),
        // Pointer authentication (APA 7:4, API 11:8, GPA 27:24, GPI 31:28) needs keys to be switched; LS64 63:60 and
        // XS 59:56 need HCRX_EL2.
        r if r == reg(6, 1) => {
            read_sysreg!("id_aa64isar1_el1")
                & !(field(4) | field(8) | field(24) | field(28) | field(56) | field(60))
        }
        // WFxT 3:0 traps as WFx but with another meaning, GPA3 11:8, APA3 15:12, MOPS 19:16, PAC_frac 27:24,
        // CLRBHB 31:28 stays, SYSREG_128 35:32 and 43:40 and above go.
        r if r == reg(6, 2) => {
            read_sysreg!("s3_0_c0_c6_2") & (field(4) | field(20) | field(28) | field(48) | field(52))
        }
        // TGran*_2 describe stage 2, which guests do not have (43:32); FGT 59:56, ECV 63:60, ExS 47:44 go; PARange is
        // the width of the guest's physical space: the same.
        r if r == reg(7, 0) => read_sysreg!("id_aa64mmfr0_el1") & 0x0000_0000_ffff_ffff,
        // VH 11:8, VMIDBits 7:4, LO 19:16 (its regions name physical addresses; HCR_EL2.TLOR), HCX 43:40, TWED 35:32, nTLBPA 51:48 is information, ECBHB 63:60 stays, TIDCP1 55:52 and
        // CMOW 59:56 go with HCRX_EL2.
        r if r == reg(7, 1) => {
            read_sysreg!("id_aa64mmfr1_el1")
                & !(field(4) | field(8) | field(16) | field(32) | field(40) | field(52) | field(56))
        }
        // IESB 15:12 goes with RAS; NV 27:24, FWB 43:40, BBM 55:52 is for stage 1 too and stays, EVT 59:56.
        r if r == reg(7, 2) => {
            read_sysreg!("id_aa64mmfr2_el1") & !(field(12) | field(24) | field(40) | field(56))
        }
        // TCRX, SCTLRX, S1PIE, S1POE, … need HCRX_EL2's consent: none.
        _ => 0,
    })
}

/// EL0 as it is; EL1 AArch64 only; EL2 and EL3 absent; no RAS 31:28, SVE 35:32, SEL2 39:36, MPAM 43:40, AMU 47:44,
/// RME 55:52. FP 19:16, AdvSIMD 23:20, DIT 51:48, CSV3 63:60 stay, CSV2 59:56 up to 1; GIC 27:24 where the guest's GIC has
/// system registers.
fn pfr0(host: u64) -> u64 {
    let mut keep = field(0) | field(16) | field(20) | field(48) | field(56) | field(60);
    if irq::version() == gic::Version::V3 {
        keep |= field(24);
    }
    at_most(host & keep | 1 << 4, 56, 1)
}

/// The register with the field at `shift` no more than `limit`. For CSV2 and CSV2_frac: what is above says that the SCXTNUM
/// registers exist, which would have to be switched (HCR_EL2.EnSCXT).
fn at_most(register: u64, shift: u32, limit: u64) -> u64 {
    let value = (register >> shift & 0xf).min(limit);
    register & !field(shift) | value << shift
}
