//! The store without its surroundings: requests go in, answers and events come out. No file, no socket, no clock.
//!
//! | file | idea |
//! | --- | --- |
//! | `tree`, `children` | nodes that share what did not change, so that a copy of the whole is cheap |
//! | `nodes` | reading and changing nodes: names, permissions, limits |
//! | `transaction` | changes on a copy, and whether they conflict |
//! | `watches` | who hears of what |
//! | `domains` | domains that come and go |
//! | `quota` | what a domain may use |
//! | `outbox` | what waits to be sent |
//! | `control` | requests to the daemon itself |
//! | `record`, `restore` | changes as bytes, and starting again from them |

mod children;
mod control;
pub(super) mod domains;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod model;
mod nodes;
pub(super) mod outbox;
pub(super) mod quota;
pub(super) mod record;
pub(super) mod restore;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transaction;
pub(super) mod tree;
mod watches;

use std::collections::BTreeMap;
use std::sync::Arc;

use pv_abi::Errno;
use pv_abi::domid::{DOMID_SELF, DomId};
use pv_abi::xs_wire::{MessageType, SockMsg, XENSTORE_PAYLOAD_MAX};

use super::path;
use super::permissions::{Access, Permission};
use super::wire::{self, Message};
use outbox::Outbox;
use quota::{Account, Quotas};
use record::Record;
use transaction::Transaction;
use tree::{Tree, Who};
use watches::{WatchId, Watches};

/// A client's number.
pub type ClientId = u32;

/// Events that wait for one unprivileged client, in bytes: beyond, it later gets one event for each watch that missed some.
const EVENTS: usize = 64 * 1024;
/// The same for dom0's tools.
const EVENTS_OF_TOOLS: usize = 4 * 1024 * 1024;
/// Changes of the tree after which an unprivileged client's transaction cannot succeed any more, so that it does not keep
/// old states for ever.
const LONG_AGO: u64 = 2000;

/// What the store needs of the world around it.
pub trait Host {
    /// Connects to a domain's ring and event channel, or to another event channel if the ring is connected already.
    ///
    /// # Errors
    /// As the protocol answers it.
    fn introduce(&mut self, client: ClientId, domain: DomId, gfn: u64, port: u32) -> Result<()>;

    /// The ring is to be empty, and told to be connected.
    fn reset(&mut self, client: ClientId);

    /// Lets go of the ring and event channel.
    fn release(&mut self, client: ClientId);

    /// A command to the daemon that does not concern the store; `None`: no such command.
    fn control(&mut self, command: &str, arguments: &[&str]) -> Option<Result<String>>;
}

/// Somebody who makes requests.
#[derive(Debug)]
pub struct Client {
    who: Who,
    /// Its requests come through a ring.
    ring: bool,
    /// Where its relative paths begin.
    home: String,
    watches: Vec<WatchId>,
    transactions: BTreeMap<u32, Box<Transaction>>,
    next_transaction: u32,
    /// One of its watches missed an event.
    missed: bool,
    /// It was here before a restart, and its next request may be one that was half done then.
    resumed: bool,
    /// The transaction that ended last.
    ended: u32,
    /// What waits to be sent to it.
    pub outbox: Outbox,
}

/// A domain with a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    pub client: ClientId,
    pub gfn: u64,
    pub port: u32,
    /// It shut down, and that was told.
    shut_down: bool,
}

/// A good answer.
enum Answer {
    Ok,
    Bytes(Vec<u8>),
    Value(Arc<[u8]>),
}

type Result<T> = std::result::Result<T, Errno>;

/// The store.
#[derive(Debug)]
pub struct Store {
    tree: Tree,
    clients: BTreeMap<ClientId, Client>,
    last_client: ClientId,
    domains: BTreeMap<DomId, Domain>,
    watches: Watches,
    accounts: BTreeMap<DomId, Account>,
    /// Who may hear of domains that come (0) and go (1).
    special: [Arc<[Permission]>; 2],
    /// The limits.
    pub quotas: Quotas,
    /// Nodes of a domain that is gone become dom0's.
    pub keep_orphans: bool,
    /// Clients to whom something is to be sent.
    pub dirty: Vec<ClientId>,
    /// Changes to write down, if anybody does.
    pub records: Option<Vec<Record>>,
    /// Things to tell the administrator.
    pub messages: Vec<String>,
}

