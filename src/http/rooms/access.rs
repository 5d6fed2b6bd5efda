//! Who may see a room: whoever could join it, the owner of its session, and backends.

use actix_web::{FromRequest, HttpRequest};

use crate::{
    auth::AuthError,
    http::{
        AppState,
        error::ApiError,
        middleware::auth::{self, Caller},
    },
    ids::{Identity, RoomName},
};

/// Who the caller is in a room that they may see; none for a backend.
pub(super) async fn viewer(
    app: &AppState,
    request: &HttpRequest,
    room: &RoomName,
) -> Result<Option<Identity>, ApiError> {
    let livekit_token = auth::token(request).and_then(|token| app.room_tokens.as_ref()?.verify(&token));
    if let Some(token) = livekit_token {
        return if token.room == *room { Ok(Some(token.identity)) } else { Err(other_room()) };
    }
    match Caller::extract(request).await? {
        Caller::Anyone | Caller::Backend => Ok(None),
        caller @ Caller::User(_) => match app.registry.of_room(room).await? {
            Some(record) if caller.may_use(&record).is_ok() => Ok(Some(Identity::from(&record.user_id))),
            Some(_) | None => Err(other_room()),
        },
    }
}

/// The same for an event stream, which accepts stream tokens as well.
pub(super) async fn stream_viewer(
    app: &AppState,
    request: &HttpRequest,
    room: &RoomName,
) -> Result<Option<Identity>, ApiError> {
    let stream_token = auth::token(request).map(|token| app.authenticator.verify_stream(&token));
    match stream_token {
        Some(Ok(grant)) if grant.room == *room => Ok(grant.holder),
        Some(Ok(_)) => Err(other_room()),
        // It is not a stream token.
        Some(Err(AuthError::InvalidToken(_))) | None => viewer(app, request, room).await,
        Some(Err(error)) => Err(error.into()),
    }
}

fn other_room() -> ApiError {
    AuthError::Forbidden("the token is not for this room").into()
}
