//! `xl create`: from a configuration to a domain that runs. The making itself is [`crate::domain`]'s.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::command_line::Create;
use super::configuration::Given;
use super::host::Host;
use super::{Status, print_json};
use crate::config::DomainConfig;
use crate::console;
use crate::domain::{self, Step, supervisor};
use crate::uuid::Uuid;

/// xl's status where a domain could not be made.
const NOT_MADE: u8 = 3;
/// How often progress is shown.
const INTERVAL: Duration = Duration::from_millis(100);

/// Makes the domain, or shows what it would be.
pub(super) fn run(host: &Host, options: &Create, is_dry: bool, out: &mut impl Write) -> Result<()> {
    let given = Given::read(&options.config)?;
    if !options.quiet {
        eprintln!("Parsing config from {}", given.file);
    }
    let mut config = given.understand(host.memory_kib())?;
    // From here on it has one, in the JSON, too.
    config.uuid = Some(config.uuid.map_or_else(Uuid::random, Ok)?);
    if options.dry_run || is_dry || options.debug {
        let json = config.to_libxl(host.xen.physinfo()?.max_cpu_id.saturating_add(1));
        if options.dry_run || is_dry {
            return print_json(&json, out);
        }
        print_json(&json, &mut io::stderr())?;
    }
    check_devices(&config)?;
    if (options.vncviewer || options.autopass) && !options.quiet {
        eprintln!("no domain has a display to look at: -V and -A are ignored");
    }
    // A daemon that does not answer should be said before anything is made.
    host.store()?;
    let how = domain::Options {
        paused: options.paused || options.console,
        unsupervised: options.foreground || options.unattended,
    };
    let mut shown = Shown::new(&config.name, options.quiet);
    let made = domain::create(&config, &how, &mut |step| shown.show(step));
    shown.end();
    let id = made.map_err(|error| Status(NOT_MADE, error.to_string()))?;
    if options.console {
        if !options.paused {
            host.xen.unpause(id)?;
        }
        console::attach(&host.xen, id, console::Kind::default(), 0)?;
    }
    if options.foreground {
        supervisor::supervise(config, id);
    }
    Ok(())
}

/// Nothing is attached to a domain yet. Without its disk it would not be the domain that was asked for; without a network
/// it may be.
fn check_devices(config: &DomainConfig) -> Result<()> {
    if let Some(disk) = config.disks.first() {
        let message = format!(
            "disk '{}' cannot be attached: domains get no disks yet; boot from a ramdisk, or say disk=[]",
            disk.vdev
        );
        return Err(Status(NOT_MADE, message).into());
    }
    if !config.vifs.is_empty() {
        eprintln!("warning: 'vif' is ignored: domains get no network cards yet");
    }
    Ok(())
}

/// The line that shows how far it is, on a terminal.
struct Shown<'a> {
    name: &'a str,
    is_on: bool,
    last: Option<Instant>,
}

impl<'a> Shown<'a> {
    fn new(name: &'a str, is_quiet: bool) -> Self {
        Self { name, is_on: !is_quiet && io::stderr().is_terminal(), last: None }
    }

    fn show(&mut self, step: Step) {
        if self.is_on && self.last.is_none_or(|last| last.elapsed() >= INTERVAL) {
            self.last = Some(Instant::now());
            // What cannot be shown is not worth failing for.
            let _ = write!(io::stderr(), "\r{}\x1b[K", line(self.name, step));
        }
    }

    /// Nothing is to be seen of it afterwards.
    fn end(&mut self) {
        if self.last.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(name: &str, step: Step) -> String {
    let (what, done, total) = match step {
        Step::Memory { done, total } => ("memory", done, total),
        Step::Load { done, total } => ("kernel and ramdisk", done, total),
    };
    format!("{name}: {what}: {} of {} MiB", done >> 20, total >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_not_made_without_its_disk() {
        let config = |more: &str| {
            crate::config::parse(&format!("name='a'\nkernel='/k'\nmemory=64\n{more}"), "f").unwrap()
        };
        let error = check_devices(&config("disk=['/dev/vg/a,raw,xvda,rw']")).unwrap_err();
        assert!(error.to_string().starts_with("disk 'xvda' cannot be attached"), "{error}");
        assert_eq!(error.downcast_ref::<Status>().unwrap().0, NOT_MADE);
        assert!(check_devices(&config("vif=['']\ndisk=[]")).is_ok());
    }

    #[test]
    fn steps_are_said() {
        assert_eq!(line("g", Step::Memory { done: 5 << 20, total: 256 << 20 }), "g: memory: 5 of 256 MiB");
        assert_eq!(line("g", Step::Load { done: 0, total: 3 << 20 }), "g: kernel and ramdisk: 0 of 3 MiB");
    }
}
