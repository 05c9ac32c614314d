//! Discovery: QEMU's and the Pi's trees, each kind of mistake, and the way there fuzzed from blob to plan.

use std::string::ToString;
use std::vec::Vec;

use dtoolkit::model::DeviceTree as Model;
use gic::{IntId, Trigger};

use super::samples::{KERNEL, RAMDISK, Value::*, at, node, pi4, set, virt};
use super::*;

/// Leaks, since a machine's tree lives as long as it does.
fn parse(model: &Model) -> DeviceTree<'static> {
    DeviceTree::new(model.to_dtb().leak()).expect("a well-formed sample")
}

fn discover(model: &Model) -> Result<Machine<'static>, DiscoveryError> {
    Machine::discover(&parse(model), Mpidr::new(0x8000_0000))
}

fn range(start: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(start), size).unwrap()
}

fn level(intid: u32) -> Interrupt {
    Interrupt { intid: IntId::new(intid).unwrap(), trigger: Trigger::Level }
}

#[test]
fn virt_with_gic_v2() {
    let machine = discover(&virt(2, 4)).unwrap();
    assert_eq!(machine.memory.as_slice(), &[range(0x4000_0000, 0xc000_0000)]);
    assert!(machine.reserved.is_empty());
    assert_eq!(machine.cpus.len(), 4);
    assert!(machine.cpus.iter().all(|cpu| cpu.enable == EnableMethod::Psci));
    assert_eq!(machine.psci, Some(Psci { conduit: Conduit::Smc, cpu_on_0_1: None }));
    assert_eq!(
        machine.gic,
        Gic::V2 {
            gicd: range(0x800_0000, 0x1_0000),
            gicc: range(0x801_0000, 0x1_0000),
            gich: range(0x803_0000, 0x1_0000),
            gicv: range(0x804_0000, 0x1_0000),
            maintenance: level(25),
        }
    );
    assert_eq!(machine.timer.virtual_, level(27));
    assert_eq!(machine.timer.physical, level(30));
    assert_eq!(machine.timer.hypervisor, level(26));
    assert_eq!(machine.timer.secure_physical, Some(level(29)));
    let kernel = machine.chosen.module(ModuleKind::Kernel).unwrap();
    assert_eq!(kernel.range, range(KERNEL.0.into(), KERNEL.1.into()));
    assert_eq!(kernel.bootargs, Some("console=hvc0 rdinit=/init"));
    let ramdisk = machine.chosen.module(ModuleKind::Ramdisk).unwrap();
    assert_eq!(ramdisk.range, range(RAMDISK.0.into(), RAMDISK.1.into()));
    assert_eq!(machine.occupied().count(), 2);
}

#[test]
fn virt_with_gic_v3() {
    let machine = discover(&virt(3, 1)).unwrap();
    let Gic::V3 { gicd, redistributors, stride, maintenance } = machine.gic else { panic!("not version 3") };
    assert_eq!(gicd, range(0x800_0000, 0x1_0000));
    assert_eq!(redistributors.as_slice(), &[range(0x80a_0000, 0xf6_0000)]);
    assert_eq!((stride, maintenance), (None, level(25)));
}

#[test]
fn raspberry_pi_4() {
    let model = pi4();
    let machine = discover(&model).unwrap();
    assert_eq!(machine.memory.as_slice(), &[range(0, 0x3c00_0000), range(0x4000_0000, 0x4000_0000)]);
    let Gic::V2 { gicd, gicv, .. } = machine.gic else { panic!("not version 2") };
    assert_eq!((gicd.start, gicv.start), (Pa::new(0xff84_1000), Pa::new(0xff84_6000)));
    let reserved: Vec<_> = machine.reserved.iter().map(|r| (r.range, r.no_map)).collect();
    // /memreserve/, reserved-memory, and the one page with all four spin tables.
    assert_eq!(
        reserved,
        [(range(0, 0x1000), false), (range(0x8_0000, 0x8_0000), true), (range(0, 0x1000), false)]
    );
    assert_eq!(machine.cpus[3].enable, EnableMethod::SpinTable { release_address: Pa::new(0xf0) });
    assert_eq!(machine.psci, None);
    assert_eq!(machine.chosen.initrd, Some(range(0x800_0000, 0x100_0000)));
    let uart = uart(&parse(&model), None).unwrap().unwrap();
    assert_eq!(uart.registers, range(0xfe20_1000, 0x200));
    assert_eq!((uart.interrupt, uart.clock), (Some(level(153)), Some(48_000_000)));
    assert_eq!(&uart.path, "/soc/serial@7e201000");
}

