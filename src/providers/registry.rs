//! Finds providers by role and name, and loads the ones that are configured.
//!
//! The providers that are listed for a role make a chain, in which one takes over from another. A gateway starts without
//! any of them: what is missing is [`Availability::Off`] with the reason and how to install it, for the log and
//! `/health`.

use std::{fmt, path::PathBuf, sync::Arc};

use super::{
    Choice, ProviderConfig, ProviderError, TurnModel,
    chain::ChainState,
    inference::onnx::Runtime,
    llm::{self, LanguageModel, fallback::LlmChain},
    model_files::ModelFiles,
    scripted,
    stt::{self, SpeechToText, fallback::SttChain},
    tts::{self, TextToSpeech, fallback::TtsChain},
    turn::{self, EndOfTurnModel},
    vad::{self, Detectors, SpeechDetector},
};

pub static STT: Registry<dyn SpeechToText> = Registry {
    role: "STT",
    providers: &[
        ("deepgram", stt::deepgram::load),
        ("assemblyai", stt::assemblyai::load),
        ("openai", stt::openai::load),
        ("june", stt::june::load),
        ("moonshine", stt::moonshine::load),
        ("scripted", scripted::stt::load),
        ("scripted-spare", scripted::stt::load_spare),
    ],
};

pub static LLM: Registry<dyn LanguageModel> = Registry {
    role: "LLM",
    providers: &[
        ("openai", llm::openai::load),
        ("gemini", llm::gemini::load),
        ("anthropic", llm::anthropic::load),
        ("ollama", llm::ollama::load),
        #[cfg(feature = "smollm2")]
        ("smollm2", llm::smollm2::load),
        ("echo", llm::echo::load),
        ("scripted", scripted::llm::load),
        ("scripted-spare", scripted::llm::load_spare),
    ],
};

/// Deepgram comes last, since its key may be there for STT alone.
pub static TTS: Registry<dyn TextToSpeech> = Registry {
    role: "TTS",
    providers: &[
        ("elevenlabs", tts::elevenlabs::load),
        ("openai", tts::openai::load),
        ("june", tts::june::load),
        (PIPER, tts::piper::load),
        ("deepgram", tts::deepgram::load),
        ("scripted", scripted::tts::load),
        ("scripted-spare", scripted::tts::load_spare),
    ],
};

pub static TURN: Registry<dyn EndOfTurnModel> =
    Registry { role: "TURN_MODEL", providers: &[("smart-turn", turn::smart_turn::load)] };

pub static VAD: Registry<dyn Fn() -> Box<dyn SpeechDetector> + Send + Sync> = Registry {
    role: "VAD",
    providers: &[
        ("two-stage", vad::two_stage::load),
        ("silero", vad::silero::load),
        ("earshot", vad::earshot::load),
    ],
};

const PIPER: &str = "piper";

/// Providers that need files. Whether those are there is found out by loading them.
const EMBEDDED: [&str; 4] = ["moonshine", "smollm2", PIPER, "smart-turn"];

/// The providers of one role, in the order in which `auto` tries them.
pub struct Registry<T: ?Sized + 'static> {
    role: &'static str,
    providers: &'static [(&'static str, Load<T>)],
}

