//! Tokens for guests of a session's room, signed without a call to LiveKit.

use actix_web::web;
use serde::{Deserialize, Serialize};

use crate::{
    http::{AppState, error::ApiError, middleware::auth::Caller, sessions::session},
    ids::{self, GuestName, Identity, RoomName, SessionId},
};

#[derive(Debug, Deserialize)]
pub(in crate::http) struct Invite {
    session_id: SessionId,
    guest_name: GuestName,
}

/// What a guest needs to join.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Invitation {
    session_id: SessionId,
    room_name: RoomName,
    access_token: String,
    /// In seconds since the Unix epoch.
    access_token_expires_at: u64,
    livekit_url: String,
    /// New each time.
    identity: Identity,
    guest_name: String,
}

/// `POST /api/sessions/{id}/guest-token`
pub(in crate::http) async fn invite(
    app: web::Data<AppState>,
    caller: Caller,
    id: web::Path<String>,
    body: web::Json<Invite>,
) -> Result<web::Json<Invitation>, ApiError> {
    let record = session(&app, &caller, &id).await?;
    if body.session_id != record.session_id {
        return Err(ApiError::invalid("session_id", "is not the one in the path"));
    }
    let (inviter, bound) = (caller.identity(), caller.bound(&app.authenticator, &record));
    app.limits.issue_guest_token(record.session_id)?;
    let (identity, token, livekit_url) =
        app.authenticator.guest(&body.guest_name, &ids::suffix(), &record.room, inviter.as_ref(), bound)?;
    app.registry.keep(record.session_id).await?;
    Ok(web::Json(Invitation {
        session_id: record.session_id,
        room_name: record.room,
        access_token: token.jwt,
        access_token_expires_at: token.expires_at,
        livekit_url,
        identity,
        guest_name: body.into_inner().guest_name.as_str().to_owned(),
    }))
}
