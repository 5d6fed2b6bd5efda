//! What was said, kept: every utterance and every answer, durably.
//!
//! Nothing is acknowledged as saved before it is on the disk; what was acknowledged survives a
//! `kill -9` and, as far as the disk keeps its word, a power cut (docs/decisions/0004).

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{SessionId, TurnId, UserId, UtteranceId},
    protocol::edge_v1::to_client::Finish,
};

/// One line of a conversation, on its way into the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose conversation.
    pub user_id: UserId,
    /// The session it was said in.
    pub session_id: SessionId,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub item: HistoryItem,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HistoryItem {
    /// By the user.
    Utterance {
        /// Which utterance; none where it was typed.
        #[serde(skip_serializing_if = "Option::is_none")]
        utterance_id: Option<UtteranceId>,
        /// The final transcript.
        text: String,
        /// When it began, in milliseconds of the session.
        start_ms: u64,
        /// When it ended.
        end_ms: u64,
        /// The language, `en-US`.
        language: String,
    },
    /// By the gateway.
    #[serde(rename = "answer")]
    Response {
        /// The turn it answers.
        turn_id: TurnId,
        /// The words that reached the user.
        text: String,
        /// How it ended.
        finish: Finish,
        /// How much of the sound was played, in milliseconds; none where it was not spoken.
        #[serde(skip_serializing_if = "Option::is_none")]
        played_ms: Option<u64>,
    },
}

impl HistoryItem {
    /// The words.
    pub fn text(&self) -> &str {
        match self {
            Self::Utterance { text, .. } | Self::Response { text, .. } => text,
        }
    }
}

/// One line of a conversation, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// Its place in the user's history: grows by one with each line.
    pub seq: u64,
    /// The line.
    #[serde(flatten)]
    pub entry: Entry,
}

/// Why the store could not do it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HistoryError {
    /// Too many lines wait to be written; the disk does not keep up.
    #[error("the history's queue is full")]
    Full,
    /// The disk or the database failed; the text is for the log.
    #[error("the history failed: {0}")]
    Failed(String),
}

/// Keeps conversations.
pub trait HistoryStore: Send + Sync + 'static {
    /// Takes a line at once, in order, and gives its place in the user's history once it is durable.
    ///
    /// The order of calls is the order of places. Dropping the future does not undo the append.
    fn append(&self, entry: Entry) -> BoxFuture<'static, Result<u64, HistoryError>>;

    /// At most `limit` of the user's lines with `seq > after`, oldest first. Includes lines that are
    /// not durable yet.
    fn of_user(
        &self,
        user: &UserId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, HistoryError>>;

    /// At most `limit` lines of one session of the user's with `seq > after`, oldest first.
    fn of_session(
        &self,
        user: &UserId,
        session: SessionId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, HistoryError>>;

    /// The user's newest `limit` lines, oldest first.
    fn newest(&self, user: &UserId, limit: usize) -> BoxFuture<'static, Result<Vec<Saved>, HistoryError>>;
}
