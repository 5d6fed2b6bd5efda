//! Session records in the embedded database: in memory, and on disk (session_records.rs).
//!
//! Three keys in random places cost sled ten times what the rest of creating a session does. So a new
//! session is written with others created at that moment, under one key (`f`), and gets keys of its own
//! (`i`, `r`, `u`) with its first change. One without a change is forgotten after `SESSION_TTL_MS`.
//!
//! ```text
//!   create ─▶ pending (memory) ─▶ queue ─▶ thread "session-writer": f     change ─▶ thread "store": i, r, u
//! ```
//!
//! Both are also kept in memory until they are durable (unsynced_sessions.rs). While the disk takes no writes
//! that is the only place; the database that is opened afterwards gets them before it takes other writes.

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

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
        sessions::{Removed, SessionChange, SessionRecord, SessionStore},
        sled::{
            Disk, DiskError, Shared,
            database::Database,
            pending_sessions::PendingSessions,
            session_records::{Trees, first_id_of, key, parse_or_log, session_id},
            set_aside, spawn,
            unsynced_sessions::{Full, UnsyncedSessions},
        },
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
    Created(Box<SessionRecord>),
    /// Report when everything before is written.
    Flush(oneshot::Sender<()>),
}

impl SledSessions {
    /// The sessions in this database; those that never change are forgotten after `ttl`.
    pub fn new(disk: Disk, ttl: Duration) -> Result<Self, DiskError> {
        let sessions = Arc::new(Sessions { pending: Mutex::default(), unsynced: Mutex::default(), ttl });
        disk.now(|database| sessions.load_pending(&Trees::of(database)?))?;
        let rewritten = sessions.clone();
        disk.on_reopen(move |database| rewritten.rewrite(database));
        let (writer, queue) = mpsc::channel(MAX_QUEUED);
        let (written, shared) = (sessions.clone(), disk.shared.clone());
        spawn("session-writer", move || write_groups(&written, &shared, queue))?;
        Ok(Self { disk, sessions, writer })
    }

    fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sessions, &Trees<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let sessions = self.sessions.clone();
        self.disk.read(move |database| work(&sessions, &Trees::of(database)?))
    }
}

impl SessionStore for SledSessions {
    fn create(&self, record: SessionRecord) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Err(error) = self.sessions.add_pending(record.clone()) {
            return std::future::ready(Err(error)).boxed();
        }
        match self.writer.try_send(Write::Created(Box::new(record))) {
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
        self.on_disk(move |sessions, trees| sessions.restore(trees, record))
    }

