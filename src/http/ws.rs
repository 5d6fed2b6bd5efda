//! The control channel's way in.

use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError, web};

use super::Site;
use crate::{
    auth::Grant,
    clock,
    error::{ApiError, Code},
    protocol::{EDGE_V1, ToClient},
    session::socket,
};

/// Upgrades to a WebSocket that speaks `edge.v1`. Who may not is refused before the upgrade.
pub async fn connect(
    site: web::Data<Site>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let admitted = admit(&site, &request).await;
    match admitted {
        Ok(grant) => socket::upgrade(&request, payload, grant, site.directory.clone()),
        Err(error) => Ok(refuse(&error)),
    }
}

async fn admit(site: &Site, request: &HttpRequest) -> Result<Grant, ApiError> {
    let grant = Grant::extract(request).await?;
    let offered = request.headers().get("sec-websocket-protocol").and_then(|offered| offered.to_str().ok());
    if offered.is_some_and(|offered| !offered.split(',').any(|name| name.trim() == EDGE_V1)) {
        return Err(ApiError::new(Code::Unsupported, format!("this channel speaks {EDGE_V1}")));
    }
    if site.is_draining() {
        return Err(ApiError::new(Code::Overloaded, "this machine is going down; try again"));
    }
    Ok(grant)
}

/// A refusal in the channel's own words (protocol.md §7.2).
fn refuse(error: &ApiError) -> HttpResponse {
    let body = ToClient::ConnectionError {
        code: error.code,
        message: error.message.clone(),
        timestamp: clock::timestamp(clock::unix_ms()),
        retryable: error.code.retryable(),
        retry_after_ms: None,
    };
    let mut response = error.error_response().map_into_boxed_body();
    response.headers_mut().insert(
        actix_web::http::header::CONTENT_TYPE,
        actix_web::http::header::HeaderValue::from_static("application/json"),
    );
    response.set_body(actix_web::body::BoxBody::new(body.encode(None)))
}
