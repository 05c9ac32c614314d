//! Access to physical memory that holds no Rust object: guest pages, page tables, free frames.
//!
//! Every function is `unsafe` for one reason: the caller promises that `[pa, pa + len)` is RAM which no Rust
//! reference covers. EL2 maps all RAM at its physical address. A guest may write the same memory at any time,
//! so accesses are volatile or atomic, and nothing read is read twice.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use stage2::{Mfn, PAGE_SIZE, Pa, Pages};

use super::copy::copy_bytes;

macro_rules! scalar {
    ($($ty:ty, $atomic:ty: $load:ident $store:ident $or:ident $and:ident $cas:ident;)*) => { $(
        /// Loads (acquire) a naturally aligned value.
        ///
        /// # Safety
        /// See the module.
        #[inline]
        pub unsafe fn $load(pa: Pa) -> $ty {
            // SAFETY: the caller's promise; all concurrent accesses are atomic or the guest's.
            unsafe { <$atomic>::from_ptr(pa.raw() as *mut $ty) }.load(Ordering::Acquire)
        }
        /// Stores (release) a naturally aligned value.
        ///
        /// # Safety
        /// See the module.
        #[inline]
        pub unsafe fn $store(pa: Pa, value: $ty) {
            // SAFETY: the caller's promise; all concurrent accesses are atomic or the guest's.
            unsafe { <$atomic>::from_ptr(pa.raw() as *mut $ty) }.store(value, Ordering::Release);
        }
        /// Sets `bits` atomically; returns the old value.
        ///
        /// # Safety
        /// See the module.
        #[inline]
        pub unsafe fn $or(pa: Pa, bits: $ty) -> $ty {
            // SAFETY: the caller's promise; all concurrent accesses are atomic or the guest's.
            unsafe { <$atomic>::from_ptr(pa.raw() as *mut $ty) }.fetch_or(bits, Ordering::AcqRel)
        }
        /// Keeps only `bits` atomically; returns the old value.
        ///
        /// # Safety
        /// See the module.
        #[inline]
        pub unsafe fn $and(pa: Pa, bits: $ty) -> $ty {
            // SAFETY: the caller's promise; all concurrent accesses are atomic or the guest's.
            unsafe { <$atomic>::from_ptr(pa.raw() as *mut $ty) }.fetch_and(bits, Ordering::AcqRel)
        }
        /// Replaces `old` by `new` atomically; the value found otherwise.
        ///
        /// # Safety
        /// See the module.
        #[inline]
        pub unsafe fn $cas(pa: Pa, old: $ty, new: $ty) -> Result<$ty, $ty> {
            // SAFETY: the caller's promise; all concurrent accesses are atomic or the guest's.
            unsafe { <$atomic>::from_ptr(pa.raw() as *mut $ty) }
                .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
        }
    )* };
}
scalar! {
    u8, AtomicU8: load_u8 store_u8 fetch_or_u8 fetch_and_u8 compare_exchange_u8;
    u16, AtomicU16: load_u16 store_u16 fetch_or_u16 fetch_and_u16 compare_exchange_u16;
    u32, AtomicU32: load_u32 store_u32 fetch_or_u32 fetch_and_u32 compare_exchange_u32;
    u64, AtomicU64: load_u64 store_u64 fetch_or_u64 fetch_and_u64 compare_exchange_u64;
}

/// Copies out of physical memory; the range must not cross a page.
///
/// # Safety
/// See the module.
#[inline]
pub unsafe fn copy_from(pa: Pa, to: &mut [u8]) {
    // SAFETY: the source is RAM by the caller's promise, and `to` is a Rust object, so they do not overlap.
    unsafe { copy_bytes(to.as_mut_ptr(), pa.raw() as *const u8, to.len()) };
}

/// Copies into physical memory; the range must not cross a page.
///
/// # Safety
/// See the module.
#[inline]
pub unsafe fn copy_to(pa: Pa, from: &[u8]) {
    // SAFETY: the target is RAM by the caller's promise, and `from` is a Rust object, so they do not overlap.
    unsafe { copy_bytes(pa.raw() as *mut u8, from.as_ptr(), from.len()) };
}

/// Copies `len` bytes between two places of physical memory, neither crossing a page.
///
/// # Safety
/// See the module; for both ranges.
#[inline]
pub unsafe fn copy(to: Pa, from: Pa, len: usize) {
    let (to, from) = (to.raw() as *mut u8, from.raw() as *const u8);
    if to.addr().abs_diff(from.addr()) >= len {
        // SAFETY: the caller's promise, and they do not overlap.
        unsafe { copy_bytes(to, from, len) };
    } else {
        // SAFETY: the caller's promise; `copy` allows overlap.
        unsafe { core::ptr::copy(from, to, len) };
    }
}

