//! Upgrades to the control channel, for both profiles. The path and the subprotocol select the profile.

mod socket;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    body::BoxBody,
    http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    web,
};

use self::socket::Caller;
use crate::{
    auth::Principal,
    error::Code,
    http::{
        AppState, address,
        error::ApiError,
        middleware::{auth, drain::NotDraining},
    },
    protocol::{EDGE_V1, Profile, ToClient, edge_v1::from_client::ConnectionInit},
};

/// `GET /v1/ws`: `edge.v1`. A bad token is refused before the upgrade; without one, it is expected in the first
/// message.
pub(super) async fn connect(app: web::Data<AppState>, request: HttpRequest) -> HttpResponse {
    upgrade(&app, &request, Profile::EdgeV1).await
}

/// `GET /glasses-ws`: MentraOS clients, which have to send their token with the request. A client that offers
/// `edge.v1` gets that.
pub(super) async fn connect_mentra(app: web::Data<AppState>, request: HttpRequest) -> HttpResponse {
    upgrade(&app, &request, Profile::Mentra).await
}

async fn upgrade(app: &AppState, request: &HttpRequest, path_profile: Profile) -> HttpResponse {
    let upgraded = match admit(app, request, path_profile).await {
        Ok(caller) => socket::upgrade(request, caller, app.registry.clone(), app.admission.clone())
            .map_err(ApiError::from),
        Err(error) => Err(error),
    };
    upgraded.unwrap_or_else(refuse)
}

async fn admit(app: &AppState, request: &HttpRequest, path_profile: Profile) -> Result<Caller, ApiError> {
    let principal = authenticate(app, request).await?;
    let profile = match offered(request) {
        Some(offered) if offered.split(',').any(|name| name.trim() == EDGE_V1) => Profile::EdgeV1,
        Some(_) => return Err(ApiError::new(Code::Unsupported, format!("this channel speaks {EDGE_V1}"))),
        None => path_profile,
    };
    NotDraining::check(app)?;
    if profile == Profile::Mentra {
        let user = &principal.as_ref().ok_or_else(ApiError::missing_token)?.user;
        if let Some(wait) = app.registry.takeover_wait(user) {
            // These clients reconnect after any close, so the upgrade itself has to be refused.
            return Err(ApiError::new(Code::RateLimited, "too many devices use this session").after(wait));
        }
    }
    let mut init = ConnectionInit::default();
    if !offers_livekit(request) {
        init.capabilities.media.retain(|media| media != "livekit");
    }
    let address = auth::from_address(app, request);
    Ok(Caller { profile, principal, init, address, base_url: app.base_url(request) })
}

/// The subprotocols that a client offers.
fn offered(request: &HttpRequest) -> Option<&str> {
    request.headers().get("sec-websocket-protocol").and_then(|offered| offered.to_str().ok())
}

/// MentraOS clients offer LiveKit by `?livekit=true`, or by a header of that name.
fn offers_livekit(request: &HttpRequest) -> bool {
    let by_header = request.headers().get("livekit").is_some_and(|value| value.as_bytes() == b"true");
    by_header || request.query_string().split('&').any(|pair| pair == "livekit=true")
}

/// Who the request is from; none if it has no token.
async fn authenticate(app: &AppState, request: &HttpRequest) -> Result<Option<Principal>, ApiError> {
    if let Some(address) = address::of(request, app.address_header.as_ref()) {
        app.admission.check_address(address)?;
    }
    match auth::token(request) {
        Some(token) => {
            let address = auth::from_address(app, request);
            Ok(Some(app.admission.by_token(&token, address).await?))
        }
        None if request.headers().contains_key(AUTHORIZATION) => Err(ApiError::missing_token()),
        None => Ok(None),
    }
}

/// A `connection_error` as the body of an HTTP response (docs/PROTOCOL.md).
fn refuse(error: ApiError) -> HttpResponse {
    let mut response = error.error_response().map_into_boxed_body();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.set_body(BoxBody::new(ToClient::from(error).encode(None)))
}
