//! XenStore's wire protocol (public header `io/xs_wire.h`): messages, and the ring that a domain shares with the store.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

number_enum! {
    /// What a message asks or says ([`SockMsg::type`](SockMsg)).
    pub enum MessageType {
        /// Talk to the daemon itself.
        Control = 0,
        /// Names of a node's children.
        Directory = 1,
        /// A node's value.
        Read = 2,
        /// A node's permissions.
        GetPerms = 3,
        /// Tell about changes.
        Watch = 4,
        /// Stop telling.
        Unwatch = 5,
        /// Begin a transaction.
        TransactionStart = 6,
        /// Commit or drop it.
        TransactionEnd = 7,
        /// A domain's ring is there.
        Introduce = 8,
        /// A domain is gone.
        Release = 9,
        /// The home of a domain.
        GetDomainPath = 10,
        /// Set a node's value.
        Write = 11,
        /// Make a node.
        Mkdir = 12,
        /// Remove a node and all below.
        Rm = 13,
        /// Set a node's permissions.
        SetPerms = 14,
        /// From the store: something changed.
        WatchEvent = 15,
        /// From the store: the request failed; the payload names the error.
        Error = 16,
        /// Whether a domain's ring is there.
        IsDomainIntroduced = 17,
        /// A domain runs on after a suspend.
        Resume = 18,
        /// A domain may act for another.
        SetTarget = 19,
        /// Drop all of the caller's watches and transactions.
        ResetWatches = 21,
        /// A part of the names of a node's children.
        DirectoryPart = 22,
    }
}

/// One more than the last message type.
pub const XS_TYPE_COUNT: u32 = 23;
/// Never a message type.
pub const XS_INVALID: u32 = 0xffff;

/// What each message begins with (`xsd_sockmsg`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SockMsg {
    /// A [`MessageType`].
    pub r#type: u32,
    /// Chosen by the client, given back in the answer.
    pub req_id: u32,
    /// The transaction, or 0.
    pub tx_id: u32,
    /// Bytes of payload that follow.
    pub len: u32,
}

/// Where the names of errors come from: what [`MessageType::Error`] can carry, by errno.
pub const XSD_ERRORS: [crate::Errno; 16] = {
    use crate::Errno::*;
    [
        EINVAL, EACCES, EEXIST, EISDIR, ENOENT, ENOMEM, ENOSPC, EIO, ENOTEMPTY, ENOSYS, EROFS, EBUSY, EAGAIN,
        EISCONN, E2BIG, EPERM,
    ]
};

/// Which field of a watch event's payload holds the path.
pub const XS_WATCH_PATH: usize = 0;
/// Which field of a watch event's payload holds the token.
pub const XS_WATCH_TOKEN: usize = 1;

/// Bytes of each direction of the ring.
pub const XENSTORE_RING_SIZE: usize = 1024;
/// Bytes of payload at most.
pub const XENSTORE_PAYLOAD_MAX: usize = 4096;
/// Bytes of an absolute path at most.
pub const XENSTORE_ABS_PATH_MAX: usize = 3072;
/// Bytes of a relative path at most.
pub const XENSTORE_REL_PATH_MAX: usize = 2048;

/// The page of the ring (`xenstore_domain_interface`). Indices run freely; the low bits are the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct DomainInterface {
    /// Requests to the store.
    pub req: [u8; XENSTORE_RING_SIZE],
    /// Answers and watch events from the store.
    pub rsp: [u8; XENSTORE_RING_SIZE],
    /// Requests: taken out by the store.
    pub req_cons: u32,
    /// Requests: put in by the domain.
    pub req_prod: u32,
    /// Answers: taken out by the domain.
    pub rsp_cons: u32,
    /// Answers: put in by the store.
    pub rsp_prod: u32,
    /// `XENSTORE_SERVER_FEATURE_*`.
    pub server_features: u32,
    /// [`XENSTORE_CONNECTED`] or [`XENSTORE_RECONNECT`].
    pub connection: u32,
    /// `XENSTORE_ERROR_*`.
    pub error: u32,
}

zero_default!(DomainInterface);

/// The position in the ring of an index.
pub const fn mask_xenstore_idx(index: u32) -> usize {
    index as usize & (XENSTORE_RING_SIZE - 1)
}

/// The store understands [`XENSTORE_RECONNECT`].
pub const XENSTORE_SERVER_FEATURE_RECONNECTION: u32 = 1;
/// The store fills [`DomainInterface::error`].
pub const XENSTORE_SERVER_FEATURE_ERROR: u32 = 2;
/// The ring is in use.
pub const XENSTORE_CONNECTED: u32 = 0;
/// The domain wants the ring emptied.
pub const XENSTORE_RECONNECT: u32 = 1;
/// All is well.
pub const XENSTORE_ERROR_NONE: u32 = 0;
/// Communication failed.
pub const XENSTORE_ERROR_COMM: u32 = 1;
/// An index made no sense.
pub const XENSTORE_ERROR_RINGIDX: u32 = 2;
/// A message made no sense.
pub const XENSTORE_ERROR_PROTO: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_index_has_a_position(index: u32) {
            prop_assert!(mask_xenstore_idx(index) < XENSTORE_RING_SIZE);
            prop_assert_eq!(mask_xenstore_idx(index.wrapping_add(1024)), mask_xenstore_idx(index));
        }

        #[test]
        fn any_sixteen_bytes_are_a_header(bytes: [u8; 16]) {
            let header = SockMsg::read_from_bytes(&bytes).ok();
            prop_assert_eq!(header.map(|header| header.as_bytes().to_vec()), Some(bytes.to_vec()));
        }
    }
}
