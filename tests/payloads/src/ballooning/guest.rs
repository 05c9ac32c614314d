//! What the balloon needs of the payload: hypercalls, XenStore's ring, an event.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use balloon::store::{self, Index};

use super::pool::{PAGE, Pool};
use crate::hypercall::{hypercall, scalar, with_struct};
use crate::xen::memory::{ADD_TO_PHYSMAP, AddToPhysmap, MAPSPACE_SHARED_INFO};
use crate::xen::{DOMID_SELF, event_channel, hvm, op, sched};
use crate::{println, timer};

/// `VIRQ_ARCH_0`: Nacelle raises it when the target changed.
const VIRQ_ARCH_0: u32 = 16;
/// `XENMEM_NACELLE_COUNTERS`.
const COUNTERS: u64 = 62;
/// `evtchn_pending` in `struct shared_info`: after one `vcpu_info` of 64 bytes, as Arm has it.
const PENDING: u64 = 64;
/// How long to wait where there is no event.
const PAUSE_MS: u64 = 100;

#[repr(align(4096))]
struct Page([AtomicU64; 512]);
/// Where `shared_info` is shown.
static SHARED_INFO: Page = Page([const { AtomicU64::new(0) }; 512]);

/// A payload that has a balloon.
pub struct Guest {
    /// Its free memory.
    pub pool: Pool,
    /// The port of the event.
    port: Option<u32>,
    store: Option<StoreRing>,
}

impl Guest {
    /// A guest with that memory: asks for the event, and looks for XenStore.
    pub fn new(pool: Pool) -> Self {
        // evtchn_bind_virq: virq, processor, port.
        let mut bind = [VIRQ_ARCH_0, 0, 0];
        // SAFETY: the structure holds no address.
        let bound = unsafe { with_struct(op::EVENT_CHANNEL_OP, event_channel::BIND_VIRQ, &mut bind) } == 0;
        let mut place = AddToPhysmap {
            domid: DOMID_SELF,
            space: MAPSPACE_SHARED_INFO,
            gpfn: &raw const SHARED_INFO as u64 / PAGE,
            ..AddToPhysmap::default()
        };
        // SAFETY: the page is only accessed by atomics, whoever else writes to it.
        let shown = unsafe { with_struct(op::MEMORY_OP, ADD_TO_PHYSMAP, &mut place) } == 0;
        Self { pool, port: (bound && shown).then_some(bind[2]), store: StoreRing::find() }
    }

    /// Until the target may have changed.
    pub fn wait(&mut self) {
        let Some(port) = self.port.filter(|_| self.store.as_ref().is_none_or(|store| !store.is_needed))
        else {
            let start = timer::ticks();
            while timer::nanoseconds(timer::ticks() - start) < PAUSE_MS * 1_000_000 {
                scalar(op::SCHED_OP, sched::YIELD, 0);
            }
            return;
        };
        // sched_poll: ports, their number, time out (0: none).
        let ports = [port];
        let mut poll = [ports.as_ptr() as u64, 1, 0];
        // SAFETY: the list is only read.
        unsafe { with_struct(op::SCHED_OP, sched::POLL, &mut poll) };
        SHARED_INFO.0[(PENDING / 8) as usize].fetch_and(!(1 << port), Ordering::AcqRel);
    }

    /// Reads a number from XenStore, by a path that is relative to the guest's own directory.
    pub fn read_number(&mut self, path: &str) -> Option<u64> {
        store::read_number(self.store.as_mut()?, path)
    }

    /// Sets a node of XenStore; whether that was done.
    pub fn write(&mut self, path: &str, value: &[u8]) -> bool {
        self.store.as_mut().is_some_and(|store| store::write(store, path, value))
    }

    /// Prints how the memory is mapped, where the hypervisor tells.
    pub fn report(&self) {
        let mut counters = [0u64; 12];
        counters[0] = DOMID_SELF.into();
        // SAFETY: the structure holds no address.
        if unsafe { with_struct(op::MEMORY_OP, COUNTERS, &mut counters) } == 0 {
            let [_, pages, blocks, _, on_demand, reserved, _, faults, splits, merges, invalidations, _] =
                counters;
            println!(
                "balloon: {pages} pages, {blocks} blocks of 2 MiB, {on_demand} on demand, {reserved} reserved, {faults} faults, \
                 {splits} splits, {merges} merges, {invalidations} invalidations"
            );
        }
    }
}

impl balloon::Guest for Guest {
    fn reserve(&mut self, op: balloon::Op, frames: &[u64], order: u32) -> i64 {
        let mut reservation = balloon::reservation(frames, order);
        // SAFETY: only pages of the pool are given or taken, and the list is only read.
        unsafe { hypercall(op::MEMORY_OP, [op.raw().into(), &raw mut reservation as u64, 0, 0, 0]) }
    }

    fn memory_target(&mut self, op: balloon::Op, target: &mut balloon::PodTarget) -> i64 {
        // SAFETY: the structure holds no address.
        unsafe { with_struct(op::MEMORY_OP, op.raw().into(), target) }
    }

    fn take(&mut self, order: u32) -> Option<u64> {
        self.pool.take(order)
    }

    fn put(&mut self, frame: u64, order: u32) {
        self.pool.put(frame, order);
    }

    fn store_number(&mut self, node: &str) -> Option<u64> {
        let store = self.store.as_mut()?;
        store.is_needed = true;
        store::read_number(store, node)
    }
}

/// The page shared with xenstored. `console::init` made it memory, as it is beside the console's.
struct StoreRing {
    page: u64,
    port: u32,
    /// The target comes from there.
    is_needed: bool,
}

impl StoreRing {
    fn find() -> Option<Self> {
        let parameter = |index| {
            let mut parameter = hvm::Param { domid: DOMID_SELF, index, value: 0 };
            // SAFETY: the hypervisor writes the value into the structure, nothing else.
            let result = unsafe { with_struct(op::HVM_OP, hvm::GET_PARAM, &mut parameter) };
            if result == 0 { parameter.value } else { 0 }
        };
        let (page, port) = (parameter(hvm::STORE_PFN) * PAGE, parameter(hvm::STORE_EVTCHN));
        // What is unset is 0 or, in old releases, all ones.
        let usable = page != 0 && page >> 48 == 0 && port != 0;
        usable.then_some(Self { page, port: port as u32, is_needed: false })
    }

    fn at_index(&self, which: Index) -> &AtomicU32 {
        // SAFETY: within the page, which stays mapped and is only accessed by atomics.
        unsafe { AtomicU32::from_ptr((self.page + which as u64) as *mut u32) }
    }

    fn at_byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: as above; the rings' offsets are below 2048.
        unsafe { AtomicU8::from_ptr((self.page + offset as u64 % PAGE) as *mut u8) }
    }
}

impl store::Ring for StoreRing {
    fn index(&mut self, which: Index) -> u32 {
        self.at_index(which).load(Ordering::Acquire)
    }
    fn set_index(&mut self, which: Index, value: u32) {
        self.at_index(which).store(value, Ordering::Release);
    }
    fn byte(&mut self, offset: usize) -> u8 {
        self.at_byte(offset).load(Ordering::Relaxed)
    }
    fn set_byte(&mut self, offset: usize, value: u8) {
        self.at_byte(offset).store(value, Ordering::Relaxed);
    }
    fn notify(&mut self) {
        let mut port = self.port;
        // SAFETY: the structure holds no address.
        unsafe { with_struct(op::EVENT_CHANNEL_OP, event_channel::SEND, &mut port) };
    }
    fn wait(&mut self) -> bool {
        scalar(op::SCHED_OP, sched::YIELD, 0);
        true
    }
}
