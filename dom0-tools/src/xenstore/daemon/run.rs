//! The main loop: waits for sockets, events and signals; serves each client in turn, a bounded piece at a time.
//!
//! A client that does not take its answers is not listened to until it does, and nobody waits for it. Before an answer goes
//! out, what it tells is on file ([`Journal`]).

mod linger;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use pv_abi::xs_wire::{XENSTORE_ERROR_PROTO, XENSTORE_RING_SIZE};
use rustix::event::epoll::{self, EventData, EventFlags};

use super::journal::Journal;
use super::ring::Broken;
use super::rings::{Rings, Sign};
use super::trace::Trace;
use crate::daemon;
use crate::evtchn::Port;
use crate::xenstore::store::record::Record;
use crate::xenstore::store::{ClientId, Host, Store};
use crate::xenstore::wire::{Assembler, Message};
use linger::Pace;

/// Events of the machine that are read at once.
const EVENTS: usize = 64;
/// Bytes that are read from a socket in its turn.
const TURN: usize = 8 * 1024;

/// Messages that are sent to a socket at once.
const TOGETHER: usize = 16;
/// How often to look again at a request that is half written.
const PATIENCE: u32 = 50;

/// What the loop waits for, beside clients, whose number is added to the last.
const LISTENER: u64 = 0;
const EVENT_CHANNELS: u64 = 1;
const TERMINATE: u64 = 2;
const REOPEN: u64 = 3;
const CLIENTS: u64 = 16;

/// A connection through the socket.
#[derive(Debug)]
struct Socket {
    stream: UnixStream,
    input: Assembler,
    /// What the loop waits for.
    interest: EventFlags,
}

/// The signals that the daemon listens to.
#[derive(Debug)]
pub struct Signals {
    pub terminate: UnixStream,
    pub interrupt: UnixStream,
    pub reopen: UnixStream,
}

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    pub store: Store,
    pub rings: Rings,
    pub trace: Trace,
    journal: Option<Journal>,
    sockets: BTreeMap<ClientId, Socket>,
    listener: UnixListener,
    /// There were too many connections to accept another.
    full: bool,
    epoll: OwnedFd,
    /// Clients with something to do, in the order in which they are served.
    ready: VecDeque<ClientId>,
    signals: Signals,
    pace: Pace,
}

