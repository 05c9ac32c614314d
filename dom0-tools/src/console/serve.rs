//! One guest's console without any device: what is done at an event, and what must happen before the next.

use std::time::Duration;

use super::backlog::{Backlog, Overflow};
use super::pace::Pace;
use super::ring::{Broken, Page, Ring};

/// When the guest's event channel, masked since its last event, is unmasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Now.
    Unmask,
    /// The guest has had its share: serve again at this time.
    At(Duration),
    /// Nobody reads and nothing may be lost: serve again when the terminal has taken something.
    WhenRead,
}

/// One console.
#[derive(Debug)]
pub struct Console<P> {
    ring: Ring<P>,
    /// For the terminal.
    pub backlog: Backlog,
    pace: Pace,
    complained: bool,
}

impl<P: Page> Console<P> {
    /// The console whose ring is in `page`.
    pub fn new(page: P, overflow: Overflow) -> Self {
        Self {
            ring: Ring::new(page),
            backlog: Backlog::new(overflow),
            pace: Pace::default(),
            complained: false,
        }
    }

    /// Takes what the guest has written: into the backlog, and to `printed` for a log. The first time that a ring turns out
    /// to be broken comes as `Err`; after that nothing more is said.
    pub fn serve(&mut self, now: Duration, printed: &mut Vec<u8>) -> (Next, Result<(), Broken>) {
        let room = self.backlog.room();
        if room == 0 {
            return (Next::WhenRead, Ok(()));
        }
        if let Err(at) = self.pace.spend(now) {
            return (Next::At(at), Ok(()));
        }
        let from = printed.len();
        match self.ring.take(room, printed) {
            Ok(_) => self.backlog.push(&printed[from..]),
            Err(broken) => {
                let first = !std::mem::replace(&mut self.complained, true);
                return (Next::Unmask, if first { Err(broken) } else { Ok(()) });
            }
        }
        let more = self.backlog.room() == 0 && self.ring.has_output();
        (if more { Next::WhenRead } else { Next::Unmask }, Ok(()))
    }

    /// How many typed bytes the guest has room for.
    pub fn room(&self) -> usize {
        self.ring.room()
    }

    /// Gives the guest typed bytes, as many as it has room for.
    pub fn give(&self, bytes: &[u8]) -> usize {
        self.ring.give(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::tests::FakePage;
    use super::*;

    const NOW: Duration = Duration::from_secs(5);

    #[test]
    fn what_is_printed_goes_to_terminal_and_log() {
        let page = FakePage::new();
        let mut console = Console::new(page.clone(), Overflow::Discard);
        page.guest_says(b"login: ");
        let mut log = b"before ".to_vec();
        assert_eq!(console.serve(NOW, &mut log), (Next::Unmask, Ok(())));
        assert_eq!(log, b"before login: ");
        assert_eq!(console.backlog.oldest(), b"login: ");
        assert_eq!(console.give(b"root\r"), 5);
        assert_eq!(page.guest_hears(), b"root\r");
    }

    #[test]
    fn a_flood_waits_and_loses_nothing() {
        let page = FakePage::new();
        let mut console = Console::new(page.clone(), Overflow::Discard);
        let mut printed = Vec::new();
        let (mut now, mut said) = (NOW, 0);
        while said < 1 << 20 {
            said += page.guest_says(&[b'x'; 2048]);
            match console.serve(now, &mut printed) {
                (Next::Unmask, Ok(())) => {}
                (Next::At(at), Ok(())) => {
                    assert!(at > now && at <= now + Duration::from_millis(200));
                    now = at;
                }
                other => panic!("{other:?}"),
            }
        }
        while printed.len() < said {
            now += Duration::from_millis(200);
            console.serve(now, &mut printed).1.unwrap();
        }
        // A megabyte takes 512 events, 30 in each fifth of a second.
        assert!(now - NOW >= Duration::from_millis(200 * (512 / 30)), "{:?}", now - NOW);
    }

    #[test]
    fn who_keeps_everything_lets_the_guest_wait() {
        let page = FakePage::new();
        let mut console = Console::new(page.clone(), Overflow::Keep);
        console.backlog.set_limit(100);
        page.guest_says(&[b'a'; 150]);
        let mut printed = Vec::new();
        assert_eq!(console.serve(NOW, &mut printed), (Next::WhenRead, Ok(())));
        assert_eq!(console.serve(NOW, &mut printed), (Next::WhenRead, Ok(())));
        assert_eq!(printed.len(), 100);
        console.backlog.taken(60);
        assert_eq!(console.serve(NOW, &mut printed), (Next::Unmask, Ok(())));
        assert_eq!(printed.len(), 150);
    }

    #[test]
    fn a_broken_ring_is_told_once() {
        let page = FakePage::new();
        let mut console = Console::new(page.clone(), Overflow::Discard);
        page.indices(0, 0, 0, 9999);
        let mut printed = Vec::new();
        assert_eq!(
            console.serve(NOW, &mut printed),
            (Next::Unmask, Err(Broken { consumer: 0, producer: 9999 }))
        );
        assert_eq!(console.serve(NOW, &mut printed), (Next::Unmask, Ok(())));
        page.indices(0, 0, 0, 0);
        page.guest_says(b"again");
        console.serve(NOW, &mut printed).1.unwrap();
        assert_eq!(printed, b"again");
    }
}
