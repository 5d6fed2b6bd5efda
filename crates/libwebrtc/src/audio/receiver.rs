//! The receiver of one track: takes packets and writes PCM into the track's sinks.
//!
//! There is one decoder per requested format, since libopus decodes directly to a rate and a number of channels. A
//! track without streams is not decoded.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use audiopus::MutSignals;
use audiopus::coder::Decoder;
use audiopus::packet::Packet as OpusPacket;

use super::format::{Format, OpusFormat};
use super::jitter::{JitterBuffer, Packet, PlayoutStep};
use super::opus::{MAX_PACKET_TICKS, MIN_FRAME_TICKS};
use super::red;
use super::report::{Levels, ReceiveReport};
use super::resample::Resampler;
use super::sink::{Sink, Sinks};
use crate::audio_frame::AudioFrame;

/// Length of the frames that streams deliver.
const FRAME_MS: u32 = 10;
const FRAME: Duration = Duration::from_millis(FRAME_MS as u64);

/// Samples of the longest packet in two channels at 48 kHz.
const MAX_SAMPLES: usize = MAX_PACKET_TICKS as usize * 2;
/// Samples of a packet of 20 ms, the usual length, in two channels at 48 kHz.
const USUAL_PACKET_SAMPLES: usize = 960 * 2;

/// Format of an RTP payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadFormat {
    /// Opus (RFC 7587).
    Opus,
    /// Opus with redundant copies of earlier packets (RED, RFC 2198).
    Red {
        /// Payload type of the Opus blocks.
        opus: u8,
    },
}

/// The receiver of one track; see the module documentation.
#[derive(Default)]
pub(crate) struct Receiver {
    jitter: JitterBuffer,
    decoders: Vec<FormatDecoder>,
    /// Version of the track's list of sinks that `decoders` was built from.
    version: u32,
    levels: Levels,
    /// SSRC of the last packet.
    ssrc: u32,
    /// SSRC for which NACK is enabled.
    nacking_ssrc: Option<u32>,
    /// Scratch buffer for decoded frames, kept to avoid an allocation per packet.
    frames: Vec<AudioFrame<'static>>,
}

impl Receiver {
    /// Inserts a received packet. Invalid RED payloads are dropped.
    pub(crate) fn insert(&mut self, packet: Packet, payload_format: PayloadFormat, now: Instant) {
        self.ssrc = packet.ssrc;
        match payload_format {
            PayloadFormat::Opus => self.jitter.insert(packet, now),
            PayloadFormat::Red { opus } => {
                let Some(unpacked) = red::unpack(&packet.payload, opus) else {
                    return;
                };
                let packet = Packet { payload: unpacked.primary, ..packet };
                self.jitter.insert(packet.clone(), now);
                for (before, copy) in (1..).zip(unpacked.redundant) {
                    self.jitter.insert_copy(&packet, before, copy.ticks_before, copy.payload, now);
                }
            }
        }
    }

    /// Plays out what is due into the track's sinks, and appends the sinks that got frames to `sinks_to_wake`. If not
    /// `enabled`, the frames are silent.
    pub(crate) fn run(
        &mut self,
        sinks: &Sinks,
        enabled: bool,
        now: Instant,
        sinks_to_wake: &mut Vec<Arc<Sink>>,
    ) {
        if self.version != sinks.version() {
            self.version = sinks.version();
            self.update_decoders(sinks.snapshot());
        }
        while let Some(step) = self.jitter.poll(now) {
            for decoder in &mut self.decoders {
                decoder.play(&step, enabled, &mut self.levels, &mut self.frames);
                decoder.deliver(&mut self.frames, sinks_to_wake);
            }
        }
        self.decoders.retain(|decoder| !decoder.sinks.is_empty());
    }

