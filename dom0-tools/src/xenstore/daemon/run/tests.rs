//! The daemon with real sockets and journals, and domains whose rings are plain memory.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use pv_abi::Errno;
use pv_abi::domid::DomId;
use pv_abi::xs_wire::{MessageType, SockMsg};

use super::*;
use crate::shared_memory::SharedMemory;
use crate::xenstore::client::{Client, Nodes};
use crate::xenstore::wire;

const GUEST: DomId = DomId::new(1);

fn directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("nacelle-xenstored-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Starts a daemon on what a former one left in `directory`. The end of its signals, too.
fn start(directory: &Path, rings: Rings) -> (Daemon, UnixStream) {
    let (journal, records) = Journal::open(&directory.join("state"), false).unwrap();
    let (mut store, mut rings) = (Store::new(), rings);
    for (domain, former) in store.restore(records) {
        let client = store.resume_domain(domain, &former, &mut rings).unwrap();
        rings.resume(client, &mut store, &former);
    }
    store.records = Some(Vec::new());
    let socket = directory.join("socket");
    let _ = std::fs::remove_file(&socket);
    let pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
    for (ours, _) in &pairs {
        ours.set_nonblocking(true).unwrap();
    }
    let [(terminate, stop), (interrupt, _), (reopen, _)] = pairs;
    let signals = Signals { terminate, interrupt, reopen };
    let listener = UnixListener::bind(socket).unwrap();
    let mut daemon = Daemon::new(store, rings, Some(journal), listener, signals, Trace::default()).unwrap();
    daemon.write_anew();
    (daemon, stop)
}

/// Runs `test` with the path of a daemon's socket.
fn with_daemon(directory: &Path, test: impl FnOnce(&Path)) {
    let (mut daemon, mut stop) = start(directory, Rings::default());
    let running = thread::spawn(move || daemon.run().map(|()| daemon));
    test(&directory.join("socket"));
    stop.write_all(b"x").unwrap();
    running.join().unwrap().unwrap();
}

/// Runs `test` with the path of the socket of a daemon that knows nothing yet.
pub(crate) fn with_empty_store(test: impl FnOnce(&Path)) {
    let directory = directory();
    with_daemon(&directory, test);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn clients_are_served_and_the_next_daemon_goes_on() {
    let directory = directory();
    let permissions = ["n0".parse().unwrap(), "r7".parse().unwrap()];
    with_daemon(&directory, |socket| {
        let (a, b) = (Client::connect_to(socket).unwrap(), Client::connect_to(socket).unwrap());
        a.write("/a/b", "1").unwrap();
        a.watch("/a", "token").unwrap();
        assert_eq!(a.next_event(None).unwrap().unwrap().path, "/a");
        assert_eq!(a.next_event(Some(std::time::Duration::ZERO)).unwrap(), None);
        let mut tries = 0;
        let value = b.transaction(|t| {
            tries += 1;
            let value = t.read("/a/b")?;
            if tries == 1 {
                a.write("/a/b", "2")?;
            }
            t.write("/a/sum", &value)?;
            wire_result(value)
        });
        assert_eq!((value.unwrap(), tries), (b"2".to_vec(), 2));
        let changed: Vec<_> = (0..2).map(|_| a.next_event(None).unwrap().unwrap().path).collect();
        assert_eq!(changed, ["/a/b", "/a/sum"]);
        b.set_permissions("/a/sum", &permissions).unwrap();
        assert!(b.read("/nothing").unwrap_err().is(Errno::ENOENT));
        assert_eq!(b.read_text("/nothing").unwrap(), None);
        assert!(b.read_text("/nothing").is_ok() && !b.exists("/nothing").unwrap());
        let dropped: Result<(), crate::xenstore::Error> = b.transaction(|t| {
            t.write("/never", "")?;
            Err(t.read("/nothing").unwrap_err())
        });
        assert!(dropped.is_err() && !b.exists("/never").unwrap());
        let names: Vec<_> = (0..1000).map(|n| format!("name-{n}")).collect();
        for name in &names {
            b.mkdir(&format!("/many/{name}")).unwrap();
        }
        assert_eq!(b.directory("/many").unwrap(), names, "more than a message holds");
        a.unwatch("/a", "token").unwrap();
        assert_eq!(a.domain_path(DomId::new(9)).unwrap(), "/local/domain/9");
        assert!(!a.is_introduced(DomId::new(9)).unwrap());
        assert!(a.introduce(DomId::new(9), 1, 1).is_err(), "no machine here");
        assert_eq!(a.control(&["check"]).unwrap(), "OK");
    });
    with_daemon(&directory, |socket| {
        let client = Client::connect_to(socket).unwrap();
        assert_eq!(client.read("/a/sum").unwrap(), b"2");
        assert_eq!(client.permissions("/a/sum").unwrap(), permissions);
        assert_eq!(client.directory("/many").unwrap().len(), 1000);
        client.rm("/many").unwrap();
    });
    std::fs::remove_dir_all(directory).unwrap();
}

fn wire_result<T>(value: T) -> crate::xenstore::Result<T> {
    Ok(value)
}

#[test]
fn what_is_gone_is_not_made_anew() {
    let directory = directory();
    with_daemon(&directory, |socket| {
        let (daemon, tool) = (Client::connect_to(socket).unwrap(), Client::connect_to(socket).unwrap());
        assert!(!daemon.write_below("/home", "console/tty", "/dev/pts/0").unwrap());
        assert!(!daemon.exists("/home").unwrap());
        tool.write("/home/console/port", "1").unwrap();
        assert!(daemon.write_below("/home", "console/tty", "/dev/pts/0").unwrap());
        assert_eq!(daemon.read_text("/home/console/tty").unwrap().as_deref(), Some("/dev/pts/0"));
        // A tool that removes it after the daemon has seen it; once more where there is no such node yet.
        for node in ["console/tty", "memory/target"] {
            tool.write("/home/console/tty", "").unwrap();
            let mut tries = 0;
            let is_there = daemon.transaction(|transaction| {
                tries += 1;
                let is_there = transaction.write_below("/home", node, "1")?;
                if tries == 1 {
                    tool.rm("/home")?;
                }
                wire_result(is_there)
            });
            assert_eq!((is_there.unwrap(), tries), (false, 2), "{node}");
            assert!(!tool.exists("/home").unwrap(), "{node}");
        }
    });
    std::fs::remove_dir_all(directory).unwrap();
}

/// Domains that live for some requests' time, under a daemon that writes to them all the time.
#[test]
fn a_write_never_outlives_its_domain() {
    let directory = directory();
    with_daemon(&directory, |socket| {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let daemon = Client::connect_to(socket).unwrap();
                let mut written = 0;
                while !is_over.load(Relaxed) {
                    written += u32::from(daemon.write_below("/home", "console/tty", "/dev/pts/0").unwrap());
                }
                written
            });
            let tool = Client::connect_to(socket).unwrap();
            let mut back = 0;
            for life in 0..400 {
                tool.write("/home/console/port", "1").unwrap();
                for _ in 0..life % 10 {
                    assert!(tool.exists("/home").unwrap());
                }
                tool.rm("/home").unwrap();
                // Long enough for what is under way.
                back += u32::from((0..10).any(|_| tool.exists("/home").unwrap()));
            }
            is_over.store(true, Relaxed);
            let written = writer.join().unwrap();
            println!("written {written} times");
            assert!(back == 0 && written > 0, "{back} of 400 are back; {written} writes");
        });
    });
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn many_nodes_are_read_at_once() {
    let directory = directory();
    with_daemon(&directory, |socket| {
        let client = Client::connect_to(socket).unwrap();
        client.watch("/n", "token").unwrap();
        for number in (0..100).step_by(2) {
            client.write(&format!("/n/{number}"), number.to_string()).unwrap();
        }
        let paths: Vec<_> = (0..100).map(|number| format!("/n/{number}")).collect();
        let expected = |number: u32| number.is_multiple_of(2).then(|| number.to_string());
        assert_eq!(client.read_texts(&paths).unwrap(), (0..100).map(expected).collect::<Vec<_>>());
        // A request that is refused for another reason leaves the answers to the others behind, which nobody takes for his.
        let bad = ["/n/0", "no path", "/n/2"].map(str::to_owned);
        assert!(client.read_texts(&bad).unwrap_err().is(Errno::EINVAL));
        assert_eq!(client.read_text("/n/4").unwrap().as_deref(), Some("4"));
    });
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_client_that_sends_nonsense_or_reads_nothing_disturbs_nobody() {
    let directory = directory();
    with_daemon(&directory, |socket| {
        let mut nonsense = UnixStream::connect(socket).unwrap();
        nonsense.write_all(&[0xff; 64]).unwrap();
        let mut deaf = UnixStream::connect(socket).unwrap();
        deaf.set_nonblocking(true).unwrap();
        let mut flood = Vec::new();
        for _ in 0..1000 {
            let header = SockMsg { r#type: MessageType::Directory.raw(), ..SockMsg::default() };
            wire::append(&mut flood, header, &[b"/many\0"]);
        }
        let client = Client::connect_to(socket).unwrap();
        for name in 0..300 {
            client.mkdir(&format!("/many/child-{name}")).unwrap();
        }
        // Until its socket is full in both directions.
        while deaf.write(&flood).is_ok() {}
        assert_eq!(client.directory("/many").unwrap().len(), 300);
        let mut end = Vec::new();
        assert_eq!(nonsense.read_to_end(&mut end).unwrap_or(0), 0, "it was closed");
    });
    std::fs::remove_dir_all(directory).unwrap();
}

/// A domain's side of its ring.
struct Guest<'a>(&'a SharedMemory);

impl Guest<'_> {
    /// Sends what there is room for; how much that was.
    fn send(&self, bytes: &[u8]) -> usize {
        let (taken, asked) = (self.0.load(2048, Acquire), self.0.load(2052, Relaxed));
        let count = bytes.len().min(1024 - asked.wrapping_sub(taken) as usize);
        for (at, byte) in bytes[..count].iter().enumerate() {
            self.0.copy_in((asked as usize + at) % 1024, &[*byte]);
        }
        self.0.store(2052, asked.wrapping_add(count as u32), Release);
        count
    }

    /// Takes what is there.
    fn receive(&self) -> Vec<u8> {
        let (received, answered) = (self.0.load(2056, Relaxed), self.0.load(2060, Acquire));
        let mut bytes = vec![0; answered.wrapping_sub(received) as usize];
        for (at, byte) in bytes.iter_mut().enumerate() {
            self.0.copy_out(1024 + (received as usize + at) % 1024, std::slice::from_mut(byte));
        }
        self.0.store(2056, answered, Release);
        bytes
    }
}

