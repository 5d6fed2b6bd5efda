use std::{path::PathBuf, time::Duration};

use super::{
    scripted::{ScriptedConfig, is_scripted},
    stt::SttServices,
    tts::TtsServices,
};
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
    /// Enables the provider `anthropic`.
    pub anthropic: Option<AnthropicConfig>,
    /// Enables the provider `ollama`.
    pub ollama: Option<OllamaConfig>,
    pub tts: Choice,
    /// Threads that synthesize speech, each about as large as one that transcribes.
    pub tts_workers: usize,
    /// Enables the TTS providers of the network.
    pub tts_services: TtsServices,
    /// What judges whether a turn is complete.
    pub turn: TurnModel,
    /// Threads that do.
    pub turn_workers: usize,
    /// Name of the voice activity detection.
    pub vad: &'static str,
    /// When the next provider of a list takes over.
    pub deadlines: Deadlines,
    /// Where another provider is asked beside one that is slow.
    pub hedging: Hedging,
    /// For `scripted` and `scripted-spare`.
    pub scripted: ScriptedConfig,
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
            anthropic: None,
            ollama: None,
            tts: Choice::Auto,
            tts_workers: 1,
            tts_services: TtsServices::default(),
            turn: TurnModel::Auto,
            turn_workers: 1,
            vad: "two-stage",
            deadlines: Deadlines::default(),
            hedging: Hedging::default(),
            scripted: ScriptedConfig::default(),
        }
    }
}

impl ProviderConfig {
    /// The settings that list a scripted provider.
    pub(crate) fn scripted_roles(&self) -> impl Iterator<Item = &'static str> {
        let roles = [("STT", &self.stt), ("LLM", &self.llm), ("TTS", &self.tts)];
        roles
            .into_iter()
            .filter(|(_, choice)| choice.names().iter().any(|name| is_scripted(name)))
            .map(|(role, _)| role)
    }
}

/// The providers of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first of the registry that is configured or installed.
    #[default]
    Auto,
    /// These and no others, in order of preference.
    Listed(Vec<&'static str>),
}

impl Choice {
    /// Those that are listed.
    fn names(&self) -> &[&'static str] {
        match self {
            Self::Auto => &[],
            Self::Listed(names) => names,
        }
    }
}

/// Whether a model judges the end of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TurnModel {
    /// If it is installed.
    #[default]
    Auto,
    Off,
}

/// How long a provider may take before the next one of the list takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the first speech of an utterance to the first interim, where the provider streams.
    pub stt_first_result: Duration,
    /// From the end of an utterance to its final.
    pub stt_final: Duration,
    /// From the request to the end of the first sentence.
    pub llm_first_sentence: Duration,
    /// From the request to the first sound.
    pub tts_first_sound: Duration,
    /// From one event to the next, in the middle of an answer or a sentence.
    pub stall: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            stt_first_result: Duration::from_secs(3),
            stt_final: Duration::from_secs(4),
            llm_first_sentence: Duration::from_secs(8),
            tts_first_sound: Duration::from_secs(3),
            stall: Duration::from_secs(4),
        }
    }
}

/// The roles in which another provider is asked beside one that is slower than usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hedging {
    pub llm: bool,
    pub tts: bool,
}

/// An endpoint with OpenAI's chat completions.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// Up to and including `/v1`; none for OpenAI's own.
    pub base_url: Option<String>,
    /// None if the endpoint needs none.
    pub key: Option<Secret>,
    pub model: String,
    pub images: Images,
}

/// Google's Gemini.
#[derive(Clone, Debug)]
pub struct GeminiConfig {
    /// The URL of a proxy; none for Google's own.
    pub base_url: Option<String>,
    pub key: Secret,
    pub model: String,
    pub images: Images,
}

/// Anthropic's Claude.
#[derive(Clone, Debug)]
pub struct AnthropicConfig {
    /// The URL of a proxy; none for Anthropic's own.
    pub base_url: Option<String>,
    pub key: Secret,
    pub model: String,
    pub images: Images,
}

/// Ollama.
#[derive(Clone, Debug)]
pub struct OllamaConfig {
    /// None for this machine's.
    pub base_url: Option<String>,
    pub model: String,
    pub images: Images,
}

/// Whether a language model gets images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Images {
    /// If its name is that of a model that is known to see.
    #[default]
    Auto,
    On,
    Off,
}

impl Images {
    pub(super) fn reach(self, model: &str) -> bool {
        /// Parts of the names of models that take images.
        const SEEING: [&str; 21] = [
            "gemini",
            "claude",
            "gpt-4o",
            "gpt-4.1",
            "gpt-4-turbo",
            "gpt-5",
            "o3",
            "o4-mini",
            "vision",
            "-vl",
            "vl:",
            "llava",
            "pixtral",
            "moondream",
            "minicpm-v",
            "gemma3",
            "gemma-3",
            "llama4",
            "llama-4",
            "mistral-small3",
            "mistral-small-3",
        ];
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Auto => {
                let model = model.to_ascii_lowercase();
                // Without the folder of a hub, such as `google/`.
                let name = model.rsplit('/').next().unwrap_or(&model);
                SEEING.iter().any(|part| match part.len() {
                    ..=2 => name.starts_with(part),
                    _ => name.contains(part),
                })
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_see_are_known_by_their_names() {
        for model in [
            "gpt-4o-mini",
            "o3",
            "gemini-2.5-flash",
            "claude-haiku-4-5",
            "qwen2.5vl:7b",
            "google/gemma-3-12b-it",
        ] {
            assert!(Images::Auto.reach(model), "{model}");
        }
        for model in ["gpt-3.5-turbo", "llama3.2", "deepseek-r1", "qwen3", "yolo3"] {
            assert!(!Images::Auto.reach(model), "{model}");
        }
        assert!(Images::On.reach("llama3.2"));
        assert!(!Images::Off.reach("gpt-4o"));
    }
}
