//! What is particular to Arm (public header `arch-arm.h`): register frames, domain configuration, the guest memory map.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many `vcpu_info` the shared page holds.
pub const XEN_LEGACY_MAX_VCPUS: usize = 1;

/// The general registers of a vCPU (`vcpu_guest_core_regs`). AArch32 names are those of the Arm ARM's mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VcpuGuestCoreRegs {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Program counter.
    pub pc64: u64,
    /// Process state, in the format of SPSR_EL2.
    pub cpsr: u64,
    /// SPSR_EL1, for AArch32 SPSR_svc.
    pub spsr_el1: u64,
    /// SPSR_fiq.
    pub spsr_fiq: u32,
    /// SPSR_irq.
    pub spsr_irq: u32,
    /// SPSR_und.
    pub spsr_und: u32,
    /// SPSR_abt.
    pub spsr_abt: u32,
    /// SP_EL0.
    pub sp_el0: u64,
    /// SP_EL1.
    pub sp_el1: u64,
    /// ELR_EL1.
    pub elr_el1: u64,
}

/// What `XEN_DOMCTL_setvcpucontext` carries (`vcpu_guest_context`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct VcpuGuestContext {
    /// `VGCF_*`.
    pub flags: u32,
    /// Padding.
    pub _pad: u32,
    /// The general registers.
    pub user_regs: VcpuGuestCoreRegs,
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// TCR_EL1.
    pub ttbcr: u64,
    /// TTBR0_EL1.
    pub ttbr0: u64,
    /// TTBR1_EL1.
    pub ttbr1: u64,
}

/// The vCPU is to run.
pub const VGCF_ONLINE: u32 = 1 << 0;

/// The GIC that the host has.
pub const XEN_DOMCTL_CONFIG_GIC_NATIVE: u8 = 0;
/// GICv2.
pub const XEN_DOMCTL_CONFIG_GIC_V2: u8 = 1;
/// GICv3.
pub const XEN_DOMCTL_CONFIG_GIC_V3: u8 = 2;

/// No trusted execution environment.
pub const XEN_DOMCTL_CONFIG_TEE_NONE: u16 = 0;
/// OP-TEE.
pub const XEN_DOMCTL_CONFIG_TEE_OPTEE: u16 = 1;

/// The Arm part of a domain's configuration (`xen_arch_domainconfig`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ArchDomainConfig {
    /// In and out: `XEN_DOMCTL_CONFIG_GIC_*`.
    pub gic_version: u8,
    /// Padding.
    pub _pad: u8,
    /// `XEN_DOMCTL_CONFIG_TEE_*`.
    pub tee_type: u16,
    /// How many shared peripheral interrupts.
    pub nr_spis: u32,
    /// Out: the timer's frequency in hertz, 0 where CNTFRQ_EL0 is right.
    pub clock_frequency: u32,
}

/// AArch32: Thumb state.
pub const PSR_THUMB: u64 = 1 << 5;
/// FIQ masked.
pub const PSR_FIQ_MASK: u64 = 1 << 6;
/// IRQ masked.
pub const PSR_IRQ_MASK: u64 = 1 << 7;
/// SError masked.
pub const PSR_ABT_MASK: u64 = 1 << 8;
/// AArch64: debug exceptions masked.
pub const PSR_DBG_MASK: u64 = 1 << 9;
/// EL3 with its own stack.
pub const PSR_MODE_EL3H: u64 = 0x0d;
/// EL3 with SP_EL0.
pub const PSR_MODE_EL3T: u64 = 0x0c;
/// EL2 with its own stack.
pub const PSR_MODE_EL2H: u64 = 0x09;
/// EL2 with SP_EL0.
pub const PSR_MODE_EL2T: u64 = 0x08;
/// EL1 with its own stack.
pub const PSR_MODE_EL1H: u64 = 0x05;
/// EL1 with SP_EL0.
pub const PSR_MODE_EL1T: u64 = 0x04;
/// EL0.
pub const PSR_MODE_EL0T: u64 = 0x00;
/// AArch32 supervisor mode.
pub const PSR_MODE_SVC: u64 = 0x13;
/// Set in `cpsr` for every AArch32 mode.
pub const PSR_MODE_BIT: u64 = 0x10;
/// AArch32: the zero flag.
pub const PSR_Z: u64 = 1 << 30;
/// Process state in which a 32-bit vCPU starts.
pub const PSR_GUEST32_INIT: u64 = PSR_Z | PSR_ABT_MASK | PSR_FIQ_MASK | PSR_IRQ_MASK | PSR_MODE_SVC;
/// Process state in which a 64-bit vCPU starts.
pub const PSR_GUEST64_INIT: u64 = PSR_ABT_MASK | PSR_FIQ_MASK | PSR_IRQ_MASK | PSR_MODE_EL1H;
/// SCTLR_EL1 of a vCPU that starts.
pub const SCTLR_GUEST_INIT: u64 = 0x00c5_0078;

