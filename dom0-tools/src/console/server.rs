//! The daemon: one loop over XenStore's watches, event channels, terminals and signals.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use pv_abi::domctl::XEN_DOMINF_DYING;
use pv_abi::domid::DomId;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::guest::Guest;
use super::hypervisor_log::HypervisorLog;
use super::log::{Log, safe_name};
use super::options::Options;
use super::pty::Pty;
use super::stamp::Stamper;
use crate::daemon::{self, Daemon, PidFile};
use crate::evtchn::EventChannels;
use crate::gnttab::{Grants, RESERVED_CONSOLE};
use crate::privcmd::Privcmd;
use crate::xenstore::{self, Lasting, Nodes};

/// A guest's number, as epoll's data. What is no guest's is above.
const STORE: u64 = 1 << 32;
const CHANNELS: u64 = STORE + 1;
const SIGNALS: u64 = STORE + 2;

/// The token of the watches that tell of guests that came or went.
const GUESTS: &str = "guests";
/// The node of a guest's console that says where its terminal is.
const TTY: &str = "tty";

/// Everything that the daemon holds.
struct Server {
    options: Options,
    started: Instant,
    xen: Privcmd,
    grants: Grants,
    channels: EventChannels,
    store: Lasting,
    poll: OwnedFd,
    guests: BTreeMap<DomId, Guest>,
    hypervisor: Option<HypervisorLog>,
}

/// Serves until a signal ends it.
///
/// # Errors
/// What keeps it from starting: no hypervisor, no XenStore, a daemon that runs already.
pub(super) fn run(options: Options, daemon: Daemon) -> anyhow::Result<()> {
    // Two files for each guest, and one more for its log. That the limit may not be raised shows when it is reached.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);

    let pid_file = PidFile::new(&options.common.pid_file)?;
    let mut ends = [daemon::on_signal(SIGTERM)?, daemon::on_signal(SIGINT)?];
    let mut reopens = daemon::on_signal(SIGHUP)?;
    let mut server = Server::new(options)?;
    for stream in ends.iter().chain([&reopens]) {
        daemon::listen(&server.poll, stream, SIGNALS)?;
    }
    // What was said so far; the event tells of what comes.
    server.log_hypervisor();
    server.connect()?;
    server.look_for_guests();
    daemon.ready()?;
    while !ends.iter_mut().any(daemon::has_come) {
        if daemon::has_come(&mut reopens) {
            server.reopen_logs();
        }
        server.turn()?;
    }
    server.leave();
    drop(pid_file);
    Ok(())
}

impl Server {
    fn new(options: Options) -> anyhow::Result<Self> {
        let channels = EventChannels::open()?;
        let xen = Privcmd::open()?;
        if options.log.guests() || options.log.hypervisor() {
            std::fs::create_dir_all(&options.log_dir)?;
        }
        let hypervisor = if options.log.hypervisor() {
            let stamper = Stamper::new(options.timestamp.hypervisor(), false);
            let log = Log::open(options.log_dir.join("hypervisor.log"), options.rotation(), stamper)?;
            Some(HypervisorLog::new(log, &channels)?)
        } else {
            None
        };
        let server = Self {
            started: Instant::now(),
            grants: Grants::open()?,
            store: Lasting::new("xenconsoled", options.common.verbose),
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            guests: BTreeMap::new(),
            options,
            xen,
            channels,
            hypervisor,
        };
        daemon::listen(&server.poll, &server.channels, CHANNELS)?;
        Ok(server)
    }

    /// Says what went wrong: on standard error, and to the system's log if there is one.
    fn report(&self, guest: Option<DomId>, what: impl std::fmt::Display) {
        let line = match guest {
            Some(id) => format!("domain {}: {what}", id.raw()),
            None => what.to_string(),
        };
        daemon::report("xenconsoled", &line);
    }

    /// Connects to XenStore, and asks it to tell of guests.
    fn connect(&mut self) -> xenstore::Result<()> {
        self.store.connect(|store| {
            store.watch("@introduceDomain", GUESTS)?;
            store.watch("@releaseDomain", GUESTS)?;
            for guest in self.guests.values() {
                store.watch(&guest.path(), &guest.id.raw().to_string())?;
                // A store that began anew does not know the terminal.
                if let Some(pty) = &guest.pty {
                    store.write_below(&guest.path(), TTY, &pty.path)?;
                }
            }
            Ok(daemon::listen(&self.poll, store, STORE)?)
        })
    }

