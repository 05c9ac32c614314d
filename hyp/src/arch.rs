//! The machine, as the portable core sees it: `arch/aarch64.rs` at EL2, `arch/fake.rs` under `cargo test`.
//!
//! Both offer the same items; nothing outside this module is conditional on the target.

#[cfg(target_os = "none")]
#[path = "arch/aarch64.rs"]
mod imp;

#[cfg(not(target_os = "none"))]
#[path = "arch/fake.rs"]
mod imp;

pub use imp::*;

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
