//! Who is in a room, versioned: takes events, gives a new version and what changed.
//!
//! Participants are keyed by **sid**, one per connection: a phone that reconnects joins under a new sid
//! before its old one leaves (livekit#2399), and both are in the room for a moment. How each source is used:
//!
//! | source | reports | used |
//! |---|---|---|
//! | webhook | joined, left, track published, track unpublished | at once; a leave is final for its sid |
//! | LiveKit's list | everybody | except what an event contradicts that is less than [`SETTLE_TIME`] older than the request: the list may be older than the event |
//! | our agent | a track is muted | at once |
//! | | somebody joined or left | as a reason to ask for a list: an agent that reconnects sees everybody leave |
//!
//! LiveKit's order fields are used where they exist: a participant's `version` counts its changes, so a join
//! webhook that arrives after a newer list changes nothing. Webhooks about tracks have no such field, and no name,
//! metadata or permission either: a track of an unknown sid waits until the participant is known.
//!
//! Pure. Changes gather until [`Roster::flush`] makes a version of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use june_protocol::participants::{Leave, LeaveReason, Track, Tracks};

use crate::ids::Identity;

/// How old an event must be before a list may contradict it. LiveKit stores what it lists and sends webhooks
/// in no defined order.
pub const SETTLE_TIME: Duration = Duration::from_secs(1);

/// Sids that left and are remembered, so that a late event does not add them again.
const REMEMBERED_LEAVES: usize = 1024;

/// Sids of which only tracks are known; beyond that the room is listed.
const MAX_UNKNOWN: usize = 256;

/// Ended tracks of one participant that are remembered.
const REMEMBERED_TRACKS: usize = 32;

/// One connection of somebody to a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Participant {
    /// LiveKit's id of the connection.
    pub sid: String,
    pub identity: Identity,
    /// The display name.
    pub name: String,
    /// The application's own text.
    pub metadata: String,
    /// When they joined, in milliseconds since the Unix epoch.
    pub joined_at: i64,
    pub tracks: Vec<Track>,
    /// LiveKit's count of changes of this participant: the higher, the newer.
    #[serde(skip)]
    pub version: u32,
}

/// A change of a room, or a hint of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The room began and is empty: from here on the events are complete.
    Began,
    Joined {
        participant: Participant,
        /// LiveKit's id of the room: rooms of one name, one after the other, differ in it.
        room_sid: String,
    },
    Left {
        sid: String,
        reason: LeaveReason,
    },
    /// A track was published, or changed.
    TrackPublished {
        sid: String,
        track: Track,
    },
    TrackUnpublished {
        sid: String,
        track_sid: String,
    },
    /// A track was muted or unmuted; only our own agent reports it.
    Muted {
        sid: String,
        track_sid: String,
        muted: bool,
    },
    /// Our agent observed that a participant is in the room, or left it.
    ObservedByAgent {
        sid: String,
        identity: String,
        there: bool,
    },
    /// An event was late, so others may be late or lost.
    Suspect,
    /// Everybody in the room, by LiveKit's list.
    Listed {
        /// When LiveKit was asked.
        asked_at: Instant,
        participants: Vec<Participant>,
    },
    Finished {
        /// As in [`Event::Joined`].
        room_sid: String,
    },
}

/// What changed from one version to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diff {
    /// Participants who joined.
    pub joined: Vec<Participant>,
    /// Participants who left.
    pub left: Vec<Leave>,
    /// Participants with another name or metadata, as they are now.
    pub updated: Vec<Participant>,
    /// Participants whose tracks changed.
    pub tracks: Vec<Tracks>,
}

#[derive(Debug, Default)]
pub struct Roster {
    members: BTreeMap<String, Member>,
    departed: Departed,
    /// Sids with events but no join yet.
    unknown: BTreeMap<String, Unknown>,
    /// Members whom our agent saw leave, and when.
    unobserved: BTreeMap<String, Instant>,
    /// When a list left something undecided, or an event was suspect.
    recheck: Option<Instant>,
    /// When the newest accepted list was asked for.
    listed_at: Option<Instant>,
    /// All members are known: the room was listed, or followed from its beginning.
    complete: bool,
    version: u64,
    /// Members that changed since the last version, as they were in it; none for those who were not in the room.
    before: BTreeMap<String, Option<Participant>>,
}

#[derive(Debug)]
struct Member {
    participant: Participant,
    room_sid: Option<String>,
    /// When the last event about them arrived.
    event_at: Option<Instant>,
    /// Oldest first.
    ended_tracks: VecDeque<String>,
}

/// A sid with events but no join yet.
#[derive(Debug)]
struct Unknown {
    since: Instant,
    /// Their tracks by sid; none for ended ones.
    tracks: BTreeMap<String, Option<Track>>,
}

/// The sids that left, a bounded number of them.
#[derive(Debug, Default)]
struct Departed {
    sids: HashMap<String, Departure>,
    order: VecDeque<String>,
}

#[derive(Clone, Copy, Debug)]
struct Departure {
    reason: LeaveReason,
    at: Instant,
}

