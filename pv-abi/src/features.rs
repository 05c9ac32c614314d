//! Feature bits of `XENVER_get_features` (public header `features.h`).

/// Guest page tables are writable.
pub const XENFEAT_WRITABLE_PAGE_TABLES: u32 = 0;
/// Descriptor tables are writable.
pub const XENFEAT_WRITABLE_DESCRIPTOR_TABLES: u32 = 1;
/// The guest's frame numbers are translated for it (stage 2). Always on Arm.
pub const XENFEAT_AUTO_TRANSLATED_PHYSMAP: u32 = 2;
/// The kernel runs in supervisor mode.
pub const XENFEAT_SUPERVISOR_MODE_KERNEL: u32 = 3;
/// x86: page directories may lie above 4 GiB.
pub const XENFEAT_PAE_PGDIR_ABOVE_4GB: u32 = 4;
/// x86: page table updates keep accessed and dirty.
pub const XENFEAT_MMU_PT_UPDATE_PRESERVE_AD: u32 = 5;
/// x86: clear and copy pages by hypercall.
pub const XENFEAT_HIGHMEM_ASSIST: u32 = 6;
/// Grant mappings may carry bits of the guest's own.
pub const XENFEAT_GNTTAB_MAP_AVAIL_BITS: u32 = 7;
/// x86: event delivery by interrupt vector.
pub const XENFEAT_HVM_CALLBACK_VECTOR: u32 = 8;
/// x86: the PV clock is usable in HVM guests.
pub const XENFEAT_HVM_SAFE_PVCLOCK: u32 = 9;
/// x86: physical interrupts in HVM guests.
pub const XENFEAT_HVM_PIRQS: u32 = 10;
/// The caller is dom0.
pub const XENFEAT_DOM0: u32 = 11;
/// `memory_op` understands virtual NUMA nodes.
pub const XENFEAT_MEMORY_OP_VNODE_SUPPORTED: u32 = 13;
/// The hypervisor follows the Arm SMC Calling Convention.
pub const XENFEAT_ARM_SMCCC_SUPPORTED: u32 = 14;
/// x86: ACPI's root pointer may lie anywhere.
pub const XENFEAT_LINUX_RSDP_UNRESTRICTED: u32 = 15;
/// Guest frame numbers are not machine frame numbers.
pub const XENFEAT_NOT_DIRECT_MAPPED: u32 = 16;
/// Guest frame numbers are machine frame numbers, as for dom0 on Arm.
pub const XENFEAT_DIRECT_MAPPED: u32 = 17;
/// How many words of features there are.
pub const XENFEAT_NR_SUBMAPS: u32 = 1;
