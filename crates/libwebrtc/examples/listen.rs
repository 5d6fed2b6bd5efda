//! Joins a room and prints the frequency, amplitude and SNR of each audio track once per second.
//!
//! ```text
//! LIVEKIT_URL=ws://127.0.0.1:7880 cargo run --example listen -- ROOM [SECONDS]
//! ```

mod support;

use std::f64::consts::PI;
use std::time::Duration;

use futures::StreamExt;
use livekit::prelude::*;
use livekit::webrtc::audio_stream::native::NativeAudioStream;

const RATE: u32 = 16_000;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example prints its results")]
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

#[expect(clippy::print_stdout, reason = "an example prints its results")]
async fn report(track: RemoteAudioTrack, identity: String) {
    let mut stream = NativeAudioStream::new(track.rtc_track(), RATE as i32, 1);
    let mut second = Vec::with_capacity(RATE as usize);
    while let Some(frame) = stream.next().await {
        second.extend_from_slice(&frame.data);
        if second.len() >= RATE as usize {
            let hz = frequency_hz(&second, RATE);
            let (amplitude, snr_db) = level_and_snr(&second, RATE, hz);
            println!("{identity}: {hz:.1} Hz, amplitude {amplitude:.0}, SNR {snr_db:.1} dB");
            second.clear();
        }
    }
    println!("{identity}: track ended");
}

/// The frequency of a tone, from its zero crossings.
fn frequency_hz(pcm: &[i16], rate: u32) -> f64 {
    let crossings: Vec<f64> = pcm
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0] < 0 && pair[1] >= 0)
        .map(|(i, pair)| i as f64 + f64::from(pair[0]) / (f64::from(pair[0]) - f64::from(pair[1])))
        .collect();
    match (crossings.first(), crossings.last()) {
        (Some(first), Some(last)) if last > first => {
            (crossings.len() - 1) as f64 * f64::from(rate) / (last - first)
        }
        _ => 0.0,
    }
}

/// The amplitude of a tone of `hz`, and the signal-to-noise ratio in dB.
fn level_and_snr(pcm: &[i16], rate: u32, hz: f64) -> (f64, f64) {
    let angle = |i: usize| 2.0 * PI * hz * i as f64 / f64::from(rate);
    let n = pcm.len() as f64;
    let (mut s, mut c) = (0.0, 0.0);
    for (i, sample) in pcm.iter().enumerate() {
        s += f64::from(*sample) * angle(i).sin() * 2.0 / n;
        c += f64::from(*sample) * angle(i).cos() * 2.0 / n;
    }
    let residual: f64 = pcm
        .iter()
        .enumerate()
        .map(|(i, sample)| (f64::from(*sample) - s * angle(i).sin() - c * angle(i).cos()).powi(2))
        .sum();
    let amplitude = s.hypot(c);
    (amplitude, 10.0 * (amplitude * amplitude / 2.0 / (residual / n).max(1e-9)).log10())
}
