//! What the daemon does to the host: looking at the hypervisor, reading XenStore, setting targets as `xl mem-set` does.

use memory_policy::{Kib, Millis};
use pv_abi::domctl::{GetDomainInfo, XEN_DOMINF_DYING};
use pv_abi::domid::DomId;
use pv_abi::features::XENFEAT_NOT_DIRECT_MAPPED;
use rustix::io::Errno;

use crate::domain::store::{home, memory_settings};
use crate::memoryd::core::{Action, HostFacts, Setup};
use crate::memoryd::member::{Facts, Stored};
use crate::memoryd::settings::{Balance, Settings};
use crate::memoryd::speeds::{self, Speeds};
use crate::memoryd::view::MappingView;
use crate::privcmd::{self, Privcmd};
use crate::uuid::Uuid;
use crate::xenstore::{self, Client, Nodes};

/// Beyond its RAM a domain has a few pages: rings for console and XenStore. libxl leaves room for them, too.
const ROOM_KIB: u64 = 1024;
const PAGE_KIB: u64 = 4;

fn kib(pages: u64) -> Kib {
    Kib::new(pages.saturating_mul(PAGE_KIB))
}

/// What this hypervisor can do.
pub(super) fn setup(xen: &Privcmd, reserve_mib: Option<u64>) -> privcmd::Result<Setup> {
    let total = kib(xen.physinfo()?.total_pages);
    let default = total.part(1, 64).max(Kib::mib(16)).min(Kib::mib(256));
    Ok(Setup {
        keeps_targets: xen.memory_target(DomId::DOM0)?.is_some(),
        estimates: matches!(xen.working_set(DomId::DOM0, 0), Ok(Some(_))),
        moves_dom0: xen.features()? & 1 << XENFEAT_NOT_DIRECT_MAPPED != 0,
        reserve: reserve_mib.map_or(default, Kib::mib),
    })
}

/// The host, and all domains that are not going away.
pub(super) fn look(xen: &Privcmd) -> privcmd::Result<(HostFacts, Vec<GetDomainInfo>)> {
    let host = xen.physinfo()?;
    let facts = HostFacts {
        total: kib(host.total_pages),
        free: kib(host.free_pages),
        promised: kib(host.outstanding_pages),
    };
    let mut domains = xen.domains(DomId::DOM0)?;
    domains.retain(|info| info.flags & XEN_DOMINF_DYING == 0);
    Ok((facts, domains))
}

/// One of them; its target only if that is asked for. What cannot be asked is taken for not there: it may be gone.
pub(super) fn facts(xen: &Privcmd, info: &GetDomainInfo, with_target: bool) -> Facts {
    let kept = if with_target { xen.memory_target(info.domain).unwrap_or(None) } else { None };
    Facts {
        id: info.domain,
        handle: info.handle,
        assigned: kib(info.tot_pages),
        untouched: kept.map_or(Kib::ZERO, |kept| kib(kept.unbacked.saturating_sub(kept.reserved))),
        ceiling: kib(info.max_pages),
        target: kept.map(|kept| kib(kept.target)),
    }
}

/// How its memory is mapped, if the hypervisor tells.
pub(super) fn mapping(xen: &Privcmd, id: DomId) -> Option<MappingView> {
    let counters = xen.memory_counters(id).ok()??;
    Some(MappingView {
        splits: counters.splits,
        merges: counters.merges,
        tlb_invalidations: counters.invalidations,
        blocks_2m: counters.blocks_2m,
        pages_4k: counters.pages_4k,
    })
}

/// What is known of a domain that XenStore says nothing of: it has what it has.
pub(super) fn unstored(info: &GetDomainInfo) -> Stored {
    let kib = info.tot_pages.saturating_mul(PAGE_KIB).max(PAGE_KIB);
    let settings = Settings { startup_kib: kib, maximum_kib: kib, balance: Balance::default() };
    let name = if info.domain == DomId::DOM0 { "Domain-0".to_owned() } else { info.domain.raw().to_string() };
    Stored { name, settings: settings.for_policy(), target: None, age: None, speeds: Speeds::default() }
}

