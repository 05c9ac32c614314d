//! A toolstack gone mad: makes domains, does anything to them at any moment, and takes them away, in dom0's place.
//!
//! The domains are half built, running nowhere in particular, dying or dead while it goes on. What must hold: the hypervisor
//! answers, and when all are gone the machine's free memory is what it was. That is judged from a second round on, for
//! EL2's own heap grows in the first and gives nothing back.

use payloads::hypercall::hypercall;
use payloads::xen::{errno, op, sysctl};
use payloads::{expect, expect_eq, println};

use super::values::Values;

/// Numbers that new domains get come from 1 up; looked for in the end.
const LAST: u64 = 0x7fef;
/// Domains at a time.
const MOST: usize = 6;
/// Guest frames of ours, beyond all memory, where pages of theirs are mapped.
const WINDOW: u64 = 1 << 25;
const WINDOW_PAGES: u64 = 64;

mod domctl {
    pub const CREATE: u64 = 1;
    pub const DESTROY: u64 = 2;
    pub const UNPAUSE: u64 = 4;
    pub const SETVCPUCONTEXT: u64 = 12;
    pub const MAX_VCPUS: u64 = 15;
    pub const MAX_MEM: u64 = 11;
    pub const SET_PAGING: u64 = 86;
    /// One more than the highest.
    pub const END: u64 = 90;
}

/// `memory_op`s.
mod memory {
    pub const INCREASE: u64 = 0;
    pub const DECREASE: u64 = 1;
    pub const POPULATE: u64 = 6;
    pub const ADD: u64 = 7;
    pub const REMOVE: u64 = 15;
    pub const SET_TARGET: u64 = 16;
    pub const GET_TARGET: u64 = 17;
    pub const ADD_BATCH: u64 = 23;
    pub const CLAIM: u64 = 24;
    pub const ACQUIRE: u64 = 28;
}

/// The domains there are, and a place for structures.
pub struct Domains {
    alive: [u64; MOST],
    at: u64,
    list: u64,
    made: u64,
    answers: [u64; 2],
}

impl Domains {
    pub fn new(values: &Values) -> Self {
        let scratch = values.scratch();
        let at = scratch.start + (scratch.end - scratch.start) / 4 * 3;
        Self { alive: [0; MOST], at, list: at + 4096, made: 0, answers: [0; 2] }
    }

    /// Plays for `count` calls, twice, and clears up after each.
    pub fn run(&mut self, values: &mut Values, count: u64) {
        for round in 0..2 {
            let before = free_pages();
            for _ in 0..count / 2 {
                self.one(values);
            }
            self.clear_up();
            let after = free_pages();
            println!("fuzz: {} domains made; free pages {before} before, {after} after", self.made);
            if round == 1 {
                expect_eq!(after, before);
            }
        }
        println!("fuzz: toolstack calls: {} succeeded, {} refused", self.answers[0], self.answers[1]);
        expect!(self.made > count / 1000, "only {} domains were made", self.made);
    }

    fn call(&mut self, number: u64, arguments: [u64; 3]) -> i64 {
        let [a, b, c] = arguments;
        // SAFETY: structures and lists are in scratch memory, frames in the window, domains other than this one.
        let answer = unsafe { hypercall(number, [a, b, c, 0, 0]) };
        self.answers[usize::from(answer < 0)] += 1;
        answer
    }

    /// Writes a structure's words.
    fn put(&self, address: u64, words: &[u64]) {
        for (index, word) in (0u64..).zip(words) {
            // SAFETY: the last quarter of scratch memory is this module's.
            unsafe { ((address + index * 8) as *mut u64).write_volatile(*word) };
        }
    }

    fn get(&self, index: u64) -> u64 {
        // SAFETY: as above.
        unsafe { ((self.at + index * 8) as *const u64).read_volatile() }
    }

    fn domctl(&mut self, op: u64, domain: u64, arguments: &[u64]) -> i64 {
        self.put(self.at, &[u64::from(sysctl::INTERFACE_VERSION) << 32 | op, domain]);
        self.put(self.at + 16, arguments);
        self.call(op::DOMCTL, [self.at, 0, 0])
    }

