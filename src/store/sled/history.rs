//! Conversation history in the embedded database.
//!
//! ```text
//!   tree "history"             <user> 0x00 <seq: u64, big-endian>          → Entry as JSON
//!   tree "history-of-session"  <session: 16 bytes> <seq: u64, big-endian>  → nothing: the session's lines
//!   tree "history-last"        <user>  → seq: u64, big-endian; the last place that was taken when lines were deleted
//! ```
//! A user's name has no control characters, so the 0x00 ends it; big-endian numbers sort by value.

use futures::{FutureExt, future::BoxFuture};

use crate::{
    ids::{SessionId, UserId},
    store::{
        StoreError,
        history::{Entry, HistoryStore, Saved},
        sled::{Disk, database::Database},
    },
};

pub(super) const LINES: &str = "history";
pub(super) const OF_SESSION: &str = "history-of-session";
const LAST: &str = "history-last";

/// Lines that are deleted in one operation: a turn that is to be saved waits for no more than that.
const DELETED_AT_ONCE: usize = 128;

/// The store.
pub struct SledHistory {
    disk: Disk,
}

struct Trees {
    lines: sled::Tree,
    of_session: sled::Tree,
    last: sled::Tree,
}

impl SledHistory {
    /// The history in this database.
    pub fn new(disk: Disk) -> Self {
        Self { disk }
    }
}

impl HistoryStore for SledHistory {
    fn append(&self, entry: Entry) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.disk.write_durable(move |database| Trees::of(database)?.append(&entry))
    }

    fn of_user(
        &self,
        user: &UserId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        let user = user.clone();
        self.disk.read(move |database| {
            let range = line_key(&user, after.saturating_add(1))..=line_key(&user, u64::MAX);
            database.tree(LINES)?.range(range).take(limit).map(saved).collect()
        })
    }

    fn of_session(
        &self,
        user: &UserId,
        session: SessionId,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        let user = user.clone();
        self.disk.read(move |database| {
            let trees = Trees::of(database)?;
            let range = session_key(session, after.saturating_add(1))..=session_key(session, u64::MAX);
            let mut lines = Vec::new();
            for key in trees.of_session.range(range).keys().take(limit) {
                lines.extend(trees.line(&user, seq_of(&key?))?);
            }
            Ok(lines)
        })
    }

    fn newest(&self, user: &UserId, limit: usize) -> BoxFuture<'static, Result<Vec<Saved>, StoreError>> {
        let user = user.clone();
        self.disk.read(move |database| {
            let lines = database.tree(LINES)?;
            let newest = lines.scan_prefix(user_prefix(&user)).rev().take(limit).map(saved);
            let mut newest = newest.collect::<Result<Vec<Saved>, _>>()?;
            newest.reverse();
            Ok(newest)
        })
    }

    fn delete_session(
        &self,
        user: &UserId,
        session: SessionId,
    ) -> BoxFuture<'static, Result<u64, StoreError>> {
        let (disk, user) = (self.disk.clone(), user.clone());
        async move {
            let mut deleted = 0;
            loop {
                let user = user.clone();
                // Each part is durable for itself: the database may have to be opened again in between.
                let part = disk
                    .write_durable(move |database| Trees::of(database)?.delete_some(&user, session))
                    .await?;
                deleted += part as u64;
                if part < DELETED_AT_ONCE {
                    return Ok(deleted);
                }
            }
        }
        .boxed()
    }
}

impl Trees {
    fn of(database: &Database) -> Result<Self, StoreError> {
        Ok(Self {
            lines: database.tree(LINES)?,
            of_session: database.tree(OF_SESSION)?,
            last: database.tree(LAST)?,
        })
    }

    /// Appends are made on the store's thread alone: no two lines take the same place.
    fn append(&self, entry: &Entry) -> Result<u64, StoreError> {
        let value = serde_json::to_vec(entry).map_err(|error| StoreError::Failed(error.to_string()))?;
        let seq = self.last_of(&entry.user_id)? + 1;
        self.lines.insert(line_key(&entry.user_id, seq), value)?;
        self.of_session.insert(session_key(entry.session_id, seq), &[])?;
        Ok(seq)
    }

    /// The last place that was taken in a user's history; 0 if none was.
    fn last_of(&self, user: &UserId) -> Result<u64, StoreError> {
        let last = self.lines.scan_prefix(user_prefix(user)).next_back().transpose()?;
        let deleted = self.last.get(user.as_str())?.and_then(|seq| <[u8; 8]>::try_from(seq.as_ref()).ok());
        Ok(last.map_or(0, |(key, _)| seq_of(&key)).max(deleted.map_or(0, u64::from_be_bytes)))
    }

    /// Deletes the first lines of a session; gives how many.
    fn delete_some(&self, user: &UserId, session: SessionId) -> Result<usize, StoreError> {
        let range = session_key(session, 0)..=session_key(session, u64::MAX);
        let keys: Vec<_> =
            self.of_session.range(range).keys().take(DELETED_AT_ONCE).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Ok(0);
        }
        // A place is never taken twice, though its line is gone.
        self.last.insert(user.as_str(), &self.last_of(user)?.to_be_bytes())?;
        for key in &keys {
            self.lines.remove(line_key(user, seq_of(key)))?;
            self.of_session.remove(key)?;
        }
        Ok(keys.len())
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

pub(super) fn line_key(user: &UserId, seq: u64) -> Vec<u8> {
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
pub(super) fn seq_of(key: &[u8]) -> u64 {
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
        let history = SledHistory::new(Disk::open(folder.path()).unwrap());
        suite::history::suite(&history).await;
    }

    #[tokio::test]
    async fn history_survives_a_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let entry = suite::history::utterance("john", 1, "Hello.");
        {
            let history = SledHistory::new(Disk::open(folder.path()).unwrap());
            assert_eq!(history.append(entry.clone()).await, Ok(1));
        }
        let history = SledHistory::new(reopen(folder.path()));
        let saved = history.of_user(&entry.user_id, 0, 10).await.unwrap();
        assert_eq!(saved, [Saved { seq: 1, entry }]);
    }
}
