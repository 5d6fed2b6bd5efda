//! Media streams: groups of tracks, assigned by the sender (`a=msid`, RFC 8830).

use std::fmt::{self, Debug};

use crate::audio_track::RtcAudioTrack;
use crate::media_stream_track::MediaStreamTrack;
use crate::video_track::RtcVideoTrack;

/// A remote stream. In LiveKit its id contains the ids of the participant and the track.
#[derive(Clone)]
pub struct MediaStream {
    id: String,
    tracks: Vec<MediaStreamTrack>,
}

impl MediaStream {
    /// Stream id, assigned by the sender.
    pub fn id(&self) -> String {
        self.id.clone()
    }

    /// Audio tracks of the stream.
    pub fn audio_tracks(&self) -> Vec<RtcAudioTrack> {
        self.tracks
            .iter()
            .filter_map(|track| match track {
                MediaStreamTrack::Audio(track) => Some(track.clone()),
                MediaStreamTrack::Video(_) => None,
            })
            .collect()
    }

    /// Video tracks of the stream.
    pub fn video_tracks(&self) -> Vec<RtcVideoTrack> {
        self.tracks
            .iter()
            .filter_map(|track| match track {
                MediaStreamTrack::Video(track) => Some(track.clone()),
                MediaStreamTrack::Audio(_) => None,
            })
            .collect()
    }

    pub(crate) fn new(id: String, tracks: Vec<MediaStreamTrack>) -> Self {
        Self { id, tracks }
    }
}

impl Debug for MediaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaStream").field("id", &self.id).field("tracks", &self.tracks).finish()
    }
}
