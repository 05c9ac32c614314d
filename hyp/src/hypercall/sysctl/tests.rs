use super::*;
use core::fmt::Write;

use crate::cpu::CpuId;
use crate::mm::memory;
use crate::mm::testing::{self, Guest};
use crate::sched::{self, CpuMask};
use pv_abi::sysctl::{
    Availheap, CpuTopo, CpuTopoInfo, CpupoolCmd, CpupoolOp, GetCpuInfo, MemInfo, NumaInfo, PhysInfo,
    SysctlUnion, XEN_SYSCTL_SCHEDOP_PUTINFO,
};
use pv_abi::xen::Bitmap;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// dom0 on a machine of two CPUs, a page for the call and one for its list.
struct Host {
    dom0: Guest,
    call: u64,
    list: u64,
}

fn host() -> Host {
    testing::machine(64);
    sched::init(CpuMask::first_n(2));
    let dom0 = testing::guest(0, 1024);
    let (call, list) = (dom0.page(0), dom0.page(0));
    Host { dom0, call, list }
}

impl Host {
    fn raw(&self, cmd: u32, interface_version: u32, u: SysctlUnion) -> Outcome {
        self.dom0.put(self.call, &Sysctl { cmd, interface_version, u });
        call(&self.dom0.caller(), &[self.call, 0, 0, 0, 0])
    }

