//! Speech to text (STT).

mod hallucination_filter;
pub mod moonshine;
pub mod partial_scheduler;

use futures::stream::BoxStream;
use tokio::sync::mpsc;

use super::ProviderError;
use crate::audio::Pcm;

/// What a transcriber says about the utterance it is given.
#[derive(Clone, Debug, PartialEq)]
pub enum SttEvent {
    /// The whole utterance as understood so far; replaces the interim before it.
    Interim(String),
    /// The whole utterance, once and last. Empty where nothing was said after all (a cough, a hum,
    /// what a model makes up over silence).
    Final(String),
}

/// Turns the speech of one utterance into text.
pub trait SpeechToText: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Opens one utterance: PCM goes in by `audio`, events come out. Closing `audio` ends the
    /// utterance; then exactly one [`SttEvent::Final`] or one error ends the stream.
    /// Dropping the stream abandons the utterance.
    fn open(&self, audio: mpsc::Receiver<Pcm>) -> BoxStream<'static, Result<SttEvent, ProviderError>>;
}
