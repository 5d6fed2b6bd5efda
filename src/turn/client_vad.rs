//! The client's own voice activity detection (VAD), and what follows from it. Pure.
//!
//! | | option A: trusted | option B |
//! |---|---|---|
//! | who | says `capabilities.vad`, and its user is in the rollout (`CLIENT_VAD_PERCENT`) | everybody else |
//! | the client sends | what its detection lets through (`bypassVad` false) | everything |
//! | an utterance opens | on `VAD true`; without it, after two seconds of speech | when the gateway detects speech |
//! | the agent subscribes to the microphone | from `true` to [`MIN_SILENCE`] after `false` | always |
//!
//! In both, `VAD true` opens an utterance and `false` ends it. A `true` that lasts for [`MAX_SPEECH`] comes from
//! a detector that is stuck, and counts as `false` until the client sends `false`.

use std::time::{Duration, Instant};

/// How long the agent stays subscribed to the microphone after `VAD false`.
pub const MIN_SILENCE: Duration = Duration::from_secs(2);

/// How long a client's `VAD true` may last.
pub const MAX_SPEECH: Duration = Duration::from_secs(600);

/// Audio in a room arrives later than a message on the control channel, by about a jitter buffer: an
/// utterance whose audio comes from the room stays open for this long after `VAD false`.
pub const ROOM_DELAY: Duration = Duration::from_millis(200);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open an utterance.
    Open,
    /// Close the open utterance.
    Close,
    /// Subscribe to the microphone's track in the room, or unsubscribe.
    Subscribe(bool),
}

/// One client's voice activity detection.
#[derive(Debug, Default)]
pub struct ClientVad {
    trusted: bool,
    speech: Speech,
    /// The agent stays subscribed until then.
    unsubscribe_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Speech {
    #[default]
    No,
    Yes {
        since: Instant,
    },
    /// The client detects speech no more; the rest of its audio is on its way.
    Ending {
        until: Instant,
    },
    /// It lasted too long to be true.
    Stuck,
}

impl ClientVad {
    /// A client attached, whose detection is trusted or not. Subscribes or unsubscribes where that differs
    /// from the client before.
    pub fn attached(&mut self, trusted: bool) -> Option<Step> {
        let changed = self.trusted != trusted;
        self.trusted = trusted;
        changed.then(|| Step::Subscribe(self.is_subscribed()))
    }

    /// Whether the client's detection decides what is speech.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Whether the client detects speech.
    pub fn is_speech(&self) -> bool {
        matches!(self.speech, Speech::Yes { .. })
    }

    /// Whether the agent is subscribed to the microphone's track.
    pub fn is_subscribed(&self) -> bool {
        !self.trusted || self.is_speech() || self.unsubscribe_at.is_some()
    }