    fn create(&mut self, values: &mut Values) {
        let Some(free) = self.alive.iter().position(|id| *id == 0) else { return };
        let vcpus = 1 + values.random().below(4);
        // Flags HVM and HAP; vCPUs; ports and grant frames; maptrack frames and grant table version 1; SPIs.
        let config = [0, 0, 3 << 32, vcpus << 32, 4 << 32 | 63, 1 << 32 | 1, 0, 32 << 32, 0];
        if self.domctl(domctl::CREATE, 0, &config) == 0 {
            self.alive[free] = self.get(1) & 0xffff;
            self.made += 1;
        }
    }

    /// One call, about a domain that is there, was, or never was.
    fn one(&mut self, values: &mut Values) {
        if values.random().one_in(40) {
            self.create(values);
        }
        let slot = values.random().below(MOST as u64) as usize;
        let id = match self.alive.get(slot) {
            Some(&id) if id != 0 && !values.random().one_in(16) => id,
            _ => 1 + values.random().below(LAST),
        };
        let any = [(); 8].map(|()| values.any());
        let small = values.random().below(64);
        match values.random().below(24) {
            0 => {
                if values.random().one_in(4) && self.domctl(domctl::DESTROY, id, &[]) == 0 {
                    self.alive.iter_mut().filter(|alive| **alive == id).for_each(|alive| *alive = 0);
                }
            }
            1 => drop(self.domctl(domctl::MAX_VCPUS, id, &[1 + values.random().below(4)])),
            2 | 3 => drop(self.domctl(domctl::MAX_MEM, id, &[values.random().below(8192)])),
            4 => drop(self.domctl(domctl::SET_PAGING, id, &[values.random().below(64) << 12])),
            5 => {
                if values.random().one_in(16) {
                    // Registers of whatever lies there.
                    let context = self.list;
                    self.domctl(domctl::SETVCPUCONTEXT, id, &[values.random().below(2), context]);
                    self.domctl(domctl::UNPAUSE, id, &[]);
                }
            }
            6..=8 => {
                let op = values.random().below(domctl::END);
                if !matches!(op, domctl::CREATE | domctl::DESTROY) {
                    self.domctl(op, id, &any);
                }
            }
            9..=12 => self.reservation(values, id),
            13 => {
                // A page of its at ours, by the batch; and the other way round, which is refused.
                self.put(self.list, &[small, WINDOW + small, 0]);
                let batch = |to: u64, of: u64| to | 4 << 16 | 1 << 32 | of << 48;
                let both = [batch(0x7ff0, id), batch(id, 0)];
                let head = both[usize::from(values.random().one_in(4))];
                self.put(self.at, &[head, self.list, self.list + 8, self.list + 16]);
                self.call(op::MEMORY_OP, [memory::ADD_BATCH, self.at, 0]);
            }
            14 => {
                self.put(self.list, &[WINDOW + small]);
                // Resource 1: the grant table; one frame.
                self.put(self.at, &[id | 1 << 16, 1, values.random().below(6), self.list]);
                self.call(op::MEMORY_OP, [memory::ACQUIRE, self.at, 0]);
            }
            15 => {
                let space = values.random().below(3);
                self.put(self.at, &[id | space << 32, values.random().below(4), small]);
                self.call(op::MEMORY_OP, [memory::ADD, self.at, 0]);
            }
            16 => {
                let (whom, gfn) =
                    if values.random().one_in(2) { (0x7ff0, WINDOW + small) } else { (id, small) };
                self.put(self.at, &[whom, gfn]);
                self.call(op::MEMORY_OP, [memory::REMOVE, self.at, 0]);
            }
            17 => {
                self.put(self.at, &[values.random().below(4096), 0, 0, 0, id]);
                let op = values.random().pick(&[memory::SET_TARGET, memory::GET_TARGET]);
                self.call(op::MEMORY_OP, [op, self.at, 0]);
            }
            18 => {
                self.put(self.at, &[0, values.random().below(2048), 0, id]);
                self.call(op::MEMORY_OP, [memory::CLAIM, self.at, 0]);
            }
            19 | 20 => self.events(values, id),
            21 => {
                // setup_table, query_size.
                self.put(self.at, &[id | values.random().below(6) << 32, 0, self.list, 0]);
                let op = values.random().pick(&[2, 6]);
                self.call(op::GRANT_TABLE_OP, [op, self.at, 1]);
            }
            22 => {
                self.put(self.at, &[id | values.random().below(40) << 32, any[0]]);
                self.call(op::HVM_OP, [values.random().below(2), self.at, 0]);
            }
            _ => {
                // remote_shutdown, with a reason or none.
                self.put(self.at, &[id | values.random().below(8) << 32]);
                self.call(op::SCHED_OP, [4, self.at, 0]);
            }
        }
    }

