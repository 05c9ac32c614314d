//! What one unprivileged domain may use, so that none can use up the store: Xen's limits, by Xen's names.

/// The limits. Each is the most that is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Nodes that it owns.
    pub nodes: usize,
    /// Watches.
    pub watches: usize,
    /// Transactions at once.
    pub transactions: usize,
    /// Answers that it has not taken; beyond, it is not listened to.
    pub outstanding: usize,
    /// Nodes that one transaction looks at.
    pub transaction_nodes: usize,
    /// Bytes of its nodes, watches and transactions.
    pub memory: usize,
    /// The same, from which on there is a warning.
    pub memory_soft: usize,
    /// Bytes of one node.
    pub node_size: usize,
    /// Bytes of a path.
    pub path_max: usize,
    /// Entries of a node's permissions.
    pub permissions: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            nodes: 1000,
            watches: 128,
            transactions: 10,
            outstanding: 20,
            transaction_nodes: 1024,
            memory: 2 * 1024 * 1024 + 512 * 1024,
            memory_soft: 2 * 1024 * 1024,
            node_size: 2048,
            path_max: 2048,
            permissions: 5,
        }
    }
}

/// A limit's name, its meaning, and the way to it.
type Quota = (&'static str, &'static str, fn(&mut Quotas) -> &mut usize);

/// The limits, as `xenstore-control quota` shows them.
const HARD: [Quota; 9] = [
    ("nodes", "Nodes per domain", |quotas| &mut quotas.nodes),
    ("watches", "Watches per domain", |quotas| &mut quotas.watches),
    ("transactions", "Transactions per domain", |quotas| &mut quotas.transactions),
    ("outstanding", "Outstanding requests per domain", |quotas| &mut quotas.outstanding),
    ("transaction-nodes", "Max. number of accessed nodes per transaction", |quotas| {
        &mut quotas.transaction_nodes
    }),
    ("memory", "Total Xenstore memory per domain (error level)", |quotas| &mut quotas.memory),
    ("node-size", "Max. size of a node", |quotas| &mut quotas.node_size),
    ("path-max", "Max. length of a node path", |quotas| &mut quotas.path_max),
    ("permissions", "Max. number of permissions per node", |quotas| &mut quotas.permissions),
];

/// Those that only warn.
const SOFT: [Quota; 1] =
    [("memory", "Total Xenstore memory per domain (warning level)", |quotas| &mut quotas.memory_soft)];

impl Quotas {
    fn table(soft: bool) -> &'static [Quota] {
        if soft { &SOFT } else { &HARD }
    }

    /// Sets a limit by its name; whether there is one of that name.
    pub fn set(&mut self, soft: bool, name: &str, value: usize) -> bool {
        let found = Self::table(soft).iter().find(|(known, ..)| *known == name);
        found.map(|(_, _, limit)| *limit(self) = value).is_some()
    }

    /// The limits as a table.
    pub fn show(&self, soft: bool) -> String {
        let mut copy = self.clone();
        let row = |(name, meaning, limit): &Quota| format!("{name:<17}: {:>8} {meaning}\n", limit(&mut copy));
        let rows: String = Self::table(soft).iter().map(row).collect();
        format!("Quota settings:\n{rows}")
    }
}

/// What a domain uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Nodes that it owns.
    pub nodes: usize,
    /// Bytes of nodes, watches and transactions.
    pub bytes: usize,
    /// Watches.
    pub watches: usize,
    /// There was a warning about its bytes.
    pub warned: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_names() {
        let mut quotas = Quotas::default();
        for (index, (name, ..)) in HARD.iter().enumerate() {
            assert!(quotas.set(false, name, index + 7));
        }
        assert!(
            quotas.set(true, "memory", 99) && !quotas.set(true, "nodes", 1) && !quotas.set(false, "x", 1)
        );
        assert_eq!((quotas.nodes, quotas.permissions, quotas.memory_soft), (7, 15, 99));
        assert!(quotas.show(false).contains("path-max         :       14 Max. length of a node path\n"));
        assert_eq!(quotas.show(true).lines().count(), 2);
    }
}
