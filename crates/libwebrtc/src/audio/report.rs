//! Periodic reports of receivers and senders, for `get_stats`.

use std::time::Duration;

use super::jitter::Counters;

/// Interval between reports.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// State of a received track.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReceiveReport {
    /// SSRC of the last packet.
    pub ssrc: u32,
    pub counters: Counters,
    /// Interarrival jitter in seconds (RFC 3550 §6.4.1).
    pub jitter_s: f64,
    pub levels: Levels,
}

/// State of a sent track.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SendReport {
    /// Encoded audio, in ticks of 48 kHz.
    pub ticks: u64,
    pub levels: Levels,
}

/// Audio levels.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Levels {
    /// Peak of the last frame, 0 to 1 (W3C webrtc-stats, `audioLevel`).
    pub peak: f64,
    /// Integral of the squared level over time, in seconds (W3C webrtc-stats, `totalAudioEnergy`).
    pub energy: f64,
}

impl Levels {
    /// Adds `pcm`, which lasts `duration`.
    pub(crate) fn record(&mut self, pcm: &[i16], duration: Duration) {
        let peak = pcm.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
        self.peak = f64::from(peak) / f64::from(i16::MAX.unsigned_abs());
        self.energy += self.peak * self.peak * duration.as_secs_f64();
    }
}