/// Virtio over MMIO: first address.
pub const GUEST_VIRTIO_MMIO_BASE: u64 = 0x0200_0000;
/// Virtio over MMIO: bytes.
pub const GUEST_VIRTIO_MMIO_SIZE: u64 = 0x0010_0000;
/// GICv2 distributor: first address.
pub const GUEST_GICD_BASE: u64 = 0x0300_1000;
/// GICv2 distributor: bytes.
pub const GUEST_GICD_SIZE: u64 = 0x0000_1000;
/// GICv2 CPU interface: first address.
pub const GUEST_GICC_BASE: u64 = 0x0300_2000;
/// GICv2 CPU interface: bytes.
pub const GUEST_GICC_SIZE: u64 = 0x0000_2000;
/// GICv3 distributor: first address.
pub const GUEST_GICV3_GICD_BASE: u64 = 0x0300_1000;
/// GICv3 distributor: bytes.
pub const GUEST_GICV3_GICD_SIZE: u64 = 0x0001_0000;
/// GICv3: how many regions of redistributors.
pub const GUEST_GICV3_RDIST_REGIONS: u32 = 1;
/// GICv3 redistributors: first address.
pub const GUEST_GICV3_GICR0_BASE: u64 = 0x0302_0000;
/// GICv3 redistributors: bytes, for 128 vCPUs.
pub const GUEST_GICV3_GICR0_SIZE: u64 = 0x0100_0000;
/// Virtual PCI configuration space: first address.
pub const GUEST_VPCI_ECAM_BASE: u64 = 0x1000_0000;
/// Virtual PCI configuration space: bytes.
pub const GUEST_VPCI_ECAM_SIZE: u64 = 0x1000_0000;
/// ACPI tables: first address.
pub const GUEST_ACPI_BASE: u64 = 0x2000_0000;
/// ACPI tables: bytes.
pub const GUEST_ACPI_SIZE: u64 = 0x0200_0000;
/// Emulated PL011: first address.
pub const GUEST_PL011_BASE: u64 = 0x2200_0000;
/// Emulated PL011: bytes.
pub const GUEST_PL011_SIZE: u64 = 0x0000_1000;
/// Virtual PCI memory: first address.
pub const GUEST_VPCI_MEM_ADDR: u64 = 0x2300_0000;
/// Virtual PCI memory: bytes.
pub const GUEST_VPCI_MEM_SIZE: u64 = 0x1000_0000;
/// Where the guest may put its grant table, also announced by the device tree: first address.
pub const GUEST_GNTTAB_BASE: u64 = 0x3800_0000;
/// Room for the grant table: bytes.
pub const GUEST_GNTTAB_SIZE: u64 = 0x0100_0000;
/// Pages that the domain builder shares with the guest (console, XenStore): first address.
pub const GUEST_MAGIC_BASE: u64 = 0x3900_0000;
/// Pages that the domain builder shares with the guest: bytes.
pub const GUEST_MAGIC_SIZE: u64 = 0x0100_0000;
/// How many banks of memory.
pub const GUEST_RAM_BANKS: usize = 2;
/// First bank: first address.
pub const GUEST_RAM0_BASE: u64 = 0x4000_0000;
/// First bank: bytes at most, 3 GiB.
pub const GUEST_RAM0_SIZE: u64 = 0xc000_0000;
/// Virtual PCI prefetchable memory: first address.
pub const GUEST_VPCI_PREFETCH_MEM_ADDR: u64 = 0x1_0000_0000;
/// Virtual PCI prefetchable memory: bytes.
pub const GUEST_VPCI_PREFETCH_MEM_SIZE: u64 = 0x1_0000_0000;
/// Second bank: first address.
pub const GUEST_RAM1_BASE: u64 = 0x02_0000_0000;
/// Second bank: bytes at most, 1016 GiB.
pub const GUEST_RAM1_SIZE: u64 = 0xfe_0000_0000;
/// Where memory starts.
pub const GUEST_RAM_BASE: u64 = GUEST_RAM0_BASE;
/// Bytes of memory that a guest can have.
pub const GUEST_RAM_MAX: u64 = GUEST_RAM0_SIZE + GUEST_RAM1_SIZE;
/// Where each bank starts.
pub const GUEST_RAM_BANK_BASES: [u64; GUEST_RAM_BANKS] = [GUEST_RAM0_BASE, GUEST_RAM1_BASE];
/// How large each bank can be.
pub const GUEST_RAM_BANK_SIZES: [u64; GUEST_RAM_BANKS] = [GUEST_RAM0_SIZE, GUEST_RAM1_SIZE];
/// vCPUs that a guest can have.
pub const GUEST_MAX_VCPUS: u32 = 128;
/// Interrupt of the virtual timer.
pub const GUEST_TIMER_VIRT_PPI: u32 = 27;
/// Interrupt of the secure physical timer.
pub const GUEST_TIMER_PHYS_S_PPI: u32 = 29;
/// Interrupt of the physical timer.
pub const GUEST_TIMER_PHYS_NS_PPI: u32 = 30;
/// Interrupt of event channels.
pub const GUEST_EVTCHN_PPI: u32 = 31;
/// Interrupt of the emulated PL011.
pub const GUEST_VPL011_SPI: u32 = 32;
/// First interrupt of virtio over MMIO.
pub const GUEST_VIRTIO_MMIO_SPI_FIRST: u32 = 33;
/// Last interrupt of virtio over MMIO.
pub const GUEST_VIRTIO_MMIO_SPI_LAST: u32 = 43;
