//! When LiveKit is asked who is in a room: as rarely as can be, and as often as must be.
//!
//! Webhooks are lossy, and the loss is silent: LiveKit drops what waited for 30 s, or behind 200 others
//! of the room. So somebody who watches is worth a list where nothing is known yet, where something is
//! doubtful, and now and then; more often while lists keep finding faults, as they do where webhooks do
//! not arrive at all.
//!
//! Pure: told what was asked and what came of it, it says when to ask next.

use std::time::{Duration, Instant};

use crate::room::roster::{Roster, SETTLE_TIME};

/// The shortest time between two lists of a room.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// How soon after a list that found faults the next one is asked for; doubles from there.
const FAULT_DELAY: Duration = Duration::from_secs(2);

/// The longest wait after lists that failed.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Decides when a room is listed.
#[derive(Debug)]
pub struct Reconciler {
    /// How often where all is well.
    period: Duration,
    /// How soon after the last list the next routine one is due.
    interval: Duration,
    /// When the last list was asked for; the room's beginning at first.
    last: Instant,
    /// None was asked for yet.
    fresh: bool,
    under_way: bool,
    failures: u32,
}

impl Reconciler {
    /// One that lists a watched room once in a `period` where all is well.
    pub fn new(period: Duration, now: Instant) -> Self {
        Self { period, interval: period, last: now, fresh: true, under_way: false, failures: 0 }
    }

    /// Whether an answer is awaited.
    pub fn is_under_way(&self) -> bool {
        self.under_way
    }

    /// When a room that is watched is to be listed.
    pub fn deadline(&self, roster: &Roster) -> Option<Instant> {
        if self.under_way {
            return None;
        }
        let not_before = if self.fresh { self.last } else { self.last + self.pause() };
        let unknown = (!roster.is_complete()).then_some(self.last);
        // A list can only decide about what has settled.
        let doubtful = roster.doubtful_since().map(|since| since + SETTLE_TIME);
        let routine = Some(self.last + self.interval);
        [unknown, doubtful, routine].into_iter().flatten().min().map(|due| due.max(not_before))
    }

    /// LiveKit is being asked; `chance` (0 to 1) spreads the next time by a half, so that the rooms of a
    /// gateway don't ask all at once.
    pub fn asked(&mut self, now: Instant, chance: f64) {
        self.under_way = true;
        self.fresh = false;
        self.last = now;
        self.interval = self.interval.min(self.period).mul_f64(0.75 + chance / 2.0);
    }

    /// LiveKit answered, and so much of what was believed was wrong.
    pub fn answered(&mut self, corrections: u64) {
        self.under_way = false;
        self.failures = 0;
        self.interval = if corrections > 0 {
            FAULT_DELAY.min(self.period)
        } else if self.interval < self.period / 2 {
            self.interval * 2
        } else {
            self.period
        };
    }

    /// LiveKit did not answer.
    pub fn failed(&mut self) {
        self.under_way = false;
        self.failures += 1;
    }

    fn pause(&self) -> Duration {
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
    fn a_room_that_is_not_known_is_listed_at_once_and_then_rarely() {
        let now = clock::now();
        let mut reconciler = Reconciler::new(PERIOD, now);
        assert_eq!(reconciler.deadline(&Roster::default()), Some(now));

        reconciler.asked(now, 0.5);
        assert_eq!(reconciler.deadline(&Roster::default()), None, "one list at a time");
        reconciler.answered(0);

        assert_eq!(reconciler.deadline(&known(now)), Some(now + PERIOD));
    }

    #[test]
    fn a_doubt_is_settled_as_soon_as_a_list_can_decide_it() {
        let now = clock::now();
        let mut reconciler = Reconciler::new(PERIOD, now);
        reconciler.asked(now, 0.5);
        reconciler.answered(0);
        let (mut roster, later) = (known(now), now + Duration::from_secs(10));

        roster.handle(Event::Suspect, later);

        assert_eq!(reconciler.deadline(&roster), Some(later + SETTLE_TIME));
    }

    #[test]
    fn faults_bring_the_next_list_nearer_until_there_are_none() {
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
