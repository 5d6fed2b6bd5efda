//! How the gateway is, for operators and their probes.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::{
    error::{ApiError, Code},
    http::{AppState, middleware::auth::Caller},
};

/// A part of the pipeline and how it is.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// `livekit`, `vad`, `stt`, `llm`, `tts`
    pub role: &'static str,
    /// The older names of the roles: `livekit`, `vad`, `transcriber`, `thinker`, `speaker`.
    pub part: &'static str,
    /// Who does it.
    pub provider: String,
    /// Whether it works.
    pub ready: bool,
    /// Why it does not, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The process lives.
pub async fn live() -> &'static str {
    "ok"
}

/// The gateway takes new clients.
pub async fn ready(app: web::Data<AppState>) -> HttpResponse {
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

/// The gateway and its parts.
pub async fn report(app: web::Data<AppState>) -> HttpResponse {
    let whole = app.parts.iter().all(|part| part.ready);
    HttpResponse::Ok().json(Report {
        status: match (app.is_draining(), whole) {
            (true, _) => "draining",
            (false, true) => "ok",
            (false, false) => "degraded",
        },
        version: env!("CARGO_PKG_VERSION"),
        sessions: app.registry.count(),
        parts: &app.parts,
    })
}

/// Metrics for Prometheus, on the main port: for whoever has an API key.
pub async fn metrics(app: web::Data<AppState>, caller: Caller) -> Result<HttpResponse, ApiError> {
    if let Caller::User(_) = caller {
        return Err(ApiError::new(Code::Forbidden, "metrics need an API key"));
    }
    Ok(metrics_for_operators(app).await)
}

/// Metrics for Prometheus, on a port that only operators reach.
pub async fn metrics_for_operators(app: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(app.metrics.render())
}
