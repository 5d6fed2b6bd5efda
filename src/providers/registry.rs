//! Puts the minds together from settings: what is there is ready, what is not is off and says why.
//!
//! A gateway starts whatever is missing. Each [`Availability`] that is off carries one sentence, for the log
//! and for whoever asks: which part it is, why, and how to get it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::providers::{
    inference::onnx::Runtime,
    llm::{
        echo::EchoModel,
        http::{HttpModel, Timeouts},
    },
    stt::moonshine::Moonshine,
    tts::{
        frontend::{
            cmudict::Cmudict,
            phonemizer::{Espeak, Phonemizer},
        },
        piper::Piper,
    },
    vad::silero,
};
#[cfg(feature = "smollm2")]
use crate::{
    providers::{
        ProviderError,
        llm::{LanguageModel, smollm2::SmolLm2},
        stt::SpeechToText,
        tts::TextToSpeech,
        vad::{Earshot, SpeechDetector, StageSettings, TwoStage},
    },
    secret::Secret,
};

/// The files that `scripts/setup models` installs under these names.
const RUNTIME_FILE: &str = "libonnxruntime.so.1.23.2";
const SILERO_FILE: &str = "silero-vad-v6.onnx";
const DICTIONARY_FILE: &str = "cmudict.dict";
#[cfg(feature = "smollm2")]
const SMOLLM2_FILE: &str = "smollm2-135m-instruct-q4_1.gguf";

/// What the minds are made of.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// The folder that `scripts/setup models` fills.
    pub models: PathBuf,
    /// Threads that transcribe: about 100 MB for the first and 70 MB for each further one.
    pub stt_workers: usize,
    /// Threads that speak, of about the same size.
    pub tts_workers: usize,
    /// What tells speech from everything else.
    pub vad: VadChoice,
    /// Who answers.
    pub llm: LlmChoice,
    /// An endpoint that speaks OpenAI's chat completions.
    pub openai: Option<OpenAiSettings>,
    /// Google's Gemini.
    pub gemini: Option<GeminiSettings>,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            models: PathBuf::from("models"),
            stt_workers: 2,
            tts_workers: 1,
            vad: VadChoice::default(),
            llm: LlmChoice::Auto,
            openai: None,
            gemini: None,
        }
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlmChoice {
    /// The first that is there: the OpenAI-compatible endpoint, Gemini, SmolLM2, the echo model.
    #[default]
    Auto,
    /// Repeats what was said: no language model.
    Echo,
    /// The small embedded language model.
    SmolLm2,
    /// The OpenAI-compatible endpoint.
    OpenAi,
    /// Google's Gemini.
    Gemini,
}

impl std::str::FromStr for LlmChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Self::Auto),
            // `parrot` is what older configurations call it.
            "echo" | "parrot" => Ok(Self::Echo),
            "smollm2" => Ok(Self::SmolLm2),
            "openai" => Ok(Self::OpenAi),
            "gemini" => Ok(Self::Gemini),
            other => Err(format!("no LLM '{other}': auto, echo, smollm2, openai or gemini")),
        }
    }
}

/// An endpoint that speaks OpenAI's chat completions.
#[derive(Clone, Debug)]
pub struct OpenAiSettings {
    /// Up to and with `/v1`; OpenAI's own where there is none.
    pub base_url: Option<String>,
    /// None where the endpoint wants none.
    pub key: Option<Secret>,
    /// The model's name there.
    pub model: String,
}

/// Google's Gemini.
#[derive(Clone, Debug)]
pub struct GeminiSettings {
    /// Only where a proxy stands before it.
    pub base_url: Option<String>,
    /// From Google AI Studio.
    pub key: Secret,
    /// The model's name.
    pub model: String,
}

/// A part that is ready, or off with the reason.
pub enum Availability<T: ?Sized> {
    /// It works.
    Ready(Arc<T>),
    /// It does not; the sentence says which part, why, and how to get it.
    Off(String),
}

impl<T: ?Sized> Availability<T> {
    /// The part, where it is ready.
    pub fn ready(&self) -> Option<&Arc<T>> {
        match self {
            Availability::Ready(part) => Some(part),
            Availability::Off(_) => None,
        }
    }

    /// Why it is off, where it is.
    pub fn off(&self) -> Option<&str> {
        match self {
            Availability::Ready(_) => None,
            Availability::Off(why) => Some(why),
        }
    }
}

