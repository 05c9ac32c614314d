//! Registers of the distributor, and the per-interrupt banks that the redistributors have in common with it.
//!
//! Decoding goes by `offset >> 7`, the size of one bank of bits. What is not named here reads as zero and ignores
//! writes; `docs/support.md` says why for each register.
#![forbid(unsafe_code)]

use super::irq::{Irq, flag};
use super::redistributor::is_private_bank;
use super::{VGic, Version};
use crate::{Host, IntId, Kicks, ListRegisters, Trigger, VcpuIndex};

/// GICD_IIDR and GICR_IIDR: implementer Arm (0x43b), nothing else claimed.
pub(super) const IIDR: u32 = 0x43b;
/// The first of GICD_PIDR4 … GICD_CIDR3 in a 64 KiB frame.
const ID_V3: u32 = 0xffd0;
/// GICD_CTLR.ARE_NS, as the Non-secure side sees it: fixed, since no GICv2-style distributor is offered with GICv3.
const CTLR_ARE_NS: u32 = 1 << 4;

/// The identification registers at the end of a frame, `offset` counted from GICD_PIDR4: only PIDR2.ArchRev (7:4), by
/// which operating systems tell the architecture version, and JEP106 (3) are not zero.
pub(super) const fn identification(offset: u32, version: Version) -> u32 {
    match (offset, version) {
        (0x18, Version::V2) => 0x2b,
        (0x18, Version::V3) => 0x3b,
        _ => 0,
    }
}

impl VGic {
    #[inline]
    pub(super) fn read_distributor(
        &self,
        vcpu: VcpuIndex,
        offset: u32,
        width: u32,
        lrs: &mut impl ListRegisters,
    ) -> u64 {
        match (offset >> 7, width) {
            (0, 4) => match offset {
                0x00 => match self.version {
                    Version::V2 => self.forwarding.into(),
                    // EnableGrp1A; never RWP: a write is in force when the trap returns.
                    Version::V3 => (u32::from(self.forwarding) << 1 | CTLR_ARE_NS).into(),
                },
                0x04 => self.typer.into(),
                0x08 => IIDR.into(),
                _ => 0,
            },
            // With affinity routing the private interrupts are in the redistributors only.
            (1..=25, _) if self.version == Version::V3 && is_private_bank(offset) => 0,
            (1..=25, _) => self.read_banks(vcpu, vcpu, offset, width, lrs).into(),
            (30, _) if self.version == Version::V2 => self.read_sgi_pending(vcpu, offset, width, lrs).into(),
            (31, 4) if self.version == Version::V2 && offset >= 0xfd0 => {
                identification(offset - 0xfd0, self.version).into()
            }
            (0xc0..0x100, 4 | 8) if self.version == Version::V3 => self.read_router(offset, width),
            (0x1ff, 4) if self.version == Version::V3 && offset >= ID_V3 => {
                identification(offset - ID_V3, self.version).into()
            }
            _ => 0,
        }
    }

