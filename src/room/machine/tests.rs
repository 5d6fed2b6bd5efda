use super::*;
use crate::{clock, ids::Identity};

const EPOCH: u64 = 7;
const PERIOD: Duration = Duration::from_secs(30);

/// A room beside a LiveKit, of which nothing is known.
fn room(now: Instant) -> Room {
    Room::new(RoomName::parse("room-a").unwrap(), EPOCH, PERIOD, true, || 0.5, now)
}

/// A room that LiveKit listed as empty, with nothing under way.
fn listed_room(now: Instant) -> Room {
    let mut room = room(now);
    assert_eq!(room.handle(Input::Query, now), [Effect::List]);
    room.handle(Input::Listed { asked_at: now, result: Ok(vec![]) }, now);
    room
}

/// A listed room with a channel that has version 0.
fn room_with_channel(now: Instant) -> Room {
    let mut room = listed_room(now);
    subscribe(&mut room, 1, SubscriberKind::Channel, None, now);
    room.handle(Input::CaughtUp(1), now);
    room
}

fn subscribe(
    room: &mut Room,
    id: SubscriberId,
    kind: SubscriberKind,
    resume: Option<Position>,
    now: Instant,
) -> Vec<Effect> {
    room.handle(Input::Subscribe { id, kind, resume }, now)
}

fn participant(sid: &str) -> Participant {
    Participant {
        sid: sid.into(),
        identity: Identity::parse("john").unwrap(),
        name: String::new(),
        metadata: String::new(),
        joined_at: 1,
        tracks: vec![],
        version: 1,
    }
}

fn joined(sid: &str) -> Input {
    webhook(Event::Joined { participant: participant(sid), room_sid: "RM_1".into() })
}

fn webhook(event: Event) -> Input {
    Input::Webhook { event, late: false }
}

/// An update that was sent: `snapshot` or `diff`, its version, and the sids in it that joined or are there.
fn update(bytes: &Bytes) -> (String, u64, Vec<String>) {
    let text = String::from_utf8_lossy(bytes);
    let json = text[text.find('{').unwrap()..].trim_end();
    let update: serde_json::Value = serde_json::from_str(json).unwrap();
    let (kind, participants) = match update.get("snapshot") {
        Some(everybody) => ("snapshot", everybody),
        None => ("diff", &update["diff"]["joined"]),
    };
    let sids = participants.as_array().unwrap().iter().map(|one| one["sid"].as_str().unwrap().to_owned());
    (kind.to_owned(), update["version"].as_u64().unwrap(), sids.collect())
}

/// Effects with the updates that they send.
fn described(effects: &[Effect]) -> Vec<String> {
    let describe = |bytes: &Bytes| {
        let (kind, version, sids) = update(bytes);
        format!("{kind} {version} {}", sids.join(" ")).trim_end().to_owned()
    };
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Send { to, bytes } => format!("send to {to:?}: {}", describe(bytes)),
            Effect::CatchUp { to, updates } => {
                let updates: Vec<String> = updates.iter().map(describe).collect();
                format!("catch up {to}: {}", updates.join(", "))
            }
            Effect::CountLagging
            | Effect::Probe(_)
            | Effect::Abort(_)
            | Effect::List
            | Effect::Enforce(_)
            | Effect::CountCorrections(_)
            | Effect::Answer(_)
            | Effect::Stop => format!("{effect:?}"),
        })
        .collect()
}

#[test]
fn the_first_change_after_a_quiet_interval_leaves_at_once_and_the_next_ones_gather() {
    let start = clock::now();
    let mut room = room_with_channel(start);

    let first = room.handle(joined("PA_1"), start);
    let second = room.handle(joined("PA_2"), start + Duration::from_millis(1));
    let third = room.handle(joined("PA_3"), start + Duration::from_millis(2));

    assert_eq!(described(&first), ["send to [1]: diff 1 PA_1"]);
    assert_eq!((second, third), (vec![], vec![]));
    assert_eq!(room.deadline(), (start + COALESCE_INTERVAL, Reason::Flush));
    let gathered = room.handle(Input::Tick, start + COALESCE_INTERVAL);
    assert_eq!(described(&gathered), ["send to [1]: diff 2 PA_2 PA_3"]);
}

