//! FIFO delivery to a model of a guest that consumes as Linux does, and to one that scribbles.

extern crate std;
use std::collections::BTreeSet;
use std::vec::Vec;

use proptest::prelude::*;
use pv_abi::event_channel::{
    EVTCHN_FIFO_BUSY, EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_LINKED, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_PENDING,
};

use super::super::*;
use super::{domain, page};
use crate::mm::testing;

const PENDING: u32 = 1 << EVTCHN_FIFO_PENDING;
const MASKED: u32 = 1 << EVTCHN_FIFO_MASKED;
const LINKED: u32 = 1 << EVTCHN_FIFO_LINKED;

impl Drop for Guest {
    fn drop(&mut self) {
        // The domain holds references to itself, which would keep its memory.
        destroy(&self.domain);
    }
}

/// A guest with a control block per vCPU in pages 8 and up, event words in page 4, `vcpu_info` in page 3.
struct Guest {
    domain: Arc<Domain>,
    control: Vec<PageRef>,
    words: PageRef,
    info: PageRef,
    /// Queue heads as the guest knows them, per vCPU and priority.
    heads: Vec<[Port; 16]>,
}

impl Guest {
    fn new(vcpus: u32) -> Self {
        let domain = domain(1, vcpus);
        let info = page(&domain, 3);
        for vcpu in 0..vcpus {
            register_vcpu_info(&domain, VcpuId::new(vcpu), Gfn::new(3), vcpu * 64).unwrap();
            info.write_u8(vcpu as usize * 64, 0);
        }
        let control: Vec<_> = (0..vcpus).map(|vcpu| page(&domain, 8 + u64::from(vcpu))).collect();
        for vcpu in 0..vcpus {
            init_control(&domain, vcpu, Gfn::new(8 + u64::from(vcpu)), 0).unwrap();
        }
        let words = page(&domain, 4);
        // Linux begins with everything masked.
        for port in 0..1024 {
            words.write_u32(port * 4, MASKED);
        }
        expand_array(&domain, Gfn::new(4)).unwrap();
        Self { domain, control, words, info, heads: std::vec![[0; 16]; vcpus as usize] }
    }

    fn word(&self, port: Port) -> u32 {
        self.words.read_u32(port as usize * 4)
    }

    /// The upcall of one vCPU: consumes until nothing is ready. The ports handled, in order.
    fn serve(&mut self, vcpu: usize, limit: usize) -> Vec<Port> {
        let mut handled = Vec::new();
        if self.info.read_u8(vcpu * 64) == 0 {
            return handled;
        }
        self.info.write_u8(vcpu * 64, 0);
        let mut ready = self.take_ready(vcpu);
        while ready != 0 {
            let priority = ready.trailing_zeros() as usize;
            self.consume(vcpu, priority, &mut ready, &mut handled);
            ready |= self.take_ready(vcpu);
            assert!(handled.len() < limit, "the queues do not end");
        }
        handled
    }

    fn take_ready(&self, vcpu: usize) -> u32 {
        let ready = self.control[vcpu].read_u32(0);
        self.control[vcpu].write_u32(0, 0);
        ready
    }

    /// Takes the first event of a queue, as `consume_one_event` in Linux's events_fifo.c.
    fn consume(&mut self, vcpu: usize, priority: usize, ready: &mut u32, handled: &mut Vec<Port>) {
        let mut port = self.heads[vcpu][priority];
        if port == 0 {
            port = self.control[vcpu].read_u32(8 + priority * 4);
        }
        let at = port as usize * 4;
        let old = self.words.fetch_and_u32(at, !(LINKED | EVTCHN_FIFO_LINK_MASK));
        let next = old & EVTCHN_FIFO_LINK_MASK;
        if next == 0 {
            *ready &= !(1 << priority);
        }
        if old & PENDING != 0 && old & MASKED == 0 {
            self.words.fetch_and_u32(at, !PENDING);
            handled.push(port);
        }
        self.heads[vcpu][priority] = next;
    }

    fn mask(&self, port: Port) {
        self.words.fetch_or_u32(port as usize * 4, MASKED);
    }
}

#[test]
fn events_queue_by_priority_and_order() {
    testing::machine(4);
    let mut g = Guest::new(1);
    let ports: Vec<_> = (0..4).map(|_| bind_ipi(&g.domain, 0).unwrap()).collect();
    for &port in &ports {
        unmask(&g.domain, port).unwrap();
    }
    set_priority(&g.domain, ports[3], 2).unwrap();
    assert_eq!(set_priority(&g.domain, ports[3], 16), Err(Errno::EINVAL));
    assert_eq!(set_priority(&g.domain, 4000, 2), Err(Errno::EINVAL));
    for port in [ports[1], ports[0], ports[3], ports[2], ports[1]] {
        send(&g.domain, port).unwrap();
    }
    assert_eq!(g.serve(0, 100), [ports[3], ports[1], ports[0], ports[2]]);
    assert_eq!(g.serve(0, 100), []);
    send(&g.domain, ports[2]).unwrap();
    assert_eq!(g.serve(0, 100), [ports[2]]);
}

