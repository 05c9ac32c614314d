//! The columns of dynamic memory: `xl memory` and `xl list --memory`.

use crate::memoryd::view::{DomainView, HostView};

/// What stands where nothing is known.
const NOTHING: &str = "-";

/// MiB, or nothing.
fn mib(kib: Option<u64>) -> String {
    kib.map_or_else(|| NOTHING.to_owned(), |kib| (kib >> 10).to_string())
}

/// A span of time, as short as it can be said.
fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Who says what a domain needs, and for how long that has been so.
fn source(domain: &DomainView) -> (String, String) {
    match (domain.source.as_str(), &domain.complaint) {
        // A flood is listened to now and then, but marked.
        ("agent", Some(_)) => ("agent!".to_owned(), span(domain.source_s)),
        ("none", _) => (NOTHING.to_owned(), NOTHING.to_owned()),
        (source, _) => (source.to_owned(), span(domain.source_s)),
    }
}

/// What is going on with it, in a word.
fn doing(domain: &DomainView) -> String {
    let limit = domain.limit.as_ref().map_or(String::new(), |limit| format!(" ({limit})"));
    let stuck = if domain.is_stuck { " stuck" } else { "" };
    format!("{}{limit}{stuck}", domain.rule)
}

/// The heading over [`columns`].
pub(in crate::xl) const HEADING: &str = "  Target  Ceiling  Minimum   Demand Pressure Reporter Since";

/// What comes after the columns of `xl list`.
pub(in crate::xl) fn columns(target_kib: u64, ceiling_kib: u64, domain: Option<&DomainView>) -> String {
    let (target, ceiling) = (target_kib >> 10, ceiling_kib >> 10);
    let minimum = mib(domain.map(|domain| domain.minimum_kib));
    let demand = mib(domain.and_then(|domain| domain.demand_kib));
    let pressure = domain.and_then(|domain| domain.pressure);
    let pressure = pressure.map_or_else(|| NOTHING.to_owned(), |pressure| format!("{pressure}%"));
    let nobody = || (NOTHING.to_owned(), NOTHING.to_owned());
    let (source, since) = domain.map_or_else(nobody, source);
    format!(" {target:7} {ceiling:8} {minimum:>8} {demand:>8} {pressure:>8} {source:<8} {since:>5}")
}

/// The heading over [`top_columns`].
pub(in crate::xl) const TOP_HEADING: &str = "   MIN(k) DEMAND(k) PRESS(%) REPORTER SINCE";

/// What comes after the columns of `xl top`, which has target and maximum already.
pub(in crate::xl) fn top_columns(domain: &DomainView) -> String {
    let known = |value: Option<u64>| value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string());
    let (source, since) = source(domain);
    let (demand, pressure) = (known(domain.demand_kib), known(domain.pressure));
    format!(" {:>8} {demand:>9} {pressure:>8} {source:<8} {since:>5}", domain.minimum_kib)
}

/// The table of `xl memory`.
pub(super) fn lines(host: &HostView, domains: &[DomainView]) -> Vec<String> {
    let mut lines = vec![
        format!(
            "Host: {} MiB, {} available, {} of them for balancing; pressure {} % on the average, {} % of all{}",
            host.total_kib >> 10,
            host.available_kib >> 10,
            host.available_for_balancing_kib >> 10,
            host.average_pressure,
            host.system_pressure,
            if host.is_short { "; memory is short" } else { "" },
        ),
        format!(
            "{:<20} {:>3} {:>6} {:>7} {:>7} {:>8} {:>7} {:>7} {:>6} {:>6} {:<8} {:>5} Rule",
            "Name",
            "ID",
            "Mem",
            "Target",
            "Demand",
            "Pressure",
            "Minimum",
            "Maximum",
            "Buffer",
            "Weight",
            "Reporter",
            "Since"
        ),
    ];
    lines.extend(domains.iter().map(|domain| {
        let pressure = domain.pressure.map_or_else(|| NOTHING.to_owned(), |pressure| format!("{pressure}%"));
        let (source, since) = source(domain);
        format!(
            "{:<20} {:>3} {:>6} {:>7} {:>7} {pressure:>8} {:>7} {:>7} {:>5}% {:>6} {source:<8} {since:>5} {}",
            domain.name,
            domain.domid,
            domain.assigned_kib >> 10,
            domain.target_kib >> 10,
            mib(domain.demand_kib),
            domain.minimum_kib >> 10,
            domain.maximum_kib >> 10,
            domain.buffer,
            domain.weight,
            doing(domain),
        )
    }));
    lines.extend(domains.iter().filter_map(|domain| {
        let complaint = domain.complaint.as_ref()?;
        Some(format!("{}: {complaint}", domain.name))
    }));
    lines.extend(host.missing.iter().map(|missing| format!("Not on this hypervisor: {missing}")));
    lines
}

