//! `sysctl`: the host.

use std::io::{self, Write};

use pv_abi::domctl::{GetDomainInfo, SchedulerId};
use pv_abi::domid::DomId;
use pv_abi::hypercall::Hypercall;
use pv_abi::sysctl::{
    CpuTopo, CpuTopoInfo, CpupoolCmd, CpupoolOp, Credit2Schedule, DebugKeys, GetDomainInfoList, MemInfo,
    NumaInfo, Op, PhysInfo, ReadConsole, SchedId, SchedulerOp, Sysctl, SysctlUnion,
    XEN_SYSCTL_INTERFACE_VERSION, XEN_SYSCTL_SCHEDOP_GETINFO,
};
use pv_abi::xen::Bitmap;
use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::buffer::Buffer;
use super::{Error, Privcmd, Result};
use crate::cpu_set::CpuSet;

/// Where a list begins in the buffer, after the structure.
const LIST: usize = 256;
/// Domains asked for at once.
const DOMAINS: usize = 512;
/// Bytes of the console ring asked for at once.
const CONSOLE: usize = 64 << 10;
/// CPUs that there is room for.
const MAX_CPUS: u32 = 4096;
/// NUMA nodes that there is room for.
const MAX_NODES: u32 = 64;

/// One NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// Bytes of memory.
    pub size: u64,
    /// Bytes that are free.
    pub free: u64,
    /// How far each node is, itself included.
    pub distances: Vec<u32>,
}

/// One CPU pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its number.
    pub id: u32,
    /// Its scheduler's number.
    pub scheduler: u32,
    /// How many domains it has.
    pub domains: u32,
    /// Its CPUs.
    pub cpus: CpuSet,
}

impl Privcmd {
    /// Makes the call whose structure `argument` is; lists lie in `buffer` from [`LIST`] on. The structure as it comes back.
    ///
    /// # Safety
    /// Every address in `argument` is one of `buffer`, from [`LIST`] on, with room for what the operation puts there.
    unsafe fn sysctl<T>(&self, what: &'static str, op: Op, buffer: &mut Buffer, argument: &T) -> Result<T>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        const { assert!(size_of::<Sysctl>() <= LIST) };
        let call = Sysctl {
            cmd: op.raw(),
            interface_version: XEN_SYSCTL_INTERFACE_VERSION,
            u: SysctlUnion::of(argument),
        };
        buffer.put(0, &call);
        // SAFETY: the structure is in the buffer, what it points to by our contract.
        unsafe { self.call(what, Hypercall::Sysctl, [buffer.address(0), 0, 0, 0, 0]) }?;
        Ok(buffer.get::<Sysctl>(0).u.get())
    }

    /// The same without any list.
    fn flat_sysctl<T>(&self, what: &'static str, op: Op, argument: &T) -> Result<T>
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        let mut buffer = self.buffer(LIST)?;
        // SAFETY: only used with structures that hold no address.
        unsafe { self.sysctl(what, op, &mut buffer, argument) }
    }

