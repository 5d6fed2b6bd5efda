//! One WebSocket connection: reads frames for an [`Endpoint`], and writes what its [`SendQueue`] holds.
//!
//! This is the only file that uses actix-web-actors. A `WebsocketContext` stops entirely, its timers included,
//! while its client does not read (docs/decisions/0001). So nothing that must go on lives in its actor: what
//! is sent goes past it through the [`SendQueue`], and an endpoint only forwards what arrives.
//!
//! ```text
//!   client ─frames─▶ SizeGuard ─▶ WebsocketContext<Reader> ─text, binary─▶ Endpoint
//!      ▲                               │ pong of the protocol                 │
//!      └────── response body ◀─────────┴──────── SendQueueStream ◀─────── SendQueue
//! ```

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
use actix_http::ws::HandshakeError;
use actix_web::{Error, HttpRequest, HttpResponseBuilder, error::PayloadError, web::Payload};
use actix_web_actors::ws::{self, Message, ProtocolError, WebsocketContext};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, task::AtomicWaker};

use crate::{
    error::{Close, Code},
    protocol::{MAX_TEXT_BYTES, Profile},
    ws::{
        fragments::{Fragments, Whole},
        frame::{self, Oversized, SizeGuard},
        send_queue::{Connection, SendQueue, SendQueueStream},
    },
};

/// What the gateway does with the messages of one connection. Sending is not part of it: an endpoint holds
/// the connection's [`SendQueue`].
pub(crate) trait Endpoint: Sized + Unpin + 'static {
    /// The connection is open; no message has been read yet.
    fn started(&mut self, ctx: &mut EndpointContext<'_, Self>);

    fn text(&mut self, text: &str, ctx: &mut EndpointContext<'_, Self>);

    fn binary(&mut self, payload: Bytes, ctx: &mut EndpointContext<'_, Self>);

    /// A fragmented message is no text although it is declared as text.
    fn not_utf8(&mut self);

    /// A fragmented message was over the limit and dropped.
    fn too_large(&mut self);

    /// A ping or pong of the WebSocket protocol arrived.
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
    payload: Payload,
    protocols: &[&str],
    profile: Profile,
    queue_bytes: usize,
    endpoint: impl FnOnce(SendQueue) -> E,
) -> Result<(HttpResponseBuilder, Body), HandshakeError> {
    let response = ws::handshake_with_protocols(request, protocols)?;
    let connection = request.conn_data::<Connection>().copied();
    let (send_queue, outgoing) = SendQueue::new(queue_bytes, connection);
    let endpoint = endpoint(send_queue.clone());
    Ok((response, Body::new(endpoint, payload, profile, send_queue, outgoing)))
}

/// The client's bytes without frames that are too large.
fn guarded(
    payload: impl Stream<Item = Result<Bytes, PayloadError>>,
    send_queue: SendQueue,
    profile: Profile,
) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    let mut guard = SizeGuard::default();
    payload.map(move |chunk| {
        let mut passed = BytesMut::new();
        if let Some(oversized) = guard.pass(chunk?, &mut passed) {
            let message = format!("a frame may have at most {MAX_TEXT_BYTES} bytes");
            // Lost if the queue is full; the session then aborts the connection of a client that does not read.
            let _ = send_queue.send(frame::text(&profile.refusal(Code::TooLarge, message.clone())));
            if oversized == Oversized::Fragment {
                send_queue.finish_with(frame::close(Close::TooBig, &message));
                return Err(PayloadError::Overflow);
            }
        }
        Ok(passed.freeze())
    })
}

// --- Writing ----------------------------------------------------------------------------------

/// What the connection sends: the protocol's own pongs, and what is queued. Ends when either has ended.
pub(crate) struct Body {
    context: Pin<Box<dyn Stream<Item = Result<Bytes, Error>>>>,
    /// Says whether the context must be polled: a thousand messages that are sent wake the connection, but
    /// not the context.
    context_waker: Arc<ContextWaker>,
    outgoing: SendQueueStream,
}

impl Body {
    pub(crate) fn new<E: Endpoint>(
        endpoint: E,
        payload: impl Stream<Item = Result<Bytes, PayloadError>> + 'static,
        profile: Profile,
        send_queue: SendQueue,
        outgoing: SendQueueStream,
    ) -> Self {
        let incoming = guarded(payload, send_queue.clone(), profile);
        let reader = Reader { endpoint, send_queue, fragments: Fragments::default() };
        let context_waker =
            Arc::new(ContextWaker { woken: AtomicBool::new(true), connection: AtomicWaker::new() });
        Self { context: Box::pin(WebsocketContext::create(reader, incoming)), context_waker, outgoing }
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
        self.outgoing.poll_next_unpin(cx).map(|bytes| bytes.map(Ok))
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
            Ok(Message::Text(text)) => self.endpoint.text(&text, &mut EndpointContext(ctx)),
            Ok(Message::Binary(payload)) => self.endpoint.binary(payload, &mut EndpointContext(ctx)),
            Ok(Message::Continuation(item)) => match self.fragments.take(item) {
                None => {}
                Some(Whole::Binary(payload)) => self.endpoint.binary(payload, &mut EndpointContext(ctx)),
                Some(Whole::Text(bytes)) => match std::str::from_utf8(&bytes) {
                    Ok(text) => self.endpoint.text(text, &mut EndpointContext(ctx)),
                    Err(_) => self.endpoint.not_utf8(),
                },
                Some(Whole::TooLarge) => self.endpoint.too_large(),
            },
            Ok(Message::Ping(payload)) => {
                ctx.pong(&payload);
                self.endpoint.alive();
            }
            Ok(Message::Pong(_)) => self.endpoint.alive(),
            Ok(Message::Nop) => {}
            Ok(Message::Close(_)) => self.send_queue.finish_with(frame::close(Close::Normal, "")),
            Err(error) => {
                tracing::debug!(%error, "the client broke the WebSocket protocol");
                self.send_queue.finish_with(frame::close(Close::Policy, "broken WebSocket frame"));
            }
        }
    }

    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
