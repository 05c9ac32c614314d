//! `domctl`: one domain.

use pv_abi::domctl::{
    Domctl, DomctlUnion, GetDomainInfo, GetVcpuInfo, MaxMem, NodeAffinity, Op, SchedCredit2, SchedulerCmd,
    SchedulerId, SchedulerOp, VcpuAffinity, XEN_DOMCTL_INTERFACE_VERSION, XEN_VCPUAFFINITY_FORCE,
    XEN_VCPUAFFINITY_HARD, XEN_VCPUAFFINITY_SOFT,
};
use pv_abi::domid::DomId;
use pv_abi::hypercall::Hypercall;
use pv_abi::xen::Bitmap;
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::buffer::Buffer;
use super::{Error, Privcmd, Result};
use crate::cpu_set::CpuSet;

/// Where bitmaps begin in the buffer, after the structure.
pub(super) const MAPS: usize = 256;
/// Bytes of a bitmap: room for 4096 CPUs or nodes.
const MAP_BYTES: usize = 512;
const MAP_BITS: u32 = MAP_BYTES as u32 * 8;

/// The CPUs of a vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Those that it may run on.
    pub hard: CpuSet,
    /// Those that it should run on.
    pub soft: CpuSet,
}

/// A domain's share under credit2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditParameters {
    /// In relation to others'.
    pub weight: u16,
    /// Percent of one CPU at most; 0 is no limit.
    pub cap: u16,
}

impl Privcmd {
    /// Makes the call whose structure `argument` is; bitmaps lie in `buffer` from [`MAPS`] on. The call as it comes back.
    ///
    /// # Safety
    /// Every address in `argument` is one of `buffer`, from [`MAPS`] on, with room for what the operation puts there.
    pub(super) unsafe fn domctl<T: IntoBytes + Immutable>(
        &self,
        what: &'static str,
        op: Op,
        domain: DomId,
        buffer: &mut Buffer,
        argument: &T,
    ) -> Result<Domctl> {
        const { assert!(size_of::<Domctl>() <= MAPS) };
        let call = Domctl {
            cmd: op.raw(),
            interface_version: XEN_DOMCTL_INTERFACE_VERSION,
            domain,
            u: DomctlUnion::of(argument),
            ..Domctl::default()
        };
        buffer.put(0, &call);
        // SAFETY: the structure is in the buffer, what it points to by our contract.
        unsafe { self.call(what, Hypercall::Domctl, [buffer.address(0), 0, 0, 0, 0]) }?;
        Ok(buffer.get(0))
    }

    /// The same without any bitmap.
    pub(super) fn flat_domctl<T>(&self, what: &'static str, op: Op, domain: DomId, argument: &T) -> Result<T>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let mut buffer = self.buffer(MAPS)?;
        // SAFETY: only used with structures that hold no address.
        unsafe { self.domctl(what, op, domain, &mut buffer, argument) }.map(|call| call.u.get())
    }

