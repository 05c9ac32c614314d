//! What Linux's files say: `/proc/meminfo` and `/proc/pressure/memory`.

use crate::report::{Pressure, Usage};

impl Usage {
    /// Reads `/proc/meminfo`. `None`: it does not say how much memory there is, or not in KiB.
    ///
    /// Before Linux 3.14 there is no `MemAvailable`: what is free stands for it. Without `Committed_AS`, what is used does.
    ///
    /// What is free of the memory set aside for devices' buffers (`CmaFree`) counts as used: programs may borrow it, but
    /// neither the balloon nor the kernel itself. A guest that is left nothing else dies, "deadlocked on memory".
    pub fn from_meminfo(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix("kB")?.trim_end().parse().ok()
        };
        let (total, free): (u64, u64) = (value("MemTotal")?, value("MemFree")?);
        let set_aside = value("CmaFree").unwrap_or(0);
        let available = value("MemAvailable").unwrap_or(free).saturating_sub(set_aside);
        let free = free.saturating_sub(set_aside);
        let committed = value("Committed_AS").unwrap_or(total.saturating_sub(available));
        Some(Self { total, free, available, committed })
    }
}

impl Pressure {
    /// Reads `/proc/pressure/memory`. `None`: it is not what the kernel's documentation says.
    pub fn from_proc(text: &str) -> Option<Self> {
        let total = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            line.split(' ').find_map(|word| word.strip_prefix("total="))?.parse().ok()
        };
        Some(Self { some: total("some")?, full: total("full")? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From Debian's 6.1 kernel, in a guest of 256 MiB.
    const MEMINFO: &str = "MemTotal:         225796 kB\nMemFree:          203956 kB\nMemAvailable:     203892 kB\n\
        Buffers:               0 kB\nCached:             2536 kB\nCommitLimit:      112896 kB\nCommitted_AS:       1052 kB\n\
        HugePages_Total:       0\nCmaTotal:          65536 kB\nCmaFree:           61440 kB\n";
    const PRESSURE: &str = "some avg10=0.10 avg60=0.02 avg300=0.00 total=4711\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=815\n";

    #[test]
    fn linux_files_are_read() {
        let usage = Usage { total: 225_796, free: 142_516, available: 142_452, committed: 1052 };
        assert_eq!(Usage::from_meminfo(MEMINFO), Some(usage));
        assert_eq!(Pressure::from_proc(PRESSURE), Some(Pressure { some: 4711, full: 815 }));
    }

    #[test]
    fn old_kernels_say_less() {
        let old = Usage { total: 100, free: 30, available: 30, committed: 70 };
        assert_eq!(Usage::from_meminfo("MemTotal: 100 kB\nMemFree: 30 kB\n"), Some(old));
    }

    #[test]
    fn what_makes_no_sense_is_no_answer() {
        for text in ["", "MemTotal: 100 kB", "MemTotal: 100\nMemFree: 1 kB", "MemTotal: -1 kB\nMemFree: 1 kB"]
        {
            assert_eq!(Usage::from_meminfo(text), None, "{text}");
        }
        for text in
            ["", "some total=1", "some avg10=0 total=x\nfull total=2", "something total=1\nfull total=2"]
        {
            assert_eq!(Pressure::from_proc(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC*", cut in 0..MEMINFO.len()) {
            Usage::from_meminfo(&text);
            Pressure::from_proc(&text);
            Usage::from_meminfo(&MEMINFO[..cut]);
        }

        #[test]
        fn every_number_arrives(total: u64, free: u64, available: u64, committed: u64, some: u64, full: u64) {
            let text = format!("MemTotal: {total} kB\nMemFree:{free} kB\nMemAvailable:  {available} kB\nCommitted_AS: {committed} kB");
            prop_assert_eq!(Usage::from_meminfo(&text), Some(Usage { total, free, available, committed }));
            let text = format!("some avg10=0.00 total={some}\nfull avg10=0.00 total={full}");
            prop_assert_eq!(Pressure::from_proc(&text), Some(Pressure { some, full }));
        }
    }
}