    /// Returns the SSRC for which NACK has to be enabled (true) or disabled (false), if that changed. Call after
    /// [`Self::run`], which may have filled or abandoned the gap.
    pub(crate) fn take_nack_change(&mut self) -> Option<(u32, bool)> {
        match (self.nacking_ssrc, self.jitter.has_gap()) {
            (None, true) => {
                self.nacking_ssrc = Some(self.ssrc);
                Some((self.ssrc, true))
            }
            (Some(_), false) => self.nacking_ssrc.take().map(|asked| (asked, false)),
            (None, false) | (Some(_), true) => None,
        }
    }

    /// When to call [`Self::run`] if no packet arrives before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.jitter.deadline()
    }

    pub(crate) fn report(&self) -> ReceiveReport {
        ReceiveReport {
            ssrc: self.ssrc,
            counters: self.jitter.counters(),
            jitter_s: self.jitter.jitter_s(),
            levels: self.levels,
        }
    }

    /// Assigns the sinks to the decoders by format. Existing decoders are kept.
    fn update_decoders(&mut self, sinks: Vec<Weak<Sink>>) {
        for decoder in &mut self.decoders {
            decoder.sinks.clear();
        }
        for weak in sinks {
            let Some(format) = weak.upgrade().map(|sink| sink.format()) else {
                continue;
            };
            match self.decoders.iter_mut().find(|decoder| decoder.format == format) {
                Some(decoder) => decoder.sinks.push(weak),
                None => match FormatDecoder::new(format) {
                    Ok(decoder) => self.decoders.push(FormatDecoder { sinks: vec![weak], ..decoder }),
                    Err(error) => tracing::error!(%error, ?format, "failed to create an Opus decoder"),
                },
            }
        }
    }
}

/// The decoder of one format and the sinks that it writes to.
struct FormatDecoder {
    format: Format,
    opus_format: OpusFormat,
    decoder: Decoder,
    resampler: Option<Resampler>,
    /// Decoded samples that do not fill a frame yet, at the rate of `format`.
    pending: Vec<i16>,
    sinks: Vec<Weak<Sink>>,
}

impl FormatDecoder {
    fn new(format: Format) -> Result<Self, audiopus::Error> {
        let opus_format = format.opus_format();
        Ok(Self {
            format,
            opus_format,
            decoder: Decoder::new(opus_format.opus_rate(), opus_format.opus_channels())?,
            resampler: Resampler::between(opus_format.rate(), format.rate(), opus_format.channels()),
            pending: Vec::new(),
            sinks: Vec::new(),
        })
    }

    /// Decodes one step and appends complete frames to `frames`.
    fn play(
        &mut self,
        step: &PlayoutStep,
        enabled: bool,
        levels: &mut Levels,
        frames: &mut Vec<AudioFrame<'static>>,
    ) {
        // Zeroing a buffer for the longest packet would evict most of the L1 cache at each step.
        if self.opus_format.samples_in_ticks(step.ticks()) <= USUAL_PACKET_SAMPLES {
            self.play_with_buffer(&mut [0; USUAL_PACKET_SAMPLES], step, enabled, levels, frames);
        } else {
            self.play_with_buffer(&mut [0; MAX_SAMPLES], step, enabled, levels, frames);
        }
    }

    /// As [`Self::play`], with `pcm` as the decode buffer, which must be long enough for the step.
    fn play_with_buffer(
        &mut self,
        pcm: &mut [i16],
        step: &PlayoutStep,
        enabled: bool,
        levels: &mut Levels,
        frames: &mut Vec<AudioFrame<'static>>,
    ) {
        let length = self.opus_format.samples_in_ticks(step.ticks()).min(pcm.len());
        let decoded = match step {
            PlayoutStep::Reset => {
                // The decoder state of the old source must not leak into the new one.
                match Decoder::new(self.opus_format.opus_rate(), self.opus_format.opus_channels()) {
                    Ok(decoder) => self.decoder = decoder,
                    Err(error) => tracing::error!(%error, "failed to restart the Opus decoder"),
                }
                0
            }
            PlayoutStep::Packet { payload, .. } => {
                let decoded = self.decode(Some(payload), pcm, false);
                // A packet that libopus rejects plays as silence of the same length.
                if decoded == 0 { length } else { decoded }
            }
            PlayoutStep::DecodeFec { next, .. } => {
                self.decode(Some(next), &mut pcm[..length], true);
                length
            }
            PlayoutStep::Conceal { ticks } => {
                self.conceal(*ticks, pcm);
                length
            }
            PlayoutStep::Silence { ticks } => {
                // May be longer than `pcm`.
                let samples = self.opus_format.samples_in_ticks(*ticks);
                self.append(&vec![0; samples], levels, frames);
                0
            }
        };
        let pcm = &mut pcm[..decoded];
        if !enabled {
            pcm.fill(0);
        }
        self.append(pcm, levels, frames);
    }

