//! Two devices that fight for one session: each reconnects when the other one has it.
//!
//! Clients come back whatever they are closed with, so somebody has to be refused before the upgrade,
//! for a while. A client that resumes is no fight: it showed the secret that only one of them has.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Takeovers within [`WINDOW`] after which a newcomer is refused.
pub const MAX_TAKEOVERS: usize = 3;

/// How long a takeover counts.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The recent takeovers of a session.
#[derive(Debug, Default)]
pub struct TakeoverLimiter {
    at: VecDeque<Instant>,
}

impl TakeoverLimiter {
    /// Somebody wants to take the session from a client that has it. Where there were too many of them:
    /// until when nobody may.
    pub fn ask(&mut self, now: Instant) -> Result<(), Instant> {
        while self.at.front().is_some_and(|at| now >= *at + WINDOW) {
            self.at.pop_front();
        }
        match self.at.front() {
            Some(first) if self.at.len() >= MAX_TAKEOVERS => Err(*first + WINDOW),
            Some(_) | None => {
                self.at.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_fourth_takeover_in_a_minute_is_refused_until_the_first_is_a_minute_old() {
        let mut takeovers = TakeoverLimiter::default();
        let now = clock::now();
        let at = |s| now + Duration::from_secs(s);
        for s in [0, 10, 20] {
            assert_eq!(takeovers.ask(at(s)), Ok(()));
        }
        assert_eq!(takeovers.ask(at(30)), Err(at(60)));
        assert_eq!(takeovers.ask(at(59)), Err(at(60)), "a refusal is no takeover");
        assert_eq!(takeovers.ask(at(60)), Ok(()));
        assert_eq!(takeovers.ask(at(61)), Err(at(70)));
    }
}
