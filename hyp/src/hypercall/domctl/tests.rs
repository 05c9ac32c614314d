mod life;

use super::*;
use crate::cpu::CpuId;
use crate::mm::testing::{self, Guest};
use crate::sched::CpuMask;
use pv_abi::GuestHandle;
use pv_abi::domctl::{
    DomctlUnion, GetDomainInfo, GetVcpuInfo, VcpuAffinity, XEN_DOMINF_BLOCKED, XEN_DOMINF_PAUSED,
    XEN_DOMINF_RUNNING, XEN_DOMINF_SHUTDOWN, XEN_DOMINF_SHUTDOWNSHIFT, XEN_VCPUAFFINITY_FORCE,
    XEN_VCPUAFFINITY_HARD, XEN_VCPUAFFINITY_SOFT,
};
use pv_abi::xen::Bitmap;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// dom0, a page for its call and one for a bitmap, and another domain.
struct Pair {
    dom0: Guest,
    call: u64,
    map: u64,
    other: Guest,
}

/// Two CPUs; the other domain is number 7.
fn pair() -> Pair {
    testing::machine(64);
    sched::init(CpuMask::first_n(2));
    let dom0 = testing::guest(0, 1024);
    let other = testing::guest(7, 512);
    sched::add(&other.vcpu, &other.domain.share, CpuMask::ALL);
    domain::insert(other.domain.clone());
    let (call, map) = (dom0.page(0), dom0.page(0));
    Pair { dom0, call, map, other }
}

