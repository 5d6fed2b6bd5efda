//! Runs one [`Room`]: carries its effects out and wakes it at its deadline.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture,
    SpawnHandle, WrapFuture,
};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    clock,
    error::Code,
    ids::{Identity, RoomName},
    protocol::ToClient,
    room::{
        RoomService, Rooms, Unreachable,
        machine::{Effect, Input, Room},
        roster::{Event, Participant},
        subscribers::{Position, SubscriberId, SubscriberKind},
    },
    telemetry,
    ws::{
        frame,
        send_queue::{SendError, SendQueue},
    },
};

/// Messages that wait for a room. A webhook waits for a place, and LiveKit for the webhook.
const MAILBOX: usize = 1024;

// --- State ------------------------------------------------------------------------------------

pub(super) struct RoomActor {
    name: RoomName,
    room: Room,
    subscribers: HashMap<SubscriberId, Subscriber>,
    /// Queries that wait for a list.
    queries: Vec<oneshot::Sender<Result<(), Unreachable>>>,
    /// The one timer.
    wake: Option<(Instant, SpawnHandle)>,
    /// Where to deregister.
    rooms: Rooms,
    service: Option<Arc<dyn RoomService>>,
}

struct Subscriber {
    kind: SubscriberKind,
    queue: SendQueue,
    /// Whose right it is to see the room; none for a backend.
    holder: Option<Identity>,
}

impl RoomActor {
    pub(super) fn new(
        name: RoomName,
        reconcile: Duration,
        rooms: Rooms,
        service: Option<Arc<dyn RoomService>>,
    ) -> Self {
        let (epoch, now) = (clock::unix_ms(), clock::now());
        Self {
            room: Room::new(name.clone(), epoch, reconcile, service.is_some(), rand::random, now),
            name,
            subscribers: HashMap::new(),
            queries: Vec::new(),
            wake: None,
            rooms,
            service,
        }
    }

