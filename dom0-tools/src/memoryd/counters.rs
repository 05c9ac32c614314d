//! The counters as people and Prometheus read them: Hyper-V's two groups under their names, then ours.
//!
//! Each counter is in one table here, with its name for people, its name for Prometheus, and where its value is. The crate
//! `prometheus-client` would keep counters that live; these are computed from a [`Status`] when somebody asks, and the text
//! format is a line each.

use std::fmt::Write;

use super::view::{DomainView, HostView, Status};

/// How a value behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up.
    Counter,
}

/// How a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// KiB: people see MiB, Prometheus bytes.
    Memory,
    /// As it is.
    Plain,
    /// Milliseconds: Prometheus sees seconds.
    Millis,
    /// Microseconds: Prometheus sees seconds.
    Micros,
}

use Kind::{Counter, Gauge};
use Unit::{Memory, Micros, Millis, Plain};

/// A counter: its group, its name for people, its name for Prometheus, its kind and unit, and its value.
type Row<T> = (&'static str, &'static str, &'static str, Kind, Unit, fn(&T) -> Option<u64>);

const BALANCER: &str = "Dynamic Memory Balancer";
const VM: &str = "Dynamic Memory VM";
const NACELLE: &str = "Nacelle";
/// The only one whose value is a word, and so a label.
const REPORTER: &str = "nacelle_memory_domain_reporter_info";

#[rustfmt::skip]
const HOST: &[Row<HostView>] = &[
    (BALANCER, "Available Memory", "available_bytes", Gauge, Memory, |host| Some(host.available_kib)),
    (BALANCER, "Available Memory For Balancing", "available_for_balancing_bytes", Gauge, Memory, |host| Some(host.available_for_balancing_kib)),
    (BALANCER, "Average Pressure", "average_pressure_percent", Gauge, Plain, |host| Some(host.average_pressure)),
    (BALANCER, "System Current Pressure", "system_pressure_percent", Gauge, Plain, |host| Some(host.system_pressure)),
    (BALANCER, "Added Memory", "added_bytes_total", Counter, Memory, |host| Some(host.moved.added_kib)),
    (BALANCER, "Removed Memory", "removed_bytes_total", Counter, Memory, |host| Some(host.moved.removed_kib)),
    (BALANCER, "Memory Add Operations", "add_operations_total", Counter, Plain, |host| Some(host.moved.add_operations)),
    (BALANCER, "Memory Remove Operations", "remove_operations_total", Counter, Plain, |host| Some(host.moved.remove_operations)),
    (NACELLE, "Pages Moved", "pages_moved_total", Counter, Plain, |host| Some(host.moved.pages())),
    (NACELLE, "Total Memory", "total_bytes", Gauge, Memory, |host| Some(host.total_kib)),
    (NACELLE, "Free Memory", "free_bytes", Gauge, Memory, |host| Some(host.free_kib)),
    (NACELLE, "Reserve", "reserve_bytes", Gauge, Memory, |host| Some(host.reserve_kib)),
    (NACELLE, "Claimed Memory", "claimed_bytes", Gauge, Memory, |host| Some(host.claimed_kib)),
    (NACELLE, "Restart Reserve", "restart_reserve_bytes", Gauge, Memory, |host| Some(host.restart_reserve_kib)),
    (NACELLE, "Wanted Memory", "wanted_bytes", Gauge, Memory, |host| Some(host.wanted_kib)),
    (NACELLE, "Waiting Memory", "waiting_bytes", Gauge, Memory, |host| Some(host.waiting_kib)),
    (NACELLE, "Memory Is Short", "is_short", Gauge, Plain, |host| Some(host.is_short.into())),
    (NACELLE, "Budget Violations", "budget_violations_total", Counter, Plain, |host| Some(host.budget_violations)),
    (NACELLE, "Minimum Violations", "minimum_violations_total", Counter, Plain, |host| Some(host.minimum_violations)),
    (NACELLE, "Decisions", "decisions_total", Counter, Plain, |host| Some(host.decisions)),
    (NACELLE, "Decision Time us", "decision_seconds_total", Counter, Micros, |host| Some(host.decisions_us)),
    (NACELLE, "Creations Granted", "creations_granted_total", Counter, Plain, |host| Some(host.grants)),
    (NACELLE, "Creations Refused", "creations_refused_total", Counter, Plain, |host| Some(host.refusals)),
    (NACELLE, "Uptime s", "uptime_seconds", Gauge, Plain, |host| Some(host.uptime_s)),
];

#[rustfmt::skip]
const DOMAIN: &[Row<DomainView>] = &[
    (VM, "Physical Memory", "physical_bytes", Gauge, Memory, |domain| Some(domain.assigned_kib)),
    (VM, "Guest Visible Physical Memory", "guest_visible_bytes", Gauge, Memory, |domain| domain.guest.map(|guest| guest.total_kib)),
    (VM, "Guest Available Memory", "guest_available_bytes", Gauge, Memory, |domain| domain.guest.map(|guest| guest.available_kib)),
    (VM, "Current Pressure", "pressure_percent", Gauge, Plain, |domain| domain.pressure),
    (VM, "Minimum Pressure", "minimum_pressure_percent", Gauge, Plain, |domain| domain.pressure_range.map(|range| range.0)),
    (VM, "Maximum Pressure", "maximum_pressure_percent", Gauge, Plain, |domain| domain.pressure_range.map(|range| range.1)),
    (VM, "Average Pressure", "average_pressure_percent", Gauge, Plain, |domain| domain.average_pressure),
    (VM, "Added Memory", "added_bytes_total", Counter, Memory, |domain| Some(domain.moved.added_kib)),
    (VM, "Removed Memory", "removed_bytes_total", Counter, Memory, |domain| Some(domain.moved.removed_kib)),
    (VM, "Memory Add Operations", "add_operations_total", Counter, Plain, |domain| Some(domain.moved.add_operations)),
    (VM, "Memory Remove Operations", "remove_operations_total", Counter, Plain, |domain| Some(domain.moved.remove_operations)),
    (NACELLE, "Pages Moved", "pages_moved_total", Counter, Plain, |domain| Some(domain.moved.pages())),
    (NACELLE, "Target", "target_bytes", Gauge, Memory, |domain| Some(domain.target_kib)),
    (NACELLE, "Demand", "demand_bytes", Gauge, Memory, |domain| domain.demand_kib),
    (NACELLE, "Minimum", "minimum_bytes", Gauge, Memory, |domain| Some(domain.minimum_kib)),
    (NACELLE, "Maximum", "maximum_bytes", Gauge, Memory, |domain| Some(domain.maximum_kib)),
    (NACELLE, "Balanced", "is_balanced", Gauge, Plain, |domain| Some(domain.is_balanced.into())),
    (NACELLE, "Stalled", "is_stalled", Gauge, Plain, |domain| Some(domain.is_stalled.into())),
    (NACELLE, "Stuck", "is_stuck", Gauge, Plain, |domain| Some(domain.is_stuck.into())),
    (NACELLE, "Complaints", "has_complaint", Gauge, Plain, |domain| Some(domain.complaint.is_some().into())),
    (NACELLE, "Reporter For ms", "reporter_seconds", Gauge, Millis, |domain| Some((domain.source_s * 1000.0) as u64)),
    (NACELLE, "Guest Committed Memory", "guest_committed_bytes", Gauge, Memory, |domain| domain.guest.map(|guest| guest.committed_kib)),
    (NACELLE, "Guest Stall Some us", "guest_stall_some_seconds_total", Counter, Micros, |domain| domain.guest.and_then(|guest| guest.stall_us.0)),
    (NACELLE, "Guest Stall Full us", "guest_stall_full_seconds_total", Counter, Micros, |domain| domain.guest.and_then(|guest| guest.stall_us.1)),
    (NACELLE, "Give Speed per s", "give_bytes_per_second", Gauge, Memory, |domain| domain.speed_kib.0),
    (NACELLE, "Take Speed per s", "take_bytes_per_second", Gauge, Memory, |domain| domain.speed_kib.1),
    (NACELLE, "Reports", "reports_total", Counter, Plain, |domain| Some(domain.counters.reports)),
    (NACELLE, "Stall Reports", "stall_reports_total", Counter, Plain, |domain| Some(domain.counters.stalls)),
    (NACELLE, "Bad Reports", "bad_reports_total", Counter, Plain, |domain| Some(domain.counters.bad_reports)),
    (NACELLE, "Floods", "floods_total", Counter, Plain, |domain| Some(domain.counters.floods)),
    (NACELLE, "Targets Refused", "targets_refused_total", Counter, Plain, |domain| Some(domain.counters.refused)),
    (NACELLE, "Targets Reconciled", "targets_reconciled_total", Counter, Plain, |domain| Some(domain.counters.reconciled)),
    (NACELLE, "Targets Reached", "targets_reached_total", Counter, Plain, |domain| Some(domain.counters.reached)),
    (NACELLE, "Time To Target ms", "time_to_target_seconds_total", Counter, Millis, |domain| Some(domain.counters.reached_ms)),
    (NACELLE, "Slowest Target ms", "slowest_target_seconds", Gauge, Millis, |domain| Some(domain.counters.slowest_ms)),
    (NACELLE, "Blocks Split", "blocks_split_total", Counter, Plain, |domain| domain.mapping.map(|mapping| mapping.splits)),
    (NACELLE, "Blocks Merged", "blocks_merged_total", Counter, Plain, |domain| domain.mapping.map(|mapping| mapping.merges)),
    (NACELLE, "TLB Invalidations", "tlb_invalidations_total", Counter, Plain, |domain| domain.mapping.map(|mapping| mapping.tlb_invalidations)),
    (NACELLE, "Blocks of 2 MiB", "blocks_2m", Gauge, Plain, |domain| domain.mapping.map(|mapping| mapping.blocks_2m)),
    (NACELLE, "Single Pages", "pages_4k", Gauge, Plain, |domain| domain.mapping.map(|mapping| mapping.pages_4k)),
];

/// For people: a heading for each group, a counter a line; memory in MiB.
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    rows(&mut out, "", HOST, &status.host);
    for domain in &status.domains {
        rows(&mut out, &format!(" ({}, domain {})", domain.name, domain.domid), DOMAIN, domain);
        let _ = writeln!(out, "    {:<32} {:>12}", "Reporter", domain.source);
        if let Some(complaint) = &domain.complaint {
            let _ = writeln!(out, "    {:<32} {complaint}", "Complaint");
        }
    }
    for missing in &status.host.missing {
        let _ = writeln!(out, "Not on this hypervisor: {missing}");
    }
    out
}