impl Pair {
    fn raw(&self, op: Op, id: DomId, u: DomctlUnion) -> Result<Domctl, Errno> {
        let argument = Domctl {
            cmd: op.raw(),
            interface_version: XEN_DOMCTL_INTERFACE_VERSION,
            domain: id,
            u,
            ..Domctl::default()
        };
        self.dom0.put(self.call, &argument);
        match call(&self.dom0.caller(), &[self.call, 0, 0, 0, 0]) {
            Outcome::Done(0) => Ok(self.dom0.take(self.call)),
            Outcome::Done(value) => Err(Errno::from_result(value).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn ask<T: FromBytes + IntoBytes + Immutable>(&self, op: Op, argument: &T) -> Result<T, Errno> {
        self.raw(op, self.other.domain.id, DomctlUnion::of(argument)).map(|call| call.u.get())
    }

    fn act(&self, op: Op) -> Result<(), Errno> {
        self.raw(op, self.other.domain.id, DomctlUnion::default()).map(|_| ())
    }

    fn info(&self) -> GetDomainInfo {
        self.ask(Op::Getdomaininfo, &GetDomainInfo::default()).unwrap()
    }

    fn map(&self, nr_bits: u32) -> Bitmap {
        Bitmap { bitmap: GuestHandle::new(self.map), nr_bits, ..Bitmap::default() }
    }
}

#[test]
fn another_version_and_another_caller_are_refused() {
    let pair = pair();
    pair.dom0.put(pair.call, &Domctl { interface_version: 0x14, ..Domctl::default() });
    assert_eq!(call(&pair.dom0.caller(), &[pair.call, 0, 0, 0, 0]), Outcome::Done(Errno::EACCES.into()));
    let page = pair.other.page(3);
    pair.other.put(page, &Domctl { cmd: 4, interface_version: 0x15, ..Domctl::default() });
    assert_eq!(call(&pair.other.caller(), &[page, 0, 0, 0, 0]), Outcome::Done(Errno::EPERM.into()));
    assert_eq!(pair.raw(Op::Pausedomain, DomId::new(8), DomctlUnion::default()), Err(Errno::ESRCH));
    assert_eq!(pair.act(Op::SoftReset), Err(Errno::ENOSYS));
    // The domain is looked for before the operation.
    for (domain, errno) in [(7, Errno::ENOSYS), (8, Errno::ESRCH)] {
        let unknown =
            Domctl { cmd: 99, interface_version: 0x15, domain: DomId::new(domain), ..Domctl::default() };
        pair.dom0.put(pair.call, &unknown);
        assert_eq!(call(&pair.dom0.caller(), &[pair.call, 0, 0, 0, 0]), Outcome::Done(errno.into()));
    }
}

#[test]
fn describing_takes_the_next_domain() {
    let pair = pair();
    let found = pair.raw(Op::Getdomaininfo, DomId::new(1), DomctlUnion::default()).unwrap();
    assert_eq!((found.domain, found.u.get::<GetDomainInfo>().domain), (DomId::new(7), DomId::new(7)));
    let reserved = pair.raw(Op::Getdomaininfo, DOMID_FIRST_RESERVED, DomctlUnion::default());
    assert_eq!(reserved, Err(Errno::EINVAL));
}

#[test]
fn flags_follow_the_domain() {
    let pair = pair();
    let state = XEN_DOMINF_BLOCKED | XEN_DOMINF_RUNNING | XEN_DOMINF_PAUSED | XEN_DOMINF_SHUTDOWN;
    let info = pair.info();
    assert_eq!((info.flags & state, info.nr_online_vcpus, info.max_vcpu_id), (0, 0, 0));
    assert_eq!(info.flags >> XEN_DOMINF_SHUTDOWNSHIFT, 0xffff, "as Xen says it of one that runs");
    assert_eq!((info.tot_pages, info.max_pages, info.gpaddr_bits), (0, 512, 40));
    sched::start(&pair.other.vcpu);
    assert_eq!((pair.info().flags & state, pair.info().nr_online_vcpus), (0, 1));
    let cpu = pair.other.vcpu.sched.home();
    assert!(sched::pick(cpu, crate::arch::now()).next.is_some());
    assert_eq!(pair.info().flags & state, XEN_DOMINF_RUNNING);
    crate::arch::advance(62_500);
    assert_eq!(pair.info().cpu_time, 1_000_000);
    sched::block(&pair.other.vcpu);
    assert_eq!(pair.info().flags & state, XEN_DOMINF_BLOCKED);
    pair.act(Op::Pausedomain).unwrap();
    assert_eq!(pair.info().flags & state, XEN_DOMINF_BLOCKED | XEN_DOMINF_PAUSED);
    domain::shut_down(&pair.other.domain, pv_abi::sched::ShutdownReason::Crash);
    let info = pair.info();
    assert_ne!(info.flags & XEN_DOMINF_SHUTDOWN, 0);
    assert_eq!(info.flags >> XEN_DOMINF_SHUTDOWNSHIFT, 3);
}

#[test]
fn pauses_are_counted_and_not_for_oneself() {
    let pair = pair();
    assert_eq!(pair.act(Op::Unpausedomain), Err(Errno::EINVAL));
    assert_eq!(pair.act(Op::Pausedomain), Ok(()));
    assert_eq!(pair.act(Op::Pausedomain), Ok(()));
    assert!(pair.other.vcpu.sched.is_paused());
    assert_eq!(pair.act(Op::Unpausedomain), Ok(()));
    assert!(pair.other.vcpu.sched.is_paused() && !pair.other.domain.is_runnable());
    assert_eq!(pair.act(Op::Unpausedomain), Ok(()));
    assert!(!pair.other.vcpu.sched.is_paused() && pair.other.domain.is_runnable());
    for _ in 0..255 {
        assert_eq!(pair.act(Op::Pausedomain), Ok(()));
    }
    assert_eq!(pair.act(Op::Pausedomain), Err(Errno::EOVERFLOW));
    domain::insert(pair.dom0.domain.clone());
    assert_eq!(pair.raw(Op::Pausedomain, DomId::DOM0, DomctlUnion::default()), Err(Errno::EINVAL));
}

#[test]
fn a_vcpu_tells_where_it_is() {
    let pair = pair();
    let ask = |vcpu| pair.ask(Op::Getvcpuinfo, &GetVcpuInfo { vcpu, ..GetVcpuInfo::default() });
    assert_eq!(ask(1), Err(Errno::EINVAL));
    let info = ask(0).unwrap();
    assert_eq!((info.online, info.blocked, info.running), (0, 0, 0));
    sched::set_affinity(&pair.other.vcpu, CpuMask::only(CpuId::new(1).unwrap()));
    sched::start(&pair.other.vcpu);
    let info = ask(0).unwrap();
    assert_eq!((info.online, info.blocked, info.running, info.cpu), (1, 0, 0, 1));
}

#[test]
fn affinity_comes_back_as_it_is_in_effect() {
    let pair = pair();
    let op =
        |flags, nr_bits| VcpuAffinity { flags, cpumap_hard: pair.map(nr_bits), ..VcpuAffinity::default() };
    pair.dom0.put(pair.map, &0xfeu8);
    pair.ask(Op::Setvcpuaffinity, &op(XEN_VCPUAFFINITY_HARD, 8)).unwrap();
    assert_eq!(pair.dom0.take::<u8>(pair.map), 0b10, "only CPUs that there are");
    pair.ask(Op::Getvcpuaffinity, &op(XEN_VCPUAFFINITY_HARD, 8)).unwrap();
    assert_eq!(pair.dom0.take::<u8>(pair.map), 0b10);
    // Bits past the map's length do not count.
    pair.dom0.put(pair.map, &0b11u8);
    pair.ask(Op::Setvcpuaffinity, &op(XEN_VCPUAFFINITY_HARD, 1)).unwrap();
    assert_eq!(pair.other.vcpu.sched.affinity(), CpuMask::first_n(1));
    pair.dom0.put(pair.map, &0xf0u8);
    assert_eq!(
        pair.ask(Op::Setvcpuaffinity, &op(XEN_VCPUAFFINITY_HARD, 8)),
        Err(Errno::EINVAL),
        "no such CPU"
    );
    assert_eq!(pair.ask(Op::Getvcpuaffinity, &op(0, 8)), Err(Errno::EINVAL), "no map is meant");
    // As in Xen, any other flag alone asks for nothing and gets it.
    assert!(pair.ask(Op::Getvcpuaffinity, &op(XEN_VCPUAFFINITY_FORCE, 8)).is_ok());
    let beyond = VcpuAffinity { vcpu: 1, ..op(XEN_VCPUAFFINITY_HARD, 8) };
    assert_eq!(pair.ask(Op::Getvcpuaffinity, &beyond), Err(Errno::EINVAL));
    let soft =
        VcpuAffinity { flags: XEN_VCPUAFFINITY_SOFT, cpumap_soft: pair.map(8), ..VcpuAffinity::default() };
    pair.ask(Op::Getvcpuaffinity, &soft).unwrap();
    assert_eq!(pair.dom0.take::<u8>(pair.map), 0b11);
    pair.dom0.put(pair.map, &0b111u8);
    pair.ask(Op::Setvcpuaffinity, &soft).unwrap();
    assert_eq!(pair.dom0.take::<u8>(pair.map), 0b1, "the hard map allows CPU 0 only");
    pair.ask(Op::Getvcpuaffinity, &soft).unwrap();
    assert_eq!(pair.dom0.take::<u8>(pair.map), 0b11);
}

#[test]
fn ceilings_and_weights_are_set() {
    let pair = pair();
    pair.ask(Op::MaxMem, &MaxMem { max_memkb: 4095 }).unwrap();
    assert_eq!(pair.other.domain.pages.maximum(), Pages::new(1023));
    let op = |cmd: SchedulerCmd, weight, cap| {
        let mut op = SchedulerOp { sched_id: 6, cmd: cmd.raw(), ..SchedulerOp::default() };
        op.u.set(&SchedCredit2 { weight, cap });
        op
    };
    pair.ask(Op::SchedulerOp, &op(SchedulerCmd::Putinfo, 512, 0)).unwrap();
    let got = pair.ask(Op::SchedulerOp, &op(SchedulerCmd::Getinfo, 0, 0)).unwrap();
    assert_eq!(got.u.get::<SchedCredit2>(), SchedCredit2 { weight: 512, cap: 0 });
    assert_eq!(pair.other.vcpu.sched.weight(), 512);
    // 0 leaves the weight; a cap is in percent of one CPU, and may be more than one.
    pair.ask(Op::SchedulerOp, &op(SchedulerCmd::Putinfo, 0, 150)).unwrap();
    let got = pair.ask(Op::SchedulerOp, &op(SchedulerCmd::Getinfo, 0, 0)).unwrap();
    assert_eq!(got.u.get::<SchedCredit2>(), SchedCredit2 { weight: 512, cap: 150 });
    // A vCPU that comes later has its domain's weight, too.
    let domain = &pair.other.domain;
    let later = Arc::new(crate::vcpu::Vcpu::new(domain, pair.other.vcpu.id, crate::arch::VcpuState));
    sched::add(&later, &domain.share, CpuMask::ALL);
    assert_eq!(later.sched.weight(), 512);
    let credit = SchedulerOp { sched_id: 5, ..op(SchedulerCmd::Getinfo, 0, 0) };
    assert_eq!(pair.ask(Op::SchedulerOp, &credit), Err(Errno::EINVAL));
    let vcpus = op(SchedulerCmd::Getvcpuinfo, 0, 0);
    assert_eq!(pair.ask(Op::SchedulerOp, &vcpus), Err(Errno::EINVAL));
}

#[test]
fn one_node_is_all_there_is() {
    let pair = pair();
    let op = NodeAffinity { nodemap: pair.map(8) };
    pair.ask(Op::Getnodeaffinity, &op).unwrap();
    assert_eq!(pair.dom0.take::<u8>(pair.map), 1);
    assert!(pair.ask(Op::Setnodeaffinity, &op).is_ok());
    pair.dom0.put(pair.map, &2u8);
    assert_eq!(pair.ask(Op::Setnodeaffinity, &op), Err(Errno::EINVAL));
}