type Load<T> = fn(&LoadContext<'_>) -> Result<Arc<T>, ProviderError>;

impl<T: ?Sized> Registry<T> {
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.providers.iter().map(|(name, _)| *name)
    }

    /// What a provider that was listed lacks by the settings alone, such as a key.
    pub(crate) fn lacks(&self, name: &str, config: &ProviderConfig) -> Option<String> {
        let (_, load) = self.providers.iter().find(|(known, _)| *known == name)?;
        if EMBEDDED.contains(&name) {
            return None;
        }
        let runtime = Err(ProviderError::Unavailable("not needed".into()));
        match load(&LoadContext { config, runtime: &runtime, files: &ModelFiles::new(config) }) {
            Err(ProviderError::Unavailable(problem)) => Some(problem),
            Err(error) => Some(error.to_string()),
            Ok(_) => None,
        }
    }

    fn load(&self, choice: &Choice, context: &LoadContext<'_>) -> LoadedRole<T> {
        let mut loaded = LoadedRole { role: self.role, providers: Vec::new(), problems: Vec::new() };
        match choice {
            Choice::Auto => {
                for (name, load) in self.providers.iter().filter(|(name, _)| !scripted::is_scripted(name)) {
                    if loaded.add(name, load(context)) {
                        loaded.problems.clear();
                        break;
                    }
                }
            }
            Choice::Listed(names) => {
                for name in names {
                    match self.providers.iter().find(|(known, _)| known == name) {
                        Some((_, load)) => _ = loaded.add(name, load(context)),
                        None => loaded.problems.push(format!("no provider {name}")),
                    }
                }
            }
        }
        loaded
    }
}

/// The providers of a role that could be loaded, in order, and why the others could not.
pub(crate) struct LoadedRole<T: ?Sized> {
    role: &'static str,
    pub(crate) providers: Vec<Arc<T>>,
    pub(crate) problems: Vec<String>,
}

impl<T: ?Sized> LoadedRole<T> {
    fn add(&mut self, name: &str, provider: Result<Arc<T>, ProviderError>) -> bool {
        match provider {
            Ok(provider) => {
                self.providers.push(provider);
                return true;
            }
            Err(ProviderError::Unavailable(problem)) => self.problems.push(format!("{name}: {problem}")),
            Err(error) => self.problems.push(format!("{name}: {error}")),
        }
        false
    }

    /// The providers as one; why some are missing; the state of the chain, if there is one.
    fn into_role(
        self,
        chain: impl FnOnce(Vec<Arc<T>>) -> (Arc<T>, Arc<ChainState>),
    ) -> (Availability<T>, Option<String>, Option<Arc<ChainState>>) {
        let problems = self.problems.join("; ");
        if self.providers.is_empty() {
            return (Availability::Off(format!("{} is off: {problems}", self.role)), None, None);
        }
        let missing = (!problems.is_empty()).then_some(problems);
        let (provider, state) = chain(self.providers);
        (Availability::Ready(provider), missing, Some(state))
    }
}

/// What providers are loaded from.
pub(super) struct LoadContext<'a> {
    pub(super) config: &'a ProviderConfig,
    runtime: &'a Result<Runtime, ProviderError>,
    files: &'a ModelFiles<'a>,
}

impl LoadContext<'_> {
    pub(super) fn onnx_runtime(&self) -> Result<&Runtime, ProviderError> {
        self.runtime.as_ref().map_err(Clone::clone)
    }

    /// The path of a file in the folder of models. [`ProviderError::Unavailable`] if the file is damaged.
    pub(super) fn model(&self, file: &str) -> Result<PathBuf, ProviderError> {
        self.files.path(file)
    }
}

/// A provider, or the reason why there is none.
pub enum Availability<T: ?Sized> {
    Ready(Arc<T>),
    /// Which role is off, why, and how to get it.
    Off(String),
}

impl<T: ?Sized> Availability<T> {
    pub fn ready(&self) -> Option<&Arc<T>> {
        match self {
            Availability::Ready(provider) => Some(provider),
            Availability::Off(_) => None,
        }
    }

    /// The reason, where it is off.
    pub fn off(&self) -> Option<&str> {
        match self {
            Availability::Ready(_) => None,
            Availability::Off(reason) => Some(reason),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Availability<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.off().unwrap_or("ready"))
    }
}

