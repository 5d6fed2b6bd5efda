//! The WebSocket's own actor: bytes in, messages to the session; it decides nothing.
//!
//! It is the only file that uses actix-web-actors. A `WebsocketContext` stops altogether, its timers
//! included, when its client stops reading: so the session, its timers and what it sends live
//! elsewhere ([`SessionActor`], [`Outlet`]), and this actor has only what comes from the client.
//!
//! ```text
//!   client ─frames─▶ SizeGuard ─▶ WebsocketContext<Socket> ─FromSocket─▶ SessionActor
//!      ▲                               │ pong of the protocol               │
//!      └────────── response body ◀─────┴───────── OutletStream ◀── Outlet ◀─┘
//! ```

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, StreamHandler, WrapFuture, prelude::SendError,
};
use actix_http::ws::Item;
use actix_web::{Error, HttpRequest, HttpResponse, error::PayloadError, web::Payload};
use actix_web_actors::ws::{self, Message, ProtocolError, WebsocketContext};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures::{Stream, StreamExt};

use super::{
    actor::SessionActor,
    directory::Directory,
    messages::{Attach, FromSocket, SocketHandle, SocketNews},
};
use crate::{
    auth::Grant,
    clock,
    error::{ApiError, Close, Code},
    outlet::{Connection, Outlet, OutletStream},
    protocol::{
        DecodeError, EDGE_V1, FromClient, MAX_TEXT_BYTES, Said, ToClient,
        audio::Up,
        frame::{self, Oversized, SizeGuard},
        from_client::ConnectionInit,
    },
    telemetry,
};

/// What may be queued for a client, in bytes: six seconds of 22 kHz speech, or the 256 messages of a
/// resume.
const QUEUE_BYTES: usize = 256 * 1024;

/// How long a client may take to say `connection_init`.
const INIT_WITHIN: Duration = Duration::from_secs(5);

/// Attempts to attach to a session that may end at the same moment.
const ATTACH_ATTEMPTS: usize = 3;

/// Answers an upgrade: the client proved to be `grant`.
pub fn upgrade(
    request: &HttpRequest,
    payload: Payload,
    grant: Grant,
    directory: Directory,
) -> Result<HttpResponse, Error> {
    let mut response = ws::handshake_with_protocols(request, &[EDGE_V1])?;
    let connection = request.conn_data::<Connection>().copied();
    let (outlet, outgoing) = Outlet::new(QUEUE_BYTES, connection);
    let id = directory.next_socket();
    let incoming = guarded(payload, outlet.clone());
    let socket = Socket { id, grant, directory, outlet, session: None, fragments: None };
    let context = WebsocketContext::create(socket, incoming);
    Ok(response.streaming(Body { context: Box::pin(context), outgoing, sent: false }))
}

/// The client's bytes, without frames that are too large.
fn guarded(payload: Payload, outlet: Outlet) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    let mut guard = SizeGuard::default();
    payload.map(move |chunk| {
        let mut passed = BytesMut::new();
        if let Some(oversized) = guard.pass(chunk?, &mut passed) {
            let message = format!("a frame may have at most {MAX_TEXT_BYTES} bytes");
            let error = ToClient::error(Code::TooLarge, message.clone(), None);
            // A client that reads nothing either is cut by its session.
            let _ = outlet.send(frame::text(&error.encode(None)));
            if oversized == Oversized::Fragment {
                let _ = outlet.send(frame::close(Close::TooBig, &message));
                outlet.finish();
                return Err(PayloadError::Overflow);
            }
        }
        Ok(passed.freeze())
    })
}

/// What the connection sends: the protocol's own pongs, and what the session says. Ends when either is
/// over.
struct Body {
    context: Pin<Box<dyn Stream<Item = Result<Bytes, Error>>>>,
    outgoing: OutletStream,
    /// The last thing that was sent came from the outlet: the context has its turn.
    sent: bool,
}

