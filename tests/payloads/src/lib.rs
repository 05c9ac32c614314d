//! Bare-metal EL1 guests: what they share.
//!
//! A payload is an arm64 `Image` that any hypervisor speaking Xen's ABI can start as a domain. It needs no firmware,
//! no disk and no console device: it prints by hypercall and ends with `payload: N passed, N failed`.
//!
//! ```text
//! Image header -> boot (relocate, MMU on) -> machine (read the device tree) -> payload_main of the binary
//!                                                                                  | print!, expect_eq!
//!                                                 vectors -> exceptions            v
//!                                                            (irq handler)     report::finish: totals, power off
//! ```
//!
//! The modules that touch the processor exist only in builds for the bare-metal target; the others are plain Rust and
//! are tested on the host.
#![cfg_attr(target_os = "none", no_std)]

#[cfg(target_os = "none")]
pub mod ballooning;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod console;
pub mod curve;
#[cfg(target_os = "none")]
pub mod exceptions;
#[cfg(target_os = "none")]
pub mod gic;
#[cfg(target_os = "none")]
pub mod hypercall;
#[cfg(target_os = "none")]
pub mod io;
pub mod machine;
#[cfg(target_os = "none")]
pub mod paging;
#[cfg(target_os = "none")]
pub mod psci;
pub mod random;
#[cfg(target_os = "none")]
pub mod report;
#[cfg(target_os = "none")]
pub mod timer;
pub mod xen;
