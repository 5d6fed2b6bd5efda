//! What a room does, as a state machine: takes inputs, gives effects and one deadline. Pure.
//!
//! Changes gather for one [`COALESCE_INTERVAL`] and leave as one diff, which is encoded once; its bytes are shared
//! by all subscribers. The first change after a quiet interval leaves at once.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{
    ids::{Identity, RoomName},
    room::{
        Unreachable,
        encode::{Content, Encoded, Update},
        reconciler::Reconciler,
        replay_buffer::ReplayBuffer,
        roster::{Event, Participant, Roster},
        subscribers::{Position, SubscriberId, SubscriberKind, Subscribers},
    },
    ws::send_queue::SendError,
};

/// How long changes gather.
const COALESCE_INTERVAL: Duration = Duration::from_millis(10);

/// How long subscribers of an unknown room wait for LiveKit's list before they get what is known.
const COLD_CACHE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a query may be answered from memory after a webhook, and after a list.
const CACHE_TTL_AFTER_WEBHOOK: Duration = Duration::from_secs(60);
const CACHE_TTL_AFTER_LIST: Duration = Duration::from_secs(10);

/// A room without subscribers and events stops after this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Diffs that are kept for event streams that reconnect.
const REPLAY_DIFFS: usize = 64;
const REPLAY_BYTES: usize = 32 * 1024;

/// What a room is told.
#[derive(Debug)]
pub(super) enum Input {
    /// A webhook. One that is late may mean that others are lost.
    Webhook {
        event: Event,
        late: bool,
    },
    /// An observation of our agent in the room.
    Observed(Event),
    Subscribe {
        id: SubscriberId,
        kind: SubscriberKind,
        resume: Option<Position>,
    },
    Unsubscribe(SubscriberId),
    /// REST asks who is in the room.
    Query,
    /// The result of [`Effect::List`].
    Listed {
        asked_at: Instant,
        result: Result<Vec<Participant>, Unreachable>,
    },
    /// The queue of a subscriber accepted [`Effect::CatchUp`].
    CaughtUp(SubscriberId),
    /// The queue of a subscriber did not accept an update, or its connection is over.
    NotSent(SubscriberId, SendError),
    /// The deadline has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    /// Send a diff. What is not accepted is reported by [`Input::NotSent`].
    Send {
        to: Vec<SubscriberId>,
        bytes: Bytes,
    },
    /// Send a lagging subscriber a snapshot, or the diffs that it missed.
    CatchUp {
        to: SubscriberId,
        updates: Vec<Bytes>,
    },
    /// The subscriber was current until now, and its queue is full.
    CountLagging,
    /// Send a heartbeat to those of them that are event streams, and find out which connections are over.
    Probe(Vec<SubscriberId>),
    /// End the connection: its client does not read.
    Abort(SubscriberId),
    /// Ask LiveKit who is in the room.
    List,
    /// Remove those of the participants who are denied the room.
    Enforce(Vec<Identity>),
    /// A list corrected this many errors of the roster.
    CountCorrections(u64),
    /// Answer the queries that wait.
    Answer(Result<(), Unreachable>),
    Stop,
}

/// Why a room wakes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// Changes have gathered for one interval.
    Flush,
    /// Subscribers of an unknown room have waited long enough.
    ColdCache,
    /// Lagging subscribers are tried again, connections are probed.
    Maintenance,
    /// The room is to be listed.
    List,
    /// Nothing has happened for a long time.
    Idle,
}

/// One room.
pub(super) struct Room {
    name: RoomName,
    /// When this machine began, in milliseconds since the Unix epoch: no two of a room have the same.
    epoch: u64,
    /// Whether there is a LiveKit to ask.
    has_livekit: bool,
    /// A number from 0 to 1.
    chance: fn() -> f64,
    roster: Roster,
    reconciler: Reconciler,
    subscribers: Subscribers,
    replay: ReplayBuffer<Bytes>,
    /// The snapshot of a version, for all subscribers who get it.
    snapshot: Option<(u64, Encoded)>,
    /// Whether queries wait for a list.
    has_queries: bool,
    /// Until when queries are answered from memory.
    fresh_until: Option<Instant>,
    /// When the last diff left.
    flushed_at: Option<Instant>,
    /// Until when subscribers of an unknown room wait for the list.
    cold_until: Option<Instant>,
    /// When an event or a subscriber last came.
    active_at: Instant,
}

