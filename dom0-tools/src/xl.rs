//! `xl`: Xen's command line.
//!
//! ```text
//!   arguments ── clap ──▶ Command ──▶ its module: ask the hypervisor, XenStore ──▶ plain data ──▶ text as xl's, or JSON
//! ```
//! Options, output and exit statuses follow Debian's `xl` 4.17: 0 done, 1 failed, 2 wrong usage. Beyond it there are
//! `--json` where something is read, and `--version`.
#![forbid(unsafe_code)]

mod command_line;
mod config_update;
mod configuration;
mod cpupool;
mod create;
mod destroy;
mod dmesg;
mod host;
mod info;
mod list;
mod long;
mod manual;
mod memory;
mod names;
mod power;
mod sched;
mod state;
mod top;
mod uptime;
mod vcpus;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use clap::error::ErrorKind;
use pv_abi::domctl::SchedulerId;
use pv_abi::domid::DomId;
use serde::Serialize;

use command_line::{Arguments, Command, MemoryCommand, MemoryWhat};
use host::Host;

/// Failed.
const FAILED: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;

/// An error that ends xl with another status than [`FAILED`].
#[derive(Debug, thiserror::Error)]
#[error("{1}")]
struct Status(u8, String);

/// Runs the command that the arguments name; the program's exit status.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // If nobody reads it, the status still tells.
            let _ = error.print();
            return ExitCode::from(status(error.kind()));
        }
    };
    if arguments.dry_run && !matches!(arguments.command, Command::Create(_) | Command::ConfigUpdate(_)) {
        eprintln!("command does not implement -N (dryrun) option");
        return ExitCode::FAILURE;
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    match run(&arguments, &mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `xl dmesg | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = out.flush();
            eprintln!("{error:#}");
            ExitCode::from(error.downcast_ref::<Status>().map_or(FAILED, |status| status.0))
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit status for arguments that make no command.
fn status(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        // `xl` alone shows its commands, but did nothing.
        ErrorKind::InvalidSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => 1,
        // Everything else that clap can object to.
        _ => USAGE,
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> Result<()> {
    // These need no hypervisor.
    match &arguments.command {
        Command::Completion { shell } => return manual::completion(*shell, out),
        Command::Manual { directory } => return manual::write(directory),
        Command::Memory(MemoryCommand { what: Some(MemoryWhat::Plot { file, output }), .. }) => {
            return memory::dynamic::plot(file, output.as_deref(), out);
        }
        // All others do.
        _ => {}
    }
    let host = &Host::open()?;
    match &arguments.command {
        Command::Create(options) => create::run(host, options, arguments.dry_run, out),
        Command::Destroy { force, domains } => destroy::run(host, domains, *force || arguments.force),
        Command::ConfigUpdate(options) => config_update::run(host, options, arguments.dry_run, out),
        Command::List(options) => list::run(host, options, out),
        Command::VmList { json } => list::uuids(host, *json, out),
        Command::Shutdown(options) => power::run(host, power::Request::PowerOff, options),
        Command::Reboot(options) => power::run(host, power::Request::Reboot, options),
        Command::Console(options) => {
            let id = host.find(&options.domain)?.id();
            crate::console::attach(&host.xen, id, options.kind, options.number)
        }
        Command::Pause { domain } => {
            let id = host.find(domain)?.id();
            Ok(host.xen.pause(id).with_context(|| format!("cannot pause domain {}", id.raw()))?)
        }
        Command::Unpause { domain } => {
            let id = host.find(domain)?.id();
            Ok(host.xen.unpause(id).with_context(|| format!("cannot unpause domain {}", id.raw()))?)
        }
        Command::MemSet(options) => memory::set_target(host, options),
        Command::MemMax { domain, memory } => memory::set_max(host, domain, memory.parse()?),
        Command::Memory(options) => memory::dynamic::run(host, options, out),
        Command::VcpuList(options) => vcpus::list(host, options, out),
        Command::VcpuPin(options) => vcpus::pin(host, options),
        Command::VcpuSet { ignore_host, domain, vcpus } => {
            let vcpus = vcpus.parse().context("Error: Invalid argument.")?;
            power::set_vcpus(host, domain, vcpus, *ignore_host)
        }
        Command::SchedCredit2(options) => sched::run(host, options, out),
        Command::Domid { json, name } => names::domid(host, name, *json, out),
        Command::Domname { json, id } => names::domname(host, id, *json, out),
        Command::Rename { domain, name } => names::rename(host, domain, name),
        Command::Trigger(options) => power::trigger(host, options),
        Command::Sysrq { domain, letter } => power::sysrq(host, domain, letter),
        Command::Info(options) => info::run(host, options, out),
        Command::Dmesg(options) => dmesg::run(host, options, out),
        Command::DebugKeys { keys } => Ok(host.xen.press_keys(keys).context("cannot send debug keys")?),
        Command::Top(options) => top::run(host, options, out),
        Command::Uptime(options) => uptime::run(host, options, out),
        Command::Claims(options) => list::claims(host, options, out),
        Command::CpupoolList(options) => cpupool::run(host, options, out),
        Command::Completion { .. } | Command::Manual { .. } => Ok(()),
    }
}

/// A scheduler's name.
fn scheduler_name(id: u32) -> &'static str {
    match SchedulerId::try_from(id) {
        Ok(SchedulerId::Credit) => "credit",
        Ok(SchedulerId::Credit2) => "credit2",
        Ok(SchedulerId::Arinc653) => "arinc653",
        Ok(SchedulerId::Rtds) => "rtds",
        Ok(SchedulerId::Null) => "null",
        // A number of a later Xen.
        Err(_) => "unknown",
    }
}

/// Prints a value as JSON, indented as xl does.
fn print_json(value: &impl Serialize, out: &mut impl Write) -> Result<()> {
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, formatter);
    value.serialize(&mut serializer)?;
    Ok(writeln!(out)?)
}

/// Domains as numbers, for JSON.
fn number<S: serde::Serializer>(id: &DomId, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u16(id.raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> std::result::Result<Arguments, u8> {
        Arguments::try_parse_from(line.split_whitespace()).map_err(|error| status(error.kind()))
    }

    #[test]
    fn statuses_are_xls() {
        assert_eq!(parse("xl").err(), Some(1));
        assert_eq!(parse("xl help").err(), Some(0));
        assert_eq!(parse("xl help info").err(), Some(0));
        assert_eq!(parse("xl info -h").err(), Some(0));
        assert_eq!(parse("xl --version").err(), Some(0));
        assert_eq!(parse("xl nosuch").err(), Some(1));
        assert_eq!(parse("xl info -q").err(), Some(2));
        assert_eq!(parse("xl list --bogus").err(), Some(2));
        assert_eq!(parse("xl domid").err(), Some(2));
        assert_eq!(parse("xl vcpu-pin 0").err(), Some(2));
        assert_eq!(parse("xl rename g1").err(), Some(2));
        assert_eq!(parse("xl mem-set g1").err(), Some(2));
        assert_eq!(parse("xl destroy").err(), Some(2));
    }

    #[test]
    fn a_beginning_of_a_command_is_enough() {
        assert!(matches!(parse("xl li").unwrap().command, Command::List(_)));
        assert!(matches!(parse("xl -vvv -t -T inf -n").unwrap().command, Command::Info(_)));
        assert!(parse("xl -N list").unwrap().dry_run);
    }

    #[test]
    fn json_is_indented_as_xls() {
        let mut out = Vec::new();
        print_json(&serde_json::json!([{ "domid": 0 }]), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "[\n    {\n        \"domid\": 0\n    }\n]\n");
    }
}
