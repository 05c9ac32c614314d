//! A domain's virtual GIC: the state machine of the `gic` crate, its lock, and where its registers appear.

use crate::sync::TicketMutex;
use gic::vgic::REDISTRIBUTOR_STRIDE;
use gic::{ConfigError, Frame, IntId, Kicks, VGic, VGicConfig, VcpuIndex, Version};
use stage2::Ipa;

use crate::domain::Domain;
use crate::vcpu::{self, VcpuId};

/// Where the guest finds its GIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// GICv2: the distributor is emulated; the CPU interface is hardware's (GICV), mapped by stage 2.
    V2 {
        /// GICD.
        distributor: Ipa,
    },
    /// GICv3: distributor and redistributors are emulated; the CPU interface is system registers.
    V3 {
        /// GICD.
        distributor: Ipa,
        /// GICR of vCPU 0; the others follow.
        redistributors: Ipa,
    },
}

/// The virtual GIC of one domain.
pub struct VirtualGic {
    state: TicketMutex<VGic>,
    frames: Frames,
    redistributors_size: u64,
}

/// Bytes of a distributor's frame: 4 KiB in GICv2, 64 KiB in GICv3.
const GICD_V2_SIZE: u64 = 0x1000;
const GICD_V3_SIZE: u64 = 0x1_0000;

impl VirtualGic {
    /// For a domain whose vCPUs have these MPIDR affinities.
    pub fn new(frames: Frames, affinities: &[u64], spis: u32) -> Result<Self, ConfigError> {
        let version = match frames {
            Frames::V2 { .. } => Version::V2,
            Frames::V3 { .. } => Version::V3,
        };
        Ok(Self {
            state: TicketMutex::new(VGic::new(&VGicConfig { version, affinities, spis })?),
            frames,
            redistributors_size: REDISTRIBUTOR_STRIDE * affinities.len() as u64,
        })
    }

    /// Where its registers are.
    pub fn frames(&self) -> Frames {
        self.frames
    }

    /// The state. Lock order: after event channels, before run queues.
    #[inline]
    pub fn lock(&self) -> crate::sync::TicketMutexGuard<'_, VGic> {
        self.state.lock()
    }

    /// The register that an address of the guest names, if it is one of the GIC's.
    #[inline]
    pub fn locate(&self, ipa: Ipa) -> Option<(Frame, u32)> {
        let within = |base: Ipa, size: u64| {
            let offset = ipa.raw().wrapping_sub(base.raw());
            (offset < size).then_some(offset)
        };
        match self.frames {
            Frames::V2 { distributor } => {
                within(distributor, GICD_V2_SIZE).map(|offset| (Frame::Distributor, offset as u32))
            }
            Frames::V3 { distributor, redistributors } => match within(distributor, GICD_V3_SIZE) {
                Some(offset) => Some((Frame::Distributor, offset as u32)),
                None => within(redistributors, self.redistributors_size).map(Frame::of_redistributor_region),
            },
        }
    }
}

/// Where an interrupt number of a vCPU is counted.
pub fn index_of(id: VcpuId) -> VcpuIndex {
    VcpuIndex::new(id.get())
}

/// Makes everybody in `kicks` look at their interrupts: wakes sleepers, interrupts the running.
#[inline]
pub fn deliver(domain: &Domain, kicks: Kicks) {
    if !kicks.is_empty() {
        deliver_slowly(domain, kicks);
    }
}

fn deliver_slowly(domain: &Domain, kicks: Kicks) {
    for index in kicks {
        if let Some(vcpu) = domain.vcpu(VcpuId::new(index.get())) {
            vcpu::kick(vcpu, vcpu::request::FLUSH_INTERRUPTS);
        }
    }
}

/// An edge of a private interrupt for one vCPU, from any CPU.
pub fn pulse(domain: &Domain, id: VcpuId, intid: IntId) {
    let kicks = domain.vgic.lock().pulse(index_of(id), intid);
    deliver(domain, kicks);
}

/// The level of a private line of one vCPU, from any CPU.
pub fn set_level(domain: &Domain, id: VcpuId, intid: IntId, high: bool) {
    let kicks = domain.vgic.lock().set_level(index_of(id), intid, high);
    deliver(domain, kicks);
}
