//! The virtual GIC of one domain: what it holds and the calls the hypervisor makes.
//!
//! All state lives in [`VGic`]; whoever holds the domain's GIC lock may change it. An interrupt is in one of these
//! places, and only the functions named move it (`delivery.rs`):
//!
//! ```text
//!            latch / line          place()                    guest acks          guest deactivates
//!  inactive ─────────────▶ work ───────────▶ list register ═══════════▶ LR active ═══════════▶ LR empty
//!      ▲                    ▲ ▲                 │ pending                  │                       │
//!      │                    │ └──── withdraw() ─┘          evacuate() ─────┤                       │
//!      │                    └──────────────────────────────────────────────┘                       │
//!      └───────────────────────────── complete() ◀─────────────────────────────────────────────────┘
//! ```
//!
//! `═` is the guest at work without an exit: what a list register holds is the truth, and what is recorded here about
//! it is as old as the vCPU's last fold. `work` is a bitmap per vCPU of the interrupts that want a list register.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::{CpuInterfaceState, Host, IntId, Kicks, ListRegisters, VcpuIndex};

mod delivery;
mod distributor;
mod irq;
mod redistributor;
mod sgi;
#[cfg(test)]
mod tests;

use irq::{Irq, NOWHERE, flag};
pub use sgi::SgiRegister;

/// The architecture version that the guest sees; the same as the physical GIC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// GICv2: memory-mapped CPU interface, at most 8 vCPUs.
    V2,
    /// GICv3: redistributors, system-register CPU interface.
    V3,
}

/// What a virtual GIC is made of.
#[derive(Clone, Copy, Debug)]
pub struct VGicConfig<'a> {
    /// The architecture version.
    pub version: Version,
    /// One MPIDR_EL1 per vCPU; only the affinity fields count.
    pub affinities: &'a [u64],
    /// How many SPIs; rounded up so that the number of INTIDs is a multiple of 32. At most 988.
    pub spis: u32,
}

/// Why a virtual GIC cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// No vCPU, or more than the version allows (8, [`Kicks::MAX_VCPUS`]).
    Vcpus,
    /// More SPIs than the architecture has.
    Spis,
    /// No memory.
    Memory,
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Vcpus => "a virtual GIC needs 1 to 8 (GICv2) or 1 to 128 (GICv3) vCPUs",
            Self::Spis => "a virtual GIC has at most 988 SPIs",
            Self::Memory => "no memory for the virtual GIC",
        })
    }
}

/// The register frame that an access falls into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// GICD: 4 KiB (GICv2) or 64 KiB (GICv3).
    Distributor,
    /// GICR of a vCPU: the RD_base frame, or with `sgi` the SGI_base frame; 64 KiB each.
    Redistributor {
        /// Whose.
        vcpu: VcpuIndex,
        /// SGI_base?
        sgi: bool,
    },
}

impl Frame {
    /// The frame, and the offset in it, of an offset into a region that holds every vCPU's pair of frames in order.
    #[inline]
    pub const fn of_redistributor_region(offset: u64) -> (Self, u32) {
        let vcpu = offset >> 17;
        let vcpu = if vcpu < u32::MAX as u64 { vcpu as u32 } else { u32::MAX };
        (
            Self::Redistributor { vcpu: VcpuIndex::new(vcpu), sgi: offset >> 16 & 1 != 0 },
            offset as u32 & 0xffff,
        )
    }
}

/// The size of one vCPU's pair of redistributor frames, in bytes.
pub const REDISTRIBUTOR_STRIDE: u64 = 0x2_0000;

const MAX_LIST_REGISTERS: usize = 16;

/// The state of one vCPU's interface to its virtual GIC.
struct Vcpu {
    /// MPIDR affinity: Aff3 31:24, Aff2 23:16, Aff1 15:8, Aff0 7:0.
    affinity: u32,
    /// Bit `n`: `work[n]` is not zero.
    summary: u32,
    /// Interrupts at home here that want a list register and have none.
    work: [u32; 32],
    /// List registers that were filled and not seen empty since.
    used: u32,
    /// Those of them that were pending, and not active, when last looked at.
    lr_pending: u32,
    /// The INTID in each used list register.
    lr_intid: [u16; MAX_LIST_REGISTERS],
    /// Something in a list register must change: fold them all at the next flush.
    resync: bool,
    /// HCR.NPIE as last written.
    no_pending_maintenance: bool,
    /// Priorities from here on are masked by the guest; 256: none, or not known.
    mask: u16,
    /// The private interrupts (bit = INTID) that ever were backed by a physical one.
    backed: u32,
}

