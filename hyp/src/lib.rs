//! Nacelle's hypervisor core.
//!
//! Four rules shape it:
//! - *Running a guest is a function call*: [`vcpu`] state goes in, an exit reason comes out, one match handles it.
//! - *EL2 runs with interrupts masked*, to completion; long work polls for interrupts and asks the guest to repeat
//!   the call. So there are no interrupt handlers to race with, and a plain spin lock is enough everywhere.
//! - *Guest input is an allegation*: addresses, numbers and handles are checked where they are used.
//! - *Only [`arch`] knows the machine*: everything else runs under `cargo test` with `arch/fake.rs` in its place.
//!
//! # Lock order
//! Take them in this order only; most paths take one.
//! ```text
//! the making of a domain, or the toolstack's turn on one (`domain::life`), before all of these:
//! grant table (lower DomId first) → Domain::p2m (another's, by its device model or the control domain → their own) → frame allocator
//! event channels (lower DomId first) → Domain::vgic → run queue (lower CpuId first) → a domain's share of the CPUs
//! domain list, heap (→ frame allocator), console ring: leaves, any time
//! ```
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod arch;
pub mod bundle;
pub mod cmdline;
pub mod console;
pub mod cpu;
pub mod devicetree;
pub mod discovery;
pub mod dom0;
pub mod domain;
pub mod event;
pub mod grant;
pub mod hypercall;
pub mod image;
pub mod keys;
pub mod mm;
pub mod p2m;
pub mod privilege;
pub mod psci;
pub mod runstate;
pub mod sched;
pub mod speculation;
pub mod sync;
pub mod time;
pub mod timer;
pub mod vcpu;
pub mod vgic;
pub mod wallclock;
