//! Sends one track: PCM in, Opus packets out.

use std::time::{Duration, Instant};

use audiopus::coder::Encoder;
use audiopus::{Application, Bitrate};

use super::format::{Coded, Format, OPUS_CLOCK};
use super::opus;
use super::report::{Levels, SendReport};
use super::resample::Resampler;

/// What a packet holds: long enough to code well, short enough to answer quickly.
const PACKET_MS: u32 = 20;
const PACKET_TICKS: u32 = OPUS_CLOCK / 1000 * PACKET_MS;
const PACKET: Duration = Duration::from_millis(PACKET_MS as u64);

/// A pause longer than this is one in the RTP clock too. A shorter one is a late thread.
const MAX_LATE: Duration = Duration::from_millis(100);

/// The largest packet that libopus may make (RFC 6716 §3.2.1).
const MAX_PACKET_BYTES: usize = 1_275;

/// Bitrate of speech unless the application or the peer asks for another, in bits per second: the LiveKit SDKs'
/// preset for music-quality speech.
const DEFAULT_BITRATE: u32 = 32_000;
const BITRATES: std::ops::RangeInclusive<u32> = 6_000..=510_000;

/// libopus's effort, of 10. From 7 up it analyses the sound before it decides that nobody speaks; below, DTX takes
/// tones and music for noise and falls silent.
const COMPLEXITY: u8 = 7;

/// The loss that in-band FEC prepares for, in percent.
const EXPECTED_LOSS: u8 = 10;

/// How a track is coded, as both sides agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coding {
    /// The most the application or the peer allows, in bits per second.
    pub max_bitrate: Option<u32>,
    /// Whether to send nothing while nothing is said.
    pub dtx: bool,
    /// Whether packets carry a copy of low bitrate of the one before.
    pub fec: bool,
    /// Whether the peer plays stereo.
    pub stereo: bool,
}

/// A packet to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Its number, not wrapped around.
    pub seq: u64,
    /// Its timestamp in ticks of 48 kHz.
    pub time: u32,
    /// Whether it is the first after a pause.
    pub marker: bool,
    /// How loud it is, in dBov from -127 to 0 (RFC 6464). The SFU finds the speakers by it.
    pub level: i8,
    /// The Opus packet.
    pub payload: Vec<u8>,
}

/// See the module.
pub(crate) struct Sender {
    format: Format,
    coded: Coded,
    encoder: Encoder,
    resampler: Option<Resampler>,
    coding: Coding,
    /// Samples of the coded format that do not fill a packet yet.
    rest: Vec<i16>,
    seq: u64,
    /// The RTP clock, not wrapped around.
    time: u64,
    /// When the first sound came in, and the RTP clock then.
    began: Option<(Instant, u64)>,
    /// When the last sound came in: a pause after it passes on the RTP clock.
    last_at: Option<Instant>,
    /// Whether the next packet is the first after a pause.
    marker: bool,
    /// Ticks of sound that came in.
    ticks: u64,
    levels: Levels,
}

impl Sender {
    /// A sender of PCM in `format`, counting from `seq` and `time`, which should be random (RFC 3550 §5.1); `seq`
    /// below 65,536, since a receiver takes the first packet to be in the first round of numbers (RFC 3711
    /// §3.3.1).
    ///
    /// # Errors
    /// libopus's, for coding it does not take.
    pub(crate) fn new(format: Format, coding: Coding, seq: u16, time: u32) -> Result<Self, audiopus::Error> {
        let format_coded = format.coded();
        let coded = if coding.stereo { format_coded } else { format_coded.mono() };
        let mut encoder = Encoder::new(coded.opus_rate(), coded.opus_channels(), Application::Voip)?;
        encoder.set_complexity(COMPLEXITY)?;
        encoder.set_packet_loss_perc(EXPECTED_LOSS)?;
        let mut sender = Self {
            format,
            coded,
            encoder,
            resampler: Resampler::between(format.rate(), coded.rate(), coded.channels()),
            coding,
            rest: Vec::new(),
            seq: seq.into(),
            time: time.into(),
            began: None,
            last_at: None,
            marker: true,
            ticks: 0,
            levels: Levels::default(),
        };
        sender.apply(coding)?;
        Ok(sender)
    }

