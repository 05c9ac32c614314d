//! Who is connected: `xl` on the control socket, Prometheus where that is asked for. Nobody can hold the daemon up.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::memoryd::protocol::{Answer, LONGEST_REQUEST, Request};

/// What waits for one that does not read; who lets it grow beyond is left.
const MOST_WAITING: usize = 4 << 20;

/// Connections of `xl` at once.
const MOST: usize = 64;
/// Connections of Prometheus at once, which ask and go. They are counted apart: `xl`'s claims hang on its own.
const MOST_METRICS: usize = 8;

/// Whether there is room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// There is.
    Free,
    /// If this one goes.
    Instead(u64),
    /// There is none.
    None,
}

impl Room {
    /// For one of `xl`, or of Prometheus: of these the oldest goes, which hangs, or it would have its page.
    pub(super) fn among(peers: &BTreeMap<u64, Peer>, is_metrics: bool) -> Self {
        let mut alike = peers.iter().filter(|(_, peer)| peer.is_metrics == is_metrics).map(|(id, _)| *id);
        let most = if is_metrics { MOST_METRICS } else { MOST };
        match (alike.clone().count() < most, alike.next()) {
            (false, Some(oldest)) if is_metrics => Self::Instead(oldest),
            (false, _) => Self::None,
            (true, _) => Self::Free,
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(to),
            Self::Tcp(stream) => stream.read(to),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(from),
            Self::Tcp(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What somebody wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A request, or what is wrong with it.
    Ask(Result<Request, String>),
    /// All counters, as an answer to a GET.
    Metrics,
}

/// Somebody who is connected.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) stream: Stream,
    is_metrics: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    pub(super) follows: bool,
    /// It is to be left once it has read everything.
    ends: bool,
}

impl Peer {
    pub(super) fn new(stream: Stream, is_metrics: bool) -> io::Result<Self> {
        match &stream {
            Stream::Unix(stream) => stream.set_nonblocking(true)?,
            Stream::Tcp(stream) => stream.set_nonblocking(true)?,
        }
        let (input, output) = (Vec::new(), Vec::new());
        Ok(Self { stream, is_metrics, input, output, follows: false, ends: false })
    }

    /// Reads what it says. `Err`: it is gone, or says what cannot be a request.
    pub(super) fn listen(&mut self) -> Result<Vec<Wish>, ()> {
        let mut wishes = Vec::new();
        loop {
            let mut part = [0; 1024];
            match self.stream.read(&mut part) {
                Ok(0) => return Err(()),
                Ok(count) => self.input.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(wishes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(()),
            }
            match self.is_metrics {
                // Whatever is asked for, there is one page.
                true if self.input.windows(4).any(|end| end == b"\r\n\r\n") => {
                    self.input.clear();
                    wishes.push(Wish::Metrics);
                }
                true => {}
                false => self.take_lines(&mut wishes),
            }
            if self.input.len() > LONGEST_REQUEST {
                return Err(());
            }
        }
    }

    fn take_lines(&mut self, wishes: &mut Vec<Wish>) {
        while let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let asked = serde_json::from_slice(&line).map_err(|error| format!("no request: {error}"));
            wishes.push(Wish::Ask(asked));
        }
    }

    /// Answers a request.
    pub(super) fn answer(&mut self, answer: &Answer) {
        // Nothing in an answer can fail to be JSON.
        self.output.extend(serde_json::to_vec(answer).unwrap_or_default());
        self.output.push(b'\n');
    }

    /// Answers a GET.
    pub(super) fn show(&mut self, page: &str) {
        let length = page.len();
        let head = format!(
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\r\n"
        );
        self.output.extend(head.bytes().chain(page.bytes()));
        self.ends = true;
    }

    /// Lets it have what it takes now. `Err`: it is gone, or to be left.
    pub(super) fn flush(&mut self) -> Result<(), ()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(()),
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(()),
            }
        }
        match self.output.len() {
            0 if self.ends => Err(()),
            waiting if waiting > MOST_WAITING => Err(()),
            _ => Ok(()),
        }
    }

    /// Whether something waits for it to read.
    pub(super) fn is_full(&self) -> bool {
        !self.output.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(is_metrics: bool) -> (Peer, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Peer::new(Stream::Unix(ours), is_metrics).unwrap(), theirs)
    }

    #[test]
    fn requests_come_in_pieces_and_several_at_once() {
        let (mut peer, mut theirs) = pair(false);
        theirs.write_all(b"{\"ask\":\"sta").unwrap();
        assert_eq!(peer.listen(), Ok(vec![]));
        theirs.write_all(b"tus\"}\n{\"ask\":\"follow\"}\nx\n").unwrap();
        let wishes = peer.listen().unwrap();
        assert_eq!(wishes[..2], [Wish::Ask(Ok(Request::Status)), Wish::Ask(Ok(Request::Follow))]);
        assert!(matches!(&wishes[2], Wish::Ask(Err(why)) if why.starts_with("no request")));
        theirs.write_all(&[b'x'; LONGEST_REQUEST + 1]).unwrap();
        assert_eq!(peer.listen(), Err(()));
    }

    #[test]
    fn prometheus_gets_one_page_and_is_left() {
        let (mut peer, mut theirs) = pair(true);
        theirs.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n").unwrap();
        assert_eq!(peer.listen(), Ok(vec![]));
        theirs.write_all(b"\r\n").unwrap();
        assert_eq!(peer.listen(), Ok(vec![Wish::Metrics]));
        peer.show("a 1\n");
        assert_eq!(peer.flush(), Err(()));
        drop(peer);
        let mut text = String::new();
        theirs.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("Content-Length: 4\r\n\r\na 1\n"),
            "{text}"
        );
    }

    #[test]
    fn prometheus_takes_no_room_from_xl_and_one_that_hangs_none_from_the_next() {
        let mut peers = BTreeMap::new();
        let mut ends = Vec::new();
        let mut come = |peers: &mut BTreeMap<u64, Peer>, id, is_metrics| {
            let (peer, theirs) = pair(is_metrics);
            ends.push(theirs);
            peers.insert(id, peer);
        };
        for id in 0..MOST_METRICS as u64 {
            assert_eq!(Room::among(&peers, true), Room::Free);
            come(&mut peers, id, true);
        }
        assert_eq!(Room::among(&peers, true), Room::Instead(0));
        for id in 0..MOST as u64 {
            assert_eq!(Room::among(&peers, false), Room::Free);
            come(&mut peers, 100 + id, false);
        }
        assert_eq!(Room::among(&peers, false), Room::None);
        assert_eq!(Room::among(&peers, true), Room::Instead(0));
    }

    #[test]
    fn who_does_not_read_is_left_in_the_end() {
        let (mut peer, theirs) = pair(false);
        let long = Answer::Refused("x".repeat(1 << 20));
        let mut flushes = (0..16).map(|_| {
            peer.answer(&long);
            peer.flush()
        });
        assert_eq!(flushes.next(), Some(Ok(())));
        assert!(flushes.any(|flushed| flushed.is_err()));
        assert!(peer.is_full());
        drop(theirs);
        assert_eq!(peer.listen(), Err(()));
    }
}
