//! Virtual CPUs: identity, pending requests, and the parts that other modules own.
//!
//! ```text
//!   another CPU                      the CPU it runs on
//!   request(bit) ── kick ──▶ exit ──▶ run loop takes the bits, acts, enters again
//! ```

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};

use crate::arch;
use crate::domain::Domain;
use crate::event::VcpuEvents;
use crate::runstate;
use crate::sched;
use crate::timer;

/// Number of a vCPU within its domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuId(u32);

impl VcpuId {
    /// vCPU `raw` of some domain.
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number, as hypercalls carry it.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// For use as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the run loop must do before it enters the vCPU again: bits of [`Vcpu::request`].
pub mod request {
    /// Move pending interrupts into list registers.
    pub const FLUSH_INTERRUPTS: u32 = 1 << 0;
    /// Let the scheduler choose again.
    pub const RESCHEDULE: u32 = 1 << 1;
}

/// One virtual CPU.
pub struct Vcpu {
    /// Its number.
    pub id: VcpuId,
    domain: Weak<Domain>,
    /// Switched on by PSCI; set before it starts, cleared when it is off and its registers are saved.
    pub is_up: AtomicBool,
    /// Its registers were set once, by the toolstack or CPU_ON.
    pub is_initialised: AtomicBool,
    requests: AtomicU32,
    /// When it must be woken, or one of its timers fires.
    pub deadlines: timer::Deadlines,
    /// The scheduler's part.
    pub sched: sched::Entity,
    /// How events reach it.
    pub events: VcpuEvents,
    /// Where it reads how its time was spent.
    pub runstate: runstate::Area,
    /// Registers and everything else the machine dictates.
    pub arch: arch::VcpuState,
}

impl Vcpu {
    /// A vCPU that is down: it runs after [`sched::start`] (PSCI CPU_ON; the builder, for the first one).
    pub fn new(domain: &Arc<Domain>, id: VcpuId, arch: arch::VcpuState) -> Self {
        Self {
            id,
            domain: Arc::downgrade(domain),
            is_up: AtomicBool::new(false),
            is_initialised: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            deadlines: timer::Deadlines::new(),
            sched: sched::Entity::new(),
            events: VcpuEvents::new(),
            runstate: runstate::Area::new(),
            arch,
        }
    }

    /// Its domain, while that exists.
    pub fn domain(&self) -> Option<Arc<Domain>> {
        self.domain.upgrade()
    }

    /// Asks its CPU for the given [`request`] bits; does not make the CPU look.
    #[inline]
    pub fn request(&self, bits: u32) {
        self.requests.fetch_or(bits, Ordering::Release);
    }

    /// Whether anything is asked for.
    #[inline]
    pub fn has_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) != 0
    }

    /// Takes everything asked for.
    #[inline]
    pub fn take_requests(&self) -> u32 {
        self.requests.swap(0, Ordering::Acquire)
    }
}

/// Makes a vCPU look at `bits` of [`request`] soon, wherever it is: asleep it wakes, running elsewhere it exits.
/// On the CPU that runs it, it will look before it enters the guest again.
pub fn kick(vcpu: &Arc<Vcpu>, bits: u32) {
    vcpu.request(bits);
    // Orders the request before the look at the state; pairs with the fence in `Scheduler::block`, after which the vCPU's
    // own CPU looks for requests once more. One of the two sees the other.
    fence(Ordering::SeqCst);
    match vcpu.sched.running_on() {
        Some(cpu) if cpu == arch::cpu_id() => {}
        Some(cpu) => arch::kick(cpu),
        None => sched::wake(vcpu),
    }
}

/// The event upcall: an edge of the interrupt that the guest was told (`GUEST_EVTCHN_PPI`).
pub fn raise_upcall(vcpu: &Arc<Vcpu>) {
    if let (Some(domain), Some(intid)) =
        (vcpu.domain(), gic::IntId::ppi(pv_abi::arch_arm::GUEST_EVTCHN_PPI - 16))
    {
        crate::vgic::pulse(&domain, vcpu.id, intid);
    }
}
