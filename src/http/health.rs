//! Probes, health and metrics, for operators.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::{
    auth::AuthError,
    http::{AppState, error::ApiError, middleware::auth::Caller},
};

/// A part of the pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// The older names of the roles, kept for compatibility: `livekit`, `vad`, `transcriber`, `thinker`, `speaker`.
    pub part: &'static str,
    /// `livekit`, `vad`, `stt`, `llm`, `tts`
    pub role: &'static str,
    pub provider: String,
    pub ready: bool,
    /// Why it is not ready, or what an operator should know, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `GET /livez`
pub(super) async fn live() -> &'static str {
    "ok"
}

/// `GET /readyz`
pub(super) async fn ready(app: web::Data<AppState>) -> HttpResponse {
    if app.is_draining() {
        HttpResponse::ServiceUnavailable().body("draining")
    } else {
        HttpResponse::Ok().body("ok")
    }
}

#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    version: &'static str,
    sessions: usize,
    parts: &'a [Part],
}

/// `GET /health`
pub(super) async fn report(app: web::Data<AppState>) -> HttpResponse {
    let all_ready = app.parts.iter().all(|part| part.ready);
    HttpResponse::Ok().json(Report {
        status: match (app.is_draining(), all_ready) {
            (true, _) => "draining",
            (false, true) => "ok",
            (false, false) => "degraded",
        },
        version: env!("CARGO_PKG_VERSION"),
        sessions: app.registry.count(),
        parts: &app.parts,
    })
}

/// `GET /metrics` of the main port, by API key.
pub(super) async fn metrics(app: web::Data<AppState>, caller: Caller) -> Result<HttpResponse, ApiError> {
    if let Caller::User(_) = caller {
        return Err(AuthError::Forbidden("metrics need an API key").into());
    }
    Ok(metrics_for_operators(app).await)
}

/// `GET /metrics` of the separate port, which only operators reach.
pub(super) async fn metrics_for_operators(app: web::Data<AppState>) -> HttpResponse {
    app.limits.report();
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(app.metrics.render())
}
