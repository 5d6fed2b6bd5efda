//! Packet trailers: metadata appended to encoded video frames.
//!
//! Video is not implemented, so no trailers are sent or received. Handlers can be created and keep their settings but
//! have no effect.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::peer_connection_factory::PeerConnectionFactory;
use crate::rtp_receiver::RtpReceiver;
use crate::rtp_sender::RtpSender;

/// Stage of a frame on the sending side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishTimingStage {
    /// Passed to the encoder.
    EncoderUpload,
    /// Encoded.
    EncoderOutput,
    /// Passed to the packetizer.
    WebrtcPacketize,
}

/// Stage of a frame on the receiving side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeTimingStage {
    /// Assembled from its packets.
    WebrtcReceive,
    /// Passed to the decoder.
    DecoderUpload,
    /// Decoded.
    DecoderOutput,
}

/// A frame on the sending side reached a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishTimingEvent {
    /// The stage.
    pub stage: PublishTimingStage,
    /// Time of the event, in microseconds since the Unix epoch.
    pub timestamp_us: u64,
    /// Capture time of the frame, in microseconds since the Unix epoch.
    pub capture_timestamp_us: u64,
    /// Frame id, if set by the application.
    pub frame_id: Option<u32>,
}

/// A frame on the receiving side reached a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeTimingEvent {
    /// The stage.
    pub stage: SubscribeTimingStage,
    /// Time of the event, in microseconds since the Unix epoch.
    pub timestamp_us: u64,
    /// Capture time of the frame, in microseconds since the Unix epoch.
    pub capture_timestamp_us: u64,
    /// Frame id, if set by the application.
    pub frame_id: Option<u32>,
}

/// Callback for each [`PublishTimingEvent`].
pub type PublishTimingObserver = Arc<dyn Fn(PublishTimingEvent) + Send + Sync + 'static>;
/// Callback for each [`SubscribeTimingEvent`].
pub type SubscribeTimingObserver = Arc<dyn Fn(SubscribeTimingEvent) + Send + Sync + 'static>;

/// Adds packet trailers to sent frames, or reads them from received frames.
#[derive(Clone)]
pub struct PacketTrailerHandler {
    enabled: Arc<AtomicBool>,
}

impl PacketTrailerHandler {
    /// Enables or disables the handler.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Whether the handler is enabled.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Metadata of the frame with this RTP timestamp: always `None`.
    pub fn lookup_frame_metadata(&self, _rtp_timestamp: u32) -> Option<(u64, u32, Vec<u8>)> {
        None
    }

    /// Stores metadata for a frame: no effect.
    pub fn store_frame_metadata(
        &self,
        _capture_timestamp_us: i64,
        _user_timestamp: u64,
        _frame_id: u32,
        _user_data: &[u8],
    ) {
    }

    /// Sets the callback for timing events of sent frames. It is never called.
    pub fn set_publish_timing_observer(&self, _observer: Option<PublishTimingObserver>) {}

    /// Sets the callback for timing events of received frames. It is never called.
    pub fn set_subscribe_timing_observer(&self, _observer: Option<SubscribeTimingObserver>) {}

    fn new() -> Self {
        Self { enabled: Arc::new(AtomicBool::new(true)) }
    }
}

impl Debug for PacketTrailerHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketTrailerHandler").field("enabled", &self.enabled()).finish()
    }
}

/// Creates a handler for the frames of `sender`.
pub fn create_sender_handler(
    _peer_factory: &PeerConnectionFactory,
    _sender: &RtpSender,
) -> PacketTrailerHandler {
    PacketTrailerHandler::new()
}

/// Creates a handler for the frames of `receiver`.
pub fn create_receiver_handler(
    _peer_factory: &PeerConnectionFactory,
    _receiver: &RtpReceiver,
) -> PacketTrailerHandler {
    PacketTrailerHandler::new()
}
