//! Where a domain stands: what it asks for, and whether it may give or take at all.

use super::{Ask, Domain, Explanation, Kib, Limit, Millis, Rule, Way};
use crate::state::Memory;
use crate::track::Need;
use crate::{Settings, Source, Tuning};

/// Who has no buffer has this part more than it needs: room to breathe.
const ROOM: u64 = 64;

/// Whether a domain takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// `memory_policy=0`.
    Off,
    /// Nobody says what it needs.
    Frozen,
    /// It does not give what it is asked for; nor is it asked, until later.
    StuckGiving,
    /// It does not take what it is given.
    StuckTaking,
    /// It boots: what it boots with is not taken from it yet.
    Boots,
    /// It takes part.
    Free,
}

/// A domain while it is decided about.
pub(crate) struct Case<'a> {
    pub domain: &'a Domain,
    pub settings: Settings,
    pub standing: Standing,
    pub need: Need,
    /// What it asks for while nobody is short, and when somebody is.
    pub calm: Ask,
    pub pressing: Ask,
    /// Which of the two counted.
    pub ask: Ask,
    /// Whether more than half of its buffer is gone.
    pub urgent: bool,
    /// Whether it cannot wait: a moment ago it stalled with little left, or was to have nothing left soon.
    pub presses: bool,
    /// Whether it has not reported yet, but may do so any moment: nobody knows what it could give.
    pub unheard: bool,
    /// Whether it was given up before and is tried again.
    pub retried: bool,
    /// What it should have.
    pub fair: Kib,
    /// The target from now on, why, and what kept it from more or less.
    pub to: Kib,
    pub rule: Rule,
    pub limit: Option<Limit>,
    /// When its target changed last.
    pub changed: Option<Millis>,
    dead_band: u64,
}

impl<'a> Case<'a> {
    /// Takes in what is new, and judges.
    pub fn new(domain: &'a Domain, memory: &mut Memory, now: Millis, tuning: &Tuning) -> Self {
        let settings = domain.settings.sane();
        memory.motion.note(now, domain.assigned, domain.target, tuning);
        let settled = memory.motion.settled(now);
        memory.track.note(domain, &settings, settled, now, tuning);
        memory.track.press(domain, now);
        let need = memory.track.need(domain, &settings, now, tuning);
        let gave_up = memory.motion.gave_up();
        let waits = gave_up.filter(|gave_up| now < gave_up.retry_at).map(|gave_up| gave_up.way);

        let standing = match (need.source, waits) {
            _ if !settings.balanced => Standing::Off,
            (Source::None | Source::Stale | Source::Nonsense, _) => Standing::Frozen,
            (_, Some(Way::Give)) => Standing::StuckGiving,
            (_, Some(Way::Take)) => Standing::StuckTaking,
            _ if domain.age < tuning.boot_grace => Standing::Boots,
            _ => Standing::Free,
        };
        let unheard = settings.balanced
            && need.source == Source::None
            && (domain.age < tuning.boot_grace || memory.is_new(now, tuning.stale_after));
        let half_buffer = need.raw.part(u64::from(settings.buffer), 200);
        let urgent = need.raw + need.hope + half_buffer > domain.target;
        let mut case = Self {
            domain,
            settings,
            standing,
            need,
            calm: Ask { minimum: Kib::ZERO, taxed: Kib::ZERO, need: Kib::ZERO, want: Kib::ZERO, weight: 0 },
            pressing: Ask {
                minimum: Kib::ZERO,
                taxed: Kib::ZERO,
                need: Kib::ZERO,
                want: Kib::ZERO,
                weight: 0,
            },
            ask: Ask { minimum: Kib::ZERO, taxed: Kib::ZERO, need: Kib::ZERO, want: Kib::ZERO, weight: 0 },
            urgent,
            presses: need.pressed,
            unheard,
            retried: gave_up.is_some(),
            fair: domain.committed(),
            to: domain.target,
            rule: Rule::Steady,
            limit: None,
            changed: memory.changed,
            dead_band: tuning.dead_band,
        };
        let pressing = need.pressing();
        let calm = if urgent { need.raw } else { need.average };
        (case.calm, case.pressing) = (
            case.asks(calm, Kib::ZERO, tuning),
            case.asks(pressing, pressing.part(1, ROOM) + need.ahead, tuning),
        );
        case.ask = case.calm;
        case
    }

