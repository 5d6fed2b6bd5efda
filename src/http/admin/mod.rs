//! What operators see and do, by API key: sessions, rooms, recordings.
//!
//! Sessions are the gateway's own, and need no LiveKit. Rooms are LiveKit's own list: the gateway
//! forgets a room that nobody watches, and an operator wants to see every one.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use livekit_protocol as proto;
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    error::{ApiError, Code},
    http::{AppState, middleware::auth::Operator, sessions::parse_id},
    ids::{Identity, RoomName, SessionId, UserId},
    livekit::{
        api::{self, LivekitApi},
        egress::{Egress, Recording},
    },
    protocol::edge_v1::to_client::EndReason,
    room::roster::Track,
    store::sessions::SessionRecord,
};

/// The most entries of one answer.
const MAX_PAGE: usize = 500;

/// Which entries.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// At most so many.
    #[serde(default = "default_limit")]
    limit: usize,
    /// Only what comes after this: the `next_cursor` of the page before.
    cursor: Option<String>,
}

fn default_limit() -> usize {
    50
}

impl Page {
    fn limit(&self) -> Result<usize, ApiError> {
        if self.limit == 0 || self.limit > MAX_PAGE {
            return Err(ApiError::invalid("limit", format!("must be 1 to {MAX_PAGE}")));
        }
        Ok(self.limit)
    }
}

// --- Sessions ---------------------------------------------------------------------------------

/// `GET /api/admin/sessions`
#[derive(Debug, Serialize)]
pub struct Sessions {
    /// Newest first.
    sessions: Vec<SessionRow>,
    /// What to ask for as `cursor` to read on; null where that was all.
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
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<EndReason>,
    created_at: String,
    /// A client is attached, or may come back within the grace.
    #[serde(rename = "at_work")]
    live: bool,
}

/// All sessions, newest first.
pub async fn sessions(
    app: web::Data<AppState>,
    _: Operator,
    page: web::Query<Page>,
) -> Result<web::Json<Sessions>, ApiError> {
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
        live: app.registry.live(record.session_id).is_some(),
        livekit_room_sid: record.livekit_room.map(|room| room.sid),
        user_id: record.user_id,
        room_name: record.room,
    };
    Ok(web::Json(Sessions { sessions: records.into_iter().map(row).collect(), next_cursor }))
}

/// What became of a session that was disconnected.
#[derive(Debug, Serialize)]
pub struct Disconnected {
    session_id: SessionId,
    status: &'static str,
    /// A control channel, or one that might have come back, was closed.
    was_at_work: bool,
    /// Who was removed from the room, and is kept out; null where LiveKit could not be asked.
    removed: Option<Vec<Identity>>,
}

/// Ends a session, closes its control channel and clears its room. Its tokens open nothing any more.
pub async fn disconnect(
    app: web::Data<AppState>,
    _: Operator,
    id: web::Path<String>,
) -> Result<web::Json<Disconnected>, ApiError> {
    let record = app.registry.get(parse_id(&id)?).await?;
    let was_at_work = app.registry.live(record.session_id).is_some();
    // The user may not be in the room at the moment, but have a token.
    app.deny.deny(&record.room, &Identity::from(&record.user_id)).await?;
    app.registry.end(record.session_id, EndReason::Disconnected).await?;
    let removed = match &app.livekit {
        Some(livekit) => clear(&app, livekit, &record).await.ok(),
        None => None,
    };
    Ok(web::Json(Disconnected { session_id: record.session_id, status: "ended", was_at_work, removed }))
}

