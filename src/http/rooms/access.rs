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
    /// Whose credential it is; none for a LiveKit or stream token.
    pub caller: Option<Caller>,
}

impl Viewer {
    /// By a token that can be made again, or that ends by itself.
    fn of_token(holder: Option<Identity>) -> Self {
        Self { holder, bound: None, caller: None }
    }
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
            Ok(Viewer::of_token(Some(token.identity)))
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
        return Ok(Viewer { holder: None, bound: None, caller: Some(caller) });
    }
    let record = app.registry.of_room(room).await?;
    let Some(record) = record.filter(|record| caller.may_use(record).is_ok()) else {
        return Err(other_room());
    };
    let holder = caller.identity();
    if let Some(identity) = &holder {
        app.authenticator.check_present(room, identity)?;
    }
    Ok(Viewer { holder, bound: caller.bound(&app.authenticator, &record), caller: Some(caller) })
}

/// The same for an event stream, which accepts stream tokens as well.
pub(super) async fn stream_viewer(
    app: &AppState,
    request: &HttpRequest,
    room: &RoomName,
) -> Result<Viewer, ApiError> {
    let stream_token = auth::token(request).map(|token| app.authenticator.verify_stream(&token));
    match stream_token {
        Some(Ok(grant)) if grant.room == *room => Ok(Viewer::of_token(grant.holder)),
        Some(Ok(_)) => Err(other_room()),
        // It is not a stream token.
        Some(Err(AuthError::InvalidToken(_))) | None => viewer(app, request, room).await,
        Some(Err(error)) => Err(error.into()),
    }
}

fn other_room() -> ApiError {
    AuthError::Forbidden("the token is not for this room").into()
}
