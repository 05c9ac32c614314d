//! The numbers: every variant of every enumeration, under the name that the headers give it, and single constants.

use pv_abi::*;

use crate::Check;

/// What the names of operations begin with. Each macro with such a prefix and a small letter after it has to be known.
pub const OPERATION_PREFIXES: &[&str] = &[
    "__HYPERVISOR_",
    "CONSOLEIO_",
    "EVTCHNOP_",
    "GNTTABOP_",
    "HVMOP_",
    "PHYSDEVOP_",
    "SCHEDOP_",
    "SHUTDOWN_",
    "VCPUOP_",
    "VMASST_TYPE_",
    "XENMAPSPACE_",
    "XENMEM_",
    "XENPF_",
    "XENVER_",
    "XEN_DOMCTL_",
    "XEN_SYSCTL_",
];

/// Whether a macro of the headers names an operation, so that this crate has to have it.
pub fn must_be_known(name: &str) -> bool {
    // Arguments of operations, not operations.
    const ARGUMENTS: &[&str] = &[
        "GNTTABOP_error_msgs",
        "HVMOP_altp2m_",
        "XENMEM_access_op_",
        "XENMEM_paging_op_",
        "XENMEM_resource_",
        "XENMEM_sharing_op_",
        "XEN_DOMCTL_vmtrace_enable",
        "XEN_DOMCTL_vmtrace_disable",
        "XEN_DOMCTL_vmtrace_reset_and_enable",
        "XEN_DOMCTL_vmtrace_output_position",
        "XEN_DOMCTL_vmtrace_get_option",
        "XEN_DOMCTL_vmtrace_set_option",
        "XEN_SYSCTL_cpu_featureset_",
        "XEN_SYSCTL_pm_op_",
    ];
    // Second names of XENPF_settime64 and PHYSDEVOP_pirq_eoi_gmfn_v2.
    const ALIASES: &[&str] = &["XENPF_settime", "PHYSDEVOP_pirq_eoi_gmfn"];
    OPERATION_PREFIXES.iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '4'))
    }) && !ARGUMENTS.iter().any(|prefix| name.starts_with(prefix))
        && !ALIASES.contains(&name)
}

