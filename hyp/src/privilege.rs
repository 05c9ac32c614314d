//! Who may do what to whom. Every hypercall that is about more than the caller's own asks here, and nowhere else.
//!
//! ```text
//!             to itself   to its target   to others       target: the domain whose device model it runs
//!   Own          yes           yes           no           (XEN_DOMCTL_set_target)
//!   Model        no            yes           no
//!   Control      no            no            no
//!   Store        no            no            no, but if it runs XenStore
//!   … and the control domain: yes, to all
//! ```
//! What needs no right is not here: a domain's calls about itself alone, and grants and event channels, where the other
//! side's own entry or port says who may use it. `docs/threat-model.md` has the table; a test compares.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use alloc::sync::Arc;

use pv_abi::domid::{DOMID_SELF, DomId};
use pv_abi::errno::Errno;

use crate::domain::{self, Domain};
use crate::hypercall::Caller;

/// To whom a domain that is not the control domain may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To itself and to its target.
    Own,
    /// To its target.
    Model,
    /// To nobody.
    Control,
    /// To everybody, if it runs XenStore; otherwise to nobody.
    Store,
}

macro_rules! actions {
    ($($name:ident: $right:ident, $text:literal;)*) => {
        /// What is done, as far as rights differ.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Action {
            $(#[doc = $text] $name,)*
        }

        impl Action {
            /// All there are, each with its words in the threat model's table.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, $text),)*];

            /// Who may.
            pub const fn right(self) -> Right {
                match self {
                    $(Self::$name => Right::$right,)*
                }
            }
        }
    };
}

// As Xen's default policy has it (xen/include/xsm/dummy.h of 4.17).
actions! {
    UseConsole: Control, "`console_io`: the machine's console";
    UseMachine: Control, "`platform_op`: the machine's clock";
    ReadBuild: Control, "`xen_version`: builder, command line, build-id";
    Sysctl: Control, "`sysctl`: all";
    Domctl: Control, "`domctl`: all but getdomaininfo";
    Describe: Store, "`domctl`: getdomaininfo, which the domain that runs XenStore may, too";
    Claim: Control, "`memory_op`: claim_pages, set_pod_target, working set";
    SizeMemory: Own, "`memory_op`: increase, decrease, populate, exchange";
    AskMemory: Own, "`memory_op`: current, maximum, maximum_gpfn, get_pod_target, vnumainfo";
    ChangePhysmap: Own, "`memory_op`: add_to_physmap, its batch, remove_from_physmap";
    MapForeign: Own, "`memory_op`: pages of that domain for gmfn_foreign, by who gets them";
    AcquireResource: Model, "`memory_op`: acquire_resource";
    WatchMemory: Model, "`memory_op`: access_op";
    AskGrants: Own, "`grant_table_op`: setup_table, query_size, get_version, get_status_frames";
    ChangePorts: Own, "`event_channel_op`: alloc_unbound, reset";
    AskPorts: Own, "`event_channel_op`: status";
    ReadParameter: Own, "`hvm_op`: get_param";
    SetParameter: Model, "`hvm_op`: set_param";
    RemoteShutdown: Model, "`sched_op`: remote_shutdown";
}

/// Whether a domain may do what concerns the machine, or any domain at all. `EPERM`.
pub fn may(caller: &Domain, action: Action) -> Result<(), Errno> {
    let allowed = caller.is_control || action.right() == Right::Store && caller.is_store;
    if allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// Whether a domain may do that to another, or to itself. `EPERM`.
pub fn may_to(caller: &Domain, action: Action, subject: &Domain) -> Result<(), Errno> {
    let is_itself = core::ptr::eq(caller, subject);
    let allowed = caller.is_control
        || match action.right() {
            Right::Own => is_itself || caller.is_model_of(subject),
            Right::Model => !is_itself && caller.is_model_of(subject),
            Right::Control => false,
            Right::Store => caller.is_store,
        };
    if allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// The domain that a call names, if the caller may do that to it. `ESRCH`: there is none of that number. `EPERM`.
pub fn subject(caller: &Caller<'_>, action: Action, id: DomId) -> Result<Arc<Domain>, Errno> {
    let own = caller.domain;
    let subject =
        if id == DOMID_SELF || id == own.id { own.clone() } else { domain::find(id).ok_or(Errno::ESRCH)? };
    may_to(own, action, &subject)?;
    Ok(subject)
}

/// The same for what is never done to oneself: `EPERM` for the caller's own number too.
pub fn other_subject(caller: &Caller<'_>, action: Action, id: DomId) -> Result<Arc<Domain>, Errno> {
    let other = domain::find(id).ok_or(Errno::ESRCH)?;
    if Arc::ptr_eq(&other, caller.domain) {
        return Err(Errno::EPERM);
    }
    may_to(caller.domain, action, &other)?;
    Ok(other)
}