impl Room {
    /// A room of which nothing is known, listed once per `reconcile` while it has subscribers.
    pub(super) fn new(
        name: RoomName,
        epoch: u64,
        reconcile: Duration,
        has_livekit: bool,
        chance: fn() -> f64,
        now: Instant,
    ) -> Self {
        Self {
            name,
            epoch,
            has_livekit,
            chance,
            roster: Roster::default(),
            reconciler: Reconciler::new(reconcile, now),
            subscribers: Subscribers::default(),
            replay: ReplayBuffer::new(REPLAY_DIFFS, REPLAY_BYTES),
            snapshot: None,
            has_queries: false,
            fresh_until: None,
            flushed_at: None,
            cold_until: None,
            active_at: now,
        }
    }

    /// Everybody in the room, oldest connection first.
    pub(super) fn participants(&self) -> Vec<Participant> {
        self.roster.snapshot().into_iter().cloned().collect()
    }

    /// When [`Input::Tick`] is due, and why.
    pub(super) fn deadline(&self) -> (Instant, Reason) {
        let flush = self
            .roster
            .has_changes()
            .then(|| self.flushed_at.map_or(self.active_at, |at| at + COALESCE_INTERVAL));
        [
            (flush, Reason::Flush),
            (self.cold_until, Reason::ColdCache),
            (self.subscribers.maintenance_at(), Reason::Maintenance),
            (self.list_at(), Reason::List),
        ]
        .into_iter()
        .filter_map(|(at, reason)| Some((at?, reason)))
        .fold((self.active_at + IDLE_TIMEOUT, Reason::Idle), Ord::min)
    }

