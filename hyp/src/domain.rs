//! Domains: what belongs to one guest as a whole, and the list of all of them.
//!
//! A `Domain` is shared (`Arc`); each part of it that changes carries its own lock (order: crate docs). Who makes
//! domains: [`create`]; who stops, ends and forgets them: [`life`].

pub mod create;
pub mod life;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use pv_abi::sched::ShutdownReason;
use pv_abi::xen::{DomainHandle, Virq};
use spin::Once;
use stage2::Gfn;

use crate::sync::{RwLock, TicketMutex};

use crate::arch;
use crate::event::{self, EventChannels};
use crate::grant::GrantTable;
use crate::mm::account::PageAccount;
use crate::mm::page::PageRef;
use crate::p2m::P2m;
use crate::sched;
use crate::vcpu::{Vcpu, VcpuId, request};
use crate::vgic::VirtualGic;
use life::Life;

arch::machine_static! {
    /// All domains.
    domains: RwLock<BTreeMap<DomId, Arc<Domain>>> = RwLock::new(BTreeMap::new())
}

/// Number of HVM parameters kept (`HVM_NR_PARAMS`, public/hvm/params.h).
pub const HVM_PARAMS: usize = 39;

/// No reason to stop was named yet.
pub const NO_REASON: u32 = u32::MAX;

/// One guest.
pub struct Domain {
    /// Its number.
    pub id: DomId,
    /// Privileged: may control other domains and the machine.
    pub is_control: bool,
    /// RAM is mapped 1:1 (IPA = PA), so a device can be given guest addresses for DMA.
    pub is_direct_mapped: bool,
    /// Guest-physical memory. Lock inside.
    pub p2m: P2m,
    /// How many pages it has and may have.
    pub pages: Arc<PageAccount>,
    /// Event channels and their delivery.
    pub events: TicketMutex<EventChannels>,
    /// Grants it gives. Lock inside.
    pub grants: GrantTable,
    /// Its interrupt controller. Lock inside.
    pub vgic: VirtualGic,
    /// HVM parameters by index (public/hvm/params.h).
    pub hvm_params: TicketMutex<[u64; HVM_PARAMS]>,
    /// `vm_assist` bits that are on.
    pub vm_assist: AtomicU32,
    /// Its share of the CPUs.
    pub share: Arc<sched::Share>,
    /// How far it has come, and the lock of who moves it on.
    pub life: Life,
    /// How often the toolstack paused it; 0 means it may run. Changes under the lock of `life`.
    pub pause_count: AtomicU32,
    /// vCPUs it is to have ([`create::add_vcpus`]).
    pub max_vcpus: u32,
    /// CNTVOFF_EL2 of its vCPUs: the counter when it was made, so that its virtual time begins at 0.
    pub counter_offset: u64,
    /// Seconds that its wall clock differs (`XEN_DOMCTL_settimeoffset`).
    pub time_offset: AtomicI64,
    /// Its UUID.
    pub handle: TicketMutex<DomainHandle>,
    /// It runs XenStore, says the toolstack.
    pub is_store: bool,
    /// Set while it shuts down or has; the reason is in `shutdown_code`.
    pub is_shut_down: AtomicBool,
    /// `SHUTDOWN_*` (public/sched.h), the first that was named, or [`NO_REASON`].
    pub shutdown_code: AtomicU32,
    vcpus: Once<Box<[Arc<Vcpu>]>>,
    shared_info: Once<PageRef>,
    /// The domain whose device model this one runs. It may die first, so it is not kept.
    target: Once<Weak<Domain>>,
}

/// What a new domain is to be.
#[derive(Clone, Copy, Debug)]
pub struct DomainConfig {
    /// Its number.
    pub id: DomId,
    /// See [`Domain::is_control`].
    pub is_control: bool,
    /// See [`Domain::is_direct_mapped`].
    pub is_direct_mapped: bool,
    /// Grant-table frames at most.
    pub max_grant_frames: u32,
    /// Event-channel ports at most.
    pub max_event_ports: u32,
}

