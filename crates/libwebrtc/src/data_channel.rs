//! Data channels (RFC 8831).

use std::fmt::{self, Debug};
use std::str::{self, Utf8Error};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use serde::Deserialize;
use thiserror::Error;

use crate::driver::Connection;
use crate::peer::ChannelKey;
use crate::rtp_parameters::Priority;

/// What a new channel is like.
#[derive(Clone, Debug)]
pub struct DataChannelInit {
    /// Whether messages arrive in the order they were sent.
    pub ordered: bool,
    /// For how many milliseconds a message is sent again when lost; without limit if neither this nor
    /// `max_retransmits` is set.
    pub max_retransmit_time: Option<i32>,
    /// How often a message is sent again when lost.
    pub max_retransmits: Option<i32>,
    /// The application's name for what it speaks on the channel.
    pub protocol: String,
    /// Whether both sides make the channel by themselves, with the same `id`, instead of one of them
    /// announcing it (RFC 8832).
    pub negotiated: bool,
    /// The SCTP stream of a negotiated channel; -1 leaves it to the connection.
    pub id: i32,
    /// Its weight among others. All channels weigh the same here.
    pub priority: Option<Priority>,
}

impl Default for DataChannelInit {
    fn default() -> Self {
        Self {
            ordered: true,
            max_retransmit_time: None,
            max_retransmits: None,
            protocol: String::new(),
            negotiated: false,
            id: -1,
            priority: None,
        }
    }
}

/// Why a message was not taken.
#[derive(Debug, Error)]
pub enum DataChannelError {
    /// The channel is not open, the message is larger than the peer takes, or [`SEND_BUFFER_BYTES`] are
    /// waiting to be sent already.
    #[error("failed to send data: the channel is not open, or its send buffer is full")]
    Send,
    /// A text message must be UTF-8.
    #[error("only utf8 strings can be sent")]
    Utf8(#[from] Utf8Error),
}

/// What may wait to be sent on all channels of a connection together, in bytes.
pub const SEND_BUFFER_BYTES: usize = 4 << 20;

/// Where a channel is in its life.
#[derive(Debug, Copy, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataChannelState {
    /// Not ready yet.
    Connecting,
    /// Messages flow.
    Open,
    /// This side wants it closed; the other has not confirmed.
    Closing,
    /// No message will flow again.
    Closed,
}

/// A message that arrived.
#[derive(Debug)]
pub struct DataBuffer<'a> {
    /// Its bytes.
    pub data: &'a [u8],
    /// Whether it was sent as binary (true) or as text.
    pub binary: bool,
}

/// Told each new state.
pub type OnStateChange = Box<dyn FnMut(DataChannelState) + Send + Sync>;
/// Told each message.
pub type OnMessage = Box<dyn FnMut(DataBuffer<'_>) + Send + Sync>;
/// Told how many bytes left the send buffer.
pub type OnBufferedAmountChange = Box<dyn FnMut(u64) + Send + Sync>;

/// A channel for messages. Clones are the same channel. It does not keep the connection alive.
#[derive(Clone)]
pub struct DataChannel {
    shared: Arc<ChannelShared>,
}

/// What the channel's handles and the connection's driver share.
pub(crate) struct ChannelShared {
    connection: Weak<Connection>,
    key: ChannelKey,
    label: String,
    on_state_change: Mutex<Option<OnStateChange>>,
    on_message: Mutex<Option<OnMessage>>,
    on_buffered_amount_change: Mutex<Option<OnBufferedAmountChange>>,
}

impl DataChannel {
    /// Queues one message, text or binary.
    ///
    /// # Errors
    /// [`DataChannelError`]: the message was not queued, and may be tried again later if the buffer was full.
    pub fn send(&self, data: &[u8], binary: bool) -> Result<(), DataChannelError> {
        if !binary {
            str::from_utf8(data)?;
        }
        let connection = self.shared.connection.upgrade().ok_or(DataChannelError::Send)?;
        connection.with(|peer, now| peer.send_message(self.shared.key, data, binary, now))
    }

    /// Its SCTP stream; -1 until it has one.
    pub fn id(&self) -> i32 {
        let connection = self.shared.connection.upgrade();
        let stream =
            connection.and_then(|connection| connection.with(|peer, _| peer.channel_stream(self.shared.key)));
        stream.map_or(-1, i32::from)
    }

    /// The name that its maker gave it.
    pub fn label(&self) -> String {
        self.shared.label.clone()
    }

    /// Where it is in its life.
    pub fn state(&self) -> DataChannelState {
        let connection = self.shared.connection.upgrade();
        connection.map_or(DataChannelState::Closed, |connection| {
            connection.with(|peer, _| peer.channel_state(self.shared.key))
        })
    }

    /// Closes it on both sides. What is queued is still sent.
    pub fn close(&self) {
        if let Some(connection) = self.shared.connection.upgrade() {
            connection.with(|peer, now| peer.close_channel(self.shared.key, now));
        }
    }

    /// The bytes that are queued and not yet acknowledged.
    pub fn buffered_amount(&self) -> u64 {
        let connection = self.shared.connection.upgrade();
        connection.map_or(0, |connection| connection.with(|peer, _| peer.buffered_amount(self.shared.key)))
    }

    /// Sets who is told each new state. It must not block: it runs on the connection's thread.
    pub fn on_state_change(&self, callback: Option<OnStateChange>) {
        *self.shared.on_state_change.lock() = callback;
    }

    /// Sets who is told each message. It must not block: it runs on the connection's thread. Messages that
    /// arrived before are not kept for it.
    pub fn on_message(&self, callback: Option<OnMessage>) {
        *self.shared.on_message.lock() = callback;
    }

    /// Sets who is told how many bytes left the send buffer. It must not block: it runs on the connection's
    /// thread.
    pub fn on_buffered_amount_change(&self, callback: Option<OnBufferedAmountChange>) {
        *self.shared.on_buffered_amount_change.lock() = callback;
    }

    pub(crate) fn new(connection: Weak<Connection>, key: ChannelKey, label: String) -> Self {
        let shared = ChannelShared {
            connection,
            key,
            label,
            on_state_change: Mutex::new(None),
            on_message: Mutex::new(None),
            on_buffered_amount_change: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn shared(&self) -> &Arc<ChannelShared> {
        &self.shared
    }
}

impl ChannelShared {
    pub(crate) fn state_changed(&self, state: DataChannelState) {
        if let Some(callback) = self.on_state_change.lock().as_mut() {
            callback(state);
        }
    }

    pub(crate) fn received(&self, data: &[u8], binary: bool) {
        if let Some(callback) = self.on_message.lock().as_mut() {
            callback(DataBuffer { data, binary });
        }
    }

    pub(crate) fn drained(&self, sent: u64) {
        if let Some(callback) = self.on_buffered_amount_change.lock().as_mut() {
            callback(sent);
        }
    }

    /// Lets go of everything that the callbacks hold.
    pub(crate) fn drop_callbacks(&self) {
        drop(self.on_state_change.lock().take());
        drop(self.on_message.lock().take());
        drop(self.on_buffered_amount_change.lock().take());
    }
}

impl Debug for DataChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataChannel")
            .field("id", &self.id())
            .field("label", &self.shared.label)
            .field("state", &self.state())
            .finish()
    }
}
