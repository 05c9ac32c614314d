//! Domains from `createdomain` to their last page.

use proptest::prelude::*;
use pv_abi::arch_arm::{
    ArchDomainConfig, PSR_GUEST64_INIT, VGCF_ONLINE, VcpuGuestContext, VcpuGuestCoreRegs,
    XEN_DOMCTL_CONFIG_GIC_V2, XEN_DOMCTL_CONFIG_GIC_V3,
};
use pv_abi::domctl::{
    AddressSize, Cacheflush, CreateDomain, MaxVcpus, PagingMempool, SetDomainHandle, VcpuContext,
    XEN_DOMCTL_CDF_HAP, XEN_DOMCTL_CDF_HVM, XEN_DOMCTL_CDF_IOMMU, XEN_DOMCTL_CDF_XS_DOMAIN, XEN_DOMINF_DYING,
    XEN_DOMINF_XS_DOMAIN, XEN_INVALID_MAX_VCPU_ID,
};
use pv_abi::event_channel::Port;
use pv_abi::xen::{SharedInfo, Virq};
use stage2::{Gfn, Pages};

use super::*;
use crate::arch::{self, Access};
use crate::mm::memory;
use crate::mm::page::PageRef;
use crate::sched::State;
use crate::vcpu::VcpuId;
use crate::{event, grant};

/// What `xl` asks for.
fn request() -> CreateDomain {
    CreateDomain {
        flags: XEN_DOMCTL_CDF_HVM | XEN_DOMCTL_CDF_HAP,
        max_vcpus: 2,
        max_evtchn_port: 1023,
        max_grant_frames: 8,
        max_maptrack_frames: 8,
        grant_opts: 1,
        handle: [7; 16],
        arch: ArchDomainConfig { nr_spis: 32, ..ArchDomainConfig::default() },
        ..CreateDomain::default()
    }
}

/// dom0, in the list, and the port at which it hears of domains that ended.
struct Host {
    pair: Pair,
    ended: Port,
}

impl Host {
    fn new() -> Self {
        let pair = pair();
        domain::insert(pair.dom0.domain.clone());
        let ended = event::bind_virq(&pair.dom0.domain, Virq::DomExc.raw(), 0).unwrap();
        Self { pair, ended }
    }

    fn create(&self, id: u16, request: &CreateDomain) -> Result<(u16, CreateDomain), Errno> {
        let call = self.pair.raw(Op::Createdomain, DomId::new(id), DomctlUnion::of(request))?;
        Ok((call.domain.raw(), call.u.get()))
    }

    fn of<T: FromBytes + IntoBytes + Immutable>(&self, id: u16, op: Op, argument: &T) -> Result<T, Errno> {
        self.pair.raw(op, DomId::new(id), DomctlUnion::of(argument)).map(|call| call.u.get())
    }

    fn act_on(&self, id: u16, op: Op) -> Result<(), Errno> {
        self.pair.raw(op, DomId::new(id), DomctlUnion::default()).map(|_| ())
    }

    fn info(&self, id: u16) -> GetDomainInfo {
        self.of(id, Op::Getdomaininfo, &GetDomainInfo::default()).unwrap()
    }

    /// One piece of its destruction; whether it was the last.
    fn destroy_piece(&self, id: u16) -> bool {
        let argument = Domctl {
            cmd: Op::Destroydomain.raw(),
            interface_version: XEN_DOMCTL_INTERFACE_VERSION,
            domain: DomId::new(id),
            ..Domctl::default()
        };
        self.pair.dom0.put(self.pair.call, &argument);
        let arguments = [self.pair.call, 0, 0, 0, 0];
        match call(&self.pair.dom0.caller(), &arguments) {
            Outcome::Done(0) => true,
            Outcome::Again(same) if same == arguments => false,
            other => panic!("{other:?}"),
        }
    }

    /// Whether it heard since the last look that a domain ended.
    fn heard(&self) -> bool {
        let pending = core::mem::offset_of!(SharedInfo, evtchn_pending);
        let bit = 1 << self.ended;
        self.pair.dom0.domain.shared_info().unwrap().fetch_and_u64(pending, !bit) & bit != 0
    }

