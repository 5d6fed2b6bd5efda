//! The deny list in the embedded database.
//!
//! ```text
//!   tree "denied"   <room> 0x00 <identity>  → end in milliseconds since the Unix epoch: u64, big-endian
//!                                             ++ the user whose share it is in; nothing for an operator's
//! ```
//! Names have no control characters, so the 0x00 separates them. Entries that cannot be parsed are kept in
//! the tree "denied.unreadable", under the same key.

use futures::{FutureExt, future::BoxFuture};

use crate::{
    ids::{Identity, RoomName, UserId},
    store::{
        StoreError,
        deny_list::{DenyEntry, DenyListStore},
        sled::{Disk, set_aside},
    },
};

pub(super) const TREE: &str = "denied";
const UNREADABLE: &str = "denied.unreadable";

/// The store.
pub struct SledDenyList {
    disk: Disk,
}

impl SledDenyList {
    /// The deny list in this database.
    pub fn new(disk: Disk) -> Self {
        Self { disk }
    }
}

impl DenyListStore for SledDenyList {
    fn load(&self) -> BoxFuture<'static, Result<Vec<DenyEntry>, StoreError>> {
        self.disk.write(|database| {
            let (tree, unreadable) = (database.tree(TREE)?, database.tree(UNREADABLE)?);
            let mut entries = Vec::new();
            for item in &tree {
                let (key, value) = item?;
                match parse(&key, &value) {
                    Some(entry) => entries.push(entry),
                    None => {
                        set_aside(&tree, &unreadable, &key, &value)?;
                        tracing::error!(key = %key.escape_ascii(), "unreadable deny list entry set aside");
                    }
                }
            }
            Ok(entries)
        })
    }

    fn put(&self, entry: DenyEntry) -> BoxFuture<'static, Result<(), StoreError>> {
        self.disk.write_durable(move |database| {
            database.tree(TREE)?.insert(key(&entry.room, &entry.identity), value(&entry))?;
            Ok(())
        })
    }

    fn remove(&self, entries: Vec<(RoomName, Identity)>) -> BoxFuture<'static, Result<(), StoreError>> {
        if entries.is_empty() {
            return std::future::ready(Ok(())).boxed();
        }
        self.disk.write_durable(move |database| {
            let tree = database.tree(TREE)?;
            for (room, identity) in &entries {
                tree.remove(key(room, identity))?;
            }
            Ok(())
        })
    }
}

fn key(room: &RoomName, identity: &Identity) -> Vec<u8> {
    [room.as_str().as_bytes(), &[0], identity.as_str().as_bytes()].concat()
}

fn value(entry: &DenyEntry) -> Vec<u8> {
    let owner = entry.owner.as_ref().map_or("", UserId::as_str);
    [&entry.until_ms.to_be_bytes()[..], owner.as_bytes()].concat()
}

pub(super) fn parse(key: &[u8], value: &[u8]) -> Option<DenyEntry> {
    let (room, identity) = std::str::from_utf8(key).ok()?.split_once('\0')?;
    let (until_ms, owner) = value.split_first_chunk()?;
    let owner = std::str::from_utf8(owner).ok()?;
    Some(DenyEntry {
        room: RoomName::parse(room).ok()?,
        identity: Identity::parse(identity).ok()?,
        until_ms: u64::from_be_bytes(*until_ms),
        owner: if owner.is_empty() { None } else { Some(UserId::parse(owner).ok()?) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        sled::tests::reopen,
        suite::deny_list::{entry, suite},
    };

    #[tokio::test]
    async fn sled_passes_the_suite_of_deny_list_stores() {
        let folder = tempfile::tempdir().unwrap();
        suite(&SledDenyList::new(Disk::open(folder.path()).unwrap())).await;
    }

    #[tokio::test]
    async fn an_entry_survives_a_reopen_and_one_that_cannot_be_parsed_is_kept_aside() {
        let folder = tempfile::tempdir().unwrap();
        let entry = entry("guest:bob-abc123", 7);
        {
            let store = SledDenyList::new(Disk::open(folder.path()).unwrap());
            store.disk.now(|database| Ok(database.tree(TREE)?.insert(b"no zero byte", b"short")?)).unwrap();
            store.put(entry.clone()).await.unwrap();
        }

        let store = SledDenyList::new(reopen(folder.path()));

        assert_eq!(store.load().await, Ok(vec![entry]));
        let (left, aside) = store
            .disk
            .now(|database| {
                Ok((database.tree(TREE)?.len(), database.tree(UNREADABLE)?.get(b"no zero byte")?))
            })
            .unwrap();
        assert_eq!((left, aside.unwrap().as_ref()), (1, b"short".as_slice()));
    }

    #[test]
    fn a_key_is_parsed_as_it_was_written() {
        let entry = entry("guest:bob-abc123", 7);
        let key = key(&entry.room, &entry.identity);
        assert_eq!(parse(&key, &7_u64.to_be_bytes()), Some(entry));
        assert_eq!(parse(&key, b"\0\0\0\0\0\0\0\x07\xFF"), None);
        assert_eq!(parse(&key, b"short"), None);
        assert_eq!(parse(b"no zero byte", &7_u64.to_be_bytes()), None);
    }
}
