//! What a node can be asked.

use pv_abi::Errno;

use super::{Error, Result};
use crate::xenstore::permissions::Permission;
use crate::xenstore::wire::{self, MessageType};

/// What a node can be asked, inside a transaction and outside.
pub trait Nodes {
    /// Makes a request of `parts`, one after the other, about `path`; the answer's payload.
    ///
    /// # Errors
    /// [`Error`].
    fn request(&self, kind: MessageType, path: &str, parts: &[&[u8]]) -> Result<Vec<u8>>;

    /// The values of many nodes as text, `None` for those that are not there: all are asked for before the first answer is
    /// waited for, which saves a round trip for each.
    ///
    /// # Errors
    /// [`Error`].
    fn read_texts(&self, paths: &[String]) -> Result<Vec<Option<String>>>;

    /// A node's value.
    ///
    /// # Errors
    /// [`Error`]; that there is no such node is [`Errno::ENOENT`].
    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.request(MessageType::Read, path, &[path.as_bytes(), b"\0"])
    }

    /// A node's value as text, or `None` if there is no such node. Bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// [`Error`].
    fn read_text(&self, path: &str) -> Result<Option<String>> {
        match self.read(path) {
            Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            Err(error) if error.is(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets a node's value; makes it and the nodes above it if they are not there.
    ///
    /// # Errors
    /// [`Error`].
    fn write(&self, path: &str, value: impl AsRef<[u8]>) -> Result<()>
    where
        Self: Sized,
    {
        self.request(MessageType::Write, path, &[path.as_bytes(), b"\0", value.as_ref()]).map(drop)
    }

    /// Makes a node, unless it is there.
    ///
    /// # Errors
    /// [`Error`].
    fn mkdir(&self, path: &str) -> Result<()> {
        self.request(MessageType::Mkdir, path, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// Removes a node and all below it. That it is not there is no error, unless its parent is not there either.
    ///
    /// # Errors
    /// [`Error`].
    fn rm(&self, path: &str) -> Result<()> {
        self.request(MessageType::Rm, path, &[path.as_bytes(), b"\0"]).map(drop)
    }

    /// The names of a node's children, in XenStore's order.
    ///
    /// # Errors
    /// [`Error`].
    fn directory(&self, path: &str) -> Result<Vec<String>> {
        match self.request(MessageType::Directory, path, &[path.as_bytes(), b"\0"]) {
            Ok(payload) => Ok(wire::strings(&payload).map(text).collect()),
            Err(error) if error.is(Errno::E2BIG) => directory_in_parts(self, path),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a node of that name that may be read.
    ///
    /// # Errors
    /// [`Error`].
    fn exists(&self, path: &str) -> Result<bool> {
        match self.read(path) {
            Ok(_) => Ok(true),
            Err(error) if error.is(Errno::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A node's permissions, the owner first.
    ///
    /// # Errors
    /// [`Error`].
    fn permissions(&self, path: &str) -> Result<Vec<Permission>> {
        let payload = self.request(MessageType::GetPerms, path, &[path.as_bytes(), b"\0"])?;
        let nonsense = |why: &str| Error::Nonsense { what: "get the permissions", why: why.to_owned() };
        wire::strings(&payload).map(|entry| text(entry).parse().map_err(|_| nonsense(&text(entry)))).collect()
    }

    /// Sets a node's permissions, the owner first.
    ///
    /// # Errors
    /// [`Error`].
    fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<()> {
        let entries: String = permissions.iter().map(|entry| format!("{entry}\0")).collect();
        self.request(MessageType::SetPerms, path, &[path.as_bytes(), b"\0", entries.as_bytes()]).map(drop)
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The children of a node that has more of them than one message holds; all of one state of the node.
fn directory_in_parts<N: Nodes + ?Sized>(nodes: &N, path: &str) -> Result<Vec<String>> {
    let nonsense = |why: &str| Error::Nonsense { what: "list a part of", why: why.to_owned() };
    'again: loop {
        let (mut all, mut generation) = (Vec::new(), None);
        loop {
            let offset = all.len().to_string();
            let parts = [path.as_bytes(), b"\0", offset.as_bytes(), b"\0"];
            let part = nodes.request(MessageType::DirectoryPart, path, &parts)?;
            let end = part.iter().position(|&byte| byte == 0).ok_or_else(|| nonsense("no generation"))?;
            let (found, names) = (part[..end].to_vec(), &part[end + 1..]);
            if generation.as_ref().is_some_and(|before| *before != found) {
                continue 'again;
            }
            generation = Some(found);
            // The last part ends with an empty name.
            let last = names == b"\0" || names.ends_with(b"\0\0");
            if names.is_empty() {
                return Err(nonsense("an empty part"));
            }
            all.extend_from_slice(if last { &names[..names.len() - 1] } else { names });
            if last {
                return Ok(wire::strings(&all).map(text).collect());
            }
        }
    }
}
