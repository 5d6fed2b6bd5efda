//! How many text messages a client may send. Pure.
//!
//! In a second [`LIMIT`] are taken. Those beyond it are dropped, and the client is told once a second; one
//! that goes on for [`STRIKES`] seconds, or sends ten times the limit in one, is closed.

use std::time::{Duration, Instant};

/// Text messages that are taken in a second.
pub const LIMIT: u32 = 100;

/// Seconds in a row in which a client may be over the limit.
pub const STRIKES: u32 = 3;

/// This many in a second are no mistake of a client's.
const ABUSE_LIMIT: u32 = 10 * LIMIT;

const SECOND: Duration = Duration::from_secs(1);

/// The messages of one client.
#[derive(Debug, Default)]
pub struct MessageRateLimiter {
    /// When this second began.
    began: Option<Instant>,
    /// Messages in it.
    count: u32,
    /// Seconds over the limit, without one under it in between.
    strikes: u32,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken.
    Take,
    /// It is dropped.
    Drop,
    /// It is dropped, and the client is told.
    Tell,
    /// The client is closed.
    Close,
}

impl MessageRateLimiter {
    /// A message came.
    pub fn message(&mut self, now: Instant) -> Verdict {
        let since = self.began.map(|began| now.saturating_duration_since(began));
        if since.is_none_or(|since| since >= SECOND) {
            let calm = self.count <= LIMIT || since.is_none_or(|since| since >= 2 * SECOND);
            if calm {
                self.strikes = 0;
            }
            self.began = Some(now);
            self.count = 0;
        }
        self.count += 1;
        if self.count <= LIMIT {
            return Verdict::Take;
        }
        if self.count == LIMIT + 1 {
            self.strikes += 1;
        }
        if self.strikes > STRIKES || self.count > ABUSE_LIMIT {
            Verdict::Close
        } else if self.count == LIMIT + 1 {
            Verdict::Tell
        } else {
            Verdict::Drop
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// What becomes of so many messages at once.
    fn send(flood: &mut MessageRateLimiter, count: u32, now: Instant) -> Vec<Verdict> {
        let mut verdicts: Vec<_> = (0..count).map(|_| flood.message(now)).collect();
        verdicts.dedup();
        verdicts
    }

    #[test]
    fn a_hundred_a_second_are_taken_and_who_sends_more_is_told_once() {
        let (mut flood, now) = (MessageRateLimiter::default(), clock::now());
        assert_eq!(send(&mut flood, LIMIT, now), [Verdict::Take]);
        assert_eq!(send(&mut flood, 50, now), [Verdict::Tell, Verdict::Drop]);
        assert_eq!(send(&mut flood, LIMIT, now + SECOND), [Verdict::Take]);
    }

    #[test]
    fn who_goes_on_is_closed() {
        let (mut flood, mut now) = (MessageRateLimiter::default(), clock::now());
        for _ in 0..STRIKES {
            assert_eq!(send(&mut flood, 150, now), [Verdict::Take, Verdict::Tell, Verdict::Drop]);
            now += SECOND;
        }
        assert_eq!(send(&mut flood, 150, now), [Verdict::Take, Verdict::Close]);
    }

    #[test]
    fn a_calm_second_is_a_new_beginning() {
        let (mut flood, mut now) = (MessageRateLimiter::default(), clock::now());
        for second in 0..20 {
            let count = if second % 3 == 2 { LIMIT } else { 150 };
            assert!(!send(&mut flood, count, now).contains(&Verdict::Close), "{second}");
            now += SECOND;
        }
        for _ in 0..20 {
            now += 2 * SECOND;
            assert!(!send(&mut flood, 150, now).contains(&Verdict::Close));
        }
    }

    #[test]
    fn far_too_many_at_once_are_no_mistake() {
        let verdicts = send(&mut MessageRateLimiter::default(), ABUSE_LIMIT + 1, clock::now());
        assert_eq!(verdicts, [Verdict::Take, Verdict::Tell, Verdict::Drop, Verdict::Close]);
    }
}
