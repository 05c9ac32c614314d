//! What all domains always have together, which the host must be able to hold.
//!
//! ```text
//!   0 ┌──────────────┬──────────────────────────┬───────────────┬─────────── total
//!     │ hypervisor   │ what others always have  │ this domain's │ left
//!     └──────────────┴──────────────────────────┴───────────────┴───────────
//! ```
//! A balanced domain always has its minimum, one that is left alone what it has and was promised. The sum is made in the
//! XenStore transaction that changes it: it rests on everything it was made of, the list of domains included, so that of two
//! tools that ask for the last memory one starts anew and sees what the other took.

use memory_policy::Kib;
use pv_abi::domctl::XEN_DOMINF_DYING;
use pv_abi::domid::DomId;

use super::store::{children, home};
use crate::privcmd::{self, Privcmd};
use crate::xenstore::{Nodes, Result as StoreResult, Transaction};

const PAGE_KIB: u64 = 4;
/// Domains that a refusal names.
const NAMED: usize = 3;

/// A domain, and what it has and was promised.
pub type Holding = (DomId, Kib);

/// The host's memory as the hypervisor counts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// All of it.
    pub total: Kib,
    /// What is no domain's and not free: the hypervisor's own, page tables, domains that are going away.
    pub hypervisor: Kib,
    /// The domains.
    pub domains: Vec<Holding>,
}

impl HostMemory {
    /// Asks the hypervisor. `reserve` counts as the hypervisor's.
    ///
    /// # Errors
    /// [`privcmd::Error`].
    pub fn look(xen: &Privcmd, reserve: Kib) -> privcmd::Result<Self> {
        let kib = |pages: u64| Kib::new(pages.saturating_mul(PAGE_KIB));
        let free = || {
            let host = xen.physinfo()?;
            Ok((kib(host.total_pages), kib(host.free_pages) - kib(host.outstanding_pages)))
        };
        // Memory moves meanwhile. What is counted twice or never is counted as the hypervisor's.
        let (total, before) = free()?;
        let mut domains = xen.domains(DomId::DOM0)?;
        let (_, after) = free()?;
        domains.retain(|info| info.flags & XEN_DOMINF_DYING == 0);
        let domains: Vec<Holding> = domains
            .iter()
            .map(|info| (info.domain, kib(info.tot_pages) + kib(info.outstanding_pages)))
            .collect();
        let held = domains.iter().map(|(_, holds)| *holds).sum();
        Ok(Self { total, hypervisor: total - before.min(after) - held + reserve, domains })
    }

    /// What a domain has and was promised.
    pub fn held_by(&self, domain: DomId) -> Kib {
        self.domains.iter().find(|(id, _)| *id == domain).map_or(Kib::ZERO, |(_, holds)| *holds)
    }

    /// Whether a domain can always have `after`, beside the others. `before` is what it has always had: it may have less of
    /// that at any time.
    ///
    /// # Errors
    /// [`Refusal`], which is to end the transaction.
    pub fn check(
        &self,
        store: &Transaction<'_>,
        domain: DomId,
        before: Kib,
        after: Kib,
    ) -> Result<(), Refusal> {
        if after <= before {
            return Ok(());
        }
        // Whoever registers a domain meanwhile has seen what this one had before.
        children(store, "/local/domain")?;
        let others: Vec<Holding> = self.domains.iter().copied().filter(|(id, _)| *id != domain).collect();
        let mut floors = floors(store, &others)?;
        let sum: Kib = floors.iter().map(|(_, floor)| *floor).sum();
        let left = self.total - self.hypervisor - sum;
        if after <= left {
            return Ok(());
        }
        floors.sort_by_key(|(_, floor)| std::cmp::Reverse(*floor));
        floors.truncate(NAMED);
        let names = store.read_texts(&paths(&floors, "name"))?;
        let named = floors.iter().zip(names).map(|((id, floor), name)| {
            let name = name.unwrap_or_else(|| id.raw().to_string());
            format!("{name} {floor}")
        });
        let most = named.collect::<Vec<_>>().join(", ");
        let (total, hypervisor) = (self.total, self.hypervisor);
        Err(TooMuch { asked: after, total, hypervisor, others: sum, most, left }.into())
    }
}

fn paths(domains: &[Holding], node: &str) -> Vec<String> {
    domains.iter().map(|(id, _)| format!("{}/{node}", home(*id))).collect()
}

/// What each of the domains always has.
fn floors(store: &Transaction<'_>, domains: &[Holding]) -> StoreResult<Vec<Holding>> {
    let mut policies = store.read_texts(&paths(domains, "memory/policy"))?.into_iter();
    let mut is_on = |_: &Holding| policies.next().flatten().is_some_and(|text| text.trim() == "1");
    let (balanced, mut floors): (Vec<Holding>, Vec<Holding>) = domains.iter().copied().partition(&mut is_on);
    let minimums = store.read_texts(&paths(&balanced, "memory/minimum"))?;
    floors.extend(balanced.into_iter().zip(minimums).map(|((id, holds), minimum)| {
        // Where the node makes no sense, nobody said that it may have less than it has.
        let minimum = minimum.and_then(|text| text.trim().parse().ok()).map(Kib::new);
        (id, minimum.unwrap_or(holds))
    }));
    Ok(floors)
}

