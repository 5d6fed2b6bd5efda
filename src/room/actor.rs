//! Runs one [`Roster`]: takes events, tells watchers, asks LiveKit where events are not enough.
//!
//! Changes gather for one `COALESCE_INTERVAL` and leave as one update, which is encoded once; its bytes are shared
//! by all watchers. The first change after a quiet tick leaves at once. A watcher whose queue is full
//! delays nobody: it misses updates, gets a snapshot when it reads again, and is cut when it does not.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture,
    SpawnHandle, WrapFuture,
};
use bytes::Bytes;
use rand::Rng;
use tokio::sync::oneshot;

use crate::{
    clock,
    error::ApiError,
    ids::RoomName,
    livekit::api::LivekitApi,
    room::{
        Rooms,
        encode::{Content, Encoded, SubscriberKind, Update},
        reconciler::Reconciler,
        replay_buffer::ReplayBuffer,
        roster::{Event, Participant, Roster},
    },
    telemetry,
    ws::send_queue::{SendError, SendQueue},
};

/// How long changes gather.
const COALESCE_INTERVAL: Duration = Duration::from_millis(10);

/// How often those who are behind are tried again, and streams get their heartbeats.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(1);

/// A stream hears something at least once in so many rounds: proxies close what is silent.
const HEARTBEAT_ROUNDS: u64 = 15;

/// A watcher that took nothing for this long is cut.
const MAX_LAG: Duration = Duration::from_secs(30);

/// How long a watcher of a room that is not known waits for LiveKit's list before it gets what there is.
const COLD_CACHE_TIMEOUT: Duration = Duration::from_secs(1);

/// For how long a list may be answered from memory after a webhook, and after a list (seed 003).
const CACHE_TTL_AFTER_WEBHOOK: Duration = Duration::from_secs(60);
const CACHE_TTL_AFTER_LIST: Duration = Duration::from_secs(10);

/// A room that nobody watches and where nothing happens is forgotten after this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Diffs that are kept for streams that come back.
const REPLAY_DIFFS: usize = 64;
const REPLAY_BYTES: usize = 32 * 1024;

/// Messages that wait for a room. Whoever brings a webhook waits for a place; then LiveKit waits.
const MAILBOX: usize = 1024;

// --- State ------------------------------------------------------------------------------------

/// One room.
pub struct RoomActor {
    name: RoomName,
    roster: Roster,
    reconciler: Reconciler,
    /// When this actor began, in milliseconds since the Unix epoch: no two of a room have the same.
    epoch: u64,
    watchers: HashMap<u64, Watcher>,
    /// Of the watchers, those that an update did not reach.
    behind: BTreeSet<u64>,
    recent: ReplayBuffer<Bytes>,
    /// Everybody as of a version, for all who come before the next one.
    snapshot: Option<(u64, Encoded)>,
    /// Those who asked who is there while LiveKit is being asked.
    asking: Vec<oneshot::Sender<Result<(), ApiError>>>,
    /// Until when the roster may be given as the answer to who is there.
    fresh_until: Option<Instant>,
    /// When changes last left.
    flushed_at: Option<Instant>,
    /// Until when watchers of a room that is not known wait for the list.
    cold_until: Option<Instant>,
    /// When the next round is due, while there is a reason for one.
    round_at: Option<Instant>,
    rounds: u64,
    /// When something last happened.
    active_at: Instant,
    /// The one timer.
    wake: Option<(Instant, SpawnHandle)>,
    /// Where to sign off.
    rooms: Rooms,
    api: Option<Arc<LivekitApi>>,
}

struct Watcher {
    queue: SendQueue,
    face: SubscriberKind,
    /// Where it wants to go on: an epoch and a version.
    resume: Option<(u64, u64)>,
    /// Since when updates do not reach it.
    behind_since: Option<Instant>,
}

