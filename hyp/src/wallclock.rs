//! The wall clock: what dom0 says the time is, shown to every domain in its `shared_info`.
//!
//! `shared_info.wc_*` is the wall-clock time at which system time was zero; a guest adds its system time.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::domain::{self, Domain};
use crate::time::Nanoseconds;
use pv_abi::domid::DomId;
use pv_abi::xen::SharedInfo;

/// Nanoseconds since 1970 at system time zero; 0 until dom0 has spoken.
static BASE: AtomicU64 = AtomicU64::new(0);

const SECOND: u64 = 1_000_000_000;

/// It is `seconds` and `nanoseconds` since 1970 at `system_time`.
pub fn set(seconds: u64, nanoseconds: u32, system_time: Nanoseconds) {
    let wall = seconds.saturating_mul(SECOND).saturating_add(nanoseconds.into());
    BASE.store(wall.saturating_sub(system_time.get()), Ordering::Relaxed);
    let mut next = DomId::DOM0;
    while let Some(domain) = domain::first_from(next) {
        show(&domain);
        next = DomId::new(domain.id.raw().saturating_add(1));
    }
}

/// Writes the time into a domain's `shared_info`. `wc_version` is odd meanwhile, as the header prescribes.
pub fn show(domain: &Domain) {
    use core::mem::offset_of;
    // A domain's system time begins when it was made.
    let base = BASE
        .load(Ordering::Relaxed)
        .saturating_add(Nanoseconds::from_ticks(domain.counter_offset).get())
        .saturating_add_signed(
            domain.time_offset.load(Ordering::Relaxed).saturating_mul(SECOND.cast_signed()),
        );
    let Ok(page) = domain.shared_info() else { return };
    let version = page.read_u32(offset_of!(SharedInfo, wc_version)) | 1;
    page.write_u32(offset_of!(SharedInfo, wc_version), version);
    let seconds = base / SECOND;
    page.write_u32(offset_of!(SharedInfo, wc_sec), seconds as u32);
    page.write_u32(offset_of!(SharedInfo, wc_sec_hi), (seconds >> 32) as u32);
    page.write_u32(offset_of!(SharedInfo, wc_nsec), (base % SECOND) as u32);
    page.write_u32(offset_of!(SharedInfo, wc_version), version.wrapping_add(1));
}