/// Clears whole pages, as the caches see them.
///
/// # Safety
/// See the module.
#[inline]
pub unsafe fn clear_pages(first: Mfn, count: Pages) {
    let block = zva_block();
    let start = first.pa().raw();
    let end = start + count.get() * PAGE_SIZE;
    // A page holds a multiple of eight blocks at any size up to 512 bytes; 2 KiB, the largest that DCZID_EL0 can name, is
    // not made, and then the plain way below is taken, as where DC ZVA is prohibited.
    if block == 0 || block > 512 {
        // SAFETY: the caller's promise.
        unsafe { core::ptr::write_bytes(start as *mut u8, 0, (end - start) as usize) };
        return;
    }
    let mut at = start;
    while at < end {
        // SAFETY: eight blocks from `at` lie in the range by the sizes above; DC ZVA writes only those.
        unsafe {
            core::arch::asm!(
                ".rept  8", "dc zva, {at}", "add {at}, {at}, {block}", ".endr",
                at = inout(reg) at, block = in(reg) block, options(nostack)
            );
        }
    }
}

/// Clears whole pages, down to RAM: afterwards no cache holds a line of them. Line by line, so that each is written back
/// while it is at hand; the two operations on one line take effect in program order (DDI 0487 D7.5.9).
///
/// # Safety
/// See the module.
#[inline]
pub unsafe fn clear_pages_to_ram(first: Mfn, count: Pages) {
    const LINE: u64 = 64;
    if zva_block() != LINE || line() != LINE {
        // SAFETY: the caller's promise.
        unsafe { clear_pages(first, count) };
        clean_invalidate(first.pa(), (count.get() * PAGE_SIZE) as usize);
        return;
    }
    let mut at = first.pa().raw();
    let end = at + count.get() * PAGE_SIZE;
    while at < end {
        // SAFETY: sixteen lines from `at` lie in the range, whose size is a multiple of that; DC ZVA writes only those.
        // DC CIVAC and not CVAC: Cortex-A53 819472, 824069, 826319, 827319.
        unsafe {
            core::arch::asm!(
                ".rept  16", "dc zva, {at}", "dc civac, {at}", "add {at}, {at}, #64", ".endr",
                at = inout(reg) at, options(nostack)
            );
        }
    }
    // SAFETY: a barrier: the lines have arrived before anybody is told of the memory.
    unsafe { core::arch::asm!("dsb sy", options(nostack)) };
}

/// Bytes that DC ZVA clears, or 0 where it is prohibited (DCZID_EL0).
#[inline]
fn zva_block() -> u64 {
    let dczid: u64;
    // SAFETY: reads an identification register.
    unsafe { core::arch::asm!("mrs {}, dczid_el0", out(reg) dczid, options(nomem, nostack, pure)) };
    if dczid & 0x10 != 0 { 0 } else { 4 << (dczid & 0xf) }
}

/// Bytes of the smallest data cache line on the way to the point of coherency (CTR_EL0.DminLine).
#[inline]
fn line() -> u64 {
    let ctr: u64;
    // SAFETY: reads an identification register.
    unsafe { core::arch::asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, pure)) };
    4 << (ctr >> 16 & 0xf)
}

/// What the boot loader put in memory, as bytes.
///
/// # Safety
/// The range is RAM that nobody writes as long as the slice is used.
pub unsafe fn boot_module(start: Pa, size: usize) -> &'static [u8] {
    // SAFETY: the caller's promise; EL2 maps RAM at its physical address.
    unsafe { core::slice::from_raw_parts(start.raw() as *const u8, size) }
}

/// Pages as memory for Rust objects, zeroed.
///
/// # Safety
/// The pages are RAM that nobody else refers to, now or later.
pub unsafe fn zeroed_storage(first: Mfn, count: Pages) -> core::ptr::NonNull<u8> {
    // SAFETY: the caller's promise.
    unsafe { clear_pages(first, count) };
    // SAFETY: RAM never begins at address 0 here, since frame 0 is reserved or absent.
    unsafe { core::ptr::NonNull::new_unchecked(first.pa().raw() as *mut u8) }
}

/// The first of the pages that [`zeroed_storage`] made to be there. RAM is mapped at its own address.
pub fn frame_of_storage(storage: core::ptr::NonNull<u8>) -> Option<Mfn> {
    Some(Pa::new(storage.as_ptr().addr() as u64).mfn())
}

/// Cleans and invalidates the data cache over a range, to the point of coherency (DDI 0487 D7.5.9): for memory that
/// somebody will read or write with caches off. Not only cleans: Cortex-A53 819472, 824069, 826319, 827319 want both.
pub fn clean_invalidate(pa: Pa, len: usize) {
    let line = line();
    let mut at = pa.raw() & !(line - 1);
    let end = pa.raw() + len as u64;
    while end.saturating_sub(at) >= 8 * line {
        // SAFETY: maintenance by address of mapped RAM, eight lines of the range; contents do not change.
        unsafe {
            core::arch::asm!(
                ".rept 8", "dc civac, {at}", "add {at}, {at}, {line}", ".endr",
                at = inout(reg) at, line = in(reg) line, options(nostack)
            );
        }
    }
    while at < end {
        // SAFETY: as above, one line.
        unsafe { core::arch::asm!("dc civac, {}", in(reg) at, options(nostack)) };
        at += line;
    }
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("dsb sy", options(nostack)) };
}

/// Forgets all instructions that any CPU has fetched ahead (DDI 0487 B2.7.4.2): memory that was written as data and
/// cleaned is about to be executed.
pub fn invalidate_instructions() {
    // SAFETY: maintenance of caches that hold nothing but copies.
    unsafe { core::arch::asm!("dsb ish", "ic ialluis", "dsb ish", "isb", options(nostack)) };
}
