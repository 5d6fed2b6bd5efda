//! HTTP: every route on one screen.

mod address;
mod admin;
mod channel;
mod consumers;
mod health;
mod mentra;
pub mod middleware;
mod pages;
mod rooms;
pub mod server;
mod sessions;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use actix_web::{
    HttpRequest,
    error::{JsonPayloadError, PathError, QueryPayloadError},
    http::header::HeaderName,
    web::{self, ServiceConfig},
};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{
    auth::{Authenticator, admission::Admission, room_token::RoomTokenVerifier},
    consumers::Consumers,
    deny::DenyList,
    error::{ApiError, Code},
    livekit::{api::LivekitApi, egress::Egress},
    response::clip_store::Clips,
    room::Rooms,
    session::registry::SessionRegistry,
    store::history::HistoryStore,
};

pub use rooms::webhook::Webhooks;

/// The largest body of a REST request, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// What the routes work with.
pub struct AppState {
    /// Finds sessions.
    pub registry: SessionRegistry,
    /// Signs and verifies tokens.
    pub authenticator: Authenticator,
    /// Lets clients onto the control channel.
    pub admission: Admission,
    /// Where the proxy in front of the gateway puts a client's address.
    pub address_header: Option<HeaderName>,
    /// Who is in which room.
    pub rooms: Rooms,
    /// Who may not be in which room.
    pub deny: DenyList,
    /// Who else is told what clients say.
    pub consumers: Consumers,
    /// Spoken answers as files.
    pub clips: Clips,
    /// What was said.
    pub history: Arc<dyn HistoryStore>,
    /// LiveKit's API, for what a token cannot do.
    pub livekit: Option<Arc<LivekitApi>>,
    /// Reads LiveKit tokens that prove membership of a room.
    pub room_tokens: Option<RoomTokenVerifier>,
    /// LiveKit's recordings.
    pub recordings: Option<Egress>,
    /// LiveKit's webhooks.
    pub webhooks: Option<Webhooks>,
    /// The address clients reach the gateway at, where it is configured.
    pub public_url: Option<String>,
    /// The parts of the pipeline and how they are, for `/health`.
    pub parts: Vec<Part>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// The gateway is going down: it takes no new clients.
    pub draining: AtomicBool,
    /// Where `livekit-client` for browsers was installed, for the talk page.
    pub vendor_dir: std::path::PathBuf,
}

pub use health::Part;

impl AppState {
    /// Whether new clients are sent elsewhere.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Where a client that sent this request reaches the control channel.
    fn control_url(&self, request: &HttpRequest) -> String {
        format!("{}/v1/ws", self.base_url(request).replacen("http", "ws", 1))
    }

    /// Where a client that sent this request reaches the gateway.
    fn base_url(&self, request: &HttpRequest) -> String {
        self.public_url.clone().unwrap_or_else(|| {
            let connection = request.connection_info();
            format!("{}://{}", connection.scheme(), connection.host())
        })
    }
}

/// All routes.
pub fn routes(config: &mut ServiceConfig) {
    config
        .app_data(
            web::JsonConfig::default().limit(MAX_BODY).error_handler(|error, _| json_error(&error).into()),
        )
        .app_data(web::PathConfig::default().error_handler(|error, _| path_error(&error).into()))
        .app_data(web::QueryConfig::default().error_handler(|error, _| query_error(&error).into()))
        // Sessions and tokens (seeds 001, 002)
        .route("/api/sessions", web::post().to(sessions::create))
        .route("/api/sessions/{id}", web::get().to(sessions::show))
        .route("/api/sessions/{id}", web::delete().to(sessions::end))
        .route("/api/sessions/{id}/token", web::post().to(sessions::renew))
        .route("/api/sessions/{id}/guest-token", web::post().to(sessions::guest::invite))
        .route("/api/sessions/{id}/participants", web::get().to(sessions::participants))
        .route("/api/sessions/{id}/participants/{identity}", web::delete().to(sessions::removal::remove))
        .route("/api/sessions/{id}/history", web::get().to(sessions::history::of_session))
        // LiveKit (seeds 001, 003)
        .route("/api/livekit/participants", web::get().to(rooms::participants::list))
        .route("/api/livekit/participants/stream", web::get().to(rooms::participants::stream))
        .route("/api/livekit/webhook", web::post().to(rooms::webhook::receive))
        .route("/api/livekit-webhooks", web::post().to(rooms::webhook::receive))
        // Operators, by API key
        .route("/api/admin/sessions", web::get().to(admin::sessions))
        .route("/api/admin/sessions/{id}/disconnect", web::post().to(admin::disconnect))
        .route("/api/admin/rooms", web::get().to(admin::rooms))
        .route("/api/admin/rooms/{room}/stats", web::get().to(admin::room_stats))
        .route("/api/admin/rooms/{room}/recordings", web::post().to(admin::start_recording))
        .route("/api/admin/recordings", web::get().to(admin::recordings))
        .route("/api/admin/recordings/{egress_id}", web::delete().to(admin::stop_recording))
        // The control channel (protocol.md §7)
        .route("/v1/ws", web::get().to(channel::connect))
        .route("/glasses-ws", web::get().to(channel::connect_mentra))
        .route("/clips/{clip}", web::get().to(mentra::clips::fetch))
        // What MentraOS' phones call beside it (protocol.md §7.5)
        .route("/api/client/livekit/token", web::get().to(mentra::phone::livekit_token))
        .route("/api/client/audio/configure", web::post().to(mentra::phone::configure_audio))
        .route("/api/client/device/state", web::post().to(mentra::phone::device_state))
        .route("/api/client/goodbye", web::post().to(mentra::phone::goodbye))
        .route("/api/client/min-version", web::get().to(mentra::phone::min_version))
        // Backends that are told what clients say
        .route("/api/consumer/ws", web::get().to(consumers::connect))
        // Descriptions
        .route("/api/asyncapi.json", web::get().to(pages::asyncapi))
        // Operation
        .route("/livez", web::get().to(health::live))
        .route("/readyz", web::get().to(health::ready))
        .route("/health", web::get().to(health::report))
        .route("/metrics", web::get().to(health::metrics))
        // The talk page
        .route("/", web::get().to(pages::talk))
        .route("/static/{file}", web::get().to(pages::asset))
        .route("/vendor/livekit-client.js", web::get().to(pages::livekit_client))
        .default_service(web::to(not_found));
}

/// The routes of the metrics' own port.
pub fn metrics_routes(config: &mut ServiceConfig) {
    config
        .route("/metrics", web::get().to(health::metrics_for_operators))
        .default_service(web::to(not_found));
}

async fn not_found() -> Result<&'static str, ApiError> {
    Err(ApiError::new(Code::NotFound, "there is nothing here"))
}

fn json_error(error: &JsonPayloadError) -> ApiError {
    let code = match error {
        JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => Code::TooLarge,
        JsonPayloadError::ContentType => Code::UnsupportedMediaType,
        JsonPayloadError::Deserialize(_)
        | JsonPayloadError::Serialize(_)
        | JsonPayloadError::Payload(_)
        | _ => Code::InvalidRequest,
    };
    ApiError::new(code, format!("body: {error}"))
}

fn path_error(error: &PathError) -> ApiError {
    ApiError::invalid("path", error)
}

fn query_error(error: &QueryPayloadError) -> ApiError {
    ApiError::invalid("query", error)
}
