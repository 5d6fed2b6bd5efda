//! Session records that may not be durable yet, and that must not be lost with the database.
//!
//! What was written since the last sync is lost if the database has to be opened again, and what changes while the
//! disk takes no writes is not even written. Both are kept here until they are durable: a generation base
//! that went back would give turns the numbers of earlier ones. Pure: times are marks of the committer's flushes.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::{
    ids::{RoomName, SessionId, UserId},
    store::sessions::SessionRecord,
};

/// Changed records: some 20 MB. Beyond that a change is refused.
const MAX_CHANGED: usize = 65_536;

/// New records in groups, likewise. Beyond that the oldest group is dropped: its control tokens restore the sessions.
const MAX_CREATED: usize = 65_536;

/// There is no place for another changed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Default)]
pub(super) struct UnsyncedSessions {
    changed: BTreeMap<SessionId, Changed>,
    by_room: HashMap<RoomName, SessionId>,
    /// The newest of each user.
    by_user: HashMap<UserId, SessionId>,
    /// The marks of the changed records that are written, in their order.
    marks: VecDeque<(u64, SessionId)>,
    created: VecDeque<Group>,
    /// Records in `created`.
    created_records: usize,
}

#[derive(Debug)]
struct Changed {
    record: SessionRecord,
    /// None until it is written.
    mark: Option<u64>,
}

#[derive(Debug)]
struct Group {
    records: Vec<SessionRecord>,
    mark: Option<u64>,
}

impl UnsyncedSessions {
    /// Keeps a changed record, in place of an earlier state of it.
    pub(super) fn keep(&mut self, record: SessionRecord) -> Result<(), Full> {
        let id = record.session_id;
        if self.changed.len() >= MAX_CHANGED && !self.changed.contains_key(&id) {
            return Err(Full);
        }
        self.by_room.insert(record.room.clone(), id);
        self.by_user.entry(record.user_id.clone()).and_modify(|known| *known = id.max(*known)).or_insert(id);
        self.changed.insert(id, Changed { record, mark: None });
        Ok(())
    }

    /// A changed record is written.
    pub(super) fn written(&mut self, id: SessionId, mark: u64) {
        if let Some(changed) = self.changed.get_mut(&id) {
            changed.mark = Some(mark);
            self.marks.push_back((mark, id));
        }
    }

    /// A changed record cannot be written, and its change did not take place.
    pub(super) fn forget(&mut self, id: SessionId) {
        if let Some(Changed { record, .. }) = self.changed.remove(&id) {
            self.by_room.remove(&record.room);
            if self.by_user.get(&record.user_id) == Some(&id) {
                self.by_user.remove(&record.user_id);
            }
        }
    }

    /// Keeps new records that are about to be written.
    pub(super) fn keep_created(&mut self, records: Vec<SessionRecord>) {
        self.created_records += records.len();
        self.created.push_back(Group { records, mark: None });
        while self.created_records > MAX_CREATED
            && let Some(oldest) = self.created.pop_front()
        {
            self.created_records -= oldest.records.len();
        }
    }

    /// The records that were kept last are written.
    pub(super) fn created_written(&mut self, mark: u64) {
        if let Some(last) = self.created.back_mut() {
            last.mark = Some(mark);
        }
    }

    /// Lets go of what is durable.
    pub(super) fn settle(&mut self, is_durable: impl Fn(u64) -> bool) {
        while let Some((mark, id)) = self.marks.front().copied()
            && is_durable(mark)
        {
            self.marks.pop_front();
            // One that changed again since has another mark, or none yet.
            if self.changed.get(&id).is_some_and(|changed| changed.mark == Some(mark)) {
                self.forget(id);
            }
        }
        while let Some(Group { mark: Some(mark), .. }) = self.created.front()
            && is_durable(*mark)
            && let Some(durable) = self.created.pop_front()
        {
            self.created_records -= durable.records.len();
        }
    }

