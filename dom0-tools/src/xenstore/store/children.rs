//! The children of a node: sorted by name, in chunks, so that a copy of a long list shares all of it but what changes.

use std::cmp::Ordering;
use std::sync::Arc;

use super::tree::Node;

/// Children in a chunk at most.
const CHUNK: usize = 32;

/// The children of a node. No chunk is empty.
#[derive(Clone, Debug, Default)]
pub struct Children {
    chunks: Vec<Arc<Vec<Arc<Node>>>>,
}

impl Children {
    /// The chunk that holds `name` or would, and the place in it.
    fn locate(&self, name: &str) -> (usize, Result<usize, usize>) {
        let chunk = self.chunks.partition_point(|chunk| *chunk[0].name <= *name).saturating_sub(1);
        let find = |chunk: &Arc<Vec<Arc<Node>>>| chunk.binary_search_by(|node| (*node.name).cmp(name));
        (chunk, self.chunks.get(chunk).map_or(Err(0), find))
    }

    /// A child.
    pub fn get(&self, name: &str) -> Option<&Arc<Node>> {
        let (chunk, at) = self.locate(name);
        self.chunks.get(chunk)?.get(at.ok()?)
    }

    /// A child, to change; it is copied first if somebody else has it, too.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        let (chunk, at) = self.locate(name);
        Some(Arc::make_mut(Arc::make_mut(self.chunks.get_mut(chunk)?).get_mut(at.ok()?)?))
    }

    /// Adds a child. If one of that name is there, nothing changes.
    pub fn insert(&mut self, node: Arc<Node>) {
        let (index, Err(at)) = self.locate(&node.name) else { return };
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(Arc::new(vec![node]));
            return;
        };
        let chunk = Arc::make_mut(chunk);
        chunk.insert(at, node);
        if chunk.len() > CHUNK {
            let upper = chunk.split_off(CHUNK / 2);
            self.chunks.insert(index + 1, Arc::new(upper));
        }
    }

    /// Takes a child away.
    pub fn remove(&mut self, name: &str) -> Option<Arc<Node>> {
        let (index, at) = self.locate(name);
        let at = at.ok()?;
        let chunk = Arc::make_mut(self.chunks.get_mut(index)?);
        let node = chunk.remove(at);
        if chunk.is_empty() {
            self.chunks.remove(index);
        }
        Some(node)
    }

    /// All children, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// All children, the oldest first: the order in which the protocol lists them.
    pub fn oldest_first(&self) -> Vec<&Arc<Node>> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_unstable_by(|a, b| a.order.cmp(&b.order).then(Ordering::Equal));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn children_are_those_of_a_map(
            steps in prop::collection::vec((any::<bool>(), 0u32..120), 0..400),
            copy_at in 0usize..400,
        ) {
            let (mut children, mut model) = (Children::default(), BTreeMap::new());
            let mut copy = None;
            for (order, (insert, name)) in steps.into_iter().enumerate() {
                if order == copy_at {
                    copy = Some((children.clone(), model.clone()));
                }
                let name = name.to_string();
                if insert {
                    children.insert(Arc::new(Node::for_test(&name, order as u64)));
                    model.entry(name.clone()).or_insert(order as u64);
                } else {
                    prop_assert_eq!(children.remove(&name).map(|node| node.order), model.remove(&name));
                }
                prop_assert_eq!(children.get(&name).map(|node| node.order), model.get(&name).copied());
                prop_assert!(children.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK));
            }
            let same = |children: &Children, model: &BTreeMap<String, u64>| {
                let found: Vec<_> = children.iter().map(|node| (node.name.to_string(), node.order)).collect();
                let mut orders: Vec<_> = model.values().copied().collect();
                orders.sort_unstable();
                found == model.clone().into_iter().collect::<Vec<_>>()
                    && children.oldest_first().iter().map(|node| node.order).collect::<Vec<_>>() == orders
            };
            prop_assert!(same(&children, &model));
            if let Some((children, model)) = copy {
                prop_assert!(same(&children, &model));
            }
        }
    }
}
