use proptest::{prelude::*, sample::Index};

use crate::{
    clock,
    room::{replay_buffer::ReplayBuffer, roster::*},
};

fn participant(sid: &str) -> Participant {
    Participant {
        sid: sid.into(),
        identity: Identity::parse("john").unwrap(),
        name: String::new(),
        metadata: String::new(),
        joined_at: 1,
        tracks: Vec::new(),
        version: 1,
    }
}

fn track(sid: &str, muted: bool) -> Track {
    Track { sid: sid.into(), name: "mic".into(), source: "microphone".into(), muted }
}

fn joined(sid: &str) -> Event {
    Event::Joined { participant: participant(sid), room_sid: "RM_1".into() }
}

fn left(sid: &str) -> Event {
    Event::Left { sid: sid.into(), reason: LeaveReason::Left }
}

fn published(sid: &str, track_sid: &str) -> Event {
    Event::TrackPublished { sid: sid.into(), track: track(track_sid, false) }
}

/// A roster after these events, all at once.
fn roster_after(events: impl IntoIterator<Item = Event>, now: Instant) -> Roster {
    let mut roster = Roster::default();
    for event in events {
        roster.handle(event, now);
    }
    roster.flush();
    roster
}

fn sids(roster: &Roster) -> Vec<&str> {
    roster.snapshot().into_iter().map(|participant| participant.sid.as_str()).collect()
}

#[test]
fn a_reconnect_is_a_new_participant_though_the_old_one_leaves_later() {
    let now = clock::now();
    let mut roster = roster_after([joined("PA_1"), joined("PA_2")], now);

    roster.handle(left("PA_1"), now);

    assert_eq!(roster.flush().unwrap().left[0].sid, "PA_1");
    assert_eq!(sids(&roster), ["PA_2"]);
    assert_eq!(roster.version(), 2);
}

#[test]
fn an_event_that_comes_twice_changes_nothing() {
    let now = clock::now();
    let mut roster = roster_after([joined("PA_1")], now);
    roster.handle(joined("PA_1"), now);
    assert_eq!(roster.flush(), None);

    roster.handle(left("PA_1"), now);
    assert!(roster.flush().is_some());
    roster.handle(left("PA_1"), now);
    assert_eq!(roster.flush(), None);
    assert_eq!(roster.version(), 2);
}

#[test]
fn a_join_that_arrives_after_the_leave_adds_nobody() {
    let roster = roster_after([left("PA_1"), joined("PA_1"), published("PA_1", "TR_1")], clock::now());
    assert!(roster.snapshot().is_empty());
    assert_eq!(roster.suspect_since(), None);
}

#[test]
fn what_comes_and_goes_between_two_versions_is_no_change() {
    let now = clock::now();
    let mut roster = roster_after([joined("PA_1")], now);
    for event in [joined("PA_2"), published("PA_1", "TR_1"), left("PA_2")] {
        roster.handle(event, now);
    }
    roster.handle(Event::TrackUnpublished { sid: "PA_1".into(), track_sid: "TR_1".into() }, now);
    assert!(roster.has_changes());
    assert_eq!(roster.flush(), None);
}

#[test]
fn a_track_of_an_unknown_sid_waits_until_the_participant_is_known() {
    // A webhook about a track does not say whether its participant is hidden.
    let now = clock::now();
    let mut roster = roster_after([published("PA_1", "TR_1")], now);
    assert!(roster.snapshot().is_empty());
    assert_eq!(roster.suspect_since(), Some(now));

    roster.handle(joined("PA_1"), now);

    assert_eq!(roster.flush().unwrap().joined[0].tracks, [track("TR_1", false)]);
    assert_eq!(roster.suspect_since(), None);
}

#[test]
fn a_late_publish_does_not_bring_back_a_track_that_ended() {
    let now = clock::now();
    let ended = Event::TrackUnpublished { sid: "PA_1".into(), track_sid: "TR_1".into() };
    for events in [
        [joined("PA_1"), ended.clone(), published("PA_1", "TR_1")],
        [ended, published("PA_1", "TR_1"), joined("PA_1")],
    ] {
        assert_eq!(roster_after(events, now).snapshot()[0].tracks, []);
    }
}

