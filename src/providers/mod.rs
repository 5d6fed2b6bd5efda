//! Providers of the three models that a conversation needs, and of voice activity detection.
//!
//! ```text
//!   16 kHz PCM ──▶ SpeechToText ──▶ SttEvent ──▶ (turn) ──▶ LanguageModel ──▶ LlmEvent ──▶ TextToSpeech ──▶ PCM
//! ```
//!
//! Each role is a trait whose calls return a stream: a session polls it with actix's `add_stream`, and dropping it
//! cancels the work. Inference never runs on the thread that polls a stream; it runs on a bounded pool of threads
//! (`inference::worker_pool`). The [`registry`] lists the providers of each role: a new one is one file and one line
//! there.

pub mod chain;
mod circuit_breaker;
mod config;
pub(crate) mod drill;
mod hedge;
pub(crate) mod http;
pub mod inference;
mod latency;
pub mod llm;
mod model_files;
pub(crate) mod recorded;
pub mod registry;
pub(crate) mod scripted;
pub mod stt;
#[cfg(test)]
pub(crate) mod testing;
pub mod tts;
pub mod turn;
pub mod vad;
mod websocket;
mod words;

use std::{sync::Arc, time::Duration};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};

use crate::limits::Refusal;

pub use config::{
    AnthropicConfig, Choice, Deadlines, GeminiConfig, Hedging, Images, OllamaConfig, OpenAiConfig,
    ProviderConfig, TurnModel, cache_folder,
};
pub use scripted::ScriptedConfig;

/// The providers of the names that are asked for, else all.
pub(crate) fn selected<T: ?Sized>(
    all: &Arc<T>,
    asked: Option<&[String]>,
    select: impl FnOnce(&T, &[String]) -> Option<Arc<T>>,
) -> Arc<T> {
    asked.and_then(|names| select(all, names)).unwrap_or_else(|| all.clone())
}

/// One item of a provider's stream, with an explicit end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamItem<T> {
    More(T),
    /// Nothing follows.
    Over(Result<(), ProviderError>),
}

/// Turns a provider's stream into one that ends with exactly one [`StreamItem::Over`]: at its end, or at
/// its first error.
pub fn terminated<T: Send + 'static>(
    stream: BoxStream<'static, Result<T, ProviderError>>,
) -> impl Stream<Item = StreamItem<T>> + Send + 'static {
    stream::unfold(Some(stream), |stream| async {
        let mut stream = stream?;
        match stream.next().await {
            Some(Ok(item)) => Some((StreamItem::More(item), Some(stream))),
            Some(Err(error)) => Some((StreamItem::Over(Err(error)), None)),
            None => Some((StreamItem::Over(Ok(())), None)),
        }
    })
}

/// The same stream, with an error in place of an item that does not come in time.
pub(crate) fn within<T: Send + 'static>(
    stream: BoxStream<'static, Result<T, ProviderError>>,
    timeout: Duration,
) -> BoxStream<'static, Result<T, ProviderError>> {
    let next = move |stream: Option<BoxStream<'static, Result<T, ProviderError>>>| async move {
        let mut stream = stream?;
        match tokio::time::timeout(timeout, stream.next()).await {
            Ok(item) => Some((item?, Some(stream))),
            Err(_) => Some((Err(ProviderError::TimedOut), None)),
        }
    };
    stream::unfold(Some(stream), next).boxed()
}

/// Why a provider could not do its work.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProviderError {
    /// The provider is not configured or not installed.
    #[error("not available: {0}")]
    Unavailable(String),
    /// The queue is full: the same call may succeed in a moment.
    #[error("too busy")]
    Busy,
    /// It was not asked, because a limit of this gateway is reached.
    #[error("{0}")]
    Limited(Refusal),
    /// It took too long.
    #[error("took too long")]
    TimedOut,
    /// The provider refused the request, and would refuse it again: a bad key, a bad request, no such model.
    #[error("refused: {0}")]
    Refused(String),
    /// The provider's own limit or quota is reached.
    #[error("its limit is reached: {reason}")]
    RateLimited { reason: String, retry_after: Option<Duration> },
    /// The provider could not be reached, or the connection ended early.
    #[error("connection failed: {0}")]
    Connection(String),
    /// What it sent is not what its protocol says.
    #[error("unexpected answer: {0}")]
    Garbled(String),
    /// It ended without a result where there has to be one.
    #[error("gave nothing")]
    Empty,
    /// The model or its runtime failed on this input.
    #[error("inference failed: {0}")]
    Inference(String),
}

impl ProviderError {
    /// A stream of this error alone.
    pub(crate) fn into_stream<T: Send + 'static>(self) -> BoxStream<'static, Result<T, Self>> {
        stream::iter([Err(self)]).boxed()
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Refused(_) => false,
            Self::Busy
            | Self::Limited(_)
            | Self::TimedOut
            | Self::RateLimited { .. }
            | Self::Connection(_)
            | Self::Garbled(_)
            | Self::Empty
            | Self::Inference(_) => true,
        }
    }

    /// Adds the target of `scripts/setup` that installs what is missing.
    fn installed_by(self, target: &str) -> Self {
        match self {
            Self::Unavailable(problem) => {
                Self::Unavailable(format!("{problem} (install it with: scripts/setup {target})"))
            }
            other @ (Self::Busy
            | Self::Limited(_)
            | Self::TimedOut
            | Self::Refused(_)
            | Self::RateLimited { .. }
            | Self::Connection(_)
            | Self::Garbled(_)
            | Self::Empty
            | Self::Inference(_)) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_ends_with_an_error() {
        let hanging = stream::iter([Ok(1)]).chain(stream::pending()).boxed();

        let items: Vec<_> = within(hanging, Duration::from_secs(30)).collect().await;

        assert_eq!(items, [Ok(1), Err(ProviderError::TimedOut)]);
    }
}
