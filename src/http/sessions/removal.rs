//! Somebody is to leave a session's room, and not to come back.

use actix_web::web;
use serde::Serialize;

use crate::{
    error::{ApiError, Code},
    http::{AppState, middleware::auth::Caller, sessions::session},
    ids::{Identity, RoomName, SessionId},
};

/// What became of somebody who was to leave.
#[derive(Debug, Serialize)]
pub struct Removed {
    session_id: SessionId,
    room_name: RoomName,
    identity: Identity,
    /// False where they were not in the room; they are kept out all the same.
    removed: bool,
    /// Until when they are kept out, in seconds since the Unix epoch.
    denied_until: u64,
}

/// Removes a participant, and keeps them out.
pub async fn remove(
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
    let Some(livekit) = &app.livekit else {
        return Err(ApiError::new(Code::MediaUnavailable, "this gateway has no LiveKit and no rooms"));
    };
    // First the list: who comes back while they are being removed is seen then.
    let until_ms = app.deny.deny(&record.room, &identity).await?;
    let removed = match livekit.remove_participant(&record.room, &identity).await {
        Ok(()) => true,
        Err(error) if error.code == Code::NotFound => false,
        Err(error) => {
            app.deny.enforce(livekit, &record.room, &identity);
            let message = "LiveKit cannot be reached: they may still be in the room, but get no new token";
            return Err(ApiError::new(error.code, message));
        }
    };
    let denied_until = until_ms.div_ceil(1000);
    Ok(web::Json(Removed {
        session_id: record.session_id,
        room_name: record.room,
        identity,
        removed,
        denied_until,
    }))
}
