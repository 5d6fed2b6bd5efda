//! What is known of sessions beyond the life of their actors: it survives a restart and a `kill -9`.
//!
//! ```text
//!   tree "sessions"   i <session: 16 bytes>  → Record as JSON
//!                     r <room>               → session: 16 bytes
//!                     u <user>               → session: 16 bytes, the user's newest
//!                     f <session: 16 bytes>  → Records as JSON: that session and some made after it
//!                     s <name>               → a secret this gateway made for itself
//! ```
//!
//! Three keys in random places cost sled ten times what all the rest of making a session does. So a
//! session that was just made goes to the disk with others made at that moment, under one key (`f`), and
//! gets a place of its own when it is used for the first time. One that nobody used is forgotten after
//! `SESSION_TTL_MS`.
//!
//! ```text
//!   create ─▶ fresh (memory) ─▶ bounded queue ─▶ recorder: f        get, change … ─▶ i, r, u
//! ```

use std::{sync::Arc, thread, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{
    clock,
    ids::{RoomName, SessionId, UserId},
    protocol::edge_v1::to_client::EndReason,
    store::{
        pending_sessions::PendingSessions,
        sled::{Disk, DiskError},
    },
};

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its id.
    pub session_id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its LiveKit room.
    pub room: RoomName,
    /// When it began, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// How often an actor took it up.
    #[serde(default)]
    pub generation_base: u32,
    /// Why it is over; none while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndReason>,
    /// The room as LiveKit knows it, once somebody was in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub livekit_room: Option<LivekitRoom>,
}

/// A room as LiveKit made it. It makes a new one under the same name when somebody comes after the last
/// one left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivekitRoom {
    /// LiveKit's id of it.
    pub sid: String,
    /// When LiveKit made it, in milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// Records that wait for the recorder. Beyond that whoever makes a session writes it, which slows down
/// those who make them.
const QUEUE: usize = 8192;

/// Records that share a key: what sled keeps in a file of its own begins at half a megabyte.
const MAX_BATCH: usize = 512;

/// How long a group gathers. Without it each session would wake the recorder and be a group of one.
const BATCH_DELAY: Duration = Duration::from_millis(20);

/// The records. Cheap to clone.
#[derive(Clone)]
pub struct SessionStore {
    disk: Disk,
    tree: sled::Tree,
    /// Those that were made and not used since.
    fresh: Arc<Mutex<PendingSessions>>,
    /// How long they are kept.
    ttl: Duration,
    recorder: mpsc::Sender<Job>,
}

/// What the recorder is told.
enum Job {
    /// Write this.
    Keep(SessionRecord),
    /// Say when everything before is written.
    Tell(oneshot::Sender<()>),
}

impl SessionStore {
    /// The records in this database; those that nobody uses are forgotten after `ttl`.
    pub fn new(disk: Disk, ttl: Duration) -> Result<Self, DiskError> {
        let tree = disk.tree("sessions")?;
        let fresh = Arc::new(Mutex::new(unused(&tree, ttl)?));
        let (recorder, queue) = mpsc::channel(QUEUE);
        let written = tree.clone();
        thread::Builder::new()
            .name("recorder".into())
            .spawn(move || record(&written, ttl, queue))
            .map_err(|error| DiskError::Sled(error.to_string()))?;
        Ok(Self { tree, disk, fresh, ttl, recorder })
    }

    /// Keeps a session that was just made. It is on disk within sled's flush interval (500 ms).
    pub fn create(&self, record: SessionRecord) -> Result<(), DiskError> {
        match self.recorder.try_send(Job::Keep(record.clone())) {
            Ok(()) => {
                let mut fresh = self.fresh.lock();
                fresh.expire(made_before(self.ttl));
                fresh.insert(record);
                Ok(())
            }
            Err(_) => self.put(&record),
        }
    }

    /// Keeps a session in a place of its own. One that is there already stays as it is. It is on disk
    /// within sled's flush interval (500 ms); a caller who needs it sooner waits for
    /// [`durable`](Self::durable).
    pub fn put(&self, record: &SessionRecord) -> Result<(), DiskError> {
        let id = record.session_id.as_bytes().as_slice();
        let value = serde_json::to_vec(record).map_err(|error| DiskError::Sled(error.to_string()))?;
        // The record goes first, so that what a `kill -9` cuts short is a session that is not found by its
        // room. Not as a batch: sled takes a lock over all its trees for one.
        if self.tree.compare_and_swap(key(b'i', id), None::<&[u8]>, Some(value))?.is_err() {
            return Ok(());
        }
        self.tree.insert(key(b'r', record.room.as_str().as_bytes()), id)?;
        // Ids sort by creation: an older session does not become its user's newest by being used.
        self.tree.update_and_fetch(key(b'u', record.user_id.as_str().as_bytes()), |newest| {
            Some(newest.map_or(id, |newest| newest.max(id)).to_vec())
        })?;
        Ok(())
    }

