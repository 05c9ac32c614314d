//! Whether a domain can be made: where its memory comes from, and until when; or at once why not, with figures.
//!
//! Two phases, as with any taker. [`plan`] looks; if it finds a way the caller adds the amount to
//! [`Host::claims`](crate::Host::claims), so that the next decisions ask donors for it, and waits until
//! [`claims_are_free`]. Then it makes the domain and withdraws the claim; when the deadline passes, it withdraws it alone, and
//! what was collected goes back to where it is wanted.

use core::fmt;

use pv_abi::domid::DomId;
use thiserror::Error;

use crate::known::{Domain, Host};
use crate::law::{Case, cases};
use crate::{Kib, Millis, State};

/// A wish for memory that no domain has yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How much: what a domain boots with and what comes with it; or how much a minimum is to be raised beyond the target.
    pub amount: Kib,
    /// Within which time from now.
    pub within: Millis,
}

/// How a request will be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is free for it already.
    pub free: Kib,
    /// Who is to give how much.
    pub donors: Vec<(DomId, Kib)>,
    /// When it will all be there, from now, if the donors are as fast as they were. All the time given, if that is up to domains
    /// that have not reported yet.
    pub ready_in: Millis,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// More than there could be if every domain that gives had its minimum.
    #[error(
        "{figures}: not there, even if every domain had no more than must be left to it ({least}); ask for at most {most}"
    )]
    Impossible {
        /// The figures.
        figures: Figures,
        /// All minimums, and all of what does not move.
        least: Kib,
        /// What could be there at the very most.
        most: Kib,
    },
    /// The domains need what they have.
    #[error("{figures}: the domains need the rest; ask for at most {most}, or shut one down")]
    Needed {
        /// The figures.
        figures: Figures,
        /// What is free and what they have to spare.
        most: Kib,
    },
    /// The donors are too slow.
    #[error("{figures}: {in_time} can be there within {within}, all of it in {ready_in}; allow more time")]
    TooSlow {
        /// The figures.
        figures: Figures,
        /// What can be there in time.
        in_time: Kib,
        /// The time that was given.
        within: Millis,
        /// The time that is needed.
        ready_in: Millis,
    },
}

/// The figures of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// What was asked for.
    pub asked: Kib,
    /// What is free for it.
    pub free: Kib,
    /// What domains have beyond their needs.
    pub spare: Kib,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} asked for, {} free, {} to spare in domains", self.asked, self.free, self.spare)
    }
}

/// What passes before a donor starts: one round of the daemon, one of XenStore.
const START: Millis = Millis::new(200);
/// A time that is no time.
const NEVER: Millis = Millis::seconds(24 * 3600);

/// Looks for a way to serve `request` beside the claims that there are.
pub fn plan(
    state: &mut State,
    now: Millis,
    host: &Host,
    domains: &[Domain],
    request: &Request,
) -> Result<Plan, Refusal> {
    let asked = request.amount.up_to(Kib::PAGE);
    let cases = cases(state, now, domains);
    // Claims that wait have the first right to what donors give.
    let owed = (host.reserve + host.claims) - host.unpromised;
    let free = host.unpromised - host.reserve - host.claims;
    let donors: Vec<Donor> = cases.iter().filter_map(|case| Donor::of(case, state)).collect();
    let spare = donors.iter().map(|donor| donor.spare).sum::<Kib>() - owed;
    let figures = Figures { asked, free, spare };
    if asked <= free {
        return Ok(Plan { free: asked, donors: Vec::new(), ready_in: Millis::ZERO });
    }
    // What those could give who have not said yet what they need. They will: the time given is waited for that.
    let hidden: Kib =
        cases.iter().filter(|case| case.unheard).map(|case| case.domain.committed() - case.least()).sum();
    let wanted = (asked - free) + owed;
    let given = |time: Millis| donors.iter().map(|donor| donor.within(time)).sum::<Kib>();
    let waits = |given: Kib| hidden != Kib::ZERO && wanted <= given + hidden;
    let parts = |time: Millis| {
        let parts = donors.iter().map(|donor| (donor.id, donor.within(time)));
        parts.filter(|(_, part)| *part != Kib::ZERO).collect()
    };
    if asked > free + spare {
        if waits(given(NEVER)) {
            return Ok(Plan { free, donors: parts(NEVER), ready_in: request.within });
        }
        let least: Kib = cases.iter().map(Case::least).sum();
        let all = cases.iter().map(|case| case.domain.committed()).sum::<Kib>() + free - owed;
        let most = all - least;
        return Err(match asked > most {
            true => Refusal::Impossible { figures, least, most },
            false => Refusal::Needed { figures, most: free + spare },
        });
    }
    let (mut early, mut late) = (Millis::ZERO, NEVER);
    while late.since(early) > Millis::new(1) {
        let middle = early + Millis::new(late.since(early).get() / 2);
        if given(middle) >= wanted { late = middle } else { early = middle }
    }
    let ready_in = late + START;
    if ready_in > request.within {
        let time = request.within.since(START);
        if waits(given(time)) {
            return Ok(Plan { free, donors: parts(time), ready_in: request.within });
        }
        let in_time = free + (given(time) - owed);
        return Err(Refusal::TooSlow { figures, in_time, within: request.within, ready_in });
    }
    Ok(Plan { free, donors: parts(late), ready_in })
}

/// Whether all claims are covered by what is free now.
pub fn claims_are_free(host: &Host) -> bool {
    host.unpromised >= host.reserve + host.claims
}

struct Donor {
    id: DomId,
    spare: Kib,
    speed: crate::Speed,
}

impl Donor {
    fn of(case: &Case<'_>, state: &State) -> Option<Self> {
        let (id, spare) = (case.domain.id, case.spare_beyond_need());
        (spare != Kib::ZERO).then(|| Self { id, spare, speed: state.giving_speed(id) })
    }

    fn within(&self, time: Millis) -> Kib {
        self.speed.during(time).min(self.spare)
    }
}
