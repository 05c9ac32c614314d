//! Event channels: how domains signal each other, their own vCPUs, and hear from EL2.
//!
//! A port is a domain's number for its end of a channel. Raising it sets bits in pages that the guest shares with EL2
//! and, when its vCPU had nothing pending before, raises that vCPU's event interrupt:
//! ```text
//!   send ──▶ port ──▶ peer's port ──▶ 2-level bitmap or FIFO queue ──▶ vcpu_info ──▶ upcall interrupt
//!                                     (two_level.rs)  (fifo.rs)
//! ```
//! State is [`EventChannels`], one per domain behind one lock; an operation on two domains locks the lower [`DomId`]
//! first. The ABI is the public header `event_channel.h`; errors are those of Xen 4.17.
#![forbid(unsafe_code)]

mod channels;
mod fifo;
mod machine;
mod port;
#[cfg(test)]
mod tests;
mod two_level;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::sync::TicketMutexGuard;
use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use pv_abi::event_channel::{Port, Status, StatusInterdomain, StatusKind, StatusUnbound, StatusUnion};
use pv_abi::xen::Virq;
use stage2::Gfn;

pub use channels::EventChannels;
use channels::{Notice, VIRQS};
pub use machine::{send_machine_virq, set_virq_handler};
use port::State;

use crate::arch;
use crate::domain::Domain;
use crate::mm::page::PageRef;
use crate::sched;
use crate::vcpu::{self, Vcpu, VcpuId};

/// Ports closed between two looks for interrupts.
const CLOSED_AT_ONCE: u32 = 32;

/// What a vCPU itself carries: whether it polls, readable without a lock.
#[derive(Debug)]
pub struct VcpuEvents {
    is_polling: AtomicBool,
}

impl VcpuEvents {
    /// It does not poll.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self { is_polling: AtomicBool::new(false) }
    }

    /// Whether it polls and nothing has ended that yet. A vCPU that blocked to poll looks here for its second look: false
    /// means that an event came in between.
    #[inline]
    pub fn is_polling(&self) -> bool {
        self.is_polling.load(Ordering::Acquire)
    }
}

/// The ports of two domains, or of one that talks to itself.
enum Pair<'a> {
    One(TicketMutexGuard<'a, EventChannels>),
    Two { near: TicketMutexGuard<'a, EventChannels>, far: TicketMutexGuard<'a, EventChannels> },
}

impl<'a> Pair<'a> {
    fn lock(near: &'a Domain, far: &'a Domain) -> Self {
        if core::ptr::eq(near, far) {
            Self::One(near.events.lock())
        } else if near.id < far.id {
            let near = near.events.lock();
            Self::Two { near, far: far.events.lock() }
        } else {
            let far = far.events.lock();
            Self::Two { near: near.events.lock(), far }
        }
    }

    fn near(&mut self) -> &mut EventChannels {
        match self {
            Self::One(both) => both,
            Self::Two { near, .. } => near,
        }
    }

    fn far(&mut self) -> &mut EventChannels {
        match self {
            Self::One(both) => both,
            Self::Two { far, .. } => far,
        }
    }
}

/// Does what a delivery left to do, with the lock held.
#[inline]
fn follow_up(domain: &Domain, channels: &mut EventChannels, port: Port, notice: Notice) {
    if notice.upcall.is_some() || notice.poll {
        notify(domain, channels, port, notice);
    }
}

#[inline(never)]
fn notify(domain: &Domain, channels: &mut EventChannels, port: Port, notice: Notice) {
    if let Some(vcpu) = notice.upcall.and_then(|vcpu| domain.vcpu(vcpu)) {
        vcpu::raise_upcall(vcpu);
    }
    if notice.poll {
        while let Some(id) = channels.take_poller(port) {
            if let Some(vcpu) = domain.vcpu(id) {
                vcpu.events.is_polling.store(false, Ordering::Release);
                sched::wake(vcpu);
            }
        }
    }
}

#[inline(always)]
fn raise(domain: &Domain, channels: &mut EventChannels, port: Port) {
    let notice = channels.raise(port);
    follow_up(domain, channels, port, notice);
}

/// The ports of a domain, ready to open one.
fn prepared(domain: &Domain) -> Result<TicketMutexGuard<'_, EventChannels>, Errno> {
    let mut channels = domain.events.lock();
    channels.prepare(domain.shared_info()?, domain.vcpus().len())?;
    Ok(channels)
}