    fn ask<T: FromBytes + IntoBytes + Immutable>(&self, op: Op, argument: &T) -> Result<T, Errno> {
        match self.raw(op.raw(), XEN_SYSCTL_INTERFACE_VERSION, SysctlUnion::of(argument)) {
            Outcome::Done(0) => Ok(self.dom0.take::<Sysctl>(self.call).u.get()),
            Outcome::Done(value) => Err(Errno::from_result(value).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn list(&self) -> GuestHandle {
        GuestHandle::new(self.list)
    }
}

#[test]
fn only_the_control_domain_and_only_in_the_right_version() {
    let host = host();
    assert_eq!(
        host.raw(Op::Physinfo.raw(), 0x14, SysctlUnion::default()),
        Outcome::Done(Errno::EACCES.into())
    );
    assert_eq!(
        host.raw(99, XEN_SYSCTL_INTERFACE_VERSION, SysctlUnion::default()),
        Outcome::Done(Errno::ENOSYS.into())
    );
    let other = testing::guest(7, 16);
    let page = other.page(5);
    let sysctl = Sysctl { cmd: 3, interface_version: XEN_SYSCTL_INTERFACE_VERSION, ..Sysctl::default() };
    other.put(page, &sysctl);
    assert_eq!(call(&other.caller(), &[page, 0, 0, 0, 0]), Outcome::Done(Errno::EPERM.into()));
    assert_eq!(other.take::<Sysctl>(page), sysctl);
}

#[test]
fn physinfo_adds_up() {
    let host = host();
    let info = host.ask(Op::Physinfo, &PhysInfo::default()).unwrap();
    assert_eq!((info.nr_cpus, info.max_cpu_id, info.nr_nodes), (2, 1, 1));
    assert_eq!(info.total_pages, 64 << 8);
    assert_eq!(info.free_pages, memory().free_count().get());
    assert_eq!(info.cpu_khz, 62_500);
    let pages = &host.dom0.domain.pages;
    pages.claim(stage2::Pages::new(pages.current().get() + 10)).unwrap();
    assert_eq!(host.ask(Op::Physinfo, &PhysInfo::default()).unwrap().outstanding_pages, 10);
}

#[test]
fn a_list_has_no_more_domains_than_there_is_room_for() {
    let host = host();
    for id in [1, 3] {
        crate::domain::insert(testing::guest(id, 16).domain);
    }
    let ask = |first, max_domains| {
        let op = GetDomainInfoList {
            first_domain: DomId::new(first),
            max_domains,
            buffer: host.list(),
            ..GetDomainInfoList::default()
        };
        host.ask(Op::Getdomaininfolist, &op)
    };
    assert_eq!(ask(0, 1).unwrap().num_domains, 1);
    assert_eq!(ask(2, 8).unwrap().num_domains, 1);
    assert_eq!(ask(0, 8).unwrap().num_domains, 2);
    let found: [GetDomainInfo; 2] = host.dom0.take(host.list);
    assert_eq!(found.map(|info| info.domain.raw()), [1, 3]);
    assert_eq!(ask(0, 0).unwrap().num_domains, 0);
    assert_eq!(ask(u16::MAX, 8).unwrap().num_domains, 0);
    // A list that the caller cannot write.
    crate::arch::guest::unmap(host.list);
    assert_eq!(ask(0, 8), Err(Errno::EFAULT));
    assert_eq!(ask(0, 0).unwrap().num_domains, 0);
}

#[test]
fn the_console_is_read_on_from_where_the_last_call_ended() {
    let host = host();
    let log = |text: &str| console::Emergency.write_str(text).unwrap();
    let text = |count: u32| host.dom0.take::<[u8; 4096]>(host.list)[..count as usize].to_vec();
    log("before\n");
    console::write_raw(b"dom0's own output\n");
    let all = ReadConsole { buffer: host.list(), count: 4096, ..ReadConsole::default() };
    let first = host.ask(Op::Readconsole, &all).unwrap();
    assert_eq!(text(first.count), b"before\n");
    assert_eq!(
        host.ask(Op::Readconsole, &ReadConsole { clear: 1, ..all }),
        Ok(ReadConsole { clear: 1, ..first })
    );
    assert_eq!(host.ask(Op::Readconsole, &all).unwrap().count, 0, "cleared");
    log("after\n");
    let more = ReadConsole { incremental: 1, index: first.index, ..all };
    let second = host.ask(Op::Readconsole, &more).unwrap();
    assert_eq!(text(second.count), b"after\n");
    assert_eq!(host.ask(Op::Readconsole, &ReadConsole { index: second.index, ..more }).unwrap().count, 0);
    let part = host.ask(Op::Readconsole, &ReadConsole { count: 2, ..more }).unwrap();
    assert_eq!((text(part.count), part.index), (b"af".to_vec(), first.index + 2));
    // An address that the caller cannot write costs nothing from the ring.
    crate::arch::guest::unmap(host.list);
    assert_eq!(host.ask(Op::Readconsole, &ReadConsole { clear: 1, ..all }), Err(Errno::EFAULT));
    assert_eq!(console::ring_start(), first.index);
}

#[test]
fn topology_and_nodes_tell_their_size_first() {
    let host = host();
    assert_eq!(host.ask(Op::Cputopoinfo, &CpuTopoInfo::default()).unwrap().num_cpus, 2);
    let op = CpuTopoInfo { num_cpus: 100, cputopo: host.list(), ..CpuTopoInfo::default() };
    host.dom0.put(host.list, &[0xffu8; 64]);
    assert_eq!(host.ask(Op::Cputopoinfo, &op).unwrap().num_cpus, 2);
    let places: [CpuTopo; 3] = host.dom0.take(host.list);
    assert_eq!(places[..2], [CpuTopo::default(); 2]);
    assert_eq!(places[2].core, u32::MAX, "past the end nothing is written");

    assert_eq!(host.ask(Op::Numainfo, &NumaInfo::default()).unwrap().num_nodes, 1);
    let op = NumaInfo { num_nodes: 8, meminfo: host.list(), ..NumaInfo::default() };
    assert_eq!(host.ask(Op::Numainfo, &op).unwrap().num_nodes, 1);
    assert_eq!(host.dom0.take::<MemInfo>(host.list).memsize, 64 << 20);
    let none = NumaInfo { num_nodes: 0, ..op };
    assert_eq!(host.ask(Op::Numainfo, &none).unwrap().num_nodes, 0);

    let heap = host.ask(Op::Availheap, &Availheap { node: -1, ..Availheap::default() }).unwrap();
    assert_eq!(heap.avail_bytes, memory().free_count().get() * 4096);
    // RAM ends at 0x4400_0000: 31 bits.
    let all = Availheap { node: -1, max_bitwidth: 31, ..Availheap::default() };
    assert!(host.ask(Op::Availheap, &all).is_ok());
    let low = Availheap { node: -1, max_bitwidth: 30, ..Availheap::default() };
    assert_eq!(host.ask(Op::Availheap, &low), Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_cpu_without_a_vcpu_idles() {
    let host = host();
    let cpu = CpuId::new(1).unwrap();
    assert!(sched::pick(cpu, crate::arch::now()).next.is_none());
    let op = GetCpuInfo { max_cpus: 2, info: host.list(), ..GetCpuInfo::default() };
    assert_eq!(host.ask(Op::Getcpuinfo, &op).unwrap().nr_cpus, 2);
    let before: [u64; 2] = host.dom0.take(host.list);
    crate::arch::advance(62_500_000);
    host.ask(Op::Getcpuinfo, &op).unwrap();
    let after: [u64; 2] = host.dom0.take(host.list);
    assert_eq!((before, after), ([0, 0], [0, 1_000_000_000]), "CPU 0 has not looked yet");
}

#[test]
fn there_is_one_pool_with_all_cpus() {
    let host = host();
    let map = |nr_bits| Bitmap { bitmap: host.list(), nr_bits, ..Bitmap::default() };
    let op =
        |op: CpupoolCmd, nr_bits| CpupoolOp { op: op.raw(), cpumap: map(nr_bits), ..CpupoolOp::default() };
    host.dom0.put(host.list, &[0xffu8; 16]);
    let info = host.ask(Op::CpupoolOp, &op(CpupoolCmd::Info, 72)).unwrap();
    assert_eq!((info.cpupool_id, info.sched_id, info.n_dom), (0, 6, 0));
    let bytes: [u8; 10] = host.dom0.take(host.list);
    assert_eq!(bytes, [3, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]);
    host.ask(Op::CpupoolOp, &op(CpupoolCmd::Freeinfo, 8)).unwrap();
    assert_eq!(host.dom0.take::<u8>(host.list), 0);
    assert_eq!(host.ask(Op::CpupoolOp, &op(CpupoolCmd::Info, u32::MAX)), Err(Errno::EINVAL));
    let next = CpupoolOp { cpupool_id: 1, ..op(CpupoolCmd::Info, 8) };
    assert_eq!(host.ask(Op::CpupoolOp, &next), Err(Errno::ENOENT));
    let mover = CpupoolOp { domid: 31_999, ..op(CpupoolCmd::Movedomain, 0) };
    assert_eq!(host.ask(Op::CpupoolOp, &mover), Err(Errno::ESRCH));
    assert_eq!(host.ask(Op::CpupoolOp, &op(CpupoolCmd::Create, 0)), Err(Errno::EOPNOTSUPP));
}

#[test]
fn the_scheduler_is_told_as_credit2() {
    let host = host();
    assert_eq!(host.ask(Op::SchedId, &SchedId::default()).unwrap().sched_id, 6);
    let op = SchedulerOp { sched_id: 6, cmd: XEN_SYSCTL_SCHEDOP_GETINFO, ..SchedulerOp::default() };
    let parameters: Credit2Schedule = host.ask(Op::SchedulerOp, &op).unwrap().u.get();
    assert_eq!(parameters.ratelimit_us, RATELIMIT_US);
    for wrong in
        [SchedulerOp { cpupool_id: 1, ..op }, SchedulerOp { sched_id: 5, ..op }, SchedulerOp { cmd: 2, ..op }]
    {
        assert!(host.ask(Op::SchedulerOp, &wrong).is_err());
    }
    let put = |ratelimit_us| {
        let mut put = SchedulerOp { cmd: XEN_SYSCTL_SCHEDOP_PUTINFO, ..op };
        put.u.set(&Credit2Schedule { ratelimit_us });
        host.ask(Op::SchedulerOp, &put).map(drop)
    };
    assert_eq!(
        [put(2000), put(0), put(99), put(500_001), put(500_000)].map(|r| r.is_ok()),
        [true, true, false, false, true]
    );
    let parameters: Credit2Schedule = host.ask(Op::SchedulerOp, &op).unwrap().u.get();
    assert_eq!(parameters.ratelimit_us, 500_000);
}

#[test]
fn a_caller_cannot_press_keys_without_end() {
    let host = host();
    let op = DebugKeys { keys: host.list(), nr_keys: u32::MAX, ..DebugKeys::default() };
    assert_eq!(host.ask(Op::DebugKeys, &op), Err(Errno::E2BIG));
    host.dom0.put(host.list, b"h");
    assert!(host.ask(Op::DebugKeys, &DebugKeys { nr_keys: 1, ..op }).is_ok());
}
