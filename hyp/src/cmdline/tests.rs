//! The command line: Xen's own examples, each kind of mistake, and random input.

use proptest::prelude::*;
use std::format;
use std::string::{String, ToString};

use super::*;

const M: u64 = 1 << 20;

#[test]
fn speculation_is_controlled_unless_somebody_says_no() {
    for (line, on) in [("", true), ("spec-ctrl=no", false), ("no-spec-ctrl", false), ("spec-ctrl", true)] {
        assert_eq!(parse(line).spec_ctrl, on, "{line}");
    }
    let options = parse("spec-ctrl=ssbd=runtime");
    assert!(options.spec_ctrl && !options.has_errors());
    assert_eq!(options.problems.as_slice(), &[Problem::Unknown("spec-ctrl=ssbd=runtime")]);
    assert!(parse("spec-ctrl=perhaps").has_errors());
}

#[test]
fn reads_what_the_reference_passes() {
    let options = parse("dom0_mem=1024M console=dtuart dtuart=/pl011@9000000 guest_loglvl=all noreboot");
    assert_eq!(options.dom0_mem.choose(512 * M), 1024 * M);
    assert_eq!(options.console, Console::DtUart);
    assert_eq!(options.dtuart, Some("/pl011@9000000"));
    assert_eq!(options.guest_loglvl.always, LevelFilter::Trace);
    assert!(options.noreboot && !options.sync_console);
    assert!(options.problems.is_empty());
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("512M", Some(512 * M)),
        ("512m", Some(512 * M)),
        ("2G", Some(2048 * M)),
        ("1T", Some(M * M)),
        ("4096", Some(4 * M)),
        ("4096b", Some(4096)),
        ("0x10M", Some(16 * M)),
        ("0xb", Some(11 << 10)),
        ("", None),
        ("M", None),
        ("-1M", None),
        ("+1M", None),
        ("1MM", None),
        ("1.5G", None),
        ("18446744073709551615T", None),
        ("99999999999999999999", None),
        ("12é", None),
    ] {
        assert_eq!(size(text), bytes, "{text}");
    }
}

#[test]
fn dom0_memory_forms() {
    let choose = |text, default| dom0_memory(text).map(|memory| memory.choose(default));
    assert_eq!(choose("min:256M,max:512M", 1024 * M), Some(512 * M));
    assert_eq!(choose("min:256M,max:512M", 128 * M), Some(256 * M));
    assert_eq!(choose("1G,max:512M", M), Some(512 * M));
    assert_eq!(choose("512M", M), Some(512 * M));
    for bad in ["", "0", "0M", "abc", "min:", "mid:1G", "1G,", "1G,,2G", "512Q"] {
        assert_eq!(choose(bad, M), None, "{bad}");
    }
}

#[test]
fn vcpu_counts() {
    let choose = |text, cpus| vcpus(text).map(|count| count.choose(cpus));
    assert_eq!(choose("2", 8), Some(2));
    assert_eq!(choose("2", 1), Some(2));
    assert_eq!(choose("2-4", 8), Some(4));
    assert_eq!(choose("2-4", 1), Some(2));
    assert_eq!(choose("2-", 8), Some(8));
    assert_eq!(choose("-4", 8), Some(4));
    assert_eq!(VcpuCount::default().choose(8), 8);
    for bad in ["", "0", "-", "4-2", "two", "0-4", "1-2-3", "4294967296"] {
        assert_eq!(choose(bad, 8), None, "{bad}");
    }
}

#[test]
fn flags() {
    for (line, on) in [
        ("noreboot", true),
        ("noreboot=yes", true),
        ("noreboot=0", false),
        ("noreboot no-noreboot", false),
        ("no-noreboot noreboot", true),
        ("no-noreboot=no", true),
        ("-- noreboot", false),
    ] {
        let options = parse(line);
        assert_eq!(options.noreboot, on, "{line}");
        assert!(options.problems.is_empty(), "{line}");
    }
}

#[test]
fn levels_have_a_limited_part() {
    let options = parse("loglvl=error/debug guest_loglvl=warning/none");
    assert_eq!(options.loglvl, LogLevels { always: LevelFilter::Error, limited: LevelFilter::Debug });
    assert_eq!(options.guest_loglvl, LogLevels { always: LevelFilter::Warn, limited: LevelFilter::Warn });
}

#[test]
fn mistakes_are_named() {
    let messages: std::vec::Vec<String> =
        parse("dom0_mem=lots console=vga loglvl=loud noreboot=perhaps dtuart= watchdog=1 conring_size=16Q")
            .problems
            .iter()
            .map(ToString::to_string)
            .collect();
    assert_eq!(messages.len(), 7);
    for (message, parts) in messages.iter().zip([
        ["dom0_mem=lots", "max:<size>"],
        ["console=vga", "dtuart, none"],
        ["loglvl=loud", "warning"],
        ["noreboot=perhaps", "yes"],
        ["dtuart=", "alias"],
        ["watchdog=1", "ignored"],
        ["conring_size=16Q", "suffix"],
    ]) {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    assert!(!parse("watchdog=1").has_errors());
    assert!(parse("console=vga").has_errors());
}

#[test]
fn an_error_outlives_many_warnings() {
    let line = format!("{} dom0_mem=x", "unknown ".repeat(40));
    let options = parse(&line);
    assert!(options.has_errors());
    assert_eq!(options.problems.len() + options.problems_dropped, 41);
}

proptest! {
    #[test]
    fn anything_is_read(line in "\\PC{0,200}") {
        let options = parse(&line);
        for problem in &options.problems {
            prop_assert!(!problem.to_string().is_empty());
        }
    }

    #[test]
    fn anything_after_an_option_is_read(
        option in prop::sample::select(std::vec!["dom0_mem", "dom0_max_vcpus", "console", "loglvl", "guest_loglvl",
            "conring_size", "dtuart", "noreboot", "sync_console"]),
        value in "[-0-9a-zA-Z:,/+.]{0,24}",
    ) {
        let line = format!("{option}={value}");
        let options = parse(&line);
        prop_assert!(options.problems.len() <= 1);
        prop_assert_eq!(options.problems.len() == 1, options.has_errors());
    }

    #[test]
    fn sizes_round_trip(number in 1u64..1 << 24, suffix in 0u32..4) {
        let text = format!("{number}{}", ["K", "M", "G", "T"][suffix as usize]);
        prop_assert_eq!(size(&text), number.checked_mul(1 << (10 * (suffix + 1))));
    }
}