impl Vcpu {
    fn new(mpidr: u64) -> Self {
        Self {
            affinity: mpidr as u32 & 0x00ff_ffff | (mpidr >> 8) as u32 & 0xff00_0000,
            summary: 0,
            work: [0; 32],
            used: 0,
            lr_pending: 0,
            lr_intid: [0; MAX_LIST_REGISTERS],
            resync: false,
            no_pending_maintenance: false,
            mask: 256,
            backed: 0,
        }
    }

    /// Must the next flush look at the list registers, whether or not anything waits?
    #[inline]
    const fn busy(&self) -> bool {
        self.resync | self.no_pending_maintenance
    }

    #[inline]
    fn set_work(&mut self, intid: u32) {
        let word = intid >> 5 & 31;
        self.work[word as usize] |= 1 << (intid & 31);
        self.summary |= 1 << word;
    }

    #[inline]
    fn clear_work(&mut self, intid: u32) {
        let word = intid >> 5 & 31;
        let bits = &mut self.work[word as usize];
        *bits &= !(1 << (intid & 31));
        if *bits == 0 {
            self.summary &= !(1 << word);
        }
    }
}

/// The virtual GIC of one domain. The caller holds the domain's GIC lock around every call.
///
/// Functions that take a [`ListRegisters`] run on the CPU where `vcpu` is loaded (between [`VGic::restore`] and
/// [`VGic::save`]) and act on that CPU's hardware. The [`Kicks`] they return never hold that vCPU: it was served.
pub struct VGic {
    version: Version,
    /// GICD_CTLR: does the distributor forward anything?
    forwarding: bool,
    /// GICD_TYPER, fixed.
    typer: u32,
    /// The first INTID that does not exist.
    limit: u32,
    vcpus: Box<[Vcpu]>,
    /// 32 private interrupts per vCPU, then the SPIs.
    irqs: Box<[Irq]>,
    /// GICD_ITARGETSR (low byte) or GICD_IROUTER of each SPI.
    routes: Box<[u64]>,
}

fn collect<T>(items: impl ExactSizeIterator<Item = T>) -> Result<Box<[T]>, ConfigError> {
    let mut all = Vec::new();
    all.try_reserve_exact(items.len()).map_err(|_| ConfigError::Memory)?;
    all.extend(items);
    Ok(all.into_boxed_slice())
}

impl VGic {
    /// A virtual GIC at reset: nothing enabled, SPIs routed to vCPU 0 (GICv2) or affinity 0.0.0.0 (GICv3).
    ///
    /// # Errors
    /// When the configuration asks for more than the architecture has, or memory is short. Nothing is allocated later.
    pub fn new(config: &VGicConfig<'_>) -> Result<Self, ConfigError> {
        let count = config.affinities.len();
        let most = match config.version {
            Version::V2 => 8,
            Version::V3 => Kicks::MAX_VCPUS,
        };
        if count == 0 || count > most {
            return Err(ConfigError::Vcpus);
        }
        if config.spis > IntId::LIMIT - 32 {
            return Err(ConfigError::Spis);
        }
        let lines = (config.spis.next_multiple_of(32) + 32).min(1024);
        let limit = lines.min(IntId::LIMIT);
        let spis = (limit - 32) as usize;
        let mut typer = (lines / 32 - 1) | (count.min(8) as u32 - 1) << 5;
        if config.version == Version::V3 {
            let affinity3 = config.affinities.iter().any(|mpidr| mpidr >> 32 & 0xff != 0);
            // IDbits 23:19 = 10 - 1; A3V 24; no MBIS, LPIS, DVIS; 1-of-N supported (No1N 25 = 0).
            typer |= 9 << 19 | u32::from(affinity3) << 24;
        }
        let mut gic = Self {
            version: config.version,
            forwarding: false,
            typer,
            limit,
            vcpus: collect(config.affinities.iter().map(|&mpidr| Vcpu::new(mpidr)))?,
            irqs: collect((0..count * 32 + spis).map(|index| {
                if index < count * 32 {
                    Irq::private((index / 32) as u8, index % 32 < 16)
                } else {
                    Irq::shared()
                }
            }))?,
            routes: collect((0..spis).map(|_| u64::from(config.version == Version::V2)))?,
        };
        for intid in 32..limit {
            let target = gic.resolve_route(intid);
            if let Some(index) = gic.index(VcpuIndex::new(0), intid) {
                gic.irqs[index].target = target;
            }
        }
        Ok(gic)
    }

