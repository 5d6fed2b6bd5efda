//! Receives one track: packets in, PCM into the track's sinks.
//!
//! Each format that a stream asked for has a decoder of its own, since Opus decodes straight to a rate and a
//! number of channels. A track without streams is not decoded at all.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use audiopus::MutSignals;
use audiopus::coder::Decoder;
use audiopus::packet::Packet as OpusPacket;

use super::format::{Coded, Format};
use super::jitter::{JitterBuffer, Packet, Play};
use super::opus::{MAX_PACKET_TICKS, MIN_FRAME_TICKS};
use super::red;
use super::report::{Levels, ReceiveReport};
use super::resample::Resampler;
use super::sink::{Sink, Sinks};
use crate::audio_frame::AudioFrame;

/// The length of the frames that streams deliver.
const FRAME_MS: u32 = 10;
const FRAME: Duration = Duration::from_millis(FRAME_MS as u64);

/// Samples of the longest packet in two channels at 48 kHz, and of one of 20 ms, as nearly all are.
const MAX_SAMPLES: usize = MAX_PACKET_TICKS as usize * 2;
const USUAL_SAMPLES: usize = 960 * 2;

/// How a packet's payload is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Opus as it is.
    Opus,
    /// Opus with copies of its predecessors (RFC 2198), where Opus has this payload type.
    Red {
        /// The payload type of Opus.
        opus: u8,
    },
}

/// See the module.
#[derive(Default)]
pub(crate) struct Receiver {
    jitter: JitterBuffer,
    voices: Vec<Voice>,
    /// The version of the track's list of sinks that `voices` was made from.
    version: u32,
    levels: Levels,
    /// The source that was heard of last.
    ssrc: u32,
    /// The source whose missing packets the peer is being asked for.
    asking: Option<u32>,
    /// Frames on their way to the sinks; kept to save allocating it for each packet.
    frames: Vec<AudioFrame<'static>>,
}

impl Receiver {
    /// Takes a packet off the network.
    pub(crate) fn insert(&mut self, packet: Packet, packing: Packing, now: Instant) {
        self.ssrc = packet.ssrc;
        match packing {
            Packing::Opus => self.jitter.insert(packet, now),
            Packing::Red { opus } => {
                let Some(unpacked) = red::unpack(&packet.payload, opus) else {
                    return;
                };
                let packet = Packet { payload: unpacked.primary, ..packet };
                self.jitter.insert(packet.clone(), now);
                for (before, copy) in (1..).zip(unpacked.earlier) {
                    self.jitter.insert_copy(&packet, before, copy.ticks_before, copy.payload, now);
                }
            }
        }
    }

    /// Plays what is due into the track's sinks, and adds those whose readers are to be woken to `heard`. A track
    /// that is not `enabled` is silent.
    pub(crate) fn run(&mut self, sinks: &Sinks, enabled: bool, now: Instant, heard: &mut Vec<Arc<Sink>>) {
        if self.version != sinks.version() {
            self.version = sinks.version();
            self.meet(sinks.snapshot());
        }
        while let Some(play) = self.jitter.poll(now) {
            for voice in &mut self.voices {
                voice.play(&play, enabled, &mut self.levels, &mut self.frames);
                voice.deliver(&mut self.frames, heard);
            }
        }
        self.voices.retain(|voice| !voice.sinks.is_empty());
    }

    /// The source whose missing packets the peer is to be asked for from now on, or no longer. To be called after
    /// [`Self::run`], which may have closed the hole.
    pub(crate) fn asks_anew(&mut self) -> Option<(u32, bool)> {
        match (self.asking, self.jitter.has_hole()) {
            (None, true) => {
                self.asking = Some(self.ssrc);
                Some((self.ssrc, true))
            }
            (Some(_), false) => self.asking.take().map(|asked| (asked, false)),
            (None, false) | (Some(_), true) => None,
        }
    }

    /// When [`Self::run`] has something to do if no packet comes before.
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

    /// Sorts the sinks by format, and keeps the decoders that are already at work.
    fn meet(&mut self, sinks: Vec<Weak<Sink>>) {
        for voice in &mut self.voices {
            voice.sinks.clear();
        }
        for weak in sinks {
            let Some(format) = weak.upgrade().map(|sink| sink.format()) else {
                continue;
            };
            match self.voices.iter_mut().find(|voice| voice.format == format) {
                Some(voice) => voice.sinks.push(weak),
                None => match Voice::new(format) {
                    Ok(voice) => self.voices.push(Voice { sinks: vec![weak], ..voice }),
                    Err(error) => tracing::error!(%error, ?format, "no decoder for an audio stream"),
                },
            }
        }
    }
}

/// The decoder of one format, and who listens to it.
struct Voice {
    format: Format,
    coded: Coded,
    decoder: Decoder,
    resampler: Option<Resampler>,
    /// Decoded samples that do not fill a frame yet, in `format`.
    rest: Vec<i16>,
    sinks: Vec<Weak<Sink>>,
}

