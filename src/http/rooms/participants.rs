//! `/api/livekit/participants`

use actix_web::{HttpRequest, web};
use serde::Deserialize;

use crate::{
    http::{AppState, error::ApiError, rooms::access},
    ids::RoomName,
    room::roster::Participant,
};

#[derive(Deserialize)]
pub(in crate::http) struct ParticipantsQuery {
    room: RoomName,
}

/// `GET /api/livekit/participants?room=`: from memory if that is fresh.
pub(in crate::http) async fn list(
    app: web::Data<AppState>,
    request: HttpRequest,
    query: web::Query<ParticipantsQuery>,
) -> Result<web::Json<Vec<Participant>>, ApiError> {
    access::viewer(&app, &request, &query.room).await?;
    Ok(web::Json(app.rooms.present(&query.room).await?))
}