    /// The version the guest sees.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The first INTID that does not exist.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Backs the virtual interrupt `vintid` of `vcpu` (ignored for an SPI) by the physical `pintid`, or by none.
    /// From then on each [`VGic::pulse`] or [`VGic::inject_current`] of it says: the physical interrupt was
    /// acknowledged and not deactivated; the guest's deactivation does that. An SPI that the guest already enabled
    /// is enabled at `host`. SGIs cannot be backed; returns whether it was done.
    pub fn attach_hw(
        &mut self,
        vcpu: VcpuIndex,
        vintid: IntId,
        pintid: Option<IntId>,
        host: &mut impl Host,
    ) -> bool {
        let Some(index) = self.index(vcpu, vintid.get()) else { return false };
        let irq = &mut self.irqs[index];
        if vintid.is_sgi() || pintid.is_some_and(IntId::is_sgi) || irq.has(flag::HW_IN_FLIGHT) {
            return false;
        }
        match pintid {
            Some(pintid) => {
                if let (true, Some(state)) = (vintid.get() < 32, self.vcpus.get_mut(vcpu.index())) {
                    state.backed |= 1 << vintid.get();
                }
                irq.pintid = pintid.get() as u16;
                irq.set(flag::HW);
                if pintid.is_spi() && irq.has(flag::ENABLED) {
                    host.enable(pintid);
                }
            }
            None => irq.clear(flag::HW),
        }
        true
    }

    /// An edge: `intid` becomes pending (on `vcpu`, when it is private), whatever its trigger. The guest's
    /// acknowledge takes it back. An SGI counts as sent by `vcpu` to itself. An INTID that does not exist is ignored.
    #[inline]
    pub fn pulse(&mut self, vcpu: VcpuIndex, intid: IntId) -> Kicks {
        let Some(index) = self.index(vcpu, intid.get()) else { return Kicks::NONE };
        self.latch(index, intid.get(), vcpu.get() as u8)
    }

    /// [`VGic::pulse`] for the vCPU that is loaded here: when the interrupt is for it, it is in a list register on
    /// return, as far as priorities and room allow.
    #[inline]
    pub fn inject_current(&mut self, vcpu: VcpuIndex, intid: IntId, lrs: &mut impl ListRegisters) -> Kicks {
        let Some(index) = self.index(vcpu, intid.get()) else { return Kicks::NONE };
        if self.latch_here(vcpu, index, intid.get(), lrs) {
            return Kicks::NONE;
        }
        self.latch_here_slowly(vcpu, index, intid.get(), lrs)
    }

    /// Serves `vcpu`, loaded here, if it is among `kicks`; returns the others.
    #[inline]
    fn settle(&mut self, vcpu: VcpuIndex, kicks: Kicks, lrs: &mut impl ListRegisters) -> Kicks {
        if kicks.is_empty() {
            return kicks;
        }
        self.settle_slowly(vcpu, kicks, lrs)
    }

    #[inline(never)]
    fn settle_slowly(&mut self, vcpu: VcpuIndex, kicks: Kicks, lrs: &mut impl ListRegisters) -> Kicks {
        if kicks.contains(vcpu) { kicks.without(vcpu) | self.flush(vcpu, lrs) } else { kicks }
    }

    /// The level of a line. While it is high and the interrupt is configured level-sensitive, it is pending; after the
    /// guest's deactivation it is sampled again. SGIs have no line.
    #[inline]
    pub fn set_level(&mut self, vcpu: VcpuIndex, intid: IntId, high: bool) -> Kicks {
        let Some(index) = self.index(vcpu, intid.get()) else { return Kicks::NONE };
        self.drive_line(index, intid.get(), high)
    }

    /// Moves what is pending into list registers, highest priority first, and reads them back where that is needed.
    /// Call it for the loaded vCPU when it was kicked. O(interrupts that want a list register).
    #[inline]
    pub fn flush(&mut self, vcpu: VcpuIndex, lrs: &mut impl ListRegisters) -> Kicks {
        let Some(state) = self.vcpus.get(vcpu.index()) else { return Kicks::NONE };
        if state.summary == 0 && !state.busy() {
            return Kicks::NONE;
        }
        self.flush_slowly(vcpu, lrs)
    }

