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

/// Declares a function that returns a static of the machine's: at EL2 there is one machine; on the host each thread,
/// and so each test, has one of its own.
#[cfg(target_os = "none")]
macro_rules! machine_static {
    ($(#[$meta:meta])* $visibility:vis $name:ident: $type:ty = $initial:expr) => {
        $(#[$meta])*
        #[inline]
        $visibility fn $name() -> &'static $type {
            static VALUE: $type = $initial;
            &VALUE
        }
    };
}
#[cfg(not(target_os = "none"))]
macro_rules! machine_static {
    ($(#[$meta:meta])* $visibility:vis $name:ident: $type:ty = $initial:expr) => {
        $(#[$meta])*
        $visibility fn $name() -> &'static $type {
            extern crate std;
            std::thread_local! {
                static VALUE: &'static $type = std::boxed::Box::leak(std::boxed::Box::new($initial));
            }
            VALUE.with(|value| *value)
        }
    };
}
pub(crate) use machine_static;

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
