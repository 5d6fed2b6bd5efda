//! Rooms: who is in them, pushed to subscribers.
//!
//! A subscriber gets a snapshot of everybody under a version, and then what changed, version by version:
//!
//! ```text
//!   version 3  snapshot  [ann, bob]
//!   version 4  diff      joined [eve]
//!   version 5  diff      left [ann]            → [bob, eve]
//! ```
//! `epoch` changes when the gateway forgot the room in between; then only a snapshot counts.
//!
//! ```text
//!   webhooks ─────────────┐                              ┌─▶ control channels
//!   agent's observations ─┼─▶ RoomActor ─ encoded once ──┤
//!   LiveKit's list ◀──────┘   (Room: Roster, Reconciler, └─▶ event streams
//!                              Subscribers)
//! ```
//! Everything but the actor is pure. This module knows neither LiveKit's API nor the deny list: both are behind
//! [`RoomService`].

mod actor;
mod encode;
mod machine;
mod reconciler;
mod replay_buffer;
pub mod roster;
mod subscribers;

use std::{sync::Arc, time::Duration};

use actix::{Actor, Addr, ArbiterHandle, Handler, MailboxError, Message, dev::ToEnvelope};
use dashmap::{DashMap, Entry};
use futures::future::BoxFuture;

use crate::{
    ids::{Identity, RoomName},
    room::{
        actor::{EndStreams, Evict, Observed, Query, RoomActor, Subscribe, Unsubscribe, Webhook},
        roster::{Event, Participant},
    },
    ws::send_queue::SendQueue,
};

pub(crate) use subscribers::{Position, SubscriberId, SubscriberKind};

/// How long a webhook waits for a room with a full mailbox. LiveKit sends it again later, and keeps the
/// events behind it in order.
const MAILBOX_TIMEOUT: Duration = Duration::from_secs(2);

/// What rooms need of LiveKit.
pub(crate) trait RoomService: Send + Sync + 'static {
    /// Everybody in a room; nobody where there is no such room.
    fn participants(&self, room: RoomName) -> BoxFuture<'static, Result<Vec<Participant>, Unreachable>>;

    /// Removes a participant from the room if they are denied it. Returns immediately; LiveKit is called in a
    /// spawned task.
    fn enforce(&self, room: &RoomName, identity: &Identity);

    /// Whether somebody is denied the room.
    fn is_denied(&self, room: &RoomName, identity: &Identity) -> bool;
}

/// LiveKit does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("LiveKit cannot be reached; sessions and tokens still work")]
pub(crate) struct Unreachable;

/// Why a room did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RoomError {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// Its mailbox stays full.
    #[error("the room is too busy; try again")]
    Busy,
    /// It stopped twice while it was asked.
    #[error("the room is ending; try again")]
    Stopped,
}

/// Finds a room's actor, or starts it. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    shared: Arc<Shared>,
}

struct Shared {
    rooms: DashMap<RoomName, Addr<RoomActor>>,
    arbiters: Vec<ArbiterHandle>,
    /// The interval of lists while they correct nothing.
    reconcile: Duration,
    /// None where the gateway has no LiveKit.
    service: Option<Arc<dyn RoomService>>,
}

impl Rooms {
    /// Rooms whose actors run on these arbiters, listed once per `reconcile` while they have subscribers.
    pub(crate) fn new(
        arbiters: Vec<ArbiterHandle>,
        reconcile: Duration,
        service: Option<Arc<dyn RoomService>>,
    ) -> Self {
        assert!(!arbiters.is_empty(), "actors need an arbiter");
        Self { shared: Arc::new(Shared { rooms: DashMap::new(), arbiters, reconcile, service }) }
    }

    /// A list or our agent reports a participant. Webhooks report them sooner, where they arrive.
    fn enforce(&self, room: &RoomName, identity: &Identity) {
        if let Some(service) = &self.shared.service {
            service.enforce(room, identity);
        }
    }

    /// Sends the room's updates to `queue` from now on; where `resume` is still known, only those after it. `holder` is
    /// the participant whose right it is to see the room, until they are removed from it; none for a backend.
    pub(crate) fn subscribe(
        &self,
        room: &RoomName,
        id: SubscriberId,
        queue: &SendQueue,
        kind: SubscriberKind,
        holder: Option<&Identity>,
        resume: Option<Position>,
    ) {
        let subscribe = || Subscribe { id, queue: queue.clone(), kind, holder: holder.cloned(), resume };
        // A room that stops at this moment has a successor. Its mailbox is never full for a new address (actix
        // reserves one place for each): there are as many messages as connections at most.
        let _ = self.actor(room).try_send(subscribe()).or_else(|_| self.actor(room).try_send(subscribe()));
    }