    fn set_context(&self, id: u16, vcpu: u32, context: &VcpuGuestContext) -> Result<(), Errno> {
        self.pair.dom0.put(self.pair.map, context);
        let ctxt = GuestHandle::new(self.pair.map);
        self.of(id, Op::Setvcpucontext, &VcpuContext { vcpu, ctxt, ..VcpuContext::default() }).map(|_| ())
    }

    fn context(&self, id: u16, vcpu: u32) -> Result<VcpuGuestContext, Errno> {
        let ctxt = GuestHandle::new(self.pair.map);
        self.of(id, Op::Getvcpucontext, &VcpuContext { vcpu, ctxt, ..VcpuContext::default() })?;
        Ok(self.pair.dom0.take(self.pair.map))
    }
}

fn start_context() -> VcpuGuestContext {
    VcpuGuestContext {
        flags: VGCF_ONLINE,
        user_regs: VcpuGuestCoreRegs {
            pc64: 0x4000_0000,
            cpsr: PSR_GUEST64_INIT,
            ..VcpuGuestCoreRegs::default()
        },
        sctlr: 0x00c5_0078,
        ..VcpuGuestContext::default()
    }
}

fn populate(id: u16, gfn: u64, order: u32) {
    let domain = domain::find(DomId::new(id)).unwrap();
    let block = memory().allocate(order).unwrap().clear();
    domain.pages.charge(block.pages()).unwrap();
    domain.p2m.edit(|batch| batch.populate(Gfn::new(gfn), block)).unwrap();
}

#[test]
fn a_domain_is_made_set_up_and_let_go() {
    let host = Host::new();
    let (id, made) = host.create(0, &request()).unwrap();
    assert_eq!((id, made.arch.gic_version), (1, XEN_DOMCTL_CONFIG_GIC_V2));
    let info = host.info(id);
    assert_eq!(info.flags & (XEN_DOMINF_PAUSED | XEN_DOMINF_DYING | XEN_DOMINF_XS_DOMAIN), XEN_DOMINF_PAUSED);
    assert_eq!((info.nr_online_vcpus, info.max_vcpu_id, info.handle), (0, XEN_INVALID_MAX_VCPU_ID, [7; 16]));
    assert_eq!((info.tot_pages, info.max_pages, info.shared_info_frame), (0, 0, u64::MAX));
    host.of(id, Op::Setdomainhandle, &SetDomainHandle { handle: [9; 16] }).unwrap();
    assert_eq!(host.info(id).handle, [9; 16]);

    assert_eq!(host.of(id, Op::MaxVcpus, &MaxVcpus { max: 3 }), Err(Errno::EINVAL));
    for _ in 0..2 {
        host.of(id, Op::MaxVcpus, &MaxVcpus { max: 2 }).unwrap();
    }
    assert_eq!((host.info(id).nr_online_vcpus, host.info(id).max_vcpu_id), (0, 1));
    assert_eq!(host.of(id, Op::SetAddressSize, &AddressSize { size: 32 }), Err(Errno::EINVAL));
    host.of(id, Op::SetAddressSize, &AddressSize { size: 64 }).unwrap();
    host.of(id, Op::MaxMem, &MaxMem { max_memkb: 1024 }).unwrap();
    populate(id, 0x40000, 0);
    assert_eq!(host.of(id, Op::SetAddressSize, &AddressSize { size: 64 }), Err(Errno::EBUSY));

    host.set_context(id, 0, &start_context()).unwrap();
    assert_eq!(host.info(id).nr_online_vcpus, 1);
    let vcpu = domain::find(DomId::new(id)).unwrap().vcpu(VcpuId::new(0)).unwrap().clone();
    assert!(vcpu.sched.is_paused() && vcpu.sched.state() == State::Runnable);
    host.act_on(id, Op::Unpausedomain).unwrap();
    assert!(!vcpu.sched.is_paused());
    let cpu = vcpu.sched.home();
    assert!(sched::pick(cpu, arch::now()).next.is_some_and(|next| Arc::ptr_eq(&next, &vcpu)));
}

