//! `xl memory`: what the daemon `xenmemd` knows and does, and the settings of a running domain.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use memory_policy::Kib;
use pv_abi::domid::DomId;
use pv_abi::features::XENFEAT_NOT_DIRECT_MAPPED;

use super::super::command_line::{Memory, MemoryCommand, MemoryWhat};
use super::super::host::{Domain, Host};
use super::super::print_json;
use super::{ROOM_KIB, table};
use crate::config::suggestion;
use crate::domain::minimums::HostMemory;
use crate::domain::store::memory_settings;
use crate::memoryd::protocol::{self, Answer, Connection, Request, socket_path};
use crate::memoryd::record::{self, Recorder};
use crate::memoryd::settings::{Balance, Key, Settings};
use crate::memoryd::view::{DomainView, Status};
use crate::memoryd::{counters, plot as picture};
use crate::xenstore::{Nodes, Transaction};

/// What helps where the daemon does not answer.
const START: &str = "start it with: xencommons start";

/// Runs the command.
pub(in crate::xl) fn run(host: &Host, options: &MemoryCommand, out: &mut impl Write) -> Result<()> {
    match &options.what {
        None => match &options.domain {
            None => list(options.json, out),
            Some(domain) if options.settings.is_empty() => show(host, domain, options.json, out),
            Some(domain) => set(host, domain, &options.settings),
        },
        Some(MemoryWhat::List { json }) => list(*json, out),
        Some(MemoryWhat::Explain { json, domain }) => explain(host, domain, *json, out),
        Some(MemoryWhat::Stats { json, prometheus }) => stats(*json, *prometheus, out),
        Some(MemoryWhat::Record { seconds, file }) => {
            record(file, seconds.map_or(Duration::MAX, Duration::from_secs))
        }
        Some(MemoryWhat::Plot { output, file }) => plot(file, output.as_deref(), out),
    }
}

fn connect() -> Result<Connection> {
    let path = socket_path();
    Connection::open_at(&path)
        .with_context(|| format!("xenmemd does not answer at {}; {START}", path.display()))
}

fn ask(request: &Request) -> Result<Answer> {
    let answer = connect()?.ask(request, Duration::ZERO);
    match answer.with_context(|| format!("xenmemd does not answer: has it stopped? {START}"))? {
        Answer::Refused(why) => bail!("xenmemd refuses: {why}"),
        answer => Ok(answer),
    }
}

fn unexpected() -> anyhow::Error {
    anyhow!("xenmemd answers what was not asked: is it of another version?")
}

fn status() -> Result<Status> {
    match ask(&Request::Status)? {
        Answer::Status(status) => Ok(*status),
        _ => Err(unexpected()),
    }
}

fn list(json: bool, out: &mut impl Write) -> Result<()> {
    let status = status()?;
    if json {
        return print_json(&status, out);
    }
    print(&table::lines(&status.host, &status.domains), out)
}

fn print(lines: &[String], out: &mut impl Write) -> Result<()> {
    for line in lines {
        // A name is what a guest's owner chose; a terminal is not to obey it.
        let shown: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        writeln!(out, "{shown}")?;
    }
    Ok(())
}

fn show(host: &Host, given: &str, json: bool, out: &mut impl Write) -> Result<()> {
    let id = host.find(given)?.id();
    let found = status()?.domains.into_iter().find(|domain| domain.domid == id.raw());
    let found: DomainView =
        found.with_context(|| format!("xenmemd does not know the domain '{given}' yet"))?;
    match json {
        true => print_json(&found, out),
        false => print(&table::details(&found), out),
    }
}

fn explain(host: &Host, given: &str, json: bool, out: &mut impl Write) -> Result<()> {
    let domain = host.find(given)?.id().raw();
    let Answer::Decisions(told) = ask(&Request::Explain { domain })? else { return Err(unexpected()) };
    if json {
        return print_json(&told, out);
    }
    if told.is_empty() {
        writeln!(out, "nothing was decided yet")?;
    }
    for decision in told {
        let mark = if decision.is_change { '*' } else { ' ' };
        writeln!(out, "{mark} {:>9.1} s ago  {}", decision.ago_ms as f64 / 1000.0, decision.text)?;
    }
    Ok(())
}

fn stats(json: bool, prometheus: bool, out: &mut impl Write) -> Result<()> {
    let status = status()?;
    if json {
        return print_json(&status, out);
    }
    let text = if prometheus { counters::prometheus(&status) } else { counters::text(&status) };
    Ok(write!(out, "{text}")?)
}

fn record(file: &Path, time: Duration) -> Result<()> {
    let mut connection = connect()?;
    let mut recorder = Recorder::create(file)?;
    let start = Instant::now();
    let mut answer = Some(connection.ask(&Request::Follow, Duration::ZERO)?);
    connection.be_patient()?;
    while let Some(Answer::Status(status)) = answer {
        recorder.write(&status)?;
        if start.elapsed() >= time {
            return Ok(());
        }
        answer = connection.hear()?;
    }
    bail!("xenmemd has ended")
}

