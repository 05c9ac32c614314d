//! The run-state area: where a guest reads how long its vCPU ran, waited and slept (`VCPUOP_register_runstate_memory_area`).
//!
//! Written when the vCPU is about to run, so that what the guest reads is as of then. With `VMASST_TYPE_runstate_update_flag`
//! the top bit of `state_entry_time` is set meanwhile, so that other vCPUs can tell.

use alloc::sync::Arc;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use crate::sync::TicketMutex;
use pv_abi::Errno;
use pv_abi::vcpu::{RunstateInfo, XEN_RUNSTATE_UPDATE};
use pv_abi::vm_assist::Type;
use stage2::PAGE_SIZE;
use zerocopy::IntoBytes;

use crate::domain::Domain;
use crate::hypercall::Caller;
use crate::mm::guest;
use crate::mm::page::PageRef;
use crate::sched;
use crate::time::Nanoseconds;
use crate::vcpu::Vcpu;

const SIZE: usize = size_of::<RunstateInfo>();

/// Where a vCPU's area is: within one page or across two.
pub struct Area(TicketMutex<Option<Place>>);

struct Place {
    first: PageRef,
    offset: usize,
    second: Option<PageRef>,
}

impl Area {
    /// Nowhere.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(TicketMutex::new(None))
    }
}

/// Forgets where the area of a vCPU is that goes away.
pub fn forget(vcpu: &Vcpu) {
    let place = vcpu.runstate.0.lock().take();
    drop(place);
}

/// Registers the area at the guest virtual address `address`; 0 takes it away.
pub fn register(caller: &Caller<'_>, vcpu: &Arc<Vcpu>, address: u64) -> Result<(), Errno> {
    if address == 0 {
        *vcpu.runstate.0.lock() = None;
        return Ok(());
    }
    if !address.is_multiple_of(size_of::<u64>() as u64) {
        return Err(Errno::EINVAL);
    }
    let offset = (address % PAGE_SIZE) as usize;
    let first = guest::page(caller, address)?;
    let second = if offset + SIZE > PAGE_SIZE as usize {
        Some(guest::page(caller, address.wrapping_add(PAGE_SIZE - offset as u64))?)
    } else {
        None
    };
    *vcpu.runstate.0.lock() = Some(Place { first, offset, second });
    update(caller.domain, vcpu);
    Ok(())
}

/// `register` made sure that the area lies within its pages, so a copy cannot leave them.
fn fits(copied: Result<(), Errno>) {
    debug_assert!(copied.is_ok());
}

impl Place {
    fn write(&self, at: usize, bytes: &[u8]) {
        let at = self.offset + at;
        let room = (PAGE_SIZE as usize).saturating_sub(at);
        if bytes.len() <= room {
            fits(self.first.copy_in(at, bytes));
        } else if let Some(second) = &self.second {
            if room != 0 {
                fits(self.first.copy_in(at, &bytes[..room]));
            }
            fits(second.copy_in(at.saturating_sub(PAGE_SIZE as usize), &bytes[room..]));
        }
    }
}

/// Brings a vCPU's area up to date.
pub fn update(domain: &Domain, vcpu: &Arc<Vcpu>) {
    let place = vcpu.runstate.0.lock();
    let Some(place) = place.as_ref() else { return };
    let run = sched::runstate(vcpu);
    let entered = Nanoseconds::from_ticks(run.entered.get()).get();
    let with_flag = domain.vm_assist.load(Ordering::Relaxed) & 1 << Type::RunstateUpdateFlag as u32 != 0;
    let entry = offset_of!(RunstateInfo, state_entry_time);
    if with_flag {
        place.write(entry, (entered | XEN_RUNSTATE_UPDATE).as_bytes());
        core::sync::atomic::fence(Ordering::SeqCst);
    }
    let info = RunstateInfo {
        state: run.phase as i32,
        state_entry_time: if with_flag { entered | XEN_RUNSTATE_UPDATE } else { entered },
        time: run.spent.map(Nanoseconds::get),
        ..RunstateInfo::default()
    };
    place.write(0, info.as_bytes());
    if with_flag {
        core::sync::atomic::fence(Ordering::SeqCst);
        place.write(entry, entered.as_bytes());
    }
}
