//! Between interrupt state and list registers: the only functions that move interrupts (diagram in `vgic.rs`).
#![forbid(unsafe_code)]

use super::irq::{NOWHERE, flag};
use super::{MAX_LIST_REGISTERS, VGic, Version};
use crate::{IntId, Kicks, ListRegisters, Lr, LrState, VcpuIndex};

/// A bit for each list register there is.
#[inline]
fn all_of(lrs: &impl ListRegisters) -> u32 {
    (1u32 << lrs.count().min(MAX_LIST_REGISTERS)) - 1
}

/// The sender of an SGI to oneself. The hardware has a field for senders in GICv2 only, where there are eight.
#[inline]
const fn own_source(vcpu: VcpuIndex) -> u8 {
    vcpu.get() as u8 & 7
}

/// What [`VGic::fold`] takes out of list registers that are not empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pull {
    /// Nothing: only looks.
    Nothing,
    /// What is pending, so that it can be placed anew by priority, or not at all.
    Pending,
    /// Everything: the vCPU leaves the CPU.
    Everything,
}

/// With exactly ENABLED of these set, nothing came while the last was in its list register (other senders of an SGI
/// among it), no line holds the interrupt pending, and nobody asked for its end: there is a short way.
const SIMPLE: u16 = flag::ENABLED | flag::PENDING | flag::LINE | flag::DROP_ACTIVE;

impl VGic {
    /// Recomputes whether the interrupt wants a list register. Returns whom it waits for, if it can be delivered.
    #[inline]
    pub(super) fn refresh(&mut self, index: usize, intid: u32) -> Kicks {
        let irq = &self.irqs[index];
        let Some(vcpu) = self.vcpus.get_mut(usize::from(irq.home())) else { return Kicks::NONE };
        if irq.wants_lr() {
            vcpu.set_work(intid);
            if self.forwarding || irq.has(flag::ACTIVE) {
                return Kicks::one(VcpuIndex::new(irq.home().into()));
            }
        } else {
            vcpu.clear_work(intid);
        }
        Kicks::NONE
    }

    /// Asks the vCPU in whose list register the interrupt is to fold it; then it is looked at anew.
    #[inline]
    pub(super) fn resync_owner(&mut self, index: usize) -> Kicks {
        let irq = &self.irqs[index];
        match self.vcpus.get_mut(usize::from(irq.owner)) {
            Some(vcpu) if irq.in_lr() => {
                vcpu.resync = true;
                Kicks::one(VcpuIndex::new(irq.owner.into()))
            }
            _ => Kicks::NONE,
        }
    }

    /// Latches the interrupt pending. `source`: the sender, for a GICv2 SGI.
    #[inline]
    pub(super) fn latch(&mut self, index: usize, intid: u32, source: u8) -> Kicks {
        let sgi_v2 = intid < 16 && self.version == Version::V2;
        let irq = &mut self.irqs[index];
        irq.set(flag::PENDING);
        if irq.has(flag::HW) {
            // It came, so it was not active: what a list register may still hold of it, the guest has deactivated.
            irq.flags = irq.flags & !(flag::LR_HW | flag::LR_SOFT) | flag::HW_IN_FLIGHT;
        }
        if sgi_v2 {
            irq.sources |= 1 << (source & 7);
        }
        if irq.in_lr() { self.resync_owner(index) } else { self.refresh(index, intid) }
    }

