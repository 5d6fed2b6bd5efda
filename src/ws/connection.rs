//! The WebSocket's own actor: bytes in, messages to the session; it decides nothing.
//!
//! It is the only file that uses actix-web-actors. A `WebsocketContext` stops altogether, its timers
//! included, when its client stops reading: so the session, its timers and what it sends live
//! elsewhere ([`SessionActor`], [`SendQueue`]), and this actor has only what comes from the client.
//!
//! ```text
//!   client ─frames─▶ SizeGuard ─▶ WebsocketContext<Socket> ─FromSocket─▶ SessionActor
//!      ▲                               │ pong of the protocol               │
//!      └────────── response body ◀─────┴───────── SendQueueStream ◀── SendQueue ◀─┘
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

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, StreamHandler, WrapFuture, prelude::SendError,
};
use actix_http::ws::Item;
use actix_web::{Error, HttpRequest, HttpResponse, error::PayloadError, web::Payload};
use actix_web_actors::ws::{self, Message, ProtocolError, WebsocketContext};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures::{Stream, StreamExt, task::AtomicWaker};

use crate::{
    auth::{Principal, admission::Admission},
    clock,
    error::{ApiError, Close, Code},
    protocol::{
        ClientMessage, DecodeError, EDGE_V1, FromClient, MAX_TEXT_BYTES, Profile, ToClient,
        edge_v1::{audio::UplinkFrame, from_client::ConnectionInit},
    },
    session::{
        actor::SessionActor,
        messages::{Attach, Attachment, FromSocket, SocketEvent, SocketHandle, TokenEnd},
        registry::{RegistryError, SessionRegistry},
    },
    telemetry,
    ws::{
        fragments::{Fragments, Whole},
        frame::{self, Oversized, SizeGuard},
        rate_limit::{LIMIT, MessageRateLimiter, Verdict},
        send_queue::{Connection, SendQueue, SendQueueStream},
    },
};

/// What may be queued for a client, in bytes: six seconds of 22 kHz speech, or the 256 messages of a
/// resume.
const QUEUE_BYTES: usize = 256 * 1024;

/// How long a client may take to say `connection_init`.
const INIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Attempts to attach to a session that may end at the same moment.
const ATTACH_ATTEMPTS: usize = 3;

/// Who upgrades.
pub struct Caller {
    /// What it speaks.
    pub profile: Profile,
    /// Who it proved to be; none where it has still to prove that.
    pub principal: Option<Principal>,
    /// What it said of itself by upgrading; clients of `edge.v1` say it afterwards.
    pub init: ConnectionInit,
    /// Where it reaches the gateway, `https://host`.
    pub base_url: String,
}

/// Answers an upgrade.
pub fn upgrade(
    request: &HttpRequest,
    payload: Payload,
    caller: Caller,
    registry: SessionRegistry,
    admission: Admission,
) -> Result<HttpResponse, Error> {
    let mut response = ws::handshake_with_protocols(request, &[EDGE_V1])?;
    let connection = request.conn_data::<Connection>().copied();
    let (send_queue, outgoing) = SendQueue::new(QUEUE_BYTES, connection);
    let id = registry.next_socket();
    let Caller { profile, principal, init, base_url } = caller;
    let incoming = guarded(payload, send_queue.clone(), profile);
    let socket = Socket {
        id,
        profile,
        principal,
        init,
        base_url,
        registry,
        admission,
        send_queue,
        session: None,
        fragments: Fragments::default(),
        rate_limit: MessageRateLimiter::default(),
    };
    let context = WebsocketContext::create(socket, incoming);
    Ok(response.streaming(Body::new(context, outgoing)))
}

/// The client's bytes, without frames that are too large.
pub(crate) fn guarded(
    payload: Payload,
    send_queue: SendQueue,
    profile: Profile,
) -> impl Stream<Item = Result<Bytes, PayloadError>> {
    let mut guard = SizeGuard::default();
    payload.map(move |chunk| {
        let mut passed = BytesMut::new();
        if let Some(oversized) = guard.pass(chunk?, &mut passed) {
            let message = format!("a frame may have at most {MAX_TEXT_BYTES} bytes");
            // A client that reads nothing either is cut by its session.
            let _ = send_queue.send(frame::text(&profile.refusal(Code::TooLarge, message.clone())));
            if oversized == Oversized::Fragment {
                let _ = send_queue.send(frame::close(Close::TooBig, &message));
                send_queue.finish();
                return Err(PayloadError::Overflow);
            }
        }
        Ok(passed.freeze())
    })
}

/// What the connection sends: the protocol's own pongs, and what the session says. Ends when either is
/// over.
pub(crate) struct Body {
    context: Pin<Box<dyn Stream<Item = Result<Bytes, Error>>>>,
    /// Wakes the connection for the context's sake, and remembers that it did: of a thousand messages
    /// that are sent down, none is a reason to look through the context.
    doorbell: Arc<Doorbell>,
    outgoing: SendQueueStream,
}

