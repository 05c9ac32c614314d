//! `xl mem-set` and `xl mem-max`: what a domain shall have, and what it can have at most.
//!
//! ```text
//!                   ┌─ hypervisor: the target (Nacelle), or the ceiling (Xen on Arm, which knows no targets) ─┐
//!   xl mem-set ─────┤                                                                                         ├── guest gives or takes
//!                   └─ XenStore: memory/target, which Linux's balloon driver watches ─────────────────────────┘
//! ```
//! `memory/static-max` has a trap: Linux takes what it says when the first target arrives, less what it booted with, for
//! memory that will never be its own. So as long as a guest's drivers are not up, only `memory/hotplug-max` is raised.

pub(super) mod dynamic;
pub(super) mod table;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pv_abi::domctl::GetDomainInfo;
use pv_abi::domid::DomId;
use rustix::io::Errno;

use super::command_line::{MemSet, Memory};
use super::host::{Domain, Host};
use super::state::State;
use crate::xenstore::{Client, Nodes, Transaction};

const PAGE_KIB: u64 = 4;
/// Beyond its RAM a domain has a few pages: rings for console and XenStore. libxl leaves room for them, too.
const ROOM_KIB: u64 = 1024;
/// dom0 with less does not work (libxl's `LIBXL_MIN_DOM0_MEM`).
const LEAST_OF_DOM0_KIB: u64 = 128 << 10;
/// How long a guest that takes memory may be still before it is said that it stopped: Linux's first three retries.
const STILL: Duration = Duration::from_secs(6);
/// The same for one that has begun to give memory: its balloon takes whatever is free, and it cannot live long with nothing.
const STILL_GIVING: Duration = Duration::from_secs(3);
/// And as long as it has not begun, which costs it nothing.
const STILL_BEFORE: Duration = Duration::from_secs(10);
/// What a guest that has no more to give gets back, to live on.
const BREATH_KIB: u64 = 16 << 10;
/// How long the way to a target may take altogether.
const LONGEST: Duration = Duration::from_secs(120);
const INTERVAL: Duration = Duration::from_millis(100);

/// What a domain is asked to have and can have, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) target_kib: u64,
    pub(super) ceiling_kib: u64,
    /// Of what the guest sees, what has no page behind it yet.
    pub(super) unbacked_kib: u64,
}

impl Amounts {
    /// A domain's; where neither the hypervisor nor XenStore keeps a target, it is what the domain has.
    pub(super) fn of(host: &Host, info: &GetDomainInfo) -> Result<Self> {
        let kept = host.xen.memory_target(info.domain).unwrap_or(None);
        let node = |name: &str| host.number(&format!("/local/domain/{}/memory/{name}", info.domain.raw()));
        let in_store = || node("target");
        let has = info.tot_pages.saturating_mul(PAGE_KIB);
        Ok(Self {
            // XenStore first: it has whole KiB, and Debian's tools write only that.
            target_kib: in_store().or(kept.map(|kept| kept.target.saturating_mul(PAGE_KIB))).unwrap_or(has),
            ceiling_kib: node("hotplug-max")
                .max(node("static-max"))
                .unwrap_or(info.max_pages.saturating_mul(PAGE_KIB)),
            unbacked_kib: kept.map_or(0, |kept| kept.unbacked.saturating_mul(PAGE_KIB)),
        })
    }
}

fn mib(kib: u64) -> u64 {
    kib >> 10
}

/// Whether the guest's Xen drivers have said that they are there. The toolstack makes the node, empty, for them to write.
fn has_drivers(host: &Host, domain: &Domain) -> bool {
    host.number(&format!("{}/control/feature-poweroff", domain.path())) == Some(1)
}

/// `xl mem-max`.
pub(super) fn set_max(host: &Host, given: &str, memory: Memory) -> Result<()> {
    let domain = host.find(given)?;
    let Memory(kib) = memory;
    let failed = || format!("cannot set domid {} static max memory to : {}m", domain.id().raw(), mib(kib));
    let Some(store) = host.store_if_any() else {
        return host.xen.set_max_memory(domain.id(), ceiling(&domain, kib)).with_context(failed);
    };
    let ceilings = Ceilings::new(host, &domain, kib);
    ceilings.change(store, |transaction| write_max(host, &domain, kib, transaction)).with_context(failed)
}

