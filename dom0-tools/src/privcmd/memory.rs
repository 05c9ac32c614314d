//! `memory_op`: pages for a domain, and what the host shares.

use pv_abi::GuestHandle;
use pv_abi::domid::DomId;
use pv_abi::hypercall::Hypercall;
use pv_abi::memory::{Domain, Op, PodTarget, Reservation};
use pv_abi::nacelle::{MemoryCounters, WorkingSet, XENMEM_NACELLE_COUNTERS, XENMEM_NACELLE_WORKING_SET};
use rustix::io::Errno;

use super::{Error, Privcmd, Result};

/// What a domain shall have, and has (`struct xen_pod_target`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryTarget {
    /// Pages it shall have.
    pub target: u64,
    /// Pages it has: with backing, and set aside.
    pub pages: u64,
    /// Of these, set aside for guest frames that are not backed yet.
    pub reserved: u64,
    /// Guest frames that are not backed yet.
    pub unbacked: u64,
}

impl Privcmd {
    fn sharing(&self, what: &'static str, op: Op) -> Result<u64> {
        // SAFETY: the two operations below have no structure.
        let pages = unsafe { self.call(what, Hypercall::MemoryOp, [u64::from(op.raw()), 0, 0, 0, 0]) }?;
        Ok(u64::try_from(pages).unwrap_or(0))
    }

    /// Pages that sharing made free, and pages that are shared.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn shared_pages(&self) -> Result<(u64, u64)> {
        Ok((
            self.sharing("memory_op get_sharing_freed_pages", Op::GetSharingFreedPages)?,
            self.sharing("memory_op get_sharing_shared_pages", Op::GetSharingSharedPages)?,
        ))
    }

    /// Gives a domain memory: an extent of 2^`order` pages at each of `frames`. How many extents it got; fewer than asked
    /// for where memory, or the domain's allowance, ended. `flags` are `XENMEMF_*`.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn populate(&self, id: DomId, frames: &[u64], order: u32, flags: u32) -> Result<usize> {
        let at = size_of::<Reservation>();
        let mut buffer = self.buffer(at + size_of_val(frames))?;
        buffer.put(at, frames);
        let reservation = Reservation {
            extent_start: buffer.handle(at),
            nr_extents: frames.len() as u64,
            extent_order: order,
            mem_flags: flags,
            domid: id,
            ..Reservation::default()
        };
        buffer.put(0, &reservation);
        let arg = [u64::from(Op::PopulatePhysmap.raw()), buffer.address(0), 0, 0, 0];
        // SAFETY: the reservation in the buffer names a list there, of the length it says.
        let done = unsafe { self.call("memory_op populate_physmap", Hypercall::MemoryOp, arg) }?;
        Ok(usize::try_from(done).unwrap_or(0).min(frames.len()))
    }

    /// Sets so many of the host's free pages aside for a domain, in all; 0 gives what is left of them back.
    ///
    /// # Errors
    /// [`Error::Refused`]: `ENOMEM` where there are not so many.
    pub fn claim(&self, id: DomId, pages: u64) -> Result<()> {
        let reservation = Reservation {
            extent_start: GuestHandle::new(0),
            nr_extents: pages,
            domid: id,
            ..Reservation::default()
        };
        let buffer = self.buffer_with(&reservation, 0)?;
        let arg = [u64::from(Op::ClaimPages.raw()), buffer.address(0), 0, 0, 0];
        // SAFETY: the structure is in the buffer and its list is null, which the operation demands.
        unsafe { self.call("memory_op claim_pages", Hypercall::MemoryOp, arg) }.map(|_| ())
    }

    /// The highest guest frame of a domain.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn highest_frame(&self, id: DomId) -> Result<u64> {
        let buffer = self.buffer_with(&Domain { domid: id }, 0)?;
        let arg = [u64::from(Op::MaximumGpfn.raw()), buffer.address(0), 0, 0, 0];
        // SAFETY: the structure is in the buffer and holds no address.
        let frame = unsafe { self.call("memory_op maximum_gpfn", Hypercall::MemoryOp, arg) }?;
        Ok(u64::try_from(frame).unwrap_or(0))
    }

    fn pod_target(&self, what: &'static str, op: Op, ask: PodTarget) -> Result<Option<MemoryTarget>> {
        let buffer = self.buffer_with(&ask, 0)?;
        let arg = [u64::from(op.raw()), buffer.address(0), 0, 0, 0];
        // SAFETY: the structure is in the buffer and holds no address.
        match unsafe { self.call(what, Hypercall::MemoryOp, arg) } {
            Ok(_) => {
                let found: PodTarget = buffer.get(0);
                let PodTarget { target_pages: target, tot_pages: pages, .. } = found;
                let (reserved, unbacked) = (found.pod_cache_pages, found.pod_entries);
                Ok(Some(MemoryTarget { target, pages, reserved, unbacked }))
            }
            // Xen on Arm keeps no targets.
            Err(Error::Refused { errno: Errno::NOSYS | Errno::OPNOTSUPP, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How a domain's memory is mapped, where the hypervisor tells: Nacelle does.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn memory_counters(&self, id: DomId) -> Result<Option<MemoryCounters>> {
        let buffer = self.buffer_with(&MemoryCounters { domid: id, ..MemoryCounters::default() }, 0)?;
        let arg = [u64::from(XENMEM_NACELLE_COUNTERS), buffer.address(0), 0, 0, 0];
        // SAFETY: the structure is in the buffer and holds no address.
        match unsafe { self.call("memory_op nacelle_counters", Hypercall::MemoryOp, arg) } {
            Ok(_) => Ok(Some(buffer.get(0))),
            Err(Error::Refused { errno: Errno::NOSYS, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many of the pages chosen by the last call a domain used since, and chooses `watch` others, at most
    /// [`pv_abi::nacelle::WORKING_SET_MOST`]; `None` where the hypervisor does not tell.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn working_set(&self, id: DomId, watch: u64) -> Result<Option<WorkingSet>> {
        let buffer = self.buffer_with(&WorkingSet { domid: id, watch, ..WorkingSet::default() }, 0)?;
        let arg = [u64::from(XENMEM_NACELLE_WORKING_SET), buffer.address(0), 0, 0, 0];
        // SAFETY: the structure is in the buffer and holds no address.
        match unsafe { self.call("memory_op nacelle_working_set", Hypercall::MemoryOp, arg) } {
            Ok(_) => Ok(Some(buffer.get(0))),
            Err(Error::Refused { errno: Errno::NOSYS, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A domain's target, where the hypervisor keeps one: Nacelle does, Xen on Arm does not.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn memory_target(&self, id: DomId) -> Result<Option<MemoryTarget>> {
        let ask = PodTarget { domid: id, ..PodTarget::default() };
        self.pod_target("memory_op get_pod_target", Op::GetPodTarget, ask)
    }

    /// Sets a domain's target in pages, where the hypervisor keeps one; `None` where it does not.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_memory_target(&self, id: DomId, pages: u64) -> Result<Option<MemoryTarget>> {
        let ask = PodTarget { domid: id, target_pages: pages, ..PodTarget::default() };
        self.pod_target("memory_op set_pod_target", Op::SetPodTarget, ask)
    }
}
