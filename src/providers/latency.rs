//! How long the newest calls of a provider took to their first result.
//!
//! Pure.

use std::{collections::VecDeque, time::Duration};

/// The calls that are remembered.
const MAX_CALLS: usize = 100;

/// With fewer than these, the slowest one of twenty is not known.
const MIN_CALLS: usize = 20;

#[derive(Debug, Default)]
pub(super) struct LatencyWindow(VecDeque<Duration>);

impl LatencyWindow {
    pub(super) fn observe(&mut self, latency: Duration) {
        if self.0.len() == MAX_CALLS {
            self.0.pop_front();
        }
        self.0.push_back(latency);
    }

    /// What 95 % of the calls did not exceed; none before there are enough calls.
    pub(super) fn p95(&self) -> Option<Duration> {
        if self.0.len() < MIN_CALLS {
            return None;
        }
        let mut calls: Vec<Duration> = self.0.iter().copied().collect();
        let rank = (calls.len() * 95).div_ceil(100);
        Some(*calls.select_nth_unstable(rank - 1).1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(millis: impl IntoIterator<Item = u64>) -> LatencyWindow {
        let mut window = LatencyWindow::default();
        millis.into_iter().for_each(|ms| window.observe(Duration::from_millis(ms)));
        window
    }

    #[test]
    fn one_slow_call_of_twenty_is_above_the_p95_and_two_are_not() {
        let p95_ms = |slow: u64| window((0..20).map(|n| if n < slow { 900 } else { 100 + n })).p95();

        assert_eq!(p95_ms(1), Some(Duration::from_millis(119)));
        assert_eq!(p95_ms(2), Some(Duration::from_millis(900)));
    }

    #[test]
    fn too_few_calls_say_nothing() {
        assert_eq!(window(0..19).p95(), None);
        assert!(window(0..20).p95().is_some());
    }

    proptest! {
        #[test]
        fn it_is_a_latency_of_the_newest_calls_that_at_most_one_in_twenty_exceeds(
            millis in proptest::collection::vec(0..10_000_u64, 20..300),
        ) {
            let newest = &millis[millis.len().saturating_sub(MAX_CALLS)..];

            let p95 = window(millis.iter().copied()).p95().unwrap().as_millis() as u64;

            prop_assert!(newest.contains(&p95));
            let share = |is: &dyn Fn(u64) -> bool| newest.iter().filter(|ms| is(**ms)).count() * 100;
            prop_assert!(share(&|ms| ms > p95) <= newest.len() * 5);
            prop_assert!(share(&|ms| ms >= p95) > newest.len() * 5);
        }
    }
}