/// What XenStore says of a domain. `since_1970` is the time, in seconds.
pub(super) fn stored(store: &Client, info: &GetDomainInfo, since_1970: f64) -> xenstore::Result<Stored> {
    let home = home(info.domain);
    let vm = format!("/vm/{}", Uuid(info.handle));
    let nodes = [
        format!("{home}/name"),
        format!("{home}/memory/target"),
        format!("{vm}/start_time"),
        format!("{home}/{}", speeds::NODE),
    ];
    let mut texts = store.read_texts(&nodes)?.into_iter();
    let mut next = || texts.next().flatten();
    let mut stored = unstored(info);
    stored.name = next().unwrap_or(stored.name);
    stored.target = next().and_then(|text| number(&text)).map(Kib::new);
    stored.age = next().and_then(|text| age(&text, since_1970));
    stored.speeds = next().map_or_else(Speeds::default, |text| Speeds::parse(&text));
    if let Some(settings) = memory_settings(store, info.domain)? {
        stored.settings = settings.for_policy();
    }
    Ok(stored)
}

/// A node's number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// How long ago a time since 1970 was; `None` for one that was not, as the clock has been set since.
fn age(start: &str, since_1970: f64) -> Option<Millis> {
    let start: f64 = start.trim().parse().ok()?;
    let seconds = since_1970 - start;
    // Ten years: longer than any domain's life, and the clock was wrong when it was made.
    (0.0..3.2e8).contains(&seconds).then(|| Millis::new((seconds * 1000.0) as u64))
}

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotDone {
    /// The hypervisor refused: there is not enough memory, or the domain is gone.
    #[error(transparent)]
    Hypervisor(#[from] privcmd::Error),
    /// XenStore refused, or is away.
    #[error(transparent)]
    Store(#[from] xenstore::Error),
}

impl NotDone {
    /// Whether that happens and needs no word: the domain is gone, or somebody took the memory first.
    pub(super) fn is_usual(&self) -> bool {
        match self {
            Self::Hypervisor(error) => error.is(Errno::SRCH) || error.is(Errno::NOMEM),
            Self::Store(_) => false,
        }
    }
}

/// Does it. The hypervisor first, which may refuse; then the guest. Whoever is killed between the two leaves what
/// [`Action::Tell`] puts right.
pub(super) fn act(xen: &Privcmd, store: &Client, action: Action, facts: &Facts) -> Result<(), NotDone> {
    match action {
        Action::Target { id, to, .. } => {
            let ceiling = to.get().saturating_add(ROOM_KIB);
            // Before the guest hears of it, it must be allowed to have it.
            if facts.ceiling.get() < ceiling {
                xen.set_max_memory(id, ceiling)?;
            }
            if xen.set_memory_target(id, to.get() / PAGE_KIB)?.is_none() {
                // Xen on Arm has no targets: the ceiling is all that it knows.
                xen.set_max_memory(id, ceiling)?;
            }
            tell(store, id, to, facts)
        }
        Action::Ceiling { id, to } => Ok(xen.set_max_memory(id, to.get())?),
        Action::Tell { id, target } => tell(store, id, target, facts),
        Action::Remember { id, speeds } => {
            store.write_below(&home(id), speeds::NODE, speeds.text())?;
            Ok(())
        }
    }
}

fn tell(store: &Client, id: DomId, target: Kib, facts: &Facts) -> Result<(), NotDone> {
    // One that is gone needs no word.
    store.write_below(&home(id), "memory/target", target.get().to_string())?;
    // As libxl does; nothing depends on it.
    store.write_below(&format!("/vm/{}", Uuid(facts.handle)), "memory", (target.get() >> 10).to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_believed_within_reason() {
        assert_eq!(age("1000.50", 1002.0), Some(Millis::new(1500)));
        for bad in ["2000.0", "x", "nan", "inf", "-1e300", ""] {
            assert_eq!(age(bad, 1002.0), None, "{bad}");
        }
    }

    #[test]
    fn a_domain_that_nobody_describes_keeps_what_it_has() {
        let info = GetDomainInfo { domain: DomId::new(4), tot_pages: 256, ..GetDomainInfo::default() };
        let stored = unstored(&info);
        assert_eq!((stored.name.as_str(), stored.settings.maximum), ("4", Kib::mib(1)));
        assert!(!stored.settings.balanced);
    }
}
