//! How the gateway is, for operators and their probes.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::{Site, auth::Caller};
use crate::error::ApiError;

/// A part of the pipeline and how it is.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// `livekit`, `transcriber`, `thinker`, `speaker`, `vad`
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
pub async fn ready(site: web::Data<Site>) -> HttpResponse {
    if site.is_draining() {
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
pub async fn report(site: web::Data<Site>) -> HttpResponse {
    let whole = site.parts.iter().all(|part| part.ready);
    HttpResponse::Ok().json(Report {
        status: match (site.is_draining(), whole) {
            (true, _) => "draining",
            (false, true) => "ok",
            (false, false) => "degraded",
        },
        version: env!("CARGO_PKG_VERSION"),
        sessions: site.directory.count(),
        parts: &site.parts,
    })
}

/// Metrics for Prometheus: for an operator, not for users.
pub async fn metrics(site: web::Data<Site>, caller: Caller) -> Result<HttpResponse, ApiError> {
    if let Caller::User(_) = caller {
        return Err(ApiError::new(crate::error::Code::Forbidden, "metrics need an API key"));
    }
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(site.metrics.render()))
}
