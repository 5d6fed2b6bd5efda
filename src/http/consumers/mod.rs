//! The consumer port: what clients send, for backends (docs/MENTRA.md, "The consumer port").

mod socket;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use crate::{
    error::{ApiError, Code},
    http::{AppState, middleware::auth::Operator},
    ids::UserId,
};

#[derive(Debug, Deserialize)]
pub struct ConsumerQuery {
    /// Whose sessions; everybody's where absent.
    user: Option<UserId>,
}

/// Upgrades a backend to a WebSocket.
pub async fn connect(
    app: web::Data<AppState>,
    _: Operator,
    request: HttpRequest,
    payload: web::Payload,
    query: web::Query<ConsumerQuery>,
) -> Result<HttpResponse, ApiError> {
    if app.is_draining() {
        return Err(ApiError::new(Code::Overloaded, "this machine is going down; try again"));
    }
    socket::upgrade(&request, payload, query.user.as_ref(), &app.consumers, &app.registry)
}