fn existing_vcpu(domain: &Domain, vcpu: u32) -> Result<VcpuId, Errno> {
    domain.vcpu(VcpuId::new(vcpu)).map(|vcpu| vcpu.id).ok_or(Errno::ENOENT)
}

// ---- opening ----

/// A new port of `domain` that `remote` may connect to. `ENOSPC` when there is no free one.
pub fn alloc_unbound(domain: &Domain, remote: DomId) -> Result<Port, Errno> {
    prepared(domain)?.open(State::Unbound(remote), VcpuId::new(0))
}

/// Connects a new port of `near` to a port of `far` that waits for it (`EINVAL` otherwise), and raises it: an event may
/// have been sent before.
pub fn bind_interdomain(near: &Arc<Domain>, far: &Arc<Domain>, far_port: Port) -> Result<Port, Errno> {
    let mut pair = Pair::lock(near, far);
    pair.near().prepare(near.shared_info()?, near.vcpus().len())?;
    match pair.far().ports.get(far_port)?.state {
        State::Unbound(remote) if remote == near.id => {}
        _ => return Err(Errno::EINVAL),
    }
    let near_port = pair.near().open(State::Interdomain(far.clone(), far_port), VcpuId::new(0))?;
    pair.far().opened(far_port)?.state = State::Interdomain(near.clone(), near_port);
    raise(near, pair.near(), near_port);
    Ok(near_port)
}

/// A new port for a VIRQ. Global ones are bound at vCPU 0 (`EINVAL` elsewhere), and each once (`EEXIST`).
pub fn bind_virq(domain: &Domain, virq: u32, vcpu: u32) -> Result<Port, Errno> {
    let is_per_vcpu = Virq::try_from(virq).is_ok_and(Virq::is_per_vcpu);
    if virq as usize >= VIRQS || !is_per_vcpu && vcpu != 0 {
        return Err(Errno::EINVAL);
    }
    let vcpu = existing_vcpu(domain, vcpu)?;
    prepared(domain)?.bind_virq(vcpu, virq)
}

/// A new port that signals one of the domain's own vCPUs.
pub fn bind_ipi(domain: &Domain, vcpu: u32) -> Result<Port, Errno> {
    let vcpu = existing_vcpu(domain, vcpu)?;
    prepared(domain)?.open(State::Ipi, vcpu)
}

// ---- closing ----

/// Closes a port; a connected one's other end waits for a new connection. `EINVAL` if it is not open.
pub fn close(domain: &Arc<Domain>, port: Port) -> Result<(), Errno> {
    loop {
        let (far, far_port) = {
            let mut near = domain.events.lock();
            near.opened(port)?;
            match near.peer(port) {
                Some((far, far_port)) => (far.clone(), far_port),
                None => {
                    near.release(port);
                    return Ok(());
                }
            }
        };
        // `far` outlives the guards, so the domain cannot be freed under its lock.
        let mut pair = Pair::lock(domain, &far);
        // Between the locks the channel may have been closed at either end, and opened anew.
        let is_same = matches!(pair.near().peer(port), Some((f, p)) if Arc::ptr_eq(f, &far) && p == far_port);
        if is_same {
            if let Ok(channel) = pair.far().opened(far_port) {
                channel.state = State::Unbound(domain.id);
            }
            pair.near().release(port);
            return Ok(());
        }
    }
}

/// Closes all ports of a domain and goes back to 2-level delivery (`EVTCHNOP_reset`). False: call again, there is more.
pub fn reset(domain: &Arc<Domain>) -> bool {
    let (mut next, mut closed) = (0, 0u32);
    while let Some(port) = { domain.events.lock().ports.next_open(next) } {
        if closed == CLOSED_AT_ONCE && arch::interrupt_pending() {
            return false;
        }
        closed = if closed == CLOSED_AT_ONCE { 1 } else { closed + 1 };
        // Whoever closed it in between did what there was to do.
        let _ = close(domain, port);
        next = port + 1;
    }
    let old = domain.events.lock().leave_fifo();
    drop(old);
    true
}

/// The same for a domain that goes away: it opens no port any more. False: call again, there is more.
pub fn destroy(domain: &Arc<Domain>) -> bool {
    domain.events.lock().is_dying = true;
    if !reset(domain) {
        return false;
    }
    let pages = domain.events.lock().forget_vcpus();
    drop(pages);
    true
}

// ---- signalling ----

/// Raises the other end of a port; for an IPI the port itself; for one that waits for its peer, nobody. `EINVAL` otherwise.
#[inline(always)]
pub fn send(domain: &Arc<Domain>, port: Port) -> Result<(), Errno> {
    if try_send(domain, port)? { Ok(()) } else { send_in_order(domain, port) }
}

