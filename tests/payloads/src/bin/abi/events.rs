//! `event_channel_op`: life of each kind of channel, delivery, and what is refused.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use payloads::exceptions::{Frame, set_interrupt_handler};
use payloads::gic::{Gic, SPURIOUS};
use payloads::machine::Machine;
use payloads::report::Test;
use payloads::xen::event_channel::{
    ALLOC_UNBOUND, AllocUnbound, BIND_INTERDOMAIN, BIND_IPI, BIND_VCPU, BIND_VIRQ, BindInterdomain, CLOSE,
    SEND, STATUS, UNMASK,
};
use payloads::xen::memory::{self, AddToPhysmap, Reservation};
use payloads::xen::{DOMID_SELF, errno, op};
use payloads::{expect, expect_eq, io, tests, timer};

use crate::{NOBODY, NOWHERE, call, raw};

pub const TESTS: [Test; 5] = tests![interdomain, virtual_interrupts, processors, refused, delivery];

fn op<T>(command: u64, argument: &mut T) -> i64 {
    call(op::EVENT_CHANNEL_OP, command, argument)
}

/// `evtchn_status`: the answer, state, processor, and the two words of the union.
fn status(port: u32) -> (i64, u32, u32, [u32; 2]) {
    let mut status = [u32::from(DOMID_SELF), port, 99, 99, 0, 0];
    let answer = op(STATUS, &mut status);
    (answer, status[2], status[3], [status[4] & 0xffff, status[5]])
}

/// A channel to this domain itself: the port that was waiting, and the one bound to it.
fn pair() -> (u32, u32) {
    let mut unbound = AllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, port: 0 };
    expect_eq!(op(ALLOC_UNBOUND, &mut unbound), 0);
    let mut bind = BindInterdomain { remote_dom: DOMID_SELF, remote_port: unbound.port, local_port: 0 };
    expect_eq!(op(BIND_INTERDOMAIN, &mut bind), 0);
    (unbound.port, bind.local_port)
}

fn close(mut port: u32) -> i64 {
    op(CLOSE, &mut port)
}

fn send(mut port: u32) -> i64 {
    op(SEND, &mut port)
}

fn interdomain(_: &Machine<'static>) {
    let mut unbound = AllocUnbound { dom: DOMID_SELF, remote_dom: DOMID_SELF, port: 0 };
    expect_eq!(op(ALLOC_UNBOUND, &mut unbound), 0);
    let waiting = unbound.port;
    expect!(waiting > 0, "port 0 was given out");
    expect_eq!(status(waiting), (0, 1, 0, [0, 0]));
    // To a channel nobody is bound to: no error, no event.
    expect_eq!(send(waiting), 0);
    let mut bind = BindInterdomain { remote_dom: DOMID_SELF, remote_port: waiting, local_port: 0 };
    expect_eq!(op(BIND_INTERDOMAIN, &mut bind), 0);
    let bound = bind.local_port;
    expect_eq!(status(waiting), (0, 2, 0, [0, bound]));
    expect_eq!(status(bound), (0, 2, 0, [0, waiting]));
    // Once is all.
    expect_eq!(op(BIND_INTERDOMAIN, &mut bind), errno::EINVAL);
    expect_eq!(send(bound), 0);
    expect_eq!(send(waiting), 0);
    // Closing one end leaves the other waiting again.
    expect_eq!(close(bound), 0);
    expect_eq!(status(bound).1, 0);
    expect_eq!(status(waiting), (0, 1, 0, [0, 0]));
    expect_eq!(close(bound), errno::EINVAL);
    expect_eq!(close(waiting), 0);
    // Both ends must exist.
    let mut absent = AllocUnbound { dom: DOMID_SELF, remote_dom: NOBODY, port: 0 };
    expect_eq!(op(ALLOC_UNBOUND, &mut absent), errno::ESRCH);
    let mut nobody = AllocUnbound { dom: NOBODY, remote_dom: DOMID_SELF, port: 0 };
    expect_eq!(op(ALLOC_UNBOUND, &mut nobody), errno::ESRCH);
    let mut nobody = BindInterdomain { remote_dom: NOBODY, remote_port: 1, local_port: 0 };
    expect_eq!(op(BIND_INTERDOMAIN, &mut nobody), errno::ESRCH);
    let mut absent = BindInterdomain { remote_dom: DOMID_SELF, remote_port: 100_000, local_port: 0 };
    expect_eq!(op(BIND_INTERDOMAIN, &mut absent), errno::EINVAL);
}

