//! All settings, from the environment, checked as a whole before anything is bound.
//!
//! The README has the table of settings. Every problem is reported at once, one line each; secrets
//! never show in a `Debug` print.

mod auth;

pub use auth::{AuthConfig, ConnectConfig, JwksConfig, JwksSource};

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use crate::{
    livekit::token::MAX_TOKEN_TTL,
    protocol::edge_v1::to_client::Delivery,
    providers::registry::{GeminiSettings, OpenAiSettings, ProviderConfig, cache_folder},
    secret::Secret,
    turn::endpointer::{EndpointerConfig, MAX_PRE_ROLL, MIN_PRE_ROLL},
};

/// Everything a gateway needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTP is served.
    pub bind: SocketAddr,
    /// Where metrics are served to an operator's network, without a key (`METRICS_PORT`); where absent
    /// they are at `/metrics` of the main port, with one.
    pub metrics_bind: Option<SocketAddr>,
    /// The address clients reach the gateway at, where it is not the one they came by (`PUBLIC_URL`).
    pub public_url: Option<String>,
    /// Where history, sessions and secrets are kept.
    pub data_dir: PathBuf,
    /// LiveKit; none switches media over LiveKit off.
    pub livekit: Option<LivekitConfig>,
    /// Who may ask for what.
    pub auth: AuthConfig,
    /// How often they may try.
    pub connects: ConnectConfig,
    /// Sessions and their timers.
    pub session: SessionConfig,
    /// Who is in which room.
    pub rooms: RoomConfig,
    /// Models and providers.
    pub providers: ProvidersConfig,
    /// Where LiveKit's egress service puts recordings: the beginning of their paths
    /// (`EGRESS_FILE_PREFIX`).
    pub egress_file_prefix: String,
    /// How logs are written.
    pub log: LogConfig,
    /// What is no problem, but worth a line in the log.
    pub notes: Vec<&'static str>,
}

/// How LiveKit is reached.
#[derive(Clone, Debug)]
pub struct LivekitConfig {
    /// What clients are given (`LIVEKIT_URL` or `LIVEKIT_WS_URL`): `ws://` or `wss://`.
    pub url: String,
    /// What the gateway itself connects to, where it is another address (`LIVEKIT_INTERNAL_URL`).
    pub internal_url: String,
    /// `LIVEKIT_API_KEY`
    pub api_key: String,
    /// `LIVEKIT_API_SECRET`
    pub api_secret: Secret,
    /// The shortest wait before joining a room again (`LIVEKIT_REJOIN_BACKOFF_MS`).
    pub rejoin_backoff: Duration,
}

/// Sessions and their timers.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// `SESSION_GRACE_MS`
    pub grace: Duration,
    /// `SESSION_HEARTBEAT_MS`
    pub heartbeat: Duration,
    /// `SESSION_DEAD_AFTER_MS`
    pub client_timeout: Duration,
    /// How many items of the user's earlier conversations a new session remembers; 0 for none.
    pub memory: usize,
    /// How long a session that nobody attached to is kept (`SESSION_TTL_MS`).
    pub ttl: Duration,
    /// How long somebody who was removed from a room is kept out (`DENY_TTL_MS`).
    pub deny_ttl: Duration,
    /// `SESSION_LANGUAGE`
    pub language: String,
    /// `SPEECH_DELIVERY`
    pub delivery: Delivery,
    /// How much an utterance has of what came before its first speech (`PRE_ROLL_MS`).
    pub pre_roll: Duration,
    /// Of how many users in a hundred the clients' own voice detection is trusted (`CLIENT_VAD_PERCENT`).
    pub client_vad_percent: u8,
    /// How long the agent stays in a room without a microphone (`AGENT_IDLE_MS`).
    pub agent_idle: Duration,
}

/// Who is in which room.
#[derive(Clone, Debug)]
pub struct RoomConfig {
    /// How often LiveKit is asked who is in a room that somebody watches (`ROSTER_RECONCILE_MS`).
    pub reconcile: Duration,
}

/// Models and providers.
#[derive(Clone, Debug)]
pub struct ProvidersConfig {
    /// Which models and providers, and where they are: `JUNE_MODELS` (else `models` in the cache folder),
    /// `VAD`, `STT_WORKERS`, `TTS_WORKERS`, `THINKER`, `OPENAI_BASE_URL`, `OPENAI_API_KEY`, `GEMINI_API_KEY`,
    /// `LLM_MODEL`.
    pub registry: ProviderConfig,
    /// `SYSTEM_PROMPT`
    pub system_prompt: String,
}