/// What a domain's ceiling is to be for a maximum.
fn ceiling(domain: &Domain, maximum_kib: u64) -> u64 {
    maximum_kib.saturating_add(if domain.id() == DomId::DOM0 { 0 } else { ROOM_KIB })
}

/// Tells XenStore of a domain's maximum, if it knows of its memory: not of dom0's before the first `mem-set`.
fn write_max(host: &Host, domain: &Domain, kib: u64, transaction: &Transaction<'_>) -> Result<()> {
    let target = transaction.read_text(&format!("{}/memory/target", domain.path()))?;
    let Some(target) = target else { return Ok(()) };
    if let Some(target) = target.trim().parse().ok().filter(|target| *target > kib) {
        bail!("it is to have {} MiB: say less with xl mem-set first", mib(target));
    }
    domain.write(transaction, "memory/hotplug-max", kib)?;
    if has_drivers(host, domain) {
        domain.write(transaction, "memory/static-max", kib)?;
    }
    Ok(())
}

/// A domain's ceiling in the hypervisor, which is to change together with XenStore.
struct Ceilings<F> {
    before: u64,
    after: u64,
    set: F,
}

impl<'a> Ceilings<Box<dyn Fn(u64) -> Result<()> + 'a>> {
    fn new(host: &'a Host, domain: &Domain, maximum_kib: u64) -> Self {
        let id = domain.id();
        Self {
            before: domain.info.max_pages.saturating_mul(PAGE_KIB),
            after: ceiling(domain, maximum_kib),
            set: Box::new(move |kib| Ok(host.xen.set_max_memory(id, kib)?)),
        }
    }
}

impl<F: Fn(u64) -> Result<()>> Ceilings<F> {
    /// Makes `body`'s changes and sets the ceiling, or neither.
    fn change(self, store: &Client, mut body: impl FnMut(&Transaction<'_>) -> Result<()>) -> Result<()> {
        let mut is_set = false;
        let done = store.transaction(|transaction| {
            body(transaction)?;
            // Last: until it is set, all there was can be dropped; if it is refused, it is.
            (self.set)(self.after)?;
            is_set = true;
            anyhow::Ok(())
        });
        if done.is_err() && is_set {
            // The error that is told is the one that came first.
            let _ = (self.set)(self.before);
        }
        done
    }
}

/// `xl mem-set`.
pub(super) fn set_target(host: &Host, options: &MemSet) -> Result<()> {
    let domain = host.find(&options.domain)?;
    let Memory(kib) = options.memory.parse()?;
    let id = domain.id();
    let failed = || format!("cannot set domid {} dynamic max memory to : {}m", id.raw(), mib(kib));
    ask(host, &domain, kib).with_context(failed)?;
    if options.no_wait {
        return Ok(());
    }
    wait(host, &domain, kib)
}

/// Tells the hypervisor and the guest.
fn ask(host: &Host, domain: &Domain, kib: u64) -> Result<()> {
    let (id, path) = (domain.id(), format!("{}/memory", domain.path()));
    let store = host.store()?;
    let before = Amounts::of(host, &domain.info)?;
    let shown = domain.shown();
    if kib > before.ceiling_kib {
        let ceiling = mib(before.ceiling_kib);
        bail!("{shown} can have {ceiling} MiB at most; raise that first: xl mem-max {shown} {}m", mib(kib));
    }
    if id == DomId::DOM0 && kib < LEAST_OF_DOM0_KIB {
        bail!("dom0 needs {} MiB", mib(LEAST_OF_DOM0_KIB));
    }
    if kib == 0 {
        bail!("no guest can do without any memory");
    }
    // Before the guest hears of it, it must be allowed to have it.
    if domain.info.max_pages.saturating_mul(PAGE_KIB) < kib.saturating_add(ROOM_KIB) {
        host.xen.set_max_memory(id, kib.saturating_add(ROOM_KIB)).map_err(|error| explain(host, error))?;
    }
    let kept = host.xen.set_memory_target(id, kib / PAGE_KIB).map_err(|error| explain(host, error))?;
    if kept.is_none() {
        // Xen on Arm has no targets: the ceiling is all that it knows.
        host.xen.set_max_memory(id, kib.saturating_add(ROOM_KIB))?;
    }
    store.transaction(|transaction| {
        if transaction.read_text(&format!("{path}/static-max"))?.is_none() {
            // dom0, of whose memory nobody has told XenStore yet.
            domain.write(transaction, "memory/static-max", before.ceiling_kib)?;
        }
        domain.write(transaction, "memory/target", kib)?;
        // dom0 has none.
        transaction.write_below(&format!("/vm/{}", domain.uuid()), "memory", mib(kib).to_string())?;
        anyhow::Ok(())
    })
}

/// Says how much is free where that is what is missing.
fn explain(host: &Host, error: crate::privcmd::Error) -> anyhow::Error {
    let is_short = error.is(Errno::NOMEM);
    let error = anyhow::Error::from(error);
    match host.xen.physinfo() {
        Ok(physical) if is_short => {
            let free = physical.free_pages.saturating_sub(physical.outstanding_pages) * PAGE_KIB;
            error.context(format!(
                "{} MiB are free on this host; xl list --memory shows who has more than it needs",
                mib(free)
            ))
        }
        _ => error,
    }
}

/// How far a domain is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// What the guest holds of its memory, whether it has touched it or not, in KiB.
    has_kib: u64,
    /// The time that its vCPUs have run.
    ran: Duration,
    /// It wants to run, whether or not it does.
    is_busy: bool,
    is_paused: bool,
    is_gone: bool,
}

