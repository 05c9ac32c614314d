//! A virtual CPU interface and a physical distributor that behave as the specification says.

use crate::{
    CpuInterfaceState, Frame, Host, IntId, Kicks, ListRegisters, Lr, LrState, Trigger, VGic, VGicConfig,
    VcpuIndex, Version,
};

/// vCPU `n`.
pub(super) fn vcpu(n: u32) -> VcpuIndex {
    VcpuIndex::new(n)
}

/// INTID `n`.
pub(super) fn int(n: u32) -> IntId {
    IntId::new(n).expect("a test names an INTID")
}

/// A virtual GIC whose vCPUs have affinity Aff1 = n / 16, Aff0 = n % 16.
pub(super) fn gic(version: Version, vcpus: usize, spis: u32) -> VGic {
    let affinities: Vec<u64> = (0..vcpus as u64).map(|n| 1 << 31 | (n / 16) << 8 | (n % 16)).collect();
    VGic::new(&VGicConfig { version, affinities: &affinities, spis }).expect("a legal configuration")
}

/// The virtual CPU interface of one CPU. List registers are kept as the hardware would, encoded.
#[derive(Clone, Debug)]
pub(super) struct Cpu {
    version: Version,
    raw: Vec<u64>,
    pub(super) no_pending_maintenance: bool,
    /// Physical interrupts deactivated, by software or through a list register, in order.
    pub(super) deactivated: Vec<IntId>,
    pub(super) reads: usize,
    pub(super) writes: usize,
}

impl Cpu {
    pub(super) fn new(version: Version, count: usize) -> Self {
        Self {
            version,
            raw: vec![0; count],
            no_pending_maintenance: false,
            deactivated: Vec::new(),
            reads: 0,
            writes: 0,
        }
    }

    pub(super) fn peek(&self, index: usize) -> Lr {
        match self.version {
            Version::V2 => Lr::from_v2(self.raw[index] as u32),
            Version::V3 => Lr::from_v3(self.raw[index]),
        }
    }

    fn poke(&mut self, index: usize, lr: Lr) {
        self.raw[index] = match self.version {
            Version::V2 => lr.to_v2().into(),
            Version::V3 => lr.to_v3(),
        };
    }

    fn slots(&self) -> impl Iterator<Item = (usize, Lr)> + '_ {
        (0..self.raw.len()).map(|index| (index, self.peek(index)))
    }

    /// INTIDs pending in list registers, in order of number.
    pub(super) fn pending(&self) -> Vec<u32> {
        let mut all: Vec<u32> =
            self.slots().filter(|(_, lr)| lr.state == LrState::Pending).map(|(_, lr)| lr.vintid).collect();
        all.sort_unstable();
        all
    }

    /// INTIDs active in list registers, in order of number.
    pub(super) fn active(&self) -> Vec<u32> {
        let mut all: Vec<u32> =
            self.slots().filter(|(_, lr)| lr.state.is_active()).map(|(_, lr)| lr.vintid).collect();
        all.sort_unstable();
        all
    }

    /// The list register that holds `intid`.
    pub(super) fn holding(&self, intid: u32) -> Option<Lr> {
        self.slots().find(|(_, lr)| lr.vintid == intid && lr.state != LrState::Inactive).map(|(_, lr)| lr)
    }

    /// The guest reads its acknowledge register: INTID and sender.
    pub(super) fn acknowledge(&mut self) -> Option<(u32, u8)> {
        let (slot, mut lr) = self
            .slots()
            .filter(|(_, lr)| lr.state == LrState::Pending)
            .min_by_key(|(_, lr)| (lr.priority, lr.vintid))?;
        // Two list registers with one virtual interrupt are UNPREDICTABLE.
        let twins = self
            .slots()
            .filter(|(_, other)| other.vintid == lr.vintid && other.state != LrState::Inactive)
            .count();
        assert_eq!(twins, 1, "INTID {} is in {twins} list registers", lr.vintid);
        lr.state = LrState::Active;
        self.poke(slot, lr);
        Some((lr.vintid, lr.source))
    }

    /// The guest deactivates `intid`: true when a list register held it active.
    pub(super) fn deactivate_virtual(&mut self, intid: u32) -> bool {
        let Some((slot, mut lr)) = self.slots().find(|(_, lr)| lr.vintid == intid && lr.state.is_active())
        else {
            return false;
        };
        lr.state = if lr.state == LrState::PendingActive { LrState::Pending } else { LrState::Inactive };
        self.poke(slot, lr);
        if let Some(pintid) = lr.hw {
            assert_eq!(lr.state, LrState::Inactive, "pending and active with HW is UNPREDICTABLE");
            self.deactivated.push(pintid);
        }
        true
    }

    /// Is the maintenance interrupt raised?
    pub(super) fn maintenance(&self) -> bool {
        let none_pending = self.slots().all(|(_, lr)| lr.state != LrState::Pending);
        let eoi = self.slots().any(|(_, lr)| lr.state == LrState::Inactive && lr.eoi && lr.hw.is_none());
        self.no_pending_maintenance && none_pending || eoi
    }
}

