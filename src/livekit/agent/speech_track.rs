//! The track that the agent publishes responses on, where `SPEECH_DELIVERY=room`.

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

/// The name of the track.
pub const SPEECH_TRACK: &str = "speech";

/// The queue of LiveKit's source, in milliseconds: more than the playback is ever ahead, so that it is full only
/// where nothing is taken from it.
const QUEUE_MS: u32 = 2 * stream_playback::LEAD.as_millis() as u32;

/// The source of the track. It outlives a connection to the room. Cheap to clone; clones share one queue.
#[derive(Clone, Debug)]
pub(super) struct SpeechTrack {
    source: NativeAudioSource,
}

impl SpeechTrack {
    /// A source of mono samples at this rate.
    pub(super) fn new(rate_hz: u32) -> Self {
        Self { source: NativeAudioSource::new(AudioSourceOptions::default(), rate_hz, 1, QUEUE_MS) }
    }

    /// Publishes the track in a room that was just joined. Samples from before are dropped.
    pub(super) async fn open(&self, room: &Room) -> Result<(), RoomError> {
        self.clear();
        let track =
            LocalAudioTrack::create_audio_track(SPEECH_TRACK, RtcAudioSource::Native(self.source.clone()));
        // The source that clients play without further settings.
        let options =
            TrackPublishOptions { source: TrackSource::Microphone, ..TrackPublishOptions::default() };
        room.local_participant().publish_track(LocalTrack::Audio(track), options).await?;
        Ok(())
    }

    /// Queues samples. Where the queue is full, they are dropped and counted.
    pub(super) fn push(&self, samples: &[i16]) {
        let frame = AudioFrame {
            data: samples.into(),
            sample_rate: self.source.sample_rate(),
            num_channels: 1,
            samples_per_channel: samples.len() as u32,
        };
        // Never waits: the playback paces what is pushed.
        if !matches!(self.source.capture_frame(&frame).now_or_never(), Some(Ok(()))) {
            metrics::counter!(telemetry::SPEECH_DROPPED).increment(1);
        }
    }

    /// Drops what is queued.
    pub(super) fn clear(&self) {
        self.source.clear_buffer();
    }
}
