//! Who is in a room, versioned: events go in, a new version and what changed come out.
//!
//! Participants are kept by **sid**, one per connection: a phone that reconnects joins under a new sid
//! before its old one leaves (livekit#2399), and both are true for a moment. What each source is worth:
//!
//! | source | says | and is believed |
//! |---|---|---|
//! | webhook | joined, left, track on, track off | at once; a leave is the last word about its sid |
//! | LiveKit's list | everybody | except about what an event told less than [`SETTLE_TIME`] before it was asked for: it may be older |
//! | our agent's sight | a track is muted | at once |
//! | | somebody came, or went | as a reason to ask for a list: an agent that reconnects sees everybody go |
//!
//! LiveKit's own order fields are used where there are any: a participant's `version` counts its changes,
//! so a join that was overtaken by a list changes nothing. Webhooks about tracks have none, and no
//! name, metadata or permission either: a track of somebody unknown waits until they are introduced.
//!
//! Pure. Changes gather until [`Roster::flush`] makes a version of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Identity;

/// How old an event must be before a list may contradict it. LiveKit writes what it lists beside what
/// it tells, in no order of its own.
pub const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Sids that left and are remembered, so that a late event does not bring them back.
const REMEMBERED_LEAVES: usize = 1024;

/// Sids that were heard of but never introduced; beyond that the room is listed anyway.
const MAX_UNKNOWN: usize = 256;

/// Tracks of one participant that ended and are remembered.
const REMEMBERED_TRACKS: usize = 32;

/// One connection of somebody to a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// LiveKit's count of changes of this participant: the higher is the newer.
    #[serde(skip)]
    pub version: u32,
}

/// Something that is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// By their own wish, or LiveKit does not say.
    Left,
    /// They joined again, from somewhere else.
    DuplicateIdentity,
    /// Somebody removed them.
    Removed,
    /// Their connection broke and did not come back.
    ConnectionLost,
    /// Their join never became a connection.
    Aborted,
    /// The room ended, or was deleted.
    RoomFinished,
    /// The LiveKit server went down, or handed them to another one.
    ServerShutdown,
    /// No event came, but they are not there any more.
    Missed,
}

/// What happened in the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The room began, and nobody is in it: from here on the events are the whole story.
    Began,
    /// Somebody joined.
    Joined {
        /// Who.
        participant: Participant,
        /// Which of the rooms that had this name one after the other.
        room_sid: String,
    },
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
        sid: String,
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
    /// A track went silent, or came back; only our own agent tells.
    Muted {
        /// Whose.
        sid: String,
        /// Which.
        track_sid: String,
        /// Silent.
        muted: bool,
    },
    /// Our agent sees somebody; or no longer.
    ObservedByAgent {
        /// Which connection.
        sid: String,
        /// Whom.
        identity: String,
        /// Whether they are there.
        there: bool,
    },
    /// Something told that it, and so perhaps others, was late or lost.
    Suspect,
    /// Everybody who is there, by LiveKit's own list.
    Listed {
        /// When LiveKit was asked.
        asked_at: Instant,
        /// What it answered.
        participants: Vec<Participant>,
    },
    /// The room ended.
    Finished {
        /// Which of the rooms that had this name one after the other.
        room_sid: String,
    },
}

/// Somebody who left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Leave {
    /// Which connection.
    pub sid: String,
    /// Who.
    pub identity: Identity,
    /// Why.
    pub reason: LeaveReason,
}

/// What somebody publishes now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tracks {
    /// Which connection.
    pub sid: String,
    /// Who.
    pub identity: Identity,
    /// All of it.
    pub tracks: Vec<Track>,
}

/// What changed from one version to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// Who is new.
    pub joined: Vec<Participant>,
    /// Who is gone.
    pub left: Vec<Leave>,
    /// Who has another name or metadata, as they are now.
    pub updated: Vec<Participant>,
    /// Who publishes something else than before.
    pub tracks: Vec<Tracks>,
}

/// The roster.
#[derive(Debug, Default)]
pub struct Roster {
    present: BTreeMap<String, Present>,
    gone: Gone,
    /// Sids that were heard of before LiveKit introduced them.
    unknown: BTreeMap<String, Unknown>,
    /// Those who are there and whom our agent saw go, and when.
    unsighted: BTreeMap<String, Instant>,
    /// When a list left something undecided, or an event was doubted.
    recheck: Option<Instant>,
    /// When the newest list that was taken was asked for.
    listed_at: Option<Instant>,
    /// Everybody who is there is known: the room was listed, or followed from its beginning.
    complete: bool,
    version: u64,
    /// Who changed since the last version, as they were in it; none for those who were not there.
    before: BTreeMap<String, Option<Participant>>,
}

