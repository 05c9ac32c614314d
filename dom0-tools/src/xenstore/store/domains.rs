//! Domains that come and go; watches, and the special events that tell of domains.

use std::sync::Arc;

use pv_abi::Errno;
use pv_abi::domid::DomId;
use pv_abi::xs_wire::XENSTORE_REL_PATH_MAX;

use super::record::Record;
use super::tree::{Edit, Who};
use super::watches::{SPECIAL, Watch, WatchId};
use super::{Answer, ClientId, Domain, EVENTS, EVENTS_OF_TOOLS, Host, Result, Store, domain, one_domain};
use crate::xenstore::permissions::Permission;
use crate::xenstore::wire;

/// The special events: domains that come, and those that go.
const SPECIALS: [&str; 2] = ["@introduceDomain", "@releaseDomain"];

/// Where a domain is, as far as the hypervisor tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs, or could.
    Alive,
    /// It shut down or crashed.
    ShutDown,
    /// It is being destroyed, or is not there.
    Gone,
}

impl Store {
    /// `INTRODUCE domid|gfn|port|`.
    pub(super) fn introduce(&mut self, payload: &[u8], host: &mut impl Host) -> Result<Answer> {
        let mut fields = wire::strings(payload);
        let (Some(id), Some(gfn), Some(port)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(Errno::EINVAL);
        };
        let number = |text| std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
        // dom0's ring is connected from the start.
        let id = domain(id).ok().filter(|&id| id != DomId::DOM0).ok_or(Errno::EINVAL)?;
        // A guest's frame is written as a signed number.
        let gfn = number(gfn).ok_or(Errno::EINVAL)?.cast_unsigned();
        let port = number(port).and_then(|port| u32::try_from(port).ok()).filter(|&port| port > 0);
        self.introduce_domain(id, gfn, port.ok_or(Errno::EINVAL)?, host)?;
        Ok(Answer::Ok)
    }

    /// A domain's ring is there. One that was there before gets another event channel and begins anew.
    pub fn introduce_domain(
        &mut self,
        id: DomId,
        gfn: u64,
        port: u32,
        host: &mut impl Host,
    ) -> Result<ClientId> {
        if !id.is_domain() {
            return Err(Errno::EINVAL);
        }
        let known = self.domains.get(&id).copied();
        let client = known.map_or_else(|| self.connect(id, true), |domain| domain.client);
        if let Err(errno) = host.introduce(client, id, gfn, port) {
            if known.is_none() {
                self.clients.remove(&client);
            }
            return Err(errno);
        }
        self.domains.insert(id, Domain { client, gfn, port, shut_down: false });
        self.start_over(client);
        host.reset(client);
        self.record(client, |domain| Record::Introduced { domain, gfn, port });
        if known.is_none() && id != DomId::DOM0 {
            self.special(0, id);
        }
        Ok(client)
    }

    /// `RELEASE domid|`.
    pub(super) fn release(&mut self, payload: &[u8], host: &mut impl Host) -> Result<Answer> {
        let id = self.other_domain(payload)?;
        self.release_domain(id, host);
        Ok(Answer::Ok)
    }

    /// A domain is gone, and with it what it owns.
    pub fn release_domain(&mut self, id: DomId, host: &mut impl Host) {
        let Some(domain) = self.domains.remove(&id) else { return };
        self.record(domain.client, |domain| Record::Released { domain });
        host.release(domain.client);
        self.disconnect(domain.client);
        self.forget(id);
        self.special(1, id);
    }

    /// Takes a domain out of the tree, so that a later one of its number finds nothing of it.
    fn forget(&mut self, id: DomId) {
        // Also those below, which change hands one by one.
        let mut left = self.tree.owned_by(id);
        while !left.is_empty() {
            let give = |path: &Arc<str>| {
                let mut permissions = self.tree.get(path)?.permissions.to_vec();
                permissions[0].domain = DomId::DOM0;
                Some(Edit::SetPermissions(Arc::clone(path), permissions.into()))
            };
            // The root cannot go.
            let edit = |path: &Arc<str>| match self.keep_orphans || **path == *"/" {
                true => give(path),
                false => Some(Edit::Remove(Arc::clone(path))),
            };
            let edits: Vec<_> = left.iter().filter_map(edit).collect();
            self.change(&edits, None);
            left = self.tree.owned_by(id);
        }
        let mentions = self.tree.mentions(id);
        self.change(&mentions, None);
        for special in &mut self.special {
            let mut rest = special.to_vec();
            if rest[0].domain == id {
                rest[0].domain = DomId::DOM0;
            }
            let owner = rest.remove(0);
            rest.retain(|entry| entry.domain != id);
            rest.insert(0, owner);
            *special = rest.into();
        }
        for client in self.clients.values_mut() {
            client.who.target = client.who.target.filter(|&target| target != id);
        }
        self.accounts.remove(&id);
    }

