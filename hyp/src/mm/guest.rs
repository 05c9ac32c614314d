//! Copies between EL2 and the virtual memory of the calling guest.
//!
//! A guest's pointer is an allegation. Each page is translated by the hardware as the guest itself would access it,
//! and copied while the domain's p2m is locked for reading: whoever takes a page away holds that lock for writing
//! until no TLB translates to the page any more, and only then lets the page go. What stage 2 maps to a domain and
//! the frame table calls `Ram` or `Shared` holds no Rust object, so a copy of it is harmless whatever it contains.
//!
//! A page on demand ([`crate::p2m`]) that such a copy needs gets its backing, and one that is watched its access flag, as if the
//! guest had touched it.
//!
//! Never called with the caller's own p2m locked.

use pv_abi::errno::Errno;
use stage2::{PAGE_SIZE, Pa};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::frame_table::State;
use super::memory;
use super::page::{self, PageRef};
use crate::arch::{self, Access};
use crate::hypercall::Caller;
use crate::p2m::{Batch, out_of_budget};

/// The bytes from an address to the end of its page.
#[inline]
fn to_page_end(address: u64) -> usize {
    (PAGE_SIZE - address % PAGE_SIZE) as usize
}

/// Backs the page at `address` if it is on demand; whether it is worth to try again. No p2m is locked.
#[cold]
#[inline(never)]
fn back(caller: &Caller<'_>, address: u64, access: Access) -> bool {
    let p2m = &caller.domain.p2m;
    // No answer also where a table of stage 1 itself is watched: that ends. Or where it is on demand: it is full of zeros
    // then, and leads nowhere.
    let stage1 = || arch::guest::stage1(address, access);
    let Some(ipa) = stage1().or_else(|| if p2m.end_sample() { stage1() } else { None }) else { return false };
    match p2m.back(ipa.gfn()) {
        Ok(true) => true,
        // It was watched, or another vCPU was first.
        Ok(false) => {
            p2m.touch(ipa.gfn());
            p2m.allows(ipa.gfn(), access)
        }
        Err(_) => {
            out_of_budget(caller.domain, ipa.gfn());
            false
        }
    }
}

/// Translates, and makes sure that the result is memory of guests. The caller's p2m is locked.
#[inline]
fn translate(address: u64, access: Access) -> Result<Pa, Errno> {
    let pa = arch::guest::translate(address, access).map_err(|_| Errno::EFAULT)?;
    match memory().frame(pa.mfn()) {
        Some(frame) if State::is_guest_accessible(frame.state()) => Ok(pa),
        _ => Err(Errno::EFAULT),
    }
}

/// Reads a value. `EFAULT` where the guest could not.
#[inline(always)]
pub fn read<T: FromBytes + IntoBytes>(caller: &Caller<'_>, address: u64) -> Result<T, Errno> {
    if matches!(size_of::<T>(), 2 | 4 | 8) && address.is_multiple_of(size_of::<T>() as u64) {
        let bits = read_number(caller, address, size_of::<T>())?;
        return T::read_from_prefix(&bits.to_le_bytes()).map(|(value, _)| value).map_err(|_| Errno::EFAULT);
    }
    read_bytes(caller, address)
}

#[inline(never)]
fn read_bytes<T: FromBytes + IntoBytes>(caller: &Caller<'_>, address: u64) -> Result<T, Errno> {
    let mut value = T::new_zeroed();
    read_slice(caller, address, value.as_mut_bytes())?;
    Ok(value)
}

/// Reads a number of 2, 4 or 8 bytes, at a multiple of its size.
#[inline(always)]
fn read_number(caller: &Caller<'_>, address: u64, size: usize) -> Result<u64, Errno> {
    match read_number_once(caller, address, size) {
        Err(_) if back(caller, address, Access::Read) => read_number_once(caller, address, size),
        result => result,
    }
}

#[inline(always)]
fn read_number_once(caller: &Caller<'_>, address: u64, size: usize) -> Result<u64, Errno> {
    let _lock = caller.domain.p2m.lock_for_copy();
    let pa = translate(address, Access::Read)?;
    // SAFETY: guest memory (`translate`) that stays so under the p2m lock; aligned, so it does not leave the page.
    Ok(unsafe {
        match size {
            2 => u64::from(arch::phys::load_u16(pa)),
            4 => u64::from(arch::phys::load_u32(pa)),
            _ => arch::phys::load_u64(pa),
        }
    })
}

/// Writes a value. `EFAULT` where the guest could not; then a part may be written.
#[inline]
pub fn write<T: IntoBytes + Immutable>(caller: &Caller<'_>, address: u64, value: &T) -> Result<(), Errno> {
    write_slice(caller, address, value.as_bytes())
}