    /// Waits for something to do, and does it.
    fn turn(&mut self) -> anyhow::Result<()> {
        while let Some(event) = self.store.ask(|store| store.next_event(Some(Duration::ZERO))).flatten() {
            match event.token.parse().map(DomId::new) {
                Ok(id) => self.look_at(id),
                Err(_) => self.look_for_guests(),
            }
        }
        let now = self.started.elapsed();
        let due: Vec<_> =
            self.guests.values().filter(|guest| guest.due.is_some_and(|due| due <= now)).collect();
        for id in due.into_iter().map(|guest| guest.id).collect::<Vec<_>>() {
            self.serve(id);
        }
        let retry = self.store.retries_in().map(|left| now + left);
        let next = self.guests.values().filter_map(|guest| guest.due).chain(retry).min();
        let timeout = next.map(|next| next.saturating_sub(now).try_into()).transpose()?;
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if self.store.is_due() && self.connect().is_ok() {
            self.report(None, "XenStore is back");
            self.look_for_guests();
        }
        for event in events {
            match event.data.u64() {
                // The beginning of the next turn reads it.
                STORE | SIGNALS => {}
                CHANNELS => self.receive()?,
                id => self.terminal(DomId::new(u16::try_from(id).unwrap_or(u16::MAX))),
            }
        }
        Ok(())
    }

    /// Events arrived.
    fn receive(&mut self) -> io::Result<()> {
        let mut ports = [0; 64];
        let count = self.channels.read_pending(&mut ports)?;
        for &port in &ports[..count] {
            if self.hypervisor.as_ref().is_some_and(|log| log.port().raw() == port) {
                self.log_hypervisor();
                continue;
            }
            // One that was left while its event was on its way is nobody's.
            let of = self.guests.values().find(|guest| guest.port().is_some_and(|found| found.raw() == port));
            if let Some(id) = of.map(|guest| guest.id) {
                self.serve(id);
            }
        }
        Ok(())
    }

    fn log_hypervisor(&mut self) {
        if let Some(log) = &mut self.hypervisor
            && let Err(error) = log.go_on(&self.xen, &self.channels)
        {
            self.report(None, format!("hypervisor.log: {error}"));
        }
    }

    fn serve(&mut self, id: DomId) {
        let now = self.started.elapsed();
        let outcome = self.guests.get_mut(&id).map(|guest| guest.serve(now, &self.channels));
        self.after(id, outcome);
    }

    fn terminal(&mut self, id: DomId) {
        let now = self.started.elapsed();
        let outcome = self.guests.get_mut(&id).map(|guest| guest.terminal(now, &self.channels));
        self.after(id, outcome);
    }

    /// Reports what went wrong with a guest, and tells the kernel what to listen for.
    fn after(&mut self, id: DomId, outcome: Option<Result<(), String>>) {
        if let Some(Err(what)) = outcome {
            self.report(Some(id), what);
        }
        let Some(guest) = self.guests.get_mut(&id) else { return };
        let (interest, Some(pty)) = (guest.wanted_interest(), &guest.pty) else { return };
        if interest != guest.interest {
            let mut flags = EventFlags::empty();
            flags.set(EventFlags::IN, interest.0);
            flags.set(EventFlags::OUT, interest.1);
            // It was added when it was made.
            let _ = epoll::modify(&self.poll, pty, EventData::new_u64(u64::from(id.raw())), flags);
            guest.interest = interest;
        }
    }

    /// Guests may have come or gone.
    fn look_for_guests(&mut self) {
        let all = match self.xen.domains(DomId::new(1)) {
            Ok(all) => all,
            Err(error) => return self.report(None, error),
        };
        let alive: Vec<_> =
            all.iter().filter(|info| info.flags & XEN_DOMINF_DYING == 0).map(|info| info.domain).collect();
        let gone: Vec<_> = self.guests.keys().copied().filter(|id| !alive.contains(id)).collect();
        for id in gone {
            self.forget(id);
        }
        for id in alive {
            let Entry::Vacant(place) = self.guests.entry(id) else { continue };
            let path = place.insert(Guest::new(id)).path();
            // The watch tells once at its start, and then looks at the guest.
            self.store.ask(|store| store.watch(&path, &id.raw().to_string()));
        }
    }

