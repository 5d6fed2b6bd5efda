//! The talk page, whose files are part of the binary, and the AsyncAPI document.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{HeaderName, HeaderValue},
    web,
};

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
    ("opus.js", JAVASCRIPT, include_str!("../../../static/opus.js")),
    ("player.js", JAVASCRIPT, include_str!("../../../static/player.js")),
    ("session.js", JAVASCRIPT, include_str!("../../../static/session.js")),
    ("transcript.js", JAVASCRIPT, include_str!("../../../static/transcript.js")),
];

/// `GET /`
pub(super) async fn talk(app: web::Data<AppState>, request: HttpRequest) -> HttpResponse {
    let mut response = page("text/html; charset=utf-8", TALK);
    let livekit = app.livekit_url.as_deref();
    let policy = content_security_policy(&app.control_url(&request), livekit);
    for (name, value) in [
        ("Content-Security-Policy", policy.as_str()),
        // For browsers that do not know `frame-ancestors`.
        ("X-Frame-Options", "DENY"),
        ("Cross-Origin-Opener-Policy", "same-origin"),
        ("Permissions-Policy", "microphone=(self), camera=(), geolocation=(), display-capture=()"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
        }
    }
    response
}

/// What the talk page needs: its own files, the control channel, LiveKit by WebSocket and HTTP. LiveKit Cloud sends its
/// clients to the nearest of its hosts.
fn content_security_policy(control_url: &str, livekit_url: Option<&str>) -> String {
    let mut connect = vec!["'self'".to_owned()];
    let livekit = livekit_url.unwrap_or_default();
    for url in [control_url, livekit] {
        connect.extend(origins(url));
    }
    if livekit.ends_with(".livekit.cloud") {
        connect.extend(["https://*.livekit.cloud".into(), "wss://*.livekit.cloud".into()]);
    }
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; \
         worker-src 'self'; connect-src {}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        connect.join(" ")
    )
}

/// A server by WebSocket and by HTTP; none if its name could add to the policy.
fn origins(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else { return Vec::new() };
    let host = rest.split('/').next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(is_plain) {
        return Vec::new();
    }
    let schemes = if matches!(scheme, "wss" | "https") { ["wss", "https"] } else { ["ws", "http"] };
    schemes.iter().map(|scheme| format!("{scheme}://{host}")).collect()
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
    let mut response = HttpResponse::Ok();
    response.content_type(JAVASCRIPT).insert_header(("Cross-Origin-Resource-Policy", "same-origin"));
    Ok(response.body(script))
}

/// `GET /api/asyncapi.json`: public.
pub(super) async fn asyncapi(app: web::Data<AppState>, request: HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(asyncapi::document_of(&app.control_url(&request)))
}

fn page(kind: &str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header(("Cache-Control", "no-cache"))
        .insert_header(("Cross-Origin-Resource-Policy", "same-origin"))
        .body(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connects(control: &str, livekit: Option<&str>) -> String {
        let policy = content_security_policy(control, livekit);
        let connect = policy.split("; ").find(|part| part.starts_with("connect-src ")).unwrap();
        connect.trim_start_matches("connect-src ").to_owned()
    }

    #[test]
    fn the_page_reaches_its_gateway_and_livekit_and_nothing_else() {
        assert_eq!(
            connects("ws://127.0.0.1:8080/v1/ws", Some("ws://127.0.0.1:7880")),
            "'self' ws://127.0.0.1:8080 http://127.0.0.1:8080 ws://127.0.0.1:7880 http://127.0.0.1:7880"
        );
        assert_eq!(
            connects("wss://june.example/v1/ws", Some("wss://x.livekit.cloud")),
            "'self' wss://june.example https://june.example wss://x.livekit.cloud https://x.livekit.cloud \
             https://*.livekit.cloud wss://*.livekit.cloud"
        );
        assert_eq!(connects("ws://evil;script-src *", None), "'self'", "a name that is part of the request");
    }
}