    /// A session is used: from now on it has a place of its own.
    fn settle(&self, id: SessionId) -> Result<(), DiskError> {
        let found = self.fresh.lock().get(id).cloned();
        if let Some(record) = found {
            // In this order whoever else asks finds it in one place or the other.
            self.put(&record)?;
            self.fresh.lock().remove(id);
        }
        Ok(())
    }

    /// Changes a session, whatever else changes it at the same time; gives it as it is then, none where
    /// there is no such session.
    pub fn change(
        &self,
        id: SessionId,
        change: impl Fn(&mut SessionRecord),
    ) -> Result<Option<SessionRecord>, DiskError> {
        self.settle(id)?;
        let changed = self.tree.update_and_fetch(key(b'i', id.as_bytes()), |value| {
            let mut record: SessionRecord = serde_json::from_slice(value?).ok()?;
            change(&mut record);
            serde_json::to_vec(&record).ok()
        })?;
        changed.map(|value| read(&value)).transpose()
    }

    /// At most `limit` sessions, newest first; only those older than `before`, where there is one.
    pub fn newest(&self, before: Option<SessionId>, limit: usize) -> Result<Vec<SessionRecord>, DiskError> {
        // Ids sort by creation.
        let end = before.map_or_else(|| vec![b'i' + 1], |id| key(b'i', id.as_bytes()));
        let fresh: Vec<SessionRecord> = self.fresh.lock().newest(before).take(limit).cloned().collect();
        let settled = self.tree.range(vec![b'i']..end).values().rev().take(limit);
        let mut all = settled.map(|value| read(&value?)).collect::<Result<Vec<SessionRecord>, _>>()?;
        all.extend(fresh);
        all.sort_by_key(|record| std::cmp::Reverse(record.session_id));
        all.dedup_by_key(|record| record.session_id);
        all.truncate(limit);
        Ok(all)
    }

    /// A session by its id.
    pub fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, DiskError> {
        self.settle(id)?;
        let value = self.tree.get(key(b'i', id.as_bytes()))?;
        value.map(|value| read(&value)).transpose()
    }

    /// The session of a room.
    pub fn of_room(&self, room: &RoomName) -> Result<Option<SessionRecord>, DiskError> {
        let fresh = self.fresh.lock().of_room(room);
        match fresh {
            Some(id) => self.get(id),
            None => self.pointed_to(&key(b'r', room.as_str().as_bytes())),
        }
    }

    /// The newest session of a user.
    pub fn of_user(&self, user: &UserId) -> Result<Option<SessionRecord>, DiskError> {
        let fresh = self.fresh.lock().of_user(user);
        if let Some(id) = fresh {
            self.settle(id)?;
        }
        self.pointed_to(&key(b'u', user.as_str().as_bytes()))
    }

    /// Resolves once every session made before is written.
    pub async fn written(&self) {
        let (tell, told) = oneshot::channel();
        // A recorder that is gone has written everything.
        if self.recorder.send(Job::Tell(tell)).await.is_ok() {
            let _ = told.await;
        }
    }

    /// Resolves once everything put before is durable.
    pub fn durable(&self) -> impl Future<Output = Result<(), DiskError>> + Send + use<> {
        self.disk.durable()
    }