#[test]
fn numbers_are_given_in_turn_and_taken_once() {
    let host = Host::new();
    let any = |id| host.create(id, &request()).map(|(id, _)| id);
    assert_eq!([any(0), any(0x7ff4), any(0xffff)], [Ok(1), Ok(2), Ok(3)]);
    assert_eq!((any(2), any(7)), (Err(Errno::EEXIST), Err(Errno::EEXIST)), "7 is the pair's");
    assert_eq!(any(5), Ok(5));
    assert_eq!([any(0), any(0)], [Ok(4), Ok(6)]);
    assert!(host.destroy_piece(4));
    assert_eq!(any(0), Ok(8), "a number comes back late");
    assert_eq!(any(4), Ok(4), "but it is free");
    assert_eq!(any(0x7fef), Ok(0x7fef));
}

#[test]
fn what_arm_does_not_have_is_refused_and_leaves_nothing() {
    let host = Host::new();
    let free = memory().free_count();
    let with = |change: &dyn Fn(&mut CreateDomain)| {
        let mut wrong = request();
        change(&mut wrong);
        assert_eq!(host.create(0, &wrong), Err(Errno::EINVAL), "{wrong:?}");
    };
    with(&|r| r.flags = XEN_DOMCTL_CDF_HVM);
    with(&|r| r.flags |= XEN_DOMCTL_CDF_IOMMU);
    with(&|r| r.flags |= 1 << 31);
    with(&|r| r.iommu_opts = 1);
    with(&|r| r.vmtrace_size = 4096);
    with(&|r| r.max_vcpus = 0);
    with(&|r| r.max_vcpus = 9);
    with(&|r| r.max_grant_frames = 0);
    with(&|r| r.grant_opts = 0);
    with(&|r| r.grant_opts = 3);
    with(&|r| r.grant_opts = 0x11);
    with(&|r| r.cpupool_id = 1);
    with(&|r| r.arch.gic_version = XEN_DOMCTL_CONFIG_GIC_V3);
    with(&|r| r.arch.gic_version = 3);
    with(&|r| r.arch.tee_type = 1);
    with(&|r| r.arch.nr_spis = 989);
    with(&|r| r.arch.nr_spis = u32::MAX);
    assert_eq!((memory().free_count(), domain::count()), (free, 2));
    arch::set_gic(gic::Version::V3);
    let (id, made) = host.create(0, &CreateDomain { max_vcpus: 128, ..request() }).unwrap();
    assert_eq!((id, made.arch.gic_version), (1, XEN_DOMCTL_CONFIG_GIC_V3));
    assert_eq!(host.create(0, &CreateDomain { max_vcpus: 129, ..request() }), Err(Errno::EINVAL));
    let store = CreateDomain { flags: request().flags | XEN_DOMCTL_CDF_XS_DOMAIN, ..request() };
    let (id, _) = host.create(0, &store).unwrap();
    assert_ne!(host.info(id).flags & XEN_DOMINF_XS_DOMAIN, 0);
}

#[test]
fn a_host_without_memory_makes_no_domain() {
    let host = Host::new();
    let mut held = alloc::vec::Vec::new();
    while let Some(block) = memory().allocate(0) {
        held.push(block);
    }
    let count = domain::count();
    assert_eq!(host.create(0, &request()), Err(Errno::ENOMEM));
    // With some pages, but not all that it takes.
    for _ in 0..4 {
        held.pop();
        assert_eq!(host.create(0, &request()), Err(Errno::ENOMEM));
    }
    assert_eq!(domain::count(), count);
    drop(held);
    host.create(0, &request()).unwrap();
}

