//! Removes a participant from a session's room, and keeps them out.

use actix_web::web;
use serde::Serialize;

use crate::{
    http::{AppState, error::ApiError, middleware::auth::Caller, sessions::session},
    ids::{Identity, RoomName, SessionId},
    livekit::api::LivekitError,
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
    let until_ms = app.deny.deny(&record.room, &identity).await?;
    let removed = match livekit.remove_participant(&record.room, &identity).await {
        Ok(()) => true,
        Err(LivekitError::NotFound(_)) => false,
        Err(error) => {
            app.deny.enforce(livekit, &record.room, &identity);
            let message = "LiveKit cannot be reached: they may still be in the room, but get no new token";
            return Err(ApiError { message: message.into(), ..error.into() });
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
