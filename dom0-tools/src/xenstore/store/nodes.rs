//! Reading and changing nodes: names, permissions, limits; and telling whom a change concerns.

use std::sync::Arc;

use pv_abi::Errno;
use pv_abi::domid::DomId;
use pv_abi::xs_wire::{MessageType, XENSTORE_PAYLOAD_MAX};

use super::record::Record;
use super::transaction::Transaction;
use super::tree::{Change, Edit, Node, Tree, Who};
use super::{Answer, ClientId, Result, Store, one_string};
use crate::xenstore::permissions::{Access, Permission};
use crate::xenstore::{path, wire};

/// Bytes of a node's record in Xen's store beside value and permissions, and of one entry of these: what the limit of a
/// node's size counts.
const NODE_HEADER: usize = 24;
const NODE_PERMISSION: usize = 8;

/// A transaction, if the request is inside one.
type Inside = Option<Box<Transaction>>;

/// The path and the rest of a payload.
fn path_and_rest(payload: &[u8]) -> Result<(&str, &[u8])> {
    let end = payload.iter().position(|&byte| byte == 0).ok_or(Errno::EINVAL)?;
    let path = std::str::from_utf8(&payload[..end]).map_err(|_| Errno::EINVAL)?;
    Ok((path, &payload[end + 1..]))
}

/// What a request about a node finds.
struct Found {
    path: Arc<str>,
    node: Arc<Node>,
}

impl Store {
    /// An absolute path of a client's argument.
    pub(super) fn absolute(&self, id: ClientId, text: &str) -> Result<Arc<str>> {
        let path: Arc<str> = if text.starts_with('/') {
            text.into()
        } else {
            let home = &self.clients.get(&id).ok_or(Errno::EINVAL)?.home;
            [home, "/", text].concat().into()
        };
        if path::is_valid(&path, self.quotas.path_max) { Ok(path) } else { Err(Errno::EINVAL) }
    }

    /// The tree that a request sees.
    fn seen_by<'a>(&'a self, inside: &'a Inside) -> &'a Tree {
        inside.as_ref().map_or(&self.tree, |transaction| &transaction.tree)
    }

    /// Notes that a request looked at a node, and whether at its list of children, too.
    fn note(&mut self, who: Who, inside: &mut Inside, path: &str, children: bool) -> Result<()> {
        let Some(transaction) = inside else { return Ok(()) };
        let bytes = transaction.saw(path, children);
        if bytes > 0 {
            self.charge(who, bytes)?;
            if !who.is_privileged() && transaction.nodes() > self.quotas.transaction_nodes {
                return Err(Errno::ENOSPC);
            }
        }
        Ok(())
    }

    /// Charges bytes to a domain, up to its limit.
    pub(super) fn charge(&mut self, who: Who, bytes: usize) -> Result<()> {
        let account = self.accounts.entry(who.domain).or_default();
        account.bytes += bytes;
        if who.is_privileged() {
            return Ok(());
        }
        let full = account.bytes > self.quotas.memory;
        self.warn(who.domain);
        if full { Err(Errno::ENOSPC) } else { Ok(()) }
    }

    /// Tells the administrator, once, of a domain that uses much.
    fn warn(&mut self, domain: DomId) {
        let limit = self.quotas.memory_soft;
        let Some(account) = self.accounts.get_mut(&domain).filter(|_| domain != DomId::DOM0) else { return };
        if account.bytes > limit && !account.warned {
            account.warned = true;
            self.messages.push(format!("domain {} uses more than {limit} bytes", domain.raw()));
        }
    }

