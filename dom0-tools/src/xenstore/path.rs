//! Names of nodes: what the protocol allows, and their parts.

use pv_abi::domid::DomId;
use pv_abi::xs_wire::XENSTORE_REL_PATH_MAX;

/// Where the nodes of domains are.
const DOMAINS: &str = "/local/domain/";

/// The home of a domain, to which its relative paths refer.
pub fn home(domain: DomId) -> String {
    format!("{DOMAINS}{}", domain.raw())
}

/// Bytes of `/local/domain/N/` at the front: the limit of a path's length is that of a relative one.
fn home_length(path: &str) -> usize {
    let Some(rest) = path.strip_prefix(DOMAINS) else { return 0 };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    match rest.as_bytes().get(digits) {
        Some(b'/') if (1..=5).contains(&digits) => DOMAINS.len() + digits + 1,
        _ => 0,
    }
}

/// Whether a byte may be part of a path. Each request asks this of each of its bytes, hence a table.
const fn allowed(byte: u8) -> bool {
    const ALLOWED: [bool; 256] = {
        let mut table = [false; 256];
        let mut at = 0;
        while at < 128 {
            let byte = at as u8;
            table[at] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_' | b'@');
            at += 1;
        }
        table
    };
    ALLOWED[byte as usize]
}

/// Whether this is the absolute path of a node, of the usual length at most.
pub fn is_valid(path: &str, longest: usize) -> bool {
    path.starts_with('/')
        && (path == "/" || !path.ends_with('/'))
        && path.len() <= home_length(path) + longest.min(XENSTORE_REL_PATH_MAX)
        && path
            .bytes()
            .try_fold(0, |before, byte| (allowed(byte) && (before, byte) != (b'/', b'/')).then_some(byte))
            .is_some()
}

/// The names on the way from the root to a node.
pub fn names(path: &str) -> impl Iterator<Item = &str> {
    // `str::split` searches with more preparation than names are long.
    let mut rest = path;
    std::iter::from_fn(move || {
        loop {
            let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            rest = after.strip_prefix('/').unwrap_or(after);
            if !name.is_empty() || rest.is_empty() {
                return Some(name).filter(|name| !name.is_empty());
            }
        }
    })
}

/// The node above; the root is above itself.
pub fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// A child's path.
pub fn child(path: &str, name: &str) -> String {
    if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }
}

/// How many levels `path` is below `above`; `None` if it is not at or below.
pub fn depth_below(path: &str, above: &str) -> Option<usize> {
    let rest = if above == "/" { path } else { path.strip_prefix(above)? };
    if rest.is_empty() || rest == "/" {
        return Some(0);
    }
    rest.starts_with('/').then(|| names(rest).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONGEST: usize = XENSTORE_REL_PATH_MAX;

    #[test]
    fn paths_that_are_allowed() {
        for path in ["/", "/a", "/local/domain/0", "/vm/0-0_a/@x", "/A/9"] {
            assert!(is_valid(path, LONGEST), "{path}");
        }
        for path in
            ["", "a", "/a/", "//", "//a", "/a//b", "/a b", "/a%b", "/ä", "/a\0", "/a.b", "@releaseDomain"]
        {
            assert!(!is_valid(path, LONGEST), "{path}");
        }
    }

    #[test]
    fn names_are_what_stands_between_slashes() {
        for path in ["", "/", "//", "a", "/a", "/a/", "/local//domain/0", "///a//b///"] {
            let split: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
            assert_eq!(names(path).collect::<Vec<_>>(), split, "{path}");
        }
    }

    #[test]
    fn a_path_has_a_length() {
        let long = |prefix: &str, length: usize| format!("{prefix}{}", "x".repeat(length));
        assert!(is_valid(&long("/", LONGEST - 1), LONGEST));
        assert!(!is_valid(&long("/", LONGEST), LONGEST));
        assert!(is_valid(&long("/local/domain/77/", LONGEST), LONGEST));
        assert!(!is_valid(&long("/local/domain/77/", LONGEST + 1), LONGEST));
        assert!(!is_valid(&long("/local/domain/777777/", LONGEST), LONGEST));
        assert!(!is_valid(&long("/local/domain/x/", LONGEST), LONGEST));
        assert!(!is_valid("/abc", 3));
    }

    #[test]
    fn levels_below() {
        assert_eq!(depth_below("/a/b", "/"), Some(2));
        assert_eq!(depth_below("/", "/"), Some(0));
        assert_eq!(depth_below("/a/b", "/a"), Some(1));
        assert_eq!(depth_below("/a/b", "/a/b"), Some(0));
        assert_eq!(depth_below("/ab", "/a"), None);
        assert_eq!(depth_below("/a", "/a/b"), None);
    }

    proptest! {
        #[test]
        fn a_child_is_below_its_parent(path in "(/[a-z]{1,3}){1,5}", name in "[a-z]{1,3}") {
            let below = child(&path, &name);
            prop_assert!(is_valid(&below, LONGEST));
            prop_assert_eq!(parent(&below), &path);
            prop_assert_eq!(depth_below(&below, &path), Some(1));
            prop_assert_eq!(names(&below).last(), Some(&*name));
        }
    }
}
