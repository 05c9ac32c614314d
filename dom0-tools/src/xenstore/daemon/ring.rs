//! The ring that a domain shares with the store: two streams of bytes in a page (public header `io/xs_wire.h`,
//! `docs/misc/xenstore-ring.txt`).
//!
//! The domain can write anything at any time. So each index is read once and judged, and bytes are copied.

use std::mem::offset_of;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use pv_abi::xs_wire::{
    DomainInterface, XENSTORE_CONNECTED, XENSTORE_ERROR_RINGIDX, XENSTORE_RECONNECT, XENSTORE_RING_SIZE,
    XENSTORE_SERVER_FEATURE_ERROR, XENSTORE_SERVER_FEATURE_RECONNECTION, mask_xenstore_idx,
};

use crate::shared_memory::{SharedMemory, barrier};

const REQUESTS: usize = offset_of!(DomainInterface, req);
const ANSWERS: usize = offset_of!(DomainInterface, rsp);
const TAKEN: usize = offset_of!(DomainInterface, req_cons);
const ASKED: usize = offset_of!(DomainInterface, req_prod);
const RECEIVED: usize = offset_of!(DomainInterface, rsp_cons);
const ANSWERED: usize = offset_of!(DomainInterface, rsp_prod);
const FEATURES: usize = offset_of!(DomainInterface, server_features);
const CONNECTION: usize = offset_of!(DomainInterface, connection);
const ERROR: usize = offset_of!(DomainInterface, error);

/// A watch may have a depth (`XENSTORE_SERVER_FEATURE_WATCHDEPTH`, which the header of Xen 4.17 does not have yet).
const FEATURE_WATCH_DEPTH: u32 = 4;

/// What went wrong, as the ring's error field says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub u32);

/// The store's side of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a>(pub &'a SharedMemory);

/// Bytes between two indices; more than the ring holds is nonsense.
fn between(behind: u32, ahead: u32) -> Result<usize, Broken> {
    let count = ahead.wrapping_sub(behind) as usize;
    if count <= XENSTORE_RING_SIZE { Ok(count) } else { Err(Broken(XENSTORE_ERROR_RINGIDX)) }
}