/// Somebody who is there.
#[derive(Debug)]
struct Present {
    participant: Participant,
    room_sid: Option<String>,
    /// When an event last told of them.
    told_at: Option<Instant>,
    /// Tracks that ended, oldest first.
    ended_tracks: VecDeque<String>,
}

/// Somebody who was not introduced.
#[derive(Debug)]
struct Unknown {
    heard_at: Instant,
    /// What they publish; none for what they published.
    tracks: BTreeMap<String, Option<Track>>,
}

/// Those who left, a bounded number of them.
#[derive(Debug, Default)]
struct Gone {
    sids: HashMap<String, Parting>,
    order: VecDeque<String>,
}

#[derive(Clone, Copy, Debug)]
struct Parting {
    reason: LeaveReason,
    at: Instant,
}

impl Parting {
    /// Whether LiveKit itself said so: a list that only lacked them may have been wrong.
    fn is_final(self) -> bool {
        self.reason != LeaveReason::Missed
    }
}

impl Gone {
    fn insert(&mut self, sid: &str, reason: LeaveReason, at: Instant) {
        if self.sids.insert(sid.to_owned(), Parting { reason, at }).is_some() {
            return;
        }
        self.order.push_back(sid.to_owned());
        if self.order.len() > REMEMBERED_LEAVES
            && let Some(oldest) = self.order.pop_front()
        {
            self.sids.remove(&oldest);
        }
    }

    fn forget(&mut self, sid: &str) {
        if self.sids.remove(sid).is_some() {
            self.order.retain(|gone| gone != sid);
        }
    }

    fn get(&self, sid: &str) -> Option<Parting> {
        self.sids.get(sid).copied()
    }
}

impl Roster {
    /// Counts changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Everybody, oldest connection first.
    pub fn snapshot(&self) -> Vec<&Participant> {
        let mut everybody: Vec<_> = self.present.values().map(|present| &present.participant).collect();
        everybody.sort_by(|a, b| (a.joined_at, &a.sid).cmp(&(b.joined_at, &b.sid)));
        everybody
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.present.is_empty()
    }

    /// Whether everybody who is there is known.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Since when there is something that only a list can decide.
    pub fn doubtful_since(&self) -> Option<Instant> {
        let unknown = self.unknown.values().map(|unknown| unknown.heard_at);
        unknown.chain(self.unsighted.values().copied()).chain(self.recheck).min()
    }

    /// Whether something changed since the last version.
    pub fn has_changes(&self) -> bool {
        !self.before.is_empty()
    }

    /// Makes a version of what changed; none where it all came to nothing.
    pub fn flush(&mut self) -> Option<Diff> {
        let mut diff = Diff::default();
        for (sid, before) in std::mem::take(&mut self.before) {
            let now = self.present.get(&sid).map(|present| &present.participant);
            match (before, now) {
                (None, None) => {}
                (None, Some(joined)) => diff.joined.push(joined.clone()),
                (Some(left), None) => {
                    let reason = self.gone.get(&sid).map_or(LeaveReason::Left, |parting| parting.reason);
                    diff.left.push(Leave { sid, identity: left.identity, reason });
                }
                (Some(before), Some(now)) if !before.has_face_of(now) => diff.updated.push(now.clone()),
                (Some(before), Some(now)) if before.tracks != now.tracks => diff.tracks.push(Tracks {
                    sid,
                    identity: now.identity.clone(),
                    tracks: now.tracks.clone(),
                }),
                (Some(_), Some(_)) => {}
            }
        }
        if diff == Diff::default() {
            return None;
        }
        self.version += 1;
        Some(diff)
    }

    /// Takes an event. Gives how much of what was believed it put right: only a list can.
    pub fn handle(&mut self, event: Event, now: Instant) -> u64 {
        match event {
            Event::Began => self.complete |= self.present.is_empty() && self.unknown.is_empty(),
            Event::Joined { participant, room_sid } => self.joined(participant, room_sid, now),
            Event::Left { sid, reason } => self.left(&sid, reason, now),
            Event::TrackPublished { sid, track } => self.track(&sid, &track.sid.clone(), Some(track), now),
            Event::TrackUnpublished { sid, track_sid } => self.track(&sid, &track_sid, None, now),
            Event::Muted { sid, track_sid, muted } => {
                self.change(&sid, |present| {
                    present.told_at = Some(now);
                    let mut tracks = present.participant.tracks.iter_mut();
                    if let Some(track) = tracks.find(|track| track.sid == track_sid) {
                        track.muted = muted;
                    }
                });
            }
            Event::ObservedByAgent { sid, there, identity: _ } => self.sighted(&sid, there, now),
            Event::Suspect => self.doubt(now),
            Event::Listed { asked_at, participants } => return self.listed(asked_at, participants, now),
            Event::Finished { room_sid } => {
                // Who is known to be in the room that has the name now stays.
                let of_that_room = |present: &Present| {
                    room_sid.is_empty() || present.room_sid.as_ref().is_none_or(|sid| *sid == room_sid)
                };
                let leaving: Vec<String> = self
                    .present
                    .iter()
                    .filter(|(_, present)| of_that_room(present))
                    .map(|(sid, _)| sid.clone())
                    .collect();
                for sid in leaving {
                    self.left(&sid, LeaveReason::RoomFinished, now);
                }
            }
        }
        0
    }