    /// Looks up the node that a request is about. Whether there is one is only told to who may look at the node above.
    fn look(&mut self, who: Who, inside: &mut Inside, path: &Arc<str>, wanted: Access) -> Result<Arc<Node>> {
        self.note(who, inside, path, false)?;
        let tree = self.seen_by(inside);
        if let Some(node) = tree.get(path) {
            let allowed = who.access(&node.permissions).allows(wanted);
            return if allowed { Ok(Arc::clone(node)) } else { Err(Errno::EACCES) };
        }
        if who.is_privileged() {
            return Err(Errno::ENOENT);
        }
        let (above, node) = tree.nearest(path);
        let may_know = who.access(&node.permissions).allows(wanted);
        let above = above.to_owned();
        self.note(who, inside, &above, false)?;
        Err(if may_know { Errno::ENOENT } else { Errno::EACCES })
    }

    fn find(&mut self, id: ClientId, inside: &mut Inside, text: &str, wanted: Access) -> Result<Found> {
        let who = self.clients.get(&id).ok_or(Errno::EINVAL)?.who;
        let path = self.absolute(id, text)?;
        let node = self.look(who, inside, &path, wanted)?;
        Ok(Found { path, node })
    }

    /// Serves a request about a node.
    pub(super) fn about_node(
        &mut self,
        id: ClientId,
        kind: MessageType,
        payload: &[u8],
        inside: &mut Inside,
    ) -> Result<Answer> {
        match kind {
            MessageType::Read => {
                let found = self.find(id, inside, one_string(payload)?, Access::Read)?;
                Ok(Answer::Value(Arc::clone(&found.node.value)))
            }
            MessageType::GetPerms => {
                let found = self.find(id, inside, one_string(payload)?, Access::Read)?;
                let entries: String =
                    found.node.permissions.iter().map(|entry| format!("{entry}\0")).collect();
                Ok(Answer::Bytes(entries.into_bytes()))
            }
            MessageType::Directory => {
                let found = self.find(id, inside, one_string(payload)?, Access::Read)?;
                self.saw_children(inside, &found.path);
                Ok(Answer::Bytes(names(&found.node)))
            }
            MessageType::DirectoryPart => {
                let (path, rest) = path_and_rest(payload)?;
                let offset = one_string(rest)?.parse().map_err(|_| Errno::EINVAL)?;
                let found = self.find(id, inside, path, Access::Read)?;
                self.saw_children(inside, &found.path);
                Ok(Answer::Bytes(part(&found.node, offset)))
            }
            MessageType::Write => self.write(id, payload, inside),
            MessageType::Mkdir => self.mkdir(id, one_string(payload)?, inside),
            MessageType::Rm => self.remove(id, one_string(payload)?, inside),
            MessageType::SetPerms => self.set_permissions(id, payload, inside),
            // The caller serves all others.
            _ => Err(Errno::ENOSYS),
        }
    }

    fn saw_children(&mut self, inside: &mut Inside, path: &str) {
        if let Some(transaction) = inside {
            // Charged already: the node was looked at before its children.
            transaction.saw(path, true);
        }
    }

    fn write(&mut self, id: ClientId, payload: &[u8], inside: &mut Inside) -> Result<Answer> {
        let (path, value) = path_and_rest(payload)?;
        let who = self.clients.get(&id).ok_or(Errno::EINVAL)?.who;
        let path = self.absolute(id, path)?;
        let entries = match self.look(who, inside, &path, Access::Write) {
            Ok(node) => node.permissions.len(),
            Err(Errno::ENOENT) => self.may_make(who, inside, &path)?,
            Err(errno) => return Err(errno),
        };
        self.fits(who, value.len(), entries)?;
        self.edit(who, inside, Edit::Write(path, value.into()))
    }

    fn mkdir(&mut self, id: ClientId, path: &str, inside: &mut Inside) -> Result<Answer> {
        let who = self.clients.get(&id).ok_or(Errno::EINVAL)?.who;
        let path = self.absolute(id, path)?;
        match self.look(who, inside, &path, Access::Write) {
            Ok(_) => Ok(Answer::Ok),
            Err(Errno::ENOENT) => {
                self.may_make(who, inside, &path)?;
                self.edit(who, inside, Edit::Mkdir(path))
            }
            Err(errno) => Err(errno),
        }
    }

