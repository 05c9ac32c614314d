//! `domctl`: making a domain and taking it away.

use pv_abi::arch_arm::VcpuGuestContext;
use pv_abi::domctl::{
    AddressSize, Cacheflush, CreateDomain, Domctl, DomctlUnion, MaxVcpus, Op, PagingMempool, SetDomainHandle,
    VcpuContext, XEN_DOMCTL_INTERFACE_VERSION,
};
use pv_abi::domid::DomId;
use pv_abi::hypercall::Hypercall;
use pv_abi::xen::DomainHandle;

use super::domctl::MAPS;
use super::{Privcmd, Result};

/// Pages that one `cacheflush` takes: Xen refuses more than 2^18 (`MAX_ORDER`).
const FLUSH_PAGES: u64 = 1 << 16;

impl Privcmd {
    /// Makes a domain, paused and empty: its number, and the configuration as the hypervisor completed it. `wanted` is
    /// the number it shall have, if that matters.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn create_domain(
        &self,
        wanted: Option<DomId>,
        config: CreateDomain,
    ) -> Result<(DomId, CreateDomain)> {
        let call = Domctl {
            cmd: Op::Createdomain.raw(),
            interface_version: XEN_DOMCTL_INTERFACE_VERSION,
            domain: wanted.unwrap_or(DomId::new(0)),
            u: DomctlUnion::of(&config),
            ..Domctl::default()
        };
        let buffer = self.buffer_with(&call, MAPS)?;
        let arg = [buffer.address(0), 0, 0, 0, 0];
        // SAFETY: the structure is in the buffer and holds no address.
        unsafe { self.call("domctl createdomain", Hypercall::Domctl, arg) }?;
        let call: Domctl = buffer.get(0);
        Ok((call.domain, call.u.get()))
    }

    /// Takes a domain and all it has away. It goes when nobody maps its memory any more.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn destroy_domain(&self, id: DomId) -> Result<()> {
        self.flat_domctl("domctl destroydomain", Op::Destroydomain, id, &[0u8; 0]).map(|_| ())
    }

    /// Goes on with a domain that stopped to be suspended.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn resume_domain(&self, id: DomId) -> Result<()> {
        self.flat_domctl("domctl resumedomain", Op::Resumedomain, id, &[0u8; 0]).map(|_| ())
    }

    /// Sets how many vCPUs a domain has; once.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn set_max_vcpus(&self, id: DomId, max: u32) -> Result<()> {
        self.flat_domctl("domctl max_vcpus", Op::MaxVcpus, id, &MaxVcpus { max }).map(|_| ())
    }

    /// Sets a domain's UUID.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn set_handle(&self, id: DomId, handle: DomainHandle) -> Result<()> {
        let op = SetDomainHandle { handle };
        self.flat_domctl("domctl setdomainhandle", Op::Setdomainhandle, id, &op).map(|_| ())
    }

    /// Sets whether a domain starts in 32 or 64 bits.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn set_address_size(&self, id: DomId, size: u32) -> Result<()> {
        self.flat_domctl("domctl set_address_size", Op::SetAddressSize, id, &AddressSize { size }).map(|_| ())
    }

    /// Sets the bytes of the pool that a domain's stage-2 tables come from.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn set_paging_pool(&self, id: DomId, bytes: u64) -> Result<()> {
        let op = PagingMempool { size: bytes };
        let what = "domctl set_paging_mempool_size";
        self.flat_domctl(what, Op::SetPagingMempoolSize, id, &op).map(|_| ())
    }

    /// Cleans guest frames out of the data caches, for a guest that starts without them.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn flush_caches(&self, id: DomId, first: u64, pages: u64) -> Result<()> {
        let end = first + pages;
        for start_pfn in (first..end).step_by(FLUSH_PAGES as usize) {
            let op = Cacheflush { start_pfn, nr_pfns: FLUSH_PAGES.min(end - start_pfn) };
            self.flat_domctl("domctl cacheflush", Op::Cacheflush, id, &op)?;
        }
        Ok(())
    }

    /// Where the context lies, behind the call's structure.
    fn vcpu_context_call(
        &self,
        what: &'static str,
        op: Op,
        id: DomId,
        vcpu: u32,
        context: VcpuGuestContext,
    ) -> Result<VcpuGuestContext> {
        let mut buffer = self.buffer(MAPS + size_of::<VcpuGuestContext>())?;
        buffer.put(MAPS, &context);
        let argument = VcpuContext { vcpu, ctxt: buffer.handle(MAPS), ..VcpuContext::default() };
        // SAFETY: the address is that of a whole context in the buffer.
        unsafe { self.domctl(what, op, id, &mut buffer, &argument) }?;
        Ok(buffer.get(MAPS))
    }

    /// Sets a vCPU's registers.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn set_vcpu_context(&self, id: DomId, vcpu: u32, context: VcpuGuestContext) -> Result<()> {
        self.vcpu_context_call("domctl setvcpucontext", Op::Setvcpucontext, id, vcpu, context).map(|_| ())
    }

    /// A vCPU's registers.
    ///
    /// # Errors
    /// [`super::Error::Refused`].
    pub fn vcpu_context(&self, id: DomId, vcpu: u32) -> Result<VcpuGuestContext> {
        let empty = VcpuGuestContext::default();
        self.vcpu_context_call("domctl getvcpucontext", Op::Getvcpucontext, id, vcpu, empty)
    }
}
