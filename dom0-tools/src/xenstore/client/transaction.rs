//! Changes that are made together, or not at all.

use pv_abi::Errno;

use super::{Client, Error, Nodes, Result, nodes};
use crate::xenstore::wire::{self, MessageType};

impl Client {
    /// Runs `body` in a transaction: all of its changes, or none. Once more whenever another client interfered. An error
    /// of `body` drops the changes and is given back.
    ///
    /// # Errors
    /// Those of `body`, and [`Error`].
    pub fn transaction<T, E: From<Error>>(
        &self,
        mut body: impl FnMut(&Transaction<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        loop {
            let transaction = self.start()?;
            let value = body(&transaction)?;
            if transaction.commit()? {
                return Ok(value);
            }
        }
    }

    /// Sets the value of `top`'s node `node`, in whatever depth below it, if `top` is there; whether it was. Never makes `top`
    /// anew, whenever another client removes it: what is written to a domain that ends is gone with it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn write_below(&self, top: &str, node: &str, value: impl AsRef<[u8]>) -> Result<bool> {
        self.transaction(|transaction| transaction.write_below(top, node, &value))
    }

    fn start(&self) -> Result<Transaction<'_>> {
        let what = "start a transaction";
        let payload = self.call(MessageType::TransactionStart, 0, "", &[b"\0"])?;
        let id = wire::strings(&payload).next().map(nodes::text);
        let id = id.and_then(|id| id.parse().ok()).filter(|&id| id != 0);
        let id = id.ok_or_else(|| Error::Nonsense { what, why: "no number".to_owned() })?;
        Ok(Transaction { client: self, id, is_open: true })
    }
}

/// A transaction: sees the tree as it was when it began, with its own changes. Dropped, it never was.
#[derive(Debug)]
pub struct Transaction<'a> {
    client: &'a Client,
    id: u32,
    /// Neither made nor dropped yet.
    is_open: bool,
}

impl Transaction<'_> {
    /// The same as [`Client::write_below`]: that `top` was there is what the transaction rests on from now on.
    ///
    /// # Errors
    /// [`Error`].
    pub fn write_below(&self, top: &str, node: &str, value: impl AsRef<[u8]>) -> Result<bool> {
        let is_there = self.exists(top)?;
        if is_there {
            self.write(&format!("{top}/{node}"), value)?;
        }
        Ok(is_there)
    }

    /// Makes the changes; `false` if another client interfered and nothing was changed.
    fn commit(mut self) -> Result<bool> {
        self.is_open = false;
        match self.client.call(MessageType::TransactionEnd, self.id, "", &[b"T\0"]) {
            Ok(_) => Ok(true),
            Err(error) if error.is(Errno::EAGAIN) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Nodes for Transaction<'_> {
    fn request(&self, kind: MessageType, path: &str, parts: &[&[u8]]) -> Result<Vec<u8>> {
        self.client.call(kind, self.id, path, parts)
    }

    fn read_texts(&self, paths: &[String]) -> Result<Vec<Option<String>>> {
        self.client.texts(self.id, paths)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // It fails only where the connection broke, and then there is no transaction any more.
            let _ = self.client.call(MessageType::TransactionEnd, self.id, "", &[b"F\0"]);
        }
    }
}