/// Reads bytes. `EFAULT` where the guest could not; then `to` holds a part of them.
#[inline]
pub fn read_slice(caller: &Caller<'_>, address: u64, to: &mut [u8]) -> Result<(), Errno> {
    with_backing(caller, address, Access::Read, || read_locked(address, to))
}

/// Copies with the caller's p2m locked, again for each page on demand that stops it. `copy` answers where it stopped.
#[inline]
fn with_backing(
    caller: &Caller<'_>,
    address: u64,
    access: Access,
    mut copy: impl FnMut() -> Result<(), u64>,
) -> Result<(), Errno> {
    let mut reached = None;
    loop {
        let lock = caller.domain.p2m.lock_for_copy();
        let Err(fault) = copy() else { return Ok(()) };
        drop(lock);
        let at = fault.wrapping_sub(address);
        // Further at each time: a guest that changes its mappings meanwhile cannot keep EL2 here.
        if reached.is_some_and(|reached| at <= reached) || !back(caller, fault, access) {
            return Err(Errno::EFAULT);
        }
        reached = Some(at);
    }
}

/// The same with the caller's p2m locked; where it stopped, if it did.
fn read_locked(address: u64, to: &mut [u8]) -> Result<(), u64> {
    let (mut address, mut to) = (address, to);
    while !to.is_empty() {
        let (part, rest) = to.split_at_mut(to_page_end(address).min(to.len()));
        let pa = translate(address, Access::Read).map_err(|_| address)?;
        // SAFETY: guest memory (`translate`) that stays so under the p2m lock; the range does not leave the page.
        unsafe { arch::phys::copy_from(pa, part) };
        address = address.wrapping_add(part.len() as u64);
        to = rest;
    }
    Ok(())
}

/// Writes bytes. `EFAULT` where the guest could not; then a part is written.
#[inline]
pub fn write_slice(caller: &Caller<'_>, address: u64, from: &[u8]) -> Result<(), Errno> {
    with_backing(caller, address, Access::Write, || write_locked(address, from))
}

fn write_locked(address: u64, from: &[u8]) -> Result<(), u64> {
    let (mut address, mut from) = (address, from);
    while !from.is_empty() {
        let (part, rest) = from.split_at(to_page_end(address).min(from.len()));
        let pa = translate(address, Access::Write).map_err(|_| address)?;
        // SAFETY: guest memory (`translate`) that stays so under the p2m lock; the range does not leave the page.
        unsafe { arch::phys::copy_to(pa, part) };
        address = address.wrapping_add(part.len() as u64);
        from = rest;
    }
    Ok(())
}

/// A reference to the page at a virtual address that the guest may write, for as long as it pleases: one of its own, for
/// what others lend it they can take back. `EFAULT` otherwise.
pub fn page(caller: &Caller<'_>, address: u64) -> Result<PageRef, Errno> {
    let once = || {
        let lock = caller.domain.p2m.lock_for_copy();
        let pa = translate(address, Access::Write)?;
        page::get(pa.mfn(), caller.domain.id, &lock).map_err(|_| Errno::EFAULT)
    };
    match once() {
        Err(_) if back(caller, address, Access::Write) => once(),
        result => result,
    }
}

/// Reads up to `to.len()` consecutive values; how many were read before the first that the guest could not read.
pub fn read_array<T: FromBytes + IntoBytes>(caller: &Caller<'_>, address: u64, to: &mut [T]) -> usize {
    if read_slice(caller, address, to.as_mut_bytes()).is_ok() {
        return to.len();
    }
    let _lock = caller.domain.p2m.lock_for_copy();
    read_array_locked(address, to)
}

/// The same in the middle of a batch of changes to the caller's own p2m, which is locked then: so nothing on demand gets
/// backing. A page that the batch unmapped is not yet free, so it holds no Rust object either.
pub fn read_array_in_batch<T: FromBytes + IntoBytes>(
    _batch: &Batch<'_>,
    address: u64,
    to: &mut [T],
) -> usize {
    read_array_locked(address, to)
}

fn read_array_locked<T: FromBytes + IntoBytes>(address: u64, to: &mut [T]) -> usize {
    if read_locked(address, to.as_mut_bytes()).is_ok() {
        return to.len();
    }
    let mut address = address;
    for (done, value) in to.iter_mut().enumerate() {
        if read_locked(address, value.as_mut_bytes()).is_err() {
            return done;
        }
        address = address.wrapping_add(size_of::<T>() as u64);
    }
    to.len()
}
