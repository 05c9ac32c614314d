//! What ports do, between real domains on a fake machine.

extern crate std;
use core::mem::offset_of;
use std::vec::Vec;

use pv_abi::event_channel::StatusInterdomain;
use pv_abi::xen::{SharedInfo, VcpuInfo};
use stage2::{Gfn, Ipa};

use super::*;
use crate::arch::Access;
use crate::domain::DomainConfig;
use crate::mm::testing;
use crate::sched::State as RunState;
use crate::vgic::{Frames, VirtualGic};

mod fifo;
mod model;

/// A domain with `vcpus` vCPUs and memory at gfn 0 to 15, one page each.
pub(super) fn domain(id: u16, vcpus: u32) -> Arc<Domain> {
    let config = DomainConfig {
        id: DomId::new(id),
        is_control: id == 0,
        is_direct_mapped: false,
        max_grant_frames: 1,
        max_event_ports: 200,
    };
    let affinities: Vec<u64> = (0..u64::from(vcpus)).collect();
    let vgic = VirtualGic::new(Frames::V2 { distributor: Ipa::new(0x0300_1000) }, &affinities, 32).unwrap();
    let domain = Arc::new(Domain::new(&config, testing::p2m(config.id, false), vgic));
    let vcpus: Vec<_> =
        (0..vcpus).map(|id| Arc::new(Vcpu::new(&domain, VcpuId::new(id), crate::arch::VcpuState))).collect();
    domain.set_vcpus(vcpus.into_boxed_slice());
    domain.pages.set_maximum(stage2::Pages::new(64));
    for gfn in 0..16 {
        let block = crate::mm::memory().allocate(0).unwrap().clear();
        domain.pages.charge(stage2::Pages::ONE).unwrap();
        domain.p2m.edit(|batch| batch.populate(Gfn::new(gfn), block)).unwrap();
    }
    domain
}

pub(super) fn page(domain: &Domain, gfn: u64) -> PageRef {
    domain.p2m.get_page(Gfn::new(gfn), Access::Write).unwrap()
}

/// Two connected ports.
fn connect(a: &Arc<Domain>, b: &Arc<Domain>) -> (Port, Port) {
    let b_port = alloc_unbound(b, a.id).unwrap();
    let a_port = bind_interdomain(a, b, b_port).unwrap();
    (a_port, b_port)
}

fn word(domain: &Domain, bitmap: usize, port: Port) -> u64 {
    domain.shared_info().unwrap().read_u64(bitmap + port as usize / 64 * 8)
}

fn is_pending(domain: &Domain, port: Port) -> bool {
    word(domain, offset_of!(SharedInfo, evtchn_pending), port) >> (port % 64) & 1 != 0
}

fn set_mask(domain: &Domain, port: Port, mask: bool) {
    let at = offset_of!(SharedInfo, evtchn_mask) + port as usize / 64 * 8;
    let bit = 1 << (port % 64);
    let shared = domain.shared_info().unwrap();
    if mask {
        shared.fetch_or_u64(at, bit)
    } else {
        shared.fetch_and_u64(at, !bit)
    };
}

/// What a guest does in its upcall: looks at everything, and clears it. The ports that were pending and not masked.
fn serve(domain: &Domain, info: &PageRef, at: usize) -> Vec<Port> {
    let shared = domain.shared_info().unwrap();
    let mut served = Vec::new();
    info.write_u8(at, 0);
    let mut words = info.read_u64(at + offset_of!(VcpuInfo, evtchn_pending_sel));
    info.write_u64(at + offset_of!(VcpuInfo, evtchn_pending_sel), 0);
    while words != 0 {
        let index = words.trailing_zeros() as usize;
        words &= words - 1;
        let mask = shared.read_u64(offset_of!(SharedInfo, evtchn_mask) + index * 8);
        let found = shared.fetch_and_u64(offset_of!(SharedInfo, evtchn_pending) + index * 8, mask) & !mask;
        served.extend((0..64).filter(|bit| found >> bit & 1 != 0).map(|bit| index as Port * 64 + bit));
    }
    served
}

fn serve_first(domain: &Domain) -> Vec<Port> {
    serve(domain, domain.shared_info().unwrap(), 0)
}

