//! The way of an interrupt through the list registers.

use super::fake::{Machine, int, vcpu};
use crate::{CpuInterfaceState, Frame, ListRegisters, Lr, LrState, SgiRegister, Version};

#[test]
fn list_registers_say_what_is_wanted() {
    for mut machine in Machine::both(1, 4) {
        machine.enable(0, 40, 0x98);
        machine.level(0, 40, true);
        let wanted =
            Lr { vintid: 40, priority: 0x98, state: LrState::Pending, hw: None, eoi: true, source: 0 };
        assert_eq!(machine.cpus[0].holding(40), Some(wanted), "a high line asks to be sampled again");
        machine.edge(41);
        machine.enable(0, 41, 0x10);
        assert!(machine.gic.attach_hw(vcpu(0), int(41), Some(int(90)), &mut machine.host));
        machine.pulse(0, 41);
        let wanted = Lr {
            vintid: 41,
            priority: 0x10,
            state: LrState::Pending,
            hw: Some(int(90)),
            eoi: false,
            source: 0,
        };
        assert_eq!(machine.cpus[0].holding(41), Some(wanted));
    }
}

#[test]
fn one_injection_is_one_write() {
    for mut machine in Machine::both(1, 4) {
        machine.enable(0, 27, 0xa0);
        let before = (machine.cpus[0].reads, machine.cpus[0].writes);
        let kicks = machine.gic.inject_current(vcpu(0), int(27), &mut machine.cpus[0]);
        assert!(kicks.is_empty());
        assert_eq!(machine.cpus[0].pending(), [27]);
        assert_eq!((machine.cpus[0].reads, machine.cpus[0].writes), (before.0, before.1 + 1));
        let idle = (machine.cpus[0].reads, machine.cpus[0].writes);
        let _ = machine.gic.flush(vcpu(0), &mut machine.cpus[0]);
        assert_eq!((machine.cpus[0].reads, machine.cpus[0].writes), idle, "nothing to do, nothing touched");
    }
}

#[test]
fn disable_pulls_back_what_is_pending() {
    for mut machine in Machine::both(2, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        machine.pulse(0, 40);
        machine.disable(0, 40);
        assert_eq!(machine.cpus[0].pending(), []);
        assert_eq!(machine.read(0, 0x204, 4), 1 << 8, "pending all the same");
        machine.enable(0, 40, 0);
        assert_eq!(machine.cpus[0].pending(), [40]);
        machine.disable(1, 40);
        assert_eq!(machine.cpus[0].pending(), [], "from another vCPU, too");
        machine.enable(1, 40, 0);
        assert_eq!(machine.drain(0), [40]);
    }
}

#[test]
fn level_is_sampled_at_deactivation() {
    for mut machine in Machine::both(1, 4) {
        machine.enable(0, 40, 0);
        machine.level(0, 40, true);
        for _ in 0..3 {
            assert_eq!(machine.acknowledge(0), Some(40));
            assert_eq!(machine.acknowledge(0), None, "active");
            machine.deactivate(0, 40);
        }
        assert_eq!(machine.acknowledge(0), Some(40));
        machine.level(0, 40, false);
        machine.deactivate(0, 40);
        assert_eq!(machine.acknowledge(0), None);
        machine.level(0, 40, true);
        machine.level(0, 40, false);
        assert_eq!(machine.acknowledge(0), None, "low again before it was taken");
        machine.disable(0, 40);
        machine.level(0, 40, true);
        assert_eq!(machine.acknowledge(0), None);
        machine.enable(0, 40, 0);
        assert_eq!(machine.acknowledge(0), Some(40));
        // Raised once more while active with its line having been low at the acknowledge.
        machine.level(0, 40, false);
        machine.level(0, 40, true);
        machine.deactivate(0, 40);
        assert_eq!(machine.acknowledge(0), Some(40));
    }
}

