//! Memory for domains that are to be made: asked for by their creators, made free by donors, kept until the domain has it.
//!
//! A claim lives as long as the connection that it came by, and no longer than until the hypervisor has promised its domain the
//! memory. So no claim outlives a creator that dies, nor counts twice.

use memory_policy::{Kib, Millis};

/// Who asked, by its connection.
pub type Asker = u64;

/// One claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who asked.
    pub asker: Asker,
    /// The UUID of the domain.
    pub handle: [u8; 16],
    /// How much.
    pub amount: Kib,
    /// When it was asked for.
    pub since: Millis,
    /// When it is to be there.
    pub deadline: Millis,
    /// Whether it is there.
    pub is_granted: bool,
    /// What of it the domain was promised already.
    had: Kib,
}

/// All claims, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Claims(Vec<Claim>);

impl Claims {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A new one.
    pub fn add(&mut self, asker: Asker, handle: [u8; 16], amount: Kib, since: Millis, deadline: Millis) {
        self.0.push(Claim { asker, handle, amount, since, deadline, is_granted: false, had: Kib::ZERO });
    }

    /// Its connection ended.
    pub fn end(&mut self, asker: Asker) {
        self.0.retain(|claim| claim.asker != asker);
    }

    /// What is to be free for all of them.
    pub fn total(&self) -> Kib {
        self.0.iter().map(Claim::open).sum()
    }

    /// The next deadline of one that is not there yet.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.0.iter().filter(|claim| !claim.is_granted).map(|claim| claim.deadline).min()
    }

    /// What the domains that exist have or were promised.
    pub fn look(&mut self, made: &[([u8; 16], Kib)]) {
        for claim in &mut self.0 {
            let has = made.iter().find(|(handle, _)| *handle == claim.handle);
            claim.had = has.map_or(Kib::ZERO, |(_, has)| *has);
        }
    }

    /// Those that can be answered now: `free` serves them in their order. Each comes once, granted or out of time.
    pub fn answers(&mut self, free: Kib, now: Millis) -> Vec<Claim> {
        let mut left = free;
        let mut answers = Vec::new();
        for claim in &mut self.0 {
            let open = claim.open();
            let fits = open <= left;
            left -= open;
            if claim.is_granted || !(fits || now >= claim.deadline) {
                continue;
            }
            claim.is_granted = fits;
            answers.push(*claim);
        }
        let out_of_time: Vec<Asker> =
            answers.iter().filter(|claim| !claim.is_granted).map(|claim| claim.asker).collect();
        self.0.retain(|claim| !out_of_time.contains(&claim.asker));
        answers
    }
}

impl Claim {
    fn open(&self) -> Kib {
        self.amount - self.had
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis::seconds(100);
    const LATER: Millis = Millis::seconds(110);

    fn claims() -> Claims {
        let mut claims = Claims::default();
        claims.add(1, [1; 16], Kib::mib(100), NOW, LATER);
        claims.add(2, [2; 16], Kib::mib(50), NOW, LATER);
        claims
    }

    fn who(answers: &[Claim]) -> Vec<(Asker, bool)> {
        answers.iter().map(|claim| (claim.asker, claim.is_granted)).collect()
    }

    #[test]
    fn who_asked_first_is_served_first_and_once() {
        let mut claims = claims();
        assert_eq!(claims.total(), Kib::mib(150));
        assert_eq!(who(&claims.answers(Kib::mib(60), NOW)), []);
        assert_eq!(who(&claims.answers(Kib::mib(120), NOW)), [(1, true)]);
        assert_eq!(who(&claims.answers(Kib::mib(150), NOW)), [(2, true)]);
        assert_eq!(who(&claims.answers(Kib::mib(150), LATER)), []);
        assert_eq!(claims.next_deadline(), None);
    }

    #[test]
    fn a_claim_is_gone_with_its_time_its_creator_or_its_domain() {
        let mut claims = claims();
        assert_eq!(who(&claims.answers(Kib::mib(110), LATER)), [(1, true), (2, false)]);
        assert_eq!(claims.total(), Kib::mib(100));
        claims.look(&[([1; 16], Kib::mib(40))]);
        assert_eq!(claims.total(), Kib::mib(60));
        claims.look(&[([1; 16], Kib::mib(101))]);
        assert_eq!(claims.total(), Kib::ZERO);
        claims.end(1);
        assert!(claims.is_empty());
    }
}
