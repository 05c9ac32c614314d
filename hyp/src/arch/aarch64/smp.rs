//! Starting the other CPUs, by PSCI or spin table, and what each does first.

use core::cell::UnsafeCell;

use arrayvec::ArrayVec;
use log::{info, warn};
use stage2::Pa;

use crate::cpu::{CpuId, MAX_CPUS};
use crate::discovery::{CpuNode, EnableMethod};
use crate::sched::CpuMask;

use super::sysreg::write_sysreg;
use super::{el2_map, entry, irq, percpu, phys, power, run, timer, vcpu, vectors};

/// What `secondary_start` in entry.rs reads with the MMU off.
#[repr(C, align(64))]
struct SecondaryBoot {
    ttbr: u64,
    count: u64,
    cpus: [(u64, u64); MAX_CPUS],
}

#[repr(transparent)]
struct Shared(UnsafeCell<SecondaryBoot>);

// SAFETY: written by `start_all` on the boot CPU before any other CPU is started; only read afterwards.
unsafe impl Sync for Shared {}

#[unsafe(no_mangle)]
static secondary_boot: Shared =
    Shared(UnsafeCell::new(SecondaryBoot { ttbr: 0, count: 0, cpus: [(0, 0); MAX_CPUS] }));

/// Starts all CPUs but the first, one after the other; returns those that run.
pub fn start_all(cpus: &ArrayVec<CpuNode, MAX_CPUS>, vtcr: u64) -> CpuMask {
    let table = secondary_boot.0.get();
    // SAFETY: only this CPU runs yet (see `Shared`).
    unsafe {
        (*table).ttbr = el2_map::root();
        (*table).count = cpus.len() as u64;
        for (index, (entry, cpu)) in (*table).cpus.iter_mut().zip(cpus).enumerate() {
            let Some(id) = CpuId::new(index) else { break };
            *entry = (cpu.mpidr.get(), el2_map::stack_top(id));
        }
    }
    VTCR.store(vtcr, core::sync::atomic::Ordering::Release);
    // They read it with the MMU off: past the caches (DDI 0487 D8.2.12).
    phys::clean_invalidate(Pa::new(table as u64), size_of::<SecondaryBoot>());

    let mut online = CpuMask::only(CpuId::BOOT);
    for (index, cpu) in cpus.iter().enumerate().skip(1) {
        let Some(id) = CpuId::new(index) else { break };
        if start(id, cpu) {
            online = CpuMask::from_bits(online.bits() | CpuMask::only(id).bits());
        }
    }
    info!("Brought up {} CPUs", online.iter().count());
    online
}

static VTCR: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

fn start(id: CpuId, cpu: &CpuNode) -> bool {
    let entry = entry::secondary_start as *const () as u64;
    match cpu.enable {
        EnableMethod::Psci => {
            if let Err(error) = power::cpu_on(cpu.mpidr.get(), entry) {
                warn!("{id} (MPIDR {}) was not started: PSCI CPU_ON: {error:?}", cpu.mpidr);
                return false;
            }
        }
        EnableMethod::SpinTable { release_address } => {
            // SAFETY: the device tree says that this word is for this purpose; discovery reserved its page.
            unsafe { phys::store_u64(release_address, entry) };
            // The waiting CPU reads it with its MMU off.
            phys::clean_invalidate(release_address, 8);
            // SAFETY: wakes CPUs that wait for an event.
            unsafe { core::arch::asm!("sev", options(nostack)) };
        }
        EnableMethod::None => {
            warn!("{id} (MPIDR {}) was not started: the device tree does not say how", cpu.mpidr);
            return false;
        }
    }
    let deadline = timer::now().after(timer::counter_frequency());
    while !percpu::is_online(id) {
        if timer::now() > deadline {
            warn!("{id} (MPIDR {}) did not come up within a second", cpu.mpidr);
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// Where `secondary_start` enters Rust: on this CPU's own stack, MMU and caches on.
#[unsafe(no_mangle)]
extern "C" fn secondary_cpu(index: u64) -> ! {
    let Some(id) = CpuId::new(index as usize) else { power::stop_this_cpu() };
    // SAFETY: the address of the vector table.
    unsafe { write_sysreg!("vbar_el2", vectors::vectors as *const () as u64) };
    percpu::init(id);
    // SAFETY: no guest runs here yet.
    unsafe { vcpu::init_cpu(VTCR.load(core::sync::atomic::Ordering::Acquire)) };
    if let Err(error) = irq::init_cpu(id) {
        warn!("{id}: {error}; it stays off");
        power::stop_this_cpu();
    }
    percpu::set_online();
    run::run_loop()
}