#[test]
fn an_edge_while_active_comes_after_it() {
    for mut machine in Machine::both(1, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        machine.pulse(0, 40);
        machine.pulse(0, 40);
        assert_eq!(machine.acknowledge(0), Some(40), "two edges before the acknowledge are one");
        machine.pulse(0, 40);
        machine.pulse(0, 40);
        assert_eq!(machine.cpus[0].holding(40).map(|lr| lr.state), Some(LrState::PendingActive));
        assert_eq!(machine.acknowledge(0), None);
        machine.disable(0, 40);
        assert_eq!(
            machine.cpus[0].holding(40).map(|lr| lr.state),
            Some(LrState::Active),
            "disabled, only active"
        );
        machine.enable(0, 40, 0);
        machine.deactivate(0, 40);
        assert_eq!(machine.drain(0), [40]);
    }
}

#[test]
fn hardware_stays_active_until_the_guest_is_done() {
    for mut machine in Machine::both(1, 1) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        assert!(machine.gic.attach_hw(vcpu(0), int(40), Some(int(90)), &mut machine.host));
        machine.pulse(0, 40);
        assert_eq!(machine.acknowledge(0), Some(40));
        // Pended by software beside it: no HW list register can hold both.
        machine.write(0, 0x204, 4, 1 << 8);
        assert_eq!(machine.cpus[0].deactivated, []);
        machine.deactivate(0, 40);
        assert_eq!(machine.cpus[0].deactivated, [int(90)]);
        assert_eq!(machine.drain(0), [40]);
        assert_eq!(machine.cpus[0].deactivated, [int(90)], "that one was not hardware's");
        // Cleared before it was taken: ended in the guest's place.
        machine.pulse(0, 40);
        machine.write(0, 0x284, 4, 1 << 8);
        assert_eq!(machine.drain(0), []);
        assert_eq!(machine.cpus[0].deactivated, [int(90), int(90)]);
        // Made inactive by register.
        machine.pulse(0, 40);
        assert_eq!(machine.acknowledge(0), Some(40));
        machine.write(0, 0x384, 4, 1 << 8);
        assert_eq!(machine.cpus[0].active(), []);
        assert_eq!(machine.cpus[0].deactivated.len(), 3);
    }
}

#[test]
fn state_reads_see_into_list_registers() {
    for mut machine in Machine::both(2, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        machine.pulse(0, 40);
        assert_eq!((machine.read(0, 0x204, 4), machine.read(0, 0x304, 4)), (1 << 8, 0));
        assert_eq!(machine.read(1, 0x204, 4), 1 << 8);
        assert_eq!(machine.cpus[0].acknowledge(), Some((40, 0)));
        assert_eq!((machine.read(0, 0x204, 4), machine.read(0, 0x304, 4)), (0, 1 << 8));
        // vCPU 1 disables it, and must not be told that the handler is over while vCPU 0 was not asked.
        let kicks = machine.write_without_kicks(1, Frame::Distributor, 0x184, 4, 1 << 8);
        assert!(kicks.contains(vcpu(0)));
        assert_eq!(machine.read(1, 0x304, 4), 1 << 8);
        machine.serve(kicks);
        assert_eq!(machine.read(1, 0x304, 4), 1 << 8);
        machine.deactivate(0, 40);
        let kicks = machine.gic.sync(vcpu(0), &mut machine.cpus[0]);
        machine.serve(kicks);
        assert_eq!((machine.read(0, 0x304, 4), machine.read(1, 0x304, 4)), (0, 0));
    }
}

#[test]
fn active_state_can_be_written() {
    for mut machine in Machine::both(2, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        machine.write(0, 0x304, 4, 1 << 8);
        machine.pulse(0, 40);
        assert_eq!(machine.acknowledge(0), None, "active, so not signalled");
        machine.deactivate(0, 40);
        assert_eq!(machine.drain(0), [40]);
        machine.pulse(0, 40);
        assert_eq!(machine.acknowledge(0), Some(40));
        machine.pulse(0, 40);
        machine.write(1, 0x384, 4, 1 << 8);
        assert_eq!(machine.drain(0), [40], "made inactive by another vCPU, what was pending beside it comes");
    }
}

