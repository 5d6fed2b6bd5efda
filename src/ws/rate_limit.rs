//! How many text messages a client may send, and how many pings and pongs. Pure.
//!
//! In a second [`MESSAGES_PER_SECOND`] are accepted. Those beyond it are dropped, and the client is warned once a
//! second; one that is over the limit for more than [`MAX_STRIKES`] seconds in a row, or sends ten times the limit
//! in one, is closed.

use std::time::{Duration, Instant};

/// Text messages that are accepted in a second.
pub(crate) const MESSAGES_PER_SECOND: u32 = 100;

/// Seconds in a row in which a client may be over the limit.
const MAX_STRIKES: u32 = 3;

/// Messages in one second after which a client is closed at once.
const ABUSE_LIMIT: u32 = 10 * MESSAGES_PER_SECOND;

const SECOND: Duration = Duration::from_secs(1);

/// Counts the messages of one client.
#[derive(Debug, Default)]
pub(crate) struct MessageRateLimiter {
    second_began: Option<Instant>,
    /// Messages in that second.
    count: u32,
    /// Seconds over the limit, without one under it in between.
    strikes: u32,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    /// Drop it, and tell the client.
    Warn,
    /// Close the connection.
    Close,
}

impl MessageRateLimiter {
    pub(crate) fn message(&mut self, now: Instant) -> Verdict {
        let since = self.second_began.map(|began| now.saturating_duration_since(began));
        if since.is_none_or(|since| since >= SECOND) {
            let calm = self.count <= MESSAGES_PER_SECOND || since.is_none_or(|since| since >= 2 * SECOND);
            if calm {
                self.strikes = 0;
            }
            self.second_began = Some(now);
            self.count = 0;
        }
        self.count += 1;
        if self.count <= MESSAGES_PER_SECOND {
            return Verdict::Accept;
        }
        if self.count == MESSAGES_PER_SECOND + 1 {
            self.strikes += 1;
        }
        if self.strikes > MAX_STRIKES || self.count > ABUSE_LIMIT {
            Verdict::Close
        } else if self.count == MESSAGES_PER_SECOND + 1 {
            Verdict::Warn
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
    fn send(limiter: &mut MessageRateLimiter, count: u32, now: Instant) -> Vec<Verdict> {
        let mut verdicts: Vec<_> = (0..count).map(|_| limiter.message(now)).collect();
        verdicts.dedup();
        verdicts
    }

    #[test]
    fn a_hundred_a_second_are_accepted_and_a_client_that_sends_more_is_warned_once() {
        let (mut limiter, now) = (MessageRateLimiter::default(), clock::now());
        assert_eq!(send(&mut limiter, MESSAGES_PER_SECOND, now), [Verdict::Accept]);
        assert_eq!(send(&mut limiter, 50, now), [Verdict::Warn, Verdict::Drop]);
        assert_eq!(send(&mut limiter, MESSAGES_PER_SECOND, now + SECOND), [Verdict::Accept]);
    }

    #[test]
    fn a_client_that_stays_over_the_limit_is_closed() {
        let (mut limiter, mut now) = (MessageRateLimiter::default(), clock::now());
        for _ in 0..MAX_STRIKES {
            assert_eq!(send(&mut limiter, 150, now), [Verdict::Accept, Verdict::Warn, Verdict::Drop]);
            now += SECOND;
        }
        assert_eq!(send(&mut limiter, 150, now), [Verdict::Accept, Verdict::Close]);
    }

    #[test]
    fn a_second_under_the_limit_clears_the_strikes() {
        let (mut limiter, mut now) = (MessageRateLimiter::default(), clock::now());
        for second in 0..20 {
            let count = if second % 3 == 2 { MESSAGES_PER_SECOND } else { 150 };
            assert!(!send(&mut limiter, count, now).contains(&Verdict::Close), "{second}");
            now += SECOND;
        }
        for _ in 0..20 {
            now += 2 * SECOND;
            assert!(!send(&mut limiter, 150, now).contains(&Verdict::Close));
        }
    }

    #[test]
    fn ten_times_the_limit_in_a_second_closes_at_once() {
        let verdicts = send(&mut MessageRateLimiter::default(), ABUSE_LIMIT + 1, clock::now());
        assert_eq!(verdicts, [Verdict::Accept, Verdict::Warn, Verdict::Drop, Verdict::Close]);
    }
}
