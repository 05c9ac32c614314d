//! Device trees for tests, built here: what QEMU's `virt` and a Raspberry Pi 4 pass, cut to what matters.

use std::vec::Vec;

use dtoolkit::memreserve::MemoryReservation;
use dtoolkit::model::{DeviceTree as Model, DeviceTreeNode, DeviceTreeProperty};

/// A value of a property.
pub(crate) enum Value<'a> {
    Cells(&'a [u32]),
    Text(&'a [&'a str]),
    Empty,
}

use Value::{Cells, Empty, Text};

/// A node with these properties and children.
pub(crate) fn node(
    name: &str,
    properties: &[(&str, Value<'_>)],
    children: Vec<DeviceTreeNode>,
) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    for (name, value) in properties {
        set(&mut node, name, value);
    }
    children.into_iter().for_each(|child| node.add_child(child));
    node
}

/// Sets a property.
pub(crate) fn set(node: &mut DeviceTreeNode, name: &str, value: &Value<'_>) {
    let bytes: Vec<u8> = match value {
        Cells(cells) => cells.iter().flat_map(|cell| cell.to_be_bytes()).collect(),
        Text(strings) => strings.iter().flat_map(|text| text.bytes().chain([0])).collect(),
        Empty => Vec::new(),
    };
    node.add_property(DeviceTreeProperty::new_unchecked(name, bytes.as_slice()));
}

/// The node at `path`, to be changed.
pub(crate) fn at<'m>(tree: &'m mut Model, path: &str) -> &'m mut DeviceTreeNode {
    tree.find_node_mut(path).expect("the sample has it")
}

fn tree(root: DeviceTreeNode) -> Model {
    let mut tree = Model::new();
    tree.root = root;
    tree
}