impl ListRegisters for Cpu {
    fn count(&self) -> usize {
        self.raw.len()
    }

    fn read(&mut self, index: usize) -> Lr {
        self.reads += 1;
        self.peek(index)
    }

    fn write(&mut self, index: usize, lr: Lr) {
        self.writes += 1;
        self.poke(index, lr);
    }

    fn empty(&mut self) -> u32 {
        self.slots()
            .filter(|(_, lr)| lr.state == LrState::Inactive && (lr.hw.is_some() || !lr.eoi))
            .fold(0, |mask, (index, _)| mask | 1 << index)
    }

    fn set_no_pending_maintenance(&mut self, on: bool) {
        self.no_pending_maintenance = on;
    }

    fn deactivate(&mut self, pintid: IntId) {
        self.deactivated.push(pintid);
    }
}

/// What the virtual GIC asked of the physical distributor.
#[derive(Debug, Default)]
pub(super) struct Distributor {
    pub(super) enabled: Vec<u32>,
    pub(super) triggers: Vec<(u32, Trigger)>,
    pub(super) routes: Vec<(u32, u32)>,
}

impl Host for Distributor {
    fn enable(&mut self, pintid: IntId) {
        self.enabled.push(pintid.get());
    }

    fn disable(&mut self, pintid: IntId) {
        self.enabled.retain(|&enabled| enabled != pintid.get());
    }

    fn set_trigger(&mut self, pintid: IntId, trigger: Trigger) {
        self.triggers.push((pintid.get(), trigger));
    }

    fn route(&mut self, pintid: IntId, vcpu: VcpuIndex) {
        self.routes.push((pintid.get(), vcpu.get()));
    }
}

/// A machine with every vCPU loaded on a CPU of its own, until [`Machine::save`].
pub(super) struct Machine {
    pub(super) gic: VGic,
    away: Vec<bool>,
    pub(super) cpus: Vec<Cpu>,
    pub(super) host: Distributor,
}

impl Machine {
    /// The distributor forwards; nothing else is set up.
    pub(super) fn new(version: Version, vcpus: usize, list_registers: usize) -> Self {
        let mut machine = Self {
            gic: gic(version, vcpus, 96),
            away: vec![false; vcpus],
            cpus: vec![Cpu::new(version, list_registers); vcpus],
            host: Distributor::default(),
        };
        machine.write(0, 0x000, 4, 3);
        machine
    }

    pub(super) fn both(vcpus: usize, list_registers: usize) -> [Self; 2] {
        [Version::V2, Version::V3].map(|version| Self::new(version, vcpus, list_registers))
    }

    /// Writes the distributor from vCPU `cpu`, and serves everybody's kicks.
    pub(super) fn write(&mut self, cpu: u32, offset: u32, width: u32, value: u64) {
        let kicks = self.write_without_kicks(cpu, Frame::Distributor, offset, width, value);
        self.serve(kicks);
    }

    pub(super) fn write_without_kicks(
        &mut self,
        cpu: u32,
        frame: Frame,
        offset: u32,
        width: u32,
        value: u64,
    ) -> Kicks {
        let kicks = self.gic.write(
            vcpu(cpu),
            frame,
            offset,
            width,
            value,
            &mut self.cpus[cpu as usize],
            &mut self.host,
        );
        assert!(!kicks.contains(vcpu(cpu)), "the writer is served at once");
        kicks
    }

    /// Writes a register of a bank of private or shared interrupts, where the version has it.
    pub(super) fn write_bank(&mut self, cpu: u32, private: bool, offset: u32, width: u32, value: u64) {
        let frame = if private && self.gic.version() == Version::V3 {
            Frame::Redistributor { vcpu: vcpu(cpu), sgi: true }
        } else {
            Frame::Distributor
        };
        let kicks = self.write_without_kicks(cpu, frame, offset, width, value);
        self.serve(kicks);
    }

