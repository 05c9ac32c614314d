//! A machine with memory and domains, for tests: a thread's own, so that tests run side by side.
//!
//! A guest's virtual addresses translate to themselves as machine addresses in the fake machine, so a test that
//! passes arguments gives the domain a page and writes them at the page's machine address ([`Guest::page`]).

use alloc::boxed::Box;
use alloc::sync::Arc;

use pv_abi::domid::DomId;
use stage2::{Geometry, Gfn, Ipa, Mfn, Pa, Pages};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{MemoryRange, init, memory};
use crate::arch::{self, Access};
use crate::domain::{Domain, DomainConfig};
use crate::hypercall::Caller;
use crate::p2m::{P2m, P2mConfig};
use crate::vcpu::{Vcpu, VcpuId};
use crate::vgic::{Frames, VirtualGic};

/// Where the RAM of [`machine`] begins.
pub const RAM: Pa = Pa::new(0x4000_0000);

/// Gives this thread's machine `mib` MiB of RAM in one bank.
pub fn machine(mib: u64) {
    machine_with(&[MemoryRange { start: RAM, pages: Pages::new(mib << 8) }], &[]);
}

/// Gives this thread's machine these banks.
pub fn machine_with(banks: &[MemoryRange], reserved: &[MemoryRange]) {
    // SAFETY: the fake machine's memory is made when touched and used by this module alone.
    unsafe { init(banks, reserved) }.unwrap();
}

/// An empty address space of 40 bits.
pub fn p2m(owner: DomId, is_direct_mapped: bool) -> P2m {
    let geometry = Geometry::new(40).unwrap();
    P2m::new(&P2mConfig { owner, is_direct_mapped, geometry, table_limit: Pages::new(1 << 20) }).unwrap()
}

/// A domain with one vCPU, which can make calls.
pub struct Guest {
    /// The domain.
    pub domain: Arc<Domain>,
    /// Its vCPU.
    pub vcpu: Arc<Vcpu>,
}

/// A domain that may have `maximum` pages and has none. Domain 0 is the control domain and mapped 1:1. It is not in
/// the list of domains, which threads share.
pub fn guest(id: u16, maximum: u64) -> Guest {
    guest_with(id, maximum, |_| {})
}

/// The same with something changed before anybody can see it.
pub fn guest_with(id: u16, maximum: u64, change: impl FnOnce(&mut Domain)) -> Guest {
    let config = DomainConfig {
        id: DomId::new(id),
        is_control: id == 0,
        is_direct_mapped: id == 0,
        max_grant_frames: 4,
        max_event_ports: 64,
    };
    let vgic = VirtualGic::new(Frames::V2 { distributor: Ipa::new(0x0300_1000) }, &[0], 32).unwrap();
    let mut domain = Domain::new(&config, p2m(config.id, config.is_direct_mapped), vgic);
    change(&mut domain);
    let domain = Arc::new(domain);
    domain.pages.set_maximum(Pages::new(maximum));
    let vcpu = Arc::new(Vcpu::new(&domain, VcpuId::new(0), arch::VcpuState));
    domain.set_vcpus(Box::new([vcpu.clone()]));
    Guest { domain, vcpu }
}

impl Guest {
    /// As the maker of a hypercall.
    pub fn caller(&self) -> Caller<'_> {
        Caller { domain: &self.domain, vcpu: &self.vcpu }
    }

    /// Gives the domain a block of memory: at `gfn`, or 1:1 if it is mapped so. Its first machine frame.
    pub fn populate(&self, gfn: u64, order: u32) -> Mfn {
        let block = memory().allocate(order).unwrap().clear();
        let (mfn, pages) = (block.mfn(), block.pages());
        self.domain.pages.charge(pages).unwrap();
        if self.domain.is_direct_mapped {
            block.give_to(self.domain.id);
            self.domain.p2m.edit(|batch| batch.map_own(Gfn::new(mfn.raw()), mfn, pages)).unwrap();
        } else {
            self.domain.p2m.edit(|batch| batch.populate(Gfn::new(gfn), block)).unwrap();
        }
        mfn
    }

    /// Gives the domain a page at `gfn` (or 1:1) for arguments; its virtual address.
    pub fn page(&self, gfn: u64) -> u64 {
        self.populate(gfn, 0).pa().raw()
    }

    /// Writes a value at a virtual address of the guest's.
    pub fn put<T: IntoBytes + Immutable + ?Sized>(&self, address: u64, value: &T) {
        super::guest::write_slice(&self.caller(), address, value.as_bytes()).unwrap();
    }

    /// Reads a value at a virtual address of the guest's.
    pub fn take<T: FromBytes + IntoBytes>(&self, address: u64) -> T {
        super::guest::read(&self.caller(), address).unwrap()
    }

    /// The machine frame of `gfn`, if anything is mapped there.
    pub fn mfn(&self, gfn: u64) -> Option<Mfn> {
        self.domain.p2m.lookup(Gfn::new(gfn)).map(|(mfn, _)| mfn)
    }

    /// Whether the guest can read (or write) at `gfn`.
    pub fn can(&self, gfn: u64, access: Access) -> bool {
        self.domain.p2m.get_page(Gfn::new(gfn), access).is_ok()
    }
}
