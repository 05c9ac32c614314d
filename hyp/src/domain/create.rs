//! Making domains at the toolstack's wish: a number, an address space, an interrupt controller; then vCPUs.
//!
//! A new domain is in the list at once, paused, with no memory. Its address map is the one of `public/arch-arm.h`. What it
//! takes of EL2's own memory is asked for beforehand, so that a host without memory refuses it and nothing more.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use gic::Version;
use pv_abi::arch_arm::{
    GUEST_GICC_BASE, GUEST_GICC_SIZE, GUEST_GICD_BASE, GUEST_GICV3_GICD_BASE, GUEST_GICV3_GICR0_BASE,
    GUEST_MAX_VCPUS,
};
use pv_abi::domid::{DOMID_FIRST_RESERVED, DomId};
use pv_abi::errno::Errno;
use pv_abi::xen::DomainHandle;
use stage2::{Attributes, Geometry, Ipa, Pages};

use super::life::Stage;
use super::{Domain, DomainConfig, domains, insert};
use crate::mm::heap;
use crate::p2m::{P2m, P2mConfig};
use crate::sched::{self, CpuMask};
use crate::sync::TicketMutex;
use crate::vcpu::{Vcpu, VcpuId};
use crate::vgic::{Frames, VirtualGic};
use crate::{arch, psci, wallclock};

/// The pool for stage-2 tables that a domain starts with, as in Xen.
pub const FIRST_TABLES: Pages = Pages::new(16);
/// The most vCPUs that a virtual GICv2 has.
const MAX_VCPUS_V2: u32 = 8;
/// Heap that a domain and its GIC may take, and each vCPU: generous.
const DOMAIN_HEAP: usize = 64 << 10;
const VCPU_HEAP: usize = 8 << 10;

arch::machine_static! {
    /// The number given last. Held while a domain is made.
    last_given: TicketMutex<DomId> = TicketMutex::new(DomId::DOM0)
}

/// What the toolstack asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Its number; `None`: any.
    pub id: Option<DomId>,
    /// Its UUID.
    pub handle: DomainHandle,
    /// vCPUs: at least 1, at most [`max_vcpus`].
    pub vcpus: u32,
    /// SPIs of its GIC.
    pub spis: u32,
    /// Event-channel ports at most.
    pub max_event_ports: u32,
    /// Grant-table frames at most.
    pub max_grant_frames: u32,
    /// Grants of others that it may have mapped at once.
    pub max_grant_mappings: usize,
    /// The shape of its stage-2 tables.
    pub geometry: Geometry,
    /// It runs XenStore.
    pub is_store: bool,
}

/// vCPUs that a domain can have with the machine's GIC.
pub fn max_vcpus() -> u32 {
    match arch::guest_gic().0 {
        Version::V2 => MAX_VCPUS_V2,
        Version::V3 => GUEST_MAX_VCPUS,
    }
}

/// Pages of tables that do not count in the pool that the toolstack sets: the root, which is there from the start.
pub fn uncounted_tables(geometry: Geometry) -> Pages {
    Pages::new(1 << geometry.root_pages_log2())
}

