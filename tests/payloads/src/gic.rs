//! A minimal driver for GICv2 and GICv3 as a guest sees them (Arm IHI 0048, IHI 0069).
//!
//! All interrupts are group 1 on GICv3 and whatever the reset value gives on GICv2; priority 0xa0; end of interrupt both
//! drops the priority and deactivates.

use crate::io::{read32, read64, write8, write32};
use crate::machine::{GicRegisters, Range};
use crate::{read_sysreg, write_sysreg};

/// Identifiers of 1020 and up are not interrupts.
pub const SPURIOUS: u32 = 1020;

const GICD_CTLR: u64 = 0x0;
/// Offset of GICD_TYPER.
pub const GICD_TYPER: u64 = 0x4;
const GICD_IGROUPR: u64 = 0x80;
const GICD_ISENABLER: u64 = 0x100;
const GICD_ICENABLER: u64 = 0x180;
/// Offset of GICD_ISPENDR.
pub const GICD_ISPENDR: u64 = 0x200;
/// Offset of GICD_IPRIORITYR.
pub const GICD_IPRIORITYR: u64 = 0x400;
const GICD_SGIR: u64 = 0xf00;
const GICR_WAKER: u64 = 0x14;
const GICR_TYPER: u64 = 0x8;
const GICR_SGI_FRAME: u64 = 0x1_0000;
const GICR_STRIDE: u64 = 0x2_0000;
const PRIORITY: u8 = 0xa0;

/// The interrupt controller as this processor uses it.
#[derive(Clone, Copy, Debug)]
pub enum Gic {
    /// GICv2.
    V2 {
        /// GICD.
        distributor: u64,
        /// GICC.
        cpu_interface: u64,
    },
    /// GICv3.
    V3 {
        /// GICD.
        distributor: u64,
        /// This processor's GICR.
        redistributor: u64,
    },
}

impl Gic {
    /// Finds this processor's part of the controller. `None` if its redistributor is not there.
    pub fn for_this_cpu(registers: GicRegisters) -> Option<Self> {
        match registers {
            GicRegisters::V2 { distributor, cpu_interface } => Some(Self::V2 { distributor, cpu_interface }),
            GicRegisters::V3 { distributor, redistributors } => {
                let redistributor = own_redistributor(redistributors)?;
                Some(Self::V3 { distributor, redistributor })
            }
        }
    }

    /// Turns the distributor on; once, by the first processor.
    pub fn enable_distributor(&self) {
        match *self {
            Self::V2 { distributor, .. } => write32(distributor + GICD_CTLR, 1),
            // ARE_NS and EnableGrp1NS as a guest without security states sees them (IHI 0069, GICD_CTLR).
            Self::V3 { distributor, .. } => write32(distributor + GICD_CTLR, 1 << 4 | 1 << 1),
        }
    }

    /// Turns this processor's interface on, all priorities let through.
    pub fn enable_cpu(&self) {
        match *self {
            Self::V2 { cpu_interface, .. } => {
                write32(cpu_interface + 4, 0xff);
                write32(cpu_interface, 1);
            }
            Self::V3 { redistributor, .. } => {
                write32(redistributor + GICR_WAKER, read32(redistributor + GICR_WAKER) & !2);
                while read32(redistributor + GICR_WAKER) & 4 != 0 {
                    core::hint::spin_loop();
                }
                write32(redistributor + GICR_SGI_FRAME + GICD_IGROUPR, u32::MAX);
                write_sysreg!("icc_sre_el1", 7);
                write_sysreg!("icc_pmr_el1", 0xff);
                write_sysreg!("icc_igrpen1_el1", 1);
            }
        }
    }

    /// Where the registers that configure `interrupt` are: the distributor, or this processor's SGI and PPI frame.
    pub fn frame(&self, interrupt: u32) -> u64 {
        match *self {
            Self::V2 { distributor, .. } => distributor,
            Self::V3 { redistributor, .. } if interrupt < 32 => redistributor + GICR_SGI_FRAME,
            Self::V3 { distributor, .. } => distributor,
        }
    }

    /// The distributor's address.
    pub fn distributor(&self) -> u64 {
        match *self {
            Self::V2 { distributor, .. } | Self::V3 { distributor, .. } => distributor,
        }
    }