#[test]
fn a_list_corrects_the_errors_of_events() {
    let then = clock::now();
    let mut roster = roster_after([Event::Began, joined("PA_1"), joined("PA_2")], then);
    let mut changed = participant("PA_2");
    changed.tracks = vec![track("TR_1", true)];
    let asked_at = then + SETTLE_TIME;

    let participants = vec![changed.clone(), participant("PA_3")];
    let corrections = roster.handle(Event::Listed { asked_at, participants }, asked_at);

    let diff = roster.flush().unwrap();
    assert_eq!(corrections, 3);
    assert_eq!(diff.joined, [participant("PA_3")]);
    assert_eq!(diff.left[0].reason, LeaveReason::Missed);
    assert_eq!(diff.tracks[0].tracks, changed.tracks);
}

#[test]
fn the_first_list_of_an_unknown_room_corrects_nothing() {
    let now = clock::now();
    let mut roster = Roster::default();
    let listed = Event::Listed { asked_at: now, participants: vec![participant("PA_1")] };
    assert_eq!(roster.handle(listed, now), 0);
    assert!(roster.is_complete());
}

#[test]
fn a_list_that_was_asked_for_before_an_event_does_not_undo_it() {
    let asked_at = clock::now();
    let later = asked_at + Duration::from_millis(10);
    let mut roster =
        roster_after([Event::Listed { asked_at, participants: vec![participant("PA_1")] }], asked_at);
    roster.handle(left("PA_1"), later);
    roster.handle(joined("PA_2"), later);
    roster.handle(published("PA_2", "TR_1"), later);
    roster.flush();

    let participants = vec![participant("PA_1")];
    roster.handle(Event::Listed { asked_at, participants }, later + Duration::from_millis(10));

    assert_eq!(roster.flush(), None);
    assert_eq!(sids(&roster), ["PA_2"]);
    assert_eq!(roster.suspect_since(), Some(later), "and the next list decides");
}

#[test]
fn a_participant_whom_one_list_lacked_is_added_by_the_next() {
    // LiveKit keeps its list by identity: a reconnect can take the new entry away with the old one.
    let then = clock::now();
    let mut roster = roster_after([joined("PA_1")], then);
    let (first, second) = (then + SETTLE_TIME, then + 2 * SETTLE_TIME);
    roster.handle(Event::Listed { asked_at: first, participants: vec![] }, first);
    assert!(roster.snapshot().is_empty());

    roster.handle(Event::Listed { asked_at: second, participants: vec![participant("PA_1")] }, second);

    assert_eq!(sids(&roster), ["PA_1"]);
}

#[test]
fn a_join_that_a_list_overtook_changes_nothing() {
    let now = clock::now();
    let newer = Participant { name: "John".into(), version: 5, ..participant("PA_1") };
    let mut roster = roster_after([Event::Listed { asked_at: now, participants: vec![newer.clone()] }], now);

    roster.handle(joined("PA_1"), now);

    assert_eq!(roster.flush(), None);
    assert_eq!(roster.snapshot(), [&newer]);
}

#[test]
fn the_end_of_an_earlier_room_of_the_same_name_removes_nobody_from_the_new_one() {
    let now = clock::now();
    let second = Event::Joined { participant: participant("PA_2"), room_sid: "RM_2".into() };
    let mut roster = roster_after([joined("PA_1"), second], now);

    roster.handle(Event::Finished { room_sid: "RM_1".into() }, now);

    assert_eq!(roster.flush().unwrap().left[0].reason, LeaveReason::RoomFinished);
    assert_eq!(sids(&roster), ["PA_2"]);
}

#[test]
fn an_observation_of_our_agent_is_a_reason_to_list_and_not_final() {
    let now = clock::now();
    let mut roster = roster_after([joined("PA_1")], now);
    for sid in ["PA_1", "PA_2"] {
        roster.handle(
            Event::ObservedByAgent { sid: sid.into(), identity: "ann".into(), there: sid != "PA_1" },
            now,
        );
    }
    assert_eq!(sids(&roster), ["PA_1"], "an agent that reconnects sees everybody go");
    assert_eq!(roster.suspect_since(), Some(now));

    roster.handle(left("PA_1"), now);
    roster.handle(joined("PA_2"), now);

    assert_eq!(roster.suspect_since(), None, "the webhooks said the same");
}

// --- Everything at once -----------------------------------------------------------------------

