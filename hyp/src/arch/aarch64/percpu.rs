//! What belongs to one physical CPU: found through TPIDR_EL2, touched by that CPU alone.
//!
//! Interrupts are masked at EL2 and code never moves to another CPU in the middle, so plain cells suffice.

use alloc::sync::Arc;
use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::{AtomicBool, Ordering};

use crate::cpu::{CpuId, MAX_CPUS};
use crate::domain::Domain;
use crate::vcpu::Vcpu;

use super::sysreg::{read_sysreg, write_sysreg};
use super::timer;
use super::trap::Departure;

/// Bytes for the registers and the report of a crash at EL2.
const EMERGENCY_STACK: usize = 8192;

/// The vCPU whose EL1 state is in this CPU's registers.
pub struct Loaded {
    /// The vCPU.
    pub vcpu: Arc<Vcpu>,
    /// Its domain.
    pub domain: Arc<Domain>,
}

/// One CPU's state.
#[repr(C)]
pub struct PerCpu {
    // First: `broken` in vectors.rs reads it.
    emergency_stack: Cell<u64>,
    id: Cell<u8>,
    loaded: UnsafeCell<Option<Loaded>>,
    /// Why the vCPU that last returned EXIT_REQUESTED did.
    pub departure: Cell<Departure>,
    /// What this CPU's EL2 timer is set for.
    pub timer: timer::Programme,
    online: AtomicBool,
}

#[repr(C, align(16))]
struct EmergencyStacks(UnsafeCell<[[u8; EMERGENCY_STACK]; MAX_CPUS]>);

// SAFETY: only ever used as stacks, each by the CPU whose it is.
unsafe impl Sync for EmergencyStacks {}

struct All([PerCpu; MAX_CPUS]);

// SAFETY: every field but `online` is reached only through `this()`, which yields the entry of the CPU it runs on,
// and code does not migrate between CPUs; `online` is atomic.
unsafe impl Sync for All {}

static CPUS: All = All([const {
    PerCpu {
        emergency_stack: Cell::new(0),
        id: Cell::new(0),
        loaded: UnsafeCell::new(None),
        departure: Cell::new(Departure::Requests),
        timer: timer::Programme::new(),
        online: AtomicBool::new(false),
    }
}; MAX_CPUS]);
static EMERGENCY: EmergencyStacks = EmergencyStacks(UnsafeCell::new([[0; EMERGENCY_STACK]; MAX_CPUS]));

/// Makes this CPU `id`. Once per CPU, before anything calls [`this`].
pub fn init(id: CpuId) {
    let cpu = &CPUS.0[id.index()];
    let top = EMERGENCY.0.get() as u64 + ((id.index() + 1) * EMERGENCY_STACK) as u64;
    cpu.emergency_stack.set(top);
    cpu.id.set(id.index() as u8);
    // SAFETY: TPIDR_EL2 is for EL2 software alone; this is its only user.
    unsafe { write_sysreg!("tpidr_el2", cpu as *const PerCpu as u64) };
}

/// Says that this CPU is ready to run vCPUs.
pub fn set_online() {
    this().online.store(true, Ordering::Release);
}

/// This CPU's entry.
#[inline(always)]
pub fn this() -> &'static PerCpu {
    // SAFETY: `init` stored a pointer to a static there before any other code of this CPU ran.
    unsafe { &*(read_sysreg!("tpidr_el2") as *const PerCpu) }
}

/// Whether `init` ran on this CPU, for the panic path.
pub fn is_initialised() -> bool {
    read_sysreg!("tpidr_el2") != 0
}

/// Whether a CPU has come up.
pub fn is_online(cpu: CpuId) -> bool {
    CPUS.0[cpu.index()].online.load(Ordering::Acquire)
}

impl PerCpu {
    /// Which CPU this is.
    #[inline(always)]
    pub fn id(&self) -> CpuId {
        CpuId::new(self.id.get() as usize).unwrap_or(CpuId::BOOT)
    }

    /// The vCPU whose state the registers hold.
    #[inline(always)]
    pub fn loaded(&self) -> Option<&Loaded> {
        // SAFETY: `set_loaded` is the only writer, runs on this CPU, and its contract rules out live borrows.
        unsafe { (*self.loaded.get()).as_ref() }
    }

    /// Replaces the loaded vCPU; returns the former one.
    ///
    /// # Safety
    /// No borrow from [`loaded`](Self::loaded) is alive.
    pub unsafe fn set_loaded(&self, loaded: Option<Loaded>) -> Option<Loaded> {
        // SAFETY: by the contract the cell is not borrowed, and only this CPU reaches it.
        unsafe { core::mem::replace(&mut *self.loaded.get(), loaded) }
    }
}
