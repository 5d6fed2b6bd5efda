//! `/api/livekit/participants/stream`: who is in a room, as an event stream.
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
//! A browser's EventSource reconnects with `Last-Event-ID` and gets the diffs that it missed, or a snapshot if the
//! gateway no longer has them.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::Deserialize;
use tokio::time::{Interval, interval};

use crate::{
    auth::Authenticator,
    http::{
        AppState, address,
        error::ApiError,
        middleware::{auth::Caller, drain::NotDraining},
        rooms::access::{self, Viewer},
    },
    ids::RoomName,
    limits::StreamPlace,
    room::{Rooms, SubscriberKind},
    telemetry,
    ws::send_queue::{Connection, SendQueue, SendQueueStream},
};

/// The most bytes that are queued for a client that does not read.
const QUEUE_BYTES: usize = 64 * 1024;

/// How often it is checked whether the API key of a stream was revoked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Sent first: how long a client waits before it reconnects, in milliseconds.
const RETRY: Bytes = Bytes::from_static(b"retry: 2000\n\n");

#[derive(Deserialize)]
pub(in crate::http) struct StreamQuery {
    room: RoomName,
    /// For clients that cannot set the header `Last-Event-ID`.
    last_event_id: Option<String>,
}

/// `GET /api/livekit/participants/stream?room=`
pub(in crate::http) async fn open(
    app: web::Data<AppState>,
    request: HttpRequest,
    query: web::Query<StreamQuery>,
) -> Result<HttpResponse, ApiError> {
    let StreamQuery { room, last_event_id } = query.into_inner();
    let Viewer { holder, bound: _, caller } = access::stream_viewer(&app, &request, &room).await?;
    NotDraining::check(&app)?;
    let place = app.limits.open_stream(holder.clone(), address::of(&request, app.address_header.as_ref()))?;
    let header = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
    let resume = header.or(last_event_id.as_deref()).and_then(parse_event_id);

    let (send_queue, events) = SendQueue::new(QUEUE_BYTES, request.conn_data::<Connection>().copied());
    let id = app.registry.next_socket();
    // Cannot fail: the queue is empty.
    let _ = send_queue.send(RETRY);
    app.rooms.subscribe(&room, id, &send_queue, SubscriberKind::Stream, holder.as_ref(), resume);
    metrics::gauge!(telemetry::EVENT_STREAMS).increment(1);
    let credential = caller.and_then(|caller| Credential::new(caller, app.authenticator.clone()));
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        // nginx buffers responses unless this header is set.
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(Events { events, credential, rooms: app.rooms.clone(), room, id, _place: place }))
}

/// `epoch:version`; none if it cannot be parsed: the client then gets a snapshot.
fn parse_event_id(id: &str) -> Option<(u64, u64)> {
    let (epoch, version) = id.trim().split_once(':')?;
    Some((epoch.parse().ok()?, version.parse().ok()?))
}

/// The body of a stream. The subscription ends when it is dropped, from whichever side.
struct Events {
    events: SendQueueStream,
    credential: Option<Credential>,
    rooms: Rooms,
    room: RoomName,
    id: u64,
    _place: StreamPlace,
}

impl Stream for Events {
    type Item = Result<Bytes, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.credential.as_mut().is_some_and(|credential| credential.poll_revoked(cx).is_ready()) {
            return Poll::Ready(None);
        }
        self.events.poll_next_unpin(cx).map(|bytes| bytes.map(Ok))
    }
}

/// An API key, or the gateway being open: checked again from time to time while the stream is open.
struct Credential {
    caller: Caller,
    authenticator: Authenticator,
    checks: Interval,
}

impl Credential {
    /// None for a user: their removal ends the subscription.
    fn new(caller: Caller, authenticator: Authenticator) -> Option<Self> {
        match caller {
            Caller::User(_) => None,
            Caller::Anyone | Caller::Key(_) => {
                Some(Self { caller, authenticator, checks: interval(CHECK_INTERVAL) })
            }
        }
    }

    /// Ready once it is not good any more.
    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.checks.poll_tick(cx).is_ready() {
            if !self.caller.is_current(&self.authenticator) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
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
        assert_eq!(parse_event_id(" 1795248000000:42 "), Some((1_795_248_000_000, 42)));
        for nonsense in ["", ":", "7", "a:b", "1:2:3", "-1:2"] {
            assert_eq!(parse_event_id(nonsense), None, "{nonsense}");
        }
    }
}