#[test]
fn only_a_queue_that_was_empty_raises_the_upcall() {
    testing::machine(4);
    let mut g = Guest::new(1);
    let ports: Vec<_> = (0..2).map(|_| bind_ipi(&g.domain, 0).unwrap()).collect();
    for &port in &ports {
        unmask(&g.domain, port).unwrap();
    }
    let raises = |port: Port| g.domain.events.lock().raise(port).upcall.is_some();
    assert!(raises(ports[0]));
    assert!(!raises(ports[0]) && !raises(ports[1]));
    assert_eq!(g.serve(0, 100), ports);
}

#[test]
fn control_blocks_and_arrays_are_checked() {
    testing::machine(4);
    let d = domain(1, 2);
    assert_eq!(expand_array(&d, Gfn::new(4)), Err(Errno::EOPNOTSUPP));
    let port = bind_ipi(&d, 0).unwrap();
    assert_eq!(set_priority(&d, port, 3), Err(Errno::ENOSYS));
    assert_eq!(init_control(&d, 2, Gfn::new(8), 0), Err(Errno::ENOENT));
    assert_eq!(init_control(&d, 0, Gfn::new(8), 4), Err(Errno::EINVAL));
    assert_eq!(init_control(&d, 0, Gfn::new(8), 4096 - 64), Err(Errno::EINVAL));
    assert_eq!(init_control(&d, 0, Gfn::new(8), 4096 - 72), Ok(()));
    assert_eq!(init_control(&d, 0, Gfn::new(8), 0), Err(Errno::EINVAL), "it has one");
    for _ in 0..128 {
        assert_eq!(expand_array(&d, Gfn::new(4)), Ok(()));
    }
    assert_eq!(expand_array(&d, Gfn::new(4)), Err(Errno::ENOSPC));
}

#[test]
fn events_before_the_switch_and_before_the_array_are_kept() {
    testing::machine(4);
    let d = domain(1, 1);
    let before = bind_ipi(&d, 0).unwrap();
    let after = bind_ipi(&d, 0).unwrap();
    send(&d, before).unwrap();
    init_control(&d, 0, Gfn::new(8), 0).unwrap();
    send(&d, after).unwrap();
    assert_eq!(d.events.lock().is_pending(before), Ok(true));
    expand_array(&d, Gfn::new(4)).unwrap();
    let words = page(&d, 4);
    for port in [before, after] {
        assert_eq!(words.read_u32(port as usize * 4) & (PENDING | LINKED), PENDING | LINKED);
    }
    assert_eq!(page(&d, 8).read_u32(8 + 7 * 4), before, "the head of the default queue");
    assert!(reset(&d));
    assert_eq!(expand_array(&d, Gfn::new(4)), Err(Errno::EOPNOTSUPP), "back to 2-level");
}

