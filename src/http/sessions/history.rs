//! `/api/sessions/{id}/history`

use actix_web::web;
use serde::{Deserialize, Serialize};

use crate::{
    http::{
        AppState,
        error::ApiError,
        middleware::auth::Caller,
        sessions::{check, parse_id},
    },
    ids::SessionId,
    store::history::Saved,
};

/// The most lines of a query.
const MAX_PAGE: usize = 500;

#[derive(Debug, Deserialize)]
pub(in crate::http) struct HistoryQuery {
    /// The `next_after` of the previous query.
    #[serde(default)]
    after: u64,
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    100
}

/// Lines of a session, oldest first.
#[derive(Debug, Serialize)]
pub(in crate::http) struct History {
    session_id: SessionId,
    lines: Vec<Saved>,
    /// Null on the last query.
    next_after: Option<u64>,
}

/// What was deleted.
#[derive(Debug, Serialize)]
pub(in crate::http) struct DeletedHistory {
    session_id: SessionId,
    /// How many lines.
    deleted: u64,
}

/// `DELETE /api/sessions/{id}/history`, also of a session that has ended. Durable when it is answered.
pub(in crate::http) async fn delete(
    app: web::Data<AppState>,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<DeletedHistory>, ApiError> {
    let record = app.registry.get_any(parse_id(&id)?).await?;
    check(&app, &caller, &record)?;
    let deleted = app.history.delete_session(&record.user_id, record.session_id).await?;
    tracing::info!(session.id = %record.session_id, lines = deleted, "history of a session deleted");
    Ok(web::Json(DeletedHistory { session_id: record.session_id, deleted }))
}

/// `GET /api/sessions/{id}/history`, also of a session that has ended.
pub(in crate::http) async fn of_session(
    app: web::Data<AppState>,
    caller: Caller,
    id: web::Path<String>,
    query: web::Query<HistoryQuery>,
) -> Result<web::Json<History>, ApiError> {
    if query.limit == 0 || query.limit > MAX_PAGE {
        return Err(ApiError::invalid("limit", format!("must be 1 to {MAX_PAGE}")));
    }
    let record = app.registry.get_any(parse_id(&id)?).await?;
    check(&app, &caller, &record)?;
    let lines = app.history.of_session(&record.user_id, record.session_id, query.after, query.limit).await?;
    let next_after = (lines.len() == query.limit).then(|| lines.last().map(|line| line.seq)).flatten();
    Ok(web::Json(History { session_id: record.session_id, lines, next_after }))
}
