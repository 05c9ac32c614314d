//! What making a domain asks of the hypervisor: a trait, so that a test can write down what is asked.

use pv_abi::arch_arm::VcpuGuestContext;
use pv_abi::domctl::{CreateDomain, GetDomainInfo};
use pv_abi::domid::DomId;
use pv_abi::event_channel::Port;
use pv_abi::hvm::Index;
use pv_abi::sysctl::PhysInfo;

use super::guest_memory::GuestMemory;
use crate::cpu_set::CpuSet;
use crate::privcmd::{CreditParameters, FilePages, MemoryTarget, Privcmd, Result};

/// Memory of a domain that is being made.
pub trait WriteMemory {
    /// Copies bytes to `address`.
    ///
    /// # Errors
    /// [`crate::privcmd::Error::Map`].
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()>;

    /// Copies `length` bytes of a file from `offset` on to `address`.
    ///
    /// # Errors
    /// [`crate::privcmd::Error::Map`].
    fn write_file(&mut self, address: u64, file: &FilePages, offset: u64, length: usize) -> Result<()>;

    /// Lets dom0 use the page at `address` as the grant `reference`.
    ///
    /// # Errors
    /// [`crate::privcmd::Error::Map`].
    fn grant(&mut self, reference: u32, address: u64) -> Result<()>;
}

macro_rules! hypervisor {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty = $method:ident;)*) => {
        /// The hypercalls. Each is [`Privcmd`]'s method.
        pub trait Hypervisor {
            /// How memory is written.
            type Memory: WriteMemory;

            /// The way to the memory of a domain.
            ///
            /// # Errors
            /// [`crate::privcmd::Error`].
            fn memory(&self, domain: DomId) -> Result<Self::Memory>;

            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`crate::privcmd::Error::Refused`].
                fn $name(&self, $($arg: $type),*) -> Result<$result>;
            )*
        }

        impl Hypervisor for Privcmd {
            type Memory = GuestMemory;

            fn memory(&self, domain: DomId) -> Result<GuestMemory> {
                GuestMemory::open(self, domain)
            }

            $(
                fn $name(&self, $($arg: $type),*) -> Result<$result> {
                    Privcmd::$method(self, $($arg),*)
                }
            )*
        }
    };
}

hypervisor! {
    /// What the host has.
    fn host() -> PhysInfo = physinfo;
    /// One domain, if it is there.
    fn domain(id: DomId) -> Option<GetDomainInfo> = domain;
    /// Makes a domain.
    fn create_domain(wanted: Option<DomId>, config: CreateDomain) -> (DomId, CreateDomain) = create_domain;
    /// Sets how many vCPUs it has.
    fn set_max_vcpus(id: DomId, max: u32) -> () = set_max_vcpus;
    /// Sets how wide its addresses are.
    fn set_address_size(id: DomId, bits: u32) -> () = set_address_size;
    /// Sets the ceiling of its memory, in KiB.
    fn set_max_memory(id: DomId, kib: u64) -> () = set_max_memory;
    /// Sets the size of the pool for its stage-2 tables.
    fn set_paging_pool(id: DomId, bytes: u64) -> () = set_paging_pool;
    /// Sets a vCPU's CPUs.
    fn set_affinity(id: DomId, vcpu: u32, hard: Option<&CpuSet>, soft: Option<&CpuSet>, force: bool) -> () = set_affinity;
    /// Its share of the CPUs.
    fn credit_parameters(id: DomId) -> CreditParameters = credit_parameters;
    /// Sets that.
    fn set_credit_parameters(id: DomId, parameters: CreditParameters) -> () = set_credit_parameters;
    /// Sets pages aside for it.
    fn claim(id: DomId, pages: u64) -> () = claim;
    /// Gives it memory.
    fn populate(id: DomId, frames: &[u64], order: u32, flags: u32) -> usize = populate;
    /// Sets that.
    fn set_memory_target(id: DomId, pages: u64) -> Option<MemoryTarget> = set_memory_target;
    /// Cleans its pages out of the caches.
    fn flush_caches(id: DomId, first: u64, pages: u64) -> () = flush_caches;
    /// Makes a port of it that `remote` may connect to.
    fn alloc_unbound(owner: DomId, remote: DomId) -> Port = alloc_unbound;
    /// Sets a parameter.
    fn set_parameter(id: DomId, index: Index, value: u64) -> () = set_parameter;
    /// Sets a vCPU's registers.
    fn set_vcpu_context(id: DomId, vcpu: u32, context: VcpuGuestContext) -> () = set_vcpu_context;
}
