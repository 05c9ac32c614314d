//! A domain that asks again as soon as it is answered is waited for, instead of going to sleep and being woken.
//!
//! ```text
//!   event ─▶ serve ─▶ answered ──(the one before was quick)──▶ give way, look at the ring ──(nothing in time)──▶ sleep
//!                        ▲                                              │
//!                        └───────────────── a request ──────────────────┘
//! ```
//! Meanwhile the domain's port stays masked: its event wakes nobody, and is there when it is unmasked. Giving way lets the
//! domain run if it shares this CPU; if it has its own, that returns at once.

use std::io;
use std::time::{Duration, Instant};

use super::Daemon;
use crate::xenstore::store::ClientId;

/// A request that comes so soon after the last answer is quick. Several times what the way through sleep takes, and little
/// beside what dom0 would lose if the domain does not ask again: it is waited for once in vain, then not until it was quick.
const QUICK: Duration = Duration::from_micros(200);
/// So many requests are waited for on end, then others are looked at.
const MOST: u32 = 64;

/// Who asks, and how soon after the last answer.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whose turn was the last, and when it ended.
    answered: Option<(ClientId, Instant)>,
    /// It asks, and it is quick.
    quick: bool,
    asks: Option<ClientId>,
}

impl Pace {
    /// A domain asks, and nobody else does.
    pub(super) fn asks(&mut self, client: ClientId, now: Instant) {
        self.asks = Some(client);
        self.quick = self.answered.is_some_and(|(last, at)| last == client && now.duration_since(at) < QUICK);
    }

    /// It has its answer; whether to wait for what it asks next, and until when.
    fn answered(&mut self, now: impl FnOnce() -> Instant) -> Option<(ClientId, Instant)> {
        let (client, now) = (self.asks.take()?, now());
        self.answered = Some((client, now));
        self.quick.then_some((client, now + QUICK))
    }
}

impl Daemon {
    /// Waits a little for the next request of the domain that was served last, if that is worth it.
    pub(super) fn linger(&mut self) -> io::Result<()> {
        let Some((client, mut until)) = self.pace.answered(Instant::now) else { return Ok(()) };
        let mut left = MOST;
        while left > 0 && self.ready.is_empty() && self.rings.give_way().is_ok() {
            let now = Instant::now();
            if self.rings.get(client).is_some_and(|connection| connection.ring().has_more()) {
                self.pace.asks(client, now);
                self.serve(client)?;
                self.settle()?;
                left -= 1;
                let Some((_, next)) = self.pace.answered(Instant::now) else { return Ok(()) };
                until = next;
            } else if now >= until {
                return Ok(());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_at_once_is_waited_for() {
        let start = Instant::now();
        let after = |micros| start + Duration::from_micros(micros);
        let mut pace = Pace::default();
        assert_eq!(pace.answered(|| start), None, "nobody asked");
        pace.asks(1, after(10));
        assert_eq!(pace.answered(|| after(20)), None, "the first request");
        pace.asks(1, after(219));
        assert_eq!(pace.answered(|| after(240)), Some((1, after(440))), "the next came soon");
        assert_eq!(pace.answered(|| after(250)), None, "an answer is one answer");
        pace.asks(1, after(441));
        assert_eq!(pace.answered(|| after(450)), None, "the next came late");
        pace.asks(2, after(451));
        assert_eq!(pace.answered(|| after(460)), None, "it is another's");
        pace.asks(2, after(461));
        assert_eq!(pace.answered(|| after(470)), Some((2, after(670))), "and that one's again");
    }
}
