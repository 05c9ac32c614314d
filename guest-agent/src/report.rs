//! The report: a line of words `key=value` for one node.
//!
//! ```text
//! version=1 seq=7 total=225280 free=180000 available=190000 committed=40960 some=1200 full=300 stall=1
//! ```
//! A reader ignores keys that it does not know. `some` and `full` are absent where nobody counts stalls, `stall` unless the report was
//! sent because of one.

use core::fmt::{self, Write};

use arrayvec::ArrayString;

/// The node, relative to the guest's own directory. Toolstacks make `data` the guest's to write.
pub const NODE: &str = "data/memory";
/// The version of the report's words.
pub const VERSION: u32 = 1;
/// The most bytes that a report has.
pub const LONGEST: usize = 512;

/// A report's text.
pub type Text = ArrayString<LONGEST>;

/// What a guest has and uses, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What the guest's kernel manages now: what the balloon took is not in it (Linux: `MemTotal`).
    pub total: u64,
    /// Used for nothing (`MemFree`, less `CmaFree`).
    pub free: u64,
    /// What could still be had without swapping (`MemAvailable`, less `CmaFree`).
    pub available: u64,
    /// What has been promised to programs (`Committed_AS`).
    pub committed: u64,
}

/// How long programs have waited for memory since the guest started, in µs: Linux's pressure stall information
/// (`Documentation/accounting/psi.rst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one waited.
    pub some: u64,
    /// All that were not idle waited.
    pub full: u64,
}

/// What is written to [`NODE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// One more than in the report before; the first one of an agent's life has 1.
    pub sequence: u64,
    /// What the guest has.
    pub usage: Usage,
    /// How it has fared.
    pub pressure: Option<Pressure>,
    /// Sent because programs are waiting for memory just now.
    pub is_stall: bool,
}

impl Report {
    /// The words.
    pub fn text(&self) -> Text {
        let mut text = Text::new();
        // Eight numbers of at most 20 digits and their keys: there is room (`the_longest_report_has_room`).
        let _ = write!(text, "{self}");
        text
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { total, free, available, committed } = self.usage;
        write!(f, "version={VERSION} seq={} total={total} free={free} ", self.sequence)?;
        write!(f, "available={available} committed={committed}")?;
        if let Some(Pressure { some, full }) = self.pressure {
            write!(f, " some={some} full={full}")?;
        }
        if self.is_stall { f.write_str(" stall=1") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_words_are_those_of_the_contract() {
        let usage = Usage { total: 225_280, free: 180_000, available: 190_000, committed: 40_960 };
        let mut report = Report { sequence: 7, usage, ..Report::default() };
        assert_eq!(
            report.text().as_str(),
            "version=1 seq=7 total=225280 free=180000 available=190000 committed=40960"
        );
        report.pressure = Some(Pressure { some: 1200, full: 300 });
        report.is_stall = true;
        assert!(report.text().ends_with("committed=40960 some=1200 full=300 stall=1"));
    }

    #[test]
    fn the_longest_report_has_room() {
        let usage = Usage { total: u64::MAX, free: u64::MAX, available: u64::MAX, committed: u64::MAX };
        let pressure = Some(Pressure { some: u64::MAX, full: u64::MAX });
        let report = Report { sequence: u64::MAX, usage, pressure, is_stall: true };
        assert!(report.text().ends_with(" stall=1"));
        assert!(report.text().len() < LONGEST);
    }

    proptest! {
        #[test]
        fn each_word_is_a_key_and_a_number(sequence: u64, n: [u64; 4], pressure: Option<(u64, u64)>, is_stall: bool) {
            let usage = Usage { total: n[0], free: n[1], available: n[2], committed: n[3] };
            let pressure = pressure.map(|(some, full)| Pressure { some, full });
            let text = Report { sequence, usage, pressure, is_stall }.text();
            let words = text.split(' ').map(|word| word.split_once('=').unwrap());
            let words: HashMap<_, _> = words.map(|(key, value)| (key, value.parse::<u64>().unwrap())).collect();
            for (key, value) in [("seq", sequence), ("total", n[0]), ("free", n[1]), ("available", n[2]), ("committed", n[3])] {
                prop_assert_eq!(words.get(key), Some(&value));
            }
            prop_assert_eq!(words.get("some").copied(), pressure.map(|pressure| pressure.some));
            prop_assert_eq!(words.get("full").copied(), pressure.map(|pressure| pressure.full));
            prop_assert_eq!(words.contains_key("stall"), is_stall);
        }
    }
}