impl Body {
    /// The body of an actor's connection, and of what is sent past it.
    pub(crate) fn new(
        context: impl Stream<Item = Result<Bytes, Error>> + 'static,
        outgoing: SendQueueStream,
    ) -> Self {
        let doorbell = Arc::new(Doorbell { rung: AtomicBool::new(true), connection: AtomicWaker::new() });
        Self { context: Box::pin(context), doorbell, outgoing }
    }
}

impl Stream for Body {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.doorbell.connection.register(cx.waker());
        // Polling the context is what takes in the client's frames: it comes first.
        if self.doorbell.rung.swap(false, Ordering::AcqRel) {
            let waker = Waker::from(self.doorbell.clone());
            match self.context.as_mut().poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(bytes)) => {
                    // It may have more.
                    self.doorbell.rung.store(true, Ordering::Release);
                    return Poll::Ready(Some(bytes));
                }
                Poll::Ready(None) => {
                    // What was said last still goes out.
                    self.doorbell.rung.store(true, Ordering::Release);
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

/// The context's waker.
struct Doorbell {
    rung: AtomicBool,
    connection: AtomicWaker,
}

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.connection.wake();
    }
}

/// The actor of one connection.
struct Socket {
    id: u64,
    profile: Profile,
    /// None until `connection_init`, where the request had no token.
    principal: Option<Principal>,
    /// What it said of itself by upgrading.
    init: ConnectionInit,
    base_url: String,
    registry: SessionRegistry,
    admission: Admission,
    /// The way out, past this actor.
    send_queue: SendQueue,
    /// None until it is attached: in `edge.v1` by `connection_init`, in `mentra` at once.
    session: Option<Addr<SessionActor>>,
    /// A message that comes in pieces.
    fragments: Fragments,
    /// How many text messages came.
    rate_limit: MessageRateLimiter,
}

type Ctx = WebsocketContext<Socket>;

impl Socket {
    fn text(&mut self, text: &str, ctx: &mut Ctx) {
        match self.rate_limit.message(clock::now()) {
            Verdict::Take => {}
            verdict @ (Verdict::Drop | Verdict::Tell | Verdict::Close) => return self.flooded(verdict),
        }
        let ClientMessage { id, message } = match self.profile.decode(text) {
            Ok(message) => message,
            Err(error) if self.session.is_some() => return self.tell_session(SocketEvent::Malformed(error)),
            Err(error) => return self.object(Code::MalformedMessage, error.to_string(), None),
        };
        if let FromClient::Ping(ping) = &message {
            // Ahead of everything queued: some clients reconnect when it takes more than 5 s.
            let pong = ToClient::Pong { t: ping.t.clone() };
            let _ = self.send_queue.send_first(frame::text(&pong.encode(None)));
            return self.alive();
        }
        match (&self.session, message) {
            (None, FromClient::ConnectionInit(init)) if self.profile == Profile::EdgeV1 => {
                self.attach(*init, ctx);
            }
            (None, _) => {
                self.object(Code::SessionError, "send connection_init first".into(), id);
            }
            (Some(_), message) => self.tell_session(SocketEvent::Message(ClientMessage { id, message })),
        }
    }

    /// A message too many.
    fn flooded(&self, verdict: Verdict) {
        metrics::counter!(telemetry::FLOODED_MESSAGES).increment(1);
        let slower = || {
            let message = format!("at most {LIMIT} text messages a second: some were dropped");
            self.object(Code::RateLimited, message, None);
        };
        match verdict {
            Verdict::Take | Verdict::Drop => {}
            Verdict::Tell => slower(),
            Verdict::Close => {
                slower();
                let close = self.profile.close(Close::RateLimited);
                let _ = self.send_queue.send(frame::close(close, Code::RateLimited.as_str()));
                self.send_queue.finish();
            }
        }
    }

    fn binary(&self, payload: Bytes, ctx: &mut Ctx) {
        if self.profile == Profile::Mentra {
            return self.forward_audio(SocketEvent::Pcm(payload), ctx);
        }
        match (UplinkFrame::decode(payload), self.session.is_some()) {
            (Ok(audio), true) => self.forward_audio(SocketEvent::Audio(audio), ctx),
            (Err(error), true) => self.tell_session(SocketEvent::Malformed(error)),
            (_, false) => self.object(Code::SessionError, "say connection_init first".into(), None),
        }
    }

    /// Attaches to the session. No further frame is looked at meanwhile.
    fn attach(&mut self, init: ConnectionInit, ctx: &mut Ctx) {
        if init.protocol.as_deref().is_some_and(|protocol| protocol != EDGE_V1) {
            let message = format!("this channel speaks {EDGE_V1}");
            return self.refuse(ApiError::new(Code::Unsupported, message));
        }
        let (principal, admission, registry, profile) =
            (self.principal.clone(), self.admission.clone(), self.registry.clone(), self.profile);
        let socket = SocketHandle::new(self.id, self.send_queue.clone(), self.base_url.clone());
        let attached = async move {
            let principal = match (principal, &init.token) {
                (Some(principal), _) => principal,
                (None, Some(token)) => admission.by_token(token.expose()).await?,
                (None, None) => return Err(ApiError::missing_token()),
            };
            attach(registry, principal, socket, profile, init).await
        };
        ctx.wait(attached.into_actor(self).map(|attached, socket, _| match attached {
            Ok(session) => socket.session = Some(session),
            Err(error) => socket.refuse(error),
        }));
    }

