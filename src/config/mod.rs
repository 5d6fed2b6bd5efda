//! All settings, from the environment and a file, checked as a whole before anything is bound.
//!
//! docs/SETTINGS.md has the table of settings. All problems are reported at once, one line each. Secrets do not
//! appear in `Debug` output.

mod auth;
mod file;
mod limits;
mod livekit;
mod mcp;
mod names;
mod origin;
mod providers;
mod secrets;
mod server;
mod session;
mod stores;
mod stt;
mod telemetry;
mod tools;
mod tts;

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use crate::{auth::keys::KeyFile, secret::Secret};

use file::ConfigFile;

pub use auth::{AuthConfig, ConnectConfig, JwksConfig, JwksSource};
pub use limits::LimitsConfig;
pub use livekit::{LivekitConfig, MAX_TOKEN_TTL, RoomConfig};
pub use origin::OriginConfig;
pub(crate) use origin::is_loopback_host;
pub use providers::ProvidersConfig;
pub use server::{ConnectionsConfig, ServerConfig, Timeouts};
pub use session::SessionConfig;
pub use stores::StoreConfig;
pub use telemetry::TelemetryConfig;
pub use tools::ToolsConfig;

/// Settings that no part of the gateway uses yet, and what it does instead.
const NOT_SERVED_YET: [(&str, &str); 2] = [
    ("DATABASE_URL", "history and sessions are kept in DATA_DIR"),
    ("REDIS_URL", "a gateway is one machine"),
];

/// All settings of a gateway.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: ServerConfig,
    pub auth: AuthConfig,
    pub connects: ConnectConfig,
    pub origin: OriginConfig,
    /// None disables media over LiveKit.
    pub livekit: Option<LivekitConfig>,
    pub rooms: RoomConfig,
    pub session: SessionConfig,
    pub limits: LimitsConfig,
    pub providers: ProvidersConfig,
    pub tools: ToolsConfig,
    pub stores: StoreConfig,
    pub telemetry: TelemetryConfig,
    /// The file that was read, too (`JUNE_CONFIG`).
    pub file: Option<PathBuf>,
    /// What is valid, but should be known or changed: deprecated names, settings without effect, an open gateway.
    pub notes: Vec<String>,
}

/// Everything that is wrong with the settings, one line each.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    pub problems: Vec<String>,
    pub notes: Vec<String>,
}

impl Config {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Reads settings by name; empty ones count as absent.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(&get);
        reader.check_file();

        let auth = reader.auth();
        let is_open = auth.is_open();
        let mut config = Self {
            server: reader.server(is_open),
            livekit: reader.livekit(is_open),
            rooms: reader.rooms(),
            session: reader.session(),
            providers: reader.providers(),
            tools: reader.tools(),
            limits: reader.limits(),
            stores: reader.stores(),
            telemetry: reader.telemetry(),
            connects: reader.connects(),
            origin: reader.origin(is_open),
            auth,
            file: reader.file.as_ref().map(|file| file.path.clone()),
            notes: Vec::new(),
        };
        reader.check_secrets(is_open, &config.auth, config.livekit.as_ref());
        for (name, instead) in NOT_SERVED_YET {
            if reader.text(name).is_some() {
                reader.note(name, format!("not served yet: {instead}"));
            }
        }

        let Reader { problems, notes, .. } = reader;
        if !problems.is_empty() {
            return Err(ConfigError { problems, notes });
        }
        config.notes = notes;
        Ok(config)
    }
}

/// The file of named API keys, by the process's settings; the others may be invalid.
pub(crate) fn keys_file_from_env() -> KeyFile {
    Reader::new(&|name: &str| std::env::var(name).ok()).keys_file()
}

/// `DATA_DIR`, likewise.
pub(crate) fn data_dir_from_env() -> PathBuf {
    Reader::new(&|name: &str| std::env::var(name).ok()).data_dir()
}

/// Reads variables and collects problems and notes.
struct Reader<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    /// What the environment does not set may be in here.
    file: Option<ConfigFile>,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        let mut reader = Self { get, file: None, problems: Vec::new(), notes: Vec::new() };
        reader.file = reader.path("JUNE_CONFIG").map(ConfigFile::read);
        reader
    }
}

