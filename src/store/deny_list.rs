//! Who may not be in which room, kept across restarts.

use futures::future::BoxFuture;

use crate::{
    ids::{Identity, RoomName, UserId},
    store::StoreError,
};

/// One entry of the deny list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenyEntry {
    pub room: RoomName,
    pub identity: Identity,
    /// When it ends, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// The owner of the room who removed them; none for an operator.
    pub owner: Option<UserId>,
}

/// Keeps the deny list.
///
/// Calls take effect in their order, and dropping a future does not undo its call.
pub trait DenyListStore: Send + Sync + 'static {
    /// All entries, in no particular order. Entries that cannot be parsed are kept aside and logged.
    fn load(&self) -> BoxFuture<'static, Result<Vec<DenyEntry>, StoreError>>;

    /// Writes an entry in place of an earlier one of the same room and identity. Resolves once it is
    /// durable.
    fn put(&self, entry: DenyEntry) -> BoxFuture<'static, Result<(), StoreError>>;

    /// Deletes entries. Resolves once that is durable.
    fn remove(&self, entries: Vec<(RoomName, Identity)>) -> BoxFuture<'static, Result<(), StoreError>>;
}
