//! STT, LLM, TTS and voice activity detection.

use std::time::Duration;

use crate::{
    config::Reader,
    language::Language,
    providers::{
        AnthropicConfig, Choice, Deadlines, GeminiConfig, Hedging, Images, OllamaConfig, OpenAiConfig,
        ProviderConfig, ScriptedConfig, TurnModel, cache_folder,
        registry::{LLM, Registry, STT, TTS, VAD},
        scripted::{NOTICE, PlannedFault},
    },
    session::Excuses,
};

const DEFAULT_SYSTEM_PROMPT: &str = "You are June, a voice assistant in a pair of glasses. \
Your answers are spoken aloud: be brief and plain, in one to three short sentences, without lists, \
markup or emoji.";

/// Languages, their settings, and what is said where these are not set. English is the gateway's own where
/// `SESSION_LANGUAGE` is none of them.
const EXCUSES: [(&str, &str, &str); 4] = [
    ("en", "EXCUSE_EN", "Sorry, I cannot answer just now."),
    ("de", "EXCUSE_DE", "Ich kann gerade leider nicht antworten."),
    ("es", "EXCUSE_ES", "Lo siento, ahora mismo no puedo responder."),
    ("fr", "EXCUSE_FR", "Je ne peux malheureusement pas répondre pour le moment."),
];
const MAX_EXCUSE_BYTES: usize = 240;
const OFF: &str = "off";
const MAX_SCRIPTED_LATENCY_MS: u64 = 60_000;

