//! A consumer's connection: what it is to be told goes out, what it has to say goes to the session that
//! it names.
//!
//! First it is shown every session that it may see; what happens meanwhile may come before. Its own
//! messages are taken one after the other, each once the last one is delivered.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, StreamHandler, WrapFuture};
use actix_web::{Error, HttpRequest, HttpResponse, web::Payload};
use actix_web_actors::ws::{self, Message, ProtocolError, WebsocketContext};
use bytes::Bytes;
use futures::Stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    consumers::{Consumers, QUEUE_BYTES},
    error::{ApiError, Close, Code},
    ids::{SessionId, UserId},
    protocol::{MAX_TEXT_BYTES, Profile},
    session::{
        messages::{Deliver, Undelivered},
        registry::SessionRegistry,
    },
    ws::{
        connection::{Body, guarded},
        fragments::{Fragments, Whole},
        frame,
        send_queue::{Connection, SendQueue},
    },
};

/// How often a consumer is pinged, so that no proxy takes its connection for idle. One that is gone is
/// noticed by the system (TCP_USER_TIMEOUT).
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What the gateway says to clients itself: from somebody else it would mislead them.
const OURS: &[&str] = &[
    "connection_ack",
    "connection_error",
    "auth_error",
    "pong",
    "microphone_state_change",
    "livekit_info",
    "session_end",
];

/// What a consumer says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
enum Said {
    /// Let a client have this.
    Send {
        /// Whose client.
        session_id: SessionId,
        /// What; as it is.
        message: Map<String, Value>,
    },
}

/// Answers an upgrade: somebody who may know the sessions of this user, or all of them.
pub fn upgrade(
    request: &HttpRequest,
    payload: Payload,
    user: Option<&UserId>,
    consumers: &Consumers,
    directory: SessionRegistry,
) -> Result<HttpResponse, ApiError> {
    let mut response = ws::handshake(request).map_err(|error| ApiError::invalid("upgrade", error))?;
    let (send_queue, outgoing) = SendQueue::new(QUEUE_BYTES, request.conn_data::<Connection>().copied());
    let incoming = guarded(payload, send_queue.clone(), Profile::EdgeV1);
    let id = consumers.attach(user.cloned(), send_queue.clone());
    let socket = Socket {
        id,
        user: user.cloned(),
        consumers: consumers.clone(),
        directory,
        send_queue,
        fragments: Fragments::default(),
    };
    let body = Introduced {
        sessions: consumers.sessions(user).into_iter(),
        consumers: consumers.clone(),
        then: Body::new(WebsocketContext::create(socket, incoming), outgoing),
    };
    Ok(response.streaming(body))
}

/// What the connection sends: first each session as it is at that moment.
struct Introduced {
    sessions: vec::IntoIter<SessionId>,
    consumers: Consumers,
    then: Body,
}

impl Stream for Introduced {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some(session) = self.sessions.next() {
            if let Some(state) = self.consumers.state(session) {
                return Poll::Ready(Some(Ok(state)));
            }
        }
        Pin::new(&mut self.then).poll_next(cx)
    }
}

/// The actor of one connection.
struct Socket {
    id: u64,
    user: Option<UserId>,
    consumers: Consumers,
    directory: SessionRegistry,
    send_queue: SendQueue,
    fragments: Fragments,
}

type Ctx = WebsocketContext<Socket>;

impl Socket {
    fn text(&self, text: &str, ctx: &mut Ctx) {
        /// The consumer's own id for a message, which the answer carries.
        #[derive(Deserialize)]
        struct Id {
            #[serde(default)]
            id: Value,
        }

        let id = serde_json::from_str::<Id>(text).map_or(Value::Null, |Id { id }| id);
        let said = serde_json::from_str(text)
            .map_err(|error| ApiError::new(Code::MalformedMessage, error.to_string()));
        let message = said.and_then(|Said::Send { session_id, message }| {
            may_send(&message)?;
            Ok((session_id, Value::Object(message).to_string()))
        });
        let (session, message) = match message {
            Ok(message) => message,
            Err(error) => return self.answer(Err(error), &id),
        };
        // One after the other: a consumer that is faster than the sessions waits in its own connection.
        let delivered = deliver(self.directory.clone(), self.user.clone(), session, message);
        ctx.wait(delivered.into_actor(self).map(move |delivered, socket, _| socket.answer(delivered, &id)));
    }

