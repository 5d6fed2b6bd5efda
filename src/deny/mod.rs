//! Keeps people who were removed from a room out of it, until their entry on the deny-list ends.
//!
//! LiveKit lets a removed participant come back with a token that is still alive, and renews the tokens
//! of those who are connected (livekit#2804). So whoever is on the list gets no new token from us, and
//! is removed again when LiveKit says that they joined or has them in its list of who is there, or our
//! agent sees them. An entry lasts longer than any token that could be about.
//!
//! ```text
//!   tree "denied"   <room> 0x00 <identity>  → until, milliseconds since the Unix epoch: u64, big endian
//! ```

pub mod list;

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};

use crate::{
    clock,
    deny::list::{Full, Key, List},
    error::{ApiError, Code},
    ids::{GuestName, Identity, RoomName},
    livekit::api::{LivekitApi, LivekitError},
    store::sled::{Disk, DiskError},
    telemetry,
};

/// How often somebody is shown the door before we give up until they are seen again.
const ATTEMPTS: u32 = 5;

/// The wait before the second attempt; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The deny-list of this gateway. Cheap to clone.
#[derive(Clone)]
pub struct DenyList {
    shared: Arc<Shared>,
}

struct Shared {
    list: RwLock<List>,
    tree: sled::Tree,
    disk: Disk,
    /// How long an entry lasts.
    ttl: Duration,
    /// Who is being shown the door, and how often they were seen: once more than at the beginning of an
    /// attempt means another one.
    leaving: Mutex<HashMap<Key, u64>>,
}

