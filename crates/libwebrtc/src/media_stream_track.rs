//! Tracks of either kind.

use crate::audio_track::RtcAudioTrack;
use crate::enum_dispatch;
use crate::video_track::RtcVideoTrack;

/// Whether a track may still carry media.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum RtcTrackState {
    /// It may.
    Live,
    /// It never will again: its sender took it away, or its connection is closed.
    Ended,
}

/// A track, local or remote.
#[derive(Debug, Clone)]
pub enum MediaStreamTrack {
    /// Of pictures.
    Video(RtcVideoTrack),
    /// Of sound.
    Audio(RtcAudioTrack),
}

/// The methods that tracks of both kinds have.
impl MediaStreamTrack {
    enum_dispatch!(
        [Video, Audio];
        /// The id that the sending side gave it.
        pub fn id(self: &Self) -> String;
        /// Whether it carries media (true) or silence and blackness.
        pub fn enabled(self: &Self) -> bool;
        /// Mutes (false) or unmutes it; returns whether that changed anything.
        pub fn set_enabled(self: &Self, enabled: bool) -> bool;
        /// Whether it may still carry media.
        pub fn state(self: &Self) -> RtcTrackState;
    );

    pub(crate) fn end(&self) {
        match self {
            Self::Video(track) => track.end(),
            Self::Audio(track) => track.end(),
        }
    }
}

impl From<RtcAudioTrack> for MediaStreamTrack {
    fn from(track: RtcAudioTrack) -> Self {
        Self::Audio(track)
    }
}

impl From<RtcVideoTrack> for MediaStreamTrack {
    fn from(track: RtcVideoTrack) -> Self {
        Self::Video(track)
    }
}