    /// `RESUME domid|`.
    pub(super) fn resume(&mut self, payload: &[u8]) -> Result<Answer> {
        let id = self.other_domain(payload)?;
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.shut_down = false;
        }
        Ok(Answer::Ok)
    }

    /// `SET_TARGET domid|target|`.
    pub(super) fn set_target(&mut self, payload: &[u8]) -> Result<Answer> {
        let mut fields = wire::strings(payload);
        let (Some(id), Some(target)) = (fields.next(), fields.next()) else { return Err(Errno::EINVAL) };
        let (id, target) = (domain(id)?, domain(target)?);
        if !self.domains.contains_key(&target) {
            return Err(Errno::ENOENT);
        }
        let client = self.domains.get(&id).ok_or(Errno::ENOENT)?.client;
        self.target(client, target);
        self.record(client, |domain| Record::Target { domain, target });
        Ok(Answer::Ok)
    }

    pub(super) fn target(&mut self, client: ClientId, target: DomId) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.who.target = Some(target);
        }
    }

    /// A domain with a ring that is not dom0.
    fn other_domain(&self, payload: &[u8]) -> Result<DomId> {
        let id = one_domain(payload)?;
        if id == DomId::DOM0 {
            return Err(Errno::EINVAL);
        }
        self.domains.contains_key(&id).then_some(id).ok_or(Errno::ENOENT)
    }

    /// The domains with rings.
    pub fn domains(&self) -> impl Iterator<Item = (DomId, Domain)> {
        self.domains.iter().map(|(&id, &domain)| (id, domain))
    }

    /// Looks at all domains after the hypervisor told that one has ended; `condition` tells each one's.
    pub fn check_domains(&mut self, condition: impl Fn(DomId) -> Condition, host: &mut impl Host) {
        let ids: Vec<_> = self.domains.keys().copied().filter(|&id| id != DomId::DOM0).collect();
        for id in ids {
            match condition(id) {
                Condition::Alive => {}
                Condition::ShutDown => {
                    if let Some(domain) = self.domains.get_mut(&id).filter(|domain| !domain.shut_down) {
                        domain.shut_down = true;
                        self.special(1, id);
                    }
                }
                Condition::Gone => self.release_domain(id, host),
            }
        }
    }

    pub(super) fn set_special(
        &mut self,
        who: Who,
        name: &str,
        permissions: Arc<[Permission]>,
    ) -> Result<Answer> {
        let which = SPECIALS.iter().position(|known| *known == name).ok_or(Errno::EINVAL)?;
        if !who.owns(&self.special[which]) {
            return Err(Errno::EACCES);
        }
        if let Some(records) = &mut self.records {
            records.push(Record::Special { which: which as u8, permissions: Arc::clone(&permissions) });
        }
        self.special[which] = permissions;
        Ok(Answer::Ok)
    }

    /// Restores the permissions of a special event.
    pub(super) fn restore_special(&mut self, which: u8, permissions: Arc<[Permission]>) {
        if let Some(special) = self.special.get_mut(usize::from(which)).filter(|_| !permissions.is_empty()) {
            *special = permissions;
        }
    }

    /// Tells of a domain that comes (0) or goes (1) those who may hear of it.
    fn special(&mut self, which: usize, id: DomId) {
        let name = SPECIALS[which];
        let exact = format!("{name}/{}", id.raw());
        for watch in self.watches.concerned(&exact, false) {
            let Some(found) = self.watches.get(watch) else { continue };
            let permissions = &self.special[which];
            if self.clients.get(&found.client).is_some_and(|client| client.who.access(permissions).reads()) {
                let with_number = found.depth == Some(1) || *found.path == *exact;
                self.event(watch, if with_number { &exact } else { name }, true);
            }
        }
    }

    /// `WATCH path|token|[depth|]`.
    pub(super) fn watch(&mut self, id: ClientId, payload: &[u8]) -> Result<Answer> {
        let fields: Vec<_> = wire::strings(payload).collect();
        let (path, token, depth) = match fields[..] {
            [path, token] => (path, token, None),
            [path, token, depth] => (path, token, Some(depth)),
            _ => return Err(Errno::EINVAL),
        };
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Errno::EINVAL);
        let path = text(path)?;
        let depth =
            depth.map(|depth| text(depth)?.parse::<usize>().map_err(|_| Errno::EINVAL)).transpose()?;
        let client = self.clients.get(&id).ok_or(Errno::EINVAL)?;
        let (who, resumed) = (client.who, client.resumed);
        let special = path.starts_with(SPECIAL);
        let skip = if special || path.starts_with('/') { 0 } else { client.home.len() };
        let path = match special {
            true if path.len() > XENSTORE_REL_PATH_MAX || depth.is_some_and(|depth| depth > 1) => {
                return Err(Errno::EINVAL);
            }
            true => path.into(),
            false => self.absolute(id, path)?,
        };
        if self.watches.find(id, &path, token).is_some() {
            // It may have been set just before a restart, which the client has not heard of.
            return if resumed { Ok(Answer::Ok) } else { Err(Errno::EEXIST) };
        }
        let watches = self.accounts.get(&who.domain).map_or(0, |account| account.watches);
        if !who.is_privileged() && watches >= self.quotas.watches {
            return Err(Errno::E2BIG);
        }
        let watch = Watch { client: id, path, token: token.into(), skip, depth, missed: false };
        let charge = watch.charge();
        if let Err(errno) = self.charge(who, charge) {
            let account = self.accounts.entry(who.domain).or_default();
            account.bytes = account.bytes.saturating_sub(charge);
            return Err(errno);
        }
        self.record(id, |domain| Record::Watched {
            domain,
            path: Arc::clone(&watch.path),
            token: Arc::clone(&watch.token),
            relative: skip > 0,
            depth,
        });
        self.add_watch(id, watch);
        Ok(Answer::Ok)
    }

    pub(super) fn add_watch(&mut self, id: ClientId, watch: Watch) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        self.accounts.entry(client.who.domain).or_default().watches += 1;
        client.watches.push(self.watches.add(watch));
    }

    /// The event that every new watch begins with.
    pub(super) fn first_event(&mut self, id: ClientId) {
        let Some(watch) = self.clients.get(&id).and_then(|client| client.watches.last().copied()) else {
            return;
        };
        let Some(path) = self.watches.get(watch).map(|watch| Arc::clone(&watch.path)) else { return };
        self.event(watch, &path, true);
    }

    /// `UNWATCH path|token|`.
    pub(super) fn unwatch(&mut self, id: ClientId, payload: &[u8]) -> Result<Answer> {
        let mut fields = wire::strings(payload);
        let (Some(path), Some(token)) = (fields.next(), fields.next()) else { return Err(Errno::EINVAL) };
        let path = std::str::from_utf8(path).map_err(|_| Errno::EINVAL)?;
        let client = self.clients.get(&id).ok_or(Errno::EINVAL)?;
        let domain = client.who.domain;
        let path = if path.starts_with(['/', SPECIAL]) {
            path.to_owned()
        } else {
            [&client.home, "/", path].concat()
        };
        let Some(watch) = self.watches.find(id, &path, token) else {
            return if client.resumed { Ok(Answer::Ok) } else { Err(Errno::ENOENT) };
        };
        let token: Arc<[u8]> = token.into();
        self.record(id, |domain| Record::Unwatched { domain, path: path.as_str().into(), token });
        if let Some(client) = self.clients.get_mut(&id) {
            client.watches.retain(|&other| other != watch);
        }
        let charge = self.watches.remove(watch).map_or(0, |watch| watch.charge());
        let account = self.accounts.entry(domain).or_default();
        account.bytes = account.bytes.saturating_sub(charge);
        account.watches = account.watches.saturating_sub(1);
        Ok(Answer::Ok)
    }

    /// Queues an event of a watch.
    pub(super) fn event(&mut self, watch: WatchId, path: &str, distinct: bool) {
        let Some(found) = self.watches.get_mut(watch) else { return };
        let id = found.client;
        let Some(client) = self.clients.get_mut(&id) else { return };
        let limit = if client.who.is_privileged() { EVENTS_OF_TOOLS } else { EVENTS };
        if client.outbox.event(found.as_seen(path).as_bytes(), &found.token, limit, distinct) {
            self.mark_dirty(id);
        } else {
            found.missed = true;
            client.missed = true;
        }
    }

    /// A client has taken what waited for it: where it missed events, each watch concerned gets one now, with its own path,
    /// so that it looks at everything again.
    pub fn make_up(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| client.missed) else { return };
        if client.outbox.bytes() > EVENTS / 2 {
            return;
        }
        client.missed = false;
        let watches = client.watches.clone();
        for watch in watches {
            if let Some(found) = self.watches.get_mut(watch).filter(|watch| watch.missed) {
                found.missed = false;
                let path = Arc::clone(&found.path);
                self.event(watch, &path, false);
            }
        }
    }
}
