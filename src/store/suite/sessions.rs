//! What every session store promises.

use crate::{
    clock,
    ids::{RoomName, SessionId, UserId},
    protocol::{Mode, SessionOptions, edge_v1::to_client::EndReason},
    store::sessions::{LivekitRoom, SessionChange, SessionRecord, SessionStore},
};

/// A session of long ago.
pub(crate) fn record(n: u128, user: &str) -> SessionRecord {
    let user_id = UserId::parse(user).unwrap();
    SessionRecord {
        session_id: SessionId::from_u128(n),
        room: RoomName::for_user(&user_id, &n.to_string()),
        user_id,
        created_ms: n as u64,
        generation_base: 0,
        ended: None,
        ended_ms: None,
        livekit_room: None,
        options: SessionOptions::default(),
    }
}

/// A session of this moment.
pub(crate) fn new_record(user: &str) -> SessionRecord {
    SessionRecord { session_id: SessionId::new(), created_ms: clock::unix_ms(), ..record(1, user) }
}

/// A session of this moment whose id is chosen.
fn numbered(n: u128, user: &str) -> SessionRecord {
    SessionRecord { created_ms: clock::unix_ms(), ..record(n, user) }
}

/// Checks every promise on an empty store.
pub(crate) async fn suite(store: &dyn SessionStore) {
    sessions_are_listed_in_pages_newest_first(store).await;
    a_session_is_found_by_its_id_its_room_and_its_user(store).await;
    a_session_stays_where_it_is_in_every_list_when_it_changes(store).await;
    a_change_leaves_what_else_changed(store).await;
    a_session_that_is_known_is_not_restored(store).await;
    sessions_that_started_and_have_not_ended_are_unfinished(store).await;
    changes_take_effect_in_the_order_of_the_calls(store).await;
    old_sessions_that_are_over_are_removed_in_parts(store).await;
}

async fn sessions_are_listed_in_pages_newest_first(store: &dyn SessionStore) {
    for n in 1..=5 {
        store.create(numbered(n, "pages")).await.unwrap();
    }
    let page = async |before: Option<u128>, limit| -> Vec<SessionId> {
        let page = store.newest(before.map(SessionId::from_u128), limit).await.unwrap();
        page.iter().map(|record| record.session_id).collect()
    };
    let check = async || {
        assert_eq!(page(None, 2).await, [5, 4].map(SessionId::from_u128));
        assert_eq!(page(Some(4), 2).await, [3, 2].map(SessionId::from_u128));
        assert_eq!(page(Some(2), 2).await, [1].map(SessionId::from_u128));
        assert_eq!(page(Some(1), 2).await, []);
    };
    check().await;
    for n in [2, 4] {
        store.change(SessionId::from_u128(n), SessionChange::Started).await.unwrap();
    }
    check().await;
}

async fn a_session_is_found_by_its_id_its_room_and_its_user(store: &dyn SessionStore) {
    let (old, new) = (numbered(11, "names"), numbered(12, "names"));
    for session in [&old, &new] {
        store.create(session.clone()).await.unwrap();
    }
    assert_eq!(store.get(old.session_id).await, Ok(Some(old.clone())));
    assert_eq!(store.of_room(&old.room).await, Ok(Some(old.clone())));
    assert_eq!(store.of_user(&old.user_id).await, Ok(Some(new)));

    let unknown = record(13, "unknown");
    assert_eq!(store.get(unknown.session_id).await, Ok(None));
    assert_eq!(store.of_room(&unknown.room).await, Ok(None));
    assert_eq!(store.of_user(&unknown.user_id).await, Ok(None));
    assert_eq!(store.change(unknown.session_id, SessionChange::Started).await, Ok(None));
}

async fn a_session_stays_where_it_is_in_every_list_when_it_changes(store: &dyn SessionStore) {
    let sessions = [21, 22, 23].map(|n| numbered(n, "lists"));
    for session in &sessions {
        store.create(session.clone()).await.unwrap();
    }
    let newest = async || store.of_user(&sessions[0].user_id).await.unwrap().unwrap().session_id;
    for changed in [&sessions[1], &sessions[2], &sessions[0]] {
        let after = store.change(changed.session_id, SessionChange::Started).await.unwrap().unwrap();
        assert_eq!(after.generation_base, 1);
        assert_eq!(store.get(changed.session_id).await, Ok(Some(after.clone())));
        assert_eq!(store.of_room(&changed.room).await, Ok(Some(after)));
        assert_eq!(newest().await, sessions[2].session_id);
    }
}

