//! Whether a provider is called: one that fails is left alone for a while, and then one real call finds out whether it
//! works again.
//!
//! ```text
//!   closed ── failures, a refused key, its limit ──▶ open ── the wait is over ──▶ half-open ── success ──▶ closed
//!                                                     ▲                              │
//!                                                     └── failure: twice the wait ───┘
//! ```
//!
//! Pure: takes the time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// So many failures within [`WINDOW`] open the breaker, if they are at least half of its calls.
const MAX_FAILURES: usize = 3;
const WINDOW: Duration = Duration::from_secs(30);
/// The calls that are remembered.
const MAX_OUTCOMES: usize = 20;

/// The first wait after failures; it doubles up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(10);
const MAX_WAIT: Duration = Duration::from_secs(120);
/// The first wait after a refused key: people have to act.
const KEY_WAIT: Duration = Duration::from_secs(60);
/// The wait after a limit of the provider that does not say how long to wait, and the bounds of what one says.
const LIMIT_WAIT: Duration = Duration::from_secs(30);
const MIN_LIMIT_WAIT: Duration = Duration::from_secs(1);
const MAX_LIMIT_WAIT: Duration = Duration::from_secs(600);

/// How a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Counts together with others.
    Fault,
    /// Every call will fail.
    KeyRefused,
    /// The provider's limit is reached, and after how long it is not.
    RateLimited(Option<Duration>),
}

/// The right to make a call. Its outcome goes back to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    Call,
    /// The call decides whether the breaker closes.
    Probe,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    Closed,
    HalfOpen,
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
        wait: Duration,
        /// The provider asked not to be called before `until`.
        is_asked_for: bool,
    },
    /// A probe is under way.
    HalfOpen {
        wait: Duration,
    },
}

/// Of one provider.
#[derive(Debug)]
pub(crate) struct CircuitBreaker {
    state: State,
    /// The newest calls while closed: when they ended, and whether they failed.
    outcomes: VecDeque<(Instant, bool)>,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { state: State::Closed, outcomes: VecDeque::new() }
    }
}

impl CircuitBreaker {
    /// None while the provider is to be left alone.
    pub(crate) fn permit(&mut self, now: Instant) -> Option<Permit> {
        match self.state {
            State::Closed => Some(Permit::Call),
            State::Open { until, wait, .. } if now >= until => {
                self.state = State::HalfOpen { wait };
                Some(Permit::Probe)
            }
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// For a call that no other provider can take. None only while the provider asked not to be called.
    pub(crate) fn permit_last_resort(&mut self, now: Instant) -> Option<Permit> {
        self.can_be_last_resort(now).then(|| self.permit(now).unwrap_or(Permit::Probe))
    }

    /// Whether [`permit_last_resort`](Self::permit_last_resort) gives one.
    pub(crate) fn can_be_last_resort(&self, now: Instant) -> bool {
        !matches!(self.state, State::Open { until, is_asked_for: true, .. } if now < until)
    }

    /// The provider gave a result.
    pub(crate) fn succeeded(&mut self, permit: Permit, now: Instant) {
        match (self.state, permit) {
            (State::Closed, _) => self.remember(now, false),
            (State::Open { .. } | State::HalfOpen { .. }, Permit::Probe) => {
                self.state = State::Closed;
                self.outcomes.clear();
            }
            // The call began before the failures.
            (State::Open { .. } | State::HalfOpen { .. }, Permit::Call) => {}
        }
    }

    pub(crate) fn failed(&mut self, permit: Permit, failure: Failure, now: Instant) {
        match self.state {
            State::Closed => {
                self.remember(now, true);
                if failure != Failure::Fault || self.fails_too_often() {
                    self.open(failure, Duration::ZERO, now);
                }
            }
            State::HalfOpen { wait } if permit == Permit::Probe => self.open(failure, wait * 2, now),
            State::HalfOpen { .. } => {}
            State::Open { until, wait, .. } => match failure {
                Failure::RateLimited(_) => {
                    self.open(failure, wait, now);
                    if let State::Open { until: longer, .. } = &mut self.state {
                        *longer = until.max(*longer);
                    }
                }
                Failure::Fault | Failure::KeyRefused if permit == Permit::Probe && now >= until => {
                    self.open(failure, wait * 2, now);
                }
                Failure::Fault | Failure::KeyRefused => {}
            },
        }
    }

    /// The call was given up before it had an outcome: another may probe.
    pub(crate) fn released(&mut self, permit: Permit, now: Instant) {
        if let (State::HalfOpen { wait }, Permit::Probe) = (self.state, permit) {
            self.state = State::Open { until: now, wait, is_asked_for: false };
        }
    }

    /// When the provider is called again, if it is left alone.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    pub(crate) fn position(&self) -> Position {
        match self.state {
            State::Closed => Position::Closed,
            State::HalfOpen { .. } => Position::HalfOpen,
            State::Open { .. } => Position::Open,
        }
    }

    fn open(&mut self, failure: Failure, longer: Duration, now: Instant) {
        let (wait, is_asked_for) = match failure {
            Failure::Fault => (longer.clamp(FIRST_WAIT, MAX_WAIT), false),
            Failure::KeyRefused => (longer.clamp(KEY_WAIT, MAX_WAIT), false),
            Failure::RateLimited(wait) => {
                (wait.unwrap_or(LIMIT_WAIT).clamp(MIN_LIMIT_WAIT, MAX_LIMIT_WAIT), true)
            }
        };
        self.outcomes.clear();
        self.state = State::Open { until: now + wait, wait: wait.min(MAX_WAIT), is_asked_for };
    }

    fn remember(&mut self, now: Instant, failed: bool) {
        self.outcomes.push_back((now, failed));
        while self.outcomes.len() > MAX_OUTCOMES
            || self.outcomes.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW)
        {
            self.outcomes.pop_front();
        }
    }