#[test]
fn a_more_urgent_one_takes_the_room() {
    for mut machine in Machine::both(1, 2) {
        for (intid, priority) in [(40, 0x80), (41, 0x90), (42, 0x10)] {
            machine.edge(intid);
            machine.enable(0, intid, priority);
            machine.pulse(0, intid);
        }
        assert_eq!(machine.cpus[0].pending(), [40, 42]);
        assert!(machine.cpus[0].no_pending_maintenance);
        // A new priority counts at once.
        machine.write(0, 0x400 + 41, 1, 0x08);
        machine.write(0, 0x400 + 40, 1, 0xf0);
        assert_eq!(machine.drain(0), [41, 42, 40]);
    }
}

#[test]
fn a_new_priority_reaches_the_list_register() {
    for mut machine in Machine::both(2, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0x80);
        machine.pulse(0, 40);
        machine.write(0, 0x428, 1, 0x40);
        assert_eq!(machine.cpus[0].holding(40).map(|lr| lr.priority), Some(0x40));
        machine.write(1, 0x428, 1, 0x48);
        assert_eq!(machine.cpus[0].holding(40).map(|lr| lr.priority), Some(0x48));
    }
}

#[test]
fn the_distributor_switch_holds_everything_back() {
    for mut machine in Machine::both(2, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        machine.pulse(0, 40);
        machine.write(1, 0, 4, 0);
        assert_eq!(machine.cpus[0].pending(), []);
        assert!(!machine.gic.has_pending(vcpu(0)));
        machine.pulse(0, 40);
        machine.write(1, 0, 4, 3);
        assert_eq!(machine.drain(0), [40]);
    }
}

#[test]
fn routes_move_what_is_pending_not_what_is_active() {
    for mut machine in Machine::both(2, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        let version = machine.gic.version();
        let route = |machine: &mut Machine, target: u64| match version {
            Version::V2 => machine.write(0, 0x828, 1, 1 << target),
            Version::V3 => machine.write(0, 0x6000 + 40 * 8, 8, target),
        };
        machine.pulse(0, 40);
        route(&mut machine, 1);
        assert_eq!((machine.cpus[0].pending(), machine.cpus[1].pending()), (vec![], vec![40]));
        assert_eq!(machine.acknowledge(1), Some(40));
        route(&mut machine, 0);
        machine.pulse(0, 40);
        assert_eq!(machine.cpus[0].pending(), [], "still active on vCPU 1");
        machine.deactivate(1, 40);
        let kicks = machine.gic.maintain(vcpu(1), &mut machine.cpus[1]);
        machine.serve(kicks);
        assert_eq!(machine.drain(0).len() + machine.drain(1).len(), 1);
    }
}

#[test]
fn sgis_by_distributor() {
    let mut machine = Machine::new(Version::V2, 4, 4);
    for cpu in 0..4 {
        machine.enable(cpu, 3, 0);
    }
    let mut sent = |value: u64| {
        machine.write(1, 0xf00, 4, value);
        [0, 1, 2, 3].map(|cpu| machine.drain(cpu).len())
    };
    assert_eq!(sent(0b1101 << 16 | 3), [1, 0, 1, 1], "a list");
    assert_eq!(sent(0xf2 << 16 | 3), [0, 1, 0, 0], "vCPUs that are not there");
    assert_eq!(sent(1 << 24 | 3), [1, 0, 1, 1], "all others");
    assert_eq!(sent(2 << 24 | 3), [0, 1, 0, 0], "myself");
    assert_eq!(sent(3 << 24 | 0xf << 16 | 3), [0, 0, 0, 0], "reserved");
    assert_eq!(sent(0xf << 16 | 4), [0, 0, 0, 0], "not enabled");
}

