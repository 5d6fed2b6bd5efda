//! What a webhook means for the room of a session: its LiveKit id is recorded, and whoever may not be there is
//! removed.

use livekit_protocol as proto;

use crate::{
    http::AppState,
    ids::{Identity, RoomName},
    protocol::edge_v1::to_client::EndReason,
    session::registry::RegistryError,
    store::sessions::LivekitRoom,
};

/// LiveKit calls run in spawned tasks.
pub(super) async fn apply(app: &AppState, event: &proto::WebhookEvent) {
    let Some(livekit_room) = &event.room else { return };
    let Ok(room) = RoomName::parse(&livekit_room.name) else { return };
    let joined = match event.event.as_str() {
        "room_started" => false,
        "participant_joined" => true,
        // A participant on the deny list may have joined before they were put there.
        "track_published" => return enforce(app, event, &room),
        _ => return,
    };
    match record_sid(app, &room, livekit_room).await {
        Ok(Some(EndReason::Logout | EndReason::Disconnected)) if joined => delete(app, room.clone()),
        Ok(Some(_) | None) => {}
        Err(error) => tracing::error!(%error, "cannot record the LiveKit id of a room"),
    }
    if joined {
        enforce(app, event, &room);
    }
}

/// Records LiveKit's id of a session's room; returns why that session has ended, if it has.
async fn record_sid(
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

/// Somebody joined with a token of a session that was ended on purpose, and LiveKit created the room again.
fn delete(app: &AppState, room: RoomName) {
    let Some(livekit) = app.livekit.clone() else { return };
    actix_web::rt::spawn(async move {
        if let Err(error) = livekit.delete_room(&room).await {
            tracing::warn!(room.name = %room, %error, "cannot delete the room of an ended session");
        }
    });
}
