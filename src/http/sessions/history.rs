//! What was said in a session.

use actix_web::web;
use serde::{Deserialize, Serialize};

use crate::{
    error::ApiError,
    http::{AppState, middleware::auth::Caller, sessions::parse_id},
    ids::SessionId,
    store::history::Saved,
};

/// The most lines of one answer.
const MAX_PAGE: usize = 500;

/// Which lines.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// Only lines behind this place.
    #[serde(default)]
    after: u64,
    /// At most so many.
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    100
}

/// Lines of a session, oldest first.
#[derive(Debug, Serialize)]
pub struct History {
    session_id: SessionId,
    lines: Vec<Saved>,
    /// What to ask for as `after` to read on; null where that was all.
    next_after: Option<u64>,
}

/// What was said in a session, also in one that has ended.
pub async fn of_session(
    app: web::Data<AppState>,
    caller: Caller,
    id: web::Path<String>,
    page: web::Query<Page>,
) -> Result<web::Json<History>, ApiError> {
    if page.limit == 0 || page.limit > MAX_PAGE {
        return Err(ApiError::invalid("limit", format!("must be 1 to {MAX_PAGE}")));
    }
    let record = app.registry.get_any(parse_id(&id)?).await?;
    caller.may_use(&record)?;
    let lines = app.history.of_session(&record.user_id, record.session_id, page.after, page.limit).await?;
    let next_after = (lines.len() == page.limit).then(|| lines.last().map(|line| line.seq)).flatten();
    Ok(web::Json(History { session_id: record.session_id, lines, next_after }))
}
