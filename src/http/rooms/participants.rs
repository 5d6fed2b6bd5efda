//! Who is in a room: once, or as an event stream (docs/PARTICIPANTS.md).
//!
//! ```text
//!   retry: 2000
//!
//!   event: snapshot
//!   id: 1795248000000:3
//!   data: {"room":"room-a","epoch":1795248000000,"version":3,"snapshot":[…]}
//!
//!   event: diff
//!   id: 1795248000000:4
//!   data: {"room":"room-a","epoch":1795248000000,"version":4,"diff":{"joined":[…],"left":[],…}}
//!
//!   :
//! ```
//! A browser's EventSource reconnects by itself with `Last-Event-ID` and continues from there; where the diffs that
//! it missed are dropped, it gets a snapshot.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Deserialize;

use crate::{
    error::{ApiError, Code},
    http::{
        AppState,
        middleware::auth::{self, Caller},
    },
    ids::RoomName,
    room::{Rooms, SubscriberKind, roster::Participant},
    telemetry,
    ws::send_queue::{Connection, SendQueue, SendQueueStream},
};

/// What may be queued for a client that does not read, in bytes.
const QUEUE_BYTES: usize = 64 * 1024;

/// The first thing a stream says: how long to wait before coming back, in milliseconds.
const RETRY: Bytes = Bytes::from_static(b"retry: 2000\n\n");

/// Which room.
#[derive(Deserialize)]
pub struct Query {
    room: RoomName,
    /// For clients that cannot set the header `Last-Event-ID`.
    last_event_id: Option<String>,
}

/// `GET /api/livekit/participants?room=`: everybody, from memory where that is fresh.
pub async fn list(
    app: web::Data<AppState>,
    request: HttpRequest,
    query: web::Query<Query>,
) -> Result<web::Json<Vec<Participant>>, ApiError> {
    may_see(&app, &request, &query.room).await?;
    Ok(web::Json(app.rooms.participants(&query.room).await?))
}

/// `GET /api/livekit/participants/stream?room=`: everybody, and then every change.
pub async fn stream(
    app: web::Data<AppState>,
    request: HttpRequest,
    query: web::Query<Query>,
) -> Result<HttpResponse, ApiError> {
    let Query { room, last_event_id } = query.into_inner();
    may_see(&app, &request, &room).await?;
    if app.is_draining() {
        return Err(ApiError::new(Code::Overloaded, "this machine is going down; try again"));
    }
    let header = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    let resume = header.or(last_event_id.as_deref()).and_then(position);

    let (send_queue, events) = SendQueue::new(QUEUE_BYTES, request.conn_data::<Connection>().copied());
    let id = app.registry.next_socket();
    // The queue is empty: there is room.
    let _ = send_queue.send(RETRY);
    app.rooms.subscribe(&room, id, &send_queue, SubscriberKind::Stream, resume);
    metrics::gauge!(telemetry::EVENT_STREAMS).increment(1);
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        // nginx buffers answers unless it is told not to.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(Events { events, rooms: app.rooms.clone(), room, id }))
}

/// `epoch:version`; what makes no sense is a client that has nothing.
fn position(id: &str) -> Option<(u64, u64)> {
    let (epoch, version) = id.trim().split_once(':')?;
    Some((epoch.parse().ok()?, version.parse().ok()?))
}

/// A room may be seen by whoever could join it, by the owner of its session, and by a backend.
async fn may_see(app: &AppState, request: &HttpRequest, room: &RoomName) -> Result<(), ApiError> {
    let forbidden = || Err(ApiError::new(Code::Forbidden, "the token is not for this room"));
    let pass = auth::token(request).and_then(|token| app.room_tokens.as_ref()?.verify(&token));
    if let Some(pass) = pass {
        return if pass.room == *room { Ok(()) } else { forbidden() };
    }
    match Caller::extract(request).await? {
        Caller::Anyone | Caller::Backend => Ok(()),
        caller @ Caller::User(_) => match app.registry.of_room(room)? {
            Some(record) if caller.may_use(&record).is_ok() => Ok(()),
            Some(_) | None => forbidden(),
        },
    }
}

/// The body of a stream. Its end, from whichever side, is the end of watching.
struct Events {
    events: SendQueueStream,
    rooms: Rooms,
    room: RoomName,
    id: u64,
}

impl Stream for Events {
    type Item = Result<Bytes, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(cx).map(|bytes| bytes.map(Ok))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        metrics::gauge!(telemetry::EVENT_STREAMS).decrement(1);
        self.rooms.unsubscribe(&self.room, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_event_id_is_an_epoch_and_a_version_or_nothing() {
        assert_eq!(position(" 1795248000000:42 "), Some((1_795_248_000_000, 42)));
        for nonsense in ["", ":", "7", "a:b", "1:2:3", "-1:2"] {
            assert_eq!(position(nonsense), None, "{nonsense}");
        }
    }
}
