//! Keeps participants who were removed from a room out of it, until their entry on the deny list ends.
//!
//! LiveKit lets a removed participant rejoin with a token that has not expired, and renews the tokens of
//! connected participants (livekit#2804). So whoever is on the list gets no new token from the gateway, and
//! is removed again when a webhook, LiveKit's list of participants or the media agent reports them in the
//! room. An entry lasts longer than any LiveKit token.

mod entries;
mod room_service;

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};

pub use self::entries::DeniedBy;
use self::entries::{Entries, Full, Share};
pub(crate) use self::room_service::LivekitRooms;
use crate::{
    clock,
    ids::{GuestName, Identity, RoomName},
    limits::{Limit, Refusal},
    livekit::api::{LivekitApi, LivekitError},
    store::{
        StoreError,
        deny_list::{DenyEntry, DenyListStore},
    },
    telemetry,
};

/// Attempts to remove a participant. After that the next report of them in the room starts again.
const MAX_ATTEMPTS: u32 = 5;

/// The wait before the second attempt; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);

/// What tells an entry apart.
type Key = (RoomName, Identity);

/// Why somebody is not on the deny list now.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DenyError {
    /// There is no place for another entry.
    #[error(transparent)]
    Full(#[from] Refusal),
    /// The entry is not durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The deny list of this gateway. Cheap to clone.
#[derive(Clone)]
pub struct DenyList {
    shared: Arc<Shared>,
}

struct Shared {
    entries: RwLock<Entries>,
    store: Arc<dyn DenyListStore>,
    /// How long an entry lasts.
    ttl: Duration,
    /// Participants that are being removed, and how often they were reported in the room. A report during an
    /// attempt means another one.
    removals: Mutex<HashMap<Key, u64>>,
}

impl DenyList {
    /// The list in this store; new entries last for `ttl`.
    pub async fn open(store: Arc<dyn DenyListStore>, ttl: Duration) -> Result<Self, StoreError> {
        let (mut entries, mut ended, now) = (Entries::default(), Vec::new(), clock::unix_ms());
        for DenyEntry { room, identity, until_ms, owner } in store.load().await? {
            let by = match &owner {
                // The larger share has a place for each that had one.
                Some(user) => DeniedBy::Owner { user, was_present: true },
                None => DeniedBy::Operator,
            };
            if until_ms <= now {
                ended.push((room, identity));
            } else if entries.insert(&room, &identity, until_ms, by).is_err() {
                tracing::error!(room.name = %room, "deny list full: a stored entry is not enforced");
            }
        }
        store.remove(ended).await?;
        let shared = Shared { entries: RwLock::new(entries), store, ttl, removals: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Puts somebody on the list of a room, durably; gives the end of the entry in milliseconds since the
    /// Unix epoch.
    pub async fn deny(
        &self,
        room: &RoomName,
        identity: &Identity,
        by: DeniedBy<'_>,
    ) -> Result<u64, DenyError> {
        let now = clock::unix_ms();
        let until_ms = now + self.shared.ttl.as_millis() as u64;
        let (until_ms, removed, put) = {
            // The store is called under the lock, so that it has the entries in the same order. The calls
            // only queue their work.
            let mut entries = self.shared.entries.write();
            let removed = self.shared.store.remove(entries.expire(now));
            let until_ms = entries.insert(room, identity, until_ms, by).map_err(|full| refusal(full, now))?;
            let owner = entries.owner(room, identity).cloned();
            let entry = DenyEntry { room: room.clone(), identity: identity.clone(), until_ms, owner };
            (until_ms, removed, self.shared.store.put(entry))
        };
        removed.await?;
        put.await?;
        Ok(until_ms)
    }

    /// Until when somebody may not be in a room, in milliseconds since the Unix epoch; none if they may. Guests may
    /// not where whoever invited them may not.
    pub fn until(&self, room: &RoomName, identity: &Identity) -> Option<u64> {
        let (entries, now) = (self.shared.entries.read(), clock::unix_ms());
        entries.until(room, identity, now).max(entries.inviter_until(room, identity, now))
    }

    /// Until when no guest of this name may join.
    pub fn guest_until(&self, room: &RoomName, name: &GuestName) -> Option<u64> {
        self.shared.entries.read().guest_until(room, name, clock::unix_ms())
    }

    /// Removes everybody on the list, in a spawned task: they may have rejoined while no gateway ran.
    pub fn enforce_all(&self, api: &Arc<LivekitApi>) {
        let keys: Vec<Key> =
            self.shared.entries.read().keys().map(|(room, who)| (room.clone(), who.clone())).collect();
        let (deny, api) = (self.clone(), api.clone());
        actix_web::rt::spawn(async move {
            // One after the other, to keep LiveKit free for clients that reconnect.
            for key in keys {
                deny.remove(&api, &key).await;
            }
        });
    }

    /// Somebody is reported in a room: removes them, in a spawned task, if they are on its list.
    pub fn enforce(&self, api: &Arc<LivekitApi>, room: &RoomName, identity: &Identity) {
        if self.until(room, identity).is_none() {
            return;
        }
        let key = (room.clone(), identity.clone());
        let is_first = {
            let mut removals = self.shared.removals.lock();
            let reports = removals.entry(key.clone()).or_insert(0);
            *reports += 1;
            *reports == 1
        };
        if is_first {
            actix_web::rt::spawn(remove_until_gone(self.clone(), api.clone(), key));
        }
    }

    /// Removes a participant, with a few attempts if LiveKit cannot be reached, as long as their entry lasts.
    async fn remove(&self, api: &LivekitApi, (room, identity): &Key) {
        let mut backoff = FIRST_BACKOFF;
        for _ in 0..MAX_ATTEMPTS {
            if self.until(room, identity).is_none() {
                return;
            }
            match api.remove_participant(room, identity).await {
                Ok(()) => return metrics::counter!(telemetry::TURNED_AWAY).increment(1),
                Err(LivekitError::NotFound(_)) => return,
                Err(_) => tokio::time::sleep(backoff).await,
            }
            backoff *= 2;
        }
        tracing::error!(room.name = %room, "LiveKit cannot be reached: a denied participant may be in the room");
    }
}

/// The next place is there when an entry of the share ends.
fn refusal(full: Full, now_ms: u64) -> Refusal {
    let limit = match full.share {
        Share::Room => Limit::DenyByRoom,
        Share::User => Limit::DenyByUser,
        Share::All => Limit::DenyList,
    };
    limit.refuse(Duration::from_millis(full.until_ms.saturating_sub(now_ms)))
}

/// Removes a participant until they were not reported again during the last attempt.
async fn remove_until_gone(deny: DenyList, api: Arc<LivekitApi>, key: Key) {
    loop {
        let before = deny.shared.removals.lock().get(&key).copied();
        deny.remove(&api, &key).await;
        let mut removals = deny.shared.removals.lock();
        if removals.get(&key).copied() == before {
            removals.remove(&key);
            return;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::ids::UserId;
    use crate::store::{
        sled::{Disk, SledDenyList, tests::reopen},
        suite::deny_list::entry,
    };

    const TTL: Duration = Duration::from_secs(900);

    /// A deny list in a new database in this folder.
    pub(crate) fn deny_list(folder: &Path) -> DenyList {
        let store = SledDenyList::new(Disk::open(folder).unwrap());
        futures::executor::block_on(DenyList::open(Arc::new(store), TTL)).unwrap()
    }

    #[tokio::test]
    async fn an_entry_survives_a_restart_and_one_that_ended_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let bob = entry("guest:bob-abc123", 0);
        let until =
            deny_list(folder.path()).deny(&bob.room, &bob.identity, DeniedBy::Operator).await.unwrap();
        {
            let store = SledDenyList::new(reopen(folder.path()));
            store.put(entry("ann", clock::unix_ms() - 1)).await.unwrap();
        }

        let store = Arc::new(SledDenyList::new(reopen(folder.path())));
        let deny = DenyList::open(store.clone(), TTL).await.unwrap();

        assert_eq!(deny.until(&bob.room, &bob.identity), Some(until));
        assert_eq!(deny.until(&bob.room, &Identity::parse("ann").unwrap()), None);
        assert_eq!(store.load().await, Ok(vec![DenyEntry { until_ms: until, ..bob }]));
    }

    #[tokio::test]
    async fn after_a_restart_an_owners_entries_still_take_places_of_the_owners_share() {
        let folder = tempfile::tempdir().unwrap();
        let (room, ann) = (entry("bob", 0).room, UserId::parse("ann").unwrap());
        let by_ann = DeniedBy::Owner { user: &ann, was_present: false };
        let guest = |n: usize| Identity::parse(&format!("guest-{n}")).unwrap();
        {
            let deny = deny_list(folder.path());
            for n in 0..64 {
                deny.deny(&room, &guest(n), by_ann).await.unwrap();
            }
        }

        let store = SledDenyList::new(reopen(folder.path()));
        let deny = DenyList::open(Arc::new(store), TTL).await.unwrap();

        assert!(matches!(deny.deny(&room, &guest(64), by_ann).await, Err(DenyError::Full(_))));
        assert!(deny.deny(&room, &guest(64), DeniedBy::Operator).await.is_ok());
    }

    #[tokio::test]
    async fn entries_that_ended_are_deleted_from_the_store_when_another_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SledDenyList::new(Disk::open(folder.path()).unwrap()));
        let deny = DenyList::open(store.clone(), Duration::ZERO).await.unwrap();
        let [ann, bob] = ["ann", "bob"].map(|who| entry(who, 0));
        let until = deny.deny(&ann.room, &ann.identity, DeniedBy::Operator).await.unwrap();
        while clock::unix_ms() <= until {
            tokio::task::yield_now().await;
        }

        deny.deny(&bob.room, &bob.identity, DeniedBy::Operator).await.unwrap();

        let left: Vec<Identity> =
            store.load().await.unwrap().into_iter().map(|entry| entry.identity).collect();
        assert_eq!(left, [bob.identity]);
    }
}
