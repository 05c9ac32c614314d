//! The tree: nodes that share what did not change, so that a copy of the whole costs nothing.

use std::collections::HashMap;
use std::sync::Arc;

use pv_abi::domid::DomId;

use super::children::Children;
use crate::xenstore::path;
use crate::xenstore::permissions::{Access, Permission};

/// Bytes that a node is charged for beside its value, name and permissions.
const OVERHEAD: usize = 128;

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: Arc<str>,
    /// When it was made, among its siblings.
    pub order: u64,
    pub value: Arc<[u8]>,
    /// Never empty: the first is the owner.
    pub permissions: Arc<[Permission]>,
    /// When value or permissions changed last.
    pub generation: u64,
    /// When a child came or went last.
    pub children_generation: u64,
    pub children: Children,
}

impl Node {
    /// The domain that owns it, and pays for it.
    pub fn owner(&self) -> DomId {
        self.permissions[0].domain
    }

    /// Bytes that its owner is charged for.
    pub fn charge(&self) -> usize {
        OVERHEAD + self.name.len() + self.value.len() + size_of_val(&*self.permissions)
    }

    #[cfg(test)]
    pub fn for_test(name: &str, order: u64) -> Self {
        let permissions = [Permission::new(DomId::DOM0, Access::None)].into();
        let (generation, children_generation, children) = (0, 0, Children::default());
        Self {
            name: name.into(),
            order,
            value: [].into(),
            permissions,
            generation,
            children_generation,
            children,
        }
    }

    /// Calls `visit` with this node and all below, each after its parent, the oldest child first.
    pub fn walk<'a>(&'a self, path: &str, visit: &mut impl FnMut(&str, &'a Self)) {
        visit(path, self);
        for node in self.children.oldest_first() {
            node.walk(&path::child(path, &node.name), visit);
        }
    }
}

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The domain.
    pub domain: DomId,
    /// The domain that it may act for.
    pub target: Option<DomId>,
}

impl Who {
    /// Whether nothing is forbidden to it.
    pub fn is_privileged(&self) -> bool {
        self.domain == DomId::DOM0
    }

    /// Whether it owns nodes of these permissions, or may act as if.
    pub fn owns(&self, permissions: &[Permission]) -> bool {
        let owner = permissions[0].domain;
        self.is_privileged() || owner == self.domain || Some(owner) == self.target
    }

    /// What it may do to a node of these permissions.
    pub fn access(&self, permissions: &[Permission]) -> Access {
        if self.owns(permissions) {
            return Access::Both;
        }
        let mine = |entry: &&Permission| entry.domain == self.domain || Some(entry.domain) == self.target;
        permissions[1..].iter().find(mine).unwrap_or(&permissions[0]).access
    }
}

/// What happened to a node.
#[derive(Clone, Debug)]
pub struct Change {
    pub path: Arc<str>,
    /// The node before, without its children's part in it; `None`: it was made.
    pub before: Option<Arc<Node>>,
    /// The node after; `None`: it was removed.
    pub after: Option<Arc<Node>>,
    /// The permissions of the node above.
    pub parent: Arc<[Permission]>,
    /// It went with a node above it, so only who watches this very node hears of it.
    pub below_removed: bool,
}

/// A change that somebody asks for. Whether he may has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Sets the value, makes the node if need be.
    Write(Arc<str>, Arc<[u8]>),
    /// Makes the node.
    Mkdir(Arc<str>),
    /// Removes it and all below.
    Remove(Arc<str>),
    /// Sets its permissions.
    SetPermissions(Arc<str>, Arc<[Permission]>),
}

impl Edit {
    /// Bytes to remember it by.
    pub fn charge(&self) -> usize {
        let (path, rest) = match self {
            Self::Write(path, value) => (path, value.len()),
            Self::Mkdir(path) | Self::Remove(path) => (path, 0),
            Self::SetPermissions(path, permissions) => (path, size_of_val(&**permissions)),
        };
        OVERHEAD + path.len() + rest
    }
}

/// All nodes.
#[derive(Clone, Debug)]
pub struct Tree {
    root: Arc<Node>,
    /// The number of the last change.
    pub generation: u64,
}

impl Tree {
    /// The root alone, dom0's.
    pub fn new() -> Self {
        let root = Node {
            name: "".into(),
            order: 0,
            value: [].into(),
            permissions: [Permission::new(DomId::DOM0, Access::None)].into(),
            generation: 0,
            children_generation: 0,
            children: Children::default(),
        };
        Self { root: Arc::new(root), generation: 0 }
    }

    /// Whether this is the same state as `other`, without a look into it.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }

    /// The root.
    pub fn root(&self) -> &Arc<Node> {
        &self.root
    }

    /// A node.
    pub fn get(&self, path: &str) -> Option<&Arc<Node>> {
        path::names(path).try_fold(&self.root, |node, name| node.children.get(name))
    }

