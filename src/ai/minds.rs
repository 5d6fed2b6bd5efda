//! Puts the minds together from settings: what is there is ready, what is not is off and says why.
//!
//! A gateway starts whatever is missing. Each [`Mind`] that is off carries one sentence, for the log
//! and for whoever asks: which part it is, why, and how to get it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chat::{Chat, Patience};
use super::dictionary::Dictionary;
use super::moonshine::Moonshine;
use super::onnx::Runtime;
use super::parrot::Parrot;
use super::phonemes::{Espeak, Phonemizer};
use super::piper::Piper;
use super::silero;
#[cfg(feature = "smollm2")]
use super::smollm2::SmolLm2;
use super::{AiError, Speaker, Thinker, Transcriber};
use crate::secret::Secret;
use crate::speech::detector::{Earshot, SpeechDetector, StageSettings, TwoStage};

/// The files that `scripts/setup models` installs under these names.
const RUNTIME_FILE: &str = "libonnxruntime.so.1.23.2";
const SILERO_FILE: &str = "silero-vad-v6.onnx";
const DICTIONARY_FILE: &str = "cmudict.dict";
#[cfg(feature = "smollm2")]
const SMOLLM2_FILE: &str = "smollm2-135m-instruct-q4_1.gguf";

/// What the minds are made of.
#[derive(Clone, Debug)]
pub struct MindSettings {
    /// The folder that `scripts/setup models` fills.
    pub models: PathBuf,
    /// Threads that transcribe: about 100 MB for the first and 70 MB for each further one.
    pub transcriber_workers: usize,
    /// Threads that speak, of about the same size.
    pub speaker_workers: usize,
    /// What tells speech from everything else.
    pub vad: VadChoice,
    /// Who answers.
    pub thinker: ThinkerChoice,
    /// An endpoint that speaks OpenAI's chat completions.
    pub openai: Option<OpenAiSettings>,
    /// Google's Gemini.
    pub gemini: Option<GeminiSettings>,
}

impl Default for MindSettings {
    fn default() -> Self {
        Self {
            models: PathBuf::from("models"),
            transcriber_workers: 2,
            speaker_workers: 1,
            vad: VadChoice::default(),
            thinker: ThinkerChoice::Auto,
            openai: None,
            gemini: None,
        }
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThinkerChoice {
    /// The first that is there: the OpenAI-compatible endpoint, Gemini, SmolLM2, the parrot.
    #[default]
    Auto,
    /// The scripted one.
    Parrot,
    /// The small embedded language model.
    SmolLm2,
    /// The OpenAI-compatible endpoint.
    OpenAi,
    /// Google's Gemini.
    Gemini,
}

impl std::str::FromStr for ThinkerChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Self::Auto),
            "parrot" => Ok(Self::Parrot),
            "smollm2" => Ok(Self::SmolLm2),
            "openai" => Ok(Self::OpenAi),
            "gemini" => Ok(Self::Gemini),
            other => Err(format!("no thinker '{other}': auto, parrot, smollm2, openai or gemini")),
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
pub enum Mind<T: ?Sized> {
    /// It works.
    Ready(Arc<T>),
    /// It does not; the sentence says which part, why, and how to get it.
    Off(String),
}

impl<T: ?Sized> Mind<T> {
    /// The part, where it is ready.
    pub fn ready(&self) -> Option<&Arc<T>> {
        match self {
            Mind::Ready(mind) => Some(mind),
            Mind::Off(_) => None,
        }
    }

