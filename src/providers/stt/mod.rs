//! Speech to text (STT).

mod hallucination_filter;
pub(crate) mod moonshine;
mod partial_scheduler;

use futures::stream::BoxStream;
use tokio::sync::mpsc;

use super::ProviderError;
use crate::audio::Pcm;

/// A transcript of the utterance.
#[derive(Clone, Debug, PartialEq)]
pub enum SttEvent {
    /// The utterance so far; replaces the previous interim.
    Interim(String),
    /// The whole utterance; the last event. Empty if nothing was said (a cough, a hum, text that the model makes up
    /// over silence).
    Final(String),
}

/// Transcribes utterances.
pub trait SpeechToText: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Opens one utterance: PCM goes in by `audio`, events come out. Closing `audio` ends the
    /// utterance; then exactly one [`SttEvent::Final`] or one error ends the stream.
    /// Dropping the stream abandons the utterance.
    fn open(&self, audio: mpsc::Receiver<Pcm>) -> BoxStream<'static, Result<SttEvent, ProviderError>>;
}
