//! Removes session records once they have been over for long enough.
//!
//! In small parts with pauses, so that no turn waits for it. The history stays: it is its user's memory.

use std::{sync::Weak, time::Duration};

use crate::{
    clock,
    ids::SessionId,
    store::{StoreError, sessions::SessionStore},
};

/// Records that are looked at in one operation of the store: about a millisecond.
const PART: usize = 64;

/// The pause between two parts: 23 million records a day.
const PAUSE: Duration = Duration::from_millis(250);

/// How often it begins at the oldest record again.
const INTERVAL: Duration = Duration::from_secs(3600);

/// Removes what is over since `retention`, until the store is gone.
pub(crate) async fn run<S: SessionStore + ?Sized>(store: Weak<S>, retention: Duration) {
    loop {
        let mut after = None;
        loop {
            tokio::time::sleep(PAUSE).await;
            let Some(store) = store.upgrade() else { return };
            match remove_part(&*store, retention, after).await {
                Ok(Some(last)) => after = Some(last),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "old session records are not removed; tried again in an hour");
                    break;
                }
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Gives the last record that was looked at; none if there are no more.
async fn remove_part<S: SessionStore + ?Sized>(
    store: &S,
    retention: Duration,
    after: Option<SessionId>,
) -> Result<Option<SessionId>, StoreError> {
    let before_ms = clock::unix_ms().saturating_sub(retention.as_millis() as u64);
    let removed = store.remove_over(before_ms, after, PART).await?;
    if removed.removed > 0 {
        tracing::info!(sessions = removed.removed, "old session records removed");
    }
    Ok(removed.last)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        ids::SessionId,
        store::{
            memory::MemorySessions,
            suite::sessions::{new_record, record},
        },
    };

    #[tokio::test(start_paused = true)]
    async fn sessions_that_are_over_for_longer_than_the_retention_are_removed() {
        let store = Arc::new(MemorySessions::default());
        for n in 0..PART as u128 * 2 {
            store.restore(record(n, "ann")).await.unwrap();
        }
        let recent = new_record("ann");
        store.create(recent.clone()).await.unwrap();

        let task = tokio::spawn(run(Arc::downgrade(&store), Duration::from_secs(86_400)));
        while store.newest(None, 9).await.unwrap().len() > 1 {
            tokio::time::sleep(PAUSE).await;
        }

        assert_eq!(store.newest(None, 9).await, Ok(vec![recent]));
        assert_eq!(store.get(SessionId::from_u128(0)).await, Ok(None));
        drop(store);
        task.await.unwrap();
    }
}
