//! One domain's ports and how its vCPUs learn of events: everything that its lock guards, and what needs no other domain.
//!
//! A delivery says what is left to do ([`Notice`]): raise a vCPU's upcall, wake those who poll. The parent module does it
//! with the lock still held, so that the order of events is the order of the calls.
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::ops::Range;

use pv_abi::errno::Errno;
use pv_abi::event_channel::{
    EVTCHN_2L_NR_CHANNELS, EVTCHN_FIFO_NR_CHANNELS, EVTCHN_FIFO_PRIORITY_DEFAULT, EVTCHN_FIFO_PRIORITY_MIN,
    Port,
};
use pv_abi::xen::{SharedInfo, VcpuInfo};
use stage2::PAGE_SIZE;

use super::fifo::{self, Fifo};
use super::port::{Channel, PortTable, State};
use super::two_level;
use crate::domain::Domain;
use crate::mm::heap;
use crate::mm::page::PageRef;
use crate::vcpu::VcpuId;

/// Number of VIRQs (`NR_VIRQS`, public header `xen.h`).
pub(super) const VIRQS: usize = 24;

const UPCALL_PENDING: usize = offset_of!(VcpuInfo, evtchn_upcall_pending);
const PENDING_SEL: usize = offset_of!(VcpuInfo, evtchn_pending_sel);

/// A vCPU's `vcpu_info`: page and offset.
#[derive(Clone, Copy)]
pub(super) struct InfoPlace<'a>(&'a PageRef, usize);

impl InfoPlace<'_> {
    /// Sets a bit of `evtchn_pending_sel`. True if it was clear.
    pub(super) fn select(self, word: u32) -> bool {
        let bit = 1 << (word % 64);
        self.0.fetch_or_u64(self.1 + PENDING_SEL, bit) & bit == 0
    }

    /// Sets `evtchn_upcall_pending`. True if it was clear: the interrupt must be raised.
    pub(super) fn mark_upcall(self) -> bool {
        self.0.fetch_or_u8(self.1 + UPCALL_PENDING, 1) & 1 == 0
    }

    pub(super) fn is_upcall_pending(self) -> bool {
        self.0.read_u8(self.1 + UPCALL_PENDING) != 0
    }
}

/// What a delivery leaves to do.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Notice {
    /// Raise this vCPU's upcall.
    pub(super) upcall: Option<VcpuId>,
    /// Wake those who poll the port.
    pub(super) poll: bool,
}

/// Which ports a vCPU polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// Several, or whatever comes.
    Any,
    /// This one.
    One(Port),
}

/// A vCPU's part.
#[derive(Default)]
struct VcpuSlot {
    info: Option<(PageRef, usize)>,
    virqs: [Port; VIRQS],
    polled: Option<Polled>,
}

/// A domain's ports.
pub struct EventChannels {
    pub(super) ports: PortTable,
    /// Ports from here on cannot be had.
    limit: u32,
    shared: Option<PageRef>,
    vcpus: Vec<VcpuSlot>,
    fifo: Option<Fifo>,
    /// How many vCPUs poll.
    pollers: u32,
    /// No new ports: the domain goes away.
    pub(super) is_dying: bool,
}

impl EventChannels {
    /// None open, and none from number `max_ports` on to be had.
    pub const fn new(max_ports: u32) -> Self {
        Self {
            ports: PortTable::new(),
            limit: max_ports,
            shared: None,
            vcpus: Vec::new(),
            fifo: None,
            pollers: 0,
            is_dying: false,
        }
    }

    /// Makes room for a domain's vCPUs, and remembers its shared page. `ENOMEM`; `EINVAL` for a domain that goes away.
    pub(super) fn prepare(&mut self, shared: &PageRef, vcpus: usize) -> Result<(), Errno> {
        if self.is_dying {
            return Err(Errno::EINVAL);
        }
        if self.shared.is_none() {
            self.shared = Some(shared.clone());
        }
        let missing = vcpus.saturating_sub(self.vcpus.len());
        heap::reserve(&mut self.vcpus, missing)?;
        self.vcpus.resize_with(self.vcpus.len() + missing, VcpuSlot::default);
        Ok(())
    }

