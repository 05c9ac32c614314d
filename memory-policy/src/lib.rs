//! Which domain is to have how much memory: a pure function from what is known to new targets.
//!
//! ```text
//!   Host: free, unpromised ─┐
//!   Domain: settings,       ├─▶ decide(&mut State, now, …) ─▶ Outcome: for each domain a target, and the Explanation
//!     assigned, target,     │         │                        when to ask again, the balance of the host
//!     Demand ───────────────┘         └─ State: averages, speeds, who is stuck; may be lost at any time
//! ```
//! Nothing here does I/O or looks at a clock. The daemon and the simulator call the same function.
//!
//! # What holds whatever is put in
//! - *Budgets stay within RAM.* What all targets grow by in one decision is at most what is unpromised, less reserve and
//!   claims: a donor gives before a taker takes.
//! - *Nobody is below its minimum* by a decision; who is below by a change of its settings goes first.
//! - *No overflow, no panic*, for any input.
//! - The state only makes decisions better. With an empty one all of the above holds.

#![forbid(unsafe_code)]

pub mod admission;
mod decision;
mod fill;
mod known;
mod law;
mod motion;
mod settings;
pub mod sim;
mod state;
#[cfg(test)]
mod tests;
mod track;
mod units;

pub use decision::{Balance, Decision, Explanation, Limit, Outcome, Rule, Source};
pub use known::{Demand, Domain, Estimate, Host, Implausible, Report};
pub use law::decide;
pub use pv_abi::domid::DomId;
pub use settings::{Settings, SettingsError, Tuning};
pub use state::State;
pub use units::{Kib, Millis, Speed};
