//! The balloon against a hypervisor and an allocator made of sets, and XenStore's ring against a daemon in the test.

use std::collections::{BTreeSet, VecDeque};
use std::vec::Vec;

use proptest::prelude::*;
use pv_abi::memory::PodTarget;
use pv_abi::xs_wire::MessageType;

use super::store::{self, Index, Ring};
use super::{Balloon, Guest, Op, Range, Step};

const BASE: u64 = 0x4_0000;
const ENOSYS: i64 = -38;

/// A guest and its hypervisor.
#[derive(Default)]
struct Sim {
    /// The allocator's free frames, and those that the guest uses.
    free: BTreeSet<u64>,
    used: BTreeSet<u64>,
    /// Frames the hypervisor has taken back.
    holes: BTreeSet<u64>,
    /// Extents that the hypervisor still does before it says no.
    patience: u64,
    /// Whether it has only single pages to give.
    is_fragmented: bool,
    target: Option<u64>,
    store_target: Option<u64>,
    static_max: Option<u64>,
    calls: u64,
}

impl Sim {
    fn new(pages: u64) -> Self {
        Self { free: (BASE..BASE + pages).collect(), patience: u64::MAX, ..Self::default() }
    }

    fn backed(&self) -> u64 {
        (self.free.len() + self.used.len()) as u64
    }

    /// Steps until there is nothing to do.
    fn run(&mut self, balloon: &mut Balloon<'_>) -> Step {
        for _ in 0..100_000 {
            match balloon.step(self) {
                Step::Moved(pages) => assert_ne!(pages, 0),
                end => return end,
            }
        }
        panic!("it never ends");
    }
}

impl Guest for Sim {
    fn reserve(&mut self, op: Op, frames: &[u64], order: u32) -> i64 {
        self.calls += 1;
        let mut done = 0;
        for &frame in frames {
            assert_eq!(frame % (1 << order), 0);
            if self.patience == 0 || op == Op::PopulatePhysmap && order != 0 && self.is_fragmented {
                break;
            }
            self.patience -= 1;
            for page in frame..frame + (1 << order) {
                let changed = match op {
                    Op::DecreaseReservation => self.holes.insert(page),
                    Op::PopulatePhysmap => self.holes.remove(&page),
                    _ => panic!("{op:?}"),
                };
                assert!(
                    changed && !self.free.contains(&page) && !self.used.contains(&page),
                    "{page:#x} by {op:?}"
                );
            }
            done += 1;
        }
        done
    }

    fn memory_target(&mut self, op: Op, target: &mut PodTarget) -> i64 {
        assert_eq!((op, target.domid.raw()), (Op::GetPodTarget, 0x7ff0));
        let Some(pages) = self.target else { return ENOSYS };
        target.target_pages = pages;
        0
    }

    fn take(&mut self, order: u32) -> Option<u64> {
        let is_free = |first: u64| (first..first + (1 << order)).all(|page| self.free.contains(&page));
        let first = self.free.iter().copied().find(|&first| first % (1 << order) == 0 && is_free(first))?;
        (first..first + (1 << order)).for_each(|page| assert!(self.free.remove(&page)));
        Some(first)
    }

    fn put(&mut self, frame: u64, order: u32) {
        for page in frame..frame + (1 << order) {
            assert!(!self.holes.contains(&page), "{page:#x} has no backing");
            assert!(self.free.insert(page));
        }
    }

    fn store_number(&mut self, node: &str) -> Option<u64> {
        match node {
            "memory/target" => self.store_target.map(|pages| pages * 4),
            "memory/static-max" => self.static_max.map(|pages| pages * 4),
            _ => panic!("{node}"),
        }
    }
}

#[test]
fn it_goes_to_the_hypervisors_target_by_large_extents() {
    let (mut sim, mut storage) = (Sim::new(32 << 9), [Range::default(); 32]);
    let mut balloon = Balloon::new(32 << 9, &mut storage);
    sim.target = Some(8 << 9);
    assert_eq!(sim.run(&mut balloon), Step::Reached);
    assert_eq!((balloon.has(), sim.backed(), sim.calls), (8 << 9, 8 << 9, 1), "24 extents in one call");
    sim.target = Some((20 << 9) + 7);
    assert_eq!(sim.run(&mut balloon), Step::Reached);
    assert_eq!((balloon.has(), sim.backed(), sim.calls), ((20 << 9) + 7, (20 << 9) + 7, 3));
    assert!(sim.holes.iter().all(|&frame| balloon.is_out(frame)));
    assert!(sim.free.iter().all(|&frame| !balloon.is_out(frame)));
    sim.target = Some(u64::MAX);
    assert_eq!(sim.run(&mut balloon), Step::Reached);
    assert_eq!(balloon.has(), 32 << 9, "what it does not see it cannot have");
}

