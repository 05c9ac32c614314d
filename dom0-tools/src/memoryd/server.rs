//! The daemon's loop: XenStore's watches, connections and the passing of time become events of the [`Core`], and its actions
//! are carried out.

mod clients;
mod hands;
mod peers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memory_policy::{Kib, Millis};
use pv_abi::domctl::GetDomainInfo;
use pv_abi::domid::DomId;
use rustix::event::epoll::{self, CreateFlags};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::core::Core;
use super::member::{ESTIMATE, Heard, News};
use super::options::{Metrics, Options};
use super::record::Recorder;
use super::report;
use super::speeds;
use crate::daemon::{self, Daemon, PidFile};
use crate::domain::store::home;
use crate::privcmd::Privcmd;
use crate::xenstore::{self, Client, Lasting, Nodes};
use peers::Peer;

/// Data of epoll. Peers are numbered from [`FIRST_PEER`] on.
const STORE: u64 = 0;
const SIGNALS: u64 = 1;
const CONTROL: u64 = 2;
const METRICS: u64 = 3;
const FIRST_PEER: u64 = 4;

/// Tokens of watches: domains came or went; a domain's settings; its report.
const DOMAINS: &str = "domains";
const SETTINGS: &str = "settings ";
const REPORT: &str = "report ";
/// How long until the hypervisor is looked at again after that failed.
const RETRY: Millis = Millis::seconds(1);
/// Reports are taken together that come within this time; such as tell of a stall, within the shorter.
const TOGETHER: Millis = Millis::new(100);
const AT_ONCE: Millis = Millis::new(20);
/// How many pages of a domain without an agent are watched at a time.
const SAMPLE: u64 = 256;
/// How often who follows hears of it.
const FOLLOW: Millis = Millis::seconds(1);

/// The clock: milliseconds since the host started.
#[derive(Clone, Copy, Debug)]
struct Clock {
    base: Millis,
    start: Instant,
}

impl Clock {
    fn new() -> Self {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        Self { base: Millis::new((seconds * 1000.0) as u64), start: Instant::now() }
    }

