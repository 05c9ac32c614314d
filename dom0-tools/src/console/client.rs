//! `xl console`: a guest's terminal on ours, until Ctrl-] or until the guest is gone.
//!
//! The terminal's name comes from XenStore, where the console daemon writes it. It may come later, or change when the
//! daemon starts anew; only the guest's end is the end.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pv_abi::domctl::XEN_DOMINF_DYING;
use pv_abi::domid::DomId;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FlockOperation;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::pty::{self, none_if_blocked};
use crate::daemon;
use crate::privcmd::Privcmd;
use crate::xenstore::{Client, Nodes};

/// Ctrl-]
const ESCAPE: u8 = 0x1d;
/// How long a guest may be without a terminal.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the guest is looked at while it is without one.
const GLANCE: Duration = Duration::from_millis(500);

/// What kind of console, as `xl console -t` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The paravirtual one.
    #[default]
    Pv,
    /// An emulated serial port.
    Serial,
}

impl Kind {
    /// The node with the terminal's name, as libxl has it.
    fn node(self, domain: DomId, number: u32) -> String {
        let domain = domain.raw();
        match (self, number) {
            (Self::Pv, 0) => format!("/local/domain/{domain}/console/tty"),
            (Self::Pv, number) => format!("/local/domain/{domain}/device/console/{number}/tty"),
            (Self::Serial, number) => format!("/local/domain/{domain}/serial/{number}/tty"),
        }
    }
}

/// Our own terminal, passing every byte, until dropped.
struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    /// `None` if it is no terminal.
    fn new(terminal: BorrowedFd<'a>) -> Option<Self> {
        let before = tcgetattr(terminal).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw).ok()?;
        Some(Self { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // It may be gone by now.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Why the bytes stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The user left: Ctrl-], a signal.
    Left,
    /// The guest's terminal closed.
    Closed,
    /// XenStore has something to say.
    News,
}

/// Our side: what is typed, where things are shown, and whether we are to end.
struct Ours<'a> {
    input: File,
    output: File,
    signals: &'a mut [UnixStream],
    /// Typed, and not yet taken by the guest's terminal.
    typed: Vec<u8>,
    /// The input has ended: the guest is shown on, as with Xen's.
    ended: bool,
    /// Ctrl-] was typed: when `typed` is through, that was all.
    leaving: bool,
}

impl Ours<'_> {
    /// Takes what was typed, up to Ctrl-].
    fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; 1024];
        let count = match self.input.read(&mut bytes) {
            Ok(0) => {
                self.ended = true;
                0
            }
            result => none_if_blocked(result)?,
        };
        let bytes = &bytes[..count];
        let end = bytes.iter().position(|byte| *byte == ESCAPE);
        self.leaving |= end.is_some();
        self.typed.extend_from_slice(&bytes[..end.unwrap_or(count)]);
        Ok(())
    }

    /// Passes bytes both ways until something ends it. Without `terminal`, waits.
    fn relay(
        &mut self,
        terminal: Option<&File>,
        news: BorrowedFd<'_>,
        until: Option<Instant>,
    ) -> io::Result<End> {
        loop {
            if self.signals.iter_mut().any(daemon::has_come) {
                return Ok(End::Left);
            }
            let nothing_to_give = self.typed.is_empty() || terminal.is_none();
            if self.leaving && nothing_to_give {
                return Ok(End::Left);
            }
            let mut fds: Vec<_> =
                self.signals.iter().map(|signal| PollFd::new(signal, PollFlags::IN)).collect();
            let first = fds.len();
            fds.push(PollFd::from_borrowed_fd(news, PollFlags::IN));
            // What the guest does not take is not read either: whoever types it waits.
            let listen = !self.leaving && !self.ended && self.typed.len() < 4096;
            fds.push(PollFd::new(&self.input, if listen { PollFlags::IN } else { PollFlags::empty() }));
            if let Some(terminal) = terminal {
                let give = if nothing_to_give { PollFlags::empty() } else { PollFlags::OUT };
                fds.push(PollFd::new(terminal, PollFlags::IN | give));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.map(|left| left.try_into().expect("seconds, not centuries"));
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(End::News),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let came: Vec<_> = fds[first..].iter().map(PollFd::revents).collect();
            drop(fds);
            if let (Some(terminal), Some(came)) = (terminal, came.get(2)) {
                if came.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.show(terminal)? {
                    return Ok(End::Closed);
                }
                if came.contains(PollFlags::OUT) {
                    match none_if_blocked((&*terminal).write(&self.typed)) {
                        Ok(count) => drop(self.typed.drain(..count)),
                        Err(_) => return Ok(End::Closed),
                    }
                }
            }
            if came[1].intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && listen {
                self.read()?;
            }
            if !came[0].is_empty() {
                return Ok(End::News);
            }
        }
    }

    /// Shows what the guest has printed; whether its terminal is still there.
    fn show(&mut self, terminal: &File) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        match (&*terminal).read(&mut bytes) {
            // Linux answers one or the other once the other end is closed.
            Ok(0) => Ok(false),
            Err(error) => Ok(error.kind() == io::ErrorKind::WouldBlock),
            Ok(count) => {
                self.output.write_all(&bytes[..count])?;
                Ok(true)
            }
        }
    }
}

