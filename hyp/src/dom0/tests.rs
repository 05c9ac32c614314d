//! dom0's plan on the trees of QEMU and the Raspberry Pi, its execution on the fake machine, and the whole way from a
//! hostile blob to a plan.

use std::boxed::Box;
use std::string::{String, ToString};
use std::time::{Duration, Instant};
use std::vec::Vec;

use dtoolkit::fdt::Fdt;
use dtoolkit::model::DeviceTree as Model;
use dtoolkit::{Node as _, Property as _};
use gic::Trigger;
use pv_abi::domid::DomId;
use stage2::{Geometry, Ipa, Mfn, PageType, Pages};

use super::*;
use crate::arch;
use crate::cmdline;
use crate::devicetree::{check, prepare};
use crate::discovery::samples::{KERNEL, RAMDISK, Value::*, at, node, pi4, set, virt};
use crate::discovery::{self, Uart};
use crate::domain;
use crate::mm::{MemoryRange, memory, testing};
use crate::sched::CpuMask;

mod raspberry_pi;

const M: u64 = 1 << 20;
const SIZES: Sizes = Sizes { text_offset: 0, kernel: 33 * M, initrd: 26 * M };

struct Host {
    tree: &'static DeviceTree<'static>,
    machine: &'static Machine<'static>,
    options: &'static Options<'static>,
    console: Option<Uart>,
}

/// What boot knows of the sample, on a command line of its own. Leaks: a machine lives as long as its test.
fn host(model: &Model, line: &'static str) -> Host {
    let tree: &'static _ =
        Box::leak(Box::new(DeviceTree::new(model.to_dtb().leak()).expect("a well-formed sample")));
    let options: &'static Options<'static> = Box::leak(Box::new(cmdline::parse(line)));
    assert!(options.problems.is_empty());
    let console = discovery::uart(tree, options.dtuart).expect("a known UART");
    let machine = Machine::discover(tree, Mpidr::new(0)).expect("a complete sample");
    Host { tree, machine: Box::leak(Box::new(machine)), options, console }
}

fn plan_with(host: &Host, free: &[PaRange]) -> Result<Dom0Plan, PlanError> {
    let (ranges, interrupts) = host.machine.kept(host.console.as_ref());
    let layout = layout(host.machine, host.options, free, &SIZES)?;
    let inputs = Inputs {
        tree: host.tree,
        machine: host.machine,
        options: host.options,
        bootargs: "console=hvc0",
        kept: Kept { ranges: &ranges, interrupts: &interrupts },
        ipa_bits: 40,
    };
    plan(&inputs, layout)
}

fn range(start: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(start), size).unwrap()
}

fn free_of_virt() -> Vec<PaRange> {
    std::vec![range(0x4060_0000, 0x780_0000), range(0x5100_0000, 0xaf00_0000)]
}

