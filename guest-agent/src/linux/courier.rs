//! Carries reports to XenStore, one at a time, however often XenStore goes away.
//!
//! ```text
//!           send                   answer
//!   free ─────────▶ waiting ─────────────────────▶ free          refused: free after a pause
//!    ▲                 │ no answer in time, or the way broke
//!    └──── a pause ◀───┘ the way is closed, and opened again for the next report
//! ```
//! The kernel's device keeps what is written while the daemon in dom0 is away, and the daemon takes it when it is back. What
//! a daemon had taken and not answered when it was killed is never answered: hence the end of patience. It and the pauses
//! double, so that a store that stays away costs next to nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::report::NODE;
use crate::store::{Answer, Assembler, write_request};

/// The kernel's way to XenStore, and the older one.
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];
/// How long to wait for an answer, and after a failure, at first …
const PATIENCE: Duration = Duration::from_secs(5);
/// … and at most.
const MOST_PATIENCE: Duration = Duration::from_secs(80);

/// The way to XenStore.
#[derive(Debug)]
pub struct Courier {
    open: fn() -> io::Result<File>,
    file: Option<File>,
    number: u32,
    input: Assembler,
    /// Until when the answer to what was sent must be there.
    answer_until: Option<Duration>,
    /// Nothing is sent before.
    pause_until: Duration,
    patience: Duration,
    /// What was wrong, as it was said: each trouble is said once.
    said: String,
}

impl Courier {
    /// Opens the kernel's device.
    ///
    /// # Errors
    /// Of the system: not under Xen or Nacelle, no rights.
    pub fn open() -> io::Result<Self> {
        Self::by(open_device)
    }

    /// Opens another way.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn by(open: fn() -> io::Result<File>) -> io::Result<Self> {
        Ok(Self {
            open,
            file: Some(open()?),
            number: 0,
            input: Assembler::default(),
            answer_until: None,
            pause_until: Duration::ZERO,
            patience: PATIENCE,
            said: String::new(),
        })
    }

    /// Whether a report can be sent.
    pub fn is_free(&self, now: Duration) -> bool {
        self.answer_until.is_none() && now >= self.pause_until
    }

    /// What becomes readable when there is an answer, while one is awaited.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.answer_until.and(self.file.as_ref()).map(File::as_fd)
    }

    /// When [`Self::expire`] is to be called, or [`Self::send`] if there `is` something to send.
    pub fn deadline(&self, now: Duration, is: bool) -> Duration {
        match self.answer_until {
            Some(until) => until,
            None if is => self.pause_until.max(now),
            None => Duration::MAX,
        }
    }

    /// Sends a report, if it [is free](Self::is_free).
    pub fn send(&mut self, now: Duration, report: &str) {
        if !self.is_free(now) {
            return;
        }
        self.number = self.number.wrapping_add(1);
        let Some(request) = write_request(self.number, NODE, report) else { return };
        let mut send = || {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert((self.open)()?),
            };
            // In one piece: the kernel takes a whole message or waits for its rest.
            file.write_all(&request)
        };
        match send() {
            Ok(()) => self.answer_until = Some(now + self.patience),
            Err(error) => self.give_up(now, format_args!("cannot be reached: {error}")),
        }
    }

    /// Takes what has arrived.
    pub fn receive(&mut self, now: Duration) {
        let Some(file) = &mut self.file else { return };
        let mut bytes = [0; 256];
        let count = match file.read(&mut bytes) {
            Ok(0) => return self.give_up(now, format_args!("has closed the connection")),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return;
            }
            Err(error) => return self.give_up(now, format_args!("cannot be reached: {error}")),
        };
        match self.input.feed(&bytes[..count], self.number) {
            Ok(None) => {}
            Ok(Some(Answer::Done)) => {
                self.answer_until = None;
                self.patience = PATIENCE;
                if !self.said.is_empty() {
                    eprintln!("xen-memory-agent: XenStore takes reports again");
                    self.said.clear();
                }
            }
            Ok(Some(Answer::Refused(name))) => {
                self.say(format_args!(
                    "refuses to write {NODE}: {name} (the toolstack makes `data` the guest's own)"
                ));
                self.answer_until = None;
                self.pause(now);
            }
            Err(_) => self.give_up(now, format_args!("answers what makes no sense")),
        }
    }

    /// Gives up an answer that is overdue.
    pub fn expire(&mut self, now: Duration) {
        if self.answer_until.is_some_and(|until| now >= until) {
            self.give_up(now, format_args!("does not answer (is xenstored running in dom0?)"));
            // The wait was the pause.
            self.pause_until = now;
        }
    }

    fn give_up(&mut self, now: Duration, why: std::fmt::Arguments<'_>) {
        self.say(why);
        (self.file, self.answer_until, self.input) = (None, None, Assembler::default());
        self.pause(now);
    }

    fn pause(&mut self, now: Duration) {
        self.pause_until = now + self.patience;
        self.patience = (self.patience * 2).min(MOST_PATIENCE);
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let what = what.to_string();
        if self.said != what {
            eprintln!("xen-memory-agent: XenStore {what}; trying again from time to time");
            self.said = what;
        }
    }
}

