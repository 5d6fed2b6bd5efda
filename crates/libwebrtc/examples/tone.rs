//! Joins a room and publishes a tone.
//!
//! ```text
//! LIVEKIT_URL=ws://127.0.0.1:7880 cargo run --example tone -- ROOM [HZ] [SECONDS]
//! ```

mod support;

use std::f64::consts::PI;

use livekit::options::TrackPublishOptions;
use livekit::prelude::*;
use livekit::webrtc::audio_source::native::NativeAudioSource;
use livekit::webrtc::prelude::{AudioFrame, AudioSourceOptions, RtcAudioSource};

const RATE: u32 = 24_000;
const AMPLITUDE: f64 = 10_000.0;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example prints its results")]
async fn main() -> RoomResult<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "libwebrtc-example".to_owned());
    let hz: f64 = arguments.next().and_then(|hz| hz.parse().ok()).unwrap_or(660.0);
    let seconds: u32 = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(u32::MAX);

    let (room, mut events) = support::join(&name, "tone").await?;
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            tracing::debug!(?event);
        }
    });
    let source = NativeAudioSource::new(AudioSourceOptions::default(), RATE, 1, 200);
    let track = LocalAudioTrack::create_audio_track("tone", RtcAudioSource::Native(source.clone()));
    let options = TrackPublishOptions { source: TrackSource::Microphone, ..TrackPublishOptions::default() };
    room.local_participant().publish_track(LocalTrack::Audio(track), options).await?;
    println!("publishing {hz} Hz to {name}");

    let mut angle: f64 = 0.0;
    for _ in 0..u64::from(seconds) * 100 {
        let mut frame = AudioFrame::new(RATE, 1, RATE / 100);
        for sample in frame.data.to_mut() {
            *sample = (AMPLITUDE * angle.sin()) as i16;
            angle = (angle + 2.0 * PI * hz / f64::from(RATE)) % (2.0 * PI);
        }
        source.capture_frame(&frame).await.map_err(livekit::rtc_engine::EngineError::from)?;
    }
    room.close().await
}