    fn remove(&mut self, id: ClientId, path: &str, inside: &mut Inside) -> Result<Answer> {
        let who = self.clients.get(&id).ok_or(Errno::EINVAL)?.who;
        let path = self.absolute(id, path)?;
        match self.look(who, inside, &path, Access::Write) {
            Ok(_) if &*path == "/" => Err(Errno::EINVAL),
            Ok(_) => self.edit(who, inside, Edit::Remove(path)),
            // Nothing to remove is no error, where there could be something.
            Err(Errno::ENOENT) => {
                let parent: Arc<str> = path::parent(&path).into();
                match self.look(who, inside, &parent, Access::Read) {
                    Ok(_) | Err(Errno::EACCES) => Ok(Answer::Ok),
                    Err(errno) => Err(errno),
                }
            }
            Err(errno) => Err(errno),
        }
    }

    fn set_permissions(&mut self, id: ClientId, payload: &[u8], inside: &mut Inside) -> Result<Answer> {
        let who = self.clients.get(&id).ok_or(Errno::EINVAL)?.who;
        let (path, rest) = path_and_rest(payload)?;
        let entry = |text: &[u8]| {
            std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse::<Permission>().ok())
                .ok_or(Errno::EINVAL)
        };
        let permissions: Arc<[Permission]> = wire::strings(rest).map(entry).collect::<Result<_>>()?;
        let Some(owner) = permissions.first().map(|first| first.domain) else { return Err(Errno::EINVAL) };
        if !who.is_privileged() && permissions.len() > self.quotas.permissions {
            return Err(Errno::ENOSPC);
        }
        if path.starts_with(super::watches::SPECIAL) {
            return self.set_special(who, path, permissions);
        }
        let path = self.absolute(id, path)?;
        let node = self.look(who, inside, &path, Access::Write)?;
        if !who.owns(&node.permissions) {
            return Err(Errno::EACCES);
        }
        if !who.is_privileged() && owner != node.owner() {
            return Err(Errno::EPERM);
        }
        self.fits(who, node.value.len(), permissions.len())?;
        self.edit(who, inside, Edit::SetPermissions(path, permissions))
    }

    /// Whether a node may be that large.
    fn fits(&self, who: Who, value: usize, permissions: usize) -> Result<()> {
        let size = NODE_HEADER + NODE_PERMISSION * permissions + value;
        if who.is_privileged() || size < self.quotas.node_size { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// Whether a client may make a node that is not there, and those above that are missing. How many permissions it gets.
    fn may_make(&mut self, who: Who, inside: &mut Inside, path: &str) -> Result<usize> {
        let (above, node) = self.seen_by(inside).nearest(path);
        let entries = node.permissions.len();
        let missing = path::names(path).count() - path::names(above).count();
        // The node that all others come from, and the first of these, which must still be missing in the end.
        let first = path::names(&path[above.len()..]).next().unwrap_or_default();
        let (above, first) = (above.to_owned(), path::child(above, first));
        self.note(who, inside, &above, false)?;
        self.note(who, inside, &first, false)?;
        let made = inside.as_ref().map_or(0, |transaction| transaction.made);
        let nodes = self.accounts.get(&who.domain).map_or(0, |account| account.nodes);
        let nodes = nodes.saturating_add_signed(made) + missing;
        if !who.is_privileged() && nodes > self.quotas.nodes { Err(Errno::ENOSPC) } else { Ok(entries) }
    }

    /// Makes a change that is allowed, inside a transaction or for all.
    fn edit(&mut self, who: Who, inside: &mut Inside, edit: Edit) -> Result<Answer> {
        let owner = (!who.is_privileged()).then_some(who.domain);
        let Some(transaction) = inside else {
            let full =
                self.accounts.get(&who.domain).is_some_and(|account| account.bytes > self.quotas.memory);
            if full && !who.is_privileged() && !matches!(edit, Edit::Remove(_)) {
                return Err(Errno::ENOSPC);
            }
            self.change(std::slice::from_ref(&edit), owner);
            return Ok(Answer::Ok);
        };
        let mut made = 0;
        transaction.tree.apply(&edit, owner, &mut |change| {
            let mine =
                |node: &Option<Arc<Node>>| node.as_ref().is_some_and(|node| node.owner() == who.domain);
            made += isize::from(mine(&change.after)) - isize::from(mine(&change.before));
        });
        transaction.made += made;
        let bytes = transaction.edited(edit);
        // Refused, the change is in the transaction's tree but cannot be committed: so the client is told, and the whole
        // transaction is lost.
        let refused = self.charge(who, bytes);
        if refused.is_err()
            && let Some(transaction) = inside
        {
            transaction.stale = true;
        }
        refused.map(|()| Answer::Ok)
    }

    /// Makes changes for all: in the tree, the accounts, the record; and queues events for those whom they concern.
    pub(super) fn change(&mut self, edits: &[Edit], owner: Option<DomId>) {
        let mut changes = Vec::new();
        for edit in edits {
            self.tree.apply(edit, owner, &mut |change| changes.push(change));
        }
        for change in &changes {
            self.account(change);
            if let Some(records) = &mut self.records {
                match &change.after {
                    Some(node) => records.push(Record::Node {
                        path: Arc::clone(&change.path),
                        value: Arc::clone(&node.value),
                        permissions: Arc::clone(&node.permissions),
                    }),
                    None if change.below_removed => {}
                    None => records.push(Record::Removed { path: Arc::clone(&change.path) }),
                }
            }
            self.tell(change);
        }
    }

    fn account(&mut self, change: &Change) {
        if let Some(node) = &change.before {
            let account = self.accounts.entry(node.owner()).or_default();
            account.nodes = account.nodes.saturating_sub(1);
            account.bytes = account.bytes.saturating_sub(node.charge());
        }
        if let Some(node) = &change.after {
            let account = self.accounts.entry(node.owner()).or_default();
            account.nodes += 1;
            account.bytes += node.charge();
            self.warn(node.owner());
        }
    }

    /// Queues events about a change, for all whose watches it concerns and who may read the node, or the one above, or might
    /// before.
    fn tell(&mut self, change: &Change) {
        let concerned = self.watches.concerned(&change.path, change.below_removed);
        for watch in concerned {
            let Some(client) = self.watches.get(watch).and_then(|watch| self.clients.get(&watch.client))
            else {
                continue;
            };
            let reads = |permissions: &[Permission]| client.who.access(permissions).reads();
            let node = [&change.before, &change.after].into_iter().flatten();
            if reads(&change.parent) || node.into_iter().any(|node| reads(&node.permissions)) {
                self.event(watch, &change.path, false);
            }
        }
    }
}

/// The names of a node's children, a zero byte after each.
fn names(node: &Node) -> Vec<u8> {
    let mut names = Vec::new();
    for child in node.children.oldest_first() {
        names.extend_from_slice(child.name.as_bytes());
        names.push(0);
    }
    names
}

/// A part of the list of children: the node's generation, and whole names from `offset` on, as many as fit. An empty name
/// ends the last part.
fn part(node: &Node, offset: usize) -> Vec<u8> {
    let mut part = format!("{}\0", node.generation.max(node.children_generation)).into_bytes();
    let names = names(node);
    let mut rest = names.get(offset..).unwrap_or_default();
    while let Some(end) = rest.iter().position(|&byte| byte == 0) {
        if part.len() + end + 1 >= XENSTORE_PAYLOAD_MAX {
            return part;
        }
        part.extend_from_slice(&rest[..=end]);
        rest = &rest[end + 1..];
    }
    part.push(0);
    part
}
