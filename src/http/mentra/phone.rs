//! The routes that MentraOS phones call besides their WebSocket (docs/MENTRA.md). The token identifies the user, whose
//! newest session is used.

use actix_web::web;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    auth::Principal,
    clock,
    error::Code,
    http::{AppState, error::ApiError},
    session::messages::LivekitTokenIssued,
    store::sessions::SessionRecord,
};

/// The response of every route here.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Success<T> {
    success: bool,
    #[serde(flatten)]
    rest: T,
}

impl<T> Success<T> {
    fn with(rest: T) -> web::Json<Self> {
        web::Json(Self { success: true, rest })
    }
}

#[derive(Debug, Serialize)]
pub(in crate::http) struct Data<T> {
    data: T,
}

/// How to join the LiveKit room.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Join {
    url: String,
    token: String,
}

/// `GET /api/client/livekit/token`: the room of the user's session.
pub(in crate::http) async fn livekit_token(
    app: web::Data<AppState>,
    principal: Principal,
) -> Result<web::Json<Success<Data<Join>>>, ApiError> {
    let record = active(&app, &principal).await?;
    let bound = principal.bound(app.authenticator.session_end(record.created_ms));
    app.limits.issue_token(record.session_id)?;
    let info = app.authenticator.livekit_info(&record.user_id, &record.room, bound)?;
    if let Some(session) = app.registry.live(record.session_id) {
        // If the mailbox is full, the session learns it from LiveKit when the phone joins.
        let _ = session.try_send(LivekitTokenIssued);
    }
    Ok(Success::with(Data { data: Join { url: info.url, token: info.token } }))
}

#[derive(Debug, Deserialize)]
pub(in crate::http) struct Configure {
    format: Option<String>,
}

/// The format of the phone's binary frames.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Configured {
    format: &'static str,
    /// Always null: LC3 is not supported.
    lc3_config: Option<Value>,
    message: &'static str,
    timestamp: String,
}

/// `POST /api/client/audio/configure`
pub(in crate::http) async fn configure_audio(
    app: web::Data<AppState>,
    principal: Principal,
    body: web::Json<Configure>,
) -> Result<web::Json<Success<Configured>>, ApiError> {
    // Only refuses a user who was removed: one without a session may ask.
    app.registry.newest_of(&principal).await?;
    match body.format.as_deref() {
        Some("pcm") => Ok(Success::with(Configured {
            format: "pcm",
            lc3_config: None,
            message: "16-bit little-endian PCM, 16 kHz, mono",
            timestamp: clock::timestamp(clock::unix_ms()),
        })),
        Some("lc3") => Err(ApiError::new(Code::Unsupported, "format: lc3 is not supported; send pcm")),
        Some(_) | None => Err(ApiError::invalid("format", "must be \"pcm\"")),
    }
}

/// `POST /api/client/device/state`: passed on to the consumers, as `device_state`.
pub(in crate::http) async fn device_state(
    app: web::Data<AppState>,
    principal: Principal,
    body: web::Json<Map<String, Value>>,
) -> Result<web::Json<Success<Nothing>>, ApiError> {
    pass_on(&app, &principal, "device_state", body.into_inner()).await
}

/// `POST /api/client/goodbye`: passed on to the consumers. The session waits for its grace, as after every close:
/// phones send this when they go to the background.
pub(in crate::http) async fn goodbye(
    app: web::Data<AppState>,
    principal: Principal,
    body: web::Bytes,
) -> Result<web::Json<Success<Nothing>>, ApiError> {
    let message = if body.is_empty() {
        Map::new()
    } else {
        serde_json::from_slice(&body).map_err(|error| ApiError::invalid("body", error))?
    };
    pass_on(&app, &principal, "goodbye", message).await
}

/// A response without further fields.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Nothing {}

async fn pass_on(
    app: &AppState,
    principal: &Principal,
    kind: &str,
    mut message: Map<String, Value>,
) -> Result<web::Json<Success<Nothing>>, ApiError> {
    if let Some(record) = app.registry.newest_of(principal).await? {
        message.insert("type".into(), kind.into());
        app.consumers.client_message(record.session_id, &record.user_id, message);
    }
    Ok(Success::with(Nothing {}))
}

/// `GET /api/client/min-version`: every version is accepted.
pub(in crate::http) async fn min_version() -> web::Json<Value> {
    web::Json(json!({"success": true, "data": {"required": "0.0.0", "recommended": "0.0.0"}}))
}

async fn active(app: &AppState, principal: &Principal) -> Result<SessionRecord, ApiError> {
    // Phones open their WebSocket at once after this error; `Retry-After` delays that.
    let none = || ApiError::new(Code::NoActiveSession, "there is no session: open the WebSocket first");
    app.registry.newest_of(principal).await?.ok_or_else(none)
}
