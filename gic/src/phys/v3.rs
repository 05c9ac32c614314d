//! The physical GICv3: GICD, one redistributor per CPU, and the ICC and ICH system registers (IHI 0069H).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use arm_gic_driver::VirtAddr;
use arm_gic_driver::v3::Gic;

use super::registers::{Registers, dsb_ishst, dsb_sy, isb};
use super::{CpuTarget, GicError, PRIORITY};
use crate::{CpuInterfaceState, IntId};

/// Reads a system register by its encoding.
macro_rules! mrs {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reading an identification or GIC system register changes no memory; `init_cpu` checks that the
        // latter exist before it uses the first.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack, preserves_flags))
        };
        value
    }};
}

/// Writes a system register by its encoding.
macro_rules! msr {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: a GIC system register: what it does reaches Rust only as interrupts, which EL2 keeps masked.
        unsafe {
            core::arch::asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nostack, preserves_flags))
        };
    }};
}

const HCR_EN: u64 = 1 << 0;
const HCR_NPIE: u64 = 1 << 3;

mod gicd {
    pub const CTLR: usize = 0x0000;
    pub const IROUTER: usize = 0x6000;
    pub const PIDR2: usize = 0xffe8;
    pub const CTLR_RWP: u32 = 1 << 31;
    /// EnableGrp0 or EnableGrp1; EnableGrp1 or EnableGrp1A; EnableGrp1S, in the three views of the register.
    pub const CTLR_ENABLES: u32 = 7;
}

mod gicr {
    pub const CTLR: usize = 0x0000;
    pub const TYPER: usize = 0x0008;
    pub const WAKER: usize = 0x0014;
    pub const CTLR_RWP: u32 = 1 << 3;
    pub const TYPER_VLPIS: u64 = 1 << 1;
    pub const TYPER_LAST: u64 = 1 << 4;
    pub const WAKER_SLEEP: u32 = 1 << 1;
    pub const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
    /// RD_base and SGI_base.
    pub const FRAMES: usize = 0x2_0000;
    /// With virtual LPIs: VLPI_base and a reserved frame, too.
    pub const FRAMES_VLPIS: usize = 0x4_0000;
    pub const SGI_BASE: usize = 0x1_0000;
    pub const IGROUPR0: usize = 0x0080;
    pub const ISENABLER0: usize = 0x0100;
    pub const ICENABLER0: usize = 0x0180;
    pub const ICPENDR0: usize = 0x0280;
    pub const ICACTIVER0: usize = 0x0380;
    pub const IGRPMODR0: usize = 0x0d00;
}

/// How often a handshake is looked at before the GIC counts as dead: seconds on any machine.
const PATIENCE: u32 = 10_000_000;

fn wait_until(done: impl Fn() -> bool) -> Result<(), GicError> {
    for _ in 0..PATIENCE {
        if done() {
            return Ok(());
        }
        core::hint::spin_loop();
    }
    Err(GicError::Timeout)
}

/// Affinity as GICD_IROUTER and MPIDR_EL1 hold it: Aff3 39:32, Aff2 23:16, Aff1 15:8, Aff0 7:0.
const AFFINITY: u64 = 0xff_00ff_ffff;

fn own_affinity() -> u64 {
    mrs!("mpidr_el1") & AFFINITY
}

struct Redistributor {
    affinity: u64,
    rd: Registers,
    sgi: Registers,
}

/// A GICv3 or GICv4 (whose virtual LPIs stay unused).
pub struct GicV3 {
    pub(super) distributor: Registers,
    redistributors: Vec<Redistributor>,
    list_registers: AtomicU32,
}

