//! dom0's plan on a Raspberry Pi 4: what Nacelle keeps of it, and what its devices reach by DMA.

use super::*;

/// The sample with what else of a Raspberry Pi 4's tree matters to Nacelle.
fn whole_pi4() -> Model {
    let mut model = pi4();
    let soc = at(&mut model, "/soc");
    let device =
        |name: &str, compatible: &[&str], reg: &[u32], more: &[(&str, discovery::samples::Value<'_>)]| {
            let mut device = node(name, &[("compatible", Text(compatible)), ("reg", Cells(reg))], Vec::new());
            more.iter().for_each(|(name, value)| set(&mut device, name, value));
            device
        };
    let aux = ("interrupts", Cells(&[0, 93, 4]));
    for child in [
        device("gpio@7e200000", &["brcm,bcm2711-gpio"], &[0x7e20_0000, 0xb4], &[]),
        device("aux@7e215000", &["brcm,bcm2835-aux"], &[0x7e21_5000, 8], &[]),
        device("serial@7e215040", &["brcm,bcm2835-aux-uart"], &[0x7e21_5040, 0x40], &[aux]),
        device(
            "watchdog@7e100000",
            &["brcm,bcm2711-pm", "brcm,bcm2835-pm-wdt"],
            &[0x7e10_0000, 0x114, 0x7e00_a000, 0x24],
            &[("phandle", Cells(&[0x2a]))],
        ),
        device(
            "gpu@7ec00000",
            &["brcm,2711-v3d"],
            &[0x7ec0_0000, 0x4000],
            &[("power-domains", Cells(&[0x2a, 1]))],
        ),
        device(
            "dsi@7e209000",
            &["brcm,bcm2835-dsi0"],
            &[0x7e20_9000, 0x78],
            &[("power-domains", Cells(&[0xc, 0x11]))],
        ),
    ] {
        soc.add_child(child);
    }
    model
}

#[test]
fn a_raspberry_pi_keeps_its_power_and_the_pins_of_its_console() {
    let free = [range(0x20_0000, 0x3be0_0000)];
    let has = |plan: &Dom0Plan, path: &str| show(&plan.dtb, path).is_some();
    let mut model = whole_pi4();
    for power in ["brcm,bcm2711-pm", "brcm,bcm2835-pm", "brcm,bcm2835-pm-wdt"] {
        set(at(&mut model, "/soc/watchdog@7e100000"), "compatible", &Text(&[power]));
        let plan = plan_with(&host(&model, "dom0_mem=512M"), &free).unwrap();
        // The mini-UART is on the same pins; a graphics processor without power would hang the bus.
        for gone in
            ["watchdog@7e100000", "gpu@7ec00000", "serial@7e201000", "serial@7e215040", "aux@7e215000"]
        {
            assert!(!has(&plan, &std::format!("/soc/{gone}")), "{gone}");
        }
        assert!(has(&plan, "/soc/gpio@7e200000") && has(&plan, "/soc/dsi@7e209000"));
        for kept in [0xfe10_0000, 0xfe00_a000, 0xfe20_1000, 0xfe21_5000] {
            assert!(plan.mmio.iter().all(|mmio| !mmio.contains(Pa::new(kept))), "{kept:#x}");
        }
        assert!(plan.interrupts.iter().all(|interrupt| ![153, 125].contains(&interrupt.intid.get())));
    }
    // With the mini-UART as the console the PL011 is dom0's, for Bluetooth.
    let plan = plan_with(&host(&model, "dom0_mem=512M dtuart=/soc/serial@7e215040"), &free).unwrap();
    assert!(has(&plan, "/soc/serial@7e201000") && !has(&plan, "/soc/serial@7e215040"));
}

#[test]
fn what_dma_cannot_reach_is_told_and_too_little_within_reach_is_refused() {
    let low = range(0x20_0000, 0x3be0_0000);
    let high = range(0x4000_0000, 0xbc00_0000);
    let plan = |line, free: &[PaRange]| plan_with(&host(&pi4(), line), free);
    assert_eq!(plan("dom0_mem=512M", &[low, high]).unwrap().out_of_reach, None);
    let told = plan("dom0_mem=2G", &[low, high]).unwrap().out_of_reach.unwrap();
    assert_eq!((told.limit, told.within >> 20, told.beyond >> 20), (Pa::new(1 << 30), 958, 1090));
    assert_eq!(
        told.to_string(),
        "1090 MiB of its memory lie above 0x40000000, as far as devices on /soc reach by DMA, 958 MiB below"
    );
    let error = plan("dom0_mem=512M", &[range(0x20_0000, 0x400_0000), high]).unwrap_err();
    assert!(matches!(error, PlanError::NoDma(memory) if memory.within == 64 * M), "{error}");
    // A machine that sets no limit has nothing to tell.
    let plan = plan_with(&host(&virt(2, 2), "dom0_mem=1024M"), &free_of_virt()).unwrap();
    assert_eq!(plan.out_of_reach, None);
}

/// Every model has its low bank first, and the buffers of its devices in it.
#[test]
fn each_model_of_raspberry_pi_has_memory_for_dma() {
    let gib = |count: u32| count << 30;
    let low: [u32; 3] = [0, 0, 0x3b40_0000];
    let above = |size: u32| [0, gib(1), size];
    let models: [Vec<u32>; 4] = [
        low.to_vec(),
        [low, above(gib(1))].concat(),
        [low, above(0xbc00_0000)].concat(),
        [low, above(0xbc00_0000), [1, 0, gib(2)], [1, gib(2), gib(2)]].concat(),
    ];
    for (memory, amount) in models.iter().zip([512, 1024, 2048, 4096]) {
        let mut model = pi4();
        set(at(&mut model, "/memory@0"), "reg", &Cells(memory));
        let line: &'static str = Box::leak(std::format!("dom0_mem={amount}M").into_boxed_str());
        let host = host(&model, line);
        // The image, a bundle after it, the tree where the firmware has it.
        let used = [range(0, 0x500_0000), range(0x2eff_4000, 0x1_0000)];
        let free = devices::subtract(host.machine.memory.to_vec(), &used);
        let plan = plan_with(&host, &free).unwrap();
        assert_eq!(plan.memory_size(), amount * M);
        let first = plan.banks[0];
        assert!(first.start < Pa::new(0x600_0000) && first.size() >= 384 * M, "{first}");
        let within: u64 =
            plan.banks.iter().filter(|bank| bank.end <= Pa::new(1 << 30)).map(PaRange::size).sum();
        assert!(within >= (amount * M).min(0x3600_0000), "{within:#x}");
        assert!(plan.kernel_entry < Pa::new(1 << 30) && plan.initrd.unwrap().end <= Pa::new(1 << 30));
    }
}