/// [`send`]; false, and nothing done, where the peer has the lower number and its lock is taken.
#[inline(always)]
fn try_send(domain: &Arc<Domain>, port: Port) -> Result<bool, Errno> {
    let mut near = domain.events.lock();
    match &near.ports.get(port)?.state {
        State::Interdomain(far, far_port) => {
            let far_port = *far_port;
            if !Arc::ptr_eq(far, domain) {
                return Ok(try_send_across(domain, far, far_port));
            }
            raise(domain, &mut near, far_port);
        }
        State::Ipi => raise(domain, &mut near, port),
        State::Unbound(_) => {}
        State::Free | State::Reserved | State::Virq(_) => return Err(Errno::EINVAL),
    }
    Ok(true)
}

/// The part of [`try_send`] that concerns another domain, whose lock comes second.
#[inline(never)]
fn try_send_across(near: &Domain, far: &Arc<Domain>, far_port: Port) -> bool {
    let locked = if near.id < far.id { Some(far.events.lock()) } else { far.events.try_lock() };
    let Some(mut channels) = locked else { return false };
    raise(far, &mut channels, far_port);
    true
}

/// [`send`] with both locks taken anew, in order.
#[cold]
fn send_in_order(domain: &Arc<Domain>, port: Port) -> Result<(), Errno> {
    loop {
        let Some((far, far_port)) = domain.events.lock().peer(port).map(|(far, port)| (far.clone(), port))
        else {
            // Closed meanwhile: an event sent before that would have been lost as well.
            return Ok(());
        };
        let mut pair = Pair::lock(domain, &far);
        if matches!(pair.near().peer(port), Some((f, p)) if Arc::ptr_eq(f, &far) && p == far_port) {
            raise(&far, pair.far(), far_port);
            return Ok(());
        }
    }
}

/// Raises a per-vCPU VIRQ, if the vCPU bound it.
pub fn send_virq(vcpu: &Arc<Vcpu>, virq: Virq) {
    if let Some(domain) = vcpu.domain() {
        raise_virq(&domain, vcpu.id, virq);
    }
}

/// Raises a global VIRQ in a domain, if it bound it.
pub fn send_global_virq(domain: &Domain, virq: Virq) {
    raise_virq(domain, VcpuId::new(0), virq);
}

fn raise_virq(domain: &Domain, vcpu: VcpuId, virq: Virq) {
    let mut channels = domain.events.lock();
    let port = channels.virq(vcpu, virq.raw());
    if port != 0 {
        raise(domain, &mut channels, port);
    }
}

/// Unmasks a port and delivers what is pending there. `EINVAL` for a port that cannot be.
pub fn unmask(domain: &Domain, port: Port) -> Result<(), Errno> {
    let mut channels = domain.events.lock();
    let notice = channels.unmask(port)?;
    follow_up(domain, &mut channels, port, notice);
    Ok(())
}

// ---- describing and tuning ----

/// What a port is bound to. `EINVAL` for a port that cannot be.
pub fn status(domain: &Domain, port: Port) -> Result<Status, Errno> {
    let channels = domain.events.lock();
    let channel = channels.ports.get(port)?;
    let (kind, u) = match &channel.state {
        State::Free | State::Reserved => (StatusKind::Closed, StatusUnion::default()),
        State::Unbound(dom) => (StatusKind::Unbound, StatusUnion::of(&StatusUnbound { dom: *dom })),
        State::Interdomain(far, port) => {
            let peer = StatusInterdomain { dom: far.id, _pad: 0, port: *port };
            (StatusKind::Interdomain, StatusUnion::of(&peer))
        }
        State::Virq(virq) => (StatusKind::Virq, StatusUnion::of(virq)),
        State::Ipi => (StatusKind::Ipi, StatusUnion::default()),
    };
    Ok(Status { dom: domain.id, _pad: 0, port, status: kind.raw(), vcpu: channel.notify.get(), u })
}

/// Chooses the vCPU that a port notifies. `EINVAL` for IPIs and per-vCPU VIRQs, `ENOENT` without such a vCPU.
pub fn bind_vcpu(domain: &Domain, port: Port, vcpu: u32) -> Result<(), Errno> {
    let vcpu = existing_vcpu(domain, vcpu)?;
    let mut channels = domain.events.lock();
    let channel = channels.opened(port)?;
    match channel.state {
        State::Unbound(_) | State::Interdomain(..) => {}
        State::Virq(virq) if !Virq::try_from(virq).is_ok_and(Virq::is_per_vcpu) => {}
        State::Virq(_) | State::Ipi | State::Free | State::Reserved => return Err(Errno::EINVAL),
    }
    channel.notify = vcpu;
    Ok(())
}