impl GicV3 {
    /// See [`super::PhysGic::v3`].
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn new(gicd: usize, regions: &[(usize, usize)]) -> Result<Self, GicError> {
        // SAFETY: the caller promises a mapped distributor of 64 KiB.
        let distributor = unsafe { Registers::new(gicd) }.ok_or(GicError::NotAGic)?;
        if !matches!(distributor.read(gicd::PIDR2) >> 4 & 0xf, 3 | 4) {
            return Err(GicError::NotAGic);
        }
        let mut redistributors = Vec::new();
        for &(base, size) in regions {
            // SAFETY: the caller promises a mapped redistributor region of that size.
            unsafe { find_redistributors(base, size, &mut redistributors)? };
        }
        let first = redistributors.first().ok_or(GicError::NoRedistributor)?;
        let gic = Self { distributor, list_registers: AtomicU32::new(16), redistributors: Vec::new() };
        // The driver panics when the distributor does not settle: let it settle first, with an error if it does not.
        distributor.write(gicd::CTLR, distributor.read(gicd::CTLR) & !gicd::CTLR_ENABLES);
        gic.wait_for_distributor()?;
        // SAFETY: the caller promises the distributor; the second frame is one of the redistributors just found. The
        // driver's walk over them, with a stride of its own, is not used: only its distributor set-up is.
        let mut driver = unsafe { Gic::new(VirtAddr::new(gicd), VirtAddr::new(first.rd.address())) };
        driver.init();
        // The driver routes SPIs while affinity routing may be off, when GICD_IROUTER ignores it (IHI 0069H, 12.9.22).
        for intid in (32..distributor.limit()).filter_map(IntId::new) {
            gic.route(intid, own_affinity());
            distributor.set_priority(intid, PRIORITY);
        }
        Ok(Self { redistributors, ..gic })
    }

    fn wait_for_distributor(&self) -> Result<(), GicError> {
        wait_until(|| self.distributor.read(gicd::CTLR) & gicd::CTLR_RWP == 0)
    }

    fn own_redistributor(&self) -> Option<&Redistributor> {
        let affinity = own_affinity();
        self.redistributors.iter().find(|redistributor| redistributor.affinity == affinity)
    }

    pub(super) fn init_cpu(&self) -> Result<CpuTarget, GicError> {
        // ID_AA64PFR0_EL1.GIC 27:24: without it the registers are UNDEFINED (DDI 0487, D19.2.69).
        if mrs!("id_aa64pfr0_el1") >> 24 & 0xf == 0 {
            return Err(GicError::NoSystemRegisters);
        }
        // ICC_SRE_EL2: SRE, DFB, DIB, Enable (EL1 reaches ICC_SRE_EL1). Must be in force before the others are used.
        msr!("s3_4_c12_c9_5", mrs!("s3_4_c12_c9_5") | 0xf);
        isb();
        if mrs!("s3_4_c12_c9_5") & 1 == 0 {
            return Err(GicError::NoSystemRegisters);
        }
        let own = self.own_redistributor().ok_or(GicError::NoRedistributor)?;
        own.rd.write(gicr::WAKER, own.rd.read(gicr::WAKER) & !gicr::WAKER_SLEEP);
        wait_until(|| own.rd.read(gicr::WAKER) & gicr::WAKER_CHILDREN_ASLEEP == 0)?;
        own.sgi.write(gicr::ICENABLER0, u32::MAX);
        wait_until(|| own.rd.read(gicr::CTLR) & gicr::CTLR_RWP == 0)?;
        own.sgi.write(gicr::ICPENDR0, u32::MAX);
        own.sgi.write(gicr::ICACTIVER0, u32::MAX);
        own.sgi.write(gicr::IGROUPR0, u32::MAX);
        own.sgi.write(gicr::IGRPMODR0, 0);
        for intid in (0..32).filter_map(IntId::new) {
            own.sgi.set_priority(intid, PRIORITY);
        }
        own.sgi.write(gicr::ISENABLER0, 0xffff);
        // ICC_PMR_EL1: everything; ICC_BPR1_EL1: as fine as there is; ICC_CTLR_EL1: EOImode 1, own binary point.
        msr!("s3_0_c4_c6_0", 0xff);
        msr!("s3_0_c12_c12_3", 0);
        msr!("s3_0_c12_c12_4", mrs!("s3_0_c12_c12_4") & !1 | 2);
        msr!("s3_0_c12_c12_7", 1);
        // ICC_SRE_EL1 of the guest.
        msr!("s3_0_c12_c12_5", 7);
        isb();
        // ICH_VTR_EL2.ListRegs 4:0. CPUs may differ; the fewest count.
        let list_registers = (mrs!("s3_4_c12_c11_1") & 0x1f) as u32 + 1;
        self.list_registers.fetch_min(list_registers.min(16), Ordering::Relaxed);
        msr!("s3_4_c12_c11_0", 0);
        for index in 0..list_registers.min(16) {
            self.write_lr(index as usize, 0);
        }
        self.restore_interface(&CpuInterfaceState::default());
        isb();
        Ok(CpuTarget(own.affinity))
    }

    #[inline(always)]
    pub(super) fn list_register_count(&self) -> usize {
        self.list_registers.load(Ordering::Relaxed) as usize
    }

