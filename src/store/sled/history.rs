//! History in the embedded database.
//!
//! ```text
//!   tree "history"             <user> 0x00 <seq: u64 BE>          → Entry as JSON
//!   tree "history-of-session"  <session: 16 bytes> <seq: u64 BE>  → nothing: the session's lines, by place
//! ```
//! A user's name has no control characters, so the 0x00 ends it; big-endian numbers sort as they count.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;

use crate::{
    ids::{SessionId, UserId},
    store::{
        history::{Entry, HistoryError, HistoryStore, Saved},
        sled::{Disk, DiskError},
    },
};

/// The store.
#[derive(Clone)]
pub struct SledHistory {
    disk: Disk,
    lines: sled::Tree,
    of_session: sled::Tree,
    /// Held while a place is taken and its line is put there: two writers of one user would
    /// otherwise take the same place.
    placing: Arc<Mutex<()>>,
}

impl From<DiskError> for HistoryError {
    fn from(error: DiskError) -> Self {
        if matches!(error, DiskError::Full) { Self::Full } else { Self::Failed(error.to_string()) }
    }
}

impl From<sled::Error> for HistoryError {
    fn from(error: sled::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl SledHistory {
    /// The history in this database.
    pub fn new(disk: Disk) -> Result<Self, DiskError> {
        Ok(Self {
            lines: disk.tree("history")?,
            of_session: disk.tree("history-of-session")?,
            placing: Arc::default(),
            disk,
        })
    }

    fn place(&self, entry: &Entry) -> Result<u64, HistoryError> {
        let value = encode(entry)?;
        let _placing = self.placing.lock();
        let last = self.lines.scan_prefix(user_prefix(&entry.user_id)).next_back().transpose()?;
        let seq = last.map_or(1, |(key, _)| seq_of(&key) + 1);
        self.lines.insert(line_key(&entry.user_id, seq), value)?;
        self.of_session.insert(session_key(entry.session_id, seq), &[])?;
        Ok(seq)
    }

    fn line(&self, user: &UserId, seq: u64) -> Result<Option<Saved>, HistoryError> {
        let value = self.lines.get(line_key(user, seq))?;
        value.map(|value| decode(seq, &value)).transpose()
    }
}

impl HistoryStore for SledHistory {
    fn append(&self, entry: Entry) -> BoxFuture<'static, Result<u64, HistoryError>> {
        let placed = self.place(&entry);
        let durable = self.disk.durable();
        async move {
            let seq = placed?;
            durable.await?;
            Ok(seq)
        }
        .boxed()
    }

    fn of_user(
        &self,
        user: &UserId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, HistoryError>> {
        let range = line_key(user, after.saturating_add(1))..=line_key(user, u64::MAX);
        let saved = self
            .lines
            .range(range)
            .take(limit)
            .map(|item| {
                item.map_err(HistoryError::from).and_then(|(key, value)| decode(seq_of(&key), &value))
            })
            .collect();
        std::future::ready(saved).boxed()
    }

    fn of_session(
        &self,
        user: &UserId,
        session: SessionId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, HistoryError>> {
        let range = session_key(session, after.saturating_add(1))..=session_key(session, u64::MAX);
        let saved = self
            .of_session
            .range(range)
            .take(limit)
            .filter_map(|item| {
                item.map_err(HistoryError::from)
                    .and_then(|(key, _)| self.line(user, seq_of(&key)))
                    .transpose()
            })
            .collect();
        std::future::ready(saved).boxed()
    }

    fn newest(&self, user: &UserId, limit: usize) -> BoxFuture<'static, Result<Vec<Saved>, HistoryError>> {
        let saved: Result<Vec<Saved>, HistoryError> = self
            .lines
            .scan_prefix(user_prefix(user))
            .rev()
            .take(limit)
            .map(|item| {
                item.map_err(HistoryError::from).and_then(|(key, value)| decode(seq_of(&key), &value))
            })
            .collect();
        let saved = saved.map(|mut saved| {
            saved.reverse();
            saved
        });
        std::future::ready(saved).boxed()
    }
}

fn user_prefix(user: &UserId) -> Vec<u8> {
    let mut key = user.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

fn line_key(user: &UserId, seq: u64) -> Vec<u8> {
    let mut key = user_prefix(user);
    key.extend(seq.to_be_bytes());
    key
}

fn session_key(session: SessionId, seq: u64) -> Vec<u8> {
    let mut key = session.as_bytes().to_vec();
    key.extend(seq.to_be_bytes());
    key
}

/// The place in a key: its last eight bytes.
fn seq_of(key: &[u8]) -> u64 {
    let (_, seq) = key.split_last_chunk::<8>().expect("every key of ours ends in eight bytes");
    u64::from_be_bytes(*seq)
}

fn encode(entry: &Entry) -> Result<Vec<u8>, HistoryError> {
    serde_json::to_vec(entry).map_err(|error| HistoryError::Failed(error.to_string()))
}

fn decode(seq: u64, value: &[u8]) -> Result<Saved, HistoryError> {
    let entry = serde_json::from_slice(value).map_err(|error| HistoryError::Failed(error.to_string()))?;
    Ok(Saved { seq, entry })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::history_suite;

    #[tokio::test]
    async fn sled_keeps_what_every_store_promises() {
        let folder = tempfile::tempdir().unwrap();
        let history = SledHistory::new(Disk::open(folder.path()).unwrap()).unwrap();
        history_suite::suite(&history).await;
    }

    #[tokio::test]
    async fn history_survives_a_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let entry = history_suite::utterance("john", 1, "Hello.");
        {
            let history = SledHistory::new(Disk::open(folder.path()).unwrap()).unwrap();
            assert_eq!(history.append(entry.clone()).await, Ok(1));
        }
        // The committer holds the database until it has seen that no writer is left.
        let disk = loop {
            match Disk::open(folder.path()) {
                Err(DiskError::Locked { .. }) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        let saved = SledHistory::new(disk).unwrap().of_user(&entry.user_id, 0, 10).await.unwrap();
        assert_eq!(saved, [Saved { seq: 1, entry }]);
    }
}
