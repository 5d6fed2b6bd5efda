use std::path::PathBuf;

use super::{stt::SttServices, tts::TtsServices};
use crate::secret::Secret;

/// Which providers are used, and what they need.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// The folder that `scripts/setup models` fills.
    pub models: PathBuf,
    /// Whether files of models are compared with the SHA-256 of what `scripts/setup` installs.
    pub checksums: bool,
    /// A file that remembers which files were compared.
    pub checked_models: Option<PathBuf>,
    pub stt: Choice,
    pub stt_services: SttServices,
    /// Threads that transcribe: about 100 MB for the first and 70 MB for each further one.
    pub stt_workers: usize,
    pub llm: Choice,
    /// Enables the provider `openai`.
    pub openai: Option<OpenAiConfig>,
    /// Enables the provider `gemini`.
    pub gemini: Option<GeminiConfig>,
    pub tts: Choice,
    /// Threads that synthesize speech, each about as large as one that transcribes.
    pub tts_workers: usize,
    /// Enables the TTS providers of the network.
    pub tts_services: TtsServices,
    /// Name of the voice activity detection.
    pub vad: &'static str,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            models: PathBuf::from("models"),
            checksums: true,
            checked_models: None,
            stt: Choice::Auto,
            stt_services: SttServices::default(),
            stt_workers: 2,
            llm: Choice::Auto,
            openai: None,
            gemini: None,
            tts: Choice::Auto,
            tts_workers: 1,
            tts_services: TtsServices::default(),
            vad: "two-stage",
        }
    }
}

/// The provider of a role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first of the registry that is configured or installed.
    #[default]
    Auto,
    /// This one or none.
    Named(&'static str),
}

/// An endpoint with OpenAI's chat completions.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// Up to and including `/v1`; none for OpenAI's own.
    pub base_url: Option<String>,
    /// None if the endpoint needs none.
    pub key: Option<Secret>,
    pub model: String,
}

/// Google's Gemini.
#[derive(Clone, Debug)]
pub struct GeminiConfig {
    /// The URL of a proxy; none for Google's own.
    pub base_url: Option<String>,
    pub key: Secret,
    pub model: String,
}

/// The folder that `scripts/setup` fills by default: `$JUNE_CACHE`, else `june-edge` in the user's cache folder.
/// `get` reads a variable. None if there is no home directory either.
pub fn cache_folder(get: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let folder = |name: &str| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("JUNE_CACHE").or_else(|| {
        let user = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
        Some(user.join("june-edge"))
    })
}
