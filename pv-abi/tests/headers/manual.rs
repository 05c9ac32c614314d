//! Compares the ABI manual, `docs/abi.md`, with the crate: each operation stands in the section of its hypercall, with
//! its number, either as a row of the table or as `` `name` (number) ``; and no row is about anything else.

use std::collections::BTreeSet;

use crate::numbers;

/// Each section of the manual, and what the headers' names of its operations begin with.
const SECTIONS: &[(&str, &str)] = &[
    ("Hypercalls", "__HYPERVISOR_"),
    ("`xen_version`", "XENVER_"),
    ("`console_io`", "CONSOLEIO_"),
    ("`sched_op`", "SCHEDOP_"),
    ("`event_channel_op`", "EVTCHNOP_"),
    ("`hvm_op`", "HVMOP_"),
    ("`memory_op`", "XENMEM_"),
    ("Spaces of `add_to_physmap`", "XENMAPSPACE_"),
    ("`vcpu_op`", "VCPUOP_"),
    ("`vm_assist`", "VMASST_TYPE_"),
    ("`grant_table_op`", "GNTTABOP_"),
    ("`physdev_op`", "PHYSDEVOP_"),
    ("`platform_op`", "XENPF_"),
    ("`sysctl`", "XEN_SYSCTL_"),
    ("`domctl`", "XEN_DOMCTL_"),
];

/// The text under a heading of the second level.
fn section<'a>(manual: &'a str, title: &str) -> &'a str {
    let heading = format!("\n## {title}\n");
    let start = manual.find(&heading).unwrap_or_else(|| panic!("no section {title}")) + heading.len();
    let rest = &manual[start..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// The first two cells of a table's row: a number, and a name in code style, with or without a link.
fn row(line: &str) -> Option<(i128, &str)> {
    let mut cells = line.strip_prefix("| ")?.split(" | ");
    let number = cells.next()?.parse().ok()?;
    let name = cells.next()?.trim_start_matches('[').strip_prefix('`')?;
    Some((number, &name[..name.find('`')?]))
}

/// Every `` `name` (number) `` of a text.
fn mentions(text: &str) -> impl Iterator<Item = (i128, &str)> {
    text.split("` (").zip(text.split("` (").skip(1)).filter_map(|(before, after)| {
        let number = after[..after.find(')')?].parse().ok()?;
        Some((number, &before[before.rfind('`')? + 1..]))
    })
}

fn manual() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/abi.md");
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What Xen's headers do not have, the manual shows field by field.
#[test]
fn the_manual_shows_what_only_nacelle_has() {
    use pv_abi::nacelle::{
        MemoryCounters, WORKING_SET_MOST, WorkingSet, XENMEM_NACELLE_COUNTERS, XENMEM_NACELLE_WORKING_SET,
    };
    macro_rules! fields {
        ($structure:ident: $($field:ident),*) => {{
            // A field that the list forgets makes this pattern incomplete.
            let $structure { $($field: _,)* _pad: _ } = $structure::default();
            [$((std::mem::offset_of!($structure, $field) as i128, stringify!($field))),*]
        }};
    }
    let counters = fields!(
        MemoryCounters: domid,
        pages_4k,
        blocks_2m,
        blocks_1g,
        on_demand,
        reserved,
        claimed,
        faults,
        splits,
        merges,
        invalidations,
        tables
    );
    let working_set = fields!(WorkingSet: domid, watch, sampled, touched, period, mapped, faults);
    let manual = manual();
    let text = section(&manual, "What only Nacelle has");
    let rows: Vec<_> = text.lines().filter_map(row).collect();
    assert_eq!(rows, [&counters[..], &working_set[..]].concat());
    assert!(text.contains(&format!("`memory_op` {XENMEM_NACELLE_COUNTERS}, `XENMEM_NACELLE_COUNTERS`")));
    assert!(
        text.contains(&format!("`memory_op` {XENMEM_NACELLE_WORKING_SET}, `XENMEM_NACELLE_WORKING_SET`"))
    );
    assert!(text.contains(&format!("`watch` above {WORKING_SET_MOST}")));
}

#[test]
fn the_manual_names_every_operation() {
    let manual = manual();
    let checks = numbers::all();
    let mut differences = Vec::new();
    for &(title, prefix) in SECTIONS {
        let text = section(&manual, title);
        // In running text a line may end between a name and its number.
        let running = text.replace('\n', " ");
        let documented: BTreeSet<(i128, &str)> =
            text.lines().filter_map(row).chain(mentions(&running)).collect();
        let defined: BTreeSet<(i128, &str)> = checks
            .iter()
            .filter(|check| check.c == "PHYSDEVOP_IRQ_UNMASK_NOTIFY" || numbers::must_be_known(&check.c))
            .filter_map(|check| Some((check.ours, check.c.strip_prefix(prefix)?)))
            .collect();
        assert!(!defined.is_empty(), "{prefix}");
        differences
            .extend(defined.difference(&documented).map(|missing| format!("{title} lacks {missing:?}")));
        differences.extend(documented.difference(&defined).map(|extra| format!("{title} has {extra:?}")));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
