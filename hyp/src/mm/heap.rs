//! EL2's own heap: `buddy_system_allocator` over frames, which it takes two MiB at a time when it needs more.
//!
//! It never gives frames back: what EL2 allocates per domain is small, and a domain's pages come from the frame
//! allocator. Lock order: the heap is a leaf but for the frame allocator, which allocates nothing.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use crate::sync::TicketMutex;
use buddy_system_allocator::Heap as Buddies;
use stage2::{BlockSize, Pages};

use super::memory;
use crate::arch;

/// Blocks of up to 2^(ORDER-1) bytes.
const ORDER: usize = 32;

/// The heap.
pub struct Heap {
    buddies: TicketMutex<Buddies<ORDER>>,
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    /// Without memory: it takes some at the first allocation, which must come after `mm::init`.
    pub const fn new() -> Self {
        Self { buddies: TicketMutex::new(Buddies::new()) }
    }

    /// Takes frames for at least `layout`. Returns whether there were any.
    fn grow(buddies: &mut Buddies<ORDER>, layout: Layout) -> bool {
        // A buddy heap rounds sizes up to a power of two.
        let bytes = layout.size().max(layout.align()).checked_next_power_of_two().unwrap_or(usize::MAX);
        let needed = Pages::covering_bytes(bytes as u64).get().max(1).ilog2();
        let Some(block) =
            memory().allocate(needed.max(BlockSize::Block2M.order())).or_else(|| memory().allocate(needed))
        else {
            return false;
        };
        let pages = block.pages();
        let mfn = block.into_hypervisor();
        // SAFETY: the block was free, nobody else refers to it, and it is given to the heap for good.
        let start = unsafe { arch::phys::zeroed_storage(mfn, pages) }.as_ptr().addr();
        let Some(bytes) = pages.bytes().and_then(|bytes| usize::try_from(bytes).ok()) else { return false };
        // SAFETY: the range is mapped writable memory that only this heap uses from now on.
        unsafe { buddies.add_to_heap(start, start + bytes) };
        true
    }
}

// SAFETY: `alloc` returns memory that the inner heap handed out for this layout, or null; blocks do not overlap, and
// `dealloc` passes back pointer and layout as it got them. The lock makes each call atomic. Nothing here unwinds.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut buddies = self.buddies.lock();
        let allocated = match buddies.alloc(layout) {
            Err(()) if Self::grow(&mut buddies, layout) => buddies.alloc(layout),
            result => result,
        };
        allocated.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: by the caller's contract `alloc` returned the pointer for this layout.
            unsafe { self.buddies.lock().dealloc(pointer, layout) };
        }
    }
}

#[cfg(target_os = "none")]
#[global_allocator]
static HEAP: Heap = Heap::new();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::testing;

    #[test]
    fn the_heap_grows_by_frames_and_reuses_them() {
        testing::machine(8);
        let heap = Heap::new();
        let layout = Layout::from_size_align(4096, 64).unwrap();
        let free = memory().free_count();
        // SAFETY: a layout of non-zero size.
        let first = unsafe { heap.alloc(layout) };
        assert!(!first.is_null() && first.addr() % 64 == 0);
        assert_eq!(free.get() - memory().free_count().get(), 512);
        // SAFETY: as allocated above.
        unsafe { heap.dealloc(first, layout) };
        for _ in 0..1000 {
            // SAFETY: a layout of non-zero size.
            let again = unsafe { heap.alloc(layout) };
            assert!(!again.is_null());
            // SAFETY: as allocated above.
            unsafe { heap.dealloc(again, layout) };
        }
        assert_eq!(free.get() - memory().free_count().get(), 512, "freed memory was not used again");
    }

    #[test]
    fn the_heap_serves_more_than_its_step_and_says_no_at_the_end() {
        testing::machine(16);
        let heap = Heap::new();
        let large = Layout::from_size_align(5 << 20, 8).unwrap();
        // SAFETY: a layout of non-zero size.
        assert!(!unsafe { heap.alloc(large) }.is_null());
        let huge = Layout::from_size_align(1 << 30, 8).unwrap();
        // SAFETY: a layout of non-zero size.
        assert!(unsafe { heap.alloc(huge) }.is_null());
    }
}
