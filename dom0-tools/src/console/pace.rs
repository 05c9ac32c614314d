//! How often a guest may have its console served: Xen's 30 events in 200 ms, so that one that floods leaves the others
//! their share. Time is given, not taken: this is arithmetic.

use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(200);
const EVENTS: u32 = 30;

/// One guest's allowance.
#[derive(Debug, Default)]
pub struct Pace {
    period_began: Duration,
    spent: u32,
}

impl Pace {
    /// Takes one event of the allowance, or says when there will be one.
    ///
    /// # Errors
    /// The time to come back at.
    pub fn spend(&mut self, now: Duration) -> Result<(), Duration> {
        if now.saturating_sub(self.period_began) >= PERIOD {
            *self = Self { period_began: now, spent: 0 };
        }
        if self.spent == EVENTS {
            return Err(self.period_began + PERIOD);
        }
        self.spent += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_events_in_a_fifth_of_a_second() {
        let mut pace = Pace::default();
        let mut served = 0;
        for millisecond in 1000..2000 {
            let now = Duration::from_millis(millisecond);
            while pace.spend(now).is_ok() {
                served += 1;
            }
        }
        assert_eq!(served, 5 * EVENTS);
        let now = Duration::from_millis(1999);
        assert_eq!(pace.spend(now), Err(Duration::from_millis(2000)));
        assert_eq!(pace.spend(Duration::from_millis(2000)), Ok(()));
    }
}
