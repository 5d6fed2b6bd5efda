//! How session records are kept in the database.
//!
//! ```text
//!   tree "sessions"   i <session: 16 bytes>  → SessionRecord as JSON
//!                     r <room>               → session: 16 bytes
//!                     u <user>               → session: 16 bytes, the user's newest
//!                     o <session: 16 bytes>  → generation base: u32, big-endian; it started and has not ended
//!                     f <session: 16 bytes>  → SessionRecords as JSON: that session and some created after it
//!   tree "sessions.unreadable"   records (i) and groups (f) that could not be parsed, under the same key
//! ```

use crate::{
    ids::SessionId,
    store::{
        StoreError,
        sessions::SessionRecord,
        sled::{database::Database, set_aside},
    },
};

pub(super) const RECORDS: &str = "sessions";
pub(super) const UNREADABLE: &str = "sessions.unreadable";

/// The trees of an open database.
pub(super) struct Trees<'a> {
    pub database: &'a Database,
    pub records: sled::Tree,
    pub unreadable: sled::Tree,
}

impl<'a> Trees<'a> {
    pub(super) fn of(database: &'a Database) -> Result<Self, StoreError> {
        Ok(Self { database, records: database.tree(RECORDS)?, unreadable: database.tree(UNREADABLE)? })
    }

    /// Whether the disk takes writes.
    pub(super) fn is_writable(&self) -> bool {
        self.database.progress().refusal().is_none()
    }

    pub(super) fn get(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let value = self.records.get(key(b'i', id.as_bytes()))?;
        Ok(value.and_then(|value| parse_or_log(id, &value)))
    }

    /// A record that is to be changed. One that cannot be parsed is moved aside.
    pub(super) fn get_or_set_aside(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        let key = key(b'i', id.as_bytes());
        let Some(value) = self.records.get(&key)? else { return Ok(None) };
        let record = parse_or_log(id, &value);
        if record.is_none() && self.is_writable() {
            set_aside(&self.records, &self.unreadable, &key, &value)?;
            tracing::error!(session.id = %id, "unreadable session record set aside");
        }
        Ok(record)
    }

    pub(super) fn is_set_aside(&self, id: SessionId) -> Result<bool, StoreError> {
        Ok(self.unreadable.contains_key(key(b'i', id.as_bytes()))?)
    }

    /// The session that an `r` or `u` key names.
    pub(super) fn pointed_to(&self, key: &[u8]) -> Result<Option<SessionId>, StoreError> {
        Ok(self.records.get(key)?.and_then(|id| session_id(&id)))
    }

    /// Writes a record that may have no keys of its own yet.
    pub(super) fn insert(&self, record: &SessionRecord) -> Result<(), StoreError> {
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

    pub(super) fn write(&self, record: &SessionRecord) -> Result<(), StoreError> {
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

    pub(super) fn remove(&self, record: &SessionRecord) -> Result<(), StoreError> {
        let id = record.session_id;
        for pointer in
            [key(b'r', record.room.as_str().as_bytes()), key(b'u', record.user_id.as_str().as_bytes())]
        {
            if self.pointed_to(&pointer)? == Some(id) {
                self.records.remove(pointer)?;
            }
        }
        self.records.remove(key(b'o', id.as_bytes()))?;
        self.records.remove(key(b'i', id.as_bytes()))?;
        Ok(())
    }

    pub(super) fn write_group(&self, group: &[SessionRecord]) -> Result<(), StoreError> {
        let Some(first) = group.first() else { return Ok(()) };
        let value = serde_json::to_vec(group).map_err(|error| StoreError::Failed(error.to_string()))?;
        self.records.insert(key(b'f', first.session_id.as_bytes()), value)?;
        Ok(())
    }

    /// Removes groups whose sessions were all created before then. A group is named after its first session, and
    /// the others were created moments later.
    pub(super) fn remove_groups(&self, oldest_ms: u64) -> Result<(), StoreError> {
        // A minute is more than a group takes.
        let end = first_id_of(oldest_ms.saturating_sub(60_000));
        for group in self.records.range(vec![b'f']..key(b'f', &end.to_be_bytes())).keys() {
            self.records.remove(group?)?;
        }
        Ok(())
    }
}

/// The lowest id that a session of that time can have: the first 48 bits of an id are the time in milliseconds
/// (RFC 9562 §5.7).
pub(super) fn first_id_of(unix_ms: u64) -> u128 {
    u128::from(unix_ms) << 80
}

/// A record; none, with a line in the log, if it cannot be parsed.
pub(super) fn parse_or_log(id: SessionId, value: &[u8]) -> Option<SessionRecord> {
    serde_json::from_slice(value)
        .map_err(|error| tracing::error!(session.id = %id, %error, "session record cannot be parsed"))
        .ok()
}

pub(super) fn session_id(bytes: &[u8]) -> Option<SessionId> {
    Some(SessionId::from_u128(u128::from_be_bytes(bytes.try_into().ok()?)))
}

pub(super) fn key(kind: u8, name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 1);
    key.push(kind);
    key.extend_from_slice(name);
    key
}
