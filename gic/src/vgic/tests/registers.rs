//! What guests read, and that odd accesses do nothing.

use super::fake::{Cpu, Machine, gic, int, vcpu};
use crate::vgic::REDISTRIBUTOR_STRIDE;
use crate::{ConfigError, Frame, NoHost, Trigger, VGic, VGicConfig, Version};

#[test]
fn configurations_are_checked() {
    let many = [0u64; 129];
    let new = |version, vcpus: usize, spis| {
        VGic::new(&VGicConfig { version, affinities: &many[..vcpus], spis }).map(|gic| gic.limit())
    };
    assert_eq!(new(Version::V2, 0, 32), Err(ConfigError::Vcpus));
    assert_eq!(new(Version::V2, 9, 32), Err(ConfigError::Vcpus));
    assert_eq!(new(Version::V3, 129, 32), Err(ConfigError::Vcpus));
    assert_eq!(new(Version::V3, 128, 0), Ok(32));
    assert_eq!(new(Version::V2, 8, 989), Err(ConfigError::Spis));
    assert_eq!(new(Version::V2, 8, 988), Ok(1020));
    assert_eq!(new(Version::V2, 8, 33), Ok(96));
}

#[test]
fn identification() {
    let mut v2 = Machine::new(Version::V2, 4, 4);
    assert_eq!(v2.read(0, 0x004, 4), 3 << 5 | 3, "128 lines, 4 CPUs");
    assert_eq!(v2.read(0, 0x008, 4), 0x43b);
    assert_eq!(v2.read(0, 0xfe8, 4), 0x2b);
    assert_eq!(v2.read(0, 0x000, 4), 1);
    let mut v3 = Machine::new(Version::V3, 4, 4);
    // IDbits 10, no MBIS, LPIS, A3V, No1N.
    assert_eq!(v3.read(0, 0x004, 4), 9 << 19 | 3 << 5 | 3);
    assert_eq!(v3.read(0, 0xffe8, 4), 0x3b);
    assert_eq!(v3.read(0, 0x000, 4), 0x12, "ARE_NS and EnableGrp1A; RWP 0");
    v3.write(0, 0x000, 4, 0);
    assert_eq!(v3.read(0, 0x000, 4), 0x10, "affinity routing cannot be turned off");
    let far =
        VGic::new(&VGicConfig { version: Version::V3, affinities: &[0, 1 << 32], spis: 0 }).expect("legal");
    let mut cpu = Cpu::new(Version::V3, 1);
    assert_eq!(far.read(vcpu(0), Frame::Distributor, 4, 4, &mut cpu) >> 24 & 1, 1, "A3V");
}

#[test]
fn redistributor_says_who_it_is() {
    let gic = gic(Version::V3, 18, 32);
    let mut cpu = Cpu::new(Version::V3, 4);
    let mut read = |offset: u64, width| {
        let (frame, offset) = Frame::of_redistributor_region(offset);
        gic.read(vcpu(0), frame, offset, width, &mut cpu)
    };
    for n in 0..18 {
        let base = n * REDISTRIBUTOR_STRIDE;
        let affinity = (n / 16) << 8 | (n % 16);
        let typer = affinity << 32 | n << 8 | u64::from(n == 17) << 4;
        assert_eq!(read(base + 8, 8), typer);
        assert_eq!(read(base + 8, 4), typer & 0xffff_ffff);
        assert_eq!(read(base + 12, 4), typer >> 32);
        assert_eq!(read(base + 0xffe8, 4), 0x3b);
        assert_eq!(read(base + 0x14, 4), 0, "awake");
    }
    assert_eq!(read(18 * REDISTRIBUTOR_STRIDE + 8, 8), 0, "nobody");
    assert_eq!(read(u64::MAX - 7, 8), 0);
}

