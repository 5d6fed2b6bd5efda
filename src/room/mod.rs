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

pub mod actor;
pub mod roster;

use std::sync::Arc;

use actix::{Actor, Addr, ArbiterHandle};
use dashmap::DashMap;

use self::{
    actor::{Happened, Present, RoomActor, Unwatch, Watch},
    roster::{Event, Participant},
};
use crate::{
    error::{ApiError, Code},
    ids::RoomName,
    livekit::LivekitApi,
    outlet::Outlet,
};

/// Finds a room's actor, or starts it. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    shared: Arc<Shared>,
}

struct Shared {
    rooms: DashMap<RoomName, Addr<RoomActor>>,
    arbiters: Vec<ArbiterHandle>,
    api: Option<Arc<LivekitApi>>,
}

impl Rooms {
    /// Rooms whose actors run on these arbiters.
    pub fn new(arbiters: Vec<ArbiterHandle>, api: Option<Arc<LivekitApi>>) -> Self {
        assert!(!arbiters.is_empty(), "actors need somewhere to run");
        Self { shared: Arc::new(Shared { rooms: DashMap::new(), arbiters, api }) }
    }

    /// Sends who is in `room` to `outlet`, from now on. `id` tells the watcher apart.
    pub fn watch(&self, room: &RoomName, id: u64, outlet: Outlet) {
        if self.actor(room).try_send(Watch { id, outlet }).is_err() {
            tracing::warn!(room.name = %room, "the room is too busy to be watched");
        }
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
        let taken = self.actor(room).send(Happened(event)).await;
        taken.map_err(|_| ApiError::new(Code::Overloaded, "the room is ending; try again"))
    }

    /// Who is in a room.
    pub async fn present(&self, room: &RoomName) -> Result<Vec<Participant>, ApiError> {
        self.actor(room).send(Present).await.unwrap_or_else(|error| Err(ApiError::internal(error)))
    }

    /// The room's actor ends: forgets it, unless a newer one took its place.
    fn forget(&self, room: &RoomName, actor: &Addr<RoomActor>) {
        self.shared.rooms.remove_if(room, |_, known| known == actor);
    }

    fn actor(&self, room: &RoomName) -> Addr<RoomActor> {
        let start = || {
            let at = self.shared.rooms.len() % self.shared.arbiters.len();
            let (name, rooms, api) = (room.clone(), self.clone(), self.shared.api.clone());
            RoomActor::start_in_arbiter(&self.shared.arbiters[at], move |_| RoomActor::new(name, rooms, api))
        };
        if let Some(actor) = self.shared.rooms.get(room).filter(|actor| actor.connected()) {
            return actor.clone();
        }
        let fresh = start();
        self.shared.rooms.insert(room.clone(), fresh.clone());
        fresh
    }
}