#[test]
fn ports_count_from_one_and_end_at_the_limit() {
    testing::machine(4);
    let d = domain(1, 1);
    for port in 1..200 {
        assert_eq!(alloc_unbound(&d, DomId::DOM0), Ok(port));
    }
    assert_eq!(alloc_unbound(&d, DomId::DOM0), Err(Errno::ENOSPC));
    assert_eq!(close(&d, 0), Err(Errno::EINVAL));
    assert_eq!(close(&d, 77), Ok(()));
    assert_eq!(close(&d, 77), Err(Errno::EINVAL));
    assert_eq!(bind_ipi(&d, 0), Ok(77), "the lowest free one");
    assert_eq!(send(&d, 4096), Err(Errno::EINVAL));
    assert_eq!(status(&d, u32::MAX).unwrap_err(), Errno::EINVAL);
    assert_eq!(status(&d, 0).unwrap().status, StatusKind::Closed.raw());
}

#[test]
fn connected_ports_signal_each_other() {
    testing::machine(4);
    let (a, b) = (domain(1, 1), domain(2, 1));
    let (a_port, b_port) = connect(&a, &b);
    assert_eq!(serve_first(&a), [a_port], "raised when bound");
    assert!(!is_pending(&b, b_port));

    send(&a, a_port).unwrap();
    assert!(is_upcall_pending(&b, VcpuId::new(0)));
    send(&a, a_port).unwrap();
    assert_eq!(serve_first(&b), [b_port]);
    assert_eq!(serve_first(&b), []);
    send(&b, b_port).unwrap();
    assert_eq!(serve_first(&a), [a_port]);

    let described = status(&a, a_port).unwrap();
    assert_eq!(described.status, StatusKind::Interdomain.raw());
    assert_eq!(
        described.u.get::<StatusInterdomain>(),
        StatusInterdomain { dom: b.id, _pad: 0, port: b_port }
    );
}

#[test]
fn only_the_named_domain_may_connect_and_once() {
    testing::machine(4);
    let (a, b, c) = (domain(1, 1), domain(2, 1), domain(3, 1));
    let port = alloc_unbound(&b, a.id).unwrap();
    assert_eq!(bind_interdomain(&c, &b, port), Err(Errno::EINVAL));
    assert_eq!(bind_interdomain(&a, &b, port + 1), Err(Errno::EINVAL));
    assert_eq!(bind_interdomain(&a, &b, 5000), Err(Errno::EINVAL));
    assert!(bind_interdomain(&a, &b, port).is_ok());
    assert_eq!(bind_interdomain(&a, &b, port), Err(Errno::EINVAL));
    assert_eq!(alloc_unbound(&a, a.id), Ok(2), "failed calls left no port behind");
}

#[test]
fn a_domain_can_talk_to_itself() {
    testing::machine(4);
    let d = domain(1, 1);
    let (near, far) = connect(&d, &d);
    assert_ne!(near, far);
    assert_eq!(serve_first(&d), [near]);
    send(&d, near).unwrap();
    assert_eq!(serve_first(&d), [far]);
    close(&d, near).unwrap();
    assert_eq!(status(&d, far).unwrap().status, StatusKind::Unbound.raw());
    assert!(destroy(&d));
    assert_eq!(Arc::strong_count(&d), 1);
}

#[test]
fn a_masked_port_waits_to_be_unmasked() {
    testing::machine(4);
    let d = domain(1, 1);
    let port = bind_ipi(&d, 0).unwrap();
    set_mask(&d, port, true);
    send(&d, port).unwrap();
    assert!(is_pending(&d, port));
    assert!(!is_upcall_pending(&d, VcpuId::new(0)));
    unmask(&d, port).unwrap();
    assert!(is_upcall_pending(&d, VcpuId::new(0)));
    assert_eq!(serve_first(&d), [port]);
    unmask(&d, port).unwrap();
    assert!(!is_upcall_pending(&d, VcpuId::new(0)), "not masked, not pending");
    assert_eq!(unmask(&d, 4000), Err(Errno::EINVAL));
}

#[test]
fn the_upcall_is_raised_when_it_becomes_pending_only() {
    testing::machine(4);
    let d = domain(1, 1);
    let ports: Vec<_> = (0..3).map(|_| bind_ipi(&d, 0).unwrap()).collect();
    let raises = |port: Port| d.events.lock().raise(port).upcall.is_some();
    assert!(raises(ports[0]));
    assert!(!raises(ports[0]), "pending already");
    assert!(!raises(ports[1]), "the vCPU knows already");
    assert_eq!(serve_first(&d), ports[..2]);
    assert!(raises(ports[2]));
}

