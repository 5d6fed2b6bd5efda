//! So many a minute, for each of many: who comes too often is told how long to wait.
//!
//! A generic cell rate algorithm: a whole minute's worth may come at once, then one at a time. It keeps
//! one time for each, and nothing for those who have not come for a minute or two: they have their whole
//! allowance again.
//!
//! Pure, and bounded: where too many come at once, those who find no place are counted as one.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_secs(60);

/// How many are told apart, twice over.
const MAX_KEYS: usize = 10_000;

/// Counts.
pub struct Rate<K> {
    /// What one attempt costs of the minute.
    price: Duration,
    /// Until when each has used its allowance: those who came lately, and those who came before.
    young: HashMap<K, Instant>,
    old: HashMap<K, Instant>,
    /// Since when `young` is filled.
    since: Option<Instant>,
    /// The same for all who find no place.
    others: Option<Instant>,
}

impl<K: Eq + Hash> Rate<K> {
    /// So many a minute; at least one.
    pub fn per_minute(most: u32) -> Self {
        Self {
            price: MINUTE / most.max(1),
            young: HashMap::new(),
            old: HashMap::new(),
            since: None,
            others: None,
        }
    }

    /// Takes one attempt, or says when the next one may come.
    pub fn take(&mut self, who: K, now: Instant) -> Result<(), Duration> {
        self.forget(now);
        let used_until = match self.young.get(&who).or_else(|| self.old.get(&who)) {
            Some(until) => *until,
            None if self.young.len() < MAX_KEYS => now,
            None => {
                let (until, taken) = self.spend(self.others.unwrap_or(now), now);
                self.others = Some(until);
                return taken;
            }
        };
        let (until, taken) = self.spend(used_until, now);
        match self.old.get_mut(&who) {
            Some(known) if self.young.len() >= MAX_KEYS => *known = until,
            Some(_) | None => {
                self.young.insert(who, until);
            }
        }
        taken
    }

    fn spend(&self, used_until: Instant, now: Instant) -> (Instant, Result<(), Duration>) {
        let until = used_until.max(now) + self.price;
        // A rounding error of the price must not cost the last attempt of the minute.
        let over = (until - now).saturating_sub(MINUTE);
        if over.is_zero() { (until, Ok(())) } else { (used_until, Err(over)) }
    }

    /// Who has not come for a minute has used nothing of the next one.
    fn forget(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now >= since + 2 * MINUTE {
            self.young.clear();
        }
        if now >= since + MINUTE {
            self.old = std::mem::take(&mut self.young);
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
    fn whoever_finds_no_place_shares_one_and_there_are_places_again_later() {
        let (mut rate, now) = (Rate::per_minute(1), clock::now());
        for who in 0..MAX_KEYS {
            assert_eq!(rate.take(who, now), Ok(()));
        }
        assert_eq!(rate.take(MAX_KEYS, now), Ok(()));
        assert_eq!(rate.take(MAX_KEYS + 1, now), Err(MINUTE));
        assert_eq!(rate.young.len() + rate.old.len(), MAX_KEYS);
        assert_eq!(rate.take(MAX_KEYS + 1, now + MINUTE), Ok(()));
        assert_eq!(rate.take(7, now + 3 * MINUTE), Ok(()));
        assert_eq!(rate.young.len() + rate.old.len(), 1, "who has not come lately is forgotten");
    }

    proptest! {
        /// However they come, nobody gets more than two minutes' worth in any minute, nor less than one.
        #[test]
        fn nobody_gets_more_than_their_share(
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

        /// Who waits for as long as they are told is let in.
        #[test]
        fn who_waits_as_told_is_let_in(most in 1_u32..90, attempts in 1_usize..200) {
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
