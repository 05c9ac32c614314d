//! `xl uptime`: for how long domains have run.
//!
//! When a guest was started is in XenStore; dom0's time is its kernel's.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use pv_abi::domid::DomId;
use serde_json::json;

use super::command_line::Uptime;
use super::host::{Domain, Host};
use super::print_json;

/// A span as xl writes it; `short` leaves out the seconds.
fn span(seconds: u64, short: bool) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    let days = match days {
        0 => String::new(),
        1 => "1 day, ".to_owned(),
        days => format!("{days} days, "),
    };
    match short {
        true => format!("{days}{hours:2}:{minutes:02}"),
        false => format!("{days}{hours:2}:{minutes:02}:{seconds:02}"),
    }
}

/// Seconds that a domain has run, if that is known.
fn uptime(host: &Host, domain: &Domain, now: u64) -> Result<Option<u64>> {
    if domain.id() == DomId::DOM0 {
        let text = std::fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
        return Ok(text.split(['.', ' ']).next().and_then(|seconds| seconds.parse().ok()));
    }
    let start = host.text(&format!("/vm/{}/start_time", domain.uuid()));
    let start = start.and_then(|text| text.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok()));
    Ok(start.map(|start| now.saturating_sub(start)))
}

/// Prints it for all domains, or for those that are named.
pub(super) fn run(host: &Host, options: &Uptime, out: &mut impl Write) -> Result<()> {
    let domains = host.find_all(&options.domains)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if options.json {
        let entry = |domain: &Domain| {
            let seconds = uptime(host, domain, now)?;
            Ok(json!({ "domid": domain.id().raw(), "name": domain.name, "uptime_seconds": seconds }))
        };
        return print_json(&domains.iter().map(entry).collect::<Result<Vec<_>>>()?, out);
    }
    if !options.short {
        writeln!(out, "{:<32} {:>5} Uptime", "Name", "ID")?;
    }
    for domain in &domains {
        let known = uptime(host, domain, now)?;
        let (name, number) = (domain.shown(), domain.id().raw());
        if options.short {
            let clock = format!("{:02}:{:02}:{:02}", now / 3600 % 24, now / 60 % 60, now % 60);
            let up = known.map_or("-".to_owned(), |seconds| span(seconds, true));
            writeln!(out, " {clock} up {up}, {name} ({number})")?;
        } else {
            let up = known.map_or("-".to_owned(), |seconds| span(seconds, false));
            writeln!(out, "{name:<32} {number:5} {up}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_xls() {
        assert_eq!(span(15, false), " 0:00:15");
        assert_eq!(span(15, true), " 0:00");
        assert_eq!(span(86_400 + 3661, false), "1 day,  1:01:01");
        assert_eq!(span(12 * 86_400 + 11 * 3600, true), "12 days, 11:00");
    }
}
