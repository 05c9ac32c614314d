//! VMIDs by generation: 8 or 16 bits of tag serve any number of domains.
//!
//! A domain keeps the VMID it got last, with the generation it was given out in. When all are given out, a new
//! generation begins: every VMID is free again, except those in use on a CPU at that moment, which their domains
//! keep; and all TLB entries of all guests go. A domain whose VMID is of an old generation gets one of the new when
//! it next runs.
//!
//! ```text
//!              given out in this generation          all given out
//!  domain: none ───────────────────────▶ (g, v) ──────────────────────▶ generation g + 1, flush
//!                                          ▲                                │
//!                                          │ runs again:                    ├─ was on a CPU:  reserved, keeps v
//!                                          │ (g + 1, v) or (g + 1, other)   └─ was not:       v is free
//!                                          └────────────────────────────────┘
//! ```
//!
//! The state is one [`VmidAllocator`] behind one lock, and each domain's [`VersionedVmid`], which only a holder of that
//! lock reads or writes. It is held from [`VmidAllocator::check`] until the flush it asked for is complete and
//! `VTTBR_EL2` is written: a CPU that gave up its old VMID must not speculate with it after others may own it.

use core::num::NonZeroU64;

use crate::addr::Vmid;
use crate::geometry::VmidBits;

/// Words of a bit map of 16-bit VMIDs.
const WORDS: usize = 65536 / 64;

/// A VMID and the generation that gave it out: the generation, never zero, above 16 bits of VMID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(transparent)]
pub struct VersionedVmid(NonZeroU64);

impl VersionedVmid {
    const VMID_BITS: u32 = 16;

    const fn new(generation: NonZeroU64, vmid: Vmid) -> Self {
        // Setting bits of a number that is not zero leaves it so; 2^48 generations do not pass.
        match NonZeroU64::new(generation.get() << Self::VMID_BITS | vmid.raw() as u64) {
            Some(raw) => Self(raw),
            None => Self(NonZeroU64::MAX),
        }
    }

    /// What [`raw`](Self::raw) gave; `None` for what it never gives, such as 0.
    #[inline]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match NonZeroU64::new(raw) {
            Some(number) if raw >> Self::VMID_BITS != 0 => Some(Self(number)),
            _ => None,
        }
    }

    /// One number, for a domain to keep in an atomic.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0.get()
    }

    /// The VMID, for `VTTBR_EL2`.
    #[inline]
    pub const fn vmid(self) -> Vmid {
        Vmid::new(self.0.get() as u16)
    }

    #[inline]
    const fn generation(self) -> u64 {
        self.0.get() >> Self::VMID_BITS
    }
}

/// What [`VmidAllocator::check`] decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Verdict {
    /// What the domain has from now on.
    pub vmid: VersionedVmid,
    /// A generation began: `dsb ishst; tlbi alle1is; dsb ish; isb` before the lock is given back (DDI 0487 D8.14).
    /// A CPU whose instruction cache is VPIPT-tagged needs `ic ialluis` with it, because that tags by VMID.
    pub flush: bool,
}

/// Gives VMIDs to the domains of up to `CPUS` CPUs. VMID 0 is never given out: it is `VTTBR_EL2`'s while no domain
/// is loaded.
#[derive(Debug)]
pub struct VmidAllocator<const CPUS: usize> {
    generation: NonZeroU64,
    words: usize,
    given_out: [u64; WORDS],
    /// The word the next search begins at: all before it are full.
    search_from: usize,
    /// What each CPU has loaded, if it was loaded in this generation.
    active: [Option<VersionedVmid>; CPUS],
    /// What each CPU had loaded when this generation began.
    reserved: [Option<VersionedVmid>; CPUS],
}

impl<const CPUS: usize> VmidAllocator<CPUS> {
    /// After a new generation began there must be a VMID that no CPU holds.
    const ENOUGH_VMIDS: () = assert!(CPUS < 255, "8-bit VMIDs serve at most 254 CPUs");

    /// All VMIDs of the width free. Entries that firmware left in the TLBs must have been dropped.
    pub const fn new(bits: VmidBits) -> Self {
        let () = Self::ENOUGH_VMIDS;
        let mut given_out = [0; WORDS];
        given_out[0] = 1;
        let words = match bits {
            VmidBits::Eight => 256 / 64,
            VmidBits::Sixteen => WORDS,
        };
        Self {
            generation: NonZeroU64::MIN,
            words,
            given_out,
            search_from: 0,
            active: [None; CPUS],
            reserved: [None; CPUS],
        }
    }

