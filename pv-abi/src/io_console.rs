//! The console ring that a domain shares with its console daemon (public header `io/console.h`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes towards the domain.
pub const IN_SIZE: usize = 1024;
/// Bytes from the domain.
pub const OUT_SIZE: usize = 2048;

/// The page of the ring (`xencons_interface`). Indices run freely; the low bits are the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ConsoleInterface {
    /// Bytes that were typed.
    pub r#in: [u8; IN_SIZE],
    /// Bytes to be shown.
    pub out: [u8; OUT_SIZE],
    /// Typed: taken out by the domain.
    pub in_cons: u32,
    /// Typed: put in by the daemon.
    pub in_prod: u32,
    /// Shown: taken out by the daemon.
    pub out_cons: u32,
    /// Shown: put in by the domain.
    pub out_prod: u32,
}

zero_default!(ConsoleInterface);

/// The position in `r#in` of an index.
pub const fn mask_in_idx(index: u32) -> usize {
    index as usize & (IN_SIZE - 1)
}

/// The position in `out` of an index.
pub const fn mask_out_idx(index: u32) -> usize {
    index as usize & (OUT_SIZE - 1)
}
