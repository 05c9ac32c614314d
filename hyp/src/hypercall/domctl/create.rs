//! `XEN_DOMCTL_createdomain` and `max_vcpus`: is what the toolstack asks for something that Arm has, and Nacelle?

use alloc::sync::Arc;

use pv_abi::Errno;
use pv_abi::arch_arm::{
    XEN_DOMCTL_CONFIG_GIC_NATIVE, XEN_DOMCTL_CONFIG_GIC_V2, XEN_DOMCTL_CONFIG_GIC_V3,
    XEN_DOMCTL_CONFIG_TEE_NONE,
};
use pv_abi::domctl::{
    CreateDomain, MaxVcpus, XEN_DOMCTL_CDF_HAP, XEN_DOMCTL_CDF_HVM, XEN_DOMCTL_CDF_XS_DOMAIN,
    XEN_DOMCTL_GRANT_VERSION_MASK,
};
use pv_abi::domid::DomId;

use crate::arch;
use crate::domain::{Domain, create};
use crate::hypercall::Caller;

/// Frames of a grant table where the toolstack does not care (Xen's `gnttab_max_frames`).
const GRANT_FRAMES: u32 = 64;
/// Mappings of others' grants that a frame for them holds in Xen.
const MAPPINGS_IN_FRAME: usize = 512;
/// The highest grant table version that a toolstack may allow; version 1 is what a domain gets.
const GRANT_VERSIONS: u32 = 2;

/// Makes the domain; `id` outside the numbers of domains means any. The structure tells what it got.
///
/// # Errors
/// `EINVAL` for what Arm or Nacelle does not have; otherwise those of [`create::create`].
pub(super) fn create(caller: &Caller<'_>, id: DomId, op: &mut CreateDomain) -> Result<Arc<Domain>, Errno> {
    let native = match arch::guest_gic().0 {
        gic::Version::V2 => XEN_DOMCTL_CONFIG_GIC_V2,
        gic::Version::V3 => XEN_DOMCTL_CONFIG_GIC_V3,
    };
    let required = XEN_DOMCTL_CDF_HVM | XEN_DOMCTL_CDF_HAP;
    // No I/O MMU, no counters of performance, no nested guests, no trace buffers.
    let flags_are_good =
        op.flags & !XEN_DOMCTL_CDF_XS_DOMAIN == required && op.iommu_opts == 0 && op.vmtrace_size == 0;
    let version = op.grant_opts & XEN_DOMCTL_GRANT_VERSION_MASK;
    let grants_are_good = op.grant_opts == version && (1..=GRANT_VERSIONS).contains(&version);
    // The only other version that a machine could offer needs hardware that no supported one has.
    let gic_is_good = [XEN_DOMCTL_CONFIG_GIC_NATIVE, native].contains(&op.arch.gic_version);
    if !flags_are_good || !grants_are_good || !gic_is_good || op.arch.tee_type != XEN_DOMCTL_CONFIG_TEE_NONE {
        return Err(Errno::EINVAL);
    }
    if !(1..=create::max_vcpus()).contains(&op.max_vcpus) || op.max_grant_frames == 0 || op.cpupool_id != 0 {
        return Err(Errno::EINVAL);
    }
    op.arch.gic_version = native;
    op.arch.clock_frequency = arch::told_counter_frequency();
    create::create(&create::Request {
        id: Some(id).filter(|id| *id != DomId::DOM0 && id.is_domain()),
        handle: op.handle,
        vcpus: op.max_vcpus,
        spis: op.arch.nr_spis,
        max_event_ports: op.max_evtchn_port.saturating_add(1),
        max_grant_frames: u32::try_from(op.max_grant_frames).unwrap_or(GRANT_FRAMES),
        max_grant_mappings: usize::try_from(op.max_maptrack_frames)
            .map_or(usize::MAX, |frames| frames.saturating_mul(MAPPINGS_IN_FRAME)),
        geometry: caller.domain.p2m.geometry(),
        is_store: op.flags & XEN_DOMCTL_CDF_XS_DOMAIN != 0,
    })
}

/// `XEN_DOMCTL_max_vcpus`: makes the vCPUs that the domain was made for. `EINVAL` for another number, or the caller itself.
pub(super) fn max_vcpus(caller: &Caller<'_>, domain: &Arc<Domain>, op: MaxVcpus) -> Result<(), Errno> {
    if domain.id == caller.domain.id || op.max != domain.max_vcpus {
        return Err(Errno::EINVAL);
    }
    create::add_vcpus(domain)
}