impl<T: ?Sized> Clone for Availability<T> {
    fn clone(&self) -> Self {
        match self {
            Availability::Ready(part) => Availability::Ready(Arc::clone(part)),
            Availability::Off(why) => Availability::Off(why.clone()),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Availability<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.off().unwrap_or("ready"))
    }
}

/// What tells speech from everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VadChoice {
    /// Earshot first, Silero where it hears something: close to Silero's judgement at a fraction of its
    /// cost.
    #[default]
    TwoStage,
    /// Silero for every frame.
    Silero,
    /// Earshot alone: the cheapest, and easily taken in by music.
    Earshot,
}

impl std::str::FromStr for VadChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "two-stage" => Ok(Self::TwoStage),
            "silero" => Ok(Self::Silero),
            "earshot" => Ok(Self::Earshot),
            other => Err(format!("no voice activity detection '{other}': two-stage, silero or earshot")),
        }
    }
}

/// Makes a speech detector for each new stream. Cheap to clone.
#[derive(Clone)]
pub struct Detectors {
    choice: VadChoice,
    /// None where it was not chosen, or is not there.
    silero: Option<silero::Engine>,
    off: Option<String>,
}

impl Detectors {
    /// A detector for one stream.
    pub fn detector(&self) -> Box<dyn SpeechDetector> {
        match (&self.silero, self.choice) {
            (Some(engine), VadChoice::TwoStage) => {
                Box::new(TwoStage::new(engine.detector(), StageSettings::default()))
            }
            (Some(engine), VadChoice::Silero) => Box::new(engine.detector()),
            (Some(_), VadChoice::Earshot) | (None, _) => Box::new(Earshot::default()),
        }
    }

    /// Which it is.
    pub fn name(&self) -> &'static str {
        match (&self.silero, self.choice) {
            (Some(_), VadChoice::TwoStage) => "earshot, silero",
            (Some(_), VadChoice::Silero) => "silero",
            (Some(_), VadChoice::Earshot) | (None, _) => "earshot",
        }
    }

    /// Why there is no second stage, where there is none.
    pub fn off(&self) -> Option<&str> {
        self.off.as_deref()
    }
}

/// All that a conversation needs. Cheap to clone.
#[derive(Clone)]
pub struct Providers {
    /// Speech to text.
    pub stt: Availability<dyn SpeechToText>,
    /// Who answers.
    pub llm: Availability<dyn LanguageModel>,
    /// Text to speech.
    pub tts: Availability<dyn TextToSpeech>,
    /// Speech or not.
    pub detectors: Detectors,
}

impl Providers {
    /// Loads what is there; reads some 100 MB, so not on a thread that serves.
    pub fn load(settings: &ProviderConfig) -> Self {
        let models = settings.models.as_path();
        let runtime = Runtime::load(&models.join(RUNTIME_FILE));
        std::thread::scope(|scope| {
            // Each takes a good part of a second; together they take as long as the longest.
            let stt = scope.spawn(|| stt(&runtime, settings));
            let tts = scope.spawn(|| tts(&runtime, settings));
            let llm = scope.spawn(|| llm(settings));
            let never = "loading a part gives an error and does not panic";
            Self {
                detectors: detectors(&runtime, models, settings.vad),
                stt: stt.join().expect(never),
                tts: tts.join().expect(never),
                llm: llm.join().expect(never),
            }
        })
    }

    /// One sentence for each part that is off.
    pub fn missing(&self) -> Vec<&str> {
        let parts = [self.stt.off(), self.llm.off(), self.tts.off(), self.detectors.off()];
        parts.into_iter().flatten().collect()
    }
}

fn stt(
    runtime: &Result<Runtime, ProviderError>,
    settings: &ProviderConfig,
) -> Availability<dyn SpeechToText> {
    let load =
        || Moonshine::load(runtime.as_ref().map_err(Clone::clone)?, &settings.models, settings.stt_workers);
    match load() {
        Ok(moonshine) => Availability::Ready(Arc::new(moonshine)),
        Err(error) => Availability::Off(off("the embedded stt", "models", &error)),
    }
}

fn tts(
    runtime: &Result<Runtime, ProviderError>,
    settings: &ProviderConfig,
) -> Availability<dyn TextToSpeech> {
    let models = settings.models.as_path();
    let load = || {
        Piper::load(
            runtime.as_ref().map_err(Clone::clone)?,
            models,
            phonemizer(models)?,
            settings.tts_workers,
        )
    };
    match load() {
        Ok(piper) => Availability::Ready(Arc::new(piper)),
        Err(error) => Availability::Off(off("the embedded tts", "models", &error)),
    }
}