#[test]
fn private_registers_are_where_the_version_has_them() {
    let mut v3 = Machine::new(Version::V3, 2, 4);
    v3.write(0, 0x100, 4, 0xffff_ffff);
    v3.write(0, 0x400 + 27, 1, 0xff);
    assert_eq!((v3.read(0, 0x100, 4), v3.read(0, 0x400 + 27, 1)), (0, 0), "not in a GICv3's distributor");
    assert_eq!(v3.read_bank(0, true, 0x100, 4), 0);
    v3.write_bank(0, true, 0x100, 4, 1 << 27);
    assert_eq!((v3.read_bank(0, true, 0x100, 4), v3.read_bank(1, true, 0x100, 4)), (1 << 27, 0));
    v3.write_bank(0, true, 0x104, 4, 1);
    assert_eq!(v3.read(0, 0x104, 4), 0, "no SPIs in a redistributor");
    let mut v2 = Machine::new(Version::V2, 2, 4);
    v2.write(1, 0x100, 4, 1 << 27);
    assert_eq!((v2.read(0, 0x100, 4), v2.read(1, 0x100, 4)), (0, 1 << 27), "banked");
}

#[test]
fn priorities_by_byte_and_word_have_five_bits() {
    for mut machine in Machine::both(1, 4) {
        machine.write(0, 0x420, 4, 0x1122_3f47);
        assert_eq!(machine.read(0, 0x420, 4), 0x1020_3840);
        machine.write(0, 0x422, 1, 0xff);
        assert_eq!(machine.read(0, 0x422, 1), 0xf8);
        assert_eq!(machine.read(0, 0x420, 4), 0x10f8_3840);
        machine.write(0, 0x420, 2, 0);
        machine.write(0, 0x421, 4, 0);
        machine.write(0, 0x420, 8, 0);
        assert_eq!(machine.read(0, 0x420, 4), 0x10f8_3840, "odd widths and offsets are ignored");
        assert_eq!(
            (machine.read(0, 0x420, 2), machine.read(0, 0x421, 4), machine.read(0, 0x420, 8)),
            (0, 0, 0)
        );
        machine.write(0, 0x400 + 127, 1, 0x80);
        machine.write(0, 0x400 + 128, 1, 0x80);
        assert_eq!((machine.read(0, 0x47f, 1), machine.read(0, 0x480, 1)), (0x80, 0), "128 INTIDs");
    }
}

#[test]
fn set_and_clear_registers_read_alike() {
    for mut machine in Machine::both(1, 4) {
        machine.write(0, 0x104, 4, 0xf0f0);
        machine.write(0, 0x184, 4, 0x00f0);
        assert_eq!((machine.read(0, 0x104, 4), machine.read(0, 0x184, 4)), (0xf000, 0xf000));
        machine.write(0, 0x204, 4, 7);
        machine.write(0, 0x284, 4, 2);
        assert_eq!((machine.read(0, 0x204, 4), machine.read(0, 0x284, 4)), (5, 5));
        machine.write(0, 0x304, 4, 7);
        machine.write(0, 0x384, 4, 2);
        assert_eq!((machine.read(0, 0x304, 4), machine.read(0, 0x384, 4)), (5, 5));
        machine.write(0, 0x384, 4, 5);
        assert_eq!(machine.read(0, 0x304, 4), 0);
    }
}

#[test]
fn groups_read_as_zero() {
    for mut machine in Machine::both(1, 4) {
        for offset in [0x080, 0x084, 0xd00, 0xd04, 0xe00] {
            machine.write(0, offset, 4, u64::MAX);
            assert_eq!(machine.read(0, offset, 4), 0);
        }
        machine.write_bank(0, true, 0x080, 4, u64::MAX);
        assert_eq!(machine.read_bank(0, true, 0x080, 4), 0);
    }
}

#[test]
fn targets_are_the_readers_own_and_limited() {
    let mut machine = Machine::new(Version::V2, 4, 4);
    assert_eq!(machine.read(2, 0x800, 4), 0x0404_0404, "which CPU am I?");
    assert_eq!(machine.read(2, 0x81f, 1), 4);
    machine.write(2, 0x800, 4, 0xffff_ffff);
    assert_eq!(machine.read(2, 0x800, 4), 0x0404_0404);
    assert_eq!(machine.read(0, 0x820, 4), 0x0101_0101, "at reset");
    machine.write(0, 0x821, 1, 0xff);
    assert_eq!(machine.read(0, 0x820, 4), 0x0101_0f01, "only vCPUs there are");
    let mut v3 = Machine::new(Version::V3, 4, 4);
    v3.write(0, 0x820, 4, 0x0202_0202);
    assert_eq!(v3.read(0, 0x820, 4), 0, "no such register with affinity routing");
}

