//! What MentraOS' phones call over HTTP, beside their WebSocket (docs/MENTRA.md). The token decides whose
//! session it is about.

use actix_web::web;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    auth::Principal,
    clock,
    error::{ApiError, Code},
    http::AppState,
    session::messages::LivekitTokenIssued,
    store::sessions::SessionRecord,
};

/// What every route here answers with.
#[derive(Debug, Serialize)]
pub struct Success<T> {
    success: bool,
    #[serde(flatten)]
    rest: T,
}

impl<T> Success<T> {
    fn with(rest: T) -> web::Json<Self> {
        web::Json(Self { success: true, rest })
    }
}

/// An answer that carries something.
#[derive(Debug, Serialize)]
pub struct Data<T> {
    data: T,
}

/// What a phone joins the LiveKit room with.
#[derive(Debug, Serialize)]
pub struct Join {
    url: String,
    token: String,
}

/// `GET /api/client/livekit/token`: the room of the user's session.
pub async fn livekit_token(
    app: web::Data<AppState>,
    grant: Principal,
) -> Result<web::Json<Success<Data<Join>>>, ApiError> {
    let record = active(&app, &grant)?;
    let info = app.authenticator.livekit_info(&record.user_id, &record.room)?;
    if let Some(session) = app.registry.live(record.session_id) {
        // One that is too busy to hear it is told by LiveKit when the phone is in the room.
        let _ = session.try_send(LivekitTokenIssued);
    }
    Ok(Success::with(Data { data: Join { url: info.url, token: info.token } }))
}

/// `POST /api/client/audio/configure`
#[derive(Debug, Deserialize)]
pub struct Configure {
    format: Option<String>,
}

/// How the phone's binary frames are read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Configured {
    format: &'static str,
    /// Always null: there is no LC3.
    lc3_config: Option<Value>,
    message: &'static str,
    timestamp: String,
}

/// Agrees on how binary frames are packed: there is one way.
pub async fn configure_audio(
    _: Principal,
    body: web::Json<Configure>,
) -> Result<web::Json<Success<Configured>>, ApiError> {
    match body.format.as_deref() {
        Some("pcm") => Ok(Success::with(Configured {
            format: "pcm",
            lc3_config: None,
            message: "16-bit little-endian PCM, 16 kHz, mono",
            timestamp: clock::timestamp(clock::unix_ms()),
        })),
        Some("lc3") => Err(ApiError::new(
            Code::Unsupported,
            "format: lc3 is not decoded here, for want of a decoder in Rust that is kept up; send pcm",
        )),
        Some(_) | None => Err(ApiError::invalid("format", "must be \"pcm\"")),
    }
}

/// `POST /api/client/device/state`: passed on to the consumers, as `device_state`.
pub async fn device_state(
    app: web::Data<AppState>,
    grant: Principal,
    body: web::Json<Map<String, Value>>,
) -> Result<web::Json<Success<Nothing>>, ApiError> {
    pass_on(&app, &grant, "device_state", body.into_inner())
}

/// `POST /api/client/goodbye`: passed on, too. The session has its grace, as after every close: the phone
/// says this when it goes to the background.
pub async fn goodbye(
    app: web::Data<AppState>,
    grant: Principal,
    body: web::Bytes,
) -> Result<web::Json<Success<Nothing>>, ApiError> {
    let said = if body.is_empty() {
        Map::new()
    } else {
        serde_json::from_slice(&body).map_err(|error| ApiError::invalid("body", error))?
    };
    pass_on(&app, &grant, "goodbye", said)
}

/// An answer that only says yes.
#[derive(Debug, Serialize)]
pub struct Nothing {}

fn pass_on(
    app: &AppState,
    grant: &Principal,
    kind: &str,
    mut said: Map<String, Value>,
) -> Result<web::Json<Success<Nothing>>, ApiError> {
    if let Some(record) = app.registry.newest_of(grant)? {
        said.insert("type".into(), kind.into());
        app.consumers.client_message(record.session_id, &record.user_id, said);
    }
    Ok(Success::with(Nothing {}))
}

/// `GET /api/client/min-version`: any will do.
pub async fn min_version() -> web::Json<Value> {
    web::Json(json!({"success": true, "data": {"required": "0.0.0", "recommended": "0.0.0"}}))
}

/// The session that a phone's token is about.
fn active(app: &AppState, grant: &Principal) -> Result<SessionRecord, ApiError> {
    // A phone that is told this opens its WebSocket again at once: `Retry-After` holds it back.
    let none = || ApiError::new(Code::NoActiveSession, "there is no session: open the WebSocket first");
    app.registry.newest_of(grant)?.ok_or_else(none)
}
