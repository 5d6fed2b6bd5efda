//! The actor and its timer in paused time: tokio moves the clock on to the next timer once nothing else is to be done.

use std::sync::atomic::{AtomicUsize, Ordering};

use actix::Arbiter;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use parking_lot::Mutex;

use super::*;
use crate::{ids::Identity, ws::send_queue::SendQueueStream};

/// A LiveKit that answers with what it is given, once it is.
#[derive(Default)]
struct ScriptedService {
    participants: Mutex<Vec<Participant>>,
    /// Lists wait for ever.
    hangs: bool,
    lists: AtomicUsize,
    enforced: Mutex<Vec<Identity>>,
    denied: Mutex<Vec<Identity>>,
}

impl RoomService for ScriptedService {
    fn participants(&self, _: RoomName) -> BoxFuture<'static, Result<Vec<Participant>, Unreachable>> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        if self.hangs {
            return Box::pin(std::future::pending());
        }
        let participants = self.participants.lock().clone();
        Box::pin(async move { Ok(participants) })
    }

    fn enforce(&self, _: &RoomName, identity: &Identity) {
        self.enforced.lock().push(identity.clone());
    }

    fn is_denied(&self, _: &RoomName, identity: &Identity) -> bool {
        self.denied.lock().contains(identity)
    }
}

fn rooms(service: ScriptedService) -> (Rooms, Arc<ScriptedService>) {
    tokio::time::pause();
    let service = Arc::new(service);
    (Rooms::new(vec![Arbiter::current()], Duration::from_secs(30), Some(service.clone())), service)
}

fn name() -> RoomName {
    RoomName::parse("room-a").unwrap()
}

fn participant(sid: &str) -> Participant {
    Participant {
        sid: sid.into(),
        identity: Identity::parse("ann").unwrap(),
        name: String::new(),
        metadata: String::new(),
        joined_at: 1,
        tracks: vec![],
        version: 1,
    }
}

async fn join(rooms: &Rooms, sid: &str) {
    let event = Event::Joined { participant: participant(sid), room_sid: "RM_1".into() };
    rooms.webhook(&name(), event, false).await.unwrap();
}

/// An event stream with a queue of this many bytes.
fn stream(rooms: &Rooms, id: SubscriberId, bytes: usize) -> SendQueueStream {
    let (queue, stream) = SendQueue::new(bytes, None);
    rooms.subscribe(&name(), id, &queue, SubscriberKind::Stream, None, None);
    stream
}

/// The next update of a stream: `snapshot` or `diff`, and its version; none where the stream has ended.
async fn update(stream: &mut SendQueueStream) -> Option<(String, u64)> {
    loop {
        let text = String::from_utf8(stream.next().await?.to_vec()).unwrap();
        let Some(event) = text.strip_prefix("event: ") else { continue };
        let (kind, rest) = event.split_once('\n').unwrap();
        let version = rest.strip_prefix("id: ").unwrap().split(['\n', ':']).nth(1).unwrap();
        return Some((kind.to_owned(), version.parse().unwrap()));
    }
}

#[actix::test]
async fn changes_within_ten_milliseconds_are_one_diff() {
    let (rooms, _) = rooms(ScriptedService::default());
    let mut stream = stream(&rooms, 1, 64 * 1024);
    assert_eq!(update(&mut stream).await, Some(("snapshot".into(), 0)));

    for sid in ["PA_1", "PA_2", "PA_3"] {
        join(&rooms, sid).await;
    }

    assert_eq!(update(&mut stream).await, Some(("diff".into(), 1)));
    assert_eq!(update(&mut stream).await, Some(("diff".into(), 2)));
    assert_eq!(stream.next().now_or_never(), None, "two and three left together");
}

#[actix::test]
async fn a_subscriber_of_an_unknown_room_waits_a_second_for_a_livekit_that_does_not_answer() {
    let (rooms, service) = rooms(ScriptedService { hangs: true, ..ScriptedService::default() });
    let subscribed_at = clock::now();
    let mut stream = stream(&rooms, 1, 64 * 1024);

    assert_eq!(update(&mut stream).await, Some(("snapshot".into(), 0)));

    assert_eq!((clock::now() - subscribed_at).as_secs(), 1);
    assert_eq!(service.lists.load(Ordering::Relaxed), 1);
}

