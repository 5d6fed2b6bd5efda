//! `/api/admin/rooms`

use std::collections::BTreeMap;

use actix_web::web;
use livekit_protocol as proto;
use serde::Serialize;

use crate::{
    clock,
    error::Code,
    http::{
        AppState,
        admin::{Page, parse_room},
        error::ApiError,
    },
    ids::{RoomName, SessionId, UserId},
    livekit::api,
    room::roster::Track,
};

#[derive(Debug, Serialize)]
pub(in crate::http) struct RoomList {
    /// By name.
    rooms: Vec<RoomRow>,
    /// Null on the last page.
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize)]
struct RoomRow {
    room_name: String,
    livekit_room_sid: String,
    created_at: String,
    participants: u32,
    publishers: u32,
    /// An egress service is recording it.
    recording: bool,
    /// Null if it is not the room of a session.
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

/// `GET /api/admin/rooms`
pub(in crate::http) async fn list(
    app: web::Data<AppState>,
    page: web::Query<Page>,
) -> Result<web::Json<RoomList>, ApiError> {
    let limit = page.limit()?;
    let mut rooms = app.livekit()?.rooms(Vec::new()).await?;
    rooms.sort_by(|a, b| a.name.cmp(&b.name));
    let after = page.cursor.as_deref().unwrap_or_default();
    let start = rooms.partition_point(|room| room.name.as_str() <= after);
    let rest = &rooms[start..];
    let page = &rest[..limit.min(rest.len())];
    let next_cursor = page.last().filter(|_| rest.len() > limit).map(|room| room.name.clone());
    let rooms = futures::future::try_join_all(page.iter().map(|room| RoomRow::of(room, &app))).await?;
    Ok(web::Json(RoomList { rooms, next_cursor }))
}

#[derive(Debug, Serialize)]
pub(in crate::http) struct RoomStats {
    #[serde(flatten)]
    room: RoomRow,
    /// The number of tracks, by source.
    tracks: BTreeMap<String, usize>,
    muted_tracks: usize,
    /// Including the gateway's hidden agents.
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

/// `GET /api/admin/rooms/{room}/stats`
pub(in crate::http) async fn stats(
    app: web::Data<AppState>,
    room: web::Path<String>,
) -> Result<web::Json<RoomStats>, ApiError> {
    let room = parse_room(&room)?;
    let livekit = app.livekit()?;
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