/// Makes a domain: without memory and vCPUs, paused once.
///
/// # Errors
/// `EEXIST`: the number is taken. `ENOMEM`: no memory, or no number. `EINVAL`: what the GIC cannot have.
pub fn create(request: &Request) -> Result<Arc<Domain>, Errno> {
    let mut last = last_given().lock();
    let id = choose(request.id, *last)?;
    heap::ensure(DOMAIN_HEAP + request.vcpus as usize * VCPU_HEAP)?;
    let table_limit = FIRST_TABLES.saturating_add(uncounted_tables(request.geometry));
    let p2m =
        P2m::new(&P2mConfig { owner: id, is_direct_mapped: false, geometry: request.geometry, table_limit })?;
    let affinities: ArrayVec<u64, { GUEST_MAX_VCPUS as usize }> =
        (0..request.vcpus.min(GUEST_MAX_VCPUS)).map(psci::affinity_of).collect();
    let (version, gicv) = arch::guest_gic();
    let frames = match version {
        Version::V2 => Frames::V2 { distributor: Ipa::new(GUEST_GICD_BASE) },
        Version::V3 => Frames::V3 {
            distributor: Ipa::new(GUEST_GICV3_GICD_BASE),
            redistributors: Ipa::new(GUEST_GICV3_GICR0_BASE),
        },
    };
    let vgic = VirtualGic::new(frames, &affinities, request.spis).map_err(|error| match error {
        gic::ConfigError::Memory => Errno::ENOMEM,
        gic::ConfigError::Vcpus | gic::ConfigError::Spis => Errno::EINVAL,
    })?;
    let config = DomainConfig {
        id,
        is_control: false,
        is_direct_mapped: false,
        max_grant_frames: request.max_grant_frames,
        max_event_ports: request.max_event_ports,
    };
    let mut domain = Domain::new(&config, p2m, vgic);
    domain.grants.limit_mappings(request.max_grant_mappings);
    domain.max_vcpus = request.vcpus;
    domain.counter_offset = arch::now().get();
    domain.handle = TicketMutex::new(request.handle);
    domain.is_store = request.is_store;
    domain.pause_count.store(1, Ordering::Relaxed);
    if let Some(gicv) = gicv {
        domain.p2m.edit(|batch| {
            let pages = Pages::from_bytes(GUEST_GICC_SIZE);
            batch.map_device(Ipa::new(GUEST_GICC_BASE).gfn(), gicv.start.mfn(), pages, Attributes::MMIO)
        })?;
    }
    let domain = Arc::new(domain);
    domain.shared_info()?;
    wallclock::show(&domain);
    if request.id.is_none() {
        *last = id;
    }
    insert(domain.clone());
    Ok(domain)
}

/// The number wanted, if it is free; otherwise the next free one after the one given last, so that a number comes back late.
fn choose(wanted: Option<DomId>, last: DomId) -> Result<DomId, Errno> {
    let all = domains().read();
    if let Some(id) = wanted {
        return if all.contains_key(&id) { Err(Errno::EEXIST) } else { Ok(id) };
    }
    let after = |first: u16| {
        let mut candidate = first;
        for taken in all.range(DomId::new(first)..).map(|(id, _)| id.raw()) {
            if taken != candidate {
                break;
            }
            candidate += 1;
        }
        (candidate < DOMID_FIRST_RESERVED.raw()).then_some(DomId::new(candidate))
    };
    after(last.raw() + 1).or_else(|| after(1)).ok_or(Errno::ENOMEM)
}

/// Gives a domain the vCPUs it is to have, switched off. A second call changes nothing.
///
/// # Errors
/// `ENOMEM`. `ESRCH`: it is not alive.
pub fn add_vcpus(domain: &Arc<Domain>) -> Result<(), Errno> {
    let _turn = domain.life.lock();
    if domain.life.stage() != Stage::Alive {
        return Err(Errno::ESRCH);
    }
    if !domain.vcpus().is_empty() {
        return Ok(());
    }
    heap::ensure(domain.max_vcpus as usize * VCPU_HEAP)?;
    let vcpus: Box<[Arc<Vcpu>]> = (0..domain.max_vcpus)
        .map(|number| {
            let state = arch::new_vcpu_state(psci::affinity_of(number), domain.counter_offset);
            Arc::new(Vcpu::new(domain, VcpuId::new(number), state))
        })
        .collect();
    domain.set_vcpus(vcpus);
    let reasons =
        [domain.pause_count.load(Ordering::Relaxed) != 0, domain.is_shut_down.load(Ordering::Acquire)];
    for vcpu in domain.vcpus() {
        arch::back_virtual_timer(domain, vcpu.id);
        sched::add(vcpu, &domain.share, CpuMask::ALL);
        reasons.iter().filter(|reason| **reason).for_each(|_| sched::pause(vcpu));
    }
    Ok(())
}
