//! The agent on Linux: reads `/proc`, waits for stalls, writes to XenStore.
//!
//! One thread, which after its start takes no memory from the heap but to say what is wrong: it must work just when there is none.

mod courier;
mod procfs;

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mm::MlockAllFlags;

pub use courier::Courier;
pub use procfs::{MEMINFO, Meminfo, PRESSURE, PressureFile};

use crate::pace::Pace;
use crate::report::{Report, Usage};

/// For a process that must run while memory is short: what it uses stays in memory, it is the last one to be
/// killed, and among the first to run. What the system refuses, it goes without.
pub fn harden() {
    let _ = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let _ = rustix::process::setpriority_process(None, -10);
}

/// Where reports go.
#[derive(Debug)]
pub enum Outlet {
    /// To XenStore.
    Store(Courier),
    /// To standard output, for people.
    Print,
}

/// The agent: what it reads, and where it writes.
#[derive(Debug)]
pub struct Agent {
    meminfo: Meminfo,
    pressure: Option<PressureFile>,
    outlet: Outlet,
    start: Instant,
    pace: Pace,
    sequence: u64,
    /// What is to be told as soon as the outlet takes it, and whether that is a stall.
    waiting: Option<(Usage, bool)>,
}

impl Agent {
    /// An agent; without a pressure file it reports no stalls.
    pub fn new(meminfo: Meminfo, pressure: Option<PressureFile>, outlet: Outlet) -> Self {
        let (start, pace) = (Instant::now(), Pace::default());
        Self { meminfo, pressure, outlet, start, pace, sequence: 0, waiting: None }
    }

    /// Looks, tells, and waits until there is something to do.
    ///
    /// # Errors
    /// `/proc/meminfo` cannot be read, or waiting fails. What happens to XenStore is no error.
    pub fn turn(&mut self) -> io::Result<()> {
        let is_stall = self.wait()?;
        let now = self.start.elapsed();
        if is_stall || now >= self.pace.next_look() {
            let usage = self.meminfo.usage()?;
            if self.pace.look(now, usage, is_stall) {
                // A stall that could not be told yet stays one.
                let was_stall = self.waiting.is_some_and(|(_, was_stall)| was_stall);
                self.waiting = Some((usage, is_stall || was_stall));
            }
        }
        self.tell(now);
        Ok(())
    }

    fn tell(&mut self, now: Duration) {
        let is_free = match &self.outlet {
            Outlet::Store(courier) => courier.is_free(now),
            Outlet::Print => true,
        };
        let Some((usage, is_stall)) = self.waiting.take_if(|_| is_free) else { return };
        self.sequence += 1;
        let pressure = self.pressure.as_ref().and_then(PressureFile::totals);
        let text = Report { sequence: self.sequence, usage, pressure, is_stall }.text();
        match &mut self.outlet {
            Outlet::Store(courier) => courier.send(now, &text),
            Outlet::Print => println!("{text}"),
        }
    }

    /// Until it is time to look, XenStore has answered, or programs stall; whether they do.
    fn wait(&mut self) -> io::Result<bool> {
        let now = self.start.elapsed();
        let mut until = self.pace.next_look();
        if let Outlet::Store(courier) = &self.outlet {
            until = until.min(courier.deadline(now, self.waiting.is_some()));
        }
        let timeout = until.saturating_sub(now);
        // Whole milliseconds up: a moment too early would only turn once more.
        let timeout = Timespec::try_from(timeout + Duration::from_micros(100))
            .unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let store = match &self.outlet {
            Outlet::Store(courier) => courier.fd(),
            Outlet::Print => None,
        };
        let trigger = self.pressure.as_ref().and_then(PressureFile::trigger);
        // Somebody must be asked: where there is nobody, the file that is never ready for this.
        let nobody = (self.meminfo.as_fd(), PollFlags::empty());
        let (store_fd, store_flags) = store.map_or(nobody, |fd| (fd, PollFlags::IN));
        let (trigger_fd, trigger_flags) = trigger.map_or(nobody, |fd| (fd, PollFlags::PRI));
        let mut fds = [
            PollFd::from_borrowed_fd(store_fd, store_flags),
            PollFd::from_borrowed_fd(trigger_fd, trigger_flags),
        ];
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [store_events, trigger_events] = fds.map(|fd| fd.revents());
        let is_stall = trigger_events.contains(PollFlags::PRI);
        if trigger.is_some() && trigger_events.intersects(PollFlags::ERR | PollFlags::NVAL) {
            eprintln!("xen-memory-agent: the kernel tells no more stalls; reports go on once a second");
            self.pressure.iter_mut().for_each(PressureFile::drop_trigger);
        }
        let now = self.start.elapsed();
        if let Outlet::Store(courier) = &mut self.outlet {
            if courier.fd().is_some() && !store_events.is_empty() {
                courier.receive(now);
            }
            courier.expire(now);
        }
        Ok(is_stall)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    thread_local! {
        static STORE: RefCell<Option<UnixStream>> = const { RefCell::new(None) };
    }

    #[test]
    fn reports_are_numbered_and_wait_for_their_answers() {
        let courier = Courier::by(|| {
            let (ours, theirs) = UnixStream::pair()?;
            STORE.set(Some(theirs));
            Ok(File::from(OwnedFd::from(ours)))
        });
        let mut store = STORE.take().unwrap();
        let mut agent = Agent::new(Meminfo::open(MEMINFO).unwrap(), None, Outlet::Store(courier.unwrap()));
        for sequence in 1..=2 {
            let mut bytes = [0; 1024];
            // The first one is due at once, the second after a second; how long a turn waits is the machine's affair.
            store.set_nonblocking(true).unwrap();
            let count = loop {
                agent.turn().unwrap();
                if let Ok(count) = store.read(&mut bytes) {
                    break count;
                }
            };
            let text = String::from_utf8_lossy(&bytes[16..count]).into_owned();
            assert!(text.starts_with(&format!("data/memory\0version=1 seq={sequence} total=")), "{text}");
            let answer = [&11u32.to_ne_bytes()[..], &bytes[4..8], &[0; 4], &3u32.to_ne_bytes(), b"OK\0"];
            store.write_all(&answer.concat()).unwrap();
        }
    }
}
