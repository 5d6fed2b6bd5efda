//! What the examples share: how they join a room, and how they measure a tone.

use std::f64::consts::PI;

use livekit::{Room, RoomEvent, RoomOptions, RoomResult};
use livekit_api::access_token::{AccessToken, VideoGrants};
use tokio::sync::mpsc::UnboundedReceiver;

/// Joins `room` as `identity`. The server and its keys come from `LIVEKIT_URL`, `LIVEKIT_API_KEY` and
/// `LIVEKIT_API_SECRET`; `DUAL=1` uses two peer connections, as servers before 1.10 need.
pub async fn join(room: &str, identity: &str) -> RoomResult<(Room, UnboundedReceiver<RoomEvent>)> {
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let token = AccessToken::with_api_key(
        &setting("LIVEKIT_API_KEY", "devkey"),
        &setting("LIVEKIT_API_SECRET", "secret-secret-secret-secret-secret"),
    )
    .with_identity(identity)
    .with_grants(VideoGrants { room_join: true, room: room.to_owned(), ..VideoGrants::default() })
    .to_jwt()
    .expect("the claims are well-formed");
    let mut options = RoomOptions::default();
    options.single_peer_connection = std::env::var_os("DUAL").is_none();
    Room::connect(&setting("LIVEKIT_URL", "ws://127.0.0.1:7880"), &token, options).await
}

/// The frequency of a tone, from its zero crossings.
pub fn frequency_hz(pcm: &[i16], rate: u32) -> f64 {
    let crossings: Vec<f64> = pcm
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0] < 0 && pair[1] >= 0)
        .map(|(i, pair)| i as f64 + f64::from(pair[0]) / f64::from(pair[0] as i32 - pair[1] as i32))
        .collect();
    match (crossings.first(), crossings.last()) {
        (Some(first), Some(last)) if last > first => (crossings.len() - 1) as f64 * f64::from(rate) / (last - first),
        _ => 0.0,
    }
}

/// The amplitude of a tone of `hz`, and its power against everything else in dB.
pub fn level_and_snr(pcm: &[i16], rate: u32, hz: f64) -> (f64, f64) {
    let angle = |i: usize| 2.0 * PI * hz * i as f64 / f64::from(rate);
    let n = pcm.len() as f64;
    let (mut s, mut c) = (0.0, 0.0);
    for (i, sample) in pcm.iter().enumerate() {
        s += f64::from(*sample) * angle(i).sin() * 2.0 / n;
        c += f64::from(*sample) * angle(i).cos() * 2.0 / n;
    }
    let rest: f64 = pcm
        .iter()
        .enumerate()
        .map(|(i, sample)| (f64::from(*sample) - s * angle(i).sin() - c * angle(i).cos()).powi(2))
        .sum();
    let amplitude = s.hypot(c);
    (amplitude, 10.0 * (amplitude * amplitude / 2.0 / (rest / n).max(1e-9)).log10())
}