fn virtual_interrupts(_: &Machine<'static>) {
    // evtchn_bind_virq: virq, processor, port. VIRQ_TIMER is per processor, VIRQ_CONSOLE is not.
    for virq in [0, 2] {
        let mut bind = [virq, 0, 0];
        expect_eq!((virq, op(BIND_VIRQ, &mut bind)), (virq, 0));
        expect_eq!(status(bind[2]), (0, 4, 0, [virq, 0]));
        let mut again = [virq, 0, 0];
        expect_eq!((virq, op(BIND_VIRQ, &mut again)), (virq, errno::EEXIST));
        // A virtual interrupt is not sent by its owner.
        expect_eq!(send(bind[2]), errno::EINVAL);
        expect_eq!(close(bind[2]), 0);
    }
    expect_eq!(op(BIND_VIRQ, &mut [24_u32, 0, 0]), errno::EINVAL);
    expect_eq!(op(BIND_VIRQ, &mut [0_u32, 99, 0]), errno::ENOENT);
    // One for the whole domain is bound on its first processor.
    expect_eq!(op(BIND_VIRQ, &mut [2_u32, 1, 0]), errno::EINVAL);
}

fn processors(_: &Machine<'static>) {
    // evtchn_bind_ipi: processor, port.
    let mut ipi = [0_u32, 0];
    expect_eq!(op(BIND_IPI, &mut ipi), 0);
    expect_eq!(status(ipi[1]), (0, 5, 0, [0, 0]));
    expect_eq!(send(ipi[1]), 0);
    expect_eq!(op(BIND_IPI, &mut [99_u32, 0]), errno::ENOENT);
    // evtchn_bind_vcpu: port, processor. An IPI's processor is fixed.
    let (waiting, bound) = pair();
    expect_eq!(op(BIND_VCPU, &mut [bound, 0]), 0);
    expect_eq!(op(BIND_VCPU, &mut [waiting, 0]), 0);
    expect_eq!(op(BIND_VCPU, &mut [bound, 99]), errno::ENOENT);
    expect_eq!(op(BIND_VCPU, &mut [ipi[1], 0]), errno::EINVAL);
    expect_eq!(op(BIND_VCPU, &mut [100_000_u32, 0]), errno::EINVAL);
    let mut port = bound;
    expect_eq!(op(UNMASK, &mut port), 0);
    let mut port = 100_000_u32;
    expect_eq!(op(UNMASK, &mut port), errno::EINVAL);
    expect_eq!([close(ipi[1]), close(waiting), close(bound)], [0; 3]);
}

fn refused(_: &Machine<'static>) {
    for command in [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13] {
        expect_eq!(
            (command, raw(op::EVENT_CHANNEL_OP, [command, NOWHERE, 0, 0, 0])),
            (command, errno::EFAULT)
        );
    }
    for command in [15, 99] {
        expect_eq!(
            (command, raw(op::EVENT_CHANNEL_OP, [command, NOWHERE, 0, 0, 0])),
            (command, errno::ENOSYS)
        );
    }
    expect_eq!(send(0), errno::EINVAL);
    expect_eq!(send(100_000), errno::EINVAL);
    expect_eq!(close(100_000), errno::EINVAL);
    expect_eq!(status(100_000).0, errno::EINVAL);
    let mut nobody = [u32::from(NOBODY), 1, 0, 0, 0, 0];
    expect_eq!(op(STATUS, &mut nobody), errno::ESRCH);
    // Priorities and more words exist only with FIFO channels, which this domain has not asked for.
    expect_eq!(op(12, &mut [0_u64]), errno::EOPNOTSUPP);
    expect_eq!(op(13, &mut [1_u32, 3]), errno::ENOSYS);
    // evtchn_init_control with a processor that does not exist.
    expect_eq!(op(11, &mut [0_u64, 99 << 32, 0]), errno::ENOENT);
}

/// Upcalls taken, and the page of `vcpu_info` that the handler clears.
static UPCALLS: AtomicU32 = AtomicU32::new(0);
static VCPU_INFO: AtomicU64 = AtomicU64::new(0);
static REGISTERS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Offsets in `vcpu_info`.
const UPCALL_PENDING: u64 = 0;
const PENDING_SEL: u64 = 8;
/// Offset in `shared_info` of the pending bits, after 1 legacy `vcpu_info` of 48 bytes; the mask bits follow 512 bytes later.
const EVTCHN_PENDING: u64 = 48;
const EVTCHN_MASK: u64 = EVTCHN_PENDING + 512;