#[test]
fn a_diff_is_encoded_once_for_each_kind_of_subscriber() {
    let now = clock::now();
    let mut room = listed_room(now);
    for (id, kind) in [(1, SubscriberKind::Channel), (2, SubscriberKind::Stream)] {
        subscribe(&mut room, id, kind, None, now);
        room.handle(Input::CaughtUp(id), now);
    }

    let effects = room.handle(joined("PA_1"), now);

    assert_eq!(described(&effects), ["send to [1]: diff 1 PA_1", "send to [2]: diff 1 PA_1"]);
}

#[test]
fn subscribers_of_an_unknown_room_wait_for_the_list() {
    let now = clock::now();
    let mut room = room(now);

    assert_eq!(subscribe(&mut room, 1, SubscriberKind::Channel, None, now), [Effect::List]);
    let waiting = subscribe(&mut room, 2, SubscriberKind::Stream, None, now);
    let listed = room.handle(Input::Listed { asked_at: now, result: Ok(vec![participant("PA_1")]) }, now);

    assert_eq!(waiting, []);
    assert_eq!(
        described(&listed),
        [r#"Enforce(["john"])"#, "catch up 1: snapshot 1 PA_1", "catch up 2: snapshot 1 PA_1",]
    );
}

#[test]
fn subscribers_of_an_unknown_room_get_what_is_known_after_a_second() {
    let now = clock::now();
    let mut room = room(now);
    subscribe(&mut room, 1, SubscriberKind::Channel, None, now);

    assert_eq!(room.deadline(), (now + COLD_CACHE_TIMEOUT, Reason::ColdCache));
    let effects = room.handle(Input::Tick, now + COLD_CACHE_TIMEOUT);

    assert_eq!(described(&effects)[0], "catch up 1: snapshot 0");
}

#[test]
fn a_list_that_fails_ends_the_wait_of_subscribers_and_queries() {
    let now = clock::now();
    let mut room = room(now);
    subscribe(&mut room, 1, SubscriberKind::Channel, None, now);
    assert_eq!(room.handle(Input::Query, now), [], "the list is under way");

    let effects = room.handle(Input::Listed { asked_at: now, result: Err(Unreachable) }, now);

    assert_eq!(described(&effects), ["Answer(Err(Unreachable))", "catch up 1: snapshot 0"]);
}

#[test]
fn a_stream_that_reconnects_gets_the_diffs_that_it_missed() {
    let now = clock::now();
    let mut room = listed_room(now);
    for (sid, second) in [("PA_1", 1), ("PA_2", 2), ("PA_3", 3)] {
        room.handle(joined(sid), now + Duration::from_secs(second));
    }
    let now = now + Duration::from_secs(4);

    let resumed = subscribe(&mut room, 1, SubscriberKind::Stream, Some((EPOCH, 1)), now);
    let current = subscribe(&mut room, 2, SubscriberKind::Stream, Some((EPOCH, 3)), now);
    let unknown = subscribe(&mut room, 3, SubscriberKind::Stream, Some((EPOCH + 1, 1)), now);

    assert_eq!(described(&resumed), ["catch up 1: diff 2 PA_2, diff 3 PA_3"]);
    assert_eq!(described(&current), ["catch up 2: "]);
    assert_eq!(described(&unknown), ["catch up 3: snapshot 3 PA_1 PA_2 PA_3"]);
}

#[test]
fn a_subscriber_whose_queue_is_full_misses_diffs_and_gets_a_snapshot_in_the_next_round() {
    let start = clock::now();
    let mut room = room_with_channel(start);
    room.handle(joined("PA_1"), start);

    assert_eq!(room.handle(Input::NotSent(1, SendError::Full), start), [Effect::CountLagging]);
    let missed = room.handle(joined("PA_2"), start + Duration::from_millis(20));
    let round = room.handle(Input::Tick, start + Duration::from_secs(1));

    assert_eq!(missed, []);
    assert_eq!(described(&round)[0], "catch up 1: snapshot 2 PA_1 PA_2");
}

#[test]
fn a_subscriber_that_lags_for_thirty_seconds_is_aborted() {
    let start = clock::now();
    let mut room = room_with_channel(start);
    room.handle(Input::NotSent(1, SendError::Full), start);
    let mut aborted = Vec::new();

    for second in 1..=31 {
        let now = start + Duration::from_secs(second);
        for effect in room.handle(Input::Tick, now) {
            match effect {
                Effect::CatchUp { to, .. } => {
                    assert_eq!(room.handle(Input::NotSent(to, SendError::Full), now), []);
                }
                Effect::Abort(id) => aborted.push((id, second)),
                Effect::Send { .. }
                | Effect::CountLagging
                | Effect::Probe(_)
                | Effect::List
                | Effect::Enforce(_)
                | Effect::CountCorrections(_)
                | Effect::Answer(_)
                | Effect::Stop => {}
            }
        }
    }

    assert_eq!(aborted, [(1, 30)]);
}

#[test]
fn a_connection_that_is_over_is_sent_nothing_more() {
    let now = clock::now();
    let mut room = room_with_channel(now);

    room.handle(Input::NotSent(1, SendError::Closed), now);

    assert_eq!(room.handle(joined("PA_1"), now), []);
    assert_eq!(room.deadline(), (now + IDLE_TIMEOUT, Reason::Idle));
}

#[test]
fn a_query_is_answered_from_memory_while_that_is_fresh() {
    let start = clock::now();
    let mut room = room(start);
    room.handle(webhook(Event::Began), start);
    let fresh = start + CACHE_TTL_AFTER_WEBHOOK - Duration::from_millis(1);

    assert_eq!(room.handle(Input::Query, fresh), [Effect::Answer(Ok(()))]);
    let later = start + CACHE_TTL_AFTER_WEBHOOK;
    assert_eq!(room.handle(Input::Query, later), [Effect::List]);
    let listed = room.handle(Input::Listed { asked_at: later, result: Ok(vec![]) }, later);

    assert_eq!(listed, [Effect::Answer(Ok(()))]);
    let stale = later + CACHE_TTL_AFTER_LIST;
    assert_eq!(room.handle(Input::Query, stale), [Effect::List]);
}

#[test]
fn a_list_that_corrects_the_roster_is_counted_and_told() {
    let start = clock::now();
    let mut room = room_with_channel(start);
    let later = start + PERIOD;
    assert_eq!(room.deadline().1, Reason::Maintenance);

    let due = room.handle(Input::Tick, later);
    assert!(due.contains(&Effect::List), "{due:?}");
    let listed = room.handle(Input::Listed { asked_at: later, result: Ok(vec![participant("PA_1")]) }, later);

    assert_eq!(
        described(&listed),
        [r#"Enforce(["john"])"#, "CountCorrections(1)", "send to [1]: diff 1 PA_1"]
    );
}

#[test]
fn a_late_webhook_brings_the_next_list_forward() {
    let start = clock::now();
    let mut room = room_with_channel(start);
    let now = start + Duration::from_secs(5);
    let left = Event::Left { sid: "PA_9".into(), reason: crate::room::roster::LeaveReason::Left };

    room.handle(Input::Webhook { event: left, late: true }, now);
    let settled = now + crate::room::roster::SETTLE_TIME;

    let lists = |effects: Vec<Effect>| effects.contains(&Effect::List);
    assert!(!lists(room.handle(Input::Tick, settled - Duration::from_millis(1))));
    assert!(lists(room.handle(Input::Tick, settled)));
}

#[test]
fn a_room_stops_when_nothing_happens_and_nobody_subscribes() {
    let start = clock::now();
    let mut room = room_with_channel(start);
    let idle = start + IDLE_TIMEOUT;

    let with_subscriber = room.handle(Input::Tick, idle);
    assert!(!with_subscriber.contains(&Effect::Stop), "{with_subscriber:?}");
    room.handle(Input::Unsubscribe(1), idle);
    // The list of the last tick is still under way.
    room.handle(Input::Listed { asked_at: idle, result: Ok(vec![]) }, idle);
    room.handle(Input::Tick, idle + Duration::from_secs(1));

    assert_eq!(room.deadline(), (idle + IDLE_TIMEOUT, Reason::Idle));
    assert_eq!(room.handle(Input::Tick, idle + IDLE_TIMEOUT), [Effect::Stop]);
}

#[test]
fn a_room_without_livekit_lists_nothing_and_answers_from_memory() {
    let now = clock::now();
    let mut room = Room::new(RoomName::parse("room-a").unwrap(), EPOCH, PERIOD, false, || 0.5, now);

    assert_eq!(room.handle(Input::Query, now), [Effect::Answer(Ok(()))]);
    let subscribed = subscribe(&mut room, 1, SubscriberKind::Channel, None, now);

    assert_eq!(described(&subscribed), ["catch up 1: snapshot 0"]);
}
