//! The table of `xl top`: xentop's columns, and what each domain is asked to have.

use serde::Serialize;

use crate::memoryd::view::DomainView;
use crate::xl::memory::table as dynamic;
use crate::xl::state::State;

/// One domain, over an interval.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    #[serde(rename = "domid")]
    pub(super) id: u16,
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) state: State,
    pub(super) cpu_seconds: f64,
    pub(super) cpu_percent: f64,
    #[serde(rename = "current_memkb")]
    pub(super) memory_kib: u64,
    #[serde(rename = "target_memkb")]
    pub(super) target_kib: u64,
    #[serde(rename = "ceiling_memkb")]
    pub(super) ceiling_kib: u64,
    pub(super) vcpus: u32,
    /// What xenmemd knows of it.
    pub(super) dynamic: Option<DomainView>,
}

/// The host.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Totals {
    #[serde(rename = "total_memkb")]
    pub(super) memory_kib: u64,
    #[serde(rename = "free_memkb")]
    pub(super) free_kib: u64,
    pub(super) cpus: u32,
    pub(super) mhz: u32,
}

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Number,
    Name,
    Cpu,
    Memory,
}

impl Order {
    /// The order that a key chooses.
    pub(super) fn of(key: char) -> Option<Self> {
        match key {
            'i' => Some(Self::Number),
            'n' => Some(Self::Name),
            'c' => Some(Self::Cpu),
            'm' => Some(Self::Memory),
            // No other key means anything.
            _ => None,
        }
    }

    fn sort(self, rows: &mut [Row]) {
        match self {
            Self::Number => rows.sort_by_key(|row| row.id),
            Self::Name => rows.sort_by(|a, b| a.name.cmp(&b.name)),
            Self::Cpu => rows.sort_by(|a, b| b.cpu_percent.total_cmp(&a.cpu_percent)),
            Self::Memory => rows.sort_by_key(|row| std::cmp::Reverse(row.memory_kib)),
        }
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// The whole picture, line by line.
pub(super) fn lines(host: &Totals, mut rows: Vec<Row>, order: Order) -> Vec<String> {
    order.sort(&mut rows);
    // As narrow as the names allow, so that a terminal of 80 columns has room for all.
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(10);
    let has_more = rows.iter().any(|row| row.dynamic.is_some());
    let count = |is: fn(&State) -> bool| rows.iter().filter(|row| is(&row.state)).count();
    let mut lines = vec![
        format!(
            "{} domains: {} running, {} blocked, {} paused, {} crashed, {} dying, {} shutdown",
            rows.len(),
            count(|state| state.running),
            count(|state| state.blocked),
            count(|state| state.paused),
            count(|state| state.crashed),
            count(|state| state.dying),
            count(|state| state.shutdown),
        ),
        format!(
            "Mem: {}k total, {}k used, {}k free    CPUs: {} @ {}MHz",
            host.memory_kib,
            host.memory_kib.saturating_sub(host.free_kib),
            host.free_kib,
            host.cpus,
            host.mhz,
        ),
        format!(
            "{:>width$} {:<6} {:>8} {:>6} {:>9} {:>6} {:>9} {:>9} {:>5}{}",
            "NAME",
            "STATE",
            "CPU(sec)",
            "CPU(%)",
            "MEM(k)",
            "MEM(%)",
            "TARGET(k)",
            "MAXMEM(k)",
            "VCPUS",
            if has_more { dynamic::TOP_HEADING } else { "" },
        ),
    ];
    lines.extend(rows.iter().map(|row| {
        format!(
            "{:>width$} {} {:>8.1} {:>6.1} {:>9} {:>6.1} {:>9} {:>9} {:>5}{}",
            row.name,
            row.state.letters(),
            row.cpu_seconds,
            row.cpu_percent,
            row.memory_kib,
            percent(row.memory_kib, host.memory_kib),
            row.target_kib,
            row.ceiling_kib,
            row.vcpus,
            row.dynamic.as_ref().map_or_else(String::new, dynamic::top_columns),
        )
    }));
    lines
}

#[cfg(test)]
mod tests {
    use pv_abi::domctl::{XEN_DOMINF_BLOCKED, XEN_DOMINF_RUNNING};

    use super::*;

    fn row(id: u16, name: &str, cpu_percent: f64, memory_mib: u64) -> Row {
        Row {
            id,
            name: name.to_owned(),
            state: State::new(if id == 0 { XEN_DOMINF_RUNNING } else { XEN_DOMINF_BLOCKED }),
            cpu_seconds: 17.749,
            cpu_percent,
            memory_kib: memory_mib << 10,
            target_kib: memory_mib << 10,
            ceiling_kib: memory_mib << 11,
            vcpus: 2,
            dynamic: None,
        }
    }

    fn names(order: Order) -> Vec<String> {
        let rows = vec![row(2, "a", 5.0, 128), row(0, "Domain-0", 50.0, 1024), row(1, "b", 0.0, 256)];
        let host = Totals { memory_kib: 3 << 20, free_kib: 1 << 20, cpus: 2, mhz: 62 };
        let lines = lines(&host, rows, order);
        lines[3..].iter().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_picture() {
        let host = Totals { memory_kib: 3 << 20, free_kib: 1 << 20, cpus: 2, mhz: 62 };
        let lines =
            lines(&host, vec![row(0, "Domain-0", 50.04, 1024), row(1, "g1", 0.0, 256)], Order::Number);
        assert_eq!(
            lines.join("\n"),
            "\
2 domains: 1 running, 1 blocked, 0 paused, 0 crashed, 0 dying, 0 shutdown
Mem: 3145728k total, 2097152k used, 1048576k free    CPUs: 2 @ 62MHz
      NAME STATE  CPU(sec) CPU(%)    MEM(k) MEM(%) TARGET(k) MAXMEM(k) VCPUS
  Domain-0 r-----     17.7   50.0   1048576   33.3   1048576   2097152     2
        g1 -b----     17.7    0.0    262144    8.3    262144    524288     2"
        );
    }

    #[test]
    fn keys_sort() {
        assert_eq!(names(Order::Number), ["Domain-0", "b", "a"]);
        assert_eq!(names(Order::of('n').unwrap()), ["Domain-0", "a", "b"]);
        assert_eq!(names(Order::of('c').unwrap()), ["Domain-0", "a", "b"]);
        assert_eq!(names(Order::of('m').unwrap()), ["Domain-0", "b", "a"]);
        assert_eq!(Order::of('x'), None);
    }
}