/// Enough of the controller to acknowledge and end: GICv3 needs no address for that.
fn gic() -> Gic {
    let [distributor, cpu_interface] = [0, 1].map(|i: usize| REGISTERS[i].load(Ordering::Relaxed));
    if cpu_interface == 0 {
        Gic::V3 { distributor, redistributor: 0 }
    } else {
        Gic::V2 { distributor, cpu_interface }
    }
}

/// Takes an upcall as a guest does: the flag down first, then the selector.
fn handler(_: &mut Frame) {
    let gic = gic();
    let acknowledged = gic.acknowledge();
    if acknowledged & 0x3ff < SPURIOUS {
        let info = VCPU_INFO.load(Ordering::Relaxed);
        io::write8(info + UPCALL_PENDING, 0);
        io::write32(info + PENDING_SEL, 0);
        io::write32(info + PENDING_SEL + 4, 0);
        UPCALLS.fetch_add(1, Ordering::Relaxed);
        gic.end(acknowledged);
    }
}

/// Upcalls that arrive within a millisecond.
fn upcalls() -> u32 {
    timer::spin(timer::frequency() / 1000);
    UPCALLS.swap(0, Ordering::Relaxed)
}

/// Relies on `misc::processors`, which registered the page of `vcpu_info`.
fn delivery(machine: &Machine<'static>) {
    let (Some(registers), Some(interrupt)) = (machine.gic, machine.event_interrupt) else {
        return expect!(false, "no interrupt controller or no event interrupt in the device tree");
    };
    let (Some(info), Some(page)) = (machine.free(4096, 4096), machine.free(2 << 20, 2 << 20)) else {
        return expect!(false, "no free memory");
    };
    let mut frames = [page.start / 4096];
    let mut reservation = Reservation {
        extent_start: frames.as_mut_ptr() as u64,
        nr_extents: 1,
        domid: DOMID_SELF,
        ..Default::default()
    };
    expect_eq!(call(op::MEMORY_OP, memory::DECREASE_RESERVATION, &mut reservation), 1);
    let mut add = AddToPhysmap { domid: DOMID_SELF, gpfn: frames[0], ..Default::default() };
    expect_eq!(call(op::MEMORY_OP, memory::ADD_TO_PHYSMAP, &mut add), 0);

    VCPU_INFO.store(info.start, Ordering::Relaxed);
    let Some(gic) = Gic::for_this_cpu(registers) else { return expect!(false, "no redistributor") };
    if let Gic::V2 { distributor, cpu_interface } = gic {
        REGISTERS[0].store(distributor, Ordering::Relaxed);
        REGISTERS[1].store(cpu_interface, Ordering::Relaxed);
    }
    set_interrupt_handler(handler);
    gic.enable_distributor();
    gic.enable_cpu();
    gic.enable(interrupt);
    io::interrupts_on();
    upcalls();

    let (waiting, bound) = pair();
    let bit = 1_u32 << (waiting % 32);
    let word = page.start + u64::from(waiting / 32 * 4);
    let pending = || io::read32(word + EVTCHN_PENDING) & bit != 0;
    expect!(!pending(), "a new port is pending");
    // The end that binds is pending from the start, in case its peer sent before; clear that.
    io::write32(word + EVTCHN_PENDING, 0);
    upcalls();
    expect_eq!(send(bound), 0);
    expect_eq!((pending(), upcalls()), (true, 1));
    // Pending already: nothing new.
    expect_eq!(send(bound), 0);
    expect_eq!((pending(), upcalls()), (true, 0));
    // Masked: pending, but silent until unmasked.
    io::write32(word + EVTCHN_PENDING, 0);
    io::write32(word + EVTCHN_MASK, bit);
    expect_eq!(send(bound), 0);
    expect_eq!((pending(), upcalls()), (true, 0));
    let mut port = waiting;
    expect_eq!(op(UNMASK, &mut port), 0);
    expect_eq!((pending(), upcalls()), (true, 1));
    expect_eq!(io::read32(word + EVTCHN_MASK) & bit, 0);
    // The interrupt is level: what is not taken stays up.
    io::interrupts_off();
    io::write32(word + EVTCHN_PENDING, 0);
    expect_eq!(send(bound), 0);
    timer::spin(timer::frequency() / 1000);
    expect_eq!(UPCALLS.load(Ordering::Relaxed), 0);
    io::interrupts_on();
    expect_eq!(upcalls(), 1);
    expect_eq!([close(waiting), close(bound)], [0; 2]);
    io::interrupts_off();
    gic.disable(interrupt);
}