impl Stream for Body {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Polling the context is what takes in the client's frames: it comes first, but for a frame
        // that waits already, so that it is not polled twice for each that is sent.
        if !self.sent
            && let Poll::Ready(Some(bytes)) = self.outgoing.poll_next_unpin(cx)
        {
            self.sent = true;
            return Poll::Ready(Some(Ok(bytes)));
        }
        self.sent = false;
        let context = self.context.as_mut().poll_next(cx);
        if let Poll::Ready(Some(bytes)) = context {
            return Poll::Ready(Some(bytes));
        }
        match self.outgoing.poll_next_unpin(cx) {
            Poll::Ready(bytes) => Poll::Ready(bytes.map(Ok)),
            Poll::Pending if context.is_ready() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The actor of one connection.
struct Socket {
    id: u64,
    grant: Grant,
    directory: Directory,
    /// The way out, past this actor.
    outlet: Outlet,
    /// None until `connection_init`.
    session: Option<Addr<SessionActor>>,
    /// A message that comes in pieces, and whether it is text.
    fragments: Option<(bool, BytesMut)>,
}

type Ctx = WebsocketContext<Socket>;

impl Socket {
    fn text(&mut self, text: &str, ctx: &mut Ctx) {
        let said = match Said::decode(text) {
            Ok(said) => said,
            Err(error) if self.session.is_some() => return self.tell_session(SocketNews::Malformed(error)),
            Err(error) => {
                return self.tell(&ToClient::error(Code::MalformedMessage, error.to_string(), None));
            }
        };
        if let FromClient::Ping(ping) = &said.message {
            // Ahead of everything queued: some clients reconnect when it takes more than 5 s.
            let pong = ToClient::Pong { t: ping.t.clone() };
            let _ = self.outlet.send_first(frame::text(&pong.encode(None)));
            return self.alive();
        }
        match (&self.session, said.message) {
            (None, FromClient::ConnectionInit(init)) => self.attach(*init, ctx),
            (None, _) => {
                let message = "say connection_init first";
                self.tell(&ToClient::error(Code::SessionError, message, said.id));
            }
            (Some(_), message) => self.tell_session(SocketNews::Said(Said { id: said.id, message })),
        }
    }

    fn binary(&mut self, payload: Bytes, ctx: &mut Ctx) {
        match (Up::decode(payload), self.session.is_some()) {
            (Ok(audio), true) => self.hear(audio, ctx),
            (Err(error), true) => self.tell_session(SocketNews::Malformed(error)),
            (_, false) => {
                self.tell(&ToClient::error(Code::SessionError, "say connection_init first", None));
            }
        }
    }

    /// Attaches to the session. No further frame is looked at meanwhile.
    fn attach(&mut self, init: ConnectionInit, ctx: &mut Ctx) {
        if init.protocol.as_deref().is_some_and(|protocol| protocol != EDGE_V1) {
            let message = format!("this channel speaks {EDGE_V1}");
            return self.refuse(ApiError::new(Code::Unsupported, message), Close::Policy);
        }
        let attached = attach(
            self.directory.clone(),
            self.grant.clone(),
            SocketHandle::new(self.id, self.outlet.clone()),
            init,
        );
        ctx.wait(attached.into_actor(self).map(|attached, socket, _| match attached {
            Ok(session) => socket.session = Some(session),
            Err(error) => {
                let close = if error.code == Code::InternalError { Close::Internal } else { Close::Policy };
                socket.refuse(error, close);
            }
        }));
    }

    /// Ends a connection that cannot be attached.
    fn refuse(&self, error: ApiError, close: Close) {
        self.tell(&ToClient::ConnectionError {
            code: error.code,
            retryable: error.code.retryable(),
            retry_after_ms: None,
            message: error.message,
            timestamp: clock::timestamp(clock::unix_ms()),
        });
        let _ = self.outlet.send(frame::close(close, error.code.as_str()));
        self.outlet.finish();
    }

    /// Answers without the session.
    fn tell(&self, message: &ToClient) {
        // The queue is for the session to watch; what does not fit here is lost.
        let _ = self.outlet.send(frame::text(&message.encode(None)));
    }

    fn alive(&self) {
        if let Some(session) = &self.session {
            // A session whose mailbox is full has signs of life enough.
            let _ = session.try_send(FromSocket { id: self.id, news: SocketNews::Alive });
        }
    }

    fn tell_session(&self, news: SocketNews) {
        let Some(session) = &self.session else { return };
        if session.try_send(FromSocket { id: self.id, news }).is_err() {
            metrics::counter!(telemetry::FLOODED_MESSAGES).increment(1);
            self.tell(&ToClient::error(Code::RateLimited, "slower, please: a message was dropped", None));
        }
    }

    /// Sound comes in bursts when a client is back. What the session has no room for waits here, and TCP
    /// makes the client wait.
    fn hear(&self, audio: Up, ctx: &mut Ctx) {
        let Some(session) = &self.session else { return };
        let audio = FromSocket { id: self.id, news: SocketNews::Audio(audio) };
        if let Err(SendError::Full(audio)) = session.try_send(audio) {
            let session = session.clone();
            let told = async move { session.send(audio).await };
            // A session that ended meanwhile tells the client itself.
            ctx.wait(told.into_actor(self).map(|_, _, _| ()));
        }
    }

    fn fragment(&mut self, item: Item, ctx: &mut Ctx) {
        let (piece, last) = match item {
            Item::FirstText(piece) => {
                self.fragments = Some((true, BytesMut::new()));
                (piece, false)
            }
            Item::FirstBinary(piece) => {
                self.fragments = Some((false, BytesMut::new()));
                (piece, false)
            }
            Item::Continue(piece) => (piece, false),
            Item::Last(piece) => (piece, true),
        };
        let Some((is_text, message)) = &mut self.fragments else {
            return;
        };
        message.extend_from_slice(&piece);
        if message.len() > MAX_TEXT_BYTES {
            self.fragments = None;
            let message = format!("a message may have at most {MAX_TEXT_BYTES} bytes");
            return self.tell(&ToClient::error(Code::TooLarge, message, None));
        }
        if last {
            let (is_text, message) = (*is_text, std::mem::take(message).freeze());
            self.fragments = None;
            if !is_text {
                return self.binary(message, ctx);
            }
            match ByteString::try_from(message) {
                Ok(text) => self.text(&text, ctx),
                Err(_) => self.tell_session(SocketNews::Malformed(DecodeError::Json("not UTF-8".into()))),
            }
        }
    }
}

/// Finds the client's session and attaches to it.
async fn attach(
    directory: Directory,
    grant: Grant,
    socket: SocketHandle,
    init: ConnectionInit,
) -> Result<Addr<SessionActor>, ApiError> {
    for _ in 0..ATTACH_ATTEMPTS {
        let record = directory.attachable(&grant, init.resume.as_ref())?;
        let session = directory.actor(&record)?;
        if session.send(Attach { socket: socket.clone(), init: init.clone() }).await.is_ok() {
            return Ok(session);
        }
        // The session ended between finding it and reaching it.
    }
    Err(ApiError::new(Code::SessionError, "the session ended while you attached; try again"))
}

impl Actor for Socket {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        metrics::gauge!(telemetry::SOCKETS).increment(1);
        ctx.run_later(INIT_WITHIN, |socket, _| {
            if socket.session.is_none() {
                let message = format!("no connection_init within {} s", INIT_WITHIN.as_secs());
                socket.refuse(ApiError::new(Code::SessionError, message), Close::Policy);
            }
        });
    }

    fn stopped(&mut self, _: &mut Ctx) {
        metrics::gauge!(telemetry::SOCKETS).decrement(1);
        if let Some(session) = &self.session {
            let closed = FromSocket { id: self.id, news: SocketNews::Closed };
            if let Err(error) = session.try_send(closed) {
                // The session must learn of it: one whose mailbox is full gets the news a little later.
                let session = session.clone();
                actix::spawn(async move {
                    let _ = session.send(error.into_inner()).await;
                });
            }
        }
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for Socket {
    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Ctx) {
        match message {
            Ok(Message::Text(text)) => self.text(&text, ctx),
            Ok(Message::Binary(payload)) => self.binary(payload, ctx),
            Ok(Message::Continuation(item)) => self.fragment(item, ctx),
            Ok(Message::Ping(payload)) => {
                ctx.pong(&payload);
                self.alive();
            }
            Ok(Message::Pong(_)) => self.alive(),
            Ok(Message::Nop) => {}
            Ok(Message::Close(_)) => {
                let _ = self.outlet.send(frame::close(Close::Normal, ""));
                self.outlet.finish();
            }
            Err(error) => {
                tracing::debug!(%error, "client broke the WebSocket protocol");
                let _ = self.outlet.send(frame::close(Close::Policy, "broken WebSocket frame"));
                self.outlet.finish();
            }
        }
    }

    fn finished(&mut self, ctx: &mut Ctx) {
        ctx.stop();
    }
}