    /// A secret that this gateway makes on first use and then keeps.
    pub fn secret(&self, name: &str, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, DiskError> {
        let key = key(b's', name.as_bytes());
        if let Some(secret) = self.tree.get(&key)? {
            return Ok(secret.to_vec());
        }
        let secret = make();
        self.tree.insert(key, secret.as_slice())?;
        self.disk.sync()?;
        Ok(secret)
    }

    fn pointed_to(&self, key: &[u8]) -> Result<Option<SessionRecord>, DiskError> {
        let Some(id) = self.tree.get(key)? else {
            return Ok(None);
        };
        let id = <[u8; 16]>::try_from(id.as_ref()).map_err(|error| DiskError::Sled(error.to_string()))?;
        self.get(SessionId::from_u128(u128::from_be_bytes(id)))
    }
}

/// When the oldest session was made that is kept though nobody used it.
fn made_before(ttl: Duration) -> u64 {
    clock::unix_ms().saturating_sub(ttl.as_millis() as u64)
}

/// The sessions of an earlier life that nobody used. Groups that are too old are cleared away.
fn unused(tree: &sled::Tree, ttl: Duration) -> Result<PendingSessions, DiskError> {
    clear(tree, ttl)?;
    let (mut fresh, made_before) = (PendingSessions::default(), made_before(ttl));
    for group in tree.scan_prefix(b"f").values() {
        let group: Vec<SessionRecord> =
            serde_json::from_slice(&group?).map_err(|error| DiskError::Sled(error.to_string()))?;
        for record in group {
            let settled = tree.contains_key(key(b'i', record.session_id.as_bytes()))?;
            if !settled && record.created_ms >= made_before {
                fresh.insert(record);
            }
        }
    }
    Ok(fresh)
}

/// Removes groups whose sessions are too old: a group is named by its first, and made within moments.
fn clear(tree: &sled::Tree, ttl: Duration) -> Result<(), DiskError> {
    // The first 48 bits of an id are the time in milliseconds (RFC 9562 §5.7); a minute is more than a
    // group takes.
    let end = u128::from(made_before(ttl).saturating_sub(60_000)) << 80;
    for group in tree.range(vec![b'f']..key(b'f', &end.to_be_bytes())).keys() {
        tree.remove(group?)?;
    }
    Ok(())
}

/// Writes what was made, in groups as large as the moment makes them.
fn record(tree: &sled::Tree, ttl: Duration, mut queue: mpsc::Receiver<Job>) {
    let (mut jobs, mut group, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(first) = queue.blocking_recv() {
        thread::sleep(BATCH_DELAY);
        jobs.push(first);
        jobs.extend(std::iter::from_fn(|| queue.try_recv().ok()).take(QUEUE));
        for job in jobs.drain(..) {
            match job {
                Job::Keep(record) => group.push(record),
                Job::Tell(whom) => waiting.push(whom),
            }
        }
        let written = group.chunks(MAX_BATCH).try_for_each(|group| write(tree, group));
        if let Err(error) = written.and_then(|()| clear(tree, ttl)) {
            tracing::error!(%error, "new sessions are not on disk");
        }
        group.clear();
        for whom in waiting.drain(..) {
            // Who no longer waits does not need to be told.
            let _ = oneshot::Sender::send(whom, ());
        }
    }
}

fn write(tree: &sled::Tree, group: &[SessionRecord]) -> Result<(), DiskError> {
    let Some(first) = group.first() else { return Ok(()) };
    let value = serde_json::to_vec(group).map_err(|error| DiskError::Sled(error.to_string()))?;
    tree.insert(key(b'f', first.session_id.as_bytes()), value)?;
    Ok(())
}

fn read(value: &[u8]) -> Result<SessionRecord, DiskError> {
    serde_json::from_slice(value).map_err(|error| DiskError::Sled(error.to_string()))
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

    const HOUR: Duration = Duration::from_secs(3600);

    fn record(n: u128, user: &str) -> SessionRecord {
        let user_id = UserId::parse(user).unwrap();
        SessionRecord {
            session_id: SessionId::from_u128(n),
            room: RoomName::for_user(&user_id, &n.to_string()),
            user_id,
            created_ms: 7,
            generation_base: 0,
            ended: None,
            livekit_room: None,
        }
    }

    #[test]
    fn a_session_is_found_by_its_id_its_room_and_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let records = SessionStore::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap();
        let (old, new) = (record(1, "john"), record(2, "john"));
        records.put(&old).unwrap();
        records.put(&new).unwrap();

        assert_eq!(records.get(old.session_id), Ok(Some(old.clone())));
        assert_eq!(records.of_room(&old.room), Ok(Some(old.clone())));
        assert_eq!(records.of_user(&old.user_id), Ok(Some(new)));
        assert_eq!(records.get(SessionId::from_u128(3)), Ok(None));
    }

    #[test]
    fn sessions_are_read_in_pages_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let records = SessionStore::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap();
        (1..=5).for_each(|n| records.put(&record(n, "john")).unwrap());
        let page = |before: Option<u128>, limit| -> Vec<SessionId> {
            let records = records.newest(before.map(SessionId::from_u128), limit).unwrap();
            records.iter().map(|record| record.session_id).collect()
        };

        assert_eq!(page(None, 2), [5, 4].map(SessionId::from_u128));
        assert_eq!(page(Some(4), 2), [3, 2].map(SessionId::from_u128));
        assert_eq!(page(Some(2), 2), [1].map(SessionId::from_u128));
        assert_eq!(page(Some(1), 2), []);
    }

