//! Who may see a room: whoever could join it, the user of its session, backends and observers.

use actix_web::HttpRequest;

use crate::{
    auth::AuthError,
    http::{
        AppState,
        access::Right,
        error::ApiError,
        middleware::auth::{self, Caller},
    },
    ids::{Identity, RoomName},
};

/// By whose right a room is seen.
pub(super) struct Viewer {
    /// Who that is in the room; none for a backend.
    pub holder: Option<Identity>,
    /// The end of everything that is issued to them, in seconds since the Unix epoch; none for a LiveKit token, which
    /// anybody who has the API secret can make again.
    pub bound: Option<u64>,
}

/// Who sees a room by this request.
pub(super) async fn viewer(
    app: &AppState,
    request: &HttpRequest,
    room: &RoomName,
) -> Result<Viewer, ApiError> {
    let livekit_token = auth::token(request).and_then(|token| app.room_tokens.as_ref()?.verify(&token));
    if let Some(token) = livekit_token {
        return if token.room == *room {
            Ok(Viewer { holder: Some(token.identity), bound: None })
        } else {
            Err(other_room())
        };
    }
    let caller = auth::authenticate(request).await?;
    Right::Room.check(&caller)?;
    let is_for_all = match &caller {
        Caller::Anyone => true,
        Caller::Key(key) => key.user.is_none(),
        Caller::User(_) => false,
    };
    if is_for_all {
        return Ok(Viewer { holder: None, bound: None });
    }
    let record = app.registry.of_room(room).await?;
    let Some(record) = record.filter(|record| caller.may_use(record).is_ok()) else {
        return Err(other_room());
    };
    let holder = caller.identity();
    if let Some(identity) = &holder {
        app.authenticator.check_present(room, identity)?;
    }
    Ok(Viewer { holder, bound: caller.bound(&app.authenticator, &record) })
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
        Some(Err(AuthError::InvalidToken(_))) | None => Ok(viewer(app, request, room).await?.holder),
        Some(Err(error)) => Err(error.into()),
    }
}

fn other_room() -> ApiError {
    AuthError::Forbidden("the token is not for this room").into()
}
