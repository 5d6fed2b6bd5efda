//! Notices when a microphone should deliver audio through the room and does not. Pure.
//!
//! ```text
//!             no audio for 5 s                    no audio for 5 s, again
//!   Watching ──────────────────▶ Watching (asked) ───────────────────────▶ GivenUp
//!      ▲      Ask: join again         │ audio                Fall back: send it here │
//!      └──────────────────────────────┴────────────────────────────────────────── audio
//! ```
//!
//! A client is asked to join again once per [`COOL_DOWN`] at most: a gap within it is the second failure.

use std::time::{Duration, Instant};

/// How long nothing may come where audio is expected.
pub const MAX_GAP: Duration = Duration::from_secs(5);

/// The shortest time between two requests to join the room again.
pub const COOL_DOWN: Duration = Duration::from_secs(30);

/// What to do about a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the client a fresh token, so that it joins again.
    Ask,
    /// Expect the client's audio on the control channel.
    FallBack,
}

/// The watchdog.
#[derive(Debug, Default)]
pub struct AudioWatchdog {
    state: State,
    /// When the client was last asked to join again.
    asked_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No audio is expected.
    #[default]
    Off,
    Watching {
        quiet_since: Instant,
    },
    /// The client was asked, in vain.
    GivenUp,
}

impl AudioWatchdog {
    /// Audio is expected, or not any more.
    pub fn expect(&mut self, sound: bool, now: Instant) {
        self.state = match (self.state, sound) {
            (_, false) => State::Off,
            (State::Off, true) => State::Watching { quiet_since: now },
            (state @ (State::Watching { .. } | State::GivenUp), true) => state,
        };
    }

    /// Audio came, if only silence.
    pub fn heard(&mut self, now: Instant) {
        if self.state != State::Off {
            self.state = State::Watching { quiet_since: now };
        }
    }

    /// When [`due`](Self::due) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Watching { quiet_since } => Some(quiet_since + MAX_GAP),
            State::Off | State::GivenUp => None,
        }
    }

    /// What to do about a gap that is long enough.
    pub fn due(&mut self, now: Instant) -> Option<Step> {
        if self.deadline().is_none_or(|at| now < at) {
            return None;
        }
        if self.asked_at.is_some_and(|at| now < at + COOL_DOWN) {
            self.state = State::GivenUp;
            return Some(Step::FallBack);
        }
        self.asked_at = Some(now);
        self.state = State::Watching { quiet_since: now };
        Some(Step::Ask)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    fn watching() -> (AudioWatchdog, Instant) {
        let (mut watch, now) = (AudioWatchdog::default(), clock::now());
        watch.expect(true, now);
        (watch, now)
    }

    #[test]
    fn a_client_is_asked_to_join_again_and_then_to_send_its_sound_here() {
        let (mut watch, now) = watching();
        assert_eq!(watch.due(now + MAX_GAP - Duration::from_millis(1)), None);
        assert_eq!(watch.due(now + MAX_GAP), Some(Step::Ask));
        assert_eq!(watch.due(now + MAX_GAP), None);
        assert_eq!(watch.due(now + 2 * MAX_GAP), Some(Step::FallBack));
        assert_eq!(watch.deadline(), None, "nothing more is tried");
    }

    #[test]
    fn sound_is_the_end_of_a_gap_but_not_of_the_cool_down() {
        let (mut watch, mut now) = watching();
        now += MAX_GAP;
        assert_eq!(watch.due(now), Some(Step::Ask));
        now += Duration::from_secs(4);
        watch.heard(now);
        assert_eq!(watch.due(now + MAX_GAP), Some(Step::FallBack));

        now += COOL_DOWN;
        watch.heard(now);
        assert_eq!(watch.due(now + MAX_GAP), Some(Step::Ask), "long ago is forgotten");
    }

    #[test]
    fn where_no_sound_is_expected_none_is_missed() {
        let (mut watch, now) = (AudioWatchdog::default(), clock::now());
        watch.heard(now);
        assert_eq!(watch.deadline(), None);
        watch.expect(true, now);
        watch.expect(false, now + Duration::from_secs(1));
        assert_eq!(watch.due(now + COOL_DOWN), None);
    }

    proptest! {
        #[test]
        fn nobody_is_asked_twice_within_the_cool_down(
            steps in prop::collection::vec((0..3u8, 0..20_000u64), 0..100),
        ) {
            let (mut watch, mut now) = watching();
            let mut asked: Option<Instant> = None;
            for (kind, wait_ms) in steps {
                now += Duration::from_millis(wait_ms);
                if watch.due(now) == Some(Step::Ask) {
                    prop_assert!(asked.is_none_or(|at| now >= at + COOL_DOWN));
                    asked = Some(now);
                }
                match kind {
                    0 => watch.heard(now),
                    1 => watch.expect(true, now),
                    _ => watch.expect(false, now),
                }
            }
        }
    }
}