impl Departure {
    /// Whether LiveKit reported the leave. One that a list merely lacked may still be in the room.
    fn is_final(self) -> bool {
        self.reason != LeaveReason::Missed
    }
}

impl Departed {
    fn insert(&mut self, sid: &str, reason: LeaveReason, at: Instant) {
        if self.sids.insert(sid.to_owned(), Departure { reason, at }).is_some() {
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
            self.order.retain(|departed| departed != sid);
        }
    }

    fn get(&self, sid: &str) -> Option<Departure> {
        self.sids.get(sid).copied()
    }
}

impl Roster {
    /// Incremented with each diff.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Everybody, oldest connection first.
    pub fn snapshot(&self) -> Vec<&Participant> {
        let mut everybody: Vec<_> = self.members.values().map(|member| &member.participant).collect();
        everybody.sort_by(|a, b| (a.joined_at, &a.sid).cmp(&(b.joined_at, &b.sid)));
        everybody
    }

    /// Whether all members are known.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Since when there is something that only a list can resolve.
    pub fn suspect_since(&self) -> Option<Instant> {
        let unknown = self.unknown.values().map(|unknown| unknown.since);
        unknown.chain(self.unobserved.values().copied()).chain(self.recheck).min()
    }

    /// Whether something changed since the last version.
    pub fn has_changes(&self) -> bool {
        !self.before.is_empty()
    }

