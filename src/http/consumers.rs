//! The consumer port: what clients say, for backends (docs/MENTRA.md, "The consumer port").

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use crate::{
    consumers,
    error::{ApiError, Code},
    http::{AppState, middleware::auth::Operator},
    ids::UserId,
};

/// `?user=`
#[derive(Debug, Deserialize)]
pub struct Whose {
    /// Whose sessions; everybody's where absent.
    user: Option<UserId>,
}

/// Upgrades a backend to a WebSocket.
pub async fn connect(
    app: web::Data<AppState>,
    _: Operator,
    request: HttpRequest,
    payload: web::Payload,
    query: web::Query<Whose>,
) -> Result<HttpResponse, ApiError> {
    if app.is_draining() {
        return Err(ApiError::new(Code::Overloaded, "this machine is going down; try again"));
    }
    consumers::upgrade(&request, payload, query.user.as_ref(), &app.consumers, app.registry.clone())
}
