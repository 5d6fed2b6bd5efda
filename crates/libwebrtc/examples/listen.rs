//! Joins a room and reports, once a second, what tone each audio track carries.
//!
//! ```text
//! LIVEKIT_URL=ws://127.0.0.1:7880 cargo run --example listen -- ROOM [SECONDS]
//! ```

mod support;

use std::time::Duration;

use futures::StreamExt;
use livekit::prelude::*;
use livekit::webrtc::audio_stream::native::NativeAudioStream;

const RATE: u32 = 16_000;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it reports to whoever runs it")]
async fn main() -> RoomResult<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "libwebrtc-example".to_owned());
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(u64::MAX);

    let (room, mut events) = support::join(&name, "listener").await?;
    println!("joined {name}");
    let end = tokio::time::sleep(Duration::from_secs(seconds));
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            event = events.recv() => match event {
                Some(RoomEvent::TrackSubscribed { track: RemoteTrack::Audio(track), participant, .. }) => {
                    tokio::spawn(report(track, participant.identity().to_string()));
                }
                Some(RoomEvent::Disconnected { reason }) => {
                    println!("disconnected: {reason:?}");
                    break;
                }
                Some(event) => tracing::debug!(?event),
                None => break,
            },
        }
    }
    room.close().await
}

#[expect(clippy::print_stdout, reason = "it reports to whoever runs it")]
async fn report(track: RemoteAudioTrack, who: String) {
    let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
    let mut second = Vec::with_capacity(RATE as usize);
    while let Some(frame) = stream.next().await {
        second.extend_from_slice(&frame.data);
        if second.len() >= RATE as usize {
            let hz = support::frequency_hz(&second, RATE);
            let (amplitude, snr_db) = support::level_and_snr(&second, RATE, hz);
            println!("{who}: {hz:.1} Hz, amplitude {amplitude:.0}, SNR {snr_db:.1} dB");
            second.clear();
        }
    }
    println!("{who}: track ended");
}
