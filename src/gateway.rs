//! The whole gateway: builds its parts, serves, and stops in order.

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
use futures::future::BoxFuture;
use rand::Rng;
use tokio::runtime::{Handle, Runtime};

use crate::{
    auth::{
        Authenticator, RoomKeys, admission::Admission, jwks::JwksError, room_token::RoomTokenVerifier,
        users::Users,
    },
    config::Config,
    consumers::Consumers,
    deny::DenyList,
    http::{self, AppState, Part, Webhooks, server::Server},
    ids::{Identity, RoomName},
    livekit::{agent::Agents, api::LivekitApi, egress::Egress, token::TokenIssuer},
    protocol::edge_v1::to_client::Delivery,
    providers::registry::{Availability, Providers},
    response::clip_store::Clips,
    room::{RoomService, Rooms, Unreachable, roster::Participant},
    session::{SessionConfig, Voice, actor::Services, registry::SessionRegistry},
    store::{
        history::HistoryStore,
        sessions::SessionStore,
        sled::{Disk, DiskError, history::SledHistory},
    },
    telemetry,
    turn::endpointer::EndpointerConfig,
};

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken, or not ours to take.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// The data folder.
    #[error("{0}")]
    Disk(#[from] DiskError),
    /// The keys that users' tokens are verified by.
    #[error("{0}")]
    Jwks(#[from] JwksError),
    /// The system gives no threads.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A gateway at work. It must be started inside an actix system.
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
    /// Builds everything and serves. What is missing (LiveKit, models) is off, and says so.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // Two crypto providers are linked (LiveKit's client brings ring, str0m aws-lc): TLS needs one to
        // be chosen. A second gateway in the process finds it chosen already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // LiveKit's token code makes a provider that knows HMAC alone the process's own, unless there is
        // one: then no user's token of another algorithm could be verified any more.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();

        let metrics = telemetry::start_metrics();
        let disk = Disk::open(&config.data_dir)?;
        let records = SessionStore::new(disk.clone(), config.session.ttl)?;
        let history: Arc<dyn HistoryStore> = Arc::new(SledHistory::new(disk.clone())?);
        let provider_config = config.providers.registry.clone();
        let providers =
            web::block(move || Providers::load(&provider_config)).await.map_err(io::Error::other)?;
        let arbiters: Vec<Arbiter> = (0..cores()).map(|_| Arbiter::new()).collect();
        let handles: Vec<ArbiterHandle> = arbiters.iter().map(Arbiter::handle).collect();

        let speech_in_room = config.session.delivery == Delivery::Room;
        let issuer = config.livekit.as_ref().map(|livekit| TokenIssuer::new(livekit, speech_in_room));
        let control_secret = records.secret("control", || rand::rng().random::<[u8; 32]>().to_vec())?;
        let deny = DenyList::open(disk.clone(), config.session.deny_ttl)?;
        let room_keys = issuer.clone().map(|issuer| RoomKeys { issuer, deny: deny.clone() });
        let users = Users::new(&config.auth)?;
        let authenticator = Authenticator::new(&config.auth, users, &control_secret, room_keys);
        let livekit = config.livekit.as_ref().map(|livekit| Arc::new(LivekitApi::new(livekit)));
        if let Some(livekit) = &livekit {
            deny.sweep(livekit);
        }
        let media = config.livekit.as_ref().map(|_| MediaRuntime::start()).transpose()?;
        let speech_rate_hz = providers.tts.ready().filter(|_| speech_in_room).map(|tts| tts.sample_rate_hz());
        let agents = match (&config.livekit, issuer, &media) {
            (Some(livekit), Some(issuer), Some(media)) => {
                Some(Agents::new(livekit, issuer, media.handle(), speech_rate_hz))
            }
            _ => None,
        };
        let room_service = livekit
            .clone()
            .map(|api| -> Arc<dyn RoomService> { Arc::new(LivekitRooms { api, deny: deny.clone() }) });
        let rooms = Rooms::new(handles.clone(), config.rooms.reconcile, room_service);
        let room_tokens =
            config.livekit.as_ref().map(|livekit| RoomTokenVerifier::new(livekit, deny.clone()));
        let parts = parts(&config, &providers);

        let (consumers, clips) = (Consumers::default(), Clips::default());
        let services = Arc::new(Services {
            config: Arc::new(session_config(&config, &providers, authenticator.clone(), room_tokens.clone())),
            agents,
            rooms: rooms.clone(),
            consumers: consumers.clone(),
            clips: clips.clone(),
            history: history.clone(),
            stt: providers.stt.ready().cloned(),
            llm: providers.llm.ready().cloned(),
            tts: providers.tts.ready().cloned(),
        });
        let app = web::Data::new(AppState {
            registry: SessionRegistry::new(records, services, handles),
            admission: Admission::new(authenticator.clone(), &config.connects),
            address_header: config.connects.address_header.clone(),
            authenticator,
            rooms,
            deny,
            consumers,
            clips,
            history,
            livekit,
            room_tokens,
            recordings: config
                .livekit
                .as_ref()
                .map(|livekit| Egress::new(livekit, config.egress_file_prefix.clone())),
            webhooks: config.livekit.as_ref().map(Webhooks::new),
            public_url: config.public_url.clone(),
            parts,
            metrics,
            draining: AtomicBool::new(false),
            vendor_dir: config.providers.registry.models.parent().unwrap_or(Path::new(".")).join("web"),
        });

        let serve = |address, workers, routes: fn(&mut web::ServiceConfig)| {
            Server::start(address, workers, routes, &app).map_err(|cause| StartError::Bind { address, cause })
        };
        let mut servers = vec![serve(config.bind, cores(), http::routes)?];
        let address = servers[0].address();
        if let Some(bind) = config.metrics_bind {
            servers.push(serve(bind, 1, http::metrics_routes)?);
        }
        tracing::info!(%address, "listening");
        Ok(Self { address, app, servers, disk, arbiters, media })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The parts of the pipeline and how they are.
    pub fn parts(&self) -> &[Part] {
        &self.app.parts
    }

    /// Says good-bye to every client, finishes what is under way, and makes everything durable.
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
                tracing::error!("an arbiter ended badly");
            }
        }
        drop(self.media);
        if let Err(error) = self.disk.sync() {
            tracing::error!(%error, "the last writes are not durable");
        }
        tracing::info!("stopped");
    }
}