#[test]
fn triggers_of_sgis_are_fixed() {
    for mut machine in Machine::both(1, 4) {
        assert_eq!(machine.read_bank(0, true, 0xc00, 4), 0xaaaa_aaaa);
        machine.write_bank(0, true, 0xc00, 4, 0);
        assert_eq!(machine.read_bank(0, true, 0xc00, 4), 0xaaaa_aaaa);
        assert_eq!(machine.read(0, 0xc08, 4), 0);
        machine.write(0, 0xc08, 4, 0xffff_ffff);
        assert_eq!(machine.read(0, 0xc08, 4), 0xaaaa_aaaa, "the low bit of each pair is reserved");
    }
}

#[test]
fn hardware_follows_the_guest() {
    for mut machine in Machine::both(2, 4) {
        assert!(machine.gic.attach_hw(vcpu(0), int(40), Some(int(77)), &mut machine.host));
        machine.enable(0, 40, 0);
        assert_eq!(machine.host.enabled, [77]);
        machine.disable(0, 40);
        assert_eq!(machine.host.enabled, []);
        machine.edge(40);
        assert_eq!(machine.host.triggers, [(77, Trigger::Edge)]);
        match machine.gic.version() {
            Version::V2 => machine.write(0, 0x828, 1, 2),
            Version::V3 => machine.write(0, 0x6000 + 40 * 8, 8, 1),
        }
        assert_eq!(machine.host.routes, [(77, 1)]);
        machine.enable(0, 41, 0);
        assert!(machine.gic.attach_hw(vcpu(0), int(41), Some(int(78)), &mut machine.host));
        assert_eq!(machine.host.enabled, [78], "enabled before it was attached");
        assert!(!machine.gic.attach_hw(vcpu(0), int(3), Some(int(40)), &mut machine.host), "no SGI");
        assert!(!machine.gic.attach_hw(vcpu(0), int(300), Some(int(40)), &mut machine.host), "no such INTID");
    }
}

#[test]
fn clear_and_set_pending_by_sender() {
    let mut machine = Machine::new(Version::V2, 4, 4);
    machine.write(0, 0xf24, 4, 0x0000_0a00);
    assert_eq!(machine.read(0, 0xf24, 4), 0x0000_0a00);
    assert_eq!(machine.read(0, 0xf25, 1), 0x0a);
    assert_eq!(machine.read(0, 0x200, 4), 1 << 5);
    machine.write(0, 0xf15, 1, 0x08);
    assert_eq!(machine.read(0, 0xf15, 1), 0x02);
    machine.enable(0, 5, 0);
    assert_eq!(machine.read(0, 0xf25, 1), 0x02, "in a list register, too");
    assert_eq!(machine.cpus[0].acknowledge(), Some((5, 1)));
    assert_eq!(machine.read(0, 0xf25, 1), 0);
    machine.write(0, 0x200, 4, 1 << 5);
    assert_eq!(machine.read(0, 0x200, 4), 0, "ISPENDR is read-only for SGIs of GICv2");
}

#[test]
fn a_gicv2_has_no_redistributor() {
    let mut gic = gic(Version::V2, 1, 32);
    let mut cpu = Cpu::new(Version::V2, 4);
    let frame = Frame::Redistributor { vcpu: vcpu(0), sgi: true };
    let _ = gic.write(vcpu(0), frame, 0x100, 4, 0xffff_ffff, &mut cpu, &mut NoHost);
    assert_eq!(gic.read(vcpu(0), frame, 0x100, 4, &mut cpu), 0);
    assert_eq!(gic.read(vcpu(0), Frame::Distributor, 0x100, 4, &mut cpu), 0);
}