impl Domain {
    /// A domain without memory or vCPUs. `p2m` is its (empty) address space.
    pub fn new(config: &DomainConfig, p2m: P2m, vgic: VirtualGic) -> Self {
        Self {
            id: config.id,
            is_control: config.is_control,
            is_direct_mapped: config.is_direct_mapped,
            pages: p2m.account().clone(),
            p2m,
            events: TicketMutex::new(EventChannels::new(config.max_event_ports)),
            grants: GrantTable::new(config.max_grant_frames),
            vgic,
            hvm_params: TicketMutex::new([0; HVM_PARAMS]),
            vm_assist: AtomicU32::new(0),
            life: Life::new(),
            share: Arc::new(sched::Share::new()),
            pause_count: AtomicU32::new(0),
            max_vcpus: 0,
            counter_offset: 0,
            time_offset: AtomicI64::new(0),
            handle: TicketMutex::new(DomainHandle::default()),
            is_store: false,
            is_shut_down: AtomicBool::new(false),
            shutdown_code: AtomicU32::new(NO_REASON),
            vcpus: Once::new(),
            shared_info: Once::new(),
            target: Once::new(),
        }
    }

    /// The page that EL2 shares with the domain (`struct shared_info`), made when first asked for.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn shared_info(&self) -> Result<&PageRef, Errno> {
        self.shared_info.try_call_once(|| PageRef::allocate_shared(self.id))
    }

    /// Lets this domain act on another as its device model does ([`crate::privilege`]), for good: false if it has a target, or
    /// the other does. Who has a target locks its p2m before its own, so there must be no circle of them.
    pub fn set_target(&self, target: &Arc<Domain>) -> bool {
        // Two at once could become each other's.
        let _turn = domains().write();
        let mut is_set = false;
        if target.target.is_completed() {
            return is_set;
        }
        self.target.call_once(|| {
            is_set = true;
            Arc::downgrade(target)
        });
        is_set
    }

    /// Whether `other` is this domain's target.
    pub fn is_model_of(&self, other: &Domain) -> bool {
        // What a weak reference points to is not used for anything else while it is there.
        self.target.get().is_some_and(|target| core::ptr::eq(target.as_ptr(), other))
    }

    /// Where the domain has that page mapped.
    pub fn shared_info_gfn(&self) -> Option<Gfn> {
        self.shared_info.get()?.frame().mapped_at()
    }

    /// Gives the domain its vCPUs; a second call changes nothing.
    pub fn set_vcpus(&self, vcpus: Box<[Arc<Vcpu>]>) {
        self.vcpus.call_once(|| vcpus);
    }

    /// All its vCPUs, by number.
    #[inline]
    pub fn vcpus(&self) -> &[Arc<Vcpu>] {
        self.vcpus.get().map_or(&[], |v| v)
    }

    /// One vCPU, if the domain has that many.
    #[inline]
    pub fn vcpu(&self, id: VcpuId) -> Option<&Arc<Vcpu>> {
        self.vcpus().get(id.index())
    }

    /// Whether anything but the scheduler keeps it from running.
    pub fn is_runnable(&self) -> bool {
        self.pause_count.load(Ordering::Acquire) == 0 && !self.is_shut_down.load(Ordering::Acquire)
    }
}

/// Notes why a domain will stop, unless it said so before (`SCHEDOP_shutdown_code`).
pub fn note_reason(domain: &Domain, reason: ShutdownReason) {
    let _ =
        domain.shutdown_code.compare_exchange(NO_REASON, reason as u32, Ordering::Relaxed, Ordering::Relaxed);
}

/// Stops a domain for good, with the reason it gave or earned. The control domain takes the machine with it.
pub fn shut_down(domain: &Domain, reason: ShutdownReason) {
    note_reason(domain, reason);
    if domain.is_shut_down.swap(true, Ordering::AcqRel) {
        return;
    }
    if domain.is_control {
        arch::shut_down_machine(reason);
    }
    for vcpu in domain.vcpus() {
        sched::pause(vcpu);
        // One that runs here must not return to the guest either.
        vcpu.request(request::RESCHEDULE);
    }
    event::send_machine_virq(Virq::DomExc);
}

/// Enters a domain in the list.
pub fn insert(domain: Arc<Domain>) {
    domains().write().insert(domain.id, domain);
}

/// Takes a domain out of the list.
pub fn remove(id: DomId) -> Option<Arc<Domain>> {
    domains().write().remove(&id)
}

/// The domain of that number.
pub fn find(id: DomId) -> Option<Arc<Domain>> {
    domains().read().get(&id).cloned()
}

/// The first domain whose number is `id` or above, for iteration.
pub fn first_from(id: DomId) -> Option<Arc<Domain>> {
    domains().read().range(id..).next().map(|(_, d)| d.clone())
}

/// How many domains there are.
pub fn count() -> usize {
    domains().read().len()
}

/// dom0, once it exists.
pub fn control_domain() -> Option<Arc<Domain>> {
    find(DomId::DOM0)
}