/// Only one program at a time shows a guest's console, since each would get but a part of it. The lock is Xen's own.
fn lock(domain: DomId) -> Result<Option<File>> {
    let path = format!("/var/lock/xenconsole.{}", domain.raw());
    // Where there is no such directory, nobody else locks either.
    let Ok(file) = OpenOptions::new().create(true).truncate(false).write(true).open(&path) else {
        return Ok(None);
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(_) => bail!("somebody else shows this console ({path} is locked)"),
    }
}

/// Shows a guest's console.
///
/// # Errors
/// There is no such guest; its console does not come; our terminal breaks.
pub fn attach(xen: &Privcmd, domain: DomId, kind: Kind, number: u32) -> Result<()> {
    if domain == DomId::DOM0 {
        bail!("Domain-0 has no console of this kind: it is where you are");
    }
    let alive =
        || -> Result<bool> { Ok(xen.domain(domain)?.is_some_and(|info| info.flags & XEN_DOMINF_DYING == 0)) };
    let _lock = lock(domain)?;
    let store = Client::connect()?;
    let node = kind.node(domain, number);
    store.watch(&node, "tty")?;
    store.watch("@releaseDomain", "gone")?;

    let stdin = io::stdin();
    let mut signals = [daemon::on_signal(SIGTERM)?, daemon::on_signal(SIGHUP)?, daemon::on_signal(SIGINT)?];
    let mut ours = Ours {
        input: File::from(stdin.as_fd().try_clone_to_owned()?),
        output: File::from(io::stdout().as_fd().try_clone_to_owned()?),
        signals: &mut signals,
        typed: Vec::new(),
        ended: false,
        leaving: false,
    };
    let _raw = if stdin.is_terminal() { Raw::new(stdin.as_fd()) } else { None };

    let mut terminal: Option<(String, File)> = None;
    let mut without_since = Instant::now();
    loop {
        // Events that came already are no news to wait for.
        while store.next_event(Some(Duration::ZERO))?.is_some() {}
        if !alive()? {
            // Its last words may still lie in the terminal.
            if let Some((_, terminal)) = &terminal {
                let last = Some(Instant::now() + GLANCE);
                ours.leaving = false;
                while ours.relay(Some(terminal), store.as_fd(), last)? == End::News
                    && Some(Instant::now()) < last
                {}
            }
            return Ok(());
        }
        let path = store.read_text(&node)?.filter(|path| !path.is_empty());
        match path {
            Some(path) if terminal.as_ref().is_none_or(|(opened, _)| *opened != path) => {
                // One that cannot be opened is a former daemon's.
                terminal = pty::open(&path).ok().map(|file| (path, file));
            }
            Some(_) => {}
            None => terminal = None,
        }
        if terminal.is_some() {
            without_since = Instant::now();
        } else if without_since.elapsed() > PATIENCE {
            return Err(anyhow::anyhow!("no terminal at {node}"))
                .context("the console does not come: does xenconsoled run?");
        }
        let until = terminal.is_none().then(|| Instant::now() + GLANCE);
        match ours.relay(terminal.as_ref().map(|(_, file)| file), store.as_fd(), until)? {
            End::Left => return Ok(()),
            End::News => {}
            End::Closed => {
                terminal = None;
                // XenStore may still name it: not at once again.
                ours.relay(None, store.as_fd(), Some(Instant::now() + GLANCE / 5))?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::pty::Pty;

    /// Our side as two sockets, and the ends at which it is used.
    fn ours(signals: &mut [UnixStream]) -> (Ours<'_>, UnixStream, UnixStream) {
        let file = |stream: UnixStream| File::from(std::os::fd::OwnedFd::from(stream));
        let (keyboard, input) = UnixStream::pair().unwrap();
        let (screen, output) = UnixStream::pair().unwrap();
        screen.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let ours = Ours {
            input: file(input),
            output: file(output),
            signals,
            typed: Vec::new(),
            ended: false,
            leaving: false,
        };
        (ours, keyboard, screen)
    }

    fn seen(screen: &mut UnixStream, length: usize) -> String {
        let mut text = vec![0; length];
        screen.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn nodes_are_libxls() {
        let domain = DomId::new(7);
        assert_eq!(Kind::Pv.node(domain, 0), "/local/domain/7/console/tty");
        assert_eq!(Kind::Pv.node(domain, 2), "/local/domain/7/device/console/2/tty");
        assert_eq!(Kind::Serial.node(domain, 0), "/local/domain/7/serial/0/tty");
    }

    #[test]
    fn what_is_typed_before_the_escape_arrives() {
        let (mut ours, mut keyboard, mut screen) = ours(&mut []);
        let (news, _quiet) = UnixStream::pair().unwrap();
        let pty = Pty::new().unwrap();
        let terminal = pty::open(&pty.path).unwrap();
        pty.show(b"login: ").unwrap();
        keyboard.write_all(b"ro\x03ot\r\x1dnever").unwrap();
        assert_eq!(ours.relay(Some(&terminal), news.as_fd(), None).unwrap(), End::Left);
        let mut typed = [0; 100];
        let count = pty.typed(&mut typed).unwrap();
        assert_eq!(&typed[..count], b"ro\x03ot\r");
        assert_eq!(seen(&mut screen, 7), "login: ");
    }

    #[test]
    fn the_end_of_the_terminal_is_noticed_and_another_goes_on() {
        let (mut ours, mut keyboard, _screen) = ours(&mut []);
        let (news, _quiet) = UnixStream::pair().unwrap();
        let pty = Pty::new().unwrap();
        let terminal = pty::open(&pty.path).unwrap();
        drop(pty);
        assert_eq!(ours.relay(Some(&terminal), news.as_fd(), None).unwrap(), End::Closed);
        let pty = Pty::new().unwrap();
        let terminal = pty::open(&pty.path).unwrap();
        keyboard.write_all(b"again\x1d").unwrap();
        drop(keyboard);
        assert_eq!(ours.relay(Some(&terminal), news.as_fd(), None).unwrap(), End::Left);
        let mut typed = [0; 100];
        assert_eq!(pty.typed(&mut typed).unwrap(), 5);
    }

    #[test]
    fn news_and_signals_end_the_wait() {
        let (mut heard, mut sent) = UnixStream::pair().unwrap();
        heard.set_nonblocking(true).unwrap();
        let (news, mut store) = UnixStream::pair().unwrap();
        {
            let (mut ours, _keyboard, _screen) = ours(std::slice::from_mut(&mut heard));
            store.write_all(b"x").unwrap();
            assert_eq!(ours.relay(None, news.as_fd(), None).unwrap(), End::News);
            sent.write_all(b"x").unwrap();
            assert_eq!(ours.relay(None, news.as_fd(), None).unwrap(), End::Left);
        }
    }
}
