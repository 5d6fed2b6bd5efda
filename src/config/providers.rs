//! STT, LLM, TTS and voice activity detection.

use crate::{
    config::Reader,
    providers::{
        AnthropicConfig, Choice, GeminiConfig, Images, OllamaConfig, OpenAiConfig, ProviderConfig,
        cache_folder,
        registry::{LLM, Registry, STT, TTS, VAD},
    },
};

const DEFAULT_SYSTEM_PROMPT: &str = "You are June, a voice assistant in a pair of glasses. \
Your answers are spoken aloud: be brief and plain, in one to three short sentences, without lists, \
markup or emoji.";

#[derive(Clone, Debug)]
pub struct ProvidersConfig {
    /// What the registry loads.
    pub registry: ProviderConfig,
    /// `SYSTEM_PROMPT`
    pub system_prompt: String,
}

impl Reader<'_> {
    pub(super) fn providers(&mut self) -> ProvidersConfig {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let images =
            self.choice("LLM_IMAGES", &[("auto", Images::Auto), ("on", Images::On), ("off", Images::Off)]);
        let images = images.unwrap_or_default();
        let (openai_url, openai_key) =
            (self.url("OPENAI_BASE_URL", &["http", "https"]), self.secret("OPENAI_API_KEY"));
        let tts_services = self.tts_services(openai_url.as_deref(), openai_key.as_ref());
        let openai = (openai_url.is_some() || openai_key.is_some()).then(|| OpenAiConfig {
            base_url: openai_url,
            key: openai_key,
            model: self.model("OPENAI_MODEL", "gpt-4o-mini"),
            images,
        });
        let gemini_url = self.url("GEMINI_BASE_URL", &["http", "https"]);
        let gemini = self.secret("GEMINI_API_KEY").map(|key| GeminiConfig {
            base_url: gemini_url,
            key,
            model: self.model("GEMINI_MODEL", "gemini-2.5-flash"),
            images,
        });
        let anthropic_url = self.url("ANTHROPIC_BASE_URL", &["http", "https"]);
        let anthropic = self.secret("ANTHROPIC_API_KEY").map(|key| AnthropicConfig {
            base_url: anthropic_url,
            key,
            model: self.model("ANTHROPIC_MODEL", "claude-haiku-4-5"),
            images,
        });
        let ollama_url = self.url("OLLAMA_BASE_URL", &["http", "https"]);
        let is_ollama = ollama_url.is_some() || self.text("OLLAMA_MODEL").is_some();
        let ollama = is_ollama.then(|| OllamaConfig {
            base_url: ollama_url,
            model: self.model("OLLAMA_MODEL", "llama3.2"),
            images,
        });
        let models = self.path("JUNE_MODELS").unwrap_or_else(|| {
            cache_folder(|name| self.text(name)).unwrap_or_else(|| ".cache".into()).join("models")
        });
        let defaults = ProviderConfig::default();
        ProvidersConfig {
            registry: ProviderConfig {
                models,
                checksums: self.choice("MODEL_CHECKSUMS", &[("on", true), ("off", false)]).unwrap_or(true),
                checked_models: None,
                stt: self.provider("STT", &STT),
                stt_services: self.stt_services(),
                stt_workers: self.workers("STT_WORKERS", cores.min(4)),
                llm: self.llm(),
                openai,
                gemini,
                anthropic,
                ollama,
                tts: self.provider("TTS", &TTS),
                tts_workers: self.workers("TTS_WORKERS", cores.div_ceil(2).min(4)),
                tts_services,
                vad: self.named("VAD", VAD.names()).unwrap_or(defaults.vad),
            },
            system_prompt: self.text("SYSTEM_PROMPT").unwrap_or_else(|| DEFAULT_SYSTEM_PROMPT.into()),
        }
    }

    /// The provider's own setting, else `LLM_MODEL`.
    fn model(&self, name: &str, default: &str) -> String {
        self.text(name).or_else(|| self.text("LLM_MODEL")).unwrap_or_else(|| default.to_owned())
    }

    /// `LLM`, or its deprecated name `THINKER`; `echo`, or its deprecated name `parrot`.
    fn llm(&mut self) -> Choice {
        let name = match (self.text("LLM"), self.text("THINKER")) {
            (None, Some(_)) => {
                self.note("THINKER", "deprecated: use LLM");
                "THINKER"
            }
            (Some(_), Some(_)) => {
                self.note("THINKER", "ignored: LLM is set");
                "LLM"
            }
            (_, None) => "LLM",
        };
        if self.text(name).as_deref() == Some("parrot") {
            self.note(name, "parrot is deprecated: use echo");
            return Choice::Named("echo");
        }
        self.provider(name, &LLM)
    }

    fn provider<T: ?Sized>(&mut self, name: &str, registry: &Registry<T>) -> Choice {
        match self.text(name).as_deref() {
            None | Some("auto") => Choice::Auto,
            // An unknown name is reported as a problem; the choice is then not used.
            Some(_) => {
                let names = std::iter::once("auto").chain(registry.names());
                self.named(name, names).map_or(Choice::Auto, Choice::Named)
            }
        }
    }

    fn named(&mut self, name: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
        let choices: Vec<_> = names.map(|name| (name, name)).collect();
        self.choice(name, &choices)
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
    use crate::config::{KEY, read};

    /// The LLM that is chosen by these variables, and the notes, in a deployment.
    fn llm(variables: &[(&str, &str)]) -> (Choice, Vec<String>) {
        let mut config = read(&[&[("API_KEYS", KEY)], variables].concat()).unwrap();
        config.notes.retain(|note| !note.starts_with("API_KEYS"));
        (config.providers.registry.llm, config.notes)
    }

    #[test]
    fn every_llm_of_the_registry_can_be_chosen_by_its_name() {
        assert_eq!(llm(&[]), (Choice::Auto, Vec::new()));
        assert_eq!(llm(&[("LLM", "auto")]), (Choice::Auto, Vec::new()));
        for name in LLM.names() {
            assert_eq!(llm(&[("LLM", name)]), (Choice::Named(name), Vec::new()));
        }
    }

    #[test]
    fn a_providers_own_model_comes_before_the_common_one() {
        let models = |variables: &[(&str, &str)]| {
            let keys = [("OPENAI_API_KEY", "k"), ("GEMINI_API_KEY", "k"), ("ANTHROPIC_API_KEY", "k")];
            let ollama = [("OLLAMA_BASE_URL", "http://127.0.0.1:11434")];
            let config = read(&[&keys[..], &ollama, variables].concat()).unwrap().providers.registry;
            [
                config.openai.unwrap().model,
                config.gemini.unwrap().model,
                config.anthropic.unwrap().model,
                config.ollama.unwrap().model,
            ]
        };

        assert_eq!(models(&[]), ["gpt-4o-mini", "gemini-2.5-flash", "claude-haiku-4-5", "llama3.2"]);
        assert_eq!(models(&[("LLM_MODEL", "m")]), ["m"; 4]);
        assert_eq!(
            models(&[
                ("LLM_MODEL", "m"),
                ("OPENAI_MODEL", "a"),
                ("GEMINI_MODEL", "b"),
                ("ANTHROPIC_MODEL", "c"),
                ("OLLAMA_MODEL", "d")
            ]),
            ["a", "b", "c", "d"]
        );
    }

    #[test]
    fn a_provider_is_configured_by_its_key_or_its_address() {
        let config = read(&[("OLLAMA_MODEL", "qwen3")]).unwrap().providers.registry;

        assert_eq!(config.ollama.unwrap().model, "qwen3");
        assert!(config.anthropic.is_none() && config.gemini.is_none() && config.openai.is_none());
        let problems = read(&[("OLLAMA_BASE_URL", "localhost"), ("LLM_IMAGES", "yes")]).unwrap_err().problems;
        assert!(
            problems
                .iter()
                .any(|problem| problem.starts_with("LLM_IMAGES: \"yes\" is none of auto, on, off"))
        );
        assert!(problems.iter().any(|problem| problem.starts_with("OLLAMA_BASE_URL: ")), "{problems:?}");
    }

    #[test]
    fn an_unknown_provider_is_refused_with_the_list_of_what_there_is() {
        let problems = read(&[("STT", "hal"), ("LLM", "hal"), ("TTS", "hal"), ("VAD", "hal")]);

        let problems = problems.unwrap_err().problems;
        assert!(problems[0].starts_with("STT: \"hal\" is none of auto, deepgram, "), "{problems:?}");
        assert!(problems[1].starts_with("LLM: \"hal\" is none of auto, openai, gemini"), "{problems:?}");
        assert!(problems[2].starts_with("TTS: \"hal\" is none of auto, elevenlabs, "), "{problems:?}");
        assert_eq!(problems[3], "VAD: \"hal\" is none of two-stage, silero, earshot");
    }

    #[test]
    fn the_old_names_of_the_llm_are_read_and_noted_as_deprecated() {
        assert_eq!(
            llm(&[("THINKER", "gemini")]),
            (Choice::Named("gemini"), vec!["THINKER: deprecated: use LLM".to_owned()])
        );
        let (choice, notes) = llm(&[("THINKER", "parrot")]);
        assert_eq!(choice, Choice::Named("echo"));
        assert_eq!(notes, ["THINKER: deprecated: use LLM", "THINKER: parrot is deprecated: use echo"]);
        assert_eq!(llm(&[("LLM", "parrot")]).1, ["LLM: parrot is deprecated: use echo"]);
    }

    #[test]
    fn the_new_name_of_the_llm_wins() {
        let (choice, notes) = llm(&[("LLM", "echo"), ("THINKER", "gemini")]);

        assert_eq!(choice, Choice::Named("echo"));
        assert_eq!(notes, ["THINKER: ignored: LLM is set"]);
    }
}
