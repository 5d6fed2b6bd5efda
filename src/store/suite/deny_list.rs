//! What every deny list store promises.

use crate::{
    ids::{Identity, RoomName, UserId},
    store::deny_list::{DenyEntry, DenyListStore},
};

/// An entry of `room-a`.
pub(crate) fn entry(identity: &str, until_ms: u64) -> DenyEntry {
    DenyEntry {
        room: RoomName::parse("room-a").unwrap(),
        identity: Identity::parse(identity).unwrap(),
        until_ms,
        owner: None,
    }
}

/// Checks every promise on an empty store.
pub(crate) async fn suite(store: &dyn DenyListStore) {
    an_entry_is_replaced_by_a_later_one_of_the_same_name(store).await;
    entries_that_are_removed_are_gone_and_the_others_stay(store).await;
    calls_take_effect_in_their_order(store).await;
    an_entry_has_its_owner(store).await;
}

async fn identities(store: &dyn DenyListStore) -> Vec<(String, u64)> {
    let entries = store.load().await.unwrap();
    let mut entries: Vec<_> =
        entries.into_iter().map(|entry| (entry.identity.as_str().to_owned(), entry.until_ms)).collect();
    entries.sort();
    entries
}

async fn an_entry_is_replaced_by_a_later_one_of_the_same_name(store: &dyn DenyListStore) {
    store.put(entry("ann", 100)).await.unwrap();
    store.put(entry("bob", 100)).await.unwrap();
    store.put(entry("ann", 200)).await.unwrap();
    assert_eq!(identities(store).await, [("ann".into(), 200), ("bob".into(), 100)]);
}

async fn entries_that_are_removed_are_gone_and_the_others_stay(store: &dyn DenyListStore) {
    let names = ["ann", "nobody"].map(|who| entry(who, 0)).map(|entry| (entry.room, entry.identity));
    store.remove(names.into()).await.unwrap();
    assert_eq!(identities(store).await, [("bob".into(), 100)]);
}

async fn calls_take_effect_in_their_order(store: &dyn DenyListStore) {
    let calls = (0..50).map(|until_ms| store.put(entry("bob", until_ms)));
    let calls: Vec<_> = calls.collect();
    // The futures finish in whatever order they are polled.
    futures::future::join_all(calls.into_iter().rev()).await;
    assert_eq!(identities(store).await, [("bob".into(), 49)]);
}

async fn an_entry_has_its_owner(store: &dyn DenyListStore) {
    let of_owner = DenyEntry { owner: Some(UserId::parse("ann@example.org").unwrap()), ..entry("bob", 100) };
    store.put(of_owner.clone()).await.unwrap();
    assert_eq!(store.load().await, Ok(vec![of_owner]));
    store.put(entry("bob", 100)).await.unwrap();
    assert_eq!(store.load().await, Ok(vec![entry("bob", 100)]));
}
