//! Making, rebooting and taking away domains.
//!
//! ```text
//!   create ──▶ images ── files, before anything happens
//!     │        intent ── says that a domain of this UUID is being made, and by whom
//!     │        build ─── the hypervisor: domain, memory, kernel      (layout, tree, guest_memory)
//!     │        store ─── XenStore, and the files that tools keep
//!     ▼
//!   supervisor: waits for its end, and does what the configuration says
//! ```
//! | module | idea |
//! | --- | --- |
//! | [`image`] | what a domain can start: kernels and unikernels as files |
//! | [`layout`] | where everything is in its memory |
//! | [`tree`] | the device tree it starts with |
//! | [`build`] | making it, as far as the hypervisor is concerned |
//! | [`hypervisor`] | what that asks of the hypervisor |
//! | [`store`] | its nodes in XenStore |
//! | [`minimums`] | what all domains always have, which the host must hold |
//! | [`supervisor`] | what happens when it ends |
#![forbid(unsafe_code)]

pub mod build;
mod create;
mod destroy;
mod guest_memory;
pub mod hypervisor;
pub mod image;
mod intent;
pub mod layout;
pub mod minimums;
pub mod store;
pub mod supervisor;
pub mod tree;

use std::io;

use pv_abi::domid::DomId;

use crate::uuid::Uuid;
use crate::{privcmd, xenstore};

pub use create::{Options, create};
pub use destroy::{clean_up, destroy};

/// A step that may take long, for who wants to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Memory is given to the domain; bytes.
    Memory {
        /// So far.
        done: u64,
        /// In the end.
        total: u64,
    },
    /// Kernel and initramfs are copied; bytes.
    Load {
        /// So far.
        done: u64,
        /// In the end.
        total: u64,
    },
}

/// Hears of every step.
pub type Progress<'a> = dyn FnMut(Step) + 'a;

/// Why a domain could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its kernel or initramfs.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// They do not fit into its memory.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// The hypervisor refused.
    #[error("cannot {step}: {error}")]
    Hypervisor {
        /// What was to be done.
        step: &'static str,
        /// Its answer.
        error: privcmd::Error,
    },
    /// XenStore refused, or is not there.
    #[error(transparent)]
    Store(#[from] xenstore::Error),
    /// A file of the tools.
    #[error("cannot {what}: {error}")]
    File {
        /// What was to be done.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// Another domain has the name.
    #[error("a domain of the name '{name}' is there already, number {}", .domain.raw())]
    NameInUse {
        /// The name.
        name: String,
        /// Who has it.
        domain: DomId,
    },
    /// A domain of that name is being made.
    #[error("a domain of the name '{0}' is being made by another command right now")]
    NameTaken(String),
    /// Another domain has the UUID.
    #[error("a domain of the UUID {uuid} is there already, number {}", .domain.raw())]
    UuidInUse {
        /// The UUID.
        uuid: Uuid,
        /// Who has it.
        domain: DomId,
    },
    /// Another process works on it.
    #[error("another command makes or destroys the domain of the UUID {0} right now")]
    Busy(Uuid),
    /// No pool of that name.
    #[error("there is no CPU pool '{0}'")]
    NoPool(String),
    /// What a configuration can say, but this builder cannot do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// There is no such domain.
    #[error("there is no domain {}", .0.raw())]
    NoDomain(DomId),
    /// There is not enough memory.
    #[error("not enough memory: the domain needs {needed} MiB, {free} MiB are free{hint}")]
    NoMemory {
        /// MiB that are needed.
        needed: u64,
        /// MiB that are free.
        free: u64,
        /// Who could give some.
        hint: String,
    },
    /// The others' minimums leave too little for its own.
    #[error("not enough memory: {0}")]
    Minimums(#[from] minimums::TooMuch),
    /// Somebody else took it away.
    #[error("somebody destroyed the domain while it was made")]
    Vanished,
}

impl From<minimums::Refusal> for Error {
    fn from(refusal: minimums::Refusal) -> Self {
        match refusal {
            minimums::Refusal::TooMuch(too_much) => too_much.into(),
            minimums::Refusal::Store(error) => error.into(),
        }
    }
}
