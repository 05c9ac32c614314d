//! Bugs that other hypervisors had in the field. Each test names the report.

use super::fake::{Cpu, Machine, gic, int, vcpu};
use crate::{CpuInterfaceState, Frame, NoHost, Version};

/// bao #371: disabling an interrupt that is active orphaned it, and the console died.
#[test]
fn disable_while_active_does_not_orphan() {
    for mut machine in Machine::both(1, 4) {
        let uart = int(33);
        assert!(machine.gic.attach_hw(vcpu(0), uart, Some(uart), &mut machine.host));
        machine.enable(0, 33, 0x80);
        machine.pulse(0, 33);
        assert_eq!(machine.acknowledge(0), Some(33));
        machine.disable(0, 33);
        assert_eq!(machine.cpus[0].active(), [33], "still active: the guest has yet to deactivate it");
        machine.deactivate(0, 33);
        assert_eq!(machine.cpus[0].deactivated, [uart]);
        machine.enable(0, 33, 0x80);
        machine.pulse(0, 33);
        assert_eq!(machine.drain(0), [33], "and it comes again");
        assert_eq!(machine.cpus[0].deactivated, [uart, uart]);
    }
}

/// bao PR #334, axvisor #229, tgoskits #1829 ("LR full → panic"): more pending than list registers.
#[test]
fn overflow_is_not_lost_and_keeps_priority() {
    for count in 1..=16 {
        for mut machine in Machine::both(1, count) {
            for intid in 32..96 {
                machine.edge(intid);
                machine.enable(0, intid, (255 - intid as u8) & 0xf8);
            }
            for intid in 32..96 {
                machine.pulse(0, intid);
            }
            let taken = machine.drain(0);
            let mut wanted: Vec<u32> = (32..96).collect();
            wanted.sort_by_key(|&intid| ((255 - intid as u8) & 0xf8, intid));
            assert_eq!(taken, wanted, "{count} list registers");
            assert!(!machine.cpus[0].no_pending_maintenance);
        }
    }
}

/// bao PR #398: with every list register active and more pending, the maintenance interrupt came for ever.
#[test]
fn all_list_registers_active_is_no_livelock() {
    for hw in [false, true] {
        for mut machine in Machine::both(1, 2) {
            for intid in 32..36 {
                machine.edge(intid);
                machine.enable(0, intid, 0x80);
                if hw {
                    assert!(machine.gic.attach_hw(vcpu(0), int(intid), Some(int(intid)), &mut machine.host));
                }
                machine.pulse(0, intid);
            }
            assert_eq!((machine.acknowledge(0), machine.acknowledge(0)), (Some(32), Some(33)));
            // `acknowledge` asserts that maintenance does not stay raised.
            assert_eq!(machine.acknowledge(0), None, "no room yet");
            machine.deactivate(0, 33);
            assert_eq!(machine.acknowledge(0), Some(34), "room is used as soon as it is there");
            machine.deactivate(0, 34);
            machine.deactivate(0, 32);
            assert_eq!(machine.drain(0), [35]);
            if hw {
                assert_eq!(machine.cpus[0].deactivated, [33, 34, 32, 35].map(int), "each once");
            }
        }
    }
}

/// bao PR #394: GICD_IROUTER written as two halves; #389: more than eight CPUs.
#[test]
fn router_takes_halves_and_many_cpus() {
    let mut gic = gic(Version::V3, 40, 64);
    let mut cpu = Cpu::new(Version::V3, 4);
    let mut write = |gic: &mut crate::VGic, offset, width, value| {
        gic.write(vcpu(0), Frame::Distributor, offset, width, value, &mut cpu, &mut NoHost)
    };
    let _ = write(&mut gic, 0, 4, 2);
    let _ = write(&mut gic, 0x104, 4, 1);
    // vCPU 37 has affinity 0.0.2.5.
    let _ = write(&mut gic, 0x6100, 4, 0x205);
    let _ = write(&mut gic, 0x6104, 4, 0);
    assert!(gic.pulse(vcpu(0), int(32)).contains(vcpu(37)));
    let kicks = write(&mut gic, 0x6100, 8, 0x103);
    assert!(kicks.contains(vcpu(19)) && !kicks.contains(vcpu(37)), "pending, it moves with its route");
    assert!(gic.has_pending(vcpu(19)) && !gic.has_pending(vcpu(37)));
    // Aff3 = 1: nobody.
    assert!(write(&mut gic, 0x6104, 4, 1).is_empty());
    assert!(!gic.has_pending(vcpu(19)));
    // Interrupt_Routing_Mode: anybody.
    assert!(
        !(write(&mut gic, 0x6104, 4, 0) | write(&mut gic, 0x6100, 4, 0x8000_0000)).is_empty()
            || gic.has_pending(vcpu(0))
    );
    let mut lrs = Cpu::new(Version::V3, 4);
    assert_eq!(gic.read(vcpu(0), Frame::Distributor, 0x6100, 8, &mut lrs), 0x8000_0000);
}