    /// Gives up what the vCPUs of a dying domain registered.
    pub(super) fn forget_vcpus(&mut self) -> impl Sized + use<> {
        core::mem::take(&mut self.vcpus)
    }

    /// Opens the lowest free port, for a vCPU that exists.
    pub(super) fn open(&mut self, state: State, notify: VcpuId) -> Result<Port, Errno> {
        if self.is_dying {
            return Err(Errno::EINVAL);
        }
        let abi_limit = if self.fifo.is_some() { EVTCHN_FIFO_NR_CHANNELS } else { EVTCHN_2L_NR_CHANNELS };
        let fifo = &self.fifo;
        let is_busy = |port| fifo.as_ref().is_some_and(|fifo| fifo.is_linked(port));
        let port = self.ports.find_free(self.limit.min(abi_limit), is_busy)?;
        let channel = self.ports.get_mut(port)?;
        channel.state = state;
        channel.notify = notify;
        Ok(port)
    }

    /// Makes an open port free, and forgets an event that is pending there. What it was bound to is returned.
    pub(super) fn release(&mut self, port: Port) -> State {
        match (&self.fifo, &self.shared) {
            (Some(fifo), _) => fifo.clear_pending(port),
            (None, Some(shared)) => two_level::clear_pending(shared, port),
            (None, None) => {}
        }
        let state = self.ports.release(port);
        if let State::Virq(virq) = &state {
            for slot in &mut self.vcpus {
                if let Some(bound) = slot.virqs.get_mut(*virq as usize).filter(|bound| **bound == port) {
                    *bound = 0;
                }
            }
        }
        state
    }

    /// The other end of a port.
    pub(super) fn peer(&self, port: Port) -> Option<(&Arc<Domain>, Port)> {
        match &self.ports.get(port).ok()?.state {
            State::Interdomain(domain, port) => Some((domain, *port)),
            _ => None,
        }
    }

    // ---- virtual interrupts ----

    /// Where a VIRQ that a vCPU bound goes; 0 if it bound none. Global VIRQs are vCPU 0's.
    pub(super) fn virq(&self, vcpu: VcpuId, virq: u32) -> Port {
        self.vcpus.get(vcpu.index()).and_then(|slot| slot.virqs.get(virq as usize)).copied().unwrap_or(0)
    }

    /// Binds a VIRQ. `EEXIST` if the vCPU has bound it.
    pub(super) fn bind_virq(&mut self, vcpu: VcpuId, virq: u32) -> Result<Port, Errno> {
        if self.virq(vcpu, virq) != 0 {
            return Err(Errno::EEXIST);
        }
        let port = self.open(State::Virq(virq), vcpu)?;
        if let Some(bound) =
            self.vcpus.get_mut(vcpu.index()).and_then(|slot| slot.virqs.get_mut(virq as usize))
        {
            *bound = port;
        }
        Ok(port)
    }

    // ---- delivery ----

