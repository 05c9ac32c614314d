//! Messages, as bytes: a header ([`SockMsg`]), and a payload that is mostly strings with a zero byte after each.

use pv_abi::Errno;
use zerocopy::{FromBytes, IntoBytes};

pub use pv_abi::xs_wire::{MessageType, SockMsg, XENSTORE_PAYLOAD_MAX, XSD_ERRORS};

/// Bytes of a header.
pub const HEADER: usize = size_of::<SockMsg>();

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub header: SockMsg,
    /// `header.len` bytes.
    pub payload: Vec<u8>,
}

/// A header that announces more payload than the protocol allows. What follows cannot be understood any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes, more than the {XENSTORE_PAYLOAD_MAX} of XenStore's protocol")]
pub struct TooLong(pub u32);

/// Puts messages together from bytes that come in pieces.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    header: [u8; HEADER],
    /// Bytes of the header that are here.
    filled: usize,
    message: Message,
}

impl Assembler {
    /// How many bytes the message at hand still needs at least.
    pub fn wants(&self) -> usize {
        if self.filled < HEADER {
            HEADER - self.filled
        } else {
            self.message.header.len as usize - self.message.payload.len()
        }
    }

    /// Whether nothing of a message is here.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Bytes of the message at hand, as far as they are known: those of a header at least.
    pub fn total(&self) -> usize {
        if self.filled < HEADER { HEADER } else { HEADER + self.message.header.len as usize }
    }

    /// What is here of the message at hand.
    pub fn partial(&self) -> Vec<u8> {
        [&self.header[..self.filled], &self.message.payload].concat()
    }

    /// Takes bytes off the front of `bytes`, up to the end of a message, and gives that out. `None`: all bytes were
    /// taken, and more are needed.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn feed(&mut self, bytes: &mut &[u8]) -> Result<Option<Message>, TooLong> {
        if self.filled < HEADER {
            let (now, later) = bytes.split_at(bytes.len().min(HEADER - self.filled));
            self.header[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            *bytes = later;
            if self.filled < HEADER {
                return Ok(None);
            }
            let header = SockMsg::read_from_bytes(&self.header).unwrap_or_default();
            if header.len as usize > XENSTORE_PAYLOAD_MAX {
                self.filled = 0;
                return Err(TooLong(header.len));
            }
            self.message = Message { header, payload: Vec::with_capacity(header.len as usize) };
        }
        let (now, later) = bytes.split_at(bytes.len().min(self.wants()));
        self.message.payload.extend_from_slice(now);
        *bytes = later;
        if self.wants() > 0 {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(std::mem::take(&mut self.message)))
    }
}

/// Appends a message to `to`, its payload being `parts`, one after the other.
///
/// # Panics
/// If the payload does not fit in 32 bits of length.
pub fn append(to: &mut Vec<u8>, header: SockMsg, parts: &[&[u8]]) {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let header = SockMsg { len: u32::try_from(len).expect("a message below 4 GiB"), ..header };
    to.reserve(HEADER + len);
    to.extend_from_slice(header.as_bytes());
    for part in parts {
        to.extend_from_slice(part);
    }
}

/// The strings of a payload, without the zero bytes after them. What follows the last zero byte is not one of them.
pub fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = payload.iter().rposition(|&byte| byte == 0).unwrap_or(0);
    payload[..end].split(|&byte| byte == 0).take(if payload.contains(&0) { usize::MAX } else { 0 })
}

/// The error that an answer of type [`MessageType::Error`] names; what it does not know is `EINVAL`, as for libxenstore.
pub fn error(payload: &[u8]) -> Errno {
    let name = payload.strip_suffix(&[0]).unwrap_or(payload);
    XSD_ERRORS.into_iter().find(|errno| errno.name().as_bytes() == name).unwrap_or(Errno::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u32, payload: &[u8]) -> Message {
        let len = payload.len() as u32;
        Message { header: SockMsg { r#type: kind, req_id: 7, tx_id: 9, len }, payload: payload.to_vec() }
    }

    #[test]
    fn strings_end_with_a_zero_byte() {
        let all = |payload: &'static [u8]| strings(payload).collect::<Vec<_>>();
        assert!(all(b"").is_empty() && all(b"abc").is_empty());
        assert_eq!(all(b"a\0bc\0"), [&b"a"[..], b"bc"]);
        assert_eq!(all(b"\0"), [&b""[..]]);
        assert_eq!(all(b"a\0\0rest"), [&b"a"[..], b""]);
    }

    #[test]
    fn errors_are_names() {
        for errno in XSD_ERRORS {
            assert_eq!(error(format!("{}\0", errno.name()).as_bytes()), errno);
        }
        assert_eq!(error(b"EWHAT\0"), Errno::EINVAL);
    }

    #[test]
    fn too_long_a_message_is_an_error() {
        let header = SockMsg { len: XENSTORE_PAYLOAD_MAX as u32 + 1, ..SockMsg::default() };
        assert_eq!(Assembler::default().feed(&mut header.as_bytes()), Err(TooLong(header.len)));
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8),
            cuts in prop::collection::vec(1usize..40, 1..64),
        ) {
            let messages: Vec<_> = payloads.iter().map(|payload| message(11, payload)).collect();
            let mut bytes = Vec::new();
            for message in &messages {
                let (head, tail) = message.payload.split_at(message.payload.len() / 2);
                append(&mut bytes, message.header, &[head, tail]);
            }
            let (mut assembler, mut found, mut rest) = (Assembler::default(), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (mut now, later) = rest.split_at(rest.len().min(*cut));
                while let Some(message) = assembler.feed(&mut now).unwrap() {
                    found.push(message);
                }
                prop_assert!(now.is_empty());
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(assembler.is_empty());
            prop_assert_eq!(found, messages);
        }
    }
}