/// The providers of a gateway.
pub struct Providers {
    pub stt: Availability<dyn SpeechToText>,
    pub llm: Availability<dyn LanguageModel>,
    pub tts: Availability<dyn TextToSpeech>,
    pub vad: Detectors,
    pub turn: Availability<dyn EndOfTurnModel>,
    /// The embedded voice at the sample rate of `tts`, also where it is not listed: it speaks where no TTS does.
    pub(crate) excuse_voice: Option<Arc<dyn TextToSpeech>>,
    /// The state of each role that is ready.
    pub(crate) chains: Vec<Arc<ChainState>>,
    /// Roles that are ready without some of the providers that are listed for them, and why.
    pub(crate) missing: Vec<(&'static str, String)>,
}

/// Lets something be loaded from the models and services that are configured.
fn with_context<R>(config: &ProviderConfig, load: impl FnOnce(&LoadContext<'_>) -> R) -> R {
    let files = ModelFiles::new(config);
    let runtime = files.runtime().and_then(|library| Runtime::load(&library));
    load(&LoadContext { config, runtime: &runtime, files: &files })
}

/// The providers of each role, one by one.
pub(crate) struct Loaded {
    pub(crate) stt: LoadedRole<dyn SpeechToText>,
    pub(crate) llm: LoadedRole<dyn LanguageModel>,
    pub(crate) tts: LoadedRole<dyn TextToSpeech>,
    vad: Detectors,
    turn: Availability<dyn EndOfTurnModel>,
}

impl Loaded {
    /// Blocks: it reads some 100 MB.
    pub(crate) fn load(config: &ProviderConfig) -> Self {
        with_context(config, |context| {
            std::thread::scope(|scope| {
                // Each takes up to a second.
                let stt = scope.spawn(|| STT.load(&config.stt, context));
                let llm = scope.spawn(|| LLM.load(&config.llm, context));
                let tts = scope.spawn(|| TTS.load(&config.tts, context));
                let no_panic = "loading a provider returns errors and does not panic";
                let vad = load_vad(config.vad, context);
                let turn = load_turn(config.turn, context);
                Self {
                    stt: stt.join().expect(no_panic),
                    llm: llm.join().expect(no_panic),
                    tts: tts.join().expect(no_panic),
                    vad,
                    turn,
                }
            })
        })
    }
}

impl Providers {
    /// Loads what is configured. Blocks: it reads some 100 MB.
    pub fn load(config: &ProviderConfig) -> Self {
        let Loaded { stt, llm, tts, vad, turn } = Loaded::load(config);
        let (deadlines, hedging) = (config.deadlines, config.hedging);
        let (stt, stt_missing, stt_state) = stt.into_role(|providers| {
            let chain = SttChain::new(providers, deadlines);
            let state = chain.state();
            (Arc::new(chain) as _, state)
        });
        let (llm, llm_missing, llm_state) = llm.into_role(|providers| {
            let chain = LlmChain::new(providers, deadlines).hedging(hedging.llm);
            let state = chain.state();
            (Arc::new(chain) as _, state)
        });
        let (tts, tts_missing, tts_state) = tts.into_role(|providers| {
            let chain = TtsChain::new(providers, deadlines).hedging(hedging.tts);
            let state = chain.state();
            (Arc::new(chain) as _, state)
        });
        let excuse_voice = tts.ready().and_then(|tts| embedded_voice(tts, config));
        let missing = [("stt", stt_missing), ("llm", llm_missing), ("tts", tts_missing)];
        Self {
            stt,
            llm,
            tts,
            vad,
            turn,
            excuse_voice,
            chains: [stt_state, llm_state, tts_state].into_iter().flatten().collect(),
            missing: missing.into_iter().filter_map(|(role, missing)| Some((role, missing?))).collect(),
        }
    }
}

/// The model that judges pauses, unless it is switched off or not installed.
fn load_turn(choice: TurnModel, context: &LoadContext<'_>) -> Availability<dyn EndOfTurnModel> {
    if choice == TurnModel::Off {
        return Availability::Off("TURN_MODEL=off: silence alone ends a turn".into());
    }
    let LoadedRole { mut providers, problems, .. } = TURN.load(&Choice::Auto, context);
    match providers.pop() {
        Some(model) => Availability::Ready(model),
        None => Availability::Off(format!(
            "TURN_MODEL is off: {}; silence alone ends a turn",
            problems.join("; ")
        )),
    }
}

/// Piper at the sample rate of the others; none where it is not installed.
fn embedded_voice(tts: &Arc<dyn TextToSpeech>, config: &ProviderConfig) -> Option<Arc<dyn TextToSpeech>> {
    let piper = [PIPER.to_owned()];
    tts.select(&piper).or_else(|| {
        let voice = with_context(config, tts::piper::load).ok()?;
        TtsChain::new(vec![tts.clone(), voice], config.deadlines).select(&piper)
    })
}

/// The configured detectors, or earshot, which needs no files.
fn load_vad(name: &'static str, context: &LoadContext<'_>) -> Detectors {
    let LoadedRole { mut providers, problems, .. } = VAD.load(&Choice::Listed(vec![name]), context);
    match providers.pop() {
        Some(factory) => Detectors { name, factory, off: None },
        None => Detectors {
            name: "earshot",
            factory: vad::earshot::factory(),
            off: Some(format!("VAD is off: {}; earshot is used alone", problems.join("; "))),
        },
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        audio::SAMPLE_RATE_HZ,
        providers::{
            Images, OpenAiConfig,
            stt::{SttEvent, SttRequest},
            testing::{self, word_errors},
        },
        secret::Secret,
        turn::{
            endpointer::EndpointerConfig,
            utterance_detector::{self, EndReason, SpeechEvent, UtteranceDetector},
        },
    };

    fn installed() -> Providers {
        Providers::load(&ProviderConfig { models: testing::models(), ..ProviderConfig::default() })
    }

    fn without_models() -> ProviderConfig {
        ProviderConfig { models: PathBuf::from("/nowhere/models"), ..ProviderConfig::default() }
    }

    fn utterance_detector(detectors: &Detectors) -> UtteranceDetector {
        UtteranceDetector::new(detectors.detector(), EndpointerConfig::default())
    }

    /// Faint noise: a room in which nobody speaks.
    fn quiet_room(seconds: usize) -> Vec<i16> {
        (0..seconds * SAMPLE_RATE_HZ as usize).map(|n| (n * 7919 % 61) as i16 - 30).collect()
    }

    #[tokio::test]
    async fn each_recording_is_one_utterance_and_what_is_cut_out_is_understood() {
        let providers = installed();
        let stt = providers.stt.ready().unwrap();
        let (mut errors, mut words) = (0, 0);
        for (clip, transcript) in testing::transcripts() {
            let input = [quiet_room(2), utterance_detector::fixture(&clip), quiet_room(2)].concat();

            let detected: Vec<SpeechEvent> = input
                .chunks(320)
                .scan(utterance_detector(&providers.vad), |detector, chunk| Some(detector.push(chunk)))
                .flatten()
                .collect();

            let (feed, audio) = mpsc::channel(detected.len());
            let events = stt.open(SttRequest::default(), audio);
            let mut ends = Vec::new();
            for event in detected {
                match event {
                    SpeechEvent::Started { .. } | SpeechEvent::Paused | SpeechEvent::WentOn { .. } => {}
                    SpeechEvent::Audio(pcm) => feed.send(pcm).await.unwrap(),
                    SpeechEvent::Ended { reason, .. } => ends.push(reason),
                }
            }
            drop(feed);
            assert_eq!(ends, [EndReason::Silence], "{clip}");
            match events.collect::<Vec<_>>().await.pop() {
                Some(Ok(SttEvent::Final(heard))) => errors += word_errors(&transcript, &heard.text),
                other => panic!("the last event was {other:?}"),
            }
            words += transcript.split_whitespace().count();
        }
        assert!(errors * 100 <= words * 6, "{errors} of {words} words wrong");
    }

    #[test]
    fn a_ventilator_opens_no_utterance() {
        let hum = |n: usize| {
            let t = n as f32 / SAMPLE_RATE_HZ as f32 * std::f32::consts::TAU;
            ((50.0 * t).sin() * 900.0 + (100.0 * t).sin() * 500.0 + (300.0 * t).sin() * 200.0) as i16
        };
        let noise: Vec<i16> = quiet_room(20).iter().enumerate().map(|(n, hiss)| hum(n) + hiss).collect();

        assert_eq!(utterance_detector(&installed().vad).push(&noise), []);
    }

    #[test]
    fn with_the_models_installed_every_role_is_ready() {
        let Providers { stt, llm, tts, vad, .. } = installed();

        assert_eq!([stt.off(), llm.off(), tts.off(), vad.off()], [None; 4]);
    }

    #[test]
    fn without_models_each_role_says_how_to_get_it_and_the_echo_model_answers() {
        let Providers { stt, llm, tts, vad, .. } = Providers::load(&without_models());

        for reason in [stt.off(), tts.off(), vad.off()] {
            let reason = reason.unwrap();
            assert!(reason.contains("is off") && reason.contains("scripts/setup models"), "{reason}");
        }
        assert_eq!(llm.ready().map(|llm| llm.name()), Some("echo"));
        assert_eq!(vad.name(), "earshot");
    }

    #[test]
    fn a_scripted_provider_is_used_only_where_it_is_listed() {
        let listed = || Choice::Listed(vec!["scripted", "scripted-spare"]);
        let providers = Providers::load(&ProviderConfig { stt: listed(), tts: listed(), ..without_models() });
        let unlisted = Providers::load(&without_models());

        assert_eq!(providers.stt.ready().map(|stt| stt.name()), Some("scripted"));
        assert_eq!(providers.tts.ready().map(|tts| tts.name()), Some("scripted"));
        assert!(unlisted.stt.off().is_some() && unlisted.tts.off().is_some());
    }

    #[test]
    fn an_stt_service_that_is_not_configured_names_the_setting_that_is_missing() {
        for (name, setting) in [
            ("deepgram", "DEEPGRAM_API_KEY"),
            ("assemblyai", "ASSEMBLYAI_API_KEY"),
            ("openai", "STT_OPENAI_API_KEY"),
            ("june", "STT_SERVICE_URL"),
        ] {
            let config = ProviderConfig { stt: Choice::Listed(vec![name]), ..without_models() };

            let reason = Providers::load(&config).stt.off().unwrap().to_owned();

            assert!(
                reason.starts_with(&format!("STT is off: {name}: ")) && reason.contains(setting),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_tts_service_that_is_not_configured_names_the_setting_that_is_missing() {
        for (name, setting) in [
            ("elevenlabs", "ELEVENLABS_API_KEY"),
            ("openai", "TTS_OPENAI_API_KEY"),
            ("june", "TTS_SERVICE_URL"),
            ("deepgram", "DEEPGRAM_API_KEY"),
        ] {
            let config = ProviderConfig { tts: Choice::Listed(vec![name]), ..without_models() };

            let reason = Providers::load(&config).tts.off().unwrap().to_owned();

            assert!(
                reason.starts_with(&format!("TTS is off: {name}: ")) && reason.contains(setting),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_chosen_llm_that_is_not_available_is_off_and_no_other_takes_its_place() {
        for name in LLM.names().filter(|name| *name != "echo" && !scripted::is_scripted(name)) {
            let config = ProviderConfig { llm: Choice::Listed(vec![name]), ..without_models() };

            let llm = Providers::load(&config).llm;

            let reason = llm.off().unwrap();
            assert!(reason.starts_with(&format!("LLM is off: {name}: ")), "{reason}");
        }
    }

    #[test]
    fn a_configured_endpoint_comes_before_embedded_models() {
        let openai = OpenAiConfig {
            base_url: Some("http://127.0.0.1:1/v1".into()),
            key: Some(Secret::new("sk-very-secret")),
            model: "m".into(),
            images: Images::Auto,
        };
        let config = ProviderConfig { openai: Some(openai), ..without_models() };

        let llm = Providers::load(&config).llm;

        assert_eq!(llm.ready().map(|llm| llm.name()), Some("openai"));
        assert!(!format!("{config:?}").contains("very-secret"));
    }
}
