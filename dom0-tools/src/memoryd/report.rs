//! What a guest says of its memory: one node that it writes itself, so nothing in it is believed before it is checked.
//!
//! `version=1 seq=N total=KIB free=KIB available=KIB committed=KIB some=US full=US stall=1`, in any order. `some` and `full` are the
//! totals of `/proc/pressure/memory`; they are left out where the kernel has none. Words of other names are left alone.

use memory_policy::Kib;

/// Where it is, below the guest's own directory.
pub const NODE: &str = "data/memory";
/// More is no report.
pub const LONGEST: usize = 512;
/// The format that is understood.
const VERSION: u64 = 1;
/// KiB that no machine has: 2^40 of them are a PiB.
const MOST_KIB: u64 = 1 << 40;
/// A committed amount can exceed the memory (overcommit), but not without bound.
const MOST_COMMITTED_KIB: u64 = 1 << 42;

/// A report that makes sense in itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Counts up with each.
    pub seq: u64,
    /// What the guest's kernel manages, in KiB.
    pub total_kib: u64,
    /// Not used at all.
    pub free_kib: u64,
    /// What could be had without swapping.
    pub available_kib: u64,
    /// What was promised to processes.
    pub committed_kib: u64,
    /// Microseconds for which some task waited for memory, since the guest started.
    pub some_us: Option<u64>,
    /// Microseconds for which all did.
    pub full_us: Option<u64>,
    /// It was sent because tasks wait.
    pub is_stall: bool,
}