#[test]
fn closing_leaves_the_peer_waiting() {
    testing::machine(4);
    let (a, b) = (domain(1, 1), domain(2, 1));
    let (a_port, b_port) = connect(&a, &b);
    send(&b, b_port).unwrap();
    close(&a, a_port).unwrap();
    assert!(!is_pending(&a, a_port), "a new owner of the port sees no old event");
    let described = status(&b, b_port).unwrap();
    assert_eq!(described.status, StatusKind::Unbound.raw());
    assert_eq!(described.u.get::<StatusUnbound>().dom, a.id);
    assert_eq!(send(&b, b_port), Ok(()), "nobody listens");
    assert!(bind_interdomain(&a, &b, b_port).is_ok(), "a may come back");
}

#[test]
fn virqs_are_bound_once() {
    testing::machine(4);
    let d = domain(1, 2);
    let console = bind_virq(&d, Virq::Console.raw(), 0).unwrap();
    assert_eq!(bind_virq(&d, Virq::Console.raw(), 0), Err(Errno::EEXIST));
    assert_eq!(bind_virq(&d, Virq::Console.raw(), 1), Err(Errno::EINVAL), "global");
    assert_eq!(bind_virq(&d, 24, 0), Err(Errno::EINVAL));
    assert_eq!(bind_virq(&d, Virq::Timer.raw(), 2), Err(Errno::ENOENT));
    let debug: Vec<_> = (0..2).map(|v| bind_virq(&d, Virq::Debug.raw(), v).unwrap()).collect();

    send_global_virq(&d, Virq::Console);
    send_global_virq(&d, Virq::DomExc);
    assert_eq!(serve_first(&d), [console]);
    send_virq(d.vcpu(VcpuId::new(1)).unwrap(), Virq::Debug);
    assert!(is_pending(&d, debug[1]) && !is_pending(&d, debug[0]));
    assert_eq!(send(&d, console), Err(Errno::EINVAL), "not the guest's to raise");

    assert_eq!(bind_vcpu(&d, console, 1), Ok(()));
    assert_eq!(bind_vcpu(&d, debug[0], 1), Err(Errno::EINVAL));
    close(&d, console).unwrap();
    send_global_virq(&d, Virq::Console);
    assert!(!is_pending(&d, console));
    assert_eq!(bind_virq(&d, Virq::Console.raw(), 0), Ok(console));
}

#[test]
fn a_port_moves_to_another_vcpu() {
    testing::machine(4);
    let d = domain(1, 2);
    register_vcpu_info(&d, VcpuId::new(1), Gfn::new(3), 64).unwrap();
    serve(&d, &page(&d, 3), 64);
    let (near, far) = connect(&d, &d);
    serve_first(&d);
    assert_eq!(bind_vcpu(&d, far, 1), Ok(()));
    assert_eq!(bind_vcpu(&d, far, 2), Err(Errno::ENOENT));
    let ipi = bind_ipi(&d, 1).unwrap();
    assert_eq!(bind_vcpu(&d, ipi, 0), Err(Errno::EINVAL));
    assert_eq!(bind_vcpu(&d, 99, 0), Err(Errno::EINVAL));
    send(&d, near).unwrap();
    assert_eq!(serve_first(&d), []);
    assert_eq!(serve(&d, &page(&d, 3), 64), [far]);
    assert_eq!(status(&d, far).unwrap().vcpu, 1);
}

#[test]
fn a_registered_vcpu_info_takes_over_and_loses_nothing() {
    testing::machine(4);
    let d = domain(1, 2);
    let ports = [bind_ipi(&d, 0).unwrap(), bind_ipi(&d, 1).unwrap()];
    assert_eq!(register_vcpu_info(&d, VcpuId::new(0), Gfn::new(1), 4096 - 8), Err(Errno::ENXIO));
    assert_eq!(register_vcpu_info(&d, VcpuId::new(0), Gfn::new(1), 4), Err(Errno::ENXIO));
    for (vcpu, port) in (0u32..).zip(ports) {
        send(&d, port).unwrap();
        let offset = 4096 - 64 - vcpu * 64;
        assert_eq!(register_vcpu_info(&d, VcpuId::new(vcpu), Gfn::new(1), offset), Ok(()));
        assert_eq!(register_vcpu_info(&d, VcpuId::new(vcpu), Gfn::new(2), 0), Err(Errno::EINVAL));
        assert_eq!(serve(&d, &page(&d, 1), offset as usize), [port]);
        send(&d, port).unwrap();
        assert_eq!(serve(&d, &page(&d, 1), offset as usize), [port]);
    }
}

