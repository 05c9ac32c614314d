//! A deterministic simulator: the law against guests with speed limits, stuck, lying, without agents, dying.
//!
//! ```text
//!                 ┌─ World: guests with demands, balloons, agents; the hypervisor's budgets ─┐
//!   Scenario ──▶  │     reports ──▶ Daemon (the law, as the real daemon calls it) ──▶ targets│──▶ Score ─┐
//!                 └──────────────────────────────────────────────────────────────────────────┘           ├─▶ regret
//!                 ┌─ the same World ── the truth, as often ──▶ Oracle ──▶ targets ───────────┐──▶ Score ─┘
//! ```
//! The oracle hears of the guests as often as the law does, but the truth, and divides perfectly; it moves memory no faster
//! than the same guests give and take it. What the law does worse than that is its own fault.

mod curve;
mod daemon;
mod guest;
mod oracle;
mod scenarios;
mod score;
#[cfg(test)]
mod tests;
mod world;

pub use curve::Curve;
pub use guest::{Agent, Balloon, GuestSpec};
pub use scenarios::{Creation, Scenario, Variant, all, synthetic};
pub use score::{GRACE, MemoryTime, Score};

use daemon::Daemon;
use oracle::Oracle;
use world::World;

use crate::{Explanation, Millis};

/// One step of simulated time.
pub(crate) const STEP: Millis = Millis::new(20);

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// The law's.
    pub score: Score,
    /// The oracle's, in the same scenario.
    pub oracle: Score,
    /// Each change of a target: whose, and why.
    pub log: Vec<(&'static str, Explanation)>,
    /// What was refused, and why.
    pub refusals: Vec<crate::admission::Refusal>,
}

impl Run {
    /// Shortage against the oracle's, in percent. Both with [`GRACE`] more, so that nothing divided by nothing is 100.
    pub fn regret(&self) -> u64 {
        self.score.shortage.regret(self.oracle.shortage)
    }

    /// Memory moved against the oracle's, in percent.
    pub fn churn(&self) -> u64 {
        self.score.moved.percent_of(self.oracle.moved)
    }

    /// Which of the bounds that hold in every scenario the law missed.
    pub fn missed(&self) -> Vec<&'static str> {
        let bounds = [
            (self.score.guarantee == 0, "a minimum was violated"),
            (self.score.beyond == 0, "a budget went beyond RAM"),
            (self.score.kills == 0 || self.oracle.kills > 0, "a process was killed for nothing"),
            (self.regret() < 125, "the regret is 1.25 or more"),
            (self.score.late == 0, "a domain was made late"),
        ];
        bounds.into_iter().filter(|(holds, _)| !holds).map(|(_, missed)| missed).collect()
    }
}

/// Plays `scenario` once with the law and once with the oracle.
pub fn run(scenario: &Scenario, variant: Variant) -> Run {
    let mut daemon = Daemon::new(scenario, variant);
    let score = play(scenario, |world| daemon.drive(world));
    let mut oracle = Oracle::new(scenario, variant);
    let oracle = play(scenario, |world| oracle.drive(world));
    Run { score, oracle, log: daemon.log, refusals: daemon.refusals }
}

fn play(scenario: &Scenario, mut drive: impl FnMut(&mut World)) -> Score {
    let mut world = World::new(scenario);
    while world.now < scenario.length {
        drive(&mut world);
        world.step();
    }
    world.finish()
}
