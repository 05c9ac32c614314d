//! From the early map to the first guest: what the boot CPU does, in order.

use arrayvec::ArrayVec;
use gic::phys::PhysGic;
use log::{error, info, warn};
use spin::Once;

use crate::sync::TicketMutex;
use stage2::{Geometry, Pa, Pages};

use crate::cmdline::{self, Options};
use crate::cpu::{CpuId, MAX_CPUS};
use crate::devicetree::{self, DeviceTree, PaRange};
use crate::discovery::{self, Conduit, EnableMethod, Gic, Machine, Mpidr, Uart};
use crate::mm::{self, MemoryRange};
use crate::{console, sched};

use super::el2_map::{self, Map, Use};
use super::sysreg::{read_sysreg, write_sysreg};
use super::{irq, panic, percpu, power, run, smp, spectre, uart, vcpu, vectors};

/// Magic number of a flattened device tree, big-endian.
const FDT_MAGIC: u32 = 0xd00d_feed;
/// The most that the Image protocol lets a device tree have.
const FDT_MAX: usize = 2 << 20;
/// PL011s for a message when no device tree names one, and the pins of those that are a Raspberry Pi's: QEMU's virt, and the
/// Raspberry Pi 3 or 4, by the CPU.
fn last_resort_uarts() -> [(u64, Option<u64>); 2] {
    const CORTEX_A53: u64 = 0xd03;
    let peripherals =
        if read_sysreg!("midr_el1") >> 4 & 0xfff == CORTEX_A53 { 0x3f00_0000 } else { 0xfe00_0000 };
    [(0x0900_0000, None), (peripherals + 0x20_1000, Some(peripherals + 0x20_0000))]
}

static MAP: Once<TicketMutex<Map>> = Once::new();

/// The tree that the firmware passed, if `address` points at one.
///
/// # Safety
/// `address` is mapped for [`FDT_MAX`] bytes, or the MMU is off; nobody else reads or changes that memory any more.
unsafe fn blob(address: u64) -> Result<&'static mut [u8], &'static str> {
    if address == 0 || !address.is_multiple_of(8) {
        return Err("no device tree: x0 holds no 8-byte aligned address");
    }
    // SAFETY: aligned and mapped by the caller's promise.
    let header = unsafe { core::slice::from_raw_parts(address as *const u32, 2) };
    if u32::from_be(header[0]) != FDT_MAGIC {
        return Err("no device tree: what x0 points at does not begin with 0xd00dfeed");
    }
    let size = u32::from_be(header[1]) as usize;
    if size > FDT_MAX {
        return Err("the device tree says it is larger than 2 MiB");
    }
    // SAFETY: within what the caller promises; the header is not used any more.
    Ok(unsafe { core::slice::from_raw_parts_mut(address as *mut u8, size) })
}

/// The machine was entered at EL1 or EL3. The MMU is off; only this CPU runs; nothing but the message can be done.
#[unsafe(no_mangle)]
extern "C" fn wrong_exception_level(dtb: u64, level: u64) -> ! {
    // SAFETY: the MMU is off.
    let console = unsafe { blob(dtb) }
        .ok()
        .and_then(|blob| DeviceTree::new(blob).ok())
        .and_then(|tree| discovery::uart(&tree, None).ok().flatten());
    let text = match level {
        1 => {
            "Nacelle must be entered at EL2, but was entered at EL1 (QEMU: -machine virtualization=on). Stopped.\n"
        }
        3 => "Nacelle must be entered at EL2, but was entered at EL3: start it from firmware. Stopped.\n",
        _ => "Nacelle must be entered at EL2. Stopped.\n",
    };
    if let Some(console) = console {
        // SAFETY: the device tree says so, the MMU is off, and nobody else runs.
        unsafe { uart::early(&console, text) };
    }
    power::stop_this_cpu()
}

/// Says why nothing can be done, where no console is known yet, and stops.
fn stop_without_console(map: Option<&mut Map>, text: &[&str]) -> ! {
    if let Some(map) = map {
        for page in last_resort_uarts().into_iter().flat_map(|(uart, gpio)| [Some(uart), gpio]).flatten() {
            let _ = map.map(page, page, 4096, Use::Device);
        }
        map.publish();
    }
    for (registers, gpio) in last_resort_uarts() {
        // SAFETY: on one of the machines this is the UART; on another it may be anything, but nothing runs after this.
        text.iter()
            .for_each(|text| unsafe { uart::last_resort(Pa::new(registers), gpio.map(Pa::new), text) });
    }
    power::stop_this_cpu()
}

