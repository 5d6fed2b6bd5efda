//! STT, LLM, TTS and voice activity detection.

use crate::{
    config::Reader,
    providers::{
        Choice, GeminiConfig, OpenAiConfig, ProviderConfig, cache_folder,
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
        let model = self.text("LLM_MODEL");
        let (openai_url, openai_key) =
            (self.url("OPENAI_BASE_URL", &["http", "https"]), self.secret("OPENAI_API_KEY"));
        let tts_services = self.tts_services(openai_url.as_deref(), openai_key.as_ref());
        let openai = (openai_url.is_some() || openai_key.is_some()).then(|| OpenAiConfig {
            base_url: openai_url,
            key: openai_key,
            model: model.clone().unwrap_or_else(|| "gpt-4o-mini".into()),
        });
        let gemini = self.secret("GEMINI_API_KEY").map(|key| GeminiConfig {
            base_url: None,
            key,
            model: model.unwrap_or_else(|| "gemini-2.5-flash".into()),
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
                tts: self.provider("TTS", &TTS),
                tts_workers: self.workers("TTS_WORKERS", cores.div_ceil(2).min(4)),
                tts_services,
                vad: self.named("VAD", VAD.names()).unwrap_or(defaults.vad),
            },
            system_prompt: self.text("SYSTEM_PROMPT").unwrap_or_else(|| DEFAULT_SYSTEM_PROMPT.into()),
        }
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