/// One domain, a line each.
pub(super) fn details(domain: &DomainView) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<10} : {value}"));
    let amount = |kib: u64| format!("{} MiB", kib >> 10);
    line("name", domain.name.clone());
    line("policy", u8::from(domain.is_balanced).to_string());
    line("startup", amount(domain.startup_kib));
    line("minimum", amount(domain.minimum_kib));
    line("maximum", amount(domain.maximum_kib));
    line("buffer", format!("{} %", domain.buffer));
    line("weight", domain.weight.to_string());
    line("assigned", amount(domain.assigned_kib));
    line("target", amount(domain.target_kib));
    line("demand", domain.demand_kib.map_or_else(|| NOTHING.to_owned(), amount));
    line("pressure", domain.pressure.map_or_else(|| NOTHING.to_owned(), |pressure| format!("{pressure} %")));
    let (reporter, since) = source(domain);
    line("reporter", format!("{reporter}, for {since}"));
    if let Some(complaint) = &domain.complaint {
        line("complaint", complaint.clone());
    }
    line("rule", doing(domain));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> DomainView {
        DomainView {
            domid: 3,
            name: "web".into(),
            is_balanced: true,
            assigned_kib: 300 << 10,
            target_kib: 320 << 10,
            startup_kib: 256 << 10,
            minimum_kib: 128 << 10,
            maximum_kib: 1 << 20,
            buffer: 20,
            weight: 5000,
            demand_kib: Some(280 << 10),
            pressure: Some(112),
            source: "agent".into(),
            source_s: 125.0,
            rule: "grow".into(),
            limit: Some("free".into()),
            ..DomainView::default()
        }
    }

    #[test]
    fn the_table() {
        let host = HostView {
            total_kib: 3 << 20,
            available_kib: 500 << 10,
            available_for_balancing_kib: 452 << 10,
            average_pressure: 90,
            system_pressure: 70,
            is_short: true,
            ..HostView::default()
        };
        let dom0 = DomainView {
            name: "Domain-0".into(),
            buffer: 20,
            weight: 5000,
            source: "none".into(),
            rule: "off".into(),
            ..DomainView::default()
        };
        let liar = DomainView {
            complaint: Some("its report makes no sense".into()),
            source: "nonsense".into(),
            ..domain()
        };
        let lines = lines(&host, &[dom0, domain(), liar]);
        assert_eq!(
            lines.join("\n"),
            "\
Host: 3072 MiB, 500 available, 452 of them for balancing; pressure 90 % on the average, 70 % of all; memory is short
Name                  ID    Mem  Target  Demand Pressure Minimum Maximum Buffer Weight Reporter Since Rule
Domain-0               0      0       0       -        -       0       0    20%   5000 -            - off
web                    3    300     320     280     112%     128    1024    20%   5000 agent       2m grow (free)
web                    3    300     320     280     112%     128    1024    20%   5000 nonsense    2m grow (free)
web: its report makes no sense"
        );
    }

    #[test]
    fn what_comes_after_the_columns_of_list() {
        assert_eq!(HEADING.len(), columns(1 << 20, 2 << 20, Some(&domain())).len());
        assert_eq!(
            columns(320 << 10, 1 << 20, Some(&domain())),
            "     320     1024      128      280     112% agent       2m"
        );
        assert_eq!(
            columns(320 << 10, 1 << 20, None),
            "     320     1024        -        -        - -            -"
        );
    }

    #[test]
    fn what_comes_after_the_columns_of_top() {
        assert_eq!(TOP_HEADING.len(), top_columns(&domain()).len());
        assert_eq!(top_columns(&domain()), "   131072    286720      112 agent       2m");
    }

    #[test]
    fn times_are_short() {
        let all = [0.4, 119.0, 120.0, 7200.0, 900_000.0].map(span);
        assert_eq!(all, ["0s", "119s", "2m", "2h", "10d"]);
    }
}
