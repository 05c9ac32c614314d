//! A domain in one structure: `XEN_DOMCTL_getdomaininfo`, and each element of `XEN_SYSCTL_getdomaininfolist`.

use core::sync::atomic::Ordering;

use pv_abi::domctl::{
    GetDomainInfo, XEN_DOMINF_BLOCKED, XEN_DOMINF_DYING, XEN_DOMINF_HAP, XEN_DOMINF_HVM_GUEST,
    XEN_DOMINF_PAUSED, XEN_DOMINF_RUNNING, XEN_DOMINF_SHUTDOWN, XEN_DOMINF_SHUTDOWNMASK,
    XEN_DOMINF_SHUTDOWNSHIFT, XEN_DOMINF_XS_DOMAIN, XEN_INVALID_MAX_VCPU_ID,
};

use stage2::Gfn;

use crate::domain::Domain;
use crate::domain::life::Stage;
use crate::sched::{self, Phase, State};

/// Describes a domain as of now.
pub fn describe(domain: &Domain) -> GetDomainInfo {
    let mut flags = XEN_DOMINF_HVM_GUEST | XEN_DOMINF_HAP;
    let mut cpu_time = 0u64;
    let mut online = 0;
    let mut waiting = 0;
    for vcpu in domain.vcpus() {
        let run = sched::runstate(vcpu);
        cpu_time = cpu_time.wrapping_add(run.spent[Phase::Running as usize].get());
        match vcpu.sched.state() {
            State::Down => continue,
            State::Blocked => waiting += 1,
            State::Runnable => {}
            State::Running => flags |= XEN_DOMINF_RUNNING,
        }
        online += 1;
    }
    if online != 0 && waiting == online {
        flags |= XEN_DOMINF_BLOCKED;
    }
    if domain.life.stage() == Stage::Dead {
        flags |= XEN_DOMINF_DYING;
    }
    if domain.is_store {
        flags |= XEN_DOMINF_XS_DOMAIN;
    }
    if domain.pause_count.load(Ordering::Acquire) != 0 {
        flags |= XEN_DOMINF_PAUSED;
    }
    let reason = if domain.is_shut_down.load(Ordering::Acquire) {
        flags |= XEN_DOMINF_SHUTDOWN;
        domain.shutdown_code.load(Ordering::Relaxed) & XEN_DOMINF_SHUTDOWNMASK
    } else {
        // None, as Xen says it: also above the mask.
        u32::MAX
    };
    let highest = u32::try_from(domain.vcpus().len()).unwrap_or(0);
    GetDomainInfo {
        domain: domain.id,
        flags: flags | reason << XEN_DOMINF_SHUTDOWNSHIFT,
        tot_pages: domain.pages.current().get(),
        max_pages: domain.pages.maximum().get(),
        outstanding_pages: domain.pages.claimed().get(),
        shared_info_frame: domain.shared_info_gfn().map_or(u64::MAX, Gfn::raw),
        cpu_time,
        nr_online_vcpus: online,
        max_vcpu_id: highest.checked_sub(1).unwrap_or(XEN_INVALID_MAX_VCPU_ID),
        handle: *domain.handle.lock(),
        gpaddr_bits: u8::try_from(domain.p2m.geometry().ipa_bits()).unwrap_or(0),
        ..GetDomainInfo::default()
    }
}