    #[inline]
    pub(super) fn acknowledge(&self) -> u32 {
        let raw = mrs!("s3_0_c12_c12_0") as u32;
        // The acknowledge must be seen by the GIC before what the handler does (IHI 0069H, 4.1.1).
        dsb_sy();
        raw
    }

    #[inline]
    pub(super) fn end(&self, raw: u32) {
        msr!("s3_0_c12_c12_1", raw.into());
        isb();
    }

    #[inline]
    pub(super) fn deactivate(&self, raw: u32) {
        msr!("s3_0_c12_c11_1", raw.into());
        isb();
    }

    /// The frame that holds the interrupt's registers: the distributor, or this CPU's redistributor.
    #[inline]
    pub(super) fn bank(&self, intid: IntId) -> Registers {
        match self.own_redistributor() {
            Some(own) if intid.is_private() => own.sgi,
            // With affinity routing the distributor ignores private interrupts.
            _ => self.distributor,
        }
    }

    /// Waits for a disable to be in force.
    pub(super) fn wait(&self, intid: IntId) {
        // A GIC that never answers would have failed `init_cpu`; going on is the best there is.
        let _ = match self.own_redistributor() {
            Some(own) if intid.is_private() => wait_until(|| own.rd.read(gicr::CTLR) & gicr::CTLR_RWP == 0),
            _ => self.wait_for_distributor(),
        };
    }

    pub(super) fn route(&self, intid: IntId, target: u64) {
        self.distributor.write_u64(gicd::IROUTER + intid.get() as usize * 8, target);
    }

    /// ICC_SGI1R_EL1: Aff3 55:48, RS 47:44, Aff2 39:32, INTID 27:24, Aff1 23:16, target list 15:0.
    #[inline]
    pub(super) fn send_sgi(&self, target: u64, intid: IntId) {
        // The receiver must see what was written before the SGI (IHI 0069H leaves that order to software).
        dsb_ishst();
        let value = (target >> 32 & 0xff) << 48
            | (target >> 4 & 0xf) << 44
            | (target >> 16 & 0xff) << 32
            | u64::from(intid.get()) << 24
            | (target >> 8 & 0xff) << 16
            | 1 << (target & 0xf);
        msr!("s3_0_c12_c11_5", value);
        isb();
    }

    #[inline]
    pub(super) fn enable_virtual(&self, on: bool) {
        msr!("s3_4_c12_c11_0", if on { HCR_EN } else { 0 });
    }

    /// How many active-priority registers of each group there are: ICH_VTR_EL2.PREbits 28:26.
    fn active_priority_registers() -> usize {
        match mrs!("s3_4_c12_c11_1") >> 26 & 7 {
            6 => 4,
            5 => 2,
            _ => 1,
        }
    }

    pub(super) fn save_interface(&self, state: &mut CpuInterfaceState) {
        state.vmcr = mrs!("s3_4_c12_c11_7") as u32;
        let [a0, a1, a2, a3, b0, b1, b2, b3] = &mut state.active_priorities;
        *a0 = mrs!("s3_4_c12_c8_0") as u32;
        *b0 = mrs!("s3_4_c12_c9_0") as u32;
        let registers = Self::active_priority_registers();
        if registers > 1 {
            *a1 = mrs!("s3_4_c12_c8_1") as u32;
            *b1 = mrs!("s3_4_c12_c9_1") as u32;
        }
        if registers > 2 {
            *a2 = mrs!("s3_4_c12_c8_2") as u32;
            *a3 = mrs!("s3_4_c12_c8_3") as u32;
            *b2 = mrs!("s3_4_c12_c9_2") as u32;
            *b3 = mrs!("s3_4_c12_c9_3") as u32;
        }
    }

    pub(super) fn restore_interface(&self, state: &CpuInterfaceState) {
        // Another guest may have turned its system-register interface off, where the hardware allows that; ICH_VMCR_EL2
        // means something else then (IHI 0069H, 12.4.8).
        if mrs!("s3_0_c12_c12_5") & 7 != 7 {
            msr!("s3_0_c12_c12_5", 7);
            isb();
        }
        msr!("s3_4_c12_c11_7", state.vmcr.into());
        let [a0, a1, a2, a3, b0, b1, b2, b3] = state.active_priorities;
        msr!("s3_4_c12_c8_0", a0.into());
        msr!("s3_4_c12_c9_0", b0.into());
        let registers = Self::active_priority_registers();
        if registers > 1 {
            msr!("s3_4_c12_c8_1", a1.into());
            msr!("s3_4_c12_c9_1", b1.into());
        }
        if registers > 2 {
            msr!("s3_4_c12_c8_2", a2.into());
            msr!("s3_4_c12_c8_3", a3.into());
            msr!("s3_4_c12_c9_2", b2.into());
            msr!("s3_4_c12_c9_3", b3.into());
        }
    }

