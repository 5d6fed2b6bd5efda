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

/// Parameters of a new data channel (W3C webrtc-pc, `RTCDataChannelInit`).
#[derive(Clone, Debug)]
pub struct DataChannelInit {
    /// Whether messages are delivered in the order they were sent.
    pub ordered: bool,
    /// Maximum time in milliseconds during which a lost message is retransmitted. Mutually exclusive with
    /// `max_retransmits`; if neither is set, the channel is reliable.
    pub max_retransmit_time: Option<i32>,
    /// Maximum number of retransmissions of a lost message.
    pub max_retransmits: Option<i32>,
    /// Name of the application's subprotocol.
    pub protocol: String,
    /// Whether both sides create the channel with the same `id`, instead of one side announcing it in-band (RFC 8832).
    pub negotiated: bool,
    /// SCTP stream id of a negotiated channel, 0 to 65,534. Ignored otherwise; -1 if unset.
    pub id: i32,
    /// Priority. Ignored: all channels have the same priority.
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

/// Error of [`DataChannel::send`].
#[derive(Debug, Error)]
pub enum DataChannelError {
    /// The channel is not open, the message exceeds the peer's maximum message size, or the send buffer is full
    /// ([`SEND_BUFFER_BYTES`]).
    #[error("failed to send data: the channel is not open, or its send buffer is full")]
    Send,
    /// A text message is not valid UTF-8.
    #[error("only utf8 strings can be sent")]
    Utf8(#[from] Utf8Error),
}

/// Size of the send buffer that all channels of a connection share, in bytes.
pub const SEND_BUFFER_BYTES: usize = 4 << 20;

/// State of a data channel (W3C webrtc-pc, `RTCDataChannelState`).
#[derive(Debug, Copy, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataChannelState {
    /// Not open yet.
    Connecting,
    /// Messages can be sent and received.
    Open,
    /// Closed by this side; the peer has not confirmed.
    Closing,
    /// Closed.
    Closed,
}

/// A received message.
#[derive(Debug)]
pub struct DataBuffer<'a> {
    /// Content of the message.
    pub data: &'a [u8],
    /// Whether the message is binary (true) or text.
    pub binary: bool,
}

/// Callback for each new state.
pub type OnStateChange = Box<dyn FnMut(DataChannelState) + Send + Sync>;
/// Callback for each received message.
pub type OnMessage = Box<dyn FnMut(DataBuffer<'_>) + Send + Sync>;
/// Callback for the number of bytes that left the send buffer.
pub type OnBufferedAmountChange = Box<dyn FnMut(u64) + Send + Sync>;

/// A data channel (RFC 8831). Clones refer to the same channel. It does not keep the connection alive.
#[derive(Clone)]
pub struct DataChannel {
    shared: Arc<ChannelShared>,
}

/// State shared by the handles of a channel and the driver.
pub(crate) struct ChannelShared {
    connection: Weak<Connection>,
    key: ChannelKey,
    label: String,
    on_state_change: Mutex<Option<OnStateChange>>,
    on_message: Mutex<Option<OnMessage>>,
    on_buffered_amount_change: Mutex<Option<OnBufferedAmountChange>>,
}

impl DataChannel {
    /// Queues one message, binary or text (UTF-8).
    ///
    /// # Errors
    /// [`DataChannelError`] if the message was not queued. If the send buffer was full, it can be sent again later.
    pub fn send(&self, data: &[u8], binary: bool) -> Result<(), DataChannelError> {
        if !binary {
            str::from_utf8(data)?;
        }
        let connection = self.shared.connection.upgrade().ok_or(DataChannelError::Send)?;
        connection.with(|peer, now| peer.send_message(self.shared.key, data, binary, now))
    }

    /// SCTP stream id; -1 until it is assigned.
    pub fn id(&self) -> i32 {
        let connection = self.shared.connection.upgrade();
        let stream =
            connection.and_then(|connection| connection.with(|peer, _| peer.channel_stream(self.shared.key)));
        stream.map_or(-1, i32::from)
    }

    /// Label, assigned by the side that created the channel.
    pub fn label(&self) -> String {
        self.shared.label.clone()
    }

    /// Current state; `Closed` if the connection no longer exists.
    pub fn state(&self) -> DataChannelState {
        let connection = self.shared.connection.upgrade();
        connection.map_or(DataChannelState::Closed, |connection| {
            connection.with(|peer, _| peer.channel_state(self.shared.key))
        })
    }

    /// Closes the channel on both sides. Queued messages are still sent.
    pub fn close(&self) {
        if let Some(connection) = self.shared.connection.upgrade() {
            connection.with(|peer, now| peer.close_channel(self.shared.key, now));
        }
    }

    /// Number of bytes that are queued and not yet acknowledged.
    pub fn buffered_amount(&self) -> u64 {
        let connection = self.shared.connection.upgrade();
        connection.map_or(0, |connection| connection.with(|peer, _| peer.buffered_amount(self.shared.key)))
    }

    /// Sets the callback for new states. It runs on a media thread and must not block.
    pub fn on_state_change(&self, callback: Option<OnStateChange>) {
        *self.shared.on_state_change.lock() = callback;
    }

    /// Sets the callback for received messages. It runs on a media thread and must not block. Messages received before
    /// it is set are dropped.
    pub fn on_message(&self, callback: Option<OnMessage>) {
        *self.shared.on_message.lock() = callback;
    }

    /// Sets the callback for bytes that left the send buffer. It runs on a media thread and must not block.
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

    /// Drops the callbacks and everything they own.
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
