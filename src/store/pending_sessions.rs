//! Sessions that were made and not used since: most of what is made in a burst never is.
//!
//! Pure: records and times go in, answers come out; [`Records`](super::records::Records) keeps them on
//! disk, in groups, and moves one to its own place when it is used.

use std::collections::{BTreeMap, HashMap};

use crate::{
    ids::{RoomName, SessionId, UserId},
    store::sessions::SessionRecord,
};

/// The most that are kept, some 30 MB. Beyond that the oldest is forgotten; its control token makes it
/// again.
pub const MAX_PENDING: usize = 65_536;

/// The sessions.
#[derive(Debug, Default)]
pub struct PendingSessions {
    /// Ids sort by creation.
    by_id: BTreeMap<SessionId, SessionRecord>,
    by_room: HashMap<RoomName, SessionId>,
    /// The newest of each user.
    by_user: HashMap<UserId, SessionId>,
}

impl PendingSessions {
    /// Adds one that was just made.
    pub fn insert(&mut self, record: SessionRecord) {
        let id = record.session_id;
        self.by_room.insert(record.room.clone(), id);
        self.by_user.entry(record.user_id.clone()).and_modify(|known| *known = id.max(*known)).or_insert(id);
        self.by_id.insert(id, record);
        if self.by_id.len() > MAX_PENDING {
            self.remove_first();
        }
    }

    /// One by its id.
    pub fn get(&self, id: SessionId) -> Option<&SessionRecord> {
        self.by_id.get(&id)
    }

    /// The one of a room.
    pub fn of_room(&self, room: &RoomName) -> Option<SessionId> {
        self.by_room.get(room).copied()
    }

    /// The newest of a user.
    pub fn of_user(&self, user: &UserId) -> Option<SessionId> {
        self.by_user.get(user).copied()
    }

    /// Newest first; only those older than `before`, where there is one.
    pub fn newest(&self, before: Option<SessionId>) -> impl Iterator<Item = &SessionRecord> {
        let older = move |id: &SessionId| before.is_none_or(|before| *id < before);
        self.by_id.iter().rev().filter(move |(id, _)| older(id)).map(|(_, record)| record)
    }

    /// One is used, and has another place now.
    pub fn remove(&mut self, id: SessionId) {
        if let Some(record) = self.by_id.remove(&id) {
            self.by_room.remove(&record.room);
            if self.by_user.get(&record.user_id) == Some(&id) {
                self.by_user.remove(&record.user_id);
            }
        }
    }

    /// Forgets those made before this time.
    pub fn expire(&mut self, made_before_ms: u64) {
        while self.by_id.first_key_value().is_some_and(|(_, record)| record.created_ms < made_before_ms) {
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

    fn record(n: u128, user: &str) -> SessionRecord {
        let user_id = UserId::parse(user).unwrap();
        SessionRecord {
            session_id: SessionId::from_u128(n),
            room: RoomName::for_user(&user_id, &n.to_string()),
            user_id,
            created_ms: n as u64,
            generation_base: 0,
            ended: None,
            livekit_room: None,
        }
    }

    #[test]
    fn the_newest_of_a_user_is_the_one_that_was_made_last() {
        let mut fresh = PendingSessions::default();
        let john = UserId::parse("john").unwrap();
        for n in [1, 3, 2] {
            fresh.insert(record(n, "john"));
        }
        assert_eq!(fresh.of_user(&john), Some(SessionId::from_u128(3)));
        let newest: Vec<u64> =
            fresh.newest(Some(SessionId::from_u128(3))).map(|record| record.created_ms).collect();
        assert_eq!(newest, [2, 1]);
    }

    #[test]
    fn one_that_is_used_or_too_old_is_gone_by_every_name() {
        let mut fresh = PendingSessions::default();
        (1..=3).for_each(|n| fresh.insert(record(n, &format!("user-{n}"))));

        fresh.remove(SessionId::from_u128(2));
        fresh.expire(2);

        let left: Vec<u64> = fresh.newest(None).map(|record| record.created_ms).collect();
        assert_eq!(left, [3]);
        assert_eq!((fresh.by_room.len(), fresh.by_user.len()), (1, 1));
    }

    #[test]
    fn the_oldest_gives_way_where_there_are_too_many() {
        let mut fresh = PendingSessions::default();
        (0..=MAX_PENDING as u128).for_each(|n| fresh.insert(record(n, "john")));
        assert_eq!(fresh.by_id.len(), MAX_PENDING);
        assert_eq!(fresh.get(SessionId::from_u128(0)), None);
        assert_eq!(fresh.by_room.len(), MAX_PENDING);
    }
}
