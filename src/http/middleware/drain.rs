//! What LiveKit says of rooms that are sessions': under which id it has them, and who may not be there.

use livekit_protocol as proto;

use crate::{
    http::AppState,
    ids::{Identity, RoomName},
    protocol::edge_v1::to_client::EndReason,
    session::registry::RegistryError,
    store::sessions::LivekitRoom,
};

/// A webhook came. Calls to LiveKit run in spawned tasks.
pub async fn seen(app: &AppState, event: &proto::WebhookEvent) {
    let Some(livekit_room) = &event.room else { return };
    let Ok(room) = RoomName::parse(&livekit_room.name) else { return };
    let joined = match event.event.as_str() {
        "room_started" => false,
        "participant_joined" => true,
        // One who is on the deny-list may have been there before the entry was.
        "track_published" => return enforce(app, event, &room),
        _ => return,
    };
    match session_of(app, &room, livekit_room).await {
        Ok(Some(EndReason::Logout | EndReason::Disconnected)) if joined => empty(app, room.clone()),
        Ok(Some(_) | None) => {}
        Err(error) => tracing::error!(%error, "a room's id is not recorded"),
    }
    if joined {
        enforce(app, event, &room);
    }
}

/// Records the id that LiveKit has for a session's room; gives why that session is over, if it is.
async fn session_of(
    app: &AppState,
    room: &RoomName,
    seen: &proto::Room,
) -> Result<Option<EndReason>, RegistryError> {
    if seen.sid.is_empty() {
        return Ok(None);
    }
    let created_ms =
        if seen.creation_time_ms > 0 { seen.creation_time_ms } else { seen.creation_time * 1000 };
    let seen = LivekitRoom { sid: seen.sid.clone(), created_ms };
    Ok(app.registry.room_created(room, seen).await?.and_then(|record| record.ended))
}

fn enforce(app: &AppState, event: &proto::WebhookEvent, room: &RoomName) {
    if let Some(livekit) = &app.livekit
        && let Some(participant) = &event.participant
        && let Ok(identity) = Identity::parse(&participant.identity)
    {
        app.deny.enforce(livekit, room, &identity);
    }
}

/// Somebody came by a token of a session that was ended on purpose, and LiveKit made the room again for
/// them: it is deleted again.
fn empty(app: &AppState, room: RoomName) {
    let Some(livekit) = app.livekit.clone() else { return };
    actix_web::rt::spawn(async move {
        if let Err(error) = livekit.delete_room(&room).await {
            tracing::warn!(room.name = %room, %error, "the room of an ended session is not empty");
        }
    });
}