/// Says why Nacelle cannot start, on the console, and stops.
fn stop(reason: core::fmt::Arguments<'_>) -> ! {
    error!("{reason}");
    error!("Nacelle cannot start. Stopped.");
    power::stop_this_cpu()
}

/// Where `_head` enters Rust: early map, boot stack.
#[unsafe(no_mangle)]
extern "C" fn boot_cpu(dtb: u64) -> ! {
    // SAFETY: the address of the vector table.
    unsafe { write_sysreg!("vbar_el2", vectors::vectors as *const () as u64) };
    percpu::init(CpuId::BOOT);

    // SAFETY: `early_tables` mapped two blocks of 2 MiB from the one that holds `dtb`.
    let tree = unsafe { blob(dtb) }.map_err(Err).and_then(|blob| {
        // Firmware that edits a tree leaves gaps where it removed something; QEMU does so with `-dtb`.
        devicetree::prepare(blob).map_err(Ok)?;
        DeviceTree::new(blob).map_err(Ok)
    });
    let tree = match tree {
        Ok(tree) => tree,
        Err(error) => {
            use core::fmt::Write;
            let mut text = arrayvec::ArrayString::<200>::new();
            let _ = match error {
                Ok(error) => writeln!(text, "Nacelle: bad device tree: {error}. Stopped."),
                Err(error) => writeln!(text, "Nacelle: {error}. Stopped."),
            };
            stop_without_console(el2_map::early().as_mut(), &[&text])
        }
    };
    start(&tree, dtb)
}

fn start(tree: &DeviceTree<'static>, dtb: u64) -> ! {
    if let Some(model) = discovery::wrong_raspberry_pi(tree) {
        // By that tree's addresses no console would be found where another model's tree has come.
        let text = discovery::text(format_args!("Nacelle: this is the device tree of a {model}. "));
        let advice =
            "Nacelle runs on the Raspberry Pi 4, 400 and Compute Module 4: bcm2711-rpi-*.dtb. Stopped.\n";
        stop_without_console(el2_map::early().as_mut(), &[&text, advice])
    }
    let chosen = discovery::chosen(tree);
    let bootargs = chosen.as_ref().map_or("", |chosen| chosen.bootargs);
    let options = cmdline::parse(bootargs);
    // Where `dtuart=` leads nowhere, the firmware's own choice is where that can be said.
    let (uart, uart_error) = match discovery::uart(tree, options.dtuart) {
        Ok(uart) => (uart, None),
        Err(error) => (discovery::uart(tree, None).ok().flatten(), Some(error)),
    };
    let machine = Machine::discover(tree, Mpidr::new(read_sysreg!("mpidr_el1")));

    let map = match build_map(machine.as_ref().ok(), uart.as_ref(), tree, dtb) {
        Ok(map) => map,
        Err(_) => {
            stop_without_console(el2_map::early().as_mut(), &["Nacelle: not enough table pages. Stopped.\n"])
        }
    };
    // SAFETY: the map holds this image, with the stack in use, all RAM, the device tree, and the devices used below.
    unsafe { el2_map::switch(&map) };
    MAP.call_once(|| TicketMutex::new(map));

    if options.console != cmdline::Console::None
        && let Some(uart) = &uart
    {
        let gpio = machine.as_ref().ok().and_then(|machine| machine.raspberry_pi?.gpio);
        // SAFETY: UART and pins by the device tree, mapped as devices just now; no guest runs, and none is given the UART.
        unsafe { uart::init(uart, gpio.map(|gpio| gpio.start)) };
    }
    console::init(options.loglvl.always, options.guest_loglvl.limited);
    panic::set_reboot(!options.noreboot);
    banner();
    report(&options);
    if let Some(error) = &uart_error {
        warn!("console: {error}");
    }
    let machine = match machine {
        Ok(machine) => machine,
        Err(error) => stop(format_args!("device tree: {error}")),
    };
    let conduit = match machine.psci {
        Some(psci) if psci.cpu_on_0_1.is_none() => match psci.conduit {
            Conduit::Smc => power::Conduit::Smc,
            Conduit::Hvc => power::Conduit::Hvc,
        },
        _ => power::Conduit::None,
    };
    // SAFETY: the block by the device tree, mapped as a device just now, and not given to any guest.
    unsafe { power::init(conduit, machine.raspberry_pi.and_then(|pi| pi.power).map(|power| power.start)) };
    spectre::init(options.spec_ctrl);
    if options.has_errors() {
        stop(format_args!("a command-line option has a bad value (above)"));
    }
    init_memory(&machine, tree, dtb);
    crate::hypercall::version::set_command_line(bootargs);
    init_gic(&machine, uart.as_ref());

    let mmfr0 = read_sysreg!("id_aa64mmfr0_el1");
    let geometry = Geometry::from_id_aa64mmfr0(mmfr0);
    let vtcr = geometry.vtcr(mmfr0, read_sysreg!("id_aa64mmfr1_el1"));
    // SAFETY: no guest runs yet.
    unsafe { vcpu::init_cpu(vtcr) };
    if let Err(error) = irq::init_cpu(CpuId::BOOT) {
        stop(format_args!("interrupt controller: {error}"));
    }
    percpu::set_online();
    map_stacks(machine.cpus.len());
    sched::init(sched::CpuMask::only(CpuId::BOOT));
    let online = smp::start_all(&machine.cpus, vtcr);
    sched::init(online);

    if let Err(error) = crate::dom0::start(tree, &machine, &options, uart.as_ref(), geometry, online) {
        stop(format_args!("dom0: {error}"));
    }
    uart::enable_receive_interrupt();
    crate::keys::announce_input(false);
    enter_run_loop()
}

