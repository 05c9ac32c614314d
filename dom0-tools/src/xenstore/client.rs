//! A connection to XenStore's daemon: requests, transactions, watches.
//!
//! Through the daemon's Unix socket, or, where there is none, through the kernel's `/dev/xen/xenbus`, which reaches a daemon
//! in another domain.

mod error;
mod nodes;
mod transaction;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pv_abi::Errno;
use pv_abi::domid::DomId;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::wire::{self, Assembler, Message, MessageType, SockMsg, XENSTORE_PAYLOAD_MAX};
use error::what;
use nodes::text;

pub use error::{Error, Result};
pub use nodes::Nodes;
pub use transaction::Transaction;

/// The kernel's way to XenStore.
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];
/// What the kernel shows in the domain whose job the daemon is.
const DAEMON_IS_HERE: &str = "/proc/xen/xsd_port";

/// Where the daemon's socket is, and where Debian's daemon has it; in most systems that is the same.
pub(super) const SOCKET: &str = "/run/xenstored/socket";
pub(super) const OTHER_SOCKET: &str = "/var/run/xenstored/socket";

/// Requests that are sent before the first answer is read: so few that a socket takes them all while nobody reads.
const IN_FLIGHT: usize = 16;

/// Where the daemon's socket is: `XENSTORED_PATH`, or `socket` in `XENSTORED_RUNDIR`, or in `/run/xenstored`.
pub fn socket_path() -> PathBuf {
    let directory = || std::env::var_os("XENSTORED_RUNDIR").map_or("/run/xenstored".into(), PathBuf::from);
    std::env::var_os("XENSTORED_PATH").map_or_else(|| directory().join("socket"), PathBuf::from)
}

/// Something changed at or below a watched node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The node.
    pub path: String,
    /// The token that was given to [`Client::watch`].
    pub token: String,
}

/// A connection. Not for several threads at once: let each have its own.
#[derive(Debug)]
pub struct Client {
    stream: File,
    next_request: Cell<u32>,
    input: RefCell<Assembler>,
    /// Read from the stream, but not looked at yet.
    unread: RefCell<Vec<u8>>,
    events: RefCell<VecDeque<Event>>,
}