    fn info(&self, vcpu: VcpuId) -> Option<InfoPlace<'_>> {
        match self.vcpus.get(vcpu.index())?.info.as_ref() {
            Some((page, offset)) => Some(InfoPlace(page, *offset)),
            // XEN_LEGACY_MAX_VCPUS is 1 on Arm: the first vCPU alone has a place in the shared page.
            None if vcpu.index() == 0 => {
                Some(InfoPlace(self.shared.as_ref()?, offset_of!(SharedInfo, vcpu_info)))
            }
            // Told when it registers: everything counts as pending then.
            None => None,
        }
    }

    pub(super) fn is_upcall_pending(&self, vcpu: VcpuId) -> bool {
        self.info(vcpu).is_some_and(InfoPlace::is_upcall_pending)
    }

    /// Makes a port pending. An already pending or masked one costs no more than finding that out.
    #[inline(always)]
    pub(super) fn raise(&mut self, port: Port) -> Notice {
        if self.fifo.is_some() {
            return self.raise_fifo(port);
        }
        let Some(shared) = &self.shared else { return Notice::default() };
        if !two_level::set_pending(shared, port) {
            return Notice::default();
        }
        let poll = self.pollers != 0;
        if two_level::is_masked(shared, port) {
            return Notice { upcall: None, poll };
        }
        Notice { upcall: self.point_at(port), poll }
    }

    /// Points the vCPU that a port notifies at it; which upcall to raise.
    #[inline(never)]
    fn point_at(&self, port: Port) -> Option<VcpuId> {
        let vcpu = self.ports.get(port).ok()?.notify;
        two_level::notify(self.info(vcpu)?, port).then_some(vcpu)
    }

    #[inline(never)]
    fn raise_fifo(&mut self, port: Port) -> Notice {
        let (Some(fifo), Ok(channel)) = (&mut self.fifo, self.ports.get_mut(port)) else {
            return Notice::default();
        };
        let raised = fifo.set_pending(port, channel);
        let vcpu = channel.notify;
        let is_upcall = raised.is_ready && self.info(vcpu).is_some_and(InfoPlace::mark_upcall);
        Notice { upcall: is_upcall.then_some(vcpu), poll: raised.is_new && self.pollers != 0 }
    }

    /// Unmasks a port and delivers what is pending.
    pub(super) fn unmask(&mut self, port: Port) -> Result<Notice, Errno> {
        self.ports.get(port)?;
        match (&self.fifo, &self.shared) {
            (Some(fifo), _) if fifo.unmask(port) => Ok(self.raise_fifo(port)),
            (None, Some(shared)) if two_level::unmask(shared, port) => {
                Ok(Notice { upcall: self.point_at(port), poll: false })
            }
            _ => Ok(Notice::default()),
        }
    }

    /// Whether an event is pending at a port. `EINVAL` where the table does not reach.
    pub(super) fn is_pending(&self, port: Port) -> Result<bool, Errno> {
        let channel = self.ports.get(port)?;
        Ok(match (&self.fifo, &self.shared) {
            (Some(fifo), _) => fifo.is_pending(port, channel),
            (None, Some(shared)) => two_level::is_pending(shared, port),
            (None, None) => false,
        })
    }

    /// Moves a vCPU's area to where the guest wants it. Everything counts as pending there, so nothing gets lost. `EINVAL`
    /// if it was moved before.
    pub(super) fn register_info(&mut self, vcpu: VcpuId, page: PageRef, offset: usize) -> Result<(), Errno> {
        let mut content = [0; size_of::<VcpuInfo>()];
        if let Some(InfoPlace(old, at)) = self.info(vcpu) {
            old.copy_out(at, &mut content)?;
        }
        let slot = self.vcpus.get_mut(vcpu.index()).ok_or(Errno::ENOENT)?;
        if slot.info.is_some() {
            return Err(Errno::EINVAL);
        }
        page.copy_in(offset, &content)?;
        page.write_u64(offset + PENDING_SEL, u64::MAX);
        page.write_u8(offset + UPCALL_PENDING, 1);
        slot.info = Some((page, offset));
        Ok(())
    }

    // ---- FIFO ----

    /// Registers a control block; the first one switches the domain to FIFO. Pending events stay known.
    pub(super) fn init_control(&mut self, vcpu: VcpuId, page: PageRef, offset: usize) -> Result<(), Errno> {
        if let Some(fifo) = &mut self.fifo {
            return fifo.set_control(vcpu, page, offset);
        }
        let mut fifo = Fifo::new(self.vcpus.len())?;
        fifo.set_control(vcpu, page, offset)?;
        for port in 1..self.ports.end() {
            let is_pending = self.shared.as_ref().is_some_and(|shared| two_level::is_pending(shared, port));
            let channel = self.ports.get_mut(port)?;
            channel.is_pending = is_pending;
            channel.priority = EVTCHN_FIFO_PRIORITY_DEFAULT as u8;
            channel.last_priority = channel.priority;
            channel.last_vcpu = channel.notify;
        }
        self.fifo = Some(fifo);
        Ok(())
    }

    /// Whether the domain uses FIFO delivery.
    pub(super) fn is_fifo(&self) -> bool {
        self.fifo.is_some()
    }

    /// Adds a page of event words; the ports whose words it holds, for [`Self::next_held_back`]. `EOPNOTSUPP` before
    /// [`Self::init_control`].
    pub(super) fn expand_array(&mut self, page: PageRef) -> Result<Range<Port>, Errno> {
        let ports = self.fifo.as_mut().ok_or(Errno::EOPNOTSUPP)?.expand(page)?;
        Ok(ports.start..ports.end.min(self.ports.end()))
    }

    /// The next of `ports` whose event waited for its word, which it now gets.
    pub(super) fn next_held_back(&mut self, ports: &mut Range<Port>) -> Option<(Port, Notice)> {
        let port = ports.find(|&port| {
            self.ports.get_mut(port).is_ok_and(|channel| core::mem::take(&mut channel.is_pending))
        })?;
        Some((port, self.raise_fifo(port)))
    }

    /// Chooses the queue for a port's future events. `ENOSYS` without FIFO.
    pub(super) fn set_priority(&mut self, port: Port, priority: u32) -> Result<(), Errno> {
        let channel = self.ports.get_mut(port)?;
        if self.fifo.is_none() {
            return Err(Errno::ENOSYS);
        }
        channel.priority = match u8::try_from(priority) {
            Ok(value) if priority <= EVTCHN_FIFO_PRIORITY_MIN => value,
            _ => return Err(Errno::EINVAL),
        };
        Ok(())
    }

    /// Goes back to 2-level delivery with everything pending forgotten, once all ports are closed.
    pub(super) fn leave_fifo(&mut self) -> Option<Fifo> {
        self.fifo.take()
    }

    // ---- polling ----

    /// Whether one of `ports` is pending; otherwise the vCPU now polls. `EINVAL` for a port that cannot be.
    pub(super) fn start_poll(&mut self, vcpu: VcpuId, ports: &[Port]) -> Result<bool, Errno> {
        for &port in ports {
            if self.is_pending(port)? {
                return Ok(true);
            }
        }
        let polled = match ports {
            [port] => Polled::One(*port),
            _ => Polled::Any,
        };
        let slot = self.vcpus.get_mut(vcpu.index()).ok_or(Errno::ENOENT)?;
        if slot.polled.replace(polled).is_none() {
            self.pollers = self.pollers.saturating_add(1);
        }
        Ok(false)
    }

    /// Ends a vCPU's poll. True if it polled.
    pub(super) fn end_poll(&mut self, vcpu: VcpuId) -> bool {
        let polled = self.vcpus.get_mut(vcpu.index()).and_then(|slot| slot.polled.take()).is_some();
        self.pollers = self.pollers.saturating_sub(u32::from(polled));
        polled
    }

    /// The next vCPU that polls `port`; its poll ends with this.
    pub(super) fn take_poller(&mut self, port: Port) -> Option<VcpuId> {
        let waits = |slot: &VcpuSlot| match slot.polled {
            Some(Polled::Any) => true,
            Some(Polled::One(polled)) => polled == port,
            None => false,
        };
        let index = self.vcpus.iter().position(waits)?;
        let vcpu = VcpuId::new(u32::try_from(index).ok()?);
        self.end_poll(vcpu).then_some(vcpu)
    }

    /// A port that is open; `EINVAL` otherwise.
    pub(super) fn opened(&mut self, port: Port) -> Result<&mut Channel, Errno> {
        match self.ports.get_mut(port)? {
            Channel { state: State::Free | State::Reserved, .. } => Err(Errno::EINVAL),
            channel => Ok(channel),
        }
    }
}

/// Whether a `vcpu_info` fits there: within the page and aligned.
pub(super) fn is_info_offset(offset: usize) -> bool {
    offset.is_multiple_of(8) && offset <= PAGE_SIZE as usize - size_of::<VcpuInfo>()
}

pub(super) use fifo::is_control_offset;