impl Progress {
    fn of(host: &Host, id: DomId) -> Result<Self> {
        let Some(info) = host.xen.domain(id)? else {
            return Ok(Self {
                has_kib: 0,
                ran: Duration::ZERO,
                is_busy: false,
                is_paused: false,
                is_gone: true,
            });
        };
        let has = match host.xen.memory_target(id).unwrap_or(None) {
            Some(kept) => kept.pages.saturating_sub(kept.reserved).saturating_add(kept.unbacked),
            None => info.tot_pages,
        };
        let state = State::new(info.flags);
        Ok(Self {
            has_kib: has.saturating_mul(PAGE_KIB),
            ran: Duration::from_nanos(info.cpu_time),
            is_busy: !state.blocked && !state.paused,
            is_paused: state.paused,
            is_gone: state.dying || state.shutdown,
        })
    }

    /// Whether it has moved more than the pages that come and go as it starts.
    fn has_begun(self, first: Self) -> bool {
        self.has_kib.abs_diff(first.has_kib) > ROOM_KIB
    }

    /// What a guest that cannot give enough should have: a little more than it was left with, but no more than it had.
    fn least(self, first: Self, kib: u64) -> Option<u64> {
        let has_given = self.has_begun(first) && self.has_kib < first.has_kib;
        let is_stuck = !self.is_gone && !self.is_paused && self.has_kib > kib && has_given;
        let with_breath = (self.has_kib + BREATH_KIB).next_multiple_of(1024);
        is_stuck.then(|| with_breath.min(first.has_kib & !1023))
    }

    /// How much of the time since `before` counts as standing still. A guest that waits for a CPU is not to blame for it.
    fn stillness(self, before: Self, elapsed: Duration) -> Duration {
        match self.is_busy {
            true => self.ran.saturating_sub(before.ran).min(elapsed),
            false => elapsed,
        }
    }

    /// Whether that is the target, but for the few pages that are no RAM.
    fn has_reached(self, kib: u64) -> bool {
        self.has_kib.abs_diff(kib) <= ROOM_KIB
    }
}

