//! `/api/admin/recordings`: LiveKit's egress service records rooms.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::{
    http::{AppState, admin::parse_room, error::ApiError},
    ids::RoomName,
    livekit::egress::Recording,
};

#[derive(Debug, Deserialize)]
pub(in crate::http) struct StartRecording {
    /// OGG with audio only; otherwise MP4 with video.
    #[serde(default = "default_audio_only")]
    audio_only: bool,
}

fn default_audio_only() -> bool {
    true
}

/// `POST /api/admin/rooms/{room}/recordings`
pub(in crate::http) async fn start(
    app: web::Data<AppState>,
    room: web::Path<String>,
    start: web::Json<StartRecording>,
) -> Result<HttpResponse, ApiError> {
    let recording = app.recordings()?.start(&parse_room(&room)?, start.audio_only).await?;
    Ok(HttpResponse::Created().json(recording))
}

/// `DELETE /api/admin/recordings/{egress_id}`
pub(in crate::http) async fn stop(
    app: web::Data<AppState>,
    egress_id: web::Path<String>,
) -> Result<web::Json<Recording>, ApiError> {
    Ok(web::Json(app.recordings()?.stop(&egress_id).await?))
}

#[derive(Debug, Deserialize)]
pub(in crate::http) struct RecordingsQuery {
    room: Option<RoomName>,
}

#[derive(Debug, Serialize)]
pub(in crate::http) struct RecordingList {
    recordings: Vec<Recording>,
}

/// `GET /api/admin/recordings`: running and finished ones, as long as LiveKit keeps them.
pub(in crate::http) async fn list(
    app: web::Data<AppState>,
    query: web::Query<RecordingsQuery>,
) -> Result<web::Json<RecordingList>, ApiError> {
    let recordings = app.recordings()?.list(query.room.as_ref()).await?;
    Ok(web::Json(RecordingList { recordings }))
}
