//! The ring between a guest's console and us: one page that the guest writes as it likes (`xen/io/console.h`).
//!
//! Both directions have indices that only grow and wrap at 2^32; what lies between them is on its way. The guest may put
//! anything there at any time. Each operation reads the indices once, and does what one look justifies.

use std::mem::offset_of;

use pv_abi::io_console::{ConsoleInterface, IN_SIZE, OUT_SIZE};

const IN: u32 = IN_SIZE as u32;
const OUT: u32 = OUT_SIZE as u32;
const IN_RING: usize = offset_of!(ConsoleInterface, r#in);
const OUT_RING: usize = offset_of!(ConsoleInterface, out);
const IN_CONS: usize = offset_of!(ConsoleInterface, in_cons);
const IN_PROD: usize = offset_of!(ConsoleInterface, in_prod);
const OUT_CONS: usize = offset_of!(ConsoleInterface, out_cons);
const OUT_PROD: usize = offset_of!(ConsoleInterface, out_prod);

/// A page that another domain writes at the same time.
pub trait Page {
    /// An aligned word; what was written before it over there is visible after.
    fn load(&self, offset: usize) -> u32;
    /// Writes an aligned word; what was read and written before is done when the other side sees it.
    fn store(&self, offset: usize, value: u32);
    /// Copies bytes out.
    fn read(&self, offset: usize, bytes: &mut [u8]);
    /// Copies bytes in.
    fn write(&self, offset: usize, bytes: &[u8]);
}

/// The guest's indices claim more than the ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest's console ring is broken: consumer {consumer:#x}, producer {producer:#x}")]
pub struct Broken {
    /// How far the ring has been read.
    pub consumer: u32,
    /// How far it has been written.
    pub producer: u32,
}

/// One console's ring.
#[derive(Debug)]
pub struct Ring<P>(P);

impl<P: Page> Ring<P> {
    /// The ring in `page`.
    pub fn new(page: P) -> Self {
        Self(page)
    }

    /// Appends to `out` what the guest has written, `most` bytes at most; how many there were.
    ///
    /// # Errors
    /// [`Broken`]: nothing was taken.
    pub fn take(&self, most: usize, out: &mut Vec<u8>) -> Result<usize, Broken> {
        let consumer = self.0.load(OUT_CONS);
        let count = self.used(OUT_PROD, consumer, OUT)?.min(u32::try_from(most).unwrap_or(u32::MAX));
        let from = out.len();
        out.resize(from + count as usize, 0);
        let (first, second) = pieces(consumer, count, OUT);
        let (head, tail) = out[from..].split_at_mut(second);
        self.0.read(OUT_RING + first, head);
        self.0.read(OUT_RING, tail);
        if count > 0 {
            self.0.store(OUT_CONS, consumer.wrapping_add(count));
        }
        Ok(count as usize)
    }

    /// Whether the guest has written something.
    pub fn has_output(&self) -> bool {
        self.used(OUT_PROD, self.0.load(OUT_CONS), OUT).is_ok_and(|count| count > 0)
    }

    /// How many bytes the guest has room for; 0 if its indices are broken.
    pub fn room(&self) -> usize {
        let consumer = self.0.load(IN_CONS);
        self.used(IN_PROD, consumer, IN).map_or(0, |used| (IN - used) as usize)
    }

    /// Gives the guest as many of `bytes` as it has room for; how many.
    pub fn give(&self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        let producer = self.0.load(IN_PROD);
        // At most 1024, so it fits.
        let (first, second) = pieces(producer, count as u32, IN);
        let (head, tail) = bytes[..count].split_at(second);
        self.0.write(IN_RING + first, head);
        self.0.write(IN_RING, tail);
        if count > 0 {
            self.0.store(IN_PROD, producer.wrapping_add(count as u32));
        }
        count
    }

    fn used(&self, producer: usize, consumer: u32, size: u32) -> Result<u32, Broken> {
        let producer = self.0.load(producer);
        let used = producer.wrapping_sub(consumer);
        if used <= size { Ok(used) } else { Err(Broken { consumer, producer }) }
    }
}

/// Where `count` bytes from `index` on begin in a ring, and how many of them lie before its end.
fn pieces(index: u32, count: u32, size: u32) -> (usize, usize) {
    let first = index % size;
    (first as usize, count.min(size - first) as usize)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A page without a guest; what is beyond a ring must never be touched.
    #[derive(Clone, Debug)]
    pub(in super::super) struct FakePage(Rc<RefCell<Vec<u8>>>);

    impl FakePage {
        pub(in super::super) fn new() -> Self {
            Self(Rc::new(RefCell::new(vec![0; OUT_PROD + 4])))
        }

        /// The guest writes what fits.
        pub(in super::super) fn guest_says(&self, text: &[u8]) -> usize {
            let (consumer, producer) = (self.load(OUT_CONS), self.load(OUT_PROD));
            let count = text.len().min((OUT - producer.wrapping_sub(consumer)) as usize);
            for (index, byte) in text[..count].iter().enumerate() {
                let at = producer.wrapping_add(index as u32) % OUT;
                self.write(OUT_RING + at as usize, &[*byte]);
            }
            self.store(OUT_PROD, producer.wrapping_add(count as u32));
            count
        }

        /// The guest reads all that there is.
        pub(in super::super) fn guest_hears(&self) -> Vec<u8> {
            let (consumer, producer) = (self.load(IN_CONS), self.load(IN_PROD));
            let mut heard = Vec::new();
            for index in 0..producer.wrapping_sub(consumer) {
                let mut byte = [0];
                self.read(IN_RING + (consumer.wrapping_add(index) % IN) as usize, &mut byte);
                heard.push(byte[0]);
            }
            self.store(IN_CONS, producer);
            heard
        }

        pub(in super::super) fn indices(&self, in_cons: u32, in_prod: u32, out_cons: u32, out_prod: u32) {
            self.store(IN_CONS, in_cons);
            self.store(IN_PROD, in_prod);
            self.store(OUT_CONS, out_cons);
            self.store(OUT_PROD, out_prod);
        }
    }

    impl Page for FakePage {
        fn load(&self, offset: usize) -> u32 {
            u32::from_le_bytes(self.0.borrow()[offset..offset + 4].try_into().unwrap())
        }
        fn store(&self, offset: usize, value: u32) {
            self.0.borrow_mut()[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        fn read(&self, offset: usize, bytes: &mut [u8]) {
            assert!(offset + bytes.len() <= IN_CONS);
            bytes.copy_from_slice(&self.0.borrow()[offset..offset + bytes.len()]);
        }
        fn write(&self, offset: usize, bytes: &[u8]) {
            assert!(offset + bytes.len() <= IN_CONS);
            self.0.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }

    #[test]
    fn indices_beyond_the_ring_give_nothing() {
        let page = FakePage::new();
        let ring = Ring::new(page.clone());
        page.indices(0, IN + 1, 5, 5 + OUT + 1);
        let mut out = Vec::new();
        assert_eq!(ring.take(9999, &mut out), Err(Broken { consumer: 5, producer: 5 + OUT + 1 }));
        assert!(out.is_empty() && !ring.has_output());
        assert_eq!((ring.room(), ring.give(b"hello")), (0, 0));
    }

    proptest! {
        /// Whatever the indices, bytes come out in order, in pieces of any size, and none is lost or made up.
        #[test]
        fn bytes_arrive_in_order(start: u32, texts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), 0usize..3000), 1..20)) {
            let page = FakePage::new();
            page.indices(start, start, start, start);
            let ring = Ring::new(page.clone());
            let (mut said, mut taken) = (Vec::new(), Vec::new());
            let (mut given, mut heard) = (Vec::new(), Vec::new());
            for (text, most) in texts {
                let count = page.guest_says(&text);
                said.extend_from_slice(&text[..count]);
                let before = taken.len();
                prop_assert_eq!(ring.take(most, &mut taken).unwrap(), taken.len() - before);
                prop_assert!(taken.len() - before <= most);
                let count = ring.give(&text);
                given.extend_from_slice(&text[..count]);
                if most % 2 == 0 {
                    heard.extend(page.guest_hears());
                }
            }
            ring.take(usize::MAX, &mut taken).unwrap();
            heard.extend(page.guest_hears());
            prop_assert_eq!(said, taken);
            prop_assert_eq!(given, heard);
        }

        /// No indices make us touch memory outside the rings (the fake page would panic) or take more than a ring.
        #[test]
        fn no_indices_do_harm(in_cons: u32, in_prod: u32, out_cons: u32, out_prod: u32, most: usize) {
            let page = FakePage::new();
            page.indices(in_cons, in_prod, out_cons, out_prod);
            let ring = Ring::new(page);
            let mut out = Vec::new();
            let _ = ring.take(most, &mut out);
            prop_assert!(out.len() <= OUT as usize);
            prop_assert!(ring.give(&[7; 2000]) <= IN as usize);
        }
    }
}
