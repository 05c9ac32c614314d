//! Who wants to hear of which nodes, found by a node's path, not by looking at every watch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ClientId;
use crate::xenstore::path;

/// The watches' numbers grow, so their order is that in which they were set.
pub type WatchId = u64;

/// The front of a special event's name.
pub const SPECIAL: char = '@';

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub client: ClientId,
    /// Absolute, or special.
    pub path: Arc<str>,
    pub token: Arc<[u8]>,
    /// Bytes at the front of an event's path that the client does not write: its home, if it gave a relative path.
    pub skip: usize,
    /// How many levels below it are of interest.
    pub depth: Option<usize>,
    /// An event could not be queued.
    pub missed: bool,
}

impl Watch {
    /// A path as its client writes it.
    pub fn as_seen<'a>(&self, path: &'a str) -> &'a str {
        let rest = &path[self.skip.min(path.len())..];
        if self.skip > 0 { rest.trim_start_matches('/') } else { rest }
    }

    /// Bytes that its client is charged for.
    pub fn charge(&self) -> usize {
        128 + self.path.len() + self.token.len()
    }
}

/// All watches.
#[derive(Debug, Default)]
pub struct Watches {
    last: WatchId,
    by_id: BTreeMap<WatchId, Watch>,
    by_path: HashMap<Arc<str>, Vec<WatchId>>,
}

impl Watches {
    /// A watch.
    pub fn get(&self, id: WatchId) -> Option<&Watch> {
        self.by_id.get(&id)
    }

    /// A watch, to mark.
    pub fn get_mut(&mut self, id: WatchId) -> Option<&mut Watch> {
        self.by_id.get_mut(&id)
    }

    /// A client's watch of that path and token.
    pub fn find(&self, client: ClientId, path: &str, token: &[u8]) -> Option<WatchId> {
        let same = |id: &&WatchId| {
            self.by_id.get(id).is_some_and(|watch| watch.client == client && *watch.token == *token)
        };
        self.by_path.get(path)?.iter().find(same).copied()
    }

    /// Adds a watch.
    pub fn add(&mut self, watch: Watch) -> WatchId {
        self.last += 1;
        self.by_path.entry(Arc::clone(&watch.path)).or_default().push(self.last);
        self.by_id.insert(self.last, watch);
        self.last
    }

    /// Takes a watch away.
    pub fn remove(&mut self, id: WatchId) -> Option<Watch> {
        let watch = self.by_id.remove(&id)?;
        if let Some(ids) = self.by_path.get_mut(&watch.path) {
            ids.retain(|&other| other != id);
            if ids.is_empty() {
                self.by_path.remove(&watch.path);
            }
        }
        Some(watch)
    }

    /// The watches that something at `path` concerns, in the order in which they were set; `exact`: only those of this very
    /// path.
    pub fn concerned(&self, path: &str, exact: bool) -> Vec<WatchId> {
        let mut found = Vec::new();
        if self.by_path.is_empty() {
            return found;
        }
        let mut look = |above: &str| {
            for &id in self.by_path.get(above).into_iter().flatten() {
                let depth = self.by_id.get(&id).and_then(|watch| watch.depth);
                let within = depth.is_none_or(|depth| {
                    above.starts_with(SPECIAL) || path::depth_below(path, above).is_some_and(|d| d <= depth)
                });
                if within {
                    found.push(id);
                }
            }
        };
        look(path);
        if !exact && path != "/" {
            let slashes = path.bytes().enumerate().filter(|&(_, byte)| byte == b'/');
            for (at, _) in slashes {
                look(if at == 0 { "/" } else { &path[..at] });
            }
        }
        found.sort_unstable();
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn watch(path: &str, depth: Option<usize>) -> Watch {
        Watch { client: 1, path: path.into(), token: [].into(), skip: 0, depth, missed: false }
    }

    #[test]
    fn relative_watches_see_relative_paths() {
        let relative = Watch { skip: "/local/domain/7".len(), ..watch("/local/domain/7/a", None) };
        assert_eq!(relative.as_seen("/local/domain/7/a/b"), "a/b");
        assert_eq!(watch("/a", None).as_seen("/a/b"), "/a/b");
    }

    proptest! {
        #[test]
        fn those_at_and_above_are_concerned(
            paths in prop::collection::vec(("(/[ab]){1,4}|/", prop::option::of(0usize..4)), 0..12),
            path in "(/[ab]){1,4}|/",
            exact: bool,
            remove in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let mut watches = Watches::default();
            let mut model: Vec<_> =
                paths.iter().map(|(path, depth)| (watches.add(watch(path, *depth)), path, *depth)).collect();
            for index in remove {
                if !model.is_empty() {
                    let (id, ..) = model.remove(index.index(model.len()));
                    prop_assert!(watches.remove(id).is_some());
                    prop_assert!(watches.remove(id).is_none());
                }
            }
            let concerned = |above: &str, depth: Option<usize>| match path::depth_below(&path, above) {
                Some(0) => true,
                Some(below) => !exact && depth.is_none_or(|depth| below <= depth),
                None => false,
            };
            let expected: Vec<_> =
                model.iter().filter(|(_, above, depth)| concerned(above, *depth)).map(|(id, ..)| *id).collect();
            prop_assert_eq!(watches.concerned(&path, exact), expected);
            for (id, path, _) in model {
                prop_assert!(watches.find(1, path, b"").is_some() && watches.find(2, path, b"").is_none());
                prop_assert!(watches.get(id).is_some());
            }
        }
    }
}