impl RoomActor {
    /// A room that nothing is known of yet, listed so often while it is watched.
    pub fn new(name: RoomName, reconcile: Duration, rooms: Rooms, api: Option<Arc<LivekitApi>>) -> Self {
        let now = clock::now();
        Self {
            name,
            roster: Roster::default(),
            reconciler: Reconciler::new(reconcile, now),
            epoch: clock::unix_ms(),
            watchers: HashMap::new(),
            behind: BTreeSet::new(),
            recent: ReplayBuffer::new(REPLAY_DIFFS, REPLAY_BYTES),
            snapshot: None,
            asking: Vec::new(),
            fresh_until: None,
            flushed_at: None,
            cold_until: None,
            round_at: None,
            rounds: 0,
            active_at: now,
            wake: None,
            rooms,
            api,
        }
    }

    // --- Time ---

    /// When something is to be done although nothing happens.
    fn deadline(&self) -> Instant {
        let flush = self
            .roster
            .has_changes()
            .then(|| self.flushed_at.map_or(self.active_at, |at| at + COALESCE_INTERVAL));
        [flush, self.cold_until, self.round_at, self.list_at()]
            .into_iter()
            .flatten()
            .fold(self.active_at + IDLE_TIMEOUT, Instant::min)
    }

    fn list_at(&self) -> Option<Instant> {
        let watched = !self.watchers.is_empty() && self.api.is_some();
        watched.then(|| self.reconciler.deadline(&self.roster)).flatten()
    }

    /// Does what is due, and sets the timer for what is next.
    fn step(&mut self, ctx: &mut Context<Self>) {
        let now = clock::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        if self.flushed_at.is_none_or(|at| now >= at + COALESCE_INTERVAL) {
            self.flush();
        }
        if due(self.list_at()) {
            self.list(ctx);
        }
        if due(self.cold_until) {
            self.cold_until = None;
            self.catch_up();
        }
        if due(self.round_at) {
            self.round(now);
        }
        let quiet = self.watchers.is_empty() && self.asking.is_empty() && !self.reconciler.is_under_way();
        if quiet && now >= self.active_at + IDLE_TIMEOUT {
            self.rooms.forget(&self.name, &ctx.address());
            ctx.stop();
            return;
        }
        if !quiet && now >= self.active_at + IDLE_TIMEOUT {
            self.active_at = now;
        }
        self.rearm(ctx);
    }

    fn rearm(&mut self, ctx: &mut Context<Self>) {
        let deadline = self.deadline();
        match self.wake.take() {
            // It wakes too early, then, and is set again.
            Some((at, handle)) if at <= deadline => self.wake = Some((at, handle)),
            earlier => {
                if let Some((_, handle)) = earlier {
                    ctx.cancel_future(handle);
                }
                let handle = ctx.run_later(deadline.saturating_duration_since(clock::now()), |actor, ctx| {
                    actor.wake = None;
                    actor.step(ctx);
                });
                self.wake = Some((deadline, handle));
            }
        }
    }