#[test]
fn registers_are_set_and_read_while_the_domain_holds_still() {
    let host = Host::new();
    let (id, _) = host.create(0, &request()).unwrap();
    assert_eq!(host.set_context(id, 0, &start_context()), Err(Errno::EINVAL), "no vCPU yet");
    host.of(id, Op::MaxVcpus, &MaxVcpus { max: 2 }).unwrap();
    assert_eq!(host.context(id, 0), Err(Errno::ENODATA));
    assert_eq!(
        (host.context(id, 2), host.set_context(id, 2, &start_context())),
        (Err(Errno::ESRCH), Err(Errno::EINVAL))
    );
    for cpsr in [0x3c9, 0x3cd, 0x1d3, 0x10, 1 << 40 | 5, 1, 2] {
        let mut wrong = start_context();
        wrong.user_regs.cpsr = cpsr;
        assert_eq!(host.set_context(id, 0, &wrong), Err(Errno::EINVAL), "{cpsr:#x}");
    }
    let mut context = start_context();
    context.user_regs.x[30] = 17;
    host.set_context(id, 1, &context).unwrap();
    assert_eq!(host.context(id, 1), Ok(context));
    host.set_context(id, 1, &VcpuGuestContext { flags: 0, ..context }).unwrap();
    assert_eq!((host.context(id, 1).unwrap().flags, host.info(id).nr_online_vcpus), (0, 0));
    // A null address resets.
    host.of(id, Op::Setvcpucontext, &VcpuContext { vcpu: 1, ..VcpuContext::default() }).unwrap();
    assert_eq!(host.context(id, 1), Err(Errno::ENODATA));
    assert_eq!(host.set_context(0, 0, &start_context()), Err(Errno::EINVAL), "not the caller's own");
}

#[test]
fn the_pool_is_in_pages_and_not_below_what_is_used() {
    let host = Host::new();
    let (id, _) = host.create(0, &request()).unwrap();
    let size = || host.of(id, Op::GetPagingMempoolSize, &PagingMempool::default()).unwrap().size;
    let set = |size| host.of(id, Op::SetPagingMempoolSize, &PagingMempool { size });
    assert_eq!(size(), 64 << 10);
    assert_eq!(set(size() + 1), Err(Errno::EINVAL));
    set(64 << 20).unwrap();
    assert_eq!(size(), 64 << 20);
    assert_eq!(set(0), Err(Errno::ENOMEM), "the CPU interface takes tables");
    set(!0xfff).unwrap();
    set(8 << 12).unwrap();
    assert_eq!(size(), 8 << 12);
}

#[test]
fn caches_are_cleaned_in_pieces() {
    let host = Host::new();
    let (id, _) = host.create(0, &request()).unwrap();
    let op = Cacheflush { start_pfn: 5, nr_pfns: 100 };
    let mut argument = Domctl {
        cmd: Op::Cacheflush.raw(),
        interface_version: XEN_DOMCTL_INTERFACE_VERSION,
        domain: DomId::new(id),
        u: DomctlUnion::of(&op),
        ..Domctl::default()
    };
    host.pair.dom0.put(host.pair.call, &argument);
    arch::set_interrupt_pending(true);
    let mut pieces = 1;
    while call(&host.pair.dom0.caller(), &[host.pair.call, 0, 0, 0, 0]) != Outcome::Done(0) {
        argument = host.pair.dom0.take(host.pair.call);
        let left: Cacheflush = argument.u.get();
        assert_eq!(left.start_pfn + left.nr_pfns, 105);
        pieces += 1;
    }
    arch::set_interrupt_pending(false);
    assert_eq!(pieces, 7);
    for (start_pfn, nr_pfns) in [(0, 1 << 21), (u64::MAX, 2), (1, u64::MAX)] {
        assert_eq!(host.of(id, Op::Cacheflush, &Cacheflush { start_pfn, nr_pfns }), Err(Errno::EINVAL));
    }
}

