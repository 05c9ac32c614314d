//! A transaction: the tree as it was, the changes to it, and what they rest on.
//!
//! The client sees a copy, which costs nothing ([`Tree`] shares its nodes). At the end the changes are made again, on the tree
//! of that time, if nothing has changed that the client saw: nodes by their value and permissions, or that they were not
//! there; lists of children only where it asked for one. Whoever only read has seen one state, and that always succeeds.

use std::collections::HashMap;

use super::tree::{Edit, Tree};

/// Bytes that a client is charged for each node that it looked at, beside the path.
const OVERHEAD: usize = 64;

/// A transaction.
#[derive(Debug)]
pub struct Transaction {
    /// The tree as it was.
    base: Tree,
    /// The same with the changes.
    pub tree: Tree,
    /// What was looked at; whether its list of children was, too.
    seen: HashMap<Box<str>, bool>,
    edits: Vec<Edit>,
    /// Nodes that it made, fewer those that it removed, of the client's own.
    pub made: isize,
    /// It cannot succeed any more, and sees the present: it began before a restart, or too long ago.
    pub stale: bool,
    /// Bytes that its client is charged for.
    pub charge: usize,
}

impl Transaction {
    /// Begins one.
    pub fn new(tree: &Tree) -> Self {
        Self {
            base: tree.clone(),
            tree: tree.clone(),
            seen: HashMap::new(),
            edits: Vec::new(),
            made: 0,
            stale: false,
            charge: OVERHEAD,
        }
    }

    /// One that cannot succeed.
    pub fn stale(tree: &Tree) -> Self {
        Self { stale: true, ..Self::new(tree) }
    }

    /// How many nodes it has looked at.
    pub fn nodes(&self) -> usize {
        self.seen.len()
    }

    /// When it began.
    pub fn started(&self) -> u64 {
        self.base.generation
    }

    /// Remembers that a node was looked at. Bytes that this takes.
    pub fn saw(&mut self, path: &str, children: bool) -> usize {
        if let Some(known) = self.seen.get_mut(path) {
            *known |= children;
            return 0;
        }
        self.seen.insert(path.into(), children);
        let charge = OVERHEAD + path.len();
        self.charge += charge;
        charge
    }

    /// Remembers a change that was made to its tree. Bytes that this takes.
    pub fn edited(&mut self, edit: Edit) -> usize {
        let charge = edit.charge();
        self.edits.push(edit);
        self.charge += charge;
        charge
    }

    /// The changes.
    pub fn edits(&self) -> &[Edit] {
        &self.edits
    }

    /// Whether something has changed since that the client saw, and its changes thus cannot be made.
    pub fn conflicts_with(&self, now: &Tree) -> bool {
        if self.stale {
            return true;
        }
        if self.edits.is_empty() || self.base.is(now) {
            return false;
        }
        self.seen.iter().any(|(path, children)| match (self.base.get(path), now.get(path)) {
            (Some(before), Some(after)) => {
                before.generation != after.generation
                    || *children && before.children_generation != after.children_generation
            }
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        })
    }
}
