//! Speech into the room: where `SPEECH_DELIVERY=room`, the agent publishes the answers as a track.

use futures::FutureExt;
use livekit::{
    Room, RoomError,
    options::TrackPublishOptions,
    prelude::{LocalAudioTrack, LocalTrack, TrackSource},
    webrtc::{
        audio_frame::AudioFrame,
        audio_source::{AudioSourceOptions, RtcAudioSource, native::NativeAudioSource},
    },
};

use crate::{response::stream_playback, telemetry};

/// The name of the track that answers are spoken on.
pub const SPEECH_TRACK: &str = "speech";

/// The queue of sound that LiveKit's pacing takes from, in milliseconds: more than the play-out is ever
/// ahead, so that it is only full when nobody takes from it.
const QUEUE_MS: u32 = 2 * stream_playback::LEAD.as_millis() as u32;

/// A voice that outlives any one visit to the room. Cheap to clone; clones are the same voice.
#[derive(Clone, Debug)]
pub(super) struct SpeechTrack {
    source: NativeAudioSource,
}

impl SpeechTrack {
    /// A voice of mono samples at this rate.
    pub(super) fn new(rate_hz: u32) -> Self {
        Self { source: NativeAudioSource::new(AudioSourceOptions::default(), rate_hz, 1, QUEUE_MS) }
    }

    /// Publishes the voice in a room that was joined. What waited for another room is not said in this one.
    pub(super) async fn open(&self, room: &Room) -> Result<(), RoomError> {
        self.clear();
        let track =
            LocalAudioTrack::create_audio_track(SPEECH_TRACK, RtcAudioSource::Native(self.source.clone()));
        // The source every client plays without being told to.
        let options =
            TrackPublishOptions { source: TrackSource::Microphone, ..TrackPublishOptions::default() };
        room.local_participant().publish_track(LocalTrack::Audio(track), options).await?;
        Ok(())
    }

    /// Says samples after those that wait. Where nobody takes them, they are dropped and counted.
    pub(super) fn push(&self, samples: &[i16]) {
        let frame = AudioFrame {
            data: samples.into(),
            sample_rate: self.source.sample_rate(),
            num_channels: 1,
            samples_per_channel: samples.len() as u32,
        };
        // A frame finds room at once or not at all: the play-out paces, we never wait.
        if !matches!(self.source.capture_frame(&frame).now_or_never(), Some(Ok(()))) {
            metrics::counter!(telemetry::SPEECH_DROPPED).increment(1);
        }
    }

    /// Falls silent at once.
    pub(super) fn clear(&self) {
        self.source.clear_buffer();
    }
}