impl Client {
    /// Connects to the daemon.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect() -> Result<Self> {
        let path = socket_path();
        let error = match UnixStream::connect(&path) {
            Ok(stream) => return Ok(Self::new(File::from(OwnedFd::from(stream)))),
            Err(error) => error,
        };
        // Debian's daemon, in a system where that is not the same directory.
        if path == Path::new(SOCKET)
            && let Ok(stream) = UnixStream::connect(OTHER_SOCKET)
        {
            return Ok(Self::new(File::from(OwnedFd::from(stream))));
        }
        // The device leads to a daemon elsewhere. Where the daemon should be here, it would wait for ever.
        if !Path::new(DAEMON_IS_HERE).exists() {
            let open = |path| OpenOptions::new().read(true).write(true).open(path).ok();
            if let Some(device) = DEVICES.into_iter().find_map(open) {
                return Ok(Self::new(device));
            }
        }
        Err(Error::Connect { path, error })
    }

    /// Connects to the daemon at a socket.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub fn connect_to(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Self::new(File::from(OwnedFd::from(stream)))),
            Err(error) => Err(Error::Connect { path, error }),
        }
    }

    fn new(stream: File) -> Self {
        Self {
            stream,
            next_request: Cell::new(0),
            input: RefCell::default(),
            unread: RefCell::default(),
            events: RefCell::default(),
        }
    }

    /// Tells of changes at and below `path`, from now on and once at the start, by [`Event`]s with `token`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn watch(&self, path: &str, token: &str) -> Result<()> {
        let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.call(MessageType::Watch, 0, path, &parts).map(drop)
    }

    /// Ends that. Events of it that are underway are dropped.
    ///
    /// # Errors
    /// [`Error`].
    pub fn unwatch(&self, path: &str, token: &str) -> Result<()> {
        let parts = [path.as_bytes(), b"\0", token.as_bytes(), b"\0"];
        self.call(MessageType::Unwatch, 0, path, &parts)?;
        self.events.borrow_mut().retain(|event| event.token != token);
        Ok(())
    }

    /// The next event of a watch; waits for it, `timeout` at most if that is given.
    ///
    /// Events also arrive while a request waits for its answer. So whoever waits for [`Self::as_fd`] first calls this with a
    /// timeout of zero until it answers `None`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn next_event(&self, timeout: Option<Duration>) -> Result<Option<Event>> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            if let Some(event) = self.events.borrow_mut().pop_front() {
                return Ok(Some(event));
            }
            if let Some(end) = end
                && self.unread.borrow().is_empty()
            {
                let left = end.saturating_duration_since(Instant::now());
                let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1 << 30, tv_nsec: 0 });
                let mut poll = [PollFd::new(&self.stream, PollFlags::IN)];
                match rustix::event::poll(&mut poll, Some(&left)) {
                    Ok(0) => return Ok(None),
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(Error::Connection(error.into())),
                }
            }
            // An answer that nobody waits for is dropped: its request failed half way.
            self.receive()?;
        }
    }

    /// Tells XenStore of a domain: the page of its ring, and its end of the event channel.
    ///
    /// # Errors
    /// [`Error`].
    pub fn introduce(&self, domain: DomId, gfn: u64, port: u32) -> Result<()> {
        let payload = format!("{}\0{gfn}\0{port}\0", domain.raw());
        self.call(MessageType::Introduce, 0, "", &[payload.as_bytes()]).map(drop)
    }

    fn about(&self, kind: MessageType, domain: DomId) -> Result<Vec<u8>> {
        self.call(kind, 0, "", &[format!("{}\0", domain.raw()).as_bytes()])
    }

    /// Tells XenStore that a domain is gone.
    ///
    /// # Errors
    /// [`Error`].
    pub fn release(&self, domain: DomId) -> Result<()> {
        self.about(MessageType::Release, domain).map(drop)
    }

    /// Tells XenStore that a domain that shut down runs again.
    ///
    /// # Errors
    /// [`Error`].
    pub fn resume(&self, domain: DomId) -> Result<()> {
        self.about(MessageType::Resume, domain).map(drop)
    }

    /// Lets a domain do what another one may do.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_target(&self, domain: DomId, target: DomId) -> Result<()> {
        let payload = format!("{}\0{}\0", domain.raw(), target.raw());
        self.call(MessageType::SetTarget, 0, "", &[payload.as_bytes()]).map(drop)
    }

    /// Whether XenStore knows of a domain.
    ///
    /// # Errors
    /// [`Error`].
    pub fn is_introduced(&self, domain: DomId) -> Result<bool> {
        Ok(self.about(MessageType::IsDomainIntroduced, domain)?.starts_with(b"T"))
    }

    /// Where a domain's nodes are: `/local/domain/N`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn domain_path(&self, domain: DomId) -> Result<String> {
        let payload = self.about(MessageType::GetDomainPath, domain)?;
        Ok(wire::strings(&payload).next().map(text).unwrap_or_default())
    }

    /// Talks to the daemon itself: a command and its parameters.
    ///
    /// # Errors
    /// [`Error`].
    pub fn control(&self, command: &[&str]) -> Result<String> {
        let payload: String = command.iter().map(|word| format!("{word}\0")).collect();
        let answer = self.call(MessageType::Control, 0, "", &[payload.as_bytes()])?;
        Ok(text(answer.strip_suffix(b"\0").unwrap_or(&answer)))
    }

    /// [`Nodes::read_texts`] in a transaction, or 0 outside.
    fn texts(&self, transaction: u32, paths: &[String]) -> Result<Vec<Option<String>>> {
        let mut values = Vec::with_capacity(paths.len());
        for paths in paths.chunks(IN_FLIGHT) {
            let (mut bytes, mut asked) = (Vec::new(), Vec::with_capacity(paths.len()));
            for path in paths {
                let parts = [path.as_bytes(), b"\0"];
                asked.push(self.append(&mut bytes, MessageType::Read, transaction, path, &parts)?);
            }
            (&self.stream).write_all(&bytes)?;
            // XenStore serves a client's requests in their order.
            for (path, req_id) in paths.iter().zip(asked) {
                match self.answer(MessageType::Read, path, req_id) {
                    Ok(value) => values.push(Some(String::from_utf8_lossy(&value).into_owned())),
                    Err(error) if error.is(Errno::ENOENT) => values.push(None),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(values)
    }

    fn call(&self, kind: MessageType, transaction: u32, path: &str, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let req_id = self.append(&mut bytes, kind, transaction, path, parts)?;
        (&self.stream).write_all(&bytes)?;
        self.answer(kind, path, req_id)
    }

    /// Puts a request at the end of `bytes`; its number.
    fn append(
        &self,
        bytes: &mut Vec<u8>,
        kind: MessageType,
        transaction: u32,
        path: &str,
        parts: &[&[u8]],
    ) -> Result<u32> {
        // Longer, and XenStore would close the connection.
        if parts.iter().map(|part| part.len()).sum::<usize>() > XENSTORE_PAYLOAD_MAX {
            return Err(Error::Refused { what: what(kind), path: path.to_owned(), errno: Errno::E2BIG });
        }
        let req_id = self.next_request.replace(self.next_request.get().wrapping_add(1));
        wire::append(bytes, SockMsg { r#type: kind.raw(), req_id, tx_id: transaction, len: 0 }, parts);
        Ok(req_id)
    }

    /// Waits for the answer to a request.
    fn answer(&self, kind: MessageType, path: &str, req_id: u32) -> Result<Vec<u8>> {
        let refused = |errno| Error::Refused { what: what(kind), path: path.to_owned(), errno };
        loop {
            // Another number is of a request that failed half way.
            let Some(answer) = self.receive()?.filter(|answer| answer.header.req_id == req_id) else {
                continue;
            };
            return match answer.header.r#type {
                found if found == kind.raw() => Ok(answer.payload),
                found if found == MessageType::Error.raw() => Err(refused(wire::error(&answer.payload))),
                found => Err(Error::Nonsense { what: what(kind), why: format!("an answer of type {found}") }),
            };
        }
    }

    /// Reads one message: an answer, or an event, which is queued.
    fn receive(&self) -> Result<Option<Message>> {
        let (mut input, mut unread) = (self.input.borrow_mut(), self.unread.borrow_mut());
        loop {
            let mut rest = &unread[..];
            let message = input.feed(&mut rest)?;
            let taken = unread.len() - rest.len();
            unread.drain(..taken);
            let Some(message) = message else {
                let mut bytes = [0; XENSTORE_PAYLOAD_MAX];
                match (&self.stream).read(&mut bytes) {
                    Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    Ok(count) => unread.extend_from_slice(&bytes[..count]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
                continue;
            };
            if message.header.r#type != MessageType::WatchEvent.raw() {
                return Ok(Some(message));
            }
            let mut fields = wire::strings(&message.payload).map(text);
            if let (Some(path), Some(token)) = (fields.next(), fields.next()) {
                self.events.borrow_mut().push_back(Event { path, token });
            }
            return Ok(None);
        }
    }
}

impl Nodes for Client {
    fn request(&self, kind: MessageType, path: &str, parts: &[&[u8]]) -> Result<Vec<u8>> {
        self.call(kind, 0, path, parts)
    }

    fn read_texts(&self, paths: &[String]) -> Result<Vec<Option<String>>> {
        self.texts(0, paths)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