    /// Everything but the two registers that [`VGic::write`] picks out: priorities and GICD_SGIR.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn write_distributor(
        &mut self,
        vcpu: VcpuIndex,
        offset: u32,
        width: u32,
        value: u64,
        lrs: &mut impl ListRegisters,
        host: &mut impl Host,
    ) -> Kicks {
        match (offset >> 7, width) {
            (0, 4) if offset == 0 => self.write_ctlr(value as u32),
            (1..=25, _) if self.version == Version::V3 && is_private_bank(offset) => Kicks::NONE,
            (1..=25, _) => self.write_banks(vcpu, vcpu, offset, width, value as u32, lrs, host),
            (30, _) if self.version == Version::V2 => {
                self.write_sgi_pending(vcpu, offset, width, value as u32, lrs)
            }
            (0xc0..0x100, 4 | 8) if self.version == Version::V3 => {
                self.write_router(offset, width, value, host)
            }
            _ => Kicks::NONE,
        }
    }

    fn write_ctlr(&mut self, value: u32) -> Kicks {
        let on = match self.version {
            Version::V2 => value & 1 != 0,
            Version::V3 => value & 2 != 0,
        };
        if on == self.forwarding {
            return Kicks::NONE;
        }
        self.forwarding = on;
        let mut kicks = Kicks::NONE;
        for (number, vcpu) in self.vcpus.iter_mut().enumerate() {
            vcpu.resync |= vcpu.used != 0;
            if vcpu.used | vcpu.summary != 0 {
                kicks.add(VcpuIndex::new(number as u32));
            }
        }
        kicks
    }

    /// Reads one of the banks 0x080–0xcff, private interrupts being those of `whose`. `viewer` is loaded here.
    #[inline]
    pub(super) fn read_banks(
        &self,
        viewer: VcpuIndex,
        whose: VcpuIndex,
        offset: u32,
        width: u32,
        lrs: &mut impl ListRegisters,
    ) -> u32 {
        match (offset >> 7, width) {
            (2 | 3, 4) => self.read_bits(whose, offset, |irq| irq.has(flag::ENABLED)),
            (4 | 5, 4) => self.read_bits(whose, offset, |irq| self.pending_now(viewer, irq, lrs)),
            (6 | 7, 4) => self.read_bits(whose, offset, |irq| self.active_now(viewer, irq, lrs)),
            (8..=15, 1 | 4) => self.read_bytes(whose, offset & 0x3ff, width, |_, irq| irq.priority),
            (16..=23, 1 | 4) if self.version == Version::V2 => {
                self.read_bytes(whose, offset & 0x3ff, width, |intid, irq| match intid {
                    // Banked, read-only: which CPU am I?
                    0..=31 => 1 << (irq.target & 7),
                    _ => self.routes.get(intid as usize - 32).map_or(0, |&route| route as u8),
                })
            }
            (24 | 25, 4) => {
                let first = (offset & 0xfc) * 4;
                (0..16)
                    .filter(|&n| self.visible(whose, first + n).is_some_and(|irq| irq.has(flag::EDGE)))
                    .fold(0, |word, n| word | 2 << (n * 2))
            }
            // IGROUPR among them: the guest is on the Non-secure side, where it reads as zero.
            _ => 0,
        }
    }

    /// The write side of [`VGic::read_banks`].
    #[inline]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn write_banks(
        &mut self,
        current: VcpuIndex,
        whose: VcpuIndex,
        offset: u32,
        width: u32,
        value: u32,
        lrs: &mut impl ListRegisters,
        host: &mut impl Host,
    ) -> Kicks {
        match (offset >> 7, width) {
            (2, 4) => self.each_bit(whose, offset, value, |gic, index, intid| gic.enable(index, intid, host)),
            (3, 4) => {
                self.each_bit(whose, offset, value, |gic, index, intid| gic.disable(index, intid, host))
            }
            (4..=7, 4) => {
                // What is pending comes back from the list registers first, so that there is one place to change. The
                // caller's flush puts it there again.
                let kicks = self.fold(current, lrs, super::delivery::Pull::Pending);
                kicks
                    | Kicks::one(current)
                    | self.each_bit(whose, offset, value, |gic, index, intid| match offset >> 7 {
                        4 => gic.make_pending(index, intid),
                        5 => gic.make_not_pending(current, index, intid, lrs),
                        6 => gic.make_active(index, intid),
                        _ => gic.make_inactive(current, index, intid, lrs),
                    })
            }
            (8..=15, _) => self.write_priority_bytes(whose, offset & 0x3ff, width, value),
            (16..=23, 1) if self.version == Version::V2 => self.write_targets(offset & 0x3ff, value, host),
            (16..=23, 4) if self.version == Version::V2 => (0..4).fold(Kicks::NONE, |kicks, n| {
                kicks | self.write_targets((offset & 0x3fc) + n, value >> (n * 8), host)
            }),
            (24 | 25, 4) => {
                let first = (offset & 0xfc) * 4;
                (0..16).fold(Kicks::NONE, |kicks, n| {
                    kicks | self.write_trigger(whose, first + n, value >> (n * 2) & 2 != 0, host)
                })
            }
            _ => Kicks::NONE,
        }
    }

    /// Where the interrupt is, unless the guest must look for it in a redistributor: the caller passes private ones of
    /// GICv3 only from there.
    #[inline]
    fn visible(&self, whose: VcpuIndex, intid: u32) -> Option<&Irq> {
        self.index(whose, intid).map(|index| &self.irqs[index])
    }

    fn read_bits(&self, whose: VcpuIndex, offset: u32, mut is_set: impl FnMut(&Irq) -> bool) -> u32 {
        let first = (offset & 0x7c) * 8;
        (0..32)
            .filter(|&n| self.visible(whose, first + n).is_some_and(&mut is_set))
            .fold(0, |word, n| word | 1 << n)
    }

    #[inline]
    fn each_bit(
        &mut self,
        whose: VcpuIndex,
        offset: u32,
        mut value: u32,
        mut act: impl FnMut(&mut Self, usize, u32) -> Kicks,
    ) -> Kicks {
        let mut kicks = Kicks::NONE;
        let first = (offset & 0x7c) * 8;
        while value != 0 {
            let intid = first + value.trailing_zeros();
            value &= value - 1;
            if let Some(index) = self.index(whose, intid) {
                kicks |= act(self, index, intid);
            }
        }
        kicks
    }

    /// Byte registers, one per interrupt: one byte, or four when `width` says so.
    #[inline]
    fn read_bytes(&self, whose: VcpuIndex, intid: u32, width: u32, byte: impl Fn(u32, &Irq) -> u8) -> u32 {
        let one = |intid| self.visible(whose, intid).map_or(0, |irq| byte(intid, irq).into());
        match width {
            1 => one(intid),
            4 => (0..4).fold(0, |word, n| word | one(intid + n) << (n * 8)),
            _ => 0,
        }
    }

    /// Is it pending, as `viewer` (loaded here) must see it?
    fn pending_now(&self, viewer: VcpuIndex, irq: &Irq, lrs: &mut impl ListRegisters) -> bool {
        if irq.is_pending() {
            return true;
        }
        match self.vcpus.get(usize::from(irq.owner)) {
            Some(owner) if irq.in_lr() => {
                if viewer.index() == usize::from(irq.owner) {
                    lrs.read(irq.lr.into()).state.is_pending()
                } else {
                    owner.lr_pending >> irq.lr & 1 != 0 || irq.has(flag::LR_LATCH)
                }
            }
            _ => false,
        }
    }

    /// Is it active, as `viewer` (loaded here) must see it? While another vCPU has been asked to read its list
    /// registers back, what is in them counts as active: whoever waits for the end of a handler, having disabled the
    /// interrupt, must not be told too early.
    fn active_now(&self, viewer: VcpuIndex, irq: &Irq, lrs: &mut impl ListRegisters) -> bool {
        if !irq.in_lr() {
            return irq.has(flag::ACTIVE);
        }
        if viewer.index() == usize::from(irq.owner) {
            return lrs.read(irq.lr.into()).state.is_active();
        }
        irq.has(flag::ACTIVE) || self.vcpus.get(usize::from(irq.owner)).is_some_and(|owner| owner.resync)
    }

    fn enable(&mut self, index: usize, intid: u32, host: &mut impl Host) -> Kicks {
        let irq = &mut self.irqs[index];
        if irq.has(flag::ENABLED) {
            return Kicks::NONE;
        }
        irq.set(flag::ENABLED);
        if let Some(pintid) = backing_spi(irq) {
            host.enable(pintid);
        }
        // In a list register it is active, and what is pending beside it may now follow.
        if irq.in_lr() { self.resync_owner(index) } else { self.refresh(index, intid) }
    }

    fn disable(&mut self, index: usize, intid: u32, host: &mut impl Host) -> Kicks {
        let irq = &mut self.irqs[index];
        if !irq.has(flag::ENABLED) {
            return Kicks::NONE;
        }
        irq.clear(flag::ENABLED);
        if let Some(pintid) = backing_spi(irq) {
            host.disable(pintid);
        }
        // Pending in a list register it must come back; active it stays, or nobody could deactivate it.
        if irq.in_lr() { self.resync_owner(index) } else { self.refresh(index, intid) }
    }

    fn make_pending(&mut self, index: usize, intid: u32) -> Kicks {
        if intid < 16 && self.version == Version::V2 {
            return Kicks::NONE;
        }
        let irq = &mut self.irqs[index];
        irq.set(flag::PENDING);
        if irq.in_lr() { self.resync_owner(index) } else { self.refresh(index, intid) }
    }

    fn make_not_pending(
        &mut self,
        current: VcpuIndex,
        index: usize,
        intid: u32,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        if intid < 16 && self.version == Version::V2 {
            return Kicks::NONE;
        }
        let irq = &mut self.irqs[index];
        irq.clear(flag::PENDING);
        if irq.in_lr() {
            // The owner's next fold finds the latch gone, and drops what is pending.
            irq.clear(flag::LR_LATCH);
            return self.resync_owner(index);
        }
        if irq.has(flag::HW_IN_FLIGHT) && !irq.has(flag::ACTIVE) {
            irq.clear(flag::HW_IN_FLIGHT);
            release(current, irq, lrs);
        }
        self.refresh(index, intid)
    }

    fn make_active(&mut self, index: usize, intid: u32) -> Kicks {
        let irq = &mut self.irqs[index];
        if irq.in_lr() || irq.has(flag::ACTIVE) {
            return Kicks::NONE;
        }
        irq.owner = irq.target;
        irq.set(flag::ACTIVE);
        self.refresh(index, intid)
    }

    fn make_inactive(
        &mut self,
        current: VcpuIndex,
        index: usize,
        intid: u32,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        let irq = &mut self.irqs[index];
        if irq.in_lr() {
            irq.set(flag::DROP_ACTIVE);
            let kicks = self.resync_owner(index);
            return if kicks.contains(current) {
                self.fold(current, lrs, super::delivery::Pull::Pending)
            } else {
                kicks
            };
        }
        if !irq.has(flag::ACTIVE) {
            return Kicks::NONE;
        }
        // It may wait at its owner for a list register; from here on it is its target's business.
        if let Some(owner) = self.vcpus.get_mut(usize::from(irq.owner)) {
            owner.clear_work(intid);
        }
        irq.clear(flag::ACTIVE);
        if irq.has(flag::HW_IN_FLIGHT) && !irq.has(flag::PENDING) {
            irq.clear(flag::HW_IN_FLIGHT);
            release(current, irq, lrs);
        }
        self.refresh(index, intid)
    }

    /// GICD_IPRIORITYR by byte or word.
    #[inline]
    pub(super) fn write_priorities(
        &mut self,
        whose: VcpuIndex,
        offset: u32,
        width: u32,
        value: u32,
    ) -> Kicks {
        let intid = offset & 0x3ff;
        if intid < 32 && self.version == Version::V3 {
            // With affinity routing the private interrupts are in the redistributors only.
            return Kicks::NONE;
        }
        self.write_priority_bytes(whose, intid, width, value)
    }

    /// Five bits are implemented, as in GIC-400's and most GICv3s' virtual interfaces.
    #[inline]
    fn write_priority_bytes(&mut self, whose: VcpuIndex, intid: u32, width: u32, mut value: u32) -> Kicks {
        let count = match width {
            1 => 1,
            4 => 4,
            _ => return Kicks::NONE,
        };
        let Some(first) = self.index(whose, intid) else { return Kicks::NONE };
        let Some(irqs) = self.irqs.get_mut(first..first + count) else { return Kicks::NONE };
        let mut matters = false;
        for irq in irqs {
            let priority = value as u8 & 0xf8;
            value >>= 8;
            matters |= (irq.in_lr() | irq.has(flag::PENDING | flag::LINE)) & (irq.priority != priority);
            irq.priority = priority;
        }
        if matters { self.reprioritize(first, count) } else { Kicks::NONE }
    }

    /// Priorities changed of interrupts that are in list registers, or wait for one: there they count as soon as the list
    /// registers are filled anew. What is only active keeps the priority it was taken with.
    #[inline(never)]
    fn reprioritize(&mut self, first: usize, count: usize) -> Kicks {
        let mut kicks = Kicks::NONE;
        for irq in self.irqs.iter().skip(first).take(count) {
            let home = if irq.in_lr() { irq.owner } else { irq.home() };
            let Some(vcpu) = self.vcpus.get_mut(usize::from(home)) else { continue };
            let counts = if irq.in_lr() {
                vcpu.lr_pending >> irq.lr & 1 != 0 || irq.has(flag::LR_LATCH)
            } else {
                irq.wants_lr()
            };
            if counts {
                vcpu.resync = true;
                kicks.add(VcpuIndex::new(home.into()));
            }
        }
        kicks
    }

    /// GICD_ITARGETSR of an SPI.
    fn write_targets(&mut self, intid: u32, value: u32, host: &mut impl Host) -> Kicks {
        let everyone = (1u32 << self.vcpus.len().min(8)) - 1;
        match self.routes.get_mut(intid.wrapping_sub(32) as usize) {
            Some(route) => *route = (value & everyone).into(),
            None => return Kicks::NONE,
        }
        self.apply_route(intid, host)
    }

    fn write_trigger(&mut self, whose: VcpuIndex, intid: u32, edge: bool, host: &mut impl Host) -> Kicks {
        let Some(index) = self.index(whose, intid) else { return Kicks::NONE };
        let irq = &mut self.irqs[index];
        if irq.has(flag::EDGE) == edge || intid < 16 {
            return Kicks::NONE;
        }
        irq.flags ^= flag::EDGE;
        if let Some(pintid) = backing_spi(irq) {
            host.set_trigger(pintid, if edge { Trigger::Edge } else { Trigger::Level });
        }
        if irq.in_lr() { self.resync_owner(index) } else { self.refresh(index, intid) }
    }

    /// The SPI's route register was written: tells the one who had it, and the one who gets it.
    fn apply_route(&mut self, intid: u32, host: &mut impl Host) -> Kicks {
        let target = self.resolve_route(intid);
        let Some(index) = self.index(VcpuIndex::new(0), intid) else { return Kicks::NONE };
        let irq = &mut self.irqs[index];
        if irq.target == target {
            return Kicks::NONE;
        }
        let before = irq.home();
        irq.target = target;
        if let Some(pintid) = backing_spi(irq)
            && usize::from(target) < self.vcpus.len()
        {
            host.route(pintid, VcpuIndex::new(target.into()));
        }
        if irq.in_lr() {
            // Pending there it comes back and moves on; active it stays until its deactivation.
            return self.resync_owner(index);
        }
        if let Some(before) = self.vcpus.get_mut(usize::from(before)) {
            before.clear_work(intid);
        }
        self.refresh(index, intid)
    }

    /// GICD_IROUTER<n>, 64 bits or a half of it. There are none for private interrupts.
    fn read_router(&self, offset: u32, width: u32) -> u64 {
        let route = self.routes.get(((offset - 0x6000) / 8).wrapping_sub(32) as usize).copied().unwrap_or(0);
        match (offset & 7, width) {
            (0, 8) => route,
            (0, 4) => route & 0xffff_ffff,
            (4, 4) => route >> 32,
            _ => 0,
        }
    }

    fn write_router(&mut self, offset: u32, width: u32, value: u64, host: &mut impl Host) -> Kicks {
        let intid = (offset - 0x6000) / 8;
        let Some(route) = self.routes.get_mut(intid.wrapping_sub(32) as usize) else { return Kicks::NONE };
        let written = match (offset & 7, width) {
            (0, 8) => value,
            (0, 4) => *route & !0xffff_ffff | value & 0xffff_ffff,
            (4, 4) => *route & 0xffff_ffff | value << 32,
            _ => return Kicks::NONE,
        };
        // Aff3, Interrupt_Routing_Mode, Aff2, Aff1, Aff0.
        *route = written & 0xff_80ff_ffff;
        self.apply_route(intid, host)
    }

    /// GICD_CPENDSGIR and GICD_SPENDSGIR: one byte per SGI, one bit per sender.
    fn read_sgi_pending(
        &self,
        vcpu: VcpuIndex,
        offset: u32,
        width: u32,
        lrs: &mut impl ListRegisters,
    ) -> u32 {
        if !(0xf10..0xf30).contains(&offset) {
            return 0;
        }
        let mut one = |intid: u32| {
            let Some(irq) = self.visible(vcpu, intid) else { return 0 };
            let held = irq.in_lr() && lrs.read(irq.lr.into()).state.is_pending();
            u32::from(irq.sources | if held { 1 << (irq.lr_source & 7) } else { 0 })
        };
        match width {
            1 => one(offset & 0xf),
            4 => (0..4).fold(0, |word, n| word | one((offset & 0xf) + n) << (n * 8)),
            _ => 0,
        }
    }

    fn write_sgi_pending(
        &mut self,
        vcpu: VcpuIndex,
        offset: u32,
        width: u32,
        value: u32,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        let count = match width {
            1 => 1,
            4 => 4,
            _ => return Kicks::NONE,
        };
        if !(0xf10..0xf30).contains(&offset) {
            return Kicks::NONE;
        }
        let mut kicks = self.fold(vcpu, lrs, super::delivery::Pull::Pending) | Kicks::one(vcpu);
        for n in 0..count {
            let intid = (offset & 0xf) + n;
            let senders = (value >> (n * 8)) as u8;
            let Some(index) = self.index(vcpu, intid) else { continue };
            let irq = &mut self.irqs[index];
            if offset < 0xf20 {
                irq.sources &= !senders;
            } else {
                irq.sources |= senders;
            }
            if irq.sources == 0 {
                irq.clear(flag::PENDING);
            } else {
                irq.set(flag::PENDING);
            }
            kicks |= if irq.in_lr() { self.resync_owner(index) } else { self.refresh(index, intid) };
        }
        kicks
    }
}

/// The physical SPI behind it.
#[inline]
fn backing_spi(irq: &Irq) -> Option<IntId> {
    if irq.has(flag::HW) { IntId::new(irq.pintid.into()).filter(|pintid| pintid.is_spi()) } else { None }
}

/// Ends the physical interrupt behind one that the guest will not deactivate. A PPI is ended only where it is: on the
/// CPU of the vCPU it belongs to.
fn release(current: VcpuIndex, irq: &Irq, lrs: &mut impl ListRegisters) {
    if let Some(pintid) = IntId::new(irq.pintid.into())
        && (pintid.is_spi() || usize::from(irq.target) == current.index())
    {
        lrs.deactivate(pintid);
    }
}