fn request(kind: MessageType, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::append(&mut bytes, SockMsg { r#type: kind.raw(), req_id: 5, tx_id, len: 0 }, &[payload]);
    bytes
}

/// A daemon with one domain, whose ring's indices begin where they soon wrap.
fn with_guest(directory: &Path) -> (Daemon, ClientId) {
    let mut rings = Rings::default();
    rings.pages.insert(GUEST, SharedMemory::private(4096).unwrap());
    let (mut daemon, _) = start(directory, rings);
    let client = daemon.store.introduce_domain(GUEST, 1, 1, &mut daemon.rings).unwrap();
    let tools = daemon.store.connect_tools();
    let payload = b"/local/domain/1\0n1\0".to_vec();
    for (kind, payload) in
        [(MessageType::Mkdir, b"/local/domain/1\0".to_vec()), (MessageType::SetPerms, payload)]
    {
        let header = SockMsg { r#type: kind.raw(), ..SockMsg::default() };
        daemon.request(tools, &Message { header, payload }).unwrap();
    }
    daemon.store.disconnect(tools);
    daemon.settle().unwrap();
    let memory = daemon.rings.get(client).unwrap().ring().0;
    for index in [2048, 2052, 2056, 2060] {
        memory.store(index, u32::MAX - 100, Relaxed);
    }
    (daemon, client)
}

/// The daemon is killed and another one started, `times` times, at each of a request's steps: `send` bytes, a turn, `receive`.
fn exchange(directory: &Path, send: &[u8], kill: bool) -> Vec<u8> {
    let (mut daemon, mut client) = with_guest(directory);
    let (mut rest, mut answer, mut assembler) = (send, Vec::new(), Assembler::default());
    for _ in 0..200 {
        let memory = daemon.rings.get(client).unwrap().ring().0;
        let sent = Guest(memory).send(&rest[..rest.len().min(700)]);
        rest = &rest[sent..];
        daemon.serve(client).unwrap();
        let memory = daemon.rings.get(client).unwrap().ring().0;
        let piece = Guest(memory).receive();
        answer.extend_from_slice(&piece);
        let mut piece = &piece[..];
        if let Some(message) = assembler.feed(&mut piece).unwrap()
            && rest.is_empty()
        {
            assert!(piece.is_empty());
            return message.payload;
        }
        if kill {
            // What a killed daemon leaves: its file, and the ring.
            let page = std::mem::take(&mut daemon.rings).into_page(client);
            drop(daemon);
            let mut rings = Rings::default();
            rings.pages.insert(GUEST, page);
            (daemon, _) = start(directory, rings);
            client = daemon.store.domains().next().expect("the domain").1.client;
        }
    }
    panic!("no answer, {} bytes of one", answer.len());
}

#[test]
fn requests_and_answers_longer_than_the_ring_survive_a_kill_at_every_step() {
    let value = vec![b'v'; 1990];
    let write = request(MessageType::Write, 0, &[b"long\0", &value[..]].concat());
    for kill in [false, true] {
        let directory = directory();
        assert_eq!(exchange(&directory, &write, kill), b"OK\0");
        assert_eq!(exchange_again(&directory, &request(MessageType::Read, 0, b"long\0")), value);
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// A request that makes its node itself, so that each daemon can answer it; killed at each step of the answer.
fn exchange_again(directory: &Path, read: &[u8]) -> Vec<u8> {
    std::fs::remove_file(directory.join("state")).unwrap();
    let value = vec![b'v'; 1990];
    let (mut daemon, mut client) = with_guest(directory);
    let tools = daemon.store.connect_tools();
    let payload = [b"/local/domain/1/long\0", &value[..]].concat();
    let header = SockMsg { r#type: MessageType::Write.raw(), ..SockMsg::default() };
    daemon.request(tools, &Message { header, payload }).unwrap();
    daemon.store.disconnect(tools);
    Guest(daemon.rings.get(client).unwrap().ring().0).send(read);
    let mut assembler = Assembler::default();
    for _ in 0..20 {
        daemon.serve(client).unwrap();
        let piece = Guest(daemon.rings.get(client).unwrap().ring().0).receive();
        if let Some(message) = assembler.feed(&mut &piece[..]).unwrap() {
            return message.payload;
        }
        let page = std::mem::take(&mut daemon.rings).into_page(client);
        drop(daemon);
        let mut rings = Rings::default();
        rings.pages.insert(GUEST, page);
        (daemon, _) = start(directory, rings);
        client = daemon.store.domains().next().expect("the domain").1.client;
    }
    panic!("no answer");
}

#[test]
fn a_ring_of_nonsense_is_left_alone_until_it_begins_anew() {
    let directory = directory();
    let (mut daemon, client) = with_guest(&directory);
    let read = request(MessageType::GetDomainPath, 0, b"1\0");
    let page = |daemon: &mut Daemon, offset| daemon.rings.get(client).unwrap().ring().0.load(offset, Relaxed);
    let set = |daemon: &mut Daemon, offset, value| {
        daemon.rings.get(client).unwrap().ring().0.store(offset, value, Relaxed);
    };
    let send = |daemon: &mut Daemon, bytes: &[u8]| {
        Guest(daemon.rings.get(client).unwrap().ring().0).send(bytes);
        daemon.serve(client).unwrap();
        Guest(daemon.rings.get(client).unwrap().ring().0).receive()
    };
    for (nonsense, error) in [(&b"\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\0\0"[..], 3), (b"", 2)] {
        assert!(send(&mut daemon, &read).ends_with(b"/local/domain/1\0"));
        if nonsense.is_empty() {
            let asked = page(&mut daemon, 2052);
            set(&mut daemon, 2052, asked.wrapping_add(5000));
            daemon.serve(client).unwrap();
        } else {
            send(&mut daemon, nonsense);
        }
        assert_eq!(page(&mut daemon, 2072), error);
        let taken = page(&mut daemon, 2048);
        set(&mut daemon, 2052, taken);
        assert!(send(&mut daemon, &read).is_empty());
        set(&mut daemon, 2068, 1);
        daemon.serve(client).unwrap();
        assert_eq!([2048, 2052, 2060, 2068, 2072].map(|offset| page(&mut daemon, offset)), [0; 5]);
    }
    assert!(send(&mut daemon, &read).ends_with(b"/local/domain/1\0"));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn each_piece_of_a_request_is_taken_at_once() {
    let directory = directory();
    let (mut daemon, client) = with_guest(&directory);
    let read = request(MessageType::GetDomainPath, 0, b"1\0");
    for at in 0..read.len() {
        Guest(daemon.rings.get(client).unwrap().ring().0).send(&read[at..=at]);
        daemon.serve(client).unwrap();
        let piece = Guest(daemon.rings.get(client).unwrap().ring().0).receive();
        assert_eq!(piece.is_empty(), at + 1 < read.len());
        // Or Linux would not tell of the next piece.
        let memory = daemon.rings.get(client).unwrap().ring().0;
        assert_eq!(memory.load(2048, Relaxed), memory.load(2052, Relaxed));
    }
    // Many at once: as many are taken as have room for their answers.
    let many = read.repeat(50);
    let (mut rest, mut answers) = (&many[..], Vec::new());
    while answers.len() < 50 * 32 {
        let sent = Guest(daemon.rings.get(client).unwrap().ring().0).send(rest);
        rest = &rest[sent..];
        daemon.serve(client).unwrap();
        let piece = Guest(daemon.rings.get(client).unwrap().ring().0).receive();
        assert!(!piece.is_empty());
        answers.extend(piece);
    }
    std::fs::remove_dir_all(directory).unwrap();
}