fn rows<T>(out: &mut String, whose: &str, table: &[Row<T>], from: &T) {
    let mut last = "";
    for (group, name, _, _, unit, value) in table {
        let Some(value) = value(from) else { continue };
        if *group != last {
            let _ = writeln!(out, "{group}{whose}");
            last = group;
        }
        let _ = match unit {
            Memory => writeln!(out, "    {name:<32} {:>12} MiB", value >> 10),
            Plain | Millis | Micros => writeln!(out, "    {name:<32} {value:>12}"),
        };
    }
}

/// Prometheus's text format, version 0.0.4.
pub fn prometheus(status: &Status) -> String {
    let mut out = String::new();
    for (_, name, short, kind, unit, value) in HOST {
        let name_of = format!("nacelle_memory_{short}");
        head(&mut out, &name_of, name, *kind);
        if let Some(value) = value(&status.host) {
            let _ = writeln!(out, "{name_of} {}", number(*unit, value));
        }
    }
    for (_, name, short, kind, unit, value) in DOMAIN {
        let name_of = format!("nacelle_memory_domain_{short}");
        head(&mut out, &name_of, name, *kind);
        for domain in &status.domains {
            if let Some(value) = value(domain) {
                let _ = writeln!(out, "{name_of}{{{}}} {}", labels(domain), number(*unit, value));
            }
        }
    }
    head(&mut out, REPORTER, "Who says what it needs: 1", Gauge);
    for domain in &status.domains {
        let _ = writeln!(out, "{REPORTER}{{{},reporter=\"{}\"}} 1", labels(domain), escaped(&domain.source));
    }
    out
}

