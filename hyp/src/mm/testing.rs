//! A machine with memory, for tests: a thread's own, so that tests run side by side.

use stage2::{Geometry, Pa, Pages};

use super::{MemoryRange, init, memory};
use crate::p2m::{P2m, P2mConfig};
use pv_abi::domid::DomId;

/// Where the RAM of [`machine`] begins.
pub const RAM: Pa = Pa::new(0x4000_0000);

/// Gives this thread's machine `mib` MiB of RAM in one bank.
pub fn machine(mib: u64) {
    machine_with(&[MemoryRange { start: RAM, pages: Pages::new(mib << 8) }], &[]);
}

/// Gives this thread's machine these banks.
pub fn machine_with(banks: &[MemoryRange], reserved: &[MemoryRange]) {
    // SAFETY: the fake machine's memory is made when touched and used by this module alone.
    unsafe { init(banks, reserved) }.unwrap();
    assert!(!memory().free_count().is_zero());
}

/// An empty address space of 40 bits.
pub fn p2m(owner: DomId, is_direct_mapped: bool) -> P2m {
    let geometry = Geometry::new(40).unwrap();
    P2m::new(&P2mConfig { owner, is_direct_mapped, geometry, table_limit: Pages::new(1 << 20) }).unwrap()
}
