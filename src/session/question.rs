//! A line that is asked over REST, and its answer on the way back.
//!
//! It is answered as a typed line is: one response at a time, in the same conversation. A client on the control channel
//! sees and hears the answer as well.

use std::time::Duration;

use crate::{
    error::Code,
    ids::TurnId,
    language::Language,
    limits::Refusal,
    protocol::edge_v1::to_client::Finish,
    providers::{ProviderError, llm::Image},
    session::{
        Voice,
        out::{Effect, Out},
    },
};

/// Tells the questions of a session apart.
pub type QuestionId = u64;

/// The longest recording of an answer.
const MAX_RECORDING: Duration = Duration::from_secs(180);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub text: String,
    /// Shown to the model with this line only.
    pub images: Vec<Image>,
    /// The language of the line, and of the answer's speech; none for the session's.
    pub language: Option<Language>,
    /// Whether the answer is recorded as speech.
    pub with_audio: bool,
}

/// What comes back: pieces of the text, and then one of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Delta(String),
    Answer(Answer),
    Failed(Failure),
}

/// The whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub turn_id: TurnId,
    /// Never empty.
    pub text: String,
    pub finish: Finish,
    pub audio: Audio,
}

/// The speech of an answer: mono samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audio {
    NotAsked,
    /// `is_cut`: it has reached the longest duration, and the rest was left out.
    Recorded {
        samples: Vec<i16>,
        rate_hz: u32,
        is_cut: bool,
    },
    Failed(&'static str),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The language model failed.
    pub(super) fn of_model(cause: &ProviderError) -> Self {
        let retry_after =
            if let ProviderError::RateLimited { retry_after, .. } = cause { *retry_after } else { None };
        let message = format!("the answer could not be made: {cause}");
        Self { retry_after, ..Self::new(Code::AiUnavailable, message) }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { retry_after: Some(refusal.retry_after), ..Self::new(refusal.code(), refusal.to_string()) }
    }
}

/// Who waits for the answer of a response.
#[derive(Debug)]
pub(super) struct Asker {
    id: QuestionId,
    language: Option<Language>,
    recording: Recording,
}

/// Speech that is recorded for an asker.
#[derive(Debug)]
enum Recording {
    NotAsked,
    Going { samples: Vec<i16>, rate_hz: u32, is_cut: bool },
    Failed(&'static str),
}

impl Asker {
    pub(super) fn new(
        id: QuestionId,
        language: Option<Language>,
        with_audio: bool,
        voice: Option<Voice>,
    ) -> Self {
        let recording = match voice {
            _ if !with_audio => Recording::NotAsked,
            Some(Voice { rate_hz, .. }) => Recording::Going { samples: Vec::new(), rate_hz, is_cut: false },
            None => Recording::Failed("this gateway has no TTS"),
        };
        Self { id, language, recording }
    }

    pub(super) fn id(&self) -> QuestionId {
        self.id
    }

    /// The language to speak; none for the session's.
    pub(super) fn language(&self) -> Option<&Language> {
        self.language.as_ref()
    }

    pub(super) fn is_recording(&self) -> bool {
        matches!(self.recording, Recording::Going { .. })
    }

    pub(super) fn record(&mut self, more: &[i16]) {
        if let Recording::Going { samples, rate_hz, is_cut } = &mut self.recording {
            let most = *rate_hz as usize * MAX_RECORDING.as_secs() as usize;
            let room = most.saturating_sub(samples.len());
            *is_cut |= more.len() > room;
            samples.extend(&more[..more.len().min(room)]);
        }
    }

    /// A sentence could not be spoken: a recording with a gap would be taken for the answer.
    pub(super) fn recording_failed(&mut self) {
        if self.is_recording() {
            self.recording = Recording::Failed("the answer could not be spoken");
        }
    }

    pub(super) fn tell(&self, delta: &str, out: &mut Out<'_>) {
        out.push(Effect::Reply(self.id, Reply::Delta(delta.to_owned())));
    }

    /// The response is complete.
    pub(super) fn answer(self, turn_id: TurnId, text: &str, finish: Finish, out: &mut Out<'_>) {
        if text.trim().is_empty() {
            let failure = match finish {
                Finish::Interrupted => {
                    Failure::new(Code::SessionError, "another line or an interruption came before the answer")
                }
                Finish::Stop | Finish::Error | Finish::Length => {
                    Failure::new(Code::AiUnavailable, "the answer could not be made: it has no text")
                }
            };
            return self.fail(failure, out);
        }
        let audio = match self.recording {
            Recording::NotAsked => Audio::NotAsked,
            Recording::Going { .. } if finish == Finish::Interrupted => Audio::Failed("interrupted"),
            Recording::Going { samples, .. } if samples.is_empty() => {
                Audio::Failed("there was nothing to speak")
            }
            Recording::Going { samples, rate_hz, is_cut } => Audio::Recorded { samples, rate_hz, is_cut },
            Recording::Failed(cause) => Audio::Failed(cause),
        };
        let answer = Answer { turn_id, text: text.to_owned(), finish, audio };
        out.push(Effect::Reply(self.id, Reply::Answer(answer)));
    }

    /// There is no answer.
    pub(super) fn fail(self, failure: Failure, out: &mut Out<'_>) {
        out.push(Effect::Reply(self.id, Reply::Failed(failure)));
    }
}
