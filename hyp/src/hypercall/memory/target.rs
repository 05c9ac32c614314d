//! `XENMEM_set_pod_target`, `XENMEM_get_pod_target`: what a domain is to have. And how it has it ([`counters`]), and
//! uses it ([`working_set`]).
//!
//! Xen has the two for x86's populate-on-demand. Here they are for every domain: the control domain sets a target, which
//! is promised to the domain ([`crate::mm::account`]) and announced to it by `VIRQ_ARCH_0`.

use pv_abi::domid::DomId;
use pv_abi::errno::Errno;
use pv_abi::memory::PodTarget;
use pv_abi::nacelle::{MemoryCounters, WORKING_SET_MOST, WorkingSet};
use pv_abi::xen::Virq;
use stage2::Pages;

use super::super::Caller;
use super::Progress;
use crate::arch;
use crate::domain::Domain;
use crate::event;
use crate::mm::guest;
use crate::privilege::{self, Action};

/// Sets the target; 0 withdraws it.
#[inline(never)]
pub(super) fn set(caller: &Caller<'_>, argument: u64) -> Result<i64, Errno> {
    let request: PodTarget = guest::read(caller, argument)?;
    let target = privilege::subject(caller, Action::Claim, request.domid)?;
    let before = target.pages.target();
    target.p2m.set_target(Pages::new(request.target_pages))?;
    if target.pages.target() != before {
        event::send_global_virq(&target, Virq::Arch0);
    }
    answer(caller, argument, request.domid, &target)
}

/// Says what the target is, and how much of it the domain has.
#[inline(never)]
pub(super) fn get(caller: &Caller<'_>, argument: u64) -> Result<i64, Errno> {
    let request: PodTarget = guest::read(caller, argument)?;
    let target = privilege::subject(caller, Action::AskMemory, request.domid)?;
    answer(caller, argument, request.domid, &target)
}

fn answer(caller: &Caller<'_>, argument: u64, domid: DomId, target: &Domain) -> Result<i64, Errno> {
    let answer = PodTarget {
        target_pages: target.pages.target().get(),
        tot_pages: target.pages.current().get(),
        pod_cache_pages: target.pages.reserved().get(),
        pod_entries: target.p2m.statistics().on_demand,
        domid,
        _pad: [0; 3],
    };
    guest::write(caller, argument, &answer).map(|()| 0)
}

/// `XENMEM_NACELLE_COUNTERS`.
#[inline(never)]
pub(super) fn counters(caller: &Caller<'_>, argument: u64) -> Result<i64, Errno> {
    let MemoryCounters { domid, .. } = guest::read(caller, argument)?;
    let subject = privilege::subject(caller, Action::AskMemory, domid)?;
    let statistics = subject.p2m.statistics();
    let counters = MemoryCounters {
        domid,
        _pad: [0; 3],
        pages_4k: statistics.pages_4k,
        blocks_2m: statistics.blocks_2m,
        blocks_1g: statistics.blocks_1g,
        on_demand: statistics.on_demand,
        reserved: subject.pages.reserved().get(),
        claimed: subject.pages.claimed().get(),
        faults: subject.p2m.faults(),
        splits: statistics.splits,
        merges: statistics.merges,
        invalidations: statistics.invalidations,
        tables: statistics.tables,
    };
    guest::write(caller, argument, &counters).map(|()| 0)
}

/// `XENMEM_NACELLE_WORKING_SET`.
#[inline(never)]
pub(super) fn working_set(caller: &Caller<'_>, argument: u64, start: u64) -> Result<Progress, Errno> {
    let request: WorkingSet = guest::read(caller, argument)?;
    let subject = privilege::subject(caller, Action::Claim, request.domid)?;
    let p2m = &subject.p2m;
    if start == 0 {
        if request.watch > WORKING_SET_MOST {
            return Err(Errno::EINVAL);
        }
        p2m.begin_sample(request.watch as usize)?;
    }
    while p2m.sample_step() {
        if arch::interrupt_pending() {
            return Ok(Progress::Interrupted(1));
        }
    }
    let sample = p2m.sample();
    let answer = WorkingSet {
        domid: request.domid,
        _pad: [0; 3],
        watch: sample.watched,
        sampled: sample.sampled,
        touched: sample.touched,
        period: sample.period.get(),
        mapped: p2m.backed().get(),
        faults: p2m.flag_faults(),
    };
    guest::write(caller, argument, &answer).map(|()| Progress::Done(0))
}