#[test]
fn sgis_by_system_register() {
    let mut machine = Machine::new(Version::V3, 20, 4);
    for cpu in 0..20 {
        machine.enable(cpu, 3, 0);
    }
    let mut sent = |register, value: u64| {
        let kicks = machine.gic.send_sgi(vcpu(1), register, value, &mut machine.cpus[1]);
        machine.serve(kicks);
        (0..20).filter(|&cpu| !machine.drain(cpu).is_empty()).collect::<Vec<u32>>()
    };
    assert_eq!(sent(SgiRegister::Sgi1r, 3 << 24 | 0x8003), [0, 1, 15]);
    assert_eq!(sent(SgiRegister::Sgi1r, 3 << 24 | 1 << 16 | 0x9), [16, 19], "Aff1 = 1");
    assert_eq!(sent(SgiRegister::Sgi1r, 3 << 24 | 1 << 32 | 0xffff), [], "Aff2 = 1: nobody");
    assert_eq!(sent(SgiRegister::Sgi1r, 3 << 24 | 1 << 44 | 0xffff), [], "range 1: Aff0 16 to 31");
    assert_eq!(
        sent(SgiRegister::Sgi1r, 3 << 24 | 1 << 40),
        (0..20).filter(|&cpu| cpu != 1).collect::<Vec<_>>()
    );
    assert_eq!(sent(SgiRegister::Sgi0r, 3 << 24 | 0xffff), [], "group 0");
    assert_eq!(sent(SgiRegister::Asgi1r, 3 << 24 | 0xffff), [], "the Secure side");
}

#[test]
fn an_sgi_of_the_same_sender_while_active_needs_no_exit() {
    let mut machine = Machine::new(Version::V2, 2, 4);
    machine.enable(0, 3, 0);
    machine.write(1, 0xf00, 4, 1 << 16 | 3);
    assert_eq!(machine.cpus[0].acknowledge(), Some((3, 1)));
    machine.write(1, 0xf00, 4, 1 << 16 | 3);
    let held = machine.cpus[0].holding(3).expect("active");
    assert_eq!((held.state, held.eoi, held.source), (LrState::PendingActive, false, 1));
    machine.write(0, 0xf00, 4, 1 << 16 | 3);
    machine.deactivate(0, 3);
    let mut senders = Vec::new();
    while let Some((_, sender)) = machine.cpus[0].acknowledge() {
        senders.push(sender);
        machine.deactivate(0, 3);
    }
    senders.sort_unstable();
    assert_eq!(senders, [0, 1]);
}

#[test]
fn a_vcpu_takes_its_interrupts_along() {
    let open = CpuInterfaceState { vmcr: u32::MAX, ..Default::default() };
    for mut machine in Machine::both(1, 4) {
        let timer = int(27);
        assert!(machine.gic.attach_hw(vcpu(0), timer, Some(timer), &mut machine.host));
        machine.enable(0, 27, 0);
        machine.edge(40);
        machine.enable(0, 40, 0x80);
        machine.enable(0, 1, 0x90);
        assert_eq!(machine.gic.in_flight_hw_ppis(vcpu(0)), 0);
        machine.pulse(0, 27);
        machine.pulse(0, 40);
        machine.pulse(0, 1);
        assert_eq!(machine.acknowledge(0), Some(27));
        assert_eq!(machine.acknowledge(0), Some(40));
        machine.save(0, &open);
        assert_eq!(machine.cpus[0].empty(), 0xf, "all list registers are free");
        assert_eq!(machine.cpus[0].deactivated, [], "nothing was deactivated for the guest");
        assert_eq!(machine.gic.in_flight_hw_ppis(vcpu(0)), 1 << 27);
        assert!(machine.gic.has_pending(vcpu(0)), "the SGI");
        machine.restore(0);
        assert_eq!(machine.cpus[0].active(), [27, 40]);
        assert_eq!(machine.cpus[0].holding(27).and_then(|lr| lr.hw), Some(timer));
        machine.deactivate(0, 40);
        machine.deactivate(0, 27);
        assert_eq!(machine.cpus[0].deactivated, [timer]);
        assert_eq!(machine.drain(0), [1]);
        machine.save(0, &open);
        assert_eq!(machine.gic.in_flight_hw_ppis(vcpu(0)), 0);
        assert!(!machine.gic.has_pending(vcpu(0)));
    }
}

