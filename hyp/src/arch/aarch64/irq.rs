//! Interrupts: the physical ones that arrive, whose they are, and the virtual GIC of the loaded vCPU.
//!
//! One physical interrupt is served per exit; if more are pending, the guest exits again at once.

use core::sync::atomic::{AtomicU32, Ordering};

use gic::phys::{CpuTarget, PhysGic};
use gic::{CpuInterfaceState, Frame, Host, IntId, Kicks, SgiRegister, Trigger, VcpuIndex};
use spin::Once;

use crate::sync::TicketMutex;

use crate::console::{self, Input};
use crate::cpu::{CpuId, MAX_CPUS};
use crate::devicetree::PaRange;
use crate::domain::{self, Domain};
use crate::vcpu::{VcpuId, request};
use crate::{event, keys, sched, vgic};

use super::percpu::{self, Loaded};
use super::{panic, power, timer, uart};

/// The SGI that makes a CPU look at its requests.
const KICK: Option<IntId> = IntId::sgi(0);

static GIC: Once<PhysGic> = Once::new();
static TARGETS: [Once<CpuTarget>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];
static LINES: Once<Lines> = Once::new();
/// SPIs that go to the control domain under the same number: bit = INTID.
static ROUTED: [AtomicU32; 32] = [const { AtomicU32::new(0) }; 32];
/// Changing a trigger is a read-modify-write of a shared register.
static TRIGGERS: TicketMutex<()> = TicketMutex::new(());

/// The physical interrupts that Nacelle itself uses.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// EL1 virtual timer.
    pub virtual_timer: IntId,
    /// EL2 physical timer.
    pub hypervisor_timer: IntId,
    /// Virtual CPU interface maintenance.
    pub maintenance: IntId,
    /// The console's UART.
    pub uart: Option<IntId>,
    /// GICv2: the virtual CPU interface, which stage 2 shows to guests.
    pub gicv: Option<PaRange>,
    /// The counter's frequency by the device tree, where that does not trust the firmware with CNTFRQ_EL0; or 0.
    pub told_frequency: u32,
}

/// The part of a vCPU's interrupt state that is in the hardware while it is loaded.
#[derive(Debug, Default)]
pub struct VirtualInterface {
    state: CpuInterfaceState,
}

impl VirtualInterface {
    /// At reset.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Installs the machine's GIC. Once, by the boot CPU.
pub fn init(gic: PhysGic, lines: Lines) {
    GIC.call_once(|| gic);
    LINES.call_once(|| lines);
}

/// Sets up this CPU's part of the GIC.
pub fn init_cpu(cpu: CpuId) -> Result<(), gic::phys::GicError> {
    let (Some(gic), Some(lines)) = (GIC.get(), LINES.get()) else { return Err(gic::phys::GicError::NotAGic) };
    let target = gic.init_cpu()?;
    TARGETS[cpu.index()].call_once(|| target);
    for line in [lines.virtual_timer, lines.hypervisor_timer, lines.maintenance] {
        gic.enable(line);
    }
    if cpu == CpuId::BOOT
        && let Some(uart) = lines.uart
    {
        gic.route(uart, target);
        gic.enable(uart);
    }
    Ok(())
}

#[inline(always)]
fn physical() -> &'static PhysGic {
    // Guests run only after `init`; should that break, it is EL2's own invariant.
    GIC.get().expect("the GIC is set up before any CPU enters the run loop")
}

/// The first SPI number that does not exist, for a virtual GIC of the same size.
pub fn spi_count() -> u32 {
    physical().limit().saturating_sub(32)
}

/// The machine's GIC version.
pub fn version() -> gic::Version {
    physical().version()
}

/// What a domain's virtual GIC is made of: the version, which is the machine's, and GICv2's virtual CPU interface.
pub fn guest_gic() -> (gic::Version, Option<PaRange>) {
    (version(), LINES.get().and_then(|lines| lines.gicv))
}

