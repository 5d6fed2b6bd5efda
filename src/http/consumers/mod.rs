//! The consumer port: clients' messages, for backends (docs/MENTRA.md, "The consumer port").

mod socket;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use crate::{
    http::{
        AppState,
        error::ApiError,
        middleware::{auth::Operator, drain::NotDraining},
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
    _: Operator,
    request: HttpRequest,
    payload: web::Payload,
    query: web::Query<ConsumerQuery>,
    _: NotDraining,
) -> Result<HttpResponse, ApiError> {
    let place = app.limits.attach_consumer()?;
    socket::upgrade(&request, payload, query.user.as_ref(), &app.consumers, &app.registry, place)
}
