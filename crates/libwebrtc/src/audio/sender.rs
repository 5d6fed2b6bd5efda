//! The sender of one track: takes PCM and returns Opus packets with RTP timestamps.

use std::time::{Duration, Instant};

use audiopus::coder::Encoder;
use audiopus::{Application, Bitrate};

use super::format::{Format, OPUS_CLOCK, OpusFormat};
use super::opus;
use super::report::{Levels, SendReport};
use super::resample::Resampler;

/// Packet duration in ms: a compromise between coding efficiency and latency.
const PACKET_MS: u32 = 20;
const PACKET_TICKS: u32 = OPUS_CLOCK / 1000 * PACKET_MS;
const PACKET_DURATION: Duration = Duration::from_millis(PACKET_MS as u64);

/// A longer gap between inputs is a pause and advances the RTP clock. A shorter one is scheduling delay.
const MAX_SCHEDULING_DELAY: Duration = Duration::from_millis(100);

/// Maximum size of an Opus frame (RFC 6716 §3.2.1).
const MAX_PACKET_BYTES: usize = 1_275;

/// Default bitrate in bits per second, if neither the application nor the peer sets one: the LiveKit SDKs' preset for
/// music-quality speech.
const DEFAULT_BITRATE: u32 = 32_000;
const OPUS_BITRATES: std::ops::RangeInclusive<u32> = 6_000..=510_000;

/// libopus complexity, of 10. From 7 on libopus analyses the signal for DTX; below, DTX classifies tones and music as
/// noise and stops sending.
const COMPLEXITY: u8 = 7;

/// Packet loss that in-band FEC is tuned for, in percent.
const EXPECTED_LOSS_PERCENT: u8 = 10;

/// Negotiated encoder settings of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EncoderSettings {
    /// Limit set by the application or the peer, in bits per second.
    pub max_bitrate: Option<u32>,
    /// Discontinuous transmission: send nothing during silence.
    pub dtx: bool,
    /// In-band FEC: packets carry a low-bitrate copy of the previous one.
    pub fec: bool,
    /// Whether the peer accepts stereo.
    pub stereo: bool,
}

/// An encoded packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EncodedPacket {
    /// Sequence number, not wrapped.
    pub seq: u64,
    /// RTP timestamp, in ticks of 48 kHz.
    pub time: u32,
    /// RTP marker bit: the first packet after a pause (RFC 3551 §4.1).
    pub marker: bool,
    /// Audio level in dBov from -127 to 0 (RFC 6464). The SFU uses it to detect active speakers.
    pub level: i8,
    /// The Opus packet.
    pub payload: Vec<u8>,
}

/// The sender of one track; see the module documentation.
pub(crate) struct Sender {
    format: Format,
    opus_format: OpusFormat,
    encoder: Encoder,
    resampler: Option<Resampler>,
    settings: EncoderSettings,
    /// Samples in the encoder's format that do not fill a packet yet.
    pending: Vec<i16>,
    seq: u64,
    /// RTP clock, not wrapped.
    time: u64,
    /// Time of the first input, and the RTP clock at that time.
    started: Option<(Instant, u64)>,
    /// Time of the last input.
    last_at: Option<Instant>,
    /// Whether the next packet is the first after a pause.
    marker: bool,
    /// Ticks of audio encoded so far.
    ticks: u64,
    levels: Levels,
}

impl Sender {
    /// Creates a sender of PCM in `format`. `seq` and `time` are the initial sequence number and timestamp, which
    /// should be random (RFC 3550 §5.1). `seq` is below 65,536 because receivers assume a rollover counter of 0 for the
    /// first packet (RFC 3711 §3.3.1).
    ///
    /// # Errors
    /// Errors of libopus, if it rejects the settings.
    pub(crate) fn new(
        format: Format,
        settings: EncoderSettings,
        seq: u16,
        time: u32,
    ) -> Result<Self, audiopus::Error> {
        let full_format = format.opus_format();
        let opus_format = if settings.stereo { full_format } else { full_format.mono() };
        let mut encoder =
            Encoder::new(opus_format.opus_rate(), opus_format.opus_channels(), Application::Voip)?;
        encoder.set_complexity(COMPLEXITY)?;
        encoder.set_packet_loss_perc(EXPECTED_LOSS_PERCENT)?;
        let mut sender = Self {
            format,
            opus_format,
            encoder,
            resampler: Resampler::between(format.rate(), opus_format.rate(), opus_format.channels()),
            settings,
            pending: Vec::new(),
            seq: seq.into(),
            time: time.into(),
            started: None,
            last_at: None,
            marker: true,
            ticks: 0,
            levels: Levels::default(),
        };
        sender.apply(settings)?;
        Ok(sender)
    }