    /// Latches an interrupt for the vCPU that is loaded here, straight into a list register, when nothing stands in the
    /// way: nobody else waits for one, and it is new, or the guest is done with the last of its kind. An SGI is the
    /// vCPU's own. `false`: nothing was done.
    #[inline]
    pub(super) fn latch_here(
        &mut self,
        vcpu: VcpuIndex,
        index: usize,
        intid: u32,
        lrs: &mut impl ListRegisters,
    ) -> bool {
        let v = vcpu.index();
        let (Some(state), Some(irq)) = (self.vcpus.get_mut(v), self.irqs.get_mut(index)) else {
            return false;
        };
        if !self.forwarding
            || state.summary != 0
            || state.busy()
            || irq.flags & SIMPLE != flag::ENABLED
            || usize::from(irq.target) != v
        {
            return false;
        }
        let slot = if irq.in_lr() {
            let slot = usize::from(irq.lr);
            // LR_SOFT: its end is still to be served.
            if usize::from(irq.owner) != v || irq.has(flag::LR_SOFT) {
                return false;
            }
            if lrs.read(slot).state != LrState::Inactive {
                return false;
            }
            slot
        } else {
            let free = !state.used & all_of(lrs);
            if irq.has(flag::ACTIVE) || free == 0 {
                return false;
            }
            let slot = free.trailing_zeros() as usize;
            let Some(held) = state.lr_intid.get_mut(slot) else { return false };
            *held = intid as u16;
            irq.lr = slot as u8;
            irq.owner = v as u8;
            slot
        };
        let mut flags = irq.flags & !(flag::ACTIVE | flag::IN_LR) | flag::LR_LATCH;
        let mut hw = None;
        if irq.has(flag::HW) {
            flags |= flag::HW_IN_FLIGHT | flag::LR_HW;
            hw = IntId::new(irq.pintid.into());
        }
        irq.flags = flags;
        state.used |= 1 << slot;
        state.lr_pending |= 1 << slot;
        let source = if intid < 16 { own_source(vcpu) } else { 0 };
        irq.lr_source = source;
        lrs.write(
            slot,
            Lr { vintid: intid, priority: irq.priority, state: LrState::Pending, hw, eoi: false, source },
        );
        true
    }

    /// What [`VGic::latch_here`] did not do.
    #[inline(never)]
    pub(super) fn latch_here_slowly(
        &mut self,
        vcpu: VcpuIndex,
        index: usize,
        intid: u32,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        if self.join(vcpu, index, intid, lrs) {
            return Kicks::NONE;
        }
        let mut kicks = self.reap(vcpu, lrs);
        if !self.latch_here(vcpu, index, intid, lrs) {
            kicks |= self.latch(index, intid, vcpu.get() as u8);
        }
        self.settle(vcpu, kicks, lrs)
    }

    /// When the guest is not done with the last of its kind: the new one is the same, or pending beside it, where a list
    /// register can hold that. `false`: nothing was done.
    fn join(&mut self, vcpu: VcpuIndex, index: usize, intid: u32, lrs: &mut impl ListRegisters) -> bool {
        let v = vcpu.index();
        let (Some(state), Some(irq)) = (self.vcpus.get_mut(v), self.irqs.get_mut(index)) else {
            return false;
        };
        if !irq.in_lr()
            || usize::from(irq.owner) != v
            || usize::from(irq.target) != v
            || irq.flags & SIMPLE != flag::ENABLED
            // Not a second state beside a physical interrupt's, nor two senders of an SGI.
            || irq.has(flag::HW | flag::LR_HW)
            || intid < 16 && irq.lr_source != own_source(vcpu)
            || !self.forwarding
            || state.summary != 0
            || state.busy()
        {
            return false;
        }
        let mut lr = lrs.read(irq.lr.into());
        match lr.state {
            LrState::Inactive => return false,
            LrState::Active => {
                lr.state = LrState::PendingActive;
                lr.priority = irq.priority;
                lrs.write(irq.lr.into(), lr);
                irq.set(flag::ACTIVE | flag::LR_LATCH);
                state.lr_pending &= !(1 << irq.lr);
            }
            LrState::Pending | LrState::PendingActive => {}
        }
        true
    }

    /// The line changed to `high`.
    #[inline]
    pub(super) fn drive_line(&mut self, index: usize, intid: u32, high: bool) -> Kicks {
        let irq = &mut self.irqs[index];
        if irq.has(flag::LINE) == high || intid < 16 {
            return Kicks::NONE;
        }
        irq.flags ^= flag::LINE;
        if irq.has(flag::EDGE) {
            // A rising line is an edge.
            return if high { self.latch(index, intid, 0) } else { Kicks::NONE };
        }
        if irq.in_lr() { self.resync_owner(index) } else { self.refresh(index, intid) }
    }