/// `BindVirq` as the headers write it: `bind_virq`.
fn snake(camel: &str) -> String {
    let mut snake = String::new();
    for (position, c) in camel.chars().enumerate() {
        if c.is_ascii_uppercase() && position > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// `BindVirq` with capitals: `BIND_VIRQ`.
fn upper(camel: &str) -> String {
    snake(camel).to_ascii_uppercase()
}

/// All variants of an enumeration, each under a name made from its own.
macro_rules! enumeration {
    ($checks:ident, $name:path, $theirs:expr) => {{
        type Enumeration = $name;
        let theirs: fn(&str) -> String = $theirs;
        $checks.extend(
            Enumeration::ALL
                .iter()
                .map(|variant| Check { c: theirs(&format!("{variant:?}")), ours: i128::from(variant.raw()) }),
        );
    }};
}

/// Single constants.
macro_rules! constants {
    ($checks:ident; $( $module:ident { $( $c:literal = $ours:expr, )* } )*) => { $( {
        #[allow(unused_imports)]
        use pv_abi::$module::*;
        $( $checks.push(Check { c: $c.to_owned(), ours: i128::try_from($ours).expect("fits") }); )*
    } )* };
}

/// Every number.
pub fn all() -> Vec<Check> {
    let mut checks = Vec::new();
    enumeration!(checks, hypercall::Hypercall, |name| match name.strip_prefix("Arch") {
        Some(number) => format!("__HYPERVISOR_arch_{number}"),
        None => format!("__HYPERVISOR_{}", snake(name)),
    });
    enumeration!(checks, errno::Errno, |name| format!("XEN_{name}"));
    enumeration!(checks, xen::ConsoleIo, |name| format!("CONSOLEIO_{}", snake(name)));
    enumeration!(checks, xen::Virq, |name| match name.strip_prefix("Arch") {
        Some(number) => format!("VIRQ_ARCH_{number}"),
        None => format!("VIRQ_{}", upper(name)),
    });
    enumeration!(checks, event_channel::Op, |name| format!("EVTCHNOP_{}", snake(name)));
    enumeration!(checks, event_channel::StatusKind, |name| format!("EVTCHNSTAT_{}", snake(name)));
    enumeration!(checks, memory::Op, |name| format!("XENMEM_{}", snake(name)));
    enumeration!(checks, memory::Space, |name| format!("XENMAPSPACE_{}", snake(name)));
    enumeration!(checks, memory::ResourceType, |name| format!("XENMEM_resource_{}", snake(name)));
    enumeration!(checks, sched::Op, |name| format!("SCHEDOP_{}", snake(name)));
    enumeration!(checks, sched::ShutdownReason, |name| format!("SHUTDOWN_{}", snake(name)));
    enumeration!(checks, vcpu::Op, |name| format!("VCPUOP_{}", snake(name)));
    enumeration!(checks, vcpu::Runstate, |name| format!("RUNSTATE_{}", snake(name)));
    enumeration!(checks, version::Op, |name| format!("XENVER_{}", snake(name)));
    enumeration!(checks, vm_assist::Cmd, |name| format!("VMASST_CMD_{}", snake(name)));
    enumeration!(checks, vm_assist::Type, |name| format!(
        "VMASST_TYPE_{}",
        snake(name).replace("four_", "4")
    ));
    enumeration!(checks, grant_table::Op, |name| format!("GNTTABOP_{}", snake(name)));
    enumeration!(checks, grant_table::Status, |name| format!("GNTST_{}", snake(name)));
    enumeration!(checks, hvm::Op, |name| format!("HVMOP_{}", snake(name)));
    enumeration!(checks, hvm::Index, |name| format!("HVM_PARAM_{}", upper(name)));
    enumeration!(checks, physdev::Op, |name| match name {
        "IrqUnmaskNotify" => "PHYSDEVOP_IRQ_UNMASK_NOTIFY".to_owned(),
        _ => format!("PHYSDEVOP_{}", snake(name)),
    });
    enumeration!(checks, platform::Op, |name| format!("XENPF_{}", snake(name)));
    enumeration!(checks, domctl::Op, |name| format!("XEN_DOMCTL_{}", snake(name)));
    enumeration!(checks, domctl::SchedulerId, |name| format!("XEN_SCHEDULER_{}", upper(name)));
    enumeration!(checks, domctl::SchedulerCmd, |name| format!("XEN_DOMCTL_SCHEDOP_{}", snake(name)));
    enumeration!(checks, domctl::Trigger, |name| format!("XEN_DOMCTL_SENDTRIGGER_{}", upper(name)));
    enumeration!(checks, domctl::PtIrqType, |name| format!("PT_IRQ_TYPE_{}", upper(name)));
    enumeration!(checks, sysctl::Op, |name| format!("XEN_SYSCTL_{}", snake(name)));
    enumeration!(checks, sysctl::CpuHotplugOp, |name| format!("XEN_SYSCTL_CPU_HOTPLUG_{}", upper(name)));
    enumeration!(checks, sysctl::CpupoolCmd, |name| format!("XEN_SYSCTL_CPUPOOL_OP_{}", upper(name)));
    enumeration!(checks, xs_wire::MessageType, |name| format!("XS_{}", upper(name)));
    constants! { checks;
        xen {
            "NR_VIRQS" = NR_VIRQS,
            "XEN_PVCLOCK_TSC_STABLE_BIT" = XEN_PVCLOCK_TSC_STABLE_BIT,
            "XEN_PVCLOCK_GUEST_STOPPED" = XEN_PVCLOCK_GUEST_STOPPED,
        }
        arch_arm {
            "XEN_LEGACY_MAX_VCPUS" = XEN_LEGACY_MAX_VCPUS,
            "VGCF_online" = VGCF_ONLINE,
            "XEN_DOMCTL_CONFIG_GIC_NATIVE" = XEN_DOMCTL_CONFIG_GIC_NATIVE,
            "XEN_DOMCTL_CONFIG_GIC_V2" = XEN_DOMCTL_CONFIG_GIC_V2,
            "XEN_DOMCTL_CONFIG_GIC_V3" = XEN_DOMCTL_CONFIG_GIC_V3,
            "XEN_DOMCTL_CONFIG_TEE_NONE" = XEN_DOMCTL_CONFIG_TEE_NONE,
            "XEN_DOMCTL_CONFIG_TEE_OPTEE" = XEN_DOMCTL_CONFIG_TEE_OPTEE,
            "PSR_THUMB" = PSR_THUMB,
            "PSR_FIQ_MASK" = PSR_FIQ_MASK,
            "PSR_IRQ_MASK" = PSR_IRQ_MASK,
            "PSR_ABT_MASK" = PSR_ABT_MASK,
            "PSR_DBG_MASK" = PSR_DBG_MASK,
            "PSR_MODE_EL3h" = PSR_MODE_EL3H,
            "PSR_MODE_EL3t" = PSR_MODE_EL3T,
            "PSR_MODE_EL2h" = PSR_MODE_EL2H,
            "PSR_MODE_EL2t" = PSR_MODE_EL2T,
            "PSR_MODE_EL1h" = PSR_MODE_EL1H,
            "PSR_MODE_EL1t" = PSR_MODE_EL1T,
            "PSR_MODE_EL0t" = PSR_MODE_EL0T,
            "PSR_MODE_SVC" = PSR_MODE_SVC,
            "PSR_MODE_BIT" = PSR_MODE_BIT,
            "PSR_Z" = PSR_Z,
            "PSR_GUEST32_INIT" = PSR_GUEST32_INIT,
            "PSR_GUEST64_INIT" = PSR_GUEST64_INIT,
            "SCTLR_GUEST_INIT" = SCTLR_GUEST_INIT,
            "GUEST_VIRTIO_MMIO_BASE" = GUEST_VIRTIO_MMIO_BASE,
            "GUEST_VIRTIO_MMIO_SIZE" = GUEST_VIRTIO_MMIO_SIZE,
            "GUEST_GICD_BASE" = GUEST_GICD_BASE,
            "GUEST_GICD_SIZE" = GUEST_GICD_SIZE,
            "GUEST_GICC_BASE" = GUEST_GICC_BASE,
            "GUEST_GICC_SIZE" = GUEST_GICC_SIZE,
            "GUEST_GICV3_GICD_BASE" = GUEST_GICV3_GICD_BASE,
            "GUEST_GICV3_GICD_SIZE" = GUEST_GICV3_GICD_SIZE,
            "GUEST_GICV3_RDIST_REGIONS" = GUEST_GICV3_RDIST_REGIONS,
            "GUEST_GICV3_GICR0_BASE" = GUEST_GICV3_GICR0_BASE,
            "GUEST_GICV3_GICR0_SIZE" = GUEST_GICV3_GICR0_SIZE,
            "GUEST_VPCI_ECAM_BASE" = GUEST_VPCI_ECAM_BASE,
            "GUEST_VPCI_ECAM_SIZE" = GUEST_VPCI_ECAM_SIZE,
            "GUEST_ACPI_BASE" = GUEST_ACPI_BASE,
            "GUEST_ACPI_SIZE" = GUEST_ACPI_SIZE,
            "GUEST_PL011_BASE" = GUEST_PL011_BASE,
            "GUEST_PL011_SIZE" = GUEST_PL011_SIZE,
            "GUEST_VPCI_MEM_ADDR" = GUEST_VPCI_MEM_ADDR,
            "GUEST_VPCI_MEM_SIZE" = GUEST_VPCI_MEM_SIZE,
            "GUEST_GNTTAB_BASE" = GUEST_GNTTAB_BASE,
            "GUEST_GNTTAB_SIZE" = GUEST_GNTTAB_SIZE,
            "GUEST_MAGIC_BASE" = GUEST_MAGIC_BASE,
            "GUEST_MAGIC_SIZE" = GUEST_MAGIC_SIZE,
            "GUEST_RAM_BANKS" = GUEST_RAM_BANKS,
            "GUEST_RAM0_BASE" = GUEST_RAM0_BASE,
            "GUEST_RAM0_SIZE" = GUEST_RAM0_SIZE,
            "GUEST_VPCI_PREFETCH_MEM_ADDR" = GUEST_VPCI_PREFETCH_MEM_ADDR,
            "GUEST_VPCI_PREFETCH_MEM_SIZE" = GUEST_VPCI_PREFETCH_MEM_SIZE,
            "GUEST_RAM1_BASE" = GUEST_RAM1_BASE,
            "GUEST_RAM1_SIZE" = GUEST_RAM1_SIZE,
            "GUEST_RAM_BASE" = GUEST_RAM_BASE,
            "GUEST_RAM_MAX" = GUEST_RAM_MAX,
            "GUEST_MAX_VCPUS" = GUEST_MAX_VCPUS,
            "GUEST_TIMER_VIRT_PPI" = GUEST_TIMER_VIRT_PPI,
            "GUEST_TIMER_PHYS_S_PPI" = GUEST_TIMER_PHYS_S_PPI,
            "GUEST_TIMER_PHYS_NS_PPI" = GUEST_TIMER_PHYS_NS_PPI,
            "GUEST_EVTCHN_PPI" = GUEST_EVTCHN_PPI,
            "GUEST_VPL011_SPI" = GUEST_VPL011_SPI,
            "GUEST_VIRTIO_MMIO_SPI_FIRST" = GUEST_VIRTIO_MMIO_SPI_FIRST,
            "GUEST_VIRTIO_MMIO_SPI_LAST" = GUEST_VIRTIO_MMIO_SPI_LAST,
        }
        domid {
            "DOMID_FIRST_RESERVED" = DOMID_FIRST_RESERVED.raw(),
            "DOMID_SELF" = DOMID_SELF.raw(),
            "DOMID_IO" = DOMID_IO.raw(),
            "DOMID_XEN" = DOMID_XEN.raw(),
            "DOMID_COW" = DOMID_COW.raw(),
            "DOMID_INVALID" = DOMID_INVALID.raw(),
            "DOMID_IDLE" = DOMID_IDLE.raw(),
            "DOMID_MASK" = DOMID_MASK,
        }
        event_channel {
            "BIND_PIRQ__WILL_SHARE" = BIND_PIRQ__WILL_SHARE,
            "EVTCHN_2L_NR_CHANNELS" = EVTCHN_2L_NR_CHANNELS,
            "EVTCHN_FIFO_PRIORITY_MAX" = EVTCHN_FIFO_PRIORITY_MAX,
            "EVTCHN_FIFO_PRIORITY_DEFAULT" = EVTCHN_FIFO_PRIORITY_DEFAULT,
            "EVTCHN_FIFO_PRIORITY_MIN" = EVTCHN_FIFO_PRIORITY_MIN,
            "EVTCHN_FIFO_MAX_QUEUES" = EVTCHN_FIFO_MAX_QUEUES,
            "EVTCHN_FIFO_PENDING" = EVTCHN_FIFO_PENDING,
            "EVTCHN_FIFO_MASKED" = EVTCHN_FIFO_MASKED,
            "EVTCHN_FIFO_LINKED" = EVTCHN_FIFO_LINKED,
            "EVTCHN_FIFO_BUSY" = EVTCHN_FIFO_BUSY,
            "EVTCHN_FIFO_LINK_BITS" = EVTCHN_FIFO_LINK_BITS,
            "EVTCHN_FIFO_LINK_MASK" = EVTCHN_FIFO_LINK_MASK,
            "EVTCHN_FIFO_NR_CHANNELS" = EVTCHN_FIFO_NR_CHANNELS,
        }
        features {
            "XENFEAT_writable_page_tables" = XENFEAT_WRITABLE_PAGE_TABLES,
            "XENFEAT_writable_descriptor_tables" = XENFEAT_WRITABLE_DESCRIPTOR_TABLES,
            "XENFEAT_auto_translated_physmap" = XENFEAT_AUTO_TRANSLATED_PHYSMAP,
            "XENFEAT_supervisor_mode_kernel" = XENFEAT_SUPERVISOR_MODE_KERNEL,
            "XENFEAT_pae_pgdir_above_4gb" = XENFEAT_PAE_PGDIR_ABOVE_4GB,
            "XENFEAT_mmu_pt_update_preserve_ad" = XENFEAT_MMU_PT_UPDATE_PRESERVE_AD,
            "XENFEAT_highmem_assist" = XENFEAT_HIGHMEM_ASSIST,
            "XENFEAT_gnttab_map_avail_bits" = XENFEAT_GNTTAB_MAP_AVAIL_BITS,
            "XENFEAT_hvm_callback_vector" = XENFEAT_HVM_CALLBACK_VECTOR,
            "XENFEAT_hvm_safe_pvclock" = XENFEAT_HVM_SAFE_PVCLOCK,
            "XENFEAT_hvm_pirqs" = XENFEAT_HVM_PIRQS,
            "XENFEAT_dom0" = XENFEAT_DOM0,
            "XENFEAT_memory_op_vnode_supported" = XENFEAT_MEMORY_OP_VNODE_SUPPORTED,
            "XENFEAT_ARM_SMCCC_supported" = XENFEAT_ARM_SMCCC_SUPPORTED,
            "XENFEAT_linux_rsdp_unrestricted" = XENFEAT_LINUX_RSDP_UNRESTRICTED,
            "XENFEAT_not_direct_mapped" = XENFEAT_NOT_DIRECT_MAPPED,
            "XENFEAT_direct_mapped" = XENFEAT_DIRECT_MAPPED,
            "XENFEAT_NR_SUBMAPS" = XENFEAT_NR_SUBMAPS,
        }
        memory {
            "XENMEMF_populate_on_demand" = XENMEMF_POPULATE_ON_DEMAND,
            "XENMEMF_exact_node_request" = XENMEMF_EXACT_NODE_REQUEST,
            "XENMEMF_vnode" = XENMEMF_VNODE,
            "XENMAPIDX_grant_table_status" = XENMAPIDX_GRANT_TABLE_STATUS,
            "XENMEM_resource_grant_table_id_shared" = XENMEM_RESOURCE_GRANT_TABLE_ID_SHARED,
            "XENMEM_resource_grant_table_id_status" = XENMEM_RESOURCE_GRANT_TABLE_ID_STATUS,
        }
        sched {
            "SHUTDOWN_MAX" = SHUTDOWN_MAX,
        }
        vcpu {
            "XEN_RUNSTATE_UPDATE" = XEN_RUNSTATE_UPDATE,
            "VCPU_SSHOTTMR_future" = VCPU_SSHOTTMR_FUTURE,
        }
        grant_table {
            "GNTTAB_NR_RESERVED_ENTRIES" = GNTTAB_NR_RESERVED_ENTRIES,
            "GNTTAB_RESERVED_CONSOLE" = GNTTAB_RESERVED_CONSOLE,
            "GNTTAB_RESERVED_XENSTORE" = GNTTAB_RESERVED_XENSTORE,
            "GTF_invalid" = GTF_INVALID,
            "GTF_permit_access" = GTF_PERMIT_ACCESS,
            "GTF_accept_transfer" = GTF_ACCEPT_TRANSFER,
            "GTF_transitive" = GTF_TRANSITIVE,
            "GTF_type_mask" = GTF_TYPE_MASK,
            "GTF_readonly" = GTF_READONLY,
            "GTF_reading" = GTF_READING,
            "GTF_writing" = GTF_WRITING,
            "GTF_PWT" = GTF_PWT,
            "GTF_PCD" = GTF_PCD,
            "GTF_PAT" = GTF_PAT,
            "GTF_sub_page" = GTF_SUB_PAGE,
            "GTF_transfer_committed" = GTF_TRANSFER_COMMITTED,
            "GTF_transfer_completed" = GTF_TRANSFER_COMPLETED,
            "GNTMAP_device_map" = GNTMAP_DEVICE_MAP,
            "GNTMAP_host_map" = GNTMAP_HOST_MAP,
            "GNTMAP_readonly" = GNTMAP_READONLY,
            "GNTMAP_application_map" = GNTMAP_APPLICATION_MAP,
            "GNTMAP_contains_pte" = GNTMAP_CONTAINS_PTE,
            "GNTMAP_guest_avail_mask" = GNTMAP_GUEST_AVAIL_MASK,
            "GNTCOPY_source_gref" = GNTCOPY_SOURCE_GREF,
            "GNTCOPY_dest_gref" = GNTCOPY_DEST_GREF,
            "GNTTAB_CACHE_CLEAN" = GNTTAB_CACHE_CLEAN,
            "GNTTAB_CACHE_INVAL" = GNTTAB_CACHE_INVAL,
            "GNTTAB_CACHE_SOURCE_GREF" = GNTTAB_CACHE_SOURCE_GREF,
        }
        hvm {
            "HVM_NR_PARAMS" = HVM_NR_PARAMS,
            "HVM_PARAM_CALLBACK_IRQ_TYPE_MASK" = HVM_PARAM_CALLBACK_IRQ_TYPE_MASK,
            "HVM_PARAM_CALLBACK_TYPE_GSI" = HVM_PARAM_CALLBACK_TYPE_GSI,
            "HVM_PARAM_CALLBACK_TYPE_PCI_INTX" = HVM_PARAM_CALLBACK_TYPE_PCI_INTX,
            "HVM_PARAM_CALLBACK_TYPE_PPI" = HVM_PARAM_CALLBACK_TYPE_PPI,
            "HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_MASK" = HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_MASK,
            "HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_LOW_LEVEL" = HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_LOW_LEVEL,
        }
        physdev {
            "XEN_PCI_MMCFG_RESERVED" = XEN_PCI_MMCFG_RESERVED,
            "XEN_PCI_DEV_EXTFN" = XEN_PCI_DEV_EXTFN,
            "XEN_PCI_DEV_VIRTFN" = XEN_PCI_DEV_VIRTFN,
            "XEN_PCI_DEV_PXM" = XEN_PCI_DEV_PXM,
        }
        platform {
            "XENPF_INTERFACE_VERSION" = XENPF_INTERFACE_VERSION,
        }
        domctl {
            "XEN_DOMCTL_INTERFACE_VERSION" = XEN_DOMCTL_INTERFACE_VERSION,
            "XEN_DOMCTL_CDF_hvm" = XEN_DOMCTL_CDF_HVM,
            "XEN_DOMCTL_CDF_hap" = XEN_DOMCTL_CDF_HAP,
            "XEN_DOMCTL_CDF_s3_integrity" = XEN_DOMCTL_CDF_S3_INTEGRITY,
            "XEN_DOMCTL_CDF_oos_off" = XEN_DOMCTL_CDF_OOS_OFF,
            "XEN_DOMCTL_CDF_xs_domain" = XEN_DOMCTL_CDF_XS_DOMAIN,
            "XEN_DOMCTL_CDF_iommu" = XEN_DOMCTL_CDF_IOMMU,
            "XEN_DOMCTL_CDF_nested_virt" = XEN_DOMCTL_CDF_NESTED_VIRT,
            "XEN_DOMCTL_CDF_vpmu" = XEN_DOMCTL_CDF_VPMU,
            "XEN_DOMCTL_CDF_MAX" = XEN_DOMCTL_CDF_MAX,
            "XEN_DOMCTL_IOMMU_no_sharept" = XEN_DOMCTL_IOMMU_NO_SHAREPT,
            "XEN_DOMCTL_IOMMU_MAX" = XEN_DOMCTL_IOMMU_MAX,
            "XEN_DOMCTL_GRANT_version_mask" = XEN_DOMCTL_GRANT_VERSION_MASK,
            "XEN_DOMINF_dying" = XEN_DOMINF_DYING,
            "XEN_DOMINF_hvm_guest" = XEN_DOMINF_HVM_GUEST,
            "XEN_DOMINF_shutdown" = XEN_DOMINF_SHUTDOWN,
            "XEN_DOMINF_paused" = XEN_DOMINF_PAUSED,
            "XEN_DOMINF_blocked" = XEN_DOMINF_BLOCKED,
            "XEN_DOMINF_running" = XEN_DOMINF_RUNNING,
            "XEN_DOMINF_debugged" = XEN_DOMINF_DEBUGGED,
            "XEN_DOMINF_xs_domain" = XEN_DOMINF_XS_DOMAIN,
            "XEN_DOMINF_hap" = XEN_DOMINF_HAP,
            "XEN_DOMINF_shutdownmask" = XEN_DOMINF_SHUTDOWNMASK,
            "XEN_DOMINF_shutdownshift" = XEN_DOMINF_SHUTDOWNSHIFT,
            "XEN_INVALID_MAX_VCPU_ID" = XEN_INVALID_MAX_VCPU_ID,
            "XEN_VCPUAFFINITY_HARD" = XEN_VCPUAFFINITY_HARD,
            "XEN_VCPUAFFINITY_SOFT" = XEN_VCPUAFFINITY_SOFT,
            "XEN_VCPUAFFINITY_FORCE" = XEN_VCPUAFFINITY_FORCE,
            "XEN_DOMCTL_SCHEDRT_extra" = XEN_DOMCTL_SCHEDRT_EXTRA,
            "XEN_DOMCTL_DEV_PCI" = XEN_DOMCTL_DEV_PCI,
            "XEN_DOMCTL_DEV_DT" = XEN_DOMCTL_DEV_DT,
            "XEN_DOMCTL_DEV_RDM_RELAXED" = XEN_DOMCTL_DEV_RDM_RELAXED,
            "DPCI_ADD_MAPPING" = DPCI_ADD_MAPPING,
            "DPCI_REMOVE_MAPPING" = DPCI_REMOVE_MAPPING,
            "XEN_DOMCTL_VUART_OP_INIT" = XEN_DOMCTL_VUART_OP_INIT,
            "XEN_DOMCTL_VUART_TYPE_VPL011" = XEN_DOMCTL_VUART_TYPE_VPL011,
        }
        sysctl {
            "XEN_SYSCTL_INTERFACE_VERSION" = XEN_SYSCTL_INTERFACE_VERSION,
            "XEN_SYSCTL_PHYSCAP_hvm" = XEN_SYSCTL_PHYSCAP_HVM,
            "XEN_SYSCTL_PHYSCAP_pv" = XEN_SYSCTL_PHYSCAP_PV,
            "XEN_SYSCTL_PHYSCAP_directio" = XEN_SYSCTL_PHYSCAP_DIRECTIO,
            "XEN_SYSCTL_PHYSCAP_hap" = XEN_SYSCTL_PHYSCAP_HAP,
            "XEN_SYSCTL_PHYSCAP_shadow" = XEN_SYSCTL_PHYSCAP_SHADOW,
            "XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share" = XEN_SYSCTL_PHYSCAP_IOMMU_HAP_PT_SHARE,
            "XEN_SYSCTL_PHYSCAP_vmtrace" = XEN_SYSCTL_PHYSCAP_VMTRACE,
            "XEN_SYSCTL_PHYSCAP_vpmu" = XEN_SYSCTL_PHYSCAP_VPMU,
            "XEN_SYSCTL_PHYSCAP_gnttab_v1" = XEN_SYSCTL_PHYSCAP_GNTTAB_V1,
            "XEN_SYSCTL_PHYSCAP_gnttab_v2" = XEN_SYSCTL_PHYSCAP_GNTTAB_V2,
            "XEN_SYSCTL_PHYSCAP_MAX" = XEN_SYSCTL_PHYSCAP_MAX,
            "XEN_SYSCTL_PERFCOP_reset" = XEN_SYSCTL_PERFCOP_RESET,
            "XEN_SYSCTL_PERFCOP_query" = XEN_SYSCTL_PERFCOP_QUERY,
            "XEN_INVALID_CORE_ID" = XEN_INVALID_CORE_ID,
            "XEN_INVALID_SOCKET_ID" = XEN_INVALID_SOCKET_ID,
            "XEN_INVALID_NODE_ID" = XEN_INVALID_NODE_ID,
            "XEN_INVALID_MEM_SZ" = XEN_INVALID_MEM_SZ,
            "XEN_INVALID_NODE_DIST" = XEN_INVALID_NODE_DIST,
            "XEN_SYSCTL_CPUPOOL_PAR_ANY" = XEN_SYSCTL_CPUPOOL_PAR_ANY,
            "ARINC653_MAX_DOMAINS_PER_SCHEDULE" = ARINC653_MAX_DOMAINS_PER_SCHEDULE,
            "XEN_SYSCTL_SCHED_RATELIMIT_MAX" = XEN_SYSCTL_SCHED_RATELIMIT_MAX,
            "XEN_SYSCTL_SCHED_RATELIMIT_MIN" = XEN_SYSCTL_SCHED_RATELIMIT_MIN,
            "XEN_SYSCTL_SCHEDOP_putinfo" = XEN_SYSCTL_SCHEDOP_PUTINFO,
            "XEN_SYSCTL_SCHEDOP_getinfo" = XEN_SYSCTL_SCHEDOP_GETINFO,
            "XEN_INVALID_DEV" = XEN_INVALID_DEV,
        }
        xs_wire {
            "XENSTORE_RING_SIZE" = XENSTORE_RING_SIZE,
            "XENSTORE_PAYLOAD_MAX" = XENSTORE_PAYLOAD_MAX,
            "XENSTORE_ABS_PATH_MAX" = XENSTORE_ABS_PATH_MAX,
            "XENSTORE_REL_PATH_MAX" = XENSTORE_REL_PATH_MAX,
            "XENSTORE_SERVER_FEATURE_RECONNECTION" = XENSTORE_SERVER_FEATURE_RECONNECTION,
            "XENSTORE_SERVER_FEATURE_ERROR" = XENSTORE_SERVER_FEATURE_ERROR,
            "XENSTORE_CONNECTED" = XENSTORE_CONNECTED,
            "XENSTORE_RECONNECT" = XENSTORE_RECONNECT,
            "XENSTORE_ERROR_NONE" = XENSTORE_ERROR_NONE,
            "XENSTORE_ERROR_COMM" = XENSTORE_ERROR_COMM,
            "XENSTORE_ERROR_RINGIDX" = XENSTORE_ERROR_RINGIDX,
            "XENSTORE_ERROR_PROTO" = XENSTORE_ERROR_PROTO,
        }
        hypercall {
            "XEN_HYPERCALL_TAG" = HYPERVISOR_ISS,
        }
        memory {
            "XENMEMF_get_address_bits(~0u)" = XENMEMF_ADDRESS_BITS_MASK,
        }
        version {
            "sizeof(xen_extraversion_t)" = size_of::<Extraversion>(),
            "sizeof(xen_capabilities_info_t)" = size_of::<Capabilities>(),
            "sizeof(xen_changeset_info_t)" = size_of::<Changeset>(),
            "sizeof(xen_commandline_t)" = size_of::<Commandline>(),
        }
        xen {
            "sizeof(xen_domain_handle_t)" = size_of::<DomainHandle>(),
        }
        xs_wire {
            "XS_TYPE_COUNT" = XS_TYPE_COUNT,
            "XS_INVALID" = XS_INVALID,
            "XS_WATCH_PATH" = XS_WATCH_PATH,
            "XS_WATCH_TOKEN" = XS_WATCH_TOKEN,
            "MASK_XENSTORE_IDX(0x12345)" = mask_xenstore_idx(0x12345),
        }
        io_console {
            "MASK_XENCONS_IDX(0x12fff, ((struct xencons_interface *)0)->in)" = mask_in_idx(0x12fff),
            "MASK_XENCONS_IDX(0x12fff, ((struct xencons_interface *)0)->out)" = mask_out_idx(0x12fff),
        }
    }
    checks
}
