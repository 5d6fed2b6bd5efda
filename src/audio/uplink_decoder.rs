//! Decodes the binary frames of a client to 16 kHz mono samples.
//!
//! ```text
//!   frames ─▶ ReorderBuffer ─▶ PCM: bytes to samples, resampled to 16 kHz ─┐
//!                  └─▶ Opus: decoded, losses concealed             ┴─▶ PcmChunk
//! ```
//!
//! The client numbers its frames, across reconnects ([`ReorderBuffer`]). An odd byte at the end of a frame belongs
//! to the next one. A profile whose frames have no header has no numbers either: [`UplinkDecoder::take_bare`].

use std::time::Instant;

use crate::{
    audio::{
        SAMPLE_RATE_HZ,
        opus::OpusStream,
        pcm::{PcmBytes, Resampler},
        reorder_buffer::{Arrival, InTurn, ReorderBuffer},
    },
    protocol::{
        DecodeError,
        edge_v1::{
            audio::{Codec, UplinkFrame},
            from_client::AudioConfig,
        },
    },
    telemetry,
};

/// The maximum of back-fill after a reconnect, in samples: 5 s.
pub const MAX_BACKFILL_SAMPLES: usize = 5 * SAMPLE_RATE_HZ as usize;

/// The sample rates of Opus, in Hz (RFC 6716 §2).
const OPUS_RATES_HZ: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// The rates of PCM that are resampled, in Hz (docs/PROTOCOL.md). Others are refused: where a rate shares no
/// large factor with 16 kHz, a resampler takes megabytes.
const PCM_RATES_HZ: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

/// Consecutive samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcmChunk {
    /// Captured before the client's voice detection opened.
    pub pre_roll: bool,
    /// 16 kHz mono.
    pub samples: Vec<i16>,
}

/// The decoder of one session's binary frames.
#[derive(Default)]
pub struct UplinkDecoder {
    format: AudioConfig,
    order: ReorderBuffer,
    decoder: Decoder,
    /// How much back-fill came since the client attached, in samples.
    backfilled: usize,
}

enum Decoder {
    Pcm {
        bytes: PcmBytes,
        /// None where the client sends 16 kHz mono.
        resampler: Option<Box<Resampler>>,
    },
    Opus(OpusStream),
}

impl Default for Decoder {
    fn default() -> Self {
        Self::Pcm { bytes: PcmBytes::default(), resampler: None }
    }
}

impl UplinkDecoder {
    /// The format of the client's frames from now on.
    pub fn configure(&mut self, format: AudioConfig) -> Result<(), DecodeError> {
        self.decoder = Decoder::of(&format)?;
        self.format = format;
        Ok(())
    }

    /// A client attached; one that resumes says up to what number it has sent. Returns what had waited.
    pub fn attached(&mut self, sent: Option<u32>, now: Instant) -> Vec<PcmChunk> {
        self.backfilled = 0;
        match sent {
            Some(sent) => {
                let late = self.order.resume(sent, now);
                self.decode(late).0
            }
            None => {
                *self = Self::default();
                Vec::new()
            }
        }
    }

    /// The number of the last frame that arrived in order.
    pub fn last_seq(&self) -> Option<u32> {
        self.order.last()
    }

    /// Takes a frame; returns the samples that are ready, in order.
    pub fn take(&mut self, frame: UplinkFrame, now: Instant) -> Result<Vec<PcmChunk>, DecodeError> {
        if frame.codec != self.format.codec {
            return Err(DecodeError::Codec(match frame.codec {
                Codec::Lc3 => LC3,
                Codec::Pcm16le | Codec::Opus => "not what audio_config announced",
            }));
        }
        let mut turns = Vec::new();
        if self.order.take(frame, now, &mut turns) == Arrival::Stale {
            metrics::counter!(telemetry::UPLINK_STALE).increment(1);
        }
        match self.decode(turns) {
            (runs, None) => Ok(runs),
            // The samples that could be decoded count; the client is told at the next undecodable frame.
            (runs, Some(_)) if !runs.is_empty() => Ok(runs),
            (_, Some(error)) => Err(error),
        }
    }

    /// Takes the next frame without a header, in the announced format.
    pub fn take_bare(&mut self, payload: &[u8]) -> Result<Vec<i16>, DecodeError> {
        self.decoder.samples(payload, 0)
    }

    /// When [`due`](Self::due) has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.order.deadline()
    }

    /// What has waited long enough.
    pub fn due(&mut self, now: Instant) -> Vec<PcmChunk> {
        let turns = self.order.due(now);
        self.decode(turns).0
    }

    /// Decodes frames in order; returns the error of one of them, too.
    fn decode(&mut self, turns: Vec<InTurn>) -> (Vec<PcmChunk>, Option<DecodeError>) {
        let (mut runs, mut wrong) = (Vec::with_capacity(turns.len()), None);
        for InTurn { missing, frame } in turns {
            if missing > 0 {
                metrics::counter!(telemetry::UPLINK_LOST).increment(u64::from(missing));
            }
            if frame.backfill && self.backfilled >= MAX_BACKFILL_SAMPLES {
                metrics::counter!(telemetry::UPLINK_STALE).increment(1);
                continue;
            }
            match self.decoder.samples(&frame.payload, missing) {
                Ok(samples) => {
                    if frame.backfill {
                        self.backfilled += samples.len();
                    }
                    if !samples.is_empty() {
                        runs.push(PcmChunk { pre_roll: frame.pre_roll, samples });
                    }
                }
                Err(error) => wrong = Some(error),
            }
        }
        (runs, wrong)
    }
}

