//! Runs one [`Roster`]: takes events, tells watchers.
//!
//! An update is encoded once and its bytes are shared by all watchers. A watcher whose queue is full
//! misses updates; the next one it gets is a snapshot.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture,
    WrapFuture,
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::{
    Rooms,
    roster::{Event, Participant, Roster},
};
use crate::{
    clock,
    error::ApiError,
    ids::RoomName,
    livekit::LivekitApi,
    outlet::{Outlet, Refused},
    protocol::{ToClient, frame, to_client::ParticipantsUpdate},
    telemetry,
};

/// A room that nobody watches and where nothing happens is forgotten after this long.
const IDLE: Duration = Duration::from_secs(300);

// --- State ------------------------------------------------------------------------------------

/// One room.
pub struct RoomActor {
    name: RoomName,
    roster: Roster,
    /// When this actor began, in milliseconds since the Unix epoch: no two of a room have the same.
    epoch: u64,
    /// LiveKit has told us everybody who is there, or every event since the room began has.
    complete: bool,
    watchers: Vec<Watcher>,
    /// Where to sign off.
    rooms: Rooms,
    api: Option<Arc<LivekitApi>>,
    /// When something last happened.
    active_at: Instant,
}

struct Watcher {
    id: u64,
    outlet: Outlet,
    /// It missed an update: only a snapshot is of use to it.
    behind: bool,
}

impl RoomActor {
    /// A room that nothing is known of yet.
    pub fn new(name: RoomName, rooms: Rooms, api: Option<Arc<LivekitApi>>) -> Self {
        Self {
            name,
            roster: Roster::default(),
            epoch: clock::unix_ms(),
            complete: false,
            watchers: Vec::new(),
            rooms,
            api,
            active_at: clock::now(),
        }
    }

    fn take(&mut self, event: Event) {
        self.active_at = clock::now();
        let Some(diff) = self.roster.handle(event) else {
            return;
        };
        let update = self.update(None, Some(json(&diff)));
        self.watchers.retain_mut(|watcher| {
            if watcher.behind {
                return watcher.outlet.is_open();
            }
            watcher.tell(&update)
        });
        self.catch_up();
    }

    /// Sends a snapshot to those who are behind.
    fn catch_up(&mut self) {
        if !self.watchers.iter().any(|watcher| watcher.behind) {
            return;
        }
        let snapshot = self.snapshot();
        self.watchers.retain_mut(|watcher| !watcher.behind || watcher.tell(&snapshot));
    }

    fn snapshot(&self) -> Bytes {
        self.update(Some(json(&self.roster.snapshot())), None)
    }

    fn update(&self, snapshot: Option<Value>, diff: Option<Value>) -> Bytes {
        let update = ToClient::ParticipantsUpdate(ParticipantsUpdate {
            room: self.name.clone(),
            epoch: self.epoch,
            version: self.roster.version(),
            snapshot,
            diff,
        });
        frame::text(&update.encode(None))
    }

    /// Asks LiveKit who is there, unless it is known.
    fn complete(&self) -> ResponseActFuture<Self, Result<(), ApiError>> {
        let api = self.api.clone().filter(|_| !self.complete);
        let name = self.name.clone();
        let listed = async move {
            match api {
                Some(api) => api.participants(&name).await.map(Some),
                None => Ok(None),
            }
        };
        Box::pin(listed.into_actor(self).map(|listed, actor, _| {
            if let Some(listed) = listed? {
                actor.complete = true;
                actor.take(Event::Listed(listed));
            }
            Ok(())
        }))
    }
}

impl Watcher {
    /// Sends an update; false where the watcher is gone.
    fn tell(&mut self, update: &Bytes) -> bool {
        match self.outlet.send(update.clone()) {
            Ok(()) => {
                self.behind = false;
                true
            }
            Err(Refused::Full) => {
                metrics::counter!(telemetry::WATCHERS_BEHIND).increment(1);
                self.behind = true;
                true
            }
            Err(Refused::Closed) => false,
        }
    }
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("rosters have only JSON fields")
}

impl Actor for RoomActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
        ctx.run_interval(IDLE / 5, |actor, ctx| {
            actor.watchers.retain(|watcher| watcher.outlet.is_open());
            actor.catch_up();
            if actor.watchers.is_empty() && clock::now() - actor.active_at >= IDLE {
                actor.rooms.forget(&actor.name, &ctx.address());
                ctx.stop();
            }
        });
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
    pub outlet: Outlet,
}

/// Somebody wants to know no longer.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Unwatch {
    /// Who.
    pub id: u64,
}

/// Something happened in the room; from LiveKit's webhooks.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Happened(pub Event);

/// Asks who is there; from REST.
#[derive(Message)]
#[rtype(result = "Result<Vec<Participant>, ApiError>")]
pub struct Present;

// --- Handlers ---------------------------------------------------------------------------------

impl Handler<Watch> for RoomActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, Watch { id, outlet }: Watch, _: &mut Self::Context) -> Self::Result {
        self.active_at = clock::now();
        self.watchers.retain(|watcher| watcher.id != id);
        Box::pin(self.complete().map(move |completed, actor, _| {
            if let Err(error) = completed {
                tracing::debug!(room.name = %actor.name, %error, "watched by what webhooks told so far");
            }
            actor.watchers.push(Watcher { id, outlet, behind: true });
            actor.catch_up();
        }))
    }
}

impl Handler<Unwatch> for RoomActor {
    type Result = ();

    fn handle(&mut self, Unwatch { id }: Unwatch, _: &mut Self::Context) {
        self.watchers.retain(|watcher| watcher.id != id);
    }
}

impl Handler<Happened> for RoomActor {
    type Result = ();

    fn handle(&mut self, Happened(event): Happened, _: &mut Self::Context) {
        self.take(event);
    }
}

impl Handler<Present> for RoomActor {
    type Result = ResponseActFuture<Self, Result<Vec<Participant>, ApiError>>;

    fn handle(&mut self, _: Present, _: &mut Self::Context) -> Self::Result {
        Box::pin(self.complete().map(|completed, actor, _| {
            completed?;
            Ok(actor.roster.snapshot().into_iter().cloned().collect())
        }))
    }
}