    /// Codes differently from now on. Stereo stays as it was, since a stream does not change it.
    pub(crate) fn set_coding(&mut self, coding: Coding) -> Result<(), audiopus::Error> {
        if coding == self.coding {
            return Ok(());
        }
        self.coding = coding;
        self.apply(coding)
    }

    fn apply(&mut self, coding: Coding) -> Result<(), audiopus::Error> {
        let bitrate = coding.max_bitrate.unwrap_or(DEFAULT_BITRATE).clamp(*BITRATES.start(), *BITRATES.end());
        self.encoder.set_bitrate(Bitrate::BitsPerSecond(bitrate as i32))?;
        self.encoder.set_inband_fec(coding.fec)?;
        self.encoder.set_dtx(coding.dtx)
    }

    pub(crate) fn report(&self) -> SendReport {
        SendReport { ticks: self.ticks, levels: self.levels }
    }

    /// Takes interleaved PCM and hands each packet that is full to `send`.
    pub(crate) fn push(&mut self, pcm: &[i16], now: Instant, mut send: impl FnMut(Outgoing)) {
        self.pause_until(now);
        let pcm = self.fold(pcm);
        match &mut self.resampler {
            Some(resampler) => resampler.push(&pcm, &mut self.rest),
            None => self.rest.extend_from_slice(&pcm),
        }
        let length = self.coded.samples_in_ticks(PACKET_TICKS);
        let whole = self.rest.len() / length * length;
        let rest = self.rest.split_off(whole);
        let packets = std::mem::replace(&mut self.rest, rest);
        for pcm in packets.chunks_exact(length) {
            if let Some(packet) = self.encode(pcm) {
                send(packet);
            }
        }
        self.last_at = Some(now);
    }

    /// The track is muted: nothing is sent, and what comes next is the first after a pause.
    pub(crate) fn mute(&mut self) {
        self.rest.clear();
        self.marker = true;
    }

    /// Lets the RTP clock run on over a pause, in whole packets. What it is set to is the time since the first sound:
    /// were the pause itself added, what is lost by rounding would grow with each, and so would a receiver's wait.
    fn pause_until(&mut self, now: Instant) {
        let (began, first) = *self.began.get_or_insert((now, self.time));
        let since_last = now.saturating_duration_since(self.last_at.unwrap_or(now));
        if since_last.saturating_sub(PACKET) > MAX_LATE {
            let passed =
                now.saturating_duration_since(began).as_micros() * u128::from(OPUS_CLOCK) / 1_000_000;
            let behind = (first + passed as u64).saturating_sub(self.time);
            self.time +=
                (behind + u64::from(PACKET_TICKS / 2)) / u64::from(PACKET_TICKS) * u64::from(PACKET_TICKS);
            self.marker = true;
        }
    }

    /// PCM in the coded channels: of more than two only the first two count, and a peer that plays mono gets the
    /// mean of both.
    fn fold(&self, pcm: &[i16]) -> Vec<i16> {
        let channels = self.format.channels() as usize;
        let coded = self.coded.channels();
        if channels == coded {
            return pcm.to_vec();
        }
        let heard = channels.min(2);
        pcm.chunks_exact(channels)
            .map(|instant| {
                let sum: i32 = instant[..heard].iter().map(|sample| i32::from(*sample)).sum();
                (sum / heard as i32) as i16
            })
            .collect()
    }

    fn encode(&mut self, pcm: &[i16]) -> Option<Outgoing> {
        self.levels.hear(pcm, PACKET);
        self.ticks += u64::from(PACKET_TICKS);

        let mut buffer = [0; MAX_PACKET_BYTES];
        let encoded = self.encoder.encode(pcm, &mut buffer);
        let time = self.time as u32;
        self.time += u64::from(PACKET_TICKS);
        let length = match encoded {
            Ok(length) => length,
            Err(error) => {
                tracing::warn!(%error, "sound not encoded");
                return None;
            }
        };
        let payload = &buffer[..length];
        if opus::is_dtx(payload) {
            self.marker = true;
            return None;
        }
        let packet = Outgoing {
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

/// The level of `pcm` against the loudest there could be, in dBov: 0 is the loudest, -127 is silence (RFC 6464
/// §3).
fn level_dbov(pcm: &[i16]) -> i8 {
    let squares: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let rms = (squares / pcm.len().max(1) as f64).sqrt() / f64::from(i16::MAX);
    if rms <= 0.0 {
        return -127;
    }
    (20.0 * rms.log10()).clamp(-127.0, 0.0).round() as i8
}