/// A domain that has something of everything, and dom0 a page of its and ports to it.
fn full(host: &Host) -> (u16, PageRef) {
    let (id, _) = host.create(0, &request()).unwrap();
    host.of(id, Op::MaxVcpus, &MaxVcpus { max: 2 }).unwrap();
    host.of(id, Op::MaxMem, &MaxMem { max_memkb: 8192 }).unwrap();
    host.of(id, Op::SetPagingMempoolSize, &PagingMempool { size: 1 << 20 }).unwrap();
    for page in 0..40 {
        populate(id, 0x40000 + page * 513, 0);
    }
    populate(id, 0x80000, 9);
    let (dom0, domain) = (&host.pair.dom0.domain, domain::find(DomId::new(id)).unwrap());
    domain.p2m.set_target(Pages::new(700)).unwrap();
    domain.p2m.edit(|batch| batch.mark_on_demand(Gfn::new(0x90000), Pages::new(64))).unwrap();
    domain.pages.charge(Pages::new(4)).unwrap();
    domain.p2m.add_unmapped(memory().allocate(2).unwrap().clear()).unwrap();
    domain.p2m.map_shared(Gfn::new(1), domain.shared_info().unwrap()).unwrap();
    domain.p2m.map_shared(Gfn::new(2), &grant::frame(&domain, 0).unwrap()).unwrap();
    assert_eq!(host.info(id).shared_info_frame, 1);
    event::register_vcpu_info(&domain, VcpuId::new(1), Gfn::new(0x40000), 0).unwrap();
    for _ in 0..50 {
        let port = event::alloc_unbound(&domain, DomId::DOM0).unwrap();
        event::bind_interdomain(dom0, &domain, port).unwrap();
    }
    let lent = domain.p2m.get_page(Gfn::new(0x40000), Access::Write).unwrap();
    host.set_context(id, 0, &start_context()).unwrap();
    host.act_on(id, Op::Unpausedomain).unwrap();
    (id, lent)
}

#[test]
fn a_destroyed_domain_leaves_nothing_and_keeps_its_number_while_others_use_it() {
    let host = Host::new();
    let free = memory().free_count();
    let (id, lent) = full(&host);
    assert!(!host.heard());
    assert!(host.destroy_piece(id));
    assert!(host.heard(), "dom0 is told that it is dead");
    let info = host.info(id);
    assert_ne!(info.flags & XEN_DOMINF_DYING, 0);
    assert_eq!((info.tot_pages, info.max_pages), (1, 0), "what dom0 has of it");
    assert!(host.destroy_piece(id), "again is no mistake");
    assert_eq!(host.create(id, &request()), Err(Errno::EEXIST));
    drop(lent);
    domain::life::bury_if_due();
    assert!(host.heard(), "and that it is gone");
    assert_eq!(host.act_on(id, Op::Destroydomain), Err(Errno::ESRCH));
    for port in 1..60 {
        let _ = event::close(&host.pair.dom0.domain, port);
    }
    assert_eq!((memory().free_count(), memory().claimed()), (free, Pages::ZERO));
}

#[test]
fn a_destroyed_domain_is_not_kept_by_a_count_that_is_taken_back() {
    let host = Host::new();
    let (id, lent) = full(&host);
    drop(lent);
    let domain = domain::find(DomId::new(id)).unwrap();
    // As a hypercall that populates it does, before it finds that nothing can be mapped any more.
    domain.pages.charge(Pages::ONE).unwrap();
    assert!(host.destroy_piece(id));
    assert_eq!(host.info(id).tot_pages, 1);
    domain::life::refund(&domain, Pages::ONE);
    domain::life::bury_if_due();
    assert_eq!(host.act_on(id, Op::Destroydomain), Err(Errno::ESRCH));
}

#[test]
fn destruction_goes_on_after_each_interrupt_and_nothing_is_added_meanwhile() {
    let host = Host::new();
    let free = memory().free_count();
    let (id, lent) = full(&host);
    drop(lent);
    let domain = domain::find(DomId::new(id)).unwrap();
    arch::set_interrupt_pending(true);
    let mut pieces = 1;
    while !host.destroy_piece(id) {
        pieces += 1;
        assert_eq!(host.info(id).flags & XEN_DOMINF_DYING, 0, "as Xen, only at the end");
        assert_eq!(host.of(id, Op::MaxMem, &MaxMem { max_memkb: 8192 }), Err(Errno::ESRCH));
        assert_eq!(domain.pages.charge(Pages::ONE), Err(Errno::ENOMEM));
        assert_eq!(event::alloc_unbound(&domain, DomId::DOM0), Err(Errno::EINVAL));
        assert_eq!(host.set_context(id, 0, &start_context()), Err(Errno::ESRCH));
        assert!(domain.vcpus().iter().all(|vcpu| vcpu.sched.is_paused()));
    }
    arch::set_interrupt_pending(false);
    assert!(pieces > 3, "{pieces}");
    let page = PageRef::allocate_shared(DomId::new(id)).unwrap();
    assert_eq!(domain.p2m.map_shared(Gfn::new(9), &page), Err(Errno::ESRCH));
    drop((page, domain));
    assert_eq!(memory().free_count(), free);
}