    fn joined(&mut self, participant: Participant, room_sid: String, now: Instant) {
        match self.gone.get(&participant.sid) {
            Some(parting) if parting.is_final() => return,
            // It was there, and a list lacked it: whether the list or this is late, another list tells.
            Some(_) => return self.doubt(now),
            None => {}
        }
        let sid = participant.sid.clone();
        if self.present.contains_key(&sid) {
            self.change(&sid, |present| {
                present.told_at = Some(now);
                present.room_sid = Some(room_sid);
                if participant.version < present.participant.version {
                    return;
                }
                // Of its tracks, those that events told of meanwhile stand.
                let Participant { tracks, .. } = std::mem::replace(&mut present.participant, participant);
                for track in tracks {
                    present.set_track(track);
                }
                let ended = &present.ended_tracks;
                present.participant.tracks.retain(|track| !ended.contains(&track.sid));
            });
        } else {
            self.introduce(participant, Some(room_sid), Some(now));
        }
    }

    fn introduce(&mut self, participant: Participant, room_sid: Option<String>, told_at: Option<Instant>) {
        let sid = participant.sid.clone();
        self.before.entry(sid.clone()).or_insert(None);
        let mut present = Present { participant, room_sid, told_at, ended_tracks: VecDeque::new() };
        if let Some(unknown) = self.unknown.remove(&sid) {
            present.told_at = present.told_at.max(Some(unknown.heard_at));
            for (track_sid, track) in unknown.tracks {
                match track {
                    Some(track) => present.set_track(track),
                    None => present.end_track(&track_sid),
                }
            }
        }
        present.participant.tracks.sort_by(|a, b| a.sid.cmp(&b.sid));
        self.present.insert(sid, present);
    }

    fn left(&mut self, sid: &str, reason: LeaveReason, now: Instant) {
        self.unknown.remove(sid);
        self.unsighted.remove(sid);
        if self.gone.get(sid).is_none_or(|parting| !parting.is_final()) {
            self.gone.insert(sid, reason, now);
        }
        if let Some(Present { participant, .. }) = self.present.remove(sid) {
            self.before.entry(sid.to_owned()).or_insert(Some(participant));
        }
    }

    fn track(&mut self, sid: &str, track_sid: &str, track: Option<Track>, now: Instant) {
        if self.present.contains_key(sid) {
            self.change(sid, |present| {
                present.told_at = Some(now);
                match track {
                    Some(track) => present.set_track(track),
                    None => present.end_track(track_sid),
                }
            });
            return;
        }
        match self.gone.get(sid) {
            Some(parting) if parting.is_final() => {}
            Some(_) => self.doubt(now),
            None => {
                if let Some(unknown) = self.heard_of(sid, now) {
                    let ended = unknown.tracks.get(track_sid).is_some_and(Option::is_none);
                    if !ended {
                        unknown.tracks.insert(track_sid.to_owned(), track);
                    }
                }
            }
        }
    }

    fn sighted(&mut self, sid: &str, there: bool, now: Instant) {
        if there {
            self.unsighted.remove(sid);
        }
        if self.present.contains_key(sid) {
            if !there {
                self.unsighted.insert(sid.to_owned(), now);
            }
        } else if !there {
            self.unknown.remove(sid);
        } else {
            match self.gone.get(sid) {
                Some(parting) if parting.is_final() => {}
                Some(_) => self.doubt(now),
                None => {
                    self.heard_of(sid, now);
                }
            }
        }
    }

    fn heard_of(&mut self, sid: &str, now: Instant) -> Option<&mut Unknown> {
        if self.unknown.len() >= MAX_UNKNOWN && !self.unknown.contains_key(sid) {
            self.doubt(now);
            return None;
        }
        let unknown = Unknown { heard_at: now, tracks: BTreeMap::new() };
        Some(self.unknown.entry(sid.to_owned()).or_insert(unknown))
    }

