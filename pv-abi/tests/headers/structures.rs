//! The structures: C's name, ours, and every field; after a semicolon the padding that only we name.
//!
//! A field whose C name is another is written `ours = "theirs"`. A field that is missing here does not compile.

use std::mem::{align_of, offset_of, size_of};

use pv_abi::*;

use crate::Check;

/// The size of a field, from a function that selects it.
fn size_of_field<T, F>(_select: fn(&T) -> &F) -> i128 {
    size_of::<F>() as i128
}

/// One field: its offset, and its size where the C name is the same.
macro_rules! field {
    ($checks:ident, $c:literal, $ours:ty, $field:ident, $theirs:literal) => {
        $checks.push(Check {
            c: format!("offsetof({}, {})", $c, $theirs),
            ours: offset_of!($ours, $field) as i128,
        });
    };
    ($checks:ident, $c:literal, $ours:ty, $field:ident) => {
        let theirs = stringify!($field).trim_start_matches("r#");
        $checks.push(Check {
            c: format!("offsetof({}, {theirs})", $c),
            ours: offset_of!($ours, $field) as i128,
        });
        $checks.push(Check {
            c: format!("sizeof((({} *)0)->{theirs})", $c),
            ours: size_of_field(|structure: &$ours| &structure.$field),
        });
    };
}

macro_rules! structures {
    ($checks:ident; $(
        $c:literal => $module:ident::$name:ident { $($field:ident $(= $theirs:literal)?),* $(; $($pad:ident),*)? },
    )*) => { $(
        // A field that the table forgets makes this pattern incomplete.
        let _: fn($module::$name) =
            |$module::$name { $($field: _,)* $($($pad: _,)*)? }| {};
        $checks.push(Check { c: format!("sizeof({})", $c), ours: size_of::<$module::$name>() as i128 });
        $checks.push(Check { c: format!("_Alignof({})", $c), ours: align_of::<$module::$name>() as i128 });
        $( field!($checks, $c, $module::$name, $field $(, $theirs)?); )*
    )* };
}