/// Who is in rooms, by LiveKit's API, and who is denied them.
struct LivekitRooms {
    api: Arc<LivekitApi>,
    deny: DenyList,
}

impl RoomService for LivekitRooms {
    fn participants(&self, room: RoomName) -> BoxFuture<'static, Result<Vec<Participant>, Unreachable>> {
        let api = self.api.clone();
        // The API logs the cause.
        Box::pin(async move { api.participants(&room).await.map_err(|_| Unreachable) })
    }

    fn enforce(&self, room: &RoomName, identity: &Identity) {
        self.deny.seen(&self.api, room, identity);
    }
}

/// The runtime of the media agents: apart from HTTP and sessions, so that neither delays sound.
struct MediaRuntime(Option<Runtime>);

impl MediaRuntime {
    fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores().min(4))
            .thread_name("media")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is taken only when it is dropped").handle().clone()
    }
}

impl Drop for MediaRuntime {
    /// A runtime that is dropped waits for its tasks, which must not happen on one that serves.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn session_config(
    config: &Config,
    providers: &Providers,
    authenticator: Authenticator,
    room_tokens: Option<RoomTokenVerifier>,
) -> SessionConfig {
    SessionConfig {
        grace: config.session.grace,
        heartbeat: config.session.heartbeat,
        client_timeout: config.session.client_timeout,
        language: config.session.language.clone(),
        system_prompt: config.providers.system_prompt.clone(),
        stt: match &providers.stt {
            Availability::Ready(stt) => Ok(stt.name()),
            Availability::Off(why) => Err(why.clone()),
        },
        detectors: {
            let detectors = providers.detectors.clone();
            Arc::new(move || detectors.detector())
        },
        endpointer: EndpointerConfig { pre_roll: config.session.pre_roll, ..EndpointerConfig::default() },
        voice: providers
            .tts
            .ready()
            .map(|tts| Voice { rate_hz: tts.sample_rate_hz(), delivery: config.session.delivery }),
        livekit: config.livekit.is_some(),
        client_vad_percent: config.session.client_vad_percent,
        agent_idle: config.session.agent_idle,
        memory: config.session.memory,
        authenticator,
        room_tokens,
    }
}

fn parts(config: &Config, providers: &Providers) -> Vec<Part> {
    fn part<T: ?Sized>(
        part: &'static str,
        part_: &Availability<T>,
        name: impl Fn(&T) -> &'static str,
    ) -> Part {
        match part_ {
            Availability::Ready(part_) => {
                Part { part, provider: name(part_).into(), ready: true, message: None }
            }
            Availability::Off(why) => {
                Part { part, provider: "none".into(), ready: false, message: Some(why.clone()) }
            }
        }
    }
    vec![
        match &config.livekit {
            Some(livekit) => {
                Part { part: "livekit", provider: livekit.url.clone(), ready: true, message: None }
            }
            None => Part {
                part: "livekit",
                provider: "none".into(),
                ready: false,
                message: Some("no LIVEKIT_URL: clients send audio on the control channel".into()),
            },
        },
        Part {
            part: "vad",
            provider: providers.detectors.name().into(),
            ready: providers.detectors.off().is_none(),
            message: providers.detectors.off().map(str::to_owned),
        },
        part("transcriber", &providers.stt, |part_| part_.name()),
        part("thinker", &providers.llm, |part_| part_.name()),
        part("speaker", &providers.tts, |part_| part_.name()),
    ]
}

/// How many things can happen at once.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