    /// The client sent `true` or `false`; its audio comes from the room, or on the same channel.
    pub fn update(&mut self, speech: bool, in_room: bool, now: Instant) -> Vec<Step> {
        match (self.speech, speech) {
            (Speech::No | Speech::Ending { .. }, true) => {
                let subscribed = self.is_subscribed();
                self.speech = Speech::Yes { since: now };
                self.unsubscribe_at = None;
                let mut steps = vec![Step::Open];
                if !subscribed {
                    steps.push(Step::Subscribe(true));
                }
                steps
            }
            (Speech::Yes { .. }, true) => vec![Step::Open],
            (Speech::Yes { .. }, false) if in_room => {
                self.speech = Speech::Ending { until: now + ROOM_DELAY };
                self.unsubscribe_later(now);
                Vec::new()
            }
            (Speech::Yes { .. }, false) => {
                self.speech = Speech::No;
                self.unsubscribe_later(now);
                vec![Step::Close]
            }
            (Speech::Stuck, false) => {
                self.speech = Speech::No;
                Vec::new()
            }
            // The gateway may have opened an utterance by itself; the client's word counts more.
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
        [speech, self.unsubscribe_at].into_iter().flatten().min()
    }

    /// What is due by now.
    pub fn due(&mut self, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        match self.speech {
            Speech::Yes { since } if now >= since + MAX_SPEECH => {
                self.speech = Speech::Stuck;
                self.unsubscribe_later(now);
                steps.push(Step::Close);
            }
            Speech::Ending { until } if now >= until => {
                self.speech = Speech::No;
                steps.push(Step::Close);
            }
            Speech::Yes { .. } | Speech::Ending { .. } | Speech::No | Speech::Stuck => {}
        }
        if self.unsubscribe_at.is_some_and(|at| now >= at) {
            self.unsubscribe_at = None;
            steps.push(Step::Subscribe(false));
        }
        steps
    }

    fn unsubscribe_later(&mut self, now: Instant) {
        self.unsubscribe_at = self.trusted.then_some(now + MIN_SILENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn trusted() -> (ClientVad, Instant) {
        let mut vad = ClientVad::default();
        assert_eq!(vad.attached(true), Some(Step::Subscribe(false)));
        (vad, clock::now())
    }

    #[test]
    fn a_trusted_client_opens_and_closes_and_the_room_is_heard_a_little_longer() {
        let (mut vad, now) = trusted();

        assert_eq!(vad.update(true, false, now), [Step::Open, Step::Subscribe(true)]);
        assert_eq!(vad.update(true, false, now), [Step::Open], "a repeat opens nothing new");
        assert_eq!(vad.update(false, false, now), [Step::Close]);
        assert!(vad.is_subscribed());
        assert_eq!(vad.deadline(), Some(now + MIN_SILENCE));

        assert_eq!(vad.due(now + MIN_SILENCE), [Step::Subscribe(false)]);
        assert!(!vad.is_subscribed());
    }

    #[test]
    fn speech_within_the_hang_over_goes_on_in_the_room() {
        let (mut vad, now) = trusted();
        vad.update(true, false, now);
        vad.update(false, false, now);
        assert_eq!(vad.update(true, false, now), [Step::Open]);
        assert_eq!(vad.due(now + MIN_SILENCE), []);
        assert!(vad.is_subscribed());
    }

    #[test]
    fn sound_in_the_room_is_later_than_the_word_and_is_waited_for() {
        let (mut vad, now) = trusted();
        vad.update(true, true, now);

        assert_eq!(vad.update(false, true, now), []);
        assert_eq!(vad.deadline(), Some(now + ROOM_DELAY));
        assert_eq!(vad.due(now + ROOM_DELAY), [Step::Close]);

        vad.update(true, true, now);
        vad.update(false, true, now);
        assert_eq!(vad.update(true, true, now), [Step::Open], "it goes on");
        assert_eq!(vad.due(now + ROOM_DELAY), []);
    }

    #[test]
    fn a_detection_that_is_stuck_is_not_believed_until_it_closes() {
        let (mut vad, now) = trusted();
        vad.update(true, false, now);
        let late = now + MAX_SPEECH;
        assert_eq!(vad.due(late - Duration::from_millis(1)), []);

        assert_eq!(vad.due(late), [Step::Close]);
        assert_eq!(vad.update(true, false, late), []);
        assert_eq!(vad.due(late + MIN_SILENCE), [Step::Subscribe(false)]);

        assert_eq!(vad.update(false, false, late), []);
        assert_eq!(vad.update(true, false, late), [Step::Open, Step::Subscribe(true)]);
    }

    #[test]
    fn who_is_not_trusted_is_always_heard() {
        let (mut vad, now) = (ClientVad::default(), clock::now());
        assert_eq!(vad.attached(false), None);
        assert_eq!(vad.update(true, false, now), [Step::Open]);
        assert_eq!(vad.update(false, false, now), [Step::Close]);
        assert!(vad.is_subscribed());
        assert_eq!(vad.deadline(), None);
    }
}
