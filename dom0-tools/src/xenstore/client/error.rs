//! Why a request failed.

use std::io;
use std::path::PathBuf;

use pv_abi::Errno;

use crate::xenstore::wire::{MessageType, TooLong};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("cannot reach XenStore at {}: {error} (is xenstored running?)", .path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The connection broke.
    #[error("the connection to XenStore broke: {0} (did xenstored stop?)")]
    Connection(#[from] io::Error),
    /// XenStore refused.
    #[error("XenStore refuses to {what}{}{path}: {}", if path.is_empty() { "" } else { " " }, errno.name())]
    Refused {
        /// The operation.
        what: &'static str,
        /// The node, if it is about one.
        path: String,
        /// Its answer.
        errno: Errno,
    },
    /// XenStore answered what the protocol does not allow.
    #[error("XenStore's answer to {what} makes no sense: {why}")]
    Nonsense {
        /// The operation.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl Error {
    /// Whether this is XenStore's answer `errno`.
    pub fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Refused { errno: found, .. } if *found == errno)
    }
}

impl From<TooLong> for Error {
    fn from(error: TooLong) -> Self {
        Self::Nonsense { what: "a request", why: error.to_string() }
    }
}

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation, for an error message.
pub(super) fn what(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Control => "obey the control command",
        MessageType::Directory | MessageType::DirectoryPart => "list",
        MessageType::Read => "read",
        MessageType::GetPerms => "get the permissions of",
        MessageType::Watch => "watch",
        MessageType::Unwatch => "end the watch of",
        MessageType::TransactionStart => "start a transaction",
        MessageType::TransactionEnd => "end a transaction",
        MessageType::Introduce => "introduce a domain",
        MessageType::Release => "release a domain",
        MessageType::GetDomainPath => "tell a domain's path",
        MessageType::Write => "write",
        MessageType::Mkdir => "make",
        MessageType::Rm => "remove",
        MessageType::SetPerms => "set the permissions of",
        MessageType::IsDomainIntroduced => "tell whether it knows a domain",
        MessageType::Resume => "resume a domain",
        MessageType::SetTarget => "set a domain's target",
        MessageType::ResetWatches => "end all watches",
        MessageType::WatchEvent | MessageType::Error => "do anything",
    }
}