/// What domains are told of the counter's frequency besides CNTFRQ_EL0; 0: nothing.
pub fn told_counter_frequency() -> u32 {
    LINES.get().map_or(0, |lines| lines.told_frequency)
}

/// Makes `cpu` leave its guest or its sleep.
#[inline]
pub fn kick(cpu: CpuId) {
    if let (Some(target), Some(intid)) = (TARGETS[cpu.index()].get(), KICK) {
        physical().send_sgi(*target, intid);
    }
}

/// Makes all other CPUs leave their guests; for a panic, after which they find it in [`serve`].
pub fn kick_others() {
    let Some(gic) = GIC.get() else { return };
    let own = percpu::this().id();
    for (index, target) in TARGETS.iter().enumerate() {
        if index != own.index()
            && let (Some(target), Some(intid)) = (target.get(), KICK)
        {
            gic.send_sgi(*target, intid);
        }
    }
}

/// Gives an SPI of the machine to the control domain, under its own number; the guest enables it when it likes.
pub fn route_to_control(domain: &Domain, intid: IntId, trigger: Trigger) -> bool {
    let gic = physical();
    gic.disable(intid);
    {
        let _held = TRIGGERS.lock();
        gic.set_trigger(intid, trigger);
    }
    let word = (intid.get() / 32) as usize;
    let mut host = DomainHost { domain };
    if word >= ROUTED.len() || !domain.vgic.lock().attach_hw(VcpuIndex::new(0), intid, Some(intid), &mut host)
    {
        return false;
    }
    ROUTED[word].fetch_or(1 << (intid.get() % 32), Ordering::Release);
    true
}

/// Backs a vCPU's virtual timer interrupt by the machine's.
pub fn back_virtual_timer(domain: &Domain, vcpu: VcpuId) {
    if let Some(lines) = LINES.get() {
        let line = lines.virtual_timer;
        let shown = guest_virtual_timer(domain, line);
        domain.vgic.lock().attach_hw(vgic::index_of(vcpu), shown, Some(line), &mut DomainHost { domain });
    }
}

/// The interrupt that the virtual timer is to a guest: dom0 has the machine's device tree, others have one that says
/// `GUEST_TIMER_VIRT_PPI`.
#[inline]
fn guest_virtual_timer(domain: &Domain, line: IntId) -> IntId {
    const SHOWN: Option<IntId> = IntId::new(pv_abi::arch_arm::GUEST_TIMER_VIRT_PPI);
    if domain.is_control { line } else { SHOWN.unwrap_or(line) }
}

/// The physical distributor on behalf of a domain's virtual one.
struct DomainHost<'a> {
    domain: &'a Domain,
}

impl Host for DomainHost<'_> {
    fn enable(&mut self, pintid: IntId) {
        physical().enable(pintid);
    }

    fn disable(&mut self, pintid: IntId) {
        physical().disable(pintid);
    }

    fn set_trigger(&mut self, pintid: IntId, trigger: Trigger) {
        let _held = TRIGGERS.lock();
        physical().set_trigger(pintid, trigger);
    }

    fn route(&mut self, pintid: IntId, vcpu: VcpuIndex) {
        if let Some(vcpu) = self.domain.vcpu(VcpuId::new(vcpu.get()))
            && let Some(target) = TARGETS[vcpu.sched.home().index()].get()
        {
            physical().route(pintid, *target);
        }
    }
}

