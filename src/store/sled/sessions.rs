//! Session records in the embedded database.
//!
//! ```text
//!   tree "sessions"   i <session: 16 bytes>  → SessionRecord as JSON
//!                     r <room>               → session: 16 bytes
//!                     u <user>               → session: 16 bytes, the user's newest
//!                     o <session: 16 bytes>  → generation base: u32, big-endian; it started and has not ended
//!                     f <session: 16 bytes>  → SessionRecords as JSON: that session and some created after it
//!                     s <name>               → a secret of the gateway (secret.rs)
//!   tree "sessions.unreadable"   records (i) and groups (f) that could not be parsed, under the same key
//! ```
//!
//! Three keys in random places cost sled ten times what the rest of creating a session does. So a new
//! session is written with others created at that moment, under one key (`f`), and gets keys of its own
//! (`i`, `r`, `u`) with its first change. One without a change is forgotten after `SESSION_TTL_MS`.
//!
//! ```text
//!   create ─▶ pending (memory) ─▶ queue ─▶ thread "session-writer": f     change ─▶ thread "store": i, r, u
//! ```

use std::{sync::Arc, thread, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{
    clock,
    ids::{RoomName, SessionId, UserId},
    store::{
        StoreError,
        sessions::{SessionChange, SessionRecord, SessionStore},
        sled::{Disk, DiskError, pending_sessions::PendingSessions, set_aside, spawn},
    },
};

/// New sessions that may wait for the writer. Beyond that creating one waits for a place.
const MAX_QUEUED: usize = 8192;

/// Records that share a key: sled stores values from half a megabyte in a file of their own.
const MAX_BATCH: usize = 512;

/// How long a group gathers. Without it each session would wake the writer and be a group of one.
const BATCH_DELAY: Duration = Duration::from_millis(20);

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct SledSessions {
    disk: Disk,
    sessions: Arc<Sessions>,
    writer: mpsc::Sender<Write>,
}

/// What the session writer is told.
enum Write {
    /// Write this new session.
    Created(SessionRecord),
    /// Report when everything before is written.
    Flush(oneshot::Sender<()>),
}

impl SledSessions {
    /// The sessions in this database; those that never change are forgotten after `ttl`.
    pub fn new(disk: Disk, ttl: Duration) -> Result<Self, DiskError> {
        let records = disk.tree("sessions")?;
        let unreadable = disk.tree("sessions.unreadable")?;
        let sessions = Sessions { records, unreadable, pending: Mutex::default(), ttl };
        sessions.load_pending()?;
        let sessions = Arc::new(sessions);
        let (writer, queue) = mpsc::channel(MAX_QUEUED);
        let written = sessions.clone();
        spawn("session-writer", move || write_groups(&written, queue))?;
        Ok(Self { disk, sessions, writer })
    }

    fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sessions) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let sessions = self.sessions.clone();
        self.disk.run(move || work(&sessions))
    }
}

impl SessionStore for SledSessions {
    fn create(&self, record: SessionRecord) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Err(error) = self.sessions.add_pending(record.clone()) {
            return std::future::ready(Err(error)).boxed();
        }
        match self.writer.try_send(Write::Created(record)) {
            Ok(()) => std::future::ready(Ok(())).boxed(),
            Err(TrySendError::Full(write)) => {
                let writer = self.writer.clone();
                async move { writer.send(write).await.map_err(|_| StoreError::Closed) }.boxed()
            }
            Err(TrySendError::Closed(_)) => std::future::ready(Err(StoreError::Closed)).boxed(),
        }
    }

    fn restore(
        &self,
        record: SessionRecord,
    ) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        self.on_disk(move |sessions| sessions.restore(record))
    }

    fn change(
        &self,
        id: SessionId,
        change: SessionChange,
    ) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        self.on_disk(move |sessions| sessions.change(id, &change))
    }

    fn get(&self, id: SessionId) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        match self.sessions.pending(id) {
            Some(record) => std::future::ready(Ok(Some(record))).boxed(),
            None => self.on_disk(move |sessions| sessions.find(id)),
        }
    }

    fn of_room(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        let pending = {
            let pending = self.sessions.pending.lock();
            pending.of_room(room).and_then(|id| pending.get(id)).cloned()
        };
        if let Some(record) = pending {
            return std::future::ready(Ok(Some(record))).boxed();
        }
        let key = key(b'r', room.as_str().as_bytes());
        self.on_disk(move |sessions| match sessions.pointed_to(&key)? {
            Some(id) => sessions.find(id),
            None => Ok(None),
        })
    }

    fn of_user(&self, user: &UserId) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        let user = user.clone();
        self.on_disk(move |sessions| {
            let pending = sessions.pending.lock().of_user(&user);
            let newest = pending.max(sessions.pointed_to(&key(b'u', user.as_str().as_bytes()))?);
            newest.map_or(Ok(None), |id| sessions.find(id))
        })
    }

    fn newest(
        &self,
        before: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<SessionRecord>, StoreError>> {
        self.on_disk(move |sessions| sessions.newest(before, limit))
    }

    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<(SessionId, u32)>, StoreError>> {
        self.on_disk(|sessions| {
            let parse = |(key, value): (sled::IVec, sled::IVec)| {
                let base = <[u8; 4]>::try_from(value.as_ref()).ok()?;
                Some((session_id(key.get(1..)?)?, u32::from_be_bytes(base)))
            };
            let unfinished = sessions.records.scan_prefix(b"o");
            unfinished.filter_map(|item| item.map(parse).transpose()).map(|item| Ok(item?)).collect()
        })
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let (disk, writer) = (self.disk.clone(), self.writer.clone());
        async move {
            let (done, written) = oneshot::channel();
            writer.send(Write::Flush(done)).await.map_err(|_| StoreError::Closed)?;
            written.await.map_err(|_| StoreError::Closed)?;
            disk.sync().await
        }
        .boxed()
    }
}