    /// Makes a version of what changed; none where the changes cancel out.
    pub fn flush(&mut self) -> Option<Diff> {
        let mut diff = Diff::default();
        for (sid, before) in std::mem::take(&mut self.before) {
            let now = self.members.get(&sid).map(|member| &member.participant);
            match (before, now) {
                (None, None) => {}
                (None, Some(joined)) => diff.joined.push(joined.clone()),
                (Some(left), None) => {
                    let reason =
                        self.departed.get(&sid).map_or(LeaveReason::Left, |departure| departure.reason);
                    diff.left.push(Leave { sid, identity: left.identity, reason });
                }
                (Some(before), Some(now)) if !before.has_same_profile(now) => diff.updated.push(now.clone()),
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

    /// Applies an event. Gives how many errors of the roster it corrected: only a list can.
    pub fn handle(&mut self, event: Event, now: Instant) -> u64 {
        match event {
            Event::Began => self.complete |= self.members.is_empty() && self.unknown.is_empty(),
            Event::Joined { participant, room_sid } => self.joined(participant, room_sid, now),
            Event::Left { sid, reason } => self.left(&sid, reason, now),
            Event::TrackPublished { sid, track } => self.track(&sid, &track.sid.clone(), Some(track), now),
            Event::TrackUnpublished { sid, track_sid } => self.track(&sid, &track_sid, None, now),
            Event::Muted { sid, track_sid, muted } => {
                self.change(&sid, |member| {
                    member.event_at = Some(now);
                    let mut tracks = member.participant.tracks.iter_mut();
                    if let Some(track) = tracks.find(|track| track.sid == track_sid) {
                        track.muted = muted;
                    }
                });
            }
            Event::ObservedByAgent { sid, there, identity: _ } => self.observed(&sid, there, now),
            Event::Suspect => self.suspect(now),
            Event::Listed { asked_at, participants } => return self.listed(asked_at, participants, now),
            Event::Finished { room_sid } => {
                // Members of a newer room of this name stay.
                let of_that_room = |member: &Member| {
                    room_sid.is_empty() || member.room_sid.as_ref().is_none_or(|sid| *sid == room_sid)
                };
                let leaving: Vec<String> = self
                    .members
                    .iter()
                    .filter(|(_, member)| of_that_room(member))
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
        match self.departed.get(&participant.sid) {
            Some(departure) if departure.is_final() => return,
            // A list lacked it. Another list tells whether that one or this event is late.
            Some(_) => return self.suspect(now),
            None => {}
        }
        let sid = participant.sid.clone();
        if self.members.contains_key(&sid) {
            self.change(&sid, |member| {
                member.event_at = Some(now);
                member.room_sid = Some(room_sid);
                if participant.version < member.participant.version {
                    return;
                }
                // Tracks that events added meanwhile stay.
                let Participant { tracks, .. } = std::mem::replace(&mut member.participant, participant);
                for track in tracks {
                    member.set_track(track);
                }
                let ended = &member.ended_tracks;
                member.participant.tracks.retain(|track| !ended.contains(&track.sid));
            });
        } else {
            self.introduce(participant, Some(room_sid), Some(now));
        }
    }

    fn introduce(&mut self, participant: Participant, room_sid: Option<String>, event_at: Option<Instant>) {
        let sid = participant.sid.clone();
        self.before.entry(sid.clone()).or_insert(None);
        let mut member = Member { participant, room_sid, event_at, ended_tracks: VecDeque::new() };
        if let Some(unknown) = self.unknown.remove(&sid) {
            member.event_at = member.event_at.max(Some(unknown.since));
            for (track_sid, track) in unknown.tracks {
                match track {
                    Some(track) => member.set_track(track),
                    None => member.end_track(&track_sid),
                }
            }
        }
        member.participant.tracks.sort_by(|a, b| a.sid.cmp(&b.sid));
        self.members.insert(sid, member);
    }

    fn left(&mut self, sid: &str, reason: LeaveReason, now: Instant) {
        self.unknown.remove(sid);
        self.unobserved.remove(sid);
        if self.departed.get(sid).is_none_or(|departure| !departure.is_final()) {
            self.departed.insert(sid, reason, now);
        }
        if let Some(Member { participant, .. }) = self.members.remove(sid) {
            self.before.entry(sid.to_owned()).or_insert(Some(participant));
        }
    }

    fn track(&mut self, sid: &str, track_sid: &str, track: Option<Track>, now: Instant) {
        if self.members.contains_key(sid) {
            self.change(sid, |member| {
                member.event_at = Some(now);
                match track {
                    Some(track) => member.set_track(track),
                    None => member.end_track(track_sid),
                }
            });
            return;
        }
        match self.departed.get(sid) {
            Some(departure) if departure.is_final() => {}
            Some(_) => self.suspect(now),
            None => {
                if let Some(unknown) = self.unknown_member(sid, now) {
                    let ended = unknown.tracks.get(track_sid).is_some_and(Option::is_none);
                    if !ended {
                        unknown.tracks.insert(track_sid.to_owned(), track);
                    }
                }
            }
        }
    }

    fn observed(&mut self, sid: &str, there: bool, now: Instant) {
        if there {
            self.unobserved.remove(sid);
        }
        if self.members.contains_key(sid) {
            if !there {
                self.unobserved.insert(sid.to_owned(), now);
            }
        } else if !there {
            self.unknown.remove(sid);
        } else {
            match self.departed.get(sid) {
                Some(departure) if departure.is_final() => {}
                Some(_) => self.suspect(now),
                None => {
                    self.unknown_member(sid, now);
                }
            }
        }
    }

    fn unknown_member(&mut self, sid: &str, now: Instant) -> Option<&mut Unknown> {
        if self.unknown.len() >= MAX_UNKNOWN && !self.unknown.contains_key(sid) {
            self.suspect(now);
            return None;
        }
        let unknown = Unknown { since: now, tracks: BTreeMap::new() };
        Some(self.unknown.entry(sid.to_owned()).or_insert(unknown))
    }

    fn suspect(&mut self, now: Instant) {
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
        self.unobserved.retain(|_, at| !settled(Some(*at)));
        // The list is newer than those events.
        self.unknown.retain(|_, unknown| !settled(Some(unknown.since)));
        let missing: Vec<(String, Option<Instant>)> = self
            .members
            .iter()
            .filter(|(sid, _)| !there.contains(sid.as_str()))
            .map(|(sid, member)| (sid.clone(), member.event_at))
            .collect();
        for (sid, event_at) in missing {
            if settled(event_at) {
                corrections += 1;
                self.left(&sid, LeaveReason::Missed, now);
            } else {
                self.undecided(event_at);
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
        let Some(member) = self.members.get_mut(&sid) else {
            return match self.departed.get(&sid) {
                Some(departure) if departure.is_final() || departure.at >= asked_at => 0,
                Some(_) | None => {
                    self.departed.forget(&sid);
                    self.introduce(participant, None, None);
                    1
                }
            };
        };
        let (event_at, same) = (member.event_at, member.participant.is_same(&participant));
        if same {
            member.participant.version = participant.version;
            return 0;
        }
        if !settled(event_at) {
            self.undecided(event_at);
            return 0;
        }
        let tracks =
            |of: &Participant| of.tracks.iter().map(|track| track.sid.clone()).collect::<BTreeSet<_>>();
        // Names, metadata and muting have no webhooks: only a list reports them, which is no error.
        let drifted = tracks(&member.participant) != tracks(&participant);
        self.change(&sid, |member| {
            member.participant = participant;
            member.ended_tracks.clear();
        });
        u64::from(drifted)
    }

    /// A list contradicts a recent event: the next one decides.
    fn undecided(&mut self, event_at: Option<Instant>) {
        self.recheck = [self.recheck, event_at].into_iter().flatten().max();
    }

    fn change(&mut self, sid: &str, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.members.get_mut(sid) else {
            return;
        };
        if !self.before.contains_key(sid) {
            self.before.insert(sid.to_owned(), Some(member.participant.clone()));
        }
        change(member);
        member.participant.tracks.sort_by(|a, b| a.sid.cmp(&b.sid));
    }
}

impl Member {
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
    /// Equal except for tracks and version.
    fn has_same_profile(&self, other: &Self) -> bool {
        (&self.identity, &self.name, &self.metadata, self.joined_at)
            == (&other.identity, &other.name, &other.metadata, other.joined_at)
    }

    /// Equal except for the version and the order of tracks.
    fn is_same(&self, other: &Self) -> bool {
        let by_sid = |of: &Self| {
            let mut tracks = of.tracks.clone();
            tracks.sort_by(|a, b| a.sid.cmp(&b.sid));
            tracks
        };
        self.has_same_profile(other) && by_sid(self) == by_sid(other)
    }
}

#[cfg(test)]
mod tests;
