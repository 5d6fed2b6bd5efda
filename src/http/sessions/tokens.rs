//! Fresh tokens for the client of a session, signed without a call to LiveKit.

use actix_web::{HttpRequest, web};
use serde::Serialize;

use crate::{
    auth::LivekitTokenError,
    clock,
    http::{
        AppState,
        error::ApiError,
        middleware::auth::Caller,
        sessions::{Session, session},
    },
    store::sessions::SessionRecord,
};

/// How to open the control channel of a session.
#[derive(Debug, Serialize)]
pub(in crate::http) struct ControlToken {
    control_url: String,
    control_token: String,
    /// In seconds since the Unix epoch.
    control_token_expires_at: u64,
}

impl ControlToken {
    pub(super) fn issue(record: &SessionRecord, app: &AppState, request: &HttpRequest) -> Self {
        let now = clock::unix_s();
        let token = app.authenticator.control_token(&record.user_id, record.session_id, &record.room, now);
        Self {
            control_url: app.control_url(request),
            control_token: token.expose().to_owned(),
            control_token_expires_at: now + app.authenticator.control_ttl().as_secs(),
        }
    }
}

/// `POST /api/sessions/{id}/control-token`
pub(in crate::http) async fn control(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<ControlToken>, ApiError> {
    let record = session(&app, &caller, &id).await?;
    app.limits.issue_token(record.session_id)?;
    app.registry.keep(record.session_id).await?;
    Ok(web::Json(ControlToken::issue(&record, &app, &request)))
}

/// `POST /api/sessions/{id}/token`: the whole session; refused if the user was removed from the room.
pub(in crate::http) async fn renew(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<Session>, ApiError> {
    let record = session(&app, &caller, &id).await?;
    app.limits.issue_token(record.session_id)?;
    app.registry.keep(record.session_id).await?;
    let session = Session::of(record, &app, &request);
    match session.denied_until {
        Some(until) => Err(LivekitTokenError::Denied { until }.into()),
        None => Ok(web::Json(session)),
    }
}
