//! The whole gateway: builds its parts, serves, and stops in order.

mod media_runtime;
mod parts;

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actix::{Arbiter, ArbiterHandle};
use actix_web::web;
use rand::Rng;

use self::media_runtime::MediaRuntime;
use crate::{
    auth::{
        Authenticator, RoomKeys, admission::Admission, failures::AuthFailures, jwks::JwksError,
        room_token::RoomTokenVerifier, users::Users,
    },
    config::{Config, LivekitConfig},
    consumers::Consumers,
    deny::{DenyList, LivekitRooms},
    http::{self, AppState, Health, OriginPolicy, Webhooks, server::Server},
    limits::Limits,
    livekit::{agent::Agents, api::LivekitApi, egress::Egress, token::TokenIssuer},
    outcomes::{Outcome, Outcomes},
    protocol::{SessionOptions, edge_v1::to_client::Delivery},
    providers::{
        ProviderConfig,
        chain::ProviderRole,
        recorded::Recorded,
        registry::{Availability, Providers},
    },
    response::clip_store::Clips,
    room::{RoomService, Rooms},
    session::{Offer, Options, SessionConfig, Voice, actor::Services, registry::SessionRegistry},
    store::{
        history::HistoryStore,
        retention,
        sled::{Disk, DiskError, SledDenyList, SledHistory, SledSessions, gateway_secret},
    },
    telemetry,
    tools::Tools,
    turn::endpointer::EndpointerConfig,
};

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {cause}")]
    Bind { address: SocketAddr, cause: io::Error },
    #[error("{0}")]
    Disk(#[from] DiskError),
    #[error("{0}")]
    Jwks(#[from] JwksError),
    /// The system provides no threads.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running gateway. It must be started inside an actix system.
pub struct Gateway {
    address: SocketAddr,
    app: web::Data<AppState>,
    /// The main server, and that of the metrics.
    servers: Vec<Server>,
    disk: Disk,
    arbiters: Vec<Arbiter>,
    media: Option<MediaRuntime>,
}

impl Gateway {
    /// Builds everything and serves. What is missing (LiveKit, models) is off; the log and `/health` say so.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        install_crypto_providers();
        for note in &config.notes {
            tracing::warn!("{note}");
        }
        let metrics = telemetry::start_metrics();
        let stores = Stores::open(&config).await?;
        let providers = load_providers(&config).await?;
        let outcomes = Outcomes::default();
        let parts = parts::parts(&config, &providers);
        for message in parts.iter().filter_map(|part| part.message.as_deref()) {
            tracing::warn!("{message}");
        }
        let media = config.livekit.as_ref().map(|_| MediaRuntime::start(cores().min(4))).transpose()?;
        let livekit = config.livekit.as_ref().zip(media.as_ref()).map(|(livekit, media)| {
            Livekit::new(livekit, &config, &providers, &stores.deny, media, &outcomes.livekit)
        });
        if let Some(livekit) = &livekit {
            stores.deny.enforce_all(&livekit.api);
            actix_web::rt::spawn(LivekitApi::probe(Arc::downgrade(&livekit.api)));
        }
        if let Some(retention) = config.stores.session_retention {
            actix_web::rt::spawn(retention::run(Arc::downgrade(&stores.sessions), retention));
        }
        let authenticator = authenticator(&config, &stores, livekit.as_ref())?;
        let arbiters: Vec<Arbiter> = (0..cores()).map(|_| Arbiter::new()).collect();
        let handles: Vec<ArbiterHandle> = arbiters.iter().map(Arbiter::handle).collect();

        let api = livekit.as_ref().map(|livekit| livekit.api.clone());
        let room_tokens = livekit.as_ref().map(|livekit| livekit.room_tokens.clone());
        let room_service = api
            .clone()
            .map(|api| -> Arc<dyn RoomService> { Arc::new(LivekitRooms::new(api, stores.deny.clone())) });
        let rooms = Rooms::new(handles.clone(), config.rooms.reconcile, room_service);
        let (consumers, clips, limits) =
            (Consumers::default(), Clips::default(), Limits::new(&config.limits));
        let services = Arc::new(Services {
            config: Arc::new(session_config(
                &config,
                &providers,
                authenticator.clone(),
                room_tokens.clone(),
                limits.clone(),
            )),
            agents: livekit.as_ref().map(|livekit| livekit.agents.clone()),
            rooms: rooms.clone(),
            consumers: consumers.clone(),
            clips: clips.clone(),
            history: stores.history.clone(),
            stt: providers.stt.ready().map(|stt| Recorded::new(stt, &outcomes.stt) as _),
            llm: providers.llm.ready().map(|llm| Recorded::new(llm, &outcomes.llm) as _),
            tts: providers.tts.ready().map(|tts| Recorded::new(tts, &outcomes.tts) as _),
            excuse_voice: providers.excuse_voice.clone(),
            turn: providers.turn.ready().map(|turn| Recorded::new(turn, &outcomes.turn) as _),
            chains: providers.chains.clone(),
        });
        if let Err(invalid) = Options::new(SessionOptions::default(), &services.config.offer) {
            tracing::warn!("SESSION_LANGUAGE: {}", invalid.problem);
        }
        let (recordings, webhooks) = livekit.map(|livekit| (livekit.recordings, livekit.webhooks)).unzip();
        let registry = SessionRegistry::new(stores.sessions, services, handles);
        registry.close_abandoned();
        let auth_failures = AuthFailures::new(config.auth.failures_per_minute);
        let app = web::Data::new(AppState {
            registry,
            admission: Admission::new(authenticator.clone(), &config.connects, auth_failures.clone()),
            auth_failures,
            origin: OriginPolicy::new(&config),
            address_header: config.connects.address_header.clone(),
            authenticator,
            rooms,
            deny: stores.deny,
            consumers,
            clips,
            limits,
            max_upload_bytes: config.tools.limits.max_upload_bytes,
            history: stores.history,
            livekit: api,
            livekit_url: config.livekit.as_ref().map(|livekit| livekit.url.clone()),
            room_tokens,
            recordings,
            webhooks,
            stt_service_token: config.providers.registry.stt_services.june.key.clone(),
            public_url: config.server.public_url.clone(),
            health: Health::new(
                parts,
                outcomes,
                providers.chains,
                stores.disk.health(),
                config.stores.free_warn_bytes,
            ),
            metrics,
            draining: AtomicBool::new(false),
            vendor_dir: config.providers.registry.models.parent().unwrap_or(Path::new(".")).join("web"),
        });
        let (address, servers) = serve(&config, &app)?;
        Ok(Self { address, app, servers, disk: stores.disk, arbiters, media })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no new clients, ends all sessions, completes requests, and flushes the stores.
    pub async fn stop(self) {
        self.app.draining.store(true, Ordering::Relaxed);
        self.app.registry.shut_down().await;
        self.app.rooms.shut_down().await;
        self.app.consumers.shut_down();
        for server in self.servers {
            server.stop().await;
        }
        for arbiter in self.arbiters {
            arbiter.stop();
            if arbiter.join().is_err() {
                tracing::error!("an arbiter panicked");
            }
        }
        drop(self.media);
        if let Err(error) = self.disk.sync().await {
            tracing::error!(%error, "the last writes are not durable");
        }
        tracing::info!("stopped");
    }
}

/// Selects one of several linked providers of cryptography. Fails if a gateway in this process has done so before.
pub(crate) fn install_crypto_providers() {
    // For TLS, LiveKit's client links ring and str0m aws-lc.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Otherwise livekit-api installs one for JWTs that knows HMAC only, and users' tokens of other algorithms could not
    // be verified.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

/// What is kept on disk.
struct Stores {
    disk: Disk,
    sessions: Arc<SledSessions>,
    history: Arc<dyn HistoryStore>,
    deny: DenyList,
    /// Signs control tokens, where the settings have no secret for that.
    control_secret: Vec<u8>,
}

impl Stores {
    async fn open(config: &Config) -> Result<Self, DiskError> {
        let folder = &config.stores.data_dir;
        let disk = Disk::open(folder)?;
        let deny = DenyList::open(Arc::new(SledDenyList::new(disk.clone())), config.rooms.deny_ttl).await;
        Ok(Self {
            sessions: Arc::new(SledSessions::new(disk.clone(), config.session.ttl)?),
            history: Arc::new(SledHistory::new(disk.clone())),
            deny: deny.map_err(|error| DiskError::of_store(folder, error))?,
            control_secret: gateway_secret(&disk, "control", || rand::rng().random::<[u8; 32]>().to_vec())?,
            disk,
        })
    }
}

async fn load_providers(config: &Config) -> io::Result<Providers> {
    let checked_models = Some(config.stores.data_dir.join("models.checked"));
    let config = ProviderConfig { checked_models, ..config.providers.registry.clone() };
    web::block(move || Providers::load(&config)).await.map_err(io::Error::other)
}

/// What a gateway with LiveKit has.
struct Livekit {
    api: Arc<LivekitApi>,
    issuer: TokenIssuer,
    room_tokens: RoomTokenVerifier,
    agents: Agents,
    recordings: Egress,
    webhooks: Webhooks,
}

impl Livekit {
    fn new(
        livekit: &LivekitConfig,
        config: &Config,
        providers: &Providers,
        deny: &DenyList,
        media: &MediaRuntime,
        outcome: &Outcome,
    ) -> Self {
        let speech_in_room = config.session.delivery == Delivery::Room;
        let speech_rate_hz = providers.tts.ready().filter(|_| speech_in_room).map(|tts| tts.sample_rate_hz());
        let issuer = TokenIssuer::new(livekit, speech_in_room);
        let api = Arc::new(LivekitApi::new(livekit, outcome.clone()));
        Self {
            agents: Agents::new(
                livekit,
                issuer.clone(),
                media.handle(),
                outcome.clone(),
                speech_rate_hz,
                config.limits.participants,
            ),
            room_tokens: RoomTokenVerifier::new(livekit, deny.clone()),
            recordings: Egress::new(livekit, config.rooms.egress_file_prefix.clone()),
            webhooks: Webhooks::new(livekit),
            issuer,
            api,
        }
    }
}

fn authenticator(
    config: &Config,
    stores: &Stores,
    livekit: Option<&Livekit>,
) -> Result<Authenticator, JwksError> {
    let room_keys =
        livekit.map(|livekit| RoomKeys { issuer: livekit.issuer.clone(), deny: stores.deny.clone() });
    let users = Users::new(&config.auth)?;
    Ok(Authenticator::new(&config.auth, users, &stores.control_secret, room_keys))
}

fn session_config(
    config: &Config,
    providers: &Providers,
    authenticator: Authenticator,
    room_tokens: Option<RoomTokenVerifier>,
    limits: Limits,
) -> SessionConfig {
    SessionConfig {
        grace: config.session.grace,
        heartbeat: config.session.heartbeat,
        client_timeout: config.session.client_timeout,
        offer: offer(config, providers),
        system_prompt: config.providers.system_prompt.clone(),
        stt: match &providers.stt {
            Availability::Ready(stt) => Ok(stt.name()),
            Availability::Off(reason) => Err(reason.clone()),
        },
        detectors: providers.vad.factory(),
        endpointer: EndpointerConfig {
            pre_roll: config.session.pre_roll,
            min_silence: config.session.end_of_turn.usual_silence,
            ..EndpointerConfig::default()
        },
        end_of_turn: config.session.end_of_turn,
        judges_pauses: providers.turn.ready().is_some(),
        preempts: config.session.preempts,
        voice: providers
            .tts
            .ready()
            .map(|tts| Voice { rate_hz: tts.sample_rate_hz(), delivery: config.session.delivery }),
        livekit: config.livekit.is_some(),
        client_vad_percent: config.session.client_vad_percent,
        agent_idle: config.session.agent_idle,
        memory: config.session.memory,
        limits,
        answer_time: config.limits.answer_time,
        answer_chars: config.limits.answer_chars,
        excuses: config.providers.excuses.clone(),
        tools: config.tools.limits.clone(),
        authenticator,
        room_tokens,
    }
}

/// What sessions choose from.
fn offer(config: &Config, providers: &Providers) -> Offer {
    let names = |role| {
        let chain = providers.chains.iter().find(|chain| chain.role() == role);
        chain.map(|chain| chain.names().to_vec()).unwrap_or_default()
    };
    Offer {
        language: config.session.language.clone(),
        stt: providers.stt.ready().cloned(),
        tts: providers.tts.ready().cloned(),
        stt_names: names(ProviderRole::Stt),
        llm_names: names(ProviderRole::Llm),
        tts_names: names(ProviderRole::Tts),
        llm_translators: providers.llm.ready().map(|llm| llm.translators()).unwrap_or_default(),
        participants: if config.livekit.is_some() { config.limits.participants } else { 0 },
        tools: Tools::start(&config.tools),
    }
}

/// Starts the servers; returns the address of the main one.
fn serve(config: &Config, app: &web::Data<AppState>) -> Result<(SocketAddr, Vec<Server>), StartError> {
    let start = |address, workers, routes: fn(&mut web::ServiceConfig)| {
        Server::start(address, workers, routes, &config.server, app)
            .map_err(|cause| StartError::Bind { address, cause })
    };
    let main = start(config.server.bind, cores(), http::routes)?;
    let address = main.address();
    let mut servers = vec![main];
    if let Some(bind) = config.telemetry.metrics_bind {
        servers.push(start(bind, 1, http::metrics_routes)?);
    }
    tracing::info!(%address, "listening");
    Ok((address, servers))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
