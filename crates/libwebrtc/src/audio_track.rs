//! Audio tracks.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::audio::report::{ReceiveReport, SendReport};
use crate::audio::sink::Sinks;
use crate::audio_source::native::NativeAudioSource;
use crate::media_stream_track::RtcTrackState;

/// An audio track, local or remote. Clones refer to the same track.
#[derive(Clone)]
pub struct RtcAudioTrack {
    shared: Arc<AudioTrack>,
}

/// State shared by the handles of a track and the connections that send or receive it.
pub(crate) struct AudioTrack {
    id: String,
    enabled: AtomicBool,
    ended: AtomicBool,
    kind: AudioTrackKind,
    received: Mutex<ReceiveReport>,
    sent: Mutex<SendReport>,
}

/// Kind of an audio track.
pub(crate) enum AudioTrackKind {
    /// Local, with PCM from the application.
    Source(NativeAudioSource),
    /// Local, from a microphone. Not implemented: it cannot be sent.
    Device,
    /// Remote, with the sinks of its streams.
    Remote(Sinks),
}

impl RtcAudioTrack {
    /// Track id, assigned by the sending side.
    pub fn id(&self) -> String {
        self.shared.id.clone()
    }

    /// Whether the track is enabled, that is, not muted.
    pub fn enabled(&self) -> bool {
        self.shared.enabled()
    }

    /// Mutes (false) or unmutes (true) the track. Returns whether the state changed. A muted local track sends nothing;
    /// a muted remote track delivers silence.
    pub fn set_enabled(&self, enabled: bool) -> bool {
        self.shared.enabled.swap(enabled, Ordering::Relaxed) != enabled
    }

    /// Whether the track is live or has ended.
    pub fn state(&self) -> RtcTrackState {
        if self.shared.ended.load(Ordering::Acquire) { RtcTrackState::Ended } else { RtcTrackState::Live }
    }

    pub(crate) fn new(id: String, kind: AudioTrackKind) -> Self {
        let shared = AudioTrack {
            id,
            enabled: AtomicBool::new(true),
            ended: AtomicBool::new(false),
            kind,
            received: Mutex::default(),
            sent: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn shared(&self) -> &Arc<AudioTrack> {
        &self.shared
    }

    /// Ends the track, and the streams of a remote track.
    pub(crate) fn end(&self) {
        if self.shared.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        if let AudioTrackKind::Remote(sinks) = &self.shared.kind {
            sinks.close();
        }
    }
}

impl AudioTrack {
    pub(crate) fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    pub(crate) fn kind(&self) -> &AudioTrackKind {
        &self.kind
    }

    /// The last report of the receiver.
    pub(crate) fn received(&self) -> ReceiveReport {
        *self.received.lock()
    }

    pub(crate) fn report_received(&self, report: ReceiveReport) {
        *self.received.lock() = report;
    }

    /// The last report of the sender.
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
