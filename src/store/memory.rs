//! Session records in memory, for tests of what uses a store: no threads, so that time can be paused.

use std::{collections::BTreeMap, future::ready};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;

use crate::{
    clock,
    ids::{RoomName, SessionId, UserId},
    store::{
        StoreError,
        sessions::{Removed, SessionChange, SessionRecord, SessionStore},
    },
};

/// The store.
#[derive(Default)]
pub(crate) struct MemorySessions {
    records: Mutex<BTreeMap<SessionId, SessionRecord>>,
    /// What every call fails with, if it fails.
    pub(crate) failure: Mutex<Option<StoreError>>,
}

impl MemorySessions {
    fn answer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut BTreeMap<SessionId, SessionRecord>) -> T,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let failure = self.failure.lock().clone();
        ready(failure.map_or_else(|| Ok(work(&mut self.records.lock())), Err)).boxed()
    }

    fn newest_where(
        &self,
        is_wanted: impl Fn(&SessionRecord) -> bool,
    ) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        self.answer(|records| records.values().rev().find(|record| is_wanted(record)).cloned())
    }
}

impl SessionStore for MemorySessions {
    fn create(&self, record: SessionRecord) -> BoxFuture<'static, Result<(), StoreError>> {
        self.answer(|records| {
            records.insert(record.session_id, record);
        })
    }

    fn restore(
        &self,
        record: SessionRecord,
    ) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        self.answer(|records| Some(records.entry(record.session_id).or_insert(record).clone()))
    }

    fn change(
        &self,
        id: SessionId,
        change: SessionChange,
    ) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        self.answer(|records| {
            let record = records.get_mut(&id)?;
            change.apply(record, clock::unix_ms());
            Some(record.clone())
        })
    }

    fn get(&self, id: SessionId) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        self.answer(|records| records.get(&id).cloned())
    }

    fn of_room(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        self.newest_where(|record| record.room == *room)
    }

    fn of_user(&self, user: &UserId) -> BoxFuture<'static, Result<Option<SessionRecord>, StoreError>> {
        self.newest_where(|record| record.user_id == *user)
    }

    fn newest(
        &self,
        before: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<SessionRecord>, StoreError>> {
        self.answer(|records| {
            let older = |id: &SessionId| before.is_none_or(|before| *id < before);
            let older = records.iter().rev().filter(|(id, _)| older(id));
            older.take(limit).map(|(_, record)| record.clone()).collect()
        })
    }

    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<(SessionId, u32)>, StoreError>> {
        self.answer(|records| {
            let unfinished = |record: &&SessionRecord| record.generation_base > 0 && record.ended.is_none();
            let unfinished = records.values().filter(unfinished);
            unfinished.map(|record| (record.session_id, record.generation_base)).collect()
        })
    }

    fn remove_over(
        &self,
        before_ms: u64,
        after: Option<SessionId>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Removed, StoreError>> {
        self.answer(|records| {
            let old = records.values().filter(|record| record.created_ms < before_ms);
            let old: Vec<_> =
                old.filter(|record| after.is_none_or(|after| after < record.session_id)).collect();
            let old: Vec<_> = old.into_iter().take(limit).cloned().collect();
            let over: Vec<_> = old.iter().filter(|record| record.is_over(before_ms)).collect();
            over.iter().for_each(|record| drop(records.remove(&record.session_id)));
            Removed { removed: over.len(), last: old.last().map(|record| record.session_id) }
        })
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        self.answer(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::sessions::suite;

    #[tokio::test]
    async fn memory_passes_the_suite_of_session_stores() {
        suite(&MemorySessions::default()).await;
    }
}
