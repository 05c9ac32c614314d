//! Reports as the agent on Linux does it, or as a bad one does.

use core::time::Duration;

use guest_agent::{NODE, Pace, Pressure, Report, Usage};
use payloads::ballooning::Guest;

/// How the agent is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Honest,
    Mute,
    /// Mute after its third report.
    Dying,
    Liar,
    Babbler,
    Flood,
}

impl Manner {
    /// By its name in the boot arguments.
    pub fn named(name: Option<&str>) -> Option<Self> {
        Some(match name {
            None => Self::Honest,
            Some("mute") => Self::Mute,
            Some("dying") => Self::Dying,
            Some("liar") => Self::Liar,
            Some("babbler") => Self::Babbler,
            Some("flood") => Self::Flood,
            Some(_) => return None,
        })
    }
}

pub struct Reporter {
    manner: Manner,
    pace: Pace,
    sequence: u64,
}

impl Reporter {
    pub fn new(manner: Manner) -> Self {
        Self { manner, pace: Pace::default(), sequence: 0 }
    }

    /// When to look at the memory next.
    pub fn next_look(&self) -> Duration {
        if self.manner == Manner::Flood { Duration::ZERO } else { self.pace.next_look() }
    }

    /// Reports, if it is time to.
    pub fn look(
        &mut self,
        guest: &mut Guest,
        now: Duration,
        usage: Usage,
        pressure: Pressure,
        is_stall: bool,
    ) {
        let is_due = (is_stall || now >= self.pace.next_look()) && self.pace.look(now, usage, is_stall);
        if !(is_due || self.manner == Manner::Flood) {
            return;
        }
        const MUCH: u64 = 1 << 63;
        let usage = match self.manner {
            Manner::Mute => return,
            Manner::Dying if self.sequence == 3 => return,
            Manner::Babbler => {
                let words: [&[u8]; 3] = [b"total=-1 free=\xff\xfe", &[b'9'; 2000], b"version=1 seq="];
                guest.write(NODE, words[(self.sequence % 3) as usize]);
                self.sequence += 1;
                return;
            }
            Manner::Liar => Usage { total: MUCH, free: MUCH, available: MUCH, committed: MUCH },
            Manner::Honest | Manner::Dying | Manner::Flood => usage,
        };
        self.sequence += 1;
        let report = Report { sequence: self.sequence, usage, pressure: Some(pressure), is_stall };
        guest.write(NODE, report.text().as_bytes());
    }
}