    pub(super) fn read(&mut self, cpu: u32, offset: u32, width: u32) -> u64 {
        self.gic.read(vcpu(cpu), Frame::Distributor, offset, width, &mut self.cpus[cpu as usize])
    }

    pub(super) fn read_bank(&mut self, cpu: u32, private: bool, offset: u32, width: u32) -> u64 {
        let frame = if private && self.gic.version() == Version::V3 {
            Frame::Redistributor { vcpu: vcpu(cpu), sgi: true }
        } else {
            Frame::Distributor
        };
        self.gic.read(vcpu(cpu), frame, offset, width, &mut self.cpus[cpu as usize])
    }

    /// Enables `intid` (a private one at vCPU `cpu`) with this priority.
    pub(super) fn enable(&mut self, cpu: u32, intid: u32, priority: u8) {
        self.write_bank(cpu, intid < 32, 0x400 + intid, 1, priority.into());
        self.write_bank(cpu, intid < 32, 0x100 + intid / 32 * 4, 4, 1 << (intid % 32));
    }

    pub(super) fn disable(&mut self, cpu: u32, intid: u32) {
        self.write_bank(cpu, intid < 32, 0x180 + intid / 32 * 4, 4, 1 << (intid % 32));
    }

    /// Makes an SPI edge-triggered.
    pub(super) fn edge(&mut self, intid: u32) {
        let offset = 0xc00 + intid / 16 * 4;
        let old = self.read_bank(0, intid < 32, offset, 4);
        self.write_bank(0, intid < 32, offset, 4, old | 2 << (intid % 16 * 2));
    }

    pub(super) fn pulse(&mut self, cpu: u32, intid: u32) {
        let kicks = self.gic.pulse(vcpu(cpu), int(intid));
        self.serve(kicks);
    }

    pub(super) fn level(&mut self, cpu: u32, intid: u32, high: bool) {
        let kicks = self.gic.set_level(vcpu(cpu), int(intid), high);
        self.serve(kicks);
    }

    pub(super) fn serve(&mut self, kicks: Kicks) {
        let mut left = kicks;
        while let Some(kicked) = left.next() {
            if !self.away[kicked.index()] {
                left |= self.gic.flush(kicked, &mut self.cpus[kicked.index()]);
            }
        }
    }

    /// vCPU `cpu` leaves its CPU.
    pub(super) fn save(&mut self, cpu: u32, interface: &CpuInterfaceState) {
        let kicks = self.gic.save(vcpu(cpu), &mut self.cpus[cpu as usize], interface);
        self.away[cpu as usize] = true;
        self.serve(kicks);
    }

    /// vCPU `cpu` comes back.
    pub(super) fn restore(&mut self, cpu: u32) {
        let kicks = self.gic.restore(vcpu(cpu), &mut self.cpus[cpu as usize]);
        self.away[cpu as usize] = false;
        self.serve(kicks);
    }

    /// The guest of vCPU `cpu` acknowledges.
    pub(super) fn acknowledge(&mut self, cpu: u32) -> Option<u32> {
        let taken = self.cpus[cpu as usize].acknowledge().map(|(intid, _)| intid);
        self.maintain(cpu);
        taken
    }

    /// The guest of vCPU `cpu` deactivates.
    pub(super) fn deactivate(&mut self, cpu: u32, intid: u32) {
        assert!(self.cpus[cpu as usize].deactivate_virtual(intid), "{intid} was not active");
        self.maintain(cpu);
    }

    /// Serves maintenance interrupts. One that comes back at once would come for ever.
    pub(super) fn maintain(&mut self, cpu: u32) {
        if self.cpus[cpu as usize].maintenance() {
            let kicks = self.gic.maintain(vcpu(cpu), &mut self.cpus[cpu as usize]);
            assert!(
                !self.cpus[cpu as usize].maintenance(),
                "the maintenance interrupt stays raised: livelock"
            );
            self.serve(kicks);
        }
    }

    /// Everything the guest of vCPU `cpu` gets, when it handles one after the other.
    pub(super) fn drain(&mut self, cpu: u32) -> Vec<u32> {
        let mut taken = Vec::new();
        while let Some(intid) = self.acknowledge(cpu) {
            taken.push(intid);
            self.deactivate(cpu, intid);
            assert!(taken.len() < 10_000, "never ends");
        }
        taken
    }
}
