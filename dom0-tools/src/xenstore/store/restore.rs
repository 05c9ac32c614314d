//! Writing the whole store down, and starting again from what was written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pv_abi::domid::DomId;

use super::record::Record;
use super::transaction::Transaction;
use super::tree::Edit;
use super::watches::Watch;
use super::{ClientId, Domain, Host, Store};
use crate::xenstore::path;

type FormerWatch = (Arc<str>, Arc<[u8]>, bool, Option<usize>);

/// What was written of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Former {
    pub gfn: u64,
    pub port: u32,
    target: Option<DomId>,
    /// Path, token, whether the path was given as a relative one, depth.
    watches: Vec<FormerWatch>,
    transactions: BTreeSet<u32>,
    ended: u32,
    /// Indices up to which requests were taken, and what of the last one was taken then.
    pub input: Vec<(u32, Arc<[u8]>)>,
    /// The index from which on these bytes were to be put.
    pub output: Option<(u32, Arc<[u8]>)>,
}

impl Store {
    /// All that is to be kept, as records. What concerns the rings' bytes is not here.
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = Vec::new();
        self.tree.root().walk("/", &mut |path, node| {
            let (value, permissions) = (Arc::clone(&node.value), Arc::clone(&node.permissions));
            records.push(Record::Node { path: path.into(), value, permissions });
        });
        for (which, permissions) in self.special.iter().enumerate() {
            records.push(Record::Special { which: which as u8, permissions: Arc::clone(permissions) });
        }
        for (&domain, &Domain { client: id, gfn, port, .. }) in &self.domains {
            records.push(Record::Introduced { domain, gfn, port });
            let Some(client) = self.clients.get(&id) else { continue };
            if let Some(target) = client.who.target {
                records.push(Record::Target { domain, target });
            }
            for watch in client.watches.iter().filter_map(|&watch| self.watches.get(watch)) {
                records.push(Record::Watched {
                    domain,
                    path: Arc::clone(&watch.path),
                    token: Arc::clone(&watch.token),
                    relative: watch.skip > 0,
                    depth: watch.depth,
                });
            }
            for &number in client.transactions.keys() {
                records.push(Record::Started { domain, number });
            }
            records.push(Record::Ended { domain, number: client.ended, before: 0 });
        }
        records
    }

    /// Fills a new store with the nodes of `records`. What they say of domains, for [`Self::resume_domain`].
    pub fn restore(&mut self, records: Vec<Record>) -> BTreeMap<DomId, Former> {
        let mut domains = BTreeMap::<DomId, Former>::new();
        for record in records {
            match record {
                Record::Node { path, value, permissions } => {
                    if permissions.is_empty() || !path::is_valid(&path, usize::MAX) {
                        continue;
                    }
                    let edits =
                        [Edit::Write(Arc::clone(&path), value), Edit::SetPermissions(path, permissions)];
                    self.change(&edits, None);
                }
                Record::Removed { path } => self.change(&[Edit::Remove(path)], None),
                Record::Special { which, permissions } => self.restore_special(which, permissions),
                Record::Introduced { domain, gfn, port } => {
                    domains.insert(domain, Former { gfn, port, ..Former::default() });
                }
                Record::Released { domain } => {
                    domains.remove(&domain);
                }
                Record::Target { domain, .. }
                | Record::Watched { domain, .. }
                | Record::Unwatched { domain, .. }
                | Record::Started { domain, .. }
                | Record::Ended { domain, .. }
                | Record::Reset { domain }
                | Record::Input { domain, .. }
                | Record::Output { domain, .. } => {
                    if let Some(former) = domains.get_mut(&domain) {
                        former.apply(record);
                    }
                }
            }
        }
        domains
    }

    /// Connects again to a domain that was connected before. Its watches fire once, in case an event was lost; its
    /// transactions cannot succeed any more.
    ///
    /// # Errors
    /// Those of [`Host::introduce`].
    pub fn resume_domain(
        &mut self,
        id: DomId,
        former: &Former,
        host: &mut impl Host,
    ) -> Result<ClientId, pv_abi::Errno> {
        let Former { gfn, port, .. } = *former;
        let client = self.connect(id, true);
        self.domains.insert(id, Domain { client, gfn, port, shut_down: false });
        host.introduce(client, id, gfn, port)?;
        self.record(client, |domain| Record::Introduced { domain, gfn, port });
        if let Some(target) = former.target {
            self.target(client, target);
        }
        for (path, token, relative, depth) in &former.watches {
            let skip = if *relative { path::home(id).len() } else { 0 };
            let (path, token) = (Arc::clone(path), Arc::clone(token));
            let watch = Watch { client, path, token, skip, depth: *depth, missed: true };
            self.accounts.entry(id).or_default().bytes += watch.charge();
            self.add_watch(client, watch);
        }
        let mut charge = 0;
        if let Some(found) = self.clients.get_mut(&client) {
            found.missed = true;
            found.resumed = true;
            found.ended = former.ended;
            for &number in &former.transactions {
                let transaction = Transaction::stale(&self.tree);
                charge += transaction.charge;
                found.transactions.insert(number, Box::new(transaction));
                found.next_transaction = found.next_transaction.max(number.wrapping_add(1));
            }
        }
        self.accounts.entry(id).or_default().bytes += charge;
        Ok(client)
    }
}

impl Former {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Target { target, .. } => self.target = Some(target),
            Record::Watched { path, token, relative, depth, .. } => {
                self.watches.push((path, token, relative, depth));
            }
            Record::Unwatched { path, token, .. } => {
                self.watches.retain(|(known, of, ..)| *known != path || *of != token);
            }
            Record::Started { number, .. } => {
                self.transactions.insert(number);
            }
            Record::Ended { number, before, .. } => {
                self.transactions.remove(&before);
                self.ended = number;
            }
            Record::Reset { .. } => {
                self.watches.clear();
                self.transactions.clear();
                self.input.clear();
                self.output = None;
            }
            Record::Input { consumed, bytes, .. } => self.input.push((consumed, bytes)),
            Record::Output { produced, bytes, .. } => self.output = Some((produced, bytes)),
            // Not of one domain's own.
            Record::Node { .. }
            | Record::Removed { .. }
            | Record::Introduced { .. }
            | Record::Released { .. }
            | Record::Special { .. } => {}
        }
    }
}
