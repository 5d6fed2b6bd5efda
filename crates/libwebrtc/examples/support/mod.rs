//! Shared code of the examples: joining a room.

use livekit::webrtc::prelude::IceTransportsType;
use livekit::{Room, RoomEvent, RoomOptions, RoomResult};
use livekit_api::access_token::{AccessToken, VideoGrants};
use tokio::sync::mpsc::UnboundedReceiver;

/// Joins `room` as `identity`. `LIVEKIT_URL`, `LIVEKIT_API_KEY` and `LIVEKIT_API_SECRET` set the server and its keys;
/// `DUAL=1` uses two peer connections, one to publish and one to subscribe; `RELAY=1` uses TURN servers only.
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
    if std::env::var_os("RELAY").is_some() {
        options.rtc_config.ice_transport_type = IceTransportsType::Relay;
    }
    Room::connect(&setting("LIVEKIT_URL", "ws://127.0.0.1:7880"), &token, options).await
}