    /// Serves a maintenance interrupt: list registers that came free are filled, levels sampled again.
    pub fn maintain(&mut self, vcpu: VcpuIndex, lrs: &mut impl ListRegisters) -> Kicks {
        match self.vcpus.get_mut(vcpu.index()) {
            Some(state) => state.resync = true,
            None => return Kicks::NONE,
        }
        self.flush_slowly(vcpu, lrs)
    }

    /// Reads the list registers back, leaves everything where it is, and fills what came free: call it before
    /// [`VGic::has_pending`] of a vCPU that is loaded.
    pub fn sync(&mut self, vcpu: VcpuIndex, lrs: &mut impl ListRegisters) -> Kicks {
        let kicks = self.fold(vcpu, lrs, delivery::Pull::Nothing);
        self.settle(vcpu, kicks, lrs)
    }

    /// The vCPU leaves this CPU: empties its list registers. `interface` is what the caller saved of the rest of the
    /// virtual CPU interface; the priority mask in it lets [`VGic::has_pending`] tell what would wake the vCPU.
    /// Where [`VGic::in_flight_hw_ppis`] then names physical PPIs, the caller makes them inactive on this CPU.
    pub fn save(
        &mut self,
        vcpu: VcpuIndex,
        lrs: &mut impl ListRegisters,
        interface: &CpuInterfaceState,
    ) -> Kicks {
        let kicks = self.fold(vcpu, lrs, delivery::Pull::Everything);
        let (mask, open) = match self.version {
            Version::V2 => (interface.mask_v2(), interface.enabled_v2()),
            Version::V3 => (interface.mask_v3(), interface.enabled_v3()),
        };
        if let Some(state) = self.vcpus.get_mut(vcpu.index()) {
            state.resync = false;
            state.mask = if open { u16::from(mask) } else { 0 };
            if state.no_pending_maintenance {
                state.no_pending_maintenance = false;
                lrs.set_no_pending_maintenance(false);
            }
        }
        kicks.without(vcpu)
    }

    /// The vCPU comes to this CPU, whose list registers are free: fills them. The caller first makes the physical
    /// PPIs of [`VGic::in_flight_hw_ppis`] active on this CPU.
    pub fn restore(&mut self, vcpu: VcpuIndex, lrs: &mut impl ListRegisters) -> Kicks {
        match self.vcpus.get_mut(vcpu.index()) {
            Some(state) => state.mask = 256,
            None => return Kicks::NONE,
        }
        self.flush(vcpu, lrs)
    }

    /// Would an interrupt wake the vCPU from WFI? Pending, enabled, forwarded, not active, and not masked as far as
    /// known. Exact after [`VGic::save`] and [`VGic::sync`].
    pub fn has_pending(&self, vcpu: VcpuIndex) -> bool {
        let Some(state) = self.vcpus.get(vcpu.index()) else { return false };
        if !self.forwarding {
            return false;
        }
        let unmasked = |intid: u32, wanted: bool| {
            self.index(vcpu, intid).is_some_and(|index| {
                let irq = &self.irqs[index];
                u16::from(irq.priority) < state.mask && (wanted || irq.is_deliverable())
            })
        };
        let mut slots = state.lr_pending;
        while slots != 0 {
            let slot = slots.trailing_zeros() as usize;
            slots &= slots - 1;
            if unmasked(state.lr_intid.get(slot).copied().unwrap_or(0).into(), true) {
                return true;
            }
        }
        let mut summary = state.summary;
        while summary != 0 {
            let word = summary.trailing_zeros();
            summary &= summary - 1;
            let mut bits = state.work[(word & 31) as usize];
            while bits != 0 {
                if unmasked(word * 32 + bits.trailing_zeros(), false) {
                    return true;
                }
                bits &= bits - 1;
            }
        }
        false
    }

    /// The physical PPIs (bit = INTID) that were acknowledged for `vcpu` and wait for its deactivation: active at the
    /// physical GIC while the vCPU is loaded. Exact after [`VGic::save`] and [`VGic::sync`].
    pub fn in_flight_hw_ppis(&self, vcpu: VcpuIndex) -> u32 {
        let first = vcpu.index().saturating_mul(32);
        let (Some(private), Some(state)) =
            (self.irqs.get(first..first.saturating_add(32)), self.vcpus.get(vcpu.index()))
        else {
            return 0;
        };
        let (mut backed, mut active) = (state.backed, 0);
        while backed != 0 {
            let irq = &private[(backed.trailing_zeros() & 31) as usize];
            if irq.has(flag::HW_IN_FLIGHT) && irq.pintid < 32 {
                active |= 1 << irq.pintid;
            }
            backed &= backed - 1;
        }
        active
    }