fn banner() {
    info!("Nacelle {} (Xen 4.17 ABI), at {:#x}", env!("CARGO_PKG_VERSION"), el2_map::image().start);
    info!("CPU {:#010x}, counter at {} Hz", read_sysreg!("midr_el1"), read_sysreg!("cntfrq_el0"));
}

fn report(options: &Options<'_>) {
    for problem in &options.problems {
        if problem.is_error() {
            error!("{problem}");
        } else {
            warn!("{problem}");
        }
    }
    if options.problems_dropped != 0 {
        warn!("{} more problems with the command line", options.problems_dropped);
    }
}

/// EL2's final map: the image, RAM but for what must not be mapped, the devices that Nacelle drives.
fn build_map(
    machine: Option<&Machine<'_>>,
    uart: Option<&Uart>,
    tree: &DeviceTree<'_>,
    dtb: u64,
) -> Result<Map, el2_map::MapError> {
    let mut map = Map::new()?;
    let image = el2_map::image();
    image.map_into(&mut map)?;
    if let Some(machine) = machine {
        let mut holes: ArrayVec<(u64, u64), { discovery::MAX_RESERVED + 1 }> = ArrayVec::new();
        holes.push((image.start, image.end));
        for reserved in machine.reserved.iter().filter(|r| r.no_map) {
            let range = reserved.range.page_cover();
            holes.push((range.start.raw(), range.start.raw() + range.size()));
        }
        for bank in &machine.memory {
            map_around(&mut map, bank.start.raw(), bank.start.raw() + bank.size(), &holes)?;
        }
        for range in machine.gic.ranges() {
            map_device(&mut map, &range)?;
        }
        for range in machine.raspberry_pi.iter().flat_map(|pi| [pi.power, pi.gpio]).flatten() {
            map_device(&mut map, &range)?;
        }
        // A spin table that the firmware keeps to itself (`no-map`), or outside RAM, is reached past the caches, as the CPU
        // that waits reaches it. In RAM that is mapped, its page is there already.
        for cpu in &machine.cpus {
            if let EnableMethod::SpinTable { release_address } = cpu.enable {
                match map.map(release_address.raw(), release_address.raw(), 8, Use::Device) {
                    Ok(()) | Err(el2_map::MapError::Occupied(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    } else {
        // Only enough to say what is wrong: the tree's text may be part of the message.
        let _ = map.map(dtb, dtb, tree.blob().len() as u64, Use::ReadOnly);
    }
    if let Some(uart) = uart {
        map_device(&mut map, &uart.registers)?;
    }
    map.publish();
    Ok(map)
}

fn map_device(map: &mut Map, range: &PaRange) -> Result<(), el2_map::MapError> {
    let range = range.page_cover();
    map.map(range.start.raw(), range.start.raw(), range.size(), Use::Device)
}

/// Maps `[start, end)` as RAM, without the holes.
fn map_around(map: &mut Map, start: u64, end: u64, holes: &[(u64, u64)]) -> Result<(), el2_map::MapError> {
    let mut at = start;
    while at < end {
        if let Some(&(_, hole_end)) = holes.iter().find(|&&(from, to)| from <= at && at < to) {
            at = hole_end;
            continue;
        }
        let next = holes.iter().map(|&(from, _)| from).filter(|&from| from > at).fold(end, u64::min);
        map.map(at, at, next - at, Use::Data)?;
        at = next;
    }
    Ok(())
}

fn init_memory(machine: &Machine<'_>, tree: &DeviceTree<'_>, dtb: u64) {
    const RESERVED: usize = 2 * discovery::MAX_RESERVED;
    let range = |range: &PaRange| {
        let cover = range.page_cover();
        MemoryRange { start: cover.start, pages: Pages::covering_bytes(cover.size()) }
    };
    let banks: ArrayVec<MemoryRange, { discovery::MAX_BANKS }> = machine.memory.iter().map(range).collect();
    let image = el2_map::image();
    let own = [(image.start, image.end - image.start), (dtb, tree.blob().len() as u64)];
    let mut reserved: ArrayVec<MemoryRange, RESERVED> = ArrayVec::new();
    let occupied =
        own.iter().filter_map(|&(start, size)| PaRange::new(Pa::new(start), size)).chain(machine.occupied());
    for occupied in occupied {
        if reserved.try_push(range(&occupied)).is_err() {
            stop(format_args!("memory: more than {RESERVED} reserved ranges"));
        }
    }
    // SAFETY: the banks are RAM by the device tree, mapped by `build_map`; all that is in use so far is reserved.
    if let Err(error) = unsafe { mm::init(&banks, &reserved) } {
        stop(format_args!("memory: {error}"));
    }
    for bank in &machine.memory {
        info!("RAM: {:#x} - {:#x}", bank.start.raw(), bank.start.raw() + bank.size());
    }
}

fn init_gic(machine: &Machine<'_>, uart: Option<&Uart>) {
    let physical = match &machine.gic {
        // SAFETY: the frames of the GIC by the device tree, mapped as devices by `build_map`; nobody else drives it.
        Gic::V2 { gicd, gicc, gich, gicv, .. } => unsafe {
            PhysGic::v2(address(gicd), address(gicc), address(gich), address(gicv))
        },
        Gic::V3 { gicd, redistributors, .. } => {
            let regions: ArrayVec<(usize, usize), { discovery::MAX_REDISTRIBUTORS }> =
                redistributors.iter().map(|range| (address(range), range.size() as usize)).collect();
            // SAFETY: as above.
            unsafe { PhysGic::v3(address(gicd), &regions) }
        }
    };
    let physical = match physical {
        Ok(physical) => physical,
        Err(error) => stop(format_args!("interrupt controller: {error}")),
    };
    let maintenance = match &machine.gic {
        Gic::V2 { maintenance, .. } | Gic::V3 { maintenance, .. } => maintenance.intid,
    };
    let lines = irq::Lines {
        virtual_timer: machine.timer.virtual_.intid,
        hypervisor_timer: machine.timer.hypervisor.intid,
        maintenance,
        uart: uart.and_then(|uart| uart.interrupt).map(|interrupt| interrupt.intid),
        gicv: match &machine.gic {
            Gic::V2 { gicv, .. } => Some(*gicv),
            Gic::V3 { .. } => None,
        },
        told_frequency: machine.timer.frequency.unwrap_or(0),
    };
    irq::init(physical, lines);
}

fn address(range: &PaRange) -> usize {
    range.start.raw() as usize
}

/// Gives each CPU its stack: frames mapped into the stack window, below each an unmapped guard.
fn map_stacks(cpus: usize) {
    let Some(map) = MAP.get() else { return };
    let mut map = map.lock();
    let order = (el2_map::STACK_SIZE / 4096).ilog2();
    for id in (0..cpus.min(MAX_CPUS)).filter_map(CpuId::new) {
        let Some(block) = mm::memory().allocate(order) else {
            stop(format_args!("no memory for the stack of {id}"))
        };
        let pa = block.into_hypervisor().pa().raw();
        let va = el2_map::stack_top(id) - el2_map::STACK_SIZE;
        if map.map(va, pa, el2_map::STACK_SIZE, Use::Data).is_err() {
            stop(format_args!("no table pages for the stack of {id}"));
        }
    }
    map.publish();
}

/// Leaves the boot stack for this CPU's own, and with it everything that only boot needed.
fn enter_run_loop() -> ! {
    let top = el2_map::stack_top(CpuId::BOOT);
    // SAFETY: `map_stacks` mapped the stack; nothing on the old one is used again, as the callee does not return.
    unsafe {
        core::arch::asm!("mov sp, {}", "mov x29, xzr", "mov x30, xzr", "b {}", in(reg) top, sym run_loop,
            options(noreturn))
    }
}

extern "C" fn run_loop() -> ! {
    run::run_loop()
}