impl Reader<'_> {
    fn check_file(&mut self) {
        let Some(file) = &mut self.file else { return };
        self.problems.append(&mut file.problems);
        if file.is_exposed {
            let path = file.path.display().to_string();
            let note = format!("{path} has secrets, and others can read it: chmod 600 {path}");
            self.note("JUNE_CONFIG", note);
        }
    }

    fn problem(&mut self, name: &str, problem: impl fmt::Display) {
        self.problems.push(format!("{}: {problem}", self.place(name)));
    }

    fn note(&mut self, name: &str, note: impl fmt::Display) {
        self.notes.push(format!("{}: {note}", self.place(name)));
    }

    /// What sets this: the name, or the file and its key.
    fn place(&self, name: &str) -> String {
        let in_file = || self.file.as_ref().and_then(|file| file.place(name));
        self.environment(name).is_none().then(in_file).flatten().unwrap_or_else(|| name.to_owned())
    }

    fn text(&self, name: &str) -> Option<String> {
        let in_file = || present(self.file.as_ref()?.get(name)?);
        self.environment(name).or_else(in_file)
    }

    fn environment(&self, name: &str) -> Option<String> {
        present(&(self.get)(name)?)
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::new)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(name, format!("\"{text}\" is not valid ({error})"));
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

    fn percent(&mut self, name: &str, default: u8) -> u8 {
        let percent = self.parsed(name).unwrap_or(default);
        if percent > 100 {
            self.problem(name, "must be 0 to 100");
        }
        percent
    }

    fn flag(&mut self, name: &str) -> bool {
        self.choice(name, &[("true", true), ("false", false)]).unwrap_or_default()
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
}

/// A value that is not empty.
fn present(value: &str) -> Option<String> {
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// A key that is long enough.
#[cfg(test)]
const KEY: &str = "key-of-the-tests-0123456789abcdef";

/// Reads a configuration from these variables alone.
#[cfg(test)]
fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::read(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::keys::{KeyFile, Role};

    #[test]
    fn every_problem_is_reported_at_once() {
        let problems = read(&[
            ("PORT", "http"),
            ("SESSION_GRACE_MS", "0"),
            ("LIVEKIT_URL", "livekit"),
            ("LLM", "hal"),
            ("LOG_FORMAT", "xml"),
            ("RUST_LOG", "june=loud"),
            ("PRE_ROLL_MS", "6000"),
            ("CLIENT_VAD_PERCENT", "101"),
        ])
        .unwrap_err()
        .problems;
        let names: Vec<_> = problems.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(
            names,
            [
                "PORT",
                "LIVEKIT_URL",
                "SESSION_GRACE_MS",
                "PRE_ROLL_MS",
                "CLIENT_VAD_PERCENT",
                "LLM",
                "RUST_LOG",
                "LOG_FORMAT"
            ]
        );
    }

    #[test]
    fn settings_that_are_not_served_yet_are_noted() {
        for (name, _) in NOT_SERVED_YET {
            let notes = read(&[("API_KEYS", KEY), (name, "redis://localhost")]).unwrap().notes;

            let noted = format!("{name}: not served yet: ");
            assert!(notes.iter().any(|note| note.starts_with(&noted)), "{notes:?}");
        }
    }

    #[test]
    fn a_deployment_with_current_settings_has_no_notes() {
        let folder = tempfile::tempdir().unwrap();
        let keys_file = folder.path().join("keys.json");
        KeyFile::at(keys_file.clone()).add("app", [Role::Backend].into(), None).unwrap();
        let keys_file = keys_file.display().to_string();

        let notes =
            read(&[("API_KEYS_FILE", &keys_file), ("LLM", "gemini"), ("GEMINI_API_KEY", "g")]).unwrap().notes;

        assert_eq!(notes, Vec::<String>::new());
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let config = read(&[
            ("API_KEYS", "hush-a-0123456789abcdef"),
            ("GEMINI_API_KEY", "hush-b"),
            ("AUTH_JWT_SECRET", "hush-c-0123456789abcdef0123456789abcdef"),
        ]);

        assert!(!format!("{:?}", config.unwrap()).contains("hush"));
    }
}
