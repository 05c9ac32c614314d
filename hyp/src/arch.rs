//! The machine, as the portable core sees it: `arch/aarch64.rs` at EL2, `arch/fake.rs` under `cargo test`.
//!
//! Both offer the same items; nothing outside this module is conditional on the target.

#[cfg(target_os = "none")]
mod aarch64;
#[cfg(target_os = "none")]
pub use aarch64::*;

#[cfg(not(target_os = "none"))]
mod fake;
#[cfg(not(target_os = "none"))]
pub use fake::*;

/// Why a guest virtual address could not be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationFault;

/// What a translation is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The guest must be allowed to read there.
    Read,
    /// The guest must be allowed to write there.
    Write,
}
