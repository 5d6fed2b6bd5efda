//! One WebSocket connection: reads frames for an [`Endpoint`], and writes what its [`SendQueue`] holds.
//!
//! This is the only file that uses actix-web-actors. A `WebsocketContext` stops entirely, its timers included,
//! while its client does not read (docs/decisions/0001). So nothing that must go on lives in its actor: what
//! is sent goes past it through the [`SendQueue`], and an endpoint only forwards what arrives.
//!
//! ```text
//!   client ─bytes─▶ Incoming ─frames─▶ WebsocketContext<Reader> ─text, binary─▶ Endpoint
//!      ▲                                    │ pong of the protocol                 │
//!      └─────────── response body ◀─────────┴──────── SendQueueStream ◀─────── SendQueue
//! ```
//!
//! A client's close frame is answered with its code, behind what is queued; then the connection ends. After a close frame
//! of the gateway, the connection waits for the client's, for [`CLOSE_TIMEOUT`]. What comes in between is ignored.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, StreamHandler, fut::wrap_future};
use actix_http::ws::{HandshakeError, hash_key, verify_handshake};
use actix_web::{
    Error, HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder,
    error::PayloadError,
    http::{
        Version,
        header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL},
    },
};
use actix_web_actors::ws::{Message, ProtocolError, WebsocketContext};
use bytes::Bytes;
use futures::{Stream, StreamExt, task::AtomicWaker};
use tokio::time::{Sleep, sleep};

use crate::{
    clock,
    error::Close,
    protocol::Profile,
    ws::{
        fragments::{Fragments, Whole},
        frame,
        incoming::Incoming,
        rate_limit::{MessageRateLimiter, Verdict},
        send_queue::{Connection, SendQueue, SendQueueStream},
        upgrade::Upgraded,
    },
};

/// How long a client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the gateway does with the messages of one connection. Sending is not part of it: an endpoint holds
/// the connection's [`SendQueue`].
pub(crate) trait Endpoint: Sized + Unpin + 'static {
    /// The connection is open; no message has been read yet.
    fn started(&mut self, ctx: &mut EndpointContext<'_, Self>);

    fn text(&mut self, text: &str, ctx: &mut EndpointContext<'_, Self>);

    fn binary(&mut self, payload: Bytes, ctx: &mut EndpointContext<'_, Self>);

    /// A fragmented message was over the limit and dropped.
    fn too_large(&mut self);

    /// A ping or pong of the WebSocket protocol arrived, within the limit of such frames.
    fn alive(&mut self) {}

    /// The connection is over.
    fn stopped(&mut self);
}

/// The parts of the actor's context that an endpoint may use.
pub(crate) struct EndpointContext<'a, E: Endpoint>(&'a mut WebsocketContext<Reader<E>>);

impl<E: Endpoint> EndpointContext<'_, E> {
    /// Reads no further message until `work` is done and `then` has been called with its output. The client
    /// meanwhile waits for TCP.
    pub(crate) fn wait<F>(&mut self, work: F, then: impl FnOnce(&mut E, F::Output) + 'static)
    where
        F: Future + 'static,
    {
        let work = wrap_future::<_, Reader<E>>(work);
        self.0.wait(work.map(move |output, reader, _| then(&mut reader.endpoint, output)));
    }

    /// Calls `then` after a delay, unless the connection ends before.
    pub(crate) fn after(&mut self, delay: Duration, then: impl FnOnce(&mut E) + 'static) {
        self.0.run_later(delay, move |reader, _| then(&mut reader.endpoint));
    }

    /// Calls `each` at an interval until the connection ends. Not at all while the client does not read.
    pub(crate) fn every(&mut self, interval: Duration, mut each: impl FnMut(&mut E) + 'static) {
        self.0.run_interval(interval, move |reader, _| each(&mut reader.endpoint));
    }
}

/// Answers an upgrade: the response's head, and the body that it is to stream. `endpoint` is given the
/// connection's queue, which holds at most `queue_bytes`.
pub(crate) fn accept<E: Endpoint>(
    request: &HttpRequest,
    protocols: &[&str],
    profile: Profile,
    queue_bytes: usize,
    endpoint: impl FnOnce(SendQueue) -> E,
) -> Result<(HttpResponseBuilder, Body), HandshakeError> {
    let response = handshake(request, protocols)?;
    // Absent if the connection is still the HTTP server's.
    let upgraded = request.extensions_mut().remove::<Upgraded>().ok_or(HandshakeError::NoWebsocketUpgrade)?;
    let frame_timeout = upgraded.frame_timeout();
    let connection = request.conn_data::<Connection>().copied();
    let (send_queue, outgoing) = SendQueue::new(queue_bytes, connection);
    let endpoint = endpoint(send_queue.clone());
    Ok((response, Body::new(endpoint, upgraded, frame_timeout, profile, send_queue, outgoing)))
}

/// Checks the request for an upgrade (RFC 6455 §4.2.1). No extension is negotiated; of the subprotocols that the client
/// offers, the first that is among `protocols`.
fn handshake(request: &HttpRequest, protocols: &[&str]) -> Result<HttpResponseBuilder, HandshakeError> {
    verify_handshake(request.head())?;
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or(HandshakeError::BadWebsocketKey)?;
    if request.version() < Version::HTTP_11 {
        return Err(HandshakeError::NoWebsocketUpgrade);
    }
    let mut response = HttpResponse::SwitchingProtocols();
    response.upgrade("websocket").insert_header((SEC_WEBSOCKET_ACCEPT, &hash_key(key.as_bytes())[..]));
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).filter_map(|offered| offered.to_str().ok());
    let mut offered = offered.flat_map(|offered| offered.split(',')).map(str::trim);
    if let Some(protocol) = offered.find(|protocol| protocols.contains(protocol)) {
        response.insert_header((SEC_WEBSOCKET_PROTOCOL, protocol));
    }
    Ok(response)
}

