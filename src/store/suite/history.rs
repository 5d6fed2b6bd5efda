//! What every history store promises.

use crate::{
    ids::{SessionId, TurnId, UserId, UtteranceId},
    protocol::edge_v1::to_client::Finish,
    store::history::{Entry, HistoryItem, HistoryStore, Saved},
};

/// A line that a user said.
pub(crate) fn utterance(user: &str, session: u128, text: &str) -> Entry {
    entry(
        user,
        session,
        HistoryItem::Utterance {
            utterance_id: Some(UtteranceId(1)),
            text: text.into(),
            start_ms: 10,
            end_ms: 20,
            language: "en-US".into(),
            participant: None,
            speaker: None,
        },
    )
}

/// A line that the gateway said.
pub(crate) fn answer(user: &str, session: u128, text: &str) -> Entry {
    let line = HistoryItem::Response {
        turn_id: TurnId(1),
        text: text.into(),
        finish: Finish::Stop,
        played_ms: Some(7),
    };
    entry(user, session, line)
}

fn entry(user: &str, session: u128, line: HistoryItem) -> Entry {
    Entry {
        user_id: UserId::parse(user).unwrap(),
        session_id: SessionId::from_u128(session),
        at_ms: 1_700_000_000_000,
        item: line,
    }
}

/// Checks every promise on an empty store.
pub(crate) async fn suite(store: &dyn HistoryStore) {
    lines_come_back_in_order_and_as_they_were(store).await;
    users_and_sessions_do_not_see_each_other(store).await;
    pages_follow_each_other(store).await;
    the_order_of_calls_is_the_order_of_places(store).await;
    an_append_that_nobody_waits_for_takes_place(store).await;
    lines_of_a_session_are_deleted_and_their_places_are_not_taken_again(store).await;
}

async fn lines_come_back_in_order_and_as_they_were(store: &dyn HistoryStore) {
    let lines = [utterance("order", 1, "Hello."), answer("order", 1, "Hello yourself.")];
    for (n, line) in (1..).zip(&lines) {
        assert_eq!(store.append(line.clone()).await, Ok(n));
    }

    let saved = store.of_user(&lines[0].user_id, 0, 10).await.unwrap();
    assert_eq!(saved.iter().map(|saved| saved.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(saved.into_iter().map(|saved| saved.entry).collect::<Vec<_>>(), lines);
}

async fn users_and_sessions_do_not_see_each_other(store: &dyn HistoryStore) {
    let ann = utterance("ann", 2, "mine");
    let anna = utterance("anna", 3, "hers");
    let later = utterance("ann", 4, "later");
    for line in [&ann, &anna, &later] {
        store.append(line.clone()).await.unwrap();
    }

    let texts = |saved: Vec<Saved>| -> Vec<String> {
        saved.iter().map(|saved| saved.entry.item.text().to_owned()).collect()
    };
    let of = |session: u128| store.of_session(&ann.user_id, SessionId::from_u128(session), 0, 10);
    assert_eq!(texts(store.of_user(&ann.user_id, 0, 10).await.unwrap()), ["mine", "later"]);
    assert_eq!(texts(of(2).await.unwrap()), ["mine"]);
    assert_eq!(texts(of(4).await.unwrap()), ["later"]);
    assert_eq!(texts(of(99).await.unwrap()), Vec::<String>::new());
}

async fn pages_follow_each_other(store: &dyn HistoryStore) {
    let user = UserId::parse("pages").unwrap();
    for n in 0..25 {
        store.append(utterance("pages", 5, &n.to_string())).await.unwrap();
    }

    let mut after = 0;
    let mut texts = Vec::new();
    loop {
        let page = store.of_session(&user, SessionId::from_u128(5), after, 10).await.unwrap();
        assert!(page.len() <= 10);
        let Some(last) = page.last() else { break };
        after = last.seq;
        texts.extend(page.iter().map(|saved| saved.entry.item.text().to_owned()));
    }
    assert_eq!(texts, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());

    let newest = store.newest(&user, 3).await.unwrap();
    assert_eq!(newest.iter().map(|saved| saved.seq).collect::<Vec<_>>(), [23, 24, 25]);
}

async fn the_order_of_calls_is_the_order_of_places(store: &dyn HistoryStore) {
    let appends = (0..50).map(|n| store.append(utterance("crowd", 6, &n.to_string())));
    let places: Vec<u64> =
        futures::future::join_all(appends).await.into_iter().map(|place| place.unwrap()).collect();
    assert_eq!(places, (1..=50).collect::<Vec<_>>());
}

async fn an_append_that_nobody_waits_for_takes_place(store: &dyn HistoryStore) {
    let line = utterance("absent", 7, "Hello.");
    drop(store.append(line.clone()));
    let saved = store.newest(&line.user_id, 1).await.unwrap();
    assert_eq!(saved, [Saved { seq: 1, entry: line }]);
}

async fn lines_of_a_session_are_deleted_and_their_places_are_not_taken_again(store: &dyn HistoryStore) {
    let user = UserId::parse("deleted").unwrap();
    let session = SessionId::from_u128;
    store.append(utterance("deleted", 8, "stays")).await.unwrap();
    futures::future::join_all((0..300).map(|n| store.append(utterance("deleted", 9, &n.to_string())))).await;
    let other = utterance("somebody", 10, "of somebody else");
    store.append(other.clone()).await.unwrap();

    assert_eq!(store.delete_session(&user, session(9)).await, Ok(300));

    assert_eq!(store.of_session(&user, session(9), 0, 10).await, Ok(vec![]));
    let left = store.of_user(&user, 0, 10).await.unwrap();
    assert_eq!(left.iter().map(|saved| saved.entry.item.text()).collect::<Vec<_>>(), ["stays"]);
    assert_eq!(store.append(utterance("deleted", 9, "later")).await, Ok(302));
    assert_eq!(store.delete_session(&user, session(99)).await, Ok(0));
    assert_eq!(store.newest(&other.user_id, 1).await.unwrap()[0].entry, other);
}
