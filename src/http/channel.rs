//! The control channel's way in, for both profiles. The path and the subprotocol say which it is;
//! nothing is guessed from what a client says.

use actix_web::{HttpRequest, HttpResponse, ResponseError, http::header::AUTHORIZATION, web};

use crate::{
    auth::Principal,
    error::{ApiError, Code},
    http::{AppState, address, middleware::auth},
    protocol::{EDGE_V1, Profile, ToClient, edge_v1::from_client::ConnectionInit},
    ws::connection::{self, Caller},
};

/// Upgrades to a WebSocket that speaks `edge.v1`. Who may not is refused before the upgrade; who brings
/// no token may bring it in the first message.
pub async fn connect(
    app: web::Data<AppState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    enter(&app, &request, payload, Profile::EdgeV1).await
}

/// Upgrades a MentraOS client; one that offers `edge.v1` here gets that. These clients have to bring their token
/// with the request.
pub async fn connect_mentra(
    app: web::Data<AppState>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, actix_web::Error> {
    enter(&app, &request, payload, Profile::Mentra).await
}

async fn enter(
    app: &AppState,
    request: &HttpRequest,
    payload: web::Payload,
    of_path: Profile,
) -> Result<HttpResponse, actix_web::Error> {
    match admit(app, request, of_path).await {
        Ok(caller) => {
            connection::upgrade(request, payload, caller, app.registry.clone(), app.admission.clone())
        }
        Err(error) => Ok(refuse(error)),
    }
}

async fn admit(app: &AppState, request: &HttpRequest, of_path: Profile) -> Result<Caller, ApiError> {
    let grant = by_request(app, request).await?;
    let profile = match offered(request) {
        Some(offered) if offered.split(',').any(|name| name.trim() == EDGE_V1) => Profile::EdgeV1,
        Some(_) => return Err(ApiError::new(Code::Unsupported, format!("this channel speaks {EDGE_V1}"))),
        None => of_path,
    };
    if app.is_draining() {
        return Err(ApiError::new(Code::Overloaded, "this machine is going down; try again"));
    }
    if profile == Profile::Mentra {
        let user = &grant.as_ref().ok_or_else(ApiError::missing_token)?.user;
        if let Some(wait) = app.registry.is_crowded(user) {
            // Such a client comes back after any close: it has to be kept from opening.
            return Err(ApiError::new(Code::RateLimited, "too many devices want this session").after(wait));
        }
    }
    let mut init = ConnectionInit::default();
    if !wants_livekit(request) {
        init.capabilities.media.retain(|media| media != "livekit");
    }
    Ok(Caller { profile, principal: grant, init, base_url: app.base_url(request) })
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

/// Whom the request itself proves to come from; none where it does not try to.
async fn by_request(app: &AppState, request: &HttpRequest) -> Result<Option<Principal>, ApiError> {
    if let Some(address) = address::of(request, app.address_header.as_ref()) {
        app.admission.knock(address)?;
    }
    match auth::token(request) {
        Some(token) => app.admission.by_token(&token).await.map(Some),
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
    response.set_body(actix_web::body::BoxBody::new(ToClient::from(error).encode(None)))
}
