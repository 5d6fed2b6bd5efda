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
    query: web::Query<ConsumerQuery>,
    _: NotDraining,
) -> Result<HttpResponse, ApiError> {
    socket::upgrade(&request, query.user.as_ref(), &app.consumers, &app.registry)
}