#[test]
fn a_vcpu_leaves_its_cpu_before_its_memory_goes() {
    let host = Host::new();
    let (id, lent) = full(&host);
    drop(lent);
    let vcpu = domain::find(DomId::new(id)).unwrap().vcpu(VcpuId::new(0)).unwrap().clone();
    let cpu = vcpu.sched.home();
    assert!(sched::pick(cpu, arch::now()).next.is_some());
    sched::set_loaded(&vcpu, Some(cpu));
    arch::take_kicks();
    arch::set_cpu(CpuId::new(1 - cpu.index()).unwrap());
    assert!(!host.destroy_piece(id));
    assert_eq!(arch::take_kicks(), [cpu]);
    assert!(sched::pick(cpu, arch::now()).next.is_none());
    assert!(!host.destroy_piece(id), "its registers are still there");
    assert!(host.info(id).tot_pages > 500);
    sched::set_loaded(&vcpu, None);
    assert!(host.destroy_piece(id));
}

#[test]
fn a_vcpu_that_sleeps_is_asked_to_leave_its_cpu_too() {
    let host = Host::new();
    let (id, _lent) = full(&host);
    let vcpu = domain::find(DomId::new(id)).unwrap().vcpu(VcpuId::new(0)).unwrap().clone();
    let cpu = vcpu.sched.home();
    assert!(sched::pick(cpu, arch::now()).next.is_some());
    sched::set_loaded(&vcpu, Some(cpu));
    sched::block(&vcpu);
    assert!(sched::pick(cpu, arch::now()).next.is_none());
    arch::set_cpu(CpuId::new(1 - cpu.index()).unwrap());
    arch::take_kicks();
    assert!(!host.destroy_piece(id));
    assert_eq!((arch::take_kicks(), sched::must_reschedule(cpu)), (alloc::vec![cpu], true));
}

#[test]
fn shutting_down_keeps_the_reason_and_can_be_undone() {
    let host = Host::new();
    let (id, _lent) = full(&host);
    let domain = domain::find(DomId::new(id)).unwrap();
    let vcpu = domain.vcpu(VcpuId::new(0)).unwrap();
    assert_eq!(host.act_on(id, Op::Resumedomain), Err(Errno::EINVAL));
    domain::shut_down(&domain, pv_abi::sched::ShutdownReason::Suspend);
    domain::shut_down(&domain, pv_abi::sched::ShutdownReason::Crash);
    assert!(host.heard() && vcpu.sched.is_paused() && vcpu.has_requests());
    let flags = host.info(id).flags;
    assert_eq!(
        (flags & XEN_DOMINF_SHUTDOWN, flags >> XEN_DOMINF_SHUTDOWNSHIFT & 0xff),
        (XEN_DOMINF_SHUTDOWN, 2),
        "the first reason counts"
    );
    host.act_on(id, Op::Resumedomain).unwrap();
    assert!(!vcpu.sched.is_paused() && host.info(id).flags & XEN_DOMINF_SHUTDOWN == 0);
}