    fn forget(&mut self, id: DomId) {
        let Some(mut guest) = self.guests.remove(&id) else { return };
        // Its last words.
        let _ = guest.serve(self.started.elapsed(), &self.channels);
        self.unbind(&mut guest);
        let path = guest.path();
        self.store.ask(|store| store.unwatch(&path, &id.raw().to_string()));
    }

    fn unbind(&self, guest: &mut Guest) {
        if let Some(port) = guest.disconnect() {
            // It ends with the guest anyway.
            let _ = self.channels.unbind(port);
        }
    }

    /// Something changed in a guest's directory: its ring may have come.
    fn look_at(&mut self, id: DomId) {
        let Some(guest) = self.guests.get(&id) else { return };
        let (path, remote) = (guest.path(), guest.remote());
        let number = |text: Option<String>| text.and_then(|text| text.trim().parse::<u64>().ok());
        let Some((kind, port, limit, name)) = self.store.ask(|store| {
            let read = |key: &str| store.read_text(&format!("{path}/{key}"));
            let name = store.read_text(&format!("/local/domain/{}/name", id.raw()))?;
            Ok((read("type")?, read("port")?, read("limit")?, name))
        }) else {
            return;
        };
        // Another program serves consoles of other kinds.
        if kind.is_some_and(|kind| !kind.is_empty() && kind != "xenconsoled") {
            return;
        }
        let Some(port) = number(port).and_then(|port| u32::try_from(port).ok()).filter(|port| *port != 0)
        else {
            return;
        };
        if remote == Some(port) {
            return;
        }
        match self.attach(id, port, name.unwrap_or_default()) {
            Ok(()) => {
                let limit = number(limit).unwrap_or(0);
                if let Some(guest) = self.guests.get_mut(&id) {
                    guest.set_limit(usize::try_from(limit).unwrap_or(usize::MAX));
                }
                self.serve(id);
            }
            Err(what) => self.report(Some(id), what),
        }
    }

    /// Connects to a guest's ring and port, and gives it a terminal and a log.
    fn attach(&mut self, id: DomId, remote: u32, name: String) -> Result<(), String> {
        let fail = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let Some(mut guest) = self.guests.remove(&id) else { return Ok(()) };
        self.unbind(&mut guest);
        let outcome = (|| {
            let page =
                self.grants.map(id, RESERVED_CONSOLE).map_err(fail("cannot map the console's page"))?;
            let port = self
                .channels
                .bind_interdomain(id, remote)
                .map_err(fail("cannot connect to the console's event channel"))?;
            guest.connect(page, remote, port, self.options.overflow_data);
            if guest.pty.is_none() {
                let pty = Pty::new().map_err(fail("cannot make a terminal"))?;
                epoll::add(&self.poll, &pty, EventData::new_u64(u64::from(id.raw())), EventFlags::empty())
                    .map_err(|error| format!("cannot listen to a terminal: {error}"))?;
                guest.pty = Some(pty);
            }
            if self.options.log.guests() && guest.log.is_none() {
                let path = self.options.log_dir.join(format!("guest-{}.log", safe_name(&name)));
                let stamper = Stamper::new(self.options.timestamp.guests(), self.options.replace_escape);
                guest.log = Some(
                    Log::open(path, self.options.rotation(), stamper).map_err(fail("cannot open its log"))?,
                );
            }
            Ok(())
        })();
        let tty = guest.pty.as_ref().map(|pty| (guest.path(), pty.path.clone()));
        self.guests.insert(id, guest);
        if let Some((path, terminal)) = tty {
            self.store.ask(|store| store.write_below(&path, TTY, &terminal));
        }
        outcome
    }

    fn reopen_logs(&mut self) {
        let mut failed = Vec::new();
        if let Some(log) = &mut self.hypervisor {
            failed.extend(log.reopen().err().map(|error| (None, error)));
        }
        for guest in self.guests.values_mut() {
            failed.extend(
                guest.log.as_mut().and_then(|log| log.reopen().err()).map(|error| (Some(guest.id), error)),
            );
        }
        for (guest, error) in failed {
            self.report(guest, format!("cannot open the log anew: {error}"));
        }
    }

    /// The terminals end with us; nobody shall take another's of the same name for a guest's.
    fn leave(&mut self) {
        for (path, guest) in std::mem::take(&mut self.guests).into_values().map(|guest| (guest.path(), guest))
        {
            if guest.pty.is_some() {
                self.store.ask(|store| store.write_below(&path, TTY, ""));
            }
        }
    }
}