    /// Tries those who are behind again, gives streams their heartbeats, and lets go of the dead.
    fn round(&mut self, now: Instant) {
        self.rounds += 1;
        self.snapshot = None;
        self.catch_up();
        for id in &self.behind {
            let watcher = &self.watchers[id];
            if watcher.behind_since.is_some_and(|since| now >= since + MAX_LAG) {
                metrics::counter!(telemetry::SLOW_CLIENTS).increment(1);
                watcher.queue.abort();
            }
        }
        // Each in a round of its own, so that thousands are not woken at once.
        let turn = self.rounds % HEARTBEAT_ROUNDS;
        let dead: Vec<u64> = self
            .watchers
            .iter()
            .filter(|(id, _)| *id % HEARTBEAT_ROUNDS == turn)
            .filter(|(_, watcher)| match watcher.face {
                SubscriberKind::Stream => {
                    watcher.queue.send(Bytes::from_static(b":\n\n")) == Err(SendError::Closed)
                }
                SubscriberKind::Channel => !watcher.queue.is_open(),
            })
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            self.remove(id);
        }
        self.round_at = (!self.watchers.is_empty()).then_some(now + MAINTENANCE_INTERVAL);
    }

    // --- Telling ---

    fn take(&mut self, event: Event) {
        let now = clock::now();
        self.active_at = now;
        self.roster.handle(event, now);
    }

    /// Makes a version of what changed and sends it to everybody.
    fn flush(&mut self) {
        let Some(diff) = self.roster.flush() else {
            return;
        };
        let mut encoded = Encoded::new(&Update {
            room: &self.name,
            epoch: self.epoch,
            version: self.roster.version(),
            content: Content::Diff(&diff),
        });
        let for_streams = encoded.bytes(SubscriberKind::Stream);
        self.recent.push(self.roster.version(), for_streams.clone(), for_streams.len());
        let mut closed = Vec::new();
        for (id, watcher) in &mut self.watchers {
            if watcher.behind_since.is_some() {
                continue;
            }
            match watcher.queue.send(encoded.bytes(watcher.face)) {
                Ok(()) => {}
                Err(SendError::Full) => {
                    metrics::counter!(telemetry::WATCHERS_BEHIND).increment(1);
                    watcher.behind_since = Some(clock::now());
                    self.behind.insert(*id);
                }
                Err(SendError::Closed) => closed.push(*id),
            }
        }
        for id in closed {
            self.remove(id);
        }
        self.flushed_at = Some(clock::now());
    }

    /// Sends those who are behind what they missed, where that is known and they have room for it, else
    /// everybody.
    fn catch_up(&mut self) {
        if self.behind.is_empty() || self.cold_until.is_some() {
            return;
        }
        // What is not a version yet is no part of a snapshot.
        self.flush();
        let version = self.roster.version();
        let mut snapshot = self.snapshot.take().filter(|(of, _)| *of == version).map(|(_, encoded)| encoded);
        let mut closed = Vec::new();
        self.behind.retain(|id| {
            let Some(watcher) = self.watchers.get_mut(id) else {
                return false;
            };
            let resumed = watcher
                .resume
                .take()
                .filter(|(epoch, _)| *epoch == self.epoch)
                .and_then(|(_, has)| self.recent.after(has, version));
            let told = match resumed {
                Some(missed) => missed.into_iter().try_for_each(|diff| watcher.queue.send(diff.clone())),
                None => {
                    let snapshot = snapshot.get_or_insert_with(|| {
                        Encoded::new(&Update {
                            room: &self.name,
                            epoch: self.epoch,
                            version,
                            content: Content::Snapshot(self.roster.snapshot()),
                        })
                    });
                    watcher.queue.send(snapshot.bytes(watcher.face))
                }
            };
            match told {
                Ok(()) => watcher.behind_since = None,
                Err(SendError::Full) => {}
                Err(SendError::Closed) => closed.push(*id),
            }
            told == Err(SendError::Full)
        });
        self.snapshot = snapshot.map(|encoded| (version, encoded));
        for id in closed {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        self.behind.remove(&id);
        self.watchers.remove(&id);
    }

    // --- LiveKit's list ---

    /// Asks LiveKit who is there, unless it is being asked.
    fn list(&mut self, ctx: &mut Context<Self>) {
        let Some(api) = self.api.clone().filter(|_| !self.reconciler.is_under_way()) else {
            return;
        };
        let (name, asked_at) = (self.name.clone(), clock::now());
        self.reconciler.asked(asked_at, rand::rng().random());
        let listed = async move { api.participants(&name).await.map_err(ApiError::from) };
        ctx.spawn(listed.into_actor(self).map(move |listed, actor, ctx| actor.listed(asked_at, listed, ctx)));
    }

    fn listed(
        &mut self,
        asked_at: Instant,
        listed: Result<Vec<Participant>, ApiError>,
        ctx: &mut Context<Self>,
    ) {
        let now = clock::now();
        let outcome = match listed {
            Ok(participants) => {
                for participant in &participants {
                    self.rooms.enforce(&self.name, &participant.identity);
                }
                let corrections = self.roster.handle(Event::Listed { asked_at, participants }, now);
                self.reconciler.answered(corrections);
                self.fresh_until = self.fresh_until.max(Some(now + CACHE_TTL_AFTER_LIST));
                if corrections > 0 {
                    metrics::counter!(telemetry::ROSTER_DRIFT).increment(corrections);
                    tracing::info!(room.name = %self.name, corrections, "webhooks had left the roster wrong");
                }
                Ok(())
            }
            Err(error) => {
                self.reconciler.failed();
                tracing::debug!(room.name = %self.name, %error, "told by what webhooks say");
                Err(error)
            }
        };
        let label = if outcome.is_ok() { "answered" } else { "failed" };
        metrics::counter!(telemetry::ROSTER_LISTS, "outcome" => label).increment(1);
        for asking in self.asking.drain(..) {
            // Who does not wait any more need not know.
            let _ = asking.send(outcome.clone());
        }
        self.cold_until = None;
        self.catch_up();
        self.step(ctx);
    }
}