/// How logs are written.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `RUST_LOG`
    pub filter: String,
    /// `LOG_FORMAT=json`
    pub json: bool,
}

/// Everything that is wrong with the settings, one line each.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// The development key pair of seed 001, for a LiveKit server on the same machine.
const DEV_KEY: &str = "devkey";
const DEV_SECRET: &str = "secret";
const DEV_LIVEKIT_URL: &str = "ws://127.0.0.1:7880";

/// Items of earlier conversations that a session remembers.
const DEFAULT_MEMORY: usize = 12;
/// The language model reads no more messages than this.
const MAX_MEMORY: usize = 24;

const DEFAULT_SYSTEM_PROMPT: &str = "You are June, a voice assistant in a pair of glasses. \
Your answers are spoken aloud: be brief and plain, in one to three short sentences, without lists, \
markup or emoji.";

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads settings by name; empty ones count as absent.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut env = Reader { get: &get, problems: Vec::new() };

        let auth = env.auth();
        let config = Self {
            bind: env.bind(auth.api_keys.is_empty()),
            metrics_bind: env
                .parsed("METRICS_PORT")
                .map(|port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)),
            public_url: env.url("PUBLIC_URL", &["http", "https"]),
            data_dir: env.path("DATA_DIR").unwrap_or_else(|| "data".into()),
            livekit: env.livekit(auth.api_keys.is_empty()),
            session: SessionConfig {
                grace: env.millis("SESSION_GRACE_MS", 60_000),
                heartbeat: env.millis("SESSION_HEARTBEAT_MS", 10_000),
                client_timeout: env.millis("SESSION_DEAD_AFTER_MS", 30_000),
                memory: env.memory("SESSION_MEMORY"),
                ttl: env.millis("SESSION_TTL_MS", 3_600_000),
                deny_ttl: env.deny_ttl(),
                language: env.text("SESSION_LANGUAGE").unwrap_or_else(|| "en-US".into()),
                delivery: env
                    .choice("SPEECH_DELIVERY", &[("ws", Delivery::Ws), ("room", Delivery::Room)])
                    .unwrap_or_default(),
                pre_roll: env.pre_roll(),
                client_vad_percent: env.percent("CLIENT_VAD_PERCENT", 100),
                agent_idle: env.millis("AGENT_IDLE_MS", 300_000),
            },
            rooms: RoomConfig { reconcile: env.millis("ROSTER_RECONCILE_MS", 30_000) },
            providers: env.providers(),
            egress_file_prefix: env.text("EGRESS_FILE_PREFIX").unwrap_or_else(|| "recordings/".into()),
            log: LogConfig {
                filter: env.text("RUST_LOG").unwrap_or_else(|| DEFAULT_LOG_FILTER.into()),
                json: env.choice("LOG_FORMAT", &[("text", false), ("json", true)]).unwrap_or_default(),
            },
            connects: env.connects(),
            notes: env.notes(&auth),
            auth,
        };
        if env.problems.is_empty() { Ok(config) } else { Err(ConfigError(env.problems)) }
    }
}

/// Ours at `info`; what the libraries say only where it is worth waking somebody. `genai` is off: it
/// quotes a provider's refusal word by word, which may have a key in it.
const DEFAULT_LOG_FILTER: &str = "info,actix_server=warn,genai=off,livekit=error,livekit_signaling=error,libwebrtc=warn,str0m=error,ort=warn";