    /// One domain, or `None` if there is none of that number.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn domain(&self, id: DomId) -> Result<Option<GetDomainInfo>> {
        let ask = GetDomainInfo::default();
        match self.flat_domctl("domctl getdomaininfo", Op::Getdomaininfo, id, &ask) {
            // The next one, where there is none of that number.
            Ok(info) => Ok((info.domain == id).then_some(info)),
            Err(Error::Refused { errno: Errno::SRCH | Errno::INVAL, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops a domain's vCPUs, counted.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn pause(&self, id: DomId) -> Result<()> {
        self.flat_domctl("domctl pausedomain", Op::Pausedomain, id, &[0u8; 0]).map(|_| ())
    }

    /// Undoes one [`Self::pause`].
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn unpause(&self, id: DomId) -> Result<()> {
        self.flat_domctl("domctl unpausedomain", Op::Unpausedomain, id, &[0u8; 0]).map(|_| ())
    }

    /// Sets the ceiling of a domain's memory, in KiB.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_max_memory(&self, id: DomId, max_memkb: u64) -> Result<()> {
        self.flat_domctl("domctl max_mem", Op::MaxMem, id, &MaxMem { max_memkb }).map(|_| ())
    }

    /// What a vCPU does, or `None` if there is none of that number.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn vcpu(&self, id: DomId, vcpu: u32) -> Result<Option<GetVcpuInfo>> {
        let ask = GetVcpuInfo { vcpu, ..GetVcpuInfo::default() };
        match self.flat_domctl("domctl getvcpuinfo", Op::Getvcpuinfo, id, &ask) {
            Ok(info) => Ok(Some(info)),
            Err(Error::Refused { errno: Errno::SRCH | Errno::INVAL, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Bitmaps for an affinity operation: the buffer, and the structure that points to it.
    fn affinity_maps(&self, vcpu: u32, flags: u32) -> Result<(Buffer, VcpuAffinity)> {
        let buffer = self.buffer(MAPS + 2 * MAP_BYTES)?;
        let map = |at| Bitmap { bitmap: buffer.handle(at), nr_bits: MAP_BITS, ..Bitmap::default() };
        let op = VcpuAffinity { vcpu, flags, cpumap_hard: map(MAPS), cpumap_soft: map(MAPS + MAP_BYTES) };
        Ok((buffer, op))
    }

    /// The CPUs of a vCPU.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn affinity(&self, id: DomId, vcpu: u32) -> Result<Affinity> {
        let (mut buffer, op) = self.affinity_maps(vcpu, XEN_VCPUAFFINITY_HARD | XEN_VCPUAFFINITY_SOFT)?;
        // SAFETY: the structure points to two bitmaps in the buffer, of the size it says.
        unsafe { self.domctl("domctl getvcpuaffinity", Op::Getvcpuaffinity, id, &mut buffer, &op) }?;
        let map = |at| CpuSet::from_bytes(&buffer.list::<u8>(at, MAP_BYTES));
        Ok(Affinity { hard: map(MAPS), soft: map(MAPS + MAP_BYTES) })
    }

    /// Sets the CPUs of a vCPU, each set if it is given; `force` ends a pin that the domain's kernel made.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_affinity(
        &self,
        id: DomId,
        vcpu: u32,
        hard: Option<&CpuSet>,
        soft: Option<&CpuSet>,
        force: bool,
    ) -> Result<()> {
        let mut flags = 0;
        for (given, flag) in [
            (hard.is_some(), XEN_VCPUAFFINITY_HARD),
            (soft.is_some(), XEN_VCPUAFFINITY_SOFT),
            (force, XEN_VCPUAFFINITY_FORCE),
        ] {
            if given {
                flags |= flag;
            }
        }
        let (mut buffer, op) = self.affinity_maps(vcpu, flags)?;
        for (set, at) in [(hard, MAPS), (soft, MAPS + MAP_BYTES)] {
            if let Some(set) = set {
                buffer.put(at, set.to_bytes(MAP_BYTES).as_slice());
            }
        }
        // SAFETY: the structure points to two bitmaps in the buffer, of the size it says.
        unsafe { self.domctl("domctl setvcpuaffinity", Op::Setvcpuaffinity, id, &mut buffer, &op) }
            .map(|_| ())
    }

    /// The NUMA nodes that a domain's memory comes from.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn node_affinity(&self, id: DomId) -> Result<CpuSet> {
        let mut buffer = self.buffer(MAPS + MAP_BYTES)?;
        let nodemap = Bitmap { bitmap: buffer.handle(MAPS), nr_bits: MAP_BITS, ..Bitmap::default() };
        let op = NodeAffinity { nodemap };
        // SAFETY: the structure points to a bitmap in the buffer, of the size it says.
        unsafe { self.domctl("domctl getnodeaffinity", Op::Getnodeaffinity, id, &mut buffer, &op) }?;
        Ok(CpuSet::from_bytes(&buffer.list::<u8>(MAPS, MAP_BYTES)))
    }

    fn credit2(&self, id: DomId, cmd: SchedulerCmd, parameters: SchedCredit2) -> Result<SchedCredit2> {
        let mut op =
            SchedulerOp { sched_id: SchedulerId::Credit2.raw(), cmd: cmd.raw(), ..SchedulerOp::default() };
        op.u.set(&parameters);
        // The structure's union holds no address for credit2.
        Ok(self.flat_domctl("domctl scheduler_op", Op::SchedulerOp, id, &op)?.u.get())
    }

    /// A domain's share under credit2.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn credit_parameters(&self, id: DomId) -> Result<CreditParameters> {
        let SchedCredit2 { weight, cap } =
            self.credit2(id, SchedulerCmd::Getinfo, SchedCredit2::default())?;
        Ok(CreditParameters { weight, cap })
    }

    /// Sets a domain's share under credit2.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_credit_parameters(&self, id: DomId, parameters: CreditParameters) -> Result<()> {
        let CreditParameters { weight, cap } = parameters;
        self.credit2(id, SchedulerCmd::Putinfo, SchedCredit2 { weight, cap }).map(|_| ())
    }
}