#[test]
fn nothing_remains_of_a_domain_that_goes() {
    testing::machine(4);
    let (a, b) = (domain(1, 1), domain(2, 1));
    let ports: Vec<_> = (0..100).map(|_| connect(&a, &b)).collect();
    bind_virq(&a, Virq::Timer.raw(), 0).unwrap();
    assert!(Arc::strong_count(&a) > 100);
    crate::arch::set_interrupt_pending(true);
    let mut calls = 1;
    while !destroy(&a) {
        calls += 1;
        assert!(calls < 100);
    }
    crate::arch::set_interrupt_pending(false);
    assert!(calls > 2, "it gives way to interrupts");
    assert_eq!((Arc::strong_count(&a), Arc::strong_count(&b)), (1, 1));
    assert_eq!(status(&b, ports[7].1).unwrap().status, StatusKind::Unbound.raw());
    assert_eq!(bind_interdomain(&a, &b, ports[7].1), Err(Errno::EINVAL), "the dying opens nothing");
    crate::arch::set_interrupt_pending(true);
    assert!(!reset(&b), "begun, and given up by the guest");
    crate::arch::set_interrupt_pending(false);
    assert_eq!(alloc_unbound(&b, a.id), Ok(1));
    assert!(reset(&b), "begins anew");
    assert_eq!(alloc_unbound(&b, a.id), Ok(1));
}

#[test]
fn a_poll_ends_by_an_event_even_before_the_vcpu_sleeps() {
    testing::machine(4);
    let d = domain(1, 1);
    let vcpu = d.vcpu(VcpuId::new(0)).unwrap();
    let ports: Vec<_> = (0..3).map(|_| bind_ipi(&d, 0).unwrap()).collect();
    for &port in &ports {
        set_mask(&d, port, true);
    }
    assert_eq!(start_poll(&d, vcpu, &[5000]), Err(Errno::EINVAL));
    assert!(!vcpu.events.is_polling());

    assert_eq!(start_poll(&d, vcpu, &ports[..1]), Ok(false));
    assert!(vcpu.events.is_polling());
    send(&d, ports[1]).unwrap();
    assert!(vcpu.events.is_polling(), "another port");
    send(&d, ports[0]).unwrap();
    assert!(!vcpu.events.is_polling());
    assert_eq!(start_poll(&d, vcpu, &ports[..1]), Ok(true), "pending already");
    assert!(!vcpu.events.is_polling());

    assert_eq!(start_poll(&d, vcpu, &[]), Ok(false));
    send(&d, ports[2]).unwrap();
    assert!(!vcpu.events.is_polling(), "any port");

    assert_eq!(start_poll(&d, vcpu, &[]), Ok(false));
    poll_timeout(vcpu);
    assert!(!vcpu.events.is_polling());
    assert_eq!(d.events.lock().take_poller(ports[0]), None);
    assert_eq!(vcpu.sched.state(), RunState::Down);
}

/// Both ends send, close and connect again at once. A wrong order of locks stops this test for ever.
#[test]
fn two_domains_do_not_deadlock() {
    testing::machine(4);
    let (a, b) = (domain(1, 1), domain(2, 1));
    connect(&a, &b);
    connect(&b, &a);
    std::thread::scope(|scope| {
        for (near, far) in [(&a, &b), (&b, &a)] {
            scope.spawn(move || {
                for round in 0..20_000u32 {
                    let port = 1 + round % 4;
                    let _ = send(near, port);
                    let _ = send(near, port);
                    if round % 7 == 0 {
                        let _ = close(near, port);
                    }
                    if round % 5 == 0 {
                        let _ = alloc_unbound(near, far.id);
                        let _ = bind_interdomain(near, far, port);
                    }
                }
            });
        }
    });
    assert!(reset(&a) && reset(&b));
    assert_eq!((Arc::strong_count(&a), Arc::strong_count(&b)), (1, 1));
}

