//! The host itself: its CPUs, its memory, its one node.

use pv_abi::Errno;
use pv_abi::sysctl::{
    Availheap, CpuInfo, CpuTopo, CpuTopoInfo, GetCpuInfo, MemInfo, NumaInfo, PhysInfo, XEN_INVALID_CORE_ID,
    XEN_INVALID_NODE_ID, XEN_INVALID_SOCKET_ID, XEN_SYSCTL_PHYSCAP_GNTTAB_V1, XEN_SYSCTL_PHYSCAP_HAP,
    XEN_SYSCTL_PHYSCAP_HVM,
};
use stage2::{PAGE_SIZE, Pages};

use super::write_element;
use crate::hypercall::Caller;
use crate::mm::memory;
use crate::{arch, sched};

/// What Xen says of a node's distance to itself (ACPI's SLIT counts this as 10, Xen on Arm as 20).
const OWN_DISTANCE: u32 = 20;
/// Nodes: memory is uniform.
const NODES: u32 = 1;

/// One more than the highest CPU that is on.
fn cpus() -> u32 {
    u32::BITS - sched::online().bits().leading_zeros()
}

fn bytes(pages: Pages) -> u64 {
    pages.get().saturating_mul(PAGE_SIZE)
}

/// `XEN_SYSCTL_physinfo`. As on Xen for Arm, each CPU counts as a socket of one core, and `cpu_khz` is the timer's.
pub(super) fn physinfo() -> PhysInfo {
    let memory = memory();
    PhysInfo {
        threads_per_core: 1,
        cores_per_socket: 1,
        nr_cpus: sched::online().bits().count_ones(),
        max_cpu_id: cpus().saturating_sub(1),
        nr_nodes: NODES,
        max_node_id: NODES - 1,
        cpu_khz: u32::try_from(arch::counter_frequency() / 1000).unwrap_or(u32::MAX),
        capabilities: XEN_SYSCTL_PHYSCAP_HVM | XEN_SYSCTL_PHYSCAP_HAP | XEN_SYSCTL_PHYSCAP_GNTTAB_V1,
        total_pages: memory.total().get(),
        free_pages: memory.free_count().get(),
        // Memory is cleared when it is given out, not before.
        scrub_pages: 0,
        outstanding_pages: memory.claimed().get(),
        max_mfn: memory.end().raw().saturating_sub(1),
        ..PhysInfo::default()
    }
}

/// `XEN_SYSCTL_availheap`. Free memory is not counted by address: a limit below the end of RAM is refused.
pub(super) fn available(mut op: Availheap) -> Result<Availheap, Errno> {
    let last = memory().end().pa().raw().saturating_sub(1);
    let bits = u64::BITS - last.leading_zeros();
    if op.min_bitwidth != 0 || (1..bits).contains(&op.max_bitwidth) {
        return Err(Errno::EOPNOTSUPP);
    }
    op.avail_bytes = match op.node {
        -1 | 0 => bytes(memory().free_count()),
        _ => 0,
    };
    Ok(op)
}

/// `XEN_SYSCTL_getcpuinfo`: how long each CPU idled.
pub(super) fn cpu_info(caller: &Caller<'_>, mut op: GetCpuInfo) -> Result<GetCpuInfo, Errno> {
    op.nr_cpus = cpus().min(op.max_cpus);
    for index in 0..op.nr_cpus {
        let idletime = crate::cpu::CpuId::new(index as usize).map_or(0, |cpu| sched::idle_time(cpu).get());
        write_element(caller, op.info, u64::from(index), &CpuInfo { idletime })?;
    }
    Ok(op)
}

/// `XEN_SYSCTL_cputopoinfo`. Xen for Arm knows neither cores nor sockets and says 0 for all.
pub(super) fn cpu_topology(caller: &Caller<'_>, mut op: CpuTopoInfo) -> Result<CpuTopoInfo, Errno> {
    if op.cputopo.is_null() {
        op.num_cpus = cpus();
        return Ok(op);
    }
    op.num_cpus = cpus().min(op.num_cpus);
    for index in 0..op.num_cpus {
        let place = if sched::online().bits() >> index & 1 != 0 {
            CpuTopo::default()
        } else {
            CpuTopo { core: XEN_INVALID_CORE_ID, socket: XEN_INVALID_SOCKET_ID, node: XEN_INVALID_NODE_ID }
        };
        write_element(caller, op.cputopo, u64::from(index), &place)?;
    }
    Ok(op)
}

/// `XEN_SYSCTL_numainfo`: one node with all memory.
pub(super) fn numa(caller: &Caller<'_>, mut op: NumaInfo) -> Result<NumaInfo, Errno> {
    if op.meminfo.is_null() && op.distance.is_null() {
        op.num_nodes = NODES;
        return Ok(op);
    }
    op.num_nodes = op.num_nodes.min(NODES);
    if op.num_nodes != 0 {
        let memory = memory();
        let info = MemInfo { memsize: bytes(memory.total()), memfree: bytes(memory.free_count()) };
        if !op.meminfo.is_null() {
            write_element(caller, op.meminfo, 0, &info)?;
        }
        if !op.distance.is_null() {
            write_element(caller, op.distance, 0, &OWN_DISTANCE)?;
        }
    }
    Ok(op)
}
