//! `/api/admin/sessions`

use actix_web::web;
use serde::Serialize;

use crate::{
    clock,
    deny::DeniedBy,
    error::Code,
    http::{AppState, admin::Page, error::ApiError, sessions::parse_id},
    ids::{Identity, RoomName, SessionId, UserId},
    livekit::api::{LivekitApi, LivekitError},
    protocol::edge_v1::to_client::EndReason,
    store::sessions::SessionRecord,
};

#[derive(Debug, Serialize)]
pub(in crate::http) struct SessionList {
    /// Newest first.
    sessions: Vec<SessionRow>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
struct SessionRow {
    session_id: SessionId,
    user_id: UserId,
    room_name: RoomName,
    livekit_room_sid: Option<String>,
    /// `active`, `ended`
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<EndReason>,
    created_at: String,
    /// A client is attached, or may come back within the grace.
    at_work: bool,
}

/// `GET /api/admin/sessions`
pub(in crate::http) async fn list(
    app: web::Data<AppState>,
    page: web::Query<Page>,
) -> Result<web::Json<SessionList>, ApiError> {
    let limit = page.limit()?;
    let before = page.cursor.as_deref().map(str::parse).transpose();
    let before = before.map_err(|error| ApiError::invalid("cursor", error))?;
    let records = app.registry.newest(before, limit).await?;
    let last = records.last().filter(|_| records.len() == limit);
    let next_cursor = last.map(|record| record.session_id.to_string());
    let row = |record: SessionRecord| SessionRow {
        session_id: record.session_id,
        status: if record.ended.is_none() { "active" } else { "ended" },
        end_reason: record.ended,
        created_at: clock::timestamp(record.created_ms),
        at_work: app.registry.live(record.session_id).is_some(),
        livekit_room_sid: record.livekit_room.map(|room| room.sid),
        user_id: record.user_id,
        room_name: record.room,
    };
    Ok(web::Json(SessionList { sessions: records.into_iter().map(row).collect(), next_cursor }))
}

#[derive(Debug, Serialize)]
pub(in crate::http) struct Disconnected {
    session_id: SessionId,
    status: &'static str,
    /// A control channel was closed, or its client could have resumed.
    was_at_work: bool,
    /// Who was removed from the room and is kept out; null if LiveKit cannot be reached.
    removed: Option<Vec<Identity>>,
    /// Who may still be in the room, or may return to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<NotRemoved>,
}

#[derive(Debug, Serialize)]
struct NotRemoved {
    identity: Identity,
    code: Code,
    detail: String,
}

/// `POST /api/admin/sessions/{id}/disconnect`: ends a session, closes its control channel, and removes everybody
/// from its room. Its tokens are no longer accepted.
pub(in crate::http) async fn disconnect(
    app: web::Data<AppState>,
    id: web::Path<String>,
) -> Result<web::Json<Disconnected>, ApiError> {
    let record = app.registry.get(parse_id(&id)?).await?;
    let was_at_work = app.registry.live(record.session_id).is_some();
    // First, and whatever fails afterwards: a session that an operator ends does not go on.
    let ended = app.registry.end(record.session_id, EndReason::Disconnected).await;
    let mut failed = Vec::new();
    // Also if the user is not in the room at the moment: they may have a token.
    let user = Identity::from(&record.user_id);
    if let Err(error) = app.deny.deny(&record.room, &user, DeniedBy::Operator).await {
        failed.push(NotRemoved::new(user, error.into()));
    }
    let removed = match &app.livekit {
        Some(livekit) => remove_everybody(&app, livekit, &record, &mut failed).await.ok(),
        None => None,
    };
    app.rooms.evict(&record.room);
    ended?;
    Ok(web::Json(Disconnected {
        session_id: record.session_id,
        status: "ended",
        was_at_work,
        removed,
        failed,
    }))
}

impl NotRemoved {
    fn new(identity: Identity, error: ApiError) -> Self {
        Self { identity, code: error.code, detail: error.message }
    }
}

/// Removes everybody from a session's room but the gateway's agent, which leaves when the session ends. Gives those
/// who were removed.
async fn remove_everybody(
    app: &AppState,
    livekit: &LivekitApi,
    record: &SessionRecord,
    failed: &mut Vec<NotRemoved>,
) -> Result<Vec<Identity>, LivekitError> {
    let agent = Identity::agent_of(&record.user_id);
    let everybody = livekit.everybody(&record.room).await?;
    let people = everybody
        .iter()
        .filter_map(|info| Identity::parse(&info.identity).ok())
        .filter(|identity| *identity != agent);
    let leaving = people.map(async |identity| {
        let denied = app.deny.deny(&record.room, &identity, DeniedBy::Operator).await.map(drop);
        let removed = match livekit.remove_participant(&record.room, &identity).await {
            Ok(()) | Err(LivekitError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        };
        match denied.map_err(ApiError::from).and(removed.map_err(ApiError::from)) {
            Ok(()) => Ok(identity),
            Err(error) => Err(NotRemoved::new(identity, error)),
        }
    });
    let mut removed = Vec::new();
    for left in futures::future::join_all(leaving).await {
        match left {
            Ok(identity) => removed.push(identity),
            Err(not_removed) => {
                failed.retain(|known| known.identity != not_removed.identity);
                failed.push(not_removed);
            }
        }
    }
    Ok(removed)
}