/// Why a domain cannot always have so much.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is not so much memory.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// XenStore's.
    #[error(transparent)]
    Store(#[from] crate::xenstore::Error),
}

/// The figures of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it cannot always have {asked}: of this host's {total} others always have {others} ({most}) and the hypervisor needs \
     {hypervisor}, so {left} are left; say less, or first lower another's: xl memory NAME minimum=N (balanced), xl mem-set NAME N"
)]
pub struct TooMuch {
    /// What it was to have.
    pub asked: Kib,
    /// What the host has.
    pub total: Kib,
    /// What the hypervisor needs of that.
    pub hypervisor: Kib,
    /// What the other domains always have.
    pub others: Kib,
    /// Which of them have most.
    pub most: String,
    /// What is left of it all.
    pub left: Kib,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::xenstore::Client;
    use crate::xenstore::daemon::with_empty_store;

    const WEB: DomId = DomId::new(3);
    const MAIL: DomId = DomId::new(4);
    const NEW: DomId = DomId::new(5);

    /// A host of 2 GiB, of which the hypervisor needs 48 MiB, dom0 has 500 MiB, and each guest 256 MiB.
    fn host() -> HostMemory {
        let domains = [(DomId::DOM0, 500), (WEB, 256), (MAIL, 256)];
        let domains = domains.map(|(id, mib)| (id, Kib::mib(mib))).to_vec();
        HostMemory { total: Kib::mib(2048), hypervisor: Kib::mib(48), domains }
    }

    fn fill(socket: &Path) -> Client {
        let store = Client::connect_to(socket).unwrap();
        store.write("/local/domain/0/name", "Domain-0").unwrap();
        for (id, name) in [(WEB, "web"), (MAIL, "mail")] {
            store.write(&format!("{}/name", home(id)), name).unwrap();
            store.write(&format!("{}/memory/policy", home(id)), "1").unwrap();
            set_minimum(&store, id, 100);
        }
        store
    }

    fn set_minimum(nodes: &impl Nodes, id: DomId, mib: u64) {
        nodes.write(&format!("{}/memory/minimum", home(id)), (mib << 10).to_string()).unwrap();
    }

    /// What `xl memory ID minimum=MIB` does, `meanwhile` something else happens.
    fn raise(store: &Client, id: DomId, mib: u64, mut meanwhile: impl FnMut()) -> Result<(), Refusal> {
        store.transaction(|transaction| {
            host().check(transaction, id, Kib::mib(100), Kib::mib(mib))?;
            meanwhile();
            set_minimum(transaction, id, mib);
            Ok(())
        })
    }

    #[test]
    fn the_host_holds_all_minimums_or_says_who_has_what() {
        with_empty_store(|socket| {
            let store = fill(socket);
            assert!(raise(&store, WEB, 1400, || {}).is_ok());
            let refused = raise(&store, WEB, 1401, || {}).unwrap_err().to_string();
            assert_eq!(
                refused,
                "it cannot always have 1401 MiB: of this host's 2048 MiB others always have 600 MiB (Domain-0 500 MiB, \
                 mail 100 MiB) and the hypervisor needs 48 MiB, so 1400 MiB are left; say less, or first lower another's: \
                 xl memory NAME minimum=N (balanced), xl mem-set NAME N"
            );
            // One that is left alone keeps what it has, and so does one of which XenStore makes no sense.
            store.write(&format!("{}/memory/policy", home(MAIL)), "0").unwrap();
            assert!(raise(&store, WEB, 1400, || {}).unwrap_err().to_string().contains("1244 MiB are left"));
            store.write(&format!("{}/memory/policy", home(MAIL)), "1").unwrap();
            store.write(&format!("{}/memory/minimum", home(MAIL)), "lots").unwrap();
            assert!(raise(&store, WEB, 1400, || {}).unwrap_err().to_string().contains("1244 MiB are left"));
            // Less is always possible, whatever the others have.
            assert!(raise(&store, WEB, 99, || {}).is_ok());
        });
    }

    #[test]
    fn two_that_ask_for_the_last_memory_do_not_both_get_it() {
        with_empty_store(|socket| {
            let store = fill(socket);
            let other = Client::connect_to(socket).unwrap();
            let mut tries = 0;
            let refused = raise(&store, WEB, 1000, || {
                tries += 1;
                if tries == 1 {
                    raise(&other, MAIL, 1000, || {}).unwrap();
                }
            });
            assert!(refused.unwrap_err().to_string().contains("500 MiB are left"));
            assert_eq!(tries, 1);
            assert_eq!(store.read_text(&format!("{}/memory/minimum", home(WEB))).unwrap().unwrap(), "102400");
            // A domain that is registered meanwhile, of which the hypervisor had not told.
            set_minimum(&store, MAIL, 100);
            let mut tries = 0;
            raise(&store, WEB, 1000, || {
                tries += 1;
                if tries == 1 {
                    other.write(&format!("{}/name", home(NEW)), "new").unwrap();
                }
            })
            .unwrap();
            assert_eq!(tries, 2);
        });
    }
}