#[test]
fn a_watchdog_that_is_not_fed_ends_its_domain() {
    use crate::hypercall::{Caller, sched_op};
    use pv_abi::sched::{Op, Shutdown, ShutdownReason, Watchdog};
    let host = Host::new();
    let (id, _lent) = full(&host);
    let domain = domain::find(DomId::new(id)).unwrap();
    populate(id, 0x50000, 0);
    let at = domain.p2m.lookup(Gfn::new(0x50000)).unwrap().0.pa().raw();
    let caller = Caller { domain: &domain, vcpu: &domain.vcpus()[0] };
    let ask = |op: Op, words: [u32; 2]| {
        crate::mm::guest::write(&caller, at, &words).unwrap();
        match sched_op::call(&caller, &[u64::from(op.raw()), at, 0, 0, 0]) {
            Outcome::Done(value) => value,
            other => panic!("{other:?}"),
        }
    };
    let dog = |id, timeout| ask(Op::Watchdog, [id, timeout]);
    assert_eq!(size_of::<Watchdog>(), 8);
    assert_eq!([dog(0, 5), dog(0, 9), dog(0, 5)], [1, 2, Errno::ENOSPC.into()]);
    assert_eq!(
        [dog(2, 0), dog(2, 3), dog(3, 1), dog(0, 0)],
        [0, Errno::EEXIST.into(), Errno::EINVAL.into(), Errno::EINVAL.into()]
    );
    arch::advance(4 * arch::counter_frequency());
    assert_eq!(dog(1, 5), 0);
    arch::advance(4 * arch::counter_frequency());
    crate::timer::expire();
    assert!(domain.is_runnable());
    arch::advance(2 * arch::counter_frequency());
    crate::timer::expire();
    let flags = host.info(id).flags;
    assert_eq!(
        (domain.is_runnable(), flags >> XEN_DOMINF_SHUTDOWNSHIFT & 0xff),
        (false, ShutdownReason::Watchdog as u32)
    );

    host.act_on(id, super::Op::Resumedomain).unwrap();
    assert_eq!(ask(Op::ShutdownCode, [ShutdownReason::Reboot as u32, 0]), 0);
    crate::mm::guest::write(&caller, at, &Shutdown { reason: ShutdownReason::Crash as u32 }).unwrap();
    assert_eq!(sched_op::call(&caller, &[u64::from(Op::Shutdown.raw()), at, 0, 0, 0]), Outcome::Yield);
    assert_eq!(host.info(id).flags >> XEN_DOMINF_SHUTDOWNSHIFT & 0xff, ShutdownReason::Reboot as u32);
}

/// Any operation there is, and some there are not.
fn any_op() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..90, 2 => Just(1), 1 => Just(2), 2 => Just(15), 1 => Just(12), 1 => 1000u32..1005]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever dom0 asks is answered, and when all domains are destroyed nothing is gone.
    #[test]
    fn any_call_is_answered(calls in proptest::collection::vec((any_op(), 0u16..12, any::<[u64; 4]>(), 0u8..8), 1..60)) {
        let host = Host::new();
        prop_assert!(host.destroy_piece(7));
        let free = memory().free_count();
        for (cmd, id, words, shape) in calls {
            let mut u = DomctlUnion::default();
            // Often what makes sense, else any bits, with pointers that lead somewhere.
            match shape {
                0..3 if cmd == 1 => u.set(&CreateDomain { max_vcpus: 1 + (words[0] % 8) as u32, ..request() }),
                0..3 if cmd == 15 => u.set(&MaxVcpus { max: 1 + (words[0] % 8) as u32 }),
                3 => u.set(&[words[0] % 3, host.pair.map, words[2], words[3]]),
                4 => u.set(&[words[0] % 8, words[1] % 4096, 0, 0]),
                5 => u.set(&VcpuContext { vcpu: 0, ctxt: GuestHandle::new(host.pair.map), ..VcpuContext::default() }),
                _ => u.set(&words),
            }
            let argument = Domctl {
                cmd,
                interface_version: XEN_DOMCTL_INTERFACE_VERSION,
                domain: DomId::new(id),
                u,
                ..Domctl::default()
            };
            host.pair.dom0.put(host.pair.map, &start_context());
            host.pair.dom0.put(host.pair.call, &argument);
            let arguments = [host.pair.call, 0, 0, 0, 0];
            for _ in 0..10_000 {
                if !matches!(call(&host.pair.dom0.caller(), &arguments), Outcome::Again(_)) {
                    break;
                }
            }
            domain::life::bury_if_due();
        }
        while let Some(domain) = domain::first_from(DomId::new(1)) {
            prop_assert!(host.destroy_piece(domain.id.raw()));
        }
        prop_assert_eq!(memory().free_count(), free);
    }
}