impl Store {
    /// A store with the nodes that always are there.
    pub fn new() -> Self {
        let nobody: Arc<[Permission]> = [Permission::new(DomId::DOM0, Access::None)].into();
        let mut store = Self {
            tree: Tree::new(),
            clients: BTreeMap::new(),
            last_client: 0,
            domains: BTreeMap::new(),
            watches: Watches::default(),
            accounts: BTreeMap::from([(DomId::DOM0, Account { nodes: 1, ..Account::default() })]),
            special: [Arc::clone(&nobody), nobody],
            quotas: Quotas::default(),
            keep_orphans: false,
            dirty: Vec::new(),
            records: None,
            messages: Vec::new(),
        };
        store.change(&[tree::Edit::Mkdir("/tool/xenstored".into())], None);
        store
    }

    /// A new client: dom0's tools, or a domain with a ring.
    fn connect(&mut self, domain: DomId, ring: bool) -> ClientId {
        self.last_client += 1;
        let client = Client {
            who: Who { domain, target: None },
            ring,
            home: path::home(domain),
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            next_transaction: 1,
            missed: false,
            resumed: false,
            ended: 0,
            outbox: Outbox::default(),
        };
        self.clients.insert(self.last_client, client);
        self.last_client
    }

    /// A connection through the socket.
    pub fn connect_tools(&mut self) -> ClientId {
        self.connect(DomId::DOM0, false)
    }

    /// A client is gone, with its watches and transactions.
    pub fn disconnect(&mut self, id: ClientId) {
        self.reset(id);
        self.clients.remove(&id);
    }

    /// Ends a client's watches and transactions.
    fn reset(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.missed = false;
        let domain = client.who.domain;
        let (ids, transactions) =
            (std::mem::take(&mut client.watches), std::mem::take(&mut client.transactions));
        let freed: usize = transactions.values().map(|transaction| transaction.charge).sum();
        let freed = freed
            + ids.iter().filter_map(|&id| self.watches.remove(id)).map(|watch| watch.charge()).sum::<usize>();
        let account = self.accounts.entry(domain).or_default();
        account.bytes = account.bytes.saturating_sub(freed);
        account.watches = account.watches.saturating_sub(ids.len());
        self.record(id, |domain| Record::Reset { domain });
    }

    /// Everything that a client was owed is dropped, too: its ring begins anew.
    pub fn start_over(&mut self, id: ClientId) {
        self.reset(id);
        if let Some(client) = self.clients.get_mut(&id) {
            client.outbox.clear();
        }
    }

    /// A client.
    pub fn client(&mut self, id: ClientId) -> Option<&mut Client> {
        self.clients.get_mut(&id)
    }

    /// Whether a client's next request may be taken: it has room for the answer.
    pub fn may_ask(&self, id: ClientId) -> bool {
        self.clients.get(&id).is_some_and(|client| {
            let limit = if client.who.is_privileged() { EVENTS_OF_TOOLS } else { EVENTS };
            let answers = client.outbox.answers();
            client.outbox.bytes() < limit && (client.who.is_privileged() || answers < self.quotas.outstanding)
        })
    }

    /// Notes a change that concerns a client with a ring.
    fn record(&mut self, id: ClientId, record: impl FnOnce(DomId) -> Record) {
        let Some(client) = self.clients.get(&id).filter(|client| client.ring) else { return };
        let domain = client.who.domain;
        if let Some(records) = &mut self.records {
            records.push(record(domain));
        }
    }

    fn mark_dirty(&mut self, id: ClientId) {
        if self.dirty.last() != Some(&id) {
            self.dirty.push(id);
        }
    }