/// Why LC3 is not decoded (docs/PROTOCOL.md).
const LC3: &str = "lc3 is not decoded here: send pcm16le or opus";

impl Decoder {
    fn of(format: &AudioConfig) -> Result<Self, DecodeError> {
        match format.codec {
            Codec::Lc3 => Err(DecodeError::Codec(LC3)),
            Codec::Opus if !OPUS_RATES_HZ.contains(&format.sample_rate) => {
                Err(DecodeError::Codec("opus is at 8, 12, 16, 24 or 48 kHz"))
            }
            Codec::Opus if !(1..=2).contains(&format.channels) => {
                Err(DecodeError::Codec("opus has one or two channels"))
            }
            Codec::Opus => Ok(Self::Opus(OpusStream::new())),
            Codec::Pcm16le if format.sample_rate == SAMPLE_RATE_HZ && format.channels == 1 => {
                Ok(Self::default())
            }
            Codec::Pcm16le if !PCM_RATES_HZ.contains(&format.sample_rate) => {
                Err(DecodeError::Codec("pcm16le is at 8, 11.025, 12, 16, 22.05, 24, 32, 44.1 or 48 kHz"))
            }
            Codec::Pcm16le if !(1..=2).contains(&format.channels) => {
                Err(DecodeError::Codec("pcm16le has one or two channels"))
            }
            Codec::Pcm16le => {
                let channels = u16::from(format.channels);
                let resampler = Resampler::new(format.sample_rate, channels, SAMPLE_RATE_HZ)
                    .map_err(|_| DecodeError::Codec("sample rate or number of channels"))?;
                Ok(Self::Pcm { bytes: PcmBytes::default(), resampler: Some(Box::new(resampler)) })
            }
        }
    }

