//! What the language model may cost: calls per minute, calls and tokens per day, calls at the same time; of each user
//! and of the gateway.
//!
//! Pure: the time goes in, an answer comes out. A minute is any 60 s. A day is the last 24 hours, counted in hours
//! since the gateway began. Users beyond [`MAX_USERS`] take the place of those who asked least recently.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::ids::UserId;

/// The most users that are counted, some 10 MB.
const MAX_USERS: usize = 16_384;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR_S: u64 = 3600;
const HOURS: u64 = 24;

/// How long to wait for a call that is in progress.
const RUNNING_RETRY: Duration = Duration::from_secs(1);

/// 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    pub calls_per_minute: u32,
    pub calls_per_day: u32,
    pub tokens_per_day: u32,
}

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    /// Too many calls are in progress.
    Running,
    CallsPerMinute,
    CallsPerDay,
    TokensPerDay,
}

/// Whose allowance is used up, which one, and after how long the next call is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverBudget {
    pub(crate) of_gateway: bool,
    pub(crate) used: Used,
    pub(crate) retry_after: Duration,
}

pub(crate) struct LlmBudget {
    by_user: Allowance,
    of_gateway: Allowance,
    /// Calls of one user at the same time; 0 for no limit.
    running_by_user: u32,
    began: Instant,
    gateway: Account,
    users: HashMap<UserId, (u64, Account)>,
    /// Who asked when, the least recent first.
    order: BTreeMap<u64, UserId>,
    next: u64,
}

impl LlmBudget {
    pub(crate) fn new(by_user: Allowance, of_gateway: Allowance, running_by_user: u32, now: Instant) -> Self {
        Self {
            by_user,
            of_gateway,
            running_by_user,
            began: now,
            gateway: Account::default(),
            users: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
        }
    }

    /// Counts a call with a prompt of about so many tokens. [`end`](Self::end) belongs to each call that was
    /// accepted.
    pub(crate) fn begin(&mut self, user: &UserId, tokens: u32, now: Instant) -> Result<(), OverBudget> {
        let running = self.running_by_user;
        if running > 0 && self.account(user).running >= running {
            let used = Used::Running;
            return Err(OverBudget { of_gateway: false, used, retry_after: RUNNING_RETRY });
        }
        self.begin_beside(user, tokens, now)?;
        self.account(user).running += 1;
        Ok(())
    }

    /// The same for a call that takes no place of those at the same time. [`end_beside`](Self::end_beside) belongs to
    /// it.
    pub(crate) fn begin_beside(
        &mut self,
        user: &UserId,
        tokens: u32,
        now: Instant,
    ) -> Result<(), OverBudget> {
        let hour = self.hour(now);
        let into_hour = Duration::from_secs(now.saturating_duration_since(self.began).as_secs() % HOUR_S);
        let (by_user, of_gateway) = (self.by_user, self.of_gateway);
        let over = |of_gateway, used, retry_after| OverBudget { of_gateway, used, retry_after };
        let account = self.account(user);
        account
            .check(by_user, tokens, hour, into_hour, now)
            .map_err(|(used, wait)| over(false, used, wait))?;
        self.gateway
            .check(of_gateway, tokens, hour, into_hour, now)
            .map_err(|(used, wait)| over(true, used, wait))?;
        self.gateway.add(of_gateway, tokens, now);
        self.account(user).add(by_user, tokens, now);
        Ok(())
    }

    /// A call is over, which took more, or fewer, tokens than were counted at its beginning.
    pub(crate) fn end(&mut self, user: &UserId, more_tokens: i64, now: Instant) {
        if let Some((_, account)) = self.users.get_mut(user) {
            account.running = account.running.saturating_sub(1);
        }
        self.end_beside(user, more_tokens, now);
    }

    pub(crate) fn end_beside(&mut self, user: &UserId, more_tokens: i64, now: Instant) {
        let hour = self.hour(now);
        self.gateway.end(more_tokens, hour);
        if let Some((_, account)) = self.users.get_mut(user) {
            account.end(more_tokens, hour);
        }
    }

    fn hour(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / HOUR_S
    }

    /// The account of a user, who becomes the most recent one.
    fn account(&mut self, user: &UserId) -> &mut Account {
        let at = self.next;
        self.next += 1;
        match self.users.get(user) {
            Some((before, _)) => {
                self.order.remove(before);
            }
            None if self.users.len() >= MAX_USERS => {
                if let Some((_, least_recent)) = self.order.pop_first() {
                    self.users.remove(&least_recent);
                }
            }
            None => {}
        }
        self.order.insert(at, user.clone());
        let entry = self.users.entry(user.clone()).or_default();
        entry.0 = at;
        &mut entry.1
    }
}

