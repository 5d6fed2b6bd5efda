//! Tokens for event streams: a browser's EventSource repeats its URL, token included, at every reconnect, and gives
//! up for good when it is refused. Stream tokens outlive the LiveKit tokens by which they are obtained, but neither a
//! user's JWT nor the session.

use actix_web::{HttpRequest, web};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{
    auth::StreamGrant,
    clock,
    http::{
        AppState,
        error::ApiError,
        rooms::access::{self, Viewer},
    },
    ids::RoomName,
};

#[derive(Debug, Deserialize)]
pub(in crate::http) struct StreamTokenRequest {
    room: RoomName,
}

#[derive(Debug, Serialize)]
pub(in crate::http) struct StreamToken {
    stream_token: String,
    /// In seconds since the Unix epoch.
    expires_at: u64,
    /// The event stream's URL, with the token.
    stream_url: String,
}

/// `POST /api/livekit/participants/stream-token`: for whoever may see the room.
pub(in crate::http) async fn issue(
    app: web::Data<AppState>,
    request: HttpRequest,
    body: web::Json<StreamTokenRequest>,
) -> Result<web::Json<StreamToken>, ApiError> {
    let room = body.into_inner().room;
    let Viewer { holder, bound, caller: _ } = access::viewer(&app, &request, &room).await?;
    if let Some(viewer) = &holder {
        app.limits.issue_stream_token(viewer)?;
    }
    let grant = StreamGrant { room, holder };
    let (token, expires_at) = app.authenticator.stream_token(&grant, clock::unix_s(), bound)?;
    let token = token.expose().to_owned();
    let url = format!("{}/api/livekit/participants/stream", app.base_url(&request));
    // Without `PUBLIC_URL` the host is the request's, which may be anything.
    let url = Url::parse_with_params(&url, [("room", grant.room.as_str()), ("token", &token)])
        .map_err(|error| ApiError::invalid("host", error))?;
    Ok(web::Json(StreamToken { stream_url: url.into(), stream_token: token, expires_at }))
}
