//! Text to speech (TTS).

pub mod frontend;
pub mod piper;

use futures::stream::BoxStream;

use super::ProviderError;

/// Speaks text.
pub trait TextToSpeech: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Sample rate of what [`synthesize`](Speaker::speak) yields, in Hz. Always mono.
    fn sample_rate_hz(&self) -> u32;

    /// Speaks one sentence. Runs of samples come in order as they are ready; their lengths are the
    /// provider's. Dropping the stream stops the work.
    fn synthesize(&self, sentence: String) -> BoxStream<'static, Result<Vec<i16>, ProviderError>>;
}
