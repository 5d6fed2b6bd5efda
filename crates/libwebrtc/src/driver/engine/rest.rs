//! When a thread rests before it waits for the next packet.
//!
//! As network cards do with interrupts: with few packets each is taken as it comes; with many, the thread sleeps for
//! [`PAUSE`] and takes all that came meanwhile. Twenty agents cost a quarter less so, and sound that comes in pieces of
//! 20 ms comes 2 ms later on average.
//!
//! ```text
//! woken rarely       ──▶ waits at once
//! woken often        ──▶ rests until PAUSE after it was woken, then waits
//! has its hands full ──▶ waits at once: there is more to do already
//! ```

use std::time::{Duration, Instant};

/// From one time that a resting thread is woken to the next.
const PAUSE: Duration = Duration::from_millis(4);

/// Woken again within this time is often.
const OFTEN: Duration = Duration::from_millis(8);

/// As many turns of tasks since it was woken are hands full. A thread must rest only if that costs it nothing: it
/// runs some 60 turns before it looks whether there are more.
const FULL: u32 = 32;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// When it was woken last.
    woken_at: Option<Instant>,
    /// Whether that was soon after the time before.
    often: bool,
    /// What it did since.
    turns: u32,
}

impl Rest {
    /// The thread was woken.
    pub(super) fn woke(&mut self, now: Instant) {
        self.often = self.woken_at.is_some_and(|before| now.saturating_duration_since(before) < OFTEN);
        self.woken_at = Some(now);
        self.turns = 0;
    }

    /// A task had its turn.
    pub(super) fn worked(&mut self) {
        self.turns += 1;
    }

    /// How long to rest, now that there is nothing more to do.
    pub(super) fn before_waiting(&self, now: Instant) -> Option<Duration> {
        let until = self.woken_at.filter(|_| self.often && self.turns < FULL)? + PAUSE;
        until.checked_duration_since(now).filter(|pause| !pause.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// A thread that was woken at these times, in milliseconds, and did so many turns since.
    fn thread(start: Instant, woken: &[u64], turns: u32) -> Rest {
        let mut rest = Rest::default();
        for at in woken {
            rest.woke(start + Duration::from_millis(*at));
        }
        (0..turns).for_each(|_| rest.worked());
        rest
    }

    #[test]
    fn a_thread_that_is_woken_rarely_waits_for_the_next_packet_at_once() {
        let start = clock::now();

        assert_eq!(thread(start, &[], 0).before_waiting(start), None);
        assert_eq!(thread(start, &[0], 1).before_waiting(start), None);
        assert_eq!(thread(start, &[0, 20, 40], 1).before_waiting(start + Duration::from_millis(40)), None);
    }

    #[test]
    fn a_thread_that_is_woken_often_rests_for_what_is_left_of_the_pause() {
        let start = clock::now();
        let rest = thread(start, &[0, 2], 5);

        let left = |at: u64| rest.before_waiting(start + Duration::from_millis(at));

        assert_eq!([left(2), left(3), left(6), left(9)], [Some(PAUSE), Some(PAUSE * 3 / 4), None, None]);
    }

    #[test]
    fn a_thread_with_its_hands_full_does_not_rest() {
        let start = clock::now();

        let at = start + Duration::from_millis(2);

        assert_eq!(thread(start, &[0, 2], FULL - 1).before_waiting(at), Some(PAUSE));
        assert_eq!(thread(start, &[0, 2], FULL).before_waiting(at), None);
    }
}
