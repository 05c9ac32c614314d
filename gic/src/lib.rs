//! The interrupt controller: the physical GICv2 or GICv3 that Nacelle owns, and the virtual one each domain sees.
//!
//! ```text
//!  physical line ─▶ phys::PhysGic ─▶ hyp: whose is it? ─▶ VGic::inject_current ─┐
//!  event channel, timer, SGI ───────────────────────────▶ VGic::pulse/set_level ─┤
//!                                                                                ▼
//!                        guest acks, EOIs (no exit) ◀── list registers ◀── VGic::flush
//! ```
//!
//! [`VGic`] is a pure state machine: one per domain, all of its state inside it, guarded by one lock that the caller
//! holds. It reaches the machine only through two traits: [`ListRegisters`], the virtual CPU interface of the CPU
//! that executes the call, and [`Host`], the physical distributor for interrupts backed by hardware. [`phys`]
//! implements the former and owns every `unsafe` of this crate.
//!
//! References: IHI 0048B (GICv2), IHI 0069H (GICv3/v4), DDI 0487 (Armv8-A).
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod intid;
pub mod kicks;
pub mod lr;
pub mod ports;
pub mod vgic;

#[cfg(target_os = "none")]
pub mod phys;

pub use intid::IntId;
pub use kicks::{Kicks, VcpuIndex};
pub use lr::{Lr, LrState};
pub use ports::{CpuInterfaceState, Host, ListRegisters, NoHost, Trigger};
pub use vgic::{ConfigError, Frame, SgiRegister, VGic, VGicConfig, Version};
