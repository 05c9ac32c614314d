//! A guest that minds its own business: computes, keeps memory and registers, and notices whether anybody interferes.
//!
//! Boot arguments: `steady.rounds=N` (400 by default), `steady.seed=N`. Each round fills memory with numbers, reads them back, adds
//! them up, and looks whether its floating-point registers, its old memory, its timer and its pending interrupts are what it
//! left. The last lines are the sum, which depends on seed and rounds alone, and `payload: N passed, 0 failed`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod work {
    use core::arch::asm;

    use payloads::machine::{Machine, Range};
    use payloads::random::Random;
    use payloads::xen::op;
    use payloads::{expect, expect_eq, hypercall, println, timer};

    /// Bytes written and read in each round, and as many that are written once.
    const SIZE: u64 = 1 << 20;

    /// Writes the generator's numbers over a range.
    fn fill(range: &Range, seed: u64) {
        let mut random = Random::new(seed);
        for address in (range.start..range.end).step_by(8) {
            // SAFETY: free memory that only this program uses.
            unsafe { (address as *mut u64).write_volatile(random.next_u64()) };
        }
    }

    /// Reads a range; whether it holds what [`fill`] wrote, and the sum.
    fn check(range: &Range, seed: u64) -> (bool, u64) {
        let mut random = Random::new(seed);
        let (mut is_same, mut sum) = (true, 0u64);
        for address in (range.start..range.end).step_by(8) {
            // SAFETY: free memory that only this program uses.
            let value = unsafe { (address as *const u64).read_volatile() };
            is_same &= value == random.next_u64();
            sum = sum.rotate_left(1) ^ value;
        }
        (is_same, sum)
    }

    /// Writes all vector registers; the compiler uses none.
    fn load_vectors(seed: u64) {
        // SAFETY: the build has no floating point, so these registers are nobody's.
        unsafe {
            asm!(
                ".arch_extension fp", ".arch_extension simd",
                "dup v0.2d, {0}", "add v1.2d, v0.2d, v0.2d", "add v15.2d, v1.2d, v0.2d", "add v31.2d, v15.2d, v1.2d",
                in(reg) seed, options(nomem, nostack)
            );
        }
    }

    /// Whether the vector registers hold what [`load_vectors`] put there.
    fn vectors_are(seed: u64) -> bool {
        let (a, b, c, d): (u64, u64, u64, u64);
        // SAFETY: as above.
        unsafe {
            asm!(
                ".arch_extension fp", ".arch_extension simd",
                "mov {0}, v0.d[1]", "mov {1}, v1.d[0]", "mov {2}, v15.d[1]", "mov {3}, v31.d[0]",
                out(reg) a, out(reg) b, out(reg) c, out(reg) d, options(nomem, nostack)
            );
        }
        [a, b, c, d] == [1, 2, 3, 5].map(|factor: u64| seed.wrapping_mul(factor))
    }

    pub fn run(machine: &Machine<'static>) {
        let rounds = machine.number("steady.rounds").unwrap_or(400);
        let seed = machine.number("steady.seed").unwrap_or(7);
        let Some(both) = machine.free(2 * SIZE, SIZE) else {
            expect!(false, "not enough free memory");
            return;
        };
        let old = Range { start: both.start, end: both.start + SIZE };
        let new = Range { start: old.end, end: both.end };
        // CPACR_EL1.FPEN (DDI 0487 D19.2.35): vector registers without traps of our own.
        payloads::write_sysreg!("cpacr_el1", 3u64 << 20);
        fill(&old, seed);
        let program = payloads::boot::checksum_of_constants();
        let mut random = Random::new(seed ^ 0x5eed);
        let (mut sum, mut last, mut wrong) = (0u64, timer::ticks(), [0u64; 5]);
        for _ in 0..rounds {
            let this = random.next_u64();
            load_vectors(this);
            fill(&new, this);
            let (is_same, part) = check(&new, this);
            sum = sum.rotate_left(7) ^ part;
            let now = timer::ticks();
            let is_kept = check(&old, seed).0;
            let version = hypercall::scalar(op::XEN_VERSION, 0, 0);
            for (count, good) in wrong.iter_mut().zip([
                is_same,
                is_kept,
                vectors_are(this),
                now > last,
                version == 4 << 16 | 17,
            ]) {
                *count += u64::from(!good);
            }
            last = now;
        }
        for (what, count) in ["new memory", "old memory", "vectors", "time", "hypercalls"].iter().zip(wrong) {
            expect!(count == 0, "{what} wrong in {count} of {rounds} rounds");
        }
        expect_eq!(payloads::boot::checksum_of_constants(), program);
        println!("steady: {rounds} rounds from seed {seed}, sum {sum:#x}");
    }
}

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
fn payload_main(machine: &payloads::machine::Machine<'static>) {
    work::run(machine);
}

#[cfg(not(target_os = "none"))]
fn main() {}
