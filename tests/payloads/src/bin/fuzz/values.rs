//! Where random arguments come from, and which values must not be given away.
//!
//! ```text
//! memory of the domain:  | image, stacks | ...... | pages to lose | scratch |
//!                          never named             named as frames  named as pointers
//! ```
//!
//! A value that, read as an address or as a frame number, would let the hypervisor write to this program or take its
//! pages away is replaced: such a call would be legitimate, and the end of the test.

use payloads::boot;
use payloads::machine::{Machine, Range};
use payloads::paging::UNMAPPED_GIB;
use payloads::random::Random;

const SIZE: u64 = 2 << 20;
const PAGE: u64 = 4096;

/// The source of random values.
pub struct Values {
    random: Random,
    /// Memory that calls may read and write.
    scratch: Range,
    /// Memory whose pages calls may take, map over or give away.
    expendable: Range,
    /// This program, and everything below it in memory: an extent that starts there could reach it.
    program: Range,
    /// An address without memory behind it.
    unbacked: u64,
}

impl Values {
    /// Finds room for what calls may read, write and lose. `None` if there is none.
    pub fn new(machine: &Machine<'_>, random: Random) -> Option<Self> {
        let both = machine.free(2 * SIZE, SIZE)?;
        let middle = both.start + SIZE;
        let image = boot::image();
        let bank = machine.memory.iter().find(|bank| bank.overlaps(&image))?;
        let highest = machine.memory.iter().map(|bank| bank.end).max()?;
        Some(Self {
            random,
            expendable: Range { start: both.start, end: middle },
            scratch: Range { start: middle, end: both.end },
            program: Range { start: bank.start, end: image.end + (1 << 20) },
            unbacked: highest + (1 << 30),
        })
    }

    /// The generator itself.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Memory that calls may read and write: its first half is filled at random, the second is for calls built with care.
    pub fn scratch(&self) -> Range {
        self.scratch
    }

    /// A pointer into the random half of the scratch memory, seldom unaligned.
    pub fn pointer(&mut self) -> u64 {
        let offset = self.random.below(SIZE / 2 - PAGE) & !7;
        let skew = if self.random.one_in(16) { self.random.below(8) } else { 0 };
        self.scratch.start + offset + skew
    }

    /// An address that no call can read or write: never mapped at stage 1, or with nothing behind it at stage 2.
    ///
    /// Address bits above the 39 translated ones are random, but those below fault by themselves: on QEMU, a hypervisor
    /// that translates by `AT S12E1R` finds what the lower bits name.
    pub fn bad_pointer(&mut self) -> u64 {
        let offset = self.random.below(1 << 30);
        match self.random.below(4) {
            0 => self.unbacked + offset,
            1 => u64::MAX - offset,
            2 => UNMAPPED_GIB << 30 | offset,
            _ => self.random.below(1 << 16) << 39 | UNMAPPED_GIB << 30 | offset,
        }
    }

    /// Any value that does no harm to this program.
    pub fn any(&mut self) -> u64 {
        let value = match self.random.below(8) {
            0 => self.random.next_u64(),
            1 => self.random.next_u64() >> self.random.below(64),
            2 | 3 => self.random.below(64),
            4 => u64::MAX - self.random.below(64),
            5 => self.pointer(),
            6 => (self.expendable.start + self.random.below(SIZE)) / PAGE,
            _ => 0x7ff0 + self.random.below(16),
        };
        if self.is_harmful(value) { value ^ 1 << 62 } else { value }
    }

    /// Writes random values where `pointer` points, enough for the structures of most calls.
    pub fn fill(&mut self, pointer: u64, words: u64) {
        for i in 0..words {
            let value = self.any();
            // SAFETY: `pointer` comes from `pointer`, at least a page before the end of the random half of scratch memory,
            // which nothing else refers to.
            unsafe { ((pointer & !7) as *mut u64).add(i as usize).write_volatile(value) };
        }
    }

    fn is_harmful(&self, value: u64) -> bool {
        let address = value & 0x7f_ffff_ffff;
        let frames = |range: &Range| range.start / PAGE <= value && value < range.end / PAGE;
        (self.program.start.saturating_sub(1 << 20)..self.program.end).contains(&address)
            || frames(&self.program)
            || frames(&self.scratch)
    }
}