    /// The VMID with which a domain that had `current` runs on `cpu`, from now until the next `check` or
    /// [`release`](Self::release) of that CPU.
    ///
    /// # Panics
    /// If `cpu` is not below `CPUS`.
    #[inline]
    pub fn check(&mut self, cpu: usize, current: Option<VersionedVmid>) -> Verdict {
        if let Some(vmid) = current
            && vmid.generation() == self.generation.get()
        {
            self.active[cpu] = current;
            return Verdict { vmid, flush: false };
        }
        self.renew(cpu, current)
    }

    /// `cpu` has no domain's VMID in `VTTBR_EL2` any more.
    ///
    /// # Panics
    /// If `cpu` is not below `CPUS`.
    pub fn release(&mut self, cpu: usize) {
        self.active[cpu] = None;
        self.reserved[cpu] = None;
    }

    /// How many generations began so far, the first not counted: how often everything was flushed.
    pub fn rollovers(&self) -> u64 {
        self.generation.get() - 1
    }

    fn renew(&mut self, cpu: usize, current: Option<VersionedVmid>) -> Verdict {
        let mut flush = false;
        let vmid = match current.and_then(|old| self.keep(old)) {
            Some(vmid) => vmid,
            None => match self.take_free() {
                Some(vmid) => vmid,
                None => {
                    flush = true;
                    self.begin_generation();
                    // The domain may be one that another CPU runs, and must keep its VMID then.
                    let kept = current.and_then(|old| self.keep(old));
                    // There is a free one: fewer than 255 are reserved.
                    kept.or_else(|| self.take_free()).unwrap_or(Vmid::new(0))
                }
            },
        };
        let vmid = VersionedVmid::new(self.generation, vmid);
        self.active[cpu] = Some(vmid);
        Verdict { vmid, flush }
    }

    /// Whether the domain that had `old` may have the same VMID in this generation: if it is reserved for it, or
    /// free still.
    fn keep(&mut self, old: VersionedVmid) -> Option<Vmid> {
        let mut hit = false;
        for reserved in &mut self.reserved {
            if *reserved == Some(old) {
                // Should another generation begin before that CPU loads it again, it is found by its new version.
                *reserved = Some(VersionedVmid::new(self.generation, old.vmid()));
                hit = true;
            }
        }
        if hit {
            return Some(old.vmid());
        }
        let (word, bit) = position(old.vmid());
        if self.given_out[word] & bit != 0 {
            return None;
        }
        self.given_out[word] |= bit;
        Some(old.vmid())
    }

    fn take_free(&mut self) -> Option<Vmid> {
        for (word, bits) in self.given_out.iter_mut().enumerate().take(self.words).skip(self.search_from) {
            if *bits != u64::MAX {
                let bit = bits.trailing_ones();
                *bits |= 1 << bit;
                self.search_from = word;
                return u16::try_from(word * 64 + bit as usize).ok().map(Vmid::new);
            }
        }
        self.search_from = self.words;
        None
    }

    fn begin_generation(&mut self) {
        self.generation = self.generation.saturating_add(1);
        self.given_out[..self.words].fill(0);
        self.given_out[0] = 1;
        self.search_from = 0;
        for (active, reserved) in self.active.iter_mut().zip(&mut self.reserved) {
            // A CPU that loaded nothing since the last generation began still has what it had then.
            if let Some(vmid) = active.take() {
                *reserved = Some(vmid);
            }
            if let Some(vmid) = reserved {
                let (word, bit) = position(vmid.vmid());
                self.given_out[word] |= bit;
            }
        }
    }
}