    /// Serves one request: the answer is in the client's outbox then, and events are in those whom they concern.
    pub fn request(&mut self, id: ClientId, message: &Message, host: &mut impl Host) {
        let header = message.header;
        let answer = self.serve(id, header, &message.payload, host);
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.resumed = false;
        // As the protocol has it, an answer is as its request, but for an error's type.
        match &answer {
            Ok(Answer::Ok) => client.outbox.answer(header, b"OK\0"),
            Ok(Answer::Bytes(bytes)) if bytes.len() <= XENSTORE_PAYLOAD_MAX => {
                client.outbox.answer(header, bytes);
            }
            Ok(Answer::Value(value)) => client.outbox.answer(header, value),
            Ok(Answer::Bytes(_)) => refuse(client, header, Errno::E2BIG),
            Err(errno) => refuse(client, header, *errno),
        }
        self.mark_dirty(id);
        // An event of a new watch comes after the answer.
        if answer.is_ok() && header.r#type == MessageType::Watch.raw() {
            self.first_event(id);
        }
    }

    fn serve(
        &mut self,
        id: ClientId,
        header: SockMsg,
        payload: &[u8],
        host: &mut impl Host,
    ) -> Result<Answer> {
        use MessageType as M;
        let client = self.clients.get(&id).ok_or(Errno::EINVAL)?;
        let who = client.who;
        let kind = M::try_from(header.r#type).map_err(|_| Errno::ENOSYS)?;
        let for_tools = matches!(
            kind,
            M::Control | M::Introduce | M::Release | M::IsDomainIntroduced | M::Resume | M::SetTarget
        );
        if for_tools && !who.is_privileged() {
            return Err(Errno::EACCES);
        }
        let number = header.tx_id;
        match kind {
            M::Watch => self.watch(id, payload),
            M::Unwatch => self.unwatch(id, payload),
            M::TransactionEnd => self.end(id, number, payload),
            M::Directory
            | M::DirectoryPart
            | M::Read
            | M::GetPerms
            | M::Write
            | M::Mkdir
            | M::Rm
            | M::SetPerms => {
                let mut transaction = self.take_transaction(id, number)?;
                let answer = self.about_node(id, kind, payload, &mut transaction);
                self.put_transaction(id, number, transaction);
                answer
            }
            _ if number != 0 && !client.transactions.contains_key(&number) => Err(Errno::ENOENT),
            M::TransactionStart if number != 0 => Err(Errno::EBUSY),
            M::TransactionStart => self.start(id),
            M::Control => self.control(payload, host),
            M::Introduce => self.introduce(payload, host),
            M::Release => self.release(payload, host),
            M::GetDomainPath => {
                let path = path::home(one_domain(payload)?);
                Ok(Answer::Bytes([path.as_bytes(), b"\0"].concat()))
            }
            M::IsDomainIntroduced => {
                let domain = one_domain(payload)?;
                let known = domain == DOMID_SELF || self.domains.contains_key(&domain);
                Ok(Answer::Bytes(if known { b"T\0" } else { b"F\0" }.to_vec()))
            }
            M::Resume => self.resume(payload),
            M::SetTarget => self.set_target(payload),
            M::ResetWatches => {
                self.reset(id);
                Ok(Answer::Ok)
            }
            // From the store to a client only.
            M::WatchEvent | M::Error => Err(Errno::ENOSYS),
        }
    }

    /// A transaction of a client, taken out for the time of a request; none for the number 0.
    fn take_transaction(&mut self, id: ClientId, number: u32) -> Result<Option<Box<Transaction>>> {
        if number == 0 {
            return Ok(None);
        }
        let client = self.clients.get_mut(&id).ok_or(Errno::ENOENT)?;
        let mut transaction = client.transactions.remove(&number).ok_or(Errno::ENOENT)?;
        let old = self.tree.generation - transaction.started() > LONG_AGO;
        if transaction.stale || old && !client.who.is_privileged() {
            let charge = transaction.charge;
            *transaction = Transaction::stale(&self.tree);
            transaction.charge = charge;
        }
        Ok(Some(transaction))
    }

    fn put_transaction(&mut self, id: ClientId, number: u32, transaction: Option<Box<Transaction>>) {
        if let (Some(client), Some(transaction)) = (self.clients.get_mut(&id), transaction) {
            client.transactions.insert(number, transaction);
        }
    }

    fn start(&mut self, id: ClientId) -> Result<Answer> {
        let transaction = Box::new(Transaction::new(&self.tree));
        let client = self.clients.get_mut(&id).ok_or(Errno::EINVAL)?;
        if !client.who.is_privileged() && client.transactions.len() >= self.quotas.transactions {
            return Err(Errno::ENOSPC);
        }
        while client.next_transaction == 0 || client.transactions.contains_key(&client.next_transaction) {
            client.next_transaction = client.next_transaction.wrapping_add(1);
        }
        let number = client.next_transaction;
        client.next_transaction = number.wrapping_add(1);
        self.accounts.entry(client.who.domain).or_default().bytes += transaction.charge;
        client.transactions.insert(number, transaction);
        self.record(id, |domain| Record::Started { domain, number });
        Ok(Answer::Bytes(format!("{number}\0").into_bytes()))
    }

    fn end(&mut self, id: ClientId, number: u32, payload: &[u8]) -> Result<Answer> {
        let commit = match one_string(payload)? {
            "T" => true,
            "F" => false,
            _ => return Err(Errno::EINVAL),
        };
        let Some(transaction) = (match self.take_transaction(id, number) {
            // Ended just before a restart, which the client has not heard of.
            Err(_)
                if self.clients.get(&id).is_some_and(|client| client.resumed && client.ended == number) =>
            {
                return Ok(Answer::Ok);
            }
            found => found?,
        }) else {
            return Err(Errno::ENOENT);
        };
        let client = self.clients.get_mut(&id).ok_or(Errno::EINVAL)?;
        let who = client.who;
        client.ended = number;
        let account = self.accounts.entry(who.domain).or_default();
        account.bytes = account.bytes.saturating_sub(transaction.charge);
        let conflict = commit && transaction.conflicts_with(&self.tree);
        if commit && !conflict && !transaction.edits().is_empty() {
            let too_many = transaction.made > 0
                && !who.is_privileged()
                && account.nodes.saturating_add_signed(transaction.made) > self.quotas.nodes;
            if too_many {
                self.record(id, |domain| Record::Ended { domain, number: 0, before: number });
                return Err(Errno::ENOSPC);
            }
            self.change(transaction.edits(), (!who.is_privileged()).then_some(who.domain));
        }
        let remembered = if conflict { 0 } else { number };
        self.record(id, |domain| Record::Ended { domain, number: remembered, before: number });
        if conflict { Err(Errno::EAGAIN) } else { Ok(Answer::Ok) }
    }
}

fn refuse(client: &mut Client, header: SockMsg, errno: Errno) {
    let name = if wire::XSD_ERRORS.contains(&errno) { errno.name() } else { Errno::EINVAL.name() };
    let header = SockMsg { r#type: MessageType::Error.raw(), ..header };
    client.outbox.answer(header, format!("{name}\0").as_bytes());
}

/// A payload that is one string.
fn one_string(payload: &[u8]) -> Result<&str> {
    let text = payload.strip_suffix(b"\0").filter(|text| !text.contains(&0)).ok_or(Errno::EINVAL)?;
    std::str::from_utf8(text).map_err(|_| Errno::EINVAL)
}

/// A number of a domain, in decimal.
fn domain(text: &[u8]) -> Result<DomId> {
    let text = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    text.map(DomId::new).ok_or(Errno::EINVAL)
}

/// A payload that is one domain.
fn one_domain(payload: &[u8]) -> Result<DomId> {
    domain(one_string(payload)?.as_bytes())
}
