//! What a domain is doing: the six letters of `xl list`.

use pv_abi::domctl::{
    XEN_DOMINF_BLOCKED, XEN_DOMINF_DYING, XEN_DOMINF_PAUSED, XEN_DOMINF_RUNNING, XEN_DOMINF_SHUTDOWN,
    XEN_DOMINF_SHUTDOWNMASK, XEN_DOMINF_SHUTDOWNSHIFT,
};
use pv_abi::sched::ShutdownReason;
use serde::Serialize;

/// What a domain is doing, letter by letter as `xl list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct State {
    pub(super) running: bool,
    pub(super) blocked: bool,
    pub(super) paused: bool,
    pub(super) shutdown: bool,
    pub(super) crashed: bool,
    pub(super) dying: bool,
    #[serde(skip)]
    reason: u32,
}

impl State {
    pub(super) fn new(flags: u32) -> Self {
        let is = |flag| flags & flag != 0;
        Self {
            running: is(XEN_DOMINF_RUNNING),
            blocked: is(XEN_DOMINF_BLOCKED),
            paused: is(XEN_DOMINF_PAUSED),
            shutdown: is(XEN_DOMINF_SHUTDOWN),
            crashed: is(XEN_DOMINF_SHUTDOWN) && reason(flags) == ShutdownReason::Crash as u32,
            dying: is(XEN_DOMINF_DYING),
            reason: if is(XEN_DOMINF_SHUTDOWN) { reason(flags) } else { 0 },
        }
    }

    pub(super) fn letters(self) -> String {
        let letter = |is, letter| if is { letter } else { '-' };
        // Why it was shut down: the fifth letter.
        let reason = "-rscwS".chars().nth(self.reason as usize).unwrap_or('?');
        [
            letter(self.running, 'r'),
            letter(self.blocked, 'b'),
            letter(self.paused, 'p'),
            letter(self.shutdown, 's'),
            reason,
            letter(self.dying, 'd'),
        ]
        .iter()
        .collect()
    }
}

/// `SHUTDOWN_*` of a domain that is shut down.
pub(super) fn reason(flags: u32) -> u32 {
    flags >> XEN_DOMINF_SHUTDOWNSHIFT & XEN_DOMINF_SHUTDOWNMASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_letters() {
        let letters = |flags| State::new(flags).letters();
        assert_eq!(letters(0), "------");
        assert_eq!(letters(XEN_DOMINF_BLOCKED | XEN_DOMINF_PAUSED), "-bp---");
        assert_eq!(letters(XEN_DOMINF_SHUTDOWN), "---s--");
        assert_eq!(letters(XEN_DOMINF_SHUTDOWN | 1 << XEN_DOMINF_SHUTDOWNSHIFT), "---sr-");
        assert_eq!(letters(XEN_DOMINF_SHUTDOWN | XEN_DOMINF_DYING | 3 << XEN_DOMINF_SHUTDOWNSHIFT), "---scd");
        assert_eq!(letters(XEN_DOMINF_SHUTDOWN | 9 << XEN_DOMINF_SHUTDOWNSHIFT), "---s?-");
        // The reason means nothing before it is shut down.
        assert_eq!(letters(3 << XEN_DOMINF_SHUTDOWNSHIFT), "------");
    }
}