    /// Everything was written again to another database.
    pub(super) fn all_written(&mut self, mark: u64) {
        self.marks.clear();
        for (id, changed) in &mut self.changed {
            changed.mark = Some(mark);
            self.marks.push_back((mark, *id));
        }
        for group in &mut self.created {
            group.mark = Some(mark);
        }
    }

    pub(super) fn changed(&self) -> impl DoubleEndedIterator<Item = &SessionRecord> {
        self.changed.values().map(|changed| &changed.record)
    }

    pub(super) fn created(&self) -> impl Iterator<Item = &[SessionRecord]> {
        self.created.iter().map(|group| &*group.records)
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&SessionRecord> {
        self.changed.get(&id).map(|changed| &changed.record)
    }

    pub(super) fn of_room(&self, room: &RoomName) -> Option<SessionId> {
        self.by_room.get(room).copied()
    }

    /// The newest of a user.
    pub(super) fn of_user(&self, user: &UserId) -> Option<SessionId> {
        self.by_user.get(user).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::sessions::record;

    fn ids(unsynced: &UnsyncedSessions) -> Vec<u64> {
        unsynced.changed().map(|record| record.created_ms).collect()
    }

    #[test]
    fn a_record_is_kept_until_its_last_change_is_durable() {
        let mut unsynced = UnsyncedSessions::default();
        let [ann, bob] = [record(1, "ann"), record(2, "bob")];
        unsynced.keep(ann.clone()).unwrap();
        unsynced.written(ann.session_id, 5);
        unsynced.keep(bob.clone()).unwrap();
        unsynced.written(bob.session_id, 5);
        unsynced.keep(bob.clone()).unwrap();

        unsynced.settle(|mark| mark <= 5);
        assert_eq!(ids(&unsynced), [2], "its last change is not written");

        unsynced.written(bob.session_id, 6);
        unsynced.settle(|mark| mark <= 5);
        assert_eq!(unsynced.of_user(&bob.user_id), Some(bob.session_id));

        unsynced.settle(|mark| mark <= 6);
        assert_eq!(ids(&unsynced), Vec::<u64>::new());
        assert!(unsynced.by_room.is_empty() && unsynced.by_user.is_empty() && unsynced.marks.is_empty());
    }

    #[test]
    fn what_was_never_written_is_kept_until_it_was_written_to_another_database() {
        let mut unsynced = UnsyncedSessions::default();
        unsynced.keep(record(1, "ann")).unwrap();
        unsynced.keep_created(vec![record(2, "bob"), record(3, "eve")]);

        unsynced.settle(|_| true);
        assert_eq!((ids(&unsynced), unsynced.created().count()), (vec![1], 1));

        unsynced.all_written(7);
        unsynced.settle(|mark| mark < 7);
        assert_eq!((ids(&unsynced), unsynced.created().count()), (vec![1], 1));

        unsynced.settle(|mark| mark <= 7);
        assert_eq!((ids(&unsynced), unsynced.created().count()), (vec![], 0));
        assert_eq!(unsynced.created_records, 0);
    }

    #[test]
    fn beyond_the_maximum_a_change_is_refused_and_the_oldest_new_sessions_are_dropped() {
        let mut unsynced = UnsyncedSessions::default();
        (0..MAX_CHANGED as u128).for_each(|n| unsynced.keep(record(n, "ann")).unwrap());
        assert_eq!(unsynced.keep(record(MAX_CHANGED as u128, "ann")), Err(Full));
        assert_eq!(unsynced.keep(record(0, "ann")), Ok(()), "one that is there may change again");

        for first in [0, 1] {
            unsynced.keep_created((0..MAX_CREATED as u128 - 1).map(|n| record(first + n, "bob")).collect());
        }
        assert_eq!(unsynced.created().count(), 1);
        assert_eq!(unsynced.created_records, MAX_CREATED - 1);
    }
}