/// The records. Its methods block, except those that touch `pending` alone. All changes of records are made
/// on the store's thread, so none overtakes another.
struct Sessions {
    records: sled::Tree,
    unreadable: sled::Tree,
    /// Sessions that were created and not changed since.
    pending: Mutex<PendingSessions>,
    /// How long they are kept.
    ttl: Duration,
}

impl Sessions {
    fn pending(&self, id: SessionId) -> Option<SessionRecord> {
        self.pending.lock().get(id).cloned()
    }

    fn add_pending(&self, record: SessionRecord) -> Result<(), StoreError> {
        let mut pending = self.pending.lock();
        pending.expire(self.oldest_ms());
        pending.insert(record).map_err(|_| StoreError::Full)
    }

    /// When the oldest session was created that is kept though it never changed.
    fn oldest_ms(&self) -> u64 {
        clock::unix_ms().saturating_sub(self.ttl.as_millis() as u64)
    }

    /// A session, pending or not.
    fn find(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        if let Some(record) = self.pending(id) {
            return Ok(Some(record));
        }
        let value = self.records.get(key(b'i', id.as_bytes()))?;
        Ok(value.and_then(|value| parse_or_log(id, &value)))
    }

    /// A record that is to be changed. One that cannot be parsed is moved aside.
    fn written(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let key = key(b'i', id.as_bytes());
        let Some(value) = self.records.get(&key)? else { return Ok(None) };
        let record = parse_or_log(id, &value);
        if record.is_none() {
            set_aside(&self.records, &self.unreadable, &key, &value)?;
            tracing::error!(session.id = %id, "unreadable session record set aside");
        }
        Ok(record)
    }

    fn change(&self, id: SessionId, change: &SessionChange) -> Result<Option<SessionRecord>, StoreError> {
        if let Some(mut record) = self.pending(id) {
            change.apply(&mut record);
            // In this order a reader finds it in one place or the other.
            self.insert(&record)?;
            self.pending.lock().remove(id);
            return Ok(Some(record));
        }
        let Some(before) = self.written(id)? else { return Ok(None) };
        let mut record = before.clone();
        change.apply(&mut record);
        if record != before {
            self.write(&record)?;
        }
        Ok(Some(record))
    }

    fn restore(&self, record: SessionRecord) -> Result<Option<SessionRecord>, StoreError> {
        let id = record.session_id;
        if let Some(known) = self.pending(id) {
            return Ok(Some(known));
        }
        if let Some(known) = self.written(id)? {
            return Ok(Some(known));
        }
        // Its record might say that it ended, or under which numbers its turns are kept.
        if self.is_set_aside(id)? {
            return Ok(None);
        }
        self.insert(&record)?;
        Ok(Some(record))
    }

    /// Writes a record that has no keys of its own yet.
    fn insert(&self, record: &SessionRecord) -> Result<(), StoreError> {
        let id = record.session_id.as_bytes().as_slice();
        // The record comes first: a crash in between leaves a session that is not found by its room. Not as
        // one batch: sled takes a lock over all its trees for that.
        self.write(record)?;
        self.records.insert(key(b'r', record.room.as_str().as_bytes()), id)?;
        // An older session does not become its user's newest by being used.
        self.records.update_and_fetch(key(b'u', record.user_id.as_str().as_bytes()), |newest| {
            Some(newest.map_or(id, |newest| newest.max(id)).to_vec())
        })?;
        Ok(())
    }