    /// The samples of a payload, before which `missing` frames are lost.
    fn samples(&mut self, payload: &[u8], missing: u32) -> Result<Vec<i16>, DecodeError> {
        match self {
            Self::Pcm { bytes, resampler } => {
                if missing > 0 {
                    bytes.reset();
                }
                let samples = bytes.decode(payload);
                Ok(match resampler {
                    Some(resampler) => resampler.process(&samples),
                    None => samples,
                })
            }
            Self::Opus(stream) => {
                stream.decode(payload, missing).map_err(|_| DecodeError::Codec("not an Opus packet"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn frame(seq: u32, payload: &'static [u8]) -> UplinkFrame {
        UplinkFrame {
            codec: Codec::Pcm16le,
            pre_roll: false,
            backfill: false,
            end: false,
            seq,
            capture_ms: 0,
            payload: payload.into(),
        }
    }

    const NOTHING: [i16; 0] = [];

    /// All samples that a frame brings.
    fn heard(uplink: &mut UplinkDecoder, frame: UplinkFrame) -> Vec<i16> {
        let runs = uplink.take(frame, clock::now()).unwrap();
        runs.into_iter().flat_map(|run| run.samples).collect()
    }

    #[test]
    fn an_odd_byte_belongs_to_the_next_frame() {
        let mut uplink = UplinkDecoder::default();
        assert_eq!(heard(&mut uplink, frame(1, &[1, 0, 2])), [1]);
        assert_eq!(heard(&mut uplink, frame(2, &[0, 3, 0])), [2, 3]);
        assert_eq!(uplink.take_bare(&[7]), Ok(vec![]));
        assert_eq!(uplink.take_bare(&[0]), Ok(vec![7]));
    }

    #[test]
    fn bare_samples_may_be_cut_anywhere() {
        let mut uplink = UplinkDecoder::default();
        for (payload, samples) in
            [(&[][..], vec![]), (&[1], vec![]), (&[0, 2, 0, 3], vec![1, 2]), (&[0], vec![3])]
        {
            assert_eq!(uplink.take_bare(payload), Ok(samples));
        }
    }

    #[test]
    fn after_a_gap_the_odd_byte_is_forgotten() {
        let mut uplink = UplinkDecoder::default();
        assert_eq!(heard(&mut uplink, frame(1, &[1, 0, 2])), [1]);
        assert_eq!(heard(&mut uplink, frame(3, &[4, 0])), [4]);
    }

    #[test]
    fn a_frame_is_heard_once_also_where_the_numbers_wrap() {
        let mut uplink = UplinkDecoder::default();
        assert_eq!(heard(&mut uplink, frame(u32::MAX, &[1, 0])), [1]);
        assert_eq!(heard(&mut uplink, frame(u32::MAX, &[1, 0])), NOTHING);
        assert_eq!(heard(&mut uplink, frame(0, &[2, 0])), [2]);
        assert_eq!(heard(&mut uplink, frame(u32::MAX - 1, &[9, 0])), NOTHING);
    }

    #[test]
    fn a_client_that_attaches_anew_counts_anew_and_one_that_returns_goes_on() {
        let mut uplink = UplinkDecoder::default();
        let now = clock::now();
        heard(&mut uplink, frame(500, &[1, 0]));

        uplink.attached(Some(500), now);
        assert_eq!(heard(&mut uplink, frame(500, &[1, 0])), NOTHING);
        assert_eq!(heard(&mut uplink, frame(501, &[2, 0])), [2]);

        uplink.attached(None, now);
        assert_eq!(heard(&mut uplink, frame(1, &[3, 0])), [3]);
    }

    #[test]
    fn five_seconds_of_back_fill_are_heard_and_not_more() {
        let mut uplink = UplinkDecoder::default();
        heard(&mut uplink, frame(1, &[]));
        let now = clock::now();
        uplink.attached(Some(1), now);

        let mut samples = 0;
        for seq in 2..=10 {
            let second = vec![1; 2 * SAMPLE_RATE_HZ as usize].into();
            let second = UplinkFrame { payload: second, backfill: true, ..frame(seq, &[]) };
            samples += heard(&mut uplink, second).len();
        }

        assert_eq!(samples, MAX_BACKFILL_SAMPLES);
        assert_eq!(heard(&mut uplink, frame(11, &[1, 0])), [1], "live sound goes on behind it");
    }

    #[test]
    fn live_sound_that_waited_is_heard_when_it_is_due() {
        let mut uplink = UplinkDecoder::default();
        let now = clock::now();
        uplink.take(frame(1, &[1, 0]), now).unwrap();
        uplink.attached(Some(3), now);
        assert_eq!(uplink.take(frame(4, &[4, 0]), now), Ok(vec![]));

        let runs = uplink.due(uplink.deadline().unwrap());

        assert_eq!(runs, [PcmChunk { pre_roll: false, samples: vec![4] }]);
        assert_eq!(uplink.deadline(), None);
    }

    #[test]
    fn pre_roll_is_told_apart() {
        let mut uplink = UplinkDecoder::default();
        let pre_roll = UplinkFrame { pre_roll: true, ..frame(1, &[1, 0]) };
        let runs = uplink.take(pre_roll, clock::now()).unwrap();
        assert_eq!(runs, [PcmChunk { pre_roll: true, samples: vec![1] }]);
    }

    #[test]
    fn another_rate_is_brought_to_ours() {
        let mut uplink = UplinkDecoder::default();
        let format = AudioConfig { sample_rate: 48_000, channels: 2, ..AudioConfig::default() };
        uplink.configure(format).unwrap();
        let second = vec![0; 48_000 * 2 * 2];
        let samples = heard(&mut uplink, UplinkFrame { payload: second.into(), ..frame(1, &[]) });
        assert!((15_000..=16_000).contains(&samples.len()), "{}", samples.len());
    }

    #[test]
    fn opus_is_decoded_and_a_hole_in_it_is_filled() {
        let encoder = audiopus::coder::Encoder::new(
            audiopus::SampleRate::Hz48000,
            audiopus::Channels::Mono,
            audiopus::Application::Voip,
        )
        .unwrap();
        let packet = |seq| {
            let mut bytes = vec![0; 1500];
            let length = encoder.encode(&[100; 960], &mut bytes).unwrap();
            bytes.truncate(length);
            UplinkFrame { codec: Codec::Opus, payload: bytes.into(), ..frame(seq, &[]) }
        };
        let mut uplink = UplinkDecoder::default();
        let format = AudioConfig { codec: Codec::Opus, sample_rate: 48_000, channels: 1 };
        uplink.configure(format).unwrap();

        assert_eq!(heard(&mut uplink, packet(1)).len(), 320);
        assert_eq!(heard(&mut uplink, packet(4)).len(), 3 * 320);
        let nonsense = UplinkFrame { codec: Codec::Opus, ..frame(5, &[]) };
        assert!(matches!(uplink.take(nonsense, clock::now()), Err(DecodeError::Codec(_))));
        assert_eq!(heard(&mut uplink, packet(6)).len(), 320);
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        let mut uplink = UplinkDecoder::default();
        let opus = UplinkFrame { codec: Codec::Opus, ..frame(1, &[]) };
        assert!(matches!(uplink.take(opus, clock::now()), Err(DecodeError::Codec(_))));
        let lc3 = UplinkFrame { codec: Codec::Lc3, ..frame(1, &[]) };
        assert_eq!(uplink.take(lc3, clock::now()), Err(DecodeError::Codec(LC3)));
        for (codec, sample_rate, channels) in [
            (Codec::Lc3, 16_000, 1),
            (Codec::Pcm16le, 0, 1),
            (Codec::Pcm16le, 16_000, 9),
            (Codec::Opus, 44_100, 1),
            (Codec::Opus, 48_000, 3),
        ] {
            let refused = uplink.configure(AudioConfig { codec, sample_rate, channels });
            assert!(matches!(refused, Err(DecodeError::Codec(_))), "{codec:?} {sample_rate} {channels}");
        }
    }
}