    /// Why it is off, where it is.
    pub fn off(&self) -> Option<&str> {
        match self {
            Mind::Ready(_) => None,
            Mind::Off(why) => Some(why),
        }
    }
}

impl<T: ?Sized> Clone for Mind<T> {
    fn clone(&self) -> Self {
        match self {
            Mind::Ready(mind) => Mind::Ready(Arc::clone(mind)),
            Mind::Off(why) => Mind::Off(why.clone()),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Mind<T> {
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
pub struct Minds {
    /// Speech to text.
    pub transcriber: Mind<dyn Transcriber>,
    /// Who answers.
    pub thinker: Mind<dyn Thinker>,
    /// Text to speech.
    pub speaker: Mind<dyn Speaker>,
    /// Speech or not.
    pub detectors: Detectors,
}

impl Minds {
    /// Loads what is there; reads some 100 MB, so not on a thread that serves.
    pub fn load(settings: &MindSettings) -> Self {
        let models = settings.models.as_path();
        let runtime = Runtime::load(&models.join(RUNTIME_FILE));
        std::thread::scope(|scope| {
            // Each takes a good part of a second; together they take as long as the longest.
            let transcriber = scope.spawn(|| transcriber(&runtime, settings));
            let speaker = scope.spawn(|| speaker(&runtime, settings));
            let thinker = scope.spawn(|| thinker(settings));
            let never = "loading a part gives an error and does not panic";
            Self {
                detectors: detectors(&runtime, models, settings.vad),
                transcriber: transcriber.join().expect(never),
                speaker: speaker.join().expect(never),
                thinker: thinker.join().expect(never),
            }
        })
    }

    /// One sentence for each part that is off.
    pub fn missing(&self) -> Vec<&str> {
        let parts = [self.transcriber.off(), self.thinker.off(), self.speaker.off(), self.detectors.off()];
        parts.into_iter().flatten().collect()
    }
}

fn transcriber(runtime: &Result<Runtime, AiError>, settings: &MindSettings) -> Mind<dyn Transcriber> {
    let load = || {
        Moonshine::load(
            runtime.as_ref().map_err(Clone::clone)?,
            &settings.models,
            settings.transcriber_workers,
        )
    };
    match load() {
        Ok(moonshine) => Mind::Ready(Arc::new(moonshine)),
        Err(error) => Mind::Off(off("the embedded transcriber", "models", &error)),
    }
}

fn speaker(runtime: &Result<Runtime, AiError>, settings: &MindSettings) -> Mind<dyn Speaker> {
    let models = settings.models.as_path();
    let load = || {
        Piper::load(
            runtime.as_ref().map_err(Clone::clone)?,
            models,
            phonemizer(models)?,
            settings.speaker_workers,
        )
    };
    match load() {
        Ok(piper) => Mind::Ready(Arc::new(piper)),
        Err(error) => Mind::Off(off("the embedded speaker", "models", &error)),
    }
}

fn detectors(runtime: &Result<Runtime, AiError>, models: &Path, choice: VadChoice) -> Detectors {
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

fn off(what: &str, install: &str, error: &AiError) -> String {
    let why = match error {
        AiError::Unavailable(why) => why.clone(),
        AiError::Busy | AiError::Refused(_) | AiError::Connection(_) | AiError::Inference(_) => {
            error.to_string()
        }
    };
    format!("{what} is off: {why} (get it by: scripts/setup {install})")
}

/// The dictionary, eSpeak NG, or both: either is enough.
fn phonemizer(models: &Path) -> Result<Phonemizer, AiError> {
    let dictionary = Dictionary::load(&models.join(DICTIONARY_FILE));
    match (dictionary, Espeak::find()) {
        (Ok(dictionary), espeak) => Ok(Phonemizer::new(dictionary, espeak)),
        (Err(_), Some(espeak)) => Ok(Phonemizer::espeak_alone(espeak)),
        (Err(error), None) => Err(error),
    }
}

fn thinker(settings: &MindSettings) -> Mind<dyn Thinker> {
    let parrot = || Mind::Ready(Arc::new(Parrot) as Arc<dyn Thinker>);
    match settings.thinker {
        ThinkerChoice::Parrot => parrot(),
        ThinkerChoice::OpenAi => openai(settings),
        ThinkerChoice::Gemini => gemini(settings),
        ThinkerChoice::SmolLm2 => smollm2(&settings.models),
        ThinkerChoice::Auto if settings.openai.is_some() => openai(settings),
        ThinkerChoice::Auto if settings.gemini.is_some() => gemini(settings),
        ThinkerChoice::Auto => match smollm2(&settings.models) {
            Mind::Ready(model) => Mind::Ready(model),
            Mind::Off(_) => parrot(),
        },
    }
}

fn openai(settings: &MindSettings) -> Mind<dyn Thinker> {
    let Some(openai) = &settings.openai else {
        return Mind::Off(
            "the thinker is off: 'openai' was chosen, but no endpoint or key is configured".into(),
        );
    };
    chat(Chat::openai(openai.base_url.as_deref(), openai.key.as_ref(), &openai.model, Patience::default()))
}

fn gemini(settings: &MindSettings) -> Mind<dyn Thinker> {
    let Some(gemini) = &settings.gemini else {
        return Mind::Off("the thinker is off: 'gemini' was chosen, but GEMINI_API_KEY is not set".into());
    };
    chat(Chat::gemini(gemini.base_url.as_deref(), &gemini.key, &gemini.model, Patience::default()))
}

fn chat(chat: Result<Chat, AiError>) -> Mind<dyn Thinker> {
    match chat {
        Ok(chat) => Mind::Ready(Arc::new(chat)),
        Err(error) => Mind::Off(format!("the thinker is off: {error}")),
    }
}

#[cfg(feature = "smollm2")]
fn smollm2(models: &Path) -> Mind<dyn Thinker> {
    match SmolLm2::load(&models.join(SMOLLM2_FILE)) {
        Ok(model) => Mind::Ready(Arc::new(model)),
        Err(error) => Mind::Off(off("the embedded language model", "smollm2", &error)),
    }
}

#[cfg(not(feature = "smollm2"))]
fn smollm2(_: &Path) -> Mind<dyn Thinker> {
    Mind::Off("the embedded language model is off: this build is without the feature smollm2".into())
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
    use crate::ai::testing::{self, word_errors};
    use crate::ai::{LISTEN_RATE_HZ, SpeechEvent};
    use crate::speech::gate::GateSettings;
    use crate::speech::{self, EndReason, Heard, Listener};

    fn listener(minds: &Detectors) -> Listener {
        Listener::new(minds.detector(), GateSettings::default())
    }

    /// A room in which nobody speaks.
    fn room(seconds: usize) -> Vec<i16> {
        (0..seconds * LISTEN_RATE_HZ as usize).map(|n| (n * 7919 % 61) as i16 - 30).collect()
    }

    #[tokio::test]
    async fn each_recording_is_one_utterance_and_what_is_cut_out_is_understood() {
        let minds = Minds::load(&MindSettings { models: testing::models(), ..MindSettings::default() });
        let transcriber = minds.transcriber.ready().unwrap();
        let (mut errors, mut words) = (0, 0);
        for (clip, spoken) in testing::transcripts() {
            let input = [room(2), speech::fixture(&clip), room(2)].concat();

            let heard: Vec<Heard> = input
                .chunks(320)
                .scan(listener(&minds.detectors), |listener, chunk| Some(listener.hear(chunk)))
                .flatten()
                .collect();

            let (feed, audio) = mpsc::channel(heard.len());
            let events = transcriber.open(audio);
            let mut ends = Vec::new();
            for event in heard {
                match event {
                    Heard::Started { .. } => {}
                    Heard::Audio(pcm) => feed.send(pcm).await.unwrap(),
                    Heard::Ended { reason, .. } => ends.push(reason),
                }
            }
            drop(feed);
            assert_eq!(ends, [EndReason::Silence], "{clip}");
            match events.collect::<Vec<_>>().await.pop() {
                Some(Ok(SpeechEvent::Final(text))) => errors += word_errors(&spoken, &text),
                other => panic!("the last event was {other:?}"),
            }
            words += spoken.split_whitespace().count();
        }
        assert!(errors * 100 <= words * 6, "{errors} of {words} words wrong");
    }

    #[test]
    fn a_ventilator_opens_no_utterance() {
        let minds = Minds::load(&MindSettings { models: testing::models(), ..MindSettings::default() });
        let hum = |n: usize| {
            let t = n as f32 / LISTEN_RATE_HZ as f32 * std::f32::consts::TAU;
            ((50.0 * t).sin() * 900.0 + (100.0 * t).sin() * 500.0 + (300.0 * t).sin() * 200.0) as i16
        };
        let noise: Vec<i16> = room(20).iter().enumerate().map(|(n, hiss)| hum(n) + hiss).collect();

        assert_eq!(listener(&minds.detectors).hear(&noise), []);
    }

    fn without_models() -> MindSettings {
        MindSettings { models: PathBuf::from("/nowhere/models"), ..MindSettings::default() }
    }

    #[test]
    fn with_the_models_installed_every_part_is_ready() {
        let minds = Minds::load(&MindSettings { models: testing::models(), ..MindSettings::default() });

        assert_eq!(minds.missing(), Vec::<&str>::new());
    }

    #[test]
    fn without_models_each_part_says_how_to_get_it_and_the_parrot_answers() {
        let minds = Minds::load(&without_models());

        let missing = minds.missing();
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(
            missing.iter().all(|why| why.contains("is off") && why.contains("scripts/setup models")),
            "{missing:?}"
        );
        assert_eq!(minds.thinker.ready().map(|thinker| thinker.name()), Some("parrot"));
        minds.detectors.detector();
    }

    #[test]
    fn a_thinker_that_was_chosen_and_is_not_configured_is_off_and_not_another() {
        for choice in [ThinkerChoice::OpenAi, ThinkerChoice::Gemini, ThinkerChoice::SmolLm2] {
            let minds = thinker(&MindSettings { thinker: choice, ..without_models() });

            assert!(minds.off().is_some_and(|why| why.contains("is off")), "{choice:?}");
        }
    }

    #[test]
    fn a_configured_endpoint_comes_before_what_is_embedded() {
        let openai = OpenAiSettings {
            base_url: Some("http://127.0.0.1:1/v1".into()),
            key: Some(Secret::new("sk-very-secret")),
            model: "m".into(),
        };
        let settings = MindSettings { openai: Some(openai), ..without_models() };

        assert_eq!(thinker(&settings).ready().map(|thinker| thinker.name()), Some("openai"));
        assert!(!format!("{settings:?}").contains("very-secret"));
    }
}
