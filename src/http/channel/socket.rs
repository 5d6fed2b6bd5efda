//! A client's end of its control channel: decodes frames, and forwards them to the session. It decides nothing.
//!
//! The session, its timers and what it sends do not depend on this [`Endpoint`], which stops while the client
//! does not read (docs/decisions/0001).

use std::{net::IpAddr, time::Duration};

use actix::{Recipient, prelude::SendError};
use actix_http::ws::HandshakeError;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures::{FutureExt, future::LocalBoxFuture};
use tokio::time::timeout;

use crate::{
    auth::{Principal, admission::Admission},
    clock,
    error::{Close, Code},
    http::error::ApiError,
    ids::UserId,
    limits::Place,
    protocol::{
        ClientMessage, EDGE_V1, FromClient, MAX_TEXT_BYTES, Profile, ToClient,
        edge_v1::{audio::UplinkFrame, from_client::ConnectionInit},
    },
    session::{
        messages::{self, Attachment, FromSocket, SocketEvent, SocketHandle, TokenEnd},
        registry::{RegistryError, SessionRegistry},
    },
    telemetry,
    ws::{
        connection::{self, Endpoint, EndpointContext},
        frame,
        rate_limit::{MESSAGES_PER_SECOND, MessageRateLimiter, Verdict},
        send_queue::SendQueue,
    },
};

/// What may be queued for a client, in bytes: six seconds of 22 kHz speech, or the 256 messages of a
/// resume.
const QUEUE_BYTES: usize = 256 * 1024;

/// How long a client may take to send `connection_init`.
const INIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take to attach a client: the store may wait for a disk that hangs.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(20);

/// Attempts to attach to a session that may end at the same moment.
const ATTACH_ATTEMPTS: usize = 3;

/// The client that asks for an upgrade.
pub(super) struct Caller {
    pub profile: Profile,
    /// Who it is; none where it authenticates by `connection_init`.
    pub principal: Option<Principal>,
    /// The `connection_init` that the upgrade stands for; `edge.v1` clients send it afterwards.
    pub init: ConnectionInit,
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// Where it reaches the gateway, `https://host`.
    pub base_url: String,
}

/// Answers an upgrade.
pub(super) fn upgrade(
    request: &HttpRequest,
    caller: Caller,
    registry: SessionRegistry,
    admission: Admission,
) -> Result<HttpResponse, HandshakeError> {
    let Caller { profile, principal, init, address, base_url } = caller;
    let socket = |send_queue: SendQueue| Socket {
        handle: SocketHandle::new(registry.next_socket(), send_queue, base_url),
        profile,
        is_authenticated: principal.is_some(),
        init,
        attach: Box::new(move |socket, init| {
            let entry = (registry.clone(), admission.clone());
            attach(principal.clone(), address, entry, socket, profile, init).boxed_local()
        }),
        session: None,
        place: None,
        rate_limit: MessageRateLimiter::default(),
    };
    let (mut response, body) = connection::accept(request, &[EDGE_V1], profile, QUEUE_BYTES, socket)?;
    Ok(response.streaming(body))
}

type Context<'a> = EndpointContext<'a, Socket>;

/// Authenticates a client, and attaches its socket to its session.
type Attach =
    Box<dyn Fn(SocketHandle, ConnectionInit) -> LocalBoxFuture<'static, Result<Attached, ApiError>>>;

/// The session, and the socket's place among the user's.
type Attached = (Recipient<FromSocket>, Place<UserId>);

/// The endpoint of one client.
struct Socket {
    handle: SocketHandle,
    profile: Profile,
    /// The upgrade brought a token; else `connection_init` has to.
    is_authenticated: bool,
    init: ConnectionInit,
    attach: Attach,
    /// None until it is attached: in `edge.v1` by `connection_init`, in `mentra` at once.
    session: Option<Recipient<FromSocket>>,
    /// Its place among the user's, once it is attached.
    place: Option<Place<UserId>>,
    rate_limit: MessageRateLimiter,
}