    /// Reads a guest register, `width` bytes (1, 2, 4 or 8) at `offset` into `frame`, on behalf of `vcpu`, which is
    /// loaded here. What is not there, and what is not accessible so (width, alignment), reads as zero.
    #[inline]
    pub fn read(
        &self,
        vcpu: VcpuIndex,
        frame: Frame,
        offset: u32,
        width: u32,
        lrs: &mut impl ListRegisters,
    ) -> u64 {
        if offset & width.wrapping_sub(1) != 0 {
            return 0;
        }
        match frame {
            Frame::Distributor => self.read_distributor(vcpu, offset, width, lrs),
            Frame::Redistributor { vcpu: owner, sgi } => {
                self.read_redistributor(vcpu, owner, sgi, offset, width, lrs)
            }
        }
    }

    /// Writes a guest register; as [`VGic::read`]. What is not there, or not accessible so, is ignored.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub fn write(
        &mut self,
        vcpu: VcpuIndex,
        frame: Frame,
        offset: u32,
        width: u32,
        value: u64,
        lrs: &mut impl ListRegisters,
        host: &mut impl Host,
    ) -> Kicks {
        if offset & width.wrapping_sub(1) != 0 {
            return Kicks::NONE;
        }
        let kicks = match (frame, offset >> 10) {
            (Frame::Distributor, 1) => self.write_priorities(vcpu, offset, width, value as u32),
            (Frame::Distributor, 3) if offset == 0xf00 => {
                return self.write_sgir(vcpu, width, value as u32, lrs);
            }
            (Frame::Distributor, _) => self.write_distributor(vcpu, offset, width, value, lrs, host),
            (Frame::Redistributor { vcpu: owner, sgi }, _) => {
                self.write_redistributor(vcpu, owner, sgi, offset, width, value, lrs, host)
            }
        };
        self.settle(vcpu, kicks, lrs)
    }

    /// A trapped write of an SGI register (ICC_SGI1R_EL1 and its siblings) by `vcpu`, which is loaded here.
    #[inline]
    pub fn send_sgi(
        &mut self,
        vcpu: VcpuIndex,
        register: SgiRegister,
        value: u64,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        self.write_sgi_register(vcpu, register, value, lrs)
    }

    /// Where the state of `intid` as `vcpu` sees it is; `None` when there is no such interrupt or vCPU.
    #[inline]
    fn index(&self, vcpu: VcpuIndex, intid: u32) -> Option<usize> {
        let count = self.vcpus.len();
        if intid >= self.limit || vcpu.index() >= count {
            None
        } else if intid < 32 {
            Some(vcpu.index() * 32 + intid as usize)
        } else {
            Some(count * 32 + intid as usize - 32)
        }
    }

    /// The vCPU that the SPI's route names, or [`NOWHERE`].
    fn resolve_route(&self, intid: u32) -> u8 {
        let route = self.routes.get(intid.wrapping_sub(32) as usize).copied().unwrap_or(0);
        match self.version {
            // 1-N model (IHI 0048B, 1.4.3): any one of the targets takes it; here the lowest.
            Version::V2 => match route as u8 {
                0 => NOWHERE,
                targets => targets.trailing_zeros() as u8,
            },
            // IRM: any participating PE (IHI 0069H, 12.9.22); here vCPU 0.
            Version::V3 if route & 1 << 31 != 0 => 0,
            Version::V3 => self
                .vcpu_at(route as u32 & 0x00ff_ffff | (route >> 8) as u32 & 0xff00_0000)
                .map_or(NOWHERE, |vcpu| vcpu as u8),
        }
    }

    /// The vCPU with this affinity.
    #[inline]
    fn vcpu_at(&self, affinity: u32) -> Option<usize> {
        // How Xen numbers vCPUs: 16 per Aff1. Guests' affinities usually agree.
        let guess = (affinity & 0xf | affinity >> 4 & 0xff0) as usize;
        match self.vcpus.get(guess) {
            Some(vcpu) if vcpu.affinity == affinity => Some(guess),
            _ => self.vcpus.iter().position(|vcpu| vcpu.affinity == affinity),
        }
    }
}
