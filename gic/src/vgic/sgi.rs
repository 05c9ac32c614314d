//! Software-generated interrupts: GICD_SGIR (GICv2) and the ICC_SGI*R_EL1 system registers (GICv3).
#![forbid(unsafe_code)]

use super::{VGic, Version};
use crate::{Kicks, ListRegisters, VcpuIndex};

/// The SGI system registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgiRegister {
    /// ICC_SGI1R_EL1: group 1 of the caller's Security state.
    Sgi1r,
    /// ICC_ASGI1R_EL1: group 1 of the other Security state.
    Asgi1r,
    /// ICC_SGI0R_EL1: group 0.
    Sgi0r,
}

impl VGic {
    /// GICD_SGIR (IHI 0048B, 4.3.15): filter 25:24, targets 23:16, SGI 3:0. One bit per vCPU.
    #[inline]
    pub(super) fn write_sgir(
        &mut self,
        vcpu: VcpuIndex,
        width: u32,
        value: u32,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        if self.version != Version::V2 || width != 4 {
            return Kicks::NONE;
        }
        let everyone = (1u32 << self.vcpus.len().min(8)) - 1;
        let myself = 1u32 << (vcpu.get() & 7);
        let targets = match value >> 24 & 3 {
            0 => value >> 16 & everyone,
            1 => everyone & !myself,
            2 => myself,
            // Reserved: sent to nobody.
            _ => 0,
        };
        let intid = value & 0xf;
        if targets == myself
            && let Some(index) = self.index(vcpu, intid)
        {
            if self.latch_here(vcpu, index, intid, lrs) {
                return Kicks::NONE;
            }
            return self.latch_here_slowly(vcpu, index, intid, lrs);
        }
        self.send_slowly(vcpu, intid, targets, lrs)
    }

    #[inline(never)]
    fn send_slowly(
        &mut self,
        vcpu: VcpuIndex,
        intid: u32,
        mut targets: u32,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        let mut kicks = Kicks::NONE;
        while targets != 0 {
            let target = VcpuIndex::new(targets.trailing_zeros());
            targets &= targets - 1;
            if let Some(index) = self.index(target, intid) {
                kicks |= self.latch(index, intid, vcpu.get() as u8);
            }
        }
        self.settle(vcpu, kicks, lrs)
    }

    /// An SGI system register (IHI 0069H, 12.2.22): Aff3 55:48, RS 47:44, IRM 40, Aff2 39:32, INTID 27:24, Aff1
    /// 23:16, target list 15:0.
    ///
    /// The guest sees the Non-secure side of a GIC, where all interrupts are Non-secure group 1: what the other two
    /// registers send to group 0 or to the Secure side never arrives.
    #[inline]
    pub(super) fn write_sgi_register(
        &mut self,
        vcpu: VcpuIndex,
        register: SgiRegister,
        value: u64,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        if register != SgiRegister::Sgi1r || self.version != Version::V3 {
            return Kicks::NONE;
        }
        let intid = (value >> 24) as u32 & 0xf;
        // One target, and that myself: what a self-IPI looks like.
        let list = value as u32 & 0xffff;
        if value >> 40 & 1 == 0
            && list & list.wrapping_sub(1) == 0
            && list != 0
            && let Some(state) = self.vcpus.get(vcpu.index())
            && state.affinity == cluster(value) | list.trailing_zeros()
            && let Some(index) = self.index(vcpu, intid)
        {
            if self.latch_here(vcpu, index, intid, lrs) {
                return Kicks::NONE;
            }
            return self.latch_here_slowly(vcpu, index, intid, lrs);
        }
        self.send_to_affinities(vcpu, intid, value, lrs)
    }

    #[inline(never)]
    fn send_to_affinities(
        &mut self,
        vcpu: VcpuIndex,
        intid: u32,
        value: u64,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        let mut kicks = Kicks::NONE;
        if value >> 40 & 1 != 0 {
            for target in (0..self.vcpus.len()).filter(|&target| target != vcpu.index()) {
                if let Some(index) = self.index(VcpuIndex::new(target as u32), intid) {
                    kicks |= self.latch(index, intid, 0);
                }
            }
            return kicks;
        }
        let mut list = value as u32 & 0xffff;
        while list != 0 {
            let affinity = cluster(value) | list.trailing_zeros();
            list &= list - 1;
            if let Some(target) = self.vcpu_at(affinity)
                && let Some(index) = self.index(VcpuIndex::new(target as u32), intid)
            {
                kicks |= self.latch(index, intid, 0);
            }
        }
        self.settle(vcpu, kicks, lrs)
    }
}

/// The affinity that an SGI system register names, without the low four bits that its target list gives.
#[inline]
const fn cluster(value: u64) -> u32 {
    (value >> 24) as u32 & 0xff00_0000
        | (value >> 16) as u32 & 0x00ff_0000
        | (value >> 8) as u32 & 0xff00
        | (value >> 40) as u32 & 0xf0
}