impl Daemon {
    /// Puts it together.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn new(
        store: Store,
        rings: Rings,
        journal: Option<Journal>,
        listener: UnixListener,
        signals: Signals,
        trace: Trace,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        listener.set_nonblocking(true)?;
        let add = |what: BorrowedFd<'_>, number| {
            epoll::add(&epoll, what, EventData::new_u64(number), EventFlags::IN)
        };
        add(listener.as_fd(), LISTENER)?;
        add(signals.terminate.as_fd(), TERMINATE)?;
        add(signals.interrupt.as_fd(), TERMINATE)?;
        add(signals.reopen.as_fd(), REOPEN)?;
        if let Some(events) = rings.events() {
            add(events.as_fd(), EVENT_CHANNELS)?;
        }
        // Rings may have filled while nobody looked.
        let ready = store.domains().map(|(_, domain)| domain.client).collect();
        let (sockets, full) = (BTreeMap::new(), false);
        Ok(Self {
            store,
            rings,
            trace,
            journal,
            sockets,
            listener,
            full,
            epoll,
            ready,
            signals,
            pace: Pace::default(),
        })
    }

    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// Of the kernel, where nothing can be done without it.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let (mut ports, mut count) = ([0; EVENTS], 0);
        loop {
            self.settle()?;
            self.linger()?;
            if count > 0
                && let Some(channels) = self.rings.events()
            {
                // Only now: what came in while they were served has been seen.
                channels.unmask_all(&ports[..count])?;
                count = 0;
            }
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            events.clear();
            let timeout = if self.ready.is_empty() { None } else { Some(&now) };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    EVENT_CHANNELS => count = self.look_at_events(&mut ports)?,
                    TERMINATE => {
                        let signals = &mut self.signals;
                        if daemon::has_come(&mut signals.terminate)
                            || daemon::has_come(&mut signals.interrupt)
                        {
                            return Ok(());
                        }
                    }
                    REOPEN => {
                        if daemon::has_come(&mut self.signals.reopen) {
                            self.trace.reopen();
                        }
                    }
                    client => self.ready.push_back((client - CLIENTS) as ClientId),
                }
            }
            // Those who are ready now; who still is after its turn, waits for the next round.
            for _ in 0..self.ready.len() {
                if let Some(client) = self.ready.pop_front() {
                    self.serve(client)?;
                }
            }
        }
    }

    /// Reads which event channels have events, and asks which clients these are. How many ports were read.
    fn look_at_events(&mut self, ports: &mut [u32; EVENTS]) -> io::Result<usize> {
        let Some(channels) = self.rings.events() else { return Ok(0) };
        let count = channels.read_pending(ports)?;
        if let [port] = ports[..count]
            && let Some(Sign::Ring(client)) = self.rings.meaning(Port::new(port))
        {
            self.pace.asks(client, Instant::now());
        }
        for &port in &ports[..count] {
            match self.rings.meaning(Port::new(port)) {
                Some(Sign::Ring(client)) => self.ready.push_back(client),
                Some(Sign::DomainsChanged) => {
                    if let Some(condition) = self.rings.conditions() {
                        self.store.check_domains(condition, &mut self.rings);
                        self.write_down()?;
                    }
                }
                // Of a domain that is gone since.
                None => {}
            }
        }
        Ok(count)
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // No more of them: until one goes, others wait in the listener's queue.
                    self.full = epoll::delete(&self.epoll, &self.listener).is_ok();
                    return;
                }
            };
            let client = self.store.connect_tools();
            let number = EventData::new_u64(u64::from(client) + CLIENTS);
            let added = stream
                .set_nonblocking(true)
                .and_then(|()| Ok(epoll::add(&self.epoll, &stream, number, EventFlags::IN)?));
            match added {
                Ok(()) => {
                    let socket = Socket { stream, input: Assembler::default(), interest: EventFlags::IN };
                    self.sockets.insert(client, socket);
                }
                Err(_) => self.store.disconnect(client),
            }
        }
    }

    fn drop_socket(&mut self, client: ClientId) {
        self.sockets.remove(&client);
        self.store.disconnect(client);
        if std::mem::take(&mut self.full) {
            let number = EventData::new_u64(LISTENER);
            // It was there before, so there is room for it.
            let _ = epoll::add(&self.epoll, &self.listener, number, EventFlags::IN);
        }
    }

    /// A client's turn.
    fn serve(&mut self, client: ClientId) -> io::Result<()> {
        if self.sockets.contains_key(&client) { self.serve_socket(client) } else { self.serve_ring(client) }
    }

    /// Serves a request; what it changed is on file then.
    fn request(&mut self, client: ClientId, message: &Message) -> io::Result<()> {
        self.trace.message("IN", client, message.header, &message.payload);
        self.store.request(client, message, &mut self.rings);
        self.write_down()
    }

    fn serve_socket(&mut self, client: ClientId) -> io::Result<()> {
        self.flush_socket(client)?;
        if !self.store.may_ask(client) {
            return Ok(());
        }
        let Some(socket) = self.sockets.get_mut(&client) else { return Ok(()) };
        let mut bytes = [0; TURN];
        let count = match socket.stream.read(&mut bytes) {
            Ok(0) => {
                self.drop_socket(client);
                return Ok(());
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(_) => {
                self.drop_socket(client);
                return Ok(());
            }
        };
        let mut rest = &bytes[..count];
        loop {
            let Some(socket) = self.sockets.get_mut(&client) else { return Ok(()) };
            match socket.input.feed(&mut rest) {
                Ok(Some(message)) => self.request(client, &message)?,
                Ok(None) => return Ok(()),
                Err(_) => {
                    self.drop_socket(client);
                    return Ok(());
                }
            }
        }
    }

    fn serve_ring(&mut self, client: ClientId) -> io::Result<()> {
        let Some(connection) = self.rings.get(client) else { return Ok(()) };
        if connection.ring().wants_reconnection() {
            self.store.start_over(client);
            self.write_down()?;
            self.rings.reset(client);
            return Ok(());
        }
        if connection.broken {
            return Ok(());
        }
        let mut notify = self.flush_ring(client)?;
        let mut bytes = [0; XENSTORE_RING_SIZE];
        let mut patience = PATIENCE;
        // The next request is taken when the answer to the last has gone out.
        'look: while self.owes_nothing(client) {
            let Some(connection) = self.rings.get(client) else { return Ok(()) };
            let (mut index, count) = match connection.ring().look(&mut bytes) {
                Ok(seen) => seen,
                Err(broken) => return self.give_up(client, broken),
            };
            let mut rest = &bytes[..count];
            while !rest.is_empty() && self.owes_nothing(client) {
                let Some(connection) = self.rings.get(client) else { return Ok(()) };
                let (fresh, before) = (connection.partial.is_empty(), rest.len());
                let Ok(message) = connection.partial.feed(&mut rest) else {
                    return self.give_up(client, Broken(XENSTORE_ERROR_PROTO));
                };
                index = index.wrapping_add((before - rest.len()) as u32);
                if let Some(message) = message {
                    self.request(client, &message)?;
                    self.flush_ring(client)?;
                } else if fresh && patience > 0 && connection.partial.total() <= XENSTORE_RING_SIZE {
                    // Half written: the domain is at it, on another CPU, or will be back.
                    connection.partial = Assembler::default();
                    patience -= 1;
                    std::hint::spin_loop();
                    continue 'look;
                } else {
                    // It has to be taken: Linux tells of more only if there was nothing left before.
                    let (domain, bytes) = (connection.domain, connection.partial.partial().into());
                    self.note(Record::Input { domain, consumed: index, bytes })?;
                }
                // Only now it is taken from the ring: a daemon that is killed before finds it there again.
                if let Some(connection) = self.rings.get(client) {
                    connection.ring().take(index);
                }
                notify = true;
            }
            // What was written before the domain could see that all was taken, it does not tell of.
            if self.rings.get(client).is_some_and(|connection| connection.ring().has_more()) {
                self.ready.push_back(client);
            }
            break;
        }
        if notify {
            self.rings.notify(client);
        }
        Ok(())
    }

    /// Whether nothing waits for a client.
    fn owes_nothing(&mut self, client: ClientId) -> bool {
        self.store.client(client).is_some_and(|client| client.outbox.is_empty())
    }

    fn give_up(&mut self, client: ClientId, broken: Broken) -> io::Result<()> {
        self.trace.text(&format!("client {client} makes no sense: {broken:?}"));
        self.store.start_over(client);
        self.write_down()?;
        self.rings.give_up(client, broken);
        Ok(())
    }

    /// Puts what waits for a domain into its ring, as far as there is room. Whether anything was put.
    fn flush_ring(&mut self, client: ClientId) -> io::Result<bool> {
        let mut put = false;
        loop {
            self.store.make_up(client);
            let (Some(connection), Some(found)) = (self.rings.get(client), self.store.client(client)) else {
                return Ok(put);
            };
            if found.outbox.is_empty() {
                return Ok(put);
            }
            let (produced, room) = match connection.ring().room() {
                _ if connection.broken => {
                    found.outbox.clear();
                    return Ok(put);
                }
                Ok(seen) => seen,
                Err(broken) => {
                    self.give_up(client, broken)?;
                    return Ok(put);
                }
            };
            // What does not fit is on file before a part of it is in the ring.
            if found.outbox.bytes() > room && connection.noted != found.outbox.pushed() {
                connection.noted = found.outbox.pushed();
                let (domain, bytes) = (connection.domain, found.outbox.rest().into());
                self.note(Record::Output { domain, produced, bytes })?;
            }
            let (Some(connection), Some(found)) = (self.rings.get(client), self.store.client(client)) else {
                return Ok(put);
            };
            while let next = found.outbox.next()
                && !next.is_empty()
            {
                match connection.ring().put(next) {
                    Ok(0) => return Ok(put),
                    Ok(count) => found.outbox.sent(count),
                    Err(broken) => {
                        self.give_up(client, broken)?;
                        return Ok(put);
                    }
                }
                put = true;
            }
        }
    }

    /// Sends what waits for a tool, as far as its socket takes it.
    fn flush_socket(&mut self, client: ClientId) -> io::Result<()> {
        loop {
            self.store.make_up(client);
            let (Some(socket), Some(found)) = (self.sockets.get_mut(&client), self.store.client(client))
            else {
                return Ok(());
            };
            let mut slices = [IoSlice::new(&[]); TOGETHER];
            slices
                .iter_mut()
                .zip(found.outbox.slices())
                .for_each(|(slice, next)| *slice = IoSlice::new(next));
            let written = if found.outbox.is_empty() { Ok(0) } else { socket.stream.write_vectored(&slices) };
            let full = match written {
                Ok(count) if count > 0 => {
                    found.outbox.sent(count);
                    continue;
                }
                Ok(_) => false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.drop_socket(client);
                    return Ok(());
                }
            };
            let mut interest = EventFlags::empty();
            interest.set(EventFlags::OUT, full);
            interest.set(EventFlags::IN, self.store.may_ask(client));
            if socket.interest != interest {
                socket.interest = interest;
                let number = EventData::new_u64(u64::from(client) + CLIENTS);
                epoll::modify(&self.epoll, &socket.stream, number, interest)?;
            }
            return Ok(());
        }
    }

    /// Sends to everybody what has come up for them; does what is left to do.
    fn settle(&mut self) -> io::Result<()> {
        self.write_down()?;
        while let Some(client) = self.store.dirty.pop() {
            if self.sockets.contains_key(&client) {
                self.flush_socket(client)?;
            } else if self.flush_ring(client)? {
                self.rings.notify(client);
            }
        }
        for (command, arguments) in std::mem::take(&mut self.rings.commands) {
            self.trace.obey(&command, &arguments);
        }
        for message in std::mem::take(&mut self.store.messages) {
            self.trace.text(&message);
        }
        if self.journal.as_ref().is_some_and(Journal::has_grown) {
            self.write_anew();
        }
        Ok(())
    }

    /// Puts a record on file.
    fn note(&mut self, record: Record) -> io::Result<()> {
        if let Some(records) = &mut self.store.records {
            records.push(record);
        }
        self.write_down()
    }

    /// Puts what has changed on file.
    fn write_down(&mut self) -> io::Result<()> {
        let (Some(records), Some(journal)) = (&mut self.store.records, &mut self.journal) else {
            return Ok(());
        };
        if records.is_empty() {
            return Ok(());
        }
        let written = journal.append(records);
        records.clear();
        if let Err(error) = written {
            self.forgo(&error);
        }
        Ok(())
    }

    /// Makes the file anew.
    pub fn write_anew(&mut self) {
        let mut snapshot = self.store.snapshot();
        let domains: Vec<_> = self.store.domains().collect();
        for (domain, found) in domains {
            let (Some(connection), Some(client)) =
                (self.rings.get(found.client), self.store.client(found.client))
            else {
                continue;
            };
            if !connection.partial.is_empty() {
                let bytes = connection.partial.partial().into();
                snapshot.push(Record::Input { domain, consumed: connection.ring().taken(), bytes });
            }
            if !client.outbox.is_empty()
                && let Ok((produced, _)) = connection.ring().room()
            {
                snapshot.push(Record::Output { domain, produced, bytes: client.outbox.rest().into() });
            }
        }
        if let Some(journal) = &mut self.journal
            && let Err(error) = journal.rewrite(&snapshot)
        {
            self.forgo(&error);
        }
    }

    /// Goes on without the file: better than to stop. A later start finds no state rather than an old one.
    fn forgo(&mut self, error: &io::Error) {
        self.trace.text(&format!("the store is not kept on file any more: {error}"));
        self.store.records = None;
        if let Some(journal) = self.journal.take() {
            journal.remove();
        }
    }
}