impl Socket {
    fn message(&mut self, text: &str, ctx: &mut Context<'_>) {
        let ClientMessage { id, message } = match self.profile.decode(text) {
            Ok(message) => message,
            Err(error) if self.session.is_some() => return self.forward(SocketEvent::Malformed(error)),
            Err(error) => return self.reply_error(Code::MalformedMessage, error.to_string(), None),
        };
        if let FromClient::Ping(ping) = &message {
            // Ahead of everything queued: some clients reconnect after 5 s without a pong.
            let pong = ToClient::Pong { t: ping.t.clone() };
            let _ = self.handle.send_queue().send_first(frame::text(&pong.encode(None)));
            return Endpoint::alive(self);
        }
        match (&self.session, message) {
            (None, FromClient::ConnectionInit(init)) if self.profile == Profile::EdgeV1 => {
                self.attach(*init, ctx);
            }
            (None, _) => {
                self.reply_error(Code::SessionError, "send connection_init first".into(), id);
            }
            (Some(_), message) => self.forward(SocketEvent::Message(ClientMessage { id, message })),
        }
    }

    fn over_limit(&self, verdict: Verdict) {
        metrics::counter!(telemetry::FLOODED_MESSAGES).increment(1);
        let warn = || {
            let message = format!("at most {MESSAGES_PER_SECOND} text messages a second: some were dropped");
            self.reply_error(Code::RateLimited, message, None);
        };
        match verdict {
            Verdict::Accept | Verdict::Drop => {}
            Verdict::Warn => warn(),
            Verdict::Close => {
                warn();
                let close = self.profile.close(Close::RateLimited);
                self.handle.send_queue().finish_with(frame::close(close, Code::RateLimited.as_str()));
            }
        }
    }

    /// Attaches to the session. No further frame is read meanwhile.
    fn attach(&mut self, init: ConnectionInit, ctx: &mut Context<'_>) {
        if init.protocol.as_deref().is_some_and(|protocol| protocol != EDGE_V1) {
            let message = format!("this channel speaks {EDGE_V1}");
            return self.refuse(ApiError::new(Code::Unsupported, message));
        }
        let attached = timeout(ATTACH_TIMEOUT, (self.attach)(self.handle.clone(), init));
        let attached = attached.map(|attached| attached.unwrap_or_else(|_| Err(ApiError::late())));
        ctx.wait(attached, |socket, attached| match attached {
            Ok((session, place)) => {
                socket.session = Some(session);
                socket.place = Some(place);
            }
            Err(error) => socket.refuse(error),
        });
    }

    /// Ends a connection that cannot be attached.
    fn refuse(&self, error: ApiError) {
        let code = error.code;
        self.reply(&match self.profile {
            Profile::EdgeV1 => ToClient::from(error).encode(None),
            Profile::Mentra => self.profile.refusal(code, error.message),
        });
        self.handle.send_queue().finish_with(frame::close(self.profile.close(code.close()), code.as_str()));
    }

    /// Reports an error of one message without the session.
    fn reply_error(&self, code: Code, message: String, reply_to: Option<String>) {
        self.reply(&match self.profile {
            Profile::EdgeV1 => ToClient::error(code, message, reply_to).encode(None),
            Profile::Mentra => self.profile.refusal(code, message),
        });
    }

    fn reply(&self, text: &str) {
        // Lost if the queue is full: the session aborts the connection of a client that does not read.
        let _ = self.handle.send_queue().send(frame::text(text));
    }

    fn forward(&self, event: SocketEvent) {
        let Some(session) = &self.session else { return };
        if session.try_send(FromSocket { id: self.handle.id, event }).is_err() {
            metrics::counter!(telemetry::FLOODED_MESSAGES).increment(1);
            self.reply_error(Code::RateLimited, "the session is busy: a message was dropped".into(), None);
        }
    }

