//! Fresh tokens for the client of a session, signed without a call to LiveKit.

use actix_web::{HttpRequest, web};
use serde::Serialize;

use crate::{
    auth::{AuthError, LivekitTokenError},
    clock,
    error::Code,
    http::{
        AppState,
        error::ApiError,
        middleware::auth::Caller,
        sessions::{Session, session},
    },
    ids::Identity,
    store::sessions::SessionRecord,
};

/// How to open the control channel of a session.
#[derive(Debug, Serialize)]
pub(in crate::http) struct ControlToken {
    control_url: String,
    /// Null for a user who was removed from the room.
    control_token: Option<String>,
    /// In seconds since the Unix epoch.
    control_token_expires_at: Option<u64>,
}

impl ControlToken {
    /// Refused where the session is too old, or what the caller's token was issued on has ended.
    pub(super) fn issue(
        record: &SessionRecord,
        caller: &Caller,
        app: &AppState,
        request: &HttpRequest,
    ) -> Result<Self, ApiError> {
        let (now, bound) = (clock::unix_s(), caller.bound(&app.authenticator, record));
        if bound.is_some_and(|bound| bound <= now) {
            return Err(match caller {
                Caller::Anyone | Caller::Key(_) => ApiError::new(
                    Code::SessionNotFound,
                    "the session is too old for new tokens: create a new one",
                ),
                Caller::User(_) => AuthError::ExpiredToken.into(),
            });
        }
        let (token, expires_at) =
            app.authenticator.control_token(&record.user_id, record.session_id, &record.room, now, bound);
        Ok(Self {
            control_url: app.control_url(request),
            control_token: Some(token.expose().to_owned()),
            control_token_expires_at: Some(expires_at),
        })
    }

    pub(super) fn none(app: &AppState, request: &HttpRequest) -> Self {
        Self { control_url: app.control_url(request), control_token: None, control_token_expires_at: None }
    }
}

/// `POST /api/sessions/{id}/control-token`; refused if the user was removed from the room.
pub(in crate::http) async fn control(
    app: web::Data<AppState>,
    request: HttpRequest,
    caller: Caller,
    id: web::Path<String>,
) -> Result<web::Json<ControlToken>, ApiError> {
    let record = session(&app, &caller, &id).await?;
    app.authenticator.check_present(&record.room, &Identity::from(&record.user_id))?;
    app.limits.issue_token(record.session_id)?;
    app.registry.keep(record.session_id).await?;
    Ok(web::Json(ControlToken::issue(&record, &caller, &app, &request)?))
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
    let session = Session::of(record, &caller, &app, &request)?;
    match session.denied_until {
        Some(until) => Err(LivekitTokenError::Denied { until }.into()),
        None => Ok(web::Json(session)),
    }
}
