//! The talk page: plain files in the binary, no build step; and the protocol as a document.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::{
    error::{ApiError, Code},
    http::AppState,
    protocol::asyncapi,
};

const TALK: &str = include_str!("../../../static/index.html");

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, type and content of what the page loads.
const ASSETS: &[(&str, &str, &str)] = &[
    ("talk.css", CSS, include_str!("../../../static/talk.css")),
    ("talk.js", JAVASCRIPT, include_str!("../../../static/talk.js")),
    ("api.js", JAVASCRIPT, include_str!("../../../static/api.js")),
    ("capture-worklet.js", JAVASCRIPT, include_str!("../../../static/capture-worklet.js")),
    ("channel.js", JAVASCRIPT, include_str!("../../../static/channel.js")),
    ("microphone.js", JAVASCRIPT, include_str!("../../../static/microphone.js")),
    ("player.js", JAVASCRIPT, include_str!("../../../static/player.js")),
    ("session.js", JAVASCRIPT, include_str!("../../../static/session.js")),
    ("transcript.js", JAVASCRIPT, include_str!("../../../static/transcript.js")),
];

/// The page.
pub async fn talk() -> HttpResponse {
    page("text/html; charset=utf-8", TALK)
}

/// What the page loads.
pub async fn asset(file: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let (_, kind, content) = ASSETS.iter().find(|(name, ..)| *name == *file).ok_or_else(nothing)?;
    Ok(page(kind, content))
}

/// LiveKit's client for browsers, where `scripts/setup` installed it; without it the page sends the
/// microphone over the control channel.
pub async fn livekit_client(app: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let file = app.vendor_dir.join("livekit-client.umd.js");
    let script = web::block(move || std::fs::read(file)).await.map_err(ApiError::internal)?;
    let script = script.map_err(|_| nothing())?;
    Ok(HttpResponse::Ok().content_type(JAVASCRIPT).body(script))
}

/// The control channel for machines. It is no secret.
pub async fn asyncapi(app: web::Data<AppState>, request: HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(asyncapi::document_of(&app.control_url(&request)))
}

fn page(kind: &str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok().content_type(kind).insert_header(("Cache-Control", "no-cache")).body(content)
}

fn nothing() -> ApiError {
    ApiError::new(Code::NotFound, "there is nothing here")
}
