//! What receivers and senders tell of themselves, once in a while.

use std::time::Duration;

use super::jitter::Counters;

/// How often they do.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How a track arrives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReceiveReport {
    /// Its present source.
    pub ssrc: u32,
    pub counters: Counters,
    /// RFC 3550 §6.4.1.
    pub jitter_s: f64,
    pub levels: Levels,
}

/// How a track is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SendReport {
    /// Sound that came in, in ticks of 48 kHz.
    pub ticks: u64,
    pub levels: Levels,
}

/// How loud sound is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Levels {
    /// The loudest sample of late, 0 to 1.
    pub peak: f64,
    /// The sum over time of the squared level, in seconds (W3C webrtc-stats, `totalAudioEnergy`).
    pub energy: f64,
}

impl Levels {
    /// Takes `pcm` of the length `of` into account.
    pub(crate) fn hear(&mut self, pcm: &[i16], of: Duration) {
        let peak = pcm.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
        self.peak = f64::from(peak) / f64::from(i16::MAX.unsigned_abs());
        self.energy += self.peak * self.peak * of.as_secs_f64();
    }
}