/// hvisor #282: GICv2 lost SGIs because it ignored who sent them.
#[test]
fn sgis_of_several_senders_all_arrive() {
    let mut machine = Machine::new(Version::V2, 4, 4);
    for cpu in 0..4 {
        machine.enable(cpu, 5, 0);
    }
    for sender in [1, 2, 3] {
        // Twice each: one pending state per sender.
        machine.write(sender, 0xf00, 4, 1 << 16 | 5);
        machine.write(sender, 0xf00, 4, 1 << 16 | 5);
    }
    let mut senders = Vec::new();
    while let Some((intid, sender)) = machine.cpus[0].acknowledge() {
        assert_eq!(intid, 5);
        senders.push(sender);
        machine.deactivate(0, 5);
    }
    senders.sort_unstable();
    assert_eq!(senders, [1, 2, 3]);
}

/// libvmm #56: an interrupt injected while disabled was dropped.
#[test]
fn injected_while_disabled_comes_when_enabled() {
    for mut machine in Machine::both(1, 4) {
        machine.edge(40);
        machine.pulse(0, 40);
        assert_eq!(machine.drain(0), []);
        machine.enable(0, 40, 0xa0);
        assert_eq!(machine.drain(0), [40]);
    }
}

/// tgoskits PR #1829: an INTID cast to a byte.
#[test]
fn intids_above_255_arrive() {
    let affinities = [0];
    for version in [Version::V2, Version::V3] {
        let config = crate::VGicConfig { version, affinities: &affinities, spis: 988 };
        let mut gic = crate::VGic::new(&config).expect("legal");
        let mut cpu = Cpu::new(version, 4);
        for (offset, width, value) in [(0, 4, 3), (0x100 + 31 * 4, 4, 1 << 27), (0x400 + 1019, 1, 0x40)] {
            let _ = gic.write(vcpu(0), Frame::Distributor, offset, width, value, &mut cpu, &mut NoHost);
        }
        let _ = gic.inject_current(vcpu(0), int(1019), &mut cpu);
        assert_eq!(cpu.acknowledge(), Some((1019, 0)));
        assert_eq!(gic.limit(), 1020);
    }
}

/// tgoskits #1730: GICR_INVLPIR took a number from the guest to an index unchecked. No offset, width, frame or value
/// may panic.
#[test]
fn no_access_panics() {
    for version in [Version::V2, Version::V3] {
        let mut gic = gic(version, 3, 40);
        let mut cpu = Cpu::new(version, 2);
        let mut frames = vec![Frame::Distributor];
        for n in [0, 2, 3, 127, 128, u32::MAX] {
            for sgi in [false, true] {
                frames.push(Frame::Redistributor { vcpu: vcpu(n), sgi });
            }
        }
        for frame in frames {
            for width in [0, 1, 2, 3, 4, 8, 16] {
                for offset in
                    (0..0x1_0000).step_by(if width == 1 { 1 } else { 2 }).chain([0x1_0000, u32::MAX - 3])
                {
                    let _ = gic.read(vcpu(0), frame, offset, width, &mut cpu);
                    for value in [u64::MAX, 0, 0xdead_beef_8000_2000] {
                        let _ = gic.write(vcpu(0), frame, offset, width, value, &mut cpu, &mut NoHost);
                    }
                    let _ = gic.read(vcpu(200), frame, offset, width, &mut cpu);
                    let _ = gic.write(vcpu(200), frame, offset, width, 1, &mut cpu, &mut NoHost);
                }
            }
        }
    }
}

/// tgoskits #1713: the timer fired, and the vCPU in WFI was not woken.
#[test]
fn a_sleeping_vcpu_is_named_and_has_something() {
    for mut machine in Machine::both(2, 4) {
        machine.enable(1, 27, 0xa0);
        // Priority mask 0xf8, group enabled.
        let interface = CpuInterfaceState {
            vmcr: match machine.gic.version() {
                Version::V2 => 0x1f << 27 | 1,
                Version::V3 => 0xf8 << 24 | 2,
            },
            ..Default::default()
        };
        machine.save(1, &interface);
        assert!(!machine.gic.has_pending(vcpu(1)));
        assert!(machine.gic.pulse(vcpu(1), int(27)).contains(vcpu(1)));
        assert!(machine.gic.has_pending(vcpu(1)));
        assert_eq!(machine.cpus[1].pending(), [], "it is on no CPU");
        machine.restore(1);
        assert_eq!(machine.drain(1), [27]);
        // Masked by priority: no reason to wake.
        let masked = CpuInterfaceState {
            vmcr: match machine.gic.version() {
                Version::V2 => 0x14 << 27 | 1,
                Version::V3 => 0xa0 << 24 | 2,
            },
            ..Default::default()
        };
        machine.save(1, &masked);
        let _ = machine.gic.pulse(vcpu(1), int(27));
        assert!(!machine.gic.has_pending(vcpu(1)));
    }
}
