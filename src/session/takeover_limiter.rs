//! Limits takeovers: two devices of one user may each reconnect whenever the other one has the session.
//!
//! Clients reconnect after any close code, so one of them has to be refused before the upgrade, for a while. A
//! client that resumes is no takeover: it has the session's secret, which only one of them can have.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Takeovers within [`WINDOW`] after which further ones are refused.
pub const MAX_TAKEOVERS: usize = 3;

/// How long a takeover counts.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The recent takeovers of a session.
#[derive(Debug, Default)]
pub struct TakeoverLimiter {
    at: VecDeque<Instant>,
}

impl TakeoverLimiter {
    /// A client wants to take the session from another one.
    ///
    /// # Errors
    /// Where there were too many takeovers: until when further ones are refused.
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