// --- Writing ----------------------------------------------------------------------------------

/// What the connection sends: the protocol's own pongs, and what is queued. Ends when the client has closed or is gone,
/// or does not answer a close frame.
pub(crate) struct Body {
    context: Pin<Box<dyn Stream<Item = Result<Bytes, Error>>>>,
    /// Says whether the context must be polled: a thousand messages that are sent wake the connection, but
    /// not the context.
    context_waker: Arc<ContextWaker>,
    outgoing: SendQueueStream,
    /// Set once everything is sent and the client has not closed.
    closing: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(crate) fn new<E: Endpoint>(
        endpoint: E,
        bytes: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin + 'static,
        frame_timeout: Duration,
        profile: Profile,
        send_queue: SendQueue,
        outgoing: SendQueueStream,
    ) -> Self {
        let incoming = Incoming::new(bytes, frame_timeout, send_queue.clone(), profile);
        let (fragments, pings) = (Fragments::default(), MessageRateLimiter::default());
        let reader = Reader { endpoint, send_queue, fragments, pings };
        let context_waker =
            Arc::new(ContextWaker { woken: AtomicBool::new(true), connection: AtomicWaker::new() });
        let context = Box::pin(WebsocketContext::create(reader, incoming));
        Self { context, context_waker, outgoing, closing: None }
    }
}

impl Stream for Body {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.context_waker.connection.register(cx.waker());
        // Polling the context is what reads the client's frames: it comes first.
        if self.context_waker.woken.swap(false, Ordering::AcqRel) {
            let waker = Waker::from(self.context_waker.clone());
            match self.context.as_mut().poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(bytes)) => {
                    // It may have more.
                    self.context_waker.woken.store(true, Ordering::Release);
                    return Poll::Ready(Some(bytes));
                }
                Poll::Ready(None) => {
                    // What was queued last is still sent.
                    self.context_waker.woken.store(true, Ordering::Release);
                    return match self.outgoing.poll_next_unpin(cx) {
                        Poll::Ready(bytes) => Poll::Ready(bytes.map(Ok)),
                        Poll::Pending => Poll::Ready(None),
                    };
                }
                Poll::Pending => {}
            }
        }
        match self.outgoing.poll_next_unpin(cx) {
            Poll::Ready(None) => {
                let closing = self.closing.get_or_insert_with(|| Box::pin(sleep(CLOSE_TIMEOUT)));
                closing.as_mut().poll(cx).map(|()| None)
            }
            sending @ (Poll::Ready(Some(_)) | Poll::Pending) => sending.map(|bytes| bytes.map(Ok)),
        }
    }
}

/// The waker that the context is polled with.
struct ContextWaker {
    woken: AtomicBool,
    connection: AtomicWaker,
}

impl Wake for ContextWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.connection.wake();
    }
}

// --- Reading ----------------------------------------------------------------------------------

/// The actor of one connection: puts messages together and passes them to its endpoint.
struct Reader<E> {
    endpoint: E,
    send_queue: SendQueue,
    fragments: Fragments,
    /// Of pings and pongs.
    pings: MessageRateLimiter,
}

impl<E: Endpoint> Reader<E> {
    /// Whether a ping or pong is ignored, since there are too many. A client that goes on is closed.
    fn is_flooded(&mut self) -> bool {
        let verdict = self.pings.message(clock::now());
        if verdict == Verdict::Close {
            self.send_queue.finish_with(frame::close(Close::Policy, "too many pings"));
        }
        verdict != Verdict::Accept
    }
}

impl<E: Endpoint> Actor for Reader<E> {
    type Context = WebsocketContext<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.endpoint.started(&mut EndpointContext(ctx));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.endpoint.stopped();
    }
}

impl<E: Endpoint> StreamHandler<Result<Message, ProtocolError>> for Reader<E> {
    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Self::Context) {
        match message {
            Ok(Message::Close(reason)) => {
                self.send_queue.finish_with(frame::close_echo(reason.map(|reason| reason.code)));
                ctx.stop();
            }
            // The close frame is queued.
            Err(_) => ctx.stop(),
            Ok(_) if !self.send_queue.is_open() => {}
            Ok(Message::Text(text)) => self.endpoint.text(&text, &mut EndpointContext(ctx)),
            Ok(Message::Binary(payload)) => self.endpoint.binary(payload, &mut EndpointContext(ctx)),
            Ok(Message::Continuation(item)) => match self.fragments.take(item) {
                None => {}
                Some(Whole::Binary(payload)) => self.endpoint.binary(payload, &mut EndpointContext(ctx)),
                Some(Whole::Text(text)) => self.endpoint.text(&text, &mut EndpointContext(ctx)),
                Some(Whole::TooLarge) => self.endpoint.too_large(),
            },
            Ok(Message::Ping(_) | Message::Pong(_)) if self.is_flooded() => {}
            Ok(Message::Ping(payload)) => {
                ctx.pong(&payload);
                self.endpoint.alive();
            }
            Ok(Message::Pong(_)) => self.endpoint.alive(),
            Ok(Message::Nop) => {}
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