#[test]
fn on_xen_it_follows_the_store_and_leaves_out_what_it_does_not_see() {
    let (mut sim, mut storage) = (Sim::new(1 << 10), [Range::default(); 8]);
    let mut balloon = Balloon::new(1 << 10, &mut storage);
    assert_eq!(sim.run(&mut balloon), Step::NoTarget);
    (sim.store_target, sim.static_max) = (Some((1 << 10) + 5), Some((1 << 10) + 5));
    assert_eq!(sim.run(&mut balloon), Step::Reached);
    assert_eq!(balloon.has(), 1 << 10);
    // Later changes of the most do not matter, as for Linux.
    (sim.store_target, sim.static_max) = (Some(512 + 5), Some(1 << 20));
    assert_eq!(sim.run(&mut balloon), Step::Reached);
    assert_eq!(sim.backed(), 512);
}

#[test]
fn it_stops_where_it_can_go_no_further_and_goes_on_later() {
    let (mut sim, mut storage) = (Sim::new(4 << 9), [Range::default(); 3]);
    let mut balloon = Balloon::new(4 << 9, &mut storage);
    // The guest uses every other page of all but the last extent.
    let last = BASE + (3 << 9);
    sim.used = (BASE..last).step_by(2).collect();
    sim.free.retain(|frame| *frame >= last || frame % 2 == 1);
    sim.target = Some(0);
    assert_eq!(sim.run(&mut balloon), Step::Stuck);
    assert_eq!(
        (balloon.has(), sim.free.len()),
        ((4 << 9) - 512 - 2, 768 - 2),
        "one range for each hole it could note"
    );
    sim.free.append(&mut sim.used);
    sim.target = Some(4 << 9);
    (sim.is_fragmented, sim.patience) = (true, 100);
    assert_eq!(sim.run(&mut balloon), Step::Stuck);
    assert_eq!(balloon.has(), (4 << 9) - 514 + 100);
    sim.patience = u64::MAX;
    assert_eq!(sim.run(&mut balloon), Step::Reached);
    assert_eq!((sim.holes.len(), sim.free.len()), (0, 4 << 9));
}

