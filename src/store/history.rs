//! The conversation history: every utterance and every response.
//!
//! A line is acknowledged only when it is durable: it survives a `kill -9` and, if the disk
//! honours its flush commands, a power failure (docs/decisions/0004-what-saved-means.md).

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{Identity, SessionId, TurnId, UserId, UtteranceId},
    protocol::edge_v1::to_client::Finish,
    store::StoreError,
};

/// One line of a conversation, before it has a place in the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose conversation it is.
    pub user_id: UserId,
    /// The session it was said in.
    pub session_id: SessionId,
    /// When it was said, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was said.
    #[serde(flatten)]
    pub item: HistoryItem,
}

/// The content of a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HistoryItem {
    /// By the user, or by another participant in the room.
    Utterance {
        /// Which utterance; none if it was typed.
        #[serde(skip_serializing_if = "Option::is_none")]
        utterance_id: Option<UtteranceId>,
        /// The final transcript.
        text: String,
        /// When it began, in milliseconds since the session began.
        start_ms: u64,
        /// When it ended, likewise.
        end_ms: u64,
        /// The language, `en-US`.
        language: String,
        /// Whose microphone it was, where it was not the user's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        participant: Option<Identity>,
        /// Who spoke, where that is known: the STT provider's label, the participant, or both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        speaker: Option<String>,
    },
    /// By the gateway.
    #[serde(rename = "answer")]
    Response {
        /// The turn it answers.
        turn_id: TurnId,
        /// The words that reached the user: fewer than were generated if it was interrupted.
        text: String,
        /// How it ended.
        finish: Finish,
        /// How much of the audio was played, in milliseconds; none if it was not spoken.
        #[serde(skip_serializing_if = "Option::is_none")]
        played_ms: Option<u64>,
    },
    /// A call of a tool, for an answer.
    Tool {
        /// The turn that is answered.
        turn_id: TurnId,
        /// The tool.
        name: String,
        /// What it was called with.
        arguments: serde_json::Value,
        /// `ok`, `failed`, `refused`, `timed_out` or `cancelled`.
        outcome: String,
        /// The result, or why there is none.
        text: String,
        /// Whether the result has an image, which is not kept.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        image: bool,
    },
}

impl HistoryItem {
    /// The text, whoever said it.
    pub fn text(&self) -> &str {
        match self {
            Self::Utterance { text, .. } | Self::Response { text, .. } | Self::Tool { text, .. } => text,
        }
    }
}

/// One line of a conversation, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Its place in the user's history: 1 for the first line, one more for each that follows.
    pub seq: u64,
    /// The line.
    #[serde(flatten)]
    pub entry: Entry,
}

/// Keeps conversations.
pub trait HistoryStore: Send + Sync + 'static {
    /// Appends a line, and gives its place in the user's history once it is durable.
    ///
    /// The order of the calls is the order of the places. Dropping the future does not undo the append.
    fn append(&self, entry: Entry) -> BoxFuture<'static, Result<u64, StoreError>>;

    /// At most `limit` of the user's lines with `seq > after`, oldest first. Includes lines that are
    /// not durable yet.
    fn of_user(
        &self,
        user: &UserId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>>;

    /// At most `limit` lines of one session of the user's with `seq > after`, oldest first.
    fn of_session(
        &self,
        user: &UserId,
        session: SessionId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>>;

    /// Deletes all lines of one session of the user's; gives how many, once that is durable. Their places are not
    /// taken again. Lines that are appended meanwhile may stay.
    fn delete_session(
        &self,
        user: &UserId,
        session: SessionId,
    ) -> BoxFuture<'static, Result<u64, StoreError>>;

    /// The user's newest `limit` lines, oldest first.
    fn newest(&self, user: &UserId, limit: usize) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>>;
}