fn open_device() -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut result = Err(io::Error::from(io::ErrorKind::NotFound));
    for device in DEVICES {
        result = rustix::fs::open(device, flags, Mode::empty()).map(File::from).map_err(io::Error::from);
        if result.is_ok() {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    thread_local! {
        /// The store's ends of the connections that were opened.
        static STORE: RefCell<Vec<UnixStream>> = const { RefCell::new(Vec::new()) };
    }

    fn open() -> io::Result<File> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        STORE.with_borrow_mut(|store| store.push(theirs));
        Ok(File::from(OwnedFd::from(ours)))
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What arrived at the store by the newest connection.
    fn request() -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        let count = STORE.with_borrow_mut(|store| store.last_mut().unwrap().read(&mut bytes)).unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    fn answer(kind: u32, request: &[u8], payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_ne_bytes();
        let bytes = [&kind.to_ne_bytes()[..], &request[4..8], &[0; 4], &length, payload].concat();
        STORE.with_borrow_mut(|store| store.last_mut().unwrap().write_all(&bytes)).unwrap();
    }

    fn connections() -> usize {
        STORE.with_borrow(Vec::len)
    }

    #[test]
    fn a_report_is_written_and_answered() {
        let mut courier = Courier::by(open).unwrap();
        courier.send(s(0), "version=1 seq=1");
        assert!(!courier.is_free(s(0)));
        courier.send(s(0), "version=1 seq=2");
        let request = request();
        assert!(request.ends_with(b"data/memory\0version=1 seq=1"), "one at a time");
        courier.receive(s(0));
        assert!(courier.fd().is_some(), "no answer yet");
        answer(11, &request, b"OK\0");
        courier.receive(s(1));
        assert!(courier.is_free(s(1)) && courier.fd().is_none());
    }

    #[test]
    fn a_store_that_does_not_answer_is_asked_again_ever_more_rarely() {
        let mut courier = Courier::by(open).unwrap();
        let (mut now, mut sent) = (s(0), 0);
        while now < s(3600) {
            if courier.is_free(now) {
                courier.send(now, "x");
                sent += 1;
            }
            now = courier.deadline(now, true);
            courier.expire(now);
        }
        assert_eq!(connections(), sent);
        assert!((40..60).contains(&sent), "{sent} in an hour");
        // It is back.
        courier.send(now, "x");
        answer(11, &request(), b"OK\0");
        courier.receive(now);
        assert!(courier.is_free(now));
        courier.send(now, "y");
        assert_eq!(courier.deadline(now, true), now + PATIENCE, "as patient as at first");
    }

    #[test]
    fn a_connection_that_breaks_is_made_again() {
        let mut courier = Courier::by(open).unwrap();
        courier.send(s(0), "x");
        STORE.with_borrow_mut(Vec::clear);
        courier.receive(s(0));
        assert!(!courier.is_free(s(0)));
        assert_eq!(courier.deadline(s(0), true), PATIENCE);
        courier.send(PATIENCE, "y");
        assert!(request().ends_with(b"\0y"));
    }

    #[test]
    fn a_refusal_is_followed_by_a_pause() {
        let mut courier = Courier::by(open).unwrap();
        courier.send(s(0), "x");
        answer(16, &request(), b"EACCES\0");
        courier.receive(s(0));
        assert!(!courier.is_free(s(1)) && courier.is_free(PATIENCE));
        assert!(courier.said.contains("EACCES"));
        courier.send(PATIENCE, "y");
        assert_eq!(connections(), 1, "the connection is good");
        answer(11, &request(), b"OK\0");
        courier.receive(PATIENCE);
        assert!(courier.said.is_empty());
    }

    #[test]
    fn no_way_at_the_start_is_an_error() {
        assert!(Courier::by(|| Err(io::Error::from(io::ErrorKind::NotFound))).is_err());
    }
}