    fn write(&self, record: &SessionRecord) -> Result<(), StoreError> {
        let id = record.session_id.as_bytes();
        let value = serde_json::to_vec(record).map_err(|error| StoreError::Failed(error.to_string()))?;
        // Whatever a crash leaves behind, a session that is unfinished is listed as such.
        let unfinished = record.generation_base > 0 && record.ended.is_none();
        if unfinished {
            self.records.insert(key(b'o', id), &record.generation_base.to_be_bytes())?;
        }
        self.records.insert(key(b'i', id), value)?;
        if !unfinished && record.generation_base > 0 {
            self.records.remove(key(b'o', id))?;
        }
        Ok(())
    }

    fn newest(&self, before: Option<SessionId>, limit: usize) -> Result<Vec<SessionRecord>, StoreError> {
        let end = before.map_or_else(|| vec![b'i' + 1], |id| key(b'i', id.as_bytes()));
        let mut all: Vec<SessionRecord> = self.pending.lock().newest(before).take(limit).cloned().collect();
        let written = self.records.range(vec![b'i']..end).rev().filter_map(|item| {
            item.map(|(key, value)| parse_or_log(session_id(key.get(1..)?)?, &value)).transpose()
        });
        for record in written.take(limit) {
            all.push(record?);
        }
        all.sort_by_key(|record| std::cmp::Reverse(record.session_id));
        all.truncate(limit);
        Ok(all)
    }

    /// The session that an `r` or `u` key names.
    fn pointed_to(&self, key: &[u8]) -> Result<Option<SessionId>, StoreError> {
        Ok(self.records.get(key)?.and_then(|id| session_id(&id)))
    }

    fn is_set_aside(&self, id: SessionId) -> Result<bool, StoreError> {
        Ok(self.unreadable.contains_key(key(b'i', id.as_bytes()))?)
    }

    // --- Groups of new sessions ---

    /// Takes the sessions that an earlier process created and that never changed into memory.
    fn load_pending(&self) -> Result<(), StoreError> {
        self.remove_old_groups()?;
        let oldest_ms = self.oldest_ms();
        let mut pending = self.pending.lock();
        for group in self.records.scan_prefix(b"f") {
            let (group_key, value) = group?;
            let group: Vec<SessionRecord> = match serde_json::from_slice(&value) {
                Ok(group) => group,
                Err(error) => {
                    set_aside(&self.records, &self.unreadable, &group_key, &value)?;
                    tracing::error!(%error, "unreadable group of new sessions set aside");
                    continue;
                }
            };
            for record in group {
                let id = record.session_id;
                let has_changed = self.records.contains_key(key(b'i', id.as_bytes()))?;
                if !has_changed
                    && !self.is_set_aside(id)?
                    && record.created_ms >= oldest_ms
                    && pending.insert(record).is_err()
                {
                    tracing::warn!(session.id = %id, "too many unused sessions: one is forgotten");
                }
            }
        }
        Ok(())
    }

    fn write_group(&self, group: &[SessionRecord]) -> Result<(), StoreError> {
        let Some(first) = group.first() else { return Ok(()) };
        let value = serde_json::to_vec(group).map_err(|error| StoreError::Failed(error.to_string()))?;
        self.records.insert(key(b'f', first.session_id.as_bytes()), value)?;
        Ok(())
    }

    /// Removes groups whose sessions are too old. A group is named after its first session, and the others
    /// were created moments later.
    fn remove_old_groups(&self) -> Result<(), StoreError> {
        // The first 48 bits of an id are the time in milliseconds (RFC 9562 §5.7); a minute is more than a
        // group takes.
        let end = u128::from(self.oldest_ms().saturating_sub(60_000)) << 80;
        for group in self.records.range(vec![b'f']..key(b'f', &end.to_be_bytes())).keys() {
            self.records.remove(group?)?;
        }
        Ok(())
    }
}

fn write_groups(sessions: &Sessions, mut queue: mpsc::Receiver<Write>) {
    let (mut group, mut waiting) = (Vec::new(), Vec::new());
    while let Some(first) = queue.blocking_recv() {
        thread::sleep(BATCH_DELAY);
        let rest = std::iter::from_fn(|| queue.try_recv().ok()).take(MAX_QUEUED);
        for write in std::iter::once(first).chain(rest) {
            match write {
                Write::Created(record) => group.push(record),
                Write::Flush(done) => waiting.push(done),
            }
        }
        let written = group.chunks(MAX_BATCH).try_for_each(|group| sessions.write_group(group));
        if let Err(error) = written.and_then(|()| sessions.remove_old_groups()) {
            tracing::error!(%error, "new sessions are not on disk");
        }
        group.clear();
        for done in waiting.drain(..) {
            // A caller that no longer waits was cancelled.
            let _ = oneshot::Sender::send(done, ());
        }
    }
}

