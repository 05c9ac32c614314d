//! Dynamic memory: the daemon `xenmemd`, what users set for it and what they see of it.
//!
//! ```text
//!   guests ── data/memory ──▶ XenStore ──▶ server ──▶ core ──▶ memory-policy
//!   xl create ── socket: a claim ──────────▶ │ ◀────── actions: targets, ceilings ──▶ hypervisor, XenStore
//!   xl memory, xl top ── socket ◀─ view ─────┘
//! ```
//! | module | idea |
//! | --- | --- |
//! | [`settings`] | what users set |
//! | [`report`] | what guests say, which is not believed before it is checked |
//! | [`speeds`] | how fast guests are, kept over a restart |
//! | [`member`] | one domain as the daemon knows it |
//! | [`claims`] | memory for domains that are to be made |
//! | [`core`] | the daemon without its hands |
//! | [`view`] | what it tells |
//! | [`counters`] | the same for people and Prometheus |
//! | [`protocol`] | its socket |
//! | [`record`] | a run as it is recorded |
//! | `server` | its loop, and what it does to the host |
#![forbid(unsafe_code)]

pub mod claims;
pub mod core;
pub mod counters;
pub mod member;
pub mod options;
pub mod plot;
pub mod protocol;
pub mod record;
pub mod report;
mod server;
pub mod settings;
pub mod speeds;
pub mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::daemon;

/// The program `xenmemd`: its arguments, its status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    daemon::main(arguments, server::run)
}
