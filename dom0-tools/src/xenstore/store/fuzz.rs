//! Streams of bytes that nearly are the protocol: good requests with bytes changed, cut, doubled, and sent in pieces.
//!
//! Whatever comes, the store keeps its order, and each understood message gets one answer. With a fixed seed; for two seconds, or
//! as `NACELLE_FUZZ_SECONDS` says.

use std::time::{Duration, Instant};

use pv_abi::domid::DomId;
use pv_abi::xs_wire::{MessageType, SockMsg};

use super::testing::Bench;
use crate::xenstore::wire::{self, Assembler};

/// A generator of numbers (xorshift64*): the same ones in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// A request that could be good.
fn request(numbers: &mut Numbers, to: &mut Vec<u8>) {
    const PATHS: [&str; 9] = [
        "a",
        "a/b",
        "/",
        "/local/domain/1/a",
        "/local/domain/2",
        "@releaseDomain",
        "/tool",
        "deep/er/and/er",
        "",
    ];
    const ENDS: [&[u8]; 8] =
        [b"", b"\0", b"value", b"n1\0", b"n1\0b2\0", b"token\0", b"token\x001\0", b"0\0"];
    let kind = MessageType::ALL[numbers.below(MessageType::ALL.len())];
    let path = match kind {
        MessageType::TransactionEnd => numbers.of(&["T", "F"]),
        MessageType::Introduce | MessageType::Release | MessageType::SetTarget => {
            numbers.of(&["1", "3", "x"])
        }
        _ => numbers.of(&PATHS),
    };
    let header = SockMsg { r#type: kind.raw(), tx_id: numbers.below(4) as u32, ..SockMsg::default() };
    wire::append(to, header, &[path.as_bytes(), b"\0", numbers.of(&ENDS)]);
}

fn mutate(numbers: &mut Numbers, bytes: &mut Vec<u8>) {
    for _ in 0..numbers.below(4) {
        let at = numbers.below(bytes.len().max(1));
        match numbers.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), numbers.below(256) as u8),
            2 => bytes.extend_from_within(..at.min(bytes.len())),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *numbers.of(&[&0u8, &1, &b'/', &b'a', &0xff, &0x80]);
                }
            }
        }
    }
}

#[test]
fn nearly_the_protocol() {
    let seconds =
        std::env::var("NACELLE_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(2);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut understood = 0;
    while Instant::now() < end {
        let mut bench = Bench::new();
        let clients = [bench.domain(1), bench.domain(2), bench.tools()];
        let mut streams = [(); 3].map(|()| Assembler::default());
        for _ in 0..200 {
            let who = numbers.below(3);
            let mut bytes = Vec::new();
            for _ in 0..=numbers.below(3) {
                request(&mut numbers, &mut bytes);
            }
            if numbers.below(3) > 0 {
                mutate(&mut numbers, &mut bytes);
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (mut piece, later) = rest.split_at(1 + numbers.below(rest.len()));
                rest = later;
                loop {
                    match streams[who].feed(&mut piece) {
                        Ok(Some(message)) => {
                            understood += 1;
                            // A client that is gone: its domain was released meanwhile.
                            if bench.store.client(clients[who]).is_some() {
                                let (tx, kind) = (message.header.tx_id, message.header.r#type);
                                let _ = bench.send(clients[who], tx, kind, message.payload);
                            }
                        }
                        Ok(None) => break,
                        // The daemon closes such a connection.
                        Err(_) => {
                            streams[who] = Assembler::default();
                            bench.store.start_over(clients[who]);
                            piece = &[];
                        }
                    }
                }
            }
            if numbers.below(50) == 0 {
                bench.take(clients[who]);
            }
        }
        assert_eq!(bench.store.check(), Ok(()));
        for id in [1, 2, 3] {
            bench.store.release_domain(DomId::new(id), &mut bench.world);
        }
        assert_eq!(bench.store.check(), Ok(()));
        assert!(bench.world.connected.is_empty());
    }
    assert!(understood > 1000);
}
