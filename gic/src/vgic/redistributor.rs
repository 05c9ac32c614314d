//! Registers of a redistributor: RD_base (who am I) and SGI_base (the private interrupts of one vCPU).
#![forbid(unsafe_code)]

use super::distributor::{IIDR, identification};
use super::{VGic, Version};
use crate::{Host, Kicks, ListRegisters, VcpuIndex};

impl VGic {
    pub(super) fn read_redistributor(
        &self,
        viewer: VcpuIndex,
        owner: VcpuIndex,
        sgi: bool,
        offset: u32,
        width: u32,
        lrs: &mut impl ListRegisters,
    ) -> u64 {
        if self.version != Version::V3 {
            return 0;
        }
        if sgi {
            return if is_private_bank(offset) {
                self.read_banks(viewer, owner, offset, width, lrs).into()
            } else {
                0
            };
        }
        let Some(state) = self.vcpus.get(owner.index()) else { return 0 };
        // GICR_TYPER: affinity 63:32, Processor_Number 23:8, Last 4; no LPIs.
        let last = owner.index() + 1 == self.vcpus.len();
        let typer = u64::from(state.affinity) << 32 | u64::from(owner.get()) << 8 | u64::from(last) << 4;
        match (offset, width) {
            (0x04, 4) => IIDR.into(),
            (0x08, 8) => typer,
            (0x08, 4) => typer & 0xffff_ffff,
            (0x0c, 4) => typer >> 32,
            (0xffd0.., 4) => identification(offset - 0xffd0, self.version).into(),
            // GICR_CTLR among them: no LPIs to enable, no write pending. GICR_WAKER: always awake.
            _ => 0,
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn write_redistributor(
        &mut self,
        current: VcpuIndex,
        owner: VcpuIndex,
        sgi: bool,
        offset: u32,
        width: u32,
        value: u64,
        lrs: &mut impl ListRegisters,
        host: &mut impl Host,
    ) -> Kicks {
        if self.version == Version::V3 && sgi && is_private_bank(offset) {
            self.write_banks(current, owner, offset, width, value as u32, lrs, host)
        } else {
            Kicks::NONE
        }
    }
}

/// Does the offset name a register of INTIDs 0–31 in one of the banks? SGI_base has only those;
/// a GICv3 distributor has the others.
pub(super) const fn is_private_bank(offset: u32) -> bool {
    match offset >> 7 {
        1..=7 => offset & 0x7f < 4,
        8..=15 => offset & 0x3ff < 32,
        24 | 25 => offset & 0xff < 8,
        _ => false,
    }
}
