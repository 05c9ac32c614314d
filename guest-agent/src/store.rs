//! As much of XenStore's protocol (`xen/include/public/io/xs_wire.h`) as an agent needs: a request to write, and its answer.

use arrayvec::ArrayVec;
use pv_abi::xs_wire::MessageType;

/// Bytes of a header: type, request, transaction, length; each of four, in the machine's order.
const HEADER: usize = 16;
/// The longest request: a header, a path with its end, a report.
const LONGEST: usize = HEADER + 128 + crate::LONGEST;
/// Of an answer so much is kept: the names of errors are short.
const KEPT: usize = 32;
/// The most bytes of payload that an answer has (`XENSTORE_PAYLOAD_MAX`).
const LONGEST_ANSWER: u32 = 4096;

/// A request's bytes.
pub type Request = ArrayVec<u8, LONGEST>;

/// The request to write `value` to the node `path`. `None`: they are too long.
pub fn write_request(number: u32, path: &str, value: &str) -> Option<Request> {
    let length = u32::try_from(path.len() + 1 + value.len()).ok()?;
    let mut request = Request::new();
    for word in [MessageType::Write.raw(), number, 0, length] {
        request.try_extend_from_slice(&word.to_ne_bytes()).ok()?;
    }
    for part in [path.as_bytes(), b"\0", value.as_bytes()] {
        request.try_extend_from_slice(part).ok()?;
    }
    Some(request)
}

/// What XenStore answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It is not: the error's name, as `EACCES`.
    Refused(arrayvec::ArrayString<KEPT>),
}

/// XenStore says what no answer can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonsense;

/// Puts an answer together that arrives in pieces.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    header: ArrayVec<u8, HEADER>,
    kept: ArrayVec<u8, KEPT>,
    /// Bytes of the payload that arrived.
    arrived: u32,
}

impl Assembler {
    /// Takes bytes; the answer to the request of that number when it is complete. Answers to other requests, and events,
    /// are passed over.
    ///
    /// # Errors
    /// [`Nonsense`]: nothing that comes afterwards can be understood.
    pub fn feed(&mut self, bytes: &[u8], number: u32) -> Result<Option<Answer>, Nonsense> {
        let mut answer = None;
        for &byte in bytes {
            if self.header.try_push(byte).is_err() {
                self.arrived += 1;
                let _ = self.kept.try_push(byte);
            }
            if !self.header.is_full() {
                continue;
            }
            let length = self.word(12);
            if length > LONGEST_ANSWER {
                return Err(Nonsense);
            }
            if self.arrived == length {
                if self.word(4) == number {
                    answer = self.answer().or(answer);
                }
                *self = Self::default();
            }
        }
        Ok(answer)
    }

    fn word(&self, at: usize) -> u32 {
        self.header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
    }

    /// What the complete message says; nothing if it is no answer.
    fn answer(&self) -> Option<Answer> {
        let kind = self.word(0);
        if kind == MessageType::Error.raw() {
            let name = core::str::from_utf8(&self.kept).unwrap_or("?").trim_end_matches('\0');
            return Some(Answer::Refused(arrayvec::ArrayString::from(name).unwrap_or_default()));
        }
        (kind == MessageType::Write.raw()).then_some(Answer::Done)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: MessageType, number: u32, payload: &[u8]) -> Vec<u8> {
        let words = [kind.raw(), number, 0, payload.len() as u32];
        words.into_iter().flat_map(u32::to_ne_bytes).chain(payload.iter().copied()).collect()
    }

    #[test]
    fn a_request_is_a_header_a_path_and_a_value() {
        let request = write_request(9, "data/memory", "version=1").unwrap();
        assert_eq!(request[..], message(MessageType::Write, 9, b"data/memory\0version=1"));
        assert!(write_request(1, &"x".repeat(127), &"y".repeat(crate::LONGEST)).is_some());
        assert!(write_request(1, &"x".repeat(128), &"y".repeat(crate::LONGEST)).is_none());
    }

    #[test]
    fn answers_are_told_from_other_messages() {
        let mut input = Assembler::default();
        let mut all = message(MessageType::WatchEvent, 0, b"a\0b\0");
        all.extend(message(MessageType::Write, 6, b"OK\0"));
        all.extend(message(MessageType::Write, 7, b"OK\0"));
        assert_eq!(input.feed(&all, 7), Ok(Some(Answer::Done)));
        let refused = Answer::Refused(arrayvec::ArrayString::from("EACCES").unwrap());
        assert_eq!(input.feed(&message(MessageType::Error, 8, b"EACCES\0"), 8), Ok(Some(refused)));
        assert_eq!(input.feed(&message(MessageType::Write, 9, b""), 9), Ok(Some(Answer::Done)));
    }

    #[test]
    fn a_length_beyond_the_protocol_is_nonsense() {
        let mut bytes = message(MessageType::Write, 1, b"");
        bytes[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(Assembler::default().feed(&bytes, 1), Err(Nonsense));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_make_the_answer(length in 0usize..4096, cuts in prop::collection::vec(1usize..700, 1..40)) {
            let mut bytes = message(MessageType::WatchEvent, 3, &vec![b'x'; length]);
            bytes.extend(message(MessageType::Error, 3, b"EQUOTA\0"));
            let (mut input, mut answers, mut cuts) = (Assembler::default(), Vec::new(), cuts.into_iter().cycle());
            while !bytes.is_empty() {
                let size = cuts.next().unwrap().min(bytes.len());
                answers.extend(input.feed(&bytes[..size], 3).unwrap());
                bytes.drain(..size);
            }
            prop_assert_eq!(answers, [Answer::Refused(arrayvec::ArrayString::from("EQUOTA").unwrap())]);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300), number: u32) {
            let _ = Assembler::default().feed(&bytes, number);
        }
    }
}