/// A record; none, with a line in the log, if it cannot be parsed.
fn parse_or_log(id: SessionId, value: &[u8]) -> Option<SessionRecord> {
    serde_json::from_slice(value)
        .map_err(|error| tracing::error!(session.id = %id, %error, "session record cannot be parsed"))
        .ok()
}

fn session_id(bytes: &[u8]) -> Option<SessionId> {
    Some(SessionId::from_u128(u128::from_be_bytes(bytes.try_into().ok()?)))
}

fn key(kind: u8, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 1);
    key.push(kind);
    key.extend_from_slice(name);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::edge_v1::to_client::EndReason,
        store::{
            sled::tests::reopen,
            suite::sessions::{new_record, record, suite},
        },
    };

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn sled_passes_the_suite_of_session_stores() {
        let folder = tempfile::tempdir().unwrap();
        suite(&SledSessions::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap()).await;
    }

    #[tokio::test]
    async fn a_new_session_survives_a_reopen_and_is_forgotten_if_it_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let [started, used, unused] = ["ann", "eve", "bob"].map(new_record);
        {
            let store = SledSessions::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap();
            for session in [&started, &used, &unused] {
                store.create(session.clone()).await.unwrap();
            }
            store.change(started.session_id, SessionChange::Started).await.unwrap();
            store.change(used.session_id, SessionChange::Used).await.unwrap();
            store.flush().await.unwrap();
        }

        let store = SledSessions::new(reopen(folder.path()), HOUR).unwrap();
        assert_eq!(store.get(unused.session_id).await, Ok(Some(unused.clone())));
        assert_eq!(store.get(started.session_id).await.unwrap().unwrap().generation_base, 1);
        drop(store);

        while clock::unix_ms() == unused.created_ms {
            thread::yield_now();
        }
        let store = SledSessions::new(reopen(folder.path()), Duration::ZERO).unwrap();
        let left = store.newest(None, 9).await.unwrap();
        let left: Vec<SessionId> = left.iter().map(|record| record.session_id).collect();
        assert_eq!(left, [used.session_id, started.session_id]);
    }

    #[tokio::test]
    async fn reading_a_new_session_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = SledSessions::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap();
        let session = new_record("ann");
        store.create(session.clone()).await.unwrap();
        store.flush().await.unwrap();
        let keys = || store.sessions.records.iter().keys().collect::<Result<Vec<_>, _>>().unwrap();
        let before = keys();

        let read = [
            store.get(session.session_id).await.unwrap(),
            store.of_room(&session.room).await.unwrap(),
            store.of_user(&session.user_id).await.unwrap(),
            store.newest(None, 9).await.unwrap().pop(),
        ];

        assert!(read.iter().all(|read| *read == Some(session.clone())), "{read:?}");
        assert_eq!(keys(), before);
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_parsed_is_kept_aside_and_its_session_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let session = record(1, "ann");
        let key = key(b'i', session.session_id.as_bytes());
        let broken = br#"{"session_id": "from a later version"}"#;
        {
            let store = SledSessions::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap();
            store.restore(session.clone()).await.unwrap();
            store.sessions.records.insert(&key, broken.as_slice()).unwrap();

            assert_eq!(store.get(session.session_id).await, Ok(None));
            assert_eq!(store.newest(None, 9).await, Ok(vec![]));
            assert_eq!(store.sessions.records.get(&key).unwrap().unwrap(), broken, "reading moves nothing");

            let ended = SessionChange::Ended(EndReason::Logout);
            assert_eq!(store.change(session.session_id, ended).await, Ok(None));
            store.flush().await.unwrap();
        }

        let store = SledSessions::new(reopen(folder.path()), HOUR).unwrap();
        assert_eq!(store.sessions.unreadable.get(&key).unwrap().unwrap(), broken);
        assert_eq!(store.restore(session.clone()).await, Ok(None), "it may have ended: it stays unknown");
        assert_eq!(store.get(session.session_id).await, Ok(None));
    }

    #[tokio::test]
    async fn a_group_that_cannot_be_parsed_is_kept_aside_and_the_others_are_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let session = new_record("ann");
        let broken = key(b'f', &[0xff; 16]);
        {
            let store = SledSessions::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap();
            store.sessions.records.insert(&broken, b"[{]").unwrap();
            store.create(session.clone()).await.unwrap();
            store.flush().await.unwrap();
        }

        let store = SledSessions::new(reopen(folder.path()), HOUR).unwrap();

        assert_eq!(store.get(session.session_id).await, Ok(Some(session)));
        assert_eq!(store.sessions.unreadable.get(&broken).unwrap().unwrap(), b"[{]");
        assert_eq!(store.sessions.records.get(&broken), Ok(None));
    }
}