fn cpu(reg: u32, method: &[(&str, Value<'_>)]) -> DeviceTreeNode {
    let mut cpu = node(
        &std::format!("cpu@{reg:x}"),
        &[("device_type", Text(&["cpu"])), ("compatible", Text(&["arm,cortex-a72"])), ("reg", Cells(&[reg]))],
        Vec::new(),
    );
    method.iter().for_each(|(name, value)| set(&mut cpu, name, value));
    cpu
}

/// What `guest-loader` adds to [`virt`].
pub(crate) const KERNEL: (u32, u32) = (0x4900_0000, 0x1f6_dfc0);
/// The same for the initramfs.
pub(crate) const RAMDISK: (u32, u32) = (0x4f00_0000, 0x191_147f);

/// QEMU's `virt` with `virtualization=on`, 3 GiB, and dom0's kernel and initramfs by `guest-loader`.
pub(crate) fn virt(gic_version: u32, cpus: u32) -> Model {
    let virtio = |index: u32| {
        node(
            &std::format!("virtio_mmio@{:x}", 0xa00_0000 + index * 0x200),
            &[
                ("compatible", Text(&["virtio,mmio"])),
                ("reg", Cells(&[0, 0xa00_0000 + index * 0x200, 0, 0x200])),
                ("interrupts", Cells(&[0, 16 + index, 1])),
                ("dma-coherent", Empty),
            ],
            Vec::new(),
        )
    };
    let gic = match gic_version {
        2 => node(
            "intc@8000000",
            &[
                ("phandle", Cells(&[0x8003])),
                ("compatible", Text(&["arm,cortex-a15-gic"])),
                (
                    "reg",
                    Cells(&[
                        0, 0x800_0000, 0, 0x1_0000, 0, 0x801_0000, 0, 0x1_0000, 0, 0x803_0000, 0, 0x1_0000,
                        0, 0x804_0000, 0, 0x1_0000,
                    ]),
                ),
                ("interrupts", Cells(&[1, 9, 4])),
                ("interrupt-controller", Empty),
                ("#interrupt-cells", Cells(&[3])),
                ("#address-cells", Cells(&[2])),
                ("#size-cells", Cells(&[2])),
                ("ranges", Empty),
            ],
            std::vec![node(
                "v2m@8020000",
                &[
                    ("phandle", Cells(&[0x8004])),
                    ("compatible", Text(&["arm,gic-v2m-frame"])),
                    ("reg", Cells(&[0, 0x802_0000, 0, 0x1000])),
                    ("msi-controller", Empty),
                ],
                Vec::new(),
            )],
        ),
        _ => node(
            "intc@8000000",
            &[
                ("phandle", Cells(&[0x8003])),
                ("compatible", Text(&["arm,gic-v3"])),
                ("reg", Cells(&[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0xf6_0000])),
                ("#redistributor-regions", Cells(&[1])),
                ("interrupts", Cells(&[1, 9, 4])),
                ("interrupt-controller", Empty),
                ("#interrupt-cells", Cells(&[3])),
                ("#address-cells", Cells(&[2])),
                ("#size-cells", Cells(&[2])),
                ("ranges", Empty),
            ],
            std::vec![node(
                "its@8080000",
                &[
                    ("phandle", Cells(&[0x8004])),
                    ("compatible", Text(&["arm,gic-v3-its"])),
                    ("reg", Cells(&[0, 0x808_0000, 0, 0x2_0000])),
                    ("msi-controller", Empty),
                ],
                Vec::new(),
            )],
        ),
    };
    let mut map = Vec::new();
    for pin in 1..=4 {
        map.extend([0, 0, 0, pin, 0x8003, 0, 0, 0, 2 + pin, 4]);
    }
    let mut children = std::vec![
        node(
            "psci",
            &[
                ("compatible", Text(&["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])),
                ("method", Text(&["smc"])),
                ("cpu_on", Cells(&[0xc400_0003])),
            ],
            Vec::new(),
        ),
        node(
            "memory@40000000",
            &[("device_type", Text(&["memory"])), ("reg", Cells(&[0, 0x4000_0000, 0, 0xc000_0000]))],
            Vec::new(),
        ),
        node(
            "platform-bus@c000000",
            &[
                ("compatible", Text(&["qemu,platform", "simple-bus"])),
                ("ranges", Cells(&[0, 0, 0xc00_0000, 0x200_0000])),
                ("#address-cells", Cells(&[1])),
                ("#size-cells", Cells(&[1])),
            ],
            Vec::new(),
        ),
        virtio(0),
        virtio(1),
        virtio(8),
        node(
            "pcie@10000000",
            &[
                ("compatible", Text(&["pci-host-ecam-generic"])),
                ("device_type", Text(&["pci"])),
                ("#address-cells", Cells(&[3])),
                ("#size-cells", Cells(&[2])),
                ("#interrupt-cells", Cells(&[1])),
                ("reg", Cells(&[0x40, 0x1000_0000, 0, 0x1000_0000])),
                (
                    "ranges",
                    Cells(&[
                        0x100_0000,
                        0,
                        0,
                        0,
                        0x3eff_0000,
                        0,
                        0x1_0000,
                        0x200_0000,
                        0,
                        0x1000_0000,
                        0,
                        0x1000_0000,
                        0,
                        0x2eff_0000,
                        0x300_0000,
                        0x80,
                        0,
                        0x80,
                        0,
                        0x80,
                        0
                    ])
                ),
                ("interrupt-map-mask", Cells(&[0x1800, 0, 0, 7])),
                ("interrupt-map", Cells(&map)),
                ("msi-map", Cells(&[0, 0x8004, 0, 0x1_0000])),
            ],
            Vec::new(),
        ),
        node(
            "pl031@9010000",
            &[
                ("compatible", Text(&["arm,pl031", "arm,primecell"])),
                ("reg", Cells(&[0, 0x901_0000, 0, 0x1000])),
                ("interrupts", Cells(&[0, 2, 4])),
                ("clocks", Cells(&[0x8000])),
            ],
            Vec::new(),
        ),
        node(
            "pl011@9000000",
            &[
                ("compatible", Text(&["arm,pl011", "arm,primecell"])),
                ("reg", Cells(&[0, 0x900_0000, 0, 0x1000])),
                ("interrupts", Cells(&[0, 1, 4])),
                ("clocks", Cells(&[0x8000, 0x8000])),
            ],
            Vec::new(),
        ),
        node(
            "pmu",
            &[("compatible", Text(&["arm,armv8-pmuv3"])), ("interrupts", Cells(&[1, 7, 4]))],
            Vec::new(),
        ),
        gic,
        node(
            "timer",
            &[
                ("compatible", Text(&["arm,armv8-timer", "arm,armv7-timer"])),
                ("interrupts", Cells(&[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4])),
            ],
            Vec::new(),
        ),
        node(
            "apb-pclk",
            &[
                ("phandle", Cells(&[0x8000])),
                ("compatible", Text(&["fixed-clock"])),
                ("clock-frequency", Cells(&[24_000_000])),
                ("#clock-cells", Cells(&[0])),
            ],
            Vec::new(),
        ),
        node(
            "aliases",
            &[("serial0", Text(&["/pl011@9000000"])), ("rtc0", Text(&["/pl031@9010000"]))],
            Vec::new()
        ),
    ];
    let mut nodes: Vec<DeviceTreeNode> = std::vec![node("cpu-map", &[], Vec::new())];
    nodes.extend((0..cpus).map(|reg| cpu(reg, &[("enable-method", Text(&["psci"]))])));
    children.push(node("cpus", &[("#address-cells", Cells(&[1])), ("#size-cells", Cells(&[0]))], nodes));
    let module = |(start, size): (u32, u32), kind: &str, bootargs: &str| {
        let mut module = node(
            &std::format!("module@0x{start:x}"),
            &[("compatible", Text(&["multiboot,module", kind])), ("reg", Cells(&[0, start, 0, size]))],
            Vec::new(),
        );
        if !bootargs.is_empty() {
            set(&mut module, "bootargs", &Text(&[bootargs]));
        }
        module
    };
    children.push(node(
        "chosen",
        &[
            ("bootargs", Text(&["dom0_mem=1024M console=dtuart dtuart=serial0"])),
            ("stdout-path", Text(&["/pl011@9000000"])),
            ("rng-seed", Cells(&[1, 2, 3, 4])),
        ],
        std::vec![
            module(RAMDISK, "multiboot,ramdisk", ""),
            module(KERNEL, "multiboot,kernel", "console=hvc0 rdinit=/init"),
        ],
    ));
    tree(node(
        "",
        &[
            ("#address-cells", Cells(&[2])),
            ("#size-cells", Cells(&[2])),
            ("interrupt-parent", Cells(&[0x8003])),
            ("compatible", Text(&["linux,dummy-virt"])),
            ("model", Text(&["linux,dummy-virt"])),
        ],
        children,
    ))
}

/// A Raspberry Pi 4 with 2 GiB whose firmware loaded a bundle of 16 MiB; spin tables in page 0.
pub(crate) fn pi4() -> Model {
    let serial = |offset: u32, status: &str| {
        node(
            &std::format!("serial@{:x}", 0x7e20_1000 + offset),
            &[
                ("compatible", Text(&["arm,pl011", "arm,primecell"])),
                ("reg", Cells(&[0x7e20_1000 + offset, 0x200])),
                ("interrupts", Cells(&[0, 121, 4])),
                ("clock-frequency", Cells(&[48_000_000])),
                ("status", Text(&[status])),
            ],
            Vec::new(),
        )
    };
    let soc = node(
        "soc",
        &[
            ("compatible", Text(&["simple-bus"])),
            ("#address-cells", Cells(&[1])),
            ("#size-cells", Cells(&[1])),
            (
                "ranges",
                Cells(&[
                    0x7e00_0000,
                    0,
                    0xfe00_0000,
                    0x180_0000,
                    0x7c00_0000,
                    0,
                    0xfc00_0000,
                    0x200_0000,
                    0x4000_0000,
                    0,
                    0xff80_0000,
                    0x80_0000,
                ]),
            ),
            ("dma-ranges", Cells(&[0xc000_0000, 0, 0, 0x4000_0000])),
        ],
        std::vec![
            node(
                "interrupt-controller@40041000",
                &[
                    ("phandle", Cells(&[1])),
                    ("compatible", Text(&["arm,gic-400"])),
                    (
                        "reg",
                        Cells(&[
                            0x4004_1000,
                            0x1000,
                            0x4004_2000,
                            0x2000,
                            0x4004_4000,
                            0x2000,
                            0x4004_6000,
                            0x2000
                        ])
                    ),
                    ("interrupts", Cells(&[1, 9, 0xf04])),
                    ("interrupt-controller", Empty),
                    ("#interrupt-cells", Cells(&[3])),
                ],
                Vec::new(),
            ),
            serial(0, "okay"),
            serial(0x400, "disabled"),
            serial(0x600, "disabled"),
            node(
                "mmc@7e300000",
                &[
                    ("compatible", Text(&["brcm,bcm2835-mmc"])),
                    ("reg", Cells(&[0x7e30_0000, 0x100])),
                    ("interrupts", Cells(&[0, 126, 4])),
                ],
                Vec::new(),
            ),
            node(
                "hdmi@7ef00700",
                &[
                    ("compatible", Text(&["brcm,bcm2711-hdmi0"])),
                    ("reg", Cells(&[0x7ef0_0700, 0x300])),
                    ("interrupts", Cells(&[0, 99, 4])),
                    ("status", Text(&["disabled"])),
                ],
                Vec::new(),
            ),
        ],
    );
    let release = |cpu: u32| [0, 0xd8 + 8 * cpu];
    let cpus = (0..4)
        .map(|reg| {
            cpu(reg, &[("enable-method", Text(&["spin-table"])), ("cpu-release-addr", Cells(&release(reg)))])
        })
        .collect();
    let mut tree = tree(node(
        "",
        &[
            ("#address-cells", Cells(&[2])),
            ("#size-cells", Cells(&[1])),
            ("interrupt-parent", Cells(&[1])),
            ("compatible", Text(&["raspberrypi,4-model-b", "brcm,bcm2711"])),
        ],
        std::vec![
            node("aliases", &[("serial0", Text(&["/soc/serial@7e201000"]))], Vec::new()),
            node(
                "chosen",
                &[
                    ("stdout-path", Text(&["serial0:115200n8"])),
                    ("bootargs", Text(&["dom0_mem=512M"])),
                    ("linux,initrd-start", Cells(&[0x800_0000])),
                    ("linux,initrd-end", Cells(&[0x900_0000])),
                ],
                Vec::new(),
            ),
            node(
                "reserved-memory",
                &[("#address-cells", Cells(&[2])), ("#size-cells", Cells(&[1])), ("ranges", Empty)],
                std::vec![
                    node(
                        "linux,cma",
                        &[("compatible", Text(&["shared-dma-pool"])), ("size", Cells(&[0x400_0000]))],
                        Vec::new(),
                    ),
                    node("atf@0", &[("reg", Cells(&[0, 0x8_0000, 0x8_0000])), ("no-map", Empty)], Vec::new()),
                ],
            ),
            soc,
            node(
                "arm-pmu",
                &[
                    ("compatible", Text(&["arm,cortex-a72-pmu", "arm,armv8-pmuv3"])),
                    ("interrupts", Cells(&[0, 16, 4, 0, 17, 4])),
                ],
                Vec::new(),
            ),
            node(
                "timer",
                &[
                    ("compatible", Text(&["arm,armv8-timer"])),
                    ("interrupts", Cells(&[1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08])),
                ],
                Vec::new(),
            ),
            node("cpus", &[("#address-cells", Cells(&[1])), ("#size-cells", Cells(&[0]))], cpus),
            node(
                "memory@0",
                &[
                    ("device_type", Text(&["memory"])),
                    ("reg", Cells(&[0, 0, 0x3c00_0000, 0, 0x4000_0000, 0x4000_0000])),
                ],
                Vec::new(),
            ),
        ],
    ));
    tree.memory_reservations.push(MemoryReservation::new(0, 0x1000));
    tree
}
