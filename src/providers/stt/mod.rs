//! Speech to text (STT).

pub(super) mod assemblyai;
mod batch;
mod config;
pub(super) mod deepgram;
pub(super) mod fallback;
mod hallucination_filter;
pub(super) mod june;
mod languages;
pub(crate) mod moonshine;
pub(super) mod openai;
mod partial_scheduler;
mod streaming;
#[cfg(test)]
mod suite;

use std::sync::Arc;

use futures::stream::BoxStream;
use tokio::sync::mpsc;

pub use config::{SttServiceConfig, SttServices};

use super::{ProviderError, inference::worker_pool::Hold};
use crate::{audio::Pcm, language::Language};

/// What is known of an utterance before it is heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SttRequest {
    pub language: SpokenLanguage,
    /// Words and names to expect.
    pub vocabulary: Vec<String>,
}

/// The language that is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpokenLanguage {
    /// The provider finds out. It is probably one of `hints`, if there are any.
    Auto {
        hints: Vec<Language>,
    },
    Known(Language),
}

impl Default for SpokenLanguage {
    fn default() -> Self {
        Self::Auto { hints: Vec::new() }
    }
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    pub text: String,
    /// What the provider heard; none if it does not say so.
    pub language: Option<Language>,
    /// The provider's label of the speaker, where it tells speakers apart.
    pub speaker: Option<String>,
    /// From 0 to 1, where the provider says so.
    pub confidence: Option<f32>,
}

impl Transcript {
    /// Of a provider that says nothing else.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

impl From<&str> for Transcript {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

/// A transcript of the utterance.
#[derive(Clone, Debug, PartialEq)]
pub enum SttEvent {
    /// The utterance so far; replaces the previous interim.
    Interim(Transcript),
    /// The whole utterance; the last event. Empty if nothing was said (a cough, a hum, text that the model makes up
    /// over silence).
    Final(Transcript),
}

/// Transcribes utterances.
pub trait SpeechToText: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Whether it transcribes this language.
    fn transcribes(&self, language: &SpokenLanguage) -> bool;

    /// Whether a first interim is to be expected soon after speech begins. Otherwise the final may be its first result.
    fn is_streaming(&self) -> bool {
        false
    }

    /// The same with these of its providers only, in this order; none if it has none of them.
    fn select(&self, _names: &[String]) -> Option<Arc<dyn SpeechToText>> {
        None
    }

    /// Whoever holds it will soon need it: an embedded model is loaded meanwhile, and stays in memory.
    fn hold(&self) -> Hold {
        Hold::default()
    }

    /// Opens one utterance: PCM goes in by `audio`, events come out. Closing `audio` ends the
    /// utterance; then exactly one [`SttEvent::Final`] or one error ends the stream.
    /// Dropping the stream abandons the utterance.
    fn open(
        &self,
        request: SttRequest,
        audio: mpsc::Receiver<Pcm>,
    ) -> BoxStream<'static, Result<SttEvent, ProviderError>>;
}