/// Acknowledges and serves one pending physical interrupt; `false` if there is none.
pub fn serve() -> bool {
    let gic = physical();
    let Some(acknowledged) = gic.acknowledge() else { return false };
    let intid = acknowledged.intid();
    gic.end(acknowledged);
    let Some(lines) = LINES.get() else { return false };
    let cpu = percpu::this();
    if intid == lines.virtual_timer {
        // ENABLE, ISTATUS and not IMASK: the line is up, so it is the loaded vCPU's timer that raised it.
        let is_up = super::sysreg::read_sysreg!("cntv_ctl_el0") & 7 == 5;
        match cpu.loaded().filter(|_| is_up) {
            Some(loaded) => {
                // Stays active at the physical GIC until the guest deactivates it through its list register.
                let kicks = loaded.domain.vgic.lock().inject_current(
                    vgic::index_of(loaded.vcpu.id),
                    guest_virtual_timer(&loaded.domain, intid),
                    &mut gic.list_registers(),
                );
                vgic::deliver(&loaded.domain, kicks);
                sched::wake(&loaded.vcpu);
                look_again_on_v2();
            }
            // Its vCPU left, or stopped the timer, while the interrupt was on its way.
            None => gic.deactivate_acknowledged(acknowledged),
        }
        return true;
    }
    if intid.is_spi() && is_routed(intid) {
        deliver_spi(cpu.loaded(), intid);
        look_again_on_v2();
        return true;
    }
    if intid == lines.hypervisor_timer {
        if timer::fired()
            && let Some(loaded) = cpu.loaded()
        {
            loaded.vcpu.request(request::RESCHEDULE);
        }
    } else if intid == lines.maintenance {
        if let Some(loaded) = cpu.loaded() {
            let kicks =
                loaded.domain.vgic.lock().maintain(vgic::index_of(loaded.vcpu.id), &mut gic.list_registers());
            vgic::deliver(&loaded.domain, kicks);
        }
    } else if Some(intid) == lines.uart {
        receive();
    } else if intid.is_sgi() {
        if panic::is_panicking() {
            power::stop_this_cpu();
        }
    } else {
        log::warn!("interrupt {} is nobody's: disabled", intid.get());
        gic.disable(intid);
    }
    gic.deactivate_acknowledged(acknowledged);
    true
}

/// Another [`timer::look_again`], if an interrupt that hardware backs is still with a guest.
pub fn look_again_if_active() {
    let (gic, Some(lines)) = (physical(), LINES.get()) else { return };
    let timer_active = gic.active(lines.virtual_timer) & 1 << (lines.virtual_timer.get() % 32) != 0;
    let spi_active =
        (0..gic.limit().div_ceil(32)).skip(1).zip(ROUTED.iter().skip(1)).any(|(word, routed)| {
            let routed = routed.load(Ordering::Relaxed);
            routed != 0 && IntId::new(word * 32).is_some_and(|first| gic.active(first) & routed != 0)
        });
    if timer_active || spi_active {
        timer::look_again();
    }
}

/// See [`timer::look_again`].
#[inline]
fn look_again_on_v2() {
    if physical().version() == gic::Version::V2 {
        timer::look_again();
    }
}

#[inline]
fn is_routed(intid: IntId) -> bool {
    ROUTED
        .get((intid.get() / 32) as usize)
        .is_some_and(|w| w.load(Ordering::Acquire) & 1 << (intid.get() % 32) != 0)
}

fn deliver_spi(loaded: Option<&Loaded>, intid: IntId) {
    if let Some(loaded) = loaded.filter(|l| l.domain.is_control) {
        let kicks = loaded.domain.vgic.lock().inject_current(
            vgic::index_of(loaded.vcpu.id),
            intid,
            &mut physical().list_registers(),
        );
        vgic::deliver(&loaded.domain, kicks);
        // It may be asleep here, with its registers loaded, and the interrupt its own.
        if loaded.vcpu.sched.state() == sched::State::Blocked && is_pending(loaded) {
            sched::wake(&loaded.vcpu);
        }
    } else if let Some(control) = domain::control_domain() {
        let kicks = control.vgic.lock().pulse(VcpuIndex::new(0), intid);
        vgic::deliver(&control, kicks);
    } else {
        physical().deactivate(intid);
    }
}

fn receive() {
    let mut for_dom0 = false;
    while let Some(byte) = uart::read() {
        match console::input(byte) {
            Input::Consumed => {}
            Input::ForDom0 => for_dom0 = true,
            Input::Key(key) => keys::press(key),
            Input::Switched(to_nacelle) => keys::announce_input(to_nacelle),
        }
    }
    if for_dom0 {
        event::send_machine_virq(pv_abi::xen::Virq::Console);
    }
}

