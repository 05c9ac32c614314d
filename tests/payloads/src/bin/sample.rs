//! In dom0's place: what share of its memory it uses, as the hypervisor finds by access flags, and what that costs.
//!
//! It watches itself, so each answer is written by EL2 to memory that may be watched, through tables that may be.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod sample {
    use payloads::hypercall::with_struct;
    use payloads::machine::{Machine, Range};
    use payloads::xen::{DOMID_SELF, op};
    use payloads::{expect, expect_eq, println, timer};

    /// `XENMEM_NACELLE_WORKING_SET`, its structure, and the most it watches (`pv-abi/src/nacelle.rs`).
    const WORKING_SET: u64 = 61;
    const MOST: u64 = 1024;
    const PAGE: u64 = 4096;
    const ROUNDS: u64 = 200;
    const TRIES: u32 = 20;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default)]
    struct WorkingSet {
        domid: u64,
        watch: u64,
        sampled: u64,
        touched: u64,
        period: u64,
        mapped: u64,
        faults: u64,
    }

    fn ask(watch: u64) -> WorkingSet {
        let mut answer = WorkingSet { domid: DOMID_SELF.into(), watch, ..WorkingSet::default() };
        // SAFETY: the hypervisor writes the answer into the structure, nothing else.
        let result = unsafe { with_struct(op::MEMORY_OP, WORKING_SET, &mut answer) };
        expect!(result == 0, "working_set({watch}) is {result}");
        answer
    }

    /// Reads one word of each page of which `part` of 8 says so.
    fn touch(range: &Range, part: u64) -> u64 {
        let pages = (range.start / PAGE..range.end / PAGE).filter(|page| page % 8 < part);
        // SAFETY: free memory that only this program uses.
        pages
            .map(|page| unsafe { ((page * PAGE) as *const u64).read_volatile() })
            .fold(0, |sum, word| sum ^ word)
    }

    /// What a sample sees of such reading; `None` if it ended before, as it does when EL2's answer finds a table of ours watched.
    fn period_of(free: &Range, part: u64) -> Option<WorkingSet> {
        let start = timer::ticks();
        ask(MOST);
        let asked = timer::nanoseconds(timer::ticks() - start);
        core::hint::black_box(touch(free, part));
        // Much longer than from the start to the sample's beginning, so that a whole period is longer than the call.
        timer::spin(100_000);
        let seen = ask(0);
        (seen.period > asked).then_some(seen)
    }

    pub fn run(machine: &Machine<'static>) {
        let sizes = (1..=64).rev().map(|mib| mib << 20);
        let Some(free) = sizes.filter_map(|size| machine.free(size, 1 << 20)).next() else {
            return expect!(false, "no free memory");
        };
        let mapped = ask(0).mapped;
        let free_pages = (free.end - free.start) / PAGE;
        println!("sample: {mapped} pages mapped, {free_pages} of them free to use");
        expect!(free_pages * 3 > mapped * 2, "too few of them");
        for part in [0, 2, 4, 8] {
            let Some(seen) = (0..TRIES).find_map(|_| period_of(&free, part)) else {
                return expect!(false, "no sample lasts");
            };
            let used = seen.touched * mapped / seen.sampled.max(1);
            let expected = free_pages * part / 8;
            println!("sample: {used} pages used by {} of {}, {expected} touched", seen.touched, seen.sampled);
            expect!(seen.sampled > MOST / 2, "only {} pages were watched", seen.sampled);
            // Four standard errors, and what the program itself uses.
            let error = 4 * mapped / 2 / seen.sampled.isqrt().max(1);
            expect!(
                used + error >= expected && used <= expected + error + 64,
                "{used} is not {expected} ± {error}"
            );
        }
        // Most of the time is spent in EL2's copies here.
        for _ in 0..ROUNDS {
            ask(MOST);
        }
        expect_eq!(ask(0).mapped, mapped);
        cost(&free);
    }

    /// What a page costs to watch, to touch, and to count: instructions, where `-icount shift=0` makes nanoseconds so.
    fn cost(free: &Range) {
        let time = |what: &mut dyn FnMut()| {
            let start = timer::ticks();
            what();
            timer::nanoseconds(timer::ticks() - start)
        };
        core::hint::black_box(touch(free, 8));
        let mut watched = 0;
        let watching = time(&mut || watched = ask(MOST).watch);
        let before = ask(MOST);
        let touching = time(&mut || _ = core::hint::black_box(touch(free, 8)));
        let again = time(&mut || _ = core::hint::black_box(touch(free, 8)));
        let mut after = before;
        let counting = time(&mut || after = ask(0));
        let faults = after.faults - before.faults;
        println!(
            "sample: per page: {} to watch, {} to count; {faults} faults at {} each",
            watching / watched.max(1),
            counting / after.sampled.max(1),
            touching.saturating_sub(again) / faults.max(1)
        );
    }
}

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
fn payload_main(machine: &payloads::machine::Machine<'static>) {
    sample::run(machine);
}

#[cfg(not(target_os = "none"))]
fn main() {}
