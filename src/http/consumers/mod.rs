//! The consumer port: clients' messages, for backends (docs/MENTRA.md, "The consumer port").

mod socket;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use crate::{
    auth::AuthError,
    http::{
        AppState,
        error::ApiError,
        middleware::{auth::Caller, drain::NotDraining},
    },
    ids::UserId,
};

#[derive(Debug, Deserialize)]
pub(super) struct ConsumerQuery {
    /// Absent for all users.
    user: Option<UserId>,
}

/// `GET /api/consumer/ws`
pub(super) async fn connect(
    app: web::Data<AppState>,
    caller: Caller,
    request: HttpRequest,
    query: web::Query<ConsumerQuery>,
    _: NotDraining,
) -> Result<HttpResponse, ApiError> {
    let only = match &caller {
        Caller::Key(key) => key.user.as_ref(),
        Caller::Anyone | Caller::User(_) => None,
    };
    if let (Some(user), Some(only)) = (&query.user, only)
        && user != only
    {
        return Err(AuthError::Forbidden("the API key is for another user").into());
    }
    let user = query.user.as_ref().or(only).cloned();
    let place = app.limits.attach_consumer()?;
    socket::upgrade(&request, user.as_ref(), caller, &app, place)
}
