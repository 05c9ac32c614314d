//! `xenstored`: the store with the world around it.
//!
//! | file | idea |
//! | --- | --- |
//! | `options` | the command line |
//! | `run` | the main loop: sockets, rings, events, signals, each in its turn |
//! | `ring` | two streams of bytes in a page that a domain can write |
//! | `rings` | the rings and event channels of all domains |
//! | `journal` | the store on file, for the next start |
//! | `trace` | what is asked and answered |

mod journal;
mod options;
mod ring;
mod rings;
mod run;
mod trace;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use pv_abi::domid::DomId;

use super::client::socket_path;
use super::store::Store;
use super::store::domains::Condition;
use super::store::restore::Former;
use crate::daemon::{self, Begun, PidFile};
use journal::Journal;
use options::Options;
use rings::Rings;
use run::{Daemon, Signals};
use trace::Trace;

#[cfg(test)]
pub(crate) use run::tests::with_empty_store;

/// The program: its arguments, its status.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    match start(&options) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("xenstored: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> io::Result<ExitCode> {
    let quotas = options.quotas().map_err(io::Error::other)?;
    let background = match daemon::begin(options.no_fork)? {
        Begun::Command(status) => return Ok(status),
        Begun::Daemon(background) => background,
    };
    let socket = socket_path();
    let state = options.state_file.clone().unwrap_or_else(|| socket.with_file_name("state"));
    let trace = Trace::new(options.trace_file.clone(), options.no_fork);
    let (journal, records) = match Journal::open(&state, options.forget) {
        Ok((journal, records)) => (Some(journal), records),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        Err(error) => {
            eprintln!("xenstored: the store is not kept on file: {error}");
            (None, Vec::new())
        }
    };
    let pid_file = options.pid_file.as_deref().map(PidFile::new).transpose()?;
    let mut store = Store::new();
    store.quotas = quotas;
    store.keep_orphans = options.keep_orphans;
    let former = store.restore(records);
    let mut rings = if options.no_domain_init { Rings::default() } else { Rings::open()? };
    if !options.no_domain_init {
        connect(&mut store, &mut rings, former)?;
    }
    let signal = daemon::on_signal;
    let signals = Signals {
        terminate: signal(signal_hook::consts::SIGTERM)?,
        interrupt: signal(signal_hook::consts::SIGINT)?,
        reopen: signal(signal_hook::consts::SIGHUP)?,
    };
    // The state file's lock says that no other daemon uses it.
    let listener = daemon::private_socket(&socket)?;
    link_for_debian(&socket);
    store.records = journal.is_some().then(Vec::new);
    let mut running = Daemon::new(store, rings, journal, listener, signals, trace)?;
    running.write_anew();
    if options.output_pid {
        println!("{}", std::process::id());
        io::stdout().flush()?;
    }
    background.ready()?;
    let end = running.run();
    drop(pid_file);
    // Nobody listens there any more. The state file stays, for the next start.
    let _ = std::fs::remove_file(&socket);
    end.map(|()| ExitCode::SUCCESS)
}

/// Connects to dom0's kernel, and to the domains that were there before.
fn connect(store: &mut Store, rings: &mut Rings, mut former: BTreeMap<DomId, Former>) -> io::Result<()> {
    let port = Rings::kernel_port()?;
    let failed = |errno: pv_abi::Errno| io::Error::other(format!("dom0's kernel: {}", errno.name()));
    let condition = rings.conditions();
    match former.remove(&DomId::DOM0) {
        Some(mut before) => {
            before.port = port;
            let client = store.resume_domain(DomId::DOM0, &before, rings).map_err(failed)?;
            rings.resume(client, store, &before);
        }
        None => {
            let client = store.introduce_domain(DomId::DOM0, 0, port, rings).map_err(failed)?;
            rings.notify(client);
        }
    }
    for (domain, before) in former {
        let gone = condition.as_ref().is_some_and(|condition| condition(domain) == Condition::Gone);
        match store.resume_domain(domain, &before, rings) {
            Ok(client) if !gone => rings.resume(client, store, &before),
            // It ended meanwhile, and takes its nodes along.
            Ok(_) | Err(_) => store.release_domain(domain, rings),
        }
    }
    Ok(())
}

/// Programs of Debian look for the socket below `/var/run`, which nearly everywhere is the same directory. Where it is not,
/// they find a link there.
fn link_for_debian(socket: &Path) {
    let other = Path::new(super::client::OTHER_SOCKET);
    let same = |directory: &Path| std::fs::canonicalize(directory).ok();
    let (Some(ours), Some(theirs)) = (socket.parent(), other.parent()) else { return };
    let default = socket == Path::new(super::client::SOCKET);
    if default && std::fs::create_dir_all(theirs).is_ok() && same(ours) != same(theirs) {
        let _ = std::fs::remove_file(other);
        // Without it, they go through the kernel.
        let _ = std::os::unix::fs::symlink(socket, other);
    }
}
