//! Conversation history in the embedded database.
//!
//! ```text
//!   tree "history"             <user> 0x00 <seq: u64, big-endian>          → Entry as JSON
//!   tree "history-of-session"  <session: 16 bytes> <seq: u64, big-endian>  → nothing: the session's lines
//! ```
//! A user's name has no control characters, so the 0x00 ends it; big-endian numbers sort by value.

use futures::future::BoxFuture;

use crate::{
    ids::{SessionId, UserId},
    store::{
        StoreError,
        history::{Entry, HistoryStore, Saved},
        sled::{Disk, DiskError},
    },
};

/// The store.
pub struct SledHistory {
    disk: Disk,
    trees: Trees,
}

#[derive(Clone)]
struct Trees {
    lines: sled::Tree,
    of_session: sled::Tree,
}

impl SledHistory {
    /// The history in this database.
    pub fn new(disk: Disk) -> Result<Self, DiskError> {
        let trees = Trees { lines: disk.tree("history")?, of_session: disk.tree("history-of-session")? };
        Ok(Self { trees, disk })
    }
}

impl HistoryStore for SledHistory {
    fn append(&self, entry: Entry) -> BoxFuture<'static, Result<u64, StoreError>> {
        let trees = self.trees.clone();
        self.disk.run_durable(move || trees.append(&entry))
    }

    fn of_user(
        &self,
        user: &UserId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        let (trees, user) = (self.trees.clone(), user.clone());
        self.disk.run(move || {
            let range = line_key(&user, after.saturating_add(1))..=line_key(&user, u64::MAX);
            trees.lines.range(range).take(limit).map(saved).collect()
        })
    }

    fn of_session(
        &self,
        user: &UserId,
        session: SessionId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        let (trees, user) = (self.trees.clone(), user.clone());
        self.disk.run(move || {
            let range = session_key(session, after.saturating_add(1))..=session_key(session, u64::MAX);
            let mut lines = Vec::new();
            for key in trees.of_session.range(range).keys().take(limit) {
                lines.extend(trees.line(&user, seq_of(&key?))?);
            }
            Ok(lines)
        })
    }

    fn newest(&self, user: &UserId, limit: usize) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        let (trees, user) = (self.trees.clone(), user.clone());
        self.disk.run(move || {
            let newest = trees.lines.scan_prefix(user_prefix(&user)).rev().take(limit).map(saved);
            let mut newest = newest.collect::<Result<Vec<Saved>, _>>()?;
            newest.reverse();
            Ok(newest)
        })
    }
}

impl Trees {
    /// Appends are made on the store's thread alone: no two lines take the same place.
    fn append(&self, entry: &Entry) -> Result<u64, StoreError> {
        let value = serde_json::to_vec(entry).map_err(|error| StoreError::Failed(error.to_string()))?;
        let last = self.lines.scan_prefix(user_prefix(&entry.user_id)).next_back().transpose()?;
        let seq = last.map_or(1, |(key, _)| seq_of(&key) + 1);
        self.lines.insert(line_key(&entry.user_id, seq), value)?;
        self.of_session.insert(session_key(entry.session_id, seq), &[])?;
        Ok(seq)
    }

    fn line(&self, user: &UserId, seq: u64) -> Result<Option<Saved>, StoreError> {
        let key = line_key(user, seq);
        let value = self.lines.get(&key)?;
        value.map(|value| saved(Ok((key.into(), value)))).transpose()
    }
}

fn saved(item: sled::Result<(sled::IVec, sled::IVec)>) -> Result<Saved, StoreError> {
    let (key, value) = item?;
    let entry = serde_json::from_slice(&value).map_err(|error| StoreError::Failed(error.to_string()))?;
    Ok(Saved { seq: seq_of(&key), entry })
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

/// The place in a key of either tree: its last eight bytes.
fn seq_of(key: &[u8]) -> u64 {
    let (_, seq) = key.split_last_chunk::<8>().expect("every key of the two trees ends in eight bytes");
    u64::from_be_bytes(*seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{sled::tests::reopen, suite};

    #[tokio::test]
    async fn sled_passes_the_suite_of_history_stores() {
        let folder = tempfile::tempdir().unwrap();
        let history = SledHistory::new(Disk::open(folder.path()).unwrap()).unwrap();
        suite::history::suite(&history).await;
    }

    #[tokio::test]
    async fn history_survives_a_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let entry = suite::history::utterance("john", 1, "Hello.");
        {
            let history = SledHistory::new(Disk::open(folder.path()).unwrap()).unwrap();
            assert_eq!(history.append(entry.clone()).await, Ok(1));
        }
        let history = SledHistory::new(reopen(folder.path())).unwrap();
        let saved = history.of_user(&entry.user_id, 0, 10).await.unwrap();
        assert_eq!(saved, [Saved { seq: 1, entry }]);
    }
}
