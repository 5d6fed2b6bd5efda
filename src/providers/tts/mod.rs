//! Text to speech (TTS).

mod config;
pub(super) mod deepgram;
pub(super) mod elevenlabs;
pub(super) mod fallback;
pub(super) mod june;
pub(super) mod openai;
pub(super) mod piper;
mod speech;
#[cfg(test)]
mod suite;
mod wav;

use std::sync::Arc;

use futures::stream::BoxStream;

use super::{ProviderError, inference::worker_pool::Hold};
use crate::language::Language;

pub use config::{DeepgramTtsConfig, ElevenLabsConfig, OpenAiTtsConfig, TtsServiceConfig, TtsServices};

/// A sentence to be spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeechRequest {
    pub text: String,
    /// None if nobody said.
    pub language: Option<Language>,
    /// The provider's name of a voice; none for its default.
    pub voice: Option<String>,
}

impl SpeechRequest {
    /// In the provider's own language and voice.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// Synthesizes speech.
pub trait TextToSpeech: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Sample rate of the speech, in Hz. Always mono.
    fn sample_rate_hz(&self) -> u32;

    /// Whether it speaks this language.
    fn speaks(&self, language: &Language) -> bool;

    /// Its voices by name, if it knows them all. Empty if it takes any name.
    fn voices(&self) -> &[&'static str] {
        &[]
    }

    /// The same with these of its providers only, in this order; none if it has none of them.
    fn select(&self, _names: &[String]) -> Option<Arc<dyn TextToSpeech>> {
        None
    }

    /// Whoever holds it will soon need it: an embedded model is loaded meanwhile, and stays in memory.
    fn hold(&self) -> Hold {
        Hold::default()
    }

    /// Speaks one sentence. Samples come in order as they are ready, in pieces of the provider's choice. Dropping the
    /// stream stops the work.
    fn synthesize(&self, request: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>>;
}