    /// CPUs and memory of the host.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn physinfo(&self) -> Result<PhysInfo> {
        self.flat_sysctl("sysctl physinfo", Op::Physinfo, &PhysInfo::default())
    }

    /// The scheduler's number.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn scheduler(&self) -> Result<u32> {
        Ok(self.flat_sysctl("sysctl sched_id", Op::SchedId, &SchedId::default())?.sched_id)
    }

    /// credit2's shortest run in a pool, in microseconds.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn credit2_ratelimit(&self, pool: u32) -> Result<u32> {
        let op = SchedulerOp {
            cpupool_id: pool,
            sched_id: SchedulerId::Credit2.raw(),
            cmd: XEN_SYSCTL_SCHEDOP_GETINFO,
            ..SchedulerOp::default()
        };
        // The structure's union holds no address for credit2.
        let op = self.flat_sysctl("sysctl scheduler_op", Op::SchedulerOp, &op)?;
        Ok(op.u.get::<Credit2Schedule>().ratelimit_us)
    }

    /// All domains from `first` on.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn domains(&self, first: DomId) -> Result<Vec<GetDomainInfo>> {
        let mut buffer = self.buffer(LIST + DOMAINS * size_of::<GetDomainInfo>())?;
        let mut all: Vec<GetDomainInfo> = Vec::new();
        let mut next = Some(first);
        while let Some(first_domain) = next {
            let op = GetDomainInfoList {
                first_domain,
                max_domains: DOMAINS as u32,
                buffer: buffer.handle(LIST),
                ..GetDomainInfoList::default()
            };
            // SAFETY: the buffer has room for that many domains.
            let op =
                unsafe { self.sysctl("sysctl getdomaininfolist", Op::Getdomaininfolist, &mut buffer, &op) }?;
            let count = (op.num_domains as usize).min(DOMAINS);
            all.extend(buffer.list::<GetDomainInfo>(LIST, count));
            next = match all.last() {
                Some(last) if count == DOMAINS => last.domain.raw().checked_add(1).map(DomId::new),
                _ => None,
            };
        }
        Ok(all)
    }

    /// A piece of the hypervisor's log, as it comes back: what the structure says, and the text.
    fn read_console(&self, ask: ReadConsole) -> Result<(ReadConsole, Vec<u8>)> {
        let mut buffer = self.buffer(LIST + CONSOLE)?;
        let ask = ReadConsole { buffer: buffer.handle(LIST), count: CONSOLE as u32, ..ask };
        // SAFETY: the buffer has room for that many bytes.
        let answer = unsafe { self.sysctl("sysctl readconsole", Op::Readconsole, &mut buffer, &ask) }?;
        let mut text = vec![0; (answer.count as usize).min(CONSOLE)];
        buffer.copy_out(LIST, &mut text);
        Ok((answer, text))
    }

    /// Copies the hypervisor's log to `out`; with `clear`, empties it.
    ///
    /// # Errors
    /// Those of `out`, and the hypervisor's answer as one of [`io::ErrorKind::Other`].
    pub fn console(&self, clear: bool, out: &mut impl Write) -> io::Result<()> {
        let mut ask = ReadConsole { clear: u8::from(clear), ..ReadConsole::default() };
        loop {
            let (answer, text) = self.read_console(ask).map_err(io::Error::other)?;
            out.write_all(&text)?;
            if text.len() < CONSOLE {
                return Ok(());
            }
            ask.index = answer.index;
            ask.incremental = 1;
        }
    }

    /// What the hypervisor's log has gained since `index`, which is 0 at first; empty if nothing.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn console_from(&self, index: &mut u32) -> Result<Vec<u8>> {
        let ask = ReadConsole { incremental: 1, index: *index, ..ReadConsole::default() };
        let (answer, text) = self.read_console(ask)?;
        *index = answer.index;
        Ok(text)
    }

    /// Has the hypervisor act as if `keys` were typed on its console.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn press_keys(&self, keys: &str) -> Result<()> {
        let mut buffer = self.buffer(LIST + keys.len())?;
        buffer.put(LIST, keys.as_bytes());
        let nr_keys = u32::try_from(keys.len()).unwrap_or(u32::MAX);
        let op = DebugKeys { keys: buffer.handle(LIST), nr_keys, ..DebugKeys::default() };
        // SAFETY: the buffer holds the keys, whose number is theirs.
        unsafe { self.sysctl("sysctl debug_keys", Op::DebugKeys, &mut buffer, &op) }.map(|_| ())
    }

    /// Core, socket and node of each CPU.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn cpu_topology(&self) -> Result<Vec<CpuTopo>> {
        let mut buffer = self.buffer(LIST + MAX_CPUS as usize * size_of::<CpuTopo>())?;
        let op = CpuTopoInfo { num_cpus: MAX_CPUS, cputopo: buffer.handle(LIST), ..CpuTopoInfo::default() };
        // SAFETY: the buffer has room for that many CPUs.
        let op = unsafe { self.sysctl("sysctl cputopoinfo", Op::Cputopoinfo, &mut buffer, &op) }?;
        Ok(buffer.list(LIST, op.num_cpus.min(MAX_CPUS) as usize))
    }

    /// The host's NUMA nodes.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn numa(&self) -> Result<Vec<NumaNode>> {
        let nodes = MAX_NODES as usize;
        let distances = LIST + nodes * size_of::<MemInfo>();
        let mut buffer = self.buffer(distances + nodes * nodes * size_of::<u32>())?;
        let op = NumaInfo {
            num_nodes: MAX_NODES,
            meminfo: buffer.handle(LIST),
            distance: buffer.handle(distances),
            ..NumaInfo::default()
        };
        // SAFETY: the buffer has room for that many nodes, and for the square of it.
        let op = unsafe { self.sysctl("sysctl numainfo", Op::Numainfo, &mut buffer, &op) }?;
        let count = op.num_nodes.min(MAX_NODES) as usize;
        Ok(buffer
            .list::<MemInfo>(LIST, count)
            .into_iter()
            .enumerate()
            .map(|(node, memory)| NumaNode {
                size: memory.memsize,
                free: memory.memfree,
                distances: buffer.list(distances + node * count * size_of::<u32>(), count),
            })
            .collect())
    }

    fn cpupool_op(&self, op: CpupoolOp) -> Result<(CpupoolOp, CpuSet)> {
        let bytes = MAX_CPUS.div_ceil(8) as usize;
        let mut buffer = self.buffer(LIST + bytes)?;
        let cpumap = Bitmap { bitmap: buffer.handle(LIST), nr_bits: MAX_CPUS, ..Bitmap::default() };
        let op = CpupoolOp { cpumap, ..op };
        // SAFETY: the buffer has room for that many bits.
        let op = unsafe { self.sysctl("sysctl cpupool_op", Op::CpupoolOp, &mut buffer, &op) }?;
        Ok((op, CpuSet::from_bytes(&buffer.list::<u8>(LIST, bytes))))
    }

    /// All CPU pools.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn pools(&self) -> Result<Vec<Pool>> {
        let mut pools = Vec::new();
        let mut next = 0;
        loop {
            let ask = CpupoolOp { op: CpupoolCmd::Info.raw(), cpupool_id: next, ..CpupoolOp::default() };
            match self.cpupool_op(ask) {
                Ok((found, cpus)) => {
                    let (id, scheduler, domains) = (found.cpupool_id, found.sched_id, found.n_dom);
                    pools.push(Pool { id, scheduler, domains, cpus });
                    next = id.saturating_add(1);
                }
                Err(Error::Refused { errno: Errno::NOENT, .. }) => return Ok(pools),
                Err(error) => return Err(error),
            }
        }
    }

    /// The CPUs that are in no pool.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn free_cpus(&self) -> Result<CpuSet> {
        let ask = CpupoolOp { op: CpupoolCmd::Freeinfo.raw(), ..CpupoolOp::default() };
        self.cpupool_op(ask).map(|(_, cpus)| cpus)
    }
}