/// A node of dom0's tree as text: its properties, each as cells or strings.
fn show(dtb: &[u8], path: &str) -> Option<Vec<String>> {
    let fdt = Fdt::new(dtb).expect("dtoolkit reads what it wrote");
    let node = fdt.find_node(path)?;
    let mut lines: Vec<String> = node
        .properties()
        .map(|property| {
            let value = property.value();
            let is_text = value.len() > 1
                && value.ends_with(&[0])
                && value.iter().all(|&byte| byte == 0 || byte.is_ascii_graphic() || byte == b' ')
                && !value.windows(2).any(|pair| pair == [0, 0])
                && value[0] != 0;
            let value = if is_text {
                String::from_utf8_lossy(&value[..value.len() - 1]).replace('\0', ",")
            } else {
                value
                    .chunks(4)
                    .map(|cell| std::format!("{:x}", crate::devicetree::number(cell)))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            std::format!("{} = {value}", property.name())
        })
        .collect();
    lines.sort();
    Some(lines)
}

fn lines(text: &[&str]) -> Option<Vec<String>> {
    Some(text.iter().map(ToString::to_string).collect())
}

#[test]
fn the_tree_on_virt_with_gic_v2() {
    let plan = plan_with(&host(&virt(2, 2), "dom0_mem=1024M"), &free_of_virt()).unwrap();
    assert_eq!(check(&plan.dtb), Ok(()));
    let show = |path| show(&plan.dtb, path);
    assert_eq!(
        show("/hypervisor"),
        lines(&[
            "compatible = xen,xen-4.17,xen,xen",
            "interrupt-parent = 8003",
            "interrupts = 1 f f08",
            "reg = 1 0 0 1000000 1 1000000 1 80000000",
        ])
    );
    assert_eq!(show("/memory@80000000"), lines(&["device_type = memory", "reg = 0 80000000 0 40000000"]));
    assert_eq!(
        show("/cpus/cpu@1"),
        lines(&["compatible = arm,cortex-a72", "device_type = cpu", "enable-method = psci", "reg = 1"])
    );
    assert_eq!(show("/cpus/cpu@2"), None);
    assert_eq!(show("/cpus/cpu-map"), None);
    assert_eq!(
        show("/psci"),
        lines(&[
            "compatible = arm,psci-1.0,arm,psci-0.2,arm,psci",
            "cpu_off = 84000002",
            "cpu_on = c4000003",
            "method = hvc",
        ])
    );
    assert_eq!(
        show("/chosen"),
        lines(&[
            "bootargs = console=hvc0",
            "linux,initrd-end = 0 83c00000",
            "linux,initrd-start = 0 82200000",
            "rng-seed = 1 2 3 4",
        ])
    );
    let gic = show("/intc@8000000").unwrap();
    assert!(gic.contains(&"reg = 0 8000000 0 10000 0 8010000 0 10000".to_string()), "{gic:?}");
    assert!(gic.iter().all(|line| !line.starts_with("interrupts")), "{gic:?}");
    assert!(gic.contains(&"phandle = 8003".to_string()));
    let pcie = show("/pcie@10000000").unwrap();
    assert!(pcie.iter().all(|line| !line.starts_with("msi-map")) && pcie.len() == 9, "{pcie:?}");
    assert!(show("/timer").unwrap().contains(&"always-on = ".to_string()));
    for gone in [
        "/intc@8000000/v2m@8020000",
        "/pl011@9000000",
        "/pmu",
        "/memory@40000000",
        "/chosen/module@0x49000000",
    ] {
        assert_eq!(show(gone), None, "{gone}");
    }
    assert_eq!(show("/aliases"), lines(&["rtc0 = /pl031@9010000"]));
}

#[test]
fn the_tree_on_virt_with_gic_v3() {
    let plan = plan_with(&host(&virt(3, 2), "dom0_max_vcpus=20"), &free_of_virt()).unwrap();
    let gic = show(&plan.dtb, "/intc@8000000").unwrap();
    assert!(gic.contains(&"reg = 0 8000000 0 10000 0 80a0000 0 280000".to_string()), "{gic:?}");
    assert!(gic.contains(&"#redistributor-regions = 1".to_string()));
    assert_eq!(show(&plan.dtb, "/intc@8000000/its@8080000"), None);
    assert_eq!(plan.vcpus.len(), 20);
    assert_eq!(plan.vcpus[17], Mpidr::new(0x101));
    assert!(show(&plan.dtb, "/cpus/cpu@101").is_some());
    let Dom0Gic::V3 { redistributors, .. } = plan.gic else { panic!("not version 3") };
    assert_eq!(redistributors, range(0x80a_0000, 20 * 0x2_0000));
    // Without a size the memory is Xen's default.
    assert_eq!(plan.memory_size(), 512 * M);
}

#[test]
fn devices_on_virt() {
    let plan = plan_with(&host(&virt(2, 2), "dom0_mem=1024M"), &free_of_virt()).unwrap();
    assert_eq!(
        plan.mmio,
        [
            range(0x901_0000, 0x1000),
            range(0xa00_0000, 0x2000),
            // PCI: memory and port windows, configuration space, 64-bit window.
            range(0x1000_0000, 0x2eff_0000 + 0x1_0000),
            range(0x40_1000_0000, 0x1000_0000),
            range(0x80_0000_0000, 0x80_0000_0000),
        ]
    );
    let interrupts: Vec<_> = plan.interrupts.iter().map(|i| (i.intid.get(), i.trigger)).collect();
    let (level, edge) = (Trigger::Level, Trigger::Edge);
    assert_eq!(
        interrupts,
        [(34, level), (35, level), (36, level), (37, level), (38, level), (48, edge), (49, edge), (56, edge)]
    );
}

#[test]
fn what_shares_with_the_console_stays_with_it() {
    let free = [range(0x20_0000, 0x7e0_0000), range(0x900_0000, 0x3300_0000)];
    let plan = plan_with(&host(&pi4(), "dom0_mem=512M"), &free).unwrap();
    for gone in ["/soc/serial@7e201000", "/soc/serial@7e201400", "/soc/serial@7e201600", "/arm-pmu"] {
        assert_eq!(show(&plan.dtb, gone), None, "{gone}");
    }
    // Disabled, so in the tree, but not mapped; the console's alias is gone, and with it the path of `stdout`.
    assert!(show(&plan.dtb, "/soc/hdmi@7ef00700").is_some());
    assert_eq!(plan.mmio, [range(0xfe30_0000, 0x1000)]);
    assert_eq!(show(&plan.dtb, "/aliases"), lines(&[]));
    let chosen = show(&plan.dtb, "/chosen").unwrap();
    assert!(chosen.iter().all(|line| !line.starts_with("stdout-path")), "{chosen:?}");
    // The GIC's addresses stay those of its bus.
    let gic = show(&plan.dtb, "/soc/interrupt-controller@40041000").unwrap();
    assert!(gic.contains(&"reg = 40041000 1000 40042000 2000".to_string()), "{gic:?}");
    assert_eq!(plan.reserved, [range(0x8_0000, 0x8_0000)]);
    let root_cells = show(&plan.dtb, "/memory@80000");
    assert_eq!(root_cells, lines(&["device_type = memory", "reg = 0 80000 80000"]));
    assert_eq!(plan.interrupts.iter().map(|i| i.intid.get()).collect::<Vec<_>>(), [158]);
    assert!(show(&plan.dtb, "/soc").unwrap().contains(&"dma-ranges = c0000000 0 0 40000000".to_string()));
}

#[test]
fn without_a_console_nothing_is_kept() {
    let mut host = host(&virt(2, 1), "");
    host.console = None;
    let plan = plan_with(&host, &free_of_virt()).unwrap();
    assert!(show(&plan.dtb, "/pl011@9000000").is_some());
    assert!(show(&plan.dtb, "/chosen").unwrap().contains(&"stdout-path = /pl011@9000000".to_string()));
    assert!(plan.mmio.contains(&range(0x900_0000, 0x1000)) || plan.mmio[0].start == Pa::new(0x900_0000));
    assert!(plan.interrupts.iter().any(|i| i.intid.get() == 33));
}

#[test]
fn iommus_go_and_with_them_all_that_refers_to_them() {
    let mut model = virt(2, 1);
    model.root.add_child(node(
        "smmuv3@9050000",
        &[
            ("compatible", Text(&["arm,smmu-v3"])),
            ("reg", Cells(&[0, 0x905_0000, 0, 0x2_0000])),
            ("interrupts", Cells(&[0, 74, 1])),
            ("phandle", Cells(&[0x9000])),
        ],
        Vec::new(),
    ));
    set(at(&mut model, "/pcie@10000000"), "iommu-map", &Cells(&[0, 0x9000, 0, 0x1_0000]));
    set(at(&mut model, "/pl031@9010000"), "iommus", &Cells(&[0x9000, 1]));
    let plan = plan_with(&host(&model, ""), &free_of_virt()).unwrap();
    assert_eq!(show(&plan.dtb, "/smmuv3@9050000"), None);
    for path in ["/pcie@10000000", "/pl031@9010000"] {
        assert!(show(&plan.dtb, path).unwrap().iter().all(|line| !line.starts_with("iommu")), "{path}");
    }
    assert!(plan.mmio.iter().all(|mmio| !mmio.contains(Pa::new(0x905_0000))));
    assert!(plan.interrupts.iter().all(|i| i.intid.get() != 106));
}

#[test]
fn virtual_cpus_are_bounded_by_the_gic() {
    let count =
        |model: &Model, line| plan_with(&host(model, line), &free_of_virt()).map(|plan| plan.vcpus.len());
    assert_eq!(count(&virt(2, 4), ""), Ok(4));
    assert_eq!(count(&virt(2, 4), "dom0_max_vcpus=2"), Ok(2));
    assert_eq!(count(&virt(2, 16), ""), Ok(8));
    assert_eq!(count(&virt(3, 16), ""), Ok(16));
    assert_eq!(count(&virt(3, 4), "dom0_max_vcpus=1000"), Err(PlanError::Redistributors(128)));
}

#[test]
fn a_region_of_redistributors_that_is_large_enough_is_taken() {
    let mut model = virt(3, 4);
    let gic = at(&mut model, "/intc@8000000");
    set(gic, "#redistributor-regions", &Cells(&[2]));
    set(gic, "reg", &Cells(&[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0x2_0000, 0x41, 0, 0, 0x80_0000]));
    let plan = plan_with(&host(&model, ""), &free_of_virt()).unwrap();
    let gic = show(&plan.dtb, "/intc@8000000").unwrap();
    assert!(gic.contains(&"reg = 0 8000000 0 10000 41 0 0 80000".to_string()), "{gic:?}");
}

#[test]
fn memory_beyond_4_gib_fits_trees_with_small_cells() {
    let mut model = pi4();
    let memory =
        [0, 0, 0x3c00_0000, 0, 0x4000_0000, 0xbc00_0000, 1, 0, 0x8000_0000, 1, 0x8000_0000, 0x8000_0000];
    set(at(&mut model, "/memory@0"), "reg", &Cells(&memory));
    let host = host(&model, "dom0_mem=5G");
    assert_eq!(host.machine.memory.len(), 3);
    let low = range(0x2000_0000, 0x800_0000);
    let plan = plan_with(&host, &[low, range(0x4000_0000, 0x8000_0000), range(0x1_0000_0000, 0x1_0000_0000)])
        .unwrap();
    assert_eq!(
        show(&plan.dtb, "/memory@20000000").unwrap()[1],
        "reg = 0 20000000 8000000 0 40000000 80000000 1 0 80000000 1 80000000 38000000"
    );
    let hypervisor = show(&plan.dtb, "/hypervisor").unwrap();
    assert!(
        hypervisor[3].starts_with("reg = 2 0 1000000 2 1000000 80000000 2 81000000 80000000"),
        "{hypervisor:?}"
    );
}

#[test]
fn the_grant_region_is_where_nothing_is() {
    for model in [virt(2, 2), virt(3, 2), pi4()] {
        let host = host(&model, "dom0_mem=256M");
        let free = [range(host.machine.memory[0].start.raw() + 0x100_0000, 0x3000_0000)];
        let plan = plan_with(&host, &free).unwrap();
        assert_eq!(plan.grant_region.size(), GRANT_REGION);
        let gic = host.machine.gic.ranges();
        let mut used = plan.mmio.iter().chain(&host.machine.memory).chain(&gic);
        assert!(used.all(|used| !used.overlaps(&plan.grant_region)));
        assert!(plan.grant_region.end <= Pa::new(1 << 40));
    }
}

#[test]
fn refusals_keep_their_figures() {
    let error = plan_with(&host(&virt(2, 1), "dom0_mem=8G"), &free_of_virt()).unwrap_err();
    assert!(error.to_string().contains("8192 MiB are too much"), "{error}");
    assert!(error.to_string().contains("of 3072 MiB of RAM"), "{error}");
}

// ---- execution ----

/// An arm64 `Image` of `size` bytes that takes a page more.
fn image(size: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (0..size).map(|at| ((at * 7) >> 3) as u8).collect();
    image[..64].fill(0);
    image[16..24].copy_from_slice(&(size as u64 + 0x1000).to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

fn poke(at: u64, bytes: &[u8]) {
    for (index, page) in bytes.chunks(4096).enumerate() {
        // SAFETY: the fake machine's memory.
        unsafe { arch::phys::copy_to(Pa::new(at + index as u64 * 4096), page) };
    }
}

fn peek(at: Pa, size: usize) -> Vec<u8> {
    let mut bytes = std::vec![0; size];
    for (index, page) in bytes.chunks_mut(4096).enumerate() {
        // SAFETY: the fake machine's memory.
        unsafe { arch::phys::copy_from(at.wrapping_add(index as u64 * 4096), page) };
    }
    bytes
}

fn peek_dtb(at: u64) -> Vec<u8> {
    let header = peek(Pa::new(at), 4096);
    let size = crate::devicetree::total_size(header.first_chunk().unwrap()).unwrap();
    peek(Pa::new(at), size)
}

/// `virt` with 512 MiB, and these modules in memory.
fn machine_with_modules(kernel: &[u8], ramdisk: &[u8], line: &'static str) -> Host {
    let mut model = virt(2, 2);
    set(at(&mut model, "/memory@40000000"), "reg", &Cells(&[0, 0x4000_0000, 0, 0x2000_0000]));
    let size = |bytes: &[u8]| bytes.len().max(1) as u32;
    set(at(&mut model, "/chosen/module@0x49000000"), "reg", &Cells(&[0, KERNEL.0, 0, size(kernel)]));
    set(at(&mut model, "/chosen/module@0x4f000000"), "reg", &Cells(&[0, RAMDISK.0, 0, size(ramdisk)]));
    poke(KERNEL.0.into(), kernel);
    poke(RAMDISK.0.into(), ramdisk);
    boot(&model, line)
}

/// Discovery and memory, as boot does them.
fn boot(model: &Model, line: &'static str) -> Host {
    let host = host(model, line);
    let as_memory = |range: PaRange| {
        let cover = range.page_cover();
        MemoryRange { start: cover.start, pages: Pages::from_bytes(cover.size()) }
    };
    let banks: Vec<_> = host.machine.memory.iter().copied().map(as_memory).collect();
    let reserved: Vec<_> = host.machine.occupied().map(as_memory).collect();
    testing::machine_with(&banks, &reserved);
    host
}

fn start_on(host: &Host) -> Result<(), BuildError> {
    let geometry = Geometry::new(40).unwrap();
    crate::sched::init(CpuMask::first_n(2));
    start(host.tree, host.machine, host.options, host.console.as_ref(), geometry, CpuMask::first_n(2))
}

#[test]
fn dom0_is_built_as_planned() {
    let (kernel, ramdisk) = (image(100_001), std::vec![0xa5; 9001]);
    let host = machine_with_modules(&kernel, &ramdisk, "dom0_mem=64M");
    let free_before = memory().free_count();
    start_on(&host).unwrap();
    let dom0 = domain::find(DomId::DOM0).unwrap();
    assert!(dom0.is_control && dom0.is_direct_mapped);
    assert_eq!(dom0.pages.current(), Pages::from_bytes(64 * M));
    assert_eq!(dom0.vcpus().len(), 2);
    assert!(dom0.vcpus()[0].is_up.load(core::sync::atomic::Ordering::Relaxed));
    assert!(!dom0.vcpus()[1].is_up.load(core::sync::atomic::Ordering::Relaxed));

    // RAM from the lowest free 2 MiB, 1:1, with kernel, initramfs and tree in it.
    let base = 0x4000_0000;
    let lookup = |address: u64| dom0.p2m.lookup(Ipa::new(address).gfn());
    for address in [base, base + 32 * M, base + 64 * M - 4096] {
        assert_eq!(lookup(address), Some((Mfn::new(address >> 12), PageType::Ram)), "{address:#x}");
    }
    assert_eq!(lookup(base + 64 * M), None);
    assert_eq!(peek(Pa::new(base), kernel.len()), kernel);
    assert_eq!(peek(Pa::new(base + 2 * M), ramdisk.len()), ramdisk);
    let dtb = peek_dtb(base + 4 * M);
    assert_eq!(check(&dtb), Ok(()));
    assert!(show(&dtb, "/chosen").unwrap().contains(&"bootargs = console=hvc0 rdinit=/init".to_string()));

    // Devices, but not ours; the virtual CPU interface in place of the physical one; no distributor.
    assert_eq!(lookup(0x901_0000), Some((Mfn::new(0x9010), PageType::Mmio)));
    assert_eq!(lookup(0xff_ffff_f000), Some((Mfn::new(0xff_ffff_f000 >> 12), PageType::Mmio)));
    assert_eq!(lookup(0x801_0000), Some((Mfn::new(0x8040), PageType::Mmio)));
    for address in [0x900_0000, 0x800_0000, 0x803_0000, KERNEL.0.into()] {
        assert_eq!(lookup(address), None, "{address:#x}");
    }

    // The modules' memory is free again: 25 and 3 pages.
    let taken = Pages::from_bytes(64 * M);
    let tables_and_heap = free_before.get() + 28 - taken.get() - memory().free_count().get();
    assert!(tables_and_heap < 600, "{tables_and_heap}");
    assert!(memory().allocate_at(Pa::new(KERNEL.0.into()).mfn(), 0).is_some());
}

#[test]
fn dom0_from_a_bundle() {
    fn member(name: &str, data: &[u8]) -> Vec<u8> {
        let numbers = [1, 0o100_644, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let mut member = b"070701".to_vec();
        numbers.iter().for_each(|number| member.extend(std::format!("{number:08x}").as_bytes()));
        member.extend(name.as_bytes());
        member.push(0);
        member.resize(member.len().next_multiple_of(4), 0);
        member.extend(data);
        member.resize(member.len().next_multiple_of(4), 0);
        member
    }
    let kernel = image(5000);
    let mut bundle = member("kernel", &kernel);
    bundle.extend(member("cmdline", b"quiet\n"));
    bundle.extend(member("TRAILER!!!", b""));
    let mut model = pi4();
    let end = 0x800_0000 + bundle.len() as u32;
    set(at(&mut model, "/chosen"), "linux,initrd-end", &Cells(&[end]));
    poke(0x800_0000, &bundle);
    start_on(&boot(&model, "dom0_mem=32M")).unwrap();
    let dom0 = domain::find(DomId::DOM0).unwrap();
    // Page 0 holds spin tables and 0x80000 is reserved, so the first 2 MiB are not dom0's RAM.
    assert_eq!(dom0.p2m.lookup(Ipa::new(0).gfn()), None);
    assert_eq!(dom0.p2m.lookup(Ipa::new(0x8_0000).gfn()), Some((Mfn::new(0x80), PageType::Mmio)));
    assert_eq!(peek(Pa::new(0x20_0000), 5000), kernel);
    let dtb = peek_dtb(0x40_0000);
    assert_eq!(show(&dtb, "/chosen"), lines(&["bootargs = quiet"]));
}

/// Starts dom0 on the sample; its memory is as much as the command line says.
fn started(model: &Model, line: &'static str) -> std::sync::Arc<domain::Domain> {
    let host = boot(model, line);
    start_on(&host).unwrap();
    let dom0 = domain::find(DomId::DOM0).unwrap();
    assert_eq!(dom0.pages.current(), Pages::from_bytes(host.options.dom0_mem.amount.unwrap()));
    dom0
}

#[test]
fn one_bank_is_mapped_in_blocks_of_1_gib() {
    poke(KERNEL.0.into(), &image(5000));
    let dom0 = started(&virt(2, 2), "dom0_mem=1024M");
    let leaf = dom0.p2m.leaf(Ipa::new(0x8000_0000).gfn()).unwrap();
    assert_eq!(leaf.size(), stage2::BlockSize::Block1G);
}

#[test]
fn many_banks_on_a_pi() {
    let mut model = pi4();
    let kernel = &[("compatible", Text(&["multiboot,kernel"])), ("reg", Cells(&[0, 0x3000_0000, 5000]))];
    at(&mut model, "/chosen").add_child(node("module@1", kernel, Vec::new()));
    poke(0x3000_0000, &image(5000));
    let dom0 = started(&model, "dom0_mem=1200M");
    assert!(dom0.p2m.lookup(Ipa::new(0x20_0000).gfn()).is_some());
    assert!(dom0.p2m.lookup(Ipa::new(0x7fff_f000).gfn()).is_none());
}

#[test]
fn what_cannot_be_started_is_named() {
    let message = |host: &Host| start_on(host).unwrap_err().to_string();
    let mut model = virt(2, 1);
    model.root.remove_child("chosen");
    assert!(message(&boot(&model, "")).contains("no kernel"));
}

#[test]
fn a_corrupt_kernel_is_described() {
    let host = machine_with_modules(
        b"#!/bin/sh\necho this is no kernel, but long enough to have a header\n",
        b"",
        "",
    );
    let message = start_on(&host).unwrap_err().to_string();
    assert_eq!(message, "kernel: not an arm64 Image: starts with 23 21 2f 62 69 6e 2f 73 (unknown)");
}

#[test]
fn a_module_outside_ram_is_not_touched() {
    let mut model = virt(2, 1);
    set(at(&mut model, "/chosen/module@0x49000000"), "reg", &Cells(&[0, 0x900_0000, 0, 0x1000]));
    let message = start_on(&boot(&model, "")).unwrap_err().to_string();
    assert_eq!(message, "boot module 0x9000000-0x9001000 does not lie in RAM");
}

#[test]
fn an_initrd_that_is_no_bundle_is_described() {
    poke(0x800_0000, b"\x1f\x8b\x08\0");
    let message = start_on(&boot(&pi4(), "dom0_mem=32M")).unwrap_err().to_string();
    assert!(message.contains("bundle: the archive is compressed"), "{message}");
}

#[test]
fn too_much_memory_is_refused_before_anything_is_taken() {
    let host = machine_with_modules(&image(5000), b"x", "dom0_mem=4G");
    let free = memory().free_count();
    let message = start_on(&host).unwrap_err().to_string();
    assert!(message.starts_with("dom0_mem: 4096 MiB are too much"), "{message}");
    assert_eq!(memory().free_count(), free);
}

// ---- hostile blobs ----

#[test]
fn no_blob_that_passes_the_check_panics_on_the_way_to_a_plan() {
    use crate::devicetree::fuzz::{Random, mutate};
    let seeds: Vec<Vec<u8>> = [virt(2, 2), virt(3, 2), pi4()].iter().map(Model::to_dtb).collect();
    let seconds = std::env::var("NACELLE_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random(0xd0_0d);
    let (mut mutants, mut discovered, mut planned) = (0u64, 0u64, 0u64);
    while Instant::now() < end {
        let mut blob = seeds[random.below(seeds.len())].clone();
        for _ in 0..1 + random.below(4) {
            mutate(&mut blob, &mut random);
        }
        mutants += 1;
        if prepare(&mut blob).is_err() {
            continue;
        }
        let outcome = std::panic::catch_unwind(|| {
            let tree = DeviceTree::new(&blob).expect("prepared");
            let chosen = discovery::chosen(&tree);
            let options = cmdline::parse(chosen.as_ref().map_or("", |chosen| chosen.bootargs));
            let console = discovery::uart(&tree, options.dtuart);
            let machine = match Machine::discover(&tree, Mpidr::new(0)) {
                Ok(machine) => machine,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return (false, false);
                }
            };
            let (ranges, interrupts) = machine.kept(console.ok().flatten().as_ref());
            let inputs = Inputs {
                tree: &tree,
                machine: &machine,
                options: &options,
                bootargs: "",
                kept: Kept { ranges: &ranges, interrupts: &interrupts },
                ipa_bits: 40,
            };
            let chosen = layout(&machine, &options, &machine.memory, &SIZES).map_err(PlanError::Layout);
            match chosen.and_then(|layout| plan(&inputs, layout)) {
                Ok(plan) => {
                    assert_eq!(check(&plan.dtb), Ok(()), "dom0's tree must pass our own check");
                    assert!(
                        plan.mmio.iter().all(|mmio| machine.memory.iter().all(|bank| !bank.overlaps(mmio)))
                    );
                    (true, true)
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    (true, false)
                }
            }
        });
        match outcome {
            Ok((found, made)) => {
                discovered += u64::from(found);
                planned += u64::from(made);
            }
            Err(_) => panic!("mutant {mutants} panics: {blob:02x?}"),
        }
    }
    std::println!("{mutants} mutants, {discovered} machines, {planned} plans");
    assert!(planned * 100 > mutants, "{planned} plans from {mutants} mutants prove nothing");
}