    fn reservation(&mut self, values: &mut Values, id: u64) {
        let order = values.random().pick(&[0, 0, 0, 1, 9]);
        let count = 1 + values.random().below(64);
        for index in 0..count {
            let gfn = values.random().below(2048) >> order << order;
            self.put(self.list + index * 8, &[gfn]);
        }
        // XENMEMF_populate_on_demand, sometimes.
        let flags = if values.random().one_in(4) { 1 << 16 } else { 0 };
        self.put(self.at, &[self.list, count, order | flags << 32, id]);
        let op =
            values.random().pick(&[memory::POPULATE, memory::POPULATE, memory::DECREASE, memory::INCREASE]);
        self.call(op::MEMORY_OP, [op, self.at, 0]);
    }

    fn events(&mut self, values: &mut Values, id: u64) {
        let port = 1 + values.random().below(4);
        match values.random().below(4) {
            // alloc_unbound in it, for us; bind to it; reset it; close one of ours.
            0 => {
                self.put(self.at, &[id | 0x7ff0 << 16]);
                self.call(op::EVENT_CHANNEL_OP, [6, self.at, 0]);
            }
            1 => {
                self.put(self.at, &[id | port << 32, 0]);
                self.call(op::EVENT_CHANNEL_OP, [0, self.at, 0]);
            }
            2 => {
                self.put(self.at, &[id]);
                self.call(op::EVENT_CHANNEL_OP, [10, self.at, 0]);
            }
            _ => {
                self.put(self.at, &[values.random().below(64)]);
                self.call(op::EVENT_CHANNEL_OP, [3, self.at, 0]);
            }
        }
    }

    /// Lets go of everything, and sees all domains gone.
    fn clear_up(&mut self) {
        for page in 0..WINDOW_PAGES {
            self.put(self.at, &[0x7ff0, WINDOW + page]);
            self.call(op::MEMORY_OP, [memory::REMOVE, self.at, 0]);
        }
        // getdomaininfo finds the next there is.
        let mut left = 0;
        while self.domctl(5, 1, &[]) == 0 && left < 64 {
            let id = self.get(1) & 0xffff;
            let answer = self.domctl(domctl::DESTROY, id, &[]);
            expect!(answer == 0 || answer == errno::ESRCH, "domain {id} cannot be destroyed: {answer}");
            left += 1;
            if left == 60 {
                self.domctl(5, 1, &[]);
                println!("fuzz: domain {id}: info {:x?}", [2, 3, 4, 5].map(|index| self.get(index)));
            }
        }
        self.alive = [0; MOST];
        expect!(left < 64, "a domain stays");
    }
}

fn free_pages() -> u64 {
    let mut call = sysctl::Sysctl {
        command: sysctl::PHYSINFO,
        interface_version: sysctl::INTERFACE_VERSION,
        ..sysctl::Sysctl::default()
    };
    // SAFETY: the hypervisor writes into the structure, nothing else.
    let answer = unsafe { hypercall(op::SYSCTL, [&raw mut call as u64, 0, 0, 0, 0]) };
    expect_eq!(answer, 0);
    call.physinfo.free_pages
}