/// Removes everybody from a session's room but our own agent, which leaves by itself.
async fn clear(
    app: &AppState,
    livekit: &LivekitApi,
    record: &SessionRecord,
) -> Result<Vec<Identity>, ApiError> {
    let agent = Identity::agent_of(&record.user_id);
    let everybody = livekit.everybody(&record.room).await?;
    let people: Vec<Identity> = everybody
        .iter()
        .filter_map(|info| Identity::parse(&info.identity).ok())
        .filter(|identity| *identity != agent)
        .collect();
    let leaving = people.iter().map(async |identity| {
        app.deny.deny(&record.room, identity).await?;
        match livekit.remove_participant(&record.room, identity).await {
            Err(error) if error.code != Code::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    });
    futures::future::try_join_all(leaving).await?;
    Ok(people)
}

// --- Rooms ------------------------------------------------------------------------------------

/// `GET /api/admin/rooms`
#[derive(Debug, Serialize)]
pub struct RoomList {
    /// By name.
    rooms: Vec<RoomRow>,
    /// What to ask for as `cursor` to read on; null where that was all.
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
struct RoomRow {
    room_name: String,
    livekit_room_sid: String,
    created_at: String,
    participants: u32,
    publishers: u32,
    /// An egress service records it.
    recording: bool,
    /// Whose it is, where it is a session's.
    session_id: Option<SessionId>,
    user_id: Option<UserId>,
}

impl RoomRow {
    async fn of(room: &proto::Room, app: &AppState) -> Result<Self, ApiError> {
        let session = match RoomName::parse(&room.name) {
            Ok(name) => app.registry.of_room(&name).await?,
            Err(_) => None,
        };
        let created_ms =
            if room.creation_time_ms > 0 { room.creation_time_ms } else { room.creation_time * 1000 };
        Ok(Self {
            room_name: room.name.clone(),
            livekit_room_sid: room.sid.clone(),
            created_at: clock::timestamp(u64::try_from(created_ms).unwrap_or_default()),
            participants: room.num_participants,
            publishers: room.num_publishers,
            recording: room.active_recording,
            session_id: session.as_ref().map(|record| record.session_id),
            user_id: session.map(|record| record.user_id),
        })
    }
}

/// LiveKit's rooms, by name.
pub async fn rooms(
    app: web::Data<AppState>,
    _: Operator,
    page: web::Query<Page>,
) -> Result<web::Json<RoomList>, ApiError> {
    let limit = page.limit()?;
    let mut rooms = api(&app)?.rooms(Vec::new()).await?;
    rooms.sort_by(|a, b| a.name.cmp(&b.name));
    let after = page.cursor.as_deref().unwrap_or_default();
    let start = rooms.partition_point(|room| room.name.as_str() <= after);
    let rest = &rooms[start..];
    let page = &rest[..limit.min(rest.len())];
    let next_cursor = page.last().filter(|_| rest.len() > limit).map(|room| room.name.clone());
    let rooms = futures::future::try_join_all(page.iter().map(|room| RoomRow::of(room, &app))).await?;
    Ok(web::Json(RoomList { rooms, next_cursor }))
}

/// `GET /api/admin/rooms/{room}/stats`
#[derive(Debug, Serialize)]
pub struct RoomStats {
    #[serde(flatten)]
    room: RoomRow,
    /// How many tracks there are, by source.
    tracks: BTreeMap<String, usize>,
    muted_tracks: usize,
    /// Everybody, the gateway's hidden agents among them.
    everybody: Vec<Presence>,
}

#[derive(Debug, Serialize)]
struct Presence {
    identity: String,
    sid: String,
    name: String,
    /// `standard`, `agent`, `sip` …
    kind: String,
    /// `joining`, `joined`, `active`, `disconnected`
    state: String,
    hidden: bool,
    /// In milliseconds since the Unix epoch.
    joined_at: i64,
    tracks: Vec<Track>,
}

impl Presence {
    fn of(info: &proto::ParticipantInfo) -> Self {
        Self {
            identity: info.identity.clone(),
            sid: info.sid.clone(),
            name: info.name.clone(),
            kind: info.kind().as_str_name().to_ascii_lowercase(),
            state: info.state().as_str_name().to_ascii_lowercase(),
            hidden: info.permission.as_ref().is_some_and(|permission| permission.hidden),
            joined_at: if info.joined_at_ms > 0 { info.joined_at_ms } else { info.joined_at * 1000 },
            tracks: info.tracks.iter().map(api::track).collect(),
        }
    }
}

/// What goes on in a room.
pub async fn room_stats(
    app: web::Data<AppState>,
    _: Operator,
    room: web::Path<String>,
) -> Result<web::Json<RoomStats>, ApiError> {
    let room = parse_room(&room)?;
    let livekit = api(&app)?;
    let (rooms, everybody) =
        futures::future::try_join(livekit.rooms(vec![room.to_string()]), livekit.everybody(&room)).await?;
    let Some(found) = rooms.iter().find(|found| found.name == room.as_str()) else {
        return Err(ApiError::new(Code::NotFound, "LiveKit has no such room: nobody is in it"));
    };
    let everybody: Vec<Presence> = everybody.iter().map(Presence::of).collect();
    let tracks = || everybody.iter().flat_map(|one| &one.tracks);
    let mut by_source = BTreeMap::new();
    for track in tracks() {
        *by_source.entry(track.source.clone()).or_default() += 1;
    }
    Ok(web::Json(RoomStats {
        room: RoomRow::of(found, &app).await?,
        tracks: by_source,
        muted_tracks: tracks().filter(|track| track.muted).count(),
        everybody,
    }))
}

// --- Egress -------------------------------------------------------------------------------

/// `POST /api/admin/rooms/{room}/recordings`
#[derive(Debug, Deserialize)]
pub struct Start {
    /// Sound only, as OGG; else with pictures, as MP4.
    #[serde(default = "sound_only")]
    audio_only: bool,
}

fn sound_only() -> bool {
    true
}

/// Starts to record a room.
pub async fn start_recording(
    app: web::Data<AppState>,
    _: Operator,
    room: web::Path<String>,
    start: web::Json<Start>,
) -> Result<HttpResponse, ApiError> {
    let recording = recorder(&app)?.start(&parse_room(&room)?, start.audio_only).await?;
    Ok(HttpResponse::Created().json(recording))
}

/// Stops a recording.
pub async fn stop_recording(
    app: web::Data<AppState>,
    _: Operator,
    egress_id: web::Path<String>,
) -> Result<web::Json<Recording>, ApiError> {
    Ok(web::Json(recorder(&app)?.stop(&egress_id).await?))
}

/// Of which room.
#[derive(Debug, Deserialize)]
pub struct Which {
    room: Option<RoomName>,
}

/// `GET /api/admin/recordings`
#[derive(Debug, Serialize)]
pub struct RecordingList {
    recordings: Vec<Recording>,
}

/// Egress, under way or done, as far as LiveKit remembers them.
pub async fn recordings(
    app: web::Data<AppState>,
    _: Operator,
    which: web::Query<Which>,
) -> Result<web::Json<RecordingList>, ApiError> {
    let recordings = recorder(&app)?.list(which.room.as_ref()).await?;
    Ok(web::Json(RecordingList { recordings }))
}

fn parse_room(room: &str) -> Result<RoomName, ApiError> {
    RoomName::parse(room).map_err(|error| ApiError::invalid("room", error))
}

fn api(app: &AppState) -> Result<&LivekitApi, ApiError> {
    app.livekit.as_deref().ok_or_else(no_livekit)
}

fn recorder(app: &AppState) -> Result<&Egress, ApiError> {
    app.recordings.as_ref().ok_or_else(no_livekit)
}

fn no_livekit() -> ApiError {
    ApiError::new(Code::MediaUnavailable, "this gateway has no LiveKit and no rooms")
}
