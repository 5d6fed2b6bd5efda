//! The three minds a conversation needs, each behind a trait with an embedded default that works
//! without an account and at least one provider by its real wire protocol.
//!
//! ```text
//!   16 kHz PCM ──▶ Transcriber ──▶ SpeechEvent ──▶ (turn) ──▶ Thinker ──▶ text ──▶ Speaker ──▶ PCM
//! ```
//!
//! All three are data in, a stream out: no callbacks, no locks held across a wait. A session joins
//! a stream with actix's `add_stream`; dropping the stream cancels the work behind it.
//! Heavy inference never runs on the thread that polls a stream: it goes to a bounded worker pool.

pub mod inference;
pub mod llm;
pub mod registry;
pub mod stt;
#[cfg(test)]
mod testing;
pub mod tts;
pub mod vad;

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};

/// One item of a provider's stream, with an end that cannot be overlooked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamItem<T> {
    /// More of it.
    More(T),
    /// That was all; nothing follows.
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

/// Why a provider could not do its work.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProviderError {
    /// The part is off; the text says why and how to switch it on.
    #[error("not available: {0}")]
    Unavailable(String),
    /// Every worker is taken and the queue is full: the same call may work in a moment.
    #[error("too busy")]
    Busy,
    /// The provider answered with a refusal (a bad key, a quota, a bad request).
    #[error("refused: {0}")]
    Refused(String),
    /// The provider could not be reached, or broke off.
    #[error("connection failed: {0}")]
    Connection(String),
    /// The model or its runtime failed on this input.
    #[error("inference failed: {0}")]
    Inference(String),
}

impl ProviderError {
    /// A stream that is nothing but this failure.
    pub fn into_stream<T: Send + 'static>(self) -> BoxStream<'static, Result<T, Self>> {
        stream::iter([Err(self)]).boxed()
    }
}