    fn change(
        &self,
        id: SessionId,
        change: SessionChange,
    ) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        self.on_disk(move |sessions, trees| sessions.change(trees, id, &change))
    }

    fn get(&self, id: SessionId) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        match self.sessions.in_memory(id) {
            Some(record) => std::future::ready(Ok(Some(record))).boxed(),
            None => self.on_disk(move |sessions, trees| sessions.find(trees, id)),
        }
    }

    fn of_room(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        if let Some(record) = self.sessions.of_room_in_memory(room) {
            return std::future::ready(Ok(Some(record))).boxed();
        }
        let key = key(b'r', room.as_str().as_bytes());
        self.on_disk(move |sessions, trees| match trees.pointed_to(&key)? {
            Some(id) => sessions.find(trees, id),
            None => Ok(None),
        })
    }

    fn of_user(&self, user: &UserId) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        let user = user.clone();
        self.on_disk(move |sessions, trees| {
            let pending = sessions.pending.lock().of_user(&user);
            let unsynced = sessions.unsynced.lock().of_user(&user);
            let written = trees.pointed_to(&key(b'u', user.as_str().as_bytes()))?;
            pending.max(unsynced).max(written).map_or(Ok(None), |id| sessions.find(trees, id))
        })
    }

    fn newest(
        &self,
        before: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<SessionRecord>, StoreError>> {
        self.on_disk(move |sessions, trees| sessions.newest(trees, before, limit))
    }

    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<(SessionId, u32)>, StoreError>> {
        self.on_disk(|_, trees| {
            let parse = |(key, value): (sled::IVec, sled::IVec)| {
                let base = <[u8; 4]>::try_from(value.as_ref()).ok()?;
                Some((session_id(key.get(1..)?)?, u32::from_be_bytes(base)))
            };
            let unfinished = trees.records.scan_prefix(b"o");
            unfinished.filter_map(|item| item.map(parse).transpose()).map(|item| Ok(item?)).collect()
        })
    }

    fn remove_over(
        &self,
        before_ms: u64,
        after: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Removed, StoreError>> {
        let sessions = self.sessions.clone();
        self.disk.write_durable(move |database| {
            sessions.remove_over(&Trees::of(database)?, before_ms, after, limit)
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

/// The records that are in memory, and what is done with all of them. Its methods block, except those without
/// `trees`. All changes of records are made on the store's thread, so none overtakes another.
struct Sessions {
    /// Sessions that were created and not changed since.
    pending: Mutex<PendingSessions>,
    /// Records that may not be durable yet; newer than what is in the database.
    unsynced: Mutex<UnsyncedSessions>,
    /// How long sessions are kept that were not changed since they were created.
    ttl: Duration,
}

impl Sessions {
    /// A session that is in memory. Found in one place or the other while it moves between them.
    fn in_memory(&self, id: SessionId) -> Option<SessionRecord> {
        let pending = self.pending.lock().get(id).cloned();
        self.unsynced.lock().get(id).cloned().or(pending)
    }

    fn of_room_in_memory(&self, room: &RoomName) -> Option<SessionRecord> {
        let pending = self.pending.lock().of_room(room);
        let id = self.unsynced.lock().of_room(room).or(pending)?;
        self.in_memory(id)
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

    fn find(&self, trees: &Trees<'_>, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        match self.in_memory(id) {
            Some(record) => Ok(Some(record)),
            None => trees.get(id),
        }
    }

    fn change(
        &self,
        trees: &Trees<'_>,
        id: SessionId,
        change: &SessionChange,
    ) -> Result<Option<SessionRecord>, StoreError> {
        let is_pending = self.pending.lock().get(id).is_some();
        let before = match self.in_memory(id) {
            Some(record) => record,
            None => match trees.get_or_set_aside(id)? {
                Some(record) => record,
                None => return Ok(None),
            },
        };
        let mut record = before.clone();
        change.apply(&mut record, clock::unix_ms());
        if is_pending || record != before {
            self.write(trees, &record, is_pending)?;
            // In this order a reader finds it in one place or the other.
            self.pending.lock().remove(id);
        }
        Ok(Some(record))
    }

    fn restore(&self, trees: &Trees<'_>, record: SessionRecord) -> Result<Option<SessionRecord>, StoreError> {
        let id = record.session_id;
        if let Some(known) = self.in_memory(id) {
            return Ok(Some(known));
        }
        if let Some(known) = trees.get_or_set_aside(id)? {
            return Ok(Some(known));
        }
        // Its record might say that it ended, or under which numbers its turns are kept.
        if trees.is_set_aside(id)? {
            return Ok(None);
        }
        self.write(trees, &record, true)?;
        Ok(Some(record))
    }

    /// Keeps a record in memory until it is durable, and writes it if the disk takes writes.
    fn write(&self, trees: &Trees<'_>, record: &SessionRecord, is_new: bool) -> Result<(), StoreError> {
        let (id, progress) = (record.session_id, trees.database.progress());
        {
            let mut unsynced = self.unsynced.lock();
            unsynced.settle(|mark| progress.is_durable(mark));
            unsynced.keep(record.clone()).map_err(|Full| StoreError::Full)?;
        }
        if !trees.is_writable() {
            return Ok(());
        }
        let written = if is_new { trees.insert(record) } else { trees.write(record) };
        trees.database.written();
        match written {
            Ok(()) => self.unsynced.lock().written(id, progress.mark()),
            Err(StoreError::Unavailable { cause }) => progress.health.failed(&cause),
            Err(error) => {
                self.unsynced.lock().forget(id);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes what may be missing in a database that was opened again.
    fn rewrite(&self, database: &Database) -> Result<(), StoreError> {
        let trees = Trees::of(database)?;
        let mut unsynced = self.unsynced.lock();
        unsynced.changed().try_for_each(|record| trees.insert(record))?;
        unsynced.created().try_for_each(|group| trees.write_group(group))?;
        unsynced.all_written(database.progress().mark());
        Ok(())
    }

    fn newest(
        &self,
        trees: &Trees<'_>,
        before: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let end = before.map_or_else(|| vec![b'i' + 1], |id| key(b'i', id.as_bytes()));
        let mut newest = BTreeMap::new();
        let written = trees.records.range(vec![b'i']..end).rev().filter_map(|item| {
            item.map(|(key, value)| parse_or_log(session_id(key.get(1..)?)?, &value)).transpose()
        });
        for record in written.take(limit) {
            let record = record?;
            newest.insert(record.session_id, record);
        }
        let is_wanted = |record: &&SessionRecord| before.is_none_or(|before| record.session_id < before);
        let pending = self.pending.lock();
        let unsynced = self.unsynced.lock();
        let in_memory = unsynced.changed().rev().filter(is_wanted).take(limit);
        // The state that is in memory and changed is the newest.
        for record in pending.newest(before).take(limit).chain(in_memory) {
            newest.insert(record.session_id, record.clone());
        }
        Ok(newest.into_values().rev().take(limit).collect())
    }

    fn remove_over(
        &self,
        trees: &Trees<'_>,
        before_ms: u64,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Removed, StoreError> {
        let progress = trees.database.progress();
        self.unsynced.lock().settle(|mark| progress.is_durable(mark));
        let start = after.map_or(0, |id| u128::from_be_bytes(*id.as_bytes()) + 1);
        let range = key(b'i', &start.to_be_bytes())..key(b'i', &first_id_of(before_ms).to_be_bytes());
        let (mut removed, mut last) = (0, None);
        for item in trees.records.range(range).take(limit) {
            let (key, value) = item?;
            last = key.get(1..).and_then(session_id);
            // One that cannot be parsed stays, for an operator.
            let Ok(record) = serde_json::from_slice::<SessionRecord>(&value) else { continue };
            if record.is_over(before_ms) && self.in_memory(record.session_id).is_none() {
                trees.remove(&record)?;
                removed += 1;
            }
        }
        Ok(Removed { removed, last })
    }

    /// Takes the sessions that an earlier process created and that never changed into memory.
    fn load_pending(&self, trees: &Trees<'_>) -> Result<(), StoreError> {
        let oldest_ms = self.oldest_ms();
        trees.remove_groups(oldest_ms)?;
        let mut pending = self.pending.lock();
        for group in trees.records.scan_prefix(b"f") {
            let (group_key, value) = group?;
            let group: Vec<SessionRecord> = match serde_json::from_slice(&value) {
                Ok(group) => group,
                Err(error) => {
                    set_aside(&trees.records, &trees.unreadable, &group_key, &value)?;
                    tracing::error!(%error, "unreadable group of new sessions set aside");
                    continue;
                }
            };
            for record in group {
                let id = record.session_id;
                let has_changed = trees.records.contains_key(key(b'i', id.as_bytes()))?;
                if !has_changed
                    && !trees.is_set_aside(id)?
                    && record.created_ms >= oldest_ms
                    && pending.insert(record).is_err()
                {
                    tracing::warn!(session.id = %id, "too many unused sessions: one is forgotten");
                }
            }
        }
        Ok(())
    }

    /// Writes a group of new sessions, if the disk takes writes, and keeps it until it is durable.
    fn write_group(&self, shared: &Shared, group: &[SessionRecord]) {
        let progress = &shared.progress;
        {
            let mut unsynced = self.unsynced.lock();
            unsynced.settle(|mark| progress.is_durable(mark));
            unsynced.keep_created(group.to_vec());
        }
        let written = shared.write(|database| {
            let trees = Trees::of(database)?;
            trees.write_group(group)?;
            self.unsynced.lock().created_written(progress.mark());
            trees.remove_groups(self.oldest_ms())
        });
        match written {
            // It is written as soon as the disk takes writes again.
            Ok(_) | Err(StoreError::Unavailable { .. }) => {}
            Err(error) => tracing::error!(%error, "new sessions are not on disk"),
        }
    }
}

fn write_groups(sessions: &Sessions, shared: &Shared, mut queue: mpsc::Receiver<Write>) {
    let (mut group, mut waiting) = (Vec::new(), Vec::new());
    while let Some(first) = queue.blocking_recv() {
        thread::sleep(BATCH_DELAY);
        let rest = std::iter::from_fn(|| queue.try_recv().ok()).take(MAX_QUEUED);
        for write in std::iter::once(first).chain(rest) {
            match write {
                Write::Created(record) => group.push(*record),
                Write::Flush(done) => waiting.push(done),
            }
        }
        group.chunks(MAX_BATCH).for_each(|group| sessions.write_group(shared, group));
        group.clear();
        for done in waiting.drain(..) {
            // A caller that no longer waits was cancelled.
            let _ = oneshot::Sender::send(done, ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::edge_v1::to_client::EndReason,
        store::{
            sled::{
                session_records::{RECORDS, UNREADABLE},
                tests::reopen,
            },
            suite::sessions::{new_record, record, suite},
        },
    };

    const HOUR: Duration = Duration::from_secs(3600);

    fn put(disk: &Disk, key: &[u8], value: &[u8]) {
        disk.now(|database| Ok(database.tree(RECORDS)?.insert(key, value)?)).unwrap();
    }

    fn at(disk: &Disk, tree: &str, key: &[u8]) -> Option<Vec<u8>> {
        disk.now(|database| Ok(database.tree(tree)?.get(key)?)).unwrap().map(|value| value.to_vec())
    }

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
        let keys = || {
            let keys =
                store.disk.now(|database| Ok(database.tree(RECORDS)?.iter().keys().collect::<Vec<_>>()));
            keys.unwrap().into_iter().collect::<Result<Vec<_>, _>>().unwrap()
        };
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
            put(&store.disk, &key, broken);

            assert_eq!(store.get(session.session_id).await, Ok(None));
            assert_eq!(store.newest(None, 9).await, Ok(vec![]));
            assert_eq!(at(&store.disk, RECORDS, &key).unwrap(), broken, "reading moves nothing");

            let ended = SessionChange::Ended(EndReason::Logout);
            assert_eq!(store.change(session.session_id, ended).await, Ok(None));
            store.flush().await.unwrap();
        }

        let store = SledSessions::new(reopen(folder.path()), HOUR).unwrap();
        assert_eq!(at(&store.disk, UNREADABLE, &key).unwrap(), broken);
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
            put(&store.disk, &broken, b"[{]");
            store.create(session.clone()).await.unwrap();
            store.flush().await.unwrap();
        }

        let store = SledSessions::new(reopen(folder.path()), HOUR).unwrap();

        assert_eq!(store.get(session.session_id).await, Ok(Some(session)));
        assert_eq!(at(&store.disk, UNREADABLE, &broken).unwrap(), b"[{]");
        assert_eq!(at(&store.disk, RECORDS, &broken), None);
    }
}
