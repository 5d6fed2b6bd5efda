//! A rate limit per key: so many attempts a minute.
//!
//! A generic cell rate algorithm: a minute's worth of attempts, or a smaller burst, may come at once, then one at a
//! time. It keeps one time per key, and forgets keys that were not used for one to two minutes: their whole
//! allowance is back.
//!
//! Pure, and bounded in memory: beyond [`MAX_KEYS`] all further keys share one allowance.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_secs(60);

/// The most keys of each of the two generations.
const MAX_KEYS: usize = 65_536;

pub(crate) struct Rate<K> {
    /// The share of the minute that one attempt uses.
    cost: Duration,
    /// How far ahead of the time a key may be: the burst, at most a minute.
    tolerance: Duration,
    /// Until when each key has used its allowance: keys of this minute, and of the one before.
    recent: HashMap<K, Instant>,
    previous: HashMap<K, Instant>,
    /// Since when `recent` is filled.
    since: Option<Instant>,
    /// The same for all keys beyond [`MAX_KEYS`].
    overflow: Option<Instant>,
}

impl<K: Eq + Hash> Rate<K> {
    /// At least one a minute, all of which may come at once.
    pub(crate) fn per_minute(limit: u32) -> Self {
        Self::with_burst(limit, limit)
    }

    /// At least one a minute, of which at most `burst` come at once.
    pub(crate) fn with_burst(limit: u32, burst: u32) -> Self {
        let limit = limit.max(1);
        let cost = MINUTE / limit;
        Self {
            cost,
            // Rounding of `cost` must not lose the last attempt of the minute.
            tolerance: if burst >= limit { MINUTE } else { cost * burst.max(1) },
            recent: HashMap::new(),
            previous: HashMap::new(),
            since: None,
            overflow: None,
        }
    }

    /// Counts one attempt; an error says how long to wait for the next one.
    pub(crate) fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        self.forget(now);
        let used_until = match self.recent.get(&key).or_else(|| self.previous.get(&key)) {
            Some(until) => *until,
            None if self.recent.len() < MAX_KEYS => now,
            None => {
                let (until, taken) = self.spend(self.overflow.unwrap_or(now), now);
                self.overflow = Some(until);
                return taken;
            }
        };
        let (until, taken) = self.spend(used_until, now);
        match self.previous.get_mut(&key) {
            Some(known) if self.recent.len() >= MAX_KEYS => *known = until,
            Some(_) | None => {
                self.recent.insert(key, until);
            }
        }
        taken
    }

    fn spend(&self, used_until: Instant, now: Instant) -> (Instant, Result<(), Duration>) {
        let until = used_until.max(now) + self.cost;
        let over = (until - now).saturating_sub(self.tolerance);
        if over.is_zero() { (until, Ok(())) } else { (used_until, Err(over)) }
    }

    /// Keys that were not used for a minute have their whole allowance back.
    fn forget(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now >= since + 2 * MINUTE {
            self.recent.clear();
        }
        if now >= since + MINUTE {
            self.previous = std::mem::take(&mut self.recent);
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    #[test]
    fn a_minutes_worth_may_come_at_once_and_then_one_at_a_time() {
        let (mut rate, now) = (Rate::per_minute(6), clock::now());
        for _ in 0..6 {
            assert_eq!(rate.take("ann", now), Ok(()));
        }
        assert_eq!(rate.take("ann", now), Err(Duration::from_secs(10)));
        assert_eq!(rate.take("bob", now), Ok(()), "each has their own");
        let later = now + Duration::from_secs(10);
        assert_eq!(rate.take("ann", later), Ok(()));
        assert_eq!(rate.take("ann", later), Err(Duration::from_secs(10)));
    }

    #[test]
    fn a_burst_may_come_at_once_and_the_rest_of_the_minute_evenly() {
        let (mut rate, now) = (Rate::with_burst(20, 5), clock::now());
        for _ in 0..5 {
            assert_eq!(rate.take("ann", now), Ok(()));
        }
        assert_eq!(rate.take("ann", now), Err(Duration::from_secs(3)));
        let accepted = (1..=60).filter(|s| rate.take("ann", now + Duration::from_secs(*s)).is_ok()).count();
        assert_eq!(accepted, 20);
    }

    #[test]
    fn keys_beyond_the_limit_share_one_allowance_until_others_are_forgotten() {
        let (mut rate, now) = (Rate::per_minute(1), clock::now());
        for who in 0..MAX_KEYS {
            assert_eq!(rate.take(who, now), Ok(()));
        }
        assert_eq!(rate.take(MAX_KEYS, now), Ok(()));
        assert_eq!(rate.take(MAX_KEYS + 1, now), Err(MINUTE));
        assert_eq!(rate.recent.len() + rate.previous.len(), MAX_KEYS);
        assert_eq!(rate.take(MAX_KEYS + 1, now + MINUTE), Ok(()));
        assert_eq!(rate.take(7, now + 3 * MINUTE), Ok(()));
        assert_eq!(rate.recent.len() + rate.previous.len(), 1, "unused keys are forgotten");
    }

    proptest! {
        /// At most two minutes' worth of attempts are accepted in any minute.
        #[test]
        fn no_key_gets_more_than_its_share(
            most in 1_u32..90,
            waits in proptest::collection::vec(0_u64..4_000, 1..400),
        ) {
            let mut rate = Rate::per_minute(most);
            let mut now = clock::now();
            let (mut granted, mut waited) = (0_u32, Duration::ZERO);
            for wait in waits {
                now += Duration::from_millis(wait);
                waited += Duration::from_millis(wait);
                granted += u32::from(rate.take("ann", now).is_ok());
                let share = f64::from(most) * (1.0 + waited.as_secs_f64() / 60.0);
                prop_assert!(f64::from(granted) <= share + 1.0, "{granted} of {share}");
            }
        }

        /// An attempt after the wait is accepted.
        #[test]
        fn an_attempt_after_the_wait_is_accepted(most in 1_u32..90, attempts in 1_usize..200) {
            let mut rate = Rate::per_minute(most);
            let mut now = clock::now();
            for _ in 0..attempts {
                if let Err(wait) = rate.take("ann", now) {
                    now += wait;
                    prop_assert_eq!(rate.take("ann", now), Ok(()));
                }
            }
        }
    }
}
