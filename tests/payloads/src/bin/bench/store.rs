//! Cost of one XenStore read, from the request in the ring to the answer: through dom0's daemon and back.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use payloads::hypercall::{hypercall, scalar, with_struct};
use payloads::xen::{DOMID_SELF, event_channel, hvm, op, sched};
use payloads::{expect, paging, timer};

use super::result;

/// `xenstore_domain_interface` (`io/xs_wire.h`).
const REQUESTS: u64 = 0;
const ANSWERS: u64 = 1024;
const SIZE: u32 = 1024;
const REQUESTED: u64 = 2052;
const RECEIVED: u64 = 2056;
const ANSWERED: u64 = 2060;
/// `XS_READ`, and bytes of a header.
const READ: u32 = 2;
const HEADER: u32 = 16;

const ROUNDS: u64 = 64;
/// The best of so many counts: dom0's kernel has a tick.
const BATCHES: usize = 8;
/// How often to give way to a daemon that does not answer.
const PATIENCE: u32 = 1_000_000;

struct Ring {
    page: u64,
    port: u32,
}

impl Ring {
    fn find() -> Option<Self> {
        let parameter = |index| {
            let mut parameter = hvm::Param { domid: DOMID_SELF, index, value: 0 };
            // SAFETY: the hypervisor writes the value into the structure, nothing else.
            let result = unsafe { with_struct(op::HVM_OP, hvm::GET_PARAM, &mut parameter) };
            if result == 0 { parameter.value } else { 0 }
        };
        let (page, port) = (parameter(hvm::STORE_PFN) << 12, parameter(hvm::STORE_EVTCHN));
        let found = page != 0 && page >> 48 == 0 && port != 0 && paging::map_shared(page);
        found.then_some(Self { page, port: port as u32 })
    }

    fn index(&self, offset: u64) -> &AtomicU32 {
        // SAFETY: an aligned word of the page that `find` mapped, which both sides only access atomically.
        unsafe { &*((self.page + offset) as *const AtomicU32) }
    }

    fn byte(&self, part: u64, index: u32) -> &AtomicU8 {
        // SAFETY: a byte of the ring, as for `index`.
        unsafe { &*((self.page + part + u64::from(index % SIZE)) as *const AtomicU8) }
    }

    /// Reads a node of this domain; how many bytes its value has. `None`: no answer, or an error.
    fn read(&self, path: &[u8]) -> Option<u32> {
        let mut at = self.index(REQUESTED).load(Ordering::Relaxed);
        let mut put = |byte| {
            self.byte(REQUESTS, at).store(byte, Ordering::Relaxed);
            at = at.wrapping_add(1);
        };
        for word in [READ, 0, 0, path.len() as u32] {
            word.to_le_bytes().into_iter().for_each(&mut put);
        }
        path.iter().copied().for_each(&mut put);
        self.index(REQUESTED).store(at, Ordering::Release);
        // SAFETY: the hypervisor only reads the port.
        unsafe {
            hypercall(op::EVENT_CHANNEL_OP, [event_channel::SEND, &raw const self.port as u64, 0, 0, 0])
        };
        let received = self.index(RECEIVED).load(Ordering::Relaxed);
        let here = || self.index(ANSWERED).load(Ordering::Acquire).wrapping_sub(received);
        let answer = |at: u32| self.byte(ANSWERS, received.wrapping_add(at)).load(Ordering::Relaxed);
        let word = |at: u32| u32::from_le_bytes([answer(at), answer(at + 1), answer(at + 2), answer(at + 3)]);
        for _ in 0..PATIENCE {
            if here() >= HEADER && here() >= HEADER + word(12) {
                let (kind, length) = (word(0), word(12));
                self.index(RECEIVED).store(received.wrapping_add(HEADER + length), Ordering::Release);
                return (kind == READ).then_some(length);
            }
            scalar(op::SCHED_OP, sched::YIELD, 0);
        }
        None
    }
}

pub fn measure() {
    let Some(ring) = Ring::find() else { return };
    let mut best = u64::MAX;
    for _ in 0..BATCHES {
        let start = timer::ticks();
        for _ in 0..ROUNDS {
            let length = ring.read(b"name\0");
            expect!(length.is_some_and(|length| length > 0), "XenStore does not tell this domain's name");
        }
        best = best.min(timer::ticks().wrapping_sub(start));
    }
    result("xenstore-read", best, ROUNDS, 0);
}