#[actix::test]
async fn a_subscriber_of_an_unknown_room_gets_livekits_list_and_the_denied_are_removed() {
    let service =
        ScriptedService { participants: Mutex::new(vec![participant("PA_1")]), ..Default::default() };
    let (rooms, service) = rooms(service);

    let mut stream = stream(&rooms, 1, 64 * 1024);

    assert_eq!(update(&mut stream).await, Some(("snapshot".into(), 1)));
    assert_eq!(*service.enforced.lock(), [Identity::parse("ann").unwrap()]);
}

#[actix::test]
async fn a_subscriber_that_reads_nothing_is_aborted_after_thirty_seconds_and_delays_nobody() {
    let (rooms, _) = rooms(ScriptedService::default());
    let (slow, mut stream) = SendQueue::new(1, None);
    rooms.subscribe(&name(), 1, &slow, SubscriberKind::Stream, None, None);
    let mut quick = self::stream(&rooms, 2, 64 * 1024);
    assert_eq!(update(&mut quick).await, Some(("snapshot".into(), 0)));

    join(&rooms, "PA_1").await;
    let lags_since = clock::now();
    assert_eq!(update(&mut quick).await, Some(("diff".into(), 1)));
    while slow.is_open() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    assert_eq!((clock::now() - lags_since).as_secs(), 30);
    assert_eq!(update(&mut stream).await, None, "what was queued is dropped");
}

#[actix::test]
async fn an_idle_room_stops_and_is_forgotten() {
    let (rooms, _) = rooms(ScriptedService::default());
    join(&rooms, "PA_1").await;
    let actor = rooms.actor(&name());

    tokio::time::sleep(Duration::from_secs(299)).await;
    assert!(actor.connected());
    tokio::time::sleep(Duration::from_secs(2)).await;

    assert!(!actor.connected());
    assert_eq!(rooms.shared.rooms.len(), 0);
}

#[actix::test]
async fn a_query_asks_livekit_once_for_all_who_wait() {
    let service =
        ScriptedService { participants: Mutex::new(vec![participant("PA_1")]), ..Default::default() };
    let (rooms, service) = rooms(service);

    let room = name();
    let (first, second) = tokio::join!(rooms.participants(&room), rooms.participants(&room));
    let third = rooms.participants(&room).await;

    for answer in [first, second, third] {
        assert_eq!(answer.unwrap(), [participant("PA_1")]);
    }
    assert_eq!(service.lists.load(Ordering::Relaxed), 1);
}

#[actix::test]
async fn a_gateway_that_stops_ends_event_streams_only() {
    let (rooms, _) = rooms(ScriptedService::default());
    let mut stream = stream(&rooms, 1, 64 * 1024);
    let (queue, _channel) = SendQueue::new(64 * 1024, None);
    rooms.subscribe(&name(), 2, &queue, SubscriberKind::Channel, None, None);
    update(&mut stream).await;

    rooms.shut_down().await;

    assert_eq!(update(&mut stream).await, None);
    assert!(queue.is_open());
}

#[actix::test]
async fn the_stream_of_somebody_who_is_denied_the_room_ends_and_others_go_on() {
    let (rooms, service) = rooms(ScriptedService::default());
    let [ann, bob] = ["ann", "bob"].map(|name| Identity::parse(name).unwrap());
    let subscribe = |id, holder: Option<&Identity>| {
        let (queue, stream) = SendQueue::new(64 * 1024, None);
        rooms.subscribe(&name(), id, &queue, SubscriberKind::Stream, holder, None);
        stream
    };
    let mut streams = [subscribe(1, Some(&ann)), subscribe(2, Some(&bob)), subscribe(3, None)];
    for stream in &mut streams {
        assert_eq!(update(stream).await, Some(("snapshot".into(), 0)));
    }

    service.denied.lock().push(ann.clone());
    rooms.evict(&name());
    let mut late = subscribe(4, Some(&ann));
    join(&rooms, "PA_1").await;

    let [anns, others @ ..] = &mut streams;
    assert_eq!(update(anns).await, None);
    assert_eq!(update(&mut late).await, None, "its right was looked at before");
    for stream in others {
        assert_eq!(update(stream).await, Some(("diff".into(), 1)));
    }
}
