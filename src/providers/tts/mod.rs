//! Text to speech (TTS).

pub(super) mod piper;

use futures::stream::BoxStream;

use super::ProviderError;

/// Synthesizes speech.
pub trait TextToSpeech: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Sample rate of the speech, in Hz. Always mono.
    fn sample_rate_hz(&self) -> u32;

    /// Speaks one sentence. Samples come in order as they are ready, in pieces of the provider's choice. Dropping the
    /// stream stops the work.
    fn synthesize(&self, sentence: String) -> BoxStream<'static, Result<Vec<i16>, ProviderError>>;
}