impl Actor for RoomActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        metrics::gauge!(telemetry::ROOMS).increment(1);
        self.rearm(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        metrics::gauge!(telemetry::ROOMS).decrement(1);
    }
}

// --- Messages ---------------------------------------------------------------------------------

/// Somebody wants to know who is in the room, from now on; from a session or an event stream.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Watch {
    /// Tells the watcher apart.
    pub id: u64,
    /// Where it is told.
    pub queue: SendQueue,
    /// How it is connected.
    pub face: SubscriberKind,
    /// The epoch and version it has.
    pub resume: Option<(u64, u64)>,
}

/// Somebody wants to know no longer.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Unwatch {
    /// Who.
    pub id: u64,
}

/// Something happened in the room; from LiveKit's webhooks.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub struct Happened(pub Event);

/// Something was seen in the room; from our own agent.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Seen(pub Event);

/// Asks who is there; from REST.
#[derive(Clone, Message)]
#[rtype(result = "Result<Vec<Participant>, ApiError>")]
pub struct Present;

/// The gateway goes down: event streams end, so that their clients look for another machine.
#[derive(Message)]
#[rtype(result = "()")]
pub struct EndStreams;

// --- Handlers ---------------------------------------------------------------------------------

impl Handler<Watch> for RoomActor {
    type Result = ();

    fn handle(&mut self, watch: Watch, ctx: &mut Self::Context) {
        let Watch { id, queue, face, resume } = watch;
        let now = clock::now();
        self.active_at = now;
        self.remove(id);
        self.watchers.insert(id, Watcher { queue, face, resume, behind_since: Some(now) });
        self.behind.insert(id);
        self.round_at.get_or_insert(now + MAINTENANCE_INTERVAL);
        if !self.roster.is_complete() && self.api.is_some() && self.roster.version() == 0 {
            self.cold_until.get_or_insert(now + COLD_CACHE_TIMEOUT);
        }
        self.catch_up();
        self.step(ctx);
    }
}

impl Handler<Unwatch> for RoomActor {
    type Result = ();

    fn handle(&mut self, Unwatch { id }: Unwatch, _: &mut Self::Context) {
        self.remove(id);
    }
}

impl Handler<Happened> for RoomActor {
    type Result = ();

    fn handle(&mut self, Happened(event): Happened, ctx: &mut Self::Context) {
        self.take(event);
        self.fresh_until = Some(self.active_at + CACHE_TTL_AFTER_WEBHOOK);
        self.step(ctx);
    }
}

impl Handler<Seen> for RoomActor {
    type Result = ();

    fn handle(&mut self, Seen(event): Seen, ctx: &mut Self::Context) {
        self.take(event);
        self.step(ctx);
    }
}

impl Handler<Present> for RoomActor {
    type Result = ResponseActFuture<Self, Result<Vec<Participant>, ApiError>>;

    fn handle(&mut self, _: Present, ctx: &mut Self::Context) -> Self::Result {
        let now = clock::now();
        let fresh = self.roster.is_complete() && self.fresh_until.is_some_and(|until| now < until);
        let (answer, answered) = oneshot::channel();
        if fresh || self.api.is_none() {
            // The receiver is in this function.
            let _ = answer.send(Ok(()));
        } else {
            self.asking.push(answer);
            self.list(ctx);
        }
        Box::pin(answered.into_actor(self).map(|answered, actor, _| {
            answered.unwrap_or_else(|gone| Err(ApiError::internal(gone)))?;
            Ok(actor.roster.snapshot().into_iter().cloned().collect())
        }))
    }
}

impl Handler<EndStreams> for RoomActor {
    type Result = ();

    fn handle(&mut self, _: EndStreams, _: &mut Self::Context) {
        for watcher in self.watchers.values().filter(|watcher| watcher.face == SubscriberKind::Stream) {
            watcher.queue.finish();
        }
    }
}
