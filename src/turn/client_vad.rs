//! The client's own voice detection, and what its word decides. Pure.
//!
//! | | option A: trusted | option B |
//! |---|---|---|
//! | who | says `capabilities.vad`, and its user is in the rollout (`CLIENT_VAD_PERCENT`) | everybody else |
//! | the client sends | what its detection lets through (`bypassVad` false) | everything |
//! | an utterance opens | when the client says so; where it says nothing, after two seconds of speech | when the gateway hears speech |
//! | the agent hears the room | from `true` to [`MIN_SILENCE`] after `false` | always |
//!
//! In both, `VAD true` opens an utterance and `false` ends it; a `true` that lasts for [`MAX_SPEECH`] is a
//! detection that is stuck, and counts as `false` until it says so.

use std::time::{Duration, Instant};

/// How long the agent goes on hearing the room after the client's detection closed.
pub const MIN_SILENCE: Duration = Duration::from_secs(2);

/// How long a client's detection may stay open.
pub const MAX_SPEECH: Duration = Duration::from_secs(600);

/// Sound in a room is later than a word on the control channel, by about a jitter buffer: an utterance
/// that is heard there stays open for as long.
pub const ROOM_DELAY: Duration = Duration::from_millis(200);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open the gate.
    Open,
    /// Close it.
    Close,
    /// Hear the microphone's track in the room, or no longer.
    HearRoom(bool),
}

/// One client's detection.
#[derive(Debug, Default)]
pub struct ClientVad {
    trusted: bool,
    speech: Speech,
    /// The agent hears the room until then.
    rests_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Speech {
    #[default]
    No,
    Yes {
        since: Instant,
    },
    /// It is over; the rest of its sound is on its way.
    Ending {
        until: Instant,
    },
    /// It has lasted too long to be believed.
    Stuck,
}

impl ClientVad {
    /// A client attached that is, or is not, to be trusted. Where it is another kind of client than the
    /// one before, the room is heard accordingly.
    pub fn attached(&mut self, trusted: bool) -> Option<Step> {
        let changed = self.trusted != trusted;
        self.trusted = trusted;
        changed.then(|| Step::HearRoom(self.hears_room()))
    }

    /// Whether the client decides what is speech.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Whether the client says that somebody speaks.
    pub fn is_speech(&self) -> bool {
        matches!(self.speech, Speech::Yes { .. })
    }

    /// Whether the agent hears the microphone's track.
    pub fn hears_room(&self) -> bool {
        !self.trusted || self.is_speech() || self.rests_at.is_some()
    }

    /// The client said `true` or `false`; its sound is heard in the room, or with its word.
    pub fn said(&mut self, speech: bool, in_room: bool, now: Instant) -> Vec<Step> {
        match (self.speech, speech) {
            (Speech::No | Speech::Ending { .. }, true) => {
                let heard = self.hears_room();
                self.speech = Speech::Yes { since: now };
                self.rests_at = None;
                let mut steps = vec![Step::Open];
                if !heard {
                    steps.push(Step::HearRoom(true));
                }
                steps
            }
            (Speech::Yes { .. }, true) => vec![Step::Open],
            (Speech::Yes { .. }, false) if in_room => {
                self.speech = Speech::Ending { until: now + ROOM_DELAY };
                self.rest(now);
                Vec::new()
            }
            (Speech::Yes { .. }, false) => {
                self.speech = Speech::No;
                self.rest(now);
                vec![Step::Close]
            }
            (Speech::Stuck, false) => {
                self.speech = Speech::No;
                Vec::new()
            }
            // The gateway may have opened an utterance by itself; the client knows better.
            (Speech::No, false) => vec![Step::Close],
            (Speech::Ending { .. }, false) | (Speech::Stuck, true) => Vec::new(),
        }
    }

