//! `xl top`: all domains, live.
//!
//! On a terminal the table is drawn anew in place, until q; elsewhere one table follows the other.

mod screen;
mod table;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use super::command_line::Top;
use super::host::{Domain, Host};
use super::memory::Amounts;
use super::print_json;
use super::state::State;
use crate::memoryd::protocol;
use crate::memoryd::view::Status;
use screen::{Key, Screen};
use table::{Order, Row, Totals};

const PAGE_KIB: u64 = 4;

/// All domains at one moment.
struct Sample {
    at: Instant,
    domains: Vec<Domain>,
    /// What xenmemd says, if it runs.
    dynamic: Option<Status>,
}

impl Sample {
    fn take(host: &Host) -> Result<Self> {
        Ok(Self { at: Instant::now(), domains: host.domains()?, dynamic: protocol::status() })
    }
}

/// What has happened between two moments.
fn rows(host: &Host, before: &Sample, now: &Sample) -> Result<Vec<Row>> {
    let elapsed = now.at.duration_since(before.at).as_nanos().max(1) as f64;
    now.domains
        .iter()
        .map(|domain| {
            let same = |old: &&Domain| old.id() == domain.id() && old.info.handle == domain.info.handle;
            let old = before.domains.iter().find(same).map_or(domain.info.cpu_time, |old| old.info.cpu_time);
            let memory = Amounts::of(host, &domain.info)?;
            Ok(Row {
                id: domain.id().raw(),
                name: domain.shown().to_owned(),
                state: State::new(domain.info.flags),
                cpu_seconds: domain.info.cpu_time as f64 / 1e9,
                cpu_percent: domain.info.cpu_time.saturating_sub(old) as f64 * 100.0 / elapsed,
                memory_kib: domain.info.tot_pages.saturating_mul(PAGE_KIB),
                target_kib: memory.target_kib,
                ceiling_kib: memory.ceiling_kib,
                vcpus: domain.info.nr_online_vcpus,
                dynamic: now.dynamic.as_ref().and_then(|status| status.domain(domain.id())).cloned(),
            })
        })
        .collect()
}

fn totals(host: &Host) -> Result<Totals> {
    let physical = host.xen.physinfo()?;
    Ok(Totals {
        memory_kib: physical.total_pages.saturating_mul(PAGE_KIB),
        free_kib: physical.free_pages.saturating_mul(PAGE_KIB),
        cpus: physical.nr_cpus,
        mhz: physical.cpu_khz / 1000,
    })
}

/// Shows them until it is told to end.
pub(super) fn run(host: &Host, options: &Top, out: &mut impl Write) -> Result<()> {
    if !(0.1..=3600.0).contains(&options.delay) {
        bail!("the delay is from 0.1 to 3600 seconds, not {}", options.delay);
    }
    let delay = Duration::from_secs_f64(options.delay);
    let is_live = !options.batch && !options.json && std::io::stdout().is_terminal();
    match is_live {
        true => live(host, delay, options.iterations),
        false => batch(host, delay, options, out),
    }
}

fn batch(host: &Host, delay: Duration, options: &Top, out: &mut impl Write) -> Result<()> {
    let mut before = Sample::take(host)?;
    let mut left = options.iterations.unwrap_or(if options.batch { u64::MAX } else { 1 });
    while left > 0 {
        std::thread::sleep(delay);
        let now = Sample::take(host)?;
        let rows = rows(host, &before, &now)?;
        match options.json {
            true => print_json(&json!({ "host": totals(host)?, "domains": rows }), out)?,
            false => {
                for line in table::lines(&totals(host)?, rows, Order::Number) {
                    writeln!(out, "{line}")?;
                }
            }
        }
        out.flush()?;
        (before, left) = (now, left - 1);
    }
    Ok(())
}

fn live(host: &Host, delay: Duration, iterations: Option<u64>) -> Result<()> {
    let screen = Screen::open()?;
    let mut order = Order::Number;
    let mut before = Sample::take(host)?;
    // Something to look at soon; numbers over the whole interval from then on.
    let mut wait = delay.min(Duration::from_millis(500));
    let mut left = iterations.unwrap_or(u64::MAX);
    let mut shown: Option<Vec<Row>> = None;
    while left > 0 {
        match screen.wait(wait)? {
            Some(Key::Quit) => return Ok(()),
            Some(Key::Letter(letter)) => {
                order = Order::of(letter).unwrap_or(order);
                // Only sorted anew; the next sample comes when it would have come.
                if let Some(rows) = shown.clone() {
                    screen.draw(&table::lines(&totals(host)?, rows, order))?;
                }
                let end = before.at + delay;
                wait = end.saturating_duration_since(Instant::now());
                continue;
            }
            None => {}
        }
        let now = Sample::take(host)?;
        let rows = rows(host, &before, &now)?;
        screen.draw(&table::lines(&totals(host)?, rows.clone(), order))?;
        (before, shown, wait, left) = (now, Some(rows), delay, left - 1);
    }
    Ok(())
}
