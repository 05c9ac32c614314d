//! `xl uptime`: for how long domains have run.
//!
//! When a guest was started is in XenStore; without it only dom0's time is known, which is its kernel's.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use pv_abi::domid::DomId;
use serde_json::json;

use super::command_line::Uptime;
use super::{names, print_json};
use crate::privcmd::Privcmd;

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
fn uptime(id: DomId) -> Result<Option<u64>> {
    if id != DomId::DOM0 {
        return Ok(None);
    }
    let text = std::fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    Ok(text.split(['.', ' ']).next().and_then(|seconds| seconds.parse().ok()))
}

/// Prints it for all domains, or for those that are named.
pub(super) fn run(xen: &Privcmd, options: &Uptime, out: &mut impl Write) -> Result<()> {
    let domains = match options.domains.as_slice() {
        [] => xen.domains(DomId::DOM0)?.iter().map(|info| info.domain).collect(),
        given => given.iter().map(|given| names::find(xen, given)).collect::<Result<Vec<_>>>()?,
    };
    if options.json {
        let entry = |id: &DomId| {
            Ok(json!({ "domid": id.raw(), "name": names::name(*id), "uptime_seconds": uptime(*id)? }))
        };
        return print_json(&domains.iter().map(entry).collect::<Result<Vec<_>>>()?, out);
    }
    if !options.short {
        writeln!(out, "{:<32} {:>5} Uptime", "Name", "ID")?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for id in domains {
        let known = uptime(id)?;
        let (name, number) = (names::shown(id), id.raw());
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