#[test]
fn pending_in_a_list_register_counts_for_wfi() {
    for mut machine in Machine::both(1, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        machine.pulse(0, 40);
        assert!(machine.gic.has_pending(vcpu(0)));
        assert_eq!(machine.cpus[0].acknowledge(), Some((40, 0)));
        let _ = machine.gic.sync(vcpu(0), &mut machine.cpus[0]);
        assert!(!machine.gic.has_pending(vcpu(0)), "active");
        assert!(machine.cpus[0].deactivate_virtual(40));
        let _ = machine.gic.sync(vcpu(0), &mut machine.cpus[0]);
        assert!(!machine.gic.has_pending(vcpu(0)));
    }
}

#[test]
fn the_short_way_does_not_overtake() {
    for mut machine in Machine::both(1, 2) {
        for (intid, priority) in [(40, 0x80), (41, 0x20), (42, 0x30)] {
            machine.edge(intid);
            machine.enable(0, intid, priority);
        }
        machine.pulse(0, 40);
        assert_eq!(machine.acknowledge(0), Some(40));
        machine.pulse(0, 41);
        machine.pulse(0, 42);
        machine.deactivate(0, 40);
        // Its list register is free, and 42, more urgent, waits for one.
        let kicks = machine.gic.inject_current(vcpu(0), int(40), &mut machine.cpus[0]);
        machine.serve(kicks);
        assert_eq!(machine.drain(0), [41, 42, 40]);
    }
}

#[test]
fn the_same_again_joins_what_the_guest_has() {
    for mut machine in Machine::both(1, 4) {
        machine.enable(0, 3, 0);
        let inject = |machine: &mut Machine| {
            let kicks = machine.gic.inject_current(vcpu(0), int(3), &mut machine.cpus[0]);
            assert!(kicks.is_empty());
            machine.cpus[0].holding(3).map(|lr| lr.state)
        };
        assert_eq!(inject(&mut machine), Some(LrState::Pending));
        assert_eq!(inject(&mut machine), Some(LrState::Pending));
        assert_eq!(machine.acknowledge(0), Some(3));
        assert_eq!(inject(&mut machine), Some(LrState::PendingActive));
        assert_eq!(inject(&mut machine), Some(LrState::PendingActive));
        machine.deactivate(0, 3);
        assert_eq!(machine.drain(0), [3]);
    }
}

#[test]
fn active_on_one_vcpu_it_does_not_come_to_another() {
    let open = CpuInterfaceState { vmcr: u32::MAX, ..Default::default() };
    for mut machine in Machine::both(2, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        machine.pulse(0, 40);
        assert_eq!(machine.acknowledge(0), Some(40));
        machine.save(0, &open);
        match machine.gic.version() {
            Version::V2 => machine.write(1, 0x828, 1, 2),
            Version::V3 => machine.write(1, 0x6000 + 40 * 8, 8, 1),
        }
        let _ = machine.gic.inject_current(vcpu(1), int(40), &mut machine.cpus[1]);
        assert_eq!(machine.cpus[1].pending(), []);
        machine.restore(0);
        machine.deactivate(0, 40);
        assert_eq!(machine.drain(1), [40], "after its deactivation");
    }
}