impl DenyList {
    /// The list in this database; entries last for `ttl`.
    pub fn open(disk: Disk, ttl: Duration) -> Result<Self, DiskError> {
        let tree = disk.tree("denied")?;
        let (mut list, now) = (List::default(), clock::unix_ms());
        for entry in &tree {
            let (key, value) = entry?;
            match read(&key, &value) {
                // What does not fit any more was written by a gateway with other limits.
                Some(((room, identity), until)) if until > now => {
                    let _ = list.deny(&room, &identity, until);
                }
                Some(_) | None => {
                    tree.remove(key)?;
                }
            }
        }
        let shared = Shared { list: RwLock::new(list), tree, disk, ttl, leaving: Mutex::new(HashMap::new()) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Puts somebody on the list of a room, durably; gives the end of the entry in milliseconds since
    /// the Unix epoch.
    pub async fn deny(&self, room: &RoomName, identity: &Identity) -> Result<u64, ApiError> {
        let now = clock::unix_ms();
        let until = now + self.shared.ttl.as_millis() as u64;
        {
            let mut list = self.shared.list.write();
            for ended in list.expire(now) {
                self.shared.tree.remove(key(&ended.0, &ended.1)).map_err(DiskError::from)?;
            }
            list.deny(room, identity, until).map_err(|Full| {
                ApiError::new(Code::RateLimited, "too many people are kept out already; try again later")
            })?;
            self.shared.tree.insert(key(room, identity), &until.to_be_bytes()).map_err(DiskError::from)?;
        }
        self.shared.disk.durable().await?;
        Ok(until)
    }

    /// Until when somebody may not be in a room, in milliseconds since the Unix epoch; none where they
    /// may.
    pub fn until(&self, room: &RoomName, identity: &Identity) -> Option<u64> {
        self.shared.list.read().until(room, identity, clock::unix_ms())
    }

    /// Until when no guest of this name may come.
    pub fn guest_until(&self, room: &RoomName, name: &GuestName) -> Option<u64> {
        self.shared.list.read().guest_until(room, name, clock::unix_ms())
    }

    /// Removes everybody on the list: they may have come back while no gateway was looking.
    pub fn sweep(&self, api: &Arc<LivekitApi>) {
        let entries: Vec<Key> =
            self.shared.list.read().entries().map(|(room, who)| (room.clone(), who.clone())).collect();
        let (deny, api) = (self.clone(), api.clone());
        actix_web::rt::spawn(async move {
            for key in entries {
                // One after the other: a gateway that starts has better things to do.
                deny.remove(&api, &key).await;
            }
        });
    }

    /// Removes somebody, with a few attempts where LiveKit is away, as long as their entry lasts.
    async fn remove(&self, api: &LivekitApi, (room, identity): &Key) {
        let mut wait = FIRST_WAIT;
        for _ in 0..ATTEMPTS {
            if self.until(room, identity).is_none() {
                return;
            }
            match api.remove_participant(room, identity).await {
                Ok(()) => return metrics::counter!(telemetry::TURNED_AWAY).increment(1),
                Err(LivekitError::NotFound(_)) => return,
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait *= 2;
        }
        tracing::error!(room.name = %room, "somebody who was removed may be in the room: LiveKit is away");
    }

    /// Somebody was seen in a room, or may be there: removes them if they are on its list. Back at once.
    pub fn seen(&self, api: &Arc<LivekitApi>, room: &RoomName, identity: &Identity) {
        if self.until(room, identity).is_none() {
            return;
        }
        let key = (room.clone(), identity.clone());
        let first = {
            let mut leaving = self.shared.leaving.lock();
            let sightings = leaving.entry(key.clone()).or_insert(0);
            *sightings += 1;
            *sightings == 1
        };
        if first {
            actix_web::rt::spawn(remove_until_gone(self.clone(), api.clone(), key));
        }
    }
}

/// Removes somebody until nobody has seen them since.
async fn remove_until_gone(deny: DenyList, api: Arc<LivekitApi>, key: Key) {
    loop {
        let before = deny.shared.leaving.lock().get(&key).copied();
        deny.remove(&api, &key).await;
        let mut leaving = deny.shared.leaving.lock();
        if leaving.get(&key).copied() == before {
            leaving.remove(&key);
            return;
        }
    }
}

/// Names have no control characters, so that a zero byte stands between them.
fn key(room: &RoomName, identity: &Identity) -> Vec<u8> {
    [room.as_str().as_bytes(), &[0], identity.as_str().as_bytes()].concat()
}

fn read(key: &[u8], value: &[u8]) -> Option<(Key, u64)> {
    let (room, identity) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    let key = (RoomName::parse(room).ok()?, Identity::parse(identity).ok()?);
    Some((key, u64::from_be_bytes(value.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Key {
        (RoomName::parse("room-a").unwrap(), Identity::parse("guest:bob-abc123").unwrap())
    }

    #[tokio::test]
    async fn an_entry_survives_a_restart_and_one_that_ended_is_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let (room, identity) = names();
        let until = {
            let disk = Disk::open(folder.path()).unwrap();
            let past = clock::unix_ms() - 1;
            disk.tree("denied").unwrap().insert(b"room-a\0ann", &past.to_be_bytes()).unwrap();
            let deny = DenyList::open(disk, Duration::from_secs(900)).unwrap();
            deny.deny(&room, &identity).await.unwrap()
        };

        let disk = loop {
            match Disk::open(folder.path()) {
                // The committer of the first is still letting go.
                Err(DiskError::Locked { .. }) => tokio::task::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        let deny = DenyList::open(disk.clone(), Duration::from_secs(900)).unwrap();

        assert_eq!(deny.until(&room, &identity), Some(until));
        assert_eq!(deny.until(&room, &Identity::parse("ann").unwrap()), None);
        assert_eq!(disk.tree("denied").unwrap().len(), 1);
    }

    #[test]
    fn a_key_is_read_back_as_it_was_written() {
        let (room, identity) = names();
        let value = 7_u64.to_be_bytes();
        assert_eq!(read(&key(&room, &identity), &value), Some((names(), 7)));
        assert_eq!(read(b"no zero byte", &value), None);
        assert_eq!(read(&key(&room, &identity), b"short"), None);
    }
}
