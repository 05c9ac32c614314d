//! Sets of CPUs: bitmaps of the hypervisor, and the lists that people write (`0-3,^2`).

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;

/// The highest CPU that a list may name.
pub const MAX_CPU: u32 = 4095;

/// A set of CPUs (or NUMA nodes), by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CpuSet(BTreeSet<u32>);

/// A list that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{part}' is neither a CPU, nor a range of CPUs, nor 'all'")]
pub struct InvalidList {
    part: String,
}

impl CpuSet {
    /// The first `count` CPUs.
    pub fn first(count: u32) -> Self {
        Self((0..count).collect())
    }

    /// The CPUs whose bits are set; bit 0 of byte 0 is CPU 0.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let bits = bytes.iter().enumerate().flat_map(|(index, byte)| {
            (0..8u32).filter(move |bit| byte >> bit & 1 != 0).map(move |bit| index as u32 * 8 + bit)
        });
        Self(bits.collect())
    }

    /// A bitmap of `length` bytes; CPUs beyond it are left out.
    pub fn to_bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for &cpu in &self.0 {
            if let Some(byte) = bytes.get_mut(cpu as usize / 8) {
                *byte |= 1 << (cpu % 8);
            }
        }
        bytes
    }

    /// How many CPUs are in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no CPU is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// Reads a list: numbers and ranges with commas between them, `^` before what is taken out again, `all` for the
    /// first `count`.
    ///
    /// # Errors
    /// [`InvalidList`], also for a CPU above [`MAX_CPU`].
    pub fn parse(list: &str, count: u32) -> Result<Self, InvalidList> {
        let mut set = BTreeSet::new();
        for part in list.split(',') {
            let invalid = || InvalidList { part: part.to_owned() };
            let number =
                |text: &str| text.trim().parse().ok().filter(|cpu| *cpu <= MAX_CPU).ok_or_else(invalid);
            let (range, is_taken_out) = match part.trim().strip_prefix('^') {
                Some(rest) => (rest, true),
                None => (part.trim(), false),
            };
            let cpus = match range.split_once('-') {
                _ if range == "all" => 0..=count.saturating_sub(1),
                Some((first, last)) => number(first)?..=number(last)?,
                None => number(range)?..=number(range)?,
            };
            if cpus.is_empty() {
                return Err(invalid());
            }
            for cpu in cpus {
                if is_taken_out {
                    set.remove(&cpu)
                } else {
                    set.insert(cpu)
                };
            }
        }
        Ok(Self(set))
    }

    /// The set among the first `count` CPUs in xl's way: `all`, `none`, or a list with ranges.
    pub fn within(&self, count: u32) -> String {
        let cpus: Vec<u32> = self.iter().filter(|cpu| *cpu < count).collect();
        if cpus.is_empty() {
            return "none".to_owned();
        }
        if cpus.len() == count as usize {
            return "all".to_owned();
        }
        let mut text = String::new();
        for run in cpus.chunk_by(|a, b| a + 1 == *b) {
            let separator = if text.is_empty() { "" } else { "," };
            let (first, last) = (run[0], run[run.len() - 1]);
            // Writing to a string cannot fail.
            let _ = match first == last {
                true => write!(text, "{separator}{first}"),
                false => write!(text, "{separator}{first}-{last}"),
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sets_are_written_as_xl_does() {
        let set = |bytes: &[u8]| CpuSet::from_bytes(bytes);
        assert_eq!(set(&[0b11]).within(2), "all");
        assert_eq!(set(&[0xff, 0xff]).within(2), "all");
        assert_eq!(set(&[0b11]).within(4), "0-1");
        assert_eq!(set(&[0b1010_1110, 1]).within(16), "1-3,5,7-8");
        assert_eq!(set(&[0]).within(4), "none");
        assert_eq!(set(&[0b1000]).within(2), "none");
    }

    #[test]
    fn lists_are_read() {
        let parse = |list| CpuSet::parse(list, 4).map(|set| set.iter().collect::<Vec<_>>());
        assert_eq!(parse("0"), Ok(vec![0]));
        assert_eq!(parse("all"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(parse("0-6,^2-3, 9"), Ok(vec![0, 1, 4, 5, 6, 9]));
        for bad in ["", "x", "1-", "3-1", "-1", "4096", "99999999999", "1,,2", "^"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn bytes_and_lists_carry_every_set(cpus in prop::collection::btree_set(0u32..200, 0..40)) {
            let set = CpuSet(cpus);
            prop_assert_eq!(&CpuSet::from_bytes(&set.to_bytes(25)), &set);
            if !set.is_empty() {
                // Never "all": there are more CPUs.
                prop_assert_eq!(&CpuSet::parse(&set.within(300), 300).unwrap(), &set);
            }
        }

        #[test]
        fn no_list_makes_the_parser_panic(list in "[0-9,^a-z -]{0,20}") {
            let _ = CpuSet::parse(&list, 8);
        }
    }
}
