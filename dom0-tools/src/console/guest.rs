//! One guest in the daemon: its ring and event channel, its terminal, its log.

use std::io;
use std::time::Duration;

use pv_abi::domid::DomId;

use super::backlog::Overflow;
use super::log::Log;
use super::pty::Pty;
use super::ring::Page;
use super::serve::{Console, Next};
use crate::evtchn::{EventChannels, Port};
use crate::gnttab::GrantedPage;
use std::sync::atomic::Ordering;

impl Page for GrantedPage {
    fn load(&self, offset: usize) -> u32 {
        (**self).load(offset, Ordering::Acquire)
    }
    fn store(&self, offset: usize, value: u32) {
        (**self).store(offset, value, Ordering::Release);
    }
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.copy_out(offset, bytes);
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        self.copy_in(offset, bytes);
    }
}

/// The guest's end of the console, once it is there.
#[derive(Debug)]
struct Line {
    console: Console<GrantedPage>,
    /// The port over there, as XenStore told.
    remote: u32,
    port: Port,
}

/// One guest.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) id: DomId,
    line: Option<Line>,
    pub(super) pty: Option<Pty>,
    pub(super) log: Option<Log>,
    /// When it is to be served again although no event came.
    pub(super) due: Option<Duration>,
    /// The guest waits for somebody to read.
    waits: bool,
    /// The interest in the terminal that the kernel knows of.
    pub(super) interest: (bool, bool),
}

impl Guest {
    pub(super) fn new(id: DomId) -> Self {
        Self { id, line: None, pty: None, log: None, due: None, waits: false, interest: (false, false) }
    }

    /// Its console's directory in XenStore.
    pub(super) fn path(&self) -> String {
        format!("/local/domain/{}/console", self.id.raw())
    }

    /// The port over there that we are connected to.
    pub(super) fn remote(&self) -> Option<u32> {
        self.line.as_ref().map(|line| line.remote)
    }

    /// Our port.
    pub(super) fn port(&self) -> Option<Port> {
        self.line.as_ref().map(|line| line.port)
    }

    /// The ring has come.
    pub(super) fn connect(&mut self, page: GrantedPage, remote: u32, port: Port, overflow: Overflow) {
        self.line = Some(Line { console: Console::new(page, overflow), remote, port });
        (self.due, self.waits) = (None, false);
    }

    /// Gives the ring back; the port that is left.
    pub(super) fn disconnect(&mut self) -> Option<Port> {
        self.line.take().map(|line| line.port)
    }

    /// Keeps at most `limit` bytes that nobody has read.
    pub(super) fn set_limit(&mut self, limit: usize) {
        if let Some(line) = &mut self.line {
            line.console.backlog.set_limit(limit);
        }
    }

    /// Takes what the guest has printed, in its measure.
    ///
    /// # Errors
    /// What is to be reported: a ring that makes no sense, a log that cannot be written.
    pub(super) fn serve(&mut self, now: Duration, channels: &EventChannels) -> Result<(), String> {
        let Some(line) = &mut self.line else { return Ok(()) };
        let mut printed = Vec::new();
        let (next, sane) = line.console.serve(now, &mut printed);
        (self.due, self.waits) = (None, false);
        let mut done = sane.map_err(|broken| broken.to_string());
        let mut note = |what: &str, result: io::Result<()>| {
            if let Err(error) = result {
                done = Err(format!("{what}: {error}"));
            }
        };
        if !printed.is_empty() {
            note("cannot tell the guest", channels.notify(line.port));
            if let Some(log) = &mut self.log {
                note("cannot write the log", log.write(&printed));
            }
        }
        match next {
            Next::Unmask => note("cannot unmask the event channel", channels.unmask(line.port)),
            Next::At(at) => self.due = Some(at),
            Next::WhenRead => self.waits = true,
        }
        self.show();
        done
    }

    /// The terminal can take or has something, or both.
    pub(super) fn terminal(&mut self, now: Duration, channels: &EventChannels) -> Result<(), String> {
        self.show();
        if let (Some(line), Some(pty)) = (&self.line, &self.pty) {
            let mut typed = [0; 1024];
            let room = line.console.room().min(typed.len());
            // Its other end is open here, so it never ends.
            let count = if room > 0 { pty.typed(&mut typed[..room]).unwrap_or(0) } else { 0 };
            if count > 0 && line.console.give(&typed[..count]) > 0 {
                channels.notify(line.port).map_err(|error| format!("cannot tell the guest: {error}"))?;
            }
        }
        if self.waits { self.serve(now, channels) } else { Ok(()) }
    }

    /// Gives the terminal what it takes now.
    fn show(&mut self) {
        let (Some(line), Some(pty)) = (&mut self.line, &self.pty) else { return };
        let backlog = &mut line.console.backlog;
        while !backlog.is_empty() {
            match pty.show(backlog.oldest()) {
                // What cannot be shown now is shown when the terminal takes it.
                Ok(0) | Err(_) => break,
                Ok(count) => backlog.taken(count),
            }
        }
    }

    /// Whether to hear of the terminal when something was typed, and when it takes more.
    pub(super) fn wanted_interest(&self) -> (bool, bool) {
        self.line
            .as_ref()
            .map_or((false, false), |line| (line.console.room() > 0, !line.console.backlog.is_empty()))
    }
}
