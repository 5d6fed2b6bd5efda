//! What a [`SessionActor`](super::actor::SessionActor) is told, by whom, and what it holds of a socket.

use std::time::Instant;

use actix::Message;
use bytes::Bytes;

use super::machine::SocketId;
use crate::{
    outlet::{Outlet, Refused},
    protocol::{DecodeError, Profile, Said, audio::Up, from_client::ConnectionInit, to_client::EndReason},
};

/// The session's hold on a socket: its number, and the way into it.
#[derive(Clone)]
pub struct SocketHandle {
    /// Told apart by when they came.
    pub id: SocketId,
    outlet: Outlet,
    /// Where the client reaches the gateway, `https://host`.
    pub base_url: String,
}

impl SocketHandle {
    /// A socket that sends what `outlet` is given.
    pub fn new(id: SocketId, outlet: Outlet, base_url: String) -> Self {
        Self { id, outlet, base_url }
    }

    /// Sends an encoded frame.
    pub fn send(&self, frame: Bytes) -> Result<(), Refused> {
        self.outlet.send(frame)
    }

    /// The way into it, for somebody else who has something to say.
    pub fn outlet(&self) -> &Outlet {
        &self.outlet
    }
}

/// A client wants the session; from its socket, once it is authenticated and, in `edge.v1`, has said
/// `connection_init`.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// Where it is.
    pub socket: SocketHandle,
    /// What it speaks.
    pub profile: Profile,
    /// What it says of itself.
    pub init: ConnectionInit,
    /// When its token ends, if it does.
    pub token_ends_at: Option<Instant>,
}

/// News from an attached socket.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FromSocket {
    /// Which one; the session ignores one that was replaced.
    pub id: u64,
    /// What.
    pub news: SocketNews,
}

/// What a socket has to tell.
pub enum SocketNews {
    /// The client said something.
    Said(Said),
    /// The client sent audio.
    Audio(Up),
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
pub struct LivekitToken;

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
