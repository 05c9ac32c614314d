//! Domain identifiers, `domid_t`, and the reserved ones (public header `xen.h`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A domain identifier: below [`DOMID_FIRST_RESERVED`] a domain, from there on one of the named roles or nothing.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(transparent)]
pub struct DomId(u16);

/// The first identifier that is not a domain's.
pub const DOMID_FIRST_RESERVED: DomId = DomId(0x7FF0);
/// The calling domain.
pub const DOMID_SELF: DomId = DomId(0x7FF0);
/// The owner of memory-mapped devices.
pub const DOMID_IO: DomId = DomId(0x7FF1);
/// The owner of the hypervisor's pages that are shared with guests.
pub const DOMID_XEN: DomId = DomId(0x7FF2);
/// The owner of copy-on-write pages.
pub const DOMID_COW: DomId = DomId(0x7FF3);
/// No domain at all.
pub const DOMID_INVALID: DomId = DomId(0x7FF4);
/// The idle domain.
pub const DOMID_IDLE: DomId = DomId(0x7FFF);
/// The bits of an identifier that name a domain.
pub const DOMID_MASK: u16 = 0x7FFF;

impl DomId {
    /// The first domain, the one that the hypervisor builds.
    pub const DOM0: Self = Self(0);

    /// The identifier with the number `raw`.
    pub const fn new(raw: u16) -> Self {
        Self(raw)
    }

    /// The number of the ABI.
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// Whether this can be a domain's own identifier, rather than a reserved role or out of range.
    pub const fn is_domain(self) -> bool {
        self.0 < DOMID_FIRST_RESERVED.0
    }
}

impl core::fmt::Display for DomId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            DOMID_SELF => f.write_str("d[SELF]"),
            DOMID_IO => f.write_str("d[IO]"),
            DOMID_XEN => f.write_str("d[XEN]"),
            DOMID_COW => f.write_str("d[COW]"),
            DOMID_IDLE => f.write_str("d[IDLE]"),
            Self(raw) => write!(f, "d{raw}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_low_numbers_are_domains() {
        assert!(DomId::DOM0.is_domain() && DomId::new(0x7FEF).is_domain());
        for reserved in [DOMID_SELF, DOMID_IO, DOMID_IDLE, DomId::new(0x8000), DomId::new(0xFFFF)] {
            assert!(!reserved.is_domain(), "{reserved}");
        }
    }

    #[test]
    fn prints_as_xen_does() {
        assert_eq!(format!("{} {} {}", DomId::new(7), DOMID_SELF, DOMID_IDLE), "d7 d[SELF] d[IDLE]");
    }
}
