//! The 2-level ABI: a bitmap of pending ports and one of masked ports in the shared page, a selector in each vCPU's area.
//!
//! ```text
//!   pending[64 words] ──▶ unless in mask[] ──▶ vcpu_info: pending_sel ──▶ upcall_pending ──▶ interrupt
//! ```
//! The order of the steps is the ABI (Linux `drivers/xen/events/events_2l.c` relies on it): set pending, *then* look at
//! the mask; the guest clears the mask, *then* looks at pending. The accesses are acquire-release read-modify-writes
//! and acquire loads, which AArch64 keeps in program order (DDI 0487 B2.3, "Barrier-ordered-before").
#![forbid(unsafe_code)]

use core::mem::offset_of;

use pv_abi::event_channel::Port;
use pv_abi::xen::SharedInfo;

use super::channels::InfoPlace;
use crate::mm::page::PageRef;

const PENDING: usize = offset_of!(SharedInfo, evtchn_pending);
const MASK: usize = offset_of!(SharedInfo, evtchn_mask);

/// Byte offset of a port's word within a bitmap, and the port's bit in it.
#[inline]
const fn place(port: Port) -> (usize, u64) {
    (((port / 64) % 64) as usize * 8, 1 << (port % 64))
}

/// Makes a port pending. True if it was not.
#[inline]
pub(super) fn set_pending(shared: &PageRef, port: Port) -> bool {
    let (word, bit) = place(port);
    shared.fetch_or_u64(PENDING + word, bit) & bit == 0
}

#[inline]
pub(super) fn is_masked(shared: &PageRef, port: Port) -> bool {
    let (word, bit) = place(port);
    shared.read_u64(MASK + word) & bit != 0
}

pub(super) fn is_pending(shared: &PageRef, port: Port) -> bool {
    let (word, bit) = place(port);
    shared.read_u64(PENDING + word) & bit != 0
}

pub(super) fn clear_pending(shared: &PageRef, port: Port) {
    let (word, bit) = place(port);
    shared.fetch_and_u64(PENDING + word, !bit);
}

/// Points a vCPU at a pending, unmasked port. True if the upcall must be raised.
pub(super) fn notify(info: InfoPlace<'_>, port: Port) -> bool {
    info.select(port / 64) && info.mark_upcall()
}

/// Unmasks a port. True if it was masked and is pending, so the vCPU must be pointed at it.
pub(super) fn unmask(shared: &PageRef, port: Port) -> bool {
    let (word, bit) = place(port);
    shared.fetch_and_u64(MASK + word, !bit) & bit != 0 && is_pending(shared, port)
}
