//! What waits to be sent to one client: answers and events, in order, within bounds.

use std::collections::VecDeque;

use pv_abi::xs_wire::{MessageType, SockMsg, XENSTORE_PAYLOAD_MAX};

use crate::xenstore::wire;

/// How many of the last messages a new event is compared with.
const LOOK_BACK: usize = 64;

#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    event: bool,
}

/// Messages for a client.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Packet>,
    /// Bytes in the queue.
    bytes: usize,
    /// Bytes of its first message that are sent.
    sent: usize,
    /// Answers in the queue.
    answers: usize,
    /// Bytes that were ever queued.
    pushed: u64,
}

impl Outbox {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes - self.sent
    }

    /// Bytes that were ever queued.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Answers that wait.
    pub fn answers(&self) -> usize {
        self.answers
    }

    fn push(&mut self, header: SockMsg, parts: &[&[u8]], event: bool) {
        let mut bytes = Vec::new();
        wire::append(&mut bytes, header, parts);
        self.bytes += bytes.len();
        self.pushed += bytes.len() as u64;
        self.answers += usize::from(!event);
        self.queue.push_back(Packet { bytes, event });
    }

    /// Queues an answer.
    pub fn answer(&mut self, header: SockMsg, payload: &[u8]) {
        self.push(header, &[payload], false);
    }

    /// Queues an event, unless there is no room within `limit` bytes: then false. One that waits already is not queued
    /// again, except where each counts: `distinct`.
    pub fn event(&mut self, path: &[u8], token: &[u8], limit: usize, distinct: bool) -> bool {
        let length = path.len() + token.len() + 2;
        if length > XENSTORE_PAYLOAD_MAX {
            return true;
        }
        let parts = [path, b"\0", token, b"\0"];
        let same = |packet: &Packet| {
            let payload = packet.bytes.get(wire::HEADER..).unwrap_or_default();
            packet.event
                && payload.len() == length
                && payload.starts_with(path)
                && payload[path.len()] == 0
                && payload[path.len() + 1..length - 1] == *token
        };
        // The first may be half sent, which is no matter: it is not read before it is whole.
        if !distinct && self.queue.iter().rev().take(LOOK_BACK).any(same) {
            return true;
        }
        if self.bytes + length + wire::HEADER > limit {
            return false;
        }
        self.push(SockMsg { r#type: MessageType::WatchEvent.raw(), ..SockMsg::default() }, &parts, true);
        true
    }

    /// The bytes to send next; empty if there are none.
    pub fn next(&self) -> &[u8] {
        self.queue.front().map_or(&[], |packet| &packet.bytes[self.sent..])
    }

    /// The messages to send next, from the first byte that is not sent on.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let sent = [self.sent].into_iter().chain(std::iter::repeat(0));
        self.queue.iter().zip(sent).map(|(packet, sent)| &packet.bytes[sent..])
    }

    /// `count` more bytes were sent.
    pub fn sent(&mut self, count: usize) {
        self.sent += count;
        while self.queue.front().is_some_and(|packet| packet.bytes.len() <= self.sent)
            && let Some(packet) = self.queue.pop_front()
        {
            self.sent -= packet.bytes.len();
            self.bytes -= packet.bytes.len();
            self.answers -= usize::from(!packet.event);
        }
    }

    /// All bytes that wait.
    pub fn rest(&self) -> Vec<u8> {
        let all: Vec<u8> = self.queue.iter().flat_map(|packet| &packet.bytes).copied().collect();
        all[self.sent..].to_vec()
    }

    /// Queues what was left over of a former queue.
    pub fn resume(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.pushed += bytes.len() as u64;
            self.answers += 1;
            self.queue.push_back(Packet { bytes, event: false });
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self { pushed: self.pushed, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_out_in_order_and_in_pieces() {
        let mut outbox = Outbox::default();
        outbox.answer(SockMsg { r#type: 2, req_id: 1, ..SockMsg::default() }, b"value");
        assert!(outbox.event(b"/a", b"token", 1000, false));
        assert!(outbox.event(b"/a", b"token", 1000, false), "the same again counts as queued");
        assert_eq!((outbox.bytes(), outbox.answers()), (21 + 25, 1));
        let all = outbox.rest();
        let mut found = Vec::new();
        while !outbox.is_empty() {
            let next = outbox.next();
            let count = next.len().min(7);
            found.extend_from_slice(&next[..count]);
            outbox.sent(count);
            assert_eq!(outbox.rest(), all[found.len()..]);
        }
        assert_eq!(found, all);
        assert_eq!((outbox.bytes(), outbox.answers()), (0, 0));
    }

    #[test]
    fn events_have_a_limit_and_answers_have_none() {
        let mut outbox = Outbox::default();
        assert!(outbox.event(b"/a", b"1", 50, false) && outbox.event(b"/a", b"2", 50, false));
        assert!(!outbox.event(b"/a", b"3", 50, false));
        outbox.answer(SockMsg::default(), &[0; 100]);
        assert!(outbox.event(b"/a", &[b'x'; XENSTORE_PAYLOAD_MAX], 50, false), "too long for the protocol");
        assert_eq!(outbox.queue.len(), 3);
        assert!(outbox.event(b"@r", b"t", 1000, true) && outbox.event(b"@r", b"t", 1000, true));
        assert_eq!(outbox.queue.len(), 5);
    }
}