/// What one user, or the gateway, used.
#[derive(Default)]
struct Account {
    running: u32,
    /// The calls of the last minute, where these are limited.
    minute: VecDeque<Instant>,
    /// The hour that was counted last, and the calls and tokens of each of the last 24 hours, by the hour's
    /// remainder.
    hour: u64,
    calls: [u32; HOURS as usize],
    tokens: [u32; HOURS as usize],
}

impl Account {
    fn check(
        &mut self,
        allowance: Allowance,
        tokens: u32,
        hour: u64,
        into_hour: Duration,
        now: Instant,
    ) -> Result<(), (Used, Duration)> {
        self.advance(hour);
        let Allowance { calls_per_minute, calls_per_day, tokens_per_day } = allowance;
        while self.minute.front().is_some_and(|at| now >= *at + MINUTE) {
            self.minute.pop_front();
        }
        if let Some(first) = self.minute.front()
            && self.minute.len() >= calls_per_minute as usize
            && calls_per_minute > 0
        {
            return Err((Used::CallsPerMinute, *first + MINUTE - now));
        }
        for (used, limit, counts, wanted) in [
            (Used::CallsPerDay, calls_per_day, &self.calls, 1),
            (Used::TokensPerDay, tokens_per_day, &self.tokens, tokens),
        ] {
            if limit > 0
                && let Some(hours) = self.hours_to_wait(counts, limit, wanted)
            {
                return Err((used, Duration::from_secs(hours * HOUR_S).saturating_sub(into_hour)));
            }
        }
        Ok(())
    }

    /// After how many hours so many more are within the limit; none if they are now.
    fn hours_to_wait(&self, counts: &[u32; HOURS as usize], limit: u32, wanted: u32) -> Option<u64> {
        let mut left: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        let fits = |left: u64| left + u64::from(wanted) <= u64::from(limit);
        if fits(left) {
            return None;
        }
        for hours in 1..=HOURS {
            // The oldest hour's place is the next one's.
            left -= u64::from(counts[((self.hour + hours) % HOURS) as usize]);
            if fits(left) {
                return Some(hours);
            }
        }
        Some(HOURS)
    }

    fn add(&mut self, allowance: Allowance, tokens: u32, now: Instant) {
        if allowance.calls_per_minute > 0 {
            self.minute.push_back(now);
        }
        let at = (self.hour % HOURS) as usize;
        self.calls[at] = self.calls[at].saturating_add(1);
        self.tokens[at] = self.tokens[at].saturating_add(tokens);
    }

    fn end(&mut self, more_tokens: i64, hour: u64) {
        self.advance(hour);
        let at = (self.hour % HOURS) as usize;
        let tokens = i64::from(self.tokens[at]).saturating_add(more_tokens);
        self.tokens[at] = u32::try_from(tokens.max(0)).unwrap_or(u32::MAX);
    }

