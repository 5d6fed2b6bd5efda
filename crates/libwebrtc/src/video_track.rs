//! Video tracks. They are negotiated and have an id, but carry no frames: there is no video codec.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::media_stream_track::RtcTrackState;
use crate::native::packet_trailer::PacketTrailerHandler;

/// A video track. Clones refer to the same track.
#[derive(Clone)]
pub struct RtcVideoTrack {
    shared: Arc<VideoTrack>,
}

struct VideoTrack {
    id: String,
    enabled: AtomicBool,
    ended: AtomicBool,
    trailers: Mutex<Option<PacketTrailerHandler>>,
}

impl RtcVideoTrack {
    /// Track id, assigned by the sending side.
    pub fn id(&self) -> String {
        self.shared.id.clone()
    }

    /// Whether the track is enabled, that is, not muted.
    pub fn enabled(&self) -> bool {
        self.shared.enabled.load(Ordering::Relaxed)
    }

    /// Mutes (false) or unmutes (true) the track. Returns whether the state changed.
    pub fn set_enabled(&self, enabled: bool) -> bool {
        self.shared.enabled.swap(enabled, Ordering::Relaxed) != enabled
    }

    /// Whether the track is live or has ended.
    pub fn state(&self) -> RtcTrackState {
        if self.shared.ended.load(Ordering::Acquire) { RtcTrackState::Ended } else { RtcTrackState::Live }
    }

    /// Stores a handler for packet trailers.
    pub fn set_packet_trailer_handler(&self, handler: PacketTrailerHandler) {
        *self.shared.trailers.lock() = Some(handler);
    }

    /// The stored handler for packet trailers.
    pub fn packet_trailer_handler(&self) -> Option<PacketTrailerHandler> {
        self.shared.trailers.lock().clone()
    }

    pub(crate) fn new(id: String) -> Self {
        let shared = VideoTrack {
            id,
            enabled: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            trailers: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn end(&self) {
        self.shared.ended.store(true, Ordering::Release);
    }
}

impl Debug for RtcVideoTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtcVideoTrack")
            .field("id", &self.shared.id)
            .field("enabled", &self.enabled())
            .field("state", &self.state())
            .finish()
    }
}