    pub(super) fn handle(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Webhook { event, late } => {
                self.roster.handle(event, now);
                if late {
                    self.roster.handle(Event::Suspect, now);
                }
                self.active_at = now;
                self.fresh_until = Some(now + CACHE_TTL_AFTER_WEBHOOK);
            }
            Input::Observed(event) => {
                self.roster.handle(event, now);
                self.active_at = now;
            }
            Input::Subscribe { id, kind, resume } => {
                self.active_at = now;
                self.subscribers.subscribe(id, kind, resume, now);
                if self.has_livekit && !self.roster.is_complete() && self.roster.version() == 0 {
                    self.cold_until.get_or_insert(now + COLD_CACHE_TIMEOUT);
                }
                self.catch_up(now, &mut effects);
            }
            Input::Unsubscribe(id) => self.subscribers.unsubscribe(id),
            Input::Query => {
                let fresh = self.roster.is_complete() && self.fresh_until.is_some_and(|until| now < until);
                if fresh || !self.has_livekit {
                    effects.push(Effect::Answer(Ok(())));
                } else {
                    self.has_queries = true;
                    self.list(now, &mut effects);
                }
            }
            Input::Listed { asked_at, result } => self.listed(asked_at, result, now, &mut effects),
            Input::CaughtUp(id) => self.subscribers.accepted(id),
            Input::NotSent(id, SendError::Closed) => self.subscribers.unsubscribe(id),
            Input::NotSent(id, SendError::Full) => {
                if self.subscribers.is_full(id, now) {
                    effects.push(Effect::CountLagging);
                }
            }
            Input::Tick => {}
        }
        self.advance(now, &mut effects);
        effects
    }

    /// Does what is due.
    fn advance(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.flushed_at.is_none_or(|at| now >= at + COALESCE_INTERVAL) {
            self.flush(now, effects);
        }
        if self.list_at().is_some_and(|at| now >= at) {
            self.list(now, effects);
        }
        if self.cold_until.is_some_and(|at| now >= at) {
            self.cold_until = None;
            self.catch_up(now, effects);
        }
        if let Some(round) = self.subscribers.maintain(now) {
            // It would only take memory until the next version.
            self.snapshot = None;
            self.catch_up(now, effects);
            effects.extend(round.abort.into_iter().map(Effect::Abort));
            if !round.probe.is_empty() {
                effects.push(Effect::Probe(round.probe));
            }
        }
        if now >= self.active_at + IDLE_TIMEOUT {
            if self.subscribers.is_empty() && !self.has_queries && !self.reconciler.is_under_way() {
                effects.push(Effect::Stop);
            } else {
                self.active_at = now;
            }
        }
    }

    /// Makes a version of what changed, for everybody who has the one before.
    fn flush(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(diff) = self.roster.flush() else { return };
        self.flushed_at = Some(now);
        let mut encoded = Encoded::new(&Update {
            room: &self.name,
            epoch: self.epoch,
            version: self.roster.version(),
            content: Content::Diff(&diff),
        });
        let for_streams = encoded.bytes(SubscriberKind::Stream);
        self.replay.push(self.roster.version(), for_streams.clone(), for_streams.len());
        for kind in [SubscriberKind::Channel, SubscriberKind::Stream] {
            let to = self.subscribers.current(kind);
            if !to.is_empty() {
                effects.push(Effect::Send { to, bytes: encoded.bytes(kind) });
            }
        }
    }

    /// Sends lagging subscribers the diffs that they missed, where those are known, or else a snapshot.
    fn catch_up(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if !self.subscribers.has_lagging() || self.cold_until.is_some() {
            return;
        }
        // A snapshot contains only what has a version.
        self.flush(now, effects);
        let version = self.roster.version();
        let mut snapshot = self.snapshot.take().filter(|(of, _)| *of == version).map(|(_, encoded)| encoded);
        for (to, kind, resume) in self.subscribers.catch_up() {
            let missed = resume
                .filter(|(epoch, _)| *epoch == self.epoch)
                .and_then(|(_, has)| self.replay.after(has, version));
            let updates = match missed {
                Some(missed) => missed.into_iter().cloned().collect(),
                None => {
                    let snapshot = snapshot.get_or_insert_with(|| {
                        Encoded::new(&Update {
                            room: &self.name,
                            epoch: self.epoch,
                            version,
                            content: Content::Snapshot(self.roster.snapshot()),
                        })
                    });
                    vec![snapshot.bytes(kind)]
                }
            };
            effects.push(Effect::CatchUp { to, updates });
        }
        self.snapshot = snapshot.map(|encoded| (version, encoded));
    }

    fn list_at(&self) -> Option<Instant> {
        let is_needed = self.has_livekit && !self.subscribers.is_empty();
        is_needed.then(|| self.reconciler.deadline(&self.roster)).flatten()
    }

    /// Asks LiveKit who is in the room, unless a result is awaited.
    fn list(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if !self.reconciler.is_under_way() {
            self.reconciler.asked(now, (self.chance)());
            effects.push(Effect::List);
        }
    }

    fn listed(
        &mut self,
        asked_at: Instant,
        result: Result<Vec<Participant>, Unreachable>,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let answer = match result {
            Ok(participants) => {
                let identities: Vec<Identity> =
                    participants.iter().map(|participant| participant.identity.clone()).collect();
                if !identities.is_empty() {
                    effects.push(Effect::Enforce(identities));
                }
                let corrections = self.roster.handle(Event::Listed { asked_at, participants }, now);
                self.reconciler.answered(corrections);
                self.fresh_until = self.fresh_until.max(Some(now + CACHE_TTL_AFTER_LIST));
                if corrections > 0 {
                    effects.push(Effect::CountCorrections(corrections));
                }
                Ok(())
            }
            Err(error) => {
                self.reconciler.failed();
                Err(error)
            }
        };
        if std::mem::take(&mut self.has_queries) {
            effects.push(Effect::Answer(answer));
        }
        self.cold_until = None;
        self.catch_up(now, effects);
    }
}

#[cfg(test)]
mod tests;