/// Draws a recording.
pub(in crate::xl) fn plot(file: &Path, output: Option<&Path>, out: &mut impl Write) -> Result<()> {
    let picture = picture::svg(&record::read(file)?)?;
    match output {
        Some(path) => std::fs::write(path, picture).with_context(|| path.display().to_string()),
        None => Ok(write!(out, "{picture}")?),
    }
}

/// Reads `KEY=VALUE`; amounts in KiB.
fn setting(text: &str) -> Result<(Key, u64)> {
    let (name, value) = text.split_once('=').with_context(|| format!("'{text}' is no KEY=VALUE"))?;
    let Some(key) = Key::of(name) else {
        let known = Key::NAMES.iter().flat_map(|(store, config, _)| [*store, *config]);
        let near = suggestion(name, known);
        bail!(
            "there is no setting '{name}'{near}; they are startup, minimum, maximum, buffer, weight and policy"
        );
    };
    let number = match key {
        Key::Startup | Key::Minimum | Key::Maximum => value.parse::<Memory>()?.0,
        Key::Buffer | Key::Weight | Key::Policy => {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let number = if digits { value.parse().ok() } else { None };
            number.with_context(|| format!("'{name}' is a whole number, not '{value}'"))?
        }
    };
    Ok((key, number))
}

/// Changes settings of a running domain; all of them, or none.
fn set(host: &Host, given: &str, wanted: &[String]) -> Result<()> {
    let domain = host.find(given)?;
    let wanted = wanted.iter().map(|text| setting(text)).collect::<Result<Vec<_>>>()?;
    let total = host.memory_kib().unwrap_or(u64::MAX);
    let is_fixed = domain.id() == DomId::DOM0 && host.xen.features()? & 1 << XENFEAT_NOT_DIRECT_MAPPED == 0;
    let reserve = protocol::status().map_or(Kib::ZERO, |status| Kib::new(status.host.reserve_kib));
    let mut is_on = false;
    let mut change = |transaction: &Transaction<'_>| {
        let before = memory_settings(transaction, domain.id())?.unwrap_or_else(|| unset(&domain));
        let after = wanted.iter().try_fold(before, |settings, (key, value)| settings.with(*key, *value))?;
        after.check(total)?;
        if is_fixed && after.balance.is_on {
            bail!(
                "dom0 is mapped 1:1 on this hypervisor: what it gives would be nobody's, so it cannot be balanced"
            );
        }
        let memory = HostMemory::look(&host.xen, reserve)?;
        let holds = memory.held_by(domain.id());
        memory.check(transaction, domain.id(), before.always(holds), after.always(holds))?;
        is_on = after.balance.is_on;
        write(&domain, &before, &after, transaction)
    };
    match wanted.iter().rev().find(|(key, _)| *key == Key::Maximum) {
        Some((_, maximum)) => {
            super::Ceilings::new(host, &domain, *maximum).change(host.store()?, |transaction| {
                change(transaction)?;
                super::write_max(host, &domain, *maximum, transaction)
            })?
        }
        None => host.store()?.transaction(change)?,
    }
    if is_on && Connection::open().is_none() {
        eprintln!("warning: xenmemd does not run: nothing changes before it does; {START}");
    }
    Ok(())
}

/// Puts settings into XenStore, but the maximum, which has nodes of its own rules.
fn write(domain: &Domain, before: &Settings, after: &Settings, transaction: &Transaction<'_>) -> Result<()> {
    if transaction.read_text(&format!("{}/memory/target", domain.path()))?.is_none() {
        // dom0, of whose memory nobody has told XenStore yet.
        domain.write(transaction, "memory/static-max", before.maximum_kib)?;
        domain.write(transaction, "memory/target", before.startup_kib)?;
    }
    for (node, value) in after.nodes() {
        domain.write(transaction, &format!("memory/{node}"), value)?;
    }
    Ok(())
}

/// The settings of a domain that XenStore knows nothing of: what it has.
fn unset(domain: &Domain) -> Settings {
    let kib = |pages: u64| pages.saturating_mul(super::PAGE_KIB);
    let startup_kib = kib(domain.info.tot_pages);
    let ceiling = kib(domain.info.max_pages).saturating_sub(ROOM_KIB);
    Settings { startup_kib, maximum_kib: ceiling.max(startup_kib), balance: Balance::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_either_name() {
        assert_eq!(setting("minimum=128").unwrap(), (Key::Minimum, 128 << 10));
        assert_eq!(setting("maxmem=1g").unwrap(), (Key::Maximum, 1 << 20));
        assert_eq!(setting("memory_buffer=50").unwrap(), (Key::Buffer, 50));
        let wrong = |text: &str| setting(text).unwrap_err().to_string();
        assert!(wrong("minimun=1").contains("did you mean 'minimum'"), "{}", wrong("minimun=1"));
        assert!(wrong("minimum").contains("no KEY=VALUE"));
        assert!(wrong("weight=-1").contains("whole number"));
        assert!(wrong("weight=99999999999999999999").contains("whole number"));
        assert!(wrong("maximum=lots").contains("invalid memory size"));
    }
}
