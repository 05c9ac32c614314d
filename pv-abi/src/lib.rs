//! The hypercall ABI of Xen 4.17 on arm64: numbers, structures and errors, and nothing that acts on them.
//!
//! One module per public header, named after it; structures drop the C noise (`xen_`, `_t`) and keep the header's field
//! names. The hypervisor, its guests and the dom0 tools share these definitions. `tests/headers.rs` compiles the real
//! headers (Debian's `libxen-dev`) and compares every size, offset and number with what is written here.
//!
//! Conventions:
//! - A structure is plain bytes: `repr(C)`, padding spelled out, so that it converts from and to guest memory without
//!   `unsafe` ([`zerocopy`]). Any bit pattern is a valid structure; meaning is checked by who uses it.
//! - An operation number is an `enum` with `TryFrom<u32>`; a number the header does not name is an [`UnknownValue`].
//! - A C union is a block of words with typed `get` and `set`.
//! - A guest address in a structure is a [`GuestHandle`]; a domain is a [`DomId`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[macro_use]
mod macros;

pub mod arch_arm;
pub mod domctl;
pub mod domid;
pub mod errno;
pub mod event_channel;
pub mod features;
pub mod grant_table;
pub mod handle;
pub mod hvm;
pub mod hypercall;
pub mod io_console;
pub mod memory;
pub mod nacelle;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod sysctl;
pub mod vcpu;
pub mod version;
pub mod vm_assist;
pub mod xen;
pub mod xs_wire;

pub use domid::DomId;
pub use errno::Errno;
pub use handle::GuestHandle;
pub use hypercall::Hypercall;
pub use macros::UnknownValue;