#[test]
fn other_raspberry_pis_are_told_apart() {
    let mut model = pi4();
    assert_eq!(wrong_raspberry_pi(&parse(&model)), None);
    for (soc, name) in [("brcm,bcm2837", "Raspberry Pi 3"), ("brcm,bcm2712", "Raspberry Pi 5")] {
        set(&mut model.root, "compatible", &Text(&["raspberrypi,model", soc]));
        assert_eq!(wrong_raspberry_pi(&parse(&model)), Some(name));
    }
    assert_eq!(wrong_raspberry_pi(&parse(&virt(2, 1))), None);
}

#[test]
fn the_console_follows_the_option_then_the_tree() {
    let mut model = virt(2, 1);
    let tree = parse(&model);
    for path in [Some("/pl011@9000000"), Some("serial0"), Some("serial0:115200"), Some("/pl011"), None] {
        let uart = uart(&tree, path).unwrap().unwrap();
        assert_eq!((uart.registers.start, uart.clock), (Pa::new(0x900_0000), Some(24_000_000)), "{path:?}");
    }
    let error = uart(&tree, Some("/pl012@9000000")).unwrap_err();
    assert_eq!(error.to_string(), "console: no device tree node or alias '/pl012@9000000'");
    let error = uart(&tree, Some("rtc0")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "console: /pl031@9010000 is 'arm,pl031'; known are arm,pl011, arm,sbsa-uart, brcm,bcm2835-aux-uart"
    );
    at(&mut model, "/chosen").remove_property("stdout-path");
    assert_eq!(uart(&parse(&model), None), Ok(None));
}

#[test]
fn the_boot_cpu_comes_first() {
    let tree = parse(&virt(2, 4));
    let machine = Machine::discover(&tree, Mpidr::new(0x8000_0002)).unwrap();
    let order: Vec<u64> = machine.cpus.iter().map(|cpu| cpu.mpidr.get()).collect();
    assert_eq!(order, [2, 0, 1, 3]);
    assert!(matches!(Machine::discover(&tree, Mpidr::new(7)), Err(DiscoveryError::BootCpu(_))));
}

#[test]
fn more_cpus_than_room_are_counted() {
    let machine = discover(&virt(3, MAX_CPUS as u32 + 3)).unwrap();
    assert_eq!((machine.cpus.len(), machine.cpus_ignored), (MAX_CPUS, 3));
}

#[test]
fn banks_are_sorted_joined_and_whole_pages() {
    let mut model = virt(2, 1);
    set(
        at(&mut model, "/memory@40000000"),
        "reg",
        &Cells(&[
            0,
            0x8000_0000,
            0,
            0x1000_0800,
            0,
            0x4000_0800,
            0,
            0x1000_0000,
            0,
            0x5000_0000,
            0,
            0x1000,
            0,
            0,
            0,
            0,
        ]),
    );
    let machine = discover(&model).unwrap();
    assert_eq!(
        machine.memory.as_slice(),
        &[range(0x4000_1000, 0x1000_0000), range(0x8000_0000, 0x1000_0000)]
    );
}

#[test]
fn what_is_missing_is_named() {
    let without = |path: &str| {
        let mut model = virt(2, 1);
        model.root.remove_child(path);
        discover(&model).unwrap_err().to_string()
    };
    assert_eq!(without("memory@40000000"), "the device tree describes no memory");
    assert_eq!(without("cpus"), "the device tree describes no CPU");
    assert_eq!(without("timer"), "no generic timer (arm,armv8-timer) in the device tree");
    assert!(without("intc@8000000").ends_with("found none"));
    let mut model = virt(2, 1);
    set(at(&mut model, "/intc@8000000"), "compatible", &Text(&["brcm,bcm2836-l1-intc"]));
    let message = discover(&model).unwrap_err().to_string();
    assert!(message.contains("arm,gic-400") && message.ends_with("found brcm,bcm2836-l1-intc"), "{message}");
}