/// Moves what is pending for the loaded vCPU into its list registers.
#[inline]
pub fn flush(loaded: &Loaded) {
    let kicks =
        loaded.domain.vgic.lock().flush(vgic::index_of(loaded.vcpu.id), &mut physical().list_registers());
    vgic::deliver(&loaded.domain, kicks);
}

/// Whether an interrupt would wake the loaded vCPU from WFI.
pub fn is_pending(loaded: &Loaded) -> bool {
    let index = vgic::index_of(loaded.vcpu.id);
    let (kicks, pending) = {
        let mut gic = loaded.domain.vgic.lock();
        let kicks = gic.sync(index, &mut physical().list_registers());
        (kicks, gic.has_pending(index))
    };
    vgic::deliver(&loaded.domain, kicks);
    pending
}

/// The guest reads a register of its GIC.
#[inline]
pub fn mmio_read(loaded: &Loaded, frame: Frame, offset: u32, width: u8) -> u64 {
    loaded.domain.vgic.lock().read(
        vgic::index_of(loaded.vcpu.id),
        frame,
        offset,
        u32::from(width),
        &mut physical().list_registers(),
    )
}

/// The guest writes a register of its GIC.
#[inline]
pub fn mmio_write(loaded: &Loaded, frame: Frame, offset: u32, width: u8, value: u64) {
    let kicks = loaded.domain.vgic.lock().write(
        vgic::index_of(loaded.vcpu.id),
        frame,
        offset,
        u32::from(width),
        value,
        &mut physical().list_registers(),
        &mut DomainHost { domain: &loaded.domain },
    );
    vgic::deliver(&loaded.domain, kicks);
}

/// The guest writes an SGI register of GICv3.
#[inline]
pub fn send_sgi(loaded: &Loaded, register: SgiRegister, value: u64) {
    let kicks = loaded.domain.vgic.lock().send_sgi(
        vgic::index_of(loaded.vcpu.id),
        register,
        value,
        &mut physical().list_registers(),
    );
    vgic::deliver(&loaded.domain, kicks);
}

fn each_bit(mut bits: u32, mut f: impl FnMut(IntId)) {
    while bits != 0 {
        if let Some(intid) = IntId::new(bits.trailing_zeros()) {
            f(intid);
        }
        bits &= bits - 1;
    }
}

/// Puts a vCPU's interrupts into this CPU.
pub fn load(domain: &Domain, id: VcpuId, interface: &VirtualInterface) {
    let gic = physical();
    let index = vgic::index_of(id);
    let kicks: Kicks = {
        let mut state = domain.vgic.lock();
        each_bit(state.in_flight_hw_ppis(index), |ppi| gic.set_active(ppi));
        gic.restore_interface(&interface.state);
        gic.enable_virtual(true);
        state.restore(index, &mut gic.list_registers())
    };
    vgic::deliver(domain, kicks);
}

/// Takes a vCPU's interrupts out of this CPU.
pub fn unload(domain: &Domain, id: VcpuId, interface: &mut VirtualInterface) {
    let gic = physical();
    let index = vgic::index_of(id);
    let kicks = {
        let mut state = domain.vgic.lock();
        gic.save_interface(&mut interface.state);
        let kicks = state.save(index, &mut gic.list_registers(), &interface.state);
        gic.enable_virtual(false);
        each_bit(state.in_flight_hw_ppis(index), |ppi| gic.clear_active(ppi));
        kicks
    };
    vgic::deliver(domain, kicks);
}

/// Whether an interrupt is pending for this CPU while it is at EL2: ISR_EL1.I or F (DDI 0487 D19.2.66).
#[inline]
pub fn interrupt_pending() -> bool {
    super::sysreg::read_sysreg!("isr_el1") & 0xc0 != 0
}
