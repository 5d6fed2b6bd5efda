//! Removes a participant from a session's room, and keeps them out.

use actix_web::web;
use serde::Serialize;

use crate::{
    deny::{DeniedBy, DenyError},
    http::{AppState, error::ApiError, middleware::auth::Caller, sessions::session},
    ids::{Identity, RoomName, SessionId},
    limits::Limit,
    livekit::api::{LivekitApi, LivekitError},
    session::messages::Removed as RemovedFromRoom,
    store::sessions::SessionRecord,
};

#[derive(Debug, Serialize)]
pub(in crate::http) struct Removed {
    session_id: SessionId,
    room_name: RoomName,
    identity: Identity,
    /// False if they were not in the room; they are kept out all the same.
    removed: bool,
    /// Until when they are kept out, in seconds since the Unix epoch.
    denied_until: u64,
}

/// `DELETE /api/sessions/{id}/participants/{identity}`
pub(in crate::http) async fn remove(
    app: web::Data<AppState>,
    caller: Caller,
    path: web::Path<(String, String)>,
) -> Result<web::Json<Removed>, ApiError> {
    let (id, identity) = path.into_inner();
    let record = session(&app, &caller, &id).await?;
    let identity = Identity::parse(&identity).map_err(|error| ApiError::invalid("identity", error))?;
    if identity == Identity::agent_of(&record.user_id) {
        return Err(ApiError::invalid("identity", "the gateway's own agent stays until the session ends"));
    }
    let livekit = app.livekit()?;
    // The deny list comes first: somebody who rejoins while being removed is then removed again.
    let denied = deny(&app, livekit, &record, &identity).await;
    if let Err(DenyError::Full(refusal)) = denied {
        return Err(refusal.into());
    }
    close_doors(&app, &record.room, &identity).await;
    let removed = match livekit.remove_participant(&record.room, &identity).await {
        Ok(()) => true,
        Err(LivekitError::NotFound(_)) => false,
        Err(error) => {
            app.deny.enforce(livekit, &record.room, &identity);
            let message = "LiveKit cannot be reached: they may still be in the room, but get no new token";
            return Err(ApiError { message: message.into(), ..error.into() });
        }
    };
    // An entry that could not be stored holds until the gateway restarts.
    let denied_until = denied?.div_ceil(1000);
    Ok(web::Json(Removed {
        session_id: record.session_id,
        room_name: record.room,
        identity,
        removed,
        denied_until,
    }))
}

/// Somebody is denied a room: closes what they, and the guests whom they invited, have open there. For the user of the
/// room's session that is the control channel, too.
pub(in crate::http) async fn close_doors(app: &AppState, room: &RoomName, identity: &Identity) {
    app.rooms.evict(room);
    let record = match app.registry.of_room(room).await {
        Ok(record) => record.filter(|record| Identity::from(&record.user_id) == *identity),
        Err(error) => {
            return tracing::error!(room.name = %room, %error, "the control channel of a removed user stays open");
        }
    };
    let Some(record) = record else { return };
    if let Some(session) = app.registry.live(record.session_id) {
        // One that ends at this moment needs no message.
        let _ = session.send(RemovedFromRoom).await;
    }
    if let Some(livekit) = app.livekit.clone() {
        let (deny, room, user) = (app.deny.clone(), room.clone(), identity.clone());
        actix_web::rt::spawn(async move {
            // Guests whom this does not find are removed when LiveKit reports them.
            let there = livekit.participants(&room).await.unwrap_or_default();
            for other in there.iter().map(|one| &one.identity).filter(|other| **other != user) {
                deny.enforce(&livekit, &room, other);
            }
        });
    }
}

/// Puts somebody on the list, at the expense of the room's owner. There are more places for those who are in the room.
async fn deny(
    app: &AppState,
    livekit: &LivekitApi,
    record: &SessionRecord,
    identity: &Identity,
) -> Result<u64, DenyError> {
    let by = |was_present| DeniedBy::Owner { user: &record.user_id, was_present };
    let denied = app.deny.deny(&record.room, identity, by(false)).await;
    match denied {
        Err(DenyError::Full(refusal)) if refusal.limit == Limit::DenyByRoom => {
            let there = livekit.participants(&record.room).await.unwrap_or_default();
            if there.iter().any(|participant| participant.identity == *identity) {
                app.deny.deny(&record.room, identity, by(true)).await
            } else {
                Err(refusal.into())
            }
        }
        denied => denied,
    }
}