#[derive(Clone, Debug)]
enum Event {
    Target(u64),
    Use(u64, u64),
    Free(u64, u64),
    Patience(u64),
    Fragmented(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let run = (0u64..4096, 1u64..700);
    prop_oneof![
        3 => (0u64..5000).prop_map(Event::Target),
        2 => run.clone().prop_map(|(first, pages)| Event::Use(first, pages)),
        2 => run.prop_map(|(first, pages)| Event::Free(first, pages)),
        1 => (0u64..200).prop_map(Event::Patience),
        1 => any::<bool>().prop_map(Event::Fragmented),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: used memory is never given, counts agree with the hypervisor's, and a target that can be reached is.
    #[test]
    fn the_balloon_is_exact(events in prop::collection::vec(event(), 1..30), room in 0usize..600) {
        let mut sim = Sim::new(4096);
        let mut storage = std::vec![Range::default(); room];
        let mut balloon = Balloon::new(4096, &mut storage);
        sim.target = Some(4096);
        for event in events {
            match event {
                Event::Target(target) => sim.target = Some(target),
                Event::Use(first, pages) => for frame in BASE + first..BASE + first + pages {
                    if sim.free.remove(&frame) {
                        sim.used.insert(frame);
                    }
                },
                Event::Free(first, pages) => for frame in BASE + first..BASE + first + pages {
                    if sim.used.remove(&frame) {
                        sim.free.insert(frame);
                    }
                },
                Event::Patience(extents) => sim.patience = extents,
                Event::Fragmented(is) => sim.is_fragmented = is,
            }
            let used = sim.used.clone();
            let end = sim.run(&mut balloon);
            prop_assert_eq!(&used, &sim.used);
            prop_assert_eq!(balloon.has(), sim.backed());
            for frame in BASE..BASE + 4096 {
                prop_assert_eq!(balloon.is_out(frame), sim.holes.contains(&frame));
            }
            let target = sim.target.unwrap_or(0).min(4096);
            prop_assert_eq!(end == Step::Reached, balloon.has() == target);
            if end == Step::Stuck && sim.patience != 0 {
                prop_assert!(balloon.has() > target, "what is promised can be had");
                prop_assert!(sim.free.is_empty() || balloon.out.room() == 0);
            }
            sim.patience = u64::MAX;
        }
    }
}

/// A ring whose daemon answers between two accesses.
#[derive(Default)]
struct Shared {
    page: Vec<u8>,
    indices: [u32; 4],
    replies: VecDeque<u8>,
    request: Vec<u8>,
    is_deaf: bool,
}

impl Shared {
    fn new() -> Self {
        // The indices are about to wrap.
        Self { page: std::vec![0; 4096], indices: [u32::MAX - 5; 4], ..Self::default() }
    }

    fn reply(&mut self, kind: MessageType, request: u32, value: &[u8]) {
        for word in [kind as u32, request, 0, value.len() as u32] {
            self.replies.extend(word.to_le_bytes());
        }
        self.replies.extend(value);
    }

    fn place(which: Index) -> usize {
        (which as usize - 2048) / 4
    }

    fn serve(&mut self) {
        while self.indices[0] != self.indices[1] {
            self.request.push(self.page[self.indices[0] as usize % 1024]);
            self.indices[0] = self.indices[0].wrapping_add(1);
        }
        while self.indices[3].wrapping_sub(self.indices[2]) < 1024
            && let Some(byte) = self.replies.pop_front()
        {
            self.page[1024 + self.indices[3] as usize % 1024] = byte;
            self.indices[3] = self.indices[3].wrapping_add(1);
        }
    }
}

impl Ring for Shared {
    fn index(&mut self, which: Index) -> u32 {
        self.indices[Self::place(which)]
    }
    fn set_index(&mut self, which: Index, value: u32) {
        self.indices[Self::place(which)] = value;
    }
    fn byte(&mut self, offset: usize) -> u8 {
        self.page[offset]
    }
    fn set_byte(&mut self, offset: usize, value: u8) {
        self.page[offset] = value;
    }
    fn notify(&mut self) {}
    fn wait(&mut self) -> bool {
        let before = self.indices;
        if !self.is_deaf {
            self.serve();
        }
        self.indices != before
    }
}

#[test]
fn a_node_is_read_through_the_ring() {
    let mut ring = Shared::new();
    // An event of a watch, longer than the ring, comes first; then the reply.
    ring.reply(MessageType::WatchEvent, 0, &[b'x'; 3000]);
    ring.reply(MessageType::Read, 0xba11, b"262144");
    assert_eq!(store::read_number(&mut ring, "memory/target"), Some(262_144));
    assert_eq!(ring.request[..16], [2, 0, 0, 0, 0x11, 0xba, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0]);
    assert_eq!(&ring.request[16..], b"memory/target\0");
    ring.reply(MessageType::Error, 0xba11, b"ENOENT\0");
    assert_eq!(store::read_number(&mut ring, "memory/none"), None);
    ring.reply(MessageType::Read, 0xba11, &[b'1'; 21]);
    assert_eq!(store::read_number(&mut ring, "memory/target"), None, "no number is that long");
    ring.reply(MessageType::Read, 0xba11, b"12 MiB");
    assert_eq!(store::read_number(&mut ring, "memory/target"), None);
    ring.reply(MessageType::Read, 0xba11, b"77");
    assert_eq!(store::read_number(&mut ring, &"x".repeat(3000)), Some(77), "a request longer than the ring");
    ring.is_deaf = true;
    assert_eq!(store::read_number(&mut ring, "memory/target"), None, "nobody there");
}

#[test]
fn a_node_is_written_through_the_ring() {
    let mut ring = Shared::new();
    ring.reply(MessageType::Write, 0xba11, b"OK\0");
    assert!(store::write(&mut ring, "data/memory", b"version=1"));
    assert_eq!(ring.request[..16], [11, 0, 0, 0, 0x11, 0xba, 0, 0, 0, 0, 0, 0, 21, 0, 0, 0]);
    assert_eq!(&ring.request[16..], b"data/memory\0version=1");
    ring.reply(MessageType::Error, 0xba11, b"EACCES\0");
    assert!(!store::write(&mut ring, "memory/target", b"1"));
}
