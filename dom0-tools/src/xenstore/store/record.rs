//! Changes as bytes, to start again from: what the store is made of, and what a domain would not know that it lost.
//!
//! Not written down: connections through the socket with their watches and transactions, which end with the daemon, and the
//! content of transactions. A domain's transaction that was open ends with `EAGAIN`, so that the domain tries again.

use std::sync::Arc;

use pv_abi::domid::DomId;

use crate::xenstore::permissions::Permission;

/// One thing that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A node is like this now.
    Node { path: Arc<str>, value: Arc<[u8]>, permissions: Arc<[Permission]> },
    /// A node and all below are gone.
    Removed { path: Arc<str> },
    /// A domain's ring is connected.
    Introduced { domain: DomId, gfn: u64, port: u32 },
    /// It is not any more.
    Released { domain: DomId },
    /// The domain may act for another.
    Target { domain: DomId, target: DomId },
    /// The domain watches.
    Watched { domain: DomId, path: Arc<str>, token: Arc<[u8]>, relative: bool, depth: Option<usize> },
    /// It does not any more.
    Unwatched { domain: DomId, path: Arc<str>, token: Arc<[u8]> },
    /// The domain has begun a transaction.
    Started { domain: DomId, number: u32 },
    /// The transaction `before` has ended; `number` is the same if it did what was asked, else 0.
    Ended { domain: DomId, number: u32, before: u32 },
    /// All watches and transactions of the domain have ended.
    Reset { domain: DomId },
    /// Who may hear of a special event.
    Special { which: u8, permissions: Arc<[Permission]> },
    /// A request is taken from the ring in part: `bytes` are all of it up to the index `consumed`.
    Input { domain: DomId, consumed: u32, bytes: Arc<[u8]> },
    /// `bytes` are to be put into the ring from the index `produced` on.
    Output { domain: DomId, produced: u32, bytes: Arc<[u8]> },
}

/// Writes the parts of a record.
struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn number(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn permissions(&mut self, permissions: &[Permission]) {
        let text: String = permissions.iter().map(|entry| format!("{entry} ")).collect();
        self.bytes(text.as_bytes());
    }
}

/// Reads them.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let (now, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*now))
    }

    fn narrow<T: TryFrom<u64>>(&mut self) -> Option<T> {
        self.number()?.try_into().ok()
    }

    fn domain(&mut self) -> Option<DomId> {
        self.narrow().map(DomId::new)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.narrow()?;
        let (now, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(now)
    }

    fn path(&mut self) -> Option<Arc<str>> {
        std::str::from_utf8(self.bytes()?).ok().map(Into::into)
    }

    fn permissions(&mut self) -> Option<Arc<[Permission]>> {
        let text = std::str::from_utf8(self.bytes()?).ok()?;
        text.split_ascii_whitespace().map(|entry| entry.parse().ok()).collect()
    }
}

impl Record {
    /// Appends it.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let mut w = Writer(to);
        let mut head = |tag: u64, domain: &DomId| {
            w.number(tag);
            w.number(u64::from(domain.raw()));
        };
        match self {
            Self::Node { path, value, permissions } => {
                w.number(1);
                w.bytes(path.as_bytes());
                w.bytes(value);
                w.permissions(permissions);
            }
            Self::Removed { path } => {
                w.number(2);
                w.bytes(path.as_bytes());
            }
            Self::Introduced { domain, gfn, port } => {
                head(3, domain);
                w.number(*gfn);
                w.number(u64::from(*port));
            }
            Self::Released { domain } => head(4, domain),
            Self::Target { domain, target } => {
                head(5, domain);
                w.number(u64::from(target.raw()));
            }
            Self::Watched { domain, path, token, relative, depth } => {
                head(6, domain);
                w.bytes(path.as_bytes());
                w.bytes(token);
                w.number(u64::from(*relative));
                w.number(depth.map_or(0, |depth| depth as u64 + 1));
            }
            Self::Unwatched { domain, path, token } => {
                head(7, domain);
                w.bytes(path.as_bytes());
                w.bytes(token);
            }
            Self::Started { domain, number } => {
                head(8, domain);
                w.number(u64::from(*number));
            }
            Self::Ended { domain, number, before } => {
                head(9, domain);
                w.number(u64::from(*number));
                w.number(u64::from(*before));
            }
            Self::Reset { domain } => head(10, domain),
            Self::Special { which, permissions } => {
                w.number(11);
                w.number(u64::from(*which));
                w.permissions(permissions);
            }
            Self::Input { domain, consumed: index, bytes } => {
                head(12, domain);
                w.number(u64::from(*index));
                w.bytes(bytes);
            }
            Self::Output { domain, produced: index, bytes } => {
                head(13, domain);
                w.number(u64::from(*index));
                w.bytes(bytes);
            }
        }
    }

    /// The records that `bytes` hold; `None` if they are not records.
    pub fn decode_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let mut reader = Reader(bytes);
        let mut records = Vec::new();
        while !reader.0.is_empty() {
            records.push(Self::decode(&mut reader)?);
        }
        Some(records)
    }

    fn decode(r: &mut Reader<'_>) -> Option<Self> {
        Some(match r.number()? {
            1 => Self::Node { path: r.path()?, value: r.bytes()?.into(), permissions: r.permissions()? },
            2 => Self::Removed { path: r.path()? },
            3 => Self::Introduced { domain: r.domain()?, gfn: r.number()?, port: r.narrow()? },
            4 => Self::Released { domain: r.domain()? },
            5 => Self::Target { domain: r.domain()?, target: r.domain()? },
            6 => Self::Watched {
                domain: r.domain()?,
                path: r.path()?,
                token: r.bytes()?.into(),
                relative: r.number()? != 0,
                depth: r.narrow::<usize>()?.checked_sub(1),
            },
            7 => Self::Unwatched { domain: r.domain()?, path: r.path()?, token: r.bytes()?.into() },
            8 => Self::Started { domain: r.domain()?, number: r.narrow()? },
            9 => Self::Ended { domain: r.domain()?, number: r.narrow()?, before: r.narrow()? },
            10 => Self::Reset { domain: r.domain()? },
            11 => Self::Special { which: r.narrow()?, permissions: r.permissions()? },
            12 => Self::Input { domain: r.domain()?, consumed: r.narrow()?, bytes: r.bytes()?.into() },
            13 => Self::Output { domain: r.domain()?, produced: r.narrow()?, bytes: r.bytes()?.into() },
            _ => return None,
        })
    }
}
