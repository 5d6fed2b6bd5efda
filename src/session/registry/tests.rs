use std::path::PathBuf;

use actix::Arbiter;

use super::*;
use crate::{
    consumers::Consumers,
    response::clip_store::Clips,
    room::Rooms,
    session::{SessionConfig, tests::config},
    store::{
        memory::MemorySessions,
        sled::{Disk, SledHistory},
    },
};

/// A registry on a store that outlives it. Its sessions run on this thread.
fn registry(store: &Arc<MemorySessions>) -> SessionRegistry {
    let folder: PathBuf = tempfile::tempdir().unwrap().keep();
    let arbiters = vec![Arbiter::current()];
    let rooms = Rooms::new(arbiters.clone(), Duration::from_secs(30), None);
    let services = Services {
        config: Arc::new(SessionConfig { memory: 0, ..config() }),
        agents: None,
        rooms,
        consumers: Consumers::default(),
        clips: Clips::default(),
        history: Arc::new(SledHistory::new(Disk::open(&folder.join("history")).unwrap())),
        stt: None,
        llm: None,
        tts: None,
        excuse_voice: None,
        turn: None,
        chains: Vec::new(),
    };
    SessionRegistry::new(store.clone(), Arc::new(services), arbiters)
}

fn john() -> UserId {
    UserId::parse("john").unwrap()
}

/// John, by a token of his own, or by the control token of a session.
fn principal(record: Option<&SessionRecord>) -> Principal {
    Principal {
        user: john(),
        session: record.map(|record| record.session_id),
        room: record.map(|record| record.room.clone()),
        expires_at: None,
        until: None,
    }
}