    /// Flushes whatever the quick check in [`VGic::flush`] did not rule out.
    pub(super) fn flush_slowly(&mut self, vcpu: VcpuIndex, lrs: &mut impl ListRegisters) -> Kicks {
        let v = vcpu.index();
        let Some(state) = self.vcpus.get_mut(v) else { return Kicks::NONE };
        let mut kicks = Kicks::NONE;
        let mut reaped = false;
        let mut pulled = false;
        if state.resync {
            state.resync = false;
            (reaped, pulled) = (true, true);
            kicks |= self.fold(vcpu, lrs, Pull::Pending);
        }
        let all = all_of(lrs);
        let overflow = loop {
            let Some(intid) = self.best(v) else { break false };
            let free = all & !self.vcpus[v].used;
            if free != 0 {
                self.place(v, intid, free.trailing_zeros() as usize, lrs);
            } else if !reaped {
                reaped = true;
                kicks |= self.reap(vcpu, lrs);
            } else if !pulled {
                // Full. Taking back what is pending gives the room to the most urgent ones.
                pulled = true;
                kicks |= self.fold(vcpu, lrs, Pull::Pending);
            } else {
                break true;
            }
        };
        if overflow || self.vcpus[v].no_pending_maintenance {
            self.ask_for_room(v, overflow, lrs);
        }
        kicks.without(vcpu)
    }

    /// The INTID that deserves a list register of `v` most: active ones first (their deactivation needs it), then by
    /// priority, then by number.
    #[inline]
    fn best(&self, v: usize) -> Option<u32> {
        let state = self.vcpus.get(v)?;
        let mut summary = state.summary;
        let mut best = None;
        let mut best_rank = u16::MAX;
        while summary != 0 {
            let word = summary.trailing_zeros() & 31;
            summary &= summary - 1;
            let mut bits = state.work[word as usize];
            while bits != 0 {
                let intid = word * 32 + bits.trailing_zeros();
                bits &= bits - 1;
                let Some(irq) = self.index(VcpuIndex::new(v as u32), intid).map(|index| &self.irqs[index])
                else {
                    continue;
                };
                let rank = if irq.has(flag::ACTIVE) {
                    0
                } else if self.forwarding {
                    1 + u16::from(irq.priority)
                } else {
                    continue;
                };
                if rank < best_rank {
                    (best, best_rank) = (Some(intid), rank);
                }
            }
        }
        best
    }

    /// Puts an interrupt that wants a list register into the free one `slot`.
    #[inline]
    fn place(&mut self, v: usize, intid: u32, slot: usize, lrs: &mut impl ListRegisters) {
        let Some(index) = self.index(VcpuIndex::new(v as u32), intid) else { return };
        let Some(state) = self.vcpus.get_mut(v) else { return };
        let sgi_v2 = intid < 16 && self.version == Version::V2;
        let irq = &mut self.irqs[index];
        let bit = 1 << slot;
        let hw = if irq.has(flag::HW_IN_FLIGHT) { IntId::new(irq.pintid.into()) } else { None };
        if hw.is_some() {
            irq.set(flag::LR_HW);
        }
        let lr_state = if irq.has(flag::ACTIVE) {
            LrState::Active
        } else {
            if sgi_v2 {
                irq.lr_source = irq.sources.trailing_zeros() as u8 & 7;
                irq.sources &= irq.sources.wrapping_sub(1);
                irq.set(flag::LR_LATCH);
                if irq.sources == 0 {
                    irq.clear(flag::PENDING);
                }
            } else if irq.has(flag::PENDING) {
                irq.flags = irq.flags & !flag::PENDING | flag::LR_LATCH;
            }
            state.lr_pending |= bit;
            LrState::Pending
        };
        // What will be pending again after the deactivation must be looked at then.
        let again = irq.is_pending();
        if again && hw.is_some() {
            irq.set(flag::LR_SOFT);
        }
        irq.lr = slot as u8;
        irq.owner = v as u8;
        state.used |= bit;
        if let Some(held) = state.lr_intid.get_mut(slot) {
            *held = intid as u16;
        }
        state.clear_work(intid);
        lrs.write(
            slot,
            Lr {
                vintid: intid,
                priority: irq.priority,
                state: lr_state,
                hw: if again { None } else { hw },
                eoi: again,
                source: if sgi_v2 { irq.lr_source } else { 0 },
            },
        );
    }

