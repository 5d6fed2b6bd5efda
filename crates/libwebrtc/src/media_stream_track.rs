//! Tracks of audio or video.

use crate::audio_track::RtcAudioTrack;
use crate::enum_dispatch;
use crate::video_track::RtcVideoTrack;

/// State of a track.
#[derive(Debug, Copy, Clone, PartialEq, Eq)]
pub enum RtcTrackState {
    /// The track can carry media.
    Live,
    /// The track was removed by its sender, or its connection was closed.
    Ended,
}

/// A track, local or remote.
#[derive(Debug, Clone)]
pub enum MediaStreamTrack {
    /// A video track.
    Video(RtcVideoTrack),
    /// An audio track.
    Audio(RtcAudioTrack),
}

/// Methods of both kinds of tracks.
impl MediaStreamTrack {
    enum_dispatch!(
        [Video, Audio];
        /// Track id, assigned by the sending side.
        pub fn id(self: &Self) -> String;
        /// Whether the track is enabled, that is, not muted.
        pub fn enabled(self: &Self) -> bool;
        /// Mutes (false) or unmutes (true) the track. Returns whether the state changed.
        pub fn set_enabled(self: &Self, enabled: bool) -> bool;
        /// Whether the track is live or has ended.
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
