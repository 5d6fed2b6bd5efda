//! Selects one audio source of a user: the microphone may come as a LiveKit track, as LiveKit data packets and
//! over the WebSocket, but only one of them at a time goes to voice detection.
//!
//! The active source stays until it has delivered nothing for [`SILENT_AFTER`]; then any other that delivers
//! audio takes over. A quiet room still delivers samples.

use std::time::{Duration, Instant};

use crate::protocol::edge_v1::to_client::{MediaReason, MediaSource};

/// How long the active source delivers nothing before another one may take over.
pub const SILENT_AFTER: Duration = Duration::from_millis(500);

/// The sources of one session.
#[derive(Debug)]
pub struct AudioSourceSelector {
    active: MediaSource,
    /// Audio is expected from the active source, and none has come yet.
    expected: bool,
    /// When the active source last delivered audio.
    heard_at: Option<Instant>,
    /// When pre-roll last came, whichever source is active.
    pre_roll_at: Option<Instant>,
}

/// What to do with audio that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// From the active source: use it.
    Heard,
    /// Its source is active from now on: use it; it does not continue the other one's.
    Switched(MediaReason),
    /// Another source is active: drop it.
    Ignored,
}

impl Default for AudioSourceSelector {
    fn default() -> Self {
        Self { active: MediaSource::None, expected: false, heard_at: None, pre_roll_at: None }
    }
}

impl AudioSourceSelector {
    /// The active source.
    pub fn active(&self) -> MediaSource {
        self.active
    }

    /// When audio was last used: of the active source, or pre-roll.
    pub fn heard_at(&self) -> Option<Instant> {
        self.heard_at.max(self.pre_roll_at)
    }

    /// How long ago audio came from the active source.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.heard_at.map(|at| now.saturating_duration_since(at))
    }

    /// Audio came from `source`.
    pub fn admit(&mut self, source: MediaSource, now: Instant) -> Admission {
        if source == self.active && !self.expected {
            self.heard_at = Some(now);
            return Admission::Heard;
        }
        let silent = self.age(now).is_none_or(|age| age >= SILENT_AFTER);
        let nothing_heard = self.active == MediaSource::None || self.expected;
        if !nothing_heard && !silent {
            return Admission::Ignored;
        }
        let reason = if nothing_heard { MediaReason::Audio } else { MediaReason::Failover };
        self.expected = false;
        self.active = source;
        self.heard_at = Some(now);
        Admission::Switched(reason)
    }

    /// Pre-roll came on the control channel. It is used unless a source in the room delivers audio, which has the
    /// same samples. It does not change the active source, since what follows may come from the room.
    pub fn admit_pre_roll(&mut self, now: Instant) -> bool {
        let heard = match self.active {
            MediaSource::Ws | MediaSource::None => true,
            MediaSource::Livekit | MediaSource::Data => self.age(now).is_none_or(|age| age >= SILENT_AFTER),
        };
        if heard {
            self.pre_roll_at = Some(now);
        }
        heard
    }

    /// The active source has delivered nothing for too long, and that was handled.
    pub fn stalled(&mut self) {
        self.heard_at = None;
        self.pre_roll_at = None;
    }

    /// Audio is expected on the control channel, since the room delivers none. True if that is a change.
    pub fn fall_back(&mut self) -> bool {
        let change = self.active != MediaSource::Ws;
        if change {
            self.active = MediaSource::Ws;
            self.expected = true;
            self.stalled();
        }
        change
    }

    /// The room may deliver audio again: none is expected on the control channel, where none came.
    pub fn room_is_back(&mut self) {
        if std::mem::take(&mut self.expected) {
            self.active = MediaSource::None;
        }
    }

    /// The client resumed, and may continue in the middle of a word.
    pub fn resumed(&mut self, now: Instant) {
        if self.active == MediaSource::Ws && self.heard_at.is_some() {
            self.heard_at = Some(now);
        }
    }

    /// `source` is gone for good (its track ended, its socket closed). True if it was the active one.
    pub fn gone(&mut self, source: MediaSource) -> bool {
        let was_active = self.active == source;
        if was_active {
            self.active = MediaSource::None;
            self.expected = false;
        }
        was_active
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_sound_decides_and_a_second_source_is_ignored_while_it_lasts() {
        let mut sources = AudioSourceSelector::default();
        let now = clock::now();
        assert_eq!(sources.admit(MediaSource::Livekit, now), Admission::Switched(MediaReason::Audio));
        assert_eq!(sources.admit(MediaSource::Ws, now + ms(100)), Admission::Ignored);
        assert_eq!(sources.admit(MediaSource::Livekit, now + ms(490)), Admission::Heard);
        assert_eq!(sources.admit(MediaSource::Ws, now + ms(600)), Admission::Ignored);
    }

    #[test]
    fn a_source_that_brings_nothing_for_half_a_second_is_replaced() {
        let mut sources = AudioSourceSelector::default();
        let now = clock::now();
        sources.admit(MediaSource::Livekit, now);
        assert_eq!(sources.admit(MediaSource::Ws, now + ms(500)), Admission::Switched(MediaReason::Failover));
        assert_eq!(sources.admit(MediaSource::Livekit, now + ms(600)), Admission::Ignored);
        assert_eq!(sources.active(), MediaSource::Ws);
    }

    #[test]
    fn pre_roll_is_heard_where_nothing_else_is_and_takes_no_place() {
        let mut sources = AudioSourceSelector::default();
        let now = clock::now();
        assert!(sources.admit_pre_roll(now));
        assert_eq!((sources.active(), sources.heard_at()), (MediaSource::None, Some(now)));
        assert_eq!(sources.admit(MediaSource::Livekit, now), Admission::Switched(MediaReason::Audio));
        assert!(!sources.admit_pre_roll(now + ms(100)), "it was heard in the room");
        assert!(sources.admit_pre_roll(now + ms(500)));
        assert_eq!(sources.admit(MediaSource::Livekit, now + ms(600)), Admission::Heard);
    }

    #[test]
    fn where_the_room_is_silent_the_control_channel_takes_its_place_until_it_is_back() {
        let mut sources = AudioSourceSelector::default();
        let now = clock::now();
        assert!(sources.fall_back());
        assert!(!sources.fall_back());
        sources.room_is_back();
        assert_eq!(sources.active(), MediaSource::None);

        sources.fall_back();
        assert_eq!(sources.admit(MediaSource::Ws, now), Admission::Switched(MediaReason::Audio));
        assert_eq!(sources.admit(MediaSource::Ws, now), Admission::Heard);
        sources.room_is_back();
        assert_eq!(sources.active(), MediaSource::Ws, "it brings sound");
        sources.stalled();
        let switched = sources.admit(MediaSource::Livekit, now + ms(10));
        assert_eq!(switched, Admission::Switched(MediaReason::Failover));
    }

    #[test]
    fn a_source_that_is_gone_leaves_its_place_at_once() {
        let mut sources = AudioSourceSelector::default();
        let now = clock::now();
        sources.admit(MediaSource::Livekit, now);
        assert!(!sources.gone(MediaSource::Ws));
        assert!(sources.gone(MediaSource::Livekit));
        assert_eq!(sources.admit(MediaSource::Ws, now + ms(1)), Admission::Switched(MediaReason::Audio));
    }
}