fn detectors(runtime: &Result<Runtime, ProviderError>, models: &Path, choice: VadChoice) -> Detectors {
    if choice == VadChoice::Earshot {
        return Detectors { choice, silero: None, off: None };
    }
    let load = || silero::Engine::load(runtime.as_ref().map_err(Clone::clone)?, &models.join(SILERO_FILE));
    match load() {
        Ok(engine) => Detectors { choice, silero: Some(engine), off: None },
        Err(error) => {
            let off = off("the second stage of voice activity detection", "models", &error);
            Detectors { choice, silero: None, off: Some(off) }
        }
    }
}

fn off(what: &str, install: &str, error: &ProviderError) -> String {
    let why = match error {
        ProviderError::Unavailable(why) => why.clone(),
        ProviderError::Busy
        | ProviderError::Refused(_)
        | ProviderError::Connection(_)
        | ProviderError::Inference(_) => error.to_string(),
    };
    format!("{what} is off: {why} (get it by: scripts/setup {install})")
}

/// The dictionary, eSpeak NG, or both: either is enough.
fn phonemizer(models: &Path) -> Result<Phonemizer, ProviderError> {
    let dictionary = Cmudict::load(&models.join(DICTIONARY_FILE));
    match (dictionary, Espeak::find()) {
        (Ok(dictionary), espeak) => Ok(Phonemizer::new(dictionary, espeak)),
        (Err(_), Some(espeak)) => Ok(Phonemizer::espeak_alone(espeak)),
        (Err(error), None) => Err(error),
    }
}

fn llm(settings: &ProviderConfig) -> Availability<dyn LanguageModel> {
    let echo = || Availability::Ready(Arc::new(EchoModel) as Arc<dyn LanguageModel>);
    match settings.llm {
        LlmChoice::Echo => echo(),
        LlmChoice::OpenAi => openai(settings),
        LlmChoice::Gemini => gemini(settings),
        LlmChoice::SmolLm2 => smollm2(&settings.models),
        LlmChoice::Auto if settings.openai.is_some() => openai(settings),
        LlmChoice::Auto if settings.gemini.is_some() => gemini(settings),
        LlmChoice::Auto => match smollm2(&settings.models) {
            Availability::Ready(model) => Availability::Ready(model),
            Availability::Off(_) => echo(),
        },
    }
}

fn openai(settings: &ProviderConfig) -> Availability<dyn LanguageModel> {
    let Some(openai) = &settings.openai else {
        return Availability::Off(
            "the llm is off: 'openai' was chosen, but no endpoint or key is configured".into(),
        );
    };
    chat(HttpModel::openai(
        openai.base_url.as_deref(),
        openai.key.as_ref(),
        &openai.model,
        Timeouts::default(),
    ))
}

fn gemini(settings: &ProviderConfig) -> Availability<dyn LanguageModel> {
    let Some(gemini) = &settings.gemini else {
        return Availability::Off(
            "the llm is off: 'gemini' was chosen, but GEMINI_API_KEY is not set".into(),
        );
    };
    chat(HttpModel::gemini(gemini.base_url.as_deref(), &gemini.key, &gemini.model, Timeouts::default()))
}

fn chat(chat: Result<HttpModel, ProviderError>) -> Availability<dyn LanguageModel> {
    match chat {
        Ok(chat) => Availability::Ready(Arc::new(chat)),
        Err(error) => Availability::Off(format!("the llm is off: {error}")),
    }
}

#[cfg(feature = "smollm2")]
fn smollm2(models: &Path) -> Availability<dyn LanguageModel> {
    match SmolLm2::load(&models.join(SMOLLM2_FILE)) {
        Ok(model) => Availability::Ready(Arc::new(model)),
        Err(error) => Availability::Off(off("the embedded language model", "smollm2", &error)),
    }
}

#[cfg(not(feature = "smollm2"))]
fn smollm2(_: &Path) -> Availability<dyn LanguageModel> {
    Availability::Off("the embedded language model is off: this build is without the feature smollm2".into())
}