/// What tells domains apart.
fn labels(domain: &DomainView) -> String {
    format!("domid=\"{}\",name=\"{}\"", domain.domid, escaped(&domain.name))
}

fn head(out: &mut String, name: &str, help: &str, kind: Kind) {
    let kind = match kind {
        Gauge => "gauge",
        Counter => "counter",
    };
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// In Prometheus's base units: bytes and seconds.
fn number(unit: Unit, value: u64) -> String {
    match unit {
        Memory => (u128::from(value) * 1024).to_string(),
        Plain => value.to_string(),
        Millis => format!("{}.{:03}", value / 1000, value % 1000),
        Micros => format!("{}.{:06}", value / 1_000_000, value % 1_000_000),
    }
}

/// A label's value: quotes, backslashes and line ends are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memoryd::view::{GuestView, Moved};

    fn status() -> Status {
        let guest =
            GuestView { total_kib: 250_000, stall_us: (Some(1_500_000), None), ..GuestView::default() };
        let domain = DomainView {
            domid: 3,
            name: "a\"b".into(),
            assigned_kib: 256 << 10,
            guest: Some(guest),
            source: "nonsense".into(),
            source_s: 2.5,
            complaint: Some("its report makes no sense".into()),
            ..DomainView::default()
        };
        let host = HostView { available_kib: 3 << 20, decisions_us: 1_250, ..HostView::default() };
        Status { host, domains: vec![domain], ..Status::default() }
    }

    #[test]
    fn hyper_vs_groups_are_whole_and_ours_follow() {
        let names = |of: &str, rows: &[(&'static str, &'static str)]| {
            rows.iter().filter(|(group, _)| *group == of).map(|(_, name)| *name).collect::<Vec<_>>()
        };
        let host: Vec<_> = HOST.iter().map(|row| (row.0, row.1)).collect();
        let domain: Vec<_> = DOMAIN.iter().map(|row| (row.0, row.1)).collect();
        let moved = ["Added Memory", "Removed Memory", "Memory Add Operations", "Memory Remove Operations"];
        let balancer = [
            "Available Memory",
            "Available Memory For Balancing",
            "Average Pressure",
            "System Current Pressure",
        ];
        assert_eq!(names(BALANCER, &host), [balancer, moved].concat());
        let vm = [
            "Physical Memory",
            "Guest Visible Physical Memory",
            "Guest Available Memory",
            "Current Pressure",
            "Minimum Pressure",
            "Maximum Pressure",
            "Average Pressure",
        ];
        assert_eq!(names(VM, &domain), [&vm[..], &moved].concat());
        let ours = ["Pages Moved", "Time To Target ms", "Blocks Split", "Blocks Merged", "TLB Invalidations"];
        for name in ours {
            assert!(names(NACELLE, &domain).contains(&name), "{name}");
        }
        let moved = Moved { added_kib: 8192, removed_kib: 4096, ..Moved::default() };
        let status = Status { host: HostView { moved, ..HostView::default() }, ..Status::default() };
        assert!(prometheus(&status).contains("\nnacelle_memory_pages_moved_total 3072\n"));
    }

    #[test]
    fn names_are_told_apart_and_as_prometheus_wants_them() {
        let all: Vec<(&str, Kind)> =
            HOST.iter().map(|row| (row.2, row.3)).chain(DOMAIN.iter().map(|row| (row.2, row.3))).collect();
        for (name, kind) in &all {
            assert_eq!(name.ends_with("_total"), *kind == Counter, "{name}");
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{name}");
        }
        let mut domain: Vec<_> = DOMAIN.iter().map(|row| row.2).collect();
        domain.sort_unstable();
        domain.dedup();
        assert_eq!(domain.len(), DOMAIN.len());
    }

    #[test]
    fn prometheus_reads_it() {
        let text = prometheus(&status());
        assert!(text.contains(
            "# TYPE nacelle_memory_available_bytes gauge\nnacelle_memory_available_bytes 3221225472\n"
        ));
        assert!(text.contains("nacelle_memory_decision_seconds_total 0.001250\n"));
        assert!(
            text.contains("nacelle_memory_domain_physical_bytes{domid=\"3\",name=\"a\\\"b\"} 268435456\n")
        );
        assert!(text.contains(
            "nacelle_memory_domain_guest_stall_some_seconds_total{domid=\"3\",name=\"a\\\"b\"} 1.500000\n"
        ));
        for line in [
            "nacelle_memory_domain_has_complaint{domid=\"3\",name=\"a\\\"b\"} 1\n",
            "nacelle_memory_domain_reporter_seconds{domid=\"3\",name=\"a\\\"b\"} 2.500\n",
            "nacelle_memory_domain_reporter_info{domid=\"3\",name=\"a\\\"b\",reporter=\"nonsense\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
        // What is not known is left out, and has its head all the same.
        assert!(text.contains("# TYPE nacelle_memory_domain_demand_bytes gauge\n# HELP"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn people_find_hyper_vs_names() {
        let text = text(&status());
        assert!(
            text.starts_with(
                "Dynamic Memory Balancer\n    Available Memory                         3072 MiB\n"
            ),
            "{text}"
        );
        assert!(
            text.contains(
                "Dynamic Memory VM (a\"b, domain 3)\n    Physical Memory                           256 MiB\n"
            ),
            "{text}"
        );
        assert!(!text.contains("Demand"));
        assert!(
            text.ends_with(
                "    Reporter                             nonsense\n    Complaint                        its report makes no sense\n"
            ),
            "{text}"
        );
    }
}
