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

mod believable;
pub mod chat;
pub mod dictionary;
pub mod minds;
pub mod moonshine;
pub mod onnx;
pub mod pace;
pub mod parrot;
pub mod phonemes;
pub mod piper;
pub mod silero;
#[cfg(feature = "smollm2")]
pub mod smollm2;
pub mod spoken;
#[cfg(test)]
mod testing;
pub mod workers;

use std::sync::Arc;

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::mpsc;

/// Sample rate of everything that is heard: 16 kHz, mono, signed 16 bit.
pub const LISTEN_RATE_HZ: u32 = 16_000;

/// A run of samples at [`LISTEN_RATE_HZ`], shared without copying.
pub type Pcm = Arc<[i16]>;

/// What a transcriber says about the utterance it is given.
#[derive(Clone, Debug, PartialEq)]
pub enum SpeechEvent {
    /// The whole utterance as understood so far; replaces the interim before it.
    Interim(String),
    /// The whole utterance, once and last. Empty where nothing was said after all (a cough, a hum,
    /// what a model makes up over silence).
    Final(String),
}

/// Turns the speech of one utterance into text.
pub trait Transcriber: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Opens one utterance: PCM goes in by `audio`, events come out. Closing `audio` ends the
    /// utterance; then exactly one [`SpeechEvent::Final`] or one error ends the stream.
    /// Dropping the stream abandons the utterance.
    fn open(&self, audio: mpsc::Receiver<Pcm>) -> BoxStream<'static, Result<SpeechEvent, AiError>>;
}

/// Who said a line of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The wearer.
    User,
    /// The gateway's answer.
    Assistant,
}

/// One line of the conversation so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Who said it.
    pub role: Role,
    /// What was said, as it was heard.
    pub text: String,
}

/// What a thinker is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Standing instructions.
    pub system: String,
    /// The conversation, oldest first; the last line is the user's turn to be answered.
    pub lines: Vec<Line>,
}

impl Prompt {
    /// The newest lines that fit into so many bytes of text, beginning with one of the user's. The
    /// last line is among them whatever its length.
    pub fn recent(&self, bytes: usize) -> &[Line] {
        let mut left = bytes;
        let fitting = self.lines.iter().rev().take_while(|line| {
            let fits = line.text.len() <= left;
            left = left.saturating_sub(line.text.len());
            fits
        });
        let kept = fitting.count().max(1).min(self.lines.len());
        let recent = &self.lines[self.lines.len() - kept..];
        let first = recent.iter().position(|line| line.role == Role::User).unwrap_or(0);
        &recent[first..]
    }
}

/// Answers a turn.
pub trait Thinker: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Streams the answer piece by piece; the pieces append. The end of the stream is the end of
    /// the answer; an error ends it early. Dropping the stream stops the model.
    fn answer(&self, prompt: Prompt) -> BoxStream<'static, Result<String, AiError>>;
}

/// Speaks text.
pub trait Speaker: Send + Sync + 'static {
    /// The provider's name as it appears in messages, metrics and logs.
    fn name(&self) -> &'static str;

    /// Sample rate of what [`speak`](Speaker::speak) yields, in Hz. Always mono.
    fn sample_rate_hz(&self) -> u32;

    /// Speaks one sentence. Runs of samples come in order as they are ready; their lengths are the
    /// provider's. Dropping the stream stops the work.
    fn speak(&self, sentence: String) -> BoxStream<'static, Result<Vec<i16>, AiError>>;
}

/// One item of a provider's stream, with an end that cannot be overlooked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<T> {
    /// More of it.
    More(T),
    /// That was all; nothing follows.
    Over(Result<(), AiError>),
}

/// Turns a provider's stream into one that ends with exactly one [`Piece::Over`]: at its end, or at
/// its first error.
pub fn pieces<T: Send + 'static>(
    stream: BoxStream<'static, Result<T, AiError>>,
) -> impl Stream<Item = Piece<T>> + Send + 'static {
    stream::unfold(Some(stream), |stream| async {
        let mut stream = stream?;
        match stream.next().await {
            Some(Ok(item)) => Some((Piece::More(item), Some(stream))),
            Some(Err(error)) => Some((Piece::Over(Err(error)), None)),
            None => Some((Piece::Over(Ok(())), None)),
        }
    })
}

/// Why a provider could not do its work.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AiError {
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

impl AiError {
    /// A stream that is nothing but this failure.
    pub fn into_stream<T: Send + 'static>(self) -> BoxStream<'static, Result<T, Self>> {
        stream::iter([Err(self)]).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_conversation_is_cut_to_its_newest_lines_and_begins_with_the_user() {
        let line = |role, text: &str| Line { role, text: text.to_owned() };
        let prompt = Prompt {
            system: String::new(),
            lines: vec![
                line(Role::User, "one"),
                line(Role::Assistant, "two"),
                line(Role::User, "three"),
                line(Role::Assistant, "four"),
                line(Role::User, "five"),
            ],
        };

        assert_eq!(prompt.recent(100), &prompt.lines[..]);
        assert_eq!(prompt.recent(16), &prompt.lines[2..]);
        assert_eq!(prompt.recent(8), &prompt.lines[4..]);
        assert_eq!(prompt.recent(0), &prompt.lines[4..]);
        assert!(Prompt::default().recent(10).is_empty());
    }
}
