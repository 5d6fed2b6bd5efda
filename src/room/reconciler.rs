//! When to ask LiveKit who is in a room.
//!
//! Webhooks can be lost without notice: LiveKit drops those that waited for 30 s, or behind 200 others of the
//! room. So a room with subscribers is listed when nothing is known of it yet, when something is suspect, and
//! at an interval; more often while lists keep correcting the roster, as they do where no webhook arrives.
//!
//! Pure: it is told of each request and its result, and says when the next one is due.

use std::time::{Duration, Instant};

use crate::room::roster::{Roster, SETTLE_TIME};

/// The shortest time between two lists of a room.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The interval after a list that corrected the roster; it doubles from there.
const CORRECTED_INTERVAL: Duration = Duration::from_secs(2);

/// The longest wait after lists that failed.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Reconciler {
    /// The interval while lists correct nothing.
    period: Duration,
    /// The interval from the last list to the next routine one, before `spread`.
    interval: Duration,
    /// Varies the interval, so that the rooms of a gateway are not listed all at once: 0.75 to 1.25.
    spread: f64,
    /// When the last list was asked for; at first, when the room began.
    last: Instant,
    /// No list was asked for yet.
    is_new: bool,
    is_under_way: bool,
    failures: u32,
}

impl Reconciler {
    /// Lists once per `period` while lists correct nothing.
    pub(super) fn new(period: Duration, now: Instant) -> Self {
        Self {
            period,
            interval: period,
            spread: 1.0,
            last: now,
            is_new: true,
            is_under_way: false,
            failures: 0,
        }
    }

    /// Whether a result is awaited.
    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// When a room with subscribers is to be listed.
    pub(super) fn deadline(&self, roster: &Roster) -> Option<Instant> {
        if self.is_under_way {
            return None;
        }
        let not_before = if self.is_new { self.last } else { self.last + self.min_wait() };
        let unknown = (!roster.is_complete()).then_some(self.last);
        // A list resolves only what has settled.
        let suspect = roster.suspect_since().map(|since| since + SETTLE_TIME);
        let routine = Some(self.last + self.interval.mul_f64(self.spread));
        [unknown, suspect, routine].into_iter().flatten().min().map(|due| due.max(not_before))
    }

    /// A list was asked for; `chance` (0 to 1) spreads the next routine one.
    pub(super) fn asked(&mut self, now: Instant, chance: f64) {
        self.is_under_way = true;
        self.is_new = false;
        self.last = now;
        self.spread = 0.75 + chance / 2.0;
    }

    /// LiveKit answered, and the list corrected this many errors of the roster.
    pub(super) fn answered(&mut self, corrections: u64) {
        self.is_under_way = false;
        self.failures = 0;
        let interval = if corrections > 0 { CORRECTED_INTERVAL } else { self.interval * 2 };
        self.interval = interval.min(self.period);
    }

    /// LiveKit did not answer.
    pub(super) fn failed(&mut self) {
        self.is_under_way = false;
        self.failures += 1;
    }

    fn min_wait(&self) -> Duration {
        MIN_INTERVAL.saturating_mul(1 << self.failures.min(16)).min(MAX_BACKOFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, room::roster::Event};

    const PERIOD: Duration = Duration::from_secs(30);

    fn known(now: Instant) -> Roster {
        let mut roster = Roster::default();
        roster.handle(Event::Listed { asked_at: now, participants: vec![] }, now);
        roster
    }

    #[test]
    fn an_unknown_room_is_listed_at_once_and_then_once_per_period() {
        let now = clock::now();
        let mut reconciler = Reconciler::new(PERIOD, now);
        assert_eq!(reconciler.deadline(&Roster::default()), Some(now));

        reconciler.asked(now, 0.5);
        assert_eq!(reconciler.deadline(&Roster::default()), None, "one list at a time");
        reconciler.answered(0);

        assert_eq!(reconciler.deadline(&known(now)), Some(now + PERIOD));
    }

    #[test]
    fn routine_lists_of_many_rooms_are_spread() {
        let now = clock::now();
        let mut next = Vec::new();
        for chance in [0.0, 1.0] {
            let mut reconciler = Reconciler::new(PERIOD, now);
            reconciler.asked(now, chance);
            reconciler.answered(0);
            next.push(reconciler.deadline(&known(now)).unwrap() - now);
        }
        assert_eq!(next, [PERIOD.mul_f64(0.75), PERIOD.mul_f64(1.25)]);
    }

    #[test]
    fn what_is_suspect_is_listed_as_soon_as_it_has_settled() {
        let now = clock::now();
        let mut reconciler = Reconciler::new(PERIOD, now);
        reconciler.asked(now, 0.5);
        reconciler.answered(0);
        let (mut roster, later) = (known(now), now + Duration::from_secs(10));

        roster.handle(Event::Suspect, later);

        assert_eq!(reconciler.deadline(&roster), Some(later + SETTLE_TIME));
    }

    #[test]
    fn corrections_shorten_the_interval_until_there_are_none() {
        let now = clock::now();
        let mut reconciler = Reconciler::new(PERIOD, now);
        let mut waits = Vec::new();
        for corrections in [3, 1, 0, 0, 0, 0, 0] {
            reconciler.asked(now, 0.5);
            reconciler.answered(corrections);
            waits.push((reconciler.deadline(&known(now)).unwrap() - now).as_secs());
        }
        assert_eq!(waits, [2, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_livekit_that_does_not_answer_is_asked_less_and_less() {
        let now = clock::now();
        let mut reconciler = Reconciler::new(PERIOD, now);
        let mut waits = Vec::new();
        for _ in 0..7 {
            reconciler.asked(now, 0.5);
            reconciler.failed();
            waits.push((reconciler.deadline(&Roster::default()).unwrap() - now).as_secs());
        }
        assert_eq!(waits, [2, 4, 8, 16, 30, 30, 30]);
    }
}
