//! Metadata that travels behind encoded video frames.
//!
//! This crate carries no video, so no frame ever gets a trailer and none arrives: a handler can be made and keeps
//! its settings, and finds nothing.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::peer_connection_factory::PeerConnectionFactory;
use crate::rtp_receiver::RtpReceiver;
use crate::rtp_sender::RtpSender;

/// How far a frame has come that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishTimingStage {
    /// Handed to the encoder.
    EncoderUpload,
    /// Encoded.
    EncoderOutput,
    /// Handed on to be cut into packets.
    WebrtcPacketize,
}

/// How far a frame has come that is being received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeTimingStage {
    /// Put together from its packets.
    WebrtcReceive,
    /// Handed to the decoder.
    DecoderUpload,
    /// Decoded.
    DecoderOutput,
}

/// A frame that is being sent reached a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishTimingEvent {
    /// The stage.
    pub stage: PublishTimingStage,
    /// When it did, in microseconds since the Unix epoch.
    pub timestamp_us: u64,
    /// When it was captured, in microseconds since the Unix epoch.
    pub capture_timestamp_us: u64,
    /// The application's number for it.
    pub frame_id: Option<u32>,
}

/// A frame that is being received reached a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeTimingEvent {
    /// The stage.
    pub stage: SubscribeTimingStage,
    /// When it did, in microseconds since the Unix epoch.
    pub timestamp_us: u64,
    /// When it was captured, in microseconds since the Unix epoch.
    pub capture_timestamp_us: u64,
    /// The application's number for it.
    pub frame_id: Option<u32>,
}

/// Told each [`PublishTimingEvent`].
pub type PublishTimingObserver = Arc<dyn Fn(PublishTimingEvent) + Send + Sync + 'static>;
/// Told each [`SubscribeTimingEvent`].
pub type SubscribeTimingObserver = Arc<dyn Fn(SubscribeTimingEvent) + Send + Sync + 'static>;

/// Puts trailers behind frames, or reads them.
#[derive(Clone)]
pub struct PacketTrailerHandler {
    enabled: Arc<AtomicBool>,
}

impl PacketTrailerHandler {
    /// Turns it on or off.
    pub fn set_enabled(&self, enabled: bool) {
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Whether it is on.
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// The metadata of the frame with this RTP timestamp: there is none.
    pub fn lookup_frame_metadata(&self, _rtp_timestamp: u32) -> Option<(u64, u32, Vec<u8>)> {
        None
    }

    /// Keeps metadata for a frame. No frame will come for it.
    pub fn store_frame_metadata(
        &self,
        _capture_timestamp_us: i64,
        _user_timestamp: u64,
        _frame_id: u32,
        _user_data: &[u8],
    ) {
    }

    /// Sets who is told how far frames have come that are sent. None will be.
    pub fn set_publish_timing_observer(&self, _observer: Option<PublishTimingObserver>) {}

    /// Sets who is told how far frames have come that are received. None will be.
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

/// A handler for what `sender` sends.
pub fn create_sender_handler(
    _peer_factory: &PeerConnectionFactory,
    _sender: &RtpSender,
) -> PacketTrailerHandler {
    PacketTrailerHandler::new()
}

/// A handler for what `receiver` receives.
pub fn create_receiver_handler(
    _peer_factory: &PeerConnectionFactory,
    _receiver: &RtpReceiver,
) -> PacketTrailerHandler {
    PacketTrailerHandler::new()
}
