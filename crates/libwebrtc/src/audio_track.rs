//! Tracks of sound.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::audio::report::{ReceiveReport, SendReport};
use crate::audio::sink::Sinks;
use crate::audio_source::native::NativeAudioSource;
use crate::media_stream_track::RtcTrackState;

/// A track of sound. Clones are the same track.
#[derive(Clone)]
pub struct RtcAudioTrack {
    shared: Arc<AudioTrack>,
}

/// What the handles of a track and the connections that carry it share.
pub(crate) struct AudioTrack {
    id: String,
    enabled: AtomicBool,
    ended: AtomicBool,
    feed: Feed,
    received: Mutex<ReceiveReport>,
    sent: Mutex<SendReport>,
}

/// Where a track's sound comes from.
pub(crate) enum Feed {
    /// The application, which writes it.
    Source(NativeAudioSource),
    /// A microphone, to which this crate has no access: such a track can't be sent.
    Device,
    /// The peer. The sinks are the application's streams.
    Remote(Sinks),
}

impl RtcAudioTrack {
    /// The id that the sending side gave it.
    pub fn id(&self) -> String {
        self.shared.id.clone()
    }

    /// Whether it carries sound (true) or silence.
    pub fn enabled(&self) -> bool {
        self.shared.enabled()
    }

    /// Mutes (false) or unmutes it; returns whether that changed anything. A muted local track sends nothing,
    /// a muted remote one delivers silence.
    pub fn set_enabled(&self, enabled: bool) -> bool {
        self.shared.enabled.swap(enabled, Ordering::Relaxed) != enabled
    }

    /// Whether it may still carry sound.
    pub fn state(&self) -> RtcTrackState {
        if self.shared.ended.load(Ordering::Acquire) { RtcTrackState::Ended } else { RtcTrackState::Live }
    }

    pub(crate) fn new(id: String, feed: Feed) -> Self {
        let shared = AudioTrack {
            id,
            enabled: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            feed,
            received: Mutex::default(),
            sent: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn shared(&self) -> &Arc<AudioTrack> {
        &self.shared
    }

    /// No sound will come any more: the streams of a remote track end.
    pub(crate) fn end(&self) {
        if self.shared.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Feed::Remote(sinks) = &self.shared.feed {
            sinks.close();
        }
    }
}

impl AudioTrack {
    pub(crate) fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// How it arrives, by its connection's last report.
    pub(crate) fn received(&self) -> ReceiveReport {
        *self.received.lock()
    }

    pub(crate) fn report_received(&self, report: ReceiveReport) {
        *self.received.lock() = report;
    }

    /// How it is sent, by its connection's last report.
    pub(crate) fn sent(&self) -> SendReport {
        *self.sent.lock()
    }

    pub(crate) fn report_sent(&self, report: SendReport) {
        *self.sent.lock() = report;
    }
}

impl Debug for RtcAudioTrack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtcAudioTrack")
            .field("id", &self.shared.id)
            .field("enabled", &self.enabled())
            .field("state", &self.state())
            .finish()
    }
}