#[test]
fn a_physical_interrupt_behind_a_software_one_is_ended_when_cleared() {
    for mut machine in Machine::both(1, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        assert!(machine.gic.attach_hw(vcpu(0), int(40), Some(int(90)), &mut machine.host));
        machine.write(0, 0x204, 4, 1 << 8);
        assert_eq!(machine.acknowledge(0), Some(40));
        machine.pulse(0, 40);
        machine.write(0, 0x284, 4, 1 << 8);
        machine.deactivate(0, 40);
        assert_eq!(machine.cpus[0].deactivated, [int(90)]);
        assert_eq!(machine.drain(0), []);
    }
}

#[test]
fn a_write_that_reads_back_leaves_no_inversion() {
    for mut machine in Machine::both(1, 1) {
        for (intid, priority) in [(40, 0x80), (41, 0x20)] {
            machine.edge(intid);
            machine.enable(0, intid, priority);
        }
        machine.pulse(0, 40);
        assert_eq!(machine.acknowledge(0), Some(40));
        machine.pulse(0, 40);
        machine.pulse(0, 41);
        // Clears nothing that is pending.
        machine.write(0, 0x284, 4, 1 << 20);
        machine.deactivate(0, 40);
        assert_eq!(machine.drain(0), [41, 40]);
    }
}

#[test]
fn made_inactive_while_its_vcpu_is_away() {
    let open = CpuInterfaceState { vmcr: u32::MAX, ..Default::default() };
    for mut machine in Machine::both(2, 4) {
        machine.edge(40);
        machine.enable(0, 40, 0);
        assert!(machine.gic.attach_hw(vcpu(0), int(40), Some(int(90)), &mut machine.host));
        machine.pulse(0, 40);
        assert_eq!(machine.acknowledge(0), Some(40));
        machine.save(0, &open);
        match machine.gic.version() {
            Version::V2 => machine.write(1, 0x828, 1, 2),
            Version::V3 => machine.write(1, 0x6000 + 40 * 8, 8, 1),
        }
        machine.write(1, 0x384, 4, 1 << 8);
        assert_eq!(machine.cpus[1].deactivated, [int(90)], "the physical one with it");
        machine.restore(0);
        assert_eq!((machine.cpus[0].pending(), machine.cpus[0].active()), (vec![], vec![]));
        machine.pulse(0, 40);
        assert_eq!(machine.drain(1), [40]);
    }
}

#[test]
fn a_sync_that_ends_a_level_interrupt_signals_it_again() {
    for mut machine in Machine::both(1, 4) {
        machine.enable(0, 40, 0);
        machine.level(0, 40, true);
        assert_eq!(machine.acknowledge(0), Some(40));
        assert!(machine.cpus[0].deactivate_virtual(40));
        // Takes the EOI maintenance request away, so nothing else would.
        let _ = machine.gic.sync(vcpu(0), &mut machine.cpus[0]);
        assert!(machine.gic.has_pending(vcpu(0)));
        assert_eq!(machine.cpus[0].pending(), [40]);
    }
}

#[test]
fn an_empty_target_list_is_nobody() {
    // Aff0 = 32 is what an unchecked count of trailing zeros names.
    let config = crate::VGicConfig { version: Version::V3, affinities: &[32], spis: 32 };
    let mut gic = crate::VGic::new(&config).expect("legal");
    let mut cpu = super::fake::Cpu::new(Version::V3, 4);
    let sgis = Frame::Redistributor { vcpu: vcpu(0), sgi: true };
    let _ = gic.write(vcpu(0), Frame::Distributor, 0, 4, 2, &mut cpu, &mut crate::NoHost);
    let _ = gic.write(vcpu(0), sgis, 0x100, 4, 0xffff, &mut cpu, &mut crate::NoHost);
    let _ = gic.send_sgi(vcpu(0), SgiRegister::Sgi1r, 3 << 24, &mut cpu);
    assert_eq!(cpu.pending(), []);
    let _ = gic.send_sgi(vcpu(0), SgiRegister::Sgi1r, 3 << 24 | 2 << 44 | 1, &mut cpu);
    assert_eq!(cpu.pending(), [3]);
}