    /// When [`due`](Self::due) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let speech = match self.speech {
            Speech::Yes { since } => Some(since + MAX_SPEECH),
            Speech::Ending { until } => Some(until),
            Speech::No | Speech::Stuck => None,
        };
        [speech, self.rests_at].into_iter().flatten().min()
    }

    /// What time brings.
    pub fn due(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        match self.speech {
            Speech::Yes { since } if now >= since + MAX_SPEECH => {
                self.speech = Speech::Stuck;
                self.rest(now);
                steps.push(Step::Close);
            }
            Speech::Ending { until } if now >= until => {
                self.speech = Speech::No;
                steps.push(Step::Close);
            }
            Speech::Yes { .. } | Speech::Ending { .. } | Speech::No | Speech::Stuck => {}
        }
        if self.rests_at.is_some_and(|at| now >= at) {
            self.rests_at = None;
            steps.push(Step::HearRoom(false));
        }
        steps
    }

    fn rest(&mut self, now: Instant) {
        self.rests_at = self.trusted.then_some(now + MIN_SILENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn trusted() -> (ClientVad, Instant) {
        let mut vad = ClientVad::default();
        assert_eq!(vad.attached(true), Some(Step::HearRoom(false)));
        (vad, clock::now())
    }

    #[test]
    fn a_trusted_client_opens_and_closes_and_the_room_is_heard_a_little_longer() {
        let (mut vad, now) = trusted();

        assert_eq!(vad.said(true, false, now), [Step::Open, Step::HearRoom(true)]);
        assert_eq!(vad.said(true, false, now), [Step::Open], "a repeat opens nothing new");
        assert_eq!(vad.said(false, false, now), [Step::Close]);
        assert!(vad.hears_room());
        assert_eq!(vad.deadline(), Some(now + MIN_SILENCE));

        assert_eq!(vad.due(now + MIN_SILENCE), [Step::HearRoom(false)]);
        assert!(!vad.hears_room());
    }

    #[test]
    fn speech_within_the_hang_over_goes_on_in_the_room() {
        let (mut vad, now) = trusted();
        vad.said(true, false, now);
        vad.said(false, false, now);
        assert_eq!(vad.said(true, false, now), [Step::Open]);
        assert_eq!(vad.due(now + MIN_SILENCE), []);
        assert!(vad.hears_room());
    }

    #[test]
    fn sound_in_the_room_is_later_than_the_word_and_is_waited_for() {
        let (mut vad, now) = trusted();
        vad.said(true, true, now);

        assert_eq!(vad.said(false, true, now), []);
        assert_eq!(vad.deadline(), Some(now + ROOM_DELAY));
        assert_eq!(vad.due(now + ROOM_DELAY), [Step::Close]);

        vad.said(true, true, now);
        vad.said(false, true, now);
        assert_eq!(vad.said(true, true, now), [Step::Open], "it goes on");
        assert_eq!(vad.due(now + ROOM_DELAY), []);
    }

    #[test]
    fn a_detection_that_is_stuck_is_not_believed_until_it_closes() {
        let (mut vad, now) = trusted();
        vad.said(true, false, now);
        let late = now + MAX_SPEECH;
        assert_eq!(vad.due(late - Duration::from_millis(1)), []);

        assert_eq!(vad.due(late), [Step::Close]);
        assert_eq!(vad.said(true, false, late), []);
        assert_eq!(vad.due(late + MIN_SILENCE), [Step::HearRoom(false)]);

        assert_eq!(vad.said(false, false, late), []);
        assert_eq!(vad.said(true, false, late), [Step::Open, Step::HearRoom(true)]);
    }

    #[test]
    fn who_is_not_trusted_is_always_heard() {
        let (mut vad, now) = (ClientVad::default(), clock::now());
        assert_eq!(vad.attached(false), None);
        assert_eq!(vad.said(true, false, now), [Step::Open]);
        assert_eq!(vad.said(false, false, now), [Step::Close]);
        assert!(vad.hears_room());
        assert_eq!(vad.deadline(), None);
    }
}
