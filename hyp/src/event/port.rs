//! Ports: what a domain's end of a channel is bound to, in a table that grows by buckets.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use pv_abi::event_channel::{EVTCHN_FIFO_PRIORITY_DEFAULT, Port};

use crate::domain::Domain;
use crate::mm::heap;
use crate::vcpu::VcpuId;

/// Ports per bucket; Xen's number, for it shows: ports past the last bucket are `EINVAL` instead of closed.
const BUCKET_SHIFT: u32 = 6;
const BUCKET: usize = 1 << BUCKET_SHIFT;

/// What a port is bound to.
#[derive(Clone, Default)]
pub(super) enum State {
    /// Nothing.
    #[default]
    Free,
    /// Nothing ever: port 0.
    Reserved,
    /// It waits for a port of that domain.
    Unbound(DomId),
    /// A port of another domain, or another of the same. Keeps that domain's memory from going away; either end's
    /// closing ends both references.
    Interdomain(Arc<Domain>, Port),
    /// A virtual interrupt.
    Virq(u32),
    /// A vCPU of the same domain.
    Ipi,
}

/// One port.
#[derive(Clone)]
pub(super) struct Channel {
    pub(super) state: State,
    /// Who is told.
    pub(super) notify: VcpuId,
    /// The FIFO queue that the port goes to next.
    pub(super) priority: u8,
    /// The FIFO queue that it is on, or was last: its priority …
    pub(super) last_priority: u8,
    /// An event came while FIFO had no place to note it.
    pub(super) is_pending: bool,
    /// … and its vCPU.
    pub(super) last_vcpu: VcpuId,
}

impl Channel {
    const FREE: Self = Self {
        state: State::Free,
        notify: VcpuId::new(0),
        priority: EVTCHN_FIFO_PRIORITY_DEFAULT as u8,
        last_priority: EVTCHN_FIFO_PRIORITY_DEFAULT as u8,
        is_pending: false,
        last_vcpu: VcpuId::new(0),
    };
}

/// A domain's ports by number.
pub(super) struct PortTable {
    #[allow(clippy::vec_box, reason = "growing must not move all ports")]
    buckets: Vec<Box<[Channel; BUCKET]>>,
    /// No port below this one is free.
    free_hint: Port,
}

impl PortTable {
    pub(super) const fn new() -> Self {
        Self { buckets: Vec::new(), free_hint: 1 }
    }

    /// The first number without a bucket.
    pub(super) fn end(&self) -> Port {
        (self.buckets.len() as Port) << BUCKET_SHIFT
    }

    /// A port, open or not; `EINVAL` where the table does not reach.
    #[inline]
    pub(super) fn get(&self, port: Port) -> Result<&Channel, Errno> {
        let bucket = self.buckets.get((port >> BUCKET_SHIFT) as usize).ok_or(Errno::EINVAL)?;
        Ok(&bucket[port as usize % BUCKET])
    }

    #[inline]
    pub(super) fn get_mut(&mut self, port: Port) -> Result<&mut Channel, Errno> {
        let bucket = self.buckets.get_mut((port >> BUCKET_SHIFT) as usize).ok_or(Errno::EINVAL)?;
        Ok(&mut bucket[port as usize % BUCKET])
    }

    /// The lowest free port below `limit` that is not `busy`; the table grows as needed. `ENOSPC` when there is none,
    /// `ENOMEM` when there is no memory for it.
    pub(super) fn find_free(&mut self, limit: Port, busy: impl Fn(Port) -> bool) -> Result<Port, Errno> {
        let mut skipped = None;
        let mut port = self.free_hint;
        while port < limit {
            if port >= self.end() {
                self.grow()?;
            }
            if matches!(self.get(port)?.state, State::Free) {
                if !busy(port) {
                    self.free_hint = skipped.unwrap_or(port + 1);
                    return Ok(port);
                }
                skipped = skipped.or(Some(port));
            }
            port += 1;
        }
        Err(Errno::ENOSPC)
    }

    /// A guest makes the table grow, so that must not fail but by an error.
    fn grow(&mut self) -> Result<(), Errno> {
        heap::reserve(&mut self.buckets, 1)?;
        let mut bucket = Vec::new();
        heap::reserve(&mut bucket, BUCKET)?;
        bucket.resize(BUCKET, Channel::FREE);
        if let (true, Some(first)) = (self.buckets.is_empty(), bucket.first_mut()) {
            first.state = State::Reserved;
        }
        self.buckets.push(bucket.into_boxed_slice().try_into().map_err(|_| Errno::ENOMEM)?);
        Ok(())
    }

    /// The first open port from `first` on.
    pub(super) fn next_open(&self, first: Port) -> Option<Port> {
        (first..self.end())
            .find(|&port| self.get(port).is_ok_and(|c| !matches!(c.state, State::Free | State::Reserved)))
    }

    /// Makes an open port free. What it was bound to is returned, to be dropped when convenient.
    pub(super) fn release(&mut self, port: Port) -> State {
        let Ok(channel) = self.get_mut(port) else { return State::Free };
        let (last_vcpu, last_priority) = (channel.last_vcpu, channel.last_priority);
        // The queue it was on outlives the binding: the guest may not have unlinked it yet.
        let old = core::mem::replace(channel, Channel { last_vcpu, last_priority, ..Channel::FREE });
        self.free_hint = self.free_hint.min(port);
        old.state
    }
}
