//! The control channel's way in.

use actix_web::{HttpRequest, HttpResponse, ResponseError, http::header::AUTHORIZATION, web};

use super::{Site, address, auth};
use crate::{
    auth::Grant,
    error::{ApiError, Code},
    protocol::{EDGE_V1, ToClient},
    session::socket,
};

/// Upgrades to a WebSocket that speaks `edge.v1`. Who may not is refused before the upgrade; who brings
/// no token may bring it in the first message.
pub async fn connect(
    site: web::Data<Site>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let admitted = admit(&site, &request).await;
    match admitted {
        Ok(grant) => {
            socket::upgrade(&request, payload, grant, site.directory.clone(), site.admission.clone())
        }
        Err(error) => Ok(refuse(error)),
    }
}

async fn admit(site: &Site, request: &HttpRequest) -> Result<Option<Grant>, ApiError> {
    let grant = by_request(site, request).await?;
    let offered = request.headers().get("sec-websocket-protocol").and_then(|offered| offered.to_str().ok());
    if offered.is_some_and(|offered| !offered.split(',').any(|name| name.trim() == EDGE_V1)) {
        return Err(ApiError::new(Code::Unsupported, format!("this channel speaks {EDGE_V1}")));
    }
    if site.is_draining() {
        return Err(ApiError::new(Code::Overloaded, "this machine is going down; try again"));
    }
    Ok(grant)
}

/// Whom the request itself proves to come from; none where it does not try to.
async fn by_request(site: &Site, request: &HttpRequest) -> Result<Option<Grant>, ApiError> {
    if let Some(address) = address::of(request, site.address_header.as_ref()) {
        site.admission.knock(address)?;
    }
    match auth::token(request) {
        Some(token) => site.admission.by_token(&token).await.map(Some),
        None if request.headers().contains_key(AUTHORIZATION) => Err(ApiError::missing_token()),
        None => Ok(None),
    }
}

/// A refusal in the channel's own words (protocol.md §7.2).
fn refuse(error: ApiError) -> HttpResponse {
    let mut response = error.error_response().map_into_boxed_body();
    response.headers_mut().insert(
        actix_web::http::header::CONTENT_TYPE,
        actix_web::http::header::HeaderValue::from_static("application/json"),
    );
    response.set_body(actix_web::body::BoxBody::new(ToClient::refusal(error).encode(None)))
}
