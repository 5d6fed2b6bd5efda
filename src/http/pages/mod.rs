//! The talk page, whose files are part of the binary, and the AsyncAPI document.

use actix_web::{HttpRequest, HttpResponse, web};

use crate::{
    http::{AppState, error::ApiError},
    protocol::asyncapi,
};

const TALK: &str = include_str!("../../../static/index.html");

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, content type and content of the page's files.
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

/// `GET /`
pub(super) async fn talk() -> HttpResponse {
    page("text/html; charset=utf-8", TALK)
}

/// `GET /static/{file}`
pub(super) async fn asset(file: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let (_, kind, content) =
        ASSETS.iter().find(|(name, ..)| *name == *file).ok_or_else(ApiError::not_found)?;
    Ok(page(kind, content))
}

/// LiveKit's client for browsers, if `scripts/setup` installed it. Without it the page sends audio on the control
/// channel.
pub(super) async fn livekit_client(app: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let file = app.vendor_dir.join("livekit-client.umd.js");
    let script = web::block(move || std::fs::read(file)).await.map_err(ApiError::internal)?;
    let script = script.map_err(|_| ApiError::not_found())?;
    Ok(HttpResponse::Ok().content_type(JAVASCRIPT).body(script))
}

/// `GET /api/asyncapi.json`: public.
pub(super) async fn asyncapi(app: web::Data<AppState>, request: HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(asyncapi::document_of(&app.control_url(&request)))
}

fn page(kind: &str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok().content_type(kind).insert_header(("Cache-Control", "no-cache")).body(content)
}
