//! Who is in a room, versioned: events go in, a new version and what changed come out.
//!
//! Participants are kept by **sid**, one per connection: a phone that reconnects joins under a new sid
//! before its old one leaves (livekit#2399), and both are true for a moment. A sid that has left never
//! comes back, however late or often its other events arrive.
//!
//! Pure: LiveKit's webhooks, its ListParticipants and our own agent's sight all end up here.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::ids::Identity;

/// Sids that left and are remembered, so that a late event does not bring them back.
const REMEMBERED_LEAVES: usize = 1024;

/// One connection of somebody to a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// LiveKit's id of the connection.
    pub sid: String,
    /// Who.
    pub identity: Identity,
    /// What others see.
    pub name: String,
    /// Free text of the application's.
    pub metadata: String,
    /// When they joined, in milliseconds since the Unix epoch.
    pub joined_at: i64,
    /// What they publish.
    pub tracks: Vec<Track>,
}

/// Something that is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// LiveKit's id of the track.
    pub sid: String,
    /// Its name, `mic`.
    pub name: String,
    /// `microphone`, `camera` …
    pub source: String,
    /// Nothing comes at the moment.
    pub muted: bool,
}

/// Why somebody left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// LiveKit said so.
    Left,
    /// Their join never became a connection.
    Aborted,
    /// The room ended.
    RoomFinished,
    /// No event came, but they are not there any more.
    Missed,
}

/// What happened in the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody joined, or is there.
    Joined(Participant),
    /// Somebody left.
    Left {
        /// Which connection.
        sid: String,
        /// Why.
        reason: LeaveReason,
    },
    /// A track was published, or changed.
    TrackPublished {
        /// Whose.
        participant: Participant,
        /// Which.
        track: Track,
    },
    /// A track is gone.
    TrackUnpublished {
        /// Whose.
        sid: String,
        /// Which.
        track_sid: String,
    },
    /// Everybody who is there, by LiveKit's own list.
    Listed(Vec<Participant>),
    /// The room ended.
    Finished,
}

/// Somebody who left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Which connection.
    pub sid: String,
    /// Who.
    pub identity: Identity,
    /// Why.
    pub reason: LeaveReason,
}

/// What changed from one version to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// Who is new.
    pub joined: Vec<Participant>,
    /// Who is gone.
    pub left: Vec<Leave>,
    /// Who is there but changed, as they are now.
    pub updated: Vec<Participant>,
}

impl Diff {
    fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && self.updated.is_empty()
    }
}

/// The roster.
#[derive(Debug, Default)]
pub struct Roster {
    present: BTreeMap<String, Participant>,
    version: u64,
    /// Sids that left, oldest first.
    gone: VecDeque<String>,
}