/// Waits until the guest has given or taken what it was asked for, or stops.
fn wait(host: &Host, domain: &Domain, kib: u64) -> Result<()> {
    let name = domain.shown();
    let is_terminal = std::io::stderr().is_terminal();
    let start = Instant::now();
    let first = Progress::of(host, domain.id())?;
    let (mut last, mut looked, mut still) = (first, start, Duration::ZERO);
    loop {
        let now = Progress::of(host, domain.id())?;
        if is_terminal {
            let (from, to, at) = (mib(first.has_kib), mib(kib), mib(now.has_kib));
            // What cannot be shown is not worth failing for.
            let _ = write!(std::io::stderr(), "\r{name}: {from} -> {to} MiB: {at} MiB\x1b[K");
        }
        match now.has_kib == last.has_kib {
            true => still += now.stillness(last, looked.elapsed()),
            false => still = Duration::ZERO,
        }
        (last, looked) = (now, Instant::now());
        let is_done = now.has_reached(kib);
        let patience = match first.has_kib > kib {
            _ if !now.has_begun(first) => STILL_BEFORE,
            true => STILL_GIVING,
            false => STILL,
        };
        if is_done || now.is_gone || now.is_paused || still >= patience || start.elapsed() >= LONGEST {
            if is_terminal {
                let _ = writeln!(std::io::stderr());
            }
            if is_done {
                // What it gave it cannot take back now without being asked.
                return Ok(host.xen.set_max_memory(domain.id(), kib.saturating_add(ROOM_KIB))?);
            }
            let free = host.xen.physinfo().map_or(u64::MAX, |physical| physical.free_pages * PAGE_KIB);
            let mut why = reason(first, now, kib, has_drivers(host, domain), free);
            if let Some(kib) = now.least(first, kib) {
                why = match ask(host, domain, kib) {
                    Ok(()) => {
                        format!("{why}; it is now asked to have {} MiB, so that it can go on", mib(kib))
                    }
                    Err(error) => format!("{why}; nor can it be given {} MiB to go on: {error:#}", mib(kib)),
                };
            }
            bail!("{name} was asked to have {} MiB and has {} MiB: {why}", mib(kib), mib(now.has_kib));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Why a guest did not get where it should.
fn reason(first: Progress, now: Progress, kib: u64, has_drivers: bool, free_kib: u64) -> String {
    if now.is_gone {
        return "it has ended".to_owned();
    }
    if now.is_paused {
        return "it is paused; it will follow when it runs".to_owned();
    }
    if !has_drivers && !now.has_begun(first) {
        return "its kernel has not said that it has Xen's drivers: it is still starting, or has none"
            .to_owned();
    }
    if now.has_kib > kib {
        return match now.has_begun(first) {
            true => "it has no more to give: the rest is in use, or kept by its kernel".to_owned(),
            false => "it gives nothing: all is in use, or its kernel has no balloon driver".to_owned(),
        };
    }
    if free_kib < kib - now.has_kib {
        return format!("only {} MiB are free on this host", mib(free_kib));
    }
    "it takes no more for now: it is busy or its kernel has stopped (xl console shows it), or this is more than it booted \
        with and its kernel has no memory hot-add (memhp_default_state=online on its command line)"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xenstore::daemon::with_empty_store;

    #[test]
    fn the_ceiling_changes_with_xenstore_or_not_at_all() {
        with_empty_store(|socket| {
            let store = Client::connect_to(socket).unwrap();
            store.write("/maximum", "100").unwrap();
            let ceiling = std::cell::Cell::new(100);
            let run = |is_refused: bool, body: &dyn Fn(&Transaction<'_>) -> Result<()>| {
                let set = |kib| {
                    if is_refused {
                        bail!("the hypervisor refuses");
                    }
                    ceiling.set(kib);
                    Ok(())
                };
                let done = Ceilings { before: 100, after: 200, set }.change(&store, |transaction| {
                    transaction.write("/maximum", "200")?;
                    body(transaction)
                });
                (done.is_ok(), ceiling.get(), store.read_text("/maximum").unwrap().unwrap())
            };
            assert_eq!(run(true, &|_| Ok(())), (false, 100, "100".to_owned()));
            assert_eq!(run(false, &|_| bail!("XenStore refuses")), (false, 100, "100".to_owned()));
            // Another one interferes, and the second time it is refused.
            let tries = std::cell::Cell::new(0);
            let interfere = |transaction: &Transaction<'_>| {
                transaction.read_text("/other")?;
                tries.set(tries.get() + 1);
                match tries.get() {
                    1 => Ok(store.write("/other", "x")?),
                    _ => bail!("too much"),
                }
            };
            assert_eq!(run(false, &interfere), (false, 100, "100".to_owned()));
            assert_eq!(tries.get(), 2);
            assert_eq!(run(false, &|_| Ok(())), (true, 200, "200".to_owned()));
        });
    }

    fn at(mib: u64) -> Progress {
        Progress { has_kib: mib << 10, ran: Duration::ZERO, is_busy: false, is_paused: false, is_gone: false }
    }

    #[test]
    fn a_few_pages_more_are_no_difference() {
        assert!(at(128).has_reached(128 << 10));
        assert!(Progress { has_kib: (128 << 10) + 16, ..at(0) }.has_reached(128 << 10));
        assert!(!at(130).has_reached(128 << 10));
        assert!(!at(126).has_reached(128 << 10));
    }

    #[test]
    fn a_guest_without_a_cpu_does_not_stand_still() {
        let second = Duration::from_secs(1);
        let busy = |millis| Progress { ran: Duration::from_millis(millis), is_busy: true, ..at(256) };
        assert_eq!(at(256).stillness(at(256), second), second);
        assert_eq!(busy(100).stillness(busy(100), second), Duration::ZERO);
        assert_eq!(busy(400).stillness(busy(100), second), Duration::from_millis(300));
        assert_eq!(busy(9000).stillness(busy(100), second), second);
    }

    #[test]
    fn a_guest_that_gave_all_gets_a_little_back() {
        assert_eq!(at(115).least(at(256), 20 << 10), Some(131 << 10));
        assert_eq!(Progress { has_kib: (115 << 10) + 16, ..at(0) }.least(at(256), 20 << 10), Some(132 << 10));
        assert_eq!(at(250).least(at(256), 20 << 10), Some(256 << 10));
        // A guest has its ring pages beside its RAM, which may be all that it can have.
        let booted = Progress { has_kib: (512 << 10) + 4, ..at(0) };
        assert_eq!(at(510).least(booted, 128 << 10), Some(512 << 10));
        assert_eq!(at(512).least(booted, 128 << 10), None);
        // It gave nothing, or all it should, or it is to take.
        assert_eq!(at(256).least(at(256), 20 << 10), None);
        assert_eq!(at(20).least(at(256), 20 << 10), None);
        assert_eq!(at(115).least(at(100), 256 << 10), None);
        assert_eq!(Progress { is_paused: true, ..at(115) }.least(at(256), 20 << 10), None);
    }

    #[test]
    fn a_guest_that_stops_has_a_reason() {
        let why = |first: u64, now: Progress, wanted: u64, drivers, free: u64| {
            reason(at(first), now, wanted << 10, drivers, free << 10)
        };
        assert!(why(256, at(119), 20, true, 900).contains("no more to give"));
        assert!(why(256, at(256), 20, true, 900).contains("gives nothing"));
        assert!(why(256, at(256), 20, false, 900).contains("Xen's drivers"));
        // What gives has a balloon, whatever it said.
        assert!(why(256, at(119), 20, false, 900).contains("no more to give"));
        assert!(why(256, at(256), 512, true, 900).contains("hot-add"));
        assert!(why(256, at(256), 512, true, 100).contains("only 100 MiB are free"));
        assert!(why(256, Progress { is_paused: true, ..at(256) }, 128, true, 900).contains("paused"));
        assert!(why(256, Progress { is_gone: true, ..at(0) }, 128, true, 900).contains("ended"));
    }
}
