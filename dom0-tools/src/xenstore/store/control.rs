//! Requests to the daemon itself, `xenstore-control`: those that concern the store.

use std::fmt::Write;

use pv_abi::Errno;

use super::{Answer, Host, Result, Store, domain};
use crate::xenstore::wire;

/// The commands, as `help` lists them.
const HELP: &str = "check\nlog <on|off>\nlogfile <file>\nmemreport\nprint <string>\n\
    quota [set <name> <value>|<domid>]\nquota-soft [set <name> <value>]\nhelp\n";

impl Store {
    /// `CONTROL command|argument|...`.
    pub(super) fn control(&mut self, payload: &[u8], host: &mut impl Host) -> Result<Answer> {
        let words: Option<Vec<_>> =
            wire::strings(payload).map(|word| std::str::from_utf8(word).ok()).collect();
        let words = words.ok_or(Errno::EINVAL)?;
        let Some((&command, arguments)) = words.split_first() else { return Err(Errno::EINVAL) };
        let answer = match (command, arguments) {
            ("check", []) => self.check().map(|()| "OK".to_owned()),
            ("help", []) => Ok(HELP.to_owned()),
            ("quota", []) => Ok(self.quotas.show(false)),
            ("quota-soft", []) => Ok(self.quotas.show(true)),
            ("quota", ["set", name, value]) => self.set_quota(false, name, value),
            ("quota-soft", ["set", name, value]) => self.set_quota(true, name, value),
            ("quota", [id]) => self.usage(id),
            ("memreport", []) => Ok(self.memory()),
            _ => match host.control(command, arguments) {
                Some(answer) => answer,
                None => Err(Errno::EINVAL),
            },
        }?;
        Ok(Answer::Bytes([answer.as_bytes(), b"\0"].concat()))
    }

    fn set_quota(&mut self, soft: bool, name: &str, value: &str) -> Result<String> {
        let value = value.parse().ok().filter(|&value| value > 0).ok_or(Errno::EINVAL)?;
        if self.quotas.set(soft, name, value) { Ok("OK".to_owned()) } else { Err(Errno::EINVAL) }
    }

    fn usage(&self, id: &str) -> Result<String> {
        let id = domain(id.as_bytes())?;
        let account = self.accounts.get(&id).copied().ok_or(Errno::ENOENT)?;
        let client = self.domains.get(&id).and_then(|domain| self.clients.get(&domain.client));
        let mut text = format!("Domain {}:\n", id.raw());
        for (name, value) in [
            ("nodes", account.nodes),
            ("watches", account.watches),
            ("transactions", client.map_or(0, |client| client.transactions.len())),
            ("outstanding", client.map_or(0, |client| client.outbox.answers())),
            ("memory", account.bytes),
        ] {
            let _ = writeln!(text, "{name:<16}: {value:>8}");
        }
        Ok(text)
    }

    fn memory(&self) -> String {
        let mut text = format!("{} clients, {} domains\n", self.clients.len(), self.domains.len());
        let mut all: Vec<_> = self.accounts.iter().collect();
        all.sort_unstable_by_key(|(domain, _)| domain.raw());
        for (domain, account) in all {
            let _ =
                writeln!(text, "domain {}: {} nodes, {} bytes", domain.raw(), account.nodes, account.bytes);
        }
        text
    }

    /// Checks what must be so: the accounts are those of the tree, each watch has its client.
    pub fn check(&self) -> Result<()> {
        let usage = self.tree.usage();
        let nodes = |(domain, (nodes, _)): (&_, &(usize, usize))| {
            self.accounts.get(domain).map_or(0, |account| account.nodes) == *nodes
        };
        let watches = |id: &_| self.watches.get(*id).is_some();
        let sound = usage.iter().all(nodes)
            && self
                .accounts
                .iter()
                .all(|(domain, account)| account.nodes == usage.get(domain).map_or(0, |(nodes, _)| *nodes))
            && self.clients.values().all(|client| client.watches.iter().all(watches));
        if sound { Ok(()) } else { Err(Errno::EIO) }
    }
}