    fn decode(&mut self, packet: Option<&Arc<[u8]>>, pcm: &mut [i16], fec: bool) -> usize {
        let packet = packet.map(|packet| OpusPacket::try_from(&**packet)).transpose();
        let signals = MutSignals::try_from(pcm);
        match (packet, signals) {
            (Ok(packet), Ok(signals)) => {
                let samples = self.decoder.decode(packet, signals, fec).unwrap_or(0);
                samples * self.opus_format.channels()
            }
            _ => 0,
        }
    }

    /// Fills `pcm` with `ticks` of concealment, in pieces of at most 20 ms.
    fn conceal(&mut self, ticks: u32, pcm: &mut [i16]) {
        const PIECE_TICKS: u32 = 960;
        let (mut at, mut left) = (0, ticks.min(MAX_PACKET_TICKS));
        while left >= MIN_FRAME_TICKS {
            let piece = left.min(PIECE_TICKS);
            let samples = self.opus_format.samples_in_ticks(piece);
            self.decode(None, &mut pcm[at..at + samples], false);
            at += samples;
            left -= piece;
        }
    }

    /// Resamples `pcm` if needed and appends complete frames to `frames`.
    fn append(&mut self, pcm: &[i16], levels: &mut Levels, frames: &mut Vec<AudioFrame<'static>>) {
        match &mut self.resampler {
            Some(resampler) => resampler.push(pcm, &mut self.pending),
            // Most packets consist of whole frames and need no copy.
            None if self.pending.is_empty() => {
                let whole = self.split_frames(pcm, levels, frames);
                self.pending.extend_from_slice(&pcm[whole..]);
                return;
            }
            None => self.pending.extend_from_slice(pcm),
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.drain(..self.split_frames(&pending, levels, frames));
        self.pending = pending;
    }

    /// Splits `pcm` into frames; returns the number of samples used.
    fn split_frames(&self, pcm: &[i16], levels: &mut Levels, frames: &mut Vec<AudioFrame<'static>>) -> usize {
        let coded_channels = self.opus_format.channels();
        let instants = self.format.samples_in_ms(FRAME_MS) / self.format.channels() as usize;
        let whole = pcm.chunks_exact(instants * coded_channels);
        let remainder = whole.remainder().len();
        for frame in whole {
            levels.record(frame, FRAME);
            frames.push(AudioFrame {
                data: self.format.map_channels(frame, coded_channels).into(),
                sample_rate: self.format.rate(),
                num_channels: self.format.channels(),
                samples_per_channel: instants as u32,
            });
        }
        pcm.len() - remainder
    }

    fn deliver(&mut self, frames: &mut Vec<AudioFrame<'static>>, sinks_to_wake: &mut Vec<Arc<Sink>>) {
        if frames.is_empty() {
            return;
        }
        let mut remaining = self.sinks.len();
        self.sinks.retain(|sink| {
            let Some(sink) = sink.upgrade().filter(|sink| !sink.is_closed()) else {
                return false;
            };
            remaining -= 1;
            // The last sink, usually the only one, takes the frames without a copy.
            if remaining == 0 {
                sink.push(frames.drain(..))
            } else {
                sink.push(frames.iter().cloned())
            }
            sinks_to_wake.push(sink);
            true
        });
        frames.clear();
    }
}