impl Roster {
    /// Counts changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Everybody, oldest connection first.
    pub fn snapshot(&self) -> Vec<&Participant> {
        let mut everybody: Vec<_> = self.present.values().collect();
        everybody.sort_by(|a, b| (a.joined_at, &a.sid).cmp(&(b.joined_at, &b.sid)));
        everybody
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Takes an event. What changed is one version newer; where nothing did, there is nothing.
    pub fn handle(&mut self, event: Event) -> Option<Diff> {
        let mut diff = Diff::default();
        match event {
            Event::Joined(participant) => self.joined(participant, &mut diff),
            Event::Left { sid, reason } => self.left(&sid, reason, &mut diff),
            Event::TrackPublished { participant, track } => {
                let sid = participant.sid.clone();
                self.joined(participant, &mut diff);
                self.change(&sid, &mut diff, |present| {
                    present.tracks.retain(|other| other.sid != track.sid);
                    present.tracks.push(track);
                    present.tracks.sort_by(|a, b| a.sid.cmp(&b.sid));
                });
            }
            Event::TrackUnpublished { sid, track_sid } => {
                self.change(&sid, &mut diff, |present| present.tracks.retain(|track| track.sid != track_sid));
            }
            Event::Listed(listed) => {
                let missing: Vec<String> = self
                    .present
                    .keys()
                    .filter(|sid| !listed.iter().any(|there| there.sid == **sid))
                    .cloned()
                    .collect();
                for sid in missing {
                    self.left(&sid, LeaveReason::Missed, &mut diff);
                }
                for there in listed {
                    let sid = there.sid.clone();
                    self.joined(there.clone(), &mut diff);
                    self.change(&sid, &mut diff, |present| *present = there);
                }
            }
            Event::Finished => {
                for sid in self.present.keys().cloned().collect::<Vec<_>>() {
                    self.left(&sid, LeaveReason::RoomFinished, &mut diff);
                }
            }
        }
        if diff.is_empty() {
            return None;
        }
        self.version += 1;
        Some(diff)
    }

    fn joined(&mut self, participant: Participant, diff: &mut Diff) {
        if self.present.contains_key(&participant.sid) || self.gone.contains(&participant.sid) {
            return;
        }
        diff.joined.push(participant.clone());
        self.present.insert(participant.sid.clone(), participant);
    }

    fn left(&mut self, sid: &str, reason: LeaveReason, diff: &mut Diff) {
        if !self.gone.iter().any(|gone| gone == sid) {
            self.gone.push_back(sid.to_owned());
            if self.gone.len() > REMEMBERED_LEAVES {
                self.gone.pop_front();
            }
        }
        if let Some(participant) = self.present.remove(sid) {
            diff.left.push(Leave { sid: participant.sid, identity: participant.identity, reason });
        }
    }

    fn change(&mut self, sid: &str, diff: &mut Diff, change: impl FnOnce(&mut Participant)) {
        let Some(present) = self.present.get_mut(sid) else {
            return;
        };
        let before = present.clone();
        change(present);
        if *present == before {
            return;
        }
        match diff.joined.iter_mut().find(|joined| joined.sid == sid) {
            Some(joined) => *joined = present.clone(),
            None => diff.updated.push(present.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn participant(sid: &str) -> Participant {
        Participant {
            sid: sid.into(),
            identity: Identity::parse("john").unwrap(),
            name: String::new(),
            metadata: String::new(),
            joined_at: 1,
            tracks: Vec::new(),
        }
    }

    fn track(sid: &str, muted: bool) -> Track {
        Track { sid: sid.into(), name: "mic".into(), source: "microphone".into(), muted }
    }

    fn left(sid: &str) -> Event {
        Event::Left { sid: sid.into(), reason: LeaveReason::Left }
    }

    #[test]
    fn a_reconnect_is_a_new_participant_though_the_old_one_leaves_later() {
        let mut roster = Roster::default();
        roster.handle(Event::Joined(participant("PA_1")));
        roster.handle(Event::Joined(participant("PA_2")));
        let diff = roster.handle(left("PA_1")).unwrap();
        assert_eq!(diff.left[0].sid, "PA_1");
        assert_eq!(roster.snapshot(), [&participant("PA_2")]);
        assert_eq!(roster.version(), 3);
    }

    #[test]
    fn an_event_that_comes_twice_changes_nothing() {
        let mut roster = Roster::default();
        assert!(roster.handle(Event::Joined(participant("PA_1"))).is_some());
        assert_eq!(roster.handle(Event::Joined(participant("PA_1"))), None);
        assert!(roster.handle(left("PA_1")).is_some());
        assert_eq!(roster.handle(left("PA_1")), None);
        assert_eq!(roster.version(), 2);
    }

    #[test]
    fn a_join_that_arrives_after_the_leave_brings_nobody_back() {
        let mut roster = Roster::default();
        roster.handle(left("PA_1"));
        assert_eq!(roster.handle(Event::Joined(participant("PA_1"))), None);
        assert!(roster.is_empty());
    }

    #[test]
    fn a_track_of_somebody_unknown_makes_them_known() {
        let mut roster = Roster::default();
        let event = Event::TrackPublished { participant: participant("PA_1"), track: track("TR_1", false) };
        let diff = roster.handle(event).unwrap();
        assert_eq!(diff.joined[0].tracks, [track("TR_1", false)]);
        assert!(diff.updated.is_empty());
    }

    #[test]
    fn a_list_sets_right_what_the_events_got_wrong() {
        let mut roster = Roster::default();
        roster.handle(Event::Joined(participant("PA_1")));
        roster.handle(Event::Joined(participant("PA_2")));
        let mut changed = participant("PA_2");
        changed.tracks = vec![track("TR_1", true)];
        let diff = roster.handle(Event::Listed(vec![changed.clone(), participant("PA_3")])).unwrap();
        assert_eq!(diff.joined, [participant("PA_3")]);
        assert_eq!(diff.left[0].reason, LeaveReason::Missed);
        assert_eq!(diff.updated, [changed]);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let sid = || (0..5u8).prop_map(|n| format!("PA_{n}"));
        prop_oneof![
            sid().prop_map(|sid| Event::Joined(participant(&sid))),
            sid().prop_map(|sid| left(&sid)),
            (sid(), 0..3u8, any::<bool>()).prop_map(|(sid, n, muted)| Event::TrackPublished {
                participant: participant(&sid),
                track: track(&format!("TR_{n}"), muted),
            }),
            (sid(), 0..3u8)
                .prop_map(|(sid, n)| Event::TrackUnpublished { sid, track_sid: format!("TR_{n}") }),
            proptest::collection::btree_set(0..5u8, 0..5).prop_map(|sids| Event::Listed(
                sids.iter().map(|n| participant(&format!("PA_{n}"))).collect()
            )),
            Just(Event::Finished),
        ]
    }

    proptest! {
        /// Whoever takes a snapshot at any time and applies the diffs from there has the roster.
        #[test]
        fn a_snapshot_and_the_diffs_after_it_are_the_roster(
            events in proptest::collection::vec(any_event(), 0..60), joins_at in 0..60usize,
        ) {
            let mut roster = Roster::default();
            let mut view: Option<BTreeMap<String, Participant>> = None;
            let mut version = 0;
            for (n, event) in events.into_iter().enumerate() {
                if n == joins_at {
                    view = Some(roster.snapshot().into_iter().map(|p| (p.sid.clone(), p.clone())).collect());
                }
                let diff = roster.handle(event);
                version += u64::from(diff.is_some());
                prop_assert_eq!(roster.version(), version);
                if let (Some(view), Some(diff)) = (&mut view, diff) {
                    for leave in diff.left {
                        prop_assert!(view.remove(&leave.sid).is_some());
                    }
                    for joined in diff.joined {
                        prop_assert!(view.insert(joined.sid.clone(), joined).is_none());
                    }
                    for updated in diff.updated {
                        prop_assert!(view.insert(updated.sid.clone(), updated).is_some());
                    }
                }
            }
            if let Some(view) = view {
                prop_assert_eq!(view, roster.present);
            }
        }
    }
}