#[test]
fn a_port_still_queued_is_not_given_out_again() {
    testing::machine(4);
    let mut g = Guest::new(1);
    let port = bind_ipi(&g.domain, 0).unwrap();
    unmask(&g.domain, port).unwrap();
    send(&g.domain, port).unwrap();
    close(&g.domain, port).unwrap();
    assert_eq!(g.word(port) & (PENDING | LINKED), LINKED);
    assert_ne!(bind_ipi(&g.domain, 0), Ok(port));
    assert_eq!(g.serve(0, 100), [], "taken off, not handled");
    assert_eq!(bind_ipi(&g.domain, 0), Ok(port));
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Mask(usize),
    Unmask(usize),
    Priority(usize, u32),
    Move(usize, u32),
    Serve(usize),
    Reopen(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let port = 0usize..6;
    prop_oneof![
        8 => port.clone().prop_map(Step::Send),
        2 => port.clone().prop_map(Step::Mask),
        3 => port.clone().prop_map(Step::Unmask),
        2 => (port.clone(), 0u32..16).prop_map(|(p, priority)| Step::Priority(p, priority)),
        2 => (port.clone(), 0u32..2).prop_map(|(p, vcpu)| Step::Move(p, vcpu)),
        4 => (0usize..2).prop_map(Step::Serve),
        1 => port.prop_map(Step::Reopen),
    ]
}

proptest! {
    /// Whatever the order of sending, masking, moving and consuming: a sent event that is not masked gets handled, and
    /// none is handled that was not sent.
    #[test]
    fn every_event_arrives(steps in prop::collection::vec(step(), 1..200)) {
        testing::machine(4);
        let mut g = Guest::new(2);
        // Interdomain ports of the domain with itself: what `sender[i]` sends arrives at `ports[i]`.
        let connect = |d: &Arc<Domain>| {
            let port = alloc_unbound(d, d.id).unwrap();
            (bind_interdomain(d, d, port).unwrap(), port)
        };
        let mut ends: Vec<_> = (0..6).map(|_| connect(&g.domain)).collect();
        let mut sent = BTreeSet::new();
        let mut masked: BTreeSet<Port> = ends.iter().map(|(_, port)| *port).collect();
        for step in steps {
            match step {
                Step::Send(i) => {
                    send(&g.domain, ends[i].0).unwrap();
                    sent.insert(ends[i].1);
                }
                Step::Mask(i) => {
                    g.mask(ends[i].1);
                    masked.insert(ends[i].1);
                }
                Step::Unmask(i) => {
                    unmask(&g.domain, ends[i].1).unwrap();
                    masked.remove(&ends[i].1);
                }
                Step::Priority(i, priority) => set_priority(&g.domain, ends[i].1, priority).unwrap(),
                Step::Move(i, vcpu) => bind_vcpu(&g.domain, ends[i].1, vcpu).unwrap(),
                Step::Serve(vcpu) => {
                    for port in g.serve(vcpu, 1000) {
                        prop_assert!(sent.remove(&port), "port {} was handled unsent", port);
                        prop_assert!(!masked.contains(&port));
                    }
                }
                Step::Reopen(i) => {
                    close(&g.domain, ends[i].0).unwrap();
                    close(&g.domain, ends[i].1).unwrap();
                    for port in [ends[i].0, ends[i].1] {
                        g.mask(port);
                        sent.remove(&port);
                    }
                    ends[i] = connect(&g.domain);
                    masked.insert(ends[i].1);
                    g.mask(ends[i].1);
                }
            }
        }
        for (_, port) in &ends {
            unmask(&g.domain, *port).unwrap();
        }
        for vcpu in [0, 1, 0, 1] {
            for port in g.serve(vcpu, 1000) {
                prop_assert!(sent.remove(&port), "port {} was handled unsent", port);
            }
        }
        prop_assert!(sent.is_empty(), "lost: {:?}", sent);
    }

    /// A guest that writes anything anywhere in its pages neither hangs nor confuses EL2, and another domain's events
    /// arrive all the same.
    #[test]
    fn scribbling_hurts_only_the_scribbler(writes in prop::collection::vec((0usize..3, 0usize..64, any::<u32>(), 0u32..8), 1..200)) {
        testing::machine(4);
        let g = Guest::new(1);
        let other = domain(2, 1);
        let ports: Vec<_> = (0..8).map(|_| {
            let port = alloc_unbound(&g.domain, other.id).unwrap();
            (bind_interdomain(&other, &g.domain, port).unwrap(), port)
        }).collect();
        for (place, offset, value, port) in writes {
            match place {
                0 => g.words.write_u32(offset * 4, value),
                1 => g.control[0].write_u32(offset % 18 * 4, value),
                _ => g.words.write_u32(offset * 4, value & !(MASKED | LINKED)),
            }
            let (far, near) = ports[port as usize];
            prop_assert_eq!(send(&other, far), Ok(()));
            prop_assert_eq!(unmask(&g.domain, near), Ok(()));
            prop_assert_eq!(send(&g.domain, near), Ok(()));
            prop_assert!(other.events.lock().is_pending(far).unwrap());
        }
        prop_assert!(destroy(&other));
    }

    /// A tail whose word changes under EL2 at every attempt is given up after a few.
    #[test]
    fn busy_is_cleared_in_the_end(word in any::<u32>()) {
        testing::machine(4);
        let g = Guest::new(1);
        let ports: Vec<_> = (0..2).map(|_| bind_ipi(&g.domain, 0).unwrap()).collect();
        for &port in &ports {
            unmask(&g.domain, port).unwrap();
        }
        send(&g.domain, ports[0]).unwrap();
        g.words.write_u32(ports[0] as usize * 4, word);
        send(&g.domain, ports[1]).unwrap();
        let found = g.word(ports[0]);
        prop_assert_eq!(found & 1 << EVTCHN_FIFO_BUSY, if word & LINKED != 0 { 0 } else { word & 1 << EVTCHN_FIFO_BUSY });
        prop_assert_eq!(found & EVTCHN_FIFO_LINK_MASK == ports[1], word & LINKED != 0 || word & EVTCHN_FIFO_LINK_MASK == ports[1]);
    }
}
