//! The FIFO ABI: an event word per port in pages of the guest's, linked into queues by priority (`event_channel.h`).
//!
//! ```text
//!   control block of a vCPU                event words
//!   ready: bit per queue      head[7] ──▶ ┌P M L B  link┐──▶ ┌P M L B  link┐──▶ 0
//!                                         └─────────────┘    └─────────────┘ ◀── tail (kept here)
//! ```
//! EL2 appends: it sets LINKED in the new word, writes the link of the tail, or `head` when the queue was empty. The
//! guest takes from the head: it reads the link and clears it together with LINKED. A tail that is no longer LINKED means
//! that the guest emptied the queue. All words are the guest's and may hold anything: EL2 reads only the words of ports
//! that it queued itself, follows no link, and retries an update a bounded number of times. So a guest that scribbles
//! there loses its own events and nothing else.
//!
//! Calls come with the domain's event-channel lock held.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::mem::offset_of;

use pv_abi::errno::Errno;
use pv_abi::event_channel::{
    EVTCHN_FIFO_BUSY, EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_LINKED, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_MAX_QUEUES,
    EVTCHN_FIFO_NR_CHANNELS, EVTCHN_FIFO_PENDING, FifoControlBlock, Port,
};
use stage2::PAGE_SIZE;

use super::port::Channel;
use crate::mm::heap;
use crate::mm::page::PageRef;
use crate::vcpu::VcpuId;

const PENDING: u32 = 1 << EVTCHN_FIFO_PENDING;
const MASKED: u32 = 1 << EVTCHN_FIFO_MASKED;
const LINKED: u32 = 1 << EVTCHN_FIFO_LINKED;
const BUSY: u32 = 1 << EVTCHN_FIFO_BUSY;

const WORDS_PER_PAGE: u32 = (PAGE_SIZE / 4) as u32;
const MAX_PAGES: usize = (EVTCHN_FIFO_NR_CHANNELS / WORDS_PER_PAGE) as usize;
const READY: usize = offset_of!(FifoControlBlock, ready);
const HEAD: usize = offset_of!(FifoControlBlock, head);

/// Updates of a word that the guest keeps changing are given up after this many; BUSY asks it to stop.
const LINK_ATTEMPTS: usize = 4;

/// One vCPU's queues.
#[derive(Default)]
struct Queues {
    /// The control block: page and offset.
    control: Option<(PageRef, usize)>,
    /// The last port of each queue; 0 for none.
    tails: [Port; EVTCHN_FIFO_MAX_QUEUES],
}

/// A domain's FIFO state.
pub(super) struct Fifo {
    words: Vec<PageRef>,
    vcpus: Vec<Queues>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raised {
    /// It was not pending before.
    pub(super) is_new: bool,
    /// Its queue became ready: the vCPU's upcall must be marked.
    pub(super) is_ready: bool,
}

impl Fifo {
    /// No words and no control blocks. `ENOMEM`.
    pub(super) fn new(vcpus: usize) -> Result<Self, Errno> {
        let mut fifo = Self { words: Vec::new(), vcpus: Vec::new() };
        heap::reserve(&mut fifo.vcpus, vcpus)?;
        fifo.vcpus.resize_with(vcpus, Queues::default);
        Ok(fifo)
    }

    /// Registers a vCPU's control block. `EINVAL` if it has one, or that cannot be one there.
    pub(super) fn set_control(&mut self, vcpu: VcpuId, page: PageRef, offset: usize) -> Result<(), Errno> {
        let queues = self.vcpus.get_mut(vcpu.index()).ok_or(Errno::ENOENT)?;
        if queues.control.is_some() || !is_control_offset(offset) {
            return Err(Errno::EINVAL);
        }
        queues.control = Some((page, offset));
        Ok(())
    }

    /// Adds a page of event words; the ports whose words it holds. `ENOSPC` when there are words for all ports.
    pub(super) fn expand(&mut self, page: PageRef) -> Result<core::ops::Range<Port>, Errno> {
        if self.words.len() >= MAX_PAGES {
            return Err(Errno::ENOSPC);
        }
        heap::reserve(&mut self.words, 1)?;
        let first = self.words.len() as Port * WORDS_PER_PAGE;
        self.words.push(page);
        Ok(first..first + WORDS_PER_PAGE)
    }

    #[inline]
    fn word(&self, port: Port) -> Option<(&PageRef, usize)> {
        let page = self.words.get((port / WORDS_PER_PAGE) as usize)?;
        Some((page, (port % WORDS_PER_PAGE) as usize * 4))
    }