/// Why what a guest wrote is no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Too long.
    #[error("{0} bytes, where {LONGEST} is the most")]
    TooLong(usize),
    /// A word that is no `key=value` of ASCII.
    #[error("a word that is no key=value")]
    NoWord,
    /// Not digits, or too many.
    #[error("{0} is no number")]
    NoNumber(&'static str),
    /// More than there can be.
    #[error("{0} is {1}, more than there can be")]
    TooMuch(&'static str, u64),
    /// One that is needed is not there.
    #[error("there is no {0}")]
    Missing(&'static str),
    /// More than its domain can ever have.
    #[error("total is {total}, where {maximum} is its maximum")]
    BeyondMaximum {
        /// What it says.
        total: Kib,
        /// What is set.
        maximum: Kib,
    },
    /// More of something than of what it is a part of.
    #[error("{0} is above total")]
    AboveTotal(&'static str),
    /// Another format.
    #[error("version {0} is not known")]
    Version(u64),
}

const NAMES: [&str; 9] =
    ["version", "seq", "total", "free", "available", "committed", "some", "full", "stall"];

/// A number of at most 20 digits and nothing else.
fn number(name: &'static str, text: &str) -> Result<u64, Nonsense> {
    let is_number = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }.ok_or(Nonsense::NoNumber(name))
}

impl Report {
    /// Reads what a guest wrote; `None`: it wrote nothing yet.
    ///
    /// # Errors
    /// [`Nonsense`].
    pub fn parse(text: &str) -> Result<Option<Self>, Nonsense> {
        if text.len() > LONGEST {
            return Err(Nonsense::TooLong(text.len()));
        }
        if text.is_empty() {
            return Ok(None);
        }
        let mut values = [None; NAMES.len()];
        for word in text.split_ascii_whitespace() {
            let (name, value) = word.split_once('=').ok_or(Nonsense::NoWord)?;
            // A name that is not known is of a later version of the same format.
            if let Some(index) = NAMES.iter().position(|known| *known == name) {
                values[index] = Some(number(NAMES[index], value)?);
            }
        }
        let [version, seq, total, free, available, committed, some, full, stall] = values;
        let needed = |index: usize, value: Option<u64>| value.ok_or(Nonsense::Missing(NAMES[index]));
        match needed(0, version)? {
            VERSION => {}
            other => return Err(Nonsense::Version(other)),
        }
        let report = Self {
            seq: needed(1, seq)?,
            total_kib: needed(2, total)?,
            free_kib: needed(3, free)?,
            available_kib: needed(4, available)?,
            committed_kib: needed(5, committed)?,
            some_us: some,
            full_us: full,
            is_stall: stall.is_some_and(|value| value != 0),
        };
        report.check().map(|()| Some(report))
    }

    fn check(&self) -> Result<(), Nonsense> {
        if self.total_kib == 0 {
            return Err(Nonsense::Missing("total"));
        }
        for (name, value, most) in
            [("total", self.total_kib, MOST_KIB), ("committed", self.committed_kib, MOST_COMMITTED_KIB)]
        {
            if value > most {
                return Err(Nonsense::TooMuch(name, value));
            }
        }
        for (name, value) in [("free", self.free_kib), ("available", self.available_kib)] {
            if value > self.total_kib {
                return Err(Nonsense::AboveTotal(name));
            }
        }
        Ok(())
    }

    /// Whether a domain of that maximum can say so. A little more is no nonsense: some pages are no RAM, and the policy takes it.
    ///
    /// # Errors
    /// [`Nonsense::BeyondMaximum`].
    pub fn check_maximum(&self, maximum: Kib) -> Result<(), Nonsense> {
        let total = Kib::new(self.total_kib);
        match total > maximum + maximum.part(1, 64).max(Kib::mib(16)) {
            true => Err(Nonsense::BeyondMaximum { total, maximum }),
            false => Ok(()),
        }
    }

    /// What is in use and cannot be had without swapping, in KiB.
    pub fn used_kib(&self) -> u64 {
        self.total_kib.saturating_sub(self.available_kib)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str =
        "version=1 seq=7 total=250000 free=100000 available=180000 committed=90000 some=12 full=3";

    #[test]
    fn a_report_is_read() {
        let report = Report::parse(GOOD).unwrap().unwrap();
        assert_eq!((report.seq, report.total_kib, report.used_kib()), (7, 250_000, 70_000));
        assert_eq!((report.some_us, report.full_us, report.is_stall), (Some(12), Some(3), false));
        let other = format!("stall=1 later=x {}", GOOD.replace(" some=12 full=3", ""));
        let report = Report::parse(&other).unwrap().unwrap();
        assert_eq!((report.some_us, report.is_stall), (None, true));
        assert_eq!(Report::parse(""), Ok(None));
    }

    #[test]
    fn nonsense_has_a_reason() {
        let with = |from: &str, to: &str| Report::parse(&GOOD.replace(from, to)).unwrap_err();
        assert_eq!(with("total=250000", "total=9223372036854775808"), Nonsense::TooMuch("total", 1 << 63));
        assert_eq!(
            with("committed=90000", "committed=9223372036854775808"),
            Nonsense::TooMuch("committed", 1 << 63)
        );
        assert_eq!(with("free=100000", "free=99999999999999999999999"), Nonsense::NoNumber("free"));
        assert_eq!(with("free=100000", "free=18446744073709551616"), Nonsense::NoNumber("free"));
        assert_eq!(with("free=100000", "free=-1"), Nonsense::NoNumber("free"));
        assert_eq!(with("free=100000", "free="), Nonsense::NoNumber("free"));
        assert_eq!(with("free=100000", "free=300000"), Nonsense::AboveTotal("free"));
        assert_eq!(with("seq=7", ""), Nonsense::Missing("seq"));
        assert_eq!(with("version=1", "version=2"), Nonsense::Version(2));
        assert_eq!(with("total=250000", "total=0"), Nonsense::Missing("total"));
        assert_eq!(with("seq=7", "seq"), Nonsense::NoWord);
        assert_eq!(Report::parse(&"x".repeat(513)), Err(Nonsense::TooLong(513)));
    }

    proptest! {
        #[test]
        fn whatever_a_guest_writes_is_a_report_or_refused(text in "\\PC{0,600}") {
            if let Ok(Some(report)) = Report::parse(&text) {
                prop_assert!(report.available_kib <= report.total_kib && report.total_kib <= MOST_KIB);
            }
        }

        #[test]
        fn no_numbers_break_it(values in proptest::collection::vec(any::<u64>(), 6)) {
            let text = format!(
                "version=1 seq={} total={} free={} available={} committed={} some={} full=0",
                values[0], values[1], values[2], values[3], values[4], values[5]
            );
            if let Ok(Some(report)) = Report::parse(&text) {
                prop_assert!(report.used_kib() <= MOST_KIB && report.committed_kib <= MOST_COMMITTED_KIB);
            }
        }
    }
}
