//! The messages of a [`SessionActor`](super::actor::SessionActor), and its handle to a socket.

use std::time::Instant;

use actix::Message;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{
    auth::Principal,
    ids::UtteranceId,
    language::Language,
    limits::Refusal,
    protocol::{
        ClientMessage, DecodeError, Profile,
        edge_v1::{audio::UplinkFrame, from_client::ConnectionInit, to_client::EndReason},
    },
    session::{
        SocketId,
        question::{Question, Reply},
    },
    tools::ToolOutput,
    ws::send_queue::{SendError, SendQueue},
};

/// A handle to a socket: its number and its send queue.
#[derive(Clone)]
pub struct SocketHandle {
    /// A newer socket has a higher number.
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

    /// Its send queue.
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
    /// The end of what it was issued on, in seconds since the Unix epoch: no renewal outlives it. None for a control
    /// token of an earlier version, and where users' tokens never end.
    pub until: Option<u64>,
}

impl TokenEnd {
    /// The end of a principal's token; `unix_s` is the calendar time of `now`.
    pub fn of(principal: &Principal, now: Instant, unix_s: u64) -> Option<Self> {
        Some(Self {
            at: principal.ends_at(now, unix_s)?,
            unix_s: principal.expires_at?,
            renewable: principal.session.is_some(),
            until: principal.until,
        })
    }

    /// The end of everything that is issued on the token; as [`Principal::bound`].
    pub(crate) fn bound(&self, session_end: u64) -> Option<u64> {
        if self.renewable { Some(self.until.unwrap_or(session_end)) } else { self.until }
    }
}

/// An event of an attached socket.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FromSocket {
    /// The socket; the session ignores one that was replaced.
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

/// The user was removed from the session's room.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Removed;

/// The client was given a LiveKit token over REST.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LivekitTokenIssued;

/// A consumer sends a message to the client.
#[derive(Message)]
#[rtype(result = "Result<(), Undelivered>")]
pub struct Deliver(pub String);

/// Why a consumer's message did not reach the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// No client is attached.
    Away,
    /// Its send queue is full.
    Busy,
}

/// A line that is asked over REST.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ask {
    pub question: Question,
    /// Where the answer goes, in order. Nothing more comes for a client that does not read.
    pub replies: mpsc::Sender<Reply>,
    /// Ends when whoever asked is gone.
    pub withdrawn: oneshot::Receiver<()>,
}

/// A transcript of the user's speech by an STT service that the gateway does not call; from its webhook.
#[derive(Clone, Debug, Message, PartialEq, Eq)]
#[rtype(result = "Option<Taken>")]
pub struct Transcribed {
    /// The service's name of the utterance, where it has one.
    pub utterance: Option<String>,
    /// The same for the same transcript, which may be sent again.
    pub digest: u64,
    /// Grows with the interims of an utterance, where they are numbered.
    pub sequence: Option<u64>,
    pub text: String,
    pub is_final: bool,
    pub language: Option<Language>,
}

/// The user begins to speak, as an STT service hears.
#[derive(Message)]
#[rtype(result = "Option<Taken>")]
pub struct VoiceOnset;

/// What became of an STT service's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Passed on, as this utterance.
    As(UtteranceId),
    /// It was sent before, or a later one of the utterance was.
    Duplicate,
    /// The user's limit is reached.
    Limited(Refusal),
    /// The answer was interrupted.
    Interrupted,
    /// Nothing was to be interrupted.
    Nothing,
}

/// Whether a call of a client's tool waits for its result; asked before an image is read from the network.
#[derive(Message)]
#[rtype(result = "Result<(), ClosedCall>")]
pub struct FindToolCall(pub String);

/// The client's result of a tool call, with the image that it uploaded.
#[derive(Message)]
#[rtype(result = "Result<(), ClosedCall>")]
pub struct AnswerToolCall {
    pub call_id: String,
    pub output: ToolOutput,
}

/// Why a tool call takes no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedCall {
    /// The client was not asked for it, or long ago.
    Unknown,
    /// It has its result, or was cancelled.
    Over,
}

/// The session is to end; from REST, or because the gateway goes down.
#[derive(Message)]
#[rtype(result = "()")]
pub struct End(pub EndReason);
