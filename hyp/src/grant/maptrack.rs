//! What one domain has mapped of others' grants, by handle.
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use alloc::vec::Vec;

use pv_abi::grant_table::{GrantHandle, GrantRef};
use stage2::Mfn;

use super::table::Use;
use crate::domain::Domain;
use crate::mm::heap;

/// Handles the control domain may have: Xen's default, 1024 frames of 512.
const CONTROL_HANDLES: usize = 1 << 19;
/// Handles another domain may have; they are EL2's memory, which it can fill without help.
const HANDLES: usize = 1 << 16;

/// A mapping.
pub(super) struct Mapping {
    /// Who granted. Keeps its table until the mapping ends.
    pub(super) granter: Arc<Domain>,
    pub(super) gref: GrantRef,
    pub(super) used: Use,
    pub(super) mfn: Mfn,
}

enum Slot {
    /// Not in use; the next such.
    Free(Option<usize>),
    /// Taken, but not (or no longer) a mapping.
    Reserved,
    Mapped(Mapping),
}

/// A domain's mappings.
pub(super) struct Maptrack {
    slots: Vec<Slot>,
    free: Option<usize>,
    /// Handles that the toolstack allows.
    pub(super) limit: usize,
}

impl Maptrack {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: None, limit: usize::MAX }
    }

    /// A handle for a mapping to be made. `None` when there are too many, or no memory for one more.
    pub(super) fn reserve(&mut self, is_control: bool) -> Option<GrantHandle> {
        let limit = self.limit.min(if is_control { CONTROL_HANDLES } else { HANDLES });
        let index = match self.free {
            Some(index) => {
                if let Slot::Free(next) = self.slots.get(index)? {
                    self.free = *next;
                }
                index
            }
            None if self.slots.len() < limit => {
                heap::reserve(&mut self.slots, 1).ok()?;
                self.slots.push(Slot::Reserved);
                self.slots.len() - 1
            }
            None => return None,
        };
        *self.slots.get_mut(index)? = Slot::Reserved;
        GrantHandle::try_from(index).ok()
    }

    /// Makes a reserved handle a mapping's.
    pub(super) fn fill(&mut self, handle: GrantHandle, mapping: Mapping) {
        if let Some(slot @ Slot::Reserved) = self.slots.get_mut(handle as usize) {
            *slot = Slot::Mapped(mapping);
        }
    }

    /// Gives a reserved handle back.
    pub(super) fn cancel(&mut self, handle: GrantHandle) {
        if let Some(slot @ Slot::Reserved) = self.slots.get_mut(handle as usize) {
            *slot = Slot::Free(self.free);
            self.free = Some(handle as usize);
        }
    }

    /// Takes a mapping out; its handle stays reserved, so that nobody else ends it too.
    pub(super) fn take(&mut self, handle: GrantHandle) -> Option<Mapping> {
        let slot = self.slots.get_mut(handle as usize)?;
        match core::mem::replace(slot, Slot::Reserved) {
            Slot::Mapped(mapping) => Some(mapping),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Whether the domain has `mfn` mapped by some grant.
    pub(super) fn maps(&self, mfn: Mfn) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Mapped(mapping) if mapping.mfn == mfn))
    }

    /// Whether a handle names a mapping.
    pub(super) fn has(&self, handle: GrantHandle) -> bool {
        matches!(self.slots.get(handle as usize), Some(Slot::Mapped(_)))
    }

    /// Takes any mapping out for good.
    pub(super) fn pop(&mut self) -> Option<Mapping> {
        loop {
            match self.slots.pop()? {
                Slot::Mapped(mapping) => return Some(mapping),
                Slot::Free(_) | Slot::Reserved => self.free = None,
            }
        }
    }
}
