//! What every route works with.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actix_web::{HttpRequest, http::header::HeaderName};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    auth::{Authenticator, admission::Admission, failures::AuthFailures, room_token::RoomTokenVerifier},
    consumers::Consumers,
    deny::DenyList,
    http::{Health, Webhooks, error::ApiError, middleware::origin::OriginPolicy},
    limits::Limits,
    livekit::{api::LivekitApi, egress::Egress},
    response::clip_store::Clips,
    room::Rooms,
    secret::Secret,
    session::registry::SessionRegistry,
    store::history::HistoryStore,
};

/// Shared by all workers of all servers; built by [`crate::gateway`].
pub(crate) struct AppState {
    pub registry: SessionRegistry,
    pub authenticator: Authenticator,
    pub admission: Admission,
    pub auth_failures: AuthFailures,
    pub origin: OriginPolicy,
    /// The header in which a proxy in front of the gateway sends the client's address.
    pub address_header: Option<HeaderName>,
    pub rooms: Rooms,
    pub deny: DenyList,
    pub consumers: Consumers,
    pub clips: Clips,
    pub limits: Limits,
    /// The largest image of a tool call, in bytes.
    pub max_upload_bytes: usize,
    pub history: Arc<dyn HistoryStore>,
    pub livekit: Option<Arc<LivekitApi>>,
    /// LiveKit's address for clients.
    pub livekit_url: Option<String>,
    pub room_tokens: Option<RoomTokenVerifier>,
    pub recordings: Option<Egress>,
    pub webhooks: Option<Webhooks>,
    /// By which an STT service of the operator's sends transcripts.
    pub stt_service_token: Option<Secret>,
    /// The gateway's address for clients; none if it is taken from each request.
    pub public_url: Option<String>,
    pub health: Health,
    pub metrics: PrometheusHandle,
    /// The gateway is shutting down and accepts no new clients.
    pub draining: AtomicBool,
    /// Where `scripts/setup` installed `livekit-client`, for the talk page.
    pub vendor_dir: PathBuf,
}

impl AppState {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn livekit(&self) -> Result<&Arc<LivekitApi>, ApiError> {
        self.livekit.as_ref().ok_or_else(ApiError::no_livekit)
    }

    pub(super) fn recordings(&self) -> Result<&Egress, ApiError> {
        self.recordings.as_ref().ok_or_else(ApiError::no_livekit)
    }

    /// The control channel's URL, for the client that sent this request.
    pub(super) fn control_url(&self, request: &HttpRequest) -> String {
        format!("{}/v1/ws", self.base_url(request).replacen("http", "ws", 1))
    }

    /// The gateway's URL, for the client that sent this request.
    pub(super) fn base_url(&self, request: &HttpRequest) -> String {
        self.public_url.clone().unwrap_or_else(|| {
            let connection = request.connection_info();
            format!("{}://{}", connection.scheme(), connection.host())
        })
    }
}