    fn doubt(&mut self, now: Instant) {
        self.recheck.get_or_insert(now);
    }

    fn listed(&mut self, asked_at: Instant, listed: Vec<Participant>, now: Instant) -> u64 {
        if self.listed_at.is_some_and(|newer| asked_at < newer) {
            return 0;
        }
        let was_complete = std::mem::replace(&mut self.complete, true);
        self.listed_at = Some(asked_at);
        self.recheck = self.recheck.filter(|at| *at > asked_at);
        let settled = |at: Option<Instant>| at.is_none_or(|at| at + SETTLE_TIME <= asked_at);
        let mut corrections = 0;

        let there: BTreeSet<&str> = listed.iter().map(|participant| participant.sid.as_str()).collect();
        self.unsighted.retain(|_, at| !settled(Some(*at)));
        // What is listed of them is newer than what was heard.
        self.unknown.retain(|_, unknown| !settled(Some(unknown.heard_at)));
        let missing: Vec<(String, Option<Instant>)> = self
            .present
            .iter()
            .filter(|(sid, _)| !there.contains(sid.as_str()))
            .map(|(sid, present)| (sid.clone(), present.told_at))
            .collect();
        for (sid, told_at) in missing {
            if settled(told_at) {
                corrections += 1;
                self.left(&sid, LeaveReason::Missed, now);
            } else {
                self.undecided(told_at);
            }
        }
        for participant in listed {
            corrections += self.listed_one(participant, asked_at, settled);
        }
        if was_complete { corrections } else { 0 }
    }

    fn listed_one(
        &mut self,
        participant: Participant,
        asked_at: Instant,
        settled: impl Fn(Option<Instant>) -> bool,
    ) -> u64 {
        let sid = participant.sid.clone();
        let Some(present) = self.present.get_mut(&sid) else {
            return match self.gone.get(&sid) {
                Some(parting) if parting.is_final() || parting.at >= asked_at => 0,
                Some(_) | None => {
                    self.gone.forget(&sid);
                    self.introduce(participant, None, None);
                    1
                }
            };
        };
        let (told_at, same) = (present.told_at, present.participant.is(&participant));
        if same {
            present.participant.version = participant.version;
            return 0;
        }
        if !settled(told_at) {
            self.undecided(told_at);
            return 0;
        }
        let tracks =
            |of: &Participant| of.tracks.iter().map(|track| track.sid.clone()).collect::<BTreeSet<_>>();
        // Names, metadata and silence have no webhooks: to learn of them by a list is as it should be.
        let drifted = tracks(&present.participant) != tracks(&participant);
        self.change(&sid, |present| {
            present.participant = participant;
            present.ended_tracks.clear();
        });
        u64::from(drifted)
    }

    /// A list contradicts an event that is hardly older: the next one decides.
    fn undecided(&mut self, told_at: Option<Instant>) {
        self.recheck = [self.recheck, told_at].into_iter().flatten().max();
    }

    fn change(&mut self, sid: &str, change: impl FnOnce(&mut Present)) {
        let Some(present) = self.present.get_mut(sid) else {
            return;
        };
        if !self.before.contains_key(sid) {
            self.before.insert(sid.to_owned(), Some(present.participant.clone()));
        }
        change(present);
        present.participant.tracks.sort_by(|a, b| a.sid.cmp(&b.sid));
    }
}

impl Present {
    fn set_track(&mut self, track: Track) {
        if self.ended_tracks.contains(&track.sid) {
            return;
        }
        self.participant.tracks.retain(|other| other.sid != track.sid);
        self.participant.tracks.push(track);
    }

    fn end_track(&mut self, track_sid: &str) {
        self.participant.tracks.retain(|track| track.sid != track_sid);
        if !self.ended_tracks.iter().any(|ended| ended == track_sid) {
            self.ended_tracks.push_back(track_sid.to_owned());
        }
        if self.ended_tracks.len() > REMEMBERED_TRACKS {
            self.ended_tracks.pop_front();
        }
    }
}

impl Participant {
    /// The same but for tracks and LiveKit's count.
    fn has_face_of(&self, other: &Self) -> bool {
        (&self.identity, &self.name, &self.metadata, self.joined_at)
            == (&other.identity, &other.name, &other.metadata, other.joined_at)
    }

    /// The same for everybody who looks.
    fn is(&self, other: &Self) -> bool {
        let by_sid = |of: &Self| {
            let mut tracks = of.tracks.clone();
            tracks.sort_by(|a, b| a.sid.cmp(&b.sid));
            tracks
        };
        self.has_face_of(other) && by_sid(self) == by_sid(other)
    }
}

#[cfg(test)]
mod tests;
