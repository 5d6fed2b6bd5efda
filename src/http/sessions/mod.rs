//! `/api/sessions`. Only `participants`, the removal of a participant and the end of a session call LiveKit.

pub(super) mod guest;
pub(super) mod history;
mod options;
pub(super) mod removal;
pub(super) mod tokens;
pub(super) mod tool_calls;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    auth::{AuthError, LivekitTokenError},
    http::{
        AppState, address,
        error::ApiError,
        middleware::{auth::Caller, drain::NotDraining},
        sessions::tokens::ControlToken,
    },
    ids::{RoomName, SessionId, UserId},
    limits::Refusal,
    protocol::edge_v1::to_client::EndReason,
    room::roster::Participant,
    store::sessions::SessionRecord,
};

#[derive(Debug, Deserialize)]
pub(super) struct CreateSession {
    user_id: UserId,
    /// Checked by name. A client may write them beside `user_id` as well, where unknown fields are ignored.
    #[serde(default)]
    options: Map<String, Value>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// A session, with fresh tokens.
#[derive(Debug, Serialize)]
pub(super) struct Session {
    session_id: SessionId,
    user_id: UserId,
    room_name: RoomName,
    status: &'static str,
    /// To join the LiveKit room; null without LiveKit, and for a user who was removed from the room.
    access_token: Option<String>,
    /// In seconds since the Unix epoch.
    access_token_expires_at: Option<u64>,
    livekit_url: Option<String>,
    /// LiveKit's own id of the room; null until somebody was in it.
    livekit_room_sid: Option<String>,
    /// Until when the user is kept out of the room, in seconds since the Unix epoch; absent if they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied_until: Option<u64>,
    /// The options in force.
    options: Value,
    #[serde(flatten)]
    control: ControlToken,
}

impl Session {
    /// With tokens that the caller may have.
    fn of(
        record: SessionRecord,
        caller: &Caller,
        app: &AppState,
        request: &HttpRequest,
    ) -> Result<Self, ApiError> {
        let bound = caller.bound(&app.authenticator, &record);
        let livekit = app.authenticator.livekit_info(&record.user_id, &record.room, bound);
        let (livekit, denied_until) = match livekit {
            Ok(info) => (Some(info), None),
            Err(LivekitTokenError::NoLivekit) => (None, None),
            Err(LivekitTokenError::Denied { until }) => (None, Some(until)),
        };
        let (access_token, access_token_expires_at, livekit_url) = livekit
            .map(|info| (info.token, info.expires_at, info.url))
            .map_or((None, None, None), |(a, b, c)| (Some(a), Some(b), Some(c)));
        let control = match denied_until {
            Some(_) => ControlToken::none(app, request),
            None => ControlToken::issue(&record, caller, app, request)?,
        };
        Ok(Self {
            control,
            options: options::in_force(&record, app.registry.offer()),
            session_id: record.session_id,
            status: if record.ended.is_none() { "active" } else { "ended" },
            access_token,
            access_token_expires_at,
            livekit_url,
            livekit_room_sid: record.livekit_room.map(|room| room.sid),
            denied_until,
            user_id: record.user_id,
            room_name: record.room,
        })
    }
}

/// `POST /api/sessions`
pub(super) async fn create(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    body: web::Json<CreateSession>,
    _: NotDraining,
) -> Result<HttpResponse, ApiError> {
    let CreateSession { user_id, options, fields } = body.into_inner();
    let record = create_for(&app, &request, &caller, &user_id, options, fields).await?;
    Ok(HttpResponse::Created().json(Session::of(record, &caller, &app, &request)?))
}

/// Creates a session for a user, if the caller may.
pub(super) async fn create_for(
    app: &AppState,
    request: &HttpRequest,
    caller: &Caller,
    user: &UserId,
    options: Map<String, Value>,
    fields: Map<String, Value>,
) -> Result<SessionRecord, ApiError> {
    caller.may_act_for(user)?;
    let options = options::asked(options, fields, app.registry.offer())?;
    check_rate(app, request, caller, user)?;
    Ok(app.registry.create(user, options).await?)
}

/// Users are limited by user and address, backends by their key. Nobody is where there are no keys.
fn check_rate(app: &AppState, request: &HttpRequest, caller: &Caller, user: &UserId) -> Result<(), Refusal> {
    match caller {
        Caller::Anyone => Ok(()),
        Caller::Key(key) => app.limits.create_session_by_key(&key.id),
        Caller::User(_) => app.limits.create_session(user, address::of(request, app.address_header.as_ref())),
    }
}

/// `GET /api/sessions/{id}`
pub(super) async fn show(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<Session>, ApiError> {
    let record = session(&app, &caller, &id).await?;
    if let Caller::User(_) = caller {
        // It comes with tokens.
        app.limits.issue_token(record.session_id)?;
    }
    Ok(web::Json(Session::of(record, &caller, &app, &request)?))
}

#[derive(Debug, Serialize)]
pub(super) struct EndedSession {
    session_id: SessionId,
    status: &'static str,
    /// False if LiveKit cannot be reached; an empty room ends by itself.
    room_deleted: bool,
}

/// `DELETE /api/sessions/{id}`: closes the control channel, removes the agent, deletes the room.
pub(super) async fn end(
    app: web::Data<AppState>,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<EndedSession>, ApiError> {
    let record = session(&app, &caller, &id).await?;
    app.registry.end(record.session_id, EndReason::Logout).await?;
    let room_deleted = match &app.livekit {
        Some(livekit) => livekit.delete_room(&record.room).await.is_ok(),
        None => false,
    };
    Ok(web::Json(EndedSession { session_id: record.session_id, status: "ended", room_deleted }))
}

#[derive(Debug, Serialize)]
pub(super) struct SessionParticipants {
    room_name: RoomName,
    participants: Vec<Participant>,
}

/// `GET /api/sessions/{id}/participants`
pub(super) async fn participants(
    app: web::Data<AppState>,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<SessionParticipants>, ApiError> {
    let record = session(&app, &caller, &id).await?;
    let participants = app.rooms.participants(&record.room).await?;
    Ok(web::Json(SessionParticipants { room_name: record.room, participants }))
}

/// The session of a path, if the caller may use it. A user who was removed from its room may not.
async fn session(app: &AppState, caller: &Caller, id: &str) -> Result<SessionRecord, ApiError> {
    let record = app.registry.get(parse_id(id)?).await?;
    check(app, caller, &record)?;
    Ok(record)
}

pub(super) fn check(app: &AppState, caller: &Caller, record: &SessionRecord) -> Result<(), AuthError> {
    caller.may_use(record)?;
    caller.identity().map_or(Ok(()), |identity| app.authenticator.check_present(&record.room, &identity))
}

pub(super) fn parse_id(id: &str) -> Result<SessionId, ApiError> {
    id.parse().map_err(|error| ApiError::invalid("session_id", error))
}
