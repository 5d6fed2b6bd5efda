//! What rooms need of LiveKit: who is in one, and the removal of those on the deny list.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::{
    deny::DenyList,
    ids::{Identity, RoomName},
    livekit::api::LivekitApi,
    room::{RoomService, Unreachable, roster::Participant},
};

pub(crate) struct LivekitRooms {
    api: Arc<LivekitApi>,
    deny: DenyList,
}

impl LivekitRooms {
    pub(crate) fn new(api: Arc<LivekitApi>, deny: DenyList) -> Self {
        Self { api, deny }
    }
}

impl RoomService for LivekitRooms {
    fn participants(&self, room: RoomName) -> BoxFuture<'static, Result<Vec<Participant>, Unreachable>> {
        let api = self.api.clone();
        // The API logs the cause.
        Box::pin(async move { api.participants(&room).await.map_err(|_| Unreachable) })
    }

    fn enforce(&self, room: &RoomName, identity: &Identity) {
        self.deny.enforce(&self.api, room, identity);
    }

    fn is_denied(&self, room: &RoomName, identity: &Identity) -> bool {
        self.deny.until(room, identity).is_some()
    }
}
