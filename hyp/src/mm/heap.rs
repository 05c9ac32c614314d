//! EL2's own heap: `buddy_system_allocator` over frames, which it takes two MiB at a time when it needs more.
//!
//! It gives them back when two MiB in a row and half as much besides are unused, so that a host whose domains are gone has
//! as much free memory as before them. Lock order: the heap is a leaf but for the frame allocator, which allocates nothing.

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::sync::TicketMutex;
use buddy_system_allocator::Heap as Buddies;
use pv_abi::errno::Errno;
use stage2::{BlockSize, Pages};

use super::block::Block;
use super::memory;
use crate::arch;

/// Blocks of up to 2^(ORDER-1) bytes.
const ORDER: usize = 32;
/// Bytes that [`ensure`] leaves. A vCPU needs some hundred at most: three deadlines and a place in a run queue.
const RESERVE: usize = 1 << 20;

const STEP_ORDER: u32 = BlockSize::Block2M.order();
/// What is taken and given back at once.
const STEP: usize = BlockSize::Block2M.bytes() as usize;
/// Unused bytes from which on a step is given back: what [`ensure`] then still finds is more than any call of the toolstack
/// asks for, or it would be taken again at once.
const TOO_MUCH: usize = STEP + RESERVE + RESERVE / 4;

/// The heap.
pub struct Heap {
    buddies: TicketMutex<Buddies<ORDER>>,
    /// Bytes that were given back: to the inner heap they are allocated for ever. Under the lock.
    given_back: AtomicUsize,
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl Heap {
    /// Without memory: it takes some at the first allocation, which must come after `mm::init`.
    pub const fn new() -> Self {
        Self { buddies: TicketMutex::new(Buddies::new()), given_back: AtomicUsize::new(0) }
    }

    /// Takes frames for at least `layout`. Returns whether there were any.
    fn grow(buddies: &mut Buddies<ORDER>, layout: Layout) -> bool {
        // A buddy heap rounds sizes up to a power of two.
        let bytes = layout.size().max(layout.align()).checked_next_power_of_two().unwrap_or(usize::MAX);
        let needed = Pages::covering_bytes(bytes as u64).get().max(1).ilog2();
        let Some(block) = memory().allocate(needed.max(STEP_ORDER)).or_else(|| memory().allocate(needed))
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

    /// Gives a step back, if one is unused as a whole and others would still be left enough.
    fn shrink(&self, buddies: &mut Buddies<ORDER>) {
        if buddies.stats_total_bytes() - buddies.stats_alloc_actual() < TOO_MUCH {
            return;
        }
        let whole = Layout::from_size_align(STEP, STEP).ok().and_then(|layout| buddies.alloc(layout).ok());
        if let Some(mfn) = whole.and_then(arch::phys::frame_of_storage) {
            // Its dirty lines must not be written back over what a guest writes past the caches: who gets the frames need
            // not clear them (`Block::give_as_found`).
            arch::phys::clean_invalidate(mfn.pa(), STEP);
            // SAFETY: the frames came from `grow`, naturally aligned; the inner heap gave them out just now, and nobody
            // uses them.
            drop(unsafe { Block::from_hypervisor(mfn, STEP_ORDER) });
            self.given_back.fetch_add(STEP, Ordering::Relaxed);
        }
    }

    /// Bytes in use, and bytes there are.
    fn usage(&self) -> (usize, usize) {
        let buddies = self.buddies.lock();
        let given_back = self.given_back.load(Ordering::Relaxed);
        (buddies.stats_alloc_actual() - given_back, buddies.stats_total_bytes() - given_back)
    }

    /// Whether `bytes` more can be had and the reserve is left; takes frames for that.
    pub fn has_room(&self, bytes: usize) -> bool {
        let needed = bytes.checked_next_power_of_two().unwrap_or(usize::MAX).saturating_add(RESERVE);
        let mut buddies = self.buddies.lock();
        buddies.stats_total_bytes() - buddies.stats_alloc_actual() >= needed
            || Layout::from_size_align(needed, 1).is_ok_and(|layout| Self::grow(&mut buddies, layout))
    }
}

/// Bytes in use, and bytes there are.
pub fn usage() -> (usize, usize) {
    #[cfg(target_os = "none")]
    let usage = HEAP.usage();
    #[cfg(not(target_os = "none"))]
    let usage = Heap::new().usage();
    usage
}

/// Says whether `bytes` can be allocated with the reserve left for what cannot fail. `ENOMEM` if not.
pub fn ensure(bytes: usize) -> Result<(), Errno> {
    #[cfg(target_os = "none")]
    let has_room = HEAP.has_room(bytes);
    #[cfg(not(target_os = "none"))]
    let has_room = !machine_is_full().load(core::sync::atomic::Ordering::Relaxed) || bytes == 0;
    if has_room { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Makes room for `more` elements, as [`ensure`] allows. `ENOMEM`.
pub fn reserve<T>(list: &mut Vec<T>, more: usize) -> Result<(), Errno> {
    if list.capacity() - list.len() >= more {
        return Ok(());
    }
    // A vector grows to twice its size at least.
    let elements = (list.len().saturating_add(more)).max(list.capacity().saturating_mul(2));
    ensure(elements.saturating_mul(size_of::<T>()))?;
    list.try_reserve(more).map_err(|_| Errno::ENOMEM)
}

#[cfg(not(target_os = "none"))]
arch::machine_static! {
    /// Whether a test says that there is no memory left for [`ensure`].
    pub machine_is_full: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false)
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
            let mut buddies = self.buddies.lock();
            // SAFETY: by the caller's contract `alloc` returned the pointer for this layout.
            unsafe { buddies.dealloc(pointer, layout) };
            self.shrink(&mut buddies);
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
    fn what_may_fail_leaves_a_reserve_for_what_may_not() {
        testing::machine(4);
        let heap = Heap::new();
        assert!(heap.has_room(4096));
        let page = Layout::from_size_align(4096, 8).unwrap();
        let mut taken = 0;
        while heap.has_room(4096) {
            // SAFETY: a layout of non-zero size.
            assert!(!unsafe { heap.alloc(page) }.is_null());
            taken += 4096;
        }
        assert!(taken <= (4 << 20) - RESERVE);
        for _ in 0..RESERVE / 4096 - 1 {
            // SAFETY: a layout of non-zero size.
            assert!(!unsafe { heap.alloc(page) }.is_null());
        }
    }

    #[test]
    fn frames_that_nobody_uses_any_more_are_given_back() {
        testing::machine(32);
        let heap = Heap::new();
        let layout = Layout::from_size_align(64 << 10, 64).unwrap();
        // SAFETY: a layout of non-zero size.
        let first = unsafe { heap.alloc(layout) };
        let (free, usage) = (memory().free_count(), heap.usage());
        for _ in 0..3 {
            arch::phys::take_cleaned();
            // SAFETY: as above.
            let more: Vec<_> = (0..100).map(|_| unsafe { heap.alloc(layout) }).collect();
            assert!(memory().free_count() < free && heap.usage().0 > usage.0);
            let taken = free.saturating_sub(memory().free_count());
            for pointer in more {
                // SAFETY: as allocated above.
                unsafe { heap.dealloc(pointer, layout) };
            }
            assert_eq!((memory().free_count(), heap.usage()), (free, usage));
            assert_eq!(Some(arch::phys::take_cleaned()), taken.bytes(), "freed with lines in a cache");
        }
        // SAFETY: as allocated above.
        unsafe { heap.dealloc(first, layout) };
        assert_eq!(memory().free_count(), free, "one step stays");
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
