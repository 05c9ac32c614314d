//! As much of XenStore as a balloon needs: reading and writing a node through the ring that a guest shares with `xenstored`.
//!
//! The protocol is that of `xen/include/public/io/xs_wire.h`: requests and replies with a header of four words. One
//! request is under way at a time; what else arrives meanwhile (watches' events) is passed over.

use pv_abi::xs_wire::MessageType;

/// Bytes in each direction's ring.
const RING: u32 = 1024;
/// Bytes of a header: type, request, transaction, length.
const HEADER: usize = 16;
/// The longest payload (`XENSTORE_PAYLOAD_MAX`).
const LONGEST: u32 = 4096;

/// One of the four indices of `struct xenstore_domain_interface`, by its offset in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Index {
    /// What the guest took from the requests' ring: the daemon's.
    RequestConsumer = 2048,
    /// What the guest put into it.
    RequestProducer = 2052,
    /// What the guest took from the replies' ring.
    ReplyConsumer = 2056,
    /// What the daemon put into it.
    ReplyProducer = 2060,
}

/// The shared page, and the event channel that goes with it.
pub trait Ring {
    /// Reads an index, before anything that is read from the page afterwards (acquire).
    fn index(&mut self, which: Index) -> u32;
    /// Writes an index, after everything that was written to the page before (release).
    fn set_index(&mut self, which: Index, value: u32);
    /// Reads a byte of the page.
    fn byte(&mut self, offset: usize) -> u8;
    /// Writes a byte of the page.
    fn set_byte(&mut self, offset: usize, value: u8);
    /// Tells the daemon that an index changed.
    fn notify(&mut self);
    /// Waits until the daemon may have changed one; `false`: no more patience.
    fn wait(&mut self) -> bool;
}

/// Reads a node, given by a path that is relative to the guest's own directory or absolute, into `value`; its length. `None`:
/// there is none, it is longer than `value`, or the daemon does not answer.
pub fn read(ring: &mut impl Ring, path: &str, value: &mut [u8]) -> Option<usize> {
    request(ring, MessageType::Read, &[path.as_bytes(), b"\0"], value)
}

/// Sets a node's value, by a path like [`read`]'s; whether the daemon did it.
pub fn write(ring: &mut impl Ring, path: &str, value: &[u8]) -> bool {
    let mut done = [0; 8];
    request(ring, MessageType::Write, &[path.as_bytes(), b"\0", value], &mut done).is_some()
}

/// Makes a request of some parts, and puts the answer into `answer`; its length. `None`: it is an error, or longer, or never
/// comes.
fn request(ring: &mut impl Ring, what: MessageType, parts: &[&[u8]], answer: &mut [u8]) -> Option<usize> {
    const REQUEST: u32 = 0xba11;
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).ok().filter(|&length| length <= LONGEST)?;
    for word in [what.raw(), REQUEST, 0, length] {
        word.to_le_bytes().into_iter().try_for_each(|byte| put(ring, byte))?;
    }
    parts.iter().flat_map(|part| part.iter()).try_for_each(|&byte| put(ring, byte))?;
    ring.notify();
    loop {
        let mut header = [0; HEADER];
        header.iter_mut().try_for_each(|byte| get(ring).map(|found| *byte = found))?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (kind, request, length) = (word(0), word(4), word(12));
        if length > LONGEST {
            return None;
        }
        let is_ours = request == REQUEST && kind == what.raw();
        let fits = length as usize <= answer.len();
        for at in 0..length as usize {
            let byte = get(ring)?;
            match answer.get_mut(at) {
                Some(place) if is_ours && fits => *place = byte,
                _ => {}
            }
        }
        ring.notify();
        if is_ours {
            return fits.then_some(length as usize);
        }
        if request == REQUEST && kind == MessageType::Error.raw() {
            return None;
        }
    }
}

/// Reads a node as a number in decimal digits.
pub fn read_number(ring: &mut impl Ring, path: &str) -> Option<u64> {
    let mut digits = [0; 20];
    let length = read(ring, path, &mut digits)?;
    core::str::from_utf8(&digits[..length]).ok()?.parse().ok()
}

fn put(ring: &mut impl Ring, byte: u8) -> Option<()> {
    let at = ring.index(Index::RequestProducer);
    while at.wrapping_sub(ring.index(Index::RequestConsumer)) >= RING {
        ring.notify();
        if !ring.wait() {
            return None;
        }
    }
    ring.set_byte((at % RING) as usize, byte);
    ring.set_index(Index::RequestProducer, at.wrapping_add(1));
    Some(())
}

fn get(ring: &mut impl Ring) -> Option<u8> {
    let at = ring.index(Index::ReplyConsumer);
    while ring.index(Index::ReplyProducer) == at {
        ring.notify();
        if !ring.wait() {
            return None;
        }
    }
    let byte = ring.byte((RING + at % RING) as usize);
    ring.set_index(Index::ReplyConsumer, at.wrapping_add(1));
    Some(byte)
}