/// What LiveKit knows, and what it does.
#[derive(Clone, Debug)]
enum Act {
    Join(u8),
    Leave(Index),
    Publish(Index, u8),
    Unpublish(Index, u8),
    /// Nobody is told.
    Rename(Index),
    /// A list is made now; it was asked for, and arrives, so many acts before and after.
    List {
        asked: usize,
        arrives: usize,
    },
}

/// What becomes of the webhook.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    ArrivesTwice,
    /// After so many other acts.
    Late(usize),
    Lost,
}

fn any_act() -> impl Strategy<Value = (Act, Fate, u64)> {
    let act = prop_oneof![
        3 => any::<u8>().prop_map(Act::Join),
        2 => any::<Index>().prop_map(Act::Leave),
        2 => (any::<Index>(), 0..3u8).prop_map(|(who, n)| Act::Publish(who, n)),
        1 => (any::<Index>(), 0..3u8).prop_map(|(who, n)| Act::Unpublish(who, n)),
        1 => any::<Index>().prop_map(Act::Rename),
        2 => (0..4usize, 0..4usize).prop_map(|(asked, arrives)| Act::List { asked, arrives }),
    ];
    let fate = prop_oneof![
        5 => Just(Fate::Arrives),
        1 => Just(Fate::ArrivesTwice),
        2 => (1..6usize).prop_map(Fate::Late),
        2 => Just(Fate::Lost),
    ];
    (act, fate, 0..1500u64)
}

/// LiveKit: does the act and says what its webhook would.
#[derive(Default)]
struct Truth {
    present: BTreeMap<String, Participant>,
    last: u32,
}

impl Truth {
    fn act(&mut self, act: &Act) -> Option<Event> {
        let pick = |who: &Index, present: &BTreeMap<String, Participant>| {
            (!present.is_empty()).then(|| present.keys().nth(who.index(present.len())).unwrap().clone())
        };
        match act {
            Act::Join(identity) => {
                self.last += 1;
                let sid = format!("PA_{}", self.last);
                let identity = Identity::parse(&format!("user-{}", identity % 4)).unwrap();
                let participant =
                    Participant { identity, joined_at: i64::from(self.last), ..participant(&sid) };
                self.present.insert(sid, participant.clone());
                Some(Event::Joined { participant, room_sid: "RM_1".into() })
            }
            Act::Leave(who) => {
                let sid = pick(who, &self.present)?;
                self.present.remove(&sid);
                Some(left(&sid))
            }
            Act::Publish(who, n) => {
                let sid = pick(who, &self.present)?;
                let them = self.present.get_mut(&sid)?;
                self.last += 1;
                let track = track(&format!("TR_{n}_{}", self.last), false);
                them.tracks.push(track.clone());
                them.version += 1;
                Some(Event::TrackPublished { sid, track })
            }
            Act::Unpublish(who, n) => {
                let sid = pick(who, &self.present)?;
                let them = self.present.get_mut(&sid)?;
                let at = them.tracks.iter().position(|track| track.sid.starts_with(&format!("TR_{n}_")))?;
                them.version += 1;
                Some(Event::TrackUnpublished { sid, track_sid: them.tracks.remove(at).sid })
            }
            Act::Rename(who) => {
                let them = self.present.get_mut(&pick(who, &self.present)?)?;
                them.name.push('x');
                them.version += 1;
                None
            }
            Act::List { .. } => None,
        }
    }
}

/// Somebody who watches from some time on, and now and then misses an update.
struct Subscriber {
    from: usize,
    misses: BTreeSet<usize>,
    /// The version it has; none before its first snapshot.
    version: Option<u64>,
    view: BTreeMap<String, Participant>,
}

impl Subscriber {
    fn snapshot(&mut self, roster: &Roster) {
        self.view = roster.snapshot().into_iter().map(|p| (p.sid.clone(), p.clone())).collect();
        self.version = Some(roster.version());
    }

    fn apply(&mut self, diff: &Diff) {
        for leave in &diff.left {
            assert!(self.view.remove(&leave.sid).is_some());
        }
        for joined in &diff.joined {
            assert!(self.view.insert(joined.sid.clone(), joined.clone()).is_none());
        }
        for updated in &diff.updated {
            assert!(self.view.insert(updated.sid.clone(), updated.clone()).is_some());
        }
        for tracks in &diff.tracks {
            self.view.get_mut(&tracks.sid).unwrap().tracks.clone_from(&tracks.tracks);
        }
    }