/// Reads variables and collects what is wrong with them.
struct Reader<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::new)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    fn problem(&mut self, name: &str, problem: impl fmt::Display) {
        self.problems.push(format!("{name}: {problem}"));
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(name, format!("\"{text}\" makes no sense here ({error})"));
                None
            }
        }
    }

    fn millis(&mut self, name: &str, default: u64) -> Duration {
        let millis = self.parsed(name).unwrap_or(default);
        if millis == 0 {
            self.problem(name, "must be more than 0 milliseconds");
        }
        Duration::from_millis(millis)
    }

    /// An entry that ended before the last token of whom it is about would let them back in.
    fn deny_ttl(&mut self) -> Duration {
        let ttl = self.millis("DENY_TTL_MS", 900_000);
        if ttl < MAX_TOKEN_TTL {
            let least = MAX_TOKEN_TTL.as_millis();
            self.problem("DENY_TTL_MS", format!("must be at least {least}: tokens live that long"));
        }
        ttl
    }

    fn pre_roll(&mut self) -> Duration {
        let pre_roll = self.millis("PRE_ROLL_MS", EndpointerConfig::default().pre_roll.as_millis() as u64);
        if !(MIN_PRE_ROLL..=MAX_PRE_ROLL).contains(&pre_roll) {
            self.problem("PRE_ROLL_MS", "must be 100 to 5000");
        }
        pre_roll
    }

    /// Items of earlier conversations: `off`, or how many.
    fn memory(&mut self, name: &str) -> usize {
        let items = match self.text(name).as_deref() {
            None => DEFAULT_MEMORY,
            Some("off") => 0,
            Some(_) => self.parsed(name).unwrap_or(DEFAULT_MEMORY),
        };
        if items > MAX_MEMORY {
            self.problem(name, format!("must be off, or at most {MAX_MEMORY}"));
        }
        items
    }

    fn percent(&mut self, name: &str, default: u8) -> u8 {
        let percent = self.parsed(name).unwrap_or(default);
        if percent > 100 {
            self.problem(name, "must be 0 to 100");
        }
        percent
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.problem(name, format!("\"{text}\" is none of {}", words.join(", ")));
        }
        found
    }

    fn url(&mut self, name: &str, schemes: &[&str]) -> Option<String> {
        let text = self.text(name)?;
        let host = schemes.iter().find_map(|scheme| text.strip_prefix(&format!("{scheme}://")));
        if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            let forms: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://host")).collect();
            self.problem(name, format!("\"{text}\" should look like {}", forms.join(" or ")));
            return None;
        }
        Some(text.trim_end_matches('/').to_owned())
    }

    /// Without API keys anybody who reaches the gateway may use it: then only this machine may reach it.
    fn bind(&mut self, open: bool) -> SocketAddr {
        let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let host = self.parsed("HOST").unwrap_or(if open { loopback } else { everywhere });
        if open && !host.is_loopback() {
            self.problem(
                "HOST",
                format!("{host} would be open to everybody: set API_KEYS, or bind to 127.0.0.1"),
            );
        }
        SocketAddr::new(host, self.parsed("PORT").unwrap_or(8080))
    }

    fn notes(&self, auth: &AuthConfig) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if auth.api_keys.is_empty() {
            notes.push("no API_KEYS: open to everybody on this machine, and bound to loopback only");
        }
        if auth.may_lack_exp {
            notes.push("MENTRA_COMPAT_NO_EXP: users' tokens without exp are good for ever");
        }
        if self.text("LIVEKIT_WEBHOOK_SECRET").is_some() {
            // Seed 003 has it, LiveKit doesn't.
            notes.push("LIVEKIT_WEBHOOK_SECRET is ignored: LiveKit signs webhooks with LIVEKIT_API_SECRET");
        }
        notes
    }

    fn livekit(&mut self, open: bool) -> Option<LivekitConfig> {
        if self.text("LIVEKIT_URL").as_deref() == Some("off") {
            return None;
        }
        let schemes = ["ws", "wss", "http", "https"];
        let url = self.url("LIVEKIT_URL", &schemes).or_else(|| self.url("LIVEKIT_WS_URL", &schemes));
        let internal_url = self.url("LIVEKIT_INTERNAL_URL", &schemes);
        let key = self.text("LIVEKIT_API_KEY");
        let secret = self.secret("LIVEKIT_API_SECRET");
        let rejoin_backoff = self.millis("LIVEKIT_REJOIN_BACKOFF_MS", 2_000);

        let nothing_said = url.is_none() && key.is_none() && secret.is_none();
        if nothing_said && !open {
            // With keys this is a deployment; it must not fall back to well-known secrets.
            return None;
        }
        let (api_key, api_secret) = match (key, secret) {
            (Some(key), Some(secret)) => (key, secret),
            (None, None) if nothing_said => (DEV_KEY.to_owned(), Secret::new(DEV_SECRET)),
            (key, _) => {
                let missing = if key.is_none() { "LIVEKIT_API_KEY" } else { "LIVEKIT_API_SECRET" };
                self.problem(missing, "is needed to sign LiveKit tokens");
                return None;
            }
        };
        let url = url.unwrap_or_else(|| DEV_LIVEKIT_URL.to_owned());
        Some(LivekitConfig {
            internal_url: internal_url.unwrap_or_else(|| url.clone()),
            url,
            api_key,
            api_secret,
            rejoin_backoff,
        })
    }

    fn providers(&mut self) -> ProvidersConfig {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let model = self.text("LLM_MODEL");
        let (openai_url, openai_key) =
            (self.url("OPENAI_BASE_URL", &["http", "https"]), self.secret("OPENAI_API_KEY"));
        let openai = (openai_url.is_some() || openai_key.is_some()).then(|| OpenAiSettings {
            base_url: openai_url,
            key: openai_key,
            model: model.clone().unwrap_or_else(|| "gpt-4o-mini".into()),
        });
        let gemini = self.secret("GEMINI_API_KEY").map(|key| GeminiSettings {
            base_url: None,
            key,
            model: model.unwrap_or_else(|| "gemini-2.5-flash".into()),
        });
        let models = self.path("JUNE_MODELS").unwrap_or_else(|| {
            cache_folder(|name| self.text(name)).unwrap_or_else(|| ".cache".into()).join("models")
        });
        ProvidersConfig {
            registry: ProviderConfig {
                models,
                stt_workers: self.workers("STT_WORKERS", cores.min(4)),
                tts_workers: self.workers("TTS_WORKERS", cores.div_ceil(2).min(4)),
                vad: self.parsed("VAD").unwrap_or_default(),
                llm: self.parsed("THINKER").unwrap_or_default(),
                openai,
                gemini,
            },
            system_prompt: self.text("SYSTEM_PROMPT").unwrap_or_else(|| DEFAULT_SYSTEM_PROMPT.into()),
        }
    }

    fn workers(&mut self, name: &str, default: usize) -> usize {
        let workers = self.parsed(name).unwrap_or(default);
        if workers == 0 || workers > 64 {
            self.problem(name, "must be 1 to 64");
        }
        workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn with_nothing_set_the_gateway_is_for_this_machine_only_and_uses_the_development_keys() {
        let config = read(&[]).unwrap();
        assert_eq!(config.bind.to_string(), "127.0.0.1:8080");
        let livekit = config.livekit.unwrap();
        assert_eq!((livekit.url.as_str(), livekit.api_key.as_str()), (DEV_LIVEKIT_URL, DEV_KEY));
    }

    #[test]
    fn an_open_gateway_refuses_to_be_reached_from_outside() {
        let Err(ConfigError(problems)) = read(&[("HOST", "0.0.0.0")]) else { panic!("is open") };
        assert!(problems[0].contains("API_KEYS"), "{problems:?}");
        assert_eq!(read(&[("API_KEYS", "a, b")]).unwrap().bind.to_string(), "[::]:8080");
    }

    #[test]
    fn a_deployment_never_falls_back_to_the_development_keys() {
        assert!(read(&[("API_KEYS", "a")]).unwrap().livekit.is_none());
        let problem = read(&[("API_KEYS", "a"), ("LIVEKIT_URL", "wss://x")]).unwrap_err();
        assert_eq!(problem.to_string(), "LIVEKIT_API_KEY: is needed to sign LiveKit tokens");
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let problems = read(&[
            ("PORT", "http"),
            ("SESSION_GRACE_MS", "0"),
            ("LIVEKIT_URL", "livekit"),
            ("THINKER", "hal"),
            ("LOG_FORMAT", "xml"),
            ("PRE_ROLL_MS", "6000"),
            ("CLIENT_VAD_PERCENT", "101"),
        ])
        .unwrap_err();
        let names: Vec<_> = problems.0.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(
            names,
            [
                "PORT",
                "LIVEKIT_URL",
                "SESSION_GRACE_MS",
                "PRE_ROLL_MS",
                "CLIENT_VAD_PERCENT",
                "THINKER",
                "LOG_FORMAT"
            ]
        );
    }

    #[test]
    fn an_entry_of_the_deny_list_outlives_every_token() {
        assert_eq!(read(&[("DENY_TTL_MS", "660000")]).unwrap().session.deny_ttl, MAX_TOKEN_TTL);
        let problem = read(&[("DENY_TTL_MS", "659999")]).unwrap_err();
        assert_eq!(problem.to_string(), "DENY_TTL_MS: must be at least 660000: tokens live that long");
    }

    #[test]
    fn both_seeds_names_of_the_livekit_address_work() {
        let keys = [("LIVEKIT_API_KEY", "k"), ("LIVEKIT_API_SECRET", "s")];
        for name in ["LIVEKIT_URL", "LIVEKIT_WS_URL"] {
            let config = read(&[keys[0], keys[1], (name, "wss://x.example/")]).unwrap();
            assert_eq!(config.livekit.unwrap().url, "wss://x.example");
        }
    }

    #[test]
    fn secrets_do_not_show_in_a_debug_print() {
        let config =
            read(&[("API_KEYS", "hush-a"), ("GEMINI_API_KEY", "hush-b"), ("AUTH_JWT_SECRET", "hush-c")]);
        assert!(!format!("{:?}", config.unwrap()).contains("hush"));
    }
}
