//! The control channel's way in, for both profiles. The path and the subprotocol say which it is;
//! nothing is guessed from what a client says.

use std::time::Duration;

use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError, web};

use super::Site;
use crate::{
    auth::Grant,
    clock,
    error::{ApiError, Code},
    protocol::{EDGE_V1, Profile, ToClient, from_client::ConnectionInit},
    session::socket::{self, Caller},
};

/// Upgrades to a WebSocket that speaks `edge.v1`. Who may not is refused before the upgrade.
pub async fn connect(
    site: web::Data<Site>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    enter(&site, &request, payload, Profile::EdgeV1).await
}

/// Upgrades a MentraOS client; one that offers `edge.v1` here gets that.
pub async fn connect_mentra(
    site: web::Data<Site>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    enter(&site, &request, payload, Profile::Mentra).await
}

async fn enter(
    site: &Site,
    request: &HttpRequest,
    payload: web::Payload,
    of_path: Profile,
) -> Result<HttpResponse, actix_web::Error> {
    match admit(site, request, of_path).await {
        Ok(caller) => socket::upgrade(request, payload, caller, site.directory.clone()),
        Err(refusal) => Ok(refuse(&refusal)),
    }
}

/// Why somebody may not upgrade.
struct Refusal {
    error: ApiError,
    /// How long to stay away, where that is known.
    retry_after: Option<Duration>,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self { error, retry_after: None }
    }
}

async fn admit(site: &Site, request: &HttpRequest, of_path: Profile) -> Result<Caller, Refusal> {
    let grant = Grant::extract(request).await?;
    let profile = match offered(request) {
        Some(offered) if offered.split(',').any(|name| name.trim() == EDGE_V1) => Profile::EdgeV1,
        Some(_) => {
            return Err(ApiError::new(Code::Unsupported, format!("this channel speaks {EDGE_V1}")).into());
        }
        None => of_path,
    };
    if site.is_draining() {
        return Err(ApiError::new(Code::Overloaded, "this machine is going down; try again").into());
    }
    if profile == Profile::Mentra
        && let Some(wait) = site.directory.is_crowded(&grant.user)
    {
        // Such a client comes back after any close: it has to be kept from opening.
        let error = ApiError::new(Code::RateLimited, "too many devices want this session");
        return Err(Refusal { error, retry_after: Some(wait) });
    }
    let mut init = ConnectionInit::default();
    if !wants_livekit(request) {
        init.capabilities.media.retain(|media| media != "livekit");
    }
    Ok(Caller { profile, grant, init, base_url: site.base_url(request) })
}

/// The subprotocols that a client offers.
fn offered(request: &HttpRequest) -> Option<&str> {
    request.headers().get("sec-websocket-protocol").and_then(|offered| offered.to_str().ok())
}

/// MentraOS clients ask for LiveKit by `?livekit=true`, or by a header of that name.
fn wants_livekit(request: &HttpRequest) -> bool {
    let by_header = request.headers().get("livekit").is_some_and(|value| value.as_bytes() == b"true");
    by_header || request.query_string().split('&').any(|pair| pair == "livekit=true")
}

/// A refusal in the channel's own words (protocol.md §7.2).
fn refuse(Refusal { error, retry_after }: &Refusal) -> HttpResponse {
    let body = ToClient::ConnectionError {
        code: error.code,
        message: error.message.clone(),
        timestamp: clock::timestamp(clock::unix_ms()),
        retryable: error.code.retryable(),
    };
    let mut response = error.error_response().map_into_boxed_body();
    response.headers_mut().insert(
        actix_web::http::header::CONTENT_TYPE,
        actix_web::http::header::HeaderValue::from_static("application/json"),
    );
    if let Some(wait) = retry_after {
        let seconds = wait.as_secs().max(1).into();
        response.headers_mut().insert(actix_web::http::header::RETRY_AFTER, seconds);
    }
    response.set_body(actix_web::body::BoxBody::new(body.encode(None)))
}