    #[test]
    fn one_that_was_just_made_is_found_by_every_name_as_one_that_was_used() {
        let folder = tempfile::tempdir().unwrap();
        let records = SessionStore::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap();
        for (n, user) in [(1, "ann"), (2, "bob"), (3, "eve"), (4, "eve")] {
            records.create(SessionRecord { created_ms: clock::unix_ms(), ..record(n, user) }).unwrap();
        }
        let id = |record: Result<Option<SessionRecord>, DiskError>| {
            record.unwrap().map(|record| record.session_id)
        };
        let listed = || -> Vec<SessionId> {
            records.newest(None, 3).unwrap().iter().map(|record| record.session_id).collect()
        };
        let newest = [4, 3, 2].map(SessionId::from_u128);

        assert_eq!(listed(), newest);
        assert_eq!(id(records.get(SessionId::from_u128(1))), Some(SessionId::from_u128(1)));
        assert_eq!(id(records.of_room(&record(2, "bob").room)), Some(SessionId::from_u128(2)));
        assert_eq!(id(records.of_user(&record(4, "eve").user_id)), Some(SessionId::from_u128(4)));
        assert_eq!(id(records.get(SessionId::from_u128(3))), Some(SessionId::from_u128(3)));
        assert_eq!(id(records.of_user(&record(4, "eve").user_id)), Some(SessionId::from_u128(4)));
        assert_eq!(listed(), newest, "whether or not it was used");
    }

    #[tokio::test]
    async fn one_that_was_just_made_survives_a_restart_and_is_forgotten_when_nobody_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let reopen = || loop {
            match Disk::open(folder.path()) {
                // The threads of the one before are still letting go.
                Err(DiskError::Locked { .. }) => thread::yield_now(),
                disk => return disk.unwrap(),
            }
        };
        let (used, unused) =
            (SessionRecord { session_id: SessionId::new(), ..record(1, "ann") }, SessionId::new());
        let made = clock::unix_ms();
        {
            let records = SessionStore::new(reopen(), HOUR).unwrap();
            let used = SessionRecord { created_ms: made, ..used.clone() };
            records
                .create(SessionRecord { session_id: unused, created_ms: made, ..record(2, "bob") })
                .unwrap();
            records.create(used.clone()).unwrap();
            let changed = records.change(used.session_id, |record| record.generation_base = 7).unwrap();
            assert_eq!(changed.map(|record| record.generation_base), Some(7));
            records.written().await;
            records.disk.sync().unwrap();
        }

        let records = SessionStore::new(reopen(), HOUR).unwrap();
        assert_eq!(records.newest(None, 9).unwrap().len(), 2);
        assert_eq!(records.get(used.session_id).unwrap().unwrap().generation_base, 7);
        drop(records);

        while clock::unix_ms() == made {
            thread::yield_now();
        }
        let records = SessionStore::new(reopen(), Duration::ZERO).unwrap();
        let left: Vec<SessionId> =
            records.newest(None, 9).unwrap().iter().map(|record| record.session_id).collect();
        assert_eq!(left, [used.session_id]);
    }

    #[test]
    fn a_change_leaves_what_else_changed() {
        let folder = tempfile::tempdir().unwrap();
        let records = SessionStore::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap();
        let session = record(1, "john");
        records.put(&session).unwrap();
        let room = LivekitRoom { sid: "RM_1".into(), created_ms: 7 };

        records.change(session.session_id, |record| record.ended = Some(EndReason::Logout)).unwrap();
        let changed =
            records.change(session.session_id, |record| record.livekit_room = Some(room.clone())).unwrap();

        let wanted =
            SessionRecord { ended: Some(EndReason::Logout), livekit_room: Some(room.clone()), ..session };
        assert_eq!(changed, Some(wanted.clone()));
        assert_eq!(records.get(wanted.session_id), Ok(changed));
        assert_eq!(records.change(SessionId::from_u128(9), |_| {}), Ok(None));
    }

    #[test]
    fn a_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let records = SessionStore::new(Disk::open(folder.path()).unwrap(), HOUR).unwrap();
        assert_eq!(records.secret("control", || vec![1]), Ok(vec![1]));
        assert_eq!(records.secret("control", || vec![2]), Ok(vec![1]));
    }
}
