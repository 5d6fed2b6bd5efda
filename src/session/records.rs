//! What is known of sessions beyond the life of their actors: it survives a restart and a `kill -9`.
//!
//! ```text
//!   tree "sessions"   i <session: 16 bytes>  → Record as JSON
//!                     r <room>               → session: 16 bytes
//!                     u <user>               → session: 16 bytes, the user's newest
//!                     s <name>               → a secret this gateway made for itself
//! ```

use serde::{Deserialize, Serialize};
use sled::Batch;

use crate::{
    disk::{Disk, DiskError},
    ids::{RoomName, SessionId, UserId},
    protocol::to_client::EndReason,
};

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
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
    pub incarnation: u32,
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

/// The records. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    disk: Disk,
    tree: sled::Tree,
}

impl Records {
    /// The records in this database.
    pub fn new(disk: Disk) -> Result<Self, DiskError> {
        Ok(Self { tree: disk.tree("sessions")?, disk })
    }

    /// Keeps a session. It is durable within sled's flush interval (500 ms); a caller who needs it
    /// sooner waits for [`durable`](Self::durable).
    pub fn put(&self, record: &Record) -> Result<(), DiskError> {
        let id = record.session_id.as_bytes().as_slice();
        let value = serde_json::to_vec(record).map_err(|error| DiskError::Sled(error.to_string()))?;
        let mut batch = Batch::default();
        batch.insert(key(b'i', id), value);
        batch.insert(key(b'r', record.room.as_str().as_bytes()), id);
        batch.insert(key(b'u', record.user_id.as_str().as_bytes()), id);
        Ok(self.tree.apply_batch(batch)?)
    }

    /// Changes a session, whatever else changes it at the same time; gives it as it is then, none where
    /// there is no such session.
    pub fn change(&self, id: SessionId, change: impl Fn(&mut Record)) -> Result<Option<Record>, DiskError> {
        let changed = self.tree.update_and_fetch(key(b'i', id.as_bytes()), |value| {
            let mut record: Record = serde_json::from_slice(value?).ok()?;
            change(&mut record);
            serde_json::to_vec(&record).ok()
        })?;
        changed.map(|value| read(&value)).transpose()
    }

    /// At most `limit` sessions, newest first; only those older than `before`, where there is one.
    pub fn newest(&self, before: Option<SessionId>, limit: usize) -> Result<Vec<Record>, DiskError> {
        // Ids sort by creation.
        let end = before.map_or_else(|| vec![b'i' + 1], |id| key(b'i', id.as_bytes()));
        let newest = self.tree.range(vec![b'i']..end).values().rev().take(limit);
        newest.map(|value| read(&value?)).collect()
    }

    /// A session by its id.
    pub fn get(&self, id: SessionId) -> Result<Option<Record>, DiskError> {
        let value = self.tree.get(key(b'i', id.as_bytes()))?;
        value.map(|value| read(&value)).transpose()
    }

    /// The session of a room.
    pub fn of_room(&self, room: &RoomName) -> Result<Option<Record>, DiskError> {
        self.pointed_to(&key(b'r', room.as_str().as_bytes()))
    }

    /// The newest session of a user.
    pub fn of_user(&self, user: &UserId) -> Result<Option<Record>, DiskError> {
        self.pointed_to(&key(b'u', user.as_str().as_bytes()))
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

    fn pointed_to(&self, key: &[u8]) -> Result<Option<Record>, DiskError> {
        let Some(id) = self.tree.get(key)? else {
            return Ok(None);
        };
        let id = <[u8; 16]>::try_from(id.as_ref()).map_err(|error| DiskError::Sled(error.to_string()))?;
        self.get(SessionId::from_u128(u128::from_be_bytes(id)))
    }
}

fn read(value: &[u8]) -> Result<Record, DiskError> {
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

    fn record(n: u128, user: &str) -> Record {
        let user_id = UserId::parse(user).unwrap();
        Record {
            session_id: SessionId::from_u128(n),
            room: RoomName::for_user(&user_id, &n.to_string()),
            user_id,
            created_ms: 7,
            incarnation: 0,
            ended: None,
            livekit_room: None,
        }
    }

    #[test]
    fn a_session_is_found_by_its_id_its_room_and_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(Disk::open(folder.path()).unwrap()).unwrap();
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
        let records = Records::new(Disk::open(folder.path()).unwrap()).unwrap();
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
    fn a_change_leaves_what_else_changed() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(Disk::open(folder.path()).unwrap()).unwrap();
        let session = record(1, "john");
        records.put(&session).unwrap();
        let room = LivekitRoom { sid: "RM_1".into(), created_ms: 7 };

        records.change(session.session_id, |record| record.ended = Some(EndReason::Logout)).unwrap();
        let changed =
            records.change(session.session_id, |record| record.livekit_room = Some(room.clone())).unwrap();

        let wanted = Record { ended: Some(EndReason::Logout), livekit_room: Some(room.clone()), ..session };
        assert_eq!(changed, Some(wanted.clone()));
        assert_eq!(records.get(wanted.session_id), Ok(changed));
        assert_eq!(records.change(SessionId::from_u128(9), |_| {}), Ok(None));
    }

    #[test]
    fn a_secret_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(Disk::open(folder.path()).unwrap()).unwrap();
        assert_eq!(records.secret("control", || vec![1]), Ok(vec![1]));
        assert_eq!(records.secret("control", || vec![2]), Ok(vec![1]));
    }
}