    fn now(&self) -> Millis {
        self.base + Millis::new(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Seconds since 1970.
fn since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Everything that the daemon holds.
struct Server {
    options: Options,
    clock: Clock,
    xen: Privcmd,
    store: Lasting,
    poll: OwnedFd,
    core: Core,
    control: UnixListener,
    metrics: Option<Listener>,
    peers: BTreeMap<u64, Peer>,
    next_peer: u64,
    recorder: Option<Recorder>,
    /// Settings, targets and reports that are to be read.
    settings: BTreeSet<DomId>,
    targets: BTreeSet<DomId>,
    reports: BTreeSet<DomId>,
    /// Whose report was not read yet since the daemon started: nobody knows how old it is.
    unread: BTreeSet<DomId>,
    /// Who is not listened to until then.
    muted: BTreeMap<DomId, Millis>,
    /// Of whom the hypervisor watches pages, or may.
    watched: BTreeSet<DomId>,
    looks_at: Option<Millis>,
    looked: Millis,
    estimates_at: Millis,
    told: Millis,
}

/// Where Prometheus asks.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Serves until a signal ends it.
///
/// # Errors
/// What keeps it from starting: no hypervisor, no XenStore, a daemon that runs already.
pub(super) fn run(options: Options, daemon: Daemon) -> anyhow::Result<()> {
    let pid_file = PidFile::new(&options.common.pid_file)?;
    let mut ends = [daemon::on_signal(SIGTERM)?, daemon::on_signal(SIGINT)?];
    let mut server = Server::new(options)?;
    for stream in &ends {
        daemon::listen(&server.poll, stream, SIGNALS)?;
    }
    server.connect()?;
    server.look();
    daemon.ready()?;
    while !ends.iter_mut().any(daemon::has_come) {
        server.turn()?;
    }
    for id in &server.watched {
        let _ = server.xen.working_set(*id, 0);
    }
    let _ = std::fs::remove_file(&server.options.socket);
    drop(pid_file);
    Ok(())
}

impl Server {
    fn new(options: Options) -> anyhow::Result<Self> {
        let clock = Clock::new();
        let xen = Privcmd::open()?;
        let setup = hands::setup(&xen, options.reserve)?;
        let metrics = match &options.metrics {
            None => None,
            Some(Metrics::Path(path)) => Some(Listener::Unix(daemon::private_socket(path)?)),
            Some(Metrics::Address(address)) => {
                let listener = TcpListener::bind(address)
                    .map_err(|error| anyhow::anyhow!("cannot serve Prometheus at {address}: {error}"))?;
                listener.set_nonblocking(true)?;
                Some(Listener::Tcp(listener))
            }
        };
        let now = clock.now();
        let server = Self {
            control: daemon::private_socket(&options.socket)?,
            recorder: options.record.as_deref().map(Recorder::create).transpose()?,
            core: Core::new(setup, now),
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            store: Lasting::new("xenmemd", options.common.verbose),
            peers: BTreeMap::new(),
            next_peer: FIRST_PEER,
            settings: BTreeSet::new(),
            targets: BTreeSet::new(),
            reports: BTreeSet::new(),
            unread: BTreeSet::new(),
            muted: BTreeMap::new(),
            watched: BTreeSet::new(),
            looks_at: None,
            looked: now,
            estimates_at: now,
            told: now,
            options,
            clock,
            xen,
            metrics,
        };
        daemon::listen(&server.poll, &server.control, CONTROL)?;
        match &server.metrics {
            Some(Listener::Unix(listener)) => daemon::listen(&server.poll, listener, METRICS)?,
            Some(Listener::Tcp(listener)) => daemon::listen(&server.poll, listener, METRICS)?,
            None => {}
        }
        Ok(server)
    }

    fn report(&self, what: impl std::fmt::Display) {
        daemon::report("xenmemd", &what.to_string());
    }

    /// Connects to XenStore, and asks it to tell of domains.
    fn connect(&mut self) -> xenstore::Result<()> {
        self.store.connect(|store| {
            store.watch("@introduceDomain", DOMAINS)?;
            store.watch("@releaseDomain", DOMAINS)?;
            for id in self.core.ids() {
                watch(store, id)?;
            }
            Ok(daemon::listen(&self.poll, store, STORE)?)
        })
    }

    /// Waits for something to do, and does it.
    fn turn(&mut self) -> anyhow::Result<()> {
        self.hear();
        self.read();
        let now = self.clock.now();
        if self.core.look_at(self.looks_at).is_some_and(|at| at <= now) {
            self.look();
        }
        self.estimate();
        self.unmute();
        let now = self.clock.now();
        let timeout = self.next_time().map(|at| Duration::from_millis(at.since(now).get()).try_into());
        let timeout = timeout.transpose()?;
        let mut events = Vec::with_capacity(64);
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if self.store.is_due() && self.connect().is_ok() {
            self.report("XenStore is back");
            // It may have begun anew, or missed something.
            self.settings.extend(self.core.ids());
            self.reports.extend(self.core.ids());
            self.look_within(Millis::ZERO);
        }
        for event in events {
            match event.data.u64() {
                // The beginning of the next turn reads it.
                STORE | SIGNALS => {}
                CONTROL => self.accept(false),
                METRICS => self.accept(true),
                peer => self.serve(peer),
            }
        }
        Ok(())
    }

    /// When something is to be done that no event tells of.
    fn next_time(&self) -> Option<Millis> {
        let retry =
            self.store.retries_in().map(|left| self.clock.now() + Millis::new(left.as_millis() as u64 + 1));
        let is_any = !self.watched.is_empty() || !self.core.to_estimate().is_empty();
        let estimate = is_any.then_some(self.estimates_at);
        let muted = self.muted.values().min().copied();
        [retry, estimate, muted, self.core.look_at(self.looks_at)].into_iter().flatten().min()
    }

    /// The hypervisor is to be looked at within that time.
    fn look_within(&mut self, time: Millis) {
        let at = self.clock.now() + time;
        self.looks_at = Some(self.looks_at.map_or(at, |before| before.min(at)));
    }

    /// Takes what XenStore tells.
    fn hear(&mut self) {
        while let Some(event) = self.store.ask(|store| store.next_event(Some(Duration::ZERO))).flatten() {
            let now = self.clock.now();
            let of = |token: &str| {
                let number = event.token.strip_prefix(token)?;
                number.parse().ok().map(DomId::new)
            };
            if let Some(id) = of(REPORT) {
                match self.core.hear(id, now) {
                    Some(Heard::Read) => drop(self.reports.insert(id)),
                    Some(Heard::MutedUntil(until)) => {
                        self.muted.insert(id, until);
                        self.store.ask(|store| store.unwatch(&node(id), &format!("{REPORT}{}", id.raw())));
                    }
                    None => {}
                }
            } else if event.path.ends_with(speeds::NODE) {
                // What we wrote ourselves.
            } else if let Some(id) = of(SETTINGS) {
                // Most are our own writes of the target.
                let set =
                    if event.path.ends_with("/target") { &mut self.targets } else { &mut self.settings };
                set.insert(id);
            } else {
                self.look_within(Millis::ZERO);
            }
        }
    }

    /// Listens again to those who wrote too much.
    fn unmute(&mut self) {
        let now = self.clock.now();
        let over: Vec<DomId> =
            self.muted.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.muted.remove(&id);
            // It tells once at the start, so nothing is lost.
            self.store.ask(|store| store.watch(&node(id), &format!("{REPORT}{}", id.raw())));
        }
    }

    /// Reads what has changed: settings, and the reports of all in one go.
    fn read(&mut self) {
        for id in std::mem::take(&mut self.settings) {
            let Ok(Some(info)) = self.xen.domain(id) else { continue };
            if let Some(stored) = self.store.ask(|store| hands::stored(store, &info, since_1970())) {
                self.core.store(id, stored);
                self.look_within(TOGETHER);
            }
        }
        for (id, text) in self.texts(SETTINGS) {
            let target = text.and_then(|text| hands::number(&text)).map(Kib::new);
            self.core.store_target(id, target);
        }
        let now = self.clock.now();
        for (id, text) in self.texts(REPORT) {
            let is_old = self.unread.remove(&id);
            let wait = match self.core.report(id, text.as_deref(), is_old, now) {
                _ if !self.core.is_balanced(id) => continue,
                News::Nothing => continue,
                News::Stall => AT_ONCE,
                News::Change => TOGETHER,
                News::Same => FOLLOW,
            };
            let waited = now.since(self.looked);
            self.look_within(Millis::new(wait.get().saturating_sub(waited.get())));
        }
    }

    /// The nodes that are to be read, of targets or reports, in one go.
    fn texts(&mut self, token: &str) -> Vec<(DomId, Option<String>)> {
        let (set, name) = match token {
            REPORT => (&mut self.reports, report::NODE),
            _ => (&mut self.targets, "memory/target"),
        };
        let ids = std::mem::take(set);
        let paths: Vec<String> = ids.iter().map(|id| format!("{}/{name}", home(*id))).collect();
        let texts = if paths.is_empty() { None } else { self.store.ask(|store| store.read_texts(&paths)) };
        ids.into_iter().zip(texts.unwrap_or_default()).collect()
    }

    /// Looks at the hypervisor, decides, and does it.
    fn look(&mut self) {
        let now = self.clock.now();
        (self.looks_at, self.looked) = (None, now);
        let (host, domains) = match hands::look(&self.xen) {
            Ok(seen) => seen,
            Err(error) => {
                self.report(error);
                // Who is out of time hears so all the same.
                self.answer_claims();
                return self.look_within(RETRY);
            }
        };
        self.keep_up_with(&domains);
        let facts: Vec<_> = domains
            .iter()
            .map(|info| hands::facts(&self.xen, info, self.core.is_balanced(info.domain)))
            .collect();
        let start = Instant::now();
        let (actions, again) = self.core.step(host, &facts, now);
        self.core.took(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
        let has_changed = !actions.is_empty();
        for action in actions {
            let id = action.id();
            let (Some(facts), Some(store)) = (facts.iter().find(|facts| facts.id == id), self.store.client())
            else {
                continue;
            };
            let done = hands::act(&self.xen, store, action, facts);
            if self.options.common.verbose {
                self.report(format!(
                    "{action:?}{}",
                    done.as_ref().map_or_else(|error| format!(": {error}"), |()| String::new())
                ));
            } else if let Err(error) = &done
                && !error.is_usual()
            {
                self.report(format!("domain {}: {error}", id.raw()));
            }
            self.core.done(action, done.is_ok(), now);
        }
        self.answer_claims();
        if self.core.is_busy() {
            self.look_within(again);
        }
        self.tell(has_changed);
    }

    /// Domains that came and went since the last look.
    fn keep_up_with(&mut self, domains: &[GetDomainInfo]) {
        let is_there =
            |id: &DomId| domains.iter().any(|info| info.domain == *id && self.core.knows(*id, info.handle));
        let gone: Vec<DomId> = self.core.ids().filter(|id| !is_there(id)).collect();
        for id in gone {
            self.core.remove(id);
            for set in [
                &mut self.settings,
                &mut self.targets,
                &mut self.reports,
                &mut self.unread,
                &mut self.watched,
            ] {
                set.remove(&id);
            }
            let was_muted = self.muted.remove(&id).is_some();
            self.store.ask(|store| {
                store.unwatch(&format!("{}/memory", home(id)), &format!("{SETTINGS}{}", id.raw()))
            });
            if !was_muted {
                self.store.ask(|store| store.unwatch(&node(id), &format!("{REPORT}{}", id.raw())));
            }
        }
        let now = self.clock.now();
        for info in domains {
            if self.core.knows(info.domain, info.handle) {
                continue;
            }
            let stored = self.store.ask(|store| hands::stored(store, info, since_1970()));
            let stored = stored.unwrap_or_else(|| hands::unstored(info));
            self.core.add(hands::facts(&self.xen, info, stored.settings.balanced), stored, now);
            self.unread.insert(info.domain);
            // A daemon that was killed may have left it watched.
            if self.core.can_estimate() {
                self.watched.insert(info.domain);
            }
            self.store.ask(|store| watch(store, info.domain));
        }
    }

    /// Has the hypervisor look which pages are used, for domains without an agent.
    fn estimate(&mut self) {
        let now = self.clock.now();
        if now < self.estimates_at {
            return;
        }
        let ids = self.core.to_estimate();
        // Who has an agent by now, or is left alone, is not watched any more: its blocks become whole again.
        for id in std::mem::take(&mut self.watched) {
            if !ids.contains(&id) {
                let _ = self.xen.working_set(id, 0);
            }
        }
        for id in &ids {
            if let Ok(Some(seen)) = self.xen.working_set(*id, SAMPLE) {
                self.core.estimate(*id, &seen, now);
            }
            self.watched.insert(*id);
        }
        if !ids.is_empty() {
            self.estimates_at = now + ESTIMATE;
            self.look_within(Millis::ZERO);
        }
    }
}

/// A guest's report.
fn node(id: DomId) -> String {
    format!("{}/{}", home(id), report::NODE)
}

/// Asks XenStore to tell of a domain's settings and reports; it tells once at the start.
fn watch(store: &Client, id: DomId) -> xenstore::Result<()> {
    store.watch(&format!("{}/memory", home(id)), &format!("{SETTINGS}{}", id.raw()))?;
    store.watch(&node(id), &format!("{REPORT}{}", id.raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_say_what_an_estimate_costs() {
        let text = include_str!("../../../docs/dynamic-memory.md").replace('\n', " ");
        // The measured cost of a page is in the table before that; half of the root is the worst standard error.
        let (millions, error) = (SAMPLE * (3549 + 414) / 1_000_000, 50.0 / (SAMPLE as f64).sqrt());
        assert_eq!(millions, 1);
        for said in [
            format!("of {SAMPLE} pages that are chosen at random every five seconds"),
            format!("{SAMPLE} pages are a million instructions every {} s", ESTIMATE.get() / 1000),
            format!("{} TLB invalidations", SAMPLE / 32 * 2),
            format!("at most {error:.1} % of the domain's memory"),
        ] {
            assert!(text.contains(&said), "{said}");
        }
    }
}