    fn bits(&self, port: Port) -> Option<u32> {
        self.word(port).map(|(page, at)| page.read_u32(at))
    }

    /// Whether the guest has yet to take the port off a queue.
    pub(super) fn is_linked(&self, port: Port) -> bool {
        self.bits(port).is_some_and(|word| word & LINKED != 0)
    }

    pub(super) fn is_pending(&self, port: Port, channel: &Channel) -> bool {
        self.bits(port).map_or(channel.is_pending, |word| word & PENDING != 0)
    }

    pub(super) fn clear_pending(&self, port: Port) {
        if let Some((page, at)) = self.word(port) {
            // It stays linked: the guest unlinks it and finds nothing pending.
            page.fetch_and_u32(at, !PENDING);
        }
    }

    /// Makes a port pending and queues it unless it is masked or queued already.
    #[inline]
    pub(super) fn set_pending(&mut self, port: Port, channel: &mut Channel) -> Raised {
        let Some((page, at)) = self.word(port) else {
            // `expand` brings it up again.
            let is_new = !channel.is_pending;
            channel.is_pending = true;
            return Raised { is_new, is_ready: false };
        };
        let old = page.fetch_or_u32(at, PENDING);
        let is_new = old & PENDING == 0;
        let is_ready = old & (MASKED | LINKED) == 0 && self.link(port, channel);
        Raised { is_new, is_ready }
    }

    /// Unmasks a port. True if it is pending, so it must be raised again.
    pub(super) fn unmask(&self, port: Port) -> bool {
        self.word(port).is_some_and(|(page, at)| page.fetch_and_u32(at, !MASKED) & PENDING != 0)
    }

    /// Appends a port to its queue. True if that queue became ready.
    fn link(&mut self, port: Port, channel: &mut Channel) -> bool {
        let priority = usize::from(channel.priority) % EVTCHN_FIFO_MAX_QUEUES;
        // The guest must not unmask before it registered the control block; if it does, the event is lost.
        let has_control = self.vcpus.get(channel.notify.index()).is_some_and(|q| q.control.is_some());
        let Some((page, at)) = self.word(port) else { return false };
        if !has_control || page.fetch_or_u32(at, LINKED) & LINKED != 0 {
            return false;
        }
        // The guest took it off the queue it was on. If it was the tail there, that queue is empty; the tail must not
        // be mistaken for a linked word of this other queue.
        let last_priority = usize::from(channel.last_priority) % EVTCHN_FIFO_MAX_QUEUES;
        if let Some(old) = self.vcpus.get_mut(channel.last_vcpu.index())
            && old.tails[last_priority] == port
        {
            old.tails[last_priority] = 0;
        }
        channel.last_vcpu = channel.notify;
        channel.last_priority = priority as u8;
        let Some(queues) = self.vcpus.get(channel.notify.index()) else { return false };
        let tail = queues.tails[priority];
        let is_linked = tail != 0 && self.set_link(tail, port);
        let Some(queues) = self.vcpus.get_mut(channel.notify.index()) else { return false };
        queues.tails[priority] = port;
        let Some((control, offset)) = &queues.control else { return false };
        if is_linked {
            return false;
        }
        control.write_u32(offset + HEAD + priority * 4, port);
        let bit = 1 << priority;
        control.fetch_or_u32(offset + READY, bit) & bit == 0
    }

    /// Writes the link of `tail`. False if the guest has taken it off the queue, which is thus empty.
    fn set_link(&self, tail: Port, link: Port) -> bool {
        let Some((page, at)) = self.word(tail) else { return false };
        let mut word = page.read_u32(at);
        for attempt in 0..=LINK_ATTEMPTS {
            if word & LINKED == 0 {
                if attempt > 0 {
                    page.fetch_and_u32(at, !BUSY);
                }
                return false;
            }
            let new = word & !(BUSY | EVTCHN_FIFO_LINK_MASK) | link;
            match page.compare_exchange_u32(at, word, new) {
                Ok(_) => return true,
                // The guest sets or clears PENDING or MASKED of a queued word; not for ever, once it sees BUSY.
                Err(_) => word = page.fetch_or_u32(at, BUSY) | BUSY,
            }
        }
        // The guest does it on purpose. Its event stays unlinked; pretending otherwise keeps the queue's head.
        page.fetch_and_u32(at, !BUSY);
        true
    }
}

/// Whether a control block fits at that offset of a page.
pub(super) fn is_control_offset(offset: usize) -> bool {
    offset.is_multiple_of(8) && offset <= PAGE_SIZE as usize - size_of::<FifoControlBlock>()
}
