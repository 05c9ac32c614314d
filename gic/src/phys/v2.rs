//! The physical GICv2: GICD and GICC, and GICH for the virtual interface (IHI 0048B).

use core::sync::atomic::{AtomicU32, Ordering};

use arm_gic_driver::VirtAddr;
use arm_gic_driver::v2::{CpuInterfaceTarget, Gic, HyperAddress};

use super::registers::{Registers, dmb_ishld, dsb_ishst, dsb_sy};
use super::{CpuTarget, GicError, PRIORITY};
use crate::{CpuInterfaceState, IntId};

mod gicc {
    pub const IAR: usize = 0x0c;
    pub const EOIR: usize = 0x10;
    pub const DIR: usize = 0x1000;
}

mod gicd {
    pub const ICENABLER: usize = 0x180;
    pub const ISENABLER: usize = 0x100;
    pub const ICPENDR: usize = 0x280;
    pub const ICACTIVER: usize = 0x380;
    pub const ITARGETSR: usize = 0x800;
    pub const SGIR: usize = 0xf00;
}

mod gich {
    pub const HCR: usize = 0x00;
    pub const VTR: usize = 0x04;
    pub const VMCR: usize = 0x08;
    pub const MISR: usize = 0x10;
    pub const ELRSR: usize = 0x30;
    pub const APR: usize = 0xf0;
    pub const LR: usize = 0x100;
    pub const HCR_EN: u32 = 1 << 0;
    pub const HCR_NPIE: u32 = 1 << 3;
}

/// A GICv2.
pub struct GicV2 {
    driver: Gic,
    pub(super) distributor: Registers,
    cpu_interface: Registers,
    hypervisor_interface: Registers,
    list_registers: AtomicU32,
}

// SAFETY: the driver holds nothing but the frames' addresses, which are valid on every CPU; after `new` it is used
// through `&self` for banked registers only.
unsafe impl Send for GicV2 {}
// SAFETY: as for `Send`.
unsafe impl Sync for GicV2 {}

impl GicV2 {
    /// See [`super::PhysGic::v2`].
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn new(gicd: usize, gicc: usize, gich: usize, gicv: usize) -> Result<Self, GicError> {
        let hyper = HyperAddress::new(VirtAddr::new(gich), VirtAddr::new(gicv));
        // SAFETY: the caller promises that these are the frames of a GICv2, mapped as long as the object lives.
        let mut driver = unsafe { Gic::new(VirtAddr::new(gicd), VirtAddr::new(gicc), Some(hyper)) };
        // SAFETY: the same promise.
        let frames = unsafe { (Registers::new(gicd), Registers::new(gicc), Registers::new(gich)) };
        let (Some(distributor), Some(cpu_interface), Some(hypervisor_interface)) = frames else {
            return Err(GicError::NotAGic);
        };
        driver.try_init().map_err(|_| GicError::NoCpuInterface)?;
        let list_registers = (hypervisor_interface.read(gich::VTR) & 0x3f) + 1;
        Ok(Self {
            driver,
            distributor,
            cpu_interface,
            hypervisor_interface,
            list_registers: AtomicU32::new(list_registers.min(16)),
        })
    }

    pub(super) fn init_cpu(&self) -> Result<CpuTarget, GicError> {
        let mut interface = self.driver.cpu_interface();
        let target = match interface.discover_target().map_err(|_| GicError::NoCpuInterface)? {
            CpuInterfaceTarget::Explicit(bit) => bit.as_u8(),
            CpuInterfaceTarget::ImplicitUniprocessor => 1,
        };
        // The banked words of the private interrupts: the driver sets up the boot CPU's only.
        self.distributor.write(gicd::ICENABLER, u32::MAX);
        self.distributor.write(gicd::ICPENDR, u32::MAX);
        self.distributor.write(gicd::ICACTIVER, u32::MAX);
        self.distributor.write(gicd::ISENABLER, 0xffff);
        interface.init_current_cpu();
        interface.set_eoi_mode_ns(true);
        for intid in (0..32).filter_map(IntId::new) {
            self.distributor.set_priority(intid, PRIORITY);
        }
        self.hypervisor_interface.write(gich::HCR, 0);
        self.hypervisor_interface.write(gich::VMCR, 0);
        self.hypervisor_interface.write(gich::APR, 0);
        for index in 0..self.list_register_count() {
            self.write_lr(index, 0);
        }
        Ok(CpuTarget(target.into()))
    }

    #[inline(always)]
    pub(super) fn list_register_count(&self) -> usize {
        self.list_registers.load(Ordering::Relaxed) as usize
    }

    #[inline]
    pub(super) fn acknowledge(&self) -> u32 {
        let raw = self.cpu_interface.read(gicc::IAR);
        // What an SGI's sender wrote before it must be seen by the loads after this one: the other half of `send_sgi`.
        dmb_ishld();
        raw
    }

    #[inline]
    pub(super) fn end(&self, raw: u32) {
        self.cpu_interface.write(gicc::EOIR, raw);
    }

    #[inline]
    pub(super) fn deactivate(&self, raw: u32) {
        self.cpu_interface.write(gicc::DIR, raw);
    }

    #[inline]
    pub(super) fn bank(&self, _: IntId) -> Registers {
        self.distributor
    }

    /// GICv2 has no RWP: a disable is in force when the write is complete.
    pub(super) fn wait(&self, _: IntId) {
        dsb_sy();
    }

    pub(super) fn route(&self, intid: IntId, target: u64) {
        self.distributor.write_byte(gicd::ITARGETSR + intid.get() as usize, target as u8);
    }

    #[inline]
    pub(super) fn send_sgi(&self, target: u64, intid: IntId) {
        // The receiver must see what was written before the SGI (IHI 0048B leaves that order to software).
        dsb_ishst();
        self.distributor.write(gicd::SGIR, (target as u32 & 0xff) << 16 | intid.get());
    }

    #[inline]
    pub(super) fn enable_virtual(&self, on: bool) {
        self.hypervisor_interface.write(gich::HCR, if on { gich::HCR_EN } else { 0 });
    }

    pub(super) fn save_interface(&self, state: &mut CpuInterfaceState) {
        state.vmcr = self.hypervisor_interface.read(gich::VMCR);
        state.active_priorities[0] = self.hypervisor_interface.read(gich::APR);
    }

    pub(super) fn restore_interface(&self, state: &CpuInterfaceState) {
        self.hypervisor_interface.write(gich::VMCR, state.vmcr);
        self.hypervisor_interface.write(gich::APR, state.active_priorities[0]);
    }

    pub(super) fn maintenance_status(&self) -> u32 {
        self.hypervisor_interface.read(gich::MISR)
    }

    #[inline(always)]
    pub(super) fn read_lr(&self, index: usize) -> u32 {
        self.hypervisor_interface.read(gich::LR + (index & 0xf) * 4)
    }

    #[inline(always)]
    pub(super) fn write_lr(&self, index: usize, value: u32) {
        self.hypervisor_interface.write(gich::LR + (index & 0xf) * 4, value);
    }

    #[inline(always)]
    pub(super) fn empty_lrs(&self) -> u32 {
        self.hypervisor_interface.read(gich::ELRSR)
    }

    pub(super) fn set_no_pending_maintenance(&self, on: bool) {
        let hcr = self.hypervisor_interface.read(gich::HCR) & !gich::HCR_NPIE;
        self.hypervisor_interface.write(gich::HCR, if on { hcr | gich::HCR_NPIE } else { hcr });
    }
}
