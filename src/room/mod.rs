//! Rooms: who is in them, pushed to whoever watches.
//!
//! A watcher gets everybody first, under a version; then what changed, version by version:
//!
//! ```text
//!   version 3  snapshot  [ann, bob]
//!   version 4  diff      joined [eve]
//!   version 5  diff      left [ann]            → [bob, eve]
//! ```
//! `epoch` changes when the gateway forgot the room in between; then only a snapshot counts.
//!
//! ```text
//!   webhook ─────────────┐                      ┌─▶ control channels
//!   agent's sight ───────┼─▶ RoomActor ─ bytes ─┤
//!   LiveKit's list ◀─────┘   (Roster, Reconciler)└─▶ event streams
//! ```

pub mod actor;
mod encode;
pub mod reconciler;
pub mod replay_buffer;
pub mod roster;

use std::{sync::Arc, time::Duration};

use actix::{Actor, Addr, ArbiterHandle, Handler, MailboxError, Message, dev::ToEnvelope};
use dashmap::{DashMap, Entry};

use crate::{
    deny::DenyList,
    error::{ApiError, Code},
    ids::{Identity, RoomName},
    livekit::api::LivekitApi,
    room::{
        actor::{EndStreams, Happened, Present, RoomActor, Seen, Unwatch, Watch},
        roster::{Event, Participant},
    },
    ws::send_queue::SendQueue,
};

pub use encode::SubscriberKind;

/// How long a webhook waits for a room with a full mailbox. LiveKit tries again later, and keeps the
/// events behind it in order.
const MAILBOX_TIMEOUT: Duration = Duration::from_secs(2);

/// Finds a room's actor, or starts it. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    shared: Arc<Shared>,
}

struct Shared {
    rooms: DashMap<RoomName, Addr<RoomActor>>,
    arbiters: Vec<ArbiterHandle>,
    /// How often a watched room is listed where all is well.
    reconcile: Duration,
    api: Option<Arc<LivekitApi>>,
    /// Who may not be in which room.
    deny: DenyList,
}

impl Rooms {
    /// Rooms whose actors run on these arbiters, listed so often while they are watched.
    pub fn new(
        arbiters: Vec<ArbiterHandle>,
        reconcile: Duration,
        api: Option<Arc<LivekitApi>>,
        deny: DenyList,
    ) -> Self {
        assert!(!arbiters.is_empty(), "actors need somewhere to run");
        Self { shared: Arc::new(Shared { rooms: DashMap::new(), arbiters, reconcile, api, deny }) }
    }

    /// Somebody is in a room, by LiveKit's own list or our agent's eyes: out with them, if they may not
    /// be there. Webhooks tell the same sooner, where they arrive.
    fn enforce(&self, room: &RoomName, identity: &Identity) {
        if let Some(api) = &self.shared.api {
            self.shared.deny.enforce(api, room, identity);
        }
    }

    /// Sends who is in `room` to `queue`, from now on. `id` tells the watcher apart; one that has a
    /// version of an epoch goes on from there.
    pub fn watch(
        &self,
        room: &RoomName,
        id: u64,
        queue: &SendQueue,
        face: SubscriberKind,
        resume: Option<(u64, u64)>,
    ) {
        let watch = || Watch { id, queue: queue.clone(), face, resume };
        // A room that ends at this moment has a successor. None is ever full for a new address of it
        // (actix keeps a place for each): those who wait are as many as there are connections.
        let _ = self.actor(room).try_send(watch()).or_else(|_| self.actor(room).try_send(watch()));
    }

    /// No longer.
    pub fn unwatch(&self, room: &RoomName, id: u64) {
        if let Some(actor) = self.shared.rooms.get(room) {
            // A room that is too busy finds out by itself when the watcher's connection ends.
            let _ = actor.try_send(Unwatch { id });
        }
    }

    /// Something happened in a room; an error where it could not be taken, so that LiveKit tries again.
    pub async fn happened(&self, room: &RoomName, event: Event) -> Result<(), ApiError> {
        let taken = tokio::time::timeout(MAILBOX_TIMEOUT, self.ask(room, || Happened(event.clone()))).await;
        taken.unwrap_or_else(|_| Err(ApiError::new(Code::Overloaded, "the room is too busy; try again")))
    }

    /// Our agent saw something in a room.
    pub fn seen(&self, room: &RoomName, event: Event) {
        if let Event::ObservedByAgent { identity, there: true, .. } = &event
            && let Ok(identity) = Identity::parse(identity)
        {
            self.enforce(room, &identity);
        }
        // Without anybody who wants to know there is no actor.
        if let Some(actor) = self.shared.rooms.get(room) {
            // A room that is too busy hears of it by webhook.
            let _ = actor.try_send(Seen(event));
        }
    }

    /// Who is in a room.
    pub async fn present(&self, room: &RoomName) -> Result<Vec<Participant>, ApiError> {
        self.ask(room, || Present).await?
    }

    /// Ends every event stream.
    pub async fn shut_down(&self) {
        let actors: Vec<_> = self.shared.rooms.iter().map(|entry| entry.value().clone()).collect();
        futures::future::join_all(actors.iter().map(|actor| actor.send(EndStreams))).await;
    }

    /// How many rooms are in memory.
    pub fn count(&self) -> usize {
        self.shared.rooms.len()
    }

    /// The room's actor ends: forgets it, unless a newer one took its place.
    fn forget(&self, room: &RoomName, actor: &Addr<RoomActor>) {
        self.shared.rooms.remove_if(room, |_, known| known == actor);
    }

    /// Tells the room's actor, and once more its successor where it ends at this moment.
    async fn ask<M>(&self, room: &RoomName, message: impl Fn() -> M) -> Result<M::Result, ApiError>
    where
        M: Message<Result: Send> + Send + 'static,
        RoomActor: Handler<M>,
        actix::Context<RoomActor>: ToEnvelope<RoomActor, M>,
    {
        let answer = match self.actor(room).send(message()).await {
            Err(MailboxError::Closed) => self.actor(room).send(message()).await,
            answer => answer,
        };
        answer.map_err(|_| ApiError::new(Code::Overloaded, "the room is ending; try again"))
    }

    fn actor(&self, room: &RoomName) -> Addr<RoomActor> {
        if let Some(actor) = self.shared.rooms.get(room).filter(|actor| actor.connected()) {
            return actor.clone();
        }
        let start = |at: usize| {
            let (name, rooms, reconcile, api) =
                (room.clone(), self.clone(), self.shared.reconcile, self.shared.api.clone());
            let arbiter = &self.shared.arbiters[at % self.shared.arbiters.len()];
            RoomActor::start_in_arbiter(arbiter, move |_| RoomActor::new(name, reconcile, rooms, api))
        };
        let at = self.shared.rooms.len();
        match self.shared.rooms.entry(room.clone()) {
            Entry::Occupied(known) if known.get().connected() => known.get().clone(),
            Entry::Occupied(mut dead) => {
                dead.insert(start(at));
                dead.get().clone()
            }
            Entry::Vacant(vacant) => vacant.insert(start(at)).clone(),
        }
    }
}