/// A session that was live when its process crashed, and the registry of the next process.
async fn after_a_crash() -> (Arc<MemorySessions>, SessionRegistry, SessionRecord) {
    let store = Arc::new(MemorySessions::default());
    let record = registry(&store).create(&john(), SessionOptions::default()).await.unwrap();
    store.change(record.session_id, SessionChange::Started).await.unwrap();
    (store.clone(), registry(&store), record)
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[actix_web::test]
async fn a_session_is_found_until_it_ends_and_then_only_by_those_who_want_ended_ones() {
    let registry = registry(&Arc::default());
    let record = registry.create(&john(), SessionOptions::default()).await.unwrap();
    assert_eq!(registry.get(record.session_id).await, Ok(record.clone()));

    registry.end(record.session_id, EndReason::Logout).await.unwrap();

    assert_eq!(registry.get(record.session_id).await, Err(RegistryError::NotFound));
    assert_eq!(registry.get_any(record.session_id).await.unwrap().ended, Some(EndReason::Logout));
    assert_eq!(registry.newest_of(&principal(Some(&record))).await, Ok(None));
    let again = registry.attachable(&principal(Some(&record)), None).await;
    assert_eq!(again, Err(RegistryError::NotFound), "its tokens open nothing any more");
}

#[actix_web::test]
async fn clients_that_attach_at_the_same_time_get_one_actor() {
    let registry = registry(&Arc::default());
    let record = registry.create(&john(), SessionOptions::default()).await.unwrap();

    let actors = futures::future::join_all((0..8).map(|_| registry.actor(&record))).await;

    let actors: Vec<_> = actors.into_iter().map(Result::unwrap).collect();
    assert!(actors.iter().all(|actor| *actor == actors[0]));
    assert_eq!((registry.count(), registry.user_of(record.session_id).await), (1, Ok(john())));
}

#[actix_web::test]
async fn a_session_that_ended_has_no_actor_and_gets_none() {
    let registry = registry(&Arc::default());
    let record = registry.create(&john(), SessionOptions::default()).await.unwrap();
    let actor = registry.actor(&record).await.unwrap();

    actor.send(End(EndReason::Logout)).await.unwrap();

    assert_eq!(registry.live(record.session_id), None);
    assert_eq!(registry.get_any(record.session_id).await.unwrap().ended, Some(EndReason::Logout));
    assert_eq!(registry.actor(&record).await, Err(RegistryError::NotFound));
}

#[actix_web::test]
async fn a_session_that_the_shutdown_ended_goes_on_in_the_next_process_with_higher_numbers() {
    let store = Arc::default();
    let before = registry(&store);
    let record = before.create(&john(), SessionOptions::default()).await.unwrap();
    before.actor(&record).await.unwrap();

    before.shut_down().await;

    assert_eq!(before.count(), 0);
    let after = registry(&store);
    let found = after.attachable(&principal(Some(&record)), None).await.unwrap();
    assert_eq!((found.session_id, found.generation_base), (record.session_id, 1));
}

#[actix_web::test]
async fn a_query_says_that_an_abandoned_session_has_ended_and_changes_nothing() {
    let (store, registry, record) = after_a_crash().await;
    assert_eq!(registry.get(record.session_id).await.unwrap().ended, None, "its grace began again");

    pass(config().grace).await;

    assert_eq!(registry.get(record.session_id).await, Err(RegistryError::NotFound));
    for found in [
        registry.get_any(record.session_id).await.unwrap(),
        registry.of_room(&record.room).await.unwrap().unwrap(),
        registry.newest(None, 1).await.unwrap().remove(0),
    ] {
        assert_eq!(found.ended, Some(EndReason::GraceExpired));
    }
    assert_eq!(store.get(record.session_id).await.unwrap().unwrap().ended, None);
    let attachable = registry.attachable(&principal(Some(&record)), None).await.unwrap();
    assert_ne!(attachable.session_id, record.session_id);
}

#[actix_web::test]
async fn after_the_grace_abandoned_sessions_are_closed_and_those_that_came_back_are_not() {
    let (store, registry, abandoned) = after_a_crash().await;
    let back = registry.create(&john(), SessionOptions::default()).await.unwrap();
    store.change(back.session_id, SessionChange::Started).await.unwrap();
    let second = Duration::from_secs(1);
    tokio::time::pause();
    registry.close_abandoned();

    tokio::time::sleep(config().grace - second).await;
    registry.actor(&back).await.unwrap();
    tokio::time::sleep(2 * second).await;

    let ended = async |id| store.get(id).await.unwrap().unwrap().ended;
    assert_eq!(ended(abandoned.session_id).await, Some(EndReason::GraceExpired));
    assert_eq!(ended(back.session_id).await, None);
}

#[actix_web::test]
async fn a_session_is_not_started_where_the_store_cannot_count_it() {
    let store: Arc<MemorySessions> = Arc::default();
    let registry = registry(&store);
    let record = registry.create(&john(), SessionOptions::default()).await.unwrap();
    *store.failure.lock() = Some(StoreError::Full);

    assert_eq!(registry.actor(&record).await, Err(RegistryError::Store(StoreError::Full)));
    assert_eq!(registry.count(), 0);

    *store.failure.lock() = None;
    registry.actor(&record).await.unwrap();
}

#[actix_web::test]
async fn a_session_that_is_ended_does_not_go_on_where_the_store_fails() {
    let store: Arc<MemorySessions> = Arc::default();
    let registry = registry(&store);
    let record = registry.create(&john(), SessionOptions::default()).await.unwrap();
    registry.actor(&record).await.unwrap();
    *store.failure.lock() = Some(StoreError::Full);

    let ended = registry.end(record.session_id, EndReason::Disconnected).await;

    assert_eq!(ended, Err(RegistryError::Store(StoreError::Full)));
    assert_eq!(registry.live(record.session_id), None);
}

#[actix_web::test]
async fn a_further_device_is_refused_until_the_fight_is_over() {
    let registry = registry(&Arc::default());
    registry.refuse_takeovers(&john(), clock::now() + Duration::from_secs(5));
    assert!(registry.takeover_wait(&john()).is_some());
    assert_eq!(registry.takeover_wait(&UserId::parse("jane").unwrap()), None);

    pass(Duration::from_secs(5)).await;

    assert_eq!(registry.takeover_wait(&john()), None);
}