/// The folder that `scripts/setup` fills, where nothing else is said: `$JUNE_CACHE`, else `june-edge`
/// in the user's cache folder. `get` reads a variable; none where there is no home either.
pub fn cache_folder(get: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let folder = |name: &str| get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("JUNE_CACHE").or_else(|| {
        let user = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
        Some(user.join("june-edge"))
    })
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        audio::SAMPLE_RATE_HZ,
        providers::{
            stt::SttEvent,
            testing::{self, word_errors},
        },
        turn::{
            endpointer::EndpointerConfig,
            utterance_detector::{self, EndReason, SpeechEvent, UtteranceDetector},
        },
    };

    fn listener(providers: &Detectors) -> UtteranceDetector {
        UtteranceDetector::new(providers.detector(), EndpointerConfig::default())
    }

    /// A room in which nobody speaks.
    fn room(seconds: usize) -> Vec<i16> {
        (0..seconds * SAMPLE_RATE_HZ as usize).map(|n| (n * 7919 % 61) as i16 - 30).collect()
    }

    #[tokio::test]
    async fn each_recording_is_one_utterance_and_what_is_cut_out_is_understood() {
        let providers =
            Providers::load(&ProviderConfig { models: testing::models(), ..ProviderConfig::default() });
        let stt = providers.stt.ready().unwrap();
        let (mut errors, mut words) = (0, 0);
        for (clip, spoken) in testing::transcripts() {
            let input = [room(2), utterance_detector::fixture(&clip), room(2)].concat();

            let heard: Vec<SpeechEvent> = input
                .chunks(320)
                .scan(listener(&providers.detectors), |listener, chunk| Some(listener.push(chunk)))
                .flatten()
                .collect();

            let (feed, audio) = mpsc::channel(heard.len());
            let events = stt.open(audio);
            let mut ends = Vec::new();
            for event in heard {
                match event {
                    SpeechEvent::Started { .. } => {}
                    SpeechEvent::Audio(pcm) => feed.send(pcm).await.unwrap(),
                    SpeechEvent::Ended { reason, .. } => ends.push(reason),
                }
            }
            drop(feed);
            assert_eq!(ends, [EndReason::Silence], "{clip}");
            match events.collect::<Vec<_>>().await.pop() {
                Some(Ok(SttEvent::Final(text))) => errors += word_errors(&spoken, &text),
                other => panic!("the last event was {other:?}"),
            }
            words += spoken.split_whitespace().count();
        }
        assert!(errors * 100 <= words * 6, "{errors} of {words} words wrong");
    }

    #[test]
    fn a_ventilator_opens_no_utterance() {
        let providers =
            Providers::load(&ProviderConfig { models: testing::models(), ..ProviderConfig::default() });
        let hum = |n: usize| {
            let t = n as f32 / SAMPLE_RATE_HZ as f32 * std::f32::consts::TAU;
            ((50.0 * t).sin() * 900.0 + (100.0 * t).sin() * 500.0 + (300.0 * t).sin() * 200.0) as i16
        };
        let noise: Vec<i16> = room(20).iter().enumerate().map(|(n, hiss)| hum(n) + hiss).collect();

        assert_eq!(listener(&providers.detectors).push(&noise), []);
    }

    fn without_models() -> ProviderConfig {
        ProviderConfig { models: PathBuf::from("/nowhere/models"), ..ProviderConfig::default() }
    }

    #[test]
    fn with_the_models_installed_every_part_is_ready() {
        let providers =
            Providers::load(&ProviderConfig { models: testing::models(), ..ProviderConfig::default() });

        assert_eq!(providers.missing(), Vec::<&str>::new());
    }

    #[test]
    fn without_models_each_part_says_how_to_get_it_and_the_echo_model_answers() {
        let providers = Providers::load(&without_models());

        let missing = providers.missing();
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(
            missing.iter().all(|why| why.contains("is off") && why.contains("scripts/setup models")),
            "{missing:?}"
        );
        assert_eq!(providers.llm.ready().map(|llm| llm.name()), Some("echo"));
        providers.detectors.detector();
    }

    #[test]
    fn a_thinker_that_was_chosen_and_is_not_configured_is_off_and_not_another() {
        for choice in [LlmChoice::OpenAi, LlmChoice::Gemini, LlmChoice::SmolLm2] {
            let providers = llm(&ProviderConfig { llm: choice, ..without_models() });

            assert!(providers.off().is_some_and(|why| why.contains("is off")), "{choice:?}");
        }
    }

    #[test]
    fn a_configured_endpoint_comes_before_what_is_embedded() {
        let openai = OpenAiSettings {
            base_url: Some("http://127.0.0.1:1/v1".into()),
            key: Some(Secret::new("sk-very-secret")),
            model: "m".into(),
        };
        let settings = ProviderConfig { openai: Some(openai), ..without_models() };

        assert_eq!(llm(&settings).ready().map(|llm| llm.name()), Some("openai"));
        assert!(!format!("{settings:?}").contains("very-secret"));
    }
}
