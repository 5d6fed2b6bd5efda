//! Tokens for guests (seeds 001, 002): signed here, with no call to LiveKit.

use actix_web::web;
use serde::{Deserialize, Serialize};

use crate::{
    error::ApiError,
    http::{AppState, middleware::auth::Caller, sessions::session},
    ids::{self, GuestName, Identity, RoomName, SessionId},
};

/// `POST /api/sessions/{id}/guest-token`
#[derive(Debug, Deserialize)]
pub struct Invite {
    session_id: SessionId,
    guest_name: GuestName,
}

/// What a guest needs to join.
#[derive(Debug, Serialize)]
pub struct Invitation {
    session_id: SessionId,
    room_name: RoomName,
    access_token: String,
    /// When it ends, in seconds since the Unix epoch.
    access_token_expires_at: u64,
    livekit_url: String,
    /// Under which name in the room's list: their own, each time.
    identity: Identity,
    guest_name: String,
}

/// A token for a guest of a session.
pub async fn invite(
    app: web::Data<AppState>,
    caller: Caller,
    id: web::Path<String>,
    body: web::Json<Invite>,
) -> Result<web::Json<Invitation>, ApiError> {
    let record = session(&app, &caller, &id).await?;
    if body.session_id != record.session_id {
        return Err(ApiError::invalid("session_id", "is not the one in the path"));
    }
    let (identity, token, livekit_url) =
        app.authenticator.guest(&body.guest_name, &ids::suffix(), &record.room)?;
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
