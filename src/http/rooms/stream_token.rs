//! Tokens for event streams: a browser's EventSource repeats its URL, token included, at every reconnect, and gives
//! up for good when it is refused. Stream tokens outlive the tokens by which they are obtained.

use actix_web::{HttpRequest, web};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{
    auth::{STREAM_TTL, StreamGrant},
    clock,
    http::{AppState, error::ApiError, rooms::access},
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
    let holder = access::viewer(&app, &request, &room).await?;
    let (now, grant) = (clock::unix_s(), StreamGrant { room, holder });
    let token = app.authenticator.stream_token(&grant, now)?.expose().to_owned();
    let url = format!("{}/api/livekit/participants/stream", app.base_url(&request));
    // Without `PUBLIC_URL` the host is the request's, which may be anything.
    let url = Url::parse_with_params(&url, [("room", grant.room.as_str()), ("token", &token)])
        .map_err(|error| ApiError::invalid("host", error))?;
    Ok(web::Json(StreamToken {
        stream_url: url.into(),
        stream_token: token,
        expires_at: now + STREAM_TTL.as_secs(),
    }))
}