    fn fails_too_often(&self) -> bool {
        let failures = self.outcomes.iter().filter(|(_, failed)| *failed).count();
        failures >= MAX_FAILURES && failures * 2 >= self.outcomes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn open() -> (CircuitBreaker, Instant) {
        let (mut breaker, now) = (CircuitBreaker::default(), crate::clock::now());
        for _ in 0..MAX_FAILURES {
            let permit = breaker.permit(now).unwrap();
            breaker.failed(permit, Failure::Fault, now);
        }
        (breaker, now)
    }

    #[test]
    fn failures_in_a_window_open_it_and_one_call_probes_after_the_wait() {
        let (mut breaker, now) = open();

        assert_eq!(breaker.retry_at(), Some(now + FIRST_WAIT));
        assert_eq!(breaker.permit(now + FIRST_WAIT - SECOND), None);
        assert_eq!(breaker.permit(now + FIRST_WAIT), Some(Permit::Probe));
        assert_eq!(breaker.permit(now + FIRST_WAIT), None, "one probe at a time");

        breaker.succeeded(Permit::Probe, now + FIRST_WAIT);

        assert_eq!(breaker.permit(now + FIRST_WAIT), Some(Permit::Call));
    }

    #[test]
    fn a_failed_probe_doubles_the_wait_up_to_a_bound() {
        let (mut breaker, _) = open();
        let mut waits = Vec::new();
        for _ in 0..6 {
            let at = breaker.retry_at().unwrap();
            let probe = breaker.permit(at).unwrap();
            breaker.failed(probe, Failure::Fault, at);
            waits.push((breaker.retry_at().unwrap() - at).as_secs());
        }

        assert_eq!(waits, [20, 40, 80, 120, 120, 120]);
    }

    #[test]
    fn failures_that_are_far_apart_or_few_among_successes_do_not_open_it() {
        let (mut breaker, mut now) = (CircuitBreaker::default(), crate::clock::now());
        for _ in 0..10 {
            breaker.failed(Permit::Call, Failure::Fault, now);
            now += WINDOW * 2 / 3;
        }
        for _ in 0..100 {
            breaker.succeeded(Permit::Call, now);
            breaker.succeeded(Permit::Call, now);
            breaker.failed(Permit::Call, Failure::Fault, now);
        }

        assert_eq!(breaker.permit(now), Some(Permit::Call));
    }

    #[test]
    fn a_refused_key_and_a_limit_open_it_at_once() {
        let now = crate::clock::now();
        for (failure, wait) in [
            (Failure::KeyRefused, KEY_WAIT),
            (Failure::RateLimited(None), LIMIT_WAIT),
            (Failure::RateLimited(Some(7 * SECOND)), 7 * SECOND),
            (Failure::RateLimited(Some(Duration::ZERO)), MIN_LIMIT_WAIT),
            (Failure::RateLimited(Some(86_400 * SECOND)), MAX_LIMIT_WAIT),
        ] {
            let mut breaker = CircuitBreaker::default();

            breaker.failed(Permit::Call, failure, now);

            assert_eq!(breaker.retry_at(), Some(now + wait), "{failure:?}");
            let can = breaker.can_be_last_resort(now);
            assert_eq!(can, failure == Failure::KeyRefused, "a provider's wish to wait is respected");
            assert_eq!(breaker.permit_last_resort(now).is_some(), can);
        }
    }

    #[test]
    fn a_probe_that_is_given_up_leaves_the_place_to_another() {
        let (mut breaker, now) = open();
        let probe = breaker.permit(now + FIRST_WAIT).unwrap();

        breaker.released(probe, now + FIRST_WAIT);

        assert_eq!(breaker.permit(now + FIRST_WAIT), Some(Permit::Probe));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Begin,
        Succeed(usize),
        Fail(usize, Failure),
        Release(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let failure = prop_oneof![
            4 => Just(Failure::Fault),
            1 => Just(Failure::KeyRefused),
            1 => (0..100_u64).prop_map(|s| Failure::RateLimited(Some(Duration::from_secs(s)))),
        ];
        let step = prop_oneof![
            (0..40_u64).prop_map(Step::Pass),
            Just(Step::Begin),
            Just(Step::Begin),
            (0..4_usize).prop_map(Step::Succeed),
            (0..4_usize, failure).prop_map(|(at, failure)| Step::Fail(at, failure)),
            (0..4_usize).prop_map(Step::Release),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn it_never_permits_before_its_time_nor_two_probes_and_a_probe_always_comes(steps in steps()) {
            let (mut breaker, mut now) = (CircuitBreaker::default(), crate::clock::now());
            let mut running: Vec<Permit> = Vec::new();
            for step in steps {
                let before = breaker.position();
                match step {
                    Step::Pass(seconds) => now += Duration::from_secs(seconds),
                    Step::Begin => {
                        let (retry_at, permit) = (breaker.retry_at(), breaker.permit(now));
                        let may = match before {
                            Position::Closed => Some(Permit::Call),
                            Position::Open => (now >= retry_at.unwrap()).then_some(Permit::Probe),
                            Position::HalfOpen => None,
                        };
                        prop_assert_eq!(permit, may);
                        running.extend(permit);
                    }
                    Step::Succeed(at) if at < running.len() => {
                        let permit = running.swap_remove(at);
                        breaker.succeeded(permit, now);
                        prop_assert!(permit == Permit::Call || breaker.position() == Position::Closed);
                        prop_assert!(permit == Permit::Probe || breaker.position() == before);
                    }
                    Step::Fail(at, failure) if at < running.len() => {
                        let permit = running.swap_remove(at);
                        breaker.failed(permit, failure, now);
                        prop_assert!(permit == Permit::Call || breaker.position() == Position::Open);
                    }
                    Step::Release(at) if at < running.len() => breaker.released(running.swap_remove(at), now),
                    Step::Succeed(_) | Step::Fail(..) | Step::Release(_) => {}
                }
                let probes = running.iter().filter(|permit| **permit == Permit::Probe).count();
                prop_assert!(probes <= 1);
                prop_assert_eq!(breaker.position() == Position::HalfOpen, probes == 1);
                prop_assert!(breaker.retry_at().is_none_or(|at| at <= now + MAX_LIMIT_WAIT));
            }
        }
    }
}
