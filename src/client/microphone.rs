//! A microphone made of a recording: brought in real time, by LiveKit or over the control channel.

use std::path::Path;

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

use crate::{
    audio::{SAMPLE_RATE_HZ, pcm::Resampler},
    client::ClientError,
    livekit::token::MICROPHONE_TRACK,
};

/// Sound of a microphone: 16 kHz mono.
pub const FRAME_MS: u64 = 20;

/// Samples of one frame.
pub const FRAME_SAMPLES: usize = SAMPLE_RATE_HZ as usize * FRAME_MS as usize / 1000;

/// Reads a WAV file of any usual rate as 16 kHz mono.
pub fn read_wav(path: &Path) -> Result<Vec<i16>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let reader = hound::WavReader::open(path).map_err(|error| at(&error))?;
    let spec = reader.spec();
    let samples: Result<Vec<i16>, hound::Error> = match (spec.sample_format, spec.bits_per_sample) {
        (hound::SampleFormat::Int, 16) => reader.into_samples::<i16>().collect(),
        (hound::SampleFormat::Int, bits) if bits > 16 => reader
            .into_samples::<i32>()
            .map(|sample| sample.map(|sample| (sample >> (bits - 16)) as i16))
            .collect(),
        (hound::SampleFormat::Int, _) => {
            reader.into_samples::<i16>().map(|sample| sample.map(|sample| sample << 8)).collect()
        }
        (hound::SampleFormat::Float, _) => {
            reader.into_samples::<f32>().map(|sample| sample.map(crate::audio::pcm::from_f32)).collect()
        }
    };
    let samples = samples.map_err(|error| at(&error))?;
    if spec.sample_rate == SAMPLE_RATE_HZ && spec.channels == 1 {
        return Ok(samples);
    }
    let mut resampler =
        Resampler::new(spec.sample_rate, spec.channels, SAMPLE_RATE_HZ).map_err(|error| at(&error))?;
    // The resampler keeps its last chunk until more comes: half a second of silence brings it out.
    let silence = vec![0; spec.sample_rate as usize / 2 * usize::from(spec.channels)];
    let mut sound = resampler.process(&samples);
    sound.extend(resampler.process(&silence));
    Ok(sound)
}

/// A microphone in a LiveKit room, published as the track `mic`.
pub struct Published {
    room: Room,
    source: NativeAudioSource,
    /// The room's events must be taken, or they pile up.
    _events: tokio::task::JoinHandle<()>,
}

impl Published {
    /// Joins the room and publishes.
    pub async fn join(url: &str, token: &str) -> Result<Self, ClientError> {
        let failed = |error: &dyn std::fmt::Display| ClientError::Livekit(error.to_string());
        let (room, events) =
            Room::connect(url, token, RoomOptions::default()).await.map_err(|error| failed(&error))?;
        let source = NativeAudioSource::new(AudioSourceOptions::default(), SAMPLE_RATE_HZ, 1, 100);
        let track =
            LocalAudioTrack::create_audio_track(MICROPHONE_TRACK, RtcAudioSource::Native(source.clone()));
        let options =
            TrackPublishOptions { source: TrackSource::Microphone, ..TrackPublishOptions::default() };
        room.local_participant()
            .publish_track(LocalTrack::Audio(track), options)
            .await
            .map_err(|error| failed(&error))?;
        Ok(Self { room, source, _events: tokio::spawn(drain(events)) })
    }

    /// Sends a frame; waits while enough is on its way.
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
            tracing::debug!(%error, "leaving a room that was gone");
        }
    }
}

async fn drain(mut events: mpsc::UnboundedReceiver<RoomEvent>) {
    while events.recv().await.is_some() {}
}