    /// A client that reconnects sends its audio in a burst. Where the session's mailbox is full, no further
    /// frame is read until it has taken this one, and the client waits for TCP.
    fn forward_audio(&self, event: SocketEvent, ctx: &mut Context<'_>) {
        let Some(session) = &self.session else { return };
        if let Err(SendError::Full(audio)) = session.try_send(FromSocket { id: self.handle.id, event }) {
            let session = session.clone();
            // A session that ends meanwhile closes the connection itself.
            ctx.wait(async move { session.send(audio).await }, |_, _| ());
        }
    }
}

/// Finds the client's session and attaches to it.
async fn attach(
    principal: Option<Principal>,
    address: Option<IpAddr>,
    (registry, admission): (SessionRegistry, Admission),
    socket: SocketHandle,
    profile: Profile,
    init: ConnectionInit,
) -> Result<Attached, ApiError> {
    let principal = match (principal, &init.token) {
        (Some(principal), _) => principal,
        (None, Some(token)) => admission.by_token(token.expose(), address).await?,
        (None, None) => return Err(ApiError::missing_token()),
    };
    let place = registry.limits().attach_socket(&principal.user)?;
    for _ in 0..ATTACH_ATTEMPTS {
        let record = registry.attachable(&principal, init.resume.as_ref()).await?;
        let session = match registry.actor(&record).await {
            Err(RegistryError::NotFound) => continue,
            session => session?,
        };
        let token = TokenEnd::of(&principal, clock::now(), clock::unix_s());
        let attachment = Attachment { profile, init: init.clone(), token };
        if session.send(messages::Attach { socket: socket.clone(), attachment }).await.is_ok() {
            return Ok((session.recipient(), place));
        }
        // The session ended between finding it and reaching it.
    }
    Err(ApiError::new(Code::SessionError, "the session ended while you attached; try again"))
}

impl Endpoint for Socket {
    fn started(&mut self, ctx: &mut Context<'_>) {
        metrics::gauge!(telemetry::SOCKETS).increment(1);
        if self.profile == Profile::Mentra {
            return self.attach(self.init.clone(), ctx);
        }
        ctx.after(INIT_TIMEOUT, |socket| {
            if socket.session.is_none() {
                let message = format!("no connection_init within {} s", INIT_TIMEOUT.as_secs());
                let code = if socket.is_authenticated { Code::SessionError } else { Code::MissingToken };
                socket.refuse(ApiError::new(code, message));
            }
        });
    }

    fn text(&mut self, text: &str, ctx: &mut Context<'_>) {
        match self.rate_limit.message(clock::now()) {
            Verdict::Accept => self.message(text, ctx),
            verdict @ (Verdict::Drop | Verdict::Warn | Verdict::Close) => self.over_limit(verdict),
        }
    }

    fn binary(&mut self, payload: Bytes, ctx: &mut Context<'_>) {
        if self.profile == Profile::Mentra {
            return self.forward_audio(SocketEvent::Pcm(payload), ctx);
        }
        match (UplinkFrame::decode(payload), self.session.is_some()) {
            (Ok(audio), true) => self.forward_audio(SocketEvent::Audio(audio), ctx),
            (Err(error), true) => self.forward(SocketEvent::Malformed(error)),
            (_, false) => self.reply_error(Code::SessionError, "send connection_init first".into(), None),
        }
    }

    fn too_large(&mut self) {
        let message = format!("a message may have at most {MAX_TEXT_BYTES} bytes");
        self.reply_error(Code::TooLarge, message, None);
    }

    fn alive(&mut self) {
        if let Some(session) = &self.session {
            // Dropped if the mailbox is full: queued messages already prove liveness.
            let _ = session.try_send(FromSocket { id: self.handle.id, event: SocketEvent::Alive });
        }
    }

    fn stopped(&mut self) {
        metrics::gauge!(telemetry::SOCKETS).decrement(1);
        if let Some(session) = &self.session {
            let closed = FromSocket { id: self.handle.id, event: SocketEvent::Closed };
            if let Err(error) = session.try_send(closed) {
                // The session must learn of it: where its mailbox is full, this message waits.
                let session = session.clone();
                actix::spawn(async move {
                    let _ = session.send(error.into_inner()).await;
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
