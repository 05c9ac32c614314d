//! What a guest says of its memory, for the balancer in dom0: the report, and when to send one.
//!
//! ```text
//!   /proc/meminfo, /proc/pressure ──▶ Usage, Pressure ──▶ Pace: tell now? ──▶ Report ──▶ data/memory in XenStore
//!   (Linux; others count themselves)                                                      └▶ dom0's balancer watches it
//! ```
//! The crate needs no `std`: a unikernel makes a [`Report`] of its own counts and writes its text to [`NODE`], for instance
//! by `balloon::store::write`. On Linux the program `xen-memory-agent` does it all; its parts are behind the feature `linux`.
//!
//! Nothing here trusts or is trusted: dom0 takes a report for a guest's word, and a guest loses nothing by not sending any.

#![cfg_attr(not(any(test, feature = "linux")), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "linux")]
pub mod linux;
mod pace;
mod parse;
mod report;
pub mod store;

pub use pace::{Pace, QUICK, SECOND};
pub use report::{LONGEST, NODE, Pressure, Report, Text, Usage, VERSION};
