//! How fast a guest was seen to move memory, as XenStore keeps it over a restart of the daemon: in a node that only dom0
//! writes, as `GIVE TAKE` in KiB a second; `-` is not known yet.

use memory_policy::{Kib, Speed};

/// The node, below the domain's directory.
pub const NODE: &str = "memory/speed";
/// Speeds that differ by less than one part in so many are much the same, and not written again.
const NOTABLE: u64 = 4;

/// What was learned of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speeds {
    /// How fast it gives.
    pub give: Option<Speed>,
    /// How fast it takes.
    pub take: Option<Speed>,
}

impl Speeds {
    /// What a node says. What makes no sense is not known.
    pub fn parse(text: &str) -> Self {
        let mut speeds =
            text.split_whitespace().map(|word| Some(Speed::per_second(Kib::new(word.parse().ok()?))));
        let (give, take) = (speeds.next().flatten(), speeds.next().flatten());
        Self { give, take }
    }

    /// What to write.
    pub fn text(&self) -> String {
        let word = |speed: Option<Speed>| speed.map_or("-".to_owned(), |speed| speed.get().to_string());
        format!("{} {}", word(self.give), word(self.take))
    }

    /// Whether this is worth writing where `written` is.
    pub fn is_news_after(&self, written: &Self) -> bool {
        let is_news = |now: Option<Speed>, before: Option<Speed>| match (now, before) {
            (Some(now), Some(before)) => {
                let (now, before) = (now.get(), before.get());
                now.abs_diff(before) > before / NOTABLE
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        is_news(self.give, written.give) || is_news(self.take, written.take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(kib: u64) -> Option<Speed> {
        Some(Speed::per_second(Kib::new(kib)))
    }

    #[test]
    fn what_is_written_is_read_and_nonsense_is_not_known() {
        for speeds in
            [Speeds::default(), Speeds { give: speed(7), take: None }, Speeds { give: None, take: speed(9) }]
        {
            assert_eq!(Speeds::parse(&speeds.text()), speeds);
        }
        for text in ["", "x y", "-1 -1", "99999999999999999999999 -"] {
            assert_eq!(Speeds::parse(text), Speeds::default(), "{text}");
        }
    }

    #[test]
    fn only_what_differs_is_news() {
        let written = Speeds { give: speed(1000), take: None };
        assert!(!Speeds { give: speed(1200), take: None }.is_news_after(&written));
        assert!(Speeds { give: speed(1300), take: None }.is_news_after(&written));
        assert!(Speeds { give: speed(1000), take: speed(1) }.is_news_after(&written));
        assert!(!Speeds::default().is_news_after(&written));
    }
}