/// Registers a vCPU's FIFO control block, in a page of the domain's own; the first one switches the domain to FIFO.
/// `EINVAL` if it has one or cannot have one there.
pub fn init_control(domain: &Domain, vcpu: u32, gfn: Gfn, offset: u32) -> Result<(), Errno> {
    let vcpu = existing_vcpu(domain, vcpu)?;
    let offset = offset as usize;
    if !channels::is_control_offset(offset) {
        return Err(Errno::EINVAL);
    }
    let page = own_page(domain, gfn)?;
    prepared(domain)?.init_control(vcpu, page, offset)
}

/// Adds a page of the domain's own to its FIFO event array. `EOPNOTSUPP` without FIFO, `ENOSPC` when it is complete.
pub fn expand_array(domain: &Domain, gfn: Gfn) -> Result<(), Errno> {
    if !domain.events.lock().is_fifo() {
        return Err(Errno::EOPNOTSUPP);
    }
    let page = own_page(domain, gfn)?;
    let mut channels = domain.events.lock();
    let mut ports = channels.expand_array(page)?;
    while let Some((port, notice)) = channels.next_held_back(&mut ports) {
        follow_up(domain, &mut channels, port, notice);
    }
    Ok(())
}

/// A page of the domain's own memory that it may write; `EINVAL` if there is none. Not to be called with the ports locked.
fn own_page(domain: &Domain, gfn: Gfn) -> Result<PageRef, Errno> {
    match domain.p2m.get_ram(gfn) {
        Ok((page, true)) => Ok(page),
        Ok((_, false)) | Err(_) => Err(Errno::EINVAL),
    }
}

/// Chooses the FIFO queue for a port's future events. `ENOSYS` without FIFO, `EINVAL` for a priority that is none.
pub fn set_priority(domain: &Domain, port: Port, priority: u32) -> Result<(), Errno> {
    domain.events.lock().set_priority(port, priority)
}

// ---- a vCPU's own ----

/// Moves a vCPU's `vcpu_info` to a page of the domain's own (`VCPUOP_register_vcpu_info`) and raises its upcall, for
/// everything counts as pending then. `ENXIO` where it does not fit, `EINVAL` the second time, and for another's page,
/// which EL2 would write after its owner took it back.
pub fn register_vcpu_info(domain: &Domain, vcpu: VcpuId, gfn: Gfn, offset: u32) -> Result<(), Errno> {
    let vcpu = domain.vcpu(vcpu).ok_or(Errno::ENOENT)?;
    let offset = offset as usize;
    if !channels::is_info_offset(offset) {
        return Err(Errno::ENXIO);
    }
    let page = own_page(domain, gfn)?;
    prepared(domain)?.register_info(vcpu.id, page, offset)?;
    vcpu::raise_upcall(vcpu);
    Ok(())
}

/// Whether a vCPU's `evtchn_upcall_pending` is set: it has events to look at and need not sleep.
pub fn is_upcall_pending(domain: &Domain, vcpu: VcpuId) -> bool {
    domain.events.lock().is_upcall_pending(vcpu)
}

/// Begins `SCHEDOP_poll`: true if one of `ports` is pending. Otherwise the vCPU is to block, until an event at one of
/// them, [`end_poll`], or [`poll_timeout`]; with none or several ports, any event ends it. `EINVAL` for a port that
/// cannot be.
pub fn start_poll(domain: &Domain, vcpu: &Arc<Vcpu>, ports: &[Port]) -> Result<bool, Errno> {
    let mut channels = prepared(domain)?;
    let is_ready = channels.start_poll(vcpu.id, ports)?;
    vcpu.events.is_polling.store(!is_ready, Ordering::Release);
    Ok(is_ready)
}

/// Ends a vCPU's poll because it runs again for another reason.
pub fn end_poll(domain: &Domain, vcpu: &Arc<Vcpu>) {
    if vcpu.events.is_polling() {
        let mut channels = domain.events.lock();
        channels.end_poll(vcpu.id);
        vcpu.events.is_polling.store(false, Ordering::Release);
    }
}

/// Ends a vCPU's poll because its time is up.
pub fn poll_timeout(vcpu: &Arc<Vcpu>) {
    if let Some(domain) = vcpu.domain() {
        end_poll(&domain, vcpu);
    }
    sched::wake(vcpu);
}