#[test]
fn what_is_malformed_is_named() {
    let with = |path: &str, name: &str, value: &[u32]| {
        let mut model = virt(2, 2);
        set(at(&mut model, path), name, &Cells(value));
        discover(&model).unwrap_err().to_string()
    };
    assert!(
        with("/intc@8000000", "reg", &[0, 0x800_0000, 0, 0x1000]).contains("/intc@8000000 lacks registers")
    );
    assert!(with("/timer", "interrupts", &[1, 13, 4]).contains("/timer: property interrupts"));
    assert!(with("/timer", "interrupts", &[0, 1, 4, 0, 2, 4, 0, 3, 4, 0, 4, 4]).contains("interrupts"));
    assert!(with("/cpus/cpu@1", "reg", &[]).contains("/cpus/cpu@1: property reg"));
    assert!(with("/cpus/cpu@1", "reg", &[0]).contains("/cpus/cpu@1: property reg"));
    assert!(with("/psci", "method", &[0]).contains("/psci: property method"));
    assert!(
        with("/chosen/module@0x49000000", "reg", &[0, 1]).contains("/chosen/module@0x49000000: property reg")
    );
    assert!(with("/chosen/module@0x49000000", "reg", &[u32::MAX; 4]).contains("property reg"));
    assert!(with("/chosen", "linux,initrd-start", &[1]).contains("linux,initrd-end"));
    let mut model = virt(2, 2);
    let cpu = at(&mut model, "/cpus/cpu@1");
    set(cpu, "enable-method", &Text(&["spin-table"]));
    assert!(discover(&model).unwrap_err().to_string().contains("cpu-release-addr"));
}

#[test]
fn modules_of_older_loaders() {
    let mut model = virt(2, 1);
    let chosen = at(&mut model, "/chosen");
    chosen.remove_child("module@0x49000000");
    chosen.remove_child("module@0x4f000000");
    set(chosen, "#address-cells", &Cells(&[1]));
    set(chosen, "#size-cells", &Cells(&[1]));
    set(chosen, "xen,xen-bootargs", &Text(&["noreboot"]));
    chosen.add_child(node(
        "module@1",
        &[
            ("compatible", Text(&["xen,linux-zimage", "xen,multiboot-module"])),
            ("reg", Cells(&[0x4800_0000, 0x1000])),
        ],
        Vec::new(),
    ));
    chosen.add_child(node(
        "module@2",
        &[("compatible", Text(&["multiboot,module"])), ("reg", Cells(&[0x4900_0000, 0x2000]))],
        Vec::new(),
    ));
    let machine = discover(&model).unwrap();
    assert_eq!(machine.chosen.bootargs, "noreboot");
    assert!(machine.chosen.dom0_bootargs.unwrap().starts_with("dom0_mem"));
    assert_eq!(machine.chosen.module(ModuleKind::Kernel).unwrap().range, range(0x4800_0000, 0x1000));
    assert_eq!(machine.chosen.module(ModuleKind::Ramdisk).unwrap().range, range(0x4900_0000, 0x2000));
}

#[test]
fn specifiers() {
    let edge = |intid| Interrupt { intid: IntId::new(intid).unwrap(), trigger: Trigger::Edge };
    assert_eq!(decode(&[0, 16, 1]), Some(edge(48)));
    assert_eq!(decode(&[1, 15, 0xf08]), Some(level(31)));
    assert_eq!(decode(&[0, 0, 2, 0]), Some(edge(32)));
    for bad in [&[0, 988, 4][..], &[1, 16, 4], &[2, 0, 4], &[0, u32::MAX, 4], &[0, 1], &[]] {
        assert_eq!(decode(bad), None, "{bad:?}");
    }
}

#[test]
fn extended_interrupts_name_their_controller() {
    let mut model = virt(2, 1);
    let timer = at(&mut model, "/timer");
    timer.remove_property("interrupts");
    let to_gic = |ppi| [0x8003, 1, ppi, 4];
    let cells: Vec<u32> = [13, 14, 11, 10].into_iter().flat_map(to_gic).collect();
    set(timer, "interrupts-extended", &Cells(&cells));
    assert_eq!(discover(&model).unwrap().timer.virtual_, level(27));
    set(at(&mut model, "/timer"), "interrupt-names", &Text(&["virt", "hyp-phys", "phys", "sec-phys"]));
    assert_eq!(discover(&model).unwrap().timer.virtual_, level(29));
}
