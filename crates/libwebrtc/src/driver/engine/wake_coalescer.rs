//! Wakeup coalescing: whether a thread sleeps before it parks.
//!
//! Similar to interrupt moderation of network cards. At a low packet rate each packet is processed on arrival. At a
//! high rate the thread sleeps for up to [`COALESCING_INTERVAL`] and then processes all packets that arrived meanwhile.
//! With 20 agents this saves a quarter of the processor time and delays audio, which arrives in packets of 20 ms, by 2
//! ms on average.
//!
//! ```text
//! woken rarely   ──▶ parks at once
//! woken often    ──▶ sleeps until COALESCING_INTERVAL after the wakeup, then parks
//! under load     ──▶ parks at once: more work is already pending
//! ```

use std::time::{Duration, Instant};

/// Time from one wakeup of a coalescing thread to the next.
const COALESCING_INTERVAL: Duration = Duration::from_millis(4);

/// Wakeups that follow each other within this time count as frequent.
const FREQUENT_WAKEUP_INTERVAL: Duration = Duration::from_millis(8);

/// This many task polls since the wakeup mean that the thread is under load. A loaded thread must not sleep, since it
/// parks without being idle: tokio runs some 60 polls before it parks to check for I/O.
const LOADED_POLLS: u32 = 32;

/// Wakeup statistics of one thread; see the module documentation.
#[derive(Debug, Default)]
pub(super) struct WakeCoalescer {
    /// Time of the last wakeup.
    woken_at: Option<Instant>,
    /// Whether the wakeup before it was less than [`FREQUENT_WAKEUP_INTERVAL`] earlier.
    frequent: bool,
    /// Task polls since then.
    polls: u32,
}

impl WakeCoalescer {
    /// Records a wakeup.
    pub(super) fn on_wake(&mut self, now: Instant) {
        self.frequent = self
            .woken_at
            .is_some_and(|before| now.saturating_duration_since(before) < FREQUENT_WAKEUP_INTERVAL);
        self.woken_at = Some(now);
        self.polls = 0;
    }

    /// Records the poll of a task.
    pub(super) fn on_poll(&mut self) {
        self.polls += 1;
    }

    /// How long to sleep before parking, if at all.
    pub(super) fn sleep_before_park(&self, now: Instant) -> Option<Duration> {
        let until =
            self.woken_at.filter(|_| self.frequent && self.polls < LOADED_POLLS)? + COALESCING_INTERVAL;
        until.checked_duration_since(now).filter(|pause| !pause.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// A thread that was woken at these times, in milliseconds, and has polled `polls` tasks since.
    fn thread(start: Instant, woken: &[u64], polls: u32) -> WakeCoalescer {
        let mut wake_coalescer = WakeCoalescer::default();
        for at in woken {
            wake_coalescer.on_wake(start + Duration::from_millis(*at));
        }
        (0..polls).for_each(|_| wake_coalescer.on_poll());
        wake_coalescer
    }

    #[test]
    fn a_thread_that_is_woken_rarely_parks_at_once() {
        let start = clock::now();

        assert_eq!(thread(start, &[], 0).sleep_before_park(start), None);
        assert_eq!(thread(start, &[0], 1).sleep_before_park(start), None);
        assert_eq!(thread(start, &[0, 20, 40], 1).sleep_before_park(start + Duration::from_millis(40)), None);
    }

    #[test]
    fn a_thread_that_is_woken_often_sleeps_for_the_rest_of_the_interval() {
        let start = clock::now();
        let wake_coalescer = thread(start, &[0, 2], 5);

        let left = |at: u64| wake_coalescer.sleep_before_park(start + Duration::from_millis(at));

        assert_eq!(
            [left(2), left(3), left(6), left(9)],
            [Some(COALESCING_INTERVAL), Some(COALESCING_INTERVAL * 3 / 4), None, None]
        );
    }

    #[test]
    fn a_thread_under_load_does_not_sleep() {
        let start = clock::now();

        let at = start + Duration::from_millis(2);

        assert_eq!(thread(start, &[0, 2], LOADED_POLLS - 1).sleep_before_park(at), Some(COALESCING_INTERVAL));
        assert_eq!(thread(start, &[0, 2], LOADED_POLLS).sleep_before_park(at), None);
    }
}