impl Voice {
    fn new(format: Format) -> Result<Self, audiopus::Error> {
        let coded = format.coded();
        Ok(Self {
            format,
            coded,
            decoder: Decoder::new(coded.opus_rate(), coded.opus_channels())?,
            resampler: Resampler::between(coded.rate(), format.rate(), coded.channels()),
            rest: Vec::new(),
            sinks: Vec::new(),
        })
    }

    /// Decodes one step, and puts the whole frames it makes into `frames`.
    fn play(
        &mut self,
        play: &Play,
        enabled: bool,
        levels: &mut Levels,
        frames: &mut Vec<AudioFrame<'static>>,
    ) {
        // A buffer that is made for the longest packet fills the processor's first cache with zeros each time.
        if self.coded.samples_in_ticks(play.ticks()) <= USUAL_SAMPLES {
            self.play_through(&mut [0; USUAL_SAMPLES], play, enabled, levels, frames);
        } else {
            self.play_through(&mut [0; MAX_SAMPLES], play, enabled, levels, frames);
        }
    }

    /// The same by way of `pcm`, which is long enough.
    fn play_through(
        &mut self,
        pcm: &mut [i16],
        play: &Play,
        enabled: bool,
        levels: &mut Levels,
        frames: &mut Vec<AudioFrame<'static>>,
    ) {
        let length = self.coded.samples_in_ticks(play.ticks()).min(pcm.len());
        let decoded = match play {
            Play::Restart => {
                // Nothing of the old source may sound into the new one.
                match Decoder::new(self.coded.opus_rate(), self.coded.opus_channels()) {
                    Ok(decoder) => self.decoder = decoder,
                    Err(error) => tracing::error!(%error, "decoder not restarted"),
                }
                0
            }
            Play::Packet { payload, .. } => {
                let decoded = self.decode(Some(payload), pcm, false);
                // A packet that libopus refuses plays as silence of its length.
                if decoded == 0 { length } else { decoded }
            }
            Play::Recover { next, .. } => {
                self.decode(Some(next), &mut pcm[..length], true);
                length
            }
            Play::Conceal { ticks } => {
                self.conceal(*ticks, pcm);
                length
            }
            Play::Silence { ticks } => {
                // Longer than the buffer; there is nothing to decode anyway.
                let samples = self.coded.samples_in_ticks(*ticks);
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
                samples * self.coded.channels()
            }
            _ => 0,
        }
    }

    /// Fills `pcm` with `ticks` of concealment, in pieces that libopus takes.
    fn conceal(&mut self, ticks: u32, pcm: &mut [i16]) {
        const PIECE_TICKS: u32 = 960;
        let (mut at, mut left) = (0, ticks.min(MAX_PACKET_TICKS));
        while left >= MIN_FRAME_TICKS {
            let piece = left.min(PIECE_TICKS);
            let samples = self.coded.samples_in_ticks(piece);
            self.decode(None, &mut pcm[at..at + samples], false);
            at += samples;
            left -= piece;
        }
    }

    /// Adds samples of the coded format, and cuts off whole frames.
    fn append(&mut self, pcm: &[i16], levels: &mut Levels, frames: &mut Vec<AudioFrame<'static>>) {
        match &mut self.resampler {
            Some(resampler) => resampler.push(pcm, &mut self.rest),
            // Nearly every packet is of whole frames, and nothing of it has to wait.
            None if self.rest.is_empty() => {
                let whole = self.cut(pcm, levels, frames);
                self.rest.extend_from_slice(&pcm[whole..]);
                return;
            }
            None => self.rest.extend_from_slice(pcm),
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.drain(..self.cut(&rest, levels, frames));
        self.rest = rest;
    }

    /// Makes frames of `pcm`, and says how much of it they are.
    fn cut(&self, pcm: &[i16], levels: &mut Levels, frames: &mut Vec<AudioFrame<'static>>) -> usize {
        let coded_channels = self.coded.channels();
        let instants = self.format.samples_in_ms(FRAME_MS) / self.format.channels() as usize;
        let whole = pcm.chunks_exact(instants * coded_channels);
        let rest = whole.remainder().len();
        for frame in whole {
            levels.hear(frame, FRAME);
            frames.push(AudioFrame {
                data: self.format.spread(frame, coded_channels).into(),
                sample_rate: self.format.rate(),
                num_channels: self.format.channels(),
                samples_per_channel: instants as u32,
            });
        }
        pcm.len() - rest
    }

    fn deliver(&mut self, frames: &mut Vec<AudioFrame<'static>>, heard: &mut Vec<Arc<Sink>>) {
        if frames.is_empty() {
            return;
        }
        let mut listeners = self.sinks.len();
        self.sinks.retain(|sink| {
            let Some(sink) = sink.upgrade().filter(|sink| !sink.is_closed()) else {
                return false;
            };
            listeners -= 1;
            // The last one, mostly the only one, gets the frames themselves.
            if listeners == 0 {
                sink.push(frames.drain(..))
            } else {
                sink.push(frames.iter().cloned())
            }
            heard.push(sink);
            true
        });
        frames.clear();
    }
}
