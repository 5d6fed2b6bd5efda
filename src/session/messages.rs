//! What a [`SessionActor`](super::actor::SessionActor) is told, by whom, and what it holds of a socket.

use std::time::Instant;

use actix::Message;
use bytes::Bytes;

use crate::{
    auth::Principal,
    protocol::{
        ClientMessage, DecodeError, Profile,
        edge_v1::{audio::UplinkFrame, from_client::ConnectionInit, to_client::EndReason},
    },
    session::SocketId,
    ws::send_queue::{SendError, SendQueue},
};

/// The session's hold on a socket: its number, and the way into it.
#[derive(Clone)]
pub struct SocketHandle {
    /// Told apart by when they came.
    pub id: SocketId,
    send_queue: SendQueue,
    /// Where the client reaches the gateway, `https://host`.
    pub base_url: String,
}

impl SocketHandle {
    /// A socket that sends what `send_queue` is given.
    pub fn new(id: SocketId, send_queue: SendQueue, base_url: String) -> Self {
        Self { id, send_queue, base_url }
    }

    /// Sends an encoded frame.
    pub fn send(&self, frame: Bytes) -> Result<(), SendError> {
        self.send_queue.send(frame)
    }

    /// The way into it, for somebody else who has something to say.
    pub fn send_queue(&self) -> &SendQueue {
        &self.send_queue
    }
}

/// A client wants the session; from its socket, once it is authenticated and, in `edge.v1`, has sent
/// `connection_init`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// Its socket.
    pub socket: SocketHandle,
    /// The client.
    pub attachment: Attachment,
}

/// A client that attaches.
#[derive(Debug)]
pub struct Attachment {
    /// What it speaks.
    pub profile: Profile,
    /// What it says of itself.
    pub init: ConnectionInit,
    /// When the token it came with ends; none where it never does.
    pub token: Option<TokenEnd>,
}

/// The end of a client's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEnd {
    /// When it is no longer accepted, leeway included.
    pub at: Instant,
    /// The same without leeway, in seconds since the Unix epoch: its `exp`.
    pub unix_s: u64,
    /// It is a control token, which the gateway can renew. A user's own token comes from elsewhere.
    pub renewable: bool,
}

impl TokenEnd {
    /// The end of a principal's token; `unix_s` is the calendar time of `now`.
    pub fn of(principal: &Principal, now: Instant, unix_s: u64) -> Option<Self> {
        Some(Self {
            at: principal.ends_at(now, unix_s)?,
            unix_s: principal.expires_at?,
            renewable: principal.session.is_some(),
        })
    }
}

/// News from an attached socket.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FromSocket {
    /// Which one; the session ignores one that was replaced.
    pub id: u64,
    /// What.
    pub event: SocketEvent,
}

/// What a socket has to tell.
pub enum SocketEvent {
    /// The client said something.
    Message(ClientMessage),
    /// The client sent audio.
    Audio(UplinkFrame),
    /// The client sent bare samples.
    Pcm(Bytes),
    /// The client sent something that could not be read.
    Malformed(DecodeError),
    /// The client showed a sign of life.
    Alive,
    /// The connection is over.
    Closed,
}

/// The user's microphone is in the session's room; from LiveKit's webhooks.
#[derive(Message)]
#[rtype(result = "()")]
pub struct MicrophonePublished;

/// The client was given a LiveKit token; from REST.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LivekitTokenIssued;

/// A consumer has something to say to the client.
#[derive(Message)]
#[rtype(result = "Result<(), Undelivered>")]
pub struct Deliver(pub String);

/// Why a client was not told what a consumer had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// It is not there.
    Away,
    /// It does not take what it is sent.
    Busy,
}

/// The session is to end; from REST, or because the gateway goes down.
#[derive(Message)]
#[rtype(result = "()")]
pub struct End(pub EndReason);