    pub(super) fn maintenance_status(&self) -> u32 {
        mrs!("s3_4_c12_c11_2") as u32
    }

    #[inline]
    pub(super) fn read_lr(&self, index: usize) -> u64 {
        match index & 0xf {
            0 => mrs!("s3_4_c12_c12_0"),
            1 => mrs!("s3_4_c12_c12_1"),
            2 => mrs!("s3_4_c12_c12_2"),
            3 => mrs!("s3_4_c12_c12_3"),
            4 => mrs!("s3_4_c12_c12_4"),
            5 => mrs!("s3_4_c12_c12_5"),
            6 => mrs!("s3_4_c12_c12_6"),
            7 => mrs!("s3_4_c12_c12_7"),
            8 => mrs!("s3_4_c12_c13_0"),
            9 => mrs!("s3_4_c12_c13_1"),
            10 => mrs!("s3_4_c12_c13_2"),
            11 => mrs!("s3_4_c12_c13_3"),
            12 => mrs!("s3_4_c12_c13_4"),
            13 => mrs!("s3_4_c12_c13_5"),
            14 => mrs!("s3_4_c12_c13_6"),
            // 15: the index has four bits.
            _ => mrs!("s3_4_c12_c13_7"),
        }
    }

    #[inline]
    pub(super) fn write_lr(&self, index: usize, value: u64) {
        match index & 0xf {
            0 => msr!("s3_4_c12_c12_0", value),
            1 => msr!("s3_4_c12_c12_1", value),
            2 => msr!("s3_4_c12_c12_2", value),
            3 => msr!("s3_4_c12_c12_3", value),
            4 => msr!("s3_4_c12_c12_4", value),
            5 => msr!("s3_4_c12_c12_5", value),
            6 => msr!("s3_4_c12_c12_6", value),
            7 => msr!("s3_4_c12_c12_7", value),
            8 => msr!("s3_4_c12_c13_0", value),
            9 => msr!("s3_4_c12_c13_1", value),
            10 => msr!("s3_4_c12_c13_2", value),
            11 => msr!("s3_4_c12_c13_3", value),
            12 => msr!("s3_4_c12_c13_4", value),
            13 => msr!("s3_4_c12_c13_5", value),
            14 => msr!("s3_4_c12_c13_6", value),
            // 15: the index has four bits.
            _ => msr!("s3_4_c12_c13_7", value),
        }
    }

    #[inline(always)]
    pub(super) fn empty_lrs(&self) -> u32 {
        mrs!("s3_4_c12_c11_5") as u32
    }

    pub(super) fn set_no_pending_maintenance(&self, on: bool) {
        let hcr = mrs!("s3_4_c12_c11_0") & !HCR_NPIE;
        msr!("s3_4_c12_c11_0", if on { hcr | HCR_NPIE } else { hcr });
    }
}

/// Walks a redistributor region by what each frame's GICR_TYPER says of its own size.
///
/// # Safety
/// The region is mapped as Device memory as long as what is found is used.
unsafe fn find_redistributors(
    base: usize,
    size: usize,
    found: &mut Vec<Redistributor>,
) -> Result<(), GicError> {
    let mut offset = 0;
    while size - offset >= gicr::FRAMES {
        // SAFETY: the pair of frames lies within the region that the caller promises.
        let rd = unsafe { Registers::new(base + offset) }.ok_or(GicError::NotAGic)?;
        if !matches!(rd.read(gicd::PIDR2) >> 4 & 0xf, 3 | 4) {
            return Err(GicError::NotAGic);
        }
        let typer = rd.read_u64(gicr::TYPER);
        let affinity = (typer >> 32 & 0xff_ffff) | (typer >> 56) << 32;
        // SAFETY: SGI_base follows RD_base, within the region.
        let sgi = unsafe { rd.at(gicr::SGI_BASE) };
        found.try_reserve(1).map_err(|_| GicError::Memory)?;
        found.push(Redistributor { affinity, rd, sgi });
        if typer & gicr::TYPER_LAST != 0 {
            break;
        }
        offset += if typer & gicr::TYPER_VLPIS != 0 { gicr::FRAMES_VLPIS } else { gicr::FRAMES };
        if offset > size {
            break;
        }
    }
    Ok(())
}