/// The word and the bit of a VMID.
#[inline]
fn position(vmid: Vmid) -> (usize, u64) {
    (usize::from(vmid.raw()) / 64, 1 << (vmid.raw() % 64))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const CPUS: usize = 8;

    /// CPUs whose TLBs keep every tag until they are flushed.
    struct World {
        allocator: VmidAllocator<CPUS>,
        domains: Vec<Option<VersionedVmid>>,
        /// The domain and VMID each CPU has loaded.
        loaded: [Option<(usize, Vmid)>; CPUS],
        /// Whose entries each TLB holds under each VMID.
        tlbs: Vec<Vec<Option<usize>>>,
        flushes: u64,
    }

    impl World {
        fn new(bits: VmidBits, domains: usize) -> Self {
            Self {
                allocator: VmidAllocator::new(bits),
                domains: std::vec![None; domains],
                loaded: [None; CPUS],
                tlbs: std::vec![std::vec![None; 65536]; CPUS],
                flushes: 0,
            }
        }

        fn run(&mut self, cpu: usize, domain: usize) {
            let verdict = self.allocator.check(cpu, self.domains[domain]);
            self.domains[domain] = Some(verdict.vmid);
            let vmid = verdict.vmid.vmid();
            assert_ne!(vmid, Vmid::new(0));
            if verdict.flush {
                self.flushes += 1;
                self.tlbs.iter_mut().for_each(|tlb| tlb.fill(None));
            }
            self.loaded[cpu] = Some((domain, vmid));
            for (cpu, loaded) in self.loaded.iter().enumerate() {
                let Some((domain, vmid)) = *loaded else { continue };
                let held = &mut self.tlbs[cpu][usize::from(vmid.raw())];
                assert!(
                    held.is_none_or(|owner| owner == domain),
                    "CPU {cpu} runs on another domain's entries"
                );
                *held = Some(domain);
                for other in self.loaded.iter().flatten() {
                    assert_eq!(
                        other.0 == domain,
                        other.1 == vmid,
                        "two domains with one VMID, or one with two"
                    );
                }
            }
        }

        fn forget(&mut self, domain: usize) {
            for cpu in 0..CPUS {
                if self.loaded[cpu].is_some_and(|(loaded, _)| loaded == domain) {
                    self.loaded[cpu] = None;
                    self.allocator.release(cpu);
                }
            }
            // Another domain takes the place: what the dead one left under its VMID is not its own.
            self.domains[domain] = None;
            for tlb in &mut self.tlbs {
                for owner in tlb.iter_mut().filter(|owner| **owner == Some(domain)) {
                    *owner = Some(usize::MAX);
                }
            }
        }
    }

    #[test]
    fn a_thousand_domains_share_eight_bits() {
        let mut world = World::new(VmidBits::Eight, 1000);
        for round in 0..5 {
            for domain in 0..1000 {
                world.run((domain + round) % CPUS, domain);
            }
        }
        // Each generation gives out 255 VMIDs less those reserved; one flush each, none else.
        assert!(
            (5000 / 255..=5000 / (255 - CPUS as u64)).contains(&world.flushes),
            "{} flushes",
            world.flushes
        );
        assert_eq!(world.flushes, world.allocator.rollovers());
    }

    #[test]
    fn sixteen_bits_need_no_flush_for_a_thousand_domains() {
        let mut world = World::new(VmidBits::Sixteen, 1000);
        for domain in (0..1000).chain(0..1000) {
            world.run(domain % CPUS, domain);
        }
        assert_eq!(world.flushes, 0);
    }

    #[test]
    fn a_domain_on_a_cpu_keeps_its_vmid_over_generations() {
        let mut world = World::new(VmidBits::Eight, 1001);
        world.run(0, 1000);
        let first = world.domains[1000].map(VersionedVmid::vmid);
        for domain in 0..1000 {
            world.run(1, domain);
        }
        assert!(world.flushes >= 3);
        world.run(2, 1000);
        assert_eq!(world.domains[1000].map(VersionedVmid::vmid), first);
    }

    #[test]
    fn a_versioned_vmid_survives_as_a_number() {
        let mut allocator = VmidAllocator::<2>::new(VmidBits::Sixteen);
        let vmid = allocator.check(0, None).vmid;
        assert_eq!(VersionedVmid::from_raw(vmid.raw()), Some(vmid));
        assert_eq!(vmid.raw(), 0x1_0001);
        assert_eq!(VersionedVmid::from_raw(0), None);
        assert_eq!(VersionedVmid::from_raw(0xffff), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Run(usize, usize),
        Sweep(usize, usize, usize),
        Die(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..CPUS, 0..12usize).prop_map(|(cpu, domain)| Step::Run(cpu, domain)),
            2 => (0..CPUS, 0..1000usize).prop_map(|(cpu, domain)| Step::Run(cpu, domain)),
            2 => (0..CPUS, 0..600usize, 1..400usize).prop_map(|(cpu, from, count)| Step::Sweep(cpu, from, count)),
            1 => (0..12usize).prop_map(Step::Die),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 1 } else { 64 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_vmid_is_shared_or_reused_without_a_flush(steps in prop::collection::vec(step(), 1..80)) {
            let mut world = World::new(VmidBits::Eight, 1000);
            for step in steps {
                match step {
                    Step::Run(cpu, domain) => world.run(cpu, domain),
                    Step::Sweep(cpu, from, count) => (from..from + count).for_each(|domain| world.run(cpu, domain)),
                    Step::Die(domain) => world.forget(domain),
                }
            }
        }
    }
}