    pub(crate) fn unsubscribe(&self, room: &RoomName, id: SubscriberId) {
        if let Some(actor) = self.shared.rooms.get(room) {
            // Lost if the mailbox is full: the room notices later that the connection is over.
            let _ = actor.try_send(Unsubscribe(id));
        }
    }

    /// Somebody was denied the room: those who see it by their right see it no more.
    pub(crate) fn evict(&self, room: &RoomName) {
        if let Some(actor) = self.shared.rooms.get(room) {
            // Not `try_send`: it must arrive, however full the mailbox is.
            let evicted = actor.send(Evict);
            actix_web::rt::spawn(evicted);
        }
    }

    /// Applies a webhook; `late` where it was delayed. An error makes LiveKit send it again.
    pub(crate) async fn webhook(&self, room: &RoomName, event: Event, late: bool) -> Result<(), RoomError> {
        let webhook = || Webhook { event: event.clone(), late };
        let applied = tokio::time::timeout(MAILBOX_TIMEOUT, self.ask(room, webhook)).await;
        applied.unwrap_or(Err(RoomError::Busy))
    }

    /// Applies an observation of our agent.
    pub(crate) fn observed(&self, room: &RoomName, event: Event) {
        if let Event::ObservedByAgent { identity, there: true, .. } = &event
            && let Ok(identity) = Identity::parse(identity)
        {
            self.enforce(room, &identity);
        }
        // No actor is started for it: without subscribers, nobody needs to know.
        if let Some(actor) = self.shared.rooms.get(room) {
            // Lost if the mailbox is full: webhooks report the same.
            let _ = actor.try_send(Observed(event));
        }
    }

    /// Who is in a room: from memory if that is recent, else from LiveKit.
    pub(crate) async fn participants(&self, room: &RoomName) -> Result<Vec<Participant>, RoomError> {
        Ok(self.ask(room, || Query).await??)
    }

    /// Ends all event streams.
    pub(crate) async fn shut_down(&self) {
        let actors: Vec<_> = self.shared.rooms.iter().map(|entry| entry.value().clone()).collect();
        futures::future::join_all(actors.iter().map(|actor| actor.send(EndStreams))).await;
    }

    /// Forgets a room whose actor stops, unless a newer one took its place.
    fn forget(&self, room: &RoomName, actor: &Addr<RoomActor>) {
        self.shared.rooms.remove_if(room, |_, known| known == actor);
    }

    /// Sends to the room's actor, and to its successor where it stops at this moment.
    async fn ask<M>(&self, room: &RoomName, message: impl Fn() -> M) -> Result<M::Result, RoomError>
    where
        M: Message<Result: Send> + Send + 'static,
        RoomActor: Handler<M>,
        actix::Context<RoomActor>: ToEnvelope<RoomActor, M>,
    {
        let answer = match self.actor(room).send(message()).await {
            Err(MailboxError::Closed) => self.actor(room).send(message()).await,
            answer => answer,
        };
        answer.map_err(|_| RoomError::Stopped)
    }

    fn actor(&self, room: &RoomName) -> Addr<RoomActor> {
        if let Some(actor) = self.shared.rooms.get(room).filter(|actor| actor.connected()) {
            return actor.clone();
        }
        let start = |at: usize| {
            let (name, rooms, reconcile, service) =
                (room.clone(), self.clone(), self.shared.reconcile, self.shared.service.clone());
            let arbiter = &self.shared.arbiters[at % self.shared.arbiters.len()];
            RoomActor::start_in_arbiter(arbiter, move |_| RoomActor::new(name, reconcile, rooms, service))
        };
        let at = self.shared.rooms.len();
        match self.shared.rooms.entry(room.clone()) {
            Entry::Occupied(known) if known.get().connected() => known.get().clone(),
            Entry::Occupied(mut stopped) => {
                stopped.insert(start(at));
                stopped.get().clone()
            }
            Entry::Vacant(vacant) => vacant.insert(start(at)).clone(),
        }
    }
}