    /// Reads the used list registers back. Kicks may include `vcpu` itself.
    pub(super) fn fold(&mut self, vcpu: VcpuIndex, lrs: &mut impl ListRegisters, pull: Pull) -> Kicks {
        let v = vcpu.index();
        let mut kicks = Kicks::NONE;
        let Some(state) = self.vcpus.get(v) else { return kicks };
        let mut used = state.used;
        if used == 0 {
            return kicks;
        }
        let empty = lrs.empty();
        while used != 0 {
            let slot = used.trailing_zeros() as usize;
            used &= used - 1;
            let intid = u32::from(self.vcpus[v].lr_intid[slot % MAX_LIST_REGISTERS]);
            let Some(index) = self.index(vcpu, intid) else { continue };
            let lr = if empty >> slot & 1 != 0 { Lr::EMPTY } else { lrs.read(slot) };
            kicks |= match (lr.state, pull) {
                (LrState::Inactive, _) => {
                    if empty >> slot & 1 == 0 {
                        // An EOI maintenance request stands until the list register is written.
                        lrs.write(slot, Lr::EMPTY);
                    }
                    self.complete(v, index, intid, slot, lrs)
                }
                (LrState::Pending, Pull::Nothing) => {
                    self.vcpus[v].lr_pending |= 1 << slot;
                    Kicks::NONE
                }
                (LrState::Pending, _) => self.withdraw(v, index, intid, slot, lrs),
                (LrState::Active | LrState::PendingActive, _) => {
                    self.fold_active(v, index, intid, slot, lr, lrs, pull)
                }
            };
        }
        kicks
    }

    /// When no list register is known to be free: completes what the hardware says is over, without reading it.
    pub(super) fn reap(&mut self, vcpu: VcpuIndex, lrs: &mut impl ListRegisters) -> Kicks {
        let v = vcpu.index();
        let mut kicks = Kicks::NONE;
        let Some(state) = self.vcpus.get(v) else { return kicks };
        if !state.used & all_of(lrs) != 0 {
            return kicks;
        }
        let held = state.lr_intid;
        let mut over = lrs.empty() & state.used;
        while over != 0 {
            let slot = over.trailing_zeros() as usize;
            over &= over - 1;
            let intid = u32::from(held[slot % MAX_LIST_REGISTERS]);
            if let Some(index) = self.index(vcpu, intid) {
                kicks |= self.complete(v, index, intid, slot, lrs);
            }
        }
        kicks
    }

    /// The guest deactivated what list register `slot` held.
    fn complete(
        &mut self,
        v: usize,
        index: usize,
        intid: u32,
        slot: usize,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        let irq = &mut self.irqs[index];
        if irq.has(flag::LR_HW) && !irq.has(flag::LR_SOFT) {
            // The hardware did that to the physical interrupt, too.
            irq.clear(flag::HW_IN_FLIGHT);
        } else if irq.has(flag::LR_HW) || !irq.has(flag::PENDING) {
            // What is over was the physical one, or the physical one that came after it was cleared (ICPENDR).
            Self::end_physical(irq, lrs);
        }
        irq.clear(flag::ACTIVE | flag::IN_LR);
        self.vacate(v, index, slot);
        self.refresh(index, intid)
    }

    /// Takes back what is pending in list register `slot`.
    fn withdraw(
        &mut self,
        v: usize,
        index: usize,
        intid: u32,
        slot: usize,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        lrs.write(slot, Lr::EMPTY);
        self.vacate(v, index, slot);
        self.restore_latch(index, intid);
        let irq = &mut self.irqs[index];
        irq.clear(flag::IN_LR | flag::ACTIVE);
        if !irq.has(flag::PENDING) {
            // ICPENDR took the pending state: nobody else will end the physical interrupt.
            Self::end_physical(irq, lrs);
        }
        self.refresh(index, intid)
    }

    /// Deactivates the physical interrupt in the guest's place, if one is in flight.
    fn end_physical(irq: &mut super::Irq, lrs: &mut impl ListRegisters) {
        if irq.has(flag::HW_IN_FLIGHT) {
            irq.clear(flag::HW_IN_FLIGHT);
            if let Some(pintid) = IntId::new(irq.pintid.into()) {
                lrs.deactivate(pintid);
            }
        }
    }