impl Ring<'_> {
    /// Copies what the domain has asked, without taking it: into the front of `bytes`, which is as long as the ring. The
    /// index of the first byte, and how many they are.
    ///
    /// # Errors
    /// The indices make no sense.
    pub fn look(self, bytes: &mut [u8; XENSTORE_RING_SIZE]) -> Result<(u32, usize), Broken> {
        let taken = self.0.load(TAKEN, Relaxed);
        let count = between(taken, self.0.load(ASKED, Acquire))?;
        let start = mask_xenstore_idx(taken);
        let first = count.min(XENSTORE_RING_SIZE - start);
        let (head, tail) = bytes[..count].split_at_mut(first);
        self.0.copy_out(REQUESTS + start, head);
        self.0.copy_out(REQUESTS, tail);
        Ok((taken, count))
    }

    /// The index up to which all is taken.
    pub fn taken(self) -> u32 {
        self.0.load(TAKEN, Relaxed)
    }

    /// All up to this index is taken.
    ///
    /// Linux tells of what it writes only if all before was taken then (`xb_write`). So who stops looking asks
    /// [`Self::has_more`] once more after this.
    pub fn take(self, index: u32) {
        self.0.store(TAKEN, index, Release);
        barrier();
    }

    /// Whether there is something to take.
    pub fn has_more(self) -> bool {
        self.0.load(ASKED, Acquire) != self.0.load(TAKEN, Relaxed)
    }

    /// The index at which the next answer begins, and how many bytes there is room for.
    ///
    /// # Errors
    /// The indices make no sense.
    pub fn room(self) -> Result<(u32, usize), Broken> {
        let answered = self.0.load(ANSWERED, Relaxed);
        Ok((answered, XENSTORE_RING_SIZE - between(self.0.load(RECEIVED, Acquire), answered)?))
    }

    /// Puts as much of `bytes` as there is room for; how much that is. Linux tells that it has taken some only if it finds the
    /// ring full (`xb_read`), so who has more to put tries until this is 0.
    ///
    /// # Errors
    /// The indices make no sense.
    pub fn put(self, bytes: &[u8]) -> Result<usize, Broken> {
        let (index, room) = self.room()?;
        let count = bytes.len().min(room);
        let start = mask_xenstore_idx(index);
        let (head, tail) = bytes[..count].split_at(count.min(XENSTORE_RING_SIZE - start));
        self.0.copy_in(ANSWERS + start, head);
        self.0.copy_in(ANSWERS, tail);
        self.0.store(ANSWERED, index.wrapping_add(count as u32), Release);
        barrier();
        Ok(count)
    }

    /// The domain asks for an empty ring.
    pub fn wants_reconnection(self) -> bool {
        self.0.load(CONNECTION, Acquire) == XENSTORE_RECONNECT
    }

    /// Tells what the store can do.
    pub fn offer(self) {
        let features =
            XENSTORE_SERVER_FEATURE_RECONNECTION | XENSTORE_SERVER_FEATURE_ERROR | FEATURE_WATCH_DEPTH;
        self.0.store(FEATURES, features, Release);
    }

    /// Empties the ring and tells that it is connected.
    pub fn reset(self) {
        for index in [TAKEN, ASKED, RECEIVED, ANSWERED] {
            self.0.store(index, 0, Relaxed);
        }
        self.0.store(ERROR, 0, Relaxed);
        self.offer();
        self.0.store(CONNECTION, XENSTORE_CONNECTED, Release);
    }

    /// Tells the domain that the store does not listen any more, and why.
    pub fn give_up(self, broken: Broken) {
        self.0.store(ERROR, broken.0, Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_page_is_laid_out_as_documented() {
        assert_eq!([REQUESTS, ANSWERS, TAKEN, ASKED, RECEIVED], [0, 1024, 2048, 2052, 2056]);
        assert_eq!([ANSWERED, FEATURES, CONNECTION, ERROR], [2060, 2064, 2068, 2072]);
    }

    #[test]
    fn nonsense_is_refused() {
        let memory = SharedMemory::private(4096).unwrap();
        let ring = Ring(&memory);
        memory.store(ASKED, 1025, Relaxed);
        assert_eq!(ring.look(&mut [0; 1024]), Err(Broken(XENSTORE_ERROR_RINGIDX)));
        memory.store(RECEIVED, 1, Relaxed);
        assert_eq!(ring.put(b"x"), Err(Broken(XENSTORE_ERROR_RINGIDX)));
        ring.give_up(Broken(2));
        assert_eq!(memory.load(ERROR, Relaxed), 2);
        memory.store(CONNECTION, XENSTORE_RECONNECT, Relaxed);
        assert!(ring.wants_reconnection());
        ring.reset();
        assert!(!ring.wants_reconnection() && memory.load(ERROR, Relaxed) == 0);
        assert_eq!(ring.room(), Ok((0, 1024)));
    }

    proptest! {
        /// A domain that writes where its index says and reads what it was promised gets its bytes back, whatever the
        /// indices begin at.
        #[test]
        fn bytes_come_through(start: u32, pieces in prop::collection::vec(1usize..1500, 1..20)) {
            let memory = SharedMemory::private(4096).unwrap();
            let ring = Ring(&memory);
            for index in [TAKEN, ASKED, RECEIVED, ANSWERED] {
                memory.store(index, start, Relaxed);
            }
            let mut value = 0u8;
            for piece in pieces {
                let bytes: Vec<u8> = (0..piece).map(|_| { value = value.wrapping_add(1); value }).collect();
                let room = ring.room().unwrap().1;
                let count = ring.put(&bytes).unwrap();
                prop_assert_eq!(count, piece.min(room));
                // The domain sends back what it gets.
                let (from, to) = (memory.load(RECEIVED, Relaxed), memory.load(ANSWERED, Relaxed));
                for at in 0..to.wrapping_sub(from) {
                    let mut byte = [0];
                    memory.copy_out(ANSWERS + mask_xenstore_idx(from.wrapping_add(at)), &mut byte);
                    let asked = memory.load(ASKED, Relaxed);
                    memory.copy_in(REQUESTS + mask_xenstore_idx(asked), &byte);
                    memory.store(ASKED, asked.wrapping_add(1), Relaxed);
                }
                memory.store(RECEIVED, to, Relaxed);
                let mut found = [0; XENSTORE_RING_SIZE];
                let (index, seen) = ring.look(&mut found).unwrap();
                prop_assert_eq!(&found[..seen], &bytes[..count]);
                ring.take(index.wrapping_add(seen as u32));
            }
        }

        /// Whatever is in the page, nothing is read or written beyond the ring's own parts.
        #[test]
        fn any_page_is_survived(words in prop::collection::vec(any::<u32>(), 7), bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let memory = SharedMemory::private(4096).unwrap();
            for (index, word) in words.iter().enumerate() {
                memory.store(TAKEN + 4 * index, *word, Relaxed);
            }
            let ring = Ring(&memory);
            if let Ok((_, count)) = ring.look(&mut [0; XENSTORE_RING_SIZE]) {
                prop_assert!(count <= XENSTORE_RING_SIZE);
            }
            if let Ok(count) = ring.put(&bytes) {
                prop_assert!(count <= bytes.len());
            }
            let mut rest = [1; 2020];
            memory.copy_out(2076, &mut rest);
            prop_assert_eq!(rest, [0; 2020]);
        }
    }
}