/// Every size, alignment and offset.
pub fn all() -> Vec<Check> {
    let mut checks = Vec::new();
    structures! { checks;
        // xen
        "struct multicall_entry" => xen::MulticallEntry { op, result, args },
        "struct vcpu_time_info" => xen::VcpuTimeInfo {
            version, pad0, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags, pad1
        },
        "struct vcpu_info" => xen::VcpuInfo {
            evtchn_upcall_pending, evtchn_upcall_mask = "pad0", evtchn_pending_sel, time; _pad
        },
        "struct shared_info" => xen::SharedInfo {
            vcpu_info, evtchn_pending, evtchn_mask, wc_version, wc_sec, wc_nsec, wc_sec_hi
        },
        "struct xenctl_bitmap" => xen::Bitmap { bitmap, nr_bits; _pad },
        // arch_arm
        "struct vcpu_guest_core_regs" => arch_arm::VcpuGuestCoreRegs {
            x = "x0", pc64, cpsr, spsr_el1, spsr_fiq, spsr_irq, spsr_und, spsr_abt, sp_el0, sp_el1, elr_el1
        },
        "struct vcpu_guest_context" => arch_arm::VcpuGuestContext {
            flags, user_regs, sctlr, ttbcr, ttbr0, ttbr1; _pad
        },
        "struct xen_arch_domainconfig" => arch_arm::ArchDomainConfig {
            gic_version, tee_type, nr_spis, clock_frequency; _pad
        },
        // event_channel
        "struct evtchn_alloc_unbound" => event_channel::AllocUnbound { dom, remote_dom, port },
        "struct evtchn_bind_interdomain" => event_channel::BindInterdomain {
            remote_dom, remote_port, local_port; _pad
        },
        "struct evtchn_bind_virq" => event_channel::BindVirq { virq, vcpu, port },
        "struct evtchn_bind_pirq" => event_channel::BindPirq { pirq, flags, port },
        "struct evtchn_bind_ipi" => event_channel::BindIpi { vcpu, port },
        "struct evtchn_close" => event_channel::Close { port },
        "struct evtchn_send" => event_channel::Send { port },
        "struct evtchn_status" => event_channel::Status { dom, port, status, vcpu, u; _pad },
        "__typeof__(((struct evtchn_status *)0)->u.unbound)" => event_channel::StatusUnbound { dom },
        "__typeof__(((struct evtchn_status *)0)->u.interdomain)" => event_channel::StatusInterdomain {
            dom, port; _pad
        },
        "struct evtchn_bind_vcpu" => event_channel::BindVcpu { port, vcpu },
        "struct evtchn_unmask" => event_channel::Unmask { port },
        "struct evtchn_reset" => event_channel::Reset { dom },
        "struct evtchn_init_control" => event_channel::InitControl {
            control_gfn, offset, vcpu, link_bits, _pad
        },
        "struct evtchn_expand_array" => event_channel::ExpandArray { array_gfn },
        "struct evtchn_set_priority" => event_channel::SetPriority { port, priority },
        "struct evtchn_fifo_control_block" => event_channel::FifoControlBlock { ready, _rsvd, head },
        // memory
        "struct xen_memory_reservation" => memory::Reservation {
            extent_start, nr_extents, extent_order, mem_flags, domid; _pad
        },
        "struct xen_memory_exchange" => memory::MemoryExchange { r#in, out, nr_exchanged },
        "struct xen_memory_domain" => memory::Domain { domid },
        "struct xen_machphys_mfn_list" => memory::MachphysMfnList {
            max_extents, extent_start, nr_extents; _pad, _pad2
        },
        "struct xen_machphys_mapping" => memory::MachphysMapping { v_start, v_end, max_mfn },
        "struct xen_add_to_physmap" => memory::AddToPhysmap { domid, size, space, idx, gpfn },
        "struct xen_add_to_physmap_batch" => memory::AddToPhysmapBatch {
            domid, space, size, foreign_domid = "u.foreign_domid", idxs, gpfns, errs
        },
        "struct xen_remove_from_physmap" => memory::RemoveFromPhysmap { domid, gpfn; _pad },
        "struct xen_memory_map" => memory::MemoryMap { nr_entries, buffer; _pad },
        "struct xen_foreign_memory_map" => memory::ForeignMemoryMap { domid, map; _pad },
        "struct xen_pod_target" => memory::PodTarget {
            target_pages, tot_pages, pod_cache_pages, pod_entries, domid; _pad
        },
        "struct xen_mem_access_op" => memory::MemAccessOp {
            op, access, domid, nr, pfn, pfn_list, access_list
        },
        "struct xen_reserved_device_memory" => memory::ReservedDeviceMemory { start_pfn, nr_pages },
        "struct xen_mem_acquire_resource" => memory::AcquireResource {
            domid, r#type, id, nr_frames, pad, frame, frame_list
        },
        "struct xen_vmemrange" => memory::Vmemrange { start, end, flags, nid },
        "struct xen_vnuma_topology_info" => memory::VnumaTopologyInfo {
            domid, pad, nr_vnodes, nr_vcpus, nr_vmemranges, vdistance, vcpu_to_vnode, vmemrange
        },
        // sched
        "struct sched_shutdown" => sched::Shutdown { reason },
        "struct sched_poll" => sched::Poll { ports, nr_ports, timeout; _pad },
        "struct sched_remote_shutdown" => sched::RemoteShutdown { domain_id, reason; _pad },
        "struct sched_watchdog" => sched::Watchdog { id, timeout },
        "struct sched_pin_override" => sched::PinOverride { pcpu },
        // vcpu
        "struct vcpu_runstate_info" => vcpu::RunstateInfo { state, state_entry_time, time; _pad },
        "struct vcpu_register_runstate_memory_area" => vcpu::RegisterRunstateMemoryArea { addr },
        "struct vcpu_set_periodic_timer" => vcpu::SetPeriodicTimer { period_ns },
        "struct vcpu_set_singleshot_timer" => vcpu::SetSingleshotTimer { timeout_abs_ns, flags; _pad },
        "struct vcpu_register_vcpu_info" => vcpu::RegisterVcpuInfo { mfn, offset, rsvd },
        "struct vcpu_get_physid" => vcpu::GetPhysid { phys_id },
        "struct vcpu_register_time_memory_area" => vcpu::RegisterTimeMemoryArea { addr },
        // version
        "struct xen_compile_info" => version::CompileInfo {
            compiler, compile_by, compile_domain, compile_date
        },
        "struct xen_platform_parameters" => version::PlatformParameters { virt_start },
        "struct xen_feature_info" => version::FeatureInfo { submap_idx, submap },
        "struct xen_build_id" => version::BuildId { len },
        // grant_table
        "struct grant_entry_v1" => grant_table::EntryV1 { flags, domid, frame },
        "struct grant_entry_header" => grant_table::EntryHeader { flags, domid },
        "__typeof__(((union grant_entry_v2 *)0)->full_page)" => grant_table::EntryV2FullPage {
            hdr, pad0, frame
        },
        "__typeof__(((union grant_entry_v2 *)0)->sub_page)" => grant_table::EntryV2SubPage {
            hdr, page_off, length, frame
        },
        "__typeof__(((union grant_entry_v2 *)0)->transitive)" => grant_table::EntryV2Transitive {
            hdr, trans_domid, pad0, gref
        },
        "struct gnttab_map_grant_ref" => grant_table::MapGrantRef {
            host_addr, flags, r#ref, dom, status, handle, dev_bus_addr
        },
        "struct gnttab_unmap_grant_ref" => grant_table::UnmapGrantRef {
            host_addr, dev_bus_addr, handle, status; _pad
        },
        "struct gnttab_setup_table" => grant_table::SetupTable {
            dom, nr_frames, status, frame_list; _pad, _pad2
        },
        "struct gnttab_dump_table" => grant_table::DumpTable { dom, status },
        "struct gnttab_transfer" => grant_table::Transfer { mfn, domid, r#ref, status; _pad, _pad2 },
        "struct gnttab_copy_ptr" => grant_table::CopyPtr { u, domid, offset; _pad },
        "struct gnttab_copy" => grant_table::Copy { source, dest, len, flags, status; _pad },
        "struct gnttab_query_size" => grant_table::QuerySize {
            dom, nr_frames, max_nr_frames, status; _pad, _pad2
        },
        "struct gnttab_unmap_and_replace" => grant_table::UnmapAndReplace {
            host_addr, new_addr, handle, status; _pad
        },
        "struct gnttab_set_version" => grant_table::SetVersion { version },
        "struct gnttab_get_status_frames" => grant_table::GetStatusFrames {
            nr_frames, dom, status, frame_list
        },
        "struct gnttab_get_version" => grant_table::GetVersion { dom, pad, version },
        "struct gnttab_swap_grant_ref" => grant_table::SwapGrantRef { ref_a, ref_b, status; _pad },
        "struct gnttab_cache_flush" => grant_table::CacheFlush { a, offset, length, op },
        // hvm
        "struct xen_hvm_param" => hvm::Param { domid, pad, index, value },
        // physdev
        "struct physdev_eoi" => physdev::Eoi { irq },
        "struct physdev_irq_status_query" => physdev::IrqStatusQuery { irq, flags },
        "struct physdev_map_pirq" => physdev::MapPirq {
            domid, r#type, index, pirq, bus, devfn, entry_nr, table_base; _pad, _pad2
        },
        "struct physdev_unmap_pirq" => physdev::UnmapPirq { domid, pirq; _pad },
        "struct physdev_manage_pci" => physdev::ManagePci { bus, devfn },
        "struct physdev_manage_pci_ext" => physdev::ManagePciExt {
            bus, devfn, is_extfn, is_virtfn, physfn; _pad, _pad2
        },
        "struct physdev_pci_mmcfg_reserved" => physdev::PciMmcfgReserved {
            address, segment, start_bus, end_bus, flags
        },
        "struct physdev_pci_device_add" => physdev::PciDeviceAdd { seg, bus, devfn, flags, physfn; _pad },
        "struct physdev_pci_device" => physdev::PciDevice { seg, bus, devfn },
        "struct physdev_dbgp_op" => physdev::DbgpOp { op, bus, pci = "u.pci" },
        // platform
        "struct xen_platform_op" => platform::Platform { cmd, interface_version, u },
        "struct xenpf_settime32" => platform::Settime32 { secs, nsecs, system_time },
        "struct xenpf_settime64" => platform::Settime64 { secs, nsecs, mbz, system_time },
        // domctl
        "struct xen_domctl" => domctl::Domctl { cmd, interface_version, domain, _pad, u },
        "struct xen_domctl_createdomain" => domctl::CreateDomain {
            ssidref, handle, flags, iommu_opts, max_vcpus, max_evtchn_port, max_grant_frames,
            max_maptrack_frames, grant_opts, vmtrace_size, cpupool_id, arch
        },
        "struct xen_domctl_getdomaininfo" => domctl::GetDomainInfo {
            domain, pad1, flags, tot_pages, max_pages, outstanding_pages, shr_pages, paged_pages,
            shared_info_frame, cpu_time, nr_online_vcpus, max_vcpu_id, ssidref, handle, cpupool,
            gpaddr_bits, pad2, arch_config; _pad
        },
        "struct xen_domctl_getpageframeinfo3" => domctl::GetPageFrameInfo3 { num, array },
        "struct xen_domctl_shadow_op_stats" => domctl::ShadowOpStats { fault_count, dirty_count },
        "struct xen_domctl_shadow_op" => domctl::ShadowOp { op, mode, mb, dirty_bitmap, pages, stats; _pad },
        "struct xen_domctl_max_mem" => domctl::MaxMem { max_memkb },
        "struct xen_domctl_vcpucontext" => domctl::VcpuContext { vcpu, ctxt; _pad },
        "struct xen_domctl_getvcpuinfo" => domctl::GetVcpuInfo {
            vcpu, online, blocked, running, cpu_time, cpu; _pad, _pad2
        },
        "struct xen_domctl_nodeaffinity" => domctl::NodeAffinity { nodemap },
        "struct xen_domctl_vcpuaffinity" => domctl::VcpuAffinity { vcpu, flags, cpumap_hard, cpumap_soft },
        "struct xen_domctl_max_vcpus" => domctl::MaxVcpus { max },
        "struct xen_domctl_sched_credit" => domctl::SchedCredit { weight, cap },
        "struct xen_domctl_sched_credit2" => domctl::SchedCredit2 { weight, cap },
        "struct xen_domctl_sched_rtds" => domctl::SchedRtds { period, budget, flags },
        "struct xen_domctl_schedparam_vcpu" => domctl::SchedParamVcpu { u, vcpuid },
        "struct xen_domctl_scheduler_op" => domctl::SchedulerOp { sched_id, cmd, u },
        "__typeof__(((struct xen_domctl_scheduler_op *)0)->u.v)" => domctl::SchedulerVcpus {
            vcpus, nr_vcpus, padding
        },
        "struct xen_domctl_setdomainhandle" => domctl::SetDomainHandle { handle },
        "struct xen_domctl_setdebugging" => domctl::SetDebugging { enable },
        "struct xen_domctl_irq_permission" => domctl::IrqPermission { pirq, allow_access, pad },
        "struct xen_domctl_iomem_permission" => domctl::IomemPermission {
            first_mfn, nr_mfns, allow_access; _pad
        },
        "struct xen_domctl_hypercall_init" => domctl::HypercallInit { gmfn },
        "struct xen_domctl_settimeoffset" => domctl::SetTimeOffset { time_offset_seconds },
        "struct xen_domctl_hvmcontext" => domctl::HvmContext { size, buffer; _pad },
        "struct xen_domctl_address_size" => domctl::AddressSize { size },
        "struct xen_domctl_sendtrigger" => domctl::SendTrigger { trigger, vcpu },
        "struct xen_domctl_assign_device" => domctl::AssignDevice { dev, flags, u },
        "__typeof__(((struct xen_domctl_assign_device *)0)->u.dt)" => domctl::AssignDeviceDt {
            size, path; _pad
        },
        "struct xen_domctl_get_device_group" => domctl::GetDeviceGroup {
            machine_sbdf, max_sdevs, num_sdevs, sdev_array; _pad
        },
        "struct xen_domctl_bind_pt_irq" => domctl::BindPtIrq { machine_irq, irq_type, u },
        "struct xen_domctl_memory_mapping" => domctl::MemoryMapping {
            first_gfn, first_mfn, nr_mfns, add_mapping, padding
        },
        "struct xen_domctl_ext_vcpucontext" => domctl::ExtVcpuContext { vcpu, size },
        "struct xen_domctl_set_target" => domctl::SetTarget { target },
        "struct xen_domctl_subscribe" => domctl::Subscribe { port },
        "struct xen_domctl_debug_op" => domctl::DebugOp { op, vcpu },
        "struct xen_domctl_hvmcontext_partial" => domctl::HvmContextPartial {
            r#type, instance, bufsz, buffer
        },
        "struct xen_domctl_tsc_info" => domctl::TscInfo {
            tsc_mode, gtsc_khz, incarnation, pad, elapsed_nsec
        },
        "struct xen_domctl_gdbsx_memio" => domctl::GdbsxMemio {
            pgd3val, gva, uva, len, gwr, remain; _pad, _pad2
        },
        "struct xen_domctl_gdbsx_pauseunp_vcpu" => domctl::GdbsxPauseunpVcpu { vcpu },
        "struct xen_domctl_gdbsx_domstatus" => domctl::GdbsxDomstatus { paused, vcpu_id, vcpu_ev; _pad },
        "struct xen_domctl_vm_event_op" => domctl::VmEventOp { op, mode, u },
        "struct xen_domctl_mem_sharing_op" => domctl::MemSharingOp { op, enable = "u.enable" },
        "struct xen_domctl_audit_p2m" => domctl::AuditP2m { orphans, m2p_bad, p2m_bad },
        "struct xen_domctl_set_virq_handler" => domctl::SetVirqHandler { virq },
        "struct xen_domctl_set_access_required" => domctl::SetAccessRequired { access_required },
        "struct xen_domctl_set_broken_page_p2m" => domctl::SetBrokenPageP2m { pfn },
        "struct xen_domctl_cacheflush" => domctl::Cacheflush { start_pfn, nr_pfns },
        "struct xen_domctl_paging_mempool" => domctl::PagingMempool { size },
        "struct xen_domctl_vnuma" => domctl::Vnuma {
            nr_vnodes, nr_vmemranges, nr_vcpus, pad, vdistance, vcpu_to_vnode, vnode_to_pnode, vmemrange
        },
        "struct xen_domctl_psr_cmt_op" => domctl::PsrCmtOp { cmd, data },
        "struct xen_domctl_monitor_op" => domctl::MonitorOp { op, event, u },
        "struct xen_domctl_psr_alloc" => domctl::PsrAlloc { cmd, target, data },
        "struct xen_domctl_vuart_op" => domctl::VuartOp { cmd, r#type, gfn, console_domid, pad, evtchn },
        "struct xen_domctl_vmtrace_op" => domctl::VmtraceOp { cmd, vcpu, key, value },
        // sysctl
        "struct xen_sysctl" => sysctl::Sysctl { cmd, interface_version, u },
        "struct xen_sysctl_readconsole" => sysctl::ReadConsole {
            clear, incremental, pad0, pad1, index, buffer, count; _pad
        },
        "struct xen_sysctl_tbuf_op" => sysctl::TbufOp {
            cmd, cpu_mask, evt_mask, buffer_mfn, size; _pad, _pad2, _pad3
        },
        "struct xen_sysctl_physinfo" => sysctl::PhysInfo {
            threads_per_core, cores_per_socket, nr_cpus, max_cpu_id, nr_nodes, max_node_id, cpu_khz,
            capabilities, arch_capabilities, pad, total_pages, free_pages, scrub_pages, outstanding_pages,
            max_mfn, hw_cap
        },
        "struct xen_sysctl_sched_id" => sysctl::SchedId { sched_id },
        "struct xen_sysctl_perfc_desc" => sysctl::PerfcDesc { name, nr_vals },
        "struct xen_sysctl_perfc_op" => sysctl::PerfcOp { cmd, nr_counters, nr_vals, desc, val; _pad },
        "struct xen_sysctl_getdomaininfolist" => sysctl::GetDomainInfoList {
            first_domain, max_domains, buffer, num_domains; _pad, _pad2
        },
        "struct xen_sysctl_debug_keys" => sysctl::DebugKeys { keys, nr_keys; _pad },
        "struct xen_sysctl_cpuinfo" => sysctl::CpuInfo { idletime },
        "struct xen_sysctl_getcpuinfo" => sysctl::GetCpuInfo { max_cpus, info, nr_cpus; _pad, _pad2 },
        "struct xen_sysctl_availheap" => sysctl::Availheap {
            min_bitwidth, max_bitwidth, node, avail_bytes; _pad
        },
        "struct xen_sysctl_cpu_hotplug" => sysctl::CpuHotplug { cpu, op },
        "struct xen_sysctl_page_offline_op" => sysctl::PageOfflineOp { cmd, start, end, status; _pad },
        "struct xen_sysctl_lockprof_data" => sysctl::LockprofData {
            name, r#type, idx, lock_cnt, block_cnt, lock_time, block_time
        },
        "struct xen_sysctl_lockprof_op" => sysctl::LockprofOp { cmd, max_elem, nr_elem, time, data; _pad },
        "struct xen_sysctl_cputopo" => sysctl::CpuTopo { core, socket, node },
        "struct xen_sysctl_cputopoinfo" => sysctl::CpuTopoInfo { num_cpus, cputopo; _pad },
        "struct xen_sysctl_meminfo" => sysctl::MemInfo { memsize, memfree },
        "struct xen_sysctl_numainfo" => sysctl::NumaInfo { num_nodes, meminfo, distance; _pad },
        "struct xen_sysctl_cpupool_op" => sysctl::CpupoolOp {
            op, cpupool_id, sched_id, domid, cpu, n_dom, cpumap
        },
        "__typeof__(((struct xen_sysctl_arinc653_schedule *)0)->sched_entries[0])" => sysctl::Arinc653Entry {
            dom_handle, vcpu_id, runtime; _pad
        },
        "struct xen_sysctl_arinc653_schedule" => sysctl::Arinc653Schedule {
            major_frame, num_sched_entries, sched_entries; _pad
        },
        "struct xen_sysctl_credit_schedule" => sysctl::CreditSchedule {
            tslice_ms, ratelimit_us, vcpu_migr_delay_us
        },
        "struct xen_sysctl_credit2_schedule" => sysctl::Credit2Schedule { ratelimit_us },
        "struct xen_sysctl_scheduler_op" => sysctl::SchedulerOp { cpupool_id, sched_id, cmd, u; _pad },
        "struct xen_sysctl_coverage_op" => sysctl::CoverageOp { cmd, size, buffer },
        "struct xen_sysctl_pcitopoinfo" => sysctl::PciTopoInfo { num_devs, devs, nodes; _pad },
        // xs_wire
        "struct xsd_sockmsg" => xs_wire::SockMsg { r#type, req_id, tx_id, len },
        "struct xenstore_domain_interface" => xs_wire::DomainInterface {
            req, rsp, req_cons, req_prod, rsp_cons, rsp_prod, server_features, connection, error
        },
        // io_console
        "struct xencons_interface" => io_console::ConsoleInterface {
            r#in, out, in_cons, in_prod, out_cons, out_prod
        },
    }
    checks
}
