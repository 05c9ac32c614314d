//! `xl`: Xen's command line, for those commands that need no XenStore.
//!
//! ```text
//!   arguments ── clap ──▶ Command ──▶ its module: ask Privcmd ──▶ plain data ──▶ text as xl's, or JSON
//! ```
//! Options, output and exit statuses follow Debian's `xl` 4.17: 0 done, 1 failed, 2 wrong usage. Beyond it there are
//! `--json` where something is read, and `--version`.
#![forbid(unsafe_code)]

mod command_line;
mod cpupool;
mod dmesg;
mod info;
mod list;
mod names;
mod sched;
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

use crate::privcmd::Privcmd;
use command_line::{Arguments, Command};

/// Wrong usage.
const USAGE: u8 = 2;

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
    if arguments.dry_run {
        eprintln!("command does not implement -N (dryrun) option");
        return ExitCode::FAILURE;
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    match run(&arguments.command, &mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `xl dmesg | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = out.flush();
            eprintln!("{error:#}");
            ExitCode::FAILURE
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

fn run(command: &Command, out: &mut impl Write) -> Result<()> {
    let xen = Privcmd::open()?;
    match command {
        Command::Info(options) => info::run(&xen, options, out),
        Command::List(options) => list::run(&xen, options, out),
        Command::Claims(options) => list::claims(&xen, options, out),
        Command::Dmesg(options) => dmesg::run(&xen, options, out),
        Command::DebugKeys { keys } => Ok(xen.press_keys(keys).context("cannot send debug keys")?),
        Command::VcpuList(options) => vcpus::list(&xen, options, out),
        Command::VcpuPin(options) => vcpus::pin(&xen, options),
        Command::Uptime(options) => uptime::run(&xen, options, out),
        Command::Domid { name } => names::domid(&xen, name, out),
        Command::Domname { id } => names::domname(&xen, id, out),
        Command::Pause { domain } => {
            let id = names::find(&xen, domain)?;
            Ok(xen.pause(id).with_context(|| format!("cannot pause domain {}", id.raw()))?)
        }
        Command::Unpause { domain } => {
            let id = names::find(&xen, domain)?;
            Ok(xen.unpause(id).with_context(|| format!("cannot unpause domain {}", id.raw()))?)
        }
        Command::MemMax { domain, memory } => {
            let id = names::find(&xen, domain)?;
            let set = xen.set_max_memory(id, memory.0);
            Ok(set.with_context(|| format!("cannot set domain {} static max memory", id.raw()))?)
        }
        Command::SchedCredit2(options) => sched::run(&xen, options, out),
        Command::CpupoolList(options) => cpupool::run(&xen, options, out),
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
        assert_eq!(parse("xl mem-max 0 lots").err(), Some(2));
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