    fn answer(&self, result: Result<(), ApiError>, id: &Value) {
        let answer = match result {
            Ok(()) => json!({"type": "sent", "replyTo": id}),
            Err(ApiError { code, message, retry_after: _ }) => json!({
                "type": "error", "code": code, "message": message,
                "retryable": code.retryable(), "replyTo": id,
            }),
        };
        // A consumer that does not read loses answers like everything else.
        let _ = self.send_queue.send(frame::text(&answer.to_string()));
    }

    fn close(&self, close: Close, reason: &str) {
        let _ = self.send_queue.send(frame::close(close, reason));
        self.send_queue.finish();
    }
}

/// Whether a consumer may send this message, whoever it is for.
fn may_send(message: &Map<String, Value>) -> Result<(), ApiError> {
    let kind = message.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() {
        return Err(ApiError::invalid("message", "needs a \"type\""));
    }
    if OURS.contains(&kind) {
        let why = format!("\"{kind}\" is the gateway's own to say");
        return Err(ApiError::new(Code::Unsupported, why));
    }
    Ok(())
}

/// Sends a message to a session's client, if the consumer may know that user's sessions.
async fn deliver(
    registry: SessionRegistry,
    user: Option<UserId>,
    session: SessionId,
    message: String,
) -> Result<(), ApiError> {
    let owner = registry.user_of(session).await?;
    if user.is_some_and(|user| user != owner) {
        return Err(ApiError::new(Code::Forbidden, "the session is another user's"));
    }
    let actor = registry.live(session).ok_or_else(ApiError::no_such_session)?;
    match actor.send(Deliver(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Undelivered::Away)) => {
            Err(ApiError::new(Code::SessionError, "the client is not there at the moment"))
        }
        Ok(Err(Undelivered::Busy)) => {
            Err(ApiError::new(Code::RateLimited, "the client does not take what it is sent"))
        }
        Err(_) => Err(ApiError::no_such_session()),
    }
}

impl Actor for Socket {
    type Context = Ctx;

    fn started(&mut self, ctx: &mut Ctx) {
        ctx.run_interval(HEARTBEAT, |socket, _| {
            let _ = socket.send_queue.send(frame::ping());
        });
    }

    fn stopped(&mut self, _: &mut Ctx) {
        self.consumers.detach(self.id);
    }
}

impl StreamHandler<Result<Message, ProtocolError>> for Socket {
    fn handle(&mut self, message: Result<Message, ProtocolError>, ctx: &mut Ctx) {
        match message {
            Ok(Message::Text(text)) => self.text(&text, ctx),
            Ok(Message::Continuation(item)) => match self.fragments.take(item) {
                None => {}
                Some(Whole::Text(text)) => self.text(&String::from_utf8_lossy(&text), ctx),
                Some(Whole::Binary(_)) => self.close(Close::Policy, "text only"),
                Some(Whole::TooLarge) => {
                    let message = format!("a message may have at most {MAX_TEXT_BYTES} bytes");
                    self.answer(Err(ApiError::new(Code::TooLarge, message)), &Value::Null);
                }
            },
            Ok(Message::Binary(_)) => self.close(Close::Policy, "text only"),
            Ok(Message::Ping(payload)) => ctx.pong(&payload),
            Ok(Message::Pong(_) | Message::Nop) => {}
            Ok(Message::Close(_)) => self.close(Close::Normal, ""),
            Err(error) => {
                tracing::debug!(%error, "a consumer broke the WebSocket protocol");
                self.close(Close::Policy, "broken WebSocket frame");
            }
        }
    }

    fn finished(&mut self, ctx: &mut Ctx) {
        ctx.stop();
    }
}
