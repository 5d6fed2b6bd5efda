//! Sessions and tokens (seeds 000, 001, 002): no route here but `participants` and the end of a session
//! makes a LiveKit call.

pub mod guest;
pub mod history;
pub mod removal;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::{
    auth::NoToken,
    clock,
    error::{ApiError, Code},
    http::{AppState, middleware::auth::Caller},
    ids::{RoomName, SessionId, UserId},
    protocol::edge_v1::to_client::EndReason,
    room::roster::Participant,
    store::sessions::SessionRecord,
};

/// `POST /api/sessions`
#[derive(Debug, Deserialize)]
pub struct Create {
    user_id: UserId,
}

/// A session, with fresh tokens.
#[derive(Debug, Serialize)]
pub struct Session {
    session_id: SessionId,
    user_id: UserId,
    room_name: RoomName,
    status: &'static str,
    /// To join the LiveKit room; null where the gateway has no LiveKit.
    access_token: Option<String>,
    /// When it ends, in seconds since the Unix epoch.
    access_token_expires_at: Option<u64>,
    livekit_url: Option<String>,
    /// LiveKit's own id of the room; null while nobody has been in it.
    livekit_room_sid: Option<String>,
    /// Until when the user is kept out of the room, in seconds since the Unix epoch; absent where they
    /// are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied_until: Option<u64>,
    control_url: String,
    control_token: String,
}

impl Session {
    fn of(record: SessionRecord, app: &AppState, request: &HttpRequest) -> Self {
        let (livekit, denied_until) = match app.authenticator.livekit_info(&record.user_id, &record.room) {
            Ok(info) => (Some(info), None),
            Err(NoToken::NoLivekit) => (None, None),
            Err(NoToken::Denied { until }) => (None, Some(until)),
        };
        let (access_token, access_token_expires_at, livekit_url) = livekit
            .map(|info| (info.token, info.expires_at, info.url))
            .map_or((None, None, None), |(a, b, c)| (Some(a), Some(b), Some(c)));
        Self {
            session_id: record.session_id,
            status: if record.ended.is_none() { "active" } else { "ended" },
            access_token,
            access_token_expires_at,
            livekit_url,
            livekit_room_sid: record.livekit_room.map(|room| room.sid),
            denied_until,
            control_url: app.control_url(request),
            control_token: app
                .authenticator
                .control_token(&record.user_id, record.session_id, &record.room, clock::unix_s())
                .expose()
                .to_owned(),
            user_id: record.user_id,
            room_name: record.room,
        }
    }
}

/// Makes a session.
pub async fn create(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    body: web::Json<Create>,
) -> Result<HttpResponse, ApiError> {
    caller.may_act_for(&body.user_id)?;
    if app.is_draining() {
        return Err(ApiError::new(Code::Overloaded, "this machine is going down; try again"));
    }
    let record = app.registry.create(&body.user_id)?;
    Ok(HttpResponse::Created().json(Session::of(record, &app, &request)))
}

/// A session, with a fresh access token.
pub async fn show(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<Session>, ApiError> {
    let record = session(&app, &caller, &id)?;
    Ok(web::Json(Session::of(record, &app, &request)))
}

/// Renews a client's tokens.
pub async fn renew(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<Session>, ApiError> {
    let record = session(&app, &caller, &id)?;
    let session = Session::of(record, &app, &request);
    match session.denied_until {
        Some(until) => Err(NoToken::Denied { until }.into()),
        None => Ok(web::Json(session)),
    }
}

/// What became of a session that was ended.
#[derive(Debug, Serialize)]
pub struct Ended {
    session_id: SessionId,
    status: &'static str,
    /// False where LiveKit could not be asked to end the room; it ends by itself when it is empty.
    room_deleted: bool,
}

/// Ends a session: its client is told, its agent leaves, its room is deleted.
pub async fn end(
    app: web::Data<AppState>,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<Ended>, ApiError> {
    let record = session(&app, &caller, &id)?;
    app.registry.end(record.session_id, EndReason::Logout).await?;
    let room_deleted = match &app.livekit {
        Some(livekit) => livekit.delete_room(&record.room).await.is_ok(),
        None => false,
    };
    Ok(web::Json(Ended { session_id: record.session_id, status: "ended", room_deleted }))
}

/// Who is in a session's room.
#[derive(Debug, Serialize)]
pub struct Participants {
    room_name: RoomName,
    participants: Vec<Participant>,
}

/// Who is in a session's room.
pub async fn participants(
    app: web::Data<AppState>,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<Participants>, ApiError> {
    let record = session(&app, &caller, &id)?;
    let participants = app.rooms.participants(&record.room).await?;
    Ok(web::Json(Participants { room_name: record.room, participants }))
}

/// The session a path names, if the caller may use it.
pub(super) fn session(app: &AppState, caller: &Caller, id: &str) -> Result<SessionRecord, ApiError> {
    let record = app.registry.get(parse_id(id)?)?;
    caller.may_use(&record)?;
    Ok(record)
}

/// The id in a path.
pub(super) fn parse_id(id: &str) -> Result<SessionId, ApiError> {
    id.parse().map_err(|error| ApiError::invalid("session_id", error))
}
