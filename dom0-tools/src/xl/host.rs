//! What every command works with: the hypervisor, XenStore once a command asks for it, and domains with their names.

use std::cell::OnceCell;

use anyhow::{Context, Result, anyhow, bail};
use pv_abi::domctl::GetDomainInfo;
use pv_abi::domid::DomId;

use crate::config::suggestion;
use crate::privcmd::Privcmd;
use crate::uuid::Uuid;
use crate::xenstore::{Client, Nodes, Transaction};

/// dom0's name, where XenStore does not know another.
const DOM0: &str = "Domain-0";

/// What helps where XenStore does not answer.
const START: &str = "start it with: xencommons start (Debian: /etc/init.d/xen start)";

/// The ways to the hypervisor and to XenStore.
pub(super) struct Host {
    pub(super) xen: Privcmd,
    store: OnceCell<std::result::Result<Client, String>>,
}

/// A domain, and what it is called.
#[derive(Clone)]
pub(super) struct Domain {
    pub(super) info: GetDomainInfo,
    pub(super) name: Option<String>,
}

impl Domain {
    pub(super) fn id(&self) -> DomId {
        self.info.domain
    }

    /// Its name, for a table.
    pub(super) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or("(null)")
    }

    pub(super) fn uuid(&self) -> Uuid {
        Uuid(self.info.handle)
    }

    /// Its place in XenStore.
    pub(super) fn path(&self) -> String {
        format!("/local/domain/{}", self.id().raw())
    }

    /// Sets one of its nodes in XenStore.
    ///
    /// # Errors
    /// XenStore's; that it is gone meanwhile.
    pub(super) fn write(
        &self,
        store: &Transaction<'_>,
        node: &str,
        value: impl std::fmt::Display,
    ) -> Result<()> {
        match store.write_below(&self.path(), node, value.to_string())? {
            true => Ok(()),
            false => bail!("{} is gone: XenStore has no {}", self.shown(), self.path()),
        }
    }
}

impl Host {
    /// # Errors
    /// There is no way to the hypervisor.
    pub(super) fn open() -> Result<Self> {
        Ok(Self { xen: Privcmd::open()?, store: OnceCell::new() })
    }

    fn connection(&self) -> &std::result::Result<Client, String> {
        self.store.get_or_init(|| Client::connect().map_err(|error| error.to_string()))
    }

    /// XenStore, for a command that cannot do without it.
    ///
    /// # Errors
    /// No daemon answers: what is to be done about it.
    pub(super) fn store(&self) -> Result<&Client> {
        self.connection().as_ref().map_err(|error| anyhow!("{error}; {START}"))
    }

    /// XenStore, for a command that says more with it.
    pub(super) fn store_if_any(&self) -> Option<&Client> {
        self.connection().as_ref().ok()
    }

    /// A node's text, if there are XenStore and the node.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        self.store_if_any()?.read_text(path).ok()?
    }

    /// A node's number, if there are XenStore and the node.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }

    /// The host's memory, if the hypervisor tells.
    pub(super) fn memory_kib(&self) -> Option<u64> {
        Some(self.xen.physinfo().ok()?.total_pages.saturating_mul(4))
    }

    fn named(&self, info: GetDomainInfo) -> Domain {
        let kept = self.text(&format!("/local/domain/{}/name", info.domain.raw()));
        Domain { info, name: name_of(info.domain, kept) }
    }

    /// All domains.
    ///
    /// # Errors
    /// The hypervisor's.
    pub(super) fn domains(&self) -> Result<Vec<Domain>> {
        let all = self.xen.domains(DomId::DOM0)?;
        let names = self
            .store_if_any()
            .and_then(|store| crate::domain::store::names(store, all.iter().map(|info| info.domain)).ok());
        let names = names.unwrap_or_else(|| vec![None; all.len()]);
        Ok(all
            .into_iter()
            .zip(names)
            .map(|(info, name)| Domain { info, name: name_of(info.domain, name) })
            .collect())
    }

    /// The domain of that number.
    ///
    /// # Errors
    /// The hypervisor's.
    pub(super) fn domain(&self, id: DomId) -> Result<Option<Domain>> {
        Ok(self.xen.domain(id)?.map(|info| self.named(info)))
    }

    /// The number that a user means: a number, whether or not there is such a domain, or a domain's name.
    ///
    /// # Errors
    /// In xl's words: no domain has that name; with one that has a similar one.
    pub(super) fn parse(&self, given: &str) -> Result<DomId> {
        if let Some(number) = number(given) {
            return Ok(number);
        }
        let domains = self.domains()?;
        if let Some(found) = domains.iter().find(|domain| domain.name.as_deref() == Some(given)) {
            return Ok(found.id());
        }
        let near = suggestion(given, domains.iter().filter_map(|domain| domain.name.as_deref()));
        bail!("{given} is an invalid domain identifier (rc=-6){near}{}", self.names_hint())
    }

    /// Why a name may not be known: a line of its own, or nothing.
    pub(super) fn names_hint(&self) -> String {
        let hint = |error: &String| format!("\nNames are not known: {error}; {START}");
        self.connection().as_ref().err().map_or(String::new(), hint)
    }

    /// The domain that a user means.
    ///
    /// # Errors
    /// There is none of that name or number.
    pub(super) fn find(&self, given: &str) -> Result<Domain> {
        let id = self.parse(given)?;
        self.domain(id)?.with_context(|| format!("Error: Domain '{given}' does not exist."))
    }

    /// The domains that a user means; all, if none is named.
    ///
    /// # Errors
    /// One of them does not exist.
    pub(super) fn find_all(&self, given: &[String]) -> Result<Vec<Domain>> {
        match given {
            [] => self.domains(),
            given => given.iter().map(|given| self.find(given)).collect(),
        }
    }

    /// A CPU pool's name.
    pub(super) fn pool_name(&self, id: u32) -> String {
        self.text(&format!("/local/pool/{id}/name")).unwrap_or_else(|| format!("Pool-{id}"))
    }
}

/// A domain's name: as XenStore has it; dom0 has one without.
fn name_of(id: DomId, kept: Option<String>) -> Option<String> {
    kept.or_else(|| (id == DomId::DOM0).then(|| DOM0.to_owned()))
}

/// A domain's number, if it is one.
pub(super) fn number(given: &str) -> Option<DomId> {
    let is_number = !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { given.parse().ok().map(DomId::new).filter(|id| id.is_domain()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_names() {
        assert_eq!(number("0"), Some(DomId::DOM0));
        assert_eq!(number("17"), Some(DomId::new(17)));
        for bad in ["", "nosuch", "-1", "0x1", "70000", "32752", "Domain-0"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_domain_without_a_name_is_shown_as_xl_does() {
        let mut domain = Domain { info: GetDomainInfo::default(), name: None };
        assert_eq!(domain.shown(), "(null)");
        domain.name = Some("g1".to_owned());
        assert_eq!((domain.shown(), domain.path().as_str()), ("g1", "/local/domain/0"));
    }
}