    /// Changes the encoder settings. `stereo` cannot change within a stream and is ignored.
    pub(crate) fn set_settings(&mut self, settings: EncoderSettings) -> Result<(), audiopus::Error> {
        if settings == self.settings {
            return Ok(());
        }
        self.settings = settings;
        self.apply(settings)
    }

    fn apply(&mut self, settings: EncoderSettings) -> Result<(), audiopus::Error> {
        let bitrate = settings
            .max_bitrate
            .unwrap_or(DEFAULT_BITRATE)
            .clamp(*OPUS_BITRATES.start(), *OPUS_BITRATES.end());
        self.encoder.set_bitrate(Bitrate::BitsPerSecond(bitrate as i32))?;
        self.encoder.set_inband_fec(settings.fec)?;
        self.encoder.set_dtx(settings.dtx)
    }

    pub(crate) fn report(&self) -> SendReport {
        SendReport { ticks: self.ticks, levels: self.levels }
    }

    /// Encodes interleaved PCM and passes each complete packet to `send`.
    pub(crate) fn push(&mut self, pcm: &[i16], now: Instant, mut send: impl FnMut(EncodedPacket)) {
        self.advance_over_pause(now);
        let pcm = self.downmix(pcm);
        match &mut self.resampler {
            Some(resampler) => resampler.push(&pcm, &mut self.pending),
            None => self.pending.extend_from_slice(&pcm),
        }
        let length = self.opus_format.samples_in_ticks(PACKET_TICKS);
        let whole = self.pending.len() / length * length;
        let pending = self.pending.split_off(whole);
        let packets = std::mem::replace(&mut self.pending, pending);
        for pcm in packets.chunks_exact(length) {
            if let Some(packet) = self.encode(pcm) {
                send(packet);
            }
        }
        self.last_at = Some(now);
    }

    /// Discards partial input while the track is muted; the next packet is the first after a pause.
    pub(crate) fn mute(&mut self) {
        self.pending.clear();
        self.marker = true;
    }

    /// Advances the RTP clock over a pause, in whole packets. The target is the time since the first input. Adding up
    /// the lengths of pauses instead would accumulate rounding errors, and with them the delay at the receiver.
    fn advance_over_pause(&mut self, now: Instant) {
        let (started, first) = *self.started.get_or_insert((now, self.time));
        let since_last = now.saturating_duration_since(self.last_at.unwrap_or(now));
        if since_last.saturating_sub(PACKET_DURATION) > MAX_SCHEDULING_DELAY {
            let passed =
                now.saturating_duration_since(started).as_micros() * u128::from(OPUS_CLOCK) / 1_000_000;
            let behind = (first + passed as u64).saturating_sub(self.time);
            self.time +=
                (behind + u64::from(PACKET_TICKS / 2)) / u64::from(PACKET_TICKS) * u64::from(PACKET_TICKS);
            self.marker = true;
        }
    }

    /// Converts PCM to the encoder's channels: mono is the mean of the first two channels.
    fn downmix(&self, pcm: &[i16]) -> Vec<i16> {
        let channels = self.format.channels() as usize;
        let opus_format = self.opus_format.channels();
        if channels == opus_format {
            return pcm.to_vec();
        }
        let source_channels = channels.min(2);
        pcm.chunks_exact(channels)
            .map(|instant| {
                let sum: i32 = instant[..source_channels].iter().map(|sample| i32::from(*sample)).sum();
                (sum / source_channels as i32) as i16
            })
            .collect()
    }

    fn encode(&mut self, pcm: &[i16]) -> Option<EncodedPacket> {
        self.levels.record(pcm, PACKET_DURATION);
        self.ticks += u64::from(PACKET_TICKS);

        let mut buffer = [0; MAX_PACKET_BYTES];
        let encoded = self.encoder.encode(pcm, &mut buffer);
        let time = self.time as u32;
        self.time += u64::from(PACKET_TICKS);
        let length = match encoded {
            Ok(length) => length,
            Err(error) => {
                tracing::warn!(%error, "failed to encode audio");
                return None;
            }
        };
        let payload = &buffer[..length];
        if opus::is_dtx(payload) {
            self.marker = true;
            return None;
        }
        let packet = EncodedPacket {
            seq: self.seq,
            time,
            marker: std::mem::take(&mut self.marker),
            level: level_dbov(pcm),
            payload: payload.to_vec(),
        };
        self.seq += 1;
        Some(packet)
    }
}

/// RMS level of `pcm` in dBov: 0 is full scale, -127 is silence (RFC 6464 §3).
fn level_dbov(pcm: &[i16]) -> i8 {
    let squares: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let rms = (squares / pcm.len().max(1) as f64).sqrt() / f64::from(i16::MAX);
    if rms <= 0.0 {
        return -127;
    }
    (20.0 * rms.log10()).clamp(-127.0, 0.0).round() as i8
}
