//! Text to speech (TTS).

mod config;
pub(super) mod deepgram;
pub(super) mod elevenlabs;
pub(super) mod june;
pub(super) mod openai;
pub(super) mod piper;
mod speech;
#[cfg(test)]
mod suite;
mod wav;

use futures::stream::BoxStream;

use super::ProviderError;
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

    /// Speaks one sentence. Samples come in order as they are ready, in pieces of the provider's choice. Dropping the
    /// stream stops the work.
    fn synthesize(&self, request: SpeechRequest) -> BoxStream<'static, Result<Vec<i16>, ProviderError>>;
}