    /// The path of the last node on the way that is there, and the node.
    pub fn nearest<'a>(&self, path: &'a str) -> (&'a str, &Arc<Node>) {
        let (mut node, mut end) = (&self.root, 0);
        for name in path::names(path) {
            let Some(next) = node.children.get(name) else { break };
            (node, end) = (next, end + 1 + name.len());
        }
        (if end == 0 { "/" } else { &path[..end] }, node)
    }

    /// A node, to change; all on the way are copied first where somebody else has them, too.
    fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        let root = Arc::make_mut(&mut self.root);
        path::names(path).try_fold(root, |node, name| node.children.get_mut(name))
    }

    /// Makes the change and tells what happened to which node, in order. `owner` is whose the nodes become that it makes;
    /// `None`: that of the nodes above them.
    pub fn apply(&mut self, edit: &Edit, owner: Option<DomId>, tell: &mut impl FnMut(Change)) {
        match edit {
            Edit::Write(path, value) => {
                if self.get(path).is_some() {
                    self.modify(path, tell, |node| node.value = Arc::clone(value));
                } else {
                    self.make(path, value, owner, tell);
                }
            }
            Edit::Mkdir(path) => {
                if self.get(path).is_none() {
                    self.make(path, &[].into(), owner, tell);
                }
            }
            Edit::Remove(path) => self.remove(path, tell),
            Edit::SetPermissions(path, permissions) => {
                self.modify(path, tell, |node| node.permissions = Arc::clone(permissions));
            }
        }
    }

    fn modify(&mut self, path: &Arc<str>, tell: &mut impl FnMut(Change), change: impl FnOnce(&mut Node)) {
        let Some(before) = self.get(path).map(without_children) else { return };
        self.generation += 1;
        let generation = self.generation;
        let Some(node) = self.get_mut(path) else { return };
        change(node);
        node.generation = generation;
        let after = Some(without_children(node));
        let parent = self.get(path::parent(path)).unwrap_or(&self.root);
        let parent = Arc::clone(&parent.permissions);
        tell(Change { path: Arc::clone(path), before: Some(before), after, parent, below_removed: false });
    }

    fn make(
        &mut self,
        path: &Arc<str>,
        value: &Arc<[u8]>,
        owner: Option<DomId>,
        tell: &mut impl FnMut(Change),
    ) {
        let mut end = self.nearest(path).0.len();
        while end < path.len() {
            // The next name, after a slash, which the root has itself.
            let start = if end == 1 { 1 } else { end + 1 };
            let above = &path[..end];
            end = path[start..].find('/').map_or(path.len(), |at| start + at);
            self.generation += 1;
            let generation = self.generation;
            let Some(parent) = self.get_mut(above) else { return };
            parent.children_generation = generation;
            let parent_permissions = Arc::clone(&parent.permissions);
            let mut permissions = Arc::clone(&parent.permissions);
            if let Some(owner) = owner.filter(|&owner| owner != permissions[0].domain) {
                let mut own = permissions.to_vec();
                own[0].domain = owner;
                permissions = own.into();
            }
            let node = Arc::new(Node {
                name: path[start..end].into(),
                order: generation,
                value: if end == path.len() { Arc::clone(value) } else { [].into() },
                permissions,
                generation,
                children_generation: generation,
                children: Children::default(),
            });
            parent.children.insert(Arc::clone(&node));
            let path = if end == path.len() { Arc::clone(path) } else { path[..end].into() };
            let (before, after, parent) = (None, Some(node), parent_permissions);
            tell(Change { path, before, after, parent, below_removed: false });
        }
    }

    fn remove(&mut self, path: &Arc<str>, tell: &mut impl FnMut(Change)) {
        self.generation += 1;
        let generation = self.generation;
        let Some(parent) = self.get_mut(path::parent(path)) else { return };
        let Some(node) = path::names(path).last().and_then(|name| parent.children.remove(name)) else {
            return;
        };
        parent.children_generation = generation;
        let parent = Arc::clone(&parent.permissions);
        tell_removed(Arc::clone(path), &node, parent, false, tell);
    }

    /// The nodes that `domain` owns and no node above which it owns: what goes with it.
    pub fn owned_by(&self, domain: DomId) -> Vec<Arc<str>> {
        fn search(node: &Node, path: &str, domain: DomId, found: &mut Vec<Arc<str>>) {
            for child in node.children.iter() {
                let path = path::child(path, &child.name);
                if child.owner() == domain {
                    found.push(path.into());
                } else {
                    search(child, &path, domain, found);
                }
            }
        }
        let mut found = Vec::new();
        if self.root.owner() == domain {
            found.push("/".into());
        }
        search(&self.root, "/", domain, &mut found);
        found
    }

    /// The nodes whose permissions name `domain` after the owner, and their permissions without it.
    pub fn mentions(&self, domain: DomId) -> Vec<Edit> {
        let mut found = Vec::new();
        self.root.walk("/", &mut |path, node| {
            if node.permissions[1..].iter().any(|entry| entry.domain == domain) {
                let mut rest = node.permissions.to_vec();
                let mut first = true;
                rest.retain(|entry| std::mem::take(&mut first) || entry.domain != domain);
                found.push(Edit::SetPermissions(path.into(), rest.into()));
            }
        });
        found
    }

    /// For each domain, its nodes, and the bytes that it is charged for.
    pub fn usage(&self) -> HashMap<DomId, (usize, usize)> {
        let mut usage = HashMap::new();
        self.root.walk("/", &mut |_, node| {
            let (nodes, bytes): &mut (usize, usize) = usage.entry(node.owner()).or_default();
            *nodes += 1;
            *bytes += node.charge();
        });
        usage
    }
}

/// What changes are told of: a node as it is, but for its children.
fn without_children(node: impl AsRef<Node>) -> Arc<Node> {
    let node = node.as_ref();
    Arc::new(Node {
        name: Arc::clone(&node.name),
        value: Arc::clone(&node.value),
        permissions: Arc::clone(&node.permissions),
        children: Children::default(),
        ..*node
    })
}

impl AsRef<Self> for Node {
    fn as_ref(&self) -> &Self {
        self
    }
}

fn tell_removed(
    path: Arc<str>,
    node: &Arc<Node>,
    parent: Arc<[Permission]>,
    below_removed: bool,
    tell: &mut impl FnMut(Change),
) {
    for child in node.children.oldest_first() {
        let below = path::child(&path, &child.name).into();
        tell_removed(below, child, Arc::clone(&node.permissions), true, tell);
    }
    tell(Change { path, before: Some(Arc::clone(node)), after: None, parent, below_removed });
}