#[test]
fn a_domain_that_goes_away_lets_go_of_its_pages() {
    testing::machine(4);
    let free = crate::mm::memory().free_count();
    {
        let (d, other) = (domain(1, 2), domain(2, 1));
        crate::domain::insert(d.clone());
        register_vcpu_info(&d, VcpuId::new(0), Gfn::new(1), 0).unwrap();
        init_control(&d, 0, Gfn::new(2), 0).unwrap();
        expand_array(&d, Gfn::new(3)).unwrap();
        let (_, far) = connect(&d, &other);
        while d.p2m.teardown(&mut { u64::MAX }) != stage2::Progress::Done {}
        assert_eq!(d.pages.current().get(), 3, "the pages that events go to");
        assert!(destroy(&d));
        assert_eq!(
            (d.pages.current().get(), status(&other, far).unwrap().status),
            (0, StatusKind::Unbound.raw())
        );
        // Nothing brings them back.
        assert_eq!(alloc_unbound(&d, DomId::DOM0), Err(Errno::EINVAL));
        assert_eq!(bind_interdomain(&d, &other, far), Err(Errno::EINVAL));
        assert_eq!(bind_virq(&d, Virq::DomExc.raw(), 0), Err(Errno::EINVAL));
        assert_eq!(register_vcpu_info(&d, VcpuId::new(1), Gfn::new(1), 0), Err(Errno::EINVAL));
        assert_eq!(send(&other, far), Ok(()));
        send_global_virq(&d, Virq::DomExc);
        crate::domain::remove(d.id);
    }
    assert_eq!(crate::mm::memory().free_count(), free);
}

#[test]
fn a_port_that_finds_no_memory_is_an_error() {
    use crate::mm::heap::machine_is_full;
    testing::machine(4);
    let d = domain(1, 2);
    machine_is_full().store(true, Ordering::Relaxed);
    assert_eq!(alloc_unbound(&d, DomId::DOM0), Err(Errno::ENOMEM));
    assert_eq!(register_vcpu_info(&d, VcpuId::new(1), Gfn::new(1), 0), Err(Errno::ENOMEM));
    assert_eq!(init_control(&d, 0, Gfn::new(2), 0), Err(Errno::ENOMEM));
    machine_is_full().store(false, Ordering::Relaxed);
    init_control(&d, 0, Gfn::new(2), 0).unwrap();
    machine_is_full().store(true, Ordering::Relaxed);
    assert_eq!(expand_array(&d, Gfn::new(3)), Err(Errno::ENOMEM));
    machine_is_full().store(false, Ordering::Relaxed);
    assert_eq!(alloc_unbound(&d, DomId::DOM0), Ok(1));
}

#[test]
fn a_virq_of_the_machines_goes_to_whom_the_control_domain_names() {
    testing::machine(4);
    let (control, other) = (domain(0, 1), domain(2, 1));
    crate::domain::insert(control.clone());
    crate::domain::insert(other.clone());
    let ports = [&control, &other].map(|d| bind_virq(d, Virq::DomExc.raw(), 0).unwrap());
    let pending = || {
        let pending = [is_pending(&control, ports[0]), is_pending(&other, ports[1])];
        serve_first(&control);
        serve_first(&other);
        pending
    };
    send_machine_virq(Virq::DomExc);
    assert_eq!(pending(), [true, false]);
    assert_eq!(set_virq_handler(&other, Virq::Timer.raw()), Err(Errno::EINVAL), "each vCPU has its own");
    assert_eq!(set_virq_handler(&other, 24), Err(Errno::EINVAL));
    set_virq_handler(&other, Virq::DomExc.raw()).unwrap();
    send_machine_virq(Virq::DomExc);
    assert_eq!(pending(), [false, true]);
    send_machine_virq(Virq::Console);
    assert_eq!(pending(), [false, false]);
    // Back again when that domain is gone.
    assert!(crate::domain::life::destroy(&other));
    send_machine_virq(Virq::DomExc);
    assert_eq!(pending(), [true, false]);
    crate::domain::remove(control.id);
    destroy(&control);
}
