//! A guest's pointer inside a structure, `XEN_GUEST_HANDLE`: a number until somebody translates it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A guest virtual address, as the guest gave it: unchecked, and meaningful only in the address space of the caller.
///
/// On Arm a handle in a structure is always eight bytes and aligned so (public header `arch-arm.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct GuestHandle(u64);

impl GuestHandle {
    /// The handle that callers pass to ask for sizes only.
    pub const NULL: Self = Self(0);

    /// A handle to the guest virtual address `address`.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The guest virtual address.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether the handle is null.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The handle `bytes` further on, or `None` where the address space ends.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(address) => Some(Self(address)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_do_not_wrap() {
        assert_eq!(GuestHandle::new(8).checked_add(8), Some(GuestHandle::new(16)));
        assert_eq!(GuestHandle::new(u64::MAX).checked_add(1), None);
        assert!(GuestHandle::default().is_null() && !GuestHandle::new(1).is_null());
    }
}
