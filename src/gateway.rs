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
use rand::Rng;
use tokio::runtime::{Handle, Runtime};

use crate::{
    agent::{Agents, token::TokenIssuer},
    ai::minds::{Mind, Minds},
    auth::{Keys, RoomKeys, admission::Admission, jwks::JwksError, users::Users},
    clips::Clips,
    config::Config,
    consumers::Consumers,
    deny::Deny,
    disk::{Disk, DiskError},
    history::{HistoryStore, sled::SledHistory},
    http::{self, Part, Site, Webhooks, server::Server},
    livekit::LivekitApi,
    protocol::to_client::Delivery,
    recordings::Recordings,
    room::{Rooms, passes::Passes},
    session::{actor::Services, answer::Voice, directory::Directory, machine::Settings, records::Records},
    speech::gate::GateSettings,
    telemetry,
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
    Keys(#[from] JwksError),
    /// The system gives no threads.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A gateway at work. It must be started inside an actix system.
pub struct Gateway {
    address: SocketAddr,
    site: web::Data<Site>,
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
        let records = Records::new(disk.clone(), config.session.ttl)?;
        let history: Arc<dyn HistoryStore> = Arc::new(SledHistory::new(disk.clone())?);
        let settings_of_minds = config.ai.minds.clone();
        let minds = web::block(move || Minds::load(&settings_of_minds)).await.map_err(io::Error::other)?;
        let arbiters: Vec<Arbiter> = (0..cores()).map(|_| Arbiter::new()).collect();
        let handles: Vec<ArbiterHandle> = arbiters.iter().map(Arbiter::handle).collect();

        let speech_in_room = config.session.delivery == Delivery::Room;
        let issuer = config.livekit.as_ref().map(|livekit| TokenIssuer::new(livekit, speech_in_room));
        let control_secret = records.secret("control", || rand::rng().random::<[u8; 32]>().to_vec())?;
        let deny = Deny::open(disk.clone(), config.session.deny_ttl)?;
        let room_keys = issuer.clone().map(|issuer| RoomKeys { issuer, deny: deny.clone() });
        let users = Users::new(&config.auth)?;
        let keys = Keys::new(&config.auth, users, &control_secret, room_keys);
        let livekit = config.livekit.as_ref().map(|livekit| Arc::new(LivekitApi::new(livekit)));
        if let Some(livekit) = &livekit {
            deny.sweep(livekit);
        }
        let media = config.livekit.as_ref().map(|_| MediaRuntime::start()).transpose()?;
        let speech_rate_hz =
            minds.speaker.ready().filter(|_| speech_in_room).map(|speaker| speaker.sample_rate_hz());
        let agents = match (&config.livekit, issuer, &media) {
            (Some(livekit), Some(issuer), Some(media)) => {
                Some(Agents::new(livekit, issuer, media.handle(), speech_rate_hz))
            }
            _ => None,
        };
        let rooms = Rooms::new(handles.clone(), config.rooms.reconcile, livekit.clone(), deny.clone());
        let passes = config.livekit.as_ref().map(|livekit| Passes::new(livekit, deny.clone()));
        let parts = parts(&config, &minds);

        let (consumers, clips) = (Consumers::default(), Clips::default());
        let services = Arc::new(Services {
            settings: Arc::new(settings(&config, &minds)),
            keys: keys.clone(),
            agents,
            rooms: rooms.clone(),
            passes: passes.clone(),
            consumers: consumers.clone(),
            clips: clips.clone(),
            history: history.clone(),
            detectors: minds.detectors.clone(),
            gate: GateSettings { pre_roll: config.session.pre_roll, ..GateSettings::default() },
            transcriber: minds.transcriber.ready().cloned(),
            thinker: minds.thinker.ready().cloned(),
            speaker: minds.speaker.ready().cloned(),
        });
        let site = web::Data::new(Site {
            directory: Directory::new(records, services, handles),
            admission: Admission::new(keys.clone(), &config.connects),
            address_header: config.connects.address_header.clone(),
            keys,
            rooms,
            deny,
            consumers,
            clips,
            history,
            livekit,
            passes,
            recordings: config
                .livekit
                .as_ref()
                .map(|livekit| Recordings::new(livekit, config.egress_file_prefix.clone())),
            webhooks: config.livekit.as_ref().map(Webhooks::new),
            public_url: config.public_url.clone(),
            parts,
            metrics,
            draining: AtomicBool::new(false),
            vendor_dir: config.ai.minds.models.parent().unwrap_or(Path::new(".")).join("web"),
        });

        let serve = |address, workers, routes: fn(&mut web::ServiceConfig)| {
            Server::start(address, workers, routes, &site)
                .map_err(|cause| StartError::Bind { address, cause })
        };
        let mut servers = vec![serve(config.bind, cores(), http::routes)?];
        let address = servers[0].address();
        if let Some(bind) = config.metrics_bind {
            servers.push(serve(bind, 1, http::metrics_routes)?);
        }
        tracing::info!(%address, "listening");
        Ok(Self { address, site, servers, disk, arbiters, media })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The parts of the pipeline and how they are.
    pub fn parts(&self) -> &[Part] {
        &self.site.parts
    }

    /// Says good-bye to every client, finishes what is under way, and makes everything durable.
    pub async fn stop(self) {
        self.site.draining.store(true, Ordering::Relaxed);
        self.site.directory.shut_down().await;
        self.site.rooms.shut_down().await;
        self.site.consumers.shut_down();
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

fn settings(config: &Config, minds: &Minds) -> Settings {
    Settings {
        grace: config.session.grace,
        heartbeat: config.session.heartbeat,
        dead_after: config.session.dead_after,
        language: config.session.language.clone(),
        system_prompt: config.ai.system_prompt.clone(),
        transcriber: match &minds.transcriber {
            Mind::Ready(transcriber) => Ok(transcriber.name()),
            Mind::Off(why) => Err(why.clone()),
        },
        voice: minds
            .speaker
            .ready()
            .map(|speaker| Voice { rate_hz: speaker.sample_rate_hz(), delivery: config.session.delivery }),
        livekit: config.livekit.is_some(),
        client_vad_percent: config.session.client_vad_percent,
        agent_idle: config.session.agent_idle,
    }
}

fn parts(config: &Config, minds: &Minds) -> Vec<Part> {
    fn part<T: ?Sized>(part: &'static str, mind: &Mind<T>, name: impl Fn(&T) -> &'static str) -> Part {
        match mind {
            Mind::Ready(mind) => Part { part, provider: name(mind).into(), ready: true, message: None },
            Mind::Off(why) => {
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
            provider: minds.detectors.name().into(),
            ready: minds.detectors.off().is_none(),
            message: minds.detectors.off().map(str::to_owned),
        },
        part("transcriber", &minds.transcriber, |mind| mind.name()),
        part("thinker", &minds.thinker, |mind| mind.name()),
        part("speaker", &minds.speaker, |mind| mind.name()),
    ]
}

/// How many things can happen at once.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
