//! The memory that the guest uses: a stack of pages, each of which says which one it is and which is below it.

use payloads::ballooning::{PAGE, Pool};

/// What a page says of itself, with its frame.
const MARK: u64 = 0xdeca_1ded_0000_0000;

#[derive(Default)]
pub struct Holder {
    top: Option<u64>,
    pages: u64,
    /// Pages that had other content than was written to them.
    pub damaged: u64,
}

impl Holder {
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Takes a page of the pool and writes to it; `false`: there is none.
    pub fn push(&mut self, pool: &mut Pool) -> bool {
        let Some(frame) = pool.take(0) else { return false };
        let words = (frame * PAGE) as *mut u64;
        // SAFETY: a page that the pool gave out, mapped, which nobody else uses until it is put back.
        unsafe {
            words.write_volatile(MARK ^ frame);
            words.add(1).write_volatile(self.top.map_or(0, |below| below + 1));
        }
        (self.top, self.pages) = (Some(frame), self.pages + 1);
        true
    }

    /// Reads each page, as a program that uses its memory.
    pub fn touch(&self) {
        let mut next = self.top;
        while let Some(frame) = next {
            let words = (frame * PAGE) as *const u64;
            // SAFETY: a page that `push` took.
            let (mark, below) = unsafe { (words.read_volatile(), words.add(1).read_volatile()) };
            // One that is damaged says nothing of the next; `pop` will count them.
            next = below.checked_sub(1).filter(|_| mark == MARK ^ frame);
        }
    }

    /// Gives the newest page back, and looks whether it is as it was left.
    pub fn pop(&mut self, pool: &mut Pool) {
        let Some(frame) = self.top else { return };
        let words = (frame * PAGE) as *mut u64;
        // SAFETY: a page that `push` took.
        let (mark, below) = unsafe { (words.read_volatile(), words.add(1).read_volatile()) };
        if mark != MARK ^ frame {
            // What is below it is lost, too.
            self.damaged += self.pages;
            *self = Self { damaged: self.damaged, ..Self::default() };
            return;
        }
        pool.put(frame, 0);
        (self.top, self.pages) = (below.checked_sub(1), self.pages - 1);
    }
}