    /// Ends a connection that cannot be attached.
    fn refuse(&self, error: ApiError) {
        let code = error.code;
        self.tell(&match self.profile {
            Profile::EdgeV1 => ToClient::from(error).encode(None),
            Profile::Mentra => self.profile.refusal(code, error.message),
        });
        let _ = self.send_queue.send(frame::close(self.profile.close(code.close()), code.as_str()));
        self.send_queue.finish();
    }

    /// Something is wrong with one message, and the session has nothing to do with it.
    fn object(&self, code: Code, message: String, reply_to: Option<String>) {
        self.tell(&match self.profile {
            Profile::EdgeV1 => ToClient::error(code, message, reply_to).encode(None),
            Profile::Mentra => self.profile.refusal(code, message),
        });
    }

    /// Answers without the session.
    fn tell(&self, text: &str) {
        // The queue is for the session to watch; what does not fit here is lost.
        let _ = self.send_queue.send(frame::text(text));
    }

    fn alive(&self) {
        if let Some(session) = &self.session {
            // A session whose mailbox is full has signs of life enough.
            let _ = session.try_send(FromSocket { id: self.id, event: SocketEvent::Alive });
        }
    }

    fn tell_session(&self, event: SocketEvent) {
        let Some(session) = &self.session else { return };
        if session.try_send(FromSocket { id: self.id, event }).is_err() {
            metrics::counter!(telemetry::FLOODED_MESSAGES).increment(1);
            self.object(Code::RateLimited, "slower, please: a message was dropped".into(), None);
        }
    }

    /// Sound comes in bursts when a client is back. What the session has no room for waits here, and TCP
    /// makes the client wait.
    fn forward_audio(&self, sound: SocketEvent, ctx: &mut Ctx) {
        let Some(session) = &self.session else { return };
        let sound = FromSocket { id: self.id, event: sound };
        if let Err(SendError::Full(sound)) = session.try_send(sound) {
            let session = session.clone();
            let told = async move { session.send(sound).await };
            // A session that ended meanwhile tells the client itself.
            ctx.wait(told.into_actor(self).map(|_, _, _| ()));
        }
    }

    fn fragment(&mut self, item: Item, ctx: &mut Ctx) {
        match self.fragments.take(item) {
            None => {}
            Some(Whole::Binary(message)) => self.binary(message, ctx),
            Some(Whole::Text(message)) => match ByteString::try_from(message) {
                Ok(text) => self.text(&text, ctx),
                Err(_) => self.tell_session(SocketEvent::Malformed(DecodeError::Json("not UTF-8".into()))),
            },
            Some(Whole::TooLarge) => {
                let message = format!("a message may have at most {MAX_TEXT_BYTES} bytes");
                self.object(Code::TooLarge, message, None);
            }
        }
    }
}

/// Finds the client's session and attaches to it.
async fn attach(
    registry: SessionRegistry,
    principal: Principal,
    socket: SocketHandle,
    profile: Profile,
    init: ConnectionInit,
) -> Result<Addr<SessionActor>, ApiError> {
    for _ in 0..ATTACH_ATTEMPTS {
        let record = registry.attachable(&principal, init.resume.as_ref()).await?;
        let session = match registry.actor(&record).await {
            Err(RegistryError::NotFound) => continue,
            session => session?,
        };
        let token = TokenEnd::of(&principal, clock::now(), clock::unix_s());
        let attachment = Attachment { profile, init: init.clone(), token };
        let attach = Attach { socket: socket.clone(), attachment };
        if session.send(attach).await.is_ok() {
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
        if self.profile == Profile::Mentra {
            return self.attach(self.init.clone(), ctx);
        }
        ctx.run_later(INIT_TIMEOUT, |socket, _| {
            if socket.session.is_none() {
                let message = format!("no connection_init within {} s", INIT_TIMEOUT.as_secs());
                let code = if socket.principal.is_some() { Code::SessionError } else { Code::MissingToken };
                socket.refuse(ApiError::new(code, message));
            }
        });
    }

    fn stopped(&mut self, _: &mut Ctx) {
        metrics::gauge!(telemetry::SOCKETS).decrement(1);
        if let Some(session) = &self.session {
            let closed = FromSocket { id: self.id, event: SocketEvent::Closed };
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
                let _ = self.send_queue.send(frame::close(Close::Normal, ""));
                self.send_queue.finish();
            }
            Err(error) => {
                tracing::debug!(%error, "client broke the WebSocket protocol");
                let _ = self.send_queue.send(frame::close(Close::Policy, "broken WebSocket frame"));
                self.send_queue.finish();
            }
        }
    }

    fn finished(&mut self, ctx: &mut Ctx) {
        ctx.stop();
    }
}