    /// Goes on from the version it has, as an event stream does on `Last-Event-ID`; else from everybody.
    fn catch_up(&mut self, roster: &Roster, recent: &ReplayBuffer<Diff>) {
        match self.version.and_then(|version| recent.after(version, roster.version())) {
            Some(missed) => {
                for diff in missed {
                    self.apply(diff);
                }
                self.version = Some(roster.version());
            }
            None => self.snapshot(roster),
        }
    }
}

fn comparable(participants: &BTreeMap<String, Participant>) -> Vec<Participant> {
    let without_version = |them: &Participant| Participant { version: 0, ..them.clone() };
    participants.values().map(without_version).collect()
}

proptest! {
    /// Webhooks are lost, late and repeated; lists are made at any time and arrive later; subscribers
    /// come at any time and miss anything. After one list in peace each of them has LiveKit's truth.
    #[test]
    fn every_subscriber_whenever_it_came_and_whatever_it_missed_ends_with_livekits_roster(
        acts in proptest::collection::vec(any_act(), 0..60),
        subscribers in proptest::collection::vec((0..60usize, proptest::collection::btree_set(0..60usize, 0..30)), 1..4),
    ) {
        let mut now = clock::now();
        let (mut truth, mut roster, mut recent) = (Truth::default(), Roster::default(), ReplayBuffer::new(8, usize::MAX));
        let mut subscribers: Vec<Subscriber> = subscribers
            .into_iter()
            .map(|(from, misses)| Subscriber { from, misses, version: None, view: BTreeMap::new() })
            .collect();
        let mut times = Vec::new();
        let mut under_way: Vec<(usize, Event)> = Vec::new();
        let count = acts.len();
        for (n, (act, fate, pause_ms)) in acts.into_iter().enumerate() {
            now += Duration::from_millis(pause_ms);
            times.push(now);
            let webhook = truth.act(&act);
            if let Act::List { asked, arrives } = act {
                let asked_at = times[n.saturating_sub(asked)];
                let participants = truth.present.values().cloned().collect();
                under_way.push((n + arrives, Event::Listed { asked_at, participants }));
            }
            match (webhook, fate) {
                (Some(webhook), Fate::Arrives) => under_way.push((n, webhook)),
                (Some(webhook), Fate::ArrivesTwice) => under_way.extend([(n, webhook.clone()), (n, webhook)]),
                (Some(webhook), Fate::Late(by)) => under_way.push((n + by, webhook)),
                (Some(_), Fate::Lost) | (None, _) => {}
            }
            let (due, later) = under_way.into_iter().partition(|(at, _)| *at <= n || n + 1 == count);
            under_way = later;
            for (_, event) in due {
                roster.handle(event, now);
            }
            step(n, &mut roster, &mut recent, &mut subscribers);
        }

        now += SETTLE_TIME;
        let participants = truth.present.values().cloned().collect();
        roster.handle(Event::Listed { asked_at: now, participants }, now);
        step(usize::MAX, &mut roster, &mut recent, &mut subscribers);

        let roster: BTreeMap<_, _> =
            roster.snapshot().into_iter().map(|p| (p.sid.clone(), p.clone())).collect();
        for them in truth.present.values_mut() {
            them.tracks.sort_by(|a, b| a.sid.cmp(&b.sid));
        }
        prop_assert_eq!(comparable(&roster), comparable(&truth.present));
        for subscriber in subscribers {
            prop_assert_eq!(comparable(&subscriber.view), comparable(&roster));
        }
    }
}

/// Makes a version and tells the subscribers that are there and do not miss it.
fn step(n: usize, roster: &mut Roster, recent: &mut ReplayBuffer<Diff>, subscribers: &mut [Subscriber]) {
    let before = roster.version();
    if let Some(diff) = roster.flush() {
        recent.push(roster.version(), diff, 1);
    }
    for subscriber in
        subscribers.iter_mut().filter(|subscriber| subscriber.from <= n && !subscriber.misses.contains(&n))
    {
        match subscriber.version {
            Some(version) if version == roster.version() => {}
            Some(version) if version == before => {
                subscriber.apply(recent.after(before, roster.version()).unwrap()[0]);
                subscriber.version = Some(roster.version());
            }
            Some(_) | None => subscriber.catch_up(roster, recent),
        }
    }
}