async fn a_change_leaves_what_else_changed(store: &dyn SessionStore) {
    let session = numbered(31, "changes");
    store.create(session.clone()).await.unwrap();
    let room = LivekitRoom { sid: "RM_1".into(), created_ms: 7 };

    let ended =
        store.change(session.session_id, SessionChange::Ended(EndReason::Logout)).await.unwrap().unwrap();
    let options = SessionOptions { mode: Some(Mode::Captions), ..SessionOptions::default() };
    let configured = SessionChange::Configured(Box::new(options.clone()));
    store.change(session.session_id, configured).await.unwrap();
    let changed = store.change(session.session_id, SessionChange::RoomCreated(room.clone())).await.unwrap();

    assert_eq!((ended.ended, ended.ended_ms.is_some()), (Some(EndReason::Logout), true));
    let all = SessionRecord { livekit_room: Some(room), options, ..ended };
    assert_eq!(changed, Some(all.clone()));
    assert_eq!(store.get(all.session_id).await, Ok(Some(all)));
}

async fn a_session_that_is_known_is_not_restored(store: &dyn SessionStore) {
    let (new, ended, lost) = (numbered(41, "known"), numbered(42, "known"), numbered(43, "known"));
    store.create(new.clone()).await.unwrap();
    store.create(ended.clone()).await.unwrap();
    let reason = SessionChange::Ended(EndReason::Logout);
    let ended = store.change(ended.session_id, reason).await.unwrap().unwrap();

    for known in [&new, &ended] {
        let restored = SessionRecord { created_ms: 7, ended: None, ..known.clone() };
        assert_eq!(store.restore(restored).await, Ok(Some(known.clone())));
        assert_eq!(store.get(known.session_id).await, Ok(Some(known.clone())));
    }
    assert_eq!(store.restore(lost.clone()).await, Ok(Some(lost.clone())));
    assert_eq!(store.of_user(&lost.user_id).await, Ok(Some(lost)));
}

async fn sessions_that_started_and_have_not_ended_are_unfinished(store: &dyn SessionStore) {
    let [unused, open, ended] = [51, 52, 53].map(|n| numbered(n, "open"));
    for session in [&unused, &open, &ended] {
        store.create(session.clone()).await.unwrap();
    }
    for id in [open.session_id, open.session_id, ended.session_id] {
        store.change(id, SessionChange::Started).await.unwrap();
    }
    store.change(ended.session_id, SessionChange::Ended(EndReason::Logout)).await.unwrap();

    let mut unfinished = store.unfinished().await.unwrap();
    unfinished.retain(|(id, _)| [&unused, &open, &ended].iter().any(|session| session.session_id == *id));
    assert_eq!(unfinished, [(open.session_id, 2)]);
}

async fn changes_take_effect_in_the_order_of_the_calls(store: &dyn SessionStore) {
    let session = numbered(61, "order");
    store.create(session.clone()).await.unwrap();
    let reasons = [EndReason::Disconnected, EndReason::Logout];
    let changes = reasons.map(|reason| store.change(session.session_id, SessionChange::Ended(reason)));

    // The last is polled first, and the first is dropped.
    let [first, last] = changes;
    drop(first);

    assert_eq!(last.await.unwrap().unwrap().ended, Some(EndReason::Disconnected));
}

async fn old_sessions_that_are_over_are_removed_in_parts(store: &dyn SessionStore) {
    // Long ago, by the time in their ids.
    let old = |n: u64| SessionRecord {
        session_id: SessionId::from_u128(u128::from(n) << 80),
        created_ms: n,
        ..record(u128::from(n), "old")
    };
    let [over, open, unused, recent] = [101, 102, 103, 104].map(old);
    for session in [&over, &open, &unused, &recent] {
        store.restore(session.clone()).await.unwrap();
    }
    for session in [&over, &open] {
        store.change(session.session_id, SessionChange::Started).await.unwrap();
    }
    store.change(over.session_id, SessionChange::Ended(EndReason::Logout)).await.unwrap();
    store.flush().await.unwrap();
    let by_then = clock::unix_ms();
    while clock::unix_ms() == by_then {
        tokio::task::yield_now().await;
    }

    // Ended just now, though it was created long ago.
    let start = Some(SessionId::from_u128(100 << 80));
    let kept = store.remove_over(104, start, 9).await.unwrap();
    assert_eq!((kept.removed, kept.last), (1, Some(unused.session_id)), "only the one that never started");
    assert!(store.get(over.session_id).await.unwrap().is_some());

    let first = store.remove_over(clock::unix_ms(), start, 1).await.unwrap();
    assert_eq!(first.removed, 1);
    let rest = store.remove_over(clock::unix_ms(), Some(over.session_id), 2).await.unwrap();
    assert_eq!((rest.removed, rest.last), (1, Some(recent.session_id)));
    let left = async |session: &SessionRecord| store.get(session.session_id).await.unwrap().is_some();
    assert!(left(&open).await, "it has not ended");
    for session in [&over, &unused, &recent] {
        assert!(!left(session).await);
    }
    assert_eq!(store.of_room(&over.room).await, Ok(None));
}
