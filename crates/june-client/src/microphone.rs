//! A microphone published to a LiveKit room.

use june_protocol::SAMPLE_RATE_HZ;
use livekit::{
    Room, RoomEvent, RoomOptions,
    options::TrackPublishOptions,
    prelude::{LocalAudioTrack, LocalTrack, TrackSource},
    webrtc::{
        audio_frame::AudioFrame,
        audio_source::{AudioSourceOptions, RtcAudioSource, native::NativeAudioSource},
    },
};
use tokio::sync::mpsc;

use crate::ClientError;

/// The name of the track, which the gateway expects (docs/PROTOCOL.md, `livekit_info`).
const TRACK_NAME: &str = "mic";

/// A microphone in a LiveKit room, published as the track `mic`.
pub struct RoomMicrophone {
    room: Room,
    source: NativeAudioSource,
    /// Reads the room's events, whose queue is unbounded.
    _events: tokio::task::JoinHandle<()>,
}

impl RoomMicrophone {
    /// Joins the room and publishes the track.
    ///
    /// # Errors
    /// [`ClientError::Livekit`].
    pub async fn join(url: &str, token: &str) -> Result<Self, ClientError> {
        let failed = |error: &dyn std::fmt::Display| ClientError::Livekit(error.to_string());
        let (room, events) =
            Room::connect(url, token, RoomOptions::default()).await.map_err(|error| failed(&error))?;
        let source = NativeAudioSource::new(AudioSourceOptions::default(), SAMPLE_RATE_HZ, 1, 100);
        let track = LocalAudioTrack::create_audio_track(TRACK_NAME, RtcAudioSource::Native(source.clone()));
        let options =
            TrackPublishOptions { source: TrackSource::Microphone, ..TrackPublishOptions::default() };
        room.local_participant()
            .publish_track(LocalTrack::Audio(track), options)
            .await
            .map_err(|error| failed(&error))?;
        Ok(Self { room, source, _events: tokio::spawn(drain(events)) })
    }

    /// Sends a frame of 16 kHz mono samples. Waits while 100 ms are queued.
    ///
    /// # Errors
    /// [`ClientError::Livekit`].
    pub async fn send(&self, samples: &[i16]) -> Result<(), ClientError> {
        let frame = AudioFrame {
            data: samples.into(),
            sample_rate: SAMPLE_RATE_HZ,
            num_channels: 1,
            samples_per_channel: samples.len() as u32,
        };
        self.source.capture_frame(&frame).await.map_err(|error| ClientError::Livekit(error.to_string()))
    }

    /// Leaves the room.
    pub async fn leave(self) {
        if let Err(error) = self.room.close().await {
            tracing::debug!(%error, "the room was closed already");
        }
    }
}

async fn drain(mut events: mpsc::UnboundedReceiver<RoomEvent>) {
    while events.recv().await.is_some() {}
}