#[derive(Clone, Debug)]
pub struct ProvidersConfig {
    /// What the registry loads.
    pub registry: ProviderConfig,
    /// `SYSTEM_PROMPT`
    pub system_prompt: String,
    /// What is said when no LLM answers (`EXCUSE`, `EXCUSE_EN`, …).
    pub excuses: Excuses,
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
        let config = ProvidersConfig {
            registry: ProviderConfig {
                models,
                checksums: self.choice("MODEL_CHECKSUMS", &[("on", true), ("off", false)]).unwrap_or(true),
                checked_models: None,
                stt: self.providers_of("STT", &STT),
                stt_services: self.stt_services(),
                stt_workers: self.workers("STT_WORKERS", cores.min(4)),
                llm: self.llm(),
                openai,
                gemini,
                anthropic,
                ollama,
                tts: self.providers_of("TTS", &TTS),
                tts_workers: self.workers("TTS_WORKERS", cores.div_ceil(2).min(4)),
                tts_services,
                turn: self
                    .choice(
                        "TURN_MODEL",
                        &[
                            ("auto", TurnModel::Auto),
                            ("smart-turn", TurnModel::Auto),
                            ("off", TurnModel::Off),
                        ],
                    )
                    .unwrap_or_default(),
                turn_workers: self.workers("TURN_WORKERS", cores.div_ceil(2).min(4)),
                vad: self.named("VAD", VAD.names()).unwrap_or(defaults.vad),
                deadlines: self.deadlines(defaults.deadlines),
                hedging: self.hedging(),
                scripted: self.scripted(),
            },
            system_prompt: self.text("SYSTEM_PROMPT").unwrap_or_else(|| DEFAULT_SYSTEM_PROMPT.into()),
            excuses: self.excuses(),
        };
        self.check_listed("STT", &STT, &config.registry.stt, &config.registry);
        self.check_listed("LLM", &LLM, &config.registry.llm, &config.registry);
        self.check_listed("TTS", &TTS, &config.registry.tts, &config.registry);
        for role in config.registry.scripted_roles() {
            self.note(role, NOTICE);
        }
        config
    }

    fn deadlines(&mut self, defaults: Deadlines) -> Deadlines {
        let mut millis = |name: &str, default: Duration| self.millis(name, default.as_millis() as u64);
        Deadlines {
            stt_first_result: millis("STT_FIRST_RESULT_DEADLINE_MS", defaults.stt_first_result),
            stt_final: millis("STT_FINAL_DEADLINE_MS", defaults.stt_final),
            llm_first_sentence: millis("LLM_FIRST_SENTENCE_DEADLINE_MS", defaults.llm_first_sentence),
            tts_first_sound: millis("TTS_FIRST_SOUND_DEADLINE_MS", defaults.tts_first_sound),
            stall: millis("PROVIDER_STALL_MS", defaults.stall),
        }
    }

    fn hedging(&mut self) -> Hedging {
        let mut hedging = Hedging::default();
        let Some(text) = self.text("HEDGE") else { return hedging };
        for role in text.split(',').map(str::trim) {
            match role {
                "llm" => hedging.llm = true,
                "tts" => hedging.tts = true,
                other => self.problem("HEDGE", format!("\"{other}\" is none of llm, tts")),
            }
        }
        hedging
    }

    fn scripted(&mut self) -> ScriptedConfig {
        let defaults = ScriptedConfig::default();
        let latency_ms = self.parsed("SCRIPTED_LATENCY_MS").unwrap_or(defaults.latency.as_millis() as u64);
        if latency_ms > MAX_SCRIPTED_LATENCY_MS {
            self.problem("SCRIPTED_LATENCY_MS", format!("must be at most {MAX_SCRIPTED_LATENCY_MS}"));
        }
        ScriptedConfig {
            latency: Duration::from_millis(latency_ms),
            answer: self.text("SCRIPTED_ANSWER").unwrap_or(defaults.answer),
            stt: self.scripted_faults("SCRIPTED_STT_FAULTS"),
            llm: self.scripted_faults("SCRIPTED_LLM_FAULTS"),
            tts: self.scripted_faults("SCRIPTED_TTS_FAULTS"),
        }
    }

    fn scripted_faults(&mut self, name: &str) -> Vec<PlannedFault> {
        let Some(text) = self.text(name) else { return Vec::new() };
        let parsed: Vec<Result<PlannedFault, String>> =
            text.split(',').map(|fault| fault.trim().parse()).collect();
        for problem in parsed.iter().filter_map(|fault| fault.as_ref().err()) {
            self.problem(name, problem);
        }
        parsed.into_iter().flatten().collect()
    }

    /// `EXCUSE` is in the gateway's own language.
    fn excuses(&mut self) -> Excuses {
        let own = self.text("SESSION_LANGUAGE").filter(|tag| tag != "auto");
        let own = own.and_then(|tag| Language::parse(&tag).ok());
        let general = self.excuse("EXCUSE");
        let mut texts = Vec::new();
        for (tag, setting, built_in) in EXCUSES {
            let language = Language::parse(tag).expect("a valid tag");
            let is_own = own.as_ref().map_or(tag == "en", |own| own.is_like(&language));
            let text = self.excuse(setting).or_else(|| general.clone().filter(|_| is_own));
            texts.push((is_own, language, text.unwrap_or_else(|| built_in.to_owned())));
        }
        if let (Some(own), Some(text)) = (own, &general)
            && texts.iter().all(|(is_own, ..)| !is_own)
        {
            texts.push((true, own, text.clone()));
        }
        texts.sort_by_key(|(is_own, ..)| !is_own);
        match general.as_deref() {
            Some(OFF) => Excuses::default(),
            Some(_) | None => {
                let texts = texts.into_iter();
                Excuses::new(
                    texts.map(|(_, language, text)| (language, (text != OFF).then_some(text))).collect(),
                )
            }
        }
    }

    fn excuse(&mut self, setting: &str) -> Option<String> {
        let text = self.text(setting)?;
        if text.len() > MAX_EXCUSE_BYTES {
            self.problem(setting, format!("must have at most {MAX_EXCUSE_BYTES} bytes"));
        }
        Some(text)
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
        self.providers_of(name, &LLM)
    }

    /// `auto`, or names in order of preference.
    fn providers_of<T: ?Sized>(&mut self, setting: &str, registry: &Registry<T>) -> Choice {
        let Some(text) = self.text(setting).filter(|text| text != "auto") else { return Choice::Auto };
        let mut listed = Vec::new();
        for name in text.split(',').map(str::trim) {
            let name = match name {
                "parrot" if registry.names().any(|name| name == "echo") => {
                    self.note(setting, "parrot is deprecated: use echo");
                    "echo"
                }
                name => name,
            };
            match registry.names().find(|known| *known == name) {
                Some(name) if listed.contains(&name) => {
                    self.problem(setting, format!("{name} is listed twice"))
                }
                Some(name) => listed.push(name),
                None if name == "auto" => self.problem(setting, "auto cannot be listed with others"),
                None => {
                    let names: Vec<_> = std::iter::once("auto").chain(registry.names()).collect();
                    self.problem(setting, format!("\"{name}\" is none of {}", names.join(", ")));
                }
            }
        }
        Choice::Listed(listed)
    }

    /// A provider that is listed has to have its key. Models that are not installed switch it off instead.
    fn check_listed<T: ?Sized>(
        &mut self,
        setting: &str,
        registry: &Registry<T>,
        choice: &Choice,
        config: &ProviderConfig,
    ) {
        let Choice::Listed(names) = choice else { return };
        for name in names {
            if let Some(problem) = registry.lacks(name, config) {
                self.problem(setting, format!("{name} cannot be used: {problem}"));
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

    fn listed(names: &[&'static str]) -> Choice {
        Choice::Listed(names.to_vec())
    }

    #[test]
    fn providers_are_listed_in_order_of_preference() {
        assert_eq!(llm(&[]), (Choice::Auto, Vec::new()));
        assert_eq!(llm(&[("LLM", "auto")]), (Choice::Auto, Vec::new()));
        assert_eq!(llm(&[("LLM", "echo")]), (listed(&["echo"]), Vec::new()));
        let keys = [("OPENAI_API_KEY", "o"), ("GEMINI_API_KEY", "g")];
        assert_eq!(
            llm(&[&[("LLM", "gemini, openai,echo")], &keys[..]].concat()),
            (listed(&["gemini", "openai", "echo"]), Vec::new())
        );
    }

    #[test]
    fn a_listed_provider_has_to_have_its_key_and_all_problems_are_reported_at_once() {
        let problems =
            read(&[("LLM", "openai,gemini,hal,echo,echo,auto"), ("STT", "moonshine,")]).unwrap_err();

        assert_eq!(problems.problems.len(), 6, "{problems}");
        for expected in [
            "STT: \"\" is none of auto, deepgram",
            "LLM: \"hal\" is none of auto, openai, gemini",
            "LLM: echo is listed twice",
            "LLM: auto cannot be listed with others",
            "LLM: openai cannot be used: neither OPENAI_API_KEY nor OPENAI_BASE_URL is set",
            "LLM: gemini cannot be used: GEMINI_API_KEY is not set",
        ] {
            assert!(
                problems.problems.iter().any(|problem| problem.starts_with(expected)),
                "{expected}: {problems}"
            );
        }
    }

    #[test]
    fn a_listed_service_without_its_key_is_a_problem() {
        for (role, name, needs) in [
            ("STT", "deepgram", "DEEPGRAM_API_KEY is not set"),
            ("STT", "assemblyai", "ASSEMBLYAI_API_KEY is not set"),
            ("STT", "openai", "STT_OPENAI_API_KEY"),
            ("STT", "june", "STT_SERVICE_URL is not set"),
            ("TTS", "elevenlabs", "ELEVENLABS_API_KEY is not set"),
            ("TTS", "openai", "TTS_OPENAI_API_KEY"),
            ("TTS", "june", "TTS_SERVICE_URL is not set"),
            ("TTS", "deepgram", "DEEPGRAM_API_KEY is not set"),
        ] {
            let problems = read(&[(role, name)]).unwrap_err().problems;

            let [problem] = &problems[..] else { panic!("{role}={name}: {problems:?}") };
            assert!(problem.starts_with(&format!("{role}: {name} cannot be used: ")), "{problem}");
            assert!(problem.contains(needs), "{problem}");
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
    fn an_embedded_model_that_is_not_installed_is_no_problem_of_the_settings() {
        let settings = [("STT", "moonshine"), ("TTS", "piper"), ("JUNE_MODELS", "/nowhere")];

        assert_eq!(read(&settings).unwrap().providers.registry.stt, listed(&["moonshine"]));
    }

    #[test]
    fn scripted_providers_are_noted_as_none_of_the_real_ones() {
        let scripted = [("STT", "scripted,scripted-spare"), ("SCRIPTED_STT_FAULTS", "none, cut@3,stall")];

        let config = read(&scripted).unwrap();

        assert!(config.notes.contains(&format!("STT: {NOTICE}")), "{:?}", config.notes);
        assert!(!read(&[]).unwrap().notes.iter().any(|note| note.contains(NOTICE)));
        assert_eq!(config.providers.registry.scripted.stt.len(), 3);
    }

    #[test]
    fn every_scripted_fault_that_is_none_is_reported() {
        let problems =
            read(&[("SCRIPTED_LLM_FAULTS", "cut,explode,cut@x"), ("SCRIPTED_LATENCY_MS", "60001")]);

        let problems = problems.unwrap_err().problems;
        for expected in [
            "SCRIPTED_LLM_FAULTS: \"explode\" is none of none, latency, 429",
            "SCRIPTED_LLM_FAULTS: \"cut@x\" has no number",
            "SCRIPTED_LATENCY_MS: must be at most 60000",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}: {problems:?}");
        }
    }

    #[test]
    fn slow_providers_are_hedged_only_in_the_roles_that_are_named() {
        let hedging = |text: &str| read(&[("HEDGE", text)]).map(|config| config.providers.registry.hedging);

        assert_eq!(hedging(""), Ok(Hedging::default()));
        assert_eq!(hedging("llm"), Ok(Hedging { llm: true, tts: false }));
        assert_eq!(hedging("tts, llm"), Ok(Hedging { llm: true, tts: true }));
        let problems = hedging("llm,stt").unwrap_err().problems;
        assert_eq!(problems, ["HEDGE: \"stt\" is none of llm, tts"]);
    }

    /// What is said in a language; and in which, if it is spoken.
    fn excuse(settings: &[(&str, &str)], language: &str) -> Option<(String, Option<String>)> {
        let language = Language::parse(language).unwrap();
        let excuse = read(settings).unwrap().providers.excuses.of(Some(&language))?;
        Some((excuse.text, excuse.language.map(|language| language.to_string())))
    }

    fn text(settings: &[(&str, &str)], language: &str) -> Option<String> {
        excuse(settings, language).map(|(text, _)| text)
    }

    #[test]
    fn there_is_an_excuse_in_each_language_and_those_of_others_are_not_spoken() {
        for (language, _, expected) in EXCUSES {
            assert_eq!(excuse(&[], language), Some((expected.into(), Some(language.into()))));
        }
        assert_eq!(excuse(&[], "it"), Some((EXCUSES[0].2.into(), None)));
    }

    #[test]
    fn an_excuse_can_be_chosen_in_each_language_and_switched_off() {
        assert_eq!(text(&[("EXCUSE", "Moment!")], "en-US").as_deref(), Some("Moment!"));
        assert_eq!(text(&[("EXCUSE", "Moment!")], "de").as_deref(), Some(EXCUSES[1].2), "it is English");
        let german = [("EXCUSE", "Moment!"), ("SESSION_LANGUAGE", "de-AT"), ("EXCUSE_FR", "off")];
        assert_eq!(text(&german, "de").as_deref(), Some("Moment!"));
        assert_eq!(text(&german, "en").as_deref(), Some(EXCUSES[0].2));
        assert_eq!(text(&german, "fr"), None);
        assert_eq!(excuse(&german, "it"), Some(("Moment!".into(), None)));
        let italian = [("EXCUSE", "Un attimo!"), ("SESSION_LANGUAGE", "it-IT")];
        assert_eq!(excuse(&italian, "it"), Some(("Un attimo!".into(), Some("it".into()))));
        assert_eq!(excuse(&italian, "ja"), Some(("Un attimo!".into(), None)));
        let both = [("EXCUSE", "Moment!"), ("EXCUSE_EN", "Wait!")];
        assert_eq!(text(&both, "en").as_deref(), Some("Wait!"));
        assert_eq!(text(&[("EXCUSE", "off"), ("EXCUSE_DE", "Moment!")], "de"), None);
        for setting in ["EXCUSE", "EXCUSE_DE"] {
            assert!(read(&[(setting, &"a".repeat(MAX_EXCUSE_BYTES + 1))]).is_err());
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
            llm(&[("THINKER", "gemini"), ("GEMINI_API_KEY", "g")]),
            (listed(&["gemini"]), vec!["THINKER: deprecated: use LLM".to_owned()])
        );
        let (choice, notes) = llm(&[("THINKER", "parrot")]);
        assert_eq!(choice, listed(&["echo"]));
        assert_eq!(notes, ["THINKER: deprecated: use LLM", "THINKER: parrot is deprecated: use echo"]);
        assert_eq!(llm(&[("LLM", "parrot")]).1, ["LLM: parrot is deprecated: use echo"]);
    }

    #[test]
    fn the_new_name_of_the_llm_wins() {
        let (choice, notes) = llm(&[("LLM", "echo"), ("THINKER", "gemini")]);

        assert_eq!(choice, listed(&["echo"]));
        assert_eq!(notes, ["THINKER: ignored: LLM is set"]);
    }
}
