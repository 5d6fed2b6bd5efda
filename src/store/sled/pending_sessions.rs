//! Sessions that were created and not changed since: most of those created in a burst never are.
//!
//! Pure: [`SledSessions`](super::SledSessions) writes them to the disk, in groups, and gives one keys of its
//! own when it changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
};

use crate::{
    ids::{RoomName, SessionId, UserId},
    limits::Limit,
    store::sessions::SessionRecord,
};

/// The most that are kept, some 30 MB. Beyond that no more are taken: no user's session makes room for another's.
const MAX_PENDING: usize = 65_536;

/// The most that their options may have together, in bytes.
const MAX_OPTIONS_BYTES: usize = 64 * 1024 * 1024;

/// The most of one user. Beyond that the user's oldest is forgotten; its control token restores it.
const MAX_BY_USER: usize = 16;

/// There is no place for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
pub(super) struct PendingSessions {
    /// In the order of creation, since ids sort by it.
    by_id: BTreeMap<SessionId, SessionRecord>,
    by_room: HashMap<RoomName, SessionId>,
    /// In the order of creation.
    by_user: HashMap<UserId, BTreeSet<SessionId>>,
    options_bytes: usize,
}

impl PendingSessions {
    pub(super) fn insert(&mut self, record: SessionRecord) -> Result<(), Full> {
        let id = record.session_id;
        let of_user = self.by_user.get(&record.user_id);
        let oldest =
            of_user.filter(|of_user| of_user.len() >= MAX_BY_USER).and_then(|of_user| of_user.first());
        if let Some(oldest) = oldest.copied() {
            Limit::UnusedSessionsByUser.count();
            self.remove(oldest);
        }
        let options_bytes = self.options_bytes + record.options.bytes();
        if self.by_id.len() >= MAX_PENDING || options_bytes > MAX_OPTIONS_BYTES {
            Limit::UnusedSessions.count();
            return Err(Full);
        }
        self.options_bytes = options_bytes;
        self.by_room.insert(record.room.clone(), id);
        self.by_user.entry(record.user_id.clone()).or_default().insert(id);
        self.by_id.insert(id, record);
        Ok(())
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&SessionRecord> {
        self.by_id.get(&id)
    }

    pub(super) fn of_room(&self, room: &RoomName) -> Option<SessionId> {
        self.by_room.get(room).copied()
    }

    /// The newest of a user.
    pub(super) fn of_user(&self, user: &UserId) -> Option<SessionId> {
        self.by_user.get(user)?.last().copied()
    }

    /// Newest first; only those older than `before`, if that is given.
    pub(super) fn newest(&self, before: Option<SessionId>) -> impl Iterator<Item = &SessionRecord> {
        let older = (Bound::Unbounded, before.map_or(Bound::Unbounded, Bound::Excluded));
        self.by_id.range(older).rev().map(|(_, record)| record)
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if let Some(record) = self.by_id.remove(&id) {
            self.options_bytes -= record.options.bytes();
            self.by_room.remove(&record.room);
            if let Some(of_user) = self.by_user.get_mut(&record.user_id) {
                of_user.remove(&id);
                if of_user.is_empty() {
                    self.by_user.remove(&record.user_id);
                }
            }
        }
    }

    /// Forgets those created before this time.
    pub(super) fn expire(&mut self, oldest_ms: u64) {
        while self.by_id.first_key_value().is_some_and(|(_, record)| record.created_ms < oldest_ms) {
            self.remove_first();
        }
    }

    fn remove_first(&mut self) {
        if let Some(first) = self.by_id.keys().next().copied() {
            self.remove(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{protocol::SessionOptions, store::suite::sessions::record};

    #[test]
    fn the_newest_of_a_user_is_the_one_that_was_created_last() {
        let mut pending = PendingSessions::default();
        let john = UserId::parse("john").unwrap();
        for n in [1, 3, 2] {
            pending.insert(record(n, "john")).unwrap();
        }
        assert_eq!(pending.of_user(&john), Some(SessionId::from_u128(3)));
        let newest: Vec<u64> =
            pending.newest(Some(SessionId::from_u128(3))).map(|record| record.created_ms).collect();
        assert_eq!(newest, [2, 1]);
    }

    #[test]
    fn a_session_that_is_removed_or_too_old_is_found_by_no_key() {
        let mut pending = PendingSessions::default();
        (1..=3).for_each(|n| pending.insert(record(n, &format!("user-{n}"))).unwrap());

        pending.remove(SessionId::from_u128(2));
        pending.expire(2);

        let left: Vec<u64> = pending.newest(None).map(|record| record.created_ms).collect();
        assert_eq!(left, [3]);
        assert_eq!((pending.by_room.len(), pending.by_user.len()), (1, 1));
    }

    #[test]
    fn a_users_oldest_makes_room_for_their_newest_and_anothers_stays() {
        let mut pending = PendingSessions::default();
        pending.insert(record(0, "jane")).unwrap();

        (1..=70_000).for_each(|n| pending.insert(record(n, "john")).unwrap());

        assert!(pending.get(SessionId::from_u128(0)).is_some());
        let oldest = 70_001 - MAX_BY_USER as u128;
        assert_eq!(pending.get(SessionId::from_u128(oldest - 1)), None);
        assert!(pending.get(SessionId::from_u128(oldest)).is_some());
        assert_eq!((pending.by_id.len(), pending.by_room.len()), (MAX_BY_USER + 1, MAX_BY_USER + 1));
    }

    #[test]
    fn beyond_the_maximum_no_more_are_taken_until_some_are_forgotten() {
        let mut pending = PendingSessions::default();
        (0..MAX_PENDING as u128).for_each(|n| pending.insert(record(n, &format!("user-{n}"))).unwrap());

        assert_eq!(pending.insert(record(99_999, "late")), Err(Full));
        assert!(pending.get(SessionId::from_u128(0)).is_some());
        pending.expire(1);
        assert_eq!(pending.insert(record(99_999, "late")), Ok(()));
    }

    #[test]
    fn options_have_only_so_much_memory_together() {
        let mut pending = PendingSessions::default();
        let instructions = Some("x".repeat(4_000));
        let with_options = |n: u128| {
            let options = SessionOptions { instructions: instructions.clone(), ..SessionOptions::default() };
            SessionRecord { options, ..record(n, &format!("user-{n}")) }
        };
        let fitting = (MAX_OPTIONS_BYTES / 4_000) as u128;
        (0..fitting).for_each(|n| pending.insert(with_options(n)).unwrap());

        assert_eq!(pending.insert(with_options(fitting)), Err(Full));
        assert_eq!(pending.insert(record(fitting, "without options")), Ok(()));
        pending.remove(SessionId::from_u128(0));
        assert_eq!(pending.insert(with_options(0)), Ok(()));
    }
}