    /// Clears the places of the hours that passed.
    fn advance(&mut self, hour: u64) {
        for passed in self.hour + 1..=hour.min(self.hour + HOURS) {
            let at = (passed % HOURS) as usize;
            (self.calls[at], self.tokens[at]) = (0, 0);
        }
        self.hour = self.hour.max(hour);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const HOUR: Duration = Duration::from_secs(HOUR_S);

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn budget(by_user: Allowance, of_gateway: Allowance) -> (LlmBudget, Instant) {
        let now = clock::now();
        (LlmBudget::new(by_user, of_gateway, 0, now), now)
    }

    fn per_minute(calls_per_minute: u32) -> Allowance {
        Allowance { calls_per_minute, ..Allowance::default() }
    }

    fn over(of_gateway: bool, used: Used, retry_after: Duration) -> Result<(), OverBudget> {
        Err(OverBudget { of_gateway, used, retry_after })
    }

    #[test]
    fn a_users_calls_per_minute_are_limited_and_anothers_are_not_touched() {
        let (mut budget, now) = budget(per_minute(2), Allowance::default());
        let (ann, bob) = (user("ann"), user("bob"));
        let second = Duration::from_secs(1);
        assert_eq!(budget.begin(&ann, 1, now), Ok(()));
        assert_eq!(budget.begin(&ann, 1, now + 20 * second), Ok(()));

        assert_eq!(budget.begin(&ann, 1, now + 30 * second), over(false, Used::CallsPerMinute, 30 * second));
        assert_eq!(budget.begin(&bob, 1, now + 30 * second), Ok(()));
        assert_eq!(budget.begin(&ann, 1, now + 60 * second), Ok(()));
    }

    #[test]
    fn tokens_of_the_last_day_count_and_come_back_hour_by_hour() {
        let by_user = Allowance { tokens_per_day: 100, ..Allowance::default() };
        let (mut budget, now) = budget(by_user, Allowance::default());
        let ann = user("ann");
        budget.begin(&ann, 60, now).unwrap();
        budget.end(&ann, 20, now);
        budget.begin(&ann, 20, now + 2 * HOUR).unwrap();

        let later = now + 2 * HOUR + HOUR / 2;
        assert_eq!(budget.begin(&ann, 1, later), over(false, Used::TokensPerDay, 21 * HOUR + HOUR / 2));
        assert_eq!(budget.begin(&ann, 81, later), over(false, Used::TokensPerDay, 23 * HOUR + HOUR / 2));
        assert_eq!(budget.begin(&ann, 80, now + 24 * HOUR), Ok(()));
    }

    #[test]
    fn a_call_that_took_fewer_tokens_than_estimated_gives_them_back() {
        let by_user = Allowance { tokens_per_day: 100, ..Allowance::default() };
        let (mut budget, now) = budget(by_user, Allowance::default());
        budget.begin(&user("ann"), 90, now).unwrap();
        budget.end(&user("ann"), -50, now);
        assert_eq!(budget.begin(&user("ann"), 60, now), Ok(()));
    }

    #[test]
    fn calls_per_day_are_limited() {
        let by_user = Allowance { calls_per_day: 2, ..Allowance::default() };
        let (mut budget, now) = budget(by_user, Allowance::default());
        for _ in 0..2 {
            budget.begin(&user("ann"), 1, now).unwrap();
        }
        assert_eq!(budget.begin(&user("ann"), 1, now), over(false, Used::CallsPerDay, 24 * HOUR));
        assert_eq!(budget.begin(&user("ann"), 1, now + 24 * HOUR), Ok(()));
    }

    #[test]
    fn the_gateways_allowance_is_shared_and_a_call_that_it_refuses_is_not_counted() {
        let (mut budget, now) = budget(per_minute(2), per_minute(1));
        budget.begin(&user("ann"), 1, now).unwrap();

        for _ in 0..3 {
            assert_eq!(budget.begin(&user("bob"), 1, now), over(true, Used::CallsPerMinute, MINUTE));
        }
        assert_eq!(budget.begin(&user("bob"), 1, now + MINUTE), Ok(()));
    }

    #[test]
    fn calls_at_the_same_time_are_limited_until_one_ends() {
        let now = clock::now();
        let mut budget = LlmBudget::new(Allowance::default(), Allowance::default(), 1, now);
        let ann = user("ann");
        budget.begin(&ann, 1, now).unwrap();
        assert_eq!(budget.begin(&ann, 1, now), over(false, Used::Running, RUNNING_RETRY));
        budget.end(&ann, 0, now);
        assert_eq!(budget.begin(&ann, 1, now), Ok(()));
    }

    #[test]
    fn users_beyond_the_maximum_take_the_place_of_the_least_recent() {
        let (mut budget, now) = budget(per_minute(1), Allowance::default());
        budget.begin(&user("first"), 1, now).unwrap();
        budget.begin(&user("busy"), 1, now).unwrap();
        for n in 0..MAX_USERS - 2 {
            budget.begin(&user(&format!("user-{n}")), 1, now).unwrap();
        }
        assert!(budget.begin(&user("busy"), 1, now).is_err());

        budget.begin(&user("one-more"), 1, now).unwrap();

        assert_eq!((budget.users.len(), budget.order.len()), (MAX_USERS, MAX_USERS));
        assert!(!budget.users.contains_key(&user("first")));
        assert!(budget.begin(&user("busy"), 1, now).is_err(), "who asks often stays counted");
    }

    proptest! {
        /// In any 60 seconds at most so many calls are accepted.
        #[test]
        fn no_minute_has_more_calls_than_the_limit(
            limit in 1_u32..20,
            waits in proptest::collection::vec(0_u64..9_000, 1..300),
        ) {
            let (mut budget, mut now) = budget(per_minute(limit), Allowance::default());
            let ann = user("ann");
            let mut accepted: Vec<Instant> = Vec::new();
            for wait in waits {
                now += Duration::from_millis(wait);
                if budget.begin(&ann, 1, now).is_ok() {
                    accepted.push(now);
                }
                let last_minute = accepted.iter().filter(|at| **at + MINUTE > now).count();
                prop_assert!(last_minute <= limit as usize);
            }
        }
    }
}