    /// Feeds one input to the machine, carries out its effects, and re-arms the one timer.
    fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        for effect in self.room.handle(input, clock::now()) {
            self.perform(effect, ctx);
        }
        self.rearm(ctx);
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Send { to, bytes } => {
                for id in to {
                    if let Err(error) = self.send(id, bytes.clone()) {
                        self.step(Input::NotSent(id, error), ctx);
                    }
                }
            }
            Effect::CatchUp { to, updates } => {
                let result = updates.into_iter().try_for_each(|update| self.send(to, update));
                self.step(
                    result.map_or_else(|error| Input::NotSent(to, error), |()| Input::CaughtUp(to)),
                    ctx,
                );
            }
            Effect::CountLagging => metrics::counter!(telemetry::WATCHERS_BEHIND).increment(1),
            Effect::Probe(ids) => {
                for id in ids.into_iter().filter(|id| !self.is_open(*id)).collect::<Vec<_>>() {
                    self.subscribers.remove(&id);
                    self.step(Input::Unsubscribe(id), ctx);
                }
            }
            Effect::Abort(id) => {
                metrics::counter!(telemetry::SLOW_CLIENTS).increment(1);
                if let Some(subscriber) = self.subscribers.remove(&id) {
                    subscriber.queue.abort();
                }
            }
            Effect::List => self.list(ctx),
            Effect::Enforce(identities) => {
                for identity in &identities {
                    self.rooms.enforce(&self.name, identity);
                }
            }
            Effect::CountCorrections(corrections) => {
                metrics::counter!(telemetry::ROSTER_DRIFT).increment(corrections);
                tracing::info!(room.name = %self.name, corrections, "a list corrected the roster");
            }
            Effect::Answer(answer) => {
                for query in self.queries.drain(..) {
                    // Fails where the request was cancelled.
                    let _ = query.send(answer);
                }
            }
            Effect::Stop => {
                self.rooms.forget(&self.name, &ctx.address());
                ctx.stop();
            }
        }
    }

    fn send(&mut self, id: SubscriberId, bytes: Bytes) -> Result<(), SendError> {
        let Some(subscriber) = self.subscribers.get(&id) else { return Err(SendError::Closed) };
        let result = subscriber.queue.send(bytes);
        if result == Err(SendError::Closed) {
            self.subscribers.remove(&id);
        }
        result
    }

    /// Whether a connection is open. An event stream gets a heartbeat: a comment, if its queue has space.
    fn is_open(&self, id: SubscriberId) -> bool {
        match self.subscribers.get(&id) {
            Some(Subscriber { kind: SubscriberKind::Stream, queue, .. }) => {
                queue.send(Bytes::from_static(b":\n\n")) != Err(SendError::Closed)
            }
            Some(Subscriber { kind: SubscriberKind::Channel, queue, .. }) => queue.is_open(),
            None => false,
        }
    }

    /// Whether a subscriber sees the room by the right of somebody who is denied it.
    fn is_denied(&self, subscriber: &Subscriber) -> bool {
        match (&self.service, &subscriber.holder) {
            (Some(service), Some(holder)) => service.is_denied(&self.name, holder),
            (_, None) | (None, _) => false,
        }
    }

    /// Tells a subscriber that it sees no more of the room; an event stream ends.
    fn dismiss(&self, Subscriber { kind, queue, .. }: &Subscriber) {
        match kind {
            SubscriberKind::Stream => queue.finish(),
            SubscriberKind::Channel => {
                let message = format!("removed from the room {}", self.name);
                let error = ToClient::error(Code::Forbidden, message, None);
                // Lost if the queue is full: the client sees no more of the room all the same.
                let _ = queue.send(frame::text(&error.encode(None)));
            }
        }
    }

    fn list(&self, ctx: &mut Context<Self>) {
        let Some(service) = &self.service else { return };
        let asked_at = clock::now();
        let listed = service.participants(self.name.clone());
        ctx.spawn(listed.into_actor(self).map(move |result, actor, ctx| {
            let outcome = if result.is_ok() { "answered" } else { "failed" };
            metrics::counter!(telemetry::ROSTER_LISTS, "outcome" => outcome).increment(1);
            actor.step(Input::Listed { asked_at, result }, ctx);
        }));
    }

    fn rearm(&mut self, ctx: &mut Context<Self>) {
        let (deadline, reason) = self.room.deadline();
        match self.wake.take() {
            // Woken too early, it does nothing and is set again.
            Some((at, handle)) if at <= deadline => self.wake = Some((at, handle)),
            earlier => {
                if let Some((_, handle)) = earlier {
                    ctx.cancel_future(handle);
                }
                let wait = deadline.saturating_duration_since(clock::now());
                tracing::trace!(room.name = %self.name, ?reason, ?wait, "timer set");
                let handle = ctx.run_later(wait, |actor, ctx| {
                    actor.wake = None;
                    actor.step(Input::Tick, ctx);
                });
                self.wake = Some((deadline, handle));
            }
        }
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

/// Sends a connection the room's updates from now on; from a session or an event stream.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Subscribe {
    pub(super) id: SubscriberId,
    pub(super) queue: SendQueue,
    pub(super) kind: SubscriberKind,
    pub(super) holder: Option<Identity>,
    /// Where the connection wants to continue.
    pub(super) resume: Option<Position>,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Unsubscribe(pub(super) SubscriberId);

/// Somebody was denied the room.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Evict;

/// From LiveKit's webhooks.
#[derive(Clone, Message)]
#[rtype(result = "()")]
pub(super) struct Webhook {
    pub(super) event: Event,
    /// It was delayed, so others may be lost.
    pub(super) late: bool,
}

/// From our own agent in the room.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Observed(pub(super) Event);

/// Asks who is in the room; from REST.
#[derive(Clone, Message)]
#[rtype(result = "Result<Vec<Participant>, Unreachable>")]
pub(super) struct Query;

/// The gateway stops: event streams end, so that their clients connect to another machine.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct EndStreams;

// --- Handlers ---------------------------------------------------------------------------------

impl Handler<Subscribe> for RoomActor {
    type Result = ();

    fn handle(&mut self, subscribe: Subscribe, ctx: &mut Self::Context) {
        let Subscribe { id, queue, kind, holder, resume } = subscribe;
        let subscriber = Subscriber { kind, queue, holder };
        // They may have been denied the room while this message waited.
        if self.is_denied(&subscriber) {
            return self.dismiss(&subscriber);
        }
        self.subscribers.insert(id, subscriber);
        self.step(Input::Subscribe { id, kind, resume }, ctx);
    }
}

impl Handler<Evict> for RoomActor {
    type Result = ();

    fn handle(&mut self, _: Evict, ctx: &mut Self::Context) {
        let mut denied = Vec::new();
        for (id, subscriber) in &self.subscribers {
            if self.is_denied(subscriber) {
                self.dismiss(subscriber);
                denied.push(*id);
            }
        }
        for id in denied {
            self.subscribers.remove(&id);
            self.step(Input::Unsubscribe(id), ctx);
        }
    }
}

impl Handler<Unsubscribe> for RoomActor {
    type Result = ();

    fn handle(&mut self, Unsubscribe(id): Unsubscribe, ctx: &mut Self::Context) {
        self.subscribers.remove(&id);
        self.step(Input::Unsubscribe(id), ctx);
    }
}

impl Handler<Webhook> for RoomActor {
    type Result = ();

    fn handle(&mut self, Webhook { event, late }: Webhook, ctx: &mut Self::Context) {
        self.step(Input::Webhook { event, late }, ctx);
    }
}

impl Handler<Observed> for RoomActor {
    type Result = ();

    fn handle(&mut self, Observed(event): Observed, ctx: &mut Self::Context) {
        self.step(Input::Observed(event), ctx);
    }
}

impl Handler<Query> for RoomActor {
    type Result = ResponseActFuture<Self, Result<Vec<Participant>, Unreachable>>;

    fn handle(&mut self, _: Query, ctx: &mut Self::Context) -> Self::Result {
        let (query, answer) = oneshot::channel();
        self.queries.push(query);
        self.step(Input::Query, ctx);
        Box::pin(answer.into_actor(self).map(|answer, actor, _| {
            // The senders are dropped only with the actor.
            answer.unwrap_or(Err(Unreachable))?;
            Ok(actor.room.participants())
        }))
    }
}

impl Handler<EndStreams> for RoomActor {
    type Result = ();

    fn handle(&mut self, _: EndStreams, _: &mut Self::Context) {
        for Subscriber { kind, queue, .. } in self.subscribers.values() {
            if *kind == SubscriberKind::Stream {
                queue.finish();
            }
        }
    }
}

#[cfg(test)]
mod tests;