    /// The guest has acknowledged what list register `slot` holds.
    #[allow(clippy::too_many_arguments)]
    fn fold_active(
        &mut self,
        v: usize,
        index: usize,
        intid: u32,
        slot: usize,
        mut lr: Lr,
        lrs: &mut impl ListRegisters,
        pull: Pull,
    ) -> Kicks {
        self.vcpus[v].lr_pending &= !(1 << slot);
        let irq = &mut self.irqs[index];
        irq.set(flag::ACTIVE);
        if pull == Pull::Nothing && !irq.has(flag::DROP_ACTIVE) {
            return Kicks::NONE;
        }
        if lr.state == LrState::PendingActive {
            self.restore_latch(index, intid);
            lr.state = LrState::Active;
        }
        let irq = &mut self.irqs[index];
        irq.clear(flag::LR_LATCH);
        if irq.has(flag::DROP_ACTIVE) {
            lrs.write(slot, Lr::EMPTY);
            irq.set(flag::LR_SOFT);
            return self.complete(v, index, intid, slot, lrs);
        }
        if pull == Pull::Everything {
            lrs.write(slot, Lr::EMPTY);
            irq.clear(flag::IN_LR);
            self.vacate(v, index, slot);
            return self.refresh(index, intid);
        }
        // Pending once more while active: where the hardware can hold both, it does; else the deactivation is watched.
        let sgi_v2 = intid < 16 && self.version == Version::V2;
        if irq.is_pending() && irq.has(flag::ENABLED) && self.forwarding {
            if !irq.has(flag::LR_HW | flag::HW_IN_FLIGHT)
                && irq.has(flag::PENDING)
                && !irq.line_pending()
                && usize::from(irq.target) == v
                && (!sgi_v2 || irq.sources == 1 << irq.lr_source)
            {
                lr.state = LrState::PendingActive;
                lr.priority = irq.priority;
                irq.sources = 0;
                irq.flags = irq.flags & !flag::PENDING | flag::LR_LATCH;
            } else {
                Self::watch(irq, &mut lr);
            }
        }
        lrs.write(slot, lr);
        Kicks::NONE
    }

    /// Makes the deactivation of an active interrupt raise a maintenance interrupt.
    fn watch(irq: &mut super::Irq, lr: &mut Lr) {
        if irq.has(flag::LR_HW) {
            irq.set(flag::LR_SOFT);
        }
        lr.hw = None;
        lr.eoi = true;
    }

    /// The pending state that was in a list register goes back to the latch.
    fn restore_latch(&mut self, index: usize, intid: u32) {
        let sgi_v2 = intid < 16 && self.version == Version::V2;
        let irq = &mut self.irqs[index];
        if irq.has(flag::LR_LATCH) {
            irq.set(flag::PENDING);
            if sgi_v2 {
                irq.sources |= 1 << (irq.lr_source & 7);
            }
        }
    }

    /// Book-keeping of a list register that became free.
    #[inline]
    fn vacate(&mut self, v: usize, index: usize, slot: usize) {
        self.irqs[index].lr = NOWHERE;
        if let Some(state) = self.vcpus.get_mut(v) {
            state.used &= !(1 << slot);
            state.lr_pending &= !(1 << slot);
        }
    }

    /// Makes the guest come back when there is room for what did not fit: as soon as none of the list registers is
    /// pending; or, where that holds already (it would fire for ever), at the deactivation of what they hold.
    fn ask_for_room(&mut self, v: usize, overflow: bool, lrs: &mut impl ListRegisters) {
        let Some(state) = self.vcpus.get_mut(v) else { return };
        let pending = overflow && state.lr_pending != 0;
        if state.no_pending_maintenance != pending {
            state.no_pending_maintenance = pending;
            lrs.set_no_pending_maintenance(pending);
        }
        if !overflow {
            return;
        }
        let mut active = state.used & !state.lr_pending;
        let held = state.lr_intid;
        while active != 0 {
            let slot = active.trailing_zeros() as usize;
            active &= active - 1;
            let intid = u32::from(held[slot % MAX_LIST_REGISTERS]);
            let Some(index) = self.index(VcpuIndex::new(v as u32), intid) else { continue };
            let mut lr = lrs.read(slot);
            if lr.state == LrState::PendingActive {
                // It would be pending after its deactivation, before more urgent ones that wait for room.
                self.restore_latch(index, intid);
                self.irqs[index].clear(flag::LR_LATCH);
                lr.state = LrState::Active;
            } else if pending || lr.eoi || lr.state != LrState::Active {
                continue;
            }
            Self::watch(&mut self.irqs[index], &mut lr);
            lrs.write(slot, lr);
        }
    }
}
