//! ARMv8-A at EL2, without VHE: everything that only the real machine has.
//!
//! The items named at the end are those that `arch/fake.rs` has too.

mod aarch32;
mod boot;
mod copy;
mod el2_map;
mod entry;
mod errata;
mod id_registers;
mod inject;
pub mod irq;
mod mmio;
mod panic;
mod percpu;
pub mod phys;
mod power;
mod run;
mod serror;
mod smp;
mod spectre;
mod symbols;
mod sysreg;
mod sysreg_trap;
mod timer;
pub mod tlb;
mod trap;
pub mod uart;
mod vcpu;
mod vectors;

use alloc::sync::Arc;

use pv_abi::arch_arm::VcpuGuestContext;
use pv_abi::sched::ShutdownReason;

use crate::cpu::CpuId;
use crate::vcpu::Vcpu;

pub use irq::{
    back_virtual_timer, guest_gic, interrupt_pending, kick, route_to_control, spi_count,
    told_counter_frequency,
};
pub use timer::{counter_frequency, now, set_deadline};
pub use vcpu::VcpuState;

/// The CPU this code runs on.
#[inline]
pub fn cpu_id() -> CpuId {
    percpu::this().id()
}

/// Gives way to whoever one waits for.
#[inline(always)]
pub fn relax() {
    // SAFETY: a hint.
    unsafe { core::arch::asm!("yield", options(nomem, nostack)) };
}

/// Addresses of the vCPU that is loaded on this CPU.
pub mod guest {
    pub use super::vcpu::{stage1, translate};
}

/// A vCPU's registers, after reset, with CNTVOFF_EL2.
pub fn new_vcpu_state(affinity: u64, counter_offset: u64) -> VcpuState {
    // Bit 31 of MPIDR_EL1 is RES1.
    VcpuState::new(1 << 31 | affinity, counter_offset)
}

/// The registers that the toolstack knows, of a vCPU that nobody can load: the caller holds its domain still.
pub fn read_context(vcpu: &Vcpu) -> VcpuGuestContext {
    // SAFETY: it is loaded nowhere, and the caller keeps it so.
    unsafe { vcpu.arch.machine() }.read_context()
}

/// Sets those registers, likewise. Its PSTATE names EL1 or EL0 in AArch64 state.
pub fn write_context(vcpu: &Vcpu, context: &VcpuGuestContext) {
    // SAFETY: it is loaded nowhere, and the caller keeps it so.
    unsafe { vcpu.arch.machine() }.write_context(context);
}

/// Sets where a vCPU that is down will start, and with what in X0.
pub fn start_vcpu(vcpu: &Arc<Vcpu>, entry: u64, context: u64) {
    // SAFETY: the caller holds the vCPU's `is_up` flag while the scheduler has it down, and it was unloaded before the
    // flag fell, or it holds the whole domain still: nobody else touches its registers.
    unsafe { vcpu.arch.start_at(entry, context) };
}

/// Powers the machine off, or resets it.
pub fn shut_down_machine(reason: ShutdownReason) -> ! {
    match reason {
        ShutdownReason::Reboot | ShutdownReason::Watchdog => {
            log::info!("Hardware Dom0 shutdown: rebooting machine");
            if panic::reboots() { power::reset() } else { power::off() }
        }
        ShutdownReason::Crash => {
            log::error!(
                "Hardware Dom0 crashed: {}",
                if panic::reboots() { "rebooting machine" } else { "halting machine" }
            );
            if panic::reboots() { power::reset() } else { power::off() }
        }
        ShutdownReason::Poweroff | ShutdownReason::Suspend | ShutdownReason::SoftReset => {
            log::info!("Hardware Dom0 halted: halting machine");
            power::off()
        }
    }
}

/// Defines a function that yields a static of the machine: there is one machine here.
macro_rules! machine_static {
    ($(#[$meta:meta])* $name:ident: $ty:ty = $init:expr) => {
        $(#[$meta])*
        #[inline]
        fn $name() -> &'static $ty {
            static STATE: $ty = $init;
            &STATE
        }
    };
}
pub(crate) use machine_static;
