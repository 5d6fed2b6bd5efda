//! A consumer's end of its connection: receives what clients send, and sends to clients.
//!
//! First it receives the state of every session that it may see; messages of sessions may come in between. Its own
//! messages are handled one after the other, each once the one before has been delivered.

use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
    vec,
};

use actix_web::{Error, HttpRequest, HttpResponse};
use bytes::Bytes;
use futures::Stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    auth::{AuthError, Authenticator},
    consumers::{ConsumerId, Consumers, QUEUE_BYTES},
    error::{Close, Code},
    http::{AppState, error::ApiError, middleware::auth::Caller},
    ids::{SessionId, UserId},
    limits::Place,
    protocol::{MAX_TEXT_BYTES, Profile},
    session::{
        messages::{Deliver, Undelivered},
        registry::SessionRegistry,
    },
    ws::{
        connection::{self, Body, Endpoint, EndpointContext},
        frame,
        send_queue::SendQueue,
    },
};

/// How often a consumer is pinged, so that no proxy closes its connection as idle. The system ends a
/// connection whose peer is gone (TCP_USER_TIMEOUT).
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Types of messages that only the gateway sends to clients.
const RESERVED_TYPES: &[&str] = &[
    "connection_ack",
    "connection_error",
    "auth_error",
    "pong",
    "microphone_state_change",
    "livekit_info",
    "session_end",
];

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
enum FromConsumer {
    /// Sends `message` to the session's client, unchanged.
    Send { session_id: SessionId, message: Map<String, Value> },
}

/// Answers an upgrade of a consumer of one user's sessions, or of all sessions.
pub(super) fn upgrade(
    request: &HttpRequest,
    user: Option<&UserId>,
    caller: Caller,
    app: &AppState,
    place: Place<()>,
) -> Result<HttpResponse, ApiError> {
    let consumers = &app.consumers;
    let endpoint = |send_queue: SendQueue| ConsumerSocket {
        id: consumers.attach(user.cloned(), send_queue.clone()),
        user: user.cloned(),
        consumers: consumers.clone(),
        registry: app.registry.clone(),
        caller,
        authenticator: app.authenticator.clone(),
        send_queue,
        _place: place,
    };
    let (mut response, body) = connection::accept(request, &[], Profile::EdgeV1, QUEUE_BYTES, endpoint)?;
    let states = consumers.sessions(user).into_iter();
    Ok(response.streaming(StatesFirst { sessions: states, consumers: consumers.clone(), body }))
}

/// What the connection sends: first the state of each session as it is at that moment.
struct StatesFirst {
    sessions: vec::IntoIter<SessionId>,
    consumers: Consumers,
    body: Body,
}

impl Stream for StatesFirst {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        while let Some(session) = self.sessions.next() {
            if let Some(state) = self.consumers.state(session) {
                return Poll::Ready(Some(Ok(state)));
            }
        }
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// The endpoint of one consumer.
struct ConsumerSocket {
    id: ConsumerId,
    user: Option<UserId>,
    consumers: Consumers,
    registry: SessionRegistry,
    caller: Caller,
    authenticator: Authenticator,
    send_queue: SendQueue,
    _place: Place<()>,
}

type Context<'a> = EndpointContext<'a, ConsumerSocket>;

impl ConsumerSocket {
    fn reply(&self, result: Result<(), ApiError>, id: &Value) {
        let reply = match result {
            Ok(()) => json!({"type": "sent", "replyTo": id}),
            Err(ApiError { code, message, retry_after: _ }) => json!({
                "type": "error", "code": code, "message": message,
                "retryable": code.retryable(), "replyTo": id,
            }),
        };
        // Lost if the queue is full, like all messages to a consumer that does not read.
        let _ = self.send_queue.send(frame::text(&reply.to_string()));
    }
}

/// Whether a consumer may send a message of this type.
fn check(message: &Map<String, Value>) -> Result<(), ApiError> {
    let kind = message.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() {
        return Err(ApiError::invalid("message", "needs a \"type\""));
    }
    if RESERVED_TYPES.contains(&kind) {
        let message = format!("only the gateway sends messages of type \"{kind}\"");
        return Err(ApiError::new(Code::Unsupported, message));
    }
    Ok(())
}

/// Sends a message to the client of a session, if the consumer may know that user's sessions.
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
            Err(ApiError::new(Code::SessionError, "no client is attached to the session"))
        }
        Ok(Err(Undelivered::Busy)) => {
            Err(ApiError::new(Code::RateLimited, "the client does not read what it is sent"))
        }
        Err(_) => Err(ApiError::no_such_session()),
    }
}

impl Endpoint for ConsumerSocket {
    fn started(&mut self, ctx: &mut Context<'_>) {
        ctx.every(PING_INTERVAL, |socket| {
            if !socket.caller.is_current(&socket.authenticator) {
                let close = frame::close(Close::Unauthorized, "the API key was revoked");
                return socket.send_queue.finish_with(close);
            }
            let _ = socket.send_queue.send(frame::ping());
        });
    }

    fn text(&mut self, text: &str, ctx: &mut Context<'_>) {
        /// The consumer's own id for a message, which the reply repeats.
        #[derive(Deserialize)]
        struct Id {
            #[serde(default)]
            id: Value,
        }

        let id = serde_json::from_str::<Id>(text).map_or(Value::Null, |Id { id }| id);
        let message = serde_json::from_str(text)
            .map_err(|error| ApiError::new(Code::MalformedMessage, error.to_string()));
        let message = message.and_then(|FromConsumer::Send { session_id, message }| {
            if !self.caller.may_send() {
                return Err(AuthError::Forbidden("this needs an API key with the role backend").into());
            }
            check(&message)?;
            Ok((session_id, Value::Object(message).to_string()))
        });
        match message {
            Ok((session, message)) => {
                let delivered = deliver(self.registry.clone(), self.user.clone(), session, message);
                ctx.wait(delivered, move |socket, delivered| socket.reply(delivered, &id));
            }
            Err(error) => self.reply(Err(error), &id),
        }
    }

    fn binary(&mut self, _: Bytes, _: &mut Context<'_>) {
        self.send_queue.finish_with(frame::close(Close::Policy, "text only"));
    }

    fn too_large(&mut self) {
        let message = format!("a message may have at most {MAX_TEXT_BYTES} bytes");
        self.reply(Err(ApiError::new(Code::TooLarge, message)), &Value::Null);
    }

    fn stopped(&mut self) {
        self.consumers.detach(self.id);
    }
}
