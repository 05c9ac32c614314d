//! The guests' consoles: the daemon that serves them, and the terminal that one of them is shown on.
//!
//! ```text
//!   guest ── ring ──▶ Console ──▶ backlog ──▶ pseudo terminal ──▶ `xl console`
//!         event channel  └──────▶ Stamper ──▶ Log, turned over by size
//! ```
//! The daemon takes the place of Xen's `xenconsoled`: the same keys in XenStore (`console/port`, `tty`, `limit`, `type`), the
//! same page by the same grant, so either works with either `xl`.
#![forbid(unsafe_code)]

mod backlog;
mod client;
mod guest;
mod hypervisor_log;
mod log;
mod options;
mod pace;
mod pty;
mod ring;
mod serve;
mod server;
mod stamp;

use std::ffi::OsString;
use std::process::ExitCode;

pub use client::{Kind, attach};

use crate::daemon;

/// Runs `xenconsoled`; the program's exit status.
pub fn daemon_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    daemon::main(arguments, server::run)
}