    /// What it asks for if it needs `demand`, and `room` to breathe.
    fn asks(&self, demand: Kib, room: Kib, tuning: &Tuning) -> Ask {
        let Settings { minimum, maximum, buffer, weight, .. } = self.settings;
        let (mut least, mut most) = (minimum, maximum);
        match self.standing {
            Standing::Boots => least = least.max(self.startup()).min(most),
            Standing::StuckGiving => least = least.max(self.domain.committed()).min(most),
            Standing::StuckTaking => most = most.min(self.domain.committed()).max(least),
            Standing::Off | Standing::Frozen | Standing::Free => {}
        }
        let active = self.need.active.min(demand);
        let idle = demand - active;
        let taxed = active + (idle - idle.part(tuning.idle_tax.min(100), 100));
        let within = |amount: Kib| amount.max(least).min(most);
        let need = within(demand + room);
        Ask {
            minimum: least,
            taxed: within(taxed).min(need),
            need,
            want: need.max(within(demand + demand.part(u64::from(buffer), 100) + self.hoped(demand))),
            weight,
        }
    }

    /// What it may need on top, with the buffer of that.
    fn hoped(&self, demand: Kib) -> Kib {
        let hope = match self.need.hope {
            Kib::ZERO => Kib::ZERO,
            hope => (self.need.raw + hope) - demand,
        };
        hope + hope.part(u64::from(self.settings.buffer), 100)
    }

    /// Whether its target may be changed by the division of the pool. What others have is theirs.
    pub fn moves(&self) -> bool {
        !matches!(self.standing, Standing::Off | Standing::Frozen)
    }

    /// What one who does not take part lacks of its minimum nevertheless: that was raised.
    pub fn lacks_minimum(&self) -> Kib {
        match self.standing {
            Standing::Frozen => self.settings.minimum - self.domain.target,
            _ => Kib::ZERO,
        }
    }

    /// What of its share it needs, or will before it is asked again.
    pub fn soon(&self) -> Kib {
        let hope = if self.presses { self.need.hope } else { Kib::ZERO };
        self.fair.min(self.ask.need + hope)
    }

    /// What of its share is its need and the first half of its buffer.
    pub fn guarded(&self) -> Kib {
        self.fair.min(self.ask.guarded())
    }

    /// Whether it gives what others need more.
    pub fn gives(&self) -> bool {
        matches!(self.standing, Standing::Free | Standing::Boots)
    }

    /// What of its startup memory it has: kept for it while it boots.
    pub fn startup(&self) -> Kib {
        self.settings.startup.min(self.domain.committed())
    }

    /// How far off a target may be before it is corrected.
    pub fn dead_band(&self) -> Kib {
        self.domain.target.part(1, self.dead_band)
    }

    /// The same while somebody waits for what it has too much: shares do not follow noise then, so less will do.
    pub fn narrow_band(&self) -> Kib {
        self.domain.target.part(1, self.dead_band.saturating_mul(4)).max(Kib::mib(4))
    }

    /// What it needs more than it has to boot again; `None` if nothing.
    pub fn missing_for_restart(&self) -> Option<Kib> {
        let missing = self.settings.startup - self.domain.committed();
        (self.standing != Standing::Off && missing != Kib::ZERO).then_some(missing)
    }

    /// What it keeps whatever happens: its minimum if it can give, or perhaps can, else all.
    pub fn least(&self) -> Kib {
        match self.standing {
            _ if self.unheard => self.settings.minimum.min(self.domain.committed()),
            Standing::Free => self.settings.minimum.min(self.domain.committed()),
            Standing::Boots => self.settings.minimum.min(self.domain.committed()).max(self.startup()),
            _ => self.domain.committed(),
        }
    }

    /// What it could give although it is not to give what it needs.
    pub fn spare_beyond_need(&self) -> Kib {
        if self.gives() { self.domain.committed() - self.pressing.need } else { Kib::ZERO }
    }

    /// What it wants in percent of what it has.
    pub fn pressure(&self) -> u64 {
        self.ask.want.percent_of(self.domain.assigned)
    }

    /// Why it is to have what it is to have.
    pub fn explain(&self, at: Millis, available: Kib, short: bool) -> Explanation {
        Explanation {
            at,
            from: self.domain.target,
            to: self.to,
            assigned: self.domain.assigned,
            demand: self.need.raw,
            active: self.need.active,
            want: self.ask.want,
            fair: if self.moves() { self.fair } else { self.ask.want },
            minimum: self.settings.minimum,
            maximum: self.settings.maximum,
            pressure: self.pressure(),
            source: self.need.source,
            source_age: self.need.age,
            stalled: self.need.stalled,
            rising: self.need.rising,
            stuck: matches!(self.standing, Standing::StuckGiving | Standing::StuckTaking),
            short,
            available,
            rule: self.rule,
            limit: self.limit,
        }
    }
}