    /// Gives `interrupt` its priority and enables it.
    pub fn enable(&self, interrupt: u32) {
        let frame = self.frame(interrupt);
        write8(frame + GICD_IPRIORITYR + u64::from(interrupt), PRIORITY);
        write32(frame + GICD_ISENABLER + u64::from(interrupt / 32 * 4), 1 << (interrupt % 32));
    }

    /// Disables `interrupt`.
    pub fn disable(&self, interrupt: u32) {
        write32(
            self.frame(interrupt) + GICD_ICENABLER + u64::from(interrupt / 32 * 4),
            1 << (interrupt % 32),
        );
    }

    /// Whether `interrupt` is pending.
    pub fn is_pending(&self, interrupt: u32) -> bool {
        let word = read32(self.frame(interrupt) + GICD_ISPENDR + u64::from(interrupt / 32 * 4));
        word & 1 << (interrupt % 32) != 0
    }

    /// Takes the most urgent pending interrupt: the whole of IAR, as [`Gic::end`] needs it.
    pub fn acknowledge(&self) -> u32 {
        match *self {
            Self::V2 { cpu_interface, .. } => read32(cpu_interface + 0xc),
            Self::V3 { .. } => read_sysreg!("icc_iar1_el1") as u32,
        }
    }

    /// Ends what [`Gic::acknowledge`] returned.
    pub fn end(&self, acknowledged: u32) {
        match *self {
            Self::V2 { cpu_interface, .. } => write32(cpu_interface + 0x10, acknowledged),
            Self::V3 { .. } => write_sysreg!("icc_eoir1_el1", u64::from(acknowledged)),
        }
    }

    /// The register and the value whose write sends `interrupt` (0 to 15) to this processor itself.
    pub fn sgi_to_self(&self, interrupt: u32) -> Sgi {
        match *self {
            Self::V2 { distributor, .. } => {
                Sgi::Memory { address: distributor + GICD_SGIR, value: 2 << 24 | interrupt }
            }
            Self::V3 { .. } => Sgi::Register { value: sgi1r(read_sysreg!("mpidr_el1"), interrupt) },
        }
    }

    /// As [`Gic::sgi_to_self`], to another processor: its position in the list of processors and its affinity.
    pub fn sgi_to(&self, position: usize, mpidr: u64, interrupt: u32) -> Sgi {
        match *self {
            Self::V2 { distributor, .. } => {
                Sgi::Memory { address: distributor + GICD_SGIR, value: 1 << (16 + position) | interrupt }
            }
            Self::V3 { .. } => Sgi::Register { value: sgi1r(mpidr, interrupt) },
        }
    }
}

/// A software-generated interrupt, ready to be sent.
#[derive(Clone, Copy, Debug)]
pub enum Sgi {
    /// GICv2: a write to GICD_SGIR.
    Memory {
        /// GICD_SGIR.
        address: u64,
        /// Target and identifier.
        value: u32,
    },
    /// GICv3: a write to ICC_SGI1R_EL1.
    Register {
        /// Target and identifier.
        value: u64,
    },
}

impl Sgi {
    /// Sends it, after all earlier writes to memory are visible to whoever takes it.
    pub fn send(&self) {
        // SAFETY: a barrier only.
        unsafe { core::arch::asm!("dsb ishst", options(nostack)) };
        match *self {
            Self::Memory { address, value } => write32(address, value),
            Self::Register { value } => write_sysreg!("icc_sgi1r_el1", value),
        }
    }
}

/// ICC_SGI1R_EL1 for one target (IHI 0069, 12.2.18).
fn sgi1r(mpidr: u64, interrupt: u32) -> u64 {
    let affinity = |level: u64| mpidr >> (8 * level) & 0xff;
    let affinity3 = mpidr >> 32 & 0xff;
    affinity3 << 48
        | affinity(2) << 32
        | (affinity(0) >> 4) << 44
        | u64::from(interrupt & 0xf) << 24
        | affinity(1) << 16
        | 1 << (affinity(0) & 0xf)
}

/// The frame whose GICR_TYPER names this processor's affinity.
fn own_redistributor(region: Range) -> Option<u64> {
    let mpidr = read_sysreg!("mpidr_el1");
    let affinity = (mpidr & 0xff_ffff) | (mpidr >> 32 & 0xff) << 24;
    let mut frame = region.start;
    while frame < region.end {
        let typer = read64(frame + GICR_TYPER);
        if typer >> 32 == affinity {
            return Some(frame);
        }
        if typer & 1 << 4 != 0 {
            return None;
        }
        frame += GICR_STRIDE;
    }
    None
}
